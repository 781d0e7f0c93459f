//! [`Reader`], the cursor: whole tags in order, in the reader's own buffer.

use std::io;
use std::path::{Path, PathBuf};

use media::access_unit::UnitInfo;

use crate::files;
use crate::format::{self, BATCH_HEADER_LEN, BatchHeader, BatchKind};
use crate::index;
use crate::scan::{Found, Scanner};
use crate::{Control, JournalError, Position};

/// What stands in the log.
#[derive(Debug)]
pub enum Entry<'a> {
    /// An FLV tag.
    Tag {
        /// Where it is: a position to begin reading at.
        at: Position,
        /// Where the entry behind it is looked for.
        next: Position,
        /// What it is.
        info: UnitInfo,
        /// The whole tag, back pointer included. It is the reader's buffer: changing it (the timestamp, say) changes nothing else.
        tag: &'a mut [u8],
    },
    /// Anything else. A [`Control::Gap`] with reason `damaged` or `missing` is not in the log: it says that `at..next` cannot be read.
    Control {
        /// Where it is.
        at: Position,
        /// Where the entry behind it is looked for.
        next: Position,
        /// What it says.
        control: Control,
        /// Wall clock when it was written, milliseconds since the Unix epoch; for a gap made up, that of the batch before.
        wall_ms: i64,
    },
}

/// Reads a journal from any entry on, across segments.
///
/// It reads 1 MiB at a time, verifies each batch once, and holds a longer batch (one tag of up to 16 MiB) only while
/// it is at it. A reader of a journal that is being written must be told how far it may go
/// ([`Reader::set_limit`]): what is beyond may still be taken back by a writer that finds the disk full.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    limit: Option<u64>,
    /// The open segment; none before the first read and at the end of a journal whose bodies are gone.
    scanner: Option<Scanner>,
    spare: Vec<u8>,
    salt: Option<u32>,
    /// Position of the next entry.
    at: u64,
    batch: Option<OpenBatch>,
    /// The first entry, which is in the segment's head, is still to come.
    publish: Option<(Control, i64)>,
    wall_ms: i64,
}

/// The batch whose entries are being handed out.
#[derive(Debug, Clone, Copy)]
struct OpenBatch {
    header: BatchHeader,
    /// Bytes of header and payload that are behind the next entry; below the header's length: none yet.
    offset: usize,
}

/// What to hand out.
enum Step {
    Tag {
        at: u64,
        info: UnitInfo,
        offset: usize,
        len: usize,
        header: BatchHeader,
    },
    Control {
        at: u64,
        control: Control,
        wall_ms: i64,
    },
    Again,
    End,
}

impl Reader {
    /// Begins at `from`: 0, or a position that an entry or a snapshot gave. `buf` becomes the read buffer: its length is what is
    /// read at once, an empty one is replaced by one of 1 MiB. [`Reader::into_buffer`] gives it back.
    ///
    /// # Errors
    ///
    /// [`JournalError::Purged`] if the bodies of that stretch were deleted; [`JournalError::NotABoundary`];
    /// [`JournalError::Empty`]; [`JournalError::Io`].
    pub fn open(dir: &Path, from: Position, buf: Vec<u8>) -> Result<Self, JournalError> {
        let mut reader = Self {
            dir: dir.to_path_buf(),
            limit: None,
            scanner: None,
            spare: buf,
            salt: None,
            at: from.0,
            batch: None,
            publish: None,
            wall_ms: 0,
        };
        let listing = files::list(dir).map_err(JournalError::io("list", dir))?;
        let bodies = |(&first, present): (&u64, &files::Present)| present.bodies.then_some(first);
        if let Some(first) = listing.segments.range(..=from.0).rev().find_map(bodies) {
            reader.open_segment(first)?;
            reader.find_batch(first)?;
            return Ok(reader);
        }
        let oldest = listing.segments.iter().find_map(bodies);
        let Some((&last, _)) = listing.segments.last_key_value() else {
            return Err(JournalError::Empty { dir: dir.to_path_buf() });
        };
        let at_end = oldest.is_none() && index::load(dir, last)?.is_some_and(|index| from == index.head.totals.end);
        if at_end {
            Ok(reader)
        } else {
            Err(JournalError::Purged {
                wanted: from,
                first: oldest.map(Position),
            })
        }
    }

    /// From now on looks at nothing at or beyond `end`: for a journal that is being written, its
    /// [`Snapshot::end`](crate::Snapshot).
    pub fn set_limit(&mut self, end: Position) {
        self.limit = Some(end.0);
    }

