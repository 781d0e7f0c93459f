//! What lies where in the store. Nothing else makes or takes apart a key.
//!
//! Values are JSON. `ID` stands for a UUID, `NAME` for a name made safe by [`safe_path_component`], `PATH` for the three
//! of a stream joined by `/`.
//!
//! | Key | Value |
//! |---|---|
//! | `layout` | version of this table: [`LAYOUT`](super::LAYOUT) |
//! | `v1/leader` | the coordinator that leads, under its lease |
//! | `v1/decision` | term and number of the last decision of a leader |
//! | `v1/template/ID` | [`Template`](crate::template::Template) |
//! | `v1/rule/NAME/NAME or */NAME or *` | [`Rule`](crate::rule::Rule) |
//! | `v1/pull/ID` | [`PullSource`](crate::pull::PullSource) |
//! | `v1/stream/PATH` | [`StreamRecord`](super::StreamRecord): epoch and owner of a stream |
//! | `v1/publish/ID` | [`PublishRecord`](super::PublishRecord): what was granted to a publish |
//! | `v1/recording/ID` | [`Recording`](crate::recording::Recording) |
//! | `v1/stream-recording/PATH/ID` | nothing: an index |
//! | `v1/stitch/ID` | [`StitchRecord`](super::StitchRecord): how a recording that goes on across publishes stands, until it has ended |
//! | `v1/task/ID` | [`Task`] |
//! | `v1/open-task/ID` | the same, until it has ended: what a coordinator reads when it takes over |
//! | `v1/stream-task/PATH/ID` | nothing: an index |
//! | `v1/task-by-end/MILLISECONDS/ID` | nothing: an index by the end of its time, for forgetting |
//! | `v1/task-token/TOKEN` | the task's id: made with this token |
//! | `v1/task-recording/ID/ID` | nothing: an index of a task's recordings |
//! | `v1/composition/ID` | [`Composition`](crate::composition::Composition): what a recording of the same id is made of |
//! | `v1/interrupted/ID` | [`Interruption`](super::Interruption): since when a recording's worker is away |
//! | `v1/finishing/ID` | [`Interruption`](super::Interruption): when the worker that finishes a recording was there last |
//! | `v1/file/ID` | [`MediaFile`] |
//! | `v1/file-by-time/MILLISECONDS/ID` | nothing: an index by the time of entering the library |
//! | `v1/access-key/SECRETID` | [`AccessKey`](crate::access::AccessKey) |
//! | `v1/domain/NAME` | a push domain and its sealed push keys |
//! | `v1/ban/PATH` | until when a stream must not be pushed |
//! | `v1/vault` | fingerprint of the key that secrets are sealed with |
//! | `v1/removal/ID` | [`Removal`](super::Removal): a file that has left the library and whose objects are being removed |
//! | `v1/second-removal/ID` | the same of a file that is gone from the first place of objects and not yet from the second |
//! | `v1/expiry/MILLISECONDS/ID` | the file's recording: an index of files by the time at which they are removed by themselves; not of locked ones |
//! | `v1/copy/ID` | [`CopyJob`](super::CopyJob): a file or a `recording.json` that is to be copied to the second place of objects |
//! | `v1/salvage/ID` | the same id: a recording that was given up and of which what lies in storage is to be completed |
//! | `v1/retention` | [`Looked`](super::Looked): when files to be removed were looked for last |
//! | `v1/media-note/ID` | name, description and tags that people gave a file |
//! | `v1/callbacks` | callback templates and rules, all of them |
//! | `v1/outbox/SEQUENCE` | events of one thing that happened, on their way to a receiver |
//! | `v1/event/SEQUENCE` | the same, delivered or given up, for a while |
//! | `v1/recording-file/ID/FORMAT/EPOCH-SEQUENCE/ID` | the file's size, bytes, as a number: an index |

use crate::{
    ids::{FileId, PublishId, PullId, RecordingId, StreamKey, TaskId, TemplateId, safe_path_component},
    recording::MediaFile,
    rule::RuleKey,
    task::Task,
    time::Timestamp,
};

