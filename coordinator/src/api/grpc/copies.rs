//! Workers that copy to the second place of objects: what they have done, and what they are to do.

use std::sync::PoisonError;

use proto::v1;
use shared::{
    ids::WorkerId,
    wire::{self, WireError},
};
use tracing::debug;
use uuid::Uuid;

use super::{Api, status::Failure};

/// Most copies that one worker may be at.
const MAX_AT_A_TIME: usize = 64;
/// Longest text of a problem, bytes.
const MAX_PROBLEM: usize = 4_096;

impl Api {
    pub(super) async fn trade(&self, request: v1::TradeCopiesRequest) -> Result<v1::TradeCopiesResponse, Failure> {
        let said = request.done.len().max(request.failed.len()).max(request.holding.len());
        if said.max(request.want as usize) > MAX_AT_A_TIME {
            return Err(WireError::new("want", format!("more than {MAX_AT_A_TIME} copies at a time")).into());
        }
        let worker: WorkerId = wire::id("worker_id", &request.worker_id)?;
        let (repo, now) = (&self.tools.repo, self.tools.clock.now());
        for done in request.done {
            let since = wire::clock("done.since_ms", done.since_ms)?;
            repo.copied(worker, wire::id("done.id", &done.id)?, since, now).await?;
        }
        for failed in request.failed {
            let id: Uuid = wire::id("failed.id", &failed.id)?;
            let problem = wire::text("failed.problem", failed.problem, MAX_PROBLEM)?;
            debug!(%worker, %id, problem, "a copy to the second place of objects failed");
            repo.copy_failed(worker, id, &problem, now).await?;
        }
        let (mut holding, mut lost) = (Vec::new(), Vec::new());
        for id in request.holding {
            let held: Uuid = wire::id("holding", &id)?;
            match repo.hold_copy(worker, held, now).await? {
                true => holding.push(held),
                false => lost.push(id),
            }
        }
        let mut orders = Vec::new();
        if request.want > 0 && self.tools.second.is_some() {
            let after = *self.tools.copies_at.lock().unwrap_or_else(PoisonError::into_inner);
            let want = request.want as usize;
            let (taken, at) = repo.take_copies((worker, &holding), want, now, after).await?;
            *self.tools.copies_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
            orders.extend(taken.iter().map(Into::into));
        }
        Ok(v1::TradeCopiesResponse { orders, lost })
    }
}
