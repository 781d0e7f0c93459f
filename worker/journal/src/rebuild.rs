//! Makes up a segment's index from its bodies, batch by batch, and finds what is damaged or torn on the way.

use std::path::Path;

use crate::files;
use crate::format::{self, BATCH_HEADER_LEN, BatchHeader, BatchKind, FileHead, IndexEntry};
use crate::index::{self, IndexBuilder, SegmentIndex};
use crate::scan::{BLOCK_LEN, Found, Scanner};
use crate::{JournalError, Position, Snapshot};

/// What a segment file turned out to hold.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    /// Its end is behind the last whole batch.
    pub(crate) index: SegmentIndex,
    /// Position behind the file's last byte.
    pub(crate) file_end: u64,
    /// Stretches that are no whole batches, with whole ones behind them.
    pub(crate) damaged: Vec<(u64, u64)>,
}

/// Reads the segment at `first` through, up to `limit`. `before` stands in for a damaged head: the head of an index or
/// segment in front of it.
pub(crate) fn segment(
    dir: &Path,
    first: u64,
    before: Option<&FileHead>,
    limit: Option<u64>,
) -> Result<Rebuilt, JournalError> {
    let path = files::segment_path(dir, first);
    let failed = |error| JournalError::io("read", &path)(error);
    let mut scanner = Scanner::open(&path, first, before.map(|head| head.salt), Vec::new())
        .map_err(JournalError::io("open", &path))?;
    let len = usize::try_from(scanner.file_end().map_err(failed)? - first).unwrap_or(usize::MAX);
    scanner.set_buffer(vec![0; len.clamp(4 << 10, BLOCK_LEN)]);
    let head = scanner.head().map_err(failed)?;
    let head_is_whole = head.is_some();
    let mut head = head.unwrap_or_else(|| made_up(first, before));
    if head_is_whole {
        scanner.set_salt(head.salt);
        scanner.seek(first + head.len() as u64);
    }
    let mut builder = IndexBuilder::default();
    let mut damaged = Vec::new();
    let mut at = if head_is_whole {
        first + head.len() as u64
    } else {
        first
    };
    loop {
        match scanner.find(limit).map_err(failed)? {
            Found::Batch(header) => {
                push(
                    &mut builder,
                    &mut head.totals,
                    first,
                    &header,
                    &scanner.batch(&header)[BATCH_HEADER_LEN..],
                );
                head.salt = header.salt;
                scanner.advance(&header);
                scanner.set_salt(header.salt);
                at += header.len() as u64;
            }
            Found::Damaged(next) => {
                damaged.push((at, next));
                scanner.seek(next);
                at = next;
            }
            Found::End | Found::Torn => break,
        }
    }
    head.totals.end = Position(at);
    let file_end = scanner.file_end().map_err(failed)?;
    let groups = builder.into_groups();
    Ok(Rebuilt {
        index: SegmentIndex { head, groups },
        file_end,
        damaged,
    })
}

fn made_up(first: u64, before: Option<&FileHead>) -> FileHead {
    let totals = before.map_or_else(Snapshot::default, |head| head.totals);
    FileHead {
        first,
        created_ms: totals.wall_ms,
        salt: before.map_or(0, |head| head.salt),
        totals,
        publish: before.map(|head| head.publish.clone()).unwrap_or_default(),
    }
}

fn push(builder: &mut IndexBuilder, totals: &mut Snapshot, first: u64, header: &BatchHeader, payload: &[u8]) {
    let mut entries: Vec<IndexEntry> = Vec::new();
    if header.kind == BatchKind::Media {
        let mut rest = payload;
        while let Some(entry) = format::read_entry(rest) {
            rest = &rest[entry.tag_len()..];
            entries.push(entry);
        }
    }
    let offset = u32::try_from(header.at - first).unwrap_or(u32::MAX);
    builder.push(offset, (header.kind, header.base_ms, header.wall_ms), &entries, payload);
    index::count(totals, Position(header.at), header.base_ms, header.wall_ms, &entries);
    totals.closed = header.kind == BatchKind::Control
        && matches!(serde_json::from_slice(payload), Ok(crate::Control::Unpublish { .. }));
}
