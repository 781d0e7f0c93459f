//! [`CoordinatorActor`]: hands everything that happens to the [`Planner`], one thing after the other, and does what it says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use shared::{
    config::CoordinatorConfig,
    ids::{IdGen, PublishId, WorkerId},
    lease::{Epoch, LeaseOutcome, RefusalKind},
    objects::{Archive, Places},
    secret::Vault,
    store::{Repo, StoreError, Txn},
    supervise::ExitGuard,
    telemetry::{CoordinatorMetrics, Reason},
    time::{Clock, Timestamp},
};
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};
use uuid::Uuid;

use super::{committer::Committer, marker::Marker};
use crate::{
    catalog::{Catalog, CatalogError},
    compositions::Sources,
    fleet::{About, DrainError, SessionId},
    leases::{Known, Request},
    media::sweeper::Sweeper,
    planner::{At, Beat, Decision, Down, Planner, State},
    pulls::{PullError, Pulls},
    scaler::Shrink,
};

/// Directives that wait for one worker. A worker that does not read them loses its session and comes back.
const DOWN_QUEUE: usize = 256;
/// Time between two looks for what may be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What the actor works with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) config: Arc<CoordinatorConfig>,
    pub(crate) repo: Repo,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGen>,
    pub(crate) metrics: CoordinatorMetrics,
    pub(crate) vault: Arc<Vault>,
    /// Where clients reach HTTP, without a slash at its end.
    pub(crate) public_url: Arc<str>,
    pub(crate) tasks: tokio_util::task::TaskTracker,
    /// Where finished objects lie; none: this coordinator was not told.
    pub(crate) archive: Option<Places<Archive>>,
    /// Where copies of them lie; none: there is no second place.
    pub(crate) second: Option<Archive>,
    /// Behind which job it is looked next for something to copy.
    pub(crate) copies_at: Arc<Mutex<Option<Uuid>>>,
    /// What open compositions read.
    pub(crate) sources: Sources,
}

impl Tools {
    pub(super) fn at(&self) -> At {
        At {
            now: self.clock.now(),
            mono: self.clock.monotonic(),
            is_settled: self.clock.is_settled(),
        }
    }
}

/// The shell around the one that decides.
pub(crate) struct CoordinatorActor {
    pub(super) planner: Planner,
    pub(super) tools: Tools,
    pub(super) committer: Committer,
    pub(super) marker: Marker,
    sessions: BTreeMap<WorkerId, (SessionId, mpsc::Sender<Down>)>,
    _sweeper: Option<Sweeper>,
    _guard: ExitGuard,
}

