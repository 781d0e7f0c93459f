//! [`Committer`]: makes decisions durable in the order they were made.
//!
//! Decisions are in force in memory at once and answered when they are durable. What gathers while one transaction is
//! on its way goes into the next one together, so that a store with slow commits still takes many decisions a second.
//! After a failure nothing more is committed: memory is ahead of the store, and the supervisor loads a fresh state.

use shared::{
    store::{MAX_TXN_BYTES, MAX_TXN_OPS, MetaStore, Op, StoreError, Txn},
    telemetry::{CoordinatorMetrics, Reason},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Most operations of one transaction: those who lay their own guard over it need room, and so do the events of what it changes, which
/// are at most one for each two operations.
const MAX_OPS: usize = (MAX_TXN_OPS - 8) * 2 / 3;
/// Most bytes of one transaction, with room for the same.
const MAX_BYTES: usize = MAX_TXN_BYTES - (256 << 10);
/// Decisions that wait. One more cannot be made durable although it is in force already: that is a failure like one of the store.
const QUEUE: usize = 8_192;

struct Pending {
    txn: Txn,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Where decisions are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Pending>,
    /// There was no room for a decision.
    overrun: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
enum Unavailable {
    #[error("too many changes are waiting for the metadata store")]
    Full,
    #[error("the coordinator is starting anew after a failure of the metadata store")]
    Closed,
}

impl Committer {
    /// Starts the task. It ends when every handle is dropped, or tells `failed` why it gave up.
    pub(crate) fn start(
        store: Arc<dyn MetaStore>,
        metrics: CoordinatorMetrics,
        tasks: &tokio_util::task::TaskTracker,
        failed: impl FnOnce(StoreError) + Send + 'static,
    ) -> Self {
        let (queue, pending) = mpsc::channel(QUEUE);
        let overrun = Arc::<AtomicBool>::default();
        let watched = Arc::clone(&overrun);
        tasks.spawn_local(async move {
            if let Err(error) = run(store.as_ref(), &metrics, pending, &watched).await {
                failed(error);
            }
        });
        Committer { queue, overrun }
    }

    /// Hands in a decision; the order of calls is the order of commits. The future tells when it is durable.
    pub(crate) fn submit(&self, txn: Txn) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let (done, durable) = oneshot::channel();
        let sent = self.queue.try_send(Pending { txn, done });
        if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
            self.overrun.store(true, Ordering::Relaxed);
        }
        async move {
            match sent {
                Ok(()) => durable
                    .await
                    .unwrap_or_else(|_| Err(StoreError::unavailable(Unavailable::Closed))),
                Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::unavailable(Unavailable::Full)),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::unavailable(Unavailable::Closed)),
            }
        }
    }
}

async fn run(
    store: &dyn MetaStore,
    metrics: &CoordinatorMetrics,
    mut queue: mpsc::Receiver<Pending>,
    overrun: &AtomicBool,
) -> Result<(), StoreError> {
    let mut carried: Option<Pending> = None;
    loop {
        if overrun.load(Ordering::Relaxed) {
            return Err(StoreError::unavailable(Unavailable::Full));
        }
        let Some(first) = (match carried.take() {
            Some(pending) => Some(pending),
            None => queue.recv().await,
        }) else {
            return Ok(());
        };
        let mut txn = first.txn;
        let mut waiting = vec![first.done];
        while let Ok(next) = queue.try_recv() {
            if txn.ops.len() + next.txn.ops.len() > MAX_OPS || txn.bytes() + next.txn.bytes() > MAX_BYTES {
                carried = Some(next);
                break;
            }
            merge(&mut txn, next.txn);
            waiting.push(next.done);
        }
        let since = Instant::now();
        let result = if txn.ops.is_empty() {
            Ok(())
        } else {
            store.commit(txn).await.map(drop)
        };
        match &result {
            Ok(()) => {
                metrics.store_commits.inc();
                metrics.store_commit.took(since.elapsed());
            }
            Err(error) => {
                let reason = error.kind();
                metrics.store_errors.get_or_create(&Reason { reason }).inc();
            }
        };
        for done in waiting {
            // Who no longer waits does not need to know.
            drop(done.send(result.clone()));
        }
        result?;
    }
}

/// Lays a later decision over earlier ones: of each key only the last change counts.
fn merge(txn: &mut Txn, later: Txn) {
    txn.ops
        .retain(|op| !later.ops.iter().any(|new: &Op| new.key() == op.key()));
    txn.ops.extend(later.ops);
}

#[cfg(test)]
mod tests {
    use shared::{
        store::{Model, Scan},
        telemetry::Metrics,
        time::System,
    };
    use tokio_util::task::TaskTracker;

    use super::*;

    #[actix_rt::test]
    async fn decisions_are_committed_in_order_and_together() {
        let store: Arc<dyn MetaStore> = Arc::new(Model::new(Arc::new(System::new())));
        let metrics = Metrics::new().coordinator;
        let committer = Committer::start(Arc::clone(&store), metrics.clone(), &TaskTracker::new(), |_| {});
        let waits: Vec<_> = (0..300u32)
            .map(|n| committer.submit(Txn::new().put("last", n.to_string()).put(format!("k/{n}"), "")))
            .collect();
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(store.get("last").await.unwrap().unwrap().value, "299");
        assert_eq!(store.scan(Scan::prefix("k/")).await.unwrap().entries.len(), 300);
        assert!(metrics.store_commits.get() < 10, "{}", metrics.store_commits.get());
    }

    /// With the error that it gives up for.
    fn started() -> (Arc<dyn MetaStore>, Committer, oneshot::Receiver<StoreError>) {
        let store: Arc<dyn MetaStore> = Arc::new(Model::new(Arc::new(System::new())));
        let (tell, told) = oneshot::channel();
        let metrics = Metrics::new().coordinator;
        let failed = |error| drop(tell.send(error));
        let committer = Committer::start(Arc::clone(&store), metrics, &TaskTracker::new(), failed);
        (store, committer, told)
    }

    #[actix_rt::test]
    async fn a_decision_for_which_there_is_no_room_ends_what_is_in_force() {
        let (store, committer, told) = started();
        // Nothing is taken from the queue before this task waits for something.
        let mut waits: Vec<_> = (0..=QUEUE)
            .map(|n| committer.submit(Txn::new().put(format!("k/{n}"), "")))
            .collect();
        let last = waits.pop().unwrap().await.unwrap_err();
        assert!(last.to_string().contains("too many changes"), "{last}");
        assert!(
            matches!(told.await, Ok(StoreError::Unavailable(_))),
            "a fresh state is loaded"
        );
        assert_eq!(store.get(&format!("k/{QUEUE}")).await.unwrap(), None);
    }

    #[actix_rt::test]
    async fn after_a_failure_nothing_more_is_committed() {
        let (store, committer, told) = started();
        assert!(committer.submit(Txn::new().put("", "no such key")).await.is_err());
        assert!(matches!(told.await, Ok(StoreError::Invalid(_))));
        let late = committer.submit(Txn::new().put("a", "")).await.unwrap_err();
        assert!(late.to_string().contains("starting anew"), "{late}");
        assert_eq!(store.get("a").await.unwrap(), None);
    }
}
