//! Recovery.
use crate::{Control, JournalError, Position, Publish, Snapshot};
use std::path::Path;
#[derive(Debug, Clone)]
pub struct Recovered {
    pub publish: Publish,
    pub end: Position,
    pub torn_bytes: u64,
    pub closed: Option<Control>,
    pub snapshot: Snapshot,
    pub damaged: Vec<(Position, Position)>,
}
pub fn recover(dir: &Path) -> Result<Recovered, JournalError> {
    todo!()
}
