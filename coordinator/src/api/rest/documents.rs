//! How things look in JSON. Each is made from what the gRPC service answers.

use proto::v1;
use serde::{Deserialize, Serialize};
use shared::time::Timestamp;
use utoipa::ToSchema;

use super::problem::Problem;

/// A moment, RFC 3339 in UTC; none for 0.
pub(super) fn instant(ms: i64) -> Option<String> {
    (ms != 0).then(|| Timestamp::from_millis(ms).to_string())
}

/// Reads a moment.
pub(super) fn moment(name: &str, text: &str) -> Result<i64, Problem> {
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|_| Problem::invalid(format!("{name}: {text:?} is no time such as 2026-11-23T20:00:00Z")))?;
    Ok(at.as_millisecond())
}

/// The name of a value of a proto enum, in lower case, without its prefix.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// A stream's name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stream {
    /// Push domain.
    pub(super) domain: String,
    /// Application.
    pub(super) app: String,
    /// Stream name.
    pub(super) stream: String,
}

impl From<Option<v1::StreamKey>> for Stream {
    fn from(key: Option<v1::StreamKey>) -> Self {
        let key = key.unwrap_or_default();
        Stream {
            domain: key.domain,
            app: key.app,
            stream: key.stream,
        }
    }
}

impl From<Stream> for v1::StreamKey {
    fn from(stream: Stream) -> Self {
        v1::StreamKey {
            domain: stream.domain,
            app: stream.app,
            stream: stream.stream,
        }
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Flash Video.
    Flv,
    /// A playlist and its segments.
    Hls,
    /// MP4.
    Mp4,
    /// AAC, audio only.
    Aac,
    /// MP3, audio only.
    Mp3,
}

impl From<Format> for i32 {
    fn from(format: Format) -> Self {
        let format = match format {
            Format::Flv => v1::Format::Flv,
            Format::Hls => v1::Format::Hls,
            Format::Mp4 => v1::Format::Mp4,
            Format::Aac => v1::Format::Aac,
            Format::Mp3 => v1::Format::Mp3,
        };
        format.into()
    }
}

impl From<v1::Format> for Format {
    fn from(format: v1::Format) -> Self {
        match format {
            // None of ours is unspecified.
            v1::Format::Flv | v1::Format::Unspecified => Format::Flv,
            v1::Format::Hls => Format::Hls,
            v1::Format::Mp4 => Format::Mp4,
            v1::Format::Aac => Format::Aac,
            v1::Format::Mp3 => Format::Mp3,
        }
    }
}

/// What the segments of an HLS recording are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum HlsSegments {
    /// MPEG-TS.
    #[default]
    Ts,
    /// Fragmented MP4.
    Fmp4,
}

/// What becomes of the time between two pushes in an MP4 of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mp4Stitch {
    /// It is kept.
    Keep,
    /// The next push begins where the one before ends.
    Close,
}

/// Settings of one format.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FormatSettings {
    /// At most one entry for each format.
    format: Format,
    /// Seconds of media in one file, 30 to 43200; 0: 1800. Without meaning for HLS, which is one recording.
    #[serde(default)]
    #[schema(maximum = 43_200)]
    record_interval_s: u32,
    /// Seconds a file is kept after it is finished, 0 (for ever) to 129600000.
    #[serde(default)]
    #[schema(maximum = 129_600_000)]
    storage_time_s: u32,
    /// Pattern of the file's name; empty: the default.
    #[serde(default)]
    file_name: String,
    /// HLS only: seconds it waits for the stream to come back, 0 to 1800.
    #[serde(default)]
    #[schema(maximum = 1_800)]
    flow_continue_s: u32,
    /// HLS only: what its segments are.
    #[serde(default)]
    hls_segments: HlsSegments,
    /// MP4 only: one file of all pushes of a recording, made of its HLS segments, which must be `fmp4`; absent: files for each push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mp4_stitch: Option<Mp4Stitch>,
    /// Storage class of its media, such as `STANDARD_IA`; empty: what the settings of storage say.
    #[serde(default)]
    storage_class: String,
}

