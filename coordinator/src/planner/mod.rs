//! [`Planner`]: everything that a leading coordinator decides, one thing after the other. Pure: what happened and the time go in, what is
//! to be done comes out, in the order in which it is to be done.
//!
//! What is decided is in force here at once. A shell makes it durable in the same order, and tells a worker only what the
//! planner says; when something had to be durable first, the planner hears of it and says then what follows.

mod compositions;
mod sessions;
mod tasks;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    sync::Arc,
    time::Duration,
};

use shared::{
    composition::ComposeJob,
    config::CoordinatorConfig,
    ids::{IdGen, PublishId, RecordingId, StreamKey, TaskId, WorkerId},
    lease::{Epoch, FinishJob, RecordingSet},
    recording::RecordingState,
    secret::Vault,
    store::{PublishRecord, StoreError, Txn},
    time::{Monotonic, Timestamp},
};
use tracing::{info, warn};

pub(crate) use self::sessions::Beat;
use crate::{
    catalog::Catalog,
    compositions::{Clear, Compositions, GivenUp},
    doors::{Ban, DoorError, Doors},
    fleet::{Counters, Fleet, SessionId},
    leases::{self, Changed, Decided, Known, Leases, Request},
    pulls::{Load, PullSet, Pulls},
    stitches::Finish,
    tasks::Tasks,
};

/// What goes down a worker's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Down {
    /// The session stands.
    Welcome {
        /// Time between heartbeats.
        heartbeat: Duration,
        /// Silence after which its streams are interrupted.
        timeout: Duration,
    },
    /// A publish must end.
    Drop {
        /// Which.
        publish: PublishId,
        /// In words.
        reason: String,
    },
    /// What to fetch, all of it.
    Pulls(PullSet),
    /// Ask for this publish's lease again: it is not known here.
    AskAgain(PublishId),
    /// What a live publish is to record from now on.
    Set(RecordingSet),
    /// Recordings to finish, all of them.
    Finish(Vec<FinishJob>),
    /// What to compose, all of it.
    Compose(Vec<ComposeJob>),
    /// Take no stream any more, or take streams again.
    Draining { draining: bool, for_scale_in: bool },
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Make it durable. Nobody waits for it.
    Commit(Txn),
    /// Make it durable, then say so: [`Planner::announced`].
    Announce(Changed),
    /// Make it durable, then make the worker the recording's owner, then say so: [`Planner::passed_on`].
    PassOn(Finish),
    /// Say it to a worker; if it does not take it: [`Planner::unread`].
    Tell(WorkerId, Down),
    /// Note in the library that these go on, or that they do not.
    Mark {
        recordings: Vec<RecordingId>,
        interrupted: bool,
    },
    /// Remove what attempts at a composition left, except what the library has.
    Clear(Box<Clear>),
    /// End a composition's recording, then [`Planner::recording_ended`].
    GiveUp(GivenUp),
    /// Read a task's recordings, then [`Planner::task_read`].
    ReadTask(TaskId),
    /// End the recordings whose workers have been away since before `until`, except those of workers that are back.
    FailLost { until: Timestamp, back: BTreeSet<WorkerId> },
    /// Forget publishes and tasks that ended before these moments.
    Forget { publishes: Timestamp, tasks: Timestamp },
}

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// By the wall clock.
    pub(crate) now: Timestamp,
    /// By the clock that never jumps.
    pub(crate) mono: Monotonic,
    /// The wall clock may decide what nobody can take back.
    pub(crate) is_settled: bool,
}

/// A request's outcome: what goes before it, what it is, to be answered when its transaction is durable, and what follows.
#[derive(Debug)]
pub(crate) struct Decision<T, E> {
    pub(crate) before: Vec<Output>,
    pub(crate) result: Result<(T, Txn), E>,
    pub(crate) after: Vec<Output>,
}

/// What is decided upon. Loaded from the store; the store is written by nobody else.
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) leases: Leases,
    pub(crate) fleet: Fleet,
    pub(crate) pulls: Pulls,
    pub(crate) tasks: Tasks,
    pub(crate) doors: Doors,
    pub(crate) compositions: Compositions,
}

/// The one that decides.
pub(crate) struct Planner {
    pub(crate) state: State,
    config: Arc<CoordinatorConfig>,
    vault: Arc<Vault>,
    ids: Arc<dyn IdGen>,
    /// The session of each worker that has one.
    sessions: BTreeMap<WorkerId, SessionId>,
    last_session: u64,
}

