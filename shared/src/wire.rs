//! Between the wire's types and the domain's; nothing else sees both.
//!
//! A worker speaks through [`proto::v1::workers_client::WorkersClient`] and these conversions.

mod bounds;
mod composition;
mod copies;
mod finish;
mod pull;
mod task;
mod template;

use prost::Message as _;
use proto::v1;
use thiserror::Error;

use crate::{
    ids::{FileId, MAX_NAME_BYTES, PublishId, StreamKey},
    lease::{Epoch, Fenced, Grant, GrantedRecording, LeaseOutcome, RecordingSet, Refusal, RefusalKind, Stitch, Window},
    recording::{Cause, Gap, MediaFile, Recording, RecordingState},
    store::{Removal, RemovalFrom},
    template::{Format, TemplateSpec},
    time::Timestamp,
    trace,
};

use self::bounds::MAX_KEY_BYTES;
pub use self::{
    bounds::{clock, clock_if_any, page, text, wanted},
    composition::composition,
    copies::Copy,
    task::{new_task, task_filter, task_state},
};

/// A message that is not legal: which field, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Path of the field within its message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl WireError {
    /// Names a field and its problem.
    pub fn new(field: &str, problem: impl ToString) -> Self {
        WireError {
            field: field.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// The same one level up.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        WireError {
            field: format!("{outer}.{}", self.field),
            problem: self.problem,
        }
    }
}

/// Reads an id from its text.
///
/// # Errors
/// [`WireError`] when it is no UUID.
pub fn id<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, WireError> {
    text.parse().map_err(|_| {
        WireError::new(
            field,
            if text.is_empty() {
                "is missing: a UUID is needed".to_owned()
            } else {
                format!("{text:.40?} is not a UUID")
            },
        )
    })
}

/// Takes a message that must be there.
///
/// # Errors
/// [`WireError`] when it is not.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| WireError::new(field, "is missing"))
}

impl TryFrom<v1::StreamKey> for StreamKey {
    type Error = WireError;
    fn try_from(key: v1::StreamKey) -> Result<Self, WireError> {
        StreamKey::new(&key.domain, &key.app, &key.stream).map_err(|error| WireError::new("stream", error))
    }
}

impl From<&StreamKey> for v1::StreamKey {
    fn from(key: &StreamKey) -> Self {
        v1::StreamKey {
            domain: key.domain().to_owned(),
            app: key.app().to_owned(),
            stream: key.stream().to_owned(),
        }
    }
}

impl TryFrom<v1::Format> for Format {
    type Error = WireError;
    fn try_from(format: v1::Format) -> Result<Self, WireError> {
        match format {
            v1::Format::Unspecified => Err(WireError::new(
                "format",
                "is missing: FLV, HLS, MP4, AAC or MP3 is needed",
            )),
            v1::Format::Flv => Ok(Format::Flv),
            v1::Format::Hls => Ok(Format::Hls),
            v1::Format::Mp4 => Ok(Format::Mp4),
            v1::Format::Aac => Ok(Format::Aac),
            v1::Format::Mp3 => Ok(Format::Mp3),
        }
    }
}

impl From<Format> for v1::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Flv => v1::Format::Flv,
            Format::Hls => v1::Format::Hls,
            Format::Mp4 => v1::Format::Mp4,
            Format::Aac => v1::Format::Aac,
            Format::Mp3 => v1::Format::Mp3,
        }
    }
}

/// Reads an enum's number as a format.
///
/// # Errors
/// [`WireError`] for unspecified and unknown numbers.
pub fn format(number: i32) -> Result<Format, WireError> {
    v1::Format::try_from(number)
        .map_err(|_| WireError::new("format", format!("{number} is unknown")))?
        .try_into()
}

impl From<&Gap> for v1::Gap {
    fn from(gap: &Gap) -> Self {
        v1::Gap {
            reason: gap.reason.clone(),
            from_ms: gap.from_ms,
            to_ms: gap.to_ms,
            units: gap.units,
        }
    }
}

