//! The metadata store: [`MetaStore`], small and shaped like etcd, so that an embedded database and etcd keep the same
//! promises.
//!
//! # Tour
//!
//! 1. This file: the trait and its types.
//! 2. `kv`: the model, a pure state machine that says what every store must do.
//! 3. `watch`: recent changes, and who wants to hear of them.
//! 4. [`Embedded`]: the model's promises on a database file. [`Etcd`]: the same on a cluster of machines.
//! 5. [`open`]: from settings to a store.
//! 6. [`keys`] and [`Repo`]: what lies where, and typed access to it.
//! 7. `contract` (feature `test-support`): the promises as tests that every store runs.

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
mod copies;
mod embedded;
mod etcd;
pub mod keys;
mod kv;
mod library;
mod lost;
#[cfg(any(test, feature = "test-support"))]
mod model;
mod open;
mod repo;
mod restore;
mod stitch;
mod tasks;
#[cfg(any(test, feature = "test-support"))]
mod unreliable;
mod url;
mod watch;

use std::{error::Error as StdError, fmt, sync::Weak, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::stitch::{NextOwner, StitchRecord};
pub(crate) use self::url::mask;
pub use self::{
    copies::{Backlog, COPY_LEASE, CopyJob, CopyOf, CopyOrder, Taken},
    embedded::Embedded,
    etcd::{Etcd, EtcdLogin, EtcdOptions, EtcdTls},
    kv::{Kv, LeaseTtl},
    library::{Due, Looked, Removal, RemovalCause, RemovalError, RemovalFrom},
    open::{LAYOUT, ensure_layout, open},
    repo::{
        CommitError, FileFilter, Interruption, Page, PublishRecord, RecordingFilter, RecordingUpdate, Repo,
        StreamRecord, storage_of,
    },
    restore::Restored,
    tasks::{TaskFilter, TaskRecording},
    url::{Login, MetadataUrl, MetadataUrlError, Password},
    watch::Watch,
};
#[cfg(any(test, feature = "test-support"))]
pub use self::{model::Model, unreliable::Unreliable};

/// Longest key, bytes.
pub const MAX_KEY_BYTES: usize = 2_048;
/// Longest value, bytes. Below etcd's request limit of 1.5 MiB.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most operations and guards of one transaction, each: etcd's own default.
pub const MAX_TXN_OPS: usize = 128;
/// Longest transaction, bytes of keys and values together: below etcd's request limit of 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 5 << 18;
/// Most entries of one scan.
pub const MAX_SCAN: usize = 1_000;
/// Shortest time to live of a lease: etcd counts in seconds.
pub const MIN_LEASE_TTL: Duration = Duration::from_secs(1);

/// Version of the whole store: each transaction that changes anything raises it by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a store lease: keys put under it vanish when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// A key and what is under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The transaction that put it last.
    pub revision: Revision,
    /// The lease it lives under, if any.
    pub lease: Option<LeaseId>,
}

/// What to read: keys that begin with a prefix, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Only keys that begin so; empty: all.
    pub prefix: String,
    /// Only keys beyond this one in the direction of reading.
    pub after: Option<String>,
    /// Most entries wanted, 1 to [`MAX_SCAN`].
    pub limit: usize,
    /// Read from the last key to the first.
    pub reverse: bool,
}

impl Scan {
    /// Everything under a prefix, at most [`MAX_SCAN`] at a time.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Scan {
            prefix: prefix.into(),
            after: None,
            limit: MAX_SCAN,
            reverse: false,
        }
    }

    /// Goes on beyond a key.
    #[must_use]
    pub fn after(mut self, key: Option<String>) -> Self {
        self.after = key;
        self
    }

    /// At most this many, cut to the legal range.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, MAX_SCAN);
        self
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// In the order of reading.
    pub entries: Vec<Entry>,
    /// The store's revision as of which they were read: a watch from here misses nothing.
    pub revision: Revision,
    /// True if the limit cut it off.
    pub more: bool,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// There is nothing under the key.
    Absent(String),
    /// The key was last put by this very transaction.
    AtRevision(String, Revision),
}

impl Guard {
    /// The key it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Guard::Absent(key) | Guard::AtRevision(key, _) => key,
        }
    }
}

/// A change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Puts a value.
    Put {
        /// Where.
        key: String,
        /// What.
        value: Bytes,
        /// The lease it shall live under.
        lease: Option<LeaseId>,
    },
    /// Removes a key; without effect where there is none.
    Delete(String),
}

impl Op {
    /// The key it changes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Op::Put { key, .. } | Op::Delete(key) => key,
        }
    }
}

