//! `aircheck recording …`

use std::time::{Duration, Instant};

use proto::v1::recordings_client::RecordingsClient;
use proto::v1::{
    ExplainRecordingRequest, GetRecordingRequest, ListRecordingsRequest, LockRecordingRequest, Recording,
    RecordingState, UnlockRecordingRequest,
};
use serde_json::{Value, json};

use super::{
    Done, PAGE, bytes, connect, format_name, gaps_json, given, instant, parse_stream, print, said, stream_json,
    stream_name, table, when,
};
use crate::cli::{Of, RecordingCommand, State};

/// How often `recording wait` asks.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// One recording.
fn shown(client: &crate::cli::Client, found: Option<Recording>) -> Done {
    let found = found.ok_or("the coordinator sent no recording")?;
    print(client, &document(&found), || listing(std::slice::from_ref(&found)))
}

pub(crate) async fn run(command: RecordingCommand) -> Done {
    match command {
        RecordingCommand::List { of, state, client } => {
            let all = list(connect(&client)?, &of, state).await?;
            let document = json!({ "recordings": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || listing(&all))
        }
        RecordingCommand::Get { recording, client } => {
            let channel = connect(&client)?;
            let request = GetRecordingRequest {
                recording_id: recording.clone(),
            };
            let answer = RecordingsClient::new(channel.clone())
                .get_recording(request)
                .await
                .map_err(said)?;
            let answer = answer.into_inner();
            let (found, hls_url) = (answer.recording, answer.hls_url);
            let found = found.ok_or("the coordinator sent no recording")?;
            let files = super::files::list(
                channel,
                &Of {
                    domain: None,
                    app: None,
                    stream: None,
                },
                Some(&recording),
                None,
            )
            .await?;
            let mut all = document(&found);
            if let Some(fields) = all.as_object_mut() {
                fields.insert("hls_url".to_owned(), json!(hls_url));
                fields.insert("files".to_owned(), files.iter().map(super::files::document).collect());
            }
            print(&client, &all, || {
                let mut text = table(&HEADINGS, &[row(&found)]);
                for gap in &found.gaps {
                    text += &format!(
                        "gap: {} units, {} to {} ms: {}\n",
                        gap.units, gap.from_ms, gap.to_ms, gap.reason
                    );
                }
                if !hls_url.is_empty() {
                    text += &format!("hls: {hls_url}\n");
                }
                text + "\n" + &super::files::listing(&files)
            })
        }
        RecordingCommand::Lock { recording, client } => {
            let request = LockRecordingRequest {
                recording_id: recording,
            };
            let mut service = RecordingsClient::new(connect(&client)?);
            let answer = service.lock_recording(request).await.map_err(said)?;
            shown(&client, answer.into_inner().recording)
        }
        RecordingCommand::Unlock { recording, client } => {
            let request = UnlockRecordingRequest {
                recording_id: recording,
            };
            let mut service = RecordingsClient::new(connect(&client)?);
            let answer = service.unlock_recording(request).await.map_err(said)?;
            shown(&client, answer.into_inner().recording)
        }
        RecordingCommand::Explain { stream, client } => {
            let request = ExplainRecordingRequest {
                stream: Some(parse_stream(&stream)?),
            };
            let answer = RecordingsClient::new(connect(&client)?)
                .explain_recording(request)
                .await
                .map_err(said)?;
            let answer = answer.into_inner();
            let explanation = answer.explanation.unwrap_or_default();
            let mut all = super::streams::explanation(&explanation);
            if let Some(fields) = all.as_object_mut() {
                fields.insert(
                    "recordings".to_owned(),
                    answer.recordings.iter().map(document).collect(),
                );
            }
            print(&client, &all, || {
                let rows: Vec<_> = answer.recordings.iter().map(row).collect();
                let recorded = if rows.is_empty() {
                    "nothing was recorded of it yet\n".to_owned()
                } else {
                    table(&HEADINGS, &rows)
                };
                format!("{}\n{recorded}", super::streams::explain(&explanation))
            })
        }
        RecordingCommand::Wait { of, timeout, client } => {
            let channel = connect(&client)?;
            let begin = Instant::now();
            loop {
                let all = list(channel.clone(), &of, None).await?;
                let open = all
                    .iter()
                    .filter(|r| !matches!(r.state(), RecordingState::Finished | RecordingState::Failed))
                    .count();
                if open == 0 && !all.is_empty() {
                    let document = json!({ "recordings": all.iter().map(document).collect::<Vec<_>>() });
                    return print(&client, &document, || listing(&all));
                }
                if begin.elapsed() >= *timeout {
                    return Err(format!("{open} of {} recordings have not ended within {timeout}", all.len()).into());
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }
}

async fn list(
    channel: super::Way,
    of: &Of,
    state: Option<State>,
) -> Result<Vec<Recording>, Box<dyn std::error::Error + Send + Sync>> {
    let mut service = RecordingsClient::new(channel);
    let state = state.map_or(RecordingState::Unspecified, |s| match s {
        State::Scheduled => RecordingState::Scheduled,
        State::Recording => RecordingState::Recording,
        State::Interrupted => RecordingState::Interrupted,
        State::Finished => RecordingState::Finished,
        State::Failed => RecordingState::Failed,
    });
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRecordingsRequest {
            page_size: PAGE,
            page_token,
            state: state.into(),
            domain: given(of.domain.as_ref()),
            app: given(of.app.as_ref()),
            stream: given(of.stream.as_ref()),
        };
        let page = service.list_recordings(request).await.map_err(said)?.into_inner();
        all.extend(page.recordings);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// A table of recordings.
pub(crate) fn listing(recordings: &[Recording]) -> String {
    table(&HEADINGS, &recordings.iter().map(row).collect::<Vec<_>>())
}

const HEADINGS: [&str; 8] = ["stream", "state", "started", "ended", "files", "size", "cause", "id"];

fn state(recording: &Recording) -> &'static str {
    match recording.state() {
        RecordingState::Scheduled => "scheduled",
        RecordingState::Recording => "recording",
        RecordingState::Interrupted => "interrupted",
        RecordingState::Finished => "finished",
        RecordingState::Failed => "failed",
        RecordingState::Unspecified => "unknown",
    }
}

fn cause(recording: &Recording) -> String {
    let cause = recording.cause.clone().map(shared::recording::Cause::try_from);
    cause.and_then(Result::ok).map_or_else(String::new, |c| c.to_string())
}

pub(crate) fn document(recording: &Recording) -> Value {
    let template = recording.template.clone().unwrap_or_default();
    json!({
        "recording_id": recording.recording_id,
        "stream": stream_json(recording.stream.as_ref()),
        "cause": cause(recording),
        "state": state(recording),
        "reason": recording.reason,
        "epoch": recording.epoch,
        "template": template.name,
        "formats": template.formats.iter().map(|f| format_name(f.format)).collect::<Vec<_>>(),
        "publish_ids": recording.publish_ids,
        "worker_id": recording.worker_id,
        "params": recording.params,
        "trace_id": recording.trace_id,
        "started": instant(recording.started_ms),
        "ended": instant(recording.ended_ms),
        "gaps": gaps_json(&recording.gaps),
        "file_count": recording.file_count,
        "bytes": recording.bytes,
        "locked": recording.locked,
    })
}

fn row(recording: &Recording) -> Vec<String> {
    vec![
        stream_name(recording.stream.as_ref()),
        state(recording).to_owned(),
        when(recording.started_ms),
        when(recording.ended_ms),
        recording.file_count.to_string(),
        bytes(recording.bytes),
        cause(recording),
        recording.recording_id.clone(),
    ]
}
