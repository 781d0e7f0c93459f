//! [`Unreliable`]: a store that fails when it is told to, for tests.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{Entry, LeaseId, MetaStore, Revision, Scan, Scanned, StoreError, Txn, Watch};

/// Passes everything on to another store, or refuses to write.
#[derive(Debug)]
pub struct Unreliable {
    inner: Arc<dyn MetaStore>,
    fail_commits: AtomicBool,
}

impl Unreliable {
    /// Works until it is told not to.
    #[must_use]
    pub fn new(inner: Arc<dyn MetaStore>) -> Self {
        Unreliable {
            inner,
            fail_commits: AtomicBool::new(false),
        }
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
        self.inner.commit(txn).await
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
