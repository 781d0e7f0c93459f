//! [`Checks`]: what must hold after every step, seen from the store and from storage, without asking those who decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use shared::ids::{PublishId, RecordingId, WorkerId};
use shared::recording::{Cause, MediaFile, Recording, RecordingDocument, RecordingState};
use shared::store::{Op, PublishRecord, Revision, StitchRecord, StreamRecord, keys};
use shared::task::{NO_MEDIA, STREAM_NEVER_LIVE, Task, TaskState};
use shared::template::Format;
use worker::sim::{Journal, Piece};

use crate::bucket::Stored;
use crate::cluster::WORKER_TIMEOUT;
use crate::world::{Place, World, lock};

/// How exactly publishes of two workers are timed, seconds: clocks may go wrong by one, and names count whole ones.
const FOLLOWS_S: u64 = 4;

/// What the store holds, as its transactions told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) revision: Revision,
    pub(crate) streams: BTreeMap<String, StreamRecord>,
    pub(crate) publishes: BTreeMap<String, PublishRecord>,
    pub(crate) recordings: BTreeMap<String, Recording>,
    pub(crate) files: BTreeMap<String, MediaFile>,
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) stitches: BTreeMap<String, StitchRecord>,
    /// Tasks that somebody deleted.
    pub(crate) deleted: BTreeSet<String>,
    epochs: BTreeMap<(String, u64), PublishId>,
    /// When publishes were granted first, in true time, milliseconds since the Unix epoch.
    heard_of: BTreeMap<PublishId, i64>,
    /// Journals that are settled: nothing is left of them but what is in the library.
    pub(crate) settled: Vec<(WorkerId, Journal)>,
}

#[derive(Debug)]
pub(crate) struct Checks {
    world: Arc<World>,
    stored: BTreeMap<WorkerId, Arc<Stored>>,
    pub(crate) seen: Mutex<Seen>,
}

fn read<T: serde::de::DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

impl Checks {
    pub(crate) fn new(world: &Arc<World>, stored: BTreeMap<WorkerId, Arc<Stored>>) -> Arc<Self> {
        Arc::new(Checks {
            world: Arc::clone(world),
            stored,
            seen: Mutex::default(),
        })
    }

    fn object(&self, worker: WorkerId, key: &str) -> Option<worker::sim::Object> {
        let own = self.stored.get(&worker).and_then(|stored| stored.get(key));
        own.or_else(|| self.stored.values().find_map(|stored| stored.get(key)))
    }

    /// A transaction has happened.
    pub(crate) fn committed(&self, ops: &[Op], revision: Revision, from: Place) {
        let mut seen = lock(&self.seen);
        if revision < seen.revision {
            self.world
                .broke(format_args!("revision {revision:?} follows {:?}", seen.revision));
        }
        seen.revision = revision;
        // Within one transaction the recordings count as they are behind it.
        let (first, then): (Vec<&Op>, Vec<&Op>) = ops.iter().partition(|op| op.key().starts_with(keys::RECORDINGS));
        for op in first.into_iter().chain(then) {
            match op {
                Op::Put { key, value, .. } => self.put(&mut seen, key, value, from),
                Op::Delete(key) => self.deleted(&mut seen, key),
            }
        }
    }

