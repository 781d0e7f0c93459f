//! Says what a journal, or one of its files, holds: for people, or as JSON lines. It changes nothing.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files::{self, Present};
use crate::format::{BatchKind, INDEX_MAGIC, SEGMENT_MAGIC};
use crate::index::{self, SegmentIndex, Walk};
use crate::rebuild;
use crate::slot;
use crate::{Control, JournalError, Position, Publish, Snapshot};

/// How [`inspect`] prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A table for people.
    Text,
    /// One JSON object a line, each with a `type`.
    Json,
}

/// One line of what there is to say.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Publish {
        #[serde(flatten)]
        publish: Publish,
    },
    Segment {
        first: u64,
        end: u64,
        body_bytes: Option<u64>,
        batches: usize,
        tags: u64,
        video_units: u64,
        audio_units: u64,
        first_ms: Option<i64>,
        last_ms: Option<i64>,
        torn_bytes: u64,
        index: IndexState,
    },
    Damaged {
        from: u64,
        to: u64,
    },
    Control {
        at: u64,
        wall_ms: i64,
        control: Control,
    },
    Batch {
        at: u64,
        kind: &'static str,
        payload_bytes: u32,
        tags: u32,
        keys: u32,
        base_ms: i64,
        wall_ms: i64,
        first_ms: Option<i64>,
        last_ms: Option<i64>,
    },
    Total {
        end: u64,
        video_units: u64,
        audio_units: u64,
        tag_bytes: u64,
        first_ms: Option<i64>,
        last_ms: Option<i64>,
        random_access: Option<u64>,
        closed: bool,
    },
    Slot {
        file: String,
        place_bytes: usize,
        sequences: [Option<u64>; 2],
        payload_bytes: Option<usize>,
    },
    Temporary {
        file: String,
    },
}

/// How an index file stands to the bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum IndexState {
    /// It says what the bodies say.
    Agrees,
    /// It is whole and the bodies are gone.
    Alone,
    /// It is whole and says something else: see the damage.
    Differs,
    /// It is torn or damaged.
    Damaged,
    /// There is none: the segment is open, or its writer died.
    None,
}

/// Prints what a journal directory, or a segment, index or state file, holds.
///
/// Of a directory: who published, each segment with its batches, times and damage, all control records, state files, totals.
/// Of a segment or index: each batch.
///
/// # Errors
///
/// [`JournalError::Io`], also for `out`; [`JournalError::Format`] if the file is none of the journal's;
/// [`JournalError::Empty`] for a directory without a segment.
pub fn inspect(path: &Path, style: Style, out: &mut dyn Write) -> Result<(), JournalError> {
    let meta = fs::metadata(path).map_err(JournalError::io("look at", path))?;
    if meta.is_dir() {
        let journals = journals_in(path).map_err(JournalError::io("list", path))?;
        if !journals.is_empty() {
            return journals.iter().try_for_each(|journal| inspect(journal, style, out));
        }
    }
    let mut lines = Lines {
        path,
        style,
        out,
        heading: "",
    };
    if meta.is_dir() {
        lines.directory(path)
    } else {
        lines.file(path)
    }
}

/// The journals right below a directory that is none itself, in the order of their names.
fn journals_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    if files::list(dir)?.segments.is_empty() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() && !files::list(&path)?.segments.is_empty() {
                journals.push(path);
            }
        }
    }
    journals.sort();
    Ok(journals)
}

struct Lines<'a> {
    path: &'a Path,
    style: Style,
    out: &'a mut dyn Write,
    /// The table whose heading was printed last.
    heading: &'static str,
}

