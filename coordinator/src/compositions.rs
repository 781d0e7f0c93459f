//! [`Compositions`]: new files of pieces of stored ones, and which worker makes them. Pure: each change gives the transaction that makes it
//! durable.
//!
//! Each attempt has an epoch of the composition's own recording: whoever made the one before is refused by the library from then on. An
//! attempt ends with its worker, or when it has come no further for [`STALLED`], by the bytes that its worker says: a hundredth of a long one takes
//! longer than that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{
    composition::{ComposeJob, ComposeStatus, Composition, CompositionState, NewComposition},
    ids::{FileId, IdGen, RecordingId, WorkerId},
    lease::Epoch,
    objects::{folder, place_of},
    recording::{Cause, MediaFile, Recording, RecordingState},
    store::{Removal, StoreError, Txn, keys},
    template::Format,
    time::{Monotonic, Timestamp},
};
use thiserror::Error;
use uuid::Uuid;

use crate::{fleet::Fleet, media::note::Note, stitches::Finish};

/// Most that are kept, ended or not.
pub(crate) const MAX_KEPT: usize = 10_000;
/// For how long one waits for a worker that can read its pieces: the one that has them may be gone for good.
const WAITS: Duration = Duration::from_secs(3 * 86_400);
/// Most pieces of all that are kept: some 40 MB in the store, and in memory.
const MAX_KEPT_PIECES: usize = 200_000;
/// Most that have not ended.
pub(crate) const MAX_OPEN: usize = 1_000;
/// Most that one worker makes at a time.
const AT_ONCE: usize = 2;
/// Attempts before a composition is given up.
const MAX_ATTEMPTS: u64 = 5;
/// An attempt that has come no further for so long is another worker's.
pub(crate) const STALLED: Duration = Duration::from_secs(600);
/// How long one that has ended is kept, and its token is taken.
pub(crate) const KEPT: Duration = Duration::from_secs(3 * 86_400);

/// Why one is not made. The message says what to do.
#[derive(Debug, Clone, Error)]
pub(crate) enum CompositionError {
    #[error("the token was used for composition {0} in the last three days: use another for another file")]
    TokenTaken(RecordingId),
    #[error("{MAX_OPEN} compositions wait or run, the most there may be: ask again when some have ended")]
    TooManyOpen,
    #[error(
        "{MAX_KEPT} compositions, or {MAX_KEPT_PIECES} pieces of them, are kept, the most there may be; each is forgotten three days after its end"
    )]
    TooManyKept,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How the attempt in hand stands.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// The library refuses earlier owners; false: that is being done.
    fenced: bool,
    progress: u8,
    bytes: u64,
    /// When it came further last. A worker that begins again within an attempt comes further when it has passed where it was.
    moved: Monotonic,
}

/// Files that compositions read which have not ended, for whoever removes files: nothing but what follows from these compositions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Arc<Mutex<BTreeSet<(FileId, RecordingId)>>>);

impl Sources {
    fn held(&self) -> MutexGuard<'_, BTreeSet<(FileId, RecordingId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A composition that reads a file.
    pub(crate) fn reader(&self, file: FileId) -> Option<RecordingId> {
        let all = (file, RecordingId::from_uuid(Uuid::nil()))..=(file, RecordingId::from_uuid(Uuid::max()));
        self.held().range(all).next().map(|(_, composition)| *composition)
    }

    pub(crate) fn begin(&self, one: &Composition) {
        self.held()
            .extend(one.new.pieces.iter().map(|piece| (piece.file, one.id)));
    }

    fn end(&self, one: &Composition) {
        let mut held = self.held();
        for piece in &one.new.pieces {
            held.remove(&(piece.file, one.id));
        }
    }
}

/// All compositions.
#[derive(Debug, Default)]
pub(crate) struct Compositions {
    all: BTreeMap<RecordingId, Composition>,
    open: BTreeSet<RecordingId>,
    sources: Sources,
    attempts: BTreeMap<RecordingId, Attempt>,
}

/// A composition that nobody will make.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) recording: RecordingId,
    pub(crate) epoch: Epoch,
    pub(crate) problem: String,
}

/// What attempts may have left whole in storage goes, except what the library has.
#[derive(Debug)]
pub(crate) struct Clear {
    one: Composition,
    /// All that is known of it goes, too.
    forget: bool,
}

