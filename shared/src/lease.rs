//! Who may write: [`Epoch`], [`FencingToken`], and the answer to a worker that asks for a stream.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    ids::{PublishId, RecordingId, StreamKey},
    recording::{Cause, RecordingState},
    template::TemplateSpec,
    time::Timestamp,
};

/// Ownership count of a stream: it only grows, and only the coordinator raises it. 0 is before the first owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Takes a count.
    #[must_use]
    pub const fn new(count: u64) -> Self {
        Epoch(count)
    }

    /// The count.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next owner's.
    #[must_use]
    pub const fn next(self) -> Self {
        Epoch(self.0 + 1)
    }

    /// As it stands in object keys: `e000003`, so that keys sort by epoch.
    #[must_use]
    pub fn path_component(self) -> String {
        format!("e{:06}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a writer shows with every write to a recording: ownership as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FencingToken {
    /// What it may write to.
    pub recording: RecordingId,
    /// Under which ownership.
    pub epoch: Epoch,
}

/// The writer's ownership is over. It must stop, not retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("fenced: holds epoch {held}, the recording is at {current}")]
pub struct Fenced {
    /// What the writer showed.
    pub held: Epoch,
    /// What the recording is at.
    pub current: Epoch,
}

impl FencingToken {
    /// Lets the write through unless the recording has gone on to a later epoch.
    ///
    /// # Errors
    /// [`Fenced`]. An epoch that was never granted (later than the recording's) is refused as well.
    pub fn check(&self, current: Epoch) -> Result<(), Fenced> {
        if self.epoch == current {
            Ok(())
        } else {
            Err(Fenced {
                held: self.epoch,
                current,
            })
        }
    }
}

/// The coordinator's answer to a worker that asks for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// Go on, and record this.
    Granted(Grant),
    /// Disconnect the publisher and forget the publish.
    Refused(Refusal),
}

/// The stream is the worker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Goes into object keys and with every commit.
    pub epoch: Epoch,
    /// Version of `recordings`: grows with each change of the set while the publish is live.
    #[serde(default)]
    pub revision: u64,
    /// What to record; empty: nothing.
    pub recordings: Vec<GrantedRecording>,
}

/// Which part of a publish a recording is of, by the wall clock of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Window {
    /// It begins at the random access point at or before this moment; none: with the publish.
    pub from: Option<Timestamp>,
    /// It ends with the last unit at or before this moment; none: with the publish.
    pub until: Option<Timestamp>,
    /// It ends where it has come to, and never begins if it has not begun.
    pub cancelled: bool,
}

/// A recording to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedRecording {
    /// Identity; a repeated request gives the same.
    pub id: RecordingId,
    /// Why.
    pub cause: Cause,
    /// Settings, frozen for the whole publish, with every default filled in. Has at least one format.
    pub template: Arc<TemplateSpec>,
    /// Where the library has it. In a terminal state nothing is left to do.
    pub state: RecordingState,
    /// Which part of the publish it is of.
    #[serde(default)]
    pub window: Window,
    /// It goes on with the stream's next publish: its HLS pauses with this one's end. None: it ends with it.
    #[serde(default)]
    pub stitch: Option<Stitch>,
}

/// What a recording that goes on across publishes has behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stitch {
    /// Epochs of the publishes before this one, the latest first; empty: this is the first.
    pub before: Vec<Epoch>,
    /// The worker of the latest of them is not heard from: what it has stored by now is all that will be.
    pub lost: bool,
}

/// A recording whose stream did not come back, to be finished by whoever is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishJob {
    /// Which.
    pub recording: RecordingId,
    /// Of which stream.
    pub stream: StreamKey,
    /// Ownership to finish it under.
    pub epoch: Epoch,
    /// Epochs of its publishes, the latest first.
    pub before: Vec<Epoch>,
    /// Its settings.
    pub template: TemplateSpec,
    /// Why its last publish ended, in words.
    pub reason: String,
    /// Something of it lies with a worker that is not heard from.
    pub lost: bool,
}

impl FinishJob {
    /// The recording's folder.
    #[must_use]
    pub fn folder(&self) -> String {
        self.template.folder(&self.stream, self.recording)
    }
}

/// The set of recordings of a live publish, as it is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingSet {
    /// Which publish.
    pub publish: PublishId,
    /// What it was granted, with the revision and the recordings of now.
    pub grant: Grant,
}

/// Why a lease is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// In words.
    pub reason: String,
}

/// Why a lease is refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The stream is live on another worker that is heard from.
    AlreadyLive,
    /// The publish belongs to another worker.
    NotYours,
    /// The stream may not be published.
    Forbidden,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{IdGen as _, Seeded},
        time::Timestamp,
    };

    #[test]
    fn only_the_current_epoch_passes() {
        let recording = RecordingId::from_uuid(Seeded::new(1).uuid(Timestamp::default()));
        let token = FencingToken {
            recording,
            epoch: Epoch::new(2),
        };
        assert_eq!(token.check(Epoch::new(2)), Ok(()));
        assert_eq!(
            token.check(Epoch::new(3)).unwrap_err().to_string(),
            "fenced: holds epoch 2, the recording is at 3"
        );
        assert!(token.check(Epoch::new(1)).is_err());
        assert_eq!(Epoch::new(2).next().path_component(), "e000003");
    }
}
