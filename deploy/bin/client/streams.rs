//! `aircheck stream …`

use proto::v1::streams_client::StreamsClient;
use proto::v1::{ExplainStreamRequest, ExplainStreamResponse, ListStreamsRequest, LiveStream, StreamState};
use serde_json::{Value, json};

use super::{
    Done, PAGE, bytes, connect, format_name, given, instant, parse_stream, print, said, stream_json, stream_name,
    table, when,
};
use crate::cli::StreamCommand;

pub(crate) async fn run(command: StreamCommand) -> Done {
    match command {
        StreamCommand::List { domain, app, client } => {
            let mut service = StreamsClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let (domain, app) = (given(domain.as_ref()), given(app.as_ref()));
                let request = ListStreamsRequest {
                    page_size: PAGE,
                    page_token,
                    domain,
                    app,
                };
                let page = service.list_streams(request).await.map_err(said)?.into_inner();
                all.extend(page.streams);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let document = json!({ "streams": all.iter().map(document).collect::<Vec<_>>() });
            let headings = [
                "stream",
                "state",
                "since",
                "rate",
                "received",
                "recordings",
                "publisher",
            ];
            print(&client, &document, || {
                table(&headings, &all.iter().map(row).collect::<Vec<_>>())
            })
        }
        StreamCommand::Explain { stream, client } => {
            let request = ExplainStreamRequest {
                stream: Some(parse_stream(&stream)?),
            };
            let answer = StreamsClient::new(connect(&client)?)
                .explain_stream(request)
                .await
                .map_err(said)?;
            let answer = answer.into_inner();
            print(&client, &explanation(&answer), || explain(&answer))
        }
    }
}

fn state(stream: &LiveStream) -> &'static str {
    match stream.state() {
        StreamState::Live => "live",
        StreamState::Interrupted => "interrupted",
        StreamState::Unspecified => "unknown",
    }
}

fn document(stream: &LiveStream) -> Value {
    let counters = stream.counters.unwrap_or_default();
    json!({
        "stream": stream_json(stream.stream.as_ref()),
        "state": state(stream),
        "publish_id": stream.publish_id,
        "worker_id": stream.worker_id,
        "worker": stream.worker_name,
        "epoch": stream.epoch,
        "client": stream.client_addr,
        "started": instant(stream.started_ms),
        "recording_ids": stream.recording_ids,
        "bits_per_second": counters.bits_per_second,
        "video_units": counters.video_units,
        "audio_units": counters.audio_units,
        "bytes": counters.bytes,
    })
}

fn row(stream: &LiveStream) -> Vec<String> {
    let counters = stream.counters.unwrap_or_default();
    vec![
        stream_name(stream.stream.as_ref()),
        state(stream).to_owned(),
        when(stream.started_ms),
        format!("{} kbit/s", counters.bits_per_second / 1000),
        bytes(counters.bytes),
        stream.recording_ids.len().to_string(),
        stream.client_addr.clone(),
    ]
}

/// Why a stream would be recorded, for programs.
pub(crate) fn explanation(answer: &ExplainStreamResponse) -> Value {
    let candidates: Vec<Value> = answer
        .candidates
        .iter()
        .map(|c| {
            json!({
                "rule": c.rule,
                "specificity": c.specificity,
                "exists": c.exists,
                "wins": c.wins,
                "reason": c.reason,
                "template": if c.template_name.is_empty() { Value::Null } else { json!(c.template_name) },
            })
        })
        .collect();
    json!({
        "summary": answer.summary,
        "live": answer.live,
        "formats": answer.formats.iter().map(|f| format_name(*f)).collect::<Vec<_>>(),
        "candidates": candidates,
    })
}

/// The same for people.
pub(crate) fn explain(answer: &ExplainStreamResponse) -> String {
    let rows: Vec<Vec<String>> = answer
        .candidates
        .iter()
        .map(|c| {
            let mark = if c.wins { "wins" } else { "" };
            vec![
                mark.to_owned(),
                c.rule.clone(),
                c.specificity.clone(),
                c.template_name.clone(),
                c.reason.clone(),
            ]
        })
        .collect();
    format!(
        "{}\n\n{}",
        answer.summary,
        table(&["", "rule", "matches by", "template", "why"], &rows)
    )
}
