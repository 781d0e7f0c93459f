//! [`Teller`]: a store around the store, which adds to each transaction the events of what it changes.
//!
//! Publishes, recordings and files are written by several hands; that none of them can forget to tell is why it is done here.
//! A value is compared with the one that it replaces. Between the two another transaction could come only where it does no harm:
//! publishes are written by one hand, and recordings and files under a guard that the transaction would break.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use shared::{
    config::EventsConfig,
    ids::StreamKey,
    recording::{MediaFile, Recording},
    store::{
        Entry, Guard, LeaseId, MAX_TXN_OPS, MetaStore, Op, PublishRecord, Repo, Revision, Scan, Scanned, StoreError,
        Txn, Watch, keys,
    },
    telemetry::CoordinatorMetrics,
    time::{Clock, Timestamp},
};
use tokio::sync::Mutex;
use tracing::error;
use uuid::Uuid;

use super::{
    book::Book,
    letter::{Draft, Letter},
    tell::{self, Manner},
};

/// Bits of a letter's place that count within a millisecond.
const COUNT_BITS: u32 = 16;

/// Places of letters: each is behind all before it, whatever the clock does and whoever led before.
#[derive(Debug, Default)]
struct Sequence {
    last: u64,
    /// The leader under whom the store was asked for the last place; none: it was not asked yet.
    asked: Option<Option<Revision>>,
}

/// Tells of what changes.
#[derive(Debug)]
pub(crate) struct Teller {
    inner: Arc<dyn MetaStore>,
    clock: Arc<dyn Clock>,
    config: EventsConfig,
    metrics: CoordinatorMetrics,
    sequence: Mutex<Sequence>,
}

/// A publish or recording of which there is something to tell.
struct Told {
    stream: StreamKey,
    subject: Uuid,
    drafts: Vec<Draft>,
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|problem| StoreError::Corrupt {
        key: key.to_owned(),
        problem: problem.to_string(),
    })
}

fn told_of(op: &Op) -> Option<(&str, &[u8])> {
    match op {
        Op::Put { key, value, .. }
            if [keys::PUBLISHES, keys::RECORDINGS, keys::FILES]
                .iter()
                .any(|prefix| key.starts_with(prefix)) =>
        {
            Some((key, value))
        }
        _ => None,
    }
}

impl Teller {
    pub(crate) fn new(
        inner: Arc<dyn MetaStore>,
        clock: Arc<dyn Clock>,
        config: EventsConfig,
        metrics: CoordinatorMetrics,
    ) -> Self {
        Teller {
            inner,
            clock,
            config,
            metrics,
            sequence: Mutex::default(),
        }
    }

    fn repo(&self) -> Repo {
        Repo::new(Arc::clone(&self.inner))
    }

    /// What one change is in events; none where nobody hears of that stream.
    async fn compare(
        &self,
        book: &Book,
        (key, value): (&str, &[u8]),
        manner: Manner,
    ) -> Result<Option<Told>, StoreError> {
        let repo = self.repo();
        if key.starts_with(keys::PUBLISHES) {
            let after: PublishRecord = read(key, value)?;
            if book.receiver(&after.stream).is_none() {
                return Ok(None);
            }
            let before = repo.get::<PublishRecord>(key).await?.map(|(before, _)| before);
            let drafts = tell::publish(before.as_ref(), &after, manner);
            let subject = after.id.as_uuid();
            return Ok(Some(Told {
                stream: after.stream,
                subject,
                drafts,
            }));
        }
        if key.starts_with(keys::RECORDINGS) {
            let after: Recording = read(key, value)?;
            if book.receiver(&after.stream).is_none() {
                return Ok(None);
            }
            let before = repo.get::<Recording>(key).await?.map(|(before, _)| before);
            let drafts = tell::recording(before.as_ref(), &after, manner);
            let subject = after.id.as_uuid();
            return Ok(Some(Told {
                stream: after.stream,
                subject,
                drafts,
            }));
        }
        let file: MediaFile = read(key, value)?;
        if book.receiver(&file.stream).is_none() || self.inner.get(key).await?.is_some() {
            return Ok(None);
        }
        // No file enters a recording that has ended, unless what was lost is brought back: that was told of in its time.
        let recording = repo.recording(file.recording).await?;
        let Some(recording) = recording.filter(|recording| !recording.state.is_terminal()) else {
            return Ok(None);
        };
        let drafts = tell::file(&file, &recording, manner);
        let subject = file.recording.as_uuid();
        Ok(Some(Told {
            stream: file.stream,
            subject,
            drafts,
        }))
    }

