//! [`Embedded`]: the model's promises on one database file, with group commit.
//!
//! One thread writes. It takes what has gathered, up to 256 transactions, decides each on what the ones before it left,
//! makes them durable with one commit, and only then answers and tells the watchers. Readers see committed state and
//! run on the blocking pool. After an I/O error the file is opened anew, once a second until that works.

mod file;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use redb::{Database, DatabaseError};
use tokio::sync::oneshot;

use self::{
    file::{LAYOUT, prepare, read_one, read_scan},
    writer::{Failed, File, Job, Opener, Shared, State, Stopped, Writer},
};
use super::{
    Entry, LeaseId, MetaStore, OpenError, Revision, Scan, Scanned, StoreError, Txn, Watch, at_once, watch::Hub,
};
use crate::time::Clock;

/// Requests that wait for the writer; more wait in their callers.
const QUEUE: usize = 1_024;
/// Memory for pages of the database, bytes.
const CACHE_BYTES: usize = 16 << 20;

/// A store in one file, for one process.
#[derive(Debug)]
pub struct Embedded {
    db: Shared,
    hub: Arc<Hub>,
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`OpenError`]: another process has it, it is no such file, it is of a later layout, the disk says no.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let file = path.to_owned();
        let opener = Box::new(move || Database::builder().set_cache_size(CACHE_BYTES).create(&file));
        Self::open_with(opener, clock).map_err(|problem| OpenError {
            store: path.display().to_string(),
            problem,
        })
    }

    fn open_with(opener: Opener, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let db = opener().map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                "another process has it open; stop that one, or give this one another --data-dir".to_owned()
            }
            other => other.to_string(),
        })?;
        let opened = prepare(&db).map_err(|error| error.to_string())?;
        if opened.layout != LAYOUT {
            let found = opened.layout;
            return Err(format!(
                "its layout is {found}, this program knows {LAYOUT}; use a newer program"
            ));
        }
        let db: Shared = Arc::new(File {
            open: RwLock::new(Some(db)),
            held: Arc::default(),
        });
        let hub = Arc::new(Hub::new(opened.revision));
        let (jobs, queue) = sync_channel(QUEUE);
        let state = State::new(opened, clock.monotonic());
        let writer = Writer {
            db: Arc::clone(&db),
            hub: Arc::clone(&hub),
            clock,
            state,
            opener,
            failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("metastore".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| error.to_string())?;
        Ok(Embedded {
            db,
            hub,
            jobs: Some(jobs),
            writer: Some(thread),
        })
    }

    /// Hands a job to the writer and waits for its answer. Waits for room without blocking the runtime.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.clone().ok_or_else(|| StoreError::unavailable(Stopped))?;
        match jobs.try_send(job(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => {
                let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
                sent.map_err(StoreError::unavailable)?
                    .map_err(|_| StoreError::unavailable(Stopped))?;
            }
            Err(TrySendError::Disconnected(_)) => return Err(StoreError::unavailable(Stopped)),
        }
        answer.await.map_err(|_| StoreError::unavailable(Stopped))?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let db = Arc::clone(&self.db);
        let reading = tokio::task::spawn_blocking(move || {
            let open = db.open.read().unwrap_or_else(PoisonError::into_inner);
            open.as_ref().map_or_else(|| Err(StoreError::unavailable(Failed)), read)
        });
        let result = reading.await.map_err(StoreError::unavailable)?;
        if let (Err(StoreError::Unavailable(_)), Some(jobs)) = (&result, &self.jobs) {
            // A full queue will show the writer soon enough.
            drop(jobs.try_send(Job::Check));
        }
        result
    }
}

impl Drop for Embedded {
    /// Lets the writer finish what it was given, so that the file is free when this returns.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was answered to its callers already.
            drop(writer.join());
        }
    }
}

#[async_trait]
impl MetaStore for Embedded {
    fn held(&self) -> Weak<()> {
        Arc::downgrade(&self.db.held)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.read(move |db| read_one(db, &key)).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        at_once(keys)?;
        let keys = keys.to_vec();
        self.read(move |db| keys.iter().map(|key| read_one(db, key)).collect())
            .await
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.read(move |db| read_scan(db, &scan)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        self.ask(|reply| Job::Commit(txn, reply)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.hub.watch(prefix, after)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.ask(|reply| Job::Grant(ttl, reply)).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Job::Renew(lease, reply)).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Job::Revoke(lease, reply)).await
    }
}

#[cfg(test)]
mod tests;
