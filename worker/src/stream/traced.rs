//! What a publish shows in the traces of its recordings. See [`shared::trace`].

use std::collections::BTreeSet;

use journal::Snapshot;
use shared::ids::RecordingId;
use shared::lease::{Epoch, Grant};
use shared::time::Timestamp;
use shared::trace::{Past, Place};

use super::document::About;

/// The recordings whose traces show the publish.
#[derive(Debug, Default)]
pub(super) struct Shown(BTreeSet<RecordingId>);

impl Shown {
    /// Those of a grant from before the process started were shown by the one before.
    pub(super) fn before(grant: Option<&Grant>) -> Self {
        let recordings = grant.iter().flat_map(|grant| &grant.recordings);
        Self(recordings.map(|recording| recording.id).collect())
    }

    /// Shows the publish in the trace of each recording that is new in the grant, and the recording itself where this is its first publish.
    pub(super) fn granted(&mut self, grant: &Grant, about: &About, now: Timestamp) {
        for recording in &grant.recordings {
            if !self.0.insert(recording.id) {
                continue;
            }
            let begin = Timestamp::from_millis(about.publish.started_ms);
            if recording.stitch.as_ref().is_none_or(|stitch| stitch.before.is_empty()) {
                let root = Past::between("recording", begin, now)
                    .with("aircheck.stream", about.stream.to_string())
                    .with("aircheck.cause", recording.cause.to_string());
                Place::recording(recording.id).show(root);
            }
            let publish = Past::between("publish", begin, now)
                .with("aircheck.stream", about.stream.to_string())
                .with("aircheck.publish.id", about.publish_id.to_string())
                .with("aircheck.worker.id", about.worker.to_string())
                .with("aircheck.epoch", count(grant.epoch.get()));
            Place::publish(recording.id, grant.epoch).show(publish);
        }
    }

    /// Shows the publish's end.
    pub(super) fn closed(&self, epoch: Epoch, reason: &str, all: &Snapshot) {
        for recording in &self.0 {
            let end = Past::now("unpublish")
                .with("aircheck.reason", reason.to_owned())
                .with("aircheck.units.video", count(all.video_units))
                .with("aircheck.units.audio", count(all.audio_units))
                .with("aircheck.bytes", count(all.bytes));
            Place::publish(*recording, epoch).past(end);
        }
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
