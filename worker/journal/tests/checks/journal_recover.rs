//! A journal is written, its files are damaged, and whatever is left is read, recovered, ended and read again.
//!
//! The input is a program: it says which tags are appended and committed, whether the journal is closed, which bytes of
//! which file are flipped, cut off, overwritten, inserted or deleted, and whether checksums are then made right again,
//! so that what only a checksum keeps out is tried too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use journal::format::{self, BATCH_HEADER_LEN, BatchHeader, FileHead};
use journal::recover::{Recovered, recover};
use journal::{
    Batch, Control, Entry, IndexReader, JournalError, Options, Position, Publish, Reader, Style, Writer, inspect,
    retention,
};

/// The program's bytes; behind the end they are 0.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn u8(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }
    fn u16(&mut self) -> usize {
        usize::from(self.u8()) << 8 | usize::from(self.u8())
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes.to_vec()
    }
}

/// See the module's words.
pub fn journal_recover(data: &[u8]) {
    let dir = Scratch::new();
    let mut program = Program(data);
    let written = write(&dir.0, &mut program);
    let intact = read(&dir.0, None);
    assert_eq!(intact.tags, written, "undamaged, everything comes back");
    assert_eq!(intact.gaps, 0);
    let forged = damage(&dir.0, &mut program);

    let before = read(&dir.0, Some(&mut program));
    index(&dir.0);
    inspect(&dir.0, Style::Json, &mut Vec::new()).ok();
    let recovered = match recover(&dir.0) {
        Ok(recovered) => recovered,
        Err(JournalError::Empty { .. }) => return,
        Err(error) => panic!("{error:?}"),
    };
    let after = read(&dir.0, None);
    if !forged {
        assert_subsequence(&before.tags, &written);
        assert_subsequence(&after.tags, &written);
        assert_eq!(before.tags, after.tags, "recovery takes nothing from a reader");
    }
    check_again(&dir.0, &recovered);
    let indexed = index(&dir.0);
    if !forged && let Some(indexed) = &indexed {
        for (at, len) in &after.places {
            assert_eq!(indexed.get(at), Some(len), "the index knows every tag that is there");
        }
    }
    end(&dir.0, &recovered);
}

/// Recovery finds nothing to do the second time.
fn check_again(dir: &Path, recovered: &Recovered) {
    let again = recover(dir).unwrap();
    assert_eq!((again.torn_bytes, again.rebuilt_indexes), (0, 0));
    assert_eq!(
        (again.end, &again.closed, again.snapshot),
        (recovered.end, &recovered.closed, recovered.snapshot)
    );
}

/// The journal gets its end if it has none, and is then what it was with an end.
fn end(dir: &Path, recovered: &Recovered) {
    let before = read(dir, None);
    let unpublish = Control::Unpublish {
        reason: "recovered".into(),
        at_ms: 1,
    };
    match Writer::reopen(dir, Options::default(), recovered, Position::START, 0) {
        Err(JournalError::Closed { .. }) => assert!(recovered.closed.is_some()),
        Err(error) if recovered.end.0 > i64::MAX as u64 => drop(error),
        writer => {
            writer.unwrap().close(&unpublish, 1).unwrap();
            let closed = recover(dir).unwrap();
            assert_eq!(closed.closed, Some(unpublish));
            assert_eq!(read(dir, None).tags, before.tags);
        }
    }
    let all = recover(dir).unwrap();
    retention::drop_bodies_before(dir, all.end).unwrap();
    assert_eq!(recover(dir).unwrap().end, all.end);
    retention::drop_index_before(dir, all.end).unwrap();
    recover(dir).unwrap();
}

/// Writes what the program says; the bytes of every tag that was committed.
fn write(dir: &Path, program: &mut Program<'_>) -> Vec<Vec<u8>> {
    let options = Options {
        segment_bytes: 0,
        segment_index_bytes: 0,
    };
    let publish = Publish {
        id: "fuzz".into(),
        stream: "s".repeat(usize::from(program.u8())),
        ..Publish::default()
    };
    let mut writer = Writer::create(dir, options, &publish, 0).unwrap();
    let mut batch = Batch::new();
    let (mut written, mut pending) = (Vec::new(), Vec::new());
    for step in 0..64 {
        let operation = program.u8();
        let wall_ms = i64::from(program.u8() >> 5);
        match operation % 8 {
            0 => {
                writer.commit(&mut batch).unwrap();
                written.append(&mut pending);
            }
            1 if operation > 240 => break,
            1 => {
                let gap = Control::Refused {
                    kind: "fuzz".into(),
                    count: step,
                };
                writer.commit(&mut batch).unwrap();
                written.append(&mut pending);
                writer.control(&gap, wall_ms).unwrap();
            }
            kind => {
                let tag_type = [8, 9, 18][usize::from(kind) % 3];
                let raw_ms = u32::try_from(program.u16()).unwrap() << ((operation >> 6) * 5);
                let len = usize::from(program.u8());
                let mut body = program.bytes(len);
                if operation & 0x20 != 0 {
                    // Long enough for a segment to end: onMetaData for its index, pictures for its bodies.
                    let (head, len): (&[u8], _) = if tag_type == 18 {
                        (b"\x02\x00\x0aonMetaData", 5_000)
                    } else {
                        (&[0x17, 1, 0, 0, 0], 40_000)
                    };
                    body.splice(..0, head.iter().copied());
                    body.resize(len, 1);
                }
                writer.append(&mut batch, tag_type, raw_ms, &body, wall_ms * 200, wall_ms);
                if !body.is_empty() {
                    let mut tag = Vec::new();
                    media::flv::append_tag(&mut tag, tag_type, raw_ms, &body);
                    pending.push(tag);
                }
            }
        }
    }
    if program.u8() & 1 == 0 {
        writer.commit(&mut batch).unwrap();
        written.append(&mut pending);
        writer
            .close(
                &Control::Unpublish {
                    reason: "done".into(),
                    at_ms: 0,
                },
                0,
            )
            .unwrap();
    }
    written
}

