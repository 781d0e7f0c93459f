//! What remains of a tag when its body is gone: [`IndexReader`] gives it back, in order.
//!
//! The index of a closed segment is a file of its own, `<first position>.idx`; that of the open one is made up from its
//! bodies. It is groups, one for each batch: a group header, 16 bytes for each tag, then the bodies that a file's head is
//! made from: configurations and script data.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use media::access_unit::UnitInfo;

use crate::files;
use crate::format::{BATCH_HEADER_LEN, BatchKind, ENTRY_LEN, FileHead, GROUP_HEADER_LEN, Group, IndexEntry};
use crate::rebuild;
use crate::{Control, JournalError, Position, Snapshot};

/// Memory is taken in steps of this many bytes: doubling would waste half of it, a thousandfold.
const GROWTH_LEN: usize = 8 << 10;
/// An index file that is longer was not written by a writer, whose options end at half of this.
const MAX_FILE_LEN: u64 = 32 << 20;

/// Gathers the open segment's index.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    groups: Vec<u8>,
}

impl IndexBuilder {
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn groups(&self) -> &[u8] {
        &self.groups
    }

    pub(crate) fn into_groups(self) -> Vec<u8> {
        self.groups
    }

    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.groups.shrink_to(GROWTH_LEN);
    }

    /// Adds one batch: kind, base and wall clock, its tags' entries, and the payload they stand in.
    pub(crate) fn push(
        &mut self,
        offset: u32,
        (kind, base_ms, wall_ms): (BatchKind, i64, i64),
        entries: &[IndexEntry],
        payload: &[u8],
    ) {
        let inline_len: usize = entries
            .iter()
            .filter(|entry| entry.inline)
            .map(|entry| entry.body_len as usize)
            .sum();
        let json_len = if kind == BatchKind::Control { payload.len() } else { 0 };
        let len = GROUP_HEADER_LEN + entries.len() * ENTRY_LEN + inline_len + json_len;
        if self.groups.capacity() - self.groups.len() < len {
            self.groups.reserve_exact(len.next_multiple_of(GROWTH_LEN));
        }
        let group = Group {
            offset,
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            base_ms,
            wall_ms,
            units: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            kind,
        };
        self.groups.extend_from_slice(&group.encode());
        for entry in entries {
            self.groups.extend_from_slice(&entry.encode());
        }
        if kind == BatchKind::Control {
            self.groups.extend_from_slice(payload);
        }
        let mut tag = 0;
        for entry in entries {
            if entry.inline {
                let body = tag + media::flv::TAG_HEADER_LEN;
                self.groups
                    .extend_from_slice(&payload[body..body + entry.body_len as usize]);
            }
            tag += entry.tag_len();
        }
    }
}

/// Counts a batch's tags into the totals.
pub(crate) fn count(totals: &mut Snapshot, batch: Position, base_ms: i64, wall_ms: i64, entries: &[IndexEntry]) {
    let mut at = batch;
    let mut behind = batch.0 + BATCH_HEADER_LEN as u64;
    for entry in entries {
        totals.count(at, &entry.info(base_ms, wall_ms));
        behind += entry.tag_len() as u64;
        at = Position(behind);
    }
    totals.wall_ms = wall_ms;
}

/// Writes an index file at once; what cannot be finished is removed.
pub(crate) fn write(dir: &Path, head: &FileHead, groups: &[u8]) -> Result<(), JournalError> {
    let path = files::index_path(dir, head.first);
    fs::write(&path, head.encode_index(groups)).map_err(|error| {
        // Best effort: a torn index is recognised by its checksum.
        fs::remove_file(&path).ok();
        JournalError::io("write", &path)(error)
    })
}

/// One segment's index in memory.
#[derive(Debug)]
pub(crate) struct SegmentIndex {
    pub(crate) head: FileHead,
    pub(crate) groups: Vec<u8>,
}