impl Planner {
    pub(crate) fn new(
        state: State,
        config: Arc<CoordinatorConfig>,
        vault: Arc<Vault>,
        ids: Arc<dyn IdGen>,
        mono: Monotonic,
    ) -> Self {
        // Session numbers of an earlier incarnation must not fit those of this one.
        let last_session = u64::try_from(mono.as_millis()).unwrap_or(0) << 20;
        Planner {
            state,
            config,
            vault,
            ids,
            sessions: BTreeMap::new(),
            last_session,
        }
    }

    /// Looks at everything that is due with time alone. To be called every half heartbeat.
    pub(crate) fn look(&mut self, at: At) -> Vec<Output> {
        let mut out = self.look_at_workers(at);
        out.extend(self.look_at_tasks(at));
        out.extend(self.finish_due(at));
        out.extend(self.compose_due(at));
        out
    }

    fn look_at_workers(&mut self, at: At) -> Vec<Output> {
        let mut out = Vec::new();
        let State { leases, fleet, .. } = &mut self.state;
        for worker in fleet.tick(at.mono) {
            let recordings = leases.recordings_of(worker);
            warn!(%worker, name = fleet.name(worker), recordings = recordings.len(), "worker lost, its streams are interrupted");
            out.push(Output::Mark {
                recordings,
                interrupted: true,
            });
        }
        for worker in fleet.silent_for(self.config.offline_timeout, at.mono) {
            if leases.holds_a_stream(worker) {
                warn!(%worker, "worker silent for too long, its streams are offline");
                let ended = leases.end_all_of(worker, "its worker was not heard from for too long", at.now);
                commit_all(ended, &mut out);
            }
        }
        match leases.end_unnamed(fleet, self.config.worker_timeout, at.now) {
            Ok(ended) => {
                for (publish, txn) in ended {
                    warn!(%publish, "publish ended: its worker no longer knows it");
                    out.push(Output::Commit(txn));
                }
            }
            Err(error) => warn!(error = &error as &dyn StdError, "publishes not ended"),
        }
        let forget_after = self.config.hooks.forget_after;
        for (stream, txn) in self.state.pulls.forget_stale(forget_after, at.mono) {
            warn!(%stream, "pull source forgotten: its origin announced the stream and did not send it");
            out.push(Output::Commit(txn));
        }
        out.extend(self.place_pulls(at));
        let leases = &mut self.state.leases;
        let mut kept = leases.stitches().workers();
        kept.extend(self.state.compositions.workers());
        let holds = |worker| leases.holds_a_stream(worker) || kept.contains(&worker);
        self.state.fleet.forget(holds);
        out
    }