    fn put(&self, seen: &mut Seen, key: &str, value: &[u8], from: Place) {
        if key.starts_with(keys::RECORDINGS) {
            let Some(new) = read::<Recording>(value) else { return };
            self.recording(seen, key, &new, from);
            seen.recordings.insert(key.to_owned(), new);
        } else if key.starts_with(keys::STREAMS) {
            let Some(new) = read::<StreamRecord>(value) else { return };
            if let Some(old) = seen.streams.get(key)
                && new.epoch < old.epoch
            {
                self.world.broke(format_args!(
                    "epoch of {} goes from {} to {}",
                    new.stream, old.epoch, new.epoch
                ));
            }
            seen.streams.insert(key.to_owned(), new);
        } else if key.starts_with(keys::PUBLISHES) {
            let Some(new) = read::<PublishRecord>(value) else {
                return;
            };
            self.publish(seen, key, &new, from);
            seen.publishes.insert(key.to_owned(), new);
        } else if key.starts_with(keys::FILES) {
            let Some(new) = read::<MediaFile>(value) else { return };
            self.file(seen, key, &new, from);
            seen.files.insert(key.to_owned(), new);
        } else if key.starts_with(keys::TASKS) {
            let Some(new) = read::<Task>(value) else { return };
            self.task(seen, key, &new, from);
            seen.tasks.insert(key.to_owned(), new);
        } else if key.starts_with(keys::STITCHES)
            && let Some(new) = read::<StitchRecord>(value)
        {
            seen.stitches.insert(key.to_owned(), new);
        }
    }

    fn deleted(&self, seen: &mut Seen, key: &str) {
        if key.starts_with(keys::FILES) {
            self.world
                .broke(format_args!("{key} leaves the library, and nobody has deleted it"));
        }
        if let Some(gone) = seen.recordings.remove(key)
            && seen.files.values().any(|file| file.recording == gone.id)
        {
            self.world
                .broke(format_args!("recording {} leaves the library, and has files", gone.id));
        }
        if key.starts_with(keys::TASKS) && seen.tasks.remove(key).is_some() {
            seen.deleted.insert(key.to_owned());
        }
        seen.streams.remove(key);
        seen.publishes.remove(key);
        seen.stitches.remove(key);
    }

    fn recording(&self, seen: &Seen, key: &str, new: &Recording, from: Place) {
        let old = seen.recordings.get(key);
        if old.is_none_or(|old| old.state != new.state || old.epoch != new.epoch) {
            let (state, reason) = (new.state, &new.reason);
            self.world.say(format_args!(
                "{from}: recording {} of {} epoch {} {state} {reason}",
                new.id, new.stream, new.epoch
            ));
        }
        let Some(old) = old else { return };
        if old.state.is_terminal() && old.state != new.state {
            self.world.broke(format_args!(
                "recording {} was {} and is {}",
                new.id, old.state, new.state
            ));
        }
        if new.epoch < old.epoch {
            self.world.broke(format_args!(
                "recording {} goes from epoch {} to {}",
                new.id, old.epoch, new.epoch
            ));
        }
    }

    fn publish(&self, seen: &mut Seen, key: &str, new: &PublishRecord, from: Place) {
        let owner = seen
            .epochs
            .entry((new.stream.to_string(), new.epoch.get()))
            .or_insert(new.id);
        if *owner != new.id {
            let owner = *owner;
            self.world.broke(format_args!(
                "epoch {} of {} is granted to publish {owner} and to {}",
                new.epoch, new.stream, new.id
            ));
        }
        if new.ended.is_some() && !seen.heard_of.contains_key(&new.id) {
            self.follows(seen, new);
        }
        seen.heard_of.entry(new.id).or_insert(self.world.now().as_millis());
        let old = seen.publishes.get(key);
        if old.is_none_or(|old| old.revision != new.revision || old.ended != new.ended) {
            self.world.say(format_args!(
                "{from}: publish {} of {} epoch {} revision {} recordings {:?} {}",
                new.id,
                new.stream,
                new.epoch,
                new.revision,
                new.recordings.len(),
                if new.ended.is_some() {
                    new.reason.as_str()
                } else {
                    "live"
                }
            ));
        }
        if let Some(old) = old
            && new.revision < old.revision
        {
            self.world.broke(format_args!(
                "publish {} goes from revision {} to {}",
                new.id, old.revision, new.revision
            ));
        }
    }

