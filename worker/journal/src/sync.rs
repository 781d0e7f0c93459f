use std::{io, path::PathBuf, time::Duration};
#[derive(Debug)]
pub struct GroupSync {}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pending,
    Durable,
    Failed,
}
#[derive(Debug, Clone, Default)]
pub struct SyncStats {
    pub syncs: u64,
    pub errors: u64,
    pub last_error: Option<i32>,
    pub oldest_unsynced: Option<Duration>,
    pub longest_wait: Duration,
    pub longest_sync: Duration,
}
impl GroupSync {
    pub fn start(dirs: &[PathBuf], interval: Duration) -> io::Result<Self> {
        todo!()
    }
    /// Call after a write; returns the generation it belongs to. Costs two atomics.
    pub fn mark_dirty(&self) -> u64 {
        todo!()
    }
    pub fn generation(&self) -> u64 {
        todo!()
    }
    pub fn completed(&self) -> u64 {
        todo!()
    }
    pub fn outcome(&self, generation: u64) -> Outcome {
        todo!()
    }
    /// Syncs now and returns when what was written before the call is durable.
    pub fn sync_now(&self) -> io::Result<()> {
        todo!()
    }
    pub fn stats(&self) -> SyncStats {
        todo!()
    }
}