/// What is to be done about compositions.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) begin: Vec<Finish>,
    pub(crate) give_up: Vec<GivenUp>,
}

impl Compositions {
    pub(crate) fn new(all: Vec<Composition>) -> Self {
        let open = all.iter().filter(|one| !one.state.is_terminal());
        Compositions {
            open: open.map(|one| one.id).collect(),
            all: all.into_iter().map(|one| (one.id, one)).collect(),
            attempts: BTreeMap::new(),
            sources: Sources::default(),
        }
    }

    /// Keeps `sources` up with these from now on, in place of what it said.
    pub(crate) fn tell(&mut self, sources: Sources) {
        sources.held().clear();
        self.open().for_each(|one| sources.begin(one));
        self.sources = sources;
    }

    /// Workers that make some.
    pub(crate) fn workers(&self) -> BTreeSet<WorkerId> {
        self.open().filter_map(|one| one.worker).collect()
    }

    pub(crate) fn get(&self, id: RecordingId) -> Option<(&Composition, u8)> {
        self.all.get(&id).map(|one| (one, self.progress(one)))
    }

    /// The newest first, those before `before` only.
    pub(crate) fn list(&self, before: Option<RecordingId>) -> impl Iterator<Item = (&Composition, u8)> {
        let all = self.all.values().rev();
        all.filter(move |one| before.is_none_or(|before| one.id < before))
            .map(|one| (one, self.progress(one)))
    }

    fn progress(&self, one: &Composition) -> u8 {
        match one.state {
            CompositionState::Finished => 100,
            _ => self.attempts.get(&one.id).map_or(0, |attempt| attempt.progress),
        }
    }

    fn open(&self) -> impl Iterator<Item = &Composition> {
        self.open.iter().filter_map(|id| self.all.get(id))
    }

    pub(crate) fn create(
        &mut self,
        new: NewComposition,
        now: Timestamp,
        ids: &dyn IdGen,
    ) -> Result<(Composition, Txn), CompositionError> {
        let taken = self
            .all
            .values()
            .find(|one| !new.token.is_empty() && one.new.token == new.token);
        if let Some(taken) = taken {
            return Err(CompositionError::TokenTaken(taken.id));
        }
        if self.open.len() >= MAX_OPEN {
            return Err(CompositionError::TooManyOpen);
        }
        let pieces: usize = self.all.values().map(|one| one.new.pieces.len()).sum();
        if self.all.len() >= MAX_KEPT || pieces + new.pieces.len() > MAX_KEPT_PIECES {
            return Err(CompositionError::TooManyKept);
        }
        let one = Composition {
            id: RecordingId::generate(ids, now),
            new,
            state: CompositionState::Waiting,
            attempt: Epoch::default(),
            worker: None,
            problem: String::new(),
            created: now,
            begun: None,
            ended: None,
        };
        let txn = Txn::new().put_json(keys::composition(one.id), &one)?;
        self.sources.begin(&one);
        self.open.insert(one.id);
        self.all.insert(one.id, one.clone());
        Ok((one, txn))
    }

