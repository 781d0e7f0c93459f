//! Recordings that go on across publishes: how they stand, and who owns them.

use serde::{Deserialize, Serialize};

use super::{Guard, Repo, StoreError, Txn, keys};
use crate::{
    ids::{PublishId, RecordingId, StreamKey, WorkerId},
    lease::{Epoch, Window},
    recording::{Cause, Recording, RecordingState},
    template::TemplateSpec,
    time::Timestamp,
};

/// How often a change is tried again when another was quicker.
const ATTEMPTS: usize = 16;

/// A recording that goes on with the stream's next publish, from its first publish to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StitchRecord {
    /// Which.
    pub recording: RecordingId,
    /// Of which stream.
    pub stream: StreamKey,
    /// Why it is recorded.
    pub cause: Cause,
    /// Its settings, as frozen with the first publish.
    pub template: TemplateSpec,
    /// Epochs of its publishes, the earliest first.
    pub epochs: Vec<Epoch>,
    /// Publishes of which not all is in storage yet, with their workers.
    pub open: Vec<(Epoch, WorkerId)>,
    /// Those of them that their worker has left out of its heartbeats while they seemed live, and since when: it may never have had them.
    #[serde(default)]
    pub unnamed: Vec<(Epoch, Timestamp)>,
    /// The worker of the last publish.
    pub worker: WorkerId,
    /// Names where its objects lie: workers that name the same read each other's. Empty: only `worker` does.
    #[serde(default)]
    pub storage: String,
    /// When the last publish began, by that worker's clock; 0: not known.
    #[serde(default)]
    pub began: Timestamp,
    /// The publish that feeds it; none: its stream is away.
    pub live: Option<PublishId>,
    /// While its stream is away: until when it waits.
    pub until: Timestamp,
    /// When its stream went away last; 0: it never did.
    #[serde(default)]
    pub since: Timestamp,
    /// Which part of its publishes it is of: a task's is over with its task.
    #[serde(default)]
    pub window: Window,
    /// A task's, granted ahead of its time: nothing of it has arrived, as far as is known.
    #[serde(default)]
    pub ahead: bool,
    /// Why the last publish ended, in words.
    pub reason: String,
    /// Who finishes it, and under which ownership.
    pub finishing: Option<(Epoch, WorkerId)>,
}

/// Ownership of a recording passes on.
#[derive(Debug, Clone, Copy)]
pub struct NextOwner {
    /// Under this epoch.
    pub epoch: Epoch,
    /// To this worker.
    pub worker: WorkerId,
    /// With this publish; none: to finish it.
    pub publish: Option<PublishId>,
}

impl Repo {
    /// Passes a recording on to its next owner: who holds an earlier epoch is fenced from now on. Repeating it changes nothing.
    /// False if there is no such recording, or it is to be finished and has ended.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn pass_on(&self, id: RecordingId, next: NextOwner) -> Result<bool, StoreError> {
        let key = keys::recording(id);
        for _ in 0..ATTEMPTS {
            let Some((mut recording, revision)) = self.get::<Recording>(&key).await? else {
                return Ok(false);
            };
            if next.publish.is_none() && recording.state.is_terminal() {
                return Ok(false);
            }
            if recording.epoch >= next.epoch {
                return Ok(true);
            }
            recording.epoch = next.epoch;
            recording.worker = next.worker;
            if let Some(publish) = next.publish {
                recording.publishes.push(publish);
                recording.state = RecordingState::Recording;
                recording.reason.clear();
                recording.ended = None;
            }
            let txn = Txn::new()
                .guard(Guard::AtRevision(key.clone(), revision))
                .put_json(key.clone(), &recording)?;
            match self.store().commit(txn).await {
                Ok(_) => return Ok(true),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Stale { key })
    }
}
