//! Starts a worker and ends it: [`start`] and [`Running`]. The worker's own actor, which owns its streams, is here too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use jiff::tz::TimeZone;
use journal::{GroupSync, Progress, Publish};
use shared::auth::{Caller, Tokens, tls::Certificates};
use shared::config::WorkerConfig;
use shared::ids::{IdGen, PublishId, RecordingId, StreamKey, WorkerId};
use shared::lease::{Epoch, FinishJob, RecordingSet};
use shared::time::{Clock, Steady};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::budget::{self, Budget, Verdict};
use crate::compose::{Composing, Workbench};
use crate::control::agent::{Agent, Directive, Identity, Load, Said};
use crate::control::load::{Journals, Sampler};
use crate::copy::Copies;
use crate::identity::worker_id;
use crate::ingest::poller::{self, Ingest};
use crate::ingest::{Command, Event, Live, Settings};
use crate::places;
use crate::pull::Puller;
use crate::record::pool::Pool;
use crate::stream::actor::{AskAgain, Closed, Common, GiveUp, Notice, Set, StreamActor};
use crate::stream::adopt::{Adopted, adopt_all};
use crate::stream::document::{About, Documents};
use crate::stream::finish::{Composer, Finisher};
use crate::stream::ground::{self, Machine};
use crate::upload::abandoned::Abandoned;
use crate::upload::{Needs, Synced};
use shared::telemetry::WorkerMetrics;

/// Events of ingest and notices of streams that may wait for the worker's actor.
const MAILBOX: usize = 4096;

/// How often it is looked what journals take.
const BUDGET_EVERY: Duration = Duration::from_secs(2);

/// What a worker takes from outside beside its configuration.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdGen>,
    /// What it counts.
    pub metrics: WorkerMetrics,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory could not be made or used.
    #[error("{what} {path}: {source}")]
    Directory {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The RTMP address could not be bound.
    #[error("cannot take RTMP on {address}: {source}. Is another program there? Choose another with --rtmp")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
}

/// A worker at work.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    worker: Addr<WorkerActor>,
    ingest: Option<Ingest>,
    sync: Arc<GroupSync>,
    handover: Duration,
    _copies: Option<Copies>,
}

impl Running {
    /// The address publishers connect to.
    #[must_use]
    pub fn rtmp_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes nothing new, ends every publish, finishes every recording. `false` where `grace` was not enough: the rest is finished
    /// at the next start.
    pub async fn drain(mut self, grace: Duration) -> bool {
        info!("draining: no new publishes");
        // What publishers had no time for takes from what finishing needs.
        let handover = self.handover.min(grace / 2);
        let worker = &self.worker;
        let drained = tokio::time::timeout(grace, async {
            match worker.send(Drain(handover)).await {
                Ok(done) => done.await.is_ok(),
                Err(_) => false,
            }
        });
        let drained = drained.await.unwrap_or(false);
        if let Some(ingest) = self.ingest.take() {
            ingest.stop();
        }
        if let Err(error) = self.sync.sync_now() {
            error!(%error, "the last sync failed");
        }
        drained
    }

    /// Ends at once; journals keep what came, and the next start finishes it.
    pub fn abort(mut self) {
        if let Some(ingest) = self.ingest.take() {
            ingest.stop();
        }
    }
}

pub(crate) fn directory<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> StartError + 'a {
    move |source| StartError::Directory {
        what,
        path: path.to_path_buf(),
        source,
    }
}

