//! A worker without sockets, disks and threads: its streams, their recorders' decisions, its agent and its sessions are what runs
//! elsewhere; the network, the data directory and object storage are what somebody makes of them.
//!
//! Must be started within a `tokio` local set; when that is dropped nothing of the worker is left but its [`Disk`], as after a kill.

mod disk;
mod recorder;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use jiff::tz::TimeZone;
use journal::{Progress, Publish};
use shared::ids::{PublishId, RecordingId, StreamKey, WorkerId};
use shared::lease::{Epoch, FinishJob, Grant, RecordingSet};
use shared::telemetry::Metrics;
use shared::time::Clock;
use tokio::sync::mpsc;

use self::disk::{Directory, open};
pub use self::disk::{Disk, Journal, SharedDisk, Unit};
use crate::control::agent::{Agent, Directive, Identity, Load, Said};
use crate::control::line::Line;
use crate::stream::actor::{AskAgain, Closed, Common, Notice, Set, StreamActor};
use crate::stream::document::{About, Documents};
use crate::stream::finish::Finisher;
use crate::stream::ground::Ground;
use crate::upload::{Found, Shelf};

/// Messages that may wait for the worker.
const MAILBOX: usize = 4_096;
/// Wait before a document is stored again.
const AGAIN: Duration = Duration::from_secs(1);

/// An access unit of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// Which publish.
    pub publish: PublishId,
    /// Its place in the journal.
    pub at: u64,
}

/// What lies in object storage.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// A document's or an index's text.
    pub bytes: Vec<u8>,
    /// The publish whose recorder made it; none: a document, or an index that was finished.
    pub by: Option<PublishId>,
    /// The media in it.
    pub units: Vec<Piece>,
}

/// Object storage, as one worker reaches it.
#[async_trait]
pub trait Bucket: Send + Sync {
    /// Stores an object whole, in place of an older one.
    async fn put(&self, object: Object) -> io::Result<()>;
    /// Reads an object.
    async fn get(&self, key: &str) -> io::Result<Option<Object>>;
}

/// What a recorder works with.
struct Kept {
    disk: SharedDisk,
    publish: PublishId,
    bucket: Arc<dyn Bucket>,
}

/// Small objects in a bucket: storing them goes on until it is done.
struct Small(Arc<dyn Bucket>);

