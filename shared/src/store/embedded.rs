//! [`Embedded`]: the model's promises on one database file, with group commit.
//!
//! One thread writes. It takes what has gathered, up to [`GROUP`] transactions, decides each on what the ones before it
//! left, makes them durable with one commit, and only then answers and tells the watchers. Readers see committed state
//! and run on the blocking pool.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use redb::{
    Database, MultimapTable, MultimapTableDefinition, ReadableDatabase as _, ReadableTable, Table, TableDefinition,
};
use thiserror::Error;
use tokio::sync::oneshot;

use super::{
    Batch, Change, Entry, Guard, LeaseId, LeaseTtl, MIN_LEASE_TTL, MetaStore, Op, Revision, Scan, Scanned, StoreError,
    Txn, Watch,
    kv::{is_empty_range, scan_bounds},
    watch::Hub,
};
use crate::time::Clock;

/// Most transactions in one durable commit.
const GROUP: usize = 256;
/// Requests that wait for the writer; more wait in their callers.
const QUEUE: usize = 1_024;
/// Version of the file's layout.
const LAYOUT: u64 = 1;
/// Memory for pages of the database, bytes.
const CACHE_BYTES: usize = 16 << 20;

/// Key to: revision (8 bytes, little endian), lease or 0 (8 bytes, little endian), value.
const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
/// `layout`, `revision`, `last_lease`.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Lease to its time to live, milliseconds. Leases get their whole time anew when the store opens.
const LEASES: TableDefinition<'static, u64, u64> = TableDefinition::new("leases");
/// Lease to its keys.
const LEASE_KEYS: MultimapTableDefinition<'static, u64, &str> = MultimapTableDefinition::new("lease_keys");

/// The file cannot be opened as a store.
#[derive(Debug, Error)]
#[error("cannot open the metadata store {path}: {problem}")]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// Why, and what to do.
    pub problem: String,
}

/// A store in one file, for one process.
#[derive(Debug)]
pub struct Embedded {
    db: Arc<Database>,
    hub: Arc<Hub>,
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Job {
    Commit(Txn, oneshot::Sender<Result<Revision, StoreError>>),
    Grant(Duration, oneshot::Sender<Result<LeaseId, StoreError>>),
    Renew(LeaseId, oneshot::Sender<Result<(), StoreError>>),
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
}

/// An answer that waits until the group is durable.
enum Answer {
    Commit(
        oneshot::Sender<Result<Revision, StoreError>>,
        Result<Revision, StoreError>,
    ),
    Grant(
        oneshot::Sender<Result<LeaseId, StoreError>>,
        Result<LeaseId, StoreError>,
    ),
    Unit(oneshot::Sender<Result<(), StoreError>>, Result<(), StoreError>),
}

impl Answer {
    /// Tells the caller; who no longer waits does not need to know. When the group failed, all of it failed.
    fn send(self, group: &Result<(), StoreError>) {
        match self {
            Answer::Commit(to, result) => drop(to.send(group.clone().and(result))),
            Answer::Grant(to, result) => drop(to.send(group.clone().and(result))),
            Answer::Unit(to, result) => drop(to.send(group.clone().and(result))),
        }
    }
}

#[derive(Debug, Error)]
#[error("the store's writer has stopped")]
struct Stopped;

fn db_error(error: impl Into<redb::Error>) -> StoreError {
    StoreError::unavailable(error.into())
}

impl Embedded {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`OpenError`]: another process has it, it is no such file, it is of a later layout, the disk says no.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let failed = |problem: String| OpenError {
            path: path.to_owned(),
            problem,
        };
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    failed("another process has it open; stop that one, or give this one another --data-dir".to_owned())
                }
                other => failed(other.to_string()),
            })?;
        let opened = prepare(&db).map_err(|error| failed(error.to_string()))?;
        if opened.layout != LAYOUT {
            let found = opened.layout;
            return Err(failed(format!(
                "its layout is {found}, this program knows {LAYOUT}; use a newer program"
            )));
        }
        let db = Arc::new(db);
        let hub = Arc::new(Hub::new(opened.revision));
        let now = clock.monotonic();
        let leases = opened
            .leases
            .into_iter()
            .map(|(id, ttl)| (id, LeaseTtl { ttl, ends: now + ttl }))
            .collect();
        let (jobs, queue) = sync_channel(QUEUE);
        let writer = Writer {
            db: Arc::clone(&db),
            hub: Arc::clone(&hub),
            clock,
            state: State {
                revision: opened.revision,
                last_lease: opened.last_lease,
                leases,
            },
        };
        let thread = std::thread::Builder::new()
            .name("metastore".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| failed(error.to_string()))?;
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
            Err(std::sync::mpsc::TrySendError::Full(job)) => {
                let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
                sent.map_err(StoreError::unavailable)?
                    .map_err(|_| StoreError::unavailable(Stopped))?;
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(StoreError::unavailable(Stopped)),
        }
        answer.await.map_err(|_| StoreError::unavailable(Stopped))?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let db = Arc::clone(&self.db);
        tokio::task::spawn_blocking(move || read(&db))
            .await
            .map_err(StoreError::unavailable)?
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

