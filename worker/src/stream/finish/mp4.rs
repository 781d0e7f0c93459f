//! One MP4 of all pushes of a recording: its body is what the fragments of the final playlist hold, segment after segment; its head is
//! composed of what they say of it.
//!
//! Nothing is kept between two tries: what it reads stays as it is, so the same file comes out. A segment that is not there or that cannot be
//! read is a gap by name, and no reason to have no file.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use media::hls;
use media::mp4::{self, Config, Gaps, Segment, Span, Stitcher, Take, read_init};
use shared::ids::RecordingId;
use shared::lease::Epoch;
use shared::recording::{FinishedFile, Gap, MediaFile, join_gaps};
use shared::template::{Format, Mp4Stitch};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::compose::window::{Found, SEGMENT_DAMAGED, WINDOW, Window};
use crate::record::crc;
use crate::upload::{Growing, Sites};

/// Files that are composed at a time: each has the first part, the one being filled and a stretch of a segment in memory.
const AT_ONCE: usize = 2;
/// Epochs of others that were to finish a recording, of which uploads are looked for, the latest.
const MAX_OTHERS: usize = 8;

/// Composes files, a few at a time.
#[derive(Debug, Clone)]
pub(crate) struct Composer {
    objects: Sites,
    turns: Arc<Semaphore>,
}

/// What is to be composed.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) recording: RecordingId,
    /// The recording's folder.
    pub(crate) root: &'a str,
    /// The file is written under this one; the playlist lies with it.
    pub(crate) epoch: Epoch,
    /// The last push's. Between the two lie those of others that were to finish it.
    pub(crate) behind: Epoch,
    pub(crate) stitch: Mp4Stitch,
    /// What object storage is told of it; none: what the settings say.
    pub(crate) storage_class: Option<&'a str>,
    /// The final playlist's.
    pub(crate) segments: &'a [hls::Segment],
    /// What the playlist's record says is missing, by the playlist's time.
    pub(crate) gaps: &'a [Gap],
    /// Wall clock of the first unit, milliseconds since the Unix epoch.
    pub(crate) start_ms: i64,
}

/// A stretch of the playlist that is one push's, by the playlist's time.
type Stretch = Range<i64>;

/// The file in hand.
struct Open {
    stitcher: Stitcher,
    file: Growing,
    sequence: u32,
    key: String,
    start_ms: i64,
    /// As many as the stitcher has pushes.
    stretches: Vec<Stretch>,
    /// What is missing of the file beside what the playlist's record says.
    gaps: Vec<Gap>,
}

/// Where in the playlist it is.
#[derive(Default)]
struct Walk {
    /// Length of the segments before.
    at_ms: i64,
    /// Wall clock there.
    wall_ms: Option<i64>,
    /// The folder of the push in hand.
    folder: String,
    /// Nothing of that push is in the file yet.
    joins: bool,
    configs: Vec<Config>,
}

