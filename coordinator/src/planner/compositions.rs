//! What [`Planner`] decides about compositions.

use std::error::Error as StdError;

use shared::{ids::RecordingId, recording::RecordingState, store::StoreError, time::Timestamp};
use tracing::{info, warn};

use super::{At, Down, Output, Planner};

impl Planner {
    /// Gives compositions that need one a worker.
    pub(crate) fn compose_due(&mut self, at: At) -> Vec<Output> {
        let due = self.state.compositions.due(&self.state.fleet, (at.now, at.mono));
        let due = unless_unstored(due);
        let give_up = due.give_up.into_iter().map(Output::GiveUp);
        due.begin.into_iter().map(Output::PassOn).chain(give_up).collect()
    }

    /// A composition's recording has its next owner.
    pub(super) fn composition_passed_on(
        &mut self,
        composition: RecordingId,
        passed: Result<bool, StoreError>,
    ) -> Vec<Output> {
        let done = match passed {
            Ok(there) => there,
            Err(error) => {
                warn!(%composition, error = &error as &dyn StdError, "composition not passed on yet");
                false
            }
        };
        let Some(worker) = self.state.compositions.fenced(composition, done) else {
            return Vec::new();
        };
        info!(%composition, %worker, "composition given to a worker");
        vec![Output::Tell(
            worker,
            Down::Compose(self.state.compositions.jobs(worker)),
        )]
    }

    /// A recording has ended in the library: perhaps a composition's.
    pub(super) fn composed(
        &mut self,
        recording: RecordingId,
        (state, reason): (RecordingState, &str),
        at: At,
    ) -> Vec<Output> {
        let ended = self.state.compositions.ended(recording, state, reason, at.now);
        match unless_unstored(ended) {
            Some((txn, clear)) => vec![Output::Commit(txn), Output::Clear(Box::new(clear))],
            None => Vec::new(),
        }
    }

    /// Forgets compositions that ended long ago.
    pub(super) fn forget_compositions(&mut self, now: Timestamp) -> impl Iterator<Item = Output> {
        let forgotten = self.state.compositions.forget(now);
        forgotten.into_iter().map(|clear| Output::Clear(Box::new(clear)))
    }
}

/// A decision; nothing where it has no stored form, which is logged.
fn unless_unstored<T: Default>(decided: Result<T, StoreError>) -> T {
    decided.unwrap_or_else(|error| {
        warn!(error = &error as &dyn StdError, "decision has no stored form");
        T::default()
    })
}
