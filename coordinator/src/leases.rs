//! [`Leases`]: which publish holds which stream. Pure: each decision gives the transaction that makes it durable.

mod finish;
mod live;
mod recent;
mod restore;
mod stale;
mod stitched;

use std::{collections::BTreeMap, sync::Arc};

use shared::{
    ids::{IdGen, PublishId, RecordingId, StreamKey, WorkerId},
    lease::{Epoch, Grant, GrantedRecording, LeaseOutcome, RecordingSet, Refusal, RefusalKind, Window},
    recording::{Cause, Recording, RecordingState},
    secret::Vault,
    store::{PublishRecord, StoreError, StreamRecord, Txn, keys},
    task::Task,
    template::TemplateSpec,
    time::{Monotonic, Timestamp},
};

use crate::{
    catalog::{Catalog, TemplateRef},
    doors::Doors,
    fleet::Fleet,
    stitches::Stitches,
    tasks::Tasks,
};

pub(crate) use self::live::Live;
use self::{live::Publishes, recent::Recent};

/// Why a publish ended whose journal its worker found at its start.
const ADOPTED: &str = "found by its worker after a restart";
/// Version of the set of recordings that a new publish is granted. A worker that has none says 0.
const FIRST_REVISION: u64 = 1;

/// What a worker asks for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) worker: WorkerId,
    pub(crate) publish: PublishId,
    pub(crate) stream: StreamKey,
    pub(crate) params: String,
    pub(crate) client_addr: String,
    pub(crate) started: Timestamp,
    /// The publisher is gone; what is left is to finish its recordings.
    pub(crate) adopted: bool,
    /// Names where its objects lie; see [`StitchRecord`](shared::store::StitchRecord).
    pub(crate) storage: String,
    /// The same of the places that templates name, by their names.
    pub(crate) places: BTreeMap<String, String>,
    /// What the worker was granted for it before.
    pub(crate) held: Option<Grant>,
    /// What the library has of that, where the store does not know the publish.
    pub(crate) remembered: Vec<Recording>,
    /// The highest epoch of the stream that the worker knows.
    pub(crate) known_epoch: Epoch,
    /// Its worker asks again if the stream is live elsewhere.
    pub(crate) asks_again: bool,
}

/// What the store has of a publish that is asked about again.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) record: PublishRecord,
    pub(crate) recordings: Vec<GrantedRecording>,
}

/// A decision, already in force here; the transaction makes it durable.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) outcome: LeaseOutcome,
    pub(crate) txn: Txn,
}

/// Time, ids, rules and workers: what a decision rests on.
pub(crate) struct Context<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) fleet: &'a Fleet,
    pub(crate) tasks: &'a Tasks,
    pub(crate) doors: &'a Doors,
    pub(crate) vault: &'a Vault,
    pub(crate) ids: &'a dyn IdGen,
    pub(crate) now: Timestamp,
    pub(crate) mono: Monotonic,
}

/// Streams and the publishes that hold them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    streams: BTreeMap<StreamKey, StreamRecord>,
    live: Publishes,
    stitches: Stitches,
    /// Publishes that lost their stream to another worker while theirs was away: they are told when it is back.
    evicted: BTreeMap<WorkerId, BTreeMap<PublishId, String>>,
    recent: Recent,
}

impl Leases {
    /// Nobody publishes yet.
    pub(crate) fn new(streams: Vec<StreamRecord>, stitches: Stitches) -> Self {
        Leases {
            streams: streams
                .into_iter()
                .map(|record| (record.stream.clone(), record))
                .collect(),
            stitches,
            ..Leases::default()
        }
    }

    /// Takes up a publish that holds its stream, as the store has it.
    pub(crate) fn read(&mut self, mut known: Known, mono: Monotonic) {
        for held in &mut known.recordings {
            held.stitch = self.stitches.of(held.id, known.record.epoch, |_| false);
        }
        self.live.insert(Live {
            durable: known.record.revision,
            record: known.record,
            recordings: known.recordings,
            named: mono,
        });
    }

