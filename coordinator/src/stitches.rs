//! [`Stitches`]: recordings that go on with their stream's next publish, and when they have waited long enough. Pure.
//!
//! Each has a record in the store from its first publish to its end: which publishes fed it, of which of them not everything is in storage
//! yet, until when it waits, and at last who finishes it. Whatever worker comes next, and whoever coordinates then, goes on from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shared::{
    ids::{PublishId, RecordingId, StreamKey, TaskId, WorkerId},
    lease::{Epoch, FinishJob, GrantedRecording, Stitch, Window},
    recording::{Cause, RecordingState},
    store::{PublishRecord, StitchRecord, StoreError, Txn, keys},
    template::TemplateSpec,
    time::{Monotonic, Timestamp},
};

use crate::fleet::Fleet;

/// Publishes whose epochs are remembered. Of a recording with more only the latest can have its index.
const EPOCHS: usize = 64;

/// Why a recording ended whose stream went on.
const TASK_ENDED: &str = "task_ended";

/// Recordings that go on across publishes and have not ended.
#[derive(Debug, Default)]
pub(crate) struct Stitches {
    all: BTreeMap<RecordingId, StitchRecord>,
    /// Those whose earlier owners are fenced, so that another may finish them; false: that is being done.
    fenced: BTreeMap<RecordingId, bool>,
}

/// A worker shall finish a recording: once this is durable and the earlier owners are fenced it is told.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) recording: RecordingId,
    pub(crate) worker: WorkerId,
    pub(crate) epoch: Epoch,
    pub(crate) txn: Txn,
}

impl Stitches {
    pub(crate) fn new(records: Vec<StitchRecord>) -> Self {
        Stitches {
            all: records.into_iter().map(|record| (record.recording, record)).collect(),
            fenced: BTreeMap::new(),
        }
    }

    /// Workers that have something of them.
    pub(crate) fn workers(&self) -> BTreeSet<WorkerId> {
        let of = |record: &StitchRecord| {
            let open = record.open.iter().map(|(_, worker)| *worker);
            open.chain([record.worker]).collect::<Vec<_>>()
        };
        self.all.values().flat_map(of).collect()
    }

    /// The recording that a new publish of a stream continues, if one waits for it. One that is over already continues what it began behind.
    pub(crate) fn waiting(&self, publish: &PublishRecord, cause: &Cause, now: Timestamp) -> Option<RecordingId> {
        let waits = |record: &&StitchRecord| {
            record.stream == publish.stream
                && record.cause == *cause
                && record.live.is_none()
                && !record.ahead
                && record.finishing.is_none()
                && now <= record.until
                && (publish.ended.is_none() || follows(record, publish))
                && readable(record, publish.worker, publish.storage_of(&record.template.place))
        };
        let newest = self
            .all
            .values()
            .filter(waits)
            .max_by_key(|record| (record.began, record.epochs.last()));
        newest.map(|record| record.recording)
    }

    /// The settings of a recording.
    pub(crate) fn template(&self, recording: RecordingId) -> Option<&TemplateSpec> {
        self.all.get(&recording).map(|record| &record.template)
    }

    /// A recording begins with a publish; a task's perhaps later, when the first of it arrives.
    pub(crate) fn begin(
        &mut self,
        recording: RecordingId,
        publish: &PublishRecord,
        (cause, template, window): (&Cause, &TemplateSpec, Window),
        txn: Txn,
    ) -> Result<(Stitch, Txn), StoreError> {
        let ahead = matches!(cause, Cause::Task(_));
        let record = StitchRecord {
            ahead,
            ..new(recording, publish, cause, template, window)
        };
        self.all.insert(recording, record);
        self.feed(recording, publish, |_| false, txn)
    }

    /// True if a recording has gone on without a publish of `epoch` that says it feeds it, or is being finished.
    pub(crate) fn has_left(&self, recording: RecordingId, publish: PublishId, epoch: Epoch) -> bool {
        self.all.get(&recording).is_some_and(|record| {
            record.finishing.is_some()
                || record.live.is_some_and(|live| live != publish)
                || record.epochs.last().is_some_and(|last| *last > epoch)
        })
    }

