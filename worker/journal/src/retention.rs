//! Deletes what nobody needs any more: bodies first, their index when the files that need it are finished, the journal last.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::files::{self, Listing};
use crate::{Position, index};

/// Suffix of a journal directory that is being removed.
const REMOVING: &str = "removing";

/// Deletes the bodies of the closed segments that end at or before `before`; returns the bytes freed.
///
/// Bodies go only if their index is whole, and it is made durable first: at any moment, power loss included, a tag is in
/// its body or in its index. The open segment has no index and stays. Where an index cannot be made durable the
/// bodies stay.
///
/// # Errors
///
/// As the operating system says; what was deleted before stays deleted.
pub fn drop_bodies_before(dir: &Path, before: Position) -> io::Result<u64> {
    let listing = files::list(dir)?;
    let mut freed = 0;
    let mut directory_is_durable = false;
    for (&first, present) in listing.segments.range(..before.0) {
        if !present.bodies || !present.index {
            continue;
        }
        let path = files::segment_path(dir, first);
        let len = fs::metadata(&path)?.len();
        let Some(index) = index::load(dir, first).map_err(into_io)? else {
            continue;
        };
        if index.head.totals.end > before || index.head.totals.end.0 != first.saturating_add(len) {
            continue;
        }
        File::open(files::index_path(dir, first))?.sync_all()?;
        if !directory_is_durable {
            File::open(dir)?.sync_all()?;
            directory_is_durable = true;
        }
        fs::remove_file(&path)?;
        freed += len;
    }
    Ok(freed)
}

/// Deletes the indexes, of segments whose bodies are gone, that end at or before `before`; returns the bytes freed.
///
/// The last index of a journal stays: it says who published, and how it ended.
///
/// # Errors
///
/// As the operating system says.
pub fn drop_index_before(dir: &Path, before: Position) -> io::Result<u64> {
    let Listing { segments, .. } = files::list(dir)?;
    let mut freed = 0;
    // A segment ends where the next one begins, or earlier.
    for ((&first, present), (&next, _)) in segments.iter().zip(segments.iter().skip(1)) {
        if next > before.0 || present.bodies {
            break;
        }
        let path = files::index_path(dir, first);
        let len = fs::metadata(&path)?.len();
        fs::remove_file(&path)?;
        freed += len;
    }
    Ok(freed)
}

/// Deletes a whole journal. Interrupted at any moment it leaves either the journal or something that
/// [`sweep`] removes, never half a journal.
///
/// # Errors
///
/// As the operating system says.
pub fn remove(dir: &Path) -> io::Result<()> {
    let mut doomed = dir.as_os_str().to_owned();
    doomed.push(".");
    doomed.push(REMOVING);
    fs::rename(dir, &doomed)?;
    fs::remove_dir_all(&doomed)
}

/// Finishes interrupted removals among the journals below `root`; returns how many there were.
///
/// # Errors
///
/// As the operating system says.
pub fn sweep(root: &Path) -> io::Result<u32> {
    let mut count = 0;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == REMOVING) {
            fs::remove_dir_all(&path)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Bytes of the journal's files.
///
/// # Errors
///
/// As the operating system says.
pub fn usage(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(meta) => sum += meta.len(),
            // Deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

fn into_io(error: crate::JournalError) -> io::Error {
    match error {
        crate::JournalError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
