//! `/api/v1/streams`: what is live.

use actix_web::{
    get,
    web::{Data, Json, Query},
};
use proto::v1::{self, streams_server::Streams as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Answer, Refusals, Request, Rest,
    caller::Caller,
    documents::{Format, Stream, instant, word},
};

/// A live stream.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LiveStream {
    /// Its name.
    stream: Stream,
    /// `live`, or `interrupted`: its worker is not heard from.
    state: String,
    /// UUID of its publish.
    publish_id: String,
    /// UUID of the worker that takes it.
    worker_id: String,
    /// That worker's name.
    worker: String,
    /// Publisher's address.
    client: String,
    /// When the publish began.
    started: Option<String>,
    /// What it is recorded in.
    recording_ids: Vec<String>,
    /// Media bits a second as of the worker's last word.
    bits_per_second: u64,
}

/// A page of live streams.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LiveStreams {
    /// In the order of their names.
    streams: Vec<LiveStream>,
    /// Empty on the last page.
    next_page_token: String,
}

/// Which live streams are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedStreams {
    /// Most entries wanted: 1 to 1000; 0: 100.
    #[param(maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before; empty: the first page.
    page_token: String,
    /// Only of this push domain.
    domain: String,
    /// Only of this application.
    app: String,
}

/// Lists live streams.
#[utoipa::path(tag = "streams", responses((status = 200, body = LiveStreams), Refusals))]
#[get("/streams")]
pub(super) async fn list_streams(caller: Caller, rest: Data<Rest>, page: Query<WantedStreams>) -> Answer<LiveStreams> {
    let page = page.into_inner();
    let request = v1::ListStreamsRequest {
        page_size: page.page_size,
        page_token: page.page_token,
        domain: page.domain,
        app: page.app,
    };
    let answer = rest.api.list_streams(caller.request(request)).await?.into_inner();
    let live = |live: v1::LiveStream| LiveStream {
        state: word(live.state().as_str_name(), "STREAM_STATE_"),
        stream: live.stream.into(),
        publish_id: live.publish_id,
        worker_id: live.worker_id,
        worker: live.worker_name,
        client: live.client_addr,
        started: instant(live.started_ms),
        recording_ids: live.recording_ids,
        bits_per_second: live.counters.map_or(0, |counters| counters.bits_per_second),
    };
    Ok(Json(LiveStreams {
        streams: answer.streams.into_iter().map(live).collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Which stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Named {
    /// Push domain.
    domain: String,
    /// Application.
    app: String,
    /// Stream name.
    stream: String,
}

/// A place where a rule for the stream may stand.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Candidate {
    /// The triple with `*` for any, or `built-in`.
    rule: String,
    /// `domain+app+stream`, `domain+stream`, `domain+app`, `domain`, `built-in`.
    specificity: String,
    /// There is such a rule.
    exists: bool,
    /// It wins.
    wins: bool,
    /// Why.
    reason: String,
    /// Its template; empty: none.
    template: String,
}

/// Why a stream is recorded, or not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explanation {
    /// The most specific first.
    candidates: Vec<Candidate>,
    /// What a publish that starts now would be recorded in; empty: it would not be.
    formats: Vec<Format>,
    /// The answer in one sentence.
    summary: String,
    /// The stream is live; its settings were frozen when its publish began and may differ.
    live: bool,
}

/// Says which rule would win for a stream of this name and why, whether it is live or not.
#[utoipa::path(tag = "streams", responses((status = 200, body = Explanation), Refusals))]
#[get("/streams/explain")]
pub(super) async fn explain_stream(caller: Caller, rest: Data<Rest>, named: Query<Named>) -> Answer<Explanation> {
    let Named { domain, app, stream } = named.into_inner();
    caller.domain(&domain)?;
    let request = v1::ExplainStreamRequest {
        stream: Some(v1::StreamKey { domain, app, stream }),
    };
    let answer = rest.api.explain_stream(Request::new(request)).await?.into_inner();
    let formats = answer.formats().map(Format::from).collect();
    let candidate = |candidate: v1::RuleCandidate| Candidate {
        rule: candidate.rule,
        specificity: candidate.specificity,
        exists: candidate.exists,
        wins: candidate.wins,
        reason: candidate.reason,
        template: candidate.template_name,
    };
    Ok(Json(Explanation {
        candidates: answer.candidates.into_iter().map(candidate).collect(),
        formats,
        summary: answer.summary,
        live: answer.live,
    }))
}