    /// A publish that only its worker remembers feeds a recording: what it has behind it is what its grant says, where the store does
    /// not know better. Without effect on one that has gone on without it.
    pub(crate) fn restore(
        &mut self,
        granted: &GrantedRecording,
        publish: &PublishRecord,
        txn: Txn,
    ) -> Result<Txn, StoreError> {
        if self.has_left(granted.id, publish.id, publish.epoch) {
            return Ok(txn);
        }
        self.all.entry(granted.id).or_insert_with(|| {
            let before = granted.stitch.iter().flat_map(|stitch| stitch.before.iter().rev());
            StitchRecord {
                epochs: before.copied().collect(),
                ahead: granted.state == RecordingState::Scheduled,
                ..new(granted.id, publish, &granted.cause, &granted.template, granted.window)
            }
        });
        self.feed(granted.id, publish, |_| false, txn).map(|(_, txn)| txn)
    }

    /// A publish feeds a recording from now on. `lost` tells of a worker that nothing more is to be expected from it.
    pub(crate) fn feed(
        &mut self,
        recording: RecordingId,
        publish: &PublishRecord,
        lost: impl Fn(WorkerId) -> bool,
        txn: Txn,
    ) -> Result<(Stitch, Txn), StoreError> {
        let Some(record) = self.all.get_mut(&recording) else {
            return Ok((Stitch::default(), txn));
        };
        if record.epochs.last() != Some(&publish.epoch) {
            record.epochs.push(publish.epoch);
            record.open.push((publish.epoch, publish.worker));
            let forgotten = record.epochs.len().saturating_sub(EPOCHS);
            record.epochs.drain(..forgotten);
        }
        record.unnamed.retain(|(epoch, _)| *epoch != publish.epoch);
        record.worker = publish.worker;
        record.began = publish.started;
        record.live = Some(publish.id);
        let stitch = behind(record, publish.epoch, lost);
        let record = record.clone();
        Ok((stitch, put(txn, &record)?))
    }

    /// Something of a task's recording has arrived. None: that is known.
    pub(crate) fn begun(&mut self, recording: RecordingId) -> Result<Option<Txn>, StoreError> {
        let record = self.all.get_mut(&recording).filter(|record| record.ahead);
        let Some(record) = record else { return Ok(None) };
        record.ahead = false;
        put(Txn::new(), record).map(Some)
    }

    /// A task is over before its time, or is no more. `let_run`: what its stream's live publish feeds goes on, and waits for no other.
    pub(crate) fn end_task(&mut self, task: TaskId, let_run: bool, now: Timestamp) -> Result<Txn, StoreError> {
        let mut txn = Txn::new();
        let its = |record: &&mut StitchRecord| record.cause == Cause::Task(task);
        for record in self.all.values_mut().filter(its) {
            if let_run && record.live.is_some() {
                continue;
            }
            let until = record.window.until.map_or(now, |until| until.min(now));
            if record.window.until != Some(until) {
                record.window.until = Some(until);
                record.until = record.until.min(until);
                txn = put(txn, record)?;
            }
        }
        Ok(txn)
    }

    /// What a publish's recording has behind it. None: it does not go on, or no longer.
    pub(crate) fn of(&self, recording: RecordingId, epoch: Epoch, lost: impl Fn(WorkerId) -> bool) -> Option<Stitch> {
        let record = self.all.get(&recording)?;
        Some(behind(record, epoch, lost))
    }

    /// A publish has ended: what it fed waits from now on.
    pub(crate) fn pause(
        &mut self,
        publish: PublishId,
        reason: &str,
        ended: Timestamp,
        mut txn: Txn,
    ) -> Result<Txn, StoreError> {
        for record in self.all.values_mut().filter(|record| record.live == Some(publish)) {
            record.live = None;
            record.until = waits_until(ended, record);
            record.since = ended;
            reason.clone_into(&mut record.reason);
            txn = put(txn, record)?;
        }
        Ok(txn)
    }

    /// A publish has been left out of its worker's heartbeats for so long that it ends. Nobody who goes on from it waits for what it stores; if it
    /// stores something all the same, that is taken until the recording is finished.
    pub(crate) fn unnamed(&mut self, publish: &PublishRecord, now: Timestamp, mut txn: Txn) -> Result<Txn, StoreError> {
        for record in self.all.values_mut().filter(|record| record.live == Some(publish.id)) {
            record.unnamed.push((publish.epoch, now));
            txn = put(txn, record)?;
        }
        Ok(txn)
    }

