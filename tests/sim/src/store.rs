//! [`Reached`]: the model of the metadata store as one coordinator reaches it, over a network and with faults.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::store::{Entry, LeaseId, MetaStore, Model, Revision, Scan, Scanned, StoreError, Txn, Watch};

use crate::checks::Checks;
use crate::sabotage::Earlier;
use crate::world::{Place, World};

/// Time after which a client of the store gives up.
const LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) world: Arc<World>,
    pub(crate) model: Arc<Model>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) from: Place,
    pub(crate) earlier: Earlier,
}

#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the metadata store did not answer")
    }
}

impl std::error::Error for NoAnswer {}

impl Reached {
    async fn reach(&self) -> Result<(), StoreError> {
        let weather = self.world.weather();
        let wait = match self.world.happens(weather.store_slow) {
            true => self.world.between(200, 2_500),
            false => self.world.between(1, 4),
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if self.world.is_cut(self.from, Place::Store) {
            tokio::time::sleep(LIMIT).await;
            return Err(StoreError::unavailable(NoAnswer));
        }
        if self.world.happens(weather.store_fails) {
            return Err(StoreError::unavailable(NoAnswer));
        }
        Ok(())
    }

    async fn answer(&self) -> Result<(), StoreError> {
        if self.world.is_cut(self.from, Place::Store) || self.world.happens(self.world.weather().store_answer_lost) {
            tokio::time::sleep(LIMIT).await;
            return Err(StoreError::unavailable(NoAnswer));
        }
        Ok(())
    }
}

#[async_trait]
impl MetaStore for Reached {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.reach().await?;
        self.model.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.reach().await?;
        self.model.get_many(keys).await
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.reach().await?;
        self.model.scan(scan).await
    }

    async fn commit(&self, mut txn: Txn) -> Result<Revision, StoreError> {
        self.reach().await?;
        self.world.sabotage_txn(&mut txn);
        let ops = txn.ops.clone();
        let revision = self.model.commit(txn).await?;
        self.checks.committed(&ops, revision, self.from);
        if let Some(op) = self.earlier.again(&self.world, &ops) {
            let ops = vec![op];
            let txn = Txn {
                guards: Vec::new(),
                ops: ops.clone(),
            };
            let revision = self.model.commit(txn).await?;
            self.checks.committed(&ops, revision, self.from);
        }
        self.answer().await?;
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.reach().await?;
        self.model.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.reach().await?;
        let lease = self.model.grant_lease(ttl).await?;
        self.answer().await?;
        Ok(lease)
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reach().await?;
        self.model.renew_lease(lease).await?;
        self.answer().await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reach().await?;
        self.model.revoke_lease(lease).await?;
        self.answer().await
    }
}