/// Starts a worker. Needs a running actix `System`.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(config: WorkerConfig, deps: Deps) -> Result<Running, StartError> {
    // What is in a task's time is told by when it arrived: a clock that is wrong for a moment ends no task's recording.
    let clock = Steady::over(deps.clock);
    let deps = Deps {
        clock: Arc::<Steady>::clone(&clock),
        ..deps
    };
    let journals = config.data_dir.join("journal");
    std::fs::create_dir_all(&journals).map_err(directory("journal directory", &journals))?;
    shared::objects::install_tls();
    let setting = |error: &dyn std::error::Error| StartError::Setting(error.to_string());
    let tokens = Tokens::load(&config.auth).map_err(|error| setting(&error))?;
    let tls = Certificates::follow(&config.tls).map_err(|error| setting(&error))?;
    let caller = Caller::new(tokens.join.as_ref(), Some(tls)).map_err(|error| setting(&error))?;
    let needs = Needs::default();
    let (objects, directories_of_objects) = places::open(&config, &needs, &deps.metrics)?;
    places::ensure_second(&journals, &objects)?;
    let notes = config.data_dir.join("abandoned-uploads");
    let abandoned = Abandoned::open(&notes).map_err(directory("notes of abandoned uploads", &notes))?;
    let synced: Vec<PathBuf> = [config.data_dir.clone()]
        .into_iter()
        .chain(directories_of_objects)
        .collect();
    let sync = GroupSync::start(&synced, sync_wait(config.journal.sync_interval)).map_err(StartError::Thread)?;
    let sync = Arc::new(sync);
    let zone = TimeZone::get(&config.time_zone).map_err(|e| StartError::Setting(format!("worker.time_zone: {e}")))?;
    let options = journal::Options {
        segment_bytes: config.journal.segment_size.as_bytes(),
        ..Default::default()
    };
    journal::retention::sweep(&journals).map_err(directory("journal directory", &journals))?;
    let adopted = adopt_all(&journals, options, deps.clock.now().as_millis())
        .map_err(directory("journal directory", &journals))?;

    let address = config.rtmp;
    let over_budget = Arc::new(AtomicBool::new(false));
    let journals_dir = journals.clone();
    let (events, inbox) = mpsc::channel::<Event>(MAILBOX);
    let settings = Settings {
        journals,
        journal: options,
        max_connections: config.ingest.max_connections,
        command_timeout: config.ingest.command_timeout,
        silence: config.ingest.silence,
        publish_timeout: config.ingest.silence.saturating_mul(6),
        min_free: config.journal.min_free.as_bytes(),
        over_budget: Arc::clone(&over_budget),
        limits: media::rtmp::Limits {
            message_len: u32::try_from(config.ingest.max_message.as_bytes()).unwrap_or(u32::MAX),
            partial_bytes: usize::try_from(config.ingest.max_partial.as_bytes()).unwrap_or(usize::MAX),
            ..Default::default()
        },
    };
    let limits = settings.limits;
    let ingest = Ingest::start(
        address,
        settings,
        poller::Deps {
            clock,
            ids: Arc::clone(&deps.ids),
            events: Box::new(move |event| {
                events.try_send(event).map_err(|e| match e {
                    mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => {
                        Box::new(event)
                    }
                })
            }),
            metrics: deps.metrics.clone(),
            sync: Arc::clone(&sync),
        },
    )
    .map_err(|source| StartError::Bind { address, source })?;
    let address = ingest.address();

    let identity = Identity {
        id: worker_id(&config, &deps)?,
        name: name(&config),
        rtmp: address.to_string(),
        storages: places::storages(&config.objects),
    };
    let worker_id = identity.id;
    let copies = Copies::start(&config, worker_id, &caller, deps.metrics.clone())
        .map_err(|e| StartError::Setting(e.to_string()))?;
    let agent = Agent::new(&config.coordinator, caller, identity)
        .map_err(|e| StartError::Setting(format!("worker.coordinator: {e}")))?;
    let machine = Machine {
        objects,
        abandoned: abandoned.clone(),
        sync: Arc::clone(&sync),
        pool: Arc::new(Pool::start(config.render.threads).map_err(StartError::Thread)?),
        boot_id: ground::boot_id(),
        zone: config.time_zone.as_str().into(),
        metrics: deps.metrics.clone(),
    };
    let budget = config.journal.budget.as_bytes();
    let gauge = i64::try_from(budget).unwrap_or(i64::MAX);
    deps.metrics.journal_budget.set(gauge);
    let common = Common {
        agent: agent.clone(),
        shelf: Arc::new(Synced {
            objects: machine.objects.clone(),
            sync: Arc::clone(&sync),
            abandoned,
        }),
        documents: Documents::default(),
        clock: Arc::clone(&deps.clock),
        preroll: config.journal.preroll,
        hls_target_ms: i64::try_from(config.hls.target_segment.as_millis()).unwrap_or(6000),
        metrics: deps.metrics,
    };
    let puller = Puller::new(
        &config.pull,
        limits,
        ingest.commands(),
        Arc::clone(&deps.clock),
        Arc::clone(&deps.ids),
    );
    let composing = Composing::new(Workbench {
        agent: common.agent.clone(),
        objects: machine.objects.clone(),
        shelf: Arc::clone(&common.shelf),
        clock: Arc::clone(&common.clock),
        zone: zone.clone(),
        worker: worker_id,
    });
    let worker = WorkerActor {
        composer: Composer::new(machine.objects.clone()),
        common,
        machine,
        zone,
        worker_id,
        commands: ingest.commands(),
        streams: BTreeMap::new(),
        load: Arc::default(),
        puller: Arc::new(Mutex::new(puller)),
        journals: journals_dir,
        budget: Budget::new(budget),
        needs,
        over_budget,
        measured: Arc::default(),
        handover: config.drain_handover,
        draining: Vec::new(),
        for_scale_in: Arc::default(),
        drained: false,
        adopted,
        finishing: BTreeSet::new(),
        composing,
        inbox: Some(inbox),
        agent: Some(agent),
    }
    .start();
    info!(rtmp = %address, "worker started");
    Ok(Running {
        address,
        worker,
        ingest: Some(ingest),
        sync,
        handover: config.drain_handover,
        _copies: copies,
    })
}

