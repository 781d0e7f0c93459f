//! [`CoordinatorActor`]: owns catalog, leases and fleet; every decision is made here, one after the other.

use std::{collections::BTreeMap, error::Error as StdError, sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use shared::{
    config::CoordinatorConfig,
    ids::{IdGen, PublishId, PullId, StreamKey, WorkerId},
    lease::{Epoch, FinishJob, LeaseOutcome, RecordingSet, RefusalKind},
    pull::PullStatus,
    recording::Recording,
    secret::Vault,
    store::{PublishRecord, Repo, StoreError, StreamRecord, Txn, keys},
    supervise::ExitGuard,
    telemetry::{CoordinatorMetrics, Reason},
    time::{Clock, Timestamp},
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{committer::Committer, marker::Marker};
use crate::{
    catalog::{Catalog, CatalogError},
    doors::Doors,
    fleet::{About, Counters, Fleet, Report, SessionId},
    leases::{self, Known, Leases, Request},
    media::{place::Place, removal},
    pulls::{Load, PullError, PullSet, Pulls},
    stitches::Stitches,
    tasks::Tasks,
};

/// Directives that wait for one worker. A worker that does not read them loses its session and comes back.
const DOWN_QUEUE: usize = 256;
/// Time between two looks for what may be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

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
}

/// What is decided upon. Loaded from the store; the store is written by nobody else.
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) leases: Leases,
    pub(crate) fleet: Fleet,
    pub(crate) pulls: Pulls,
    pub(crate) tasks: Tasks,
    pub(crate) doors: Doors,
}

impl State {
    /// Reads everything from the store.
    pub(crate) async fn load(repo: &Repo, config: &CoordinatorConfig, clock: &dyn Clock) -> Result<State, StoreError> {
        let catalog = Catalog::new(config, repo.all(keys::TEMPLATES).await?, repo.all(keys::RULES).await?);
        let doors = Doors::new(
            config.known_domains_only,
            repo.all(keys::DOMAINS).await?,
            repo.all(keys::BANS).await?,
        );
        let streams: Vec<StreamRecord> = repo.all(keys::STREAMS).await?;
        let stitches = Stitches::new(repo.all(keys::STITCHES).await?);
        let mut live = Vec::new();
        let mut fleet = Fleet::new(config.worker_timeout);
        let mono = clock.monotonic();
        for publish in streams.iter().filter_map(|stream| stream.publish) {
            if let Some(known) = load_known(repo, publish).await? {
                fleet.expect(known.record.worker, mono);
                live.push(known);
            }
        }
        for record in &mut live {
            for held in &mut record.recordings {
                held.stitch = stitches.of(held.id, record.record.epoch, |_| false);
            }
        }
        for worker in stitches.workers() {
            fleet.expect(worker, mono);
        }
        let pulls = Pulls::new(config.max_pulls, repo.all(keys::PULLS).await?);
        for worker in pulls.workers() {
            fleet.expect(worker, mono);
        }
        Ok(State {
            catalog,
            leases: Leases::new(streams, live, stitches, mono),
            fleet,
            pulls,
            tasks: Tasks::new(
                config.tasks.clone(),
                config.worker_timeout,
                repo.all(keys::OPEN_TASKS).await?,
                mono,
            ),
            doors,
        })
    }
}

/// What the store has of a publish.
pub(crate) async fn load_known(repo: &Repo, publish: PublishId) -> Result<Option<Known>, StoreError> {
    let Some((record, _)) = repo.get::<PublishRecord>(&keys::publish(publish)).await? else {
        return Ok(None);
    };
    let mut recordings = Vec::with_capacity(record.recordings.len());
    for id in &record.recordings {
        let recording: Option<Recording> = repo.recording(*id).await?;
        let window = record.windows.get(id).copied().unwrap_or_default();
        recordings.extend(recording.map(|recording| leases::granted_of(recording, window)));
    }
    Ok(Some(Known { record, recordings }))
}

/// What the actor works with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) config: Arc<CoordinatorConfig>,
    pub(crate) repo: Repo,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) metrics: CoordinatorMetrics,
    pub(crate) vault: Arc<Vault>,
    pub(crate) tasks: tokio_util::task::TaskTracker,
}

/// The one that decides.
pub(crate) struct CoordinatorActor {
    pub(super) state: State,
    pub(super) tools: Tools,
    pub(super) committer: Committer,
    marker: Marker,
    sessions: BTreeMap<WorkerId, (SessionId, mpsc::Sender<Down>)>,
    last_session: u64,
    _guard: ExitGuard,
}

