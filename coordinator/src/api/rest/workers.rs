//! `/api/v1/workers`.

use actix_web::{
    get,
    web::{Data, Json, Query},
};
use proto::v1::{self, fleet_server::Fleet as _};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Paging, Refusals, Request, Rest, caller::Caller, documents::word};

/// A worker, as its heartbeats show it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Worker {
    /// UUID.
    worker_id: String,
    /// Name for people.
    name: String,
    /// Where it takes RTMP, `host:port`.
    rtmp_addr: String,
    /// Version of its program.
    version: String,
    /// `alive`, `silent`, `lost`, `draining`.
    state: String,
    /// Time since it was last heard from, ms.
    heard_ms_ago: u64,
    /// Streams that it holds.
    streams: u32,
    /// Sources that it fetches.
    pulls: u32,
    /// Media bits a second that it takes.
    bits_per_second: u64,
    /// CPU time that its process used, thousandths of one core.
    cpu_milli: u32,
    /// Bytes in its journals.
    journal_bytes: u64,
    /// Age of the oldest journal that is not settled, ms; 0: none.
    journal_age_ms: u64,
    /// Finished files on their way to the library.
    uploads_waiting: u32,
}

impl From<v1::Worker> for Worker {
    fn from(worker: v1::Worker) -> Self {
        let load = worker.load.unwrap_or_default();
        Worker {
            state: word(worker.state().as_str_name(), "WORKER_STATE_"),
            worker_id: worker.worker_id,
            name: worker.name,
            rtmp_addr: worker.rtmp_addr,
            version: worker.version,
            heard_ms_ago: worker.heard_ms_ago,
            streams: worker.streams,
            pulls: worker.pulls,
            bits_per_second: load.bits_per_second,
            cpu_milli: load.cpu_milli,
            journal_bytes: load.journal_bytes,
            journal_age_ms: load.journal_age_ms,
            uploads_waiting: load.uploads_waiting,
        }
    }
}

/// A page of workers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workers {
    /// In the order of their first starts.
    workers: Vec<Worker>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// Lists workers that are heard from, or that hold something.
#[utoipa::path(tag = "workers", responses((status = 200, body = Workers), Refusals))]
#[get("/workers")]
pub(super) async fn list_workers(caller: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Workers> {
    caller.everywhere()?;
    let page = page.into_inner();
    let request = v1::ListWorkersRequest {
        page_size: page.page_size,
        page_token: page.page_token,
    };
    let answer = rest.api.list_workers(Request::new(request)).await?.into_inner();
    Ok(Json(Workers {
        workers: answer.workers.into_iter().map(Worker::from).collect(),
        next_page_token: answer.next_page_token,
    }))
}