    /// Gives each that needs one a worker, the least loaded that can read its pieces; the oldest first.
    pub(crate) fn due(&mut self, fleet: &Fleet, (now, mono): (Timestamp, Monotonic)) -> Result<Due, StoreError> {
        let mut due = Due::default();
        let mut busy: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for one in self.open() {
            if let Some(worker) = one.worker {
                *busy.entry(worker).or_default() += 1;
            }
        }
        for id in self.open.clone() {
            let Some(one) = self.all.get_mut(&id) else { continue };
            if let Some(worker) = one.worker.filter(|worker| fleet.is_alive(*worker)) {
                match self.attempts.get(&id) {
                    // After a restart of the coordinator it is not known whether the earlier owners are fenced.
                    None => {
                        self.attempts.insert(id, Attempt::new(mono));
                        due.begin.push(begin(one, worker, Txn::new()));
                        continue;
                    }
                    Some(attempt) if mono.since(attempt.moved) < STALLED => continue,
                    Some(_) => {}
                }
            }
            if one.attempt.get() >= MAX_ATTEMPTS {
                due.give_up.push(GivenUp {
                    recording: id,
                    epoch: one.attempt,
                    problem: format!("gave_up: {MAX_ATTEMPTS} workers began it and none came to an end"),
                });
                continue;
            }
            let mut ready: Vec<_> = fleet
                .ready()
                .map(|(worker, bits)| (busy.get(&worker).copied().unwrap_or(0), bits, worker))
                .filter(|(jobs, _, worker)| *jobs < AT_ONCE && reads(one, *worker, fleet))
                .collect();
            // One that stalled goes to another worker, if there is one.
            ready.sort_by_key(|(jobs, bits, worker)| (one.worker == Some(*worker), *jobs, *bits));
            let Some((_, _, worker)) = ready.first().copied() else {
                // What it reads is not removed while it is open.
                if one.created + WAITS < now {
                    due.give_up.push(GivenUp {
                        recording: id,
                        epoch: one.attempt,
                        problem: "gave_up: no worker that can read its pieces had room for it in three days".to_owned(),
                    });
                }
                continue;
            };
            let mut after = one.clone();
            after.worker = Some(worker);
            after.attempt = one.attempt.next();
            after.state = CompositionState::Running;
            after.begun = one.begun.or(Some(now));
            let mut txn = Txn::new().put_json(keys::composition(id), &after)?;
            if one.attempt == Epoch::default() {
                txn = txn
                    .put_json(keys::recording(id), &recording(&after, worker))?
                    .put(keys::stream_recording(&after.new.stream, id), "");
            }
            *one = after;
            *busy.entry(worker).or_default() += 1;
            self.attempts.insert(id, Attempt::new(mono));
            due.begin.push(begin(one, worker, txn));
        }
        Ok(due)
    }

    /// The earlier owners of one are fenced, or could not be: then it is tried again. None: it is no composition.
    pub(crate) fn fenced(&mut self, id: RecordingId, done: bool) -> Option<WorkerId> {
        let one = self.all.get(&id)?;
        match (done, self.attempts.get_mut(&id)) {
            (true, Some(attempt)) => attempt.fenced = true,
            (_, _) => drop(self.attempts.remove(&id)),
        }
        one.worker
    }

    /// What a worker is to make.
    pub(crate) fn jobs(&self, worker: WorkerId) -> Vec<ComposeJob> {
        self.open()
            .filter(|one| one.worker == Some(worker) && self.attempts.get(&one.id).is_some_and(|a| a.fenced))
            .map(Composition::job)
            .collect()
    }

    /// A worker says what it makes. True if that is not what it is to make.
    pub(crate) fn heard(&mut self, worker: WorkerId, said: &[ComposeStatus], mono: Monotonic) -> bool {
        for status in said {
            let known = self.all.get(&status.recording);
            if known.is_none_or(|one| one.worker != Some(worker) || one.attempt != status.epoch) {
                continue;
            }
            if let Some(attempt) = self.attempts.get_mut(&status.recording) {
                if attempt.progress < status.progress || attempt.bytes < status.bytes {
                    attempt.moved = mono;
                }
                attempt.progress = attempt.progress.max(status.progress);
                attempt.bytes = attempt.bytes.max(status.bytes);
            }
        }
        // What this coordinator has not given out anew since it leads is no reason to stop what is being made.
        let is_fenced = |one: &Composition| self.attempts.get(&one.id).is_some_and(|attempt| attempt.fenced);
        if self.open().any(|one| one.worker == Some(worker) && !is_fenced(one)) {
            return false;
        }
        let wanted: BTreeSet<_> = self.jobs(worker).iter().map(|job| (job.recording, job.epoch)).collect();
        let named: BTreeSet<_> = said.iter().map(|status| (status.recording, status.epoch)).collect();
        wanted != named
    }