impl CoordinatorActor {
    pub(crate) fn new(state: State, tools: Tools, committer: Committer, guard: ExitGuard) -> Self {
        let marker = Marker::start(tools.repo.clone(), &tools.tasks);
        // Session numbers of an earlier incarnation must not fit those of this one.
        let last_session = u64::try_from(tools.clock.monotonic().as_millis()).unwrap_or(0) << 20;
        CoordinatorActor {
            state,
            tools,
            committer,
            marker,
            sessions: BTreeMap::new(),
            last_session,
            _guard: guard,
        }
    }

    fn tick(&mut self) {
        let (now, mono) = (self.tools.clock.now(), self.tools.clock.monotonic());
        for worker in self.state.fleet.tick(mono) {
            let recordings = self.state.leases.recordings_of(worker);
            warn!(%worker, name = self.state.fleet.name(worker), recordings = recordings.len(), "worker lost, its streams are interrupted");
            self.marker.mark(recordings, true, now);
        }
        for worker in self.state.fleet.silent_for(self.tools.config.offline_timeout, mono) {
            if self.state.leases.holds_a_stream(worker) {
                warn!(%worker, "worker silent for too long, its streams are offline");
                let ended = self
                    .state
                    .leases
                    .end_all_of(worker, "its worker was not heard from for too long", now);
                self.submit_all(ended);
            }
        }
        let timeout = self.tools.config.worker_timeout;
        match self.state.leases.end_unnamed(&self.state.fleet, timeout, now) {
            Ok(ended) => {
                for (publish, txn) in ended {
                    warn!(%publish, "publish ended: its worker no longer knows it");
                    self.submit_all(Ok(vec![txn]));
                }
            }
            Err(error) => warn!(error = &error as &dyn StdError, "publishes not ended"),
        }
        let forget_after = self.tools.config.hooks.forget_after;
        for (stream, txn) in self.state.pulls.forget_stale(forget_after, mono) {
            warn!(%stream, "pull source forgotten: its origin announced the stream and did not send it");
            self.submit_all(Ok(vec![txn]));
        }
        self.place_pulls();
        let leases = &mut self.state.leases;
        let kept = leases.stitches().workers();
        let holds = |worker| leases.holds_a_stream(worker) || kept.contains(&worker);
        self.state.fleet.forget(holds);
        self.tools
            .metrics
            .workers
            .set(i64::try_from(self.state.fleet.alive()).unwrap_or(i64::MAX));
        self.tools
            .metrics
            .streams
            .set(i64::try_from(self.state.leases.len()).unwrap_or(i64::MAX));
    }

    /// A worker is back: its recordings go on.
    fn unmark(&self, worker: WorkerId) {
        let recordings = self.state.leases.recordings_of(worker);
        self.marker.mark(recordings, false, self.tools.clock.now());
    }

