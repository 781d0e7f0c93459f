//! Makes a journal whole again after its writer died at any moment.
//!
//! Every segment whose index is missing, torn or at odds with its bodies is read through: what is behind its last whole
//! batch is cut off, damage in front of that is left where it is (the reader names it), and its index is written. A second
//! recovery finds nothing to do.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use crate::files::{self, Present};
use crate::format::FileHead;
use crate::index::{self, SegmentIndex};
use crate::rebuild;
use crate::{Control, JournalError, Position, Publish, Snapshot};

/// What a journal holds after recovery. Every segment is closed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Who published.
    pub publish: Publish,
    /// Behind the last whole batch.
    pub end: Position,
    /// Bytes that were cut off because they were no whole batch.
    pub torn_bytes: u64,
    /// The terminal record, if the journal was closed.
    pub closed: Option<Control>,
    /// Totals, as the writer last told them.
    pub snapshot: Snapshot,
    /// Stretches that cannot be read although whole batches follow, from and to: damaged in place, or torn where a later
    /// segment goes on. Only segments that had to be read through are checked for damage in place.
    pub damaged: Vec<(Position, Position)>,
    /// First positions of segments whose index is damaged and whose bodies are gone.
    pub lost_indexes: Vec<Position>,
    /// Indexes that were written anew.
    pub rebuilt_indexes: u32,
    /// Indexes that the disk had no room for. Their segments stay readable; their bodies are not deleted by retention.
    pub unwritten_indexes: u32,
    pub(crate) salt: u32,
}

impl Recovered {
    /// The record that names a torn tail, if there was one: to be written before the terminal record.
    #[must_use]
    pub fn torn_tail(&self) -> Option<Control> {
        (self.torn_bytes > 0).then(|| Control::Gap {
            reason: "torn tail".to_owned(),
            from_ms: self.snapshot.end_dts_ms,
            to_ms: None,
            lost_bytes: self.torn_bytes,
            lost_units: None,
        })
    }
}

