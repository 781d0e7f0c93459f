use crate::JournalError;
use std::path::Path;
/// A small state file of two slots written in turn; payload at most 64 KiB.
#[derive(Debug)]
pub struct Slot {}
impl Slot {
    /// Opens or creates.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        todo!()
    }
    pub fn write(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        todo!()
    }
    /// The last whole payload, `None` if none was ever written.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        todo!()
    }
}