    /// Gives sources that have no worker one, takes them from workers that shall not have them, and tells all that are
    /// behind.
    fn place_pulls(&mut self) {
        let State {
            pulls, fleet, leases, ..
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
        match pulls.plan(self.tools.clock.now(), |worker| fleet.stays(worker), loads) {
            Ok(moved) => {
                for moved in moved {
                    let name = |worker: Option<WorkerId>| worker.map(|worker| self.state.fleet.name(worker));
                    let (from, to) = (name(moved.from), name(moved.to));
                    info!(stream = %moved.stream, from, to, "pull source placed");
                    self.submit_all(Ok(vec![moved.txn]));
                    for worker in [moved.from, moved.to].into_iter().flatten() {
                        self.tell_pulls(worker);
                    }
                }
            }
            Err(error) => warn!(error = &error as &dyn StdError, "pull sources not placed"),
        }
    }

    /// Tells a worker its set of sources if it is behind. It is told again after its next heartbeat if it still is.
    fn tell_pulls(&mut self, worker: WorkerId) {
        if let Some(set) = self.state.pulls.behind(worker) {
            self.tell(worker, Down::Pulls(set));
        }
    }

    /// Says something to a worker, if it has a session. One that does not read loses it.
    pub(super) fn tell(&mut self, worker: WorkerId, down: Down) {
        if let Some((_, sender)) = self.sessions.get(&worker)
            && sender.try_send(down).is_err()
        {
            warn!(%worker, "worker does not read its session, which is closed");
            self.sessions.remove(&worker);
        }
    }

    /// Hands in decisions that nobody waits for. A failure is the committer's to report.
    pub(super) fn submit_all(&self, txns: Result<Vec<Txn>, StoreError>) {
        match txns {
            Ok(txns) => txns.into_iter().for_each(|txn| drop(self.committer.submit(txn))),
            Err(error) => warn!(error = &error as &dyn StdError, "decision has no stored form"),
        }
    }

    fn sweep(&mut self) {
        let retention = i64::try_from(self.tools.config.publish_retention.as_millis()).unwrap_or(i64::MAX);
        let until = Timestamp::from_millis(self.tools.clock.now().as_millis().saturating_sub(retention));
        let mut forgotten = self.state.leases.forget_streams(until);
        forgotten.extend(self.state.doors.forget_bans(self.tools.clock.now()));
        self.submit_all(Ok(forgotten));
        let repo = self.tools.repo.clone();
        let kept = i64::try_from(self.tools.config.tasks.retention.as_millis()).unwrap_or(i64::MAX);
        let tasks_until = Timestamp::from_millis(self.tools.clock.now().as_millis().saturating_sub(kept));
        let place = Place::new(self.tools.config.objects.clone());
        self.tools.tasks.spawn(async move {
            removal::finish_all(&repo, &place).await;
            match repo.forget_tasks(tasks_until).await {
                Ok(count) => debug!(count, "tasks forgotten"),
                Err(error) => warn!(error = &error as &dyn StdError, "tasks not forgotten"),
            }
            match repo.forget_publishes(until).await {
                Ok(count) => debug!(count, "publishes forgotten"),
                Err(error) => warn!(error = &error as &dyn StdError, "publishes not forgotten"),
            }
        });
    }
}

impl Actor for CoordinatorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let every = (self.tools.config.heartbeat / 2).max(Duration::from_millis(50));
        ctx.run_interval(every, |actor, ctx| {
            actor.tick();
            actor.look_at_tasks(ctx);
            actor.finish_due(ctx);
        });
        ctx.run_interval(SWEEP_EVERY, |actor, _| actor.sweep());
        let every = (self.tools.config.lost_timeout / 4).clamp(Duration::from_millis(250), SWEEP_EVERY);
        ctx.run_interval(every, |actor, _| actor.fail_lost());
    }
}

/// A change of templates or rules: what the closure decides is answered when it is durable.
pub(crate) struct Change<T>(pub(crate) ChangeFn<T>);

type ChangeFn<T> = Box<dyn FnOnce(&mut Catalog, Moment<'_>) -> Result<(T, Txn), CatalogError> + Send>;

/// Time and ids for a decision.
pub(crate) struct Moment<'a> {
    pub(crate) now: Timestamp,
    pub(crate) ids: &'a dyn IdGen,
}

impl<T: Send + 'static> Message for Change<T> {
    type Result = Result<T, CatalogError>;
}

impl<T: Send + 'static> Handler<Change<T>> for CoordinatorActor {
    type Result = ResponseFuture<Result<T, CatalogError>>;

    fn handle(&mut self, change: Change<T>, _: &mut Context<Self>) -> Self::Result {
        let moment = Moment {
            now: self.tools.clock.now(),
            ids: self.tools.ids.as_ref(),
        };
        let decided = (change.0)(&mut self.state.catalog, moment);
        let durable = decided.map(|(value, txn)| (value, self.committer.submit(txn)));
        Box::pin(async move {
            let (value, durable) = durable?;
            durable.await?;
            Ok(value)
        })
    }
}

/// A change of the pull sources: what the closure decides is in force at once and answered when it is durable. It names
/// the worker whose set becomes another, if there is one.
pub(crate) struct Arrange<T>(pub(crate) ArrangeFn<T>);

type ArrangeFn<T> = Box<dyn FnOnce(&mut Pulls, Moment<'_>) -> Result<(T, Option<WorkerId>, Txn), PullError> + Send>;

impl<T: Send + 'static> Message for Arrange<T> {
    type Result = Result<T, PullError>;
}

impl<T: Send + 'static> Handler<Arrange<T>> for CoordinatorActor {
    type Result = ResponseFuture<Result<T, PullError>>;

    fn handle(&mut self, arrange: Arrange<T>, _: &mut Context<Self>) -> Self::Result {
        let moment = Moment {
            now: self.tools.clock.now(),
            ids: self.tools.ids.as_ref(),
        };
        let decided = (arrange.0)(&mut self.state.pulls, moment);
        let durable = decided.map(|(value, worker, txn)| (value, worker, self.committer.submit(txn)));
        if let Ok((_, worker, _)) = &durable {
            if let Some(worker) = *worker {
                self.tell_pulls(worker);
            }
            self.place_pulls();
        }
        Box::pin(async move {
            let (value, _, durable) = durable?;
            durable.await?;
            Ok(value)
        })
    }
}

