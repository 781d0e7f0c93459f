use crate::{Control, JournalError, Position};
use media::access_unit::UnitInfo;
use std::path::Path;

#[derive(Debug)]
pub struct Reader {
    buf: Vec<u8>,
}
#[derive(Debug)]
pub enum Entry<'a> {
    /// `next` of one entry is `at` of the following one, except across a gap.
    Tag {
        at: Position,
        next: Position,
        info: UnitInfo,
        tag: &'a mut [u8],
    },
    Control {
        at: Position,
        next: Position,
        control: Control,
        wall_ms: i64,
    },
}
impl Reader {
    /// `buf` is the read buffer, 1 MiB after the first read; hand it back and forth with `into_buffer`.
    pub fn open(dir: &Path, from: Position, buf: Vec<u8>) -> Result<Self, JournalError> {
        todo!()
    }
    /// Never looks at or beyond `end`: for a journal that is being written set it to `Snapshot::end`, again before each stretch.
    pub fn set_limit(&mut self, end: Position) {
        todo!()
    }
    /// Position of the next entry.
    pub fn position(&self) -> Position {
        todo!()
    }
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, JournalError> {
        todo!()
    }
    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }
}
