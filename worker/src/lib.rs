//! The worker role: takes streams, journals them, renders recordings, stores them.
//!
//! # Tour
//!
//! 1. [`ingest`]: sockets to journals, on a thread of its own.
//! 2. `pull`: streams that the worker fetches from origins, into the same journals.
//! 3. `stream`: one publish from lease to last commit: a pure core and its actor.
//! 4. `record`: recorders, cursors over a journal that render files on the render pool.
//! 5. [`upload`]: where finished bytes go.
//! 6. `budget`: how much disk journals may take while storage is away.
//! 7. `copy`: copies to the second place of objects.
//! 8. `control`: what is said to the coordinator.
//! 9. [`start`]: puts them together.
//!
//! # Invariants
//!
//! * Media never rides a mailbox: actors hear how far a journal goes, and recorders read it.
//! * Nothing downstream of the journal can slow ingest or lose what it wrote.
//! * A journal is removed only when the library has every file that was to be made of it.

mod budget;
mod compose;
mod control;
mod copy;
mod identity;
pub mod ingest;
mod places;
mod pull;
mod record;
#[cfg(feature = "sim")]
pub mod sim;
mod start;
mod stream;
pub mod upload;

pub use control::line::{Directives, Line};
pub use start::{Deps, Running, StartError, start};