impl TryFrom<v1::Gap> for Gap {
    type Error = WireError;
    fn try_from(gap: v1::Gap) -> Result<Self, WireError> {
        if gap.to_ms < gap.from_ms {
            return Err(WireError::new("to_ms", "is before from_ms"));
        }
        Ok(Gap {
            reason: text("reason", gap.reason, MAX_NAME_BYTES)?,
            from_ms: gap.from_ms,
            to_ms: gap.to_ms,
            units: gap.units,
        })
    }
}

/// Reads a list of gaps.
///
/// # Errors
/// [`WireError`] for the first that ends before it begins.
pub fn gaps(list: Vec<v1::Gap>) -> Result<Vec<Gap>, WireError> {
    list.into_iter()
        .map(|gap| gap.try_into().map_err(|error: WireError| error.within("gaps")))
        .collect()
}

impl From<&Cause> for v1::Cause {
    fn from(cause: &Cause) -> Self {
        let kind = match cause {
            Cause::Rule(rule) => v1::cause::Kind::Rule(rule.clone()),
            Cause::BuiltIn => v1::cause::Kind::BuiltIn(true),
            Cause::Task(id) => v1::cause::Kind::TaskId(id.to_string()),
            Cause::Composed => v1::cause::Kind::Composed(true),
        };
        v1::Cause { kind: Some(kind) }
    }
}

impl TryFrom<v1::Cause> for Cause {
    type Error = WireError;
    fn try_from(cause: v1::Cause) -> Result<Self, WireError> {
        match required("kind", cause.kind)? {
            v1::cause::Kind::Rule(rule) => Ok(Cause::Rule(rule)),
            v1::cause::Kind::BuiltIn(_) => Ok(Cause::BuiltIn),
            v1::cause::Kind::TaskId(text) => Ok(Cause::Task(id("task_id", &text)?)),
            v1::cause::Kind::Composed(_) => Ok(Cause::Composed),
        }
    }
}

impl From<RecordingState> for v1::RecordingState {
    fn from(state: RecordingState) -> Self {
        match state {
            RecordingState::Scheduled => v1::RecordingState::Scheduled,
            RecordingState::Recording => v1::RecordingState::Recording,
            RecordingState::Interrupted => v1::RecordingState::Interrupted,
            RecordingState::Finished => v1::RecordingState::Finished,
            RecordingState::Failed => v1::RecordingState::Failed,
        }
    }
}

/// Reads an enum's number as a state; unspecified is none.
///
/// # Errors
/// [`WireError`] for unknown numbers.
pub fn recording_state(number: i32) -> Result<Option<RecordingState>, WireError> {
    Ok(
        match v1::RecordingState::try_from(number)
            .map_err(|_| WireError::new("state", format!("{number} is unknown")))?
        {
            v1::RecordingState::Unspecified => None,
            v1::RecordingState::Scheduled => Some(RecordingState::Scheduled),
            v1::RecordingState::Recording => Some(RecordingState::Recording),
            v1::RecordingState::Interrupted => Some(RecordingState::Interrupted),
            v1::RecordingState::Finished => Some(RecordingState::Finished),
            v1::RecordingState::Failed => Some(RecordingState::Failed),
        },
    )
}

impl From<&Recording> for v1::Recording {
    /// `file_count` and `bytes` are left at 0: they are the library's to fill in.
    fn from(recording: &Recording) -> Self {
        v1::Recording {
            recording_id: recording.id.to_string(),
            stream: Some((&recording.stream).into()),
            cause: Some((&recording.cause).into()),
            state: v1::RecordingState::from(recording.state).into(),
            reason: recording.reason.clone(),
            epoch: recording.epoch.get(),
            template: Some((&recording.template).into()),
            publish_ids: recording.publishes.iter().map(PublishId::to_string).collect(),
            worker_id: recording.worker.to_string(),
            params: recording.params.clone(),
            started_ms: recording.started.as_millis(),
            ended_ms: recording.ended.map_or(0, Timestamp::as_millis),
            gaps: recording.gaps.iter().map(Into::into).collect(),
            file_count: 0,
            bytes: 0,
            locked: recording.locked,
            trace_id: trace::id(recording.id),
        }
    }
}