/// What a template says.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplateSpec {
    /// Letters, digits, `_` and `-`; 1 to 255 bytes; unique.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,255}$")]
    name: String,
    /// Words about it, at most 1024 bytes.
    #[serde(default)]
    description: String,
    /// The formats that are on. Empty: do not record.
    #[serde(default)]
    formats: Vec<FormatSettings>,
    /// Where its recordings go: the name of a place in the coordinator's settings; empty: `objects.url`.
    #[serde(default)]
    #[schema(pattern = "^[a-z0-9-]{0,32}$")]
    place: String,
}

impl From<Option<v1::TemplateSpec>> for TemplateSpec {
    fn from(spec: Option<v1::TemplateSpec>) -> Self {
        let spec = spec.unwrap_or_default();
        let settings = |settings: v1::FormatSettings| FormatSettings {
            hls_segments: match settings.hls_segments() {
                v1::HlsSegments::Unspecified | v1::HlsSegments::Ts => HlsSegments::Ts,
                v1::HlsSegments::Fmp4 => HlsSegments::Fmp4,
            },
            mp4_stitch: match settings.mp4_stitch() {
                v1::Mp4Stitch::Unspecified => None,
                v1::Mp4Stitch::Keep => Some(Mp4Stitch::Keep),
                v1::Mp4Stitch::Close => Some(Mp4Stitch::Close),
            },
            format: settings.format().into(),
            record_interval_s: settings.record_interval_s,
            storage_time_s: settings.storage_time_s,
            file_name: settings.file_name,
            flow_continue_s: settings.flow_continue_s,
            storage_class: settings.storage_class,
        };
        TemplateSpec {
            name: spec.name,
            description: spec.description,
            formats: spec.formats.into_iter().map(settings).collect(),
            place: spec.place,
        }
    }
}

impl From<TemplateSpec> for v1::TemplateSpec {
    fn from(spec: TemplateSpec) -> Self {
        let settings = |settings: FormatSettings| v1::FormatSettings {
            format: settings.format.into(),
            record_interval_s: settings.record_interval_s,
            storage_time_s: settings.storage_time_s,
            file_name: settings.file_name,
            flow_continue_s: settings.flow_continue_s,
            hls_segments: match settings.hls_segments {
                HlsSegments::Ts => v1::HlsSegments::Ts,
                HlsSegments::Fmp4 => v1::HlsSegments::Fmp4,
            }
            .into(),
            mp4_stitch: match settings.mp4_stitch {
                None => v1::Mp4Stitch::Unspecified,
                Some(Mp4Stitch::Keep) => v1::Mp4Stitch::Keep,
                Some(Mp4Stitch::Close) => v1::Mp4Stitch::Close,
            }
            .into(),
            storage_class: settings.storage_class,
        };
        v1::TemplateSpec {
            name: spec.name,
            description: spec.description,
            formats: spec.formats.into_iter().map(settings).collect(),
            place: spec.place,
        }
    }
}

/// A record template.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Template {
    /// UUID.
    template_id: String,
    /// Its name.
    name: String,
    /// Words about it.
    description: String,
    /// The formats that are on. Empty: do not record.
    formats: Vec<FormatSettings>,
    /// Where its recordings go: the name of a place in the coordinator's settings; empty: `objects.url`.
    place: String,
    /// When it was made.
    created: Option<String>,
    /// When it changed last.
    updated: Option<String>,
}

impl From<v1::Template> for Template {
    fn from(template: v1::Template) -> Self {
        let TemplateSpec {
            name,
            description,
            formats,
            place,
        } = template.spec.into();
        Template {
            template_id: template.template_id,
            name,
            description,
            formats,
            place,
            created: instant(template.created_ms),
            updated: instant(template.updated_ms),
        }
    }
}

/// A stretch that is missing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Gap {
    /// Stable short name of the cause.
    reason: String,
    /// First missing moment on the media timeline, ms.
    from_ms: i64,
    /// First moment after it, ms.
    to_ms: i64,
    /// Access units that are lost; 0: nobody knows.
    units: u64,
}