/// Reads the index file of the segment at `first`. `None`: not there, torn, or damaged.
pub(crate) fn load(dir: &Path, first: u64) -> Result<Option<SegmentIndex>, JournalError> {
    let path = files::index_path(dir, first);
    let bytes = match read_bounded(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io("read", &path)(error)),
    };
    Ok(decode(bytes).filter(|index| index.head.first == first))
}

/// The file's bytes; `None` if it is longer than any index.
fn read_bounded(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    if len > MAX_FILE_LEN {
        return Ok(None);
    }
    bytes.reserve_exact(usize::try_from(len).unwrap_or(0));
    file.take(MAX_FILE_LEN).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A whole index file's bytes, checked through: whatever this lets pass can be walked without surprise.
pub(crate) fn decode(mut bytes: Vec<u8>) -> Option<SegmentIndex> {
    let (head, groups) = FileHead::decode_index(&bytes)?;
    let head_len = bytes.len() - groups.len();
    let mut walk = Walk::default();
    let mut behind = 0;
    while walk.at < groups.len() {
        let group = walk.next_group(groups)?;
        (u64::from(group.offset) >= behind).then_some(())?;
        behind = u64::from(group.offset) + BATCH_HEADER_LEN as u64 + u64::from(group.payload_len);
        let mut tags_len = 0;
        while let Some((entry, _)) = walk.next_entry(groups) {
            tags_len += entry.tag_len();
        }
        (walk.left == 0 && (group.kind != BatchKind::Media || tags_len == group.payload_len as usize)).then_some(())?;
        walk.finish_group();
    }
    (head.first.checked_add(behind)? <= head.totals.end.0).then_some(())?;
    bytes.drain(..head_len);
    Some(SegmentIndex { head, groups: bytes })
}

/// A place in a segment's groups.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Offset of the next group or entry.
    at: usize,
    /// Offset of the next inline body of the group.
    inline_at: usize,
    /// Entries of the group still to come.
    left: u32,
}

impl Walk {
    /// The next group's header; its entries, or its JSON, come next.
    pub(crate) fn next_group(&mut self, groups: &[u8]) -> Option<Group> {
        let group = Group::decode(groups.get(self.at..)?)?;
        self.at += GROUP_HEADER_LEN;
        self.left = group.units;
        self.inline_at = self.at.checked_add((group.units as usize).checked_mul(ENTRY_LEN)?)?;
        if group.kind == BatchKind::Control {
            (group.units == 0).then_some(())?;
            self.inline_at = self.inline_at.checked_add(group.payload_len as usize)?;
        }
        (self.inline_at <= groups.len()).then_some(group)
    }

    /// The JSON of a control group.
    pub(crate) fn json<'a>(&self, groups: &'a [u8]) -> &'a [u8] {
        groups.get(self.at..self.inline_at).unwrap_or_default()
    }

    /// The group's next entry, with its body if the index keeps it. `None`: no more (`left` is 0), or malformed.
    pub(crate) fn next_entry<'a>(&mut self, groups: &'a [u8]) -> Option<(IndexEntry, Option<&'a [u8]>)> {
        if self.left == 0 {
            return None;
        }
        let entry = IndexEntry::decode(groups.get(self.at..)?)?;
        let body = if entry.inline {
            let body = groups.get(self.inline_at..self.inline_at.checked_add(entry.body_len as usize)?)?;
            self.inline_at += body.len();
            Some(body)
        } else {
            None
        };
        self.at += ENTRY_LEN;
        self.left -= 1;
        Some((entry, body))
    }

    pub(crate) fn is_done(&self, groups: &[u8]) -> bool {
        self.at >= groups.len()
    }

    /// Goes behind the group, whose entries have all been taken.
    pub(crate) fn finish_group(&mut self) {
        self.at = self.inline_at;
    }
}

