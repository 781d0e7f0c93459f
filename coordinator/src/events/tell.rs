//! What a change of a publish, a recording or a file is in events. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shared::{
    ids::StreamKey,
    recording::{Cause, Gap, MediaFile, Recording, RecordingState},
    store::PublishRecord,
    template::Format,
    time::Timestamp,
};

use super::{
    Kind,
    book::{CallbackSpec, Level},
    letter::{Draft, MediaLink},
};
use crate::media::place::depth;

/// What is told in every case alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// `appid`.
    pub(crate) app_id: i64,
    /// Tell `stream_param` also of what a task recorded.
    pub(crate) task_stream_param: bool,
    /// Now.
    pub(crate) now: Timestamp,
}

fn seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1_000)
}

fn microseconds(at: Timestamp) -> i64 {
    at.as_millis().rem_euclid(1_000) * 1_000
}

fn draft(kind: Kind, manner: Manner, fields: Value) -> Draft {
    let mut body = match fields {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    body.insert("event_type".to_owned(), json!(kind.number()));
    body.insert("appid".to_owned(), json!(manner.app_id));
    Draft { kind, body, link: None }
}

/// That protocol's number for the end of a push. What is not in its table counts as the publisher's.
fn end_code(reason: &str) -> i64 {
    match reason {
        "silent" => 8,
        "connection_lost" | "no_publish" => 12,
        "dropped through the API (21, 100)" | "forbidden through the API (21, 101)" => 21,
        reason if reason.starts_with("superseded by ") || reason.starts_with("taken over ") => 21,
        _ => 1,
    }
}

/// The host of `host:port`.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A push begins when its publish gets its stream, and ends when it loses it.
pub(crate) fn publish(before: Option<&PublishRecord>, after: &PublishRecord, manner: Manner) -> Vec<Draft> {
    let (was, is) = (
        before.is_some_and(|before| before.ended.is_none()),
        after.ended.is_none(),
    );
    let stream = &after.stream;
    let push = |kind: Kind, at: Timestamp, (code, words): (i64, &str)| {
        draft(
            kind,
            manner,
            json!({
                // That protocol calls the domain `app`, and the application `appname`.
                "app": stream.domain(),
                "appname": stream.app(),
                "stream_id": stream.stream(),
                "channel_id": stream.stream(),
                "event_time": seconds(at),
                "sequence": after.id.to_string(),
                "node": after.worker.to_string(),
                "user_ip": host(&after.client_addr),
                "stream_param": after.params,
                "errcode": code,
                "errmsg": words,
                "set_id": 1,
                "idc_id": 0,
                "width": 0,
                "height": 0,
            }),
        )
    };
    let mut out = Vec::new();
    if !was && (is || before.is_none()) {
        out.push(push(Kind::PushStart, after.started, (0, "ok")));
    }
    if let Some(ended) = after.ended.filter(|_| was || before.is_none()) {
        let mut end = push(Kind::PushEnd, ended, (end_code(&after.reason), &after.reason));
        let length = ended.as_millis().saturating_sub(after.started.as_millis()).max(0);
        end.body.insert("push_duration".to_owned(), json!(length.to_string()));
        out.push(end);
    }
    out
}

/// That protocol's number for a format.
const fn format_number(format: Format) -> u32 {
    match format {
        Format::Flv => 1,
        Format::Hls => 2,
        Format::Mp4 => 3,
        Format::Aac => 4,
        Format::Mp3 => 5,
    }
}

fn by_task(cause: &Cause) -> Option<String> {
    match cause {
        Cause::Task(task) => Some(task.to_string()),
        Cause::Rule(_) | Cause::BuiltIn | Cause::Composed => None,
    }
}

fn status(recording: &Recording, format: Format, event: &str, manner: Manner) -> Draft {
    let task = by_task(&recording.cause);
    // JSON within a text, as documented.
    let detail = json!({
        "file_format": format_number(format),
        "record_bps": 0,
        "start_model": if task.is_some() { 5 } else { 1 },
        "record_content": 1,
        "source_type": 1,
        "codec_temp_id": 0,
    });
    draft(
        Kind::Status,
        manner,
        json!({
            "domain": recording.stream.domain(),
            "appname": recording.stream.app(),
            "stream_id": recording.stream.stream(),
            "event_time": seconds(manner.now),
            "record_event": event,
            "record_detail": detail.to_string(),
            "task_id": task.unwrap_or_default(),
            "session_id": recording.id.to_string(),
        }),
    )
}

/// A recording begins, pauses, goes on, ends: once for each of its formats.
pub(crate) fn recording(before: Option<&Recording>, after: &Recording, manner: Manner) -> Vec<Draft> {
    use RecordingState::{Failed, Finished, Interrupted, Recording as Running, Scheduled};

    // What was lost and is brought back was told of in its time.
    // Nor is a composition something of the stream's: who asked for it asks how it stands.
    if (before.is_none() && after.state.is_terminal()) || after.cause == Cause::Composed {
        return Vec::new();
    }
    let was = before.map_or(Scheduled, |before| before.state);
    let words: &[&str] = match (was, after.state) {
        (Scheduled, Running | Interrupted) => &["record_start_succeeded"],
        (Scheduled, Finished) => &["record_start_succeeded", "record_ended"],
        (Scheduled, Failed) => &["record_start_failed"],
        (Running, Interrupted) => &["record_paused"],
        (Interrupted, Running) => &["record_resumed"],
        (Running | Interrupted, Finished) => &["record_ended"],
        (Running | Interrupted, Failed) => &["record_error", "record_ended"],
        _ => &[],
    };
    let mut out = Vec::new();
    for word in words {
        for format in after.template.formats.keys() {
            out.push(status(after, *format, word, manner));
        }
    }
    if after.state == Failed && was != Failed {
        let failed = Found {
            number: -104,
            level: Level::Error,
            occurs: 1,
            words: after.reason.clone(),
        };
        for format in after.template.formats.keys() {
            out.push(exception(
                (&after.stream, &after.id.to_string(), *format),
                &failed,
                manner,
            ));
        }
    }
    out
}

/// A file is in the library.
pub(crate) fn file(file: &MediaFile, recording: &Recording, manner: Manner) -> Vec<Draft> {
    if recording.cause == Cause::Composed {
        return Vec::new();
    }
    let task = by_task(&recording.cause);
    let template = recording.template_id.map(|id| id.number().to_string());
    let id = file.id.to_string();
    let extra = json!({"video_codec": "", "resolution": "", "session_id": recording.id.to_string()});
    let mut told = draft(
        Kind::File,
        manner,
        json!({
            "app": file.stream.domain(),
            "appname": file.stream.app(),
            "stream_id": file.stream.stream(),
            "channel_id": file.stream.stream(),
            "file_id": id,
            "record_file_id": id,
            "record_temp_id": template.unwrap_or_default(),
            "file_format": file.format.as_str(),
            "task_id": task.clone().unwrap_or_default(),
            "start_time": seconds(file.start),
            "end_time": seconds(file.end),
            "start_time_usec": microseconds(file.start),
            "end_time_usec": microseconds(file.end),
            "duration": file.duration_ms.saturating_add(500) / 1_000,
            "file_size": file.size,
            "media_start_time": 0,
            "record_bps": 0,
            "callback_ext": extra.to_string(),
        }),
    );
    if task.is_none() || manner.task_stream_param {
        told.body.insert("stream_param".to_owned(), json!(recording.params));
    }
    told.link = Some(MediaLink {
        file: file.id,
        depth: depth(file),
        name: file.name.clone(),
    });
    let mut out = vec![told];
    let session = recording.id.to_string();
    for found in found_in(file) {
        out.push(exception((&file.stream, &session, file.format), &found, manner));
    }
    // A push is told of once, whatever formats it is recorded in.
    let jumps = file.gaps.iter().filter(|gap| gap.reason == TIMESTAMP_JUMP).count();
    if jumps > 0 && recording.template.formats.keys().next() == Some(&file.format) {
        out.push(push_exception(file, recording, jumps, manner));
    }
    out
}

const TIMESTAMP_JUMP: &str = "timestamp_jump";

/// An exception of a recording; like ones are told as one.
struct Found {
    number: i32,
    level: Level,
    occurs: usize,
    words: String,
}

/// What a gap is among that protocol's exceptions. None: it is the beginning of the stream, or a task's own limits.
fn exception_of(gap: &Gap) -> Option<(i32, Level)> {
    match gap.reason.as_str() {
        TIMESTAMP_JUMP => Some((-9, Level::Warning)),
        "before_first_key_frame" | "preroll_expired" => None,
        reason if reason.contains("parameter") => Some((-120, Level::Warning)),
        _ => Some((-130, Level::Error)),
    }
}

fn found_in(file: &MediaFile) -> Vec<Found> {
    let mut by_number: BTreeMap<i32, Found> = BTreeMap::new();
    for gap in &file.gaps {
        let Some((number, level)) = exception_of(gap) else {
            continue;
        };
        let found = by_number.entry(number).or_insert_with(|| Found {
            number,
            level,
            occurs: 0,
            words: gap.reason.clone(),
        });
        found.occurs += 1;
    }
    let audio_only = matches!(file.format, Format::Aac | Format::Mp3);
    let missing = match (audio_only, file.audio_units, file.video_units) {
        (true, 0, _) => Some((-17, "audio is recorded and none was pushed")),
        (false, _, 0) => Some((-18, "video is recorded and none was pushed")),
        _ => None,
    };
    if let Some((number, words)) = missing {
        by_number.insert(
            number,
            Found {
                number,
                level: Level::Info,
                occurs: 1,
                words: words.to_owned(),
            },
        );
    }
    by_number.into_values().collect()
}

fn exception((stream, session, format): (&StreamKey, &str, Format), found: &Found, manner: Manner) -> Draft {
    let format = match format {
        // HLS appears by its segments.
        Format::Hls => "ts",
        other => other.as_str(),
    };
    draft(
        Kind::Exception,
        manner,
        json!({
            "interface": "general_callback",
            "domain": stream.domain(),
            "path": stream.app(),
            "stream_id": stream.stream(),
            "session_id": session,
            "file_format": format,
            "timestamp": seconds(manner.now),
            "exception_level": found.level.as_str(),
            "exception": {"type": found.number, "occurs": found.occurs, "desc": found.words},
        }),
    )
}

fn push_exception(file: &MediaFile, recording: &Recording, jumps: usize, manner: Manner) -> Draft {
    let moments: Vec<Value> = file
        .gaps
        .iter()
        .filter(|gap| gap.reason == TIMESTAMP_JUMP)
        .map(|gap| json!({"desc": "timestamps jumped", "occur_time": file.start.as_millis().saturating_add(gap.from_ms)}))
        .collect();
    let interval = file.end.as_millis().saturating_sub(file.start.as_millis());
    draft(
        Kind::PushException,
        manner,
        json!({
            "interface": "general_callback",
            "domain": file.stream.domain(),
            "path": file.stream.app(),
            "stream_id": file.stream.stream(),
            "stream_param": recording.params,
            "sequence": recording.publishes.last().map(ToString::to_string).unwrap_or_default(),
            "data_time": manner.now.as_millis(),
            "report_interval": interval,
            "timeout": 0,
            "abnormal_event": [{
                "type": 3,
                "count": jumps,
                "detail": moments,
                "type_desc_cn": "视频时间戳跳变",
                "type_desc_en": "video timestamp jumped",
            }],
        }),
    )
}

/// True if a template has a receiver for it.
pub(crate) fn wanted(draft: &Draft, spec: &CallbackSpec) -> bool {
    let level = draft.body.get("exception_level").and_then(Value::as_str);
    let heard =
        level.is_none_or(|level| spec.levels.is_empty() || spec.levels.iter().any(|wanted| wanted.as_str() == level));
    heard && spec.urls.contains_key(&draft.kind)
}

#[cfg(test)]
#[path = "tell_tests.rs"]
mod tests;
