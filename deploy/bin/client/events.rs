//! `aircheck event …`

use proto::v1::events_client::EventsClient;
use proto::v1::{Event, EventState, GetEventRequest, ListEventsRequest, ReplayEventRequest};
use serde_json::{Value, json};

use super::{Done, PAGE, connect, instant, print, said, stream_json, stream_name, table, when};
use crate::cli::{self, Client, EventCommand};

pub(crate) async fn run(command: EventCommand) -> Done {
    match command {
        EventCommand::List { state, limit, client } => {
            let state = match state {
                None => EventState::Unspecified,
                Some(cli::EventState::Pending) => EventState::Pending,
                Some(cli::EventState::Delivered) => EventState::Delivered,
                Some(cli::EventState::GivenUp) => EventState::GivenUp,
            };
            let mut service = EventsClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListEventsRequest {
                    state: state.into(),
                    page_size: PAGE,
                    page_token,
                };
                let page = service.list_events(request).await.map_err(said)?.into_inner();
                all.extend(page.events);
                page_token = page.next_page_token;
                if page_token.is_empty() || all.len() >= limit {
                    break;
                }
            }
            all.truncate(limit);
            let document = json!({ "events": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>())
            })
        }
        EventCommand::Show { event, client } => {
            let answer = EventsClient::new(connect(&client)?)
                .get_event(GetEventRequest { id: event })
                .await
                .map_err(said)?;
            show(&client, answer.into_inner().event)
        }
        EventCommand::Replay { event, client } => {
            let answer = EventsClient::new(connect(&client)?)
                .replay_event(ReplayEventRequest { id: event })
                .await
                .map_err(said)?;
            show(&client, answer.into_inner().event)
        }
    }
}

fn show(client: &Client, event: Option<Event>) -> Done {
    let event = event.ok_or("the coordinator sent no event")?;
    let mut document = document(&event);
    let body: Value = serde_json::from_str(&event.body)?;
    document["body"] = body.clone();
    print(client, &document, || {
        let body = serde_json::to_string_pretty(&body).unwrap_or_default();
        format!("{}{body}\n", table(&HEADINGS, &[row(&event)]))
    })
}

const HEADINGS: [&str; 7] = ["id", "kind", "stream", "state", "attempts", "made", "problem"];

fn state(event: &Event) -> &'static str {
    match event.state() {
        EventState::Unspecified => "",
        EventState::Pending => "pending",
        EventState::Delivered => "delivered",
        EventState::GivenUp => "given_up",
    }
}

fn document(event: &Event) -> Value {
    json!({
        "id": event.id,
        "kind": event.kind,
        "event_type": event.event_type,
        "stream": stream_json(event.stream.as_ref()),
        "subject": event.subject,
        "template_id": event.template_id,
        "state": state(event),
        "attempts": event.attempts,
        "tried": instant(event.tried_ms),
        "problem": event.problem,
        "created": instant(event.created_ms),
    })
}

fn row(event: &Event) -> Vec<String> {
    vec![
        event.id.clone(),
        event.kind.clone(),
        stream_name(event.stream.as_ref()),
        state(event).to_owned(),
        event.attempts.to_string(),
        when(event.created_ms),
        event.problem.clone(),
    ]
}
