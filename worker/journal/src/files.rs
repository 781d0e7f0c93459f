//! Names of a journal's files, and what a directory holds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::format::MAX_POSITION;

/// What the directory holds of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Present {
    pub(crate) bodies: bool,
    pub(crate) index: bool,
}

/// A journal directory's files.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// By first position.
    pub(crate) segments: BTreeMap<u64, Present>,
    /// Left over by an interrupted rewrite.
    pub(crate) temporary: Vec<PathBuf>,
}

pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

pub(crate) fn index_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.idx"))
}

/// Files of other names are none of the journal's and are passed over.
pub(crate) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".tmp") {
            listing.temporary.push(dir.join(name));
            continue;
        }
        let Some((stem, extension)) = name.split_once('.') else {
            continue;
        };
        if stem.len() != 20 || !stem.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Some(first) = stem.parse::<u64>().ok().filter(|&first| first <= MAX_POSITION) else {
            continue;
        };
        match extension {
            "seg" => listing.segments.entry(first).or_default().bodies = true,
            "idx" => listing.segments.entry(first).or_default().index = true,
            _ => {}
        }
    }
    Ok(listing)
}
