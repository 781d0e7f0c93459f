//! [`Writer`], the append path: tags gather in a [`Batch`], a commit is one checksum and one write.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use media::access_unit::{Track, UnitKind};
use media::flv;
use media::timeline::Timeline;

use crate::batch::Batch;
use crate::files;
use crate::format::{self, BatchHeader, FileHead, IndexEntry, MAX_PUBLISH_LEN};
use crate::index::IndexBuilder;
use crate::recover::Recovered;
use crate::{Control, JournalError, Position, Progress, Publish, Snapshot};

/// Bounds of a journal's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Longest segment. 64 KiB to 1 GiB; taken to the nearer end where it lies outside. Only a segment of a single batch (one
    /// tag of up to 16 MiB, or tags of up to 256 KiB) may be longer.
    pub segment_bytes: u64,
    /// Longest index of a segment, which is held in memory while the segment is open. 4 KiB to 16 MiB. A tag takes 16
    /// bytes, a batch 32, configurations and script data (up to 64 KiB each) their own length. Only a segment of a single
    /// batch may have a longer one, of up to 288 KiB.
    pub segment_index_bytes: usize,
}

impl Default for Options {
    /// 8 MiB of bodies (27 s at 2.5 Mbit/s), 64 KiB of index (some 3,500 tags).
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            segment_index_bytes: 64 << 10,
        }
    }
}

impl Options {
    fn bounded(self) -> Self {
        Self {
            segment_bytes: self.segment_bytes.clamp(64 << 10, 1 << 30),
            segment_index_bytes: self.segment_index_bytes.clamp(4 << 10, 16 << 20),
        }
    }
}

/// Tags that were received and cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Refused {
    empty: u64,
    too_long: u64,
    unknown: u64,
}

/// Appends to one publish's journal. Not shared: one writer a journal, on one thread.
///
/// Idle memory: about half a KiB, the publish's JSON, and the open segment's index
/// ([`Options::segment_index_bytes`]).
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    options: Options,
    salt: u32,
    publish: Box<[u8]>,
    segment: Segment,
    index: IndexBuilder,
    timeline: Timeline,
    committed: Snapshot,
    progress: Arc<Progress>,
    refused: Refused,
}

/// The open segment file.
#[derive(Debug)]
struct Segment {
    file: File,
    path: PathBuf,
    first: u64,
    /// Bytes of the file that are whole batches.
    len: u64,
    /// Bytes of the file's head.
    head_len: u64,
    created_ms: i64,
    /// Something may stand behind `len`: to be cut off before the next write.
    torn: bool,
}

impl Writer {
    /// Starts a journal in `dir`, which it makes (its parents too); `now_ms` is the wall clock, milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`JournalError::TooLong`] for a publish of more than 64 KiB; [`JournalError::Io`], with `AlreadyExists` if there is a
    /// journal.
    pub fn create(dir: &Path, options: Options, publish: &Publish, now_ms: i64) -> Result<Self, JournalError> {
        let publish = encode_publish(publish)?;
        let salt = format::checksum(&publish);
        fs::create_dir_all(dir).map_err(JournalError::io("create", dir))?;
        let totals = Snapshot {
            wall_ms: now_ms,
            ..Snapshot::default()
        };
        Self::start(dir, options, publish, salt, totals, now_ms).inspect_err(|_| {
            // Best effort, and only if it is empty: a journal that could not be begun leaves nothing behind.
            fs::remove_dir(dir).ok();
        })
    }