impl Composer {
    pub(crate) fn new(objects: Sites) -> Self {
        Self {
            objects,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The files of an order that another has composed and written down, if they are all there.
    pub(crate) async fn written(&self, order: &Order<'_>, known: &[MediaFile]) -> io::Result<Vec<MediaFile>> {
        let mut found = Vec::new();
        for sequence in 0.. {
            let id = MediaFile::id_of(order.recording, &file_id(order, sequence));
            let Some(file) = known.iter().find(|file| file.id == id) else {
                break;
            };
            let there = self.objects.read(&file.object_key, 0, 1).await?;
            if there.is_none_or(|there| there.of != file.size) {
                return Ok(Vec::new());
            }
            found.push(file.clone());
        }
        Ok(found)
    }

    /// Composes the files of an order: one, or one more wherever a file cannot go on (H.264 then HEVC).
    pub(crate) async fn compose(&self, order: &Order<'_>) -> io::Result<Vec<FinishedFile>> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let others = (order.behind.get() + 1..order.epoch.get()).rev().take(MAX_OTHERS);
        for epoch in others.map(Epoch::new) {
            let prefix = format!("{}/{}/mp4/", order.root, epoch.path_component());
            self.objects.abandon(&prefix).await?;
        }
        let mut files = Vec::new();
        let mut open: Option<Open> = None;
        let mut walk = Walk::default();
        for segment in order.segments {
            let length_ms = i64::from(segment.duration_ms);
            let (key, mut window) = self.enter(order, segment, &mut walk).await?;
            let read = match walk.configs.is_empty() {
                true => Err(SEGMENT_DAMAGED),
                false => window.segment().await?,
            };
            let stretch = walk.at_ms..walk.at_ms + length_ms;
            let placed = match read {
                Ok(found) => {
                    let mut placed = self.place(order, &mut open, &walk, &found, files.len()).await?;
                    if let Err(Refused::NewFile) = placed {
                        files.extend(close(order, open.take()).await?);
                        placed = self.place(order, &mut open, &walk, &found, files.len()).await?;
                    }
                    match (placed, &mut open) {
                        (Ok(()), Some(open)) => {
                            open.grow(&mut window, &found, walk.joins, stretch.clone()).await?;
                            walk.joins = false;
                            Ok(())
                        }
                        (Err(Refused::Never(reason)), _) => Err(reason),
                        _ => Err(mp4::reason::TOO_MANY_UNITS),
                    }
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = placed {
                warn!(key, reason, "a segment is left out of the MP4 of all pushes");
                if let Some(open) = &mut open {
                    open.leave_out(reason, stretch);
                }
            }
            walk.at_ms += length_ms;
            walk.wall_ms = walk.wall_ms.map(|wall| wall + length_ms);
        }
        files.extend(close(order, open).await?);
        Ok(files)
    }

    /// Notes what the playlist says of a segment; gives its key and what reads it.
    async fn enter<'a>(
        &'a self,
        order: &Order<'_>,
        segment: &hls::Segment,
        walk: &mut Walk,
    ) -> io::Result<(String, Window<'a>)> {
        let key = resolve(order, &segment.uri);
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        if walk.folder != folder {
            folder.clone_into(&mut walk.folder);
            walk.joins = true;
            walk.wall_ms = None;
        }
        walk.wall_ms = segment.program_date_time_ms.or(walk.wall_ms);
        if let Some(map) = &segment.map {
            let init = self.objects.read(&resolve(order, map), 0, WINDOW).await?;
            let configs = init.and_then(|init| read_init(&init.bytes).ok());
            walk.configs = configs.unwrap_or_default();
        }
        let window = Window::new(&self.objects, key.clone());
        Ok((key, window))
    }

    /// Puts a segment into the head of the open file, or of a new one where none is open.
    async fn place(
        &self,
        order: &Order<'_>,
        open: &mut Option<Open>,
        walk: &Walk,
        found: &Found,
        sequence: usize,
    ) -> io::Result<Result<(), Refused>> {
        let begins = open.is_none();
        let file = match open {
            Some(open) => open,
            None => {
                let start_ms = walk.wall_ms.filter(|_| sequence > 0).unwrap_or(order.start_ms);
                let sequence = u32::try_from(sequence).unwrap_or(u32::MAX);
                let key = format!("{}/{}/mp4/{sequence:06}.mp4", order.root, order.epoch.path_component());
                let staged = format!("{}-{}-stitched-{sequence:06}.mp4", order.recording, order.epoch);
                let gaps = match order.stitch {
                    Mp4Stitch::Keep => Gaps::Keep,
                    Mp4Stitch::Close => Gaps::Close,
                };
                open.insert(Open {
                    stitcher: Stitcher::new(gaps, start_ms),
                    file: self.objects.grow(staged, key.clone(), order.storage_class).await?,
                    sequence,
                    key,
                    start_ms,
                    stretches: Vec::new(),
                    gaps: Vec::new(),
                })
            }
        };
        let segment = Segment {
            configs: &walk.configs,
            samples: &found.samples,
            joins: walk.joins,
            wall_ms: walk.wall_ms,
        };
        Ok(match file.stitcher.push(&segment) {
            Take::Yes => Ok(()),
            Take::NewFile(_) if !begins => Err(Refused::NewFile),
            Take::NewFile(reason) | Take::Skip(reason) => Err(Refused::Never(reason)),
            Take::NotAUnit => Err(Refused::Never(SEGMENT_DAMAGED)),
        })
    }
}

/// Why a segment is not in the file.
enum Refused {
    /// It can be in the next.
    NewFile,
    /// It can be in none.
    Never(&'static str),
}

fn file_id(order: &Order<'_>, sequence: u32) -> String {
    format!("{}-mp4-stitched-{sequence:06}", order.recording)
}

/// The key that a playlist of the order's epoch names so.
fn resolve(order: &Order<'_>, uri: &str) -> String {
    match uri.strip_prefix("../../") {
        Some(elsewhere) => format!("{}/{elsewhere}", order.root),
        None => format!("{}/{}/hls/{uri}", order.root, order.epoch.path_component()),
    }
}

/// Ends a file, if one is open and has anything.
async fn close(order: &Order<'_>, open: Option<Open>) -> io::Result<Option<FinishedFile>> {
    let Some(open) = open.filter(|open| open.file.len() > 0) else {
        return Ok(None);
    };
    let Open {
        stitcher,
        file,
        sequence,
        key,
        start_ms,
        stretches,
        gaps: mut left_out,
    } = open;
    let placed: Vec<(Stretch, Span)> = stretches.into_iter().zip(stitcher.pushes()).collect();
    let within = |gap: &&Gap| {
        let begin = placed.first().map_or(0, |(stretch, _)| stretch.start);
        let end = placed.last().map_or(0, |(stretch, _)| stretch.end);
        (begin..=end).contains(&gap.from_ms)
    };
    join_gaps(&mut left_out, order.gaps);
    let mut gaps = Vec::new();
    join_gaps(
        &mut gaps,
        &left_out
            .iter()
            .filter(within)
            .map(|gap| moved(gap, &placed))
            .collect::<Vec<_>>(),
    );
    let (video_units, audio_units) = stitcher.units();
    let duration_ms = i64::try_from(stitcher.duration_ms()).unwrap_or(i64::MAX);
    let head = stitcher.finish().map_err(io::Error::other)?;
    let (size, checksum) = file.finish(head).await?;
    Ok(Some(FinishedFile {
        file_id: file_id(order, sequence),
        format: Format::Mp4,
        sequence,
        key,
        size,
        checksum: crc::text(checksum),
        duration_ms,
        start_ms,
        video_units,
        audio_units,
        gaps,
    }))
}

/// A gap of the playlist's time in the file's, where the time between two pushes may be longer.
fn moved(gap: &Gap, placed: &[(Stretch, Span)]) -> Gap {
    let within = |at: i64, (stretch, span): &(Stretch, Span)| {
        (span.from_ms + (at - stretch.start)).clamp(span.from_ms, span.to_ms)
    };
    // At a join one moment of the playlist is two of the file: the end of one push, and the beginning of the next.
    let ending = |at: i64| {
        let push = placed
            .iter()
            .rfind(|(stretch, _)| stretch.start < at)
            .or(placed.first());
        push.map_or(0, |push| match at >= push.0.end {
            true => push.1.to_ms,
            false => within(at, push),
        })
    };
    let beginning = |at: i64| {
        let push = placed.iter().find(|(stretch, _)| at < stretch.end).or(placed.last());
        push.map_or(0, |push| within(at, push))
    };
    let (from_ms, to_ms) = match gap.from_ms == gap.to_ms {
        true => (ending(gap.from_ms), beginning(gap.from_ms)),
        false => (beginning(gap.from_ms), ending(gap.to_ms)),
    };
    Gap {
        reason: gap.reason.clone(),
        from_ms,
        to_ms: to_ms.max(from_ms),
        units: gap.units,
    }
}

impl Open {
    /// Writes a segment's data behind what is there.
    async fn grow(&mut self, window: &mut Window<'_>, found: &Found, joins: bool, stretch: Stretch) -> io::Result<()> {
        for data in &found.data {
            let mut at = data.start;
            while at < data.end {
                let bytes = window.get(at, (data.end - at).min(WINDOW)).await?;
                let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
                    return Err(io::Error::other(format!(
                        "{} has changed while it was read",
                        window.key
                    )));
                };
                at += bytes.len() as u64;
                self.file.append(bytes).await?;
            }
        }
        match self.stretches.last_mut().filter(|_| !joins) {
            Some(last) => last.end = stretch.end,
            None => self.stretches.push(stretch),
        }
        Ok(())
    }

    fn leave_out(&mut self, reason: &str, stretch: Stretch) {
        let gap = Gap {
            reason: reason.to_owned(),
            from_ms: stretch.start,
            to_ms: stretch.end,
            units: 0,
        };
        join_gaps(&mut self.gaps, &[gap]);
    }
}