impl From<&MediaFile> for v1::MediaFile {
    fn from(file: &MediaFile) -> Self {
        v1::MediaFile {
            file_id: file.id.to_string(),
            recording_id: file.recording.to_string(),
            stream: Some((&file.stream).into()),
            format: v1::Format::from(file.format).into(),
            sequence: file.sequence,
            name: file.name.clone(),
            object_key: file.object_key.clone(),
            size: file.size,
            duration_ms: file.duration_ms,
            start_ms: file.start.as_millis(),
            end_ms: file.end.as_millis(),
            checksum: file.checksum.clone(),
            video_units: file.video_units,
            audio_units: file.audio_units,
            gaps: file.gaps.iter().map(Into::into).collect(),
            epoch: file.epoch.get(),
            committed_ms: file.committed.as_millis(),
            expires_ms: file.expires.map_or(0, Timestamp::as_millis),
            locked: file.locked,
            trace_id: trace::id(file.recording),
            copied_ms: file.copied.map_or(0, Timestamp::as_millis),
        }
    }
}

/// A removal as it is told.
#[must_use]
pub fn removal(from: RemovalFrom, removal: &Removal) -> v1::Removal {
    v1::Removal {
        file: Some((&removal.file).into()),
        begun_ms: removal.begun.as_millis(),
        cause: removal.cause.as_str().to_owned(),
        failures: removal.failures,
        retry_ms: if removal.failures == 0 {
            0
        } else {
            removal.retry_at.as_millis()
        },
        problem: removal.problem.clone(),
        place: from.as_str().to_owned(),
    }
}

impl TryFrom<v1::MediaFile> for MediaFile {
    type Error = WireError;
    fn try_from(file: v1::MediaFile) -> Result<Self, WireError> {
        if file.object_key.is_empty() || file.name.is_empty() {
            return Err(WireError::new(
                if file.name.is_empty() { "name" } else { "object_key" },
                "is missing",
            ));
        }
        Ok(MediaFile {
            id: id::<FileId>("file_id", &file.file_id)?,
            recording: id("recording_id", &file.recording_id)?,
            stream: required("stream", file.stream)?.try_into()?,
            format: format(file.format)?,
            sequence: file.sequence,
            name: text("name", file.name, MAX_KEY_BYTES)?,
            object_key: text("object_key", file.object_key, MAX_KEY_BYTES)?,
            size: file.size,
            duration_ms: file.duration_ms,
            start: clock("start_ms", file.start_ms)?,
            end: clock("end_ms", file.end_ms)?,
            checksum: text("checksum", file.checksum, MAX_NAME_BYTES)?,
            video_units: file.video_units,
            audio_units: file.audio_units,
            gaps: gaps(file.gaps)?,
            epoch: Epoch::new(file.epoch),
            committed: clock("committed_ms", file.committed_ms)?,
            // The library's to say.
            expires: None,
            locked: false,
            copied: None,
        })
    }
}

impl From<LeaseOutcome> for v1::AcquireLeaseResponse {
    fn from(outcome: LeaseOutcome) -> Self {
        use v1::acquire_lease_response::Outcome;
        let outcome = match outcome {
            LeaseOutcome::Granted(grant) => Outcome::Granted(v1::LeaseGranted {
                epoch: grant.epoch.get(),
                revision: grant.revision,
                recordings: grant.recordings.iter().map(Into::into).collect(),
            }),
            LeaseOutcome::Refused(refusal) => {
                let kind = match refusal.kind {
                    RefusalKind::AlreadyLive => v1::LeaseRefusal::AlreadyLive,
                    RefusalKind::NotYours => v1::LeaseRefusal::NotYours,
                    RefusalKind::Forbidden => v1::LeaseRefusal::Forbidden,
                };
                Outcome::Refused(v1::LeaseRefused {
                    reason: refusal.reason,
                    kind: kind.into(),
                })
            }
        };
        v1::AcquireLeaseResponse { outcome: Some(outcome) }
    }
}

