//! Retention.
use crate::Position;
use std::{io, path::Path};
/// Deletes the segments that end at or before `before` and whose index is whole; returns the bytes freed.
pub fn drop_bodies_before(dir: &Path, before: Position) -> io::Result<u64> {
    todo!()
}
pub fn drop_index_before(dir: &Path, before: Position) -> io::Result<u64> {
    todo!()
}
/// Deletes the whole journal.
pub fn remove(dir: &Path) -> io::Result<()> {
    todo!()
}
/// Bytes of the journal's files.
pub fn usage(dir: &Path) -> io::Result<u64> {
    todo!()
}
