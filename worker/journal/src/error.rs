//! [`JournalError`]: what can go wrong, by cause.

use std::io;
use std::path::{Path, PathBuf};

use crate::Position;

/// Why a journal could not be written, read or recovered.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused. [`JournalError::is_full`] tells a full disk from the rest.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The position's bodies, or its index, were deleted by retention.
    #[error("position {wanted} is purged; first still there: {first:?}")]
    Purged {
        /// What was asked for.
        wanted: Position,
        /// The first position that can still be read, if any.
        first: Option<Position>,
    },
    /// The position is inside a tag or a batch header, so nobody handed it out.
    #[error("position {at} is not the beginning of a tag or batch")]
    NotABoundary {
        /// What was asked for.
        at: Position,
    },
    /// The directory holds no segment whose header is whole: nothing was ever acknowledged in it.
    #[error("no journal in {}", dir.display())]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// The journal has its terminal record: nothing comes behind it.
    #[error("journal in {} is closed", dir.display())]
    Closed {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is of another kind or a later version.
    #[error("{} is not {expected}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value is longer than its bound.
    #[error("{what} of {len} bytes is longer than {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// Index and bodies of a stretch are both gone or damaged.
    #[error("index of segment {first} is damaged and its bodies are gone")]
    IndexLost {
        /// First position of the segment.
        first: Position,
    },
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The operating system's kind of error, if it was the cause.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    /// The operating system's error number, if it gave one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// True if the disk, the quota or the largest file size is used up: waiting or deleting may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.kind(),
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
        )
    }
}