/// Damages files as the program says; true if the damage may have been made to look right.
fn damage(dir: &Path, program: &mut Program<'_>) -> bool {
    let mut forged = false;
    for _ in 0..8 {
        if program.is_empty() {
            break;
        }
        let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        if paths.is_empty() {
            break;
        }
        let operation = program.u8();
        let path = &paths[usize::from(program.u8()) % paths.len()];
        let mut bytes = fs::read(path).unwrap();
        let at = program.u16() * (1 + usize::from(operation >> 6)) % (bytes.len() + 1);
        let count = usize::from(program.u8());
        match operation % 8 {
            0 | 1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (count % 8);
                }
            }
            2 => bytes.truncate(at),
            3 => {
                let new = program.bytes(count);
                bytes.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = new);
            }
            4 => drop(bytes.splice(at..at, program.bytes(count))),
            5 => drop(bytes.drain(at..(at + count).min(bytes.len()))),
            6 => {
                let len = bytes.len();
                bytes[at..].fill(0);
                assert_eq!(bytes.len(), len);
            }
            _ => {
                fs::remove_file(path).unwrap();
                continue;
            }
        }
        if operation & 0x20 != 0 {
            forged = true;
            make_right(&mut bytes);
        }
        fs::write(path, &bytes).unwrap();
    }
    forged
}

/// Makes the checksums of a file right again, as far as its structure can be made out.
fn make_right(bytes: &mut [u8]) {
    let set = |file: &mut [u8], end: usize| {
        if let Some(covered) = file.get(12..end) {
            let sum = format::checksum(covered).to_le_bytes();
            file[8..12].copy_from_slice(&sum);
        }
    };
    let len = bytes.len();
    if bytes.starts_with(&format::INDEX_MAGIC) {
        return set(bytes, len);
    }
    let header_len = bytes
        .get(12..16)
        .map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap()) as usize);
    set(bytes, header_len.min(len));
    let head = FileHead::decode_segment(bytes);
    let mut at = head.as_ref().map_or(0, FileHead::len);
    let first = head.as_ref().map_or(0, |head| head.first);
    while let Some(header) = bytes.get(at..).and_then(BatchHeader::decode) {
        let end = at + header.len();
        if end > len || header.len() < BATCH_HEADER_LEN {
            break;
        }
        let salt = head.as_ref().map_or(header.salt, |head| head.salt);
        let header = BatchHeader {
            at: first.wrapping_add(at as u64),
            salt,
            ..header
        };
        format::seal(&mut bytes[at..end], &header);
        at = end;
    }
}

/// What a reader gave.
#[derive(Default)]
struct Reading {
    tags: Vec<Vec<u8>>,
    places: Vec<(u64, usize)>,
    gaps: usize,
}

/// Reads everything; begins again at some entries if there is a program to say so.
fn read(dir: &Path, mut program: Option<&mut Program<'_>>) -> Reading {
    let mut reading = Reading::default();
    let mut reader = match Reader::open(dir, Position::START, vec![0; 4096]) {
        Ok(reader) => reader,
        Err(JournalError::Empty { .. } | JournalError::Purged { .. }) => return reading,
        Err(error) => panic!("{error:?}"),
    };
    let mut last = Position::START;
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(JournalError::Purged { .. }) => break,
            Err(error) => panic!("{error:?}"),
        };
        let (at, next) = match entry {
            Entry::Tag { at, next, tag, info } => {
                assert_eq!(tag.len() as u64, info.tag_len());
                reading.places.push((at.0, tag.len()));
                reading.tags.push(tag.to_vec());
                (at, next)
            }
            Entry::Control { at, next, control, .. } => {
                let made_up =
                    matches!(&control, Control::Gap { reason, .. } if reason == "damaged" || reason == "missing");
                reading.gaps += usize::from(made_up);
                (at, next)
            }
        };
        assert!(at >= last && next > at, "{last} {at} {next}");
        last = next;
        if let Some(program) = &mut program
            && program.u8() & 7 == 1
        {
            reader = Reader::open(dir, last, reader.into_buffer()).unwrap();
        }
    }
    reading
}

/// Position and length of every tag in the index, if it can be read.
fn index(dir: &Path) -> Option<BTreeMap<u64, usize>> {
    let mut all = BTreeMap::new();
    let mut reader = IndexReader::open(dir, Position::START).ok()?;
    loop {
        match reader.next() {
            Ok(Some(indexed)) => {
                let before = all.insert(indexed.at.0, indexed.info.tag_len() as usize);
                assert_eq!(before, None);
            }
            Ok(None) => return Some(all),
            Err(JournalError::IndexLost { .. } | JournalError::Purged { .. }) => return None,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn assert_subsequence(part: &[Vec<u8>], whole: &[Vec<u8>]) {
    let mut rest = whole.iter();
    for tag in part {
        assert!(
            rest.any(|other| other == tag),
            "a tag that was not written, or out of its place"
        );
    }
}

/// A directory in memory, if there is such, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            memory.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let name = format!(
            "journal-check-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = root.join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
