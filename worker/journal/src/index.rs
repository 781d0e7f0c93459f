use crate::{JournalError, Position};
use media::access_unit::UnitInfo;
use std::path::Path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    pub at: Position,
    pub next: Position,
    pub info: UnitInfo,
    pub tag_type: u8,
    pub body: Option<Vec<u8>>,
}
#[derive(Debug)]
pub struct IndexReader {}
impl IndexReader {
    pub fn open(dir: &Path, from: Position) -> Result<Self, JournalError> {
        todo!()
    }
    /// As for the reader; the open segment's entries come from its bodies.
    pub fn set_limit(&mut self, end: Position) {
        todo!()
    }
    pub fn next(&mut self) -> Result<Option<Indexed>, JournalError> {
        todo!()
    }
}
