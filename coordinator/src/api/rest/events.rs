//! `/api/v1/events`: what was told to receivers, and what is to be.

use actix_web::{
    get, post,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, events_server::Events as _};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Answer, Paging, Refusals, Request, Rest,
    caller::Caller,
    documents::{Stream, instant, word},
    problem::Problem,
    there, unseen,
};

/// An event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Event {
    /// The same whenever it is delivered.
    id: String,
    /// `push_start`, `push_end`, `file`, `status`, `exception`, `push_exception`.
    kind: String,
    /// Its number in that protocol.
    event_type: u32,
    /// What it is about.
    stream: Stream,
    /// The publish or recording that it is about, a UUID.
    subject: String,
    /// The callback template that says where it goes.
    template_id: u64,
    /// `pending`, `delivered`, `given_up`.
    state: String,
    /// Attempts so far.
    attempts: u32,
    /// The last attempt.
    tried: Option<String>,
    /// Why that failed.
    problem: String,
    /// When it came to be.
    created: Option<String>,
    /// What it says, without what is made when it goes out; null in lists.
    body: Value,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Event {
            state: word(event.state().as_str_name(), "EVENT_STATE_"),
            id: event.id,
            kind: event.kind,
            event_type: event.event_type,
            stream: event.stream.into(),
            subject: event.subject,
            template_id: event.template_id,
            attempts: event.attempts,
            tried: instant(event.tried_ms),
            problem: event.problem,
            created: instant(event.created_ms),
            body: serde_json::from_str(&event.body).unwrap_or(Value::Null),
        }
    }
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Events {
    /// Those on their way first, each the newest first.
    events: Vec<Event>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// Lists events.
#[utoipa::path(tag = "events", responses((status = 200, body = Events), Refusals))]
#[get("/events")]
pub(super) async fn list_events(caller: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Events> {
    let page = page.into_inner();
    let request = v1::ListEventsRequest {
        page_size: page.page_size,
        page_token: page.page_token,
        ..Default::default()
    };
    let answer = rest.api.list_events(Request::new(request)).await?.into_inner();
    let events = answer.events.into_iter();
    Ok(Json(Events {
        events: events
            .filter(|event| caller.sees(event.stream.as_ref()))
            .map(Event::from)
            .collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// The event, if the caller may see it.
async fn seen(caller: &Caller, rest: &Rest, id: &str) -> Result<v1::Event, Problem> {
    let request = v1::GetEventRequest { id: id.to_owned() };
    let answer = rest.api.get_event(Request::new(request)).await?.into_inner();
    let event = there(answer.event)?;
    match caller.sees(event.stream.as_ref()) {
        true => Ok(event),
        false => Err(unseen(id)),
    }
}

/// Reads an event with its body.
#[utoipa::path(tag = "events", responses((status = 200, body = Event), Refusals))]
#[get("/events/{event_id}")]
pub(super) async fn get_event(caller: Caller, rest: Data<Rest>, event_id: Path<String>) -> Answer<Event> {
    Ok(Json(seen(&caller, &rest, &event_id).await?.into()))
}

/// Sends an event that was delivered or given up on its way once more, under its id.
#[utoipa::path(tag = "events", responses((status = 200, body = Event), Refusals))]
#[post("/events/{event_id}/replay")]
pub(super) async fn replay_event(caller: Caller, rest: Data<Rest>, event_id: Path<String>) -> Answer<Event> {
    seen(&caller, &rest, &event_id).await?;
    let request = v1::ReplayEventRequest {
        id: event_id.into_inner(),
    };
    let answer = rest.api.replay_event(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.event)?.into()))
}