/// A change of anything that is decided upon: what the closure decides is answered when it is durable.
pub(crate) struct Decide<T, E>(pub(crate) DecideFn<T, E>);

type DecideFn<T, E> = Box<dyn FnOnce(&mut State, Moment<'_>) -> Result<(T, Txn), E> + Send>;

impl<T: Send + 'static, E: Send + 'static> Message for Decide<T, E> {
    type Result = Result<T, E>;
}

impl<T: Send + 'static, E: From<StoreError> + Send + 'static> Handler<Decide<T, E>> for CoordinatorActor {
    type Result = ResponseFuture<Result<T, E>>;

    fn handle(&mut self, decide: Decide<T, E>, _: &mut Context<Self>) -> Self::Result {
        let moment = Moment {
            now: self.tools.clock.now(),
            ids: self.tools.ids.as_ref(),
        };
        let decided = (decide.0)(&mut self.state, moment);
        let durable = decided.map(|(value, txn)| (value, self.committer.submit(txn)));
        Box::pin(async move {
            let (value, durable) = durable?;
            durable.await?;
            Ok(value)
        })
    }
}

/// A look at the state.
pub(crate) struct Look<T>(pub(crate) LookFn<T>);

type LookFn<T> = Box<dyn FnOnce(&State) -> T + Send>;

impl<T: Send + 'static> Message for Look<T> {
    type Result = T;
}

impl<T: Send + 'static> Handler<Look<T>> for CoordinatorActor {
    type Result = MessageResult<Look<T>>;

    fn handle(&mut self, look: Look<T>, _: &mut Context<Self>) -> Self::Result {
        MessageResult((look.0)(&self.state))
    }
}

/// A worker asks for a stream.
#[derive(Message)]
#[rtype(result = "Result<LeaseOutcome, StoreError>")]
pub(crate) struct Acquire {
    pub(crate) request: Request,
    pub(crate) known: Option<Known>,
}

impl Handler<Acquire> for CoordinatorActor {
    type Result = ResponseFuture<Result<LeaseOutcome, StoreError>>;

    fn handle(&mut self, Acquire { request, known }: Acquire, _: &mut Context<Self>) -> Self::Result {
        let cx = leases::Context {
            catalog: &self.state.catalog,
            fleet: &self.state.fleet,
            tasks: &self.state.tasks,
            doors: &self.state.doors,
            vault: &self.tools.vault,
            ids: self.tools.ids.as_ref(),
            now: self.tools.clock.now(),
            mono: self.tools.clock.monotonic(),
        };
        let (publish, stream, worker) = (request.publish, request.stream.clone(), request.worker);
        // A worker that asks before its session stands gets the whole time-out to open one.
        let decided = self.state.leases.acquire(&cx, request, known);
        self.state.fleet.expect(worker, self.tools.clock.monotonic());
        let (metrics, repo) = (self.tools.metrics.clone(), self.tools.repo.clone());
        let decided = decided.map(|decided| (decided.outcome, self.committer.submit(decided.txn)));
        Box::pin(async move {
            let (outcome, durable) = decided?;
            durable.await?;
            super::stitches::pass_on(&repo, &outcome, publish, worker).await?;
            match &outcome {
                LeaseOutcome::Granted(grant) => {
                    metrics.leases_granted.inc();
                    info!(%publish, %stream, %worker, epoch = %grant.epoch, recordings = grant.recordings.len(), "lease granted");
                }
                LeaseOutcome::Refused(refusal) => {
                    metrics
                        .leases_refused
                        .get_or_create(&Reason {
                            reason: refusal_name(refusal.kind),
                        })
                        .inc();
                    info!(%publish, %stream, %worker, reason = refusal.reason, "lease refused");
                }
            }
            Ok(outcome)
        })
    }
}

const fn refusal_name(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::AlreadyLive => "already_live",
        RefusalKind::NotYours => "not_yours",
        RefusalKind::Forbidden => "forbidden",
    }
}

/// A publish is over.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(crate) struct Release {
    pub(crate) publish: PublishId,
    pub(crate) epoch: Epoch,
    pub(crate) reason: String,
    pub(crate) ended: Timestamp,
}

