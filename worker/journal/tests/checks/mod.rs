//! What must hold for any bytes: called by the fuzz targets of the same names, and by `corpora.rs` for every input
//! that is kept.
#![allow(dead_code, unreachable_pub, reason = "each user takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a check fails by panicking")]

mod journal_recover;

pub use journal_recover::journal_recover;

/// Panics if what must hold does not.
pub type Check = fn(&[u8]);

/// Each target's name, which is also that of its corpus, and its check.
pub const ALL: &[(&str, Check)] = &[("journal_recover", journal_recover)];