/// How long a write may wait for its sync, so that what arrived is durable within `promised`: before the write it lay in the socket
/// for up to 200 ms, and the sync takes its time. Half of it at least, however short.
fn sync_wait(promised: Duration) -> Duration {
    const BEFORE_AND_AFTER: Duration = Duration::from_millis(300);
    promised.saturating_sub(BEFORE_AND_AFTER).max(promised / 2)
}

fn name(config: &WorkerConfig) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|h| h.trim().to_owned());
    config
        .name
        .clone()
        .or_else(|| host().ok())
        .unwrap_or_else(|| "worker".to_owned())
}

/// How far each live publish's journal goes, and which revision of its recordings is applied.
type Shared = BTreeMap<PublishId, (Arc<Progress>, Arc<AtomicU64>)>;
type Shares = Arc<Mutex<Shared>>;

/// Owns the streams.
pub(crate) struct WorkerActor {
    common: Common,
    machine: Machine,
    zone: TimeZone,
    worker_id: WorkerId,
    commands: SyncSender<Command>,
    streams: BTreeMap<String, Addr<StreamActor>>,
    /// Live publishes, for heartbeats.
    load: Shares,
    /// Streams that are fetched from origins.
    puller: Arc<Mutex<Puller>>,
    journals: PathBuf,
    budget: Budget,
    over_budget: Arc<AtomicBool>,
    needs: Needs,
    /// What journals take, as of the last look.
    measured: Arc<Mutex<Journals>>,
    /// Time that publishers have to go by themselves.
    handover: Duration,
    draining: Vec<oneshot::Sender<()>>,
    for_scale_in: Arc<AtomicBool>,
    drained: bool,
    adopted: Vec<(PathBuf, Adopted)>,
    /// Recordings that are being finished.
    finishing: BTreeSet<(RecordingId, Epoch)>,
    composing: Composing,
    composer: Composer,
    inbox: Option<mpsc::Receiver<Event>>,
    agent: Option<Agent>,
}

impl std::fmt::Debug for WorkerActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerActor")
            .field("worker_id", &self.worker_id)
            .finish_non_exhaustive()
    }
}

/// The process ends: let everything go within this time.
#[derive(Debug, Message)]
#[rtype(result = "oneshot::Receiver<()>")]
struct Drain(Duration);

impl WorkerActor {
    fn about(&self, publish: &Publish) -> Option<About> {
        let stream = StreamKey::new(&publish.domain, &publish.app, &publish.stream);
        match (publish.id.parse(), stream) {
            (Ok(publish_id), Ok(stream)) => Some(About {
                publish: publish.clone(),
                publish_id,
                stream,
                worker: self.worker_id,
                epoch: Epoch::new(0),
                zone: self.zone.clone(),
            }),
            _ => {
                error!(publish = %publish.id, "journal of a publish without a legal name; it is left as it is");
                None
            }
        }
    }

    fn published(&mut self, live: Live, ctx: &mut Context<Self>) {
        let Some(about) = self.about(&live.publish) else { return };
        let revision = Arc::new(AtomicU64::new(0));
        self.shares()
            .insert(about.publish_id, (Arc::clone(&live.progress), Arc::clone(&revision)));
        let stream = StreamActor::live(
            self.common.clone(),
            about,
            self.machine.ground(live.dir, live.progress),
            revision,
            ctx.address().recipient(),
        );
        self.streams.insert(live.publish.id, stream.start());
    }

