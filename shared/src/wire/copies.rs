//! Copies to the second place of objects, as messages.

use proto::v1;
use uuid::Uuid;

use super::{WireError, clock, id, text};
use crate::{
    recording::MediaFile,
    store::{CopyJob, CopyOf, CopyOrder},
    time::Timestamp,
};

/// Longest folder of a recording, bytes.
const MAX_ROOT_BYTES: usize = 4_096;

/// What a worker is to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What names it.
    pub id: Uuid,
    /// Which cause it has.
    pub since: Timestamp,
    /// The folder of its recording.
    pub root: String,
    /// The file; none: the document alone.
    pub file: Option<MediaFile>,
}

impl From<&CopyOrder> for v1::CopyOrder {
    fn from(order: &CopyOrder) -> Self {
        v1::CopyOrder {
            id: order.job.of.id().to_string(),
            since_ms: order.job.since.as_millis(),
            root: order.job.root(),
            file: order.file.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::CopyOrder> for Copy {
    type Error = WireError;
    fn try_from(order: v1::CopyOrder) -> Result<Self, WireError> {
        Ok(Copy {
            id: id("id", &order.id)?,
            since: clock("since_ms", order.since_ms)?,
            root: text("root", order.root, MAX_ROOT_BYTES)?,
            file: order.file.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&CopyJob> for v1::CopyJob {
    fn from(job: &CopyJob) -> Self {
        v1::CopyJob {
            file_id: match job.of {
                CopyOf::File(file) => file.to_string(),
                CopyOf::Document(_) => String::new(),
            },
            recording_id: job.recording.to_string(),
            stream: Some((&job.stream).into()),
            since_ms: job.since.as_millis(),
            worker_id: job.taken.map(|taken| taken.by.to_string()).unwrap_or_default(),
            failures: job.failures,
            retry_ms: if job.failures == 0 { 0 } else { job.retry_at.as_millis() },
            problem: job.problem.clone(),
        }
    }
}