    /// A publish that was over before it was heard of goes on with a recording of those alone that began before it.
    fn follows(&self, seen: &Seen, new: &PublishRecord) {
        // The model's publishes are named by the true time of their beginning.
        let began = |publish: PublishId| publish.as_uuid().get_timestamp().map_or(0, |at| at.to_unix().0);
        let later = |other: &&PublishRecord| {
            let shared = other.recordings.iter().any(|id| new.recordings.contains(id));
            shared && other.epoch < new.epoch && began(other.id) > began(new.id) + FOLLOWS_S
        };
        if let Some(later) = seen.publishes.values().find(later)
            && !self.world.is_misled()
        {
            self.world.broke(format_args!(
                "publish {} goes on behind {}, which began later",
                new.id, later.id
            ));
        }
    }

    fn file(&self, seen: &Seen, key: &str, new: &MediaFile, from: Place) {
        self.world.say(format_args!(
            "{from}: file {} epoch {} of recording {}",
            new.object_key, new.epoch, new.recording
        ));
        if seen.files.contains_key(key) {
            self.world
                .broke(format_args!("file {} enters the library twice", new.id));
        }
        let recording = seen.recordings.get(&keys::recording(new.recording));
        let Some(recording) = recording else {
            self.world
                .broke(format_args!("file {} is of a recording that is not there", new.id));
            return;
        };
        let own = new.format != Format::Hls && recording.is_stitched() && new.epoch < recording.epoch;
        if new.epoch != recording.epoch && !own {
            self.world.broke(format_args!(
                "file {} is committed under epoch {}, its recording is at {}",
                new.object_key, new.epoch, recording.epoch
            ));
        }
        if !new.object_key.contains(&format!("/{}/", new.epoch.path_component()))
            && recording.epoch == new.epoch
            && !own
        {
            // A finisher enters earlier owners' files again, which are there.
            self.world.say(format_args!(
                "file {} is entered under epoch {}",
                new.object_key, new.epoch
            ));
        }
        let Some(object) = self.object(recording.worker, &new.object_key) else {
            self.world.broke(format_args!(
                "file {} is in the library and not in storage",
                new.object_key
            ));
            return;
        };
        if new.format != Format::Hls && object.units.len() as u64 != new.video_units {
            self.world.broke(format_args!("file {} is not whole", new.object_key));
        }
        if new.format == Format::Hls {
            for segment in segments(&new.object_key, &object.bytes) {
                if self.object(recording.worker, &segment).is_none() {
                    self.world.broke(format_args!(
                        "playlist {} names {segment}, which is not there",
                        new.object_key
                    ));
                }
            }
        }
    }

    fn task(&self, seen: &Seen, key: &str, new: &Task, from: Place) {
        let old = seen.tasks.get(key);
        if old.is_none_or(|old| old.state != new.state) {
            self.world.say(format_args!(
                "{from}: task {} of {} {} {}",
                new.id, new.stream, new.state, new.reason
            ));
        }
        if let Some(old) = old
            && old.state.is_terminal()
            && old != new
        {
            self.world
                .broke(format_args!("task {} was {} and is {}", new.id, old.state, new.state));
        }
        if new.state == TaskState::Failed && new.reason.is_empty() {
            self.world
                .broke(format_args!("task {} failed without a reason", new.id));
        }
    }

    /// A worker has let go of a journal: everything of it must be in the library, or left out by name.
    pub(crate) fn settled(&self, worker: WorkerId, journal: Journal) {
        let mut seen = lock(&self.seen);
        if let Some(grant) = &journal.grant {
            let record = journal
                .publish
                .id
                .parse()
                .ok()
                .and_then(|id| seen.publishes.get(&keys::publish(id)));
            if record.is_some_and(|record| record.ended.is_none()) {
                self.world.broke(format_args!(
                    "publish {} is settled and holds its stream",
                    journal.publish.id
                ));
            }
            for granted in &grant.recordings {
                if granted.state.is_terminal() {
                    continue;
                }
                for format in granted.template.formats.keys() {
                    self.complete(&seen, worker, &journal, (granted.id, *format));
                }
            }
        }
        seen.settled.push((worker, journal));
    }

