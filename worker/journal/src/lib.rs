//! The stream journal: the durable log of one publish, which everything else is rendered from.
//!
//! A journal is a directory of segment files. Their payload is FLV tags exactly as they would stand in an FLV file, in
//! checksummed batches; between them stand control records: who published, what is missing and why, how it ended. An index
//! file for each closed segment outlives its bodies. The bytes are described in `docs/journal.md`.
//!
//! # Tour
//!
//! 1. [`Position`], [`Control`], [`Progress`]: the words. A place in the log; what it says beside media; how far it goes.
//! 2. [`mod@format`]: bytes of batch, segment and index, without any I/O.
//! 3. [`Batch`] and [`Writer`]: the append path. Tags gather in memory; a commit is one checksum and one write.
//! 4. `scan`: the whole batches of one file, read in large blocks, each verified once.
//! 5. [`Reader`]: the cursor. Whole tags in order, across segments, from any entry on.
//! 6. [`IndexReader`]: what is left of each tag when its body is gone.
//! 7. `rebuild` and [`recover`](mod@recover): what a killed process, a power loss or a bad disk left behind, made whole and named.
//! 8. [`retention`]: deleting what nobody needs.
//! 9. [`GroupSync`]: one sync of the file system for all journals. [`Slot`]: a state file that a torn write cannot spoil.
//! 10. [`inspect()`]: all of it, printed.
//!
//! # Invariants
//!
//! * What a commit returned for is never lost by a killed process, never doubled, never out of order.
//! * A batch never straddles segments, and no reader is given a tag of a batch that is not whole.
//! * What cannot be read is named: a [`Control::Gap`] with the positions it covers.
//! * A position never comes to mean something else.
//! * No bytes, in any file, make it panic or take memory beyond the bounds that [`Options`], [`Reader`] and [`mod@format`] state.
//! * It takes no clock but as an argument; only [`GroupSync`] has one of its own, monotonic.

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

use std::path::Path;

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
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