struct Opened {
    layout: u64,
    revision: Revision,
    last_lease: u64,
    leases: Vec<(LeaseId, Duration)>,
}

/// Makes the tables and reads what the writer starts from.
fn prepare(db: &Database) -> Result<Opened, redb::Error> {
    let txn = db.begin_write()?;
    let opened = {
        let mut meta = txn.open_table(META)?;
        let mut number = |name: &str, default: u64| -> Result<u64, redb::Error> {
            if let Some(found) = meta.get(name)? {
                return Ok(found.value());
            }
            meta.insert(name, default)?;
            Ok(default)
        };
        let (layout, revision, last_lease) = (
            number("layout", LAYOUT)?,
            number("revision", 0)?,
            number("last_lease", 0)?,
        );
        txn.open_table(ENTRIES)?;
        txn.open_multimap_table(LEASE_KEYS)?;
        let leases = txn.open_table(LEASES)?;
        let mut found = Vec::new();
        for lease in leases.iter()? {
            let (id, ttl_ms) = lease?;
            found.push((LeaseId(id.value()), Duration::from_millis(ttl_ms.value())));
        }
        Opened {
            layout,
            revision: Revision(revision),
            last_lease,
            leases: found,
        }
    };
    txn.commit()?;
    Ok(opened)
}

fn decode(key: &str, stored: &[u8]) -> Result<Entry, StoreError> {
    let corrupt = || StoreError::Corrupt {
        key: key.to_owned(),
        problem: "shorter than its header".to_owned(),
    };
    let (revision, rest) = stored.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let (lease, value) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let lease = u64::from_le_bytes(*lease);
    Ok(Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        revision: Revision(u64::from_le_bytes(*revision)),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + entry.value.len());
    out.extend_from_slice(&entry.revision.0.to_le_bytes());
    out.extend_from_slice(&entry.lease.map_or(0, |lease| lease.0).to_le_bytes());
    out.extend_from_slice(&entry.value);
    out
}

