//! [`Marker`]: writes into the library which recordings are interrupted, in the order in which it was found out.

use futures_util::{StreamExt as _, stream};
use shared::{ids::RecordingId, store::Repo, time::Timestamp};
use tokio::sync::mpsc;
use tracing::warn;

/// Workers' comings and goings that wait.
const QUEUE: usize = 1_024;
/// Recordings marked at a time.
const AT_A_TIME: usize = 32;

struct Mark {
    recordings: Vec<RecordingId>,
    interrupted: bool,
    now: Timestamp,
}

/// Where findings are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Marker {
    queue: mpsc::Sender<Mark>,
}

impl Marker {
    /// Starts the task; it ends when every handle is dropped.
    pub(crate) fn start(repo: Repo, tasks: &tokio_util::task::TaskTracker) -> Self {
        let (queue, mut marks) = mpsc::channel::<Mark>(QUEUE);
        tasks.spawn_local(async move {
            while let Some(mark) = marks.recv().await {
                let repo = &repo;
                stream::iter(mark.recordings)
                    .for_each_concurrent(AT_A_TIME, async |recording| {
                        if let Err(error) = repo.set_interrupted(recording, mark.interrupted, mark.now).await {
                            // Only a label is lost: the worker's next commit for the recording sets it right.
                            warn!(%recording, interrupted = mark.interrupted, error = &error as &dyn std::error::Error, "recording not marked");
                        }
                    })
                    .await;
            }
        });
        Marker { queue }
    }

    /// Hands in a finding. When too many wait it is dropped, with a warning.
    pub(crate) fn mark(&self, recordings: Vec<RecordingId>, interrupted: bool, now: Timestamp) {
        if recordings.is_empty() {
            return;
        }
        let count = recordings.len();
        if self
            .queue
            .try_send(Mark {
                recordings,
                interrupted,
                now,
            })
            .is_err()
        {
            warn!(count, interrupted, "recordings not marked: too many marks are waiting");
        }
    }
}