    fn shares(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn puller(&self) -> std::sync::MutexGuard<'_, Puller> {
        self.puller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpublished(&mut self, publish_id: &str, reason: String, ctx: &mut Context<Self>) {
        if let Ok(id) = publish_id.parse::<PublishId>() {
            self.shares().remove(&id);
        }
        let Some(stream) = self.streams.get(publish_id).cloned() else {
            return;
        };
        let closed = async move { stream.send(Closed(reason)).await };
        ctx.spawn(closed.into_actor(self).map(|sent, _, _| {
            if let Err(error) = sent {
                warn!(%error, "a stream's actor is gone; its recordings are finished at the next start");
            }
        }));
    }

    /// Looks what journals take, and acts on it.
    fn watch_budget(&mut self, ctx: &mut Context<Self>) {
        let journals = self.journals.clone();
        let measured = async move { tokio::task::spawn_blocking(move || budget::measure(&journals)).await };
        ctx.spawn(measured.into_actor(self).map(|measured, actor, ctx| {
            match measured {
                Ok(Ok(journals)) => actor.judge(&journals),
                Ok(Err(error)) => warn!(%error, "cannot tell what journals take"),
                Err(error) => error!(%error, "measuring journals failed"),
            }
            ctx.run_later(BUDGET_EVERY, Self::watch_budget);
        }));
    }

    fn judge(&mut self, journals: &[(String, u64)]) {
        let used: u64 = journals.iter().map(|(_, bytes)| bytes).sum();
        let measured = Journals::of(journals, self.common.clock.now().as_millis());
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = measured;
        let gauge = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
        self.common.metrics.journal_bytes.set(gauge(used));
        self.common.metrics.journal_age.set(gauge(measured.age_ms / 1_000));
        self.needs.follow(used, self.budget.limit());
        for verdict in self.budget.look(journals) {
            match verdict {
                Verdict::Alarm(percent) => {
                    error!(percent, used, "journals fill their budget: recordings wait for storage");
                }
                Verdict::Eased(percent) => info!(percent, used, "journals take less of their budget"),
                Verdict::Accept(accept) => {
                    self.over_budget.store(!accept, Ordering::Relaxed);
                    if accept {
                        info!("publishes are accepted again");
                    } else {
                        error!("no publish is accepted until recordings are stored");
                    }
                }
                Verdict::End(publish) => {
                    error!(
                        publish,
                        "journals have used up their budget: the recordings that waited longest end"
                    );
                    if let Some(stream) = self.streams.get(&publish) {
                        // A full mailbox has it asked for again at the next look.
                        let _ = stream.try_send(GiveUp(budget::REASON));
                    }
                }
            }
        }
    }

    /// Finishes a recording, unless that is being done.
    fn finish(&mut self, job: FinishJob, ctx: &mut Context<Self>) {
        let key = (job.recording, job.epoch);
        if !self.finishing.insert(key) {
            return;
        }
        let finisher = Finisher {
            agent: self.common.agent.clone(),
            shelf: Arc::clone(&self.common.shelf),
            documents: self.common.documents.clone(),
            clock: Arc::clone(&self.common.clock),
            zone: self.zone.clone(),
            composer: Some(self.composer.clone()),
            metrics: self.common.metrics.clone(),
        };
        let finished = async move { finisher.run(job).await };
        ctx.spawn(finished.into_actor(self).map(move |(), actor, _| {
            actor.finishing.remove(&key);
        }));
    }

    /// Takes no stream any more and lets its publishers go.
    fn leave(&mut self, within: Duration) {
        // What is fetched is another worker's as soon as the coordinator hears of it.
        self.puller().stop();
        if let Err(error) = self.commands.try_send(Command::Drain { within }) {
            error!(%error, "ingest does not take commands");
        }
    }

    /// Takes streams again, unless the process is ending.
    fn resume(&mut self) {
        if self.draining.is_empty() {
            self.drained = false;
            self.puller().resume();
            if let Err(error) = self.commands.try_send(Command::Resume) {
                error!(%error, "ingest does not take commands");
            }
        }
    }

    fn settle(&mut self) {
        if self.drained && self.streams.is_empty() {
            for waiting in self.draining.drain(..) {
                let _ = waiting.send(());
            }
        }
    }
}

impl Actor for WorkerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.watch_budget(ctx);
        for (dir, adopted) in std::mem::take(&mut self.adopted) {
            let Some(about) = self.about(&adopted.publish) else {
                continue;
            };
            let ground = self.machine.ground(dir, adopted.progress);
            let parent = ctx.address().recipient();
            let stream = StreamActor::adopted(
                self.common.clone(),
                about,
                ground,
                parent,
                adopted.grant,
                adopted.reason,
            );
            self.streams.insert(adopted.publish.id, stream.start());
        }
        for (place, remote) in self.machine.objects.buckets() {
            let sweep = self.machine.abandoned.clone().keep_sweeping(place, remote);
            ctx.spawn(sweep.into_actor(self));
        }
        if let Some(inbox) = self.inbox.take() {
            ctx.add_stream(tokio_stream::wrappers::ReceiverStream::new(inbox));
        }
        if let Some(agent) = self.agent.take() {
            let (directives, inbox) = mpsc::channel(256);
            ctx.add_stream(tokio_stream::wrappers::ReceiverStream::new(inbox));
            let shares = Arc::clone(&self.load);
            let puller = Arc::clone(&self.puller);
            let composing = self.composing.clone();
            let measured = Arc::clone(&self.measured);
            let mut sampler = Sampler::new(Arc::clone(&self.common.clock));
            let metrics = self.common.metrics.clone();
            let for_scale_in = Arc::clone(&self.for_scale_in);
            let said = move || {
                let live = shares.lock().unwrap_or_else(PoisonError::into_inner);
                let puller = puller.lock().unwrap_or_else(PoisonError::into_inner);
                Said {
                    publishes: live
                        .iter()
                        .map(|(id, (progress, revision))| Load {
                            publish: *id,
                            progress: Arc::clone(progress),
                            revision: Arc::clone(revision),
                        })
                        .collect(),
                    journals: *measured.lock().unwrap_or_else(PoisonError::into_inner),
                    cpu_milli: sampler.cpu_milli(),
                    uploads_waiting: u32::try_from(metrics.uploads_waiting.get() + metrics.commits_waiting.get())
                        .unwrap_or(0),
                    pulls: puller.status(),
                    draining: puller.is_stopped(),
                    compositions: composing.status(),
                    for_scale_in: for_scale_in.load(Ordering::Relaxed),
                }
            };
            ctx.spawn(agent.session(said, directives).into_actor(self));
        }
    }
}

