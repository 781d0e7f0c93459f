//! What a recording is: its state, its files, its gaps, and [`RecordingDocument`], the `recording.json` in the bucket.

use std::{fmt, time::Duration};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{FileId, PublishId, RecordingId, StreamKey, TaskId, TemplateId, WorkerId},
    lease::Epoch,
    objects::{folder, place_of},
    template::{FileNameFields, Format, TemplateSpec},
    time::Timestamp,
};

/// Why there is a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A rule, as text: `domain/app/stream` with `*` for any.
    Rule(String),
    /// The built-in rule of `--record`.
    BuiltIn,
    /// A task.
    Task(TaskId),
    /// A composition of stored files, under the same id.
    Composed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Rule(rule) => write!(f, "rule {rule}"),
            Cause::BuiltIn => f.write_str("built-in"),
            Cause::Task(id) => write!(f, "task {id}"),
            Cause::Composed => f.write_str("composition"),
        }
    }
}

/// State of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    /// Granted ahead of time for a task whose start has not come.
    Scheduled,
    /// Its stream is live, or its files are being finished.
    Recording,
    /// Its worker is gone for now, or its stream may come back.
    Interrupted,
    /// Every file is in the library. Final.
    Finished,
    /// It ended without all it should hold. Final.
    Failed,
}

impl RecordingState {
    /// True if nothing comes after it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, RecordingState::Finished | RecordingState::Failed)
    }

    /// As in settings and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RecordingState::Scheduled => "scheduled",
            RecordingState::Recording => "recording",
            RecordingState::Interrupted => "interrupted",
            RecordingState::Finished => "finished",
            RecordingState::Failed => "failed",
        }
    }
}

impl fmt::Display for RecordingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stretch that is known to be missing, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Stable short name of the cause, such as `torn_tail`.
    pub reason: String,
    /// First missing moment, milliseconds on the recording's media timeline.
    pub from_ms: i64,
    /// First moment after it, milliseconds; not below `from_ms`.
    pub to_ms: i64,
    /// Access units known to be lost; 0 where nobody can know.
    pub units: u64,
}

/// Most gaps that a recording lists; further ones are in its files' records.
const MAX_GAPS: usize = 1_024;

/// Adds gaps that are not in the list yet.
pub fn join_gaps(gaps: &mut Vec<Gap>, more: &[Gap]) {
    for gap in more {
        if gaps.len() < MAX_GAPS && !gaps.contains(gap) {
            gaps.push(gap.clone());
        }
    }
}

/// A durable result: one stream's media under one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Identity.
    pub id: RecordingId,
    /// What was recorded.
    pub stream: StreamKey,
    /// Why.
    pub cause: Cause,
    /// State.
    pub state: RecordingState,
    /// Why it ended or failed, in words; empty while it runs.
    pub reason: String,
    /// Current ownership.
    pub epoch: Epoch,
    /// Settings as frozen when the publish started.
    pub template: TemplateSpec,
    /// The template that a rule named; none for other causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_id: Option<TemplateId>,
    /// The publishes it holds, in order.
    pub publishes: Vec<PublishId>,
    /// The worker that has it.
    pub worker: WorkerId,
    /// Raw query of the push URL.
    pub params: String,
    /// Wall clock of the start.
    pub started: Timestamp,
    /// Wall clock of the end; none while it runs.
    pub ended: Option<Timestamp>,
    /// What is known to be missing.
    pub gaps: Vec<Gap>,
    /// Neither it nor its files are removed, by nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
}

impl Recording {
    /// Its folder: where its objects lie.
    #[must_use]
    pub fn folder(&self) -> String {
        self.template.folder(&self.stream, self.id)
    }

    /// True if it goes on with the stream's next publish: HLS with a time to wait for it. A task's does so within the task's time.
    #[must_use]
    pub fn is_stitched(&self) -> bool {
        self.template.flow_continue_s() > 0
    }
}