impl Handler<Release> for CoordinatorActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, release: Release, _: &mut Context<Self>) -> Self::Result {
        let Release {
            publish,
            epoch,
            reason,
            ended,
        } = release;
        info!(%publish, %epoch, reason, "publish released");
        let txn = self.state.leases.release(publish, epoch, reason, ended);
        // Also when there is nothing to do: the answer must not come before earlier decisions are durable.
        let durable = txn.map(|txn| self.committer.submit(txn.unwrap_or_default()));
        Box::pin(async move { durable?.await })
    }
}

/// A worker opens its session.
#[derive(Message)]
#[rtype(result = "Session")]
pub(crate) struct Open {
    pub(crate) worker: WorkerId,
    pub(crate) about: About,
}

/// An open session: its number, and what goes down it.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) down: mpsc::Receiver<Down>,
}

impl Handler<Open> for CoordinatorActor {
    type Result = MessageResult<Open>;

    fn handle(&mut self, Open { worker, about }: Open, _: &mut Context<Self>) -> Self::Result {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        let (sender, down) = mpsc::channel(DOWN_QUEUE);
        let (heartbeat, timeout) = (self.tools.config.heartbeat, self.tools.config.worker_timeout);
        // An empty queue has room for the first word.
        drop(sender.try_send(Down::Welcome { heartbeat, timeout }));
        info!(%worker, name = about.name, rtmp = about.rtmp_addr, version = about.version, "worker session opened");
        self.state.fleet.opened(worker, id, about, self.tools.clock.monotonic());
        self.state.pulls.forget_worker(worker);
        // Dropping the older session's sender ends it.
        self.sessions.insert(worker, (id, sender));
        self.unmark(worker);
        MessageResult(Session { id, down })
    }
}

/// A worker says what it is doing.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Beat {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionId,
    pub(crate) report: Report,
    /// The set of sources that it has carried out.
    pub(crate) pulls_revision: u64,
    pub(crate) pulls: BTreeMap<PullId, PullStatus>,
    /// Revisions of recordings that the worker applied last.
    pub(crate) applied: BTreeMap<PublishId, u64>,
}

impl Handler<Beat> for CoordinatorActor {
    type Result = ();

    fn handle(
        &mut self,
        Beat {
            worker,
            session,
            report,
            pulls_revision,
            pulls,
            applied,
        }: Beat,
        _: &mut Context<Self>,
    ) {
        let mono = self.tools.clock.monotonic();
        let named: Vec<PublishId> = report.counters.keys().copied().collect();
        if self.state.fleet.heartbeat(worker, session, report, mono) {
            info!(%worker, "worker is back, its streams go on");
            self.unmark(worker);
        }
        if self.sessions.get(&worker).is_none_or(|(id, _)| *id != session) {
            return;
        }
        for (publish, reason) in self.state.leases.named(worker, &named, mono) {
            info!(%publish, %worker, reason, "worker told to drop a publish");
            self.tell(worker, Down::Drop { publish, reason });
        }
        for set in self.state.leases.behind(worker, &applied) {
            self.tell(worker, Down::Set(set));
        }
        self.tell_finishes(worker);
        for publish in self.state.leases.unknown(&named) {
            self.tell(worker, Down::AskAgain(publish));
        }
        if let Some(set) = self.state.pulls.heard(worker, pulls_revision, pulls) {
            self.tell(worker, Down::Pulls(set));
        }
    }
}

/// A session ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Closed {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionId,
}

impl Handler<Closed> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Closed { worker, session }: Closed, _: &mut Context<Self>) {
        if self.sessions.get(&worker).is_some_and(|(id, _)| *id == session) {
            self.sessions.remove(&worker);
            info!(%worker, "worker session closed");
        }
        self.state.fleet.closed(worker, session);
    }
}

/// The actor leaves: sessions end, and with the answer everything decided is durable. It stops by itself: its timers
/// would keep it alive when nobody has a way to it any more.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(crate) struct Leave;

impl Handler<Leave> for CoordinatorActor {
    type Result = ResponseActFuture<Self, Result<(), StoreError>>;

    fn handle(&mut self, _: Leave, _: &mut Context<Self>) -> Self::Result {
        self.sessions.clear();
        let durable = self.committer.submit(Txn::new()).into_actor(self);
        Box::pin(durable.map(|result, _, ctx: &mut Context<Self>| {
            ctx.stop();
            result
        }))
    }
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