/// Recovers the journal in `dir`, which nobody else may be writing.
///
/// A journal without a terminal record ([`Recovered::closed`] is `None`) is the caller's to end, with
/// [`Writer::reopen`](crate::Writer::reopen).
///
/// # Errors
///
/// [`JournalError::Empty`] if no segment has a batch or a whole head: nothing was acknowledged, the directory may be
/// removed. [`JournalError::Io`].
pub fn recover(dir: &Path) -> Result<Recovered, JournalError> {
    let listing = files::list(dir).map_err(JournalError::io("list", dir))?;
    for path in &listing.temporary {
        fs::remove_file(path).map_err(JournalError::io("remove", path))?;
    }
    let mut state = State {
        dir,
        torn_bytes: 0,
        damaged: Vec::new(),
        lost_indexes: Vec::new(),
        rebuilt_indexes: 0,
        unwritten_indexes: 0,
    };
    let known = any_head(dir, &listing.segments)?;
    let mut last: Option<SegmentIndex> = None;
    // Segments that have no byte left. In front of others they stay, so that a reader finds that something is missing.
    let mut empty = Vec::new();
    let mut hole_from = None;
    for (&first, &present) in &listing.segments {
        let before = last.as_ref().map(|index| &index.head).or(known.as_ref());
        let Some(index) = state.segment(first, present, before)? else {
            continue;
        };
        hole_from = hole_from.or(Some(first));
        if index.head.totals.end.0 == first {
            empty.push(first);
            continue;
        }
        empty.clear();
        if let Some(from) = hole_from.filter(|&from| from < first) {
            state.damaged.push((Position(from), Position(first)));
        }
        hole_from = Some(index.head.totals.end.0);
        last = Some(index);
    }
    for first in empty {
        for path in [files::segment_path(dir, first), files::index_path(dir, first)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(JournalError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    let Some(last) = last else {
        return Err(JournalError::Empty { dir: dir.to_path_buf() });
    };
    let closed = index::terminal(&last);
    let snapshot = Snapshot {
        closed: closed.is_some(),
        ..last.head.totals
    };
    Ok(Recovered {
        publish: last.head.publish().unwrap_or_default(),
        end: snapshot.end,
        torn_bytes: state.torn_bytes,
        closed,
        snapshot,
        damaged: state.damaged,
        lost_indexes: state.lost_indexes,
        rebuilt_indexes: state.rebuilt_indexes,
        unwritten_indexes: state.unwritten_indexes,
        salt: last.head.salt,
    })
}

/// The first whole head of any segment or index: who publishes, and the salt.
fn any_head(dir: &Path, segments: &BTreeMap<u64, Present>) -> Result<Option<FileHead>, JournalError> {
    for (&first, present) in segments {
        if present.bodies {
            let path = files::segment_path(dir, first);
            let scanner = crate::scan::Scanner::open(&path, first, None, Vec::new());
            let head = scanner
                .and_then(|scanner| scanner.head())
                .map_err(JournalError::io("read", &path))?;
            if let Some(head) = head {
                let totals = Snapshot::default();
                return Ok(Some(FileHead { totals, ..head }));
            }
        }
        if present.index
            && let Some(index) = index::load(dir, first)?
        {
            return Ok(Some(FileHead {
                totals: Snapshot::default(),
                ..index.head
            }));
        }
    }
    Ok(None)
}

struct State<'a> {
    dir: &'a Path,
    torn_bytes: u64,
    damaged: Vec<(Position, Position)>,
    lost_indexes: Vec<Position>,
    rebuilt_indexes: u32,
    unwritten_indexes: u32,
}

impl State<'_> {
    /// The segment's index, made whole; `None` if it is lost with its bodies.
    fn segment(
        &mut self,
        first: u64,
        present: Present,
        before: Option<&FileHead>,
    ) -> Result<Option<SegmentIndex>, JournalError> {
        let path = files::segment_path(self.dir, first);
        let mut on_disk = index::load(self.dir, first)?;
        if !present.bodies {
            if on_disk.is_none() {
                self.lost_indexes.push(Position(first));
            }
            return Ok(on_disk);
        }
        let len = fs::metadata(&path).map_err(JournalError::io("look at", &path))?.len();
        let file_end = first.saturating_add(len);
        let written_end = on_disk.as_ref().map(|index| index.head.totals.end.0);
        if let Some(index) = on_disk.take_if(|_| written_end == Some(file_end)) {
            return Ok(Some(index));
        }
        let rebuilt = rebuild::segment(self.dir, first, before, None)?;
        if let Some(index) = on_disk.take_if(|_| written_end > Some(file_end)) {
            // The index became durable and some bodies did not: it alone says what is missing.
            let end = rebuilt.index.head.totals.end.0;
            self.cut(&path, first, &rebuilt)?;
            self.damaged.push((Position(end), index.head.totals.end));
            return Ok(Some(index));
        }
        self.cut(&path, first, &rebuilt)?;
        match index::write(self.dir, &rebuilt.index.head, &rebuilt.index.groups) {
            Ok(()) => self.rebuilt_indexes += 1,
            // The bodies are all there: readers make do with them, and so does a later recovery.
            Err(error) if error.is_full() => self.unwritten_indexes += 1,
            Err(error) => return Err(error),
        }
        Ok(Some(rebuilt.index))
    }

    /// Cuts off what is behind the last whole batch, and notes what was found.
    fn cut(&mut self, path: &Path, first: u64, rebuilt: &rebuild::Rebuilt) -> Result<(), JournalError> {
        let end = rebuilt.index.head.totals.end.0;
        if rebuilt.file_end > end {
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(JournalError::io("open", path))?;
            file.set_len(end - first).map_err(JournalError::io("truncate", path))?;
            self.torn_bytes += rebuilt.file_end - end;
        }
        self.damaged
            .extend(rebuilt.damaged.iter().map(|&(from, to)| (Position(from), Position(to))));
        Ok(())
    }
}