fn read_entry(table: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<Option<Entry>, StoreError> {
    match table.get(key).map_err(db_error)? {
        Some(stored) => decode(key, stored.value()).map(Some),
        None => Ok(None),
    }
}

fn read_scan(db: &Database, scan: &Scan) -> Result<Scanned, StoreError> {
    let txn = db.begin_read().map_err(db_error)?;
    let entries_table = txn.open_table(ENTRIES).map_err(db_error)?;
    let meta = txn.open_table(META).map_err(db_error)?;
    let revision = Revision(meta.get("revision").map_err(db_error)?.map_or(0, |found| found.value()));
    let bounds = scan_bounds(scan);
    let mut entries = Vec::new();
    let mut more = false;
    if !is_empty_range(&bounds) {
        let bounds = (
            bounds.0.as_ref().map(String::as_str),
            bounds.1.as_ref().map(String::as_str),
        );
        let mut range = entries_table.range::<&str>(bounds).map_err(db_error)?;
        while let Some(found) = if scan.reverse { range.next_back() } else { range.next() } {
            let (key, stored) = found.map_err(db_error)?;
            if entries.len() == scan.limit {
                more = true;
                break;
            }
            entries.push(decode(key.value(), stored.value())?);
        }
    }
    Ok(Scanned {
        entries,
        revision,
        more,
    })
}

#[async_trait]
impl MetaStore for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.read(move |db| {
            let txn = db.begin_read().map_err(db_error)?;
            read_entry(&txn.open_table(ENTRIES).map_err(db_error)?, &key)
        })
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

/// What the writer knows beside the file.
#[derive(Debug, Clone)]
struct State {
    revision: Revision,
    last_lease: u64,
    leases: BTreeMap<LeaseId, LeaseTtl>,
}

struct Writer {
    db: Arc<Database>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    state: State,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let first = match self.state.leases.values().map(|lease| lease.ends).min() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(ends) => queue.recv_timeout(ends.since(self.clock.monotonic())),
            };
            let mut jobs = match first {
                Ok(job) => vec![job],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            jobs.extend(queue.try_iter().take(GROUP - 1));
            self.group(jobs);
        }
    }

    /// One durable commit for everything in `jobs`, and for the leases that have ended meanwhile.
    fn group(&mut self, jobs: Vec<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut next = self.state.clone();
        let outcome = self.write(jobs, &mut next, &mut answers);
        let group = match outcome {
            Ok(batches) => {
                self.state = next;
                for batch in batches {
                    self.hub.publish(batch);
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        for answer in answers {
            answer.send(&group);
        }
    }

    fn write(&self, jobs: Vec<Job>, next: &mut State, answers: &mut Vec<Answer>) -> Result<Vec<Batch>, StoreError> {
        let now = self.clock.monotonic();
        let mut refused = None;
        let txn = self
            .db
            .begin_write()
            .map_err(|error| refused = Some(db_error(error)))
            .ok();
        let mut group = match &txn {
            None => None,
            Some(txn) => Group::open(txn, next).map_err(|error| refused = Some(error)).ok(),
        };
        if let Some(group) = &mut group {
            refused = group.expire(now).err();
        }
        for job in jobs {
            // After a failure the rest is only answered: the whole group is void.
            let Some(group) = group.as_mut().filter(|_| refused.is_none()) else {
                answers.push(void(job));
                continue;
            };
            let (answer, failure) = group.perform(job, now);
            answers.push(answer);
            refused = failure;
        }
        let batches = group.map(Group::finish).transpose()?.unwrap_or_default();
        match (refused, txn) {
            (Some(error), _) => Err(error),
            (None, Some(txn)) if batches.changed => txn.commit().map(|()| batches.batches).map_err(db_error),
            _ => Ok(batches.batches),
        }
    }
}

/// An answer for a job that was not even looked at; the group's error replaces its result.
fn void(job: Job) -> Answer {
    let stopped = || StoreError::unavailable(Stopped);
    match job {
        Job::Commit(_, reply) => Answer::Commit(reply, Err(stopped())),
        Job::Grant(_, reply) => Answer::Grant(reply, Err(stopped())),
        Job::Renew(_, reply) | Job::Revoke(_, reply) => Answer::Unit(reply, Err(stopped())),
    }
}

#[derive(Default)]
struct Written {
    batches: Vec<Batch>,
    changed: bool,
}

/// The open tables of one durable commit.
struct Group<'txn, 'state> {
    entries: Table<'txn, &'static str, &'static [u8]>,
    meta: Table<'txn, &'static str, u64>,
    leases: Table<'txn, u64, u64>,
    lease_keys: MultimapTable<'txn, u64, &'static str>,
    state: &'state mut State,
    written: Written,
}

impl<'txn, 'state> Group<'txn, 'state> {
    fn open(txn: &'txn redb::WriteTransaction, state: &'state mut State) -> Result<Self, StoreError> {
        Ok(Group {
            entries: txn.open_table(ENTRIES).map_err(db_error)?,
            meta: txn.open_table(META).map_err(db_error)?,
            leases: txn.open_table(LEASES).map_err(db_error)?,
            lease_keys: txn.open_multimap_table(LEASE_KEYS).map_err(db_error)?,
            state,
            written: Written::default(),
        })
    }

    /// Does one job. The second result is a failure of the database, which voids the group.
    fn perform(&mut self, job: Job, now: crate::time::Monotonic) -> (Answer, Option<StoreError>) {
        fn split<T>(result: Result<T, StoreError>) -> (Result<T, StoreError>, Option<StoreError>) {
            let failure = result
                .as_ref()
                .err()
                .filter(|error| matches!(error, StoreError::Unavailable(_)))
                .cloned();
            (result, failure)
        }
        match job {
            Job::Commit(txn, reply) => {
                let (result, failure) = split(self.commit(txn));
                (Answer::Commit(reply, result), failure)
            }
            Job::Grant(ttl, reply) => {
                let (result, failure) = split(self.grant(ttl, now));
                (Answer::Grant(reply, result), failure)
            }
            Job::Renew(lease, reply) => {
                let result = match self.state.leases.get_mut(&lease) {
                    Some(time) => {
                        time.ends = now + time.ttl;
                        Ok(())
                    }
                    None => Err(StoreError::LeaseEnded(lease)),
                };
                (Answer::Unit(reply, result), None)
            }
            Job::Revoke(lease, reply) => {
                let (result, failure) = split(self.revoke(lease));
                (Answer::Unit(reply, result), failure)
            }
        }
    }

    fn commit(&mut self, txn: Txn) -> Result<Revision, StoreError> {
        for guard in &txn.guards {
            let found = read_entry(&self.entries, guard.key())?;
            let holds = match guard {
                Guard::Absent(_) => found.is_none(),
                Guard::AtRevision(_, revision) => found.is_some_and(|entry| entry.revision == *revision),
            };
            if !holds {
                return Err(StoreError::Stale {
                    key: guard.key().to_owned(),
                });
            }
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.state.leases.contains_key(lease)
            {
                return Err(StoreError::LeaseEnded(*lease));
            }
        }
        self.apply(txn.ops)
    }

    fn apply(&mut self, ops: Vec<Op>) -> Result<Revision, StoreError> {
        let revision = Revision(self.state.revision.0 + 1);
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            let before = read_entry(&self.entries, op.key())?;
            if let Some(lease) = before.as_ref().and_then(|entry| entry.lease) {
                self.lease_keys.remove(lease.0, op.key()).map_err(db_error)?;
            }
            match op {
                Op::Put { key, value, lease } => {
                    let entry = Entry {
                        key,
                        value,
                        revision,
                        lease,
                    };
                    self.entries
                        .insert(entry.key.as_str(), encode(&entry).as_slice())
                        .map_err(db_error)?;
                    if let Some(lease) = lease {
                        self.lease_keys.insert(lease.0, entry.key.as_str()).map_err(db_error)?;
                    }
                    changes.push(Change::Put(entry));
                }
                Op::Delete(key) if before.is_some() => {
                    self.entries.remove(key.as_str()).map_err(db_error)?;
                    changes.push(Change::Delete(key));
                }
                Op::Delete(_) => {}
            }
        }
        if !changes.is_empty() {
            self.state.revision = revision;
            self.written.changed = true;
            self.written.batches.push(Batch { revision, changes });
        }
        Ok(self.state.revision)
    }

    fn grant(&mut self, ttl: Duration, now: crate::time::Monotonic) -> Result<LeaseId, StoreError> {
        if ttl < MIN_LEASE_TTL {
            return Err(StoreError::Invalid(format!("a lease lives at least {MIN_LEASE_TTL:?}")));
        }
        let id = LeaseId(self.state.last_lease + 1);
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.leases.insert(id.0, ttl_ms).map_err(db_error)?;
        self.state.last_lease = id.0;
        self.state.leases.insert(id, LeaseTtl { ttl, ends: now + ttl });
        self.written.changed = true;
        Ok(id)
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if self.state.leases.remove(&lease).is_none() {
            return Ok(());
        }
        self.written.changed = true;
        self.leases.remove(lease.0).map_err(db_error)?;
        let mut ops = Vec::new();
        for key in self.lease_keys.remove_all(lease.0).map_err(db_error)? {
            ops.push(Op::Delete(key.map_err(db_error)?.value().to_owned()));
        }
        self.apply(ops).map(drop)
    }

    fn expire(&mut self, now: crate::time::Monotonic) -> Result<(), StoreError> {
        let over: Vec<LeaseId> = self
            .state
            .leases
            .iter()
            .filter(|(_, time)| time.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        over.into_iter().try_for_each(|lease| self.revoke(lease))
    }

    fn finish(mut self) -> Result<Written, StoreError> {
        if self.written.changed {
            self.meta.insert("revision", self.state.revision.0).map_err(db_error)?;
            self.meta
                .insert("last_lease", self.state.last_lease)
                .map_err(db_error)?;
        }
        Ok(self.written)
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