    /// When the stream of a recording went away last, and why; none: it never did, or it is not one that goes on.
    pub(crate) fn away(&self, recording: RecordingId) -> Option<(Timestamp, &str)> {
        let record = self.all.get(&recording)?;
        (record.since > Timestamp::default()).then_some((record.since, &record.reason))
    }

    /// True while no publish feeds a recording.
    pub(crate) fn is_away(&self, recording: RecordingId) -> bool {
        self.all.get(&recording).is_some_and(|record| record.live.is_none())
    }

    /// True if a publish that has ended here may feed its recordings again: nobody else has, and nobody finishes them.
    pub(crate) fn resumable(&self, publish: &PublishRecord, recording: RecordingId) -> bool {
        self.all.get(&recording).is_some_and(|record| {
            record.finishing.is_none() && record.live.is_none() && record.epochs.last() == Some(&publish.epoch)
        })
    }

    /// Everything of a publish is in storage.
    pub(crate) fn settled(&mut self, recording: RecordingId, epoch: Epoch) -> Result<Option<Txn>, StoreError> {
        let Some(record) = self.all.get_mut(&recording) else {
            return Ok(None);
        };
        let before = record.open.len();
        record.open.retain(|(open, _)| *open != epoch);
        record.unnamed.retain(|(unnamed, _)| *unnamed != epoch);
        if record.open.len() == before {
            return Ok(None);
        }
        put(Txn::new(), record).map(Some)
    }

    /// The library has the end of a recording, or does not know it.
    pub(crate) fn ended(&mut self, recording: RecordingId) -> Option<Txn> {
        self.fenced.remove(&recording);
        let record = self.all.remove(&recording)?;
        let txn = Txn::new().delete(keys::stitch(recording));
        // What its list does not need of a lost worker lies half-made in storage. An id has a stored form.
        let left = (!record.open.is_empty()).then(|| txn.clone().put_json(keys::salvage(recording), &recording));
        Some(left.and_then(Result::ok).unwrap_or(txn))
    }

    /// Recordings that have waited long enough and of which everything is in storage that will ever be, each with a worker that can
    /// finish it. `gone` is silence after which nothing is expected of a worker any more.
    pub(crate) fn due(
        &mut self,
        fleet: &Fleet,
        gone: Duration,
        (now, mono): (Timestamp, Monotonic),
        mut next_epoch: impl FnMut(&StreamKey, Txn) -> Result<(Epoch, Txn), StoreError>,
    ) -> Result<Vec<Finish>, StoreError> {
        let mut due = Vec::new();
        for record in self.all.values_mut() {
            let recording = record.recording;
            // A clock was ahead when the publish ended, or is behind now: nothing waits longer than it should.
            record.until = record.until.min(waits_until(now, record));
            // A task's recording is over with its task, also while its stream goes on: once its owner has said that all is stored.
            let over = record.window.until.is_some_and(|until| now > until);
            if !over && (record.live.is_some() || now <= record.until) {
                continue;
            }
            if let Some((epoch, worker)) = record.finishing.filter(|(_, worker)| fleet.is_alive(*worker)) {
                // After a restart of the coordinator it is not known whether the earlier owners are fenced.
                if let std::collections::btree_map::Entry::Vacant(entry) = self.fenced.entry(recording) {
                    entry.insert(false);
                    due.push(Finish {
                        recording,
                        worker,
                        epoch,
                        txn: Txn::new(),
                    });
                }
                continue;
            }
            let limit = gone;
            let gone = |worker: WorkerId| fleet.is_gone(worker, limit, mono);
            let missing = |epoch: Epoch| {
                let mut unnamed = record.unnamed.iter();
                unnamed.any(|(of, since)| *of == epoch && now > *since + limit)
            };
            if record
                .open
                .iter()
                .any(|(epoch, worker)| !gone(*worker) && !missing(*epoch))
            {
                continue;
            }
            let mut ready: Vec<(WorkerId, u64)> = fleet.ready().collect();
            ready.sort_by_key(|(worker, bits)| (*worker != record.worker, *bits));
            let storage = |worker| fleet.storage(worker, &record.template.place).unwrap_or_default();
            let able = |worker: &WorkerId| readable(record, *worker, storage(*worker));
            let worker = ready.into_iter().map(|(worker, _)| worker).find(able);
            let Some(worker) =
                worker.filter(|worker| *worker == record.worker || gone(record.worker) || record.open.is_empty())
            else {
                continue;
            };
            let (epoch, txn) = next_epoch(&record.stream, Txn::new())?;
            record.finishing = Some((epoch, worker));
            let txn = put(txn, record)?;
            self.fenced.insert(recording, false);
            due.push(Finish {
                recording,
                worker,
                epoch,
                txn,
            });
        }
        Ok(due)
    }