    /// Lays the events of a transaction into it.
    async fn tell(&self, mut txn: Txn) -> Result<Txn, StoreError> {
        if !txn.ops.iter().any(|op| told_of(op).is_some()) {
            return Ok(txn);
        }
        let Some((book, _)) = self.repo().get::<Book>(keys::CALLBACKS).await? else {
            return Ok(txn);
        };
        let manner = Manner {
            app_id: self.config.app_id,
            task_stream_param: self.config.task_stream_param,
            now: self.clock.now(),
        };
        let mut letters = Vec::new();
        for change in txn.ops.iter().filter_map(told_of) {
            let told = match self.compare(&book, change, manner).await {
                // Recording does not wait for what can no longer be told.
                Err(error @ StoreError::Corrupt { .. }) => {
                    error!(error = &error as &dyn std::error::Error, "a change is not told of");
                    continue;
                }
                other => other?,
            };
            let Some(told) = told else { continue };
            let Some(template) = book.receiver(&told.stream) else {
                continue;
            };
            let mut drafts = told.drafts;
            drafts.retain(|draft| tell::wanted(draft, &template.spec));
            if !drafts.is_empty() {
                letters.push((template.id, told.subject, told.stream, drafts));
            }
        }
        let waiting = usize::try_from(self.metrics.events_pending.get()).unwrap_or(0);
        if !letters.is_empty()
            && (waiting >= self.config.max_pending || txn.ops.len() + letters.len() > MAX_TXN_OPS - RESERVED)
        {
            let lost = letters.iter().map(|(.., drafts)| drafts.len() as u64).sum();
            self.metrics.events_dropped.inc_by(lost);
            error!(
                lost,
                waiting, "events are not written down: too many are waiting for their receivers"
            );
            return Ok(txn);
        }
        for (template, subject, stream, drafts) in letters {
            let sequence = self.next(&txn, manner.now).await?;
            let letter = Letter::new(sequence, (manner.now, template, subject, stream), drafts);
            txn = txn.put_json(keys::outbox(sequence), &letter)?;
        }
        Ok(txn)
    }

    /// The next place.
    async fn next(&self, txn: &Txn, now: Timestamp) -> Result<u64, StoreError> {
        let leader = txn.guards.iter().find_map(|guard| match guard {
            Guard::AtRevision(key, revision) if key == keys::LEADER => Some(*revision),
            _ => None,
        });
        let mut sequence = self.sequence.lock().await;
        if sequence.asked != Some(leader) {
            for prefix in [keys::OUTBOX, keys::EVENTS] {
                let mut scan = Scan::prefix(prefix).limit(1);
                scan.reverse = true;
                let found = self.inner.scan(scan).await?.entries;
                let place = found.first().and_then(|entry| place_of(&entry.key));
                sequence.last = sequence.last.max(place.unwrap_or(0));
            }
            sequence.asked = Some(leader);
        }
        let at = u64::try_from(now.as_millis()).unwrap_or(0) << COUNT_BITS;
        sequence.last = at.max(sequence.last + 1);
        Ok(sequence.last)
    }
}

/// Room that a transaction leaves for those who lay their own changes over it.
const RESERVED: usize = 4;

/// A letter's place, from its key.
pub(super) fn place_of(key: &str) -> Option<u64> {
    u64::from_str_radix(keys::last_part(key), 16).ok()
}

/// Where letters stand that were written at a moment; those of earlier ones stand before.
pub(super) fn place_at(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0) << COUNT_BITS
}

#[async_trait]
impl MetaStore for Teller {
    fn held(&self) -> std::sync::Weak<()> {
        self.inner.held()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.inner.get_many(keys).await
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.inner.commit(self.tell(txn).await?).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }
}

#[cfg(test)]
#[path = "teller_tests.rs"]
mod tests;