impl CoordinatorActor {
    pub(crate) fn new(mut state: State, tools: Tools, committer: Committer, guard: ExitGuard) -> Self {
        state.compositions.tell(tools.sources.clone());
        let marker = Marker::start(tools.repo.clone(), &tools.tasks);
        let every = tools.config.retention_interval;
        let sweeper = tools
            .remover()
            .map(|remover| Sweeper::start(remover, every, &tools.tasks));
        let planner = Planner::new(
            state,
            Arc::clone(&tools.config),
            Arc::clone(&tools.vault),
            Arc::clone(&tools.ids),
            tools.clock.monotonic(),
        );
        CoordinatorActor {
            planner,
            tools,
            committer,
            marker,
            sessions: BTreeMap::new(),
            _sweeper: sweeper,
            _guard: guard,
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let since = Instant::now();
        let out = self.planner.look(self.tools.at());
        self.tools.metrics.plan.took(since.elapsed());
        self.perform_all(out, ctx);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (state, metrics) = (&self.planner.state, &self.tools.metrics);
        metrics.workers.set(gauge(state.fleet.alive()));
        metrics.streams.set(gauge(state.leases.len()));
        metrics.tasks.set(gauge(state.tasks.len()));
    }

    /// Hands in a request's transaction between what goes before it and what follows; the future tells when it is durable.
    pub(super) fn decided<T, E: From<StoreError>>(
        &mut self,
        decision: Decision<T, E>,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<T, E>> + use<T, E> {
        self.perform_all(decision.before, ctx);
        let durable = decision.result.map(|(value, txn)| (value, self.committer.submit(txn)));
        self.perform_all(decision.after, ctx);
        async move {
            let (value, durable) = durable?;
            durable.await?;
            Ok(value)
        }
    }

    /// Says something to a worker, if it has a session. One that does not read loses it.
    pub(super) fn tell(&mut self, worker: WorkerId, down: Down) {
        if let Some((_, sender)) = self.sessions.get(&worker)
            && sender.try_send(down).is_err()
        {
            warn!(%worker, "worker does not read its session, which is closed");
            self.sessions.remove(&worker);
            self.planner.unread(worker);
        }
    }
}

impl Actor for CoordinatorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let every = (self.tools.config.heartbeat / 2).max(Duration::from_millis(50));
        ctx.run_interval(every, |actor, ctx| actor.look(ctx));
        ctx.run_interval(SWEEP_EVERY, |actor, ctx| {
            let out = actor.planner.sweep(actor.tools.clock.now());
            actor.perform_all(out, ctx);
        });
        let every = (self.tools.config.lost_timeout / 4).clamp(Duration::from_millis(250), SWEEP_EVERY);
        ctx.run_interval(every, |actor, ctx| {
            let out = actor.planner.fail_lost(actor.tools.clock.now());
            actor.perform(out, ctx);
        });
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
        let decided = (change.0)(&mut self.planner.state.catalog, moment);
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

    fn handle(&mut self, arrange: Arrange<T>, ctx: &mut Context<Self>) -> Self::Result {
        let at = self.tools.at();
        let decide = |pulls: &mut Pulls, ids: &dyn IdGen| (arrange.0)(pulls, Moment { now: at.now, ids });
        let decision = self.planner.arrange(decide, at);
        Box::pin(self.decided(decision, ctx))
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
        let decided = (decide.0)(&mut self.planner.state, moment);
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
        MessageResult((look.0)(&self.planner.state))
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
        let (publish, stream, worker) = (request.publish, request.stream.clone(), request.worker);
        let (since, began) = (Instant::now(), request.started);
        let decided = self.planner.acquire(request, known, self.tools.at());
        let away = decided.as_ref().map_or_else(
            |_| Vec::new(),
            |decided| super::stitches::interruptions(&self.planner.state.leases, &decided.outcome, began),
        );
        let (metrics, repo) = (self.tools.metrics.clone(), self.tools.repo.clone());
        let decided = decided.map(|decided| (decided.outcome, self.committer.submit(decided.txn)));
        Box::pin(async move {
            let (outcome, durable) = decided?;
            durable.await?;
            super::stitches::pass_on(&repo, &outcome, publish, worker).await?;
            metrics.lease.took(since.elapsed());
            away.into_iter().for_each(|(place, past)| place.show(past));
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

/// A publish is over. The answer is true if its worker knows the last of what it was to record.
#[derive(Message)]
#[rtype(result = "Result<bool, StoreError>")]
pub(crate) struct Release {
    pub(crate) publish: PublishId,
    pub(crate) epoch: Epoch,
    pub(crate) revision: u64,
    pub(crate) reason: String,
    pub(crate) ended: Timestamp,
}

impl Handler<Release> for CoordinatorActor {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(&mut self, release: Release, _: &mut Context<Self>) -> Self::Result {
        let Release {
            publish,
            epoch,
            revision,
            reason,
            ended,
        } = release;
        info!(%publish, %epoch, reason, "publish released");
        let moment = (ended, self.tools.clock.monotonic());
        let released = self.planner.release(publish, (epoch, revision), reason, moment);
        // Also when there is nothing to do: the answer must not come before earlier decisions are durable.
        let durable = released.map(|(knows, txn)| (knows, self.committer.submit(txn)));
        Box::pin(async move {
            let (knows, durable) = durable?;
            durable.await?;
            Ok(knows)
        })
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

    fn handle(&mut self, Open { worker, about }: Open, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, down) = mpsc::channel(DOWN_QUEUE);
        let (id, out) = self.planner.opened(worker, about, self.tools.at());
        // Dropping the older session's sender ends it.
        self.sessions.insert(worker, (id, sender));
        self.perform_all(out, ctx);
        MessageResult(Session { id, down })
    }
}

impl Message for Beat {
    type Result = ();
}

impl Handler<Beat> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, beat: Beat, ctx: &mut Context<Self>) {
        let out = self.planner.beat(beat, self.tools.at());
        self.perform_all(out, ctx);
    }
}

/// Somebody wants a worker to take no stream any more, or to take streams again.
#[derive(Message)]
#[rtype(result = "Result<WorkerId, DrainError>")]
pub(crate) struct DrainWorker {
    /// Id or name.
    pub(crate) worker: String,
    pub(crate) draining: bool,
}

impl Handler<DrainWorker> for CoordinatorActor {
    type Result = MessageResult<DrainWorker>;

    fn handle(&mut self, asked: DrainWorker, ctx: &mut Context<Self>) -> Self::Result {
        let told = self.planner.drain(&asked.worker, asked.draining);
        MessageResult(told.map(|(worker, out)| {
            self.perform(out, ctx);
            worker
        }))
    }
}

/// The set of workers shrinks, or does not after all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Scaled(pub(crate) Shrink);

impl Handler<Scaled> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Scaled(shrink): Scaled, ctx: &mut Context<Self>) {
        for worker in &shrink.leave {
            info!(%worker, "fewer workers are wanted: it is told to leave");
        }
        for worker in &shrink.stay {
            info!(%worker, "it is wanted after all: it is told to take streams");
        }
        let out = self.planner.shrink(&shrink);
        self.perform_all(out, ctx);
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
        }
        self.planner.closed(worker, session);
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