impl Lines<'_> {
    fn directory(&mut self, dir: &Path) -> Result<(), JournalError> {
        let listing = files::list(dir).map_err(JournalError::io("list", dir))?;
        let mut last: Option<SegmentIndex> = None;
        for (&first, &present) in &listing.segments {
            let found = look(dir, first, present, last.as_ref())?;
            if last.is_none() {
                let publish = found.index.head.publish().unwrap_or_default();
                self.put(&Line::Publish { publish })?;
            } else if let Some(end) = last
                .as_ref()
                .map(|last| last.head.totals.end.0)
                .filter(|&end| end < first)
            {
                self.put(&Line::Damaged { from: end, to: first })?;
            }
            self.segment(&found)?;
            last = Some(found.index);
        }
        let Some(last) = last else {
            return Err(JournalError::Empty { dir: dir.to_path_buf() });
        };
        self.total(&last)?;
        for path in slot_files(dir).map_err(JournalError::io("list", dir))? {
            self.slot(&path)?;
        }
        for path in &listing.temporary {
            self.put(&Line::Temporary { file: name(path) })?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), JournalError> {
        let mut magic = [0; 8];
        let read = fs::File::open(path).and_then(|file| io::Read::read(&mut { file }, &mut magic));
        read.map_err(JournalError::io("read", path))?;
        if magic == slot::MAGIC || path.extension().is_some_and(|extension| extension == "slot") {
            return self.slot(path);
        }
        let wrong = |reason| JournalError::Format {
            path: path.to_path_buf(),
            expected: "a file of a journal",
            reason,
        };
        let (Some(dir), Some(first)) = (path.parent(), first_of(path)) else {
            return Err(wrong("its name is none"));
        };
        if magic == INDEX_MAGIC {
            let index = index::load(dir, first)?.ok_or_else(|| wrong("damaged"))?;
            return self.index(&index);
        }
        if magic != SEGMENT_MAGIC && path.extension().is_none_or(|extension| extension != "seg") {
            return Err(wrong("it begins with other bytes"));
        }
        let index_there = files::index_path(dir, first).exists();
        let found = look(
            dir,
            first,
            Present {
                bodies: true,
                index: index_there,
            },
            None,
        )?;
        self.segment(&found)?;
        self.index(&found.index)
    }

    fn segment(&mut self, found: &Looked) -> Result<(), JournalError> {
        let head = &found.index.head;
        let mut sum = Snapshot::default();
        let (mut batches, mut tags) = (0, 0);
        let mut controls = Vec::new();
        walk(&found.index, |batch| {
            batches += 1;
            tags += u64::from(batch.tags);
            batch.units.iter().for_each(|unit| sum.count(Position(0), unit));
            controls.extend(batch.control.map(|control| (batch.at, batch.wall_ms, control)));
        });
        self.put(&Line::Segment {
            first: head.first,
            end: head.totals.end.0,
            body_bytes: found.body_bytes,
            batches,
            tags,
            video_units: sum.video_units,
            audio_units: sum.audio_units,
            first_ms: sum.first_dts_ms,
            last_ms: sum.end_dts_ms,
            torn_bytes: found.torn_bytes,
            index: found.state,
        })?;
        for &(from, to) in &found.damaged {
            self.put(&Line::Damaged { from, to })?;
        }
        for (at, wall_ms, control) in controls {
            self.put(&Line::Control { at, wall_ms, control })?;
        }
        Ok(())
    }

    fn index(&mut self, index: &SegmentIndex) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        walk(index, |batch| {
            let mut sum = Snapshot::default();
            batch.units.iter().for_each(|unit| sum.count(Position(0), unit));
            let keys = batch
                .units
                .iter()
                .filter(|unit| unit.kind == media::access_unit::UnitKind::Video && unit.key);
            lines.push(Line::Batch {
                at: batch.at,
                kind: batch.kind,
                payload_bytes: batch.payload_len,
                tags: batch.tags,
                keys: u32::try_from(keys.count()).unwrap_or(u32::MAX),
                base_ms: batch.base_ms,
                wall_ms: batch.wall_ms,
                first_ms: sum.first_dts_ms,
                last_ms: sum.end_dts_ms,
            });
        });
        lines.iter().try_for_each(|line| self.put(line))?;
        self.total(index)
    }

    fn total(&mut self, index: &SegmentIndex) -> Result<(), JournalError> {
        let totals = index.head.totals;
        self.put(&Line::Total {
            end: totals.end.0,
            video_units: totals.video_units,
            audio_units: totals.audio_units,
            tag_bytes: totals.bytes,
            first_ms: totals.first_dts_ms,
            last_ms: totals.end_dts_ms,
            random_access: totals.last_random_access.map(|(at, _)| at.0),
            closed: index::terminal(index).is_some(),
        })
    }

    fn slot(&mut self, path: &Path) -> Result<(), JournalError> {
        let bytes = fs::read(path).map_err(JournalError::io("read", path))?;
        let (place_bytes, places) = slot::decode(&bytes);
        let newest = places.iter().flatten().max_by_key(|place| place.sequence);
        self.put(&Line::Slot {
            file: name(path),
            place_bytes,
            sequences: [0, 1].map(|number: usize| places[number].as_ref().map(|place| place.sequence)),
            payload_bytes: newest.map(|place| place.payload.len()),
        })
    }

    fn put(&mut self, line: &Line) -> Result<(), JournalError> {
        let written = match self.style {
            Style::Json => serde_json::to_writer(&mut *self.out, line)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(self.out)),
            Style::Text => self.text(line),
        };
        written.map_err(JournalError::io("describe", self.path))
    }

    fn text(&mut self, line: &Line) -> io::Result<()> {
        let (heading, row) = row(line);
        if heading != self.heading {
            self.heading = heading;
            if !heading.is_empty() {
                writeln!(self.out, "{heading}")?;
            }
        }
        writeln!(self.out, "{row}")
    }
}