    /// Gives sources that have no worker one, takes them from workers that shall not have them, and tells all that are
    /// behind.
    fn place_pulls(&mut self, at: At) -> Vec<Output> {
        let State {
            pulls,
            fleet,
            leases,
            catalog,
            ..
        } = &mut self.state;
        let loads = |pulls: &Pulls| {
            let load = |bits_per_second| Load {
                streams: 0,
                bits_per_second,
            };
            let mut loads: BTreeMap<_, _> = fleet.ready().map(|(worker, bits)| (worker, load(bits))).collect();
            for (_, worker) in leases.held().filter(|(stream, _)| !pulls.has(stream)) {
                if let Some(load) = loads.get_mut(&worker) {
                    load.streams += 1;
                }
            }
            loads
        };
        let placed = catalog.templates().any(|template| !template.spec.place.is_empty());
        let able = |stream: &StreamKey, worker| {
            if !placed {
                return true;
            }
            let place = catalog.decide(stream).map(|decision| decision.template.place);
            place.is_none_or(|place| fleet.storage(worker, &place).is_some())
        };
        let moved = match pulls.plan(at.now, |worker| fleet.stays(worker), loads, able) {
            Ok(moved) => moved,
            Err(error) => {
                warn!(error = &error as &dyn StdError, "pull sources not placed");
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for moved in moved {
            let name = |worker: Option<WorkerId>| worker.map(|worker| fleet.name(worker));
            let (from, to) = (name(moved.from), name(moved.to));
            info!(stream = %moved.stream, from, to, "pull source placed");
            out.push(Output::Commit(moved.txn));
            let behind = [moved.from, moved.to].into_iter().flatten();
            out.extend(behind.filter_map(|worker| tell_pulls(pulls, worker)));
        }
        out
    }

    /// A change of the pull sources: what `decide` says, and what follows for the workers. `decide` names the worker whose set
    /// becomes another, if there is one.
    pub(crate) fn arrange<T, E>(
        &mut self,
        decide: impl FnOnce(&mut Pulls, &dyn IdGen) -> Result<(T, Option<WorkerId>, Txn), E>,
        at: At,
    ) -> Decision<T, E> {
        let decided = decide(&mut self.state.pulls, self.ids.as_ref());
        let mut after = Vec::new();
        if let Ok((_, worker, _)) = &decided {
            after.extend(worker.and_then(|worker| tell_pulls(&self.state.pulls, worker)));
            after.extend(self.place_pulls(at));
        }
        Decision {
            before: Vec::new(),
            result: decided.map(|(value, _, txn)| (value, txn)),
            after,
        }
    }

    /// Decides about a stream; see [`Leases::acquire`].
    pub(crate) fn acquire(&mut self, request: Request, known: Option<Known>, at: At) -> Result<Decided, StoreError> {
        let worker = request.worker;
        let cx = leases::Context {
            catalog: &self.state.catalog,
            fleet: &self.state.fleet,
            tasks: &self.state.tasks,
            doors: &self.state.doors,
            vault: &self.vault,
            ids: self.ids.as_ref(),
            now: at.now,
            mono: at.mono,
        };
        let decided = self.state.leases.acquire(&cx, request, known);
        // A worker that asks before its session stands gets the whole time-out to open one.
        self.state.fleet.expect(worker, at.mono);
        decided
    }

    /// A publish is over. The transaction is empty when that is known. True if its worker, which has `revision` of what it was to
    /// record, has the last one.
    pub(crate) fn release(
        &mut self,
        publish: PublishId,
        (epoch, revision): (Epoch, u64),
        reason: String,
        (ended, mono): (Timestamp, Monotonic),
    ) -> Result<(bool, Txn), StoreError> {
        let last = self.state.leases.revision(publish);
        let txn = self.state.leases.release(publish, epoch, reason, (ended, mono))?;
        Ok((txn.is_some() && last == Some(revision), txn.unwrap_or_default()))
    }

    /// Everything of a publish's part of a recording is in storage and in the library.
    pub(crate) fn settled(&mut self, recording: RecordingId, epoch: Epoch) -> Result<Txn, StoreError> {
        let txn = self.state.leases.stitches().settled(recording, epoch)?;
        Ok(txn.unwrap_or_default())
    }

    /// Something of a task's recording has arrived.
    pub(crate) fn begun(&mut self, recording: RecordingId) -> Result<Option<Txn>, StoreError> {
        self.state.leases.stitches().begun(recording)
    }

    /// A recording, which holds `publishes`, has ended in the library.
    pub(crate) fn recording_ended(
        &mut self,
        recording: RecordingId,
        publishes: &[PublishId],
        (state, reason): (RecordingState, &str),
        task: Option<TaskId>,
        at: At,
    ) -> Vec<Output> {
        self.state.leases.ended(recording, publishes, state);
        let mut out = self.forget_stitch(recording);
        out.extend(self.composed(recording, (state, reason), at));
        if let Some(task) = task {
            self.state.tasks.hint(task, at.mono);
            out.extend(self.look_at_tasks(at));
        }
        out
    }

    /// Has recordings finished whose streams did not come back.
    fn finish_due(&mut self, at: At) -> Vec<Output> {
        let gone = self.config.offline_timeout;
        let moment = (at.now, at.mono);
        match self.state.leases.finish_due(&self.state.fleet, gone, moment) {
            Ok(due) => due.into_iter().map(Output::PassOn).collect(),
            Err(error) => {
                warn!(error = &error as &dyn StdError, "recordings that wait not looked at");
                Vec::new()
            }
        }
    }

    /// A recording that is to be finished has its new owner. False: it has ended, or is not there.
    pub(crate) fn passed_on(
        &mut self,
        recording: RecordingId,
        worker: WorkerId,
        passed: Result<bool, StoreError>,
    ) -> Vec<Output> {
        if self.state.compositions.get(recording).is_some() {
            return self.composition_passed_on(recording, passed);
        }
        match passed {
            Ok(true) => {
                info!(%recording, %worker, "recording waited long enough for its stream, it is finished");
                self.state.leases.stitches().fenced(recording, true);
                self.tell_finishes(worker).into_iter().collect()
            }
            Ok(false) => self.forget_stitch(recording),
            Err(error) => {
                warn!(%recording, error = &error as &dyn StdError, "recording not passed on yet");
                self.state.leases.stitches().fenced(recording, false);
                Vec::new()
            }
        }
    }

    /// What a worker is to finish; told again with each heartbeat until it has.
    fn tell_finishes(&mut self, worker: WorkerId) -> Option<Output> {
        let jobs = self.state.leases.stitches().jobs(worker);
        (!jobs.is_empty()).then(|| Output::Tell(worker, Down::Finish(jobs)))
    }

    /// A recording has ended, and waits for nothing.
    fn forget_stitch(&mut self, recording: RecordingId) -> Vec<Output> {
        let ended = self.state.leases.stitches().ended(recording);
        ended.map(Output::Commit).into_iter().collect()
    }

    /// Forgets what nobody asks for any more. To be called now and then.
    pub(crate) fn sweep(&mut self, now: Timestamp) -> Vec<Output> {
        let publishes = before(now, self.config.publish_retention);
        let mut forgotten = self.state.leases.forget_streams(publishes);
        forgotten.extend(self.state.doors.forget_bans(now));
        let mut out: Vec<Output> = forgotten.into_iter().map(Output::Commit).collect();
        out.extend(self.forget_compositions(now));
        out.push(Output::Forget {
            publishes,
            tasks: before(now, self.config.tasks.retention),
        });
        out
    }

    /// Ends what workers were recording that have been away for too long. To be called now and then.
    pub(crate) fn fail_lost(&self, now: Timestamp) -> Output {
        Output::FailLost {
            until: before(now, self.config.lost_timeout),
            back: self.state.fleet.ready().map(|(worker, _)| worker).collect(),
        }
    }
}

/// The word that brings a worker's set of sources up to date, if it is behind. It is told again after its next heartbeat if it
/// still is.
fn tell_pulls(pulls: &Pulls, worker: WorkerId) -> Option<Output> {
    let set = pulls.behind(worker)?;
    Some(Output::Tell(worker, Down::Pulls(set)))
}

fn commit_all(txns: Result<Vec<Txn>, StoreError>, out: &mut Vec<Output>) {
    match txns {
        Ok(txns) => out.extend(txns.into_iter().map(Output::Commit)),
        Err(error) => warn!(error = &error as &dyn StdError, "decision has no stored form"),
    }
}

/// The moment so long before `now`.
fn before(now: Timestamp, time: Duration) -> Timestamp {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(millis))
}

/// A live stream as lists show it.
#[derive(Debug, Clone)]
pub(crate) struct StreamView {
    pub(crate) record: PublishRecord,
    pub(crate) interrupted: bool,
    pub(crate) worker_name: String,
    pub(crate) counters: Counters,
}

impl State {
    /// Ends a stream's push; its publisher may come again.
    pub(crate) fn drop_stream(&mut self, stream: &StreamKey, now: Timestamp) -> Result<Txn, StoreError> {
        self.leases.evict(stream, "dropped through the API (21, 100)", now)
    }

    /// Ends a stream's push and refuses it for a while.
    pub(crate) fn forbid(&mut self, ban: Ban, now: Timestamp) -> Result<Txn, DoorError> {
        let stream = ban.stream.clone();
        let mut txn = self.doors.forbid(ban)?;
        let evicted = self.leases.evict(&stream, "forbidden through the API (21, 101)", now)?;
        txn.ops.extend(evicted.ops);
        Ok(txn)
    }

    /// Live streams after `after` in the order of their keys, at most `limit` and one more.
    pub(crate) fn streams(
        &self,
        after: Option<&StreamKey>,
        limit: usize,
        fits: impl Fn(&StreamKey) -> bool,
    ) -> Vec<StreamView> {
        self.leases
            .streams()
            .filter(|live| after.is_none_or(|after| live.record.stream > *after) && fits(&live.record.stream))
            .take(limit.saturating_add(1))
            .map(|live| StreamView {
                record: live.record.clone(),
                interrupted: !self.fleet.is_alive(live.record.worker),
                worker_name: self.fleet.name(live.record.worker),
                counters: self.fleet.counters(live.record.worker, live.record.id),
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