    /// The live publishes in the order of their streams.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &Live> {
        self.streams
            .values()
            .filter_map(|stream| self.live.get(&stream.publish?))
    }

    pub(crate) fn holder(&self, stream: &StreamKey) -> Option<&Live> {
        self.live.get(&self.streams.get(stream)?.publish?)
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// The version of what a live publish records.
    pub(crate) fn revision(&self, publish: PublishId) -> Option<u64> {
        self.live.get(&publish).map(|live| live.record.revision)
    }

    pub(crate) fn holds_a_stream(&self, worker: WorkerId) -> bool {
        self.live.of(worker).next().is_some()
    }

    /// The streams that are held, each with the worker that has it.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&StreamKey, WorkerId)> {
        self.live.iter().map(|live| (&live.record.stream, live.record.worker))
    }

    /// The recordings of a worker's live publishes.
    pub(crate) fn recordings_of(&self, worker: WorkerId) -> Vec<RecordingId> {
        let held = self.live.of(worker);
        held.flat_map(|live| live.record.recordings.iter().copied()).collect()
    }

    /// [`Leases::acquire`], of a publish that was not refused a moment ago.
    fn decide(&mut self, cx: &Context<'_>, request: Request, known: Option<Known>) -> Result<Decided, StoreError> {
        if let Some(live) = self.live.get_mut(&request.publish) {
            if live.record.worker != request.worker {
                return Ok(refused(RefusalKind::NotYours, not_yours(cx, live.record.worker)));
            }
            live.named = cx.mono;
            let (epoch, revision) = (live.record.epoch, live.record.revision);
            // While it is live the library may have gone on with what it records; which recordings there are is decided here.
            for read in known.into_iter().flat_map(|known| known.recordings) {
                if let Some(held) = live.recordings.iter_mut().find(|held| held.id == read.id) {
                    held.state = read.state;
                }
            }
            let recordings = live.recordings.clone();
            let txn = match request.adopted {
                true => self.end(request.publish, ADOPTED.to_owned(), cx.now, Txn::new())?,
                false => Txn::new(),
            };
            return Ok(granted(
                Grant {
                    epoch,
                    revision,
                    recordings,
                },
                txn,
            ));
        }
        if !request.adopted && (known.is_some() || request.held.is_some()) {
            self.recent.names(request.publish)?;
        }
        if let Some(known) = known {
            return self.acquire_known(cx, &request, known);
        }
        // A publish that is over was taken when the door stood as it did then.
        let at = if request.adopted { request.started } else { cx.now };
        if let Err(reason) = cx
            .doors
            .admit(cx.vault, &request.stream, &request.params, request.started, at)
        {
            return Ok(refused(RefusalKind::Forbidden, reason));
        }
        let mut txn = Txn::new();
        if request.adopted {
            txn = self.end_earlier(&request, cx.now, txn)?;
        } else {
            match self.make_way(
                cx,
                &request.stream,
                request.worker,
                (request.publish, request.started),
                txn,
            )? {
                Ok(on) => txn = on,
                Err(refusal) => {
                    return Ok(Decided {
                        outcome: LeaseOutcome::Refused(refusal),
                        txn: Txn::new(),
                    });
                }
            }
        }
        match request.held.clone() {
            Some(held) => self.restore(cx, request, held, txn),
            None => self.grant_new(cx, request, txn),
        }
    }

    /// A publish that was granted before and has ended since, at least as far as is known here.
    fn acquire_known(&mut self, cx: &Context<'_>, request: &Request, known: Known) -> Result<Decided, StoreError> {
        let Known {
            mut record,
            mut recordings,
        } = known;
        if record.worker != request.worker {
            return Ok(refused(RefusalKind::NotYours, not_yours(cx, record.worker)));
        }
        for held in &mut recordings {
            held.stitch = self
                .stitches
                .of(held.id, record.epoch, |worker| !cx.fleet.is_alive(worker));
        }
        let grant = Grant {
            epoch: record.epoch,
            revision: record.revision,
            recordings: recordings.clone(),
        };
        if request.adopted {
            return Ok(granted(grant, Txn::new()));
        }
        if let Err(reason) = cx.doors.not_banned(&record.stream, cx.now) {
            return Ok(refused(RefusalKind::Forbidden, reason));
        }
        // What it fed may have gone on without it, or is being finished.
        let stitched = |held: &&GrantedRecording| held.template.flow_continue_s() > 0 && !held.state.is_terminal();
        let ids: Vec<RecordingId> = recordings.iter().filter(stitched).map(|held| held.id).collect();
        if !ids.iter().all(|id| self.stitches.resumable(&record, *id)) {
            self.evict_late(&record, "its recording has gone on without it".to_owned());
            return Ok(granted(grant, Txn::new()));
        }
        // Its worker was away and is back with the publisher still connected: it gets its stream again if it is free.
        let txn = match self.make_way(
            cx,
            &record.stream,
            record.worker,
            (record.id, record.started),
            Txn::new(),
        )? {
            Ok(txn) => txn,
            Err(refusal) => {
                self.evict_late(&record, refusal.reason);
                return Ok(granted(grant, Txn::new()));
            }
        };
        record.ended = None;
        record.reason.clear();
        let epoch = self
            .streams
            .get(&record.stream)
            .map_or(record.epoch, |stream| stream.epoch)
            .max(record.epoch);
        let mut txn = self.hold(record.stream.clone(), epoch, Some(record.id), cx.now, txn)?;
        for id in ids {
            (_, txn) = self.stitches.feed(id, &record, |_| false, txn)?;
        }
        let txn = txn.put_json(keys::publish(record.id), &record)?;
        self.live.insert(Live {
            durable: record.revision,
            record,
            recordings,
            named: cx.mono,
        });
        Ok(granted(grant, txn))
    }

    /// A publish has lost its stream, perhaps before its worker heard that it had it. What was journaled until then is finished like any
    /// other, under its own epoch; only its publisher must go.
    fn evict_late(&mut self, record: &PublishRecord, reason: String) {
        let evicted = self.evicted.entry(record.worker).or_default();
        evicted.insert(record.id, reason);
    }

    /// Ends the publish that holds `stream`, if it may be: one of the same worker, or of a worker that is lost.
    fn make_way(
        &mut self,
        cx: &Context<'_>,
        stream: &StreamKey,
        worker: WorkerId,
        (publish, started): (PublishId, Timestamp),
        txn: Txn,
    ) -> Result<Result<Txn, Refusal>, StoreError> {
        let Some(holder) = self.holder(stream) else {
            return Ok(Ok(txn));
        };
        let (old, old_worker) = (holder.record.id, holder.record.worker);
        if old_worker == worker {
            // The worker has arbitrated: it takes a second publisher only when the first is gone or silent. So it is over what began before:
            // its question was late.
            if started < holder.record.started {
                let reason = format!("stream {stream} is live with a later publish on the same worker");
                return Ok(Err(Refusal {
                    kind: RefusalKind::AlreadyLive,
                    reason,
                }));
            }
            return self
                .end(old, format!("superseded by publish {publish}"), cx.now, txn)
                .map(Ok);
        }
        if cx.fleet.is_alive(old_worker) {
            let reason = format!("stream {stream} is live on worker {}", cx.fleet.name(old_worker));
            return Ok(Err(Refusal {
                kind: RefusalKind::AlreadyLive,
                reason,
            }));
        }
        let reason = format!("taken over by worker {}", cx.fleet.name(worker));
        self.evicted.entry(old_worker).or_default().insert(old, reason.clone());
        self.end(old, reason, cx.now, txn).map(Ok)
    }

    /// A publish that is over takes its stream from nobody. But one of the same worker that began before it is over, too, though its release has
    /// not been heard: what that one fed may go on with this one.
    fn end_earlier(&mut self, request: &Request, now: Timestamp, txn: Txn) -> Result<Txn, StoreError> {
        let earlier = |live: &&Live| live.record.worker == request.worker && live.record.started < request.started;
        let earlier = self.holder(&request.stream).filter(earlier);
        match earlier.map(|live| live.record.id) {
            Some(old) => self.end(old, format!("superseded by publish {}", request.publish), now, txn),
            None => Ok(txn),
        }
    }

    /// A publish that nobody has heard of: new recordings under a new epoch.
    fn grant_new(&mut self, cx: &Context<'_>, request: Request, txn: Txn) -> Result<Decided, StoreError> {
        let before = self.streams.get(&request.stream);
        let last = before.map_or(Epoch::default(), |stream| stream.epoch);
        let epoch = last.max(request.known_epoch).next();
        let holder = if request.adopted {
            before.and_then(|stream| stream.publish)
        } else {
            Some(request.publish)
        };
        let mut txn = self.hold(request.stream.clone(), epoch, holder, cx.now, txn)?;
        let mut record = PublishRecord {
            id: request.publish,
            stream: request.stream,
            worker: request.worker,
            epoch,
            params: request.params,
            client_addr: request.client_addr,
            started: request.started,
            ended: request.adopted.then_some(cx.now),
            reason: if request.adopted {
                ADOPTED.to_owned()
            } else {
                String::new()
            },
            recordings: Vec::new(),
            revision: FIRST_REVISION,
            windows: BTreeMap::new(),
            storage: request.storage,
            places: request.places,
        };
        let mut recordings = Vec::new();
        let decision = cx.catalog.decide(&record.stream);
        if let Some(decision) = decision.filter(|decision| !decision.template.is_no_record()) {
            let what = (decision.cause, decision.template, Window::default());
            txn = self.record_or_go_on(cx, (&mut record, &mut recordings), what, txn)?;
        }
        txn = self.record_for_tasks(cx, &mut record, &mut recordings, txn)?;
        txn = txn.put_json(keys::publish(record.id), &record)?;
        self.live.share(&mut recordings);
        let answer = Known {
            record: record.clone(),
            recordings: recordings.clone(),
        };
        self.recent.granted(answer, cx.mono);
        if request.adopted {
            txn = self.stitches.pause(record.id, ADOPTED, cx.now, txn)?;
        } else {
            self.live.insert(Live {
                durable: FIRST_REVISION,
                record,
                recordings: recordings.clone(),
                named: cx.mono,
            });
        }
        let grant = Grant {
            epoch,
            revision: FIRST_REVISION,
            recordings,
        };
        Ok(granted(grant, txn))
    }

    /// Ends a task's recording of the live publish of its stream now. One whose time has not come never begins; one that runs
    /// goes on if `let_run`.
    pub(crate) fn end_task(
        &mut self,
        task: &Task,
        let_run: bool,
        now: Timestamp,
    ) -> Result<Option<Changed>, StoreError> {
        let holder = self.streams.get(&task.stream).and_then(|stream| stream.publish);
        let Some(live) = holder.and_then(|publish| self.live.get_mut(&publish)) else {
            return Ok(None);
        };
        let cause = Cause::Task(task.id);
        let Some(held) = live.recordings.iter_mut().find(|held| held.cause == cause) else {
            return Ok(None);
        };
        let ahead = held.window.from.is_some_and(|from| from > now);
        if held.state.is_terminal() || (let_run && !ahead) {
            return Ok(None);
        }
        let until = held.window.until.map_or(now, |until| until.min(now));
        let window = Window {
            until: Some(until),
            cancelled: ahead || held.window.cancelled,
            ..held.window
        };
        if std::mem::replace(&mut held.window, window) == window {
            return Ok(None);
        }
        live.record.windows.insert(held.id, held.window);
        live.changed(Txn::new()).map(Some)
    }

    /// A revision is in the store: gives what the worker is to be told.
    pub(crate) fn durable(&mut self, publish: PublishId, revision: u64) -> Option<(WorkerId, RecordingSet)> {
        let live = self.live.get_mut(&publish)?;
        live.durable = live.durable.max(revision);
        (live.durable == live.record.revision).then(|| (live.record.worker, live.set()))
    }

    /// The sets of recordings of which a worker has applied an older revision than it should.
    pub(crate) fn behind(&self, worker: WorkerId, applied: &BTreeMap<PublishId, u64>) -> Vec<RecordingSet> {
        let behind = |(publish, applied): (&PublishId, &u64)| {
            let live = self.live.get(publish).filter(|live| live.record.worker == worker)?;
            // 0: its lease has not come yet, and brings them.
            let known = live.durable == live.record.revision;
            (*applied != 0 && *applied < live.durable && known).then(|| live.set())
        };
        applied.iter().filter_map(behind).collect()
    }

    fn hold(
        &mut self,
        stream: StreamKey,
        epoch: Epoch,
        publish: Option<PublishId>,
        now: Timestamp,
        txn: Txn,
    ) -> Result<Txn, StoreError> {
        let record = StreamRecord {
            stream: stream.clone(),
            epoch,
            publish,
            changed: now,
        };
        // A transaction changes each key once: what an earlier step of this decision put there is replaced.
        let key = keys::stream(&stream);
        let mut txn = txn;
        txn.ops.retain(|op| op.key() != key);
        let txn = txn.put_json(key, &record)?;
        self.streams.insert(stream, record);
        Ok(txn)
    }

    /// A publish no longer holds its stream. Without effect when it does not hold it, or under another epoch.
    pub(crate) fn release(
        &mut self,
        publish: PublishId,
        epoch: Epoch,
        reason: String,
        (ended, mono): (Timestamp, Monotonic),
    ) -> Result<Option<Txn>, StoreError> {
        self.recent.over(publish, mono);
        if self.live.get(&publish).is_none_or(|live| live.record.epoch != epoch) {
            return Ok(None);
        }
        self.end(publish, reason, ended, Txn::new()).map(Some)
    }

    fn end(&mut self, publish: PublishId, reason: String, ended: Timestamp, txn: Txn) -> Result<Txn, StoreError> {
        let Some(Live {
            mut record, recordings, ..
        }) = self.live.remove(&publish)
        else {
            return Ok(txn);
        };
        record.ended = Some(ended);
        record.reason = reason;
        let txn = self.stitches.pause(publish, &record.reason, ended, txn)?;
        let txn = finish::noted(&recordings, record.worker, ended, txn)?;
        let mut txn = txn.put_json(keys::publish(publish), &record)?;
        if let Some(stream) = self
            .streams
            .get(&record.stream)
            .filter(|stream| stream.publish == Some(publish))
        {
            let epoch = stream.epoch;
            txn = self.hold(record.stream, epoch, None, ended, txn)?;
        }
        Ok(txn)
    }

    /// Ends the publish that holds a stream, whoever has it; its worker is told to drop it when it is heard from next.
    /// Without effect when the stream is not live.
    pub(crate) fn evict(&mut self, stream: &StreamKey, reason: &str, now: Timestamp) -> Result<Txn, StoreError> {
        let Some(holder) = self.holder(stream) else {
            return Ok(Txn::new());
        };
        let (publish, worker) = (holder.record.id, holder.record.worker);
        let evicted = self.evicted.entry(worker).or_default();
        evicted.insert(publish, reason.to_owned());
        self.end(publish, reason.to_owned(), now, Txn::new())
    }

    /// What a worker says it has. Gives the publishes that must be dropped, with reasons.
    pub(crate) fn named(
        &mut self,
        worker: WorkerId,
        publishes: &[PublishId],
        mono: Monotonic,
    ) -> Vec<(PublishId, String)> {
        for publish in publishes {
            if let Some(live) = self.live.get_mut(publish).filter(|live| live.record.worker == worker) {
                live.named = mono;
            }
        }
        let evicted = self.evicted.remove(&worker).unwrap_or_default();
        evicted
            .into_iter()
            .filter(|(publish, _)| publishes.contains(publish) && !self.live.has(publish))
            .collect()
    }
}