    /// Goes on in a recovered journal: in a new segment, at its end or at `at_least` if that is later.
    ///
    /// Give as `at_least` the greatest position that any reader has passed: after a power loss it may lie beyond what is
    /// left, and positions must not come to mean something else. The reader reports the hole as a gap.
    ///
    /// Media times of tags appended now do not continue those before: this is for the records that end a journal.
    ///
    /// # Errors
    ///
    /// [`JournalError::Closed`] if the terminal record is there already; [`JournalError::NotABoundary`] if `at_least` is beyond
    /// [`MAX_POSITION`](format::MAX_POSITION); [`JournalError::Io`].
    pub fn reopen(
        dir: &Path,
        options: Options,
        recovered: &Recovered,
        at_least: Position,
        now_ms: i64,
    ) -> Result<Self, JournalError> {
        if recovered.closed.is_some() {
            return Err(JournalError::Closed { dir: dir.to_path_buf() });
        }
        if at_least.0 > format::MAX_POSITION {
            return Err(JournalError::NotABoundary { at: at_least });
        }
        let publish = encode_publish(&recovered.publish)?;
        let totals = Snapshot {
            end: recovered.end.max(at_least),
            ..recovered.snapshot
        };
        Self::start(dir, options, publish, recovered.salt, totals, now_ms)
    }

