//! [`Model`]: [`Kv`] behind the store trait, for tests.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Batch, Entry, Kv, LeaseId, MetaStore, Revision, Scan, Scanned, StoreError, Txn, Watch, watch::Hub};
use crate::time::Clock;

/// The pure model as a store in memory. Leases end when somebody touches the store or calls [`Model::tick`].
#[derive(Debug)]
pub struct Model {
    kv: Mutex<Kv>,
    hub: Hub,
    clock: Arc<dyn Clock>,
}

impl Model {
    /// Empty.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Model {
            kv: Mutex::new(Kv::new()),
            hub: Hub::new(Revision(0)),
            clock,
        }
    }

    /// Ends the leases whose time is over.
    pub fn tick(&self) {
        drop(self.kv());
    }

    fn kv(&self) -> MutexGuard<'_, Kv> {
        let mut kv = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in kv.expire(self.clock.monotonic()) {
            self.hub.publish(batch);
        }
        kv
    }

    /// Publishes while the lock is held, so that watchers hear batches in order.
    fn publish(&self, batch: Batch, _in_order: &MutexGuard<'_, Kv>) -> Revision {
        let revision = batch.revision;
        self.hub.publish(batch);
        revision
    }
}

#[async_trait]
impl MetaStore for Model {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.kv().get(key).cloned())
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        Ok(self.kv().scan(&scan))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let mut kv = self.kv();
        let batch = kv.commit(txn)?;
        Ok(self.publish(batch, &kv))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let _in_order = self.kv();
        self.hub.watch(prefix, after)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.kv().grant_lease(ttl, self.clock.monotonic())
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.kv().renew_lease(lease, self.clock.monotonic())
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut kv = self.kv();
        let batch = kv.revoke_lease(lease);
        self.publish(batch, &kv);
        Ok(())
    }
}