impl TryFrom<v1::AcquireLeaseResponse> for LeaseOutcome {
    type Error = WireError;
    fn try_from(response: v1::AcquireLeaseResponse) -> Result<Self, WireError> {
        use v1::acquire_lease_response::Outcome;
        match required("outcome", response.outcome)? {
            Outcome::Granted(granted) => Ok(LeaseOutcome::Granted(grant(
                granted.epoch,
                granted.revision,
                granted.recordings,
            )?)),
            Outcome::Refused(refused) => {
                let kind = match refused.kind() {
                    v1::LeaseRefusal::AlreadyLive => RefusalKind::AlreadyLive,
                    v1::LeaseRefusal::NotYours => RefusalKind::NotYours,
                    // A kind from a later coordinator: whatever it is, the stream is not ours.
                    v1::LeaseRefusal::Forbidden | v1::LeaseRefusal::Unspecified => RefusalKind::Forbidden,
                };
                Ok(LeaseOutcome::Refused(Refusal {
                    kind,
                    reason: refused.reason,
                }))
            }
        }
    }
}

impl From<&GrantedRecording> for v1::GrantedRecording {
    fn from(recording: &GrantedRecording) -> Self {
        let Window { from, until, cancelled } = recording.window;
        v1::GrantedRecording {
            recording_id: recording.id.to_string(),
            cause: Some((&recording.cause).into()),
            template: Some(recording.template.as_ref().into()),
            state: v1::RecordingState::from(recording.state).into(),
            from_ms: from.map_or(0, Timestamp::as_millis),
            until_ms: until.map_or(0, Timestamp::as_millis),
            cancelled,
            stitch: recording.stitch.as_ref().map(|stitch| v1::Stitch {
                before_epochs: stitch.before.iter().map(|epoch| epoch.get()).collect(),
                lost: stitch.lost,
            }),
        }
    }
}

impl TryFrom<v1::GrantedRecording> for GrantedRecording {
    type Error = WireError;
    fn try_from(recording: v1::GrantedRecording) -> Result<Self, WireError> {
        Ok(GrantedRecording {
            id: id("recording_id", &recording.recording_id)?,
            cause: required("cause", recording.cause)?.try_into()?,
            template: TemplateSpec::try_from(required("template", recording.template)?)?.into(),
            state: recording_state(recording.state)?.unwrap_or(RecordingState::Recording),
            window: Window {
                from: moment(recording.from_ms),
                until: moment(recording.until_ms),
                cancelled: recording.cancelled,
            },
            stitch: recording.stitch.map(|stitch| Stitch {
                before: stitch.before_epochs.into_iter().map(Epoch::new).collect(),
                lost: stitch.lost,
            }),
        })
    }
}

fn grant(epoch: u64, revision: u64, recordings: Vec<v1::GrantedRecording>) -> Result<Grant, WireError> {
    Ok(Grant {
        epoch: Epoch::new(epoch),
        revision,
        recordings: recordings
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
    })
}

/// Reads a wall clock in milliseconds; 0 is none.
#[must_use]
pub fn moment(ms: i64) -> Option<Timestamp> {
    (ms != 0).then(|| Timestamp::from_millis(ms))
}