/// A finished media file. An HLS recording is one file: its playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaFile {
    /// Identity.
    pub id: FileId,
    /// Its recording.
    pub recording: RecordingId,
    /// What was recorded.
    pub stream: StreamKey,
    /// Its format.
    pub format: Format,
    /// Place among the files of this format of one publish, from 0.
    pub sequence: u32,
    /// Name from the template's pattern with its extension: an attribute, not a path.
    pub name: String,
    /// Key below the objects URL; for HLS that of the playlist.
    pub object_key: String,
    /// Bytes; for HLS those of playlist and segments.
    pub size: u64,
    /// Length of the media, milliseconds.
    pub duration_ms: u64,
    /// Wall clock at its first unit.
    pub start: Timestamp,
    /// Wall clock at its last unit.
    pub end: Timestamp,
    /// Checksum of the object as `algorithm:hex`; for HLS that of the playlist.
    pub checksum: String,
    /// Video access units in it.
    pub video_units: u64,
    /// Audio access units in it.
    pub audio_units: u64,
    /// What is known to be missing within it.
    pub gaps: Vec<Gap>,
    /// Ownership under which it was written.
    pub epoch: Epoch,
    /// When it entered the library. Zero until then.
    #[serde(default)]
    pub committed: Timestamp,
    /// When it is removed by itself; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// It is not removed, by nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Since when there is a copy of it in the second place of objects; none: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Timestamp>,
}

impl MediaFile {
    /// The folder of its recording.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(place_of(&self.object_key), &self.stream, self.recording)
    }

    /// The identity of a file that its recorder calls so.
    #[must_use]
    pub fn id_of(recording: RecordingId, file_id: &str) -> FileId {
        FileId::from_uuid(uuid::Uuid::new_v5(&recording.as_uuid(), file_id.as_bytes()))
    }

    /// When a file of `recording` that entered the library at `committed` is removed by itself; none: never.
    #[must_use]
    pub fn expiry(format: Format, committed: Timestamp, recording: &Recording) -> Option<Timestamp> {
        let settings = recording.template.formats.get(&format)?;
        let kept = Duration::from_secs(settings.storage_time_s.into());
        (settings.storage_time_s > 0).then(|| committed + kept)
    }
}

/// A finished media file as its recorder knows it, which knows nothing of names and streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedFile {
    /// The same each time this file is rendered: recording, format and sequence.
    pub file_id: String,
    /// Its format.
    pub format: Format,
    /// Place among the recording's files of this format, from 0.
    pub sequence: u32,
    /// Key below the objects URL.
    pub key: String,
    /// Bytes; for HLS of all segments together.
    pub size: u64,
    /// As of [`MediaFile`].
    pub checksum: String,
    /// Length of the media, milliseconds.
    pub duration_ms: i64,
    /// Wall clock of its first unit's arrival, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Video access units in it.
    pub video_units: u64,
    /// Audio access units in it.
    pub audio_units: u64,
    /// What is known to be missing within it.
    pub gaps: Vec<Gap>,
}

/// What the comment in a running playlist begins with that says what the playlist's text does not, as JSON: totals of all that it names.
pub const TOTALS: &str = "#AIRCHECK:";

/// What a finished file's recorder does not know of it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Its recording.
    pub recording: RecordingId,
    /// What was recorded.
    pub stream: &'a StreamKey,
    /// The recording's settings: how files are named.
    pub template: &'a TemplateSpec,
    /// Ownership under which it was written.
    pub epoch: Epoch,
    /// Times in its name are in this time zone.
    pub zone: &'a TimeZone,
}

impl FinishedFile {
    /// The library's record of it.
    #[must_use]
    pub fn record(&self, of: Context<'_>) -> MediaFile {
        let start = Timestamp::from_millis(self.start_ms);
        let end = Timestamp::from_millis(self.start_ms.saturating_add(self.duration_ms));
        let fields = FileNameFields {
            stream: of.stream.stream(),
            start,
            end,
        };
        let settings = of.template.formats.get(&self.format);
        let stem = settings.map_or_else(
            || self.file_id.clone(),
            |settings| settings.file_name.render(&fields, of.zone),
        );
        MediaFile {
            id: MediaFile::id_of(of.recording, &self.file_id),
            recording: of.recording,
            stream: of.stream.clone(),
            format: self.format,
            sequence: self.sequence,
            name: format!("{stem}.{}", self.format.extension()),
            object_key: self.key.clone(),
            size: self.size,
            duration_ms: u64::try_from(self.duration_ms).unwrap_or(0),
            start,
            end,
            checksum: self.checksum.clone(),
            video_units: self.video_units,
            audio_units: self.audio_units,
            gaps: self.gaps.clone(),
            epoch: of.epoch,
            committed: Timestamp::default(),
            expires: None,
            locked: false,
            copied: None,
        }
    }
}