    /// What a recording holds of a journal in a format, and what it names as left out.
    fn complete(&self, seen: &Seen, worker: WorkerId, journal: &Journal, (id, format): (RecordingId, Format)) {
        let Some(grant) = &journal.grant else { return };
        let Some(granted) = grant.recordings.iter().find(|granted| granted.id == id) else {
            return;
        };
        let recording = seen.recordings.get(&keys::recording(id));
        let failed = recording.is_some_and(|recording| recording.state == RecordingState::Failed);
        let Ok(publish) = journal.publish.id.parse::<PublishId>() else {
            return;
        };
        let mut held: Vec<Piece> = Vec::new();
        let mut gaps = 0;
        if format == Format::Hls {
            let root = format!("{}/{id}", recording_path(journal));
            let key = format!("{root}/{}/hls/index.m3u8", grant.epoch.path_component());
            let Some(index) = self.object(worker, &key) else {
                if !journal.units.is_empty() && granted.window.from.is_none() && !failed {
                    self.world
                        .broke(format_args!("publish {publish} is settled without an index at {key}"));
                }
                return;
            };
            for segment in segments(&key, &index.bytes) {
                held.extend(
                    self.object(worker, &segment)
                        .into_iter()
                        .flat_map(|object| object.units),
                );
            }
        } else {
            let of = |file: &&MediaFile| file.recording == id && file.format == format;
            for file in seen.files.values().filter(of) {
                gaps += file.gaps.iter().map(|gap| gap.units).sum::<u64>();
                held.extend(
                    self.object(worker, &file.object_key)
                        .into_iter()
                        .flat_map(|object| object.units),
                );
            }
        }
        gaps += recording.map_or(0, |recording| recording.gaps.iter().map(|gap| gap.units).sum());
        held.retain(|piece| piece.publish == publish);
        let count = held.len();
        held.sort_unstable();
        held.dedup();
        if held.len() != count {
            self.world.broke(format_args!(
                "recording {id} holds units of publish {publish} twice in {}",
                format.as_str()
            ));
        }
        let held: BTreeSet<u64> = held.into_iter().map(|piece| piece.at).collect();
        let of = |(recording, of, _, _): &&(RecordingId, Format, u64, String)| *recording == id && *of == format;
        let named: BTreeSet<u64> = journal.left_out.iter().filter(of).map(|(_, _, at, _)| *at).collect();
        let within = wanted(journal, &granted.window, recording);
        let missing: Vec<u64> = within.filter(|at| !held.contains(at) && !named.contains(at)).collect();
        if missing.len() as u64 > gaps && !failed {
            self.world.broke(format_args!(
                "recording {id} ({}) of publish {publish} has lost units {missing:?} without a gap",
                format.as_str()
            ));
        }
    }

    /// What the library has of a recording of several publishes is in the `recording.json` beside it, whoever wrote that at the same time.
    pub(crate) fn documents_are_whole(&self) {
        let seen = lock(&self.seen);
        let finished = |recording: &&Recording| recording.state == RecordingState::Finished && recording.is_stitched();
        for recording in seen.recordings.values().filter(finished) {
            let key = format!("{}/recording.json", recording.folder());
            let document = self.object(recording.worker, &key);
            let document = document.and_then(|document| RecordingDocument::from_json(&document.bytes).ok());
            let named = document.map(|document| document.files).unwrap_or_default();
            let unnamed = |file: &&MediaFile| file.recording == recording.id && !named.iter().any(|n| n.id == file.id);
            for file in seen.files.values().filter(unnamed) {
                self.world
                    .broke(format_args!("{key} does not name {}", file.object_key));
            }
        }
    }