    fn start(
        dir: &Path,
        options: Options,
        publish: Box<[u8]>,
        salt: u32,
        totals: Snapshot,
        now_ms: i64,
    ) -> Result<Self, JournalError> {
        let segment = Segment::create(dir, salt, &publish, &totals, now_ms)?;
        let committed = Snapshot {
            end: segment.end(),
            wall_ms: now_ms,
            ..totals
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            options: options.bounded(),
            salt,
            publish,
            segment,
            index: IndexBuilder::default(),
            timeline: Timeline::new(),
            committed,
            progress: Arc::new(Progress::new(committed)),
            refused: Refused::default(),
        })
    }

    /// Adds one tag to `batch`: memory only. `raw_ms` is its timestamp as received, `mono_ms` and `wall_ms` are the
    /// monotonic and the wall clock at its arrival.
    ///
    /// A body that is empty or longer than FLV can express, and a tag type that is not FLV's, are dropped and counted; the
    /// counts are written as [`Control::Refused`] when the journal is closed.
    ///
    /// # Panics
    ///
    /// If `batch` holds another writer's tags.
    pub fn append(&mut self, batch: &mut Batch, tag_type: u8, raw_ms: u32, body: &[u8], mono_ms: i64, wall_ms: i64) {
        let Some(class) = flv::classify(tag_type, body) else {
            self.refused.empty += 1;
            return;
        };
        let Some(body_len) = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= flv::MAX_BODY_LEN)
        else {
            self.refused.too_long += 1;
            return;
        };
        if !matches!(tag_type, flv::AUDIO | flv::VIDEO | flv::SCRIPT) {
            self.refused.unknown += 1;
            return;
        }
        batch.claim(self.salt);
        let track = match class.kind {
            UnitKind::Video => Some(Track::Video),
            UnitKind::Audio => Some(Track::Audio),
            _ => None,
        };
        let base_ms = match track {
            Some(track) => {
                let mapped = self.timeline.map(track, raw_ms, mono_ms);
                if let Some(jump) = mapped.jump {
                    batch.push_control(
                        &Control::Jump {
                            from_ms: jump.from_ms,
                            to_ms: jump.to_ms,
                        },
                        wall_ms,
                    );
                }
                mapped.base_ms
            }
            None => self.timeline.attach(raw_ms),
        };
        // A key picture begins a batch, so that a reader that begins at a cut finds it without looking.
        let cut = class.key && track == Some(Track::Video);
        batch.push_tag(
            IndexEntry::new(tag_type, raw_ms, body_len, &class),
            base_ms,
            wall_ms,
            cut,
            body,
        );
    }

    /// Writes what was appended and empties `batch`: one write, more only where a segment ends on the way.
    ///
    /// When it returns, the bytes are the operating system's: a killed process loses none of them. The wall clock of the
    /// last append dates a new segment.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]: the segment is cut back to its last whole batch; what was written before the error is
    /// committed and gone from `batch`, the rest is still in it and may be committed again or abandoned.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        while !batch.is_empty() {
            let count = self.sections_that_fit(batch);
            if count == 0 {
                let wall_ms = batch.sections.first().map_or(0, |section| section.wall_ms);
                self.roll(wall_ms)?;
                continue;
            }
            self.write_sections(batch, count)?;
        }
        Ok(())
    }

    /// Writes one record at once. What is in a [`Batch`] comes after it: commit that first.
    ///
    /// # Errors
    ///
    /// As [`Writer::commit`], or [`JournalError::TooLong`] beyond 64 KiB; nothing is written then.
    pub fn control(&mut self, control: &Control, wall_ms: i64) -> Result<(), JournalError> {
        let mut batch = Batch::new();
        batch.push_control(control, wall_ms);
        check_record(&batch)?;
        self.commit(&mut batch)
    }

    /// Ends the journal with its terminal record, a [`Control::Unpublish`], and writes the last index.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]. If [`Snapshot::closed`] is set nevertheless, the record is written and only the index is not:
    /// readers do without, and recovery makes it up.
    pub fn close(mut self, unpublish: &Control, wall_ms: i64) -> Result<(), JournalError> {
        let mut batch = Batch::new();
        let Refused {
            empty,
            too_long,
            unknown,
        } = self.refused;
        for (kind, count) in [("empty", empty), ("too long", too_long), ("unknown tag type", unknown)] {
            if count > 0 {
                batch.push_control(
                    &Control::Refused {
                        kind: kind.to_owned(),
                        count,
                    },
                    wall_ms,
                );
            }
        }
        batch.push_control(unpublish, wall_ms);
        check_record(&batch)?;
        self.commit(&mut batch)?;
        self.committed.closed = true;
        self.progress.set(self.committed);
        self.write_index()
    }

    /// How far the journal goes: a handle for readers, updated by each commit.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// How many of the batch's sections fit into the open segment.
    fn sections_that_fit(&self, batch: &Batch) -> usize {
        let room = self.options.segment_bytes.saturating_sub(self.segment.len);
        let mut index_len = self.index.len();
        let count = batch
            .sections
            .iter()
            .take_while(|section| {
                index_len += section.index_len;
                section.end as u64 <= room && index_len <= self.options.segment_index_bytes
            })
            .count();
        // A segment takes one batch in any case: the one that is longer than a segment.
        if count == 0 && self.segment.len == self.segment.head_len {
            1
        } else {
            count
        }
    }

    fn write_sections(&mut self, batch: &mut Batch, count: usize) -> Result<(), JournalError> {
        let end = batch.sections[count - 1].end;
        let origin = self.segment.end().0;
        for section in &batch.sections[..count] {
            let header = BatchHeader {
                checksum: 0,
                salt: self.salt,
                kind: section.kind,
                payload_len: u32::try_from(section.end - section.start - format::BATCH_HEADER_LEN).unwrap_or(u32::MAX),
                units: section.units,
                at: origin + section.start as u64,
                base_ms: section.base_ms,
                wall_ms: section.wall_ms,
            };
            format::seal(&mut batch.bytes[section.start..section.end], &header);
        }
        self.segment.write(&batch.bytes[..end])?;
        let mut units = 0;
        for section in &batch.sections[..count] {
            let entries = &batch.entries[units..units + section.units as usize];
            let offset = origin - self.segment.first + section.start as u64;
            let payload = &batch.bytes[section.start + format::BATCH_HEADER_LEN..section.end];
            self.index.push(
                u32::try_from(offset).unwrap_or(u32::MAX),
                (section.kind, section.base_ms, section.wall_ms),
                entries,
                payload,
            );
            let totals = &mut self.committed;
            crate::index::count(
                totals,
                Position(origin + section.start as u64),
                section.base_ms,
                section.wall_ms,
                entries,
            );
            units += entries.len();
        }
        self.committed.end = self.segment.end();
        self.progress.set(self.committed);
        batch.drop_front(count, units);
        Ok(())
    }

    /// Writes the open segment's index and opens the next segment. If either fails, nothing has changed.
    fn roll(&mut self, now_ms: i64) -> Result<(), JournalError> {
        self.segment.cut_torn_tail()?;
        self.write_index()?;
        let totals = self.committed;
        match Segment::create(&self.dir, self.salt, &self.publish, &totals, now_ms) {
            Ok(segment) => {
                self.segment = segment;
                self.index.clear();
                self.committed.end = self.segment.end();
                self.progress.set(self.committed);
                Ok(())
            }
            Err(error) => {
                // An index says that its segment is complete, and it is not.
                let path = files::index_path(&self.dir, self.segment.first);
                fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
                Err(error)
            }
        }
    }

    fn write_index(&self) -> Result<(), JournalError> {
        let head = FileHead {
            first: self.segment.first,
            created_ms: self.segment.created_ms,
            salt: self.salt,
            totals: self.committed,
            publish: self.publish.to_vec(),
        };
        crate::index::write(&self.dir, &head, self.index.groups())
    }
}

