//! Recordings to finish, as messages.

use proto::v1;

use super::{WireError, id, required};
use crate::lease::{Epoch, FinishJob};

impl From<&FinishJob> for v1::FinishRecording {
    fn from(job: &FinishJob) -> Self {
        v1::FinishRecording {
            recording_id: job.recording.to_string(),
            stream: Some((&job.stream).into()),
            epoch: job.epoch.get(),
            before_epochs: job.before.iter().map(|epoch| epoch.get()).collect(),
            template: Some((&job.template).into()),
            reason: job.reason.clone(),
            lost: job.lost,
        }
    }
}

impl TryFrom<v1::FinishRecording> for FinishJob {
    type Error = WireError;
    fn try_from(job: v1::FinishRecording) -> Result<Self, WireError> {
        Ok(FinishJob {
            recording: id("recording_id", &job.recording_id)?,
            stream: required("stream", job.stream)?.try_into()?,
            epoch: Epoch::new(job.epoch),
            before: job.before_epochs.into_iter().map(Epoch::new).collect(),
            template: required("template", job.template)?.try_into()?,
            reason: job.reason,
            lost: job.lost,
        })
    }
}
