//! Journals of recordings that another owner has by now, or that ended without their worker: nothing is made of them any
//! more, and they may hold what nobody else has. They are kept under `DATA/fenced`, where `aircheck inspect` prints them,
//! until somebody deletes them.

use std::io;
use std::path::{Path, PathBuf};

use crate::control::agent::Verdict;

/// Name of the folder in the data directory.
const FOLDER: &str = "fenced";
/// Says, in a journal that was put aside, why.
const REASON: &str = "fenced.txt";

/// Why a commit is not to be made again; none where it was made.
pub(super) fn reason(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Done => None,
        Verdict::Unknown => Some("the library does not know the recording".to_owned()),
        Verdict::Lost(reason) => Some(reason),
    }
}

/// Moves a journal's directory from `DATA/journal` to `DATA/fenced`, with the reason in it. Gives where it is then.
pub(super) fn put_aside(journal: &Path, reason: &str) -> io::Result<PathBuf> {
    let none = || io::Error::other("the journal is not in a data directory");
    let data = journal.parent().and_then(Path::parent).ok_or_else(none)?;
    let folder = data.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(journal.join(REASON), format!("{reason}\n"))?;
    let kept = folder.join(journal.file_name().ok_or_else(none)?);
    std::fs::rename(journal, &kept)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_moved_with_the_reason_in_it() {
        let data = tempfile::tempdir().unwrap();
        let journal = data.path().join("journal/0198-1");
        std::fs::create_dir_all(&journal).unwrap();
        std::fs::write(journal.join("segment"), "media").unwrap();
        let kept = put_aside(&journal, "fenced: holds epoch 1").unwrap();
        assert_eq!(kept, data.path().join("fenced/0198-1"));
        assert!(!journal.exists());
        assert_eq!(std::fs::read_to_string(kept.join("segment")).unwrap(), "media");
        assert_eq!(
            std::fs::read_to_string(kept.join("fenced.txt")).unwrap(),
            "fenced: holds epoch 1\n"
        );
    }
}
