//! [`Term`]: a time of leading. [`TermStore`]: the store as its holder may use it.

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use shared::{
    store::{Entry, Guard, LeaseId, MetaStore, Revision, Scan, Scanned, StoreError, Txn, Watch, keys},
    time::{Clock, Monotonic},
};
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Role,
    core::{DecisionRecord, LeaderRecord},
};

/// This coordinator does not lead, or no more.
#[derive(Debug, Clone, Copy, Error)]
#[error("this coordinator does not lead (any more): ask again, or ask another")]
pub(crate) struct NotLeading;

/// A time of leading.
#[derive(Debug)]
pub(crate) struct Term {
    /// None: nobody else uses the store, and the term never ends.
    election: Option<Elected>,
    over: CancellationToken,
}

#[derive(Debug)]
struct Elected {
    record: LeaderRecord,
    revision: Revision,
    /// Milliseconds of the monotonic clock until which its holder may believe in it.
    until: AtomicI64,
    clock: Arc<dyn Clock>,
    decided: Mutex<Decided>,
}

/// How far the decisions of a term have come.
#[derive(Debug)]
struct Decided {
    /// The last one that is known to be in the store.
    at: Revision,
    /// The last number that was given away.
    number: u64,
}

impl Term {
    /// The only coordinator's.
    pub(super) fn sole() -> Self {
        Term {
            election: None,
            over: CancellationToken::new(),
        }
    }

    /// One that was won by the transaction of `revision`.
    pub(super) fn elected(record: LeaderRecord, revision: Revision, until: Monotonic, clock: Arc<dyn Clock>) -> Self {
        Term {
            election: Some(Elected {
                record,
                revision,
                until: AtomicI64::new(until.as_millis()),
                clock,
                decided: Mutex::new(Decided {
                    at: revision,
                    number: 0,
                }),
            }),
            over: CancellationToken::new(),
        }
    }

    /// Count of leaders; 0 for the only one.
    pub(crate) fn number(&self) -> u64 {
        self.election.as_ref().map_or(0, |elected| elected.record.term)
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        self.election.as_ref().map(|elected| elected.revision)
    }

    /// True if its holder may believe in it.
    pub(crate) fn holds(&self) -> bool {
        !self.over.is_cancelled() && self.left() > Duration::ZERO
    }

    /// For how long its holder may believe in it.
    pub(super) fn left(&self) -> Duration {
        match &self.election {
            None => Duration::MAX,
            Some(elected) => {
                let until = Monotonic::from_millis(elected.until.load(Ordering::SeqCst));
                until.since(elected.clock.monotonic())
            }
        }
    }

    pub(super) fn believe_until(&self, until: Monotonic) {
        if let Some(elected) = &self.election {
            elected.until.store(until.as_millis(), Ordering::SeqCst);
        }
    }

    /// Ends it, whatever the lease does.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Waits until it was ended.
    pub(crate) async fn ended(&self) {
        self.over.cancelled().await;
    }
}

/// The store within a term: every transaction is guarded by it, and happens once however often it is sent.
#[derive(Debug, Clone)]
pub(crate) struct TermStore {
    inner: Arc<dyn MetaStore>,
    term: Arc<Term>,
}

impl TermStore {
    pub(crate) fn new(inner: Arc<dyn MetaStore>, term: Arc<Term>) -> Self {
        TermStore { inner, term }
    }

    /// The store has another leader.
    fn deposed(&self) -> StoreError {
        if !self.term.over.is_cancelled() {
            warn!(term = self.term.number(), "the metadata store has another leader");
            self.term.end();
        }
        StoreError::unavailable(NotLeading)
    }

    /// A transaction whose guards let it happen only once: the term's guard is all it needs.
    async fn commit_guarded(&self, txn: Txn) -> Result<Revision, StoreError> {
        match self.inner.commit(txn).await {
            Err(StoreError::Stale { key }) if key == keys::LEADER => Err(self.deposed()),
            other => other,
        }
    }

    /// A transaction without such guards is made the next in the term's row of decisions.
    async fn commit_in_row(&self, elected: &Elected, txn: Txn) -> Result<Revision, StoreError> {
        let mut decided = elected.decided.lock().await;
        decided.number += 1;
        let own = DecisionRecord {
            term: elected.record.term,
            number: decided.number,
        };
        let value = own.to_json()?;
        loop {
            let row = Guard::AtRevision(keys::DECISION.to_owned(), decided.at);
            let next = txn.clone().guard(row).put(keys::DECISION, value.clone());
            match self.commit_guarded(next).await {
                Ok(revision) => {
                    decided.at = revision;
                    return Ok(revision);
                }
                Err(StoreError::Stale { key }) if key == keys::DECISION => {
                    let entry = self.inner.get(keys::DECISION).await?;
                    let Some((entry, found)) = entry
                        .as_ref()
                        .map(|entry| DecisionRecord::read(entry).map(|found| (entry, found)))
                        .transpose()?
                    else {
                        return Err(self.deposed());
                    };
                    if found.term != own.term {
                        return Err(self.deposed());
                    }
                    decided.at = entry.revision;
                    if found == own {
                        // An earlier attempt at this one, whose answer was lost.
                        return Ok(entry.revision);
                    }
                    // Else an earlier one of which nothing was known: it is in the store, and this one follows.
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl MetaStore for TermStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.inner.get_many(keys).await
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let Some(elected) = &self.term.election else {
            return self.inner.commit(txn).await;
        };
        if !self.term.holds() {
            return Err(StoreError::unavailable(NotLeading));
        }
        if txn.ops.is_empty() {
            return self.inner.commit(txn).await;
        }
        let fences_itself = txn.fences_itself();
        let txn = txn.guard(Guard::AtRevision(keys::LEADER.to_owned(), elected.revision));
        let result = if fences_itself {
            self.commit_guarded(txn).await
        } else {
            self.commit_in_row(elected, txn).await
        };
        if let Err(StoreError::Unavailable(error)) = &result
            && self.term.holds()
        {
            warn!(
                error = error.as_ref() as &dyn StdError,
                "nothing is known of a transaction"
            );
        }
        result
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }
}

/// The store for whoever answers calls: reads always, changes within the term of the moment.
///
/// Only for transactions that fence themselves: one that was decided in an earlier term of this process finds then what
/// changed since.
#[derive(Debug, Clone)]
pub(crate) struct Led {
    inner: Arc<dyn MetaStore>,
    roles: watch::Receiver<Role>,
}

impl Led {
    pub(crate) fn new(inner: Arc<dyn MetaStore>, roles: watch::Receiver<Role>) -> Self {
        Led { inner, roles }
    }
}

#[async_trait]
impl MetaStore for Led {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.inner.get_many(keys).await
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let term = self.roles.borrow().term().cloned();
        let term = term.ok_or_else(|| StoreError::unavailable(NotLeading))?;
        TermStore::new(Arc::clone(&self.inner), term).commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }
}
