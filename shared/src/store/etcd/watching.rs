//! Watches that outlive their connection: each goes on from the revision it was told last, over any member.

use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    Prefix,
    errors::Refusal,
    members::{MAX_ANSWER_BYTES, Members, Repeat},
    revision,
};
use crate::store::{Batch, Change, Revision, StoreError, Watch, kv::prefix_end};

/// Batches that wait for the watcher; then etcd waits.
const QUEUE: usize = 1_024;

/// Opens a watch and keeps it going until its receiver is dropped or history is gone.
pub(super) async fn start(members: Members, prefix: Prefix, under: &str, after: Revision) -> Result<Watch, StoreError> {
    let mut watching = Watching {
        from: prefix.key(under),
        members,
        prefix,
        told: after,
    };
    let stream = watching.open().await?;
    let (sender, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = sender.closed() => {}
            why = watching.run(stream, &sender) => debug!(from = watching.from, why, "etcd watch ended"),
        }
    });
    Ok(Watch::over(queue, after))
}

struct Watching {
    members: Members,
    prefix: Prefix,
    from: String,
    told: Revision,
}

/// What one message of a watch means.
enum Heard {
    Batches(Vec<Batch>),
    /// Nothing happened up to this revision.
    Progress(Revision),
    Compacted,
    /// The member gave it up.
    Cancelled,
}

impl Watching {
    /// Opens a stream that begins after what was told, and waits until it stands.
    async fn open(&self) -> Result<WatchStream, Refusal> {
        let options = WatchOptions::new()
            .with_range(prefix_end(&self.from).unwrap_or_else(|| "\0".to_owned()))
            .with_start_revision(i64::try_from(self.told.0.saturating_add(1)).unwrap_or(i64::MAX))
            .with_progress_notify();
        self.members
            .call(Repeat::Always, |client| {
                let (from, options) = (self.from.clone(), options.clone());
                async move {
                    let mut watch = client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES);
                    watch.watch(from, Some(options)).await
                }
            })
            .await
    }

    /// Passes changes on. Returns when the watcher must scan again, or is gone.
    async fn run(&mut self, first: WatchStream, out: &mpsc::Sender<Batch>) -> &'static str {
        let mut stream = Some(first);
        loop {
            let Some(open) = &mut stream else {
                match self.open().await {
                    Ok(open) => stream = Some(open),
                    // The members were tried for a while already.
                    Err(Refusal::Away { .. }) => {}
                    Err(_) => return "refused",
                }
                continue;
            };
            let heard = match open.message().await {
                Ok(Some(response)) => self.read(&response),
                Ok(None) => Ok(Heard::Cancelled),
                Err(error) => {
                    debug!(error = %error, "etcd watch broken, going on over another member");
                    Ok(Heard::Cancelled)
                }
            };
            match heard {
                Ok(Heard::Batches(batches)) => {
                    for batch in batches {
                        self.told = batch.revision;
                        if out.send(batch).await.is_err() {
                            return "nobody watches";
                        }
                    }
                }
                Ok(Heard::Progress(revision)) => self.told = self.told.max(revision),
                Ok(Heard::Compacted) => return "compacted",
                Ok(Heard::Cancelled) => {
                    stream = None;
                    tokio::time::sleep(super::members::FIRST_WAIT).await;
                }
                Err(_) => return "a key that is not ours",
            }
        }
    }

    fn read(&self, response: &WatchResponse) -> Result<Heard, StoreError> {
        if response.compact_revision() > 0 {
            return Ok(Heard::Compacted);
        }
        if response.canceled() {
            return Ok(Heard::Cancelled);
        }
        if response.events().is_empty() {
            let header = response
                .header()
                .map_or(Revision(0), |header| revision(header.revision()));
            // The word that a watch stands says the store's revision, not how far the watch has come.
            return Ok(Heard::Progress(if response.created() { Revision(0) } else { header }));
        }
        let mut batches: Vec<Batch> = Vec::new();
        for event in response.events() {
            let (revision, change) = self.change(event)?;
            match batches.last_mut().filter(|batch| batch.revision == revision) {
                Some(batch) => batch.changes.push(change),
                None => batches.push(Batch {
                    revision,
                    changes: vec![change],
                }),
            }
        }
        Ok(Heard::Batches(batches))
    }

    fn change(&self, event: &Event) -> Result<(Revision, Change), StoreError> {
        let Some(found) = event.kv() else {
            return Err(StoreError::Corrupt {
                key: self.from.clone(),
                problem: "an event without a key".to_owned(),
            });
        };
        let change = match event.event_type() {
            EventType::Put => Change::Put(self.prefix.entry(found)?),
            EventType::Delete => Change::Delete(self.prefix.strip(found.key())?),
        };
        Ok((revision(found.mod_revision()), change))
    }
}
