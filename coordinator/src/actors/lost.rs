//! What [`CoordinatorActor`] does about recordings whose worker does not come back.

use std::{collections::BTreeSet, error::Error as StdError};

use shared::{ids::WorkerId, time::Timestamp};
use tracing::warn;

use super::coordinator::CoordinatorActor;

impl CoordinatorActor {
    /// Ends what workers were recording that have been away for too long.
    pub(super) fn fail_lost(&self) {
        let now = self.tools.clock.now();
        let limit = i64::try_from(self.tools.config.lost_timeout.as_millis()).unwrap_or(i64::MAX);
        let until = Timestamp::from_millis(now.as_millis().saturating_sub(limit));
        let back: BTreeSet<WorkerId> = self.state.fleet.ready().map(|(worker, _)| worker).collect();
        let repo = self.tools.repo.clone();
        self.tools.tasks.spawn(async move {
            match repo.fail_lost(until, now, |worker| back.contains(&worker)).await {
                Ok(failed) if failed.is_empty() => {}
                Ok(failed) => warn!(
                    recordings = failed.len(),
                    "recordings given up: their worker was away for too long"
                ),
                Err(error) => warn!(error = &error as &dyn StdError, "lost recordings not looked for"),
            }
        });
    }
}