/// The last record of a journal, if it is the terminal one.
pub(crate) fn terminal(index: &SegmentIndex) -> Option<Control> {
    let mut walk = Walk::default();
    let mut last = None;
    while let Some(group) = walk.next_group(&index.groups) {
        last = None;
        if group.kind == BatchKind::Control {
            last = serde_json::from_slice(walk.json(&index.groups)).ok();
        }
        while walk.next_entry(&index.groups).is_some() {}
        walk.finish_group();
        if walk.is_done(&index.groups) {
            break;
        }
    }
    last.filter(|control| matches!(control, Control::Unpublish { .. }))
}

/// Audio and video units of the batches that begin in `from..to`; `None` if the index ends before `to`.
pub(crate) fn units_between(index: &SegmentIndex, from: u64, to: u64) -> Option<u64> {
    if index.head.totals.end.0 < to {
        return None;
    }
    let mut walk = Walk::default();
    let mut units = 0;
    while let Some(group) = walk.next_group(&index.groups) {
        let batch = index.head.first + u64::from(group.offset);
        let mut at = batch + BATCH_HEADER_LEN as u64;
        while let Some((entry, _)) = walk.next_entry(&index.groups) {
            let inside = (from..to).contains(&at);
            units += u64::from(inside && crate::progress::is_unit(&entry.info(0, 0)));
            at += entry.tag_len() as u64;
        }
        walk.finish_group();
        if batch >= to || walk.is_done(&index.groups) {
            break;
        }
    }
    Some(units)
}

/// What the index keeps of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Where the tag is, or was: the same position as the reader's [`Entry`](crate::Entry).
    pub at: Position,
    /// Where the entry behind it is looked for.
    pub next: Position,
    /// What it is.
    pub info: UnitInfo,
    /// FLV tag type.
    pub tag_type: u8,
    /// The body, for configurations and script data of up to 64 KiB.
    pub body: Option<Vec<u8>>,
}

/// All tags of a journal in order, without most of their bodies. Control records are passed over.
///
/// It holds one segment's index in memory: [`Options::segment_index_bytes`](crate::Options) and a little.
#[derive(Debug)]
pub struct IndexReader {
    dir: PathBuf,
    at: u64,
    limit: Option<u64>,
    open: Option<OpenIndex>,
}

#[derive(Debug)]
struct OpenIndex {
    index: SegmentIndex,
    walk: Walk,
    group: Option<Group>,
    /// Position of the next entry.
    at: u64,
}

