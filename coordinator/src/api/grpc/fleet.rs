//! Service `Fleet`.

use proto::v1;
use shared::{ids::WorkerId, time::Monotonic, wire};
use tonic::{Request, Response, Status};

use super::{Api, cut, status::Failure};
use crate::{
    actors::coordinator::DrainWorker,
    fleet::{Presence, Standing},
    planner::State,
};

/// Longest name of a worker that is asked for, bytes.
const MAX_NAME: usize = 255;

fn written(id: WorkerId, presence: &Presence, state: &State, now: Monotonic) -> v1::Worker {
    let (standing, silence) = presence.standing(now);
    let standing = match standing {
        Standing::Alive => v1::WorkerState::Alive,
        Standing::Silent => v1::WorkerState::Silent,
        Standing::Lost => v1::WorkerState::Lost,
        Standing::Draining => v1::WorkerState::Draining,
    };
    let (about, report) = (&presence.about, &presence.report);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Worker {
        worker_id: id.to_string(),
        name: state.fleet.name(id),
        rtmp_addr: about.rtmp_addr.clone(),
        version: about.version.clone(),
        state: standing.into(),
        heard_ms_ago: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
        streams: count(state.leases.held().filter(|(_, worker)| *worker == id).count()),
        pulls: count(state.pulls.set_of(id).pulls.len()),
        load: Some(v1::WorkerLoad {
            bits_per_second: presence.bits_per_second(),
            cpu_milli: report.cpu_milli,
            journal_bytes: report.journal_bytes,
            journal_age_ms: report.journal_age_ms,
            uploads_waiting: report.uploads_waiting,
        }),
    }
}

#[tonic::async_trait]
impl v1::fleet_server::Fleet for Api {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page(request.page_size, request.page_token).map_err(Failure::from)?;
        let after: Option<WorkerId> = match page.token.as_str() {
            "" => None,
            token => Some(wire::id("page_token", token).map_err(Failure::from)?),
        };
        let (wanted, now) = (page.entries() + 1, self.tools.clock.monotonic());
        let list: Vec<v1::Worker> = self
            .look(move |state| {
                let rest = state
                    .fleet
                    .all()
                    .filter(|(id, _)| after.is_none_or(|after| *id > after));
                rest.take(wanted)
                    .map(|(id, presence)| written(id, presence, state, now))
                    .collect()
            })
            .await?;
        let (workers, next_page_token) = cut(list, &page, |worker| worker.worker_id.clone());
        Ok(Response::new(v1::ListWorkersResponse {
            workers,
            next_page_token,
        }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let v1::DrainWorkerRequest { worker, undo } = request.into_inner();
        let asked = DrainWorker {
            worker: wire::text("worker", worker, MAX_NAME).map_err(Failure::from)?,
            draining: !undo,
        };
        let told = self.handle.ask(asked).await.map_err(Failure::from)?;
        let worker_id = told.map_err(Failure::from)?.to_string();
        Ok(Response::new(v1::DrainWorkerResponse { worker_id }))
    }
}
