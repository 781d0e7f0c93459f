//! The stream journal (API under construction).
#![allow(
    clippy::todo,
    unused_variables,
    missing_docs,
    missing_debug_implementations,
    dead_code
)]

mod batch;
mod control;
mod error;
mod files;
pub mod format;
mod index;
mod inspect;
mod position;
mod progress;
mod reader;
mod rebuild;
pub mod recover;
pub mod retention;
mod scan;
mod slot;
mod sync;
mod writer;

pub use batch::{Abandoned, Batch};
pub use control::{Control, Publish};
pub use error::JournalError;
pub use index::{IndexReader, Indexed};
pub use inspect::{Style, inspect};
pub use position::Position;
pub use progress::{Progress, Snapshot};
pub use reader::{Entry, Reader};
pub use slot::Slot;
pub use sync::{GroupSync, Outcome, SyncStats};
pub use writer::{Options, Writer};

/// Bytes that an ordinary user may still write to the file system of `dir`.
///
/// # Errors
///
/// As `statvfs(2)`.
pub fn free_bytes(dir: &std::path::Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