    /// The recording of one has ended in the library; gives what is to be cleared behind that. None: it is no composition, or known.
    pub(crate) fn ended(
        &mut self,
        id: RecordingId,
        state: RecordingState,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<(Txn, Clear)>, StoreError> {
        let Some(one) = self.all.get_mut(&id).filter(|one| !one.state.is_terminal()) else {
            return Ok(None);
        };
        let mut after = one.clone();
        after.ended = Some(now);
        match state {
            RecordingState::Finished => after.state = CompositionState::Finished,
            _ => {
                after.state = CompositionState::Failed;
                reason.clone_into(&mut after.problem);
            }
        }
        let mut txn = Txn::new().put_json(keys::composition(id), &after)?;
        if let Some(file) = after.file().filter(|_| !after.new.description.is_empty()) {
            let note = Note {
                description: after.new.description.clone(),
                updated: Some(now),
                ..Note::default()
            };
            txn = txn.put_json(keys::media_note(file), &note)?;
        }
        self.sources.end(&after);
        *one = after.clone();
        self.open.remove(&id);
        self.attempts.remove(&id);
        let clear = Clear {
            one: after,
            forget: false,
        };
        Ok(Some((txn, clear)))
    }

    /// Forgets those that ended long ago.
    pub(crate) fn forget(&mut self, now: Timestamp) -> Vec<Clear> {
        let over = |one: &Composition| one.ended.is_some_and(|ended| ended + KEPT < now);
        let clear = |one: &Composition| Clear {
            one: one.clone(),
            forget: true,
        };
        let out = self.all.values().filter(|one| over(one)).map(clear).collect();
        self.all.retain(|_, one| !over(one));
        out
    }
}

impl Clear {
    /// The file that the composition makes.
    pub(crate) fn file(&self) -> FileId {
        self.one.file_id()
    }

    /// What it changes. `kept`: the attempt whose file is in the library. That decides, and not what the composition says: an attempt may have entered
    /// its file and died, or have been passed over while it did.
    pub(crate) fn txn(&self, kept: Option<Epoch>, now: Timestamp) -> Result<Txn, StoreError> {
        let one = &self.one;
        let mut txn = left(one, kept, now)?;
        if self.forget {
            txn = txn.delete(keys::composition(one.id));
            if one.state == CompositionState::Failed && kept.is_none() {
                txn = txn
                    .delete(keys::recording(one.id))
                    .delete(keys::stream_recording(&one.new.stream, one.id));
            }
        }
        Ok(txn)
    }
}

impl Attempt {
    const fn new(mono: Monotonic) -> Self {
        Attempt {
            fenced: false,
            progress: 0,
            bytes: 0,
            moved: mono,
        }
    }
}

/// True if a worker can read what is stored of its pieces.
fn reads(one: &Composition, worker: WorkerId, fleet: &Fleet) -> bool {
    let own = one.new.writers.iter().all(|writer| *writer == worker);
    // It goes to the first place itself.
    let mut places = one.new.pieces.iter().map(|piece| place_of(&piece.key)).chain([""]);
    places.all(|place| {
        fleet
            .storage(worker, place)
            .is_some_and(|storage| own || !storage.is_empty())
    })
}

fn begin(one: &Composition, worker: WorkerId, txn: Txn) -> Finish {
    Finish {
        recording: one.id,
        worker,
        epoch: one.attempt,
        txn,
    }
}

/// The recording that a composition makes.
fn recording(one: &Composition, worker: WorkerId) -> Recording {
    Recording {
        id: one.id,
        stream: one.new.stream.clone(),
        cause: Cause::Composed,
        state: RecordingState::Recording,
        reason: String::new(),
        epoch: one.attempt,
        template: Composition::template(),
        template_id: None,
        publishes: Vec::new(),
        worker,
        params: String::new(),
        started: one.created,
        ended: None,
        gaps: Vec::new(),
        locked: false,
    }
}

/// Has what attempts may have left whole removed from storage, except `kept`.
fn left(one: &Composition, kept: Option<Epoch>, now: Timestamp) -> Result<Txn, StoreError> {
    let epochs = (1..=one.attempt.get()).map(Epoch::new);
    let mut txn = Txn::new();
    for epoch in epochs.filter(|epoch| Some(*epoch) != kept) {
        let id = FileId::from_uuid(Uuid::new_v5(&one.id.as_uuid(), epoch.path_component().as_bytes()));
        let folder = folder("", &one.new.stream, one.id);
        let key = format!("{folder}/{}/mp4/000000.mp4", epoch.path_component());
        let file = MediaFile {
            id,
            recording: one.id,
            stream: one.new.stream.clone(),
            format: Format::Mp4,
            sequence: 0,
            name: one.new.name.clone(),
            object_key: key,
            size: 0,
            duration_ms: 0,
            start: one.new.start,
            end: one.new.start,
            checksum: String::new(),
            video_units: 0,
            audio_units: 0,
            gaps: Vec::new(),
            epoch,
            committed: now,
            expires: None,
            locked: false,
            copied: None,
        };
        txn = txn.put_json(keys::removal(id), &Removal::asked(&file, now))?;
    }
    Ok(txn)
}

#[cfg(test)]
#[path = "compositions_tests.rs"]
mod tests;
