//! `aircheck pull …`

use std::error::Error;

use proto::v1::pull_sources_client::PullSourcesClient;
use proto::v1::{
    CreatePullSourceRequest, DeletePullSourceRequest, GetPullSourceRequest, ListPullSourcesRequest, PullRef,
    PullSource, PullSourceState, UpdatePullSourceRequest, pull_ref,
};
use serde_json::{Value, json};

use super::{Done, PAGE, connect, instant, parse_stream, print, said, stream_json, stream_name, table, when};
use crate::cli::{Client, PullCommand};

pub(crate) async fn run(command: PullCommand) -> Done {
    match command {
        PullCommand::Create {
            stream,
            url,
            paused,
            from,
            until,
            client,
        } => {
            let request = CreatePullSourceRequest {
                stream: Some(parse_stream(&stream)?),
                url: read_url(url)?,
                paused,
                from_ms: from.unwrap_or(0),
                until_ms: until.unwrap_or(0),
            };
            let answer = PullSourcesClient::new(connect(&client)?)
                .create_pull_source(request)
                .await
                .map_err(said)?;
            show(&client, answer.into_inner().pull_source)
        }
        PullCommand::Update {
            pull,
            url,
            from,
            until,
            client,
        } => {
            let request = UpdatePullSourceRequest {
                url: url.map(read_url).transpose()?,
                from_ms: from,
                until_ms: until,
                ..changes(&pull)?
            };
            update(&client, request).await
        }
        PullCommand::Restart { pull, client } => {
            let request = UpdatePullSourceRequest {
                restart: true,
                ..changes(&pull)?
            };
            update(&client, request).await
        }
        PullCommand::Pause { pull, client } => pause(&pull, true, &client).await,
        PullCommand::Resume { pull, client } => pause(&pull, false, &client).await,
        PullCommand::Get { pull, client } => {
            let request = GetPullSourceRequest {
                pull: Some(named(&pull)?),
            };
            let answer = PullSourcesClient::new(connect(&client)?)
                .get_pull_source(request)
                .await
                .map_err(said)?;
            show(&client, answer.into_inner().pull_source)
        }
        PullCommand::List { client } => {
            let mut service = PullSourcesClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListPullSourcesRequest {
                    page_size: PAGE,
                    page_token,
                };
                let page = service.list_pull_sources(request).await.map_err(said)?.into_inner();
                all.extend(page.pull_sources);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let document = json!({ "pulls": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>())
            })
        }
        PullCommand::Delete { pull, client } => {
            let request = DeletePullSourceRequest {
                pull: Some(named(&pull)?),
            };
            PullSourcesClient::new(connect(&client)?)
                .delete_pull_source(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "deleted": pull }), || {
                format!("pull {pull} deleted\n")
            })
        }
    }
}

const HEADINGS: [&str; 6] = ["pull", "stream", "from", "state", "worker", "last error"];

/// A URL may hold a password, which has no place in a shell's history: `-` reads it from standard input.
fn read_url(url: String) -> Result<String, Box<dyn Error + Send + Sync>> {
    if url != "-" {
        return Ok(url);
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// An id, or else `DOMAIN/APP/STREAM`.
fn named(text: &str) -> Result<PullRef, Box<dyn Error + Send + Sync>> {
    let by = if text.contains('/') {
        pull_ref::By::Stream(parse_stream(text)?)
    } else {
        pull_ref::By::PullId(text.to_owned())
    };
    Ok(PullRef { by: Some(by) })
}

fn changes(pull: &str) -> Result<UpdatePullSourceRequest, Box<dyn Error + Send + Sync>> {
    Ok(UpdatePullSourceRequest {
        pull: Some(named(pull)?),
        ..UpdatePullSourceRequest::default()
    })
}

async fn pause(pull: &str, paused: bool, client: &Client) -> Done {
    let request = UpdatePullSourceRequest {
        paused: Some(paused),
        ..changes(pull)?
    };
    update(client, request).await
}

async fn update(client: &Client, request: UpdatePullSourceRequest) -> Done {
    let answer = PullSourcesClient::new(connect(client)?)
        .update_pull_source(request)
        .await
        .map_err(said)?;
    show(client, answer.into_inner().pull_source)
}

fn show(client: &Client, source: Option<PullSource>) -> Done {
    let source = source.ok_or("the coordinator sent no pull source")?;
    print(client, &document(&source), || table(&HEADINGS, &[row(&source)]))
}

fn state(source: &PullSource) -> &'static str {
    match source.state() {
        PullSourceState::Unspecified => "unknown",
        PullSourceState::Paused => "paused",
        PullSourceState::Scheduled => "scheduled",
        PullSourceState::Ended => "ended",
        PullSourceState::Unplaced => "unplaced",
        PullSourceState::Connecting => "connecting",
        PullSourceState::Waiting => "waiting",
        PullSourceState::Live => "live",
    }
}

fn document(source: &PullSource) -> Value {
    let or_null = |text: &String| if text.is_empty() { Value::Null } else { json!(text) };
    json!({
        "pull_id": source.pull_id,
        "stream": stream_json(source.stream.as_ref()),
        "url": source.url,
        "state": state(source),
        "paused": source.paused,
        "from": instant(source.from_ms),
        "until": instant(source.until_ms),
        "made_by": if source.by_hook { "hook" } else { "operator" },
        "worker_id": or_null(&source.worker_id),
        "worker": or_null(&source.worker_name),
        "last_error": or_null(&source.last_error),
        "failures": source.failures,
        "created": instant(source.created_ms),
        "updated": instant(source.updated_ms),
    })
}

fn row(source: &PullSource) -> Vec<String> {
    let until = match source.state() {
        PullSourceState::Scheduled => format!(" from {}", when(source.from_ms)),
        _ => String::new(),
    };
    vec![
        source.pull_id.clone(),
        stream_name(source.stream.as_ref()),
        source.url.clone(),
        format!("{}{until}", state(source)),
        source.worker_name.clone(),
        source.last_error.clone(),
    ]
}
