//! The thread that writes: group commit, leases, and opening the file anew after a failure.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use redb::{Database, DatabaseError, MultimapTable, Table};
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::{
    super::{Batch, Change, Entry, Guard, LeaseId, LeaseTtl, MIN_LEASE_TTL, Op, Revision, StoreError, Txn, watch::Hub},
    file::{ENTRIES, LEASE_KEYS, LEASES, META, Opened, db_error, encode, prepare, read_entry},
};
use crate::time::{Clock, Monotonic};

/// Most transactions in one durable commit.
const GROUP: usize = 256;
/// Time between two attempts to open a file that failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// Opens the database, for the first time or again.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

pub(super) type Shared = Arc<File>;

/// The file of the store.
#[derive(Debug)]
pub(super) struct File {
    /// The open database; none while it has failed and cannot be opened anew. Readers hold the lock while they read.
    pub(super) open: RwLock<Option<Database>>,
    /// Dropped behind `open`: who holds a weak one knows when the file is free.
    pub(super) held: Arc<()>,
}

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Commit(Txn, oneshot::Sender<Result<Revision, StoreError>>),
    Grant(Duration, oneshot::Sender<Result<LeaseId, StoreError>>),
    Renew(LeaseId, oneshot::Sender<Result<(), StoreError>>),
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
    /// A reader met an error: see whether the file still works.
    Check,
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
    None,
}

impl Answer {
    /// Tells the caller; who no longer waits does not need to know. When the group failed, all of it failed.
    fn send(self, group: &Result<(), StoreError>) {
        match self {
            Answer::Commit(to, result) => drop(to.send(group.clone().and(result))),
            Answer::Grant(to, result) => drop(to.send(group.clone().and(result))),
            Answer::Unit(to, result) => drop(to.send(group.clone().and(result))),
            Answer::None => {}
        }
    }
}

#[derive(Debug, Error)]
#[error("the store's writer has stopped")]
pub(super) struct Stopped;

/// The file failed, and opening it anew did too.
#[derive(Debug, Error)]
#[error("the store's file failed, and cannot be opened again yet")]
pub(super) struct Failed;

/// What the writer knows beside the file.
#[derive(Debug, Clone)]
pub(super) struct State {
    revision: Revision,
    last_lease: u64,
    leases: BTreeMap<LeaseId, LeaseTtl>,
}

impl State {
    /// Leases get their whole time anew.
    pub(super) fn new(opened: Opened, now: Monotonic) -> Self {
        let lease = |(id, ttl)| (id, LeaseTtl { ttl, ends: now + ttl });
        State {
            revision: opened.revision,
            last_lease: opened.last_lease,
            leases: opened.leases.into_iter().map(lease).collect(),
        }
    }
}

pub(super) struct Writer {
    pub(super) db: Shared,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) state: State,
    pub(super) opener: Opener,
    /// The database refuses everything after an I/O error until it is opened anew.
    pub(super) failed: bool,
}

impl Writer {
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let first = match self.wait() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => queue.recv_timeout(wait),
            };
            let mut jobs = match first {
                Ok(job) => vec![job],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.failed {
                self.reopen();
            }
            jobs.extend(queue.try_iter().take(GROUP - 1));
            self.group(jobs);
        }
    }

    /// Longest time until there is something to do without being asked.
    fn wait(&self) -> Option<Duration> {
        if self.failed {
            return Some(REOPEN_EVERY);
        }
        let next = self.state.leases.values().map(|lease| lease.ends).min();
        next.map(|ends| ends.since(self.clock.monotonic()))
    }

    /// Opens the file anew and starts from what it has: of what failed it is not known whether it happened.
    fn reopen(&mut self) {
        let mut slot = self.db.open.write().unwrap_or_else(PoisonError::into_inner);
        // The old one must go first: it holds the file's lock.
        *slot = None;
        let opened = (self.opener)().map_err(redb::Error::from).and_then(|db| {
            let opened = prepare(&db)?;
            Ok((db, opened))
        });
        match opened {
            Ok((db, opened)) => {
                *slot = Some(db);
                drop(slot);
                self.state = State::new(opened, self.clock.monotonic());
                self.hub.restart(self.state.revision);
                self.failed = false;
                info!(revision = %self.state.revision, "metadata store opened anew after a failure");
            }
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "metadata store cannot be opened anew yet"
            ),
        }
    }

    /// One durable commit for everything in `jobs`, and for the leases that have ended meanwhile.
    fn group(&mut self, jobs: Vec<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut next = self.state.clone();
        let group = match self.write(jobs, &mut next, &mut answers) {
            Ok(batches) => {
                self.state = next;
                batches.into_iter().for_each(|batch| self.hub.publish(batch));
                Ok(())
            }
            Err(error) => {
                self.failed |= matches!(error, StoreError::Unavailable(_));
                Err(error)
            }
        };
        for answer in answers {
            answer.send(&group);
        }
    }

    fn write(&self, jobs: Vec<Job>, next: &mut State, answers: &mut Vec<Answer>) -> Result<Vec<Batch>, StoreError> {
        let now = self.clock.monotonic();
        let db = self.db.open.read().unwrap_or_else(PoisonError::into_inner);
        let begun = match db.as_ref() {
            Some(db) => db.begin_write().map_err(db_error),
            None => Err(StoreError::unavailable(Failed)),
        };
        let txn = match begun {
            Ok(txn) => txn,
            Err(error) => {
                answers.extend(jobs.into_iter().map(void));
                return Err(error);
            }
        };
        let written = match Group::open(&txn, next) {
            Ok(group) => group.perform_all(jobs, now, answers)?,
            Err(error) => {
                answers.extend(jobs.into_iter().map(void));
                return Err(error);
            }
        };
        if written.changed {
            txn.commit().map_err(db_error)?;
        }
        Ok(written.batches)
    }
}

/// An answer for a job that was not even looked at; the group's error replaces its result.
fn void(job: Job) -> Answer {
    let stopped = || StoreError::unavailable(Stopped);
    match job {
        Job::Commit(_, reply) => Answer::Commit(reply, Err(stopped())),
        Job::Grant(_, reply) => Answer::Grant(reply, Err(stopped())),
        Job::Renew(_, reply) | Job::Revoke(_, reply) => Answer::Unit(reply, Err(stopped())),
        Job::Check => Answer::None,
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

    /// Does every job. After a failure of the database the rest is only answered: the whole group is void.
    fn perform_all(mut self, jobs: Vec<Job>, now: Monotonic, answers: &mut Vec<Answer>) -> Result<Written, StoreError> {
        let mut refused = self.expire(now).err();
        for job in jobs {
            if refused.is_some() {
                answers.push(void(job));
                continue;
            }
            let (answer, failure) = self.perform(job, now);
            answers.push(answer);
            refused = failure;
        }
        match refused {
            Some(error) => Err(error),
            None => self.finish(),
        }
    }

    /// Does one job. The second result is a failure of the database, which voids the group.
    fn perform(&mut self, job: Job, now: Monotonic) -> (Answer, Option<StoreError>) {
        fn split<T>(result: Result<T, StoreError>) -> (Result<T, StoreError>, Option<StoreError>) {
            let failure = result
                .as_ref()
                .err()
                .filter(|error| matches!(error, StoreError::Unavailable(_) | StoreError::Corrupt { .. }))
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
            // Opening the tables for this group was the check.
            Job::Check => (Answer::None, None),
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

    fn grant(&mut self, ttl: Duration, now: Monotonic) -> Result<LeaseId, StoreError> {
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

    fn expire(&mut self, now: Monotonic) -> Result<(), StoreError> {
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