fn check_record(batch: &Batch) -> Result<(), JournalError> {
    let limit = MAX_PUBLISH_LEN;
    let long = batch
        .sections
        .iter()
        .map(|section| section.end - section.start)
        .find(|&len| len > limit);
    long.map_or(Ok(()), |len| {
        Err(JournalError::TooLong {
            what: "control record",
            len,
            limit,
        })
    })
}

fn encode_publish(publish: &Publish) -> Result<Box<[u8]>, JournalError> {
    let json = serde_json::to_vec(publish).unwrap_or_default();
    if json.len() > MAX_PUBLISH_LEN {
        return Err(JournalError::TooLong {
            what: "publish record",
            len: json.len(),
            limit: MAX_PUBLISH_LEN,
        });
    }
    Ok(json.into_boxed_slice())
}

impl Segment {
    /// Creates the file that begins at `totals.end`, head and all; if it cannot be finished it is removed.
    fn create(dir: &Path, salt: u32, publish: &[u8], totals: &Snapshot, now_ms: i64) -> Result<Self, JournalError> {
        let first = totals.end.0;
        let path = files::segment_path(dir, first);
        let head = FileHead {
            first,
            created_ms: now_ms,
            salt,
            totals: *totals,
            publish: publish.to_vec(),
        };
        let head = head.encode_segment();
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(JournalError::io("create", &path))?;
        if let Err(error) = file.write_all_at(&head, 0) {
            // Best effort: an empty segment that stays is removed by recovery.
            fs::remove_file(&path).ok();
            return Err(JournalError::io("write", &path)(error));
        }
        let head_len = head.len() as u64;
        Ok(Self {
            file,
            path,
            first,
            len: head_len,
            head_len,
            created_ms: now_ms,
            torn: false,
        })
    }

    fn end(&self) -> Position {
        Position(self.first + self.len)
    }

    /// Appends whole batches; on error the file is cut back.
    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.cut_torn_tail()?;
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.torn = true;
                // If this fails too, the next write tries again before it writes anything.
                self.cut_torn_tail().ok();
                Err(JournalError::io("write", &self.path)(error))
            }
        }
    }

    fn cut_torn_tail(&mut self) -> Result<(), JournalError> {
        if self.torn {
            self.file
                .set_len(self.len)
                .map_err(JournalError::io("truncate", &self.path))?;
            self.torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_writer_is_small() {
        assert!(size_of::<Writer>() <= 1024, "{}", size_of::<Writer>());
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::create(&dir.path().join("new"), Options::default(), &Publish::default(), 0).unwrap();
        assert_eq!(writer.index.groups().len(), 0);
    }

    #[test]
    fn a_journal_that_cannot_be_begun_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let long = Publish {
            params: "x".repeat(MAX_PUBLISH_LEN),
            ..Publish::default()
        };
        let path = dir.path().join("new");
        let error = Writer::create(&path, Options::default(), &long, 0).unwrap_err();
        assert!(matches!(
            error,
            JournalError::TooLong {
                limit: MAX_PUBLISH_LEN,
                ..
            }
        ));
        assert!(!path.exists());
        // A directory in the segment's place: the file cannot be made.
        fs::create_dir_all(path.join(format!("{:020}.seg", 0))).unwrap();
        assert!(Writer::create(&path, Options::default(), &Publish::default(), 0).is_err());
        assert!(path.exists(), "what was there stays");
    }
}