/// Version of all that follows.
pub const LAYOUT: &str = "layout";
/// The coordinator that leads.
pub const LEADER: &str = "v1/leader";
/// The last decision of a leader.
pub const DECISION: &str = "v1/decision";
/// All templates.
pub const TEMPLATES: &str = "v1/template/";
/// All rules.
pub const RULES: &str = "v1/rule/";
/// All pull sources.
pub const PULLS: &str = "v1/pull/";
/// All streams.
pub const STREAMS: &str = "v1/stream/";
/// All publishes.
pub const PUBLISHES: &str = "v1/publish/";
/// All recordings, by the time of their making.
pub const RECORDINGS: &str = "v1/recording/";
/// All compositions.
pub const COMPOSITIONS: &str = "v1/composition/";
/// All recordings that go on across publishes and have not ended.
pub const STITCHES: &str = "v1/stitch/";
/// All tasks, by the time of their making.
pub const TASKS: &str = "v1/task/";
/// All tasks that have not ended.
pub const OPEN_TASKS: &str = "v1/open-task/";
/// All tasks, by the end of their time.
pub const TASKS_BY_END: &str = "v1/task-by-end/";
/// Recordings that are interrupted.
pub const INTERRUPTED: &str = "v1/interrupted/";
/// All files. Their ids need not sort by time: a worker may derive them, so that a repeated commit has the same one.
pub const FILES: &str = "v1/file/";
/// All files, by the time at which they entered the library.
pub const FILES_BY_TIME: &str = "v1/file-by-time/";

/// All keys of the HTTP API.
pub const ACCESS_KEYS: &str = "v1/access-key/";
/// All push domains.
pub const DOMAINS: &str = "v1/domain/";
/// All bans.
pub const BANS: &str = "v1/ban/";
/// The fingerprint of the key that secrets are sealed with.
pub const VAULT: &str = "v1/vault";

/// Callback templates and rules, all in one value: who decides upon them sees all of them at once.
pub const CALLBACKS: &str = "v1/callbacks";
/// Events on their way to their receivers, in the order in which they came to be.
pub const OUTBOX: &str = "v1/outbox/";
/// Events that were delivered or given up, in the same order.
pub const EVENTS: &str = "v1/event/";

/// Events on their way.
#[must_use]
pub fn outbox(sequence: u64) -> String {
    format!("{OUTBOX}{sequence:016x}")
}

/// Events that were delivered or given up.
#[must_use]
pub fn event(sequence: u64) -> String {
    format!("{EVENTS}{sequence:016x}")
}

/// A composition.
#[must_use]
pub fn composition(id: RecordingId) -> String {
    format!("{COMPOSITIONS}{id}")
}

/// A push domain, in lower case.
#[must_use]
pub fn domain(name: &str) -> String {
    format!("{DOMAINS}{}", safe_path_component(name))
}

/// The ban of a stream.
#[must_use]
pub fn ban(stream: &StreamKey) -> String {
    format!("{BANS}{}", stream.path())
}

/// A key of the HTTP API.
#[must_use]
pub fn access_key(id: &str) -> String {
    format!("{ACCESS_KEYS}{}", safe_path_component(id))
}

/// A template.
#[must_use]
pub fn template(id: TemplateId) -> String {
    format!("{TEMPLATES}{id}")
}

/// A rule. `*` is no safe component of a name, so it cannot be one's.
#[must_use]
pub fn rule(key: &RuleKey) -> String {
    let part = |name: Option<&str>| name.map_or_else(|| "*".to_owned(), safe_path_component);
    format!(
        "{RULES}{}/{}/{}",
        safe_path_component(key.domain()),
        part(key.app()),
        part(key.stream())
    )
}

/// A pull source.
#[must_use]
pub fn pull(id: PullId) -> String {
    format!("{PULLS}{id}")
}

/// A stream's epoch and owner.
#[must_use]
pub fn stream(key: &StreamKey) -> String {
    format!("{STREAMS}{}", key.path())
}

/// What was granted to a publish.
#[must_use]
pub fn publish(id: PublishId) -> String {
    format!("{PUBLISHES}{id}")
}

/// A recording.
#[must_use]
pub fn recording(id: RecordingId) -> String {
    format!("{RECORDINGS}{id}")
}

/// How a recording that goes on across publishes stands.
#[must_use]
pub fn stitch(id: RecordingId) -> String {
    format!("{STITCHES}{id}")
}

/// A stream's recordings, by the time of their making.
#[must_use]
pub fn stream_recordings(key: &StreamKey) -> String {
    format!("v1/stream-recording/{}/", key.path())
}

/// The index entry of a stream's recording.
#[must_use]
pub fn stream_recording(key: &StreamKey, id: RecordingId) -> String {
    format!("{}{id}", stream_recordings(key))
}

/// A task.
#[must_use]
pub fn task(id: TaskId) -> String {
    format!("{TASKS}{id}")
}

/// What the keys of tasks begin with that were made in one millisecond since the Unix epoch.
#[must_use]
pub fn tasks_of_millisecond(ms: u64) -> String {
    format!("{TASKS}{:08x}-{:04x}-", ms >> 16, ms & 0xffff)
}

/// A task that has not ended.
#[must_use]
pub fn open_task(id: TaskId) -> String {
    format!("{OPEN_TASKS}{id}")
}