impl From<&RecordingSet> for v1::SetRecordings {
    fn from(set: &RecordingSet) -> Self {
        v1::SetRecordings {
            publish_id: set.publish.to_string(),
            epoch: set.grant.epoch.get(),
            revision: set.grant.revision,
            recordings: set.grant.recordings.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::SetRecordings> for RecordingSet {
    type Error = WireError;
    fn try_from(set: v1::SetRecordings) -> Result<Self, WireError> {
        Ok(RecordingSet {
            publish: id("publish_id", &set.publish_id)?,
            grant: grant(set.epoch, set.revision, set.recordings)?,
        })
    }
}

/// What a worker says that it was granted.
///
/// # Errors
/// [`WireError`] for the first field that is not legal.
pub fn held(granted: v1::LeaseGranted) -> Result<Grant, WireError> {
    grant(granted.epoch, granted.revision, granted.recordings).map_err(|error| error.within("held"))
}

impl From<&Grant> for v1::LeaseGranted {
    fn from(grant: &Grant) -> Self {
        v1::LeaseGranted {
            epoch: grant.epoch.get(),
            revision: grant.revision,
            recordings: grant.recordings.iter().map(Into::into).collect(),
        }
    }
}

/// Header of a refusal that is final: the recording has ended otherwise, and the writer must stop.
pub const FINAL: &str = "aircheck-final";

const FENCED_TYPE: &str = "type.googleapis.com/aircheck.v1.Fenced";

/// `google.rpc.Status`, as gRPC carries it in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// Code `FAILED_PRECONDITION` of gRPC.
const FAILED_PRECONDITION: i32 = 9;

/// The status details (`tonic::Status::with_details`) that go with a refusal of a stale epoch.
#[must_use]
pub fn fenced_details(fenced: &Fenced) -> Vec<u8> {
    let detail = v1::Fenced {
        held: fenced.held.get(),
        current: fenced.current.get(),
    };
    let any = prost_types::Any {
        type_url: FENCED_TYPE.to_owned(),
        value: detail.encode_to_vec(),
    };
    RpcStatus {
        code: FAILED_PRECONDITION,
        message: fenced.to_string(),
        details: vec![any],
    }
    .encode_to_vec()
}

/// Reads a stale epoch from status details (`tonic::Status::details`); none if they say anything else.
#[must_use]
pub fn fenced_from_details(details: &[u8]) -> Option<Fenced> {
    let status = RpcStatus::decode(details).ok()?;
    let any = status.details.iter().find(|any| any.type_url == FENCED_TYPE)?;
    let fenced = v1::Fenced::decode(any.value.as_slice()).ok()?;
    Some(Fenced {
        held: Epoch::new(fenced.held),
        current: Epoch::new(fenced.current),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{RecordingId, Seeded},
        recording::tests::sample,
    };

    #[test]
    fn a_file_survives_the_wire() {
        let (_, file) = sample(&Seeded::new(1));
        assert_eq!(MediaFile::try_from(v1::MediaFile::from(&file)).unwrap(), file);
        let mut bad = v1::MediaFile::from(&file);
        bad.file_id = "x".to_owned();
        assert_eq!(
            MediaFile::try_from(bad).unwrap_err().to_string(),
            "file_id: \"x\" is not a UUID"
        );
    }

    #[test]
    fn outcomes_and_sets_survive_the_wire() {
        let (recording, _) = sample(&Seeded::new(1));
        let granted = GrantedRecording {
            id: RecordingId::generate(&Seeded::new(2), Timestamp::default()),
            cause: recording.cause,
            template: recording.template.into(),
            state: RecordingState::Scheduled,
            window: Window {
                from: moment(5),
                until: None,
                cancelled: true,
            },
            stitch: Some(Stitch {
                before: vec![Epoch::new(4), Epoch::new(2)],
                lost: true,
            }),
        };
        let grant = Grant {
            epoch: Epoch::new(3),
            revision: 7,
            recordings: vec![granted],
        };
        let set = RecordingSet {
            publish: PublishId::generate(&Seeded::new(4), Timestamp::default()),
            grant: grant.clone(),
        };
        assert_eq!(RecordingSet::try_from(v1::SetRecordings::from(&set)).unwrap(), set);
        for outcome in [
            LeaseOutcome::Granted(grant),
            LeaseOutcome::Refused(Refusal {
                kind: RefusalKind::AlreadyLive,
                reason: "live elsewhere".to_owned(),
            }),
        ] {
            assert_eq!(
                LeaseOutcome::try_from(v1::AcquireLeaseResponse::from(outcome.clone())).unwrap(),
                outcome
            );
        }
        assert!(LeaseOutcome::try_from(v1::AcquireLeaseResponse { outcome: None }).is_err());
    }

    #[test]
    fn fencing_survives_the_status_details() {
        let fenced = Fenced {
            held: Epoch::new(1),
            current: Epoch::new(2),
        };
        assert_eq!(fenced_from_details(&fenced_details(&fenced)), Some(fenced));
        assert_eq!(fenced_from_details(b""), None);
        assert_eq!(fenced_from_details(b"\xff\xff"), None);
    }
}