/// Value of [`RecordingDocument::schema`]; readers refuse another major number.
pub const DOCUMENT_SCHEMA: &str = "aircheck.recording/1";

/// The `recording.json` beside a recording's media: says on its own what the recording is, so that lost metadata can be rebuilt from the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingDocument {
    /// [`DOCUMENT_SCHEMA`].
    pub schema: String,
    /// The recording.
    pub recording: Recording,
    /// Its files, by format, publish and sequence.
    pub files: Vec<MediaFile>,
}

impl RecordingDocument {
    /// Puts a recording and its files together; sorts the files by format, publish and sequence.
    #[must_use]
    pub fn new(recording: Recording, mut files: Vec<MediaFile>) -> Self {
        files.sort_by_key(|file| (file.format, file.epoch, file.sequence));
        RecordingDocument {
            schema: DOCUMENT_SCHEMA.to_owned(),
            recording,
            files,
        }
    }

    /// Pretty-printed JSON with a final line feed.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = serde_json::to_vec_pretty(self)?;
        out.push(b'\n');
        Ok(out)
    }

    /// Reads one back.
    ///
    /// # Errors
    /// Not JSON, not this shape, or of a schema with another major number.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let document: RecordingDocument = serde_json::from_slice(bytes)?;
        if document.schema != DOCUMENT_SCHEMA {
            return Err(serde_json::Error::custom(format!(
                "schema is {:?}, this program reads {DOCUMENT_SCHEMA:?}",
                document.schema
            )));
        }
        Ok(document)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::{IdGen, Seeded};

    /// A recording with every field set, for tests of what keeps and carries it.
    pub(crate) fn sample(ids: &dyn IdGen) -> (Recording, MediaFile) {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let stream = StreamKey::new("push.example.com", "live", "cam 1").unwrap();
        let recording = Recording {
            id: RecordingId::generate(ids, now),
            stream: stream.clone(),
            cause: Cause::Rule("push.example.com/live/*".to_owned()),
            state: RecordingState::Finished,
            reason: "unpublish".to_owned(),
            epoch: Epoch::new(1),
            template: TemplateSpec::plain("day", &[Format::Flv, Format::Hls]),
            template_id: None,
            publishes: vec![PublishId::generate(ids, now)],
            worker: WorkerId::generate(ids, now),
            params: "a=1".to_owned(),
            started: now,
            ended: Some(Timestamp::from_millis(1_790_000_060_000)),
            gaps: vec![Gap {
                reason: "torn_tail".to_owned(),
                from_ms: 1,
                to_ms: 2,
                units: 3,
            }],
            locked: false,
        };
        let file = MediaFile {
            id: FileId::generate(ids, now),
            recording: recording.id,
            stream,
            format: Format::Flv,
            sequence: 0,
            name: "cam 1.flv".to_owned(),
            object_key: "a/b.flv".to_owned(),
            size: 10,
            duration_ms: 60_000,
            start: now,
            end: Timestamp::from_millis(1_790_000_060_000),
            checksum: "crc64nvme:00".to_owned(),
            video_units: 1_500,
            audio_units: 2_800,
            gaps: recording.gaps.clone(),
            epoch: Epoch::new(1),
            committed: Timestamp::default(),
            expires: None,
            locked: false,
            copied: None,
        };
        (recording, file)
    }

    #[test]
    fn the_document_reads_back_and_names_its_schema() {
        let (recording, file) = sample(&Seeded::new(1));
        let mut later = file.clone();
        later.sequence = 1;
        let document = RecordingDocument::new(recording, vec![later, file]);
        assert_eq!(document.files.first().unwrap().sequence, 0);
        let json = document.to_json().unwrap();
        assert_eq!(RecordingDocument::from_json(&json).unwrap(), document);
        let other = String::from_utf8(json).unwrap().replace("recording/1", "recording/2");
        assert!(
            RecordingDocument::from_json(other.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("recording/2")
        );
    }
}
