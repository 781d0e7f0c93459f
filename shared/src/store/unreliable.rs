//! [`Unreliable`]: a store that fails when it is told to, for tests.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{Entry, LeaseId, MetaStore, Revision, Scan, Scanned, StoreError, Txn, Watch};

/// Passes everything on to another store, or refuses to write, or loses or doubles what is on its way.
#[derive(Debug)]
pub struct Unreliable {
    inner: Arc<dyn MetaStore>,
    fail_commits: AtomicBool,
    lose_answers: AtomicBool,
    send_twice: AtomicBool,
    sent: Mutex<Vec<Txn>>,
}

impl Unreliable {
    /// Works until it is told not to.
    #[must_use]
    pub fn new(inner: Arc<dyn MetaStore>) -> Self {
        Unreliable {
            inner,
            fail_commits: AtomicBool::new(false),
            lose_answers: AtomicBool::new(false),
            send_twice: AtomicBool::new(false),
            sent: Mutex::new(Vec::new()),
        }
    }

    /// From now on commits happen, and the caller hears that nothing is known of them.
    pub fn lose_answers(&self, lose: bool) {
        self.lose_answers.store(lose, Ordering::SeqCst);
    }

    /// From now on each commit arrives twice, and the second one is answered: as when an answer is lost and the request
    /// sent again.
    pub fn send_twice(&self, twice: bool) {
        self.send_twice.store(twice, Ordering::SeqCst);
    }

    /// Every transaction that was passed on.
    pub fn sent(&self) -> Vec<Txn> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on commits fail as on a full disk, or work again.
    pub fn fail_commits(&self, fail: bool) {
        self.fail_commits.store(fail, Ordering::SeqCst);
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.fail_commits.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable(io::Error::other("no space left on device"))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl MetaStore for Unreliable {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.inner.scan(scan).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.writable()?;
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(txn.clone());
        if self.send_twice.load(Ordering::SeqCst) {
            drop(self.inner.commit(txn.clone()).await);
        }
        let answer = self.inner.commit(txn).await;
        match self.lose_answers.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable(io::Error::other("the answer was lost"))),
            false => answer,
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.writable()?;
        self.inner.grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.writable()?;
        self.inner.revoke_lease(lease).await
    }
}
