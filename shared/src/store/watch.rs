//! Recent changes, and who wants to hear of them: what a store's watches are made of.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc;

use super::{Batch, Change, Revision, StoreError};

/// Batches kept for watchers that come late. Older ones must be read by a scan.
const HISTORY: usize = 4_096;
/// Bytes of keys and values that those may hold.
const HISTORY_BYTES: usize = 8 << 20;
/// Batches that wait for one watcher. One that is further behind must scan again.
const QUEUE: usize = 1_024;

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    /// What happened before the watch began and is still at hand.
    past: VecDeque<Batch>,
    queue: mpsc::Receiver<Batch>,
    told: Revision,
}

impl Watch {
    /// A watch that is told through a queue; when that closes, the watcher must scan again.
    pub(super) fn over(queue: mpsc::Receiver<Batch>, after: Revision) -> Self {
        Watch {
            past: VecDeque::new(),
            queue,
            told: after,
        }
    }

    /// Waits for the next transaction that changed something under the prefix; its batch holds only those changes.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when this watcher was too slow or the store has closed: scan again and watch from there.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        let batch = match self.past.pop_front() {
            Some(batch) => Some(batch),
            None => self.queue.recv().await,
        };
        let batch = batch.ok_or(StoreError::Compacted { up_to: self.told })?;
        self.told = batch.revision;
        Ok(batch)
    }
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    /// A reader may see a transaction a moment before it is told here; what it has seen is not told again.
    after: Revision,
    queue: mpsc::Sender<Batch>,
}

#[derive(Debug)]
struct State {
    /// In the order of revisions, without gaps above `compacted`.
    history: VecDeque<Batch>,
    bytes: usize,
    compacted: Revision,
    watchers: Vec<Watcher>,
}

/// Where a store tells its batches and watchers hear of them.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
}

impl Hub {
    /// Knows nothing of what happened up to `revision`.
    pub(super) fn new(revision: Revision) -> Self {
        Hub {
            state: Mutex::new(State {
                history: VecDeque::new(),
                bytes: 0,
                compacted: revision,
                watchers: Vec::new(),
            }),
        }
    }

    /// Passes a batch on. Watchers that are too far behind lose their watch. Empty batches are no news.
    pub(super) fn publish(&self, batch: Batch) {
        if batch.changes.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.watchers.retain(|watcher| {
            match cut(&batch, &watcher.prefix).filter(|_| batch.revision > watcher.after) {
                None => !watcher.queue.is_closed(),
                Some(part) => watcher.queue.try_send(part).is_ok(),
            }
        });
        state.bytes += bytes(&batch);
        state.history.push_back(batch);
        while state.history.len() > HISTORY || (state.bytes > HISTORY_BYTES && state.history.len() > 1) {
            let Some(oldest) = state.history.pop_front() else { break };
            state.bytes -= bytes(&oldest);
            state.compacted = oldest.revision;
        }
    }

    /// Forgets everything: of what happened up to `revision` not all is known here. Every watcher must scan again.
    pub(super) fn restart(&self, revision: Revision) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            history: VecDeque::new(),
            bytes: 0,
            compacted: revision,
            watchers: Vec::new(),
        };
    }

    /// Starts a watch.
    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if after < state.compacted {
            return Err(StoreError::Compacted { up_to: state.compacted });
        }
        let recent = state.history.iter().filter(|batch| batch.revision > after);
        let past = recent.filter_map(|batch| cut(batch, prefix)).collect();
        let (sender, queue) = mpsc::channel(QUEUE);
        state.watchers.push(Watcher {
            prefix: prefix.to_owned(),
            after,
            queue: sender,
        });
        Ok(Watch {
            past,
            queue,
            told: after,
        })
    }
}

fn bytes(batch: &Batch) -> usize {
    let one = |change: &Change| match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Delete(key) => key.len(),
    };
    batch.changes.iter().map(one).sum()
}

/// The part of a batch that lies under a prefix.
fn cut(batch: &Batch, prefix: &str) -> Option<Batch> {
    let changes: Vec<_> = batch
        .changes
        .iter()
        .filter(|change| change.key().starts_with(prefix))
        .cloned()
        .collect();
    (!changes.is_empty()).then_some(Batch {
        revision: batch.revision,
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64, key: &str) -> Batch {
        Batch {
            revision: Revision(revision),
            changes: vec![Change::Delete(key.to_owned())],
        }
    }

    #[tokio::test]
    async fn a_watcher_that_is_too_slow_is_told_to_scan_again() {
        let hub = Hub::new(Revision(0));
        let mut slow = hub.watch("", Revision(0)).unwrap();
        for revision in 1..=(QUEUE as u64 + 1) {
            hub.publish(batch(revision, "a"));
        }
        for revision in 1..=QUEUE as u64 {
            assert_eq!(slow.next().await.unwrap().revision, Revision(revision));
        }
        assert!(matches!(
            slow.next().await,
            Err(StoreError::Compacted { up_to: Revision(1_024) })
        ));
    }

    #[tokio::test]
    async fn what_a_reader_saw_before_it_was_told_is_not_told_again() {
        let hub = Hub::new(Revision(0));
        let mut watch = hub.watch("", Revision(1)).unwrap();
        hub.publish(batch(1, "seen"));
        hub.publish(batch(2, "new"));
        assert_eq!(watch.next().await.unwrap(), batch(2, "new"));
    }

    #[test]
    fn history_is_bounded() {
        let hub = Hub::new(Revision(0));
        for revision in 1..=(HISTORY as u64 + 5) {
            hub.publish(batch(revision, "a"));
        }
        assert!(matches!(
            hub.watch("", Revision(4)),
            Err(StoreError::Compacted { up_to: Revision(5) })
        ));
        assert!(hub.watch("", Revision(5)).is_ok());
        for revision in 1..=3 {
            let key = format!("{revision}{}", "k".repeat(HISTORY_BYTES / 2));
            hub.publish(batch(10_000 + revision, &key));
        }
        let compacted = hub.watch("", Revision(10_001));
        assert!(
            matches!(
                compacted,
                Err(StoreError::Compacted {
                    up_to: Revision(10_002)
                })
            ),
            "{compacted:?}"
        );
    }
}