impl StreamHandler<Event> for WorkerActor {
    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        match event {
            Event::Published(live) => self.published(live, ctx),
            Event::Unpublished { publish_id, reason } => self.unpublished(&publish_id, reason, ctx),
            Event::Drained => {
                self.drained = true;
                self.settle();
            }
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Directive> for WorkerActor {
    fn handle(&mut self, directive: Directive, ctx: &mut Self::Context) {
        match directive {
            Directive::DropStream { publish, reason } => {
                info!(%publish, reason, "the coordinator ends a publish");
                // Ingest looks at its commands at least every 50 ms; should 1,024 be waiting, the coordinator will say it again.
                let _ = self.commands.try_send(Command::Close {
                    publish_id: publish,
                    reason,
                });
            }
            Directive::Finish(jobs) => jobs.into_iter().for_each(|job| self.finish(job, ctx)),
            Directive::Compose(jobs) => self.composing.set(jobs),
            Directive::AskAgain { publish } => {
                // A full mailbox loses it, and the next heartbeat tells that it did.
                if let Some(stream) = self.streams.get(&publish) {
                    let _ = stream.try_send(AskAgain);
                }
            }
            Directive::SetPulls { revision, pulls } => self.puller().set(revision, pulls),
            Directive::SetDraining { draining, for_scale_in } => {
                self.for_scale_in.store(for_scale_in, Ordering::Relaxed);
                info!(draining, for_scale_in, "told whether to take publishes");
                match draining {
                    true => self.leave(self.handover),
                    false => self.resume(),
                }
            }
            Directive::SetRecordings(RecordingSet { publish, grant }) => {
                // A full mailbox loses it, and the next heartbeat tells that it did.
                if let Some(stream) = self.streams.get(&publish.to_string()) {
                    let _ = stream.try_send(Set(grant));
                }
            }
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Notice> for WorkerActor {
    type Result = ();

    fn handle(&mut self, notice: Notice, _: &mut Self::Context) {
        match notice {
            Notice::Drop { publish_id, reason } => {
                let _ = self.commands.try_send(Command::Close { publish_id, reason });
            }
            Notice::Done { publish_id } => {
                self.streams.remove(&publish_id);
                self.settle();
            }
        }
    }
}

impl Handler<Drain> for WorkerActor {
    type Result = MessageResult<Drain>;

    fn handle(&mut self, Drain(within): Drain, _: &mut Self::Context) -> Self::Result {
        let (done, waiting) = oneshot::channel();
        self.draining.push(done);
        self.leave(within);
        MessageResult(waiting)
    }
}
