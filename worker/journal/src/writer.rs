use crate::{Control, JournalError, Position, Progress, Publish, recover::Recovered};
use std::{path::Path, sync::Arc};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub segment_bytes: u64,
    pub segment_index_bytes: usize,
}
impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            segment_index_bytes: 64 << 10,
        }
    }
}

/// Scratch shared by all writers of a thread; belongs to one writer between its first append and its commit.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
}
impl Batch {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// Forgets what was appended since the last commit (after a commit that failed and will not be retried). Units forgotten: (video, audio).
    pub fn abandon(&mut self) -> Abandoned {
        todo!()
    }
}
/// What an abandoned batch held, for the Control::Gap that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abandoned {
    pub units: u64,
    pub bytes: u64,
    pub first_dts_ms: Option<i64>,
    pub end_dts_ms: Option<i64>,
}

#[derive(Debug)]
pub struct Writer {
    progress: Arc<Progress>,
}
impl Writer {
    pub fn create(dir: &Path, options: Options, publish: &Publish, now_ms: i64) -> Result<Writer, JournalError> {
        todo!()
    }
    /// Goes on in a recovered journal, in a new segment at `at_least` or later (give the greatest position any cursor has passed).
    pub fn reopen(
        dir: &Path,
        options: Options,
        recovered: &Recovered,
        at_least: Position,
        now_ms: i64,
    ) -> Result<Writer, JournalError> {
        todo!()
    }
    pub fn append(&mut self, batch: &mut Batch, tag_type: u8, raw_ms: u32, body: &[u8], mono_ms: i64, wall_ms: i64) {
        todo!()
    }
    pub fn commit(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        todo!()
    }
    pub fn control(&mut self, control: &Control, wall_ms: i64) -> Result<(), JournalError> {
        todo!()
    }
    pub fn close(self, unpublish: &Control, wall_ms: i64) -> Result<(), JournalError> {
        todo!()
    }
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}