/// All guards hold and all operations happen, or nothing does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// Conditions.
    pub guards: Vec<Guard>,
    /// Changes; each key at most once.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a put without a lease.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Adds a put under a lease.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete(key.into()));
        self
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let guards = self.guards.iter().map(|guard| guard.key().len());
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        });
        guards.chain(ops).sum()
    }

    /// True if doing it breaks one of its own guards, so that a second copy of it has no effect, however late either
    /// arrives.
    #[must_use]
    pub fn fences_itself(&self) -> bool {
        let puts = |key: &str| {
            self.ops
                .iter()
                .any(|op| matches!(op, Op::Put { .. }) && op.key() == key)
        };
        self.guards.iter().any(|guard| match guard {
            Guard::Absent(key) => puts(key),
            Guard::AtRevision(key, _) => self.ops.iter().any(|op| op.key() == key),
        })
    }

    /// Checks sizes and that no key is changed twice.
    fn validate(&self) -> Result<(), StoreError> {
        if self.ops.len() > MAX_TXN_OPS || self.guards.len() > MAX_TXN_OPS {
            return Err(StoreError::Invalid(format!(
                "a transaction has at most {MAX_TXN_OPS} guards and operations each"
            )));
        }
        let mut keys: Vec<&str> = self.ops.iter().map(Op::key).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(StoreError::Invalid(format!(
                "a transaction changes {:?} twice",
                pair.first()
            )));
        }
        for key in keys.into_iter().chain(self.guards.iter().map(Guard::key)) {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(StoreError::Invalid(format!(
                    "a key has {} bytes, 1 to {MAX_KEY_BYTES} are allowed",
                    key.len()
                )));
            }
        }
        for op in &self.ops {
            if let Op::Put { key, value, .. } = op
                && value.len() > MAX_VALUE_BYTES
            {
                let len = value.len();
                return Err(StoreError::Invalid(format!(
                    "{key:?} has {len} bytes, at most {MAX_VALUE_BYTES} are allowed"
                )));
            }
        }
        let bytes = self.bytes();
        if bytes > MAX_TXN_BYTES {
            return Err(StoreError::Invalid(format!(
                "a transaction has {bytes} bytes of keys and values, at most {MAX_TXN_BYTES} are allowed"
            )));
        }
        Ok(())
    }
}

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was put.
    Put(Entry),
    /// It was removed, by a transaction or with its lease.
    Delete(String),
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete(key) => key,
        }
    }
}

/// Everything that one transaction changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The store's revision after it.
    pub revision: Revision,
    /// In the order of the transaction's operations.
    pub changes: Vec<Change>,
}

/// Why the store did not do it.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// A guard does not hold: somebody else was quicker. Read again and decide again.
    #[error("stale: {key:?} is not as the transaction expects it")]
    Stale {
        /// The first guard that does not hold.
        key: String,
    },
    /// The history before this revision is gone, or the watcher was too slow. Scan again and watch from there.
    #[error("changes up to revision {up_to} are no longer at hand")]
    Compacted {
        /// The last revision that cannot be told any more.
        up_to: Revision,
    },
    /// The lease has ended.
    #[error("lease {} has ended", .0.0)]
    LeaseEnded(LeaseId),
    /// The request is not legal.
    #[error("store request: {0}")]
    Invalid(String),
    /// The store cannot be reached or cannot write; whether the change happened is not known.
    #[error("the metadata store is unavailable: {0}")]
    Unavailable(#[source] std::sync::Arc<dyn StdError + Send + Sync>),
    /// The store does not let this process in, or not there.
    #[error("the metadata store refuses: {0}")]
    Forbidden(String),
    /// What is stored cannot be read.
    #[error("stored value of {key:?} cannot be read: {problem}")]
    Corrupt {
        /// Where.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same may work later.
    Retry,
    /// A person must act.
    GiveUp,
    /// The request was wrong; reading again or asking for something else may help.
    CallerFault,
}

impl StoreError {
    /// Wraps what a database or network said.
    pub fn unavailable(source: impl StdError + Send + Sync + 'static) -> Self {
        StoreError::Unavailable(std::sync::Arc::new(source))
    }

    /// What to do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            StoreError::Unavailable(_) => ErrorClass::Retry,
            StoreError::Corrupt { .. } | StoreError::Forbidden(_) => ErrorClass::GiveUp,
            StoreError::Stale { .. }
            | StoreError::Compacted { .. }
            | StoreError::LeaseEnded(_)
            | StoreError::Invalid(_) => ErrorClass::CallerFault,
        }
    }

    /// Short stable name, for counters.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            StoreError::Stale { .. } => "stale",
            StoreError::Compacted { .. } => "compacted",
            StoreError::LeaseEnded(_) => "lease_ended",
            StoreError::Invalid(_) => "invalid",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Forbidden(_) => "forbidden",
            StoreError::Corrupt { .. } => "corrupt",
        }
    }
}

/// A store cannot be opened.
#[derive(Debug, Error)]
#[error("cannot open the metadata store {store}: {problem}")]
pub struct OpenError {
    /// Which: a file, or a URL without its password.
    pub store: String,
    /// Why, and what to do.
    pub problem: String,
}

/// Refuses more keys than are read at once, in every store alike.
fn at_once(keys: &[String]) -> Result<(), StoreError> {
    match keys.len() {
        0..=MAX_TXN_OPS => Ok(()),
        many => Err(StoreError::Invalid(format!(
            "at most {MAX_TXN_OPS} keys are read at once, and not {many}"
        ))),
    }
}

/// Keys and values with guarded transactions, revisions, watches and leases.
///
/// Transactions are linear: one happens after the other, a read after a commit's answer sees it, and what was answered
/// survives the process and a power loss.
#[async_trait]
pub trait MetaStore: Send + Sync + fmt::Debug {
    /// Leads nowhere once another process may open what this one had to itself. A store in a file says when the file
    /// is closed, which is a moment after its last user let go of it; others have nothing to themselves.
    fn held(&self) -> Weak<()> {
        Weak::new()
    }

    /// Reads one key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Reads many keys, up to [`MAX_TXN_OPS`], in one request where the store can; in the order asked for.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for more of them.
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        at_once(keys)?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.push(self.get(key).await?);
        }
        Ok(entries)
    }

    /// Reads keys in order.
    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError>;

    /// Changes all or nothing; durable when it answers. A transaction that changes nothing answers the revision now.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when a guard does not hold, [`StoreError::LeaseEnded`] when a put names a lease that is
    /// no more.
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError>;

    /// Tells every change under a prefix after a revision, in order, each once.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], now or from the watch later: scan again.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Makes a lease that ends `ttl` after its last renewal; at least [`MIN_LEASE_TTL`].
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Lets a lease live for another of its times.
    ///
    /// # Errors
    /// [`StoreError::LeaseEnded`].
    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and removes its keys; without effect when it has ended.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError>;
}