#[async_trait]
impl Shelf for Small {
    async fn each(&self, key: &str) -> io::Result<Found> {
        loop {
            match self.0.get(key).await {
                Ok(found) => return Ok(Found::alone(found.map(|object| object.bytes))),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> io::Result<()> {
        let object = Object {
            key: key.to_owned(),
            bytes,
            by: None,
            units: Vec::new(),
        };
        while self.0.put(object.clone()).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn durable(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What a worker is started with.
pub struct Setup {
    /// Its identity, kept on its disk.
    pub worker: WorkerId,
    /// For people.
    pub name: String,
    /// Names where its objects lie; empty: where no other worker reads.
    pub storage: String,
    /// Its data directory.
    pub disk: SharedDisk,
    /// Object storage.
    pub bucket: Arc<dyn Bucket>,
    /// The way to the coordinators.
    pub line: Arc<dyn Line>,
    /// Both times.
    pub clock: Arc<dyn Clock>,
    /// How much of a live publish is kept for recordings to come.
    pub preroll: Duration,
    /// Ends a publisher's connection.
    pub hang_up: Box<dyn Fn(PublishId, String) + Send>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// A running worker.
#[derive(Debug, Clone)]
pub struct Running(Addr<Host>);

impl Running {
    /// Starts a worker over its disk: what it finds there by now it finishes, and what is put there from now on is a publisher's. So it
    /// is with the real one, which binds its address only when it has read its journals.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let identity = Identity {
            id: setup.worker,
            name: setup.name,
            rtmp: String::new(),
            storages: BTreeMap::from([(String::new(), setup.storage)]),
        };
        let host = Host {
            common: Common {
                agent: Agent::over(setup.line, identity),
                shelf: Arc::new(Small(Arc::clone(&setup.bucket))),
                documents: Documents::default(),
                clock: setup.clock,
                preroll: setup.preroll,
                hls_target_ms: 4_000,
                metrics: Metrics::new().worker,
            },
            worker: setup.worker,
            adopted: adopt(&setup.disk),
            disk: setup.disk,
            bucket: setup.bucket,
            hang_up: setup.hang_up,
            streams: BTreeMap::new(),
            live: Arc::default(),
            finishing: BTreeSet::new(),
        };
        Self(host.start())
    }

    /// A publish has begun, whose journal lies on the disk.
    pub fn published(&self, publish: PublishId) {
        drop(self.0.try_send(Published(publish)));
    }

    /// A publish has ended, and its journal with it.
    pub fn unpublished(&self, publish: PublishId, reason: String) {
        drop(self.0.try_send(Unpublished(publish, reason)));
    }
}

/// Live publishes with the revision of their sets.
type Shares = Arc<Mutex<BTreeMap<PublishId, Arc<AtomicU64>>>>;

/// A journal that was found, closed now if it was not.
struct Adopted {
    id: PublishId,
    publish: Publish,
    grant: Option<Grant>,
    reason: String,
}

fn adopt(disk: &SharedDisk) -> Vec<Adopted> {
    let mut found = Vec::new();
    for (id, journal) in &mut open(disk).journals {
        found.push(Adopted {
            id: *id,
            publish: journal.publish.clone(),
            grant: journal.grant.clone(),
            reason: journal.closed.get_or_insert_with(|| "worker_killed".to_owned()).clone(),
        });
    }
    found
}

/// As `WorkerActor` does, passes on what happens to whom it concerns.
struct Host {
    common: Common,
    worker: WorkerId,
    disk: SharedDisk,
    bucket: Arc<dyn Bucket>,
    hang_up: Box<dyn Fn(PublishId, String) + Send>,
    /// What a killed worker left.
    adopted: Vec<Adopted>,
    streams: BTreeMap<PublishId, Addr<StreamActor>>,
    live: Shares,
    finishing: BTreeSet<(RecordingId, Epoch)>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Published(PublishId);

#[derive(Message)]
#[rtype(result = "()")]
struct Unpublished(PublishId, String);

impl Host {
    fn about(&self, publish: &Publish) -> Option<About> {
        Some(About {
            publish_id: publish.id.parse().ok()?,
            stream: StreamKey::new(&publish.domain, &publish.app, &publish.stream).ok()?,
            publish: publish.clone(),
            worker: self.worker,
            epoch: Epoch::new(0),
            zone: TimeZone::UTC,
        })
    }

    fn ground(&self, publish: PublishId) -> Arc<dyn Ground> {
        Arc::new(Directory {
            disk: Arc::clone(&self.disk),
            publish,
            bucket: Arc::clone(&self.bucket),
        })
    }

    fn shares(&self) -> std::sync::MutexGuard<'_, BTreeMap<PublishId, Arc<AtomicU64>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up every journal that a killed worker left.
    fn take_up(&mut self, ctx: &mut Context<Self>) {
        for Adopted {
            id,
            publish,
            grant,
            reason,
        } in std::mem::take(&mut self.adopted)
        {
            let Some(about) = self.about(&publish) else { continue };
            let (ground, parent) = (self.ground(id), ctx.address().recipient());
            let stream = StreamActor::adopted(self.common.clone(), about, ground, parent, grant, reason);
            self.streams.insert(id, stream.start());
        }
    }

    fn said(&self) -> impl FnMut() -> Said + Send + 'static {
        let (live, disk, bucket) = (Arc::clone(&self.live), Arc::clone(&self.disk), Arc::clone(&self.bucket));
        move || {
            let live = live.lock().unwrap_or_else(PoisonError::into_inner);
            let load = |(publish, revision): (&PublishId, &Arc<AtomicU64>)| {
                let ground = Directory {
                    disk: Arc::clone(&disk),
                    publish: *publish,
                    bucket: Arc::clone(&bucket),
                };
                Load {
                    publish: *publish,
                    progress: Arc::new(Progress::new(ground.journaled())),
                    revision: Arc::clone(revision),
                }
            };
            Said {
                publishes: live.iter().map(load).collect(),
                ..Said::default()
            }
        }
    }

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
            zone: TimeZone::UTC,
            composer: None,
            metrics: self.common.metrics.clone(),
        };
        let finished = async move { finisher.run(job).await };
        ctx.spawn(finished.into_actor(self).map(move |(), host, _| {
            host.finishing.remove(&key);
        }));
    }
}

impl Actor for Host {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.take_up(ctx);
        let (directives, inbox) = mpsc::channel(256);
        ctx.add_stream(tokio_stream::wrappers::ReceiverStream::new(inbox));
        let session = self.common.agent.clone().session(self.said(), directives);
        ctx.spawn(session.into_actor(self));
    }
}

impl Handler<Published> for Host {
    type Result = ();

    fn handle(&mut self, Published(id): Published, ctx: &mut Self::Context) {
        let publish = open(&self.disk)
            .journals
            .get(&id)
            .map(|journal| journal.publish.clone());
        let Some(about) = publish.and_then(|publish| self.about(&publish)) else {
            return;
        };
        let revision = Arc::new(AtomicU64::new(0));
        self.shares().insert(id, Arc::clone(&revision));
        let parent = ctx.address().recipient();
        let stream = StreamActor::live(self.common.clone(), about, self.ground(id), revision, parent);
        self.streams.insert(id, stream.start());
    }
}

impl Handler<Unpublished> for Host {
    type Result = ();

    fn handle(&mut self, Unpublished(id, reason): Unpublished, ctx: &mut Self::Context) {
        self.shares().remove(&id);
        let Some(stream) = self.streams.get(&id).cloned() else {
            return;
        };
        let closed = async move { stream.send(Closed(reason)).await };
        ctx.spawn(closed.into_actor(self).map(|_, _, _| {}));
    }
}

impl StreamHandler<Directive> for Host {
    fn handle(&mut self, directive: Directive, ctx: &mut Self::Context) {
        match directive {
            Directive::DropStream { publish, reason } => {
                if let Ok(publish) = publish.parse() {
                    (self.hang_up)(publish, reason);
                }
            }
            Directive::Finish(jobs) => jobs.into_iter().for_each(|job| self.finish(job, ctx)),
            // There is no media here to compose of.
            Directive::Compose(_) => {}
            Directive::AskAgain { publish } => {
                if let Some(stream) = publish.parse().ok().and_then(|id| self.streams.get(&id)) {
                    drop(stream.try_send(AskAgain));
                }
            }
            Directive::SetRecordings(RecordingSet { publish, grant }) => {
                if let Some(stream) = self.streams.get(&publish) {
                    drop(stream.try_send(Set(grant)));
                }
            }
            Directive::SetPulls { .. } | Directive::SetDraining { .. } => {}
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Notice> for Host {
    type Result = ();

    fn handle(&mut self, notice: Notice, _: &mut Self::Context) {
        match notice {
            Notice::Drop { publish_id, reason } => {
                if let Ok(publish) = publish_id.parse() {
                    (self.hang_up)(publish, reason);
                }
            }
            Notice::Done { publish_id } => {
                if let Ok(publish) = publish_id.parse::<PublishId>() {
                    self.streams.remove(&publish);
                }
            }
        }
    }
}