/// A stream's tasks, by the time of their making.
#[must_use]
pub fn stream_tasks(key: &StreamKey) -> String {
    format!("v1/stream-task/{}/", key.path())
}

/// The index entry of a stream's task.
#[must_use]
pub fn stream_task(task: &Task) -> String {
    format!("{}{}", stream_tasks(&task.stream), task.id)
}

/// The index entry of a task by the end of its time.
#[must_use]
pub fn task_by_end(task: &Task) -> String {
    format!("{}/{}", tasks_ending_at(task.end), task.id)
}

/// Index entries of tasks that end at this moment begin so; those of earlier ones sort before. Thirteen digits last until the year 2286.
#[must_use]
pub fn tasks_ending_at(end: Timestamp) -> String {
    format!("{TASKS_BY_END}{:013}", end.as_millis().max(0))
}

/// What a client token made. Tokens are of letters, digits, `_` and `-`.
#[must_use]
pub fn task_token(token: &str) -> String {
    format!("v1/task-token/{token}")
}

/// A task's recordings, by the time of their making.
#[must_use]
pub fn task_recordings(id: TaskId) -> String {
    format!("v1/task-recording/{id}/")
}

/// The index entry of a task's recording.
#[must_use]
pub fn task_recording(id: TaskId, recording: RecordingId) -> String {
    format!("{}{recording}", task_recordings(id))
}

/// The index entry of a recording that is interrupted.
#[must_use]
pub fn interrupted(id: RecordingId) -> String {
    format!("{INTERRUPTED}{id}")
}

/// Recordings that their workers are finishing: their publish has ended.
pub const FINISHING: &str = "v1/finishing/";

/// The index entry of a recording that its worker is finishing.
#[must_use]
pub fn finishing(id: RecordingId) -> String {
    format!("{FINISHING}{id}")
}

/// A file.
#[must_use]
pub fn file(id: FileId) -> String {
    format!("{FILES}{id}")
}

/// Recordings that were given up and of which what lies in storage is to be completed.
pub const SALVAGES: &str = "v1/salvage/";

/// A recording that was given up and of which what lies in storage is to be completed.
#[must_use]
pub fn salvage(id: RecordingId) -> String {
    format!("{SALVAGES}{id}")
}

/// Files by the time at which they are removed by themselves.
pub const EXPIRIES: &str = "v1/expiry/";
/// When files to be removed were looked for last.
pub const RETENTION: &str = "v1/retention";

/// The index entry of a file by the time at which it is removed by itself. Thirteen digits last until the year 2286.
#[must_use]
pub fn expiry(at: Timestamp, id: FileId) -> String {
    format!("{}/{id}", expiring_at(at))
}

/// Index entries of files that are removed at this moment begin so; those of earlier ones sort before.
#[must_use]
pub fn expiring_at(at: Timestamp) -> String {
    format!("{EXPIRIES}{:013}", at.as_millis().max(0))
}

/// Files whose records are gone and whose objects are being removed.
pub const REMOVALS: &str = "v1/removal/";

/// A file whose record is gone and whose objects are being removed.
#[must_use]
pub fn removal(id: FileId) -> String {
    format!("{REMOVALS}{id}")
}

/// Files that are gone from the first place of objects and are being removed from the second.
pub const SECOND_REMOVALS: &str = "v1/second-removal/";

/// What is to be copied to the second place of objects.
pub const COPIES: &str = "v1/copy/";

/// A file, or a recording's document, that is to be copied to the second place of objects.
#[must_use]
pub fn copy(id: uuid::Uuid) -> String {
    format!("{COPIES}{id}")
}

/// What people say of a file.
#[must_use]
pub fn media_note(id: FileId) -> String {
    format!("v1/media-note/{id}")
}

/// What the index entries of files that entered the library at a moment begin with. Thirteen digits last until the year 2286.
#[must_use]
pub fn file_time(at: Timestamp) -> String {
    format!("{FILES_BY_TIME}{:013}", at.as_millis().max(0))
}

/// The index entry of a file by time.
#[must_use]
pub fn file_by_time(file: &MediaFile) -> String {
    format!("{}/{}", file_time(file.committed), file.id)
}

/// A recording's files, by format, publish and sequence.
#[must_use]
pub fn recording_files(id: RecordingId) -> String {
    format!("v1/recording-file/{id}/")
}

/// The index entry of a recording's file.
#[must_use]
pub fn recording_file(file: &MediaFile) -> String {
    format!(
        "{}{}/{:09}-{:09}/{}",
        recording_files(file.recording),
        file.format,
        file.epoch.get(),
        file.sequence,
        file.id
    )
}

/// The last part of an index key: the id it leads to.
#[must_use]
pub fn last_part(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, last)| last)
}
