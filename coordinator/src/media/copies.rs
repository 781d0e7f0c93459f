//! [`Copyist`]: a store around the store, which notes in each transaction what of it is to be copied to the second place of objects: a file
//! that enters the library, and the `recording.json` of a recording that has ended or whose leftovers were completed.
//!
//! Files enter by several hands; that none of them can forget it is why it is done here.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use shared::{
    objects::place_of,
    recording::{MediaFile, Recording},
    store::{
        CopyJob, CopyOf, Entry, Guard, LeaseId, MetaStore, Op, Repo, Revision, Scan, Scanned, StoreError, Txn, Watch,
        keys,
    },
    time::Clock,
};
use tracing::error;

/// Notes what is to be copied.
#[derive(Debug)]
pub(crate) struct Copyist {
    inner: Arc<dyn MetaStore>,
    clock: Arc<dyn Clock>,
}

impl Copyist {
    pub(crate) fn new(inner: Arc<dyn MetaStore>, clock: Arc<dyn Clock>) -> Self {
        Copyist { inner, clock }
    }

    /// What a change gives cause to copy.
    async fn caused(&self, txn: &Txn, op: &Op) -> Result<Option<CopyJob>, StoreError> {
        let now = self.clock.now();
        match op {
            // Only who enters a file guards its absence.
            Op::Put { key, value, .. }
                if key.starts_with(keys::FILES) && txn.guards.contains(&Guard::Absent(key.clone())) =>
            {
                let file = serde_json::from_slice::<MediaFile>(value).map_err(|e| corrupt(key, &e))?;
                Ok(Some(CopyJob::new(
                    CopyOf::File(file.id),
                    (file.recording, file.stream.clone(), place_of(&file.object_key)),
                    now,
                )))
            }
            Op::Put { key, value, .. } if key.starts_with(keys::RECORDINGS) => {
                let recording = serde_json::from_slice::<Recording>(value).map_err(|e| corrupt(key, &e))?;
                Ok(recording.state.is_terminal().then(|| document(recording, now)))
            }
            Op::Delete(key) if key.starts_with(keys::SALVAGES) => {
                let key = format!("{}{}", keys::RECORDINGS, keys::last_part(key));
                let salvaged = Repo::new(Arc::clone(&self.inner)).get::<Recording>(&key).await?;
                Ok(salvaged.map(|(recording, _)| document(recording, now)))
            }
            _ => Ok(None),
        }
    }

    async fn noted(&self, mut txn: Txn) -> Result<Txn, StoreError> {
        let mut jobs = Vec::new();
        for op in &txn.ops {
            match self.caused(&txn, op).await {
                Ok(job) => jobs.extend(job),
                // What cannot be read is not worse for not being copied.
                Err(problem @ StoreError::Corrupt { .. }) => {
                    error!(error = &problem as &dyn std::error::Error, "a change is not copied");
                }
                Err(away) => return Err(away),
            }
        }
        for job in jobs {
            txn = txn.put_json(keys::copy(job.of.id()), &job)?;
        }
        Ok(txn)
    }
}

fn document(recording: Recording, now: shared::time::Timestamp) -> CopyJob {
    let about = (recording.id, recording.stream, recording.template.place.as_str());
    CopyJob::new(CopyOf::Document(recording.id), about, now)
}

fn corrupt(key: &str, problem: &serde_json::Error) -> StoreError {
    StoreError::Corrupt {
        key: key.to_owned(),
        problem: problem.to_string(),
    }
}

#[async_trait]
impl MetaStore for Copyist {
    fn held(&self) -> std::sync::Weak<()> {
        self.inner.held()
    }

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
        self.inner.commit(self.noted(txn).await?).await
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
