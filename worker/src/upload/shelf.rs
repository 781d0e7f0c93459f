//! [`Shelf`]: small objects, and when everything that was written is safe.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use journal::{GroupSync, Outcome};
use tracing::warn;

use super::Sites;

/// How often it is asked whether a group sync has ended.
const SYNC_POLL: Duration = Duration::from_millis(50);

/// Where documents and running indexes lie.
#[async_trait]
pub(crate) trait Shelf: Send + Sync {
    /// The first of these objects that is there, and which of them it is.
    async fn first(&self, keys: &[String]) -> io::Result<Option<(usize, Vec<u8>)>>;

    /// What lies under a key, in each place that there is.
    async fn each(&self, key: &str) -> io::Result<Vec<Vec<u8>>> {
        let found = self.first(&[key.to_owned()]).await?;
        Ok(found.map(|(_, bytes)| bytes).into_iter().collect())
    }

    /// Stores an object, in place of an older one.
    async fn put(&self, key: &str, bytes: Vec<u8>) -> io::Result<()>;

    /// Waits until everything that this worker has written by now is safe against power loss: what is in the library is there.
    async fn durable(&self);
}

/// Objects of which a part may lie on this machine's disk.
#[derive(Debug, Clone)]
pub(crate) struct Synced {
    pub(crate) objects: Sites,
    pub(crate) sync: Arc<GroupSync>,
}

#[async_trait]
impl Shelf for Synced {
    async fn first(&self, keys: &[String]) -> io::Result<Option<(usize, Vec<u8>)>> {
        // They are of one recording.
        let place = keys.first().map_or("", String::as_str);
        self.objects.of(place).first(keys).await
    }

    async fn each(&self, key: &str) -> io::Result<Vec<Vec<u8>>> {
        self.objects.of(key).each(key).await
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.objects.of(key).put(key, bytes).await
    }

    async fn durable(&self) {
        let mut generation = self.sync.mark_dirty();
        loop {
            match self.sync.outcome(generation) {
                Outcome::Durable => return,
                Outcome::Failed => {
                    warn!("a sync failed; what was written is committed behind the next that succeeds");
                    generation = self.sync.mark_dirty();
                }
                Outcome::Pending => {}
            }
            tokio::time::sleep(SYNC_POLL).await;
        }
    }
}