impl IndexReader {
    /// Begins at `from`: a position that an entry, a snapshot or 0 gave.
    ///
    /// # Errors
    ///
    /// [`JournalError::Purged`] if the index of that stretch was deleted; [`JournalError::Empty`]; [`JournalError::Io`].
    pub fn open(dir: &Path, from: Position) -> Result<Self, JournalError> {
        let listing = files::list(dir).map_err(JournalError::io("list", dir))?;
        let Some((&oldest, _)) = listing.segments.first_key_value() else {
            return Err(JournalError::Empty { dir: dir.to_path_buf() });
        };
        if from.0 < oldest {
            return Err(JournalError::Purged {
                wanted: from,
                first: Some(Position(oldest)),
            });
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            at: from.0,
            limit: None,
            open: None,
        })
    }

    /// From now on gives no entry at or beyond `end`: for a journal that is being written, its
    /// [`Snapshot::end`](crate::Snapshot).
    pub fn set_limit(&mut self, end: Position) {
        self.limit = Some(end.0);
    }

    /// Where the next entry is looked for.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.at)
    }

    /// The next tag; `None`: the end of what is there now.
    ///
    /// # Errors
    ///
    /// [`JournalError::IndexLost`] if a segment's index is damaged and its bodies are gone; [`JournalError::Io`].
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would have to end after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Indexed>, JournalError> {
        loop {
            if self.limit.is_some_and(|limit| self.at >= limit) {
                return Ok(None);
            }
            if self.open.is_none() && !self.open_segment()? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else { continue };
            while let Some(indexed) = open.next_tag() {
                if indexed.at.0 >= self.at {
                    if self.limit.is_some_and(|limit| indexed.at.0 >= limit) {
                        self.open = None;
                        return Ok(None);
                    }
                    self.at = indexed.next.0;
                    return Ok(Some(indexed));
                }
            }
            // Behind the segment; if it is the open one, more may come: it is then looked at again from here.
            self.at = self.at.max(open.index.head.totals.end.0);
            self.open = None;
            if !self.has_more()? {
                return Ok(None);
            }
        }
    }

    /// True if a segment reaches, or begins, beyond the present position.
    fn has_more(&self) -> Result<bool, JournalError> {
        let listing = files::list(&self.dir).map_err(JournalError::io("list", &self.dir))?;
        Ok(listing.segments.range(self.at..).next().is_some())
    }

    /// Loads the index of the segment in which the present position lies.
    fn open_segment(&mut self) -> Result<bool, JournalError> {
        let listing = files::list(&self.dir).map_err(JournalError::io("list", &self.dir))?;
        let Some((&first, present)) = listing.segments.range(..=self.at).next_back() else {
            return match listing.segments.first_key_value() {
                Some((&first, _)) => Err(JournalError::Purged {
                    wanted: Position(self.at),
                    first: Some(Position(first)),
                }),
                None => Err(JournalError::Empty { dir: self.dir.clone() }),
            };
        };
        let index = segment_index(&self.dir, first, present.bodies, self.limit)?;
        if index.head.totals.end.0 <= self.at {
            let Some((&next, _)) = listing.segments.range(first + 1..).next() else {
                return Ok(false);
            };
            self.at = next;
            return self.open_segment();
        }
        let at = index.head.first;
        self.open = Some(OpenIndex {
            index,
            walk: Walk::default(),
            group: None,
            at,
        });
        Ok(true)
    }
}

/// A segment's index, from its file if that agrees with the bodies, else from the bodies.
pub(crate) fn segment_index(
    dir: &Path,
    first: u64,
    bodies: bool,
    limit: Option<u64>,
) -> Result<SegmentIndex, JournalError> {
    let on_disk = load(dir, first)?;
    if !bodies {
        return on_disk.ok_or(JournalError::IndexLost { first: Position(first) });
    }
    if let Some(index) = on_disk {
        let path = files::segment_path(dir, first);
        match fs::metadata(&path) {
            // Longer bodies: the index is that of a roll that failed. Shorter ones are lost, and the index knows them.
            Ok(meta) if first.saturating_add(meta.len()) > index.head.totals.end.0 => {}
            Ok(_) => return Ok(index),
            // Retention deleted the bodies meanwhile: it does so only where the index is whole.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(index),
            Err(error) => return Err(JournalError::io("look at", &path)(error)),
        }
    }
    Ok(rebuild::segment(dir, first, None, limit)?.index)
}

impl OpenIndex {
    fn next_tag(&mut self) -> Option<Indexed> {
        loop {
            if let Some(group) = self.group {
                if let Some((entry, body)) = self.walk.next_entry(&self.index.groups) {
                    let at = self.at;
                    let batch = self.index.head.first + u64::from(group.offset);
                    let tag = if at == batch { at + BATCH_HEADER_LEN as u64 } else { at };
                    self.at = tag + entry.tag_len() as u64;
                    return Some(Indexed {
                        at: Position(at),
                        next: Position(self.at),
                        info: entry.info(group.base_ms, group.wall_ms),
                        tag_type: entry.tag_type,
                        body: body.map(<[u8]>::to_vec),
                    });
                }
                self.walk.finish_group();
                self.group = None;
            }
            let group = self.walk.next_group(&self.index.groups)?;
            self.at = self.index.head.first + u64::from(group.offset);
            self.group = Some(group);
        }
    }
}
