//! [`Batch`], the scratch in which a visit's tags gather before they are written.

use media::flv;

use crate::Control;
use crate::format::{BATCH_HEADER_LEN, BatchKind, ENTRY_LEN, GROUP_HEADER_LEN, IndexEntry};

/// A batch holds no more than this, unless a single tag is longer: a reader verifies and returns a batch as a whole.
pub(crate) const SECTION_LEN: usize = 256 << 10;
/// Capacity that a scratch keeps from one commit to the next.
const KEPT_CAPACITY: usize = 2 << 20;

/// One batch to be: header space and payload within [`Batch::bytes`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    /// Offset of the header space.
    pub(crate) start: usize,
    /// Offset behind the payload.
    pub(crate) end: usize,
    pub(crate) kind: BatchKind,
    pub(crate) base_ms: i64,
    pub(crate) wall_ms: i64,
    pub(crate) units: u32,
    /// Bytes that it adds to the index.
    pub(crate) index_len: usize,
}

/// What an abandoned batch held, for the [`Control::Gap`] that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abandoned {
    /// Audio and video units.
    pub units: u64,
    /// Bytes of all FLV tags.
    pub bytes: u64,
    /// Least decode time of an audio or video unit, milliseconds on the publish's timeline.
    pub first_dts_ms: Option<i64>,
    /// Greatest decode time.
    pub end_dts_ms: Option<i64>,
}

/// Scratch memory for what one visit brings, shared by all writers of a thread.
///
/// It belongs to one writer from the first [`append`](crate::Writer::append) until
/// [`commit`](crate::Writer::commit) succeeds or [`Batch::abandon`] is called. It grows with what is
/// appended and falls back to at most 2 MiB when it is emptied: who appends without end must commit in
/// between, when [`Batch::len`] says so.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<IndexEntry>,
    pub(crate) sections: Vec<Section>,
    /// The writer's salt.
    owner: Option<u32>,
}

impl Batch {
    /// An empty one; takes no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            entries: Vec::new(),
            sections: Vec::new(),
            owner: None,
        }
    }

    /// Bytes that a commit would write.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Forgets what was appended since the last commit: for a commit that failed and will not be tried again.
    pub fn abandon(&mut self) -> Abandoned {
        let mut lost = Abandoned::default();
        let mut entries = self.entries.iter();
        for section in &self.sections {
            for entry in entries.by_ref().take(section.units as usize) {
                lost.bytes += entry.tag_len() as u64;
                let info = entry.info(section.base_ms, section.wall_ms);
                if crate::progress::is_unit(&info) {
                    lost.units += 1;
                    lost.first_dts_ms = Some(lost.first_dts_ms.map_or(info.dts_ms, |first| first.min(info.dts_ms)));
                    lost.end_dts_ms = lost.end_dts_ms.max(Some(info.dts_ms));
                }
            }
        }
        self.clear();
        lost
    }

    /// Takes the batch for the writer with this salt.
    ///
    /// # Panics
    ///
    /// If another writer's tags are in it: that would put one stream's pictures into another's recording.
    pub(crate) fn claim(&mut self, salt: u32) {
        assert!(
            *self.owner.get_or_insert(salt) == salt,
            "a batch was passed to a second writer before its first one committed it"
        );
    }

    pub(crate) fn push_tag(&mut self, entry: IndexEntry, base_ms: i64, wall_ms: i64, cut: bool, body: &[u8]) {
        let fits = self.sections.last().is_some_and(|section| {
            section.kind == BatchKind::Media
                && section.base_ms == base_ms
                && section.wall_ms == wall_ms
                && !cut
                && section.end - section.start + entry.tag_len() <= SECTION_LEN
        });
        if !fits {
            self.open_section(BatchKind::Media, base_ms, wall_ms);
        }
        flv::append_tag(&mut self.bytes, entry.tag_type, entry.raw_ms, body);
        self.entries.push(entry);
        if let Some(section) = self.sections.last_mut() {
            section.end = self.bytes.len();
            section.units += 1;
            section.index_len += ENTRY_LEN + if entry.inline { entry.body_len as usize } else { 0 };
        }
    }

    /// JSON that cannot be made is left out: no [`Control`] is of that kind.
    pub(crate) fn push_control(&mut self, control: &Control, wall_ms: i64) {
        self.open_section(BatchKind::Control, 0, wall_ms);
        let written = serde_json::to_writer(&mut self.bytes, control);
        debug_assert!(written.is_ok(), "a control record is always JSON");
        if let Some(section) = self.sections.last_mut() {
            section.end = self.bytes.len();
            section.index_len += section.end - section.start - BATCH_HEADER_LEN;
        }
    }

    fn open_section(&mut self, kind: BatchKind, base_ms: i64, wall_ms: i64) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; BATCH_HEADER_LEN]);
        self.sections.push(Section {
            start,
            end: self.bytes.len(),
            kind,
            base_ms,
            wall_ms,
            units: 0,
            index_len: GROUP_HEADER_LEN,
        });
    }

    /// Forgets the first `sections` sections, which are written, with their `entries`.
    pub(crate) fn drop_front(&mut self, sections: usize, entries: usize) {
        if sections == self.sections.len() {
            self.clear();
            return;
        }
        let cut = self.sections[sections].start;
        self.sections.drain(..sections);
        self.entries.drain(..entries);
        self.bytes.drain(..cut);
        for section in &mut self.sections {
            section.start -= cut;
            section.end -= cut;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.sections.clear();
        self.owner = None;
        self.bytes.shrink_to(KEPT_CAPACITY);
        self.entries.shrink_to(KEPT_CAPACITY / size_of::<IndexEntry>());
        self.sections.shrink_to(KEPT_CAPACITY / size_of::<Section>());
    }
}
