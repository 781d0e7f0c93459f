//! Pulled streams, as messages.

use proto::v1;

use super::{WireError, id, required};
use crate::pull::{Pull, PullState, PullStatus};

impl From<&Pull> for v1::Pull {
    fn from(pull: &Pull) -> Self {
        v1::Pull {
            pull_id: pull.id.to_string(),
            stream: Some((&pull.stream).into()),
            url: pull.url.expose().to_owned(),
            restarts: pull.restarts,
        }
    }
}

impl TryFrom<v1::Pull> for Pull {
    type Error = WireError;
    fn try_from(pull: v1::Pull) -> Result<Self, WireError> {
        Ok(Pull {
            id: id("pull_id", &pull.pull_id)?,
            stream: required("stream", pull.stream)?.try_into()?,
            url: pull.url.parse().map_err(|error| WireError::new("url", error))?,
            restarts: pull.restarts,
        })
    }
}

/// Longest reason that a worker gives for a failed pull, bytes; the rest is left out.
const MAX_PULL_ERROR: usize = 512;

impl TryFrom<v1::PullStatus> for PullStatus {
    type Error = WireError;
    fn try_from(status: v1::PullStatus) -> Result<Self, WireError> {
        let state = match status.state() {
            v1::PullSourceState::Connecting => PullState::Connecting,
            v1::PullSourceState::Waiting => PullState::Waiting,
            v1::PullSourceState::Live => PullState::Live,
            _ => return Err(WireError::new("state", "must be CONNECTING, WAITING or LIVE")),
        };
        let mut error = status.error;
        error.truncate(error.floor_char_boundary(MAX_PULL_ERROR));
        Ok(PullStatus {
            state,
            error,
            failures: status.failures,
        })
    }
}

impl From<PullState> for v1::PullSourceState {
    fn from(state: PullState) -> Self {
        match state {
            PullState::Connecting => v1::PullSourceState::Connecting,
            PullState::Waiting => v1::PullSourceState::Waiting,
            PullState::Live => v1::PullSourceState::Live,
        }
    }
}