/// The heading of a line's table, and its row.
fn row(line: &Line) -> (&'static str, String) {
    let ms = |ms: &Option<i64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    match line {
        Line::Publish { publish } => (
            "",
            format!(
                "publish {} of {}/{}/{} from {} by {:?} at {} ms",
                publish.id,
                publish.domain,
                publish.app,
                publish.stream,
                publish.client,
                publish.flash_ver,
                publish.started_ms
            ),
        ),
        Line::Segment {
            first,
            end,
            body_bytes,
            batches,
            tags,
            video_units,
            audio_units,
            first_ms,
            last_ms,
            torn_bytes,
            index,
        } => (
            "             first              end     body bytes batches   tags  video  audio     first ms      last ms  index",
            format!(
                "{first:>18} {end:>16} {:>14} {batches:>7} {tags:>6} {video_units:>6} {audio_units:>6} {:>12} {:>12}  {}{}",
                body_bytes.map_or_else(|| "gone".to_owned(), |bytes| bytes.to_string()),
                ms(first_ms),
                ms(last_ms),
                format!("{index:?}").to_lowercase(),
                if *torn_bytes > 0 {
                    format!(", {torn_bytes} bytes torn")
                } else {
                    String::new()
                },
            ),
        ),
        Line::Damaged { from, to } => ("", format!("  cannot be read: {from} to {to}, {} bytes", to - from)),
        Line::Control { at, wall_ms, control } => ("", format!("  {at:>16} at {wall_ms} ms: {control:?}")),
        Line::Batch {
            at,
            kind,
            payload_bytes,
            tags,
            keys,
            base_ms,
            wall_ms,
            first_ms,
            last_ms,
        } => (
            "             batch    kind  payload  tags  keys      base ms        wall ms     first ms      last ms",
            format!(
                "{at:>18} {kind:>7} {payload_bytes:>8} {tags:>5} {keys:>5} {base_ms:>12} {wall_ms:>14} {:>12} {:>12}",
                ms(first_ms),
                ms(last_ms)
            ),
        ),
        Line::Total {
            end,
            video_units,
            audio_units,
            tag_bytes,
            first_ms,
            last_ms,
            random_access,
            closed,
        } => (
            "",
            format!(
                "total: {video_units} video and {audio_units} audio units, {tag_bytes} bytes of tags, {} to {} ms, \
                 last random access at {}, end {end}, {}",
                ms(first_ms),
                ms(last_ms),
                random_access.map_or_else(|| "-".to_owned(), |at| at.to_string()),
                if *closed { "closed" } else { "not closed" },
            ),
        ),
        Line::Slot {
            file,
            place_bytes,
            sequences,
            payload_bytes,
        } => (
            "",
            format!(
                "state {file}: places of {place_bytes} bytes, sequences {sequences:?}, payload {payload_bytes:?} bytes"
            ),
        ),
        Line::Temporary { file } => ("", format!("left over: {file}")),
    }
}

/// What became of a segment.
struct Looked {
    index: SegmentIndex,
    body_bytes: Option<u64>,
    torn_bytes: u64,
    damaged: Vec<(u64, u64)>,
    state: IndexState,
}

fn look(dir: &Path, first: u64, present: Present, before: Option<&SegmentIndex>) -> Result<Looked, JournalError> {
    let on_disk = index::load(dir, first)?;
    if !present.bodies {
        let index = on_disk.ok_or(JournalError::IndexLost { first: Position(first) })?;
        return Ok(Looked {
            index,
            body_bytes: None,
            torn_bytes: 0,
            damaged: Vec::new(),
            state: IndexState::Alone,
        });
    }
    let rebuilt = rebuild::segment(dir, first, before.map(|index| &index.head), None)?;
    let end = rebuilt.index.head.totals.end.0;
    let mut damaged = rebuilt.damaged;
    let state = match &on_disk {
        Some(index) if index.groups == rebuilt.index.groups && index.head.totals.end.0 == end => IndexState::Agrees,
        Some(_) => IndexState::Differs,
        None if present.index => IndexState::Damaged,
        None => IndexState::None,
    };
    if let Some(written) = on_disk
        .as_ref()
        .map(|index| index.head.totals.end.0)
        .filter(|&written| written > end)
    {
        damaged.push((end, written));
    }
    Ok(Looked {
        body_bytes: Some(rebuilt.file_end - first),
        torn_bytes: rebuilt.file_end - end,
        index: on_disk
            .filter(|index| index.head.totals.end.0 > end)
            .unwrap_or(rebuilt.index),
        damaged,
        state,
    })
}

/// One batch of an index.
struct BatchSeen {
    at: u64,
    kind: &'static str,
    payload_len: u32,
    tags: u32,
    base_ms: i64,
    wall_ms: i64,
    units: Vec<media::access_unit::UnitInfo>,
    control: Option<Control>,
}

fn walk(index: &SegmentIndex, mut see: impl FnMut(BatchSeen)) {
    let mut walk = Walk::default();
    while !walk.is_done(&index.groups) {
        let Some(group) = walk.next_group(&index.groups) else {
            return;
        };
        let mut control = None;
        if group.kind == BatchKind::Control {
            control = Some(serde_json::from_slice(walk.json(&index.groups)).unwrap_or(Control::Unknown));
        }
        let mut units = Vec::new();
        while let Some((entry, _)) = walk.next_entry(&index.groups) {
            units.push(entry.info(group.base_ms, group.wall_ms));
        }
        walk.finish_group();
        see(BatchSeen {
            at: index.head.first + u64::from(group.offset),
            kind: match group.kind {
                BatchKind::Media => "media",
                BatchKind::Control => "control",
                BatchKind::Unknown(_) => "unknown",
            },
            payload_len: group.payload_len,
            tags: group.units,
            base_ms: group.base_ms,
            wall_ms: group.wall_ms,
            units,
            control,
        });
    }
}

fn slot_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "slot") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn first_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}
