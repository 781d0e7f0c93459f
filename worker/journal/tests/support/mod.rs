//! What the journal's tests share: tags to write, a way to read everything back.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use journal::{Batch, Control, Entry, IndexReader, Options, Position, Publish, Reader, Writer};
use media::access_unit::UnitInfo;
use media::flv;

/// The smallest segments and indexes there can be.
pub(crate) const SMALL: Options = Options {
    segment_bytes: 64 << 10,
    segment_index_bytes: 4 << 10,
};

/// A directory in memory where there is one: for tests that make thousands of files.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Makes `to` the same as `from`, a directory of files.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The directory's files with this ending, oldest segment first.
pub(crate) fn files(dir: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.sort();
    paths
}

/// A tag that was written, or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) tag_type: u8,
    pub(crate) raw_ms: u32,
    pub(crate) body: Vec<u8>,
}

impl Tag {
    pub(crate) fn video(key: bool, raw_ms: u32, len: usize) -> Self {
        let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 40];
        body.resize(len.max(6), (raw_ms % 251) as u8);
        Self {
            tag_type: flv::VIDEO,
            raw_ms,
            body,
        }
    }

    pub(crate) fn audio(raw_ms: u32, len: usize) -> Self {
        let mut body = vec![0xAF, 1];
        body.resize(len.max(3), (raw_ms % 241) as u8);
        Self {
            tag_type: flv::AUDIO,
            raw_ms,
            body,
        }
    }

    pub(crate) fn config(raw_ms: u32) -> Self {
        Self {
            tag_type: flv::VIDEO,
            raw_ms,
            body: vec![0x17, 0, 0, 0, 0, 1, 100, 0, 31, 0xFF],
        }
    }

    pub(crate) fn metadata(raw_ms: u32) -> Self {
        Self {
            tag_type: flv::SCRIPT,
            raw_ms,
            body: b"\x02\x00\x0aonMetaData\x03\0\0\x09".to_vec(),
        }
    }

    /// Bytes as in an FLV file.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut out = Vec::new();
        assert!(flv::append_tag(&mut out, self.tag_type, self.raw_ms, &self.body));
        Bytes(out)
    }
}

/// An ordinary stream: pictures of 25 a second, a key picture each second, sound between them.
pub(crate) fn stream(count: u32) -> Vec<Tag> {
    let mut tags = vec![Tag::metadata(0), Tag::config(0)];
    for n in 0..count {
        tags.push(Tag::video(n % 25 == 0, n * 40, 100 + (n as usize * 37) % 900));
        tags.push(Tag::audio(n * 40 + 7, 60));
    }
    tags
}

pub(crate) fn publish() -> Publish {
    Publish {
        id: "0193-test".into(),
        domain: "push.example".into(),
        app: "live".into(),
        stream: "one".into(),
        started_ms: 1_000_000,
        ..Publish::default()
    }
}

pub(crate) fn unpublish() -> Control {
    Control::Unpublish {
        reason: "the test ends".into(),
        at_ms: 2_000_000,
    }
}

/// Writes all tags in commits of `group` tags each.
pub(crate) fn write(writer: &mut Writer, tags: &[Tag], group: usize) {
    let mut batch = Batch::new();
    for (visit, tags) in tags.chunks(group).enumerate() {
        let now_ms = 1_000_000 + visit as i64 * 200;
        for tag in tags {
            writer.append(&mut batch, tag.tag_type, tag.raw_ms, &tag.body, now_ms, now_ms);
        }
        writer.commit(&mut batch).unwrap();
    }
}

/// A tag's bytes; printed short.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes {:08x}", self.0.len(), journal::format::checksum(&self.0))
    }
}

/// Says where two readings differ.
#[track_caller]
pub(crate) fn assert_same<T: PartialEq + std::fmt::Debug>(left: &[T], right: &[T]) {
    let differs = left.iter().zip(right).position(|(left, right)| left != right);
    let at = differs.unwrap_or(left.len().min(right.len()));
    assert!(
        differs.is_none() && left.len() == right.len(),
        "{} and {} entries; first difference at {at}:\n{:?}\n{:?}",
        left.len(),
        right.len(),
        left.get(at),
        right.get(at)
    );
}

/// An entry with its bytes copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Tag {
        at: Position,
        next: Position,
        info: UnitInfo,
        tag: Bytes,
    },
    Control {
        at: Position,
        next: Position,
        control: Control,
    },
}

impl Read {
    pub(crate) fn of(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Tag { at, next, info, tag } => Self::Tag {
                at,
                next,
                info,
                tag: Bytes(tag.to_vec()),
            },
            Entry::Control { at, next, control, .. } => Self::Control { at, next, control },
        }
    }

    pub(crate) fn at(&self) -> Position {
        match self {
            Self::Tag { at, .. } | Self::Control { at, .. } => *at,
        }
    }

    pub(crate) fn next(&self) -> Position {
        match self {
            Self::Tag { next, .. } | Self::Control { next, .. } => *next,
        }
    }

    pub(crate) fn is_gap(&self) -> bool {
        matches!(
            self,
            Self::Control {
                control: Control::Gap { .. },
                ..
            }
        )
    }
}

/// Everything from `from` to `limit`, or to the end.
pub(crate) fn read_from(dir: &Path, from: Position, limit: Option<Position>) -> Vec<Read> {
    let mut reader = Reader::open(dir, from, Vec::new()).unwrap();
    if let Some(limit) = limit {
        reader.set_limit(limit);
    }
    let mut all: Vec<Read> = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let entry = Read::of(entry);
        assert!(
            entry.next() > entry.at() && all.last().is_none_or(|last| last.next() <= entry.at()),
            "{entry:?}"
        );
        assert!(all.len() < 1_000_000);
        all.push(entry);
        assert_eq!(reader.position(), all.last().unwrap().next());
    }
    all
}

pub(crate) fn read_all(dir: &Path) -> Vec<Read> {
    read_from(dir, Position::START, None)
}

/// The tags among what was read, as bytes.
pub(crate) fn tags_of(all: &[Read]) -> Vec<Bytes> {
    let tag = |read: &Read| match read {
        Read::Tag { tag, .. } => Some(tag.clone()),
        Read::Control { .. } => None,
    };
    all.iter().filter_map(tag).collect()
}

/// The control records among what was read.
pub(crate) fn controls_of(all: &[Read]) -> Vec<Control> {
    let control = |read: &Read| match read {
        Read::Control { control, .. } => Some(control.clone()),
        Read::Tag { .. } => None,
    };
    all.iter().filter_map(control).collect()
}

/// Checks that the index says of each tag what the reader says.
pub(crate) fn assert_index_agrees(dir: &Path, all: &[Read]) {
    let mut index = IndexReader::open(dir, Position::START).unwrap();
    for read in all {
        let Read::Tag { at, next, info, tag } = read else {
            continue;
        };
        let indexed = index.next().unwrap().expect("the index ends early");
        assert_eq!((indexed.at, indexed.next, indexed.info), (*at, *next, *info));
        let tag = &tag.0;
        assert_eq!(indexed.tag_type, tag[0]);
        if let Some(body) = indexed.body {
            assert_eq!(body, tag[11..tag.len() - 4]);
        }
    }
    assert_eq!(index.next().unwrap(), None);
}