fn gaps(gaps: Vec<v1::Gap>) -> Vec<Gap> {
    let gap = |gap: v1::Gap| Gap {
        reason: gap.reason,
        from_ms: gap.from_ms,
        to_ms: gap.to_ms,
        units: gap.units,
    };
    gaps.into_iter().map(gap).collect()
}

/// A recording.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Recording {
    /// UUID.
    recording_id: String,
    /// What was recorded.
    stream: Stream,
    /// `rule DOMAIN/APP/STREAM`, `built-in`, `task ID`.
    cause: String,
    /// `scheduled`, `recording`, `interrupted`, `finished`, `failed`.
    state: String,
    /// Why it ended or failed.
    reason: String,
    /// Settings as frozen when the publish started.
    template: TemplateSpec,
    /// Its publishes.
    publish_ids: Vec<String>,
    /// The worker that has it.
    worker_id: String,
    /// Query of the push URL.
    params: String,
    /// When it began.
    started: Option<String>,
    /// When it ended.
    ended: Option<String>,
    /// What is missing.
    gaps: Vec<Gap>,
    /// Files in the library so far.
    file_count: u32,
    /// Their bytes.
    bytes: u64,
    /// Neither it nor its files are removed.
    locked: bool,
    /// Id of its trace; empty: none.
    trace_id: String,
}

impl From<v1::Recording> for Recording {
    fn from(recording: v1::Recording) -> Self {
        let state = word(recording.state().as_str_name(), "RECORDING_STATE_");
        let cause = match recording.cause.and_then(|cause| cause.kind) {
            Some(v1::cause::Kind::Rule(rule)) => format!("rule {rule}"),
            Some(v1::cause::Kind::TaskId(task)) => format!("task {task}"),
            Some(v1::cause::Kind::Composed(_)) => "composition".to_owned(),
            Some(v1::cause::Kind::BuiltIn(_)) | None => "built-in".to_owned(),
        };
        Recording {
            recording_id: recording.recording_id,
            stream: recording.stream.into(),
            cause,
            state,
            reason: recording.reason,
            template: recording.template.into(),
            publish_ids: recording.publish_ids,
            worker_id: recording.worker_id,
            params: recording.params,
            started: instant(recording.started_ms),
            ended: instant(recording.ended_ms),
            gaps: gaps(recording.gaps),
            file_count: recording.file_count,
            bytes: recording.bytes,
            locked: recording.locked,
            trace_id: recording.trace_id,
        }
    }
}

/// A finished media file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MediaFile {
    /// UUID.
    file_id: String,
    /// UUID of its recording.
    recording_id: String,
    /// What was recorded.
    stream: Stream,
    /// What it is.
    format: Format,
    /// Place among the files of this format.
    sequence: u32,
    /// What it is called.
    name: String,
    /// Key below the objects URL.
    object_key: String,
    /// Bytes.
    size: u64,
    /// Length of the media, ms.
    duration_ms: u64,
    /// At its first unit.
    start: Option<String>,
    /// At its last unit.
    end: Option<String>,
    /// `algorithm:hex`.
    checksum: String,
    /// What is missing.
    gaps: Vec<Gap>,
    /// When it entered the library.
    committed: Option<String>,
    /// When it is removed by itself; null: never.
    expires: Option<String>,
    /// It is not removed.
    locked: bool,
    /// Since when there is a copy of it in the second place of objects; null: there is none.
    copied: Option<String>,
    /// Where it is to be had, for `coordinator.media_link_ttl`.
    url: String,
}

impl MediaFile {
    pub(super) fn new(file: v1::MediaFile, url: String) -> Self {
        MediaFile {
            format: file.format().into(),
            file_id: file.file_id,
            recording_id: file.recording_id,
            stream: file.stream.into(),
            sequence: file.sequence,
            name: file.name,
            object_key: file.object_key,
            size: file.size,
            duration_ms: file.duration_ms,
            start: instant(file.start_ms),
            end: instant(file.end_ms),
            checksum: file.checksum,
            gaps: gaps(file.gaps),
            committed: instant(file.committed_ms),
            expires: instant(file.expires_ms),
            locked: file.locked,
            copied: instant(file.copied_ms),
            url,
        }
    }
}
