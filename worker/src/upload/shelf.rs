//! [`Shelf`]: small objects, and when everything that was written is safe.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use journal::{GroupSync, Outcome};
use shared::objects::ObjectError;
use shared::recording::FinishedFile;
use shared::template::Format;
use tracing::warn;

use super::abandoned::Abandoned;
use super::plan::Plan;
use super::{Objects, Sites};

/// How often it is asked whether a group sync has ended.
const SYNC_POLL: Duration = Duration::from_millis(50);

/// What lies under a key.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What each place has that has something, the second place's first; once where both have the same.
    pub(crate) versions: Vec<Vec<u8>>,
    /// Every place that there is has answered.
    pub(crate) whole: bool,
}

impl Found {
    /// What the only place has.
    pub(crate) fn alone(bytes: Option<Vec<u8>>) -> Self {
        Self {
            versions: bytes.into_iter().collect(),
            whole: true,
        }
    }
}

/// Where documents and running indexes lie.
#[async_trait]
pub(crate) trait Shelf: Send + Sync {
    /// What lies under a key, in each place that answers; one of them does.
    async fn each(&self, key: &str) -> io::Result<Found>;

    /// Stores an object, in place of an older one.
    async fn put(&self, key: &str, bytes: Vec<u8>) -> io::Result<()>;

    /// Says beside a whole file what it is, for whoever completes its recording should this machine be lost before the library has the file:
    /// as long as it takes. Not where nobody completes anything.
    async fn vouch(&self, _file: &FinishedFile, _zone: &str) -> Result<(), ObjectError> {
        Ok(())
    }

    /// The library has a file: what lies beside it goes, if not now then later. `vouched`: something may lie beside one that never grew in
    /// parts.
    fn settle(&self, _file: &FinishedFile, _vouched: bool) {}

    /// Waits until everything that this worker has written by now is safe against power loss: what is in the library is there.
    async fn durable(&self);
}

/// Objects of which a part may lie on this machine's disk.
#[derive(Debug, Clone)]
pub(crate) struct Synced {
    pub(crate) objects: Sites,
    pub(crate) sync: Arc<GroupSync>,
    pub(crate) abandoned: Abandoned,
}

#[async_trait]
impl Shelf for Synced {
    async fn each(&self, key: &str) -> io::Result<Found> {
        self.objects.of(key).each(key).await
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.objects.of(key).put(key, bytes).await
    }

    async fn vouch(&self, file: &FinishedFile, zone: &str) -> Result<(), ObjectError> {
        match self.objects.of(&file.key) {
            // Whoever looks at what lies in a directory knows no more of it than this machine.
            Objects::Local(_) => Ok(()),
            Objects::Remote(remote) => remote.vouch(file, zone).await,
        }
    }

    fn settle(&self, file: &FinishedFile, vouched: bool) {
        let Objects::Remote(_) = self.objects.of(&file.key) else {
            return;
        };
        let grew = file.format != Format::Hls && file.size >= Plan::SHORTEST_IN_PARTS;
        if (grew || vouched)
            && let Err(error) = self.abandoned.note_settled(&file.key)
        {
            warn!(key = file.key, %error, "what lies beside a file in storage stays there");
        }
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