/// A change of what a live publish records.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) publish: PublishId,
    pub(crate) worker: WorkerId,
    pub(crate) epoch: Epoch,
    pub(crate) revision: u64,
    /// A recording that goes on with the publish: it is passed on before the worker hears of it.
    pub(crate) goes_on: Option<RecordingId>,
    pub(crate) txn: Txn,
}

/// Enters a new recording of a publish, under its epoch.
fn record_as(
    cx: &Context<'_>,
    record: &mut PublishRecord,
    recordings: &mut Vec<GrantedRecording>,
    (cause, template, window): (Cause, TemplateSpec, Window),
    txn: Txn,
) -> Result<Txn, StoreError> {
    let named = matches!(cause, Cause::Rule(_)).then(|| TemplateRef::Name(template.name.clone()));
    let recording = Recording {
        id: RecordingId::generate(cx.ids, cx.now),
        template_id: named.and_then(|name| Some(cx.catalog.template(&name).ok()?.id)),
        stream: record.stream.clone(),
        state: match cause {
            Cause::Task(_) => RecordingState::Scheduled,
            _ => RecordingState::Recording,
        },
        cause,
        reason: String::new(),
        epoch: record.epoch,
        template,
        publishes: vec![record.id],
        worker: record.worker,
        params: record.params.clone(),
        started: window.from.map_or(record.started, |from| from.max(record.started)),
        ended: None,
        gaps: Vec::new(),
        locked: false,
    };
    let mut txn = txn
        .put_json(keys::recording(recording.id), &recording)?
        .put(keys::stream_recording(&recording.stream, recording.id), "");
    if let Cause::Task(task) = recording.cause {
        txn = txn.put(keys::task_recording(task, recording.id), "");
        record.windows.insert(recording.id, window);
    }
    record.recordings.push(recording.id);
    recordings.push(granted_of(recording, window));
    Ok(txn)
}

/// What a worker is told of a recording.
pub(crate) fn granted_of(recording: Recording, window: Window) -> GrantedRecording {
    GrantedRecording {
        id: recording.id,
        cause: recording.cause,
        template: Arc::new(recording.template),
        state: recording.state,
        window,
        stitch: None,
    }
}

fn granted(grant: Grant, txn: Txn) -> Decided {
    Decided {
        outcome: LeaseOutcome::Granted(grant),
        txn,
    }
}

fn refused(kind: RefusalKind, reason: String) -> Decided {
    Decided {
        outcome: LeaseOutcome::Refused(Refusal { kind, reason }),
        txn: Txn::new(),
    }
}

fn not_yours(cx: &Context<'_>, worker: WorkerId) -> String {
    format!("the publish belongs to worker {}", cx.fleet.name(worker))
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
