//! `/api/v1/pulls`: streams that are fetched from an origin.

use actix_web::{
    delete, get, patch, post,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, pull_sources_server::PullSources as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Answer, Deleted, Paging, Refusals, Request, Rest,
    caller::Caller,
    deleted,
    documents::{Stream, instant, moment, word},
    problem::Problem,
    there, unseen,
};

/// A pull source.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pull {
    /// UUID.
    pull_id: String,
    /// What it is recorded as.
    stream: Stream,
    /// Where it is fetched from; user, password and query are shown as `***`.
    url: String,
    /// Kept, but not fetched.
    paused: bool,
    /// Not fetched before this moment.
    from: Option<String>,
    /// Not fetched from this moment on.
    until: Option<String>,
    /// An origin's webhook made it.
    by_hook: bool,
    /// `paused`, `scheduled`, `ended`, `unplaced`, `connecting`, `waiting`, `live`.
    state: String,
    /// UUID of the worker that fetches it; empty: none.
    worker_id: String,
    /// That worker's name.
    worker: String,
    /// Why the worker's last try ended.
    last_error: String,
    /// Tries that ended in a row without media.
    failures: u32,
    /// When it was made.
    created: Option<String>,
    /// When its settings changed last.
    updated: Option<String>,
}

impl From<v1::PullSource> for Pull {
    fn from(pull: v1::PullSource) -> Self {
        Pull {
            state: word(pull.state().as_str_name(), "PULL_SOURCE_STATE_"),
            pull_id: pull.pull_id,
            stream: pull.stream.into(),
            url: pull.url,
            paused: pull.paused,
            from: instant(pull.from_ms),
            until: instant(pull.until_ms),
            by_hook: pull.by_hook,
            worker_id: pull.worker_id,
            worker: pull.worker_name,
            last_error: pull.last_error,
            failures: pull.failures,
            created: instant(pull.created_ms),
            updated: instant(pull.updated_ms),
        }
    }
}

/// A pull source to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPull {
    /// What it is recorded as.
    stream: Stream,
    /// `rtmp://HOST[:PORT]/APP/STREAM`, or `http://` and `https://` for HTTP-FLV; at most 2048 bytes.
    url: String,
    /// Made, but not fetched yet.
    #[serde(default)]
    paused: bool,
    /// Not fetched before this moment.
    from: Option<String>,
    /// Not fetched from this moment on.
    until: Option<String>,
}

/// What changes of a pull source; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PullChange {
    /// Where it is fetched from.
    url: Option<String>,
    /// Kept, but not fetched.
    paused: Option<bool>,
    /// Not fetched before this moment; empty: no bound.
    from: Option<String>,
    /// Not fetched from this moment on; empty: no bound.
    until: Option<String>,
    /// End the running fetch and begin another.
    #[serde(default)]
    restart: bool,
}

/// A page of pull sources.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pulls {
    /// In the order of their making.
    pulls: Vec<Pull>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

fn by_id(id: &str) -> Option<v1::PullRef> {
    Some(v1::PullRef {
        by: Some(v1::pull_ref::By::PullId(id.to_owned())),
    })
}

/// The source, if the caller may see it.
async fn seen(caller: &Caller, rest: &Rest, id: &str) -> Result<v1::PullSource, Problem> {
    let request = v1::GetPullSourceRequest { pull: by_id(id) };
    let answer = rest.api.get_pull_source(Request::new(request)).await?.into_inner();
    let pull = there(answer.pull_source)?;
    match caller.sees(pull.stream.as_ref()) {
        true => Ok(pull),
        false => Err(unseen(id)),
    }
}

/// A moment that may be empty.
fn bound(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    match text {
        None => Ok(None),
        Some("") => Ok(Some(0)),
        Some(text) => moment(name, text).map(Some),
    }
}

/// Lists pull sources.
#[utoipa::path(tag = "pulls", responses((status = 200, body = Pulls), Refusals))]
#[get("/pulls")]
pub(super) async fn list_pulls(caller: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Pulls> {
    let page = page.into_inner();
    let request = v1::ListPullSourcesRequest {
        page_size: page.page_size,
        page_token: page.page_token,
    };
    let answer = rest.api.list_pull_sources(Request::new(request)).await?.into_inner();
    let pulls = answer.pull_sources.into_iter();
    Ok(Json(Pulls {
        pulls: pulls
            .filter(|pull| caller.sees(pull.stream.as_ref()))
            .map(Pull::from)
            .collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Makes a pull source: the least loaded worker fetches it.
#[utoipa::path(tag = "pulls", responses((status = 200, body = Pull), Refusals))]
#[post("/pulls")]
pub(super) async fn create_pull(caller: Caller, rest: Data<Rest>, pull: Json<NewPull>) -> Answer<Pull> {
    let pull = pull.into_inner();
    caller.domain(&pull.stream.domain)?;
    let request = v1::CreatePullSourceRequest {
        stream: Some(pull.stream.into()),
        url: pull.url,
        paused: pull.paused,
        from_ms: bound("from", pull.from.as_deref())?.unwrap_or(0),
        until_ms: bound("until", pull.until.as_deref())?.unwrap_or(0),
    };
    let answer = rest.api.create_pull_source(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.pull_source)?.into()))
}

/// Reads a pull source.
#[utoipa::path(tag = "pulls", responses((status = 200, body = Pull), Refusals))]
#[get("/pulls/{pull_id}")]
pub(super) async fn get_pull(caller: Caller, rest: Data<Rest>, pull_id: Path<String>) -> Answer<Pull> {
    Ok(Json(seen(&caller, &rest, &pull_id).await?.into()))
}

/// Changes what is given of a pull source. Another URL, and `restart`, end the running fetch.
#[utoipa::path(tag = "pulls", responses((status = 200, body = Pull), Refusals))]
#[patch("/pulls/{pull_id}")]
pub(super) async fn update_pull(
    caller: Caller,
    rest: Data<Rest>,
    pull_id: Path<String>,
    change: Json<PullChange>,
) -> Answer<Pull> {
    seen(&caller, &rest, &pull_id).await?;
    let change = change.into_inner();
    let request = v1::UpdatePullSourceRequest {
        pull: by_id(&pull_id),
        url: change.url,
        paused: change.paused,
        from_ms: bound("from", change.from.as_deref())?,
        until_ms: bound("until", change.until.as_deref())?,
        restart: change.restart,
    };
    let answer = rest.api.update_pull_source(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.pull_source)?.into()))
}

/// Removes a pull source; its stream ends.
#[utoipa::path(tag = "pulls", responses((status = 200, body = Deleted), Refusals))]
#[delete("/pulls/{pull_id}")]
pub(super) async fn delete_pull(caller: Caller, rest: Data<Rest>, pull_id: Path<String>) -> Answer<Deleted> {
    seen(&caller, &rest, &pull_id).await?;
    let request = v1::DeletePullSourceRequest { pull: by_id(&pull_id) };
    rest.api.delete_pull_source(Request::new(request)).await?;
    Ok(deleted(pull_id.into_inner()))
}