    /// The earlier owners of a recording are fenced, or could not be: then it is tried again.
    pub(crate) fn fenced(&mut self, recording: RecordingId, done: bool) {
        match done {
            true => drop(self.fenced.insert(recording, true)),
            false => drop(self.fenced.remove(&recording)),
        }
    }

    /// What a worker is to finish.
    pub(crate) fn jobs(&self, worker: WorkerId) -> Vec<FinishJob> {
        let fenced = self.fenced.iter().filter(|(_, fenced)| **fenced);
        let job = |recording: &RecordingId| {
            let record = self.all.get(recording)?;
            let (epoch, _) = record.finishing.filter(|(_, finisher)| *finisher == worker)?;
            Some(FinishJob {
                recording: *recording,
                stream: record.stream.clone(),
                epoch,
                before: record.epochs.iter().rev().copied().collect(),
                template: record.template.clone(),
                reason: match record.reason.as_str() {
                    "" => TASK_ENDED.to_owned(),
                    said => said.to_owned(),
                },
                lost: !record.open.is_empty(),
            })
        };
        fenced.filter_map(|(recording, _)| job(recording)).collect()
    }
}

/// A recording that nothing has fed yet.
fn new(
    recording: RecordingId,
    publish: &PublishRecord,
    cause: &Cause,
    template: &TemplateSpec,
    window: Window,
) -> StitchRecord {
    StitchRecord {
        recording,
        stream: publish.stream.clone(),
        cause: cause.clone(),
        template: template.clone(),
        epochs: Vec::new(),
        open: Vec::new(),
        unnamed: Vec::new(),
        worker: publish.worker,
        storage: publish.storage_of(&template.place).to_owned(),
        began: publish.started,
        live: None,
        until: publish.started,
        since: Timestamp::default(),
        ahead: false,
        window,
        reason: String::new(),
        finishing: None,
    }
}

/// Until when a recording waits whose stream went away at `ended`: at most until its task is over.
fn waits_until(ended: Timestamp, record: &StitchRecord) -> Timestamp {
    let until = ended + Duration::from_secs(u64::from(record.template.flow_continue_s()));
    record.window.until.map_or(until, |over| until.min(over))
}

/// True if a publish began when the last one that fed a recording was over. On one worker the publishes of a stream follow each other, and one
/// clock times them; elsewhere it counts when that one was known to be over.
fn follows(record: &StitchRecord, publish: &PublishRecord) -> bool {
    match record.worker == publish.worker {
        true => publish.started > record.began,
        false => publish.started >= record.since,
    }
}

/// True if a worker can read what is stored of a recording.
fn readable(record: &StitchRecord, worker: WorkerId, storage: &str) -> bool {
    record.worker == worker || (!storage.is_empty() && storage == record.storage)
}

/// What a publish under `epoch` has behind it.
fn behind(record: &StitchRecord, epoch: Epoch, lost: impl Fn(WorkerId) -> bool) -> Stitch {
    let before: Vec<Epoch> = record.epochs.iter().rev().filter(|e| **e < epoch).copied().collect();
    let open = record.open.iter().find(|(open, _)| Some(open) == before.first());
    Stitch {
        lost: open
            .is_some_and(|(open, worker)| lost(*worker) || record.unnamed.iter().any(|(unnamed, _)| unnamed == open)),
        before,
    }
}

/// A transaction changes each key once: what an earlier step of a decision put there is replaced.
fn put(mut txn: Txn, record: &StitchRecord) -> Result<Txn, StoreError> {
    let key = keys::stitch(record.recording);
    txn.ops.retain(|op| op.key() != key);
    txn.put_json(key, record)
}
