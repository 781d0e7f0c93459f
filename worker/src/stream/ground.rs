//! [`Ground`]: what the actor of a publish stands on, its journal's directory and its recorders; [`Disk`] is the real one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use actix::{Actor as _, Recipient};
use journal::{Position, Progress, Snapshot};
use shared::ids::RecordingId;
use shared::lease::Grant;
use shared::telemetry::WorkerMetrics;
use shared::trace::{Chapters, Place};
use tracing::warn;

use super::adopt::{GRANT, NOTES};
use super::document::noted_files;
use super::fenced;
use crate::record::actor::{Parts, RecorderActor, Report, Word};
use crate::record::pool::Pool;
use crate::record::{FinishedFile, Order};
use crate::upload::Sites;
use crate::upload::abandoned::Abandoned;

/// A publish's journal, what lies beside it, and the recorders that read it.
pub(crate) trait Ground: Send + Sync {
    /// How far the journal goes.
    fn journaled(&self) -> Snapshot;

    /// Keeps the grant beside the journal, so that a restart goes on without the coordinator.
    fn keep(&self, grant: &Grant) -> io::Result<()>;

    /// Files that recorders of a recording have finished.
    fn noted(&self, recording: RecordingId) -> io::Result<Vec<FinishedFile>>;

    /// Gives up the journal's bodies before a position.
    fn drop_bodies_before(&self, position: u64) -> io::Result<()>;

    /// Removes the journal.
    fn remove(&self) -> io::Result<()>;

    /// Moves the journal to where nothing takes it up again; gives where.
    fn put_aside(&self, reason: &str) -> io::Result<PathBuf>;

    /// Starts a recorder where it was left, or at the journal's start.
    fn start_recorder(&self, order: Order, until_ms: Option<i64>, parent: Recipient<Report>) -> Recipient<Word>;

    /// A recorder gave up: what it has begun in storage is nobody's.
    fn abandon(&self, prefix: &str);
}

/// What the journals of a worker have in common.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) objects: Sites,
    pub(crate) abandoned: Abandoned,
    pub(crate) sync: Arc<journal::GroupSync>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) boot_id: Arc<str>,
    /// The worker's time zone, by its name.
    pub(crate) zone: Arc<str>,
    pub(crate) metrics: WorkerMetrics,
}

/// Changes when the machine starts anew, and so tells power loss from a killed process. Where the kernel does not say, every start
/// counts as after power loss, which is only slower.
pub(crate) fn boot_id() -> Arc<str> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
    id.unwrap_or_else(|_| format!("process {}", std::process::id())).into()
}

impl Machine {
    pub(crate) fn ground(&self, dir: PathBuf, progress: Arc<Progress>) -> Arc<dyn Ground> {
        let machine = self.clone();
        Arc::new(Disk { machine, dir, progress })
    }
}

/// A directory of this machine.
struct Disk {
    machine: Machine,
    dir: PathBuf,
    progress: Arc<Progress>,
}

impl Ground for Disk {
    fn journaled(&self) -> Snapshot {
        self.progress.snapshot()
    }

    fn keep(&self, grant: &Grant) -> io::Result<()> {
        let path = self.dir.join(GRANT);
        let temp = path.with_extension("tmp");
        let bytes = serde_json::to_vec(grant).map_err(io::Error::other)?;
        std::fs::write(&temp, bytes)?;
        std::fs::rename(&temp, &path)
    }

    fn noted(&self, recording: RecordingId) -> io::Result<Vec<FinishedFile>> {
        noted_files(&self.dir.join(NOTES), recording)
    }

    fn drop_bodies_before(&self, position: u64) -> io::Result<()> {
        journal::retention::drop_bodies_before(&self.dir, Position(position)).map(drop)
    }

    fn remove(&self) -> io::Result<()> {
        journal::retention::remove(&self.dir)
    }

    fn put_aside(&self, reason: &str) -> io::Result<PathBuf> {
        fenced::put_aside(&self.dir, reason)
    }

    fn start_recorder(&self, order: Order, until_ms: Option<i64>, parent: Recipient<Report>) -> Recipient<Word> {
        let publish = Place::publish(order.recording, order.epoch);
        let chapters = Chapters::new(publish, "record", ("aircheck.format", order.format.as_str()));
        let objects = self.machine.objects.of(&order.prefix);
        let objects = objects.with_class(order.storage_class.as_deref());
        let recorder = RecorderActor::new(Parts {
            setting: Arc::new(order.on(
                self.dir.clone(),
                self.dir.join(NOTES),
                Arc::clone(&self.machine.boot_id),
                Arc::clone(&self.machine.zone),
            )),
            objects,
            abandoned: self.machine.abandoned.clone(),
            sync: Arc::clone(&self.machine.sync),
            pool: Arc::clone(&self.machine.pool),
            progress: Arc::clone(&self.progress),
            until_ms,
            chapters,
            metrics: self.machine.metrics.clone(),
            parent,
        });
        recorder.start().recipient()
    }

    fn abandon(&self, prefix: &str) {
        if let Err(error) = self.machine.abandoned.note(prefix) {
            warn!(prefix, %error, "an upload of nobody stays in storage");
        }
    }
}