    /// What must be true of tasks when everything has come to rest.
    pub(crate) fn tasks_are_told(&self) {
        let seen = lock(&self.seen);
        for task in seen.tasks.values() {
            if !task.state.is_terminal() {
                continue;
            }
            let of = |recording: &&Recording| recording.cause == Cause::Task(task.id);
            let files = seen
                .recordings
                .values()
                .filter(of)
                .any(|recording| seen.files.values().any(|file| file.recording == recording.id));
            if task.state == TaskState::Completed && !files {
                self.world
                    .broke(format_args!("task {} is completed and has no file", task.id));
            }
            let silent = task.state == TaskState::Failed && matches!(&*task.reason, STREAM_NEVER_LIVE | NO_MEDIA);
            if !silent {
                continue;
            }
            // Whole seconds within the window, of a publish that held the stream: with a key picture among them, and more behind.
            for (_, journal) in &seen.settled {
                let of_stream = recording_path(journal) == task.stream.path();
                let Some(grant) = journal.grant.as_ref().filter(|_| of_stream) else {
                    continue;
                };
                // By its worker's clock the task had not ended before: whatever that clock says later begins nothing again.
                let (from, to) = (task.start.as_millis() + 10_000, task.over().as_millis() - 10_000);
                let beyond = |unit: &&worker::sim::Unit| unit.arrival_ms > task.over().as_millis();
                let until = journal
                    .units
                    .iter()
                    .position(|unit| beyond(&unit))
                    .unwrap_or(journal.units.len());
                let inside = |unit: &&worker::sim::Unit| {
                    (from..to).contains(&unit.arrival_ms) && (from..to).contains(&unit.sent_ms)
                };
                let count = journal.units.iter().take(until).filter(inside).count();
                // Whose worker could not ask until the task had waited long enough is not known to anybody.
                let id = journal.publish.id.parse::<PublishId>().ok();
                let asked = id.and_then(|id| seen.heard_of.get(&id)).copied().unwrap_or(i64::MAX);
                let limit = task.over() + WORKER_TIMEOUT;
                let known = journal.publish.started_ms < task.over().as_millis() && asked < limit.as_millis();
                if count > 24 && known && task.created < task.start {
                    self.world.broke(format_args!(
                        "task {} says {}, and publish {} (epoch {}) had {count} units in its time",
                        task.id, task.reason, journal.publish.id, grant.epoch
                    ));
                }
            }
        }
    }
}

fn recording_path(journal: &Journal) -> String {
    let publish = &journal.publish;
    shared::ids::StreamKey::new(&publish.domain, &publish.app, &publish.stream)
        .map(|stream| stream.path())
        .unwrap_or_default()
}

/// The units that a window covers, by the arrival times alone.
fn wanted(
    journal: &Journal,
    window: &shared::lease::Window,
    recording: Option<&Recording>,
) -> Box<dyn Iterator<Item = u64>> {
    if window.cancelled || (recording.is_none() && window.from.is_some()) {
        return Box::new(std::iter::empty());
    }
    let (from, until) = (
        window.from.map(|at| at.as_millis()),
        window.until.map(|at| at.as_millis()),
    );
    // A clock that goes back begins and ends nothing again.
    let behind = |unit: &worker::sim::Unit| from.is_none_or(|from| unit.arrival_ms > from);
    let beyond = |unit: &worker::sim::Unit| until.is_some_and(|until| unit.arrival_ms > until);
    let units = journal.units.iter().zip(0u64..).skip_while(|(unit, _)| !behind(unit));
    let wanted: Vec<u64> = units.take_while(|(unit, _)| !beyond(unit)).map(|(_, at)| at).collect();
    Box::new(wanted.into_iter())
}

/// The keys of the segments that a playlist names.
fn segments(playlist: &str, text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let folder: Vec<&str> = playlist.split('/').collect();
    let folder = folder
        .split_last()
        .map(|(_, folder)| folder.to_vec())
        .unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut path = folder.clone();
            for part in line.split('/') {
                match part {
                    ".." => drop(path.pop()),
                    part => path.push(part),
                }
            }
            path.join("/")
        })
        .collect()
}
