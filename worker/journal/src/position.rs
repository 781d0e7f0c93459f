//! [`Position`], a place in one publish's log.

use core::fmt;

/// A byte offset in a publish's log, from 0; 64 bits never wrap.
///
/// Segment files are named by the position of their first byte, so a position names a file and an offset in it.
/// Positions are compared, stored and handed back; only those that an [`Entry`](crate::Entry), an
/// [`Indexed`](crate::Indexed) or a [`Snapshot`](crate::Snapshot) gave are valid places to start reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The beginning of every log.
    pub const START: Self = Self(0);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