    /// Where the next entry is looked for.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.at)
    }

    /// Takes the buffer away for use elsewhere; the reader keeps its place and its file. It makes do with another buffer,
    /// given by [`Reader::set_buffer`], or a new one.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        // Without its bytes the batch must be read, and verified, again.
        if let Some(batch) = self.batch.take()
            && let Some(scanner) = &mut self.scanner
        {
            if batch.offset >= batch.header.len() {
                scanner.seek(batch.header.at + batch.header.len() as u64);
            } else {
                scanner.seek(batch.header.at);
            }
        }
        match &mut self.scanner {
            Some(scanner) => scanner.take_buffer(),
            None => core::mem::take(&mut self.spare),
        }
    }

    /// Gives the reader a buffer to read into.
    pub fn set_buffer(&mut self, buf: Vec<u8>) {
        self.take_buffer();
        match &mut self.scanner {
            Some(scanner) => scanner.set_buffer(buf),
            None => self.spare = buf,
        }
    }

    /// Gives the buffer back.
    #[must_use]
    pub fn into_buffer(mut self) -> Vec<u8> {
        self.take_buffer()
    }

    /// The next entry; `None`: the end of what is there now, ask again when there is more.
    ///
    /// # Errors
    ///
    /// [`JournalError::Purged`] if retention deleted what comes next; [`JournalError::Io`]. The reader keeps its place.
    #[expect(clippy::should_implement_trait, reason = "an entry borrows the reader's buffer")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, JournalError> {
        let step = loop {
            match self.step()? {
                Step::Again => {}
                step => break step,
            }
        };
        match step {
            Step::Tag {
                at,
                info,
                offset,
                len,
                header,
            } => {
                let Some(scanner) = &mut self.scanner else {
                    return Ok(None);
                };
                let tag = &mut scanner.batch(&header)[offset..offset + len];
                Ok(Some(Entry::Tag {
                    at: Position(at),
                    next: Position(self.at),
                    info,
                    tag,
                }))
            }
            Step::Control { at, control, wall_ms } => Ok(Some(Entry::Control {
                at: Position(at),
                next: Position(self.at),
                control,
                wall_ms,
            })),
            Step::Again | Step::End => Ok(None),
        }
    }

    fn step(&mut self) -> Result<Step, JournalError> {
        if self.limit.is_some_and(|limit| self.at >= limit) {
            return Ok(Step::End);
        }
        if let Some((control, wall_ms)) = self.publish.take() {
            let at = self.at;
            self.at = self.scanner.as_ref().map_or(at, Scanner::position);
            return Ok(Step::Control { at, control, wall_ms });
        }
        let Some(scanner) = &mut self.scanner else {
            return Ok(Step::End);
        };
        if let Some(batch) = self.batch {
            if batch.offset < batch.header.len() {
                return Ok(self.entry(batch));
            }
            scanner.advance(&batch.header);
            self.batch = None;
            return Ok(Step::Again);
        }
        let place = scanner.position();
        let found = match scanner.find(self.limit) {
            Ok(found) => found,
            Err(error) => return Err(self.failed("read")(error)),
        };
        match found {
            Found::Batch(header) => self.enter(header),
            // The head was being written when the segment was opened.
            Found::Damaged(_) if place == scanner.first() && self.take_head()?.is_some() => Ok(Step::Again),
            Found::Damaged(next) => {
                let Some(scanner) = &mut self.scanner else {
                    return Ok(Step::End);
                };
                scanner.seek(next);
                // A damaged length may have led past the batch that is looked for.
                if next <= self.at {
                    return Ok(Step::Again);
                }
                Ok(self.gap("damaged", place, next))
            }
            Found::End | Found::Torn => self.next_segment(place),
        }
    }

    /// Begins to hand out a batch; where reading begins inside it, what is in front is passed over.
    fn enter(&mut self, header: BatchHeader) -> Result<Step, JournalError> {
        self.wall_ms = header.wall_ms;
        if self.at >= header.at + header.len() as u64 {
            self.batch = Some(OpenBatch {
                header,
                offset: header.len(),
            });
            return Ok(Step::Again);
        }
        let mut offset = 0;
        if self.at > header.at {
            let Some(scanner) = &mut self.scanner else {
                return Ok(Step::End);
            };
            let bytes = scanner.batch(&header);
            let wanted = usize::try_from(self.at - header.at).unwrap_or(usize::MAX);
            offset = BATCH_HEADER_LEN;
            while offset < wanted {
                let tag = bytes
                    .get(offset..)
                    .and_then(|rest| media::flv::read_tag(rest).ok().flatten());
                offset += tag.map_or(usize::MAX - offset, |tag| tag.len);
            }
            if offset != wanted || header.kind != BatchKind::Media {
                return Err(JournalError::NotABoundary { at: Position(self.at) });
            }
        } else {
            self.at = header.at;
        }
        self.batch = Some(OpenBatch { header, offset });
        Ok(Step::Again)
    }

    /// The next entry of the open batch.
    fn entry(&mut self, batch: OpenBatch) -> Step {
        let OpenBatch { header, offset } = batch;
        let Some(scanner) = &mut self.scanner else {
            return Step::End;
        };
        let bytes = scanner.batch(&header);
        let at = self.at;
        let behind = |len: usize| OpenBatch { header, offset: len };
        if header.kind == BatchKind::Media {
            let offset = offset.max(BATCH_HEADER_LEN);
            // A verified batch has nothing but whole tags; if not, what is left of it is passed over.
            let entry = bytes.get(offset..).and_then(format::read_entry);
            let Some(entry) = entry else {
                self.batch = Some(behind(header.len()));
                self.at = header.at + header.len() as u64;
                return Step::Again;
            };
            let len = entry.tag_len();
            self.batch = Some(behind(offset + len));
            self.at = header.at + (offset + len) as u64;
            let info = entry.info(header.base_ms, header.wall_ms);
            return Step::Tag {
                at,
                info,
                offset,
                len,
                header,
            };
        }
        let json = bytes.get(BATCH_HEADER_LEN..).unwrap_or_default();
        let control = match header.kind {
            BatchKind::Control => serde_json::from_slice(json).unwrap_or(Control::Unknown),
            _ => Control::Unknown,
        };
        self.batch = Some(behind(header.len()));
        self.at = header.at + header.len() as u64;
        Step::Control {
            at,
            control,
            wall_ms: header.wall_ms,
        }
    }

    /// A gap that the log does not name itself, from the next entry's place to `to`; `place` is where it was found.
    fn gap(&mut self, reason: &str, place: u64, to: u64) -> Step {
        let at = self.at.max(place);
        self.at = to;
        let control = Control::Gap {
            reason: reason.to_owned(),
            from_ms: None,
            to_ms: None,
            lost_bytes: to.saturating_sub(at),
            lost_units: self.lost_units(at, to),
        };
        Step::Control {
            at,
            control,
            wall_ms: self.wall_ms,
        }
    }

    /// How many units the index knows of in a stretch that cannot be read.
    fn lost_units(&self, from: u64, to: u64) -> Option<u64> {
        let first = self.scanner.as_ref()?.first();
        let index = index::load(&self.dir, first).ok()??;
        index::units_between(&index, from, to)
    }

    /// At `place` the segment has no more whole batches: goes on in the next one, if there is one.
    fn next_segment(&mut self, place: u64) -> Result<Step, JournalError> {
        let listing = files::list(&self.dir).map_err(self.failed("list"))?;
        let Some(scanner) = &mut self.scanner else {
            return Ok(Step::End);
        };
        let first = scanner.first();
        let next = listing
            .segments
            .range(first + 1..)
            .find(|(_, present)| present.bodies || present.index);
        let Some((&next, &present)) = next else {
            // Below its limit, and below the end that an index states, a journal is whole: what is missing there is lost.
            let written = index::load(&self.dir, first)?.map(|index| index.head.totals.end.0);
            let end = self.limit.unwrap_or(u64::MAX).min(written.or(self.limit).unwrap_or(0));
            if end <= place.max(self.at) {
                return Ok(Step::End);
            }
            // The writer may have appended between our look at the segment and its closing it.
            if self.has_more_now()? {
                return Ok(Step::Again);
            }
            let Some(scanner) = &mut self.scanner else {
                return Ok(Step::End);
            };
            scanner.seek(end);
            return Ok(self.gap("missing", place, end));
        };
        if !present.bodies {
            let oldest = listing.segments.range(next..).find(|(_, present)| present.bodies);
            let first = oldest.map(|(&first, _)| Position(first));
            return Err(JournalError::Purged {
                wanted: Position(self.at.max(place)),
                first,
            });
        }
        // The same, had it gone on in the next segment.
        if next != place && self.has_more_now()? {
            return Ok(Step::Again);
        }
        let beyond = self.limit.filter(|&limit| limit <= next);
        if let Some(limit) = beyond {
            if limit <= place {
                return Ok(Step::End);
            }
            if let Some(scanner) = &mut self.scanner {
                scanner.seek(limit);
            }
            return Ok(self.gap("missing", place, limit));
        }
        let head_len = self.open_segment(next)?;
        if head_len.is_none() && self.limit.is_none() && !present.index && self.is_empty(next)? {
            // Its head is being written: look again later.
            self.scanner_back(first, place)?;
            return Ok(Step::End);
        }
        if next > place.max(self.at) {
            Ok(self.gap("missing", place, next))
        } else {
            Ok(Step::Again)
        }
    }

    /// True if there is more in the open segment than there was at the last look.
    fn has_more_now(&mut self) -> Result<bool, JournalError> {
        let limit = self.limit;
        let Some(scanner) = &mut self.scanner else {
            return Ok(false);
        };
        let found = scanner.find(limit);
        Ok(!matches!(found.map_err(self.failed("read"))?, Found::End | Found::Torn))
    }

    /// True if the segment just opened is the last one and has no whole batch.
    fn is_empty(&mut self, first: u64) -> Result<bool, JournalError> {
        let listing = files::list(&self.dir).map_err(self.failed("list"))?;
        let Some(scanner) = &mut self.scanner else {
            return Ok(true);
        };
        let found = scanner.find(None);
        let found = found.map_err(self.failed("read"))?;
        let last = listing.segments.range(first + 1..).next().is_none();
        Ok(last && matches!(found, Found::End | Found::Torn))
    }

    fn scanner_back(&mut self, first: u64, place: u64) -> Result<(), JournalError> {
        self.open_segment(first)?;
        if let Some(scanner) = &mut self.scanner {
            scanner.seek(place);
        }
        Ok(())
    }

    /// Opens a segment and goes behind its head (to its beginning if that is damaged); the head's length.
    fn open_segment(&mut self, first: u64) -> Result<Option<u64>, JournalError> {
        let path = files::segment_path(&self.dir, first);
        let buf = match &mut self.scanner {
            Some(scanner) => scanner.take_buffer(),
            None => core::mem::take(&mut self.spare),
        };
        self.batch = None;
        let scanner = match Scanner::open(&path, first, self.salt, buf) {
            Ok(scanner) => scanner,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Purged {
                    wanted: Position(self.at),
                    first: None,
                });
            }
            Err(error) => return Err(JournalError::io("open", &path)(error)),
        };
        self.scanner = Some(scanner);
        self.take_head()
    }

    /// Goes behind the open segment's head, if that is whole; its length.
    fn take_head(&mut self) -> Result<Option<u64>, JournalError> {
        let failed = self.failed("read");
        let Some(scanner) = &mut self.scanner else {
            return Ok(None);
        };
        let Some(head) = scanner.head().map_err(failed)? else {
            return Ok(None);
        };
        self.salt = Some(head.salt);
        scanner.set_salt(head.salt);
        scanner.seek(head.first + head.len() as u64);
        if self.at == 0 {
            self.publish = head
                .publish()
                .map(|publish| (Control::Publish(publish), head.created_ms));
        }
        Ok(Some(head.len() as u64))
    }

    /// Goes to the batch in which the wanted position lies, from header to header.
    fn find_batch(&mut self, first: u64) -> Result<(), JournalError> {
        let at = self.at;
        let dir = self.dir.clone();
        let path = files::segment_path(&dir, first);
        let Some(scanner) = &mut self.scanner else {
            return Ok(());
        };
        let failed = |error| JournalError::io("read", &path)(error);
        let mut place = scanner.position();
        if at <= place {
            return if at == first || at == place {
                Ok(())
            } else {
                Err(JournalError::NotABoundary { at: Position(at) })
            };
        }
        if scanner.header_at(at).map_err(failed)?.is_some() {
            scanner.seek(at);
            return Ok(());
        }
        let mut before = place;
        while place < at {
            let Some(header) = scanner.header_at(place).map_err(failed)? else {
                // Damage, also in the length that led here, or the end of the file.
                match scanner.next_whole(before + 1, None).map_err(failed)? {
                    Some(next) if next <= at && next > before => {
                        (before, place) = (next, next);
                        continue;
                    }
                    // What stands at the wanted position itself decides.
                    _ => {
                        scanner.seek(at);
                        return Ok(());
                    }
                }
            };
            let behind = place + header.len() as u64;
            if behind > at {
                break;
            }
            (before, place) = (place, behind);
        }
        scanner.seek(place);
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = match &self.scanner {
            Some(scanner) => files::segment_path(&self.dir, scanner.first()),
            None => self.dir.clone(),
        };
        move |source| JournalError::Io { action, path, source }
    }
}
