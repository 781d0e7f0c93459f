//! [`Stitcher`]: one file of the segments of several pushes.

use alloc::vec::Vec;

use super::{
    HeadBuilder, Mp4Error, Take,
    segment::{Config, FragmentSample},
};
use crate::access_unit::{Codec, Track, UnitInfo, UnitKind};

/// A longer time between two pushes is taken for a clock that was wrong, and not kept: 24 hours.
pub const LONGEST_KEPT_GAP_MS: i64 = 86_400_000;

/// What becomes of the time between two pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// The next push begins as much later as the wall clock says: what was shown last stays.
    Keep,
    /// The next push begins where the one before ends.
    Close,
}

/// A segment to be put behind those before it.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The decoder configurations of its initialisation segment.
    pub configs: &'a [Config],
    /// Its samples, in the order of their data.
    pub samples: &'a [FragmentSample],
    /// Another push begins with it: its times have nothing to do with those before.
    pub joins: bool,
    /// Wall clock of its beginning, milliseconds since the Unix epoch, if it is known.
    pub wall_ms: Option<i64>,
}

/// Composes the head of a file whose body is the data of fragments, segment after segment. Within a push all distances in time stay as they are;
/// [`Gaps`] says how far apart pushes are. A push never begins before the one before it ends, whatever clocks say.
///
/// Memory: as of [`HeadBuilder`].
#[derive(Debug, Clone)]
pub struct Stitcher {
    gaps: Gaps,
    head: HeadBuilder,
    /// Added to the times of the push in hand.
    offset_ms: i64,
    /// Wall clock at time 0 of the file.
    wall_zero_ms: Option<i64>,
    ends: Option<Ends>,
    pushes: Vec<Span>,
    video_units: u64,
    audio_units: u64,
}

/// How far the file goes by now, on its own timeline.
#[derive(Debug, Clone, Copy)]
struct Ends {
    video_dts_ms: i64,
    audio_dts_ms: i64,
    pts_ms: i64,
}

/// When a push is shown, milliseconds from the file's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its earliest presentation time.
    pub from_ms: i64,
    /// The end of its last.
    pub to_ms: i64,
}

impl Stitcher {
    /// An empty file, made at `created_ms`, milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(gaps: Gaps, created_ms: i64) -> Self {
        Self {
            gaps,
            head: HeadBuilder::new(&[], created_ms),
            offset_ms: 0,
            wall_zero_ms: None,
            ends: None,
            pushes: Vec::new(),
            video_units: 0,
            audio_units: 0,
        }
    }

    /// Takes a segment whole, or not at all: then nothing has changed. [`Take::NewFile`]: it can begin the next file;
    /// [`Take::Skip`]: no file can hold it.
    pub fn push(&mut self, segment: &Segment<'_>) -> Take {
        let Some(bounds) = Bounds::of(segment.samples) else {
            return Take::NotAUnit;
        };
        let joins = segment.joins || self.ends.is_none();
        let offset_ms = if joins {
            self.offset(segment, &bounds)
        } else {
            self.offset_ms
        };
        let mut layout = self.head.layout().clone();
        for (codec, track, config) in segment.configs {
            let _ = layout.push(&config_unit(*codec, *track), Some(config));
        }
        for sample in segment.samples {
            match layout.push(&unit(segment.configs, sample, offset_ms), None) {
                Take::Yes => {}
                other => return other,
            }
        }
        for (codec, track, config) in segment.configs {
            let _ = self.head.push(&config_unit(*codec, *track), Some(config));
        }
        for sample in segment.samples {
            let _ = self.head.push(&unit(segment.configs, sample, offset_ms), None);
            match sample.track {
                Track::Video => self.video_units += 1,
                Track::Audio => self.audio_units += 1,
            }
        }
        self.offset_ms = offset_ms;
        if self.ends.is_none() {
            let wall = segment.wall_ms.map(|wall| wall.saturating_sub(bounds.first_dts_ms));
            self.wall_zero_ms = wall;
        }
        self.note(&bounds, joins);
        Take::Yes
    }

    /// What is to be added to a push's times.
    fn offset(&self, segment: &Segment<'_>, bounds: &Bounds) -> i64 {
        let Some(ends) = self.ends else { return 0 };
        let behind = [
            Some(ends.pts_ms - bounds.first_pts_ms),
            bounds.video_dts_ms.map(|first| ends.video_dts_ms - first),
            bounds.audio_dts_ms.map(|first| ends.audio_dts_ms - first),
        ];
        let closed = behind.into_iter().flatten().max().unwrap_or(0);
        let walls = segment.wall_ms.zip(self.wall_zero_ms);
        let (Gaps::Keep, Some((wall_ms, zero_ms))) = (self.gaps, walls) else {
            return closed;
        };
        let kept = wall_ms.saturating_sub(zero_ms).saturating_sub(bounds.first_dts_ms);
        match kept.saturating_sub(closed) {
            1..=LONGEST_KEPT_GAP_MS => kept,
            _ => closed,
        }
    }

    fn note(&mut self, bounds: &Bounds, joins: bool) {
        let at = |ms: i64| ms.saturating_add(self.offset_ms);
        let (from, to) = (at(bounds.first_pts_ms), at(bounds.end_pts_ms));
        let ends = self.ends.get_or_insert(Ends {
            video_dts_ms: i64::MIN / 2,
            audio_dts_ms: i64::MIN / 2,
            pts_ms: from,
        });
        ends.video_dts_ms = ends.video_dts_ms.max(bounds.video_end_ms.map_or(i64::MIN / 2, at));
        ends.audio_dts_ms = ends.audio_dts_ms.max(bounds.audio_end_ms.map_or(i64::MIN / 2, at));
        ends.pts_ms = ends.pts_ms.max(to);
        match self.pushes.last_mut().filter(|_| !joins) {
            Some(push) => {
                push.from_ms = push.from_ms.min(from);
                push.to_ms = push.to_ms.max(to);
            }
            None => self.pushes.push(Span {
                from_ms: from,
                to_ms: to,
            }),
        }
    }

    /// Bytes of the body so far.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.head.body_len()
    }

    /// Pictures and frames of sound so far.
    #[must_use]
    pub fn units(&self) -> (u64, u64) {
        (self.video_units, self.audio_units)
    }

    /// How long the file is, milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.head.duration_ms()
    }

    /// When each push is shown, in order.
    #[must_use]
    pub fn pushes(&self) -> Vec<Span> {
        let zero = self.head.start_ms().unwrap_or(0);
        let from_zero = |span: &Span| Span {
            from_ms: span.from_ms - zero,
            to_ms: span.to_ms - zero,
        };
        self.pushes.iter().map(from_zero).collect()
    }

    /// Composes the head; see [`HeadBuilder::finish`].
    ///
    /// # Errors
    /// [`Mp4Error`].
    pub fn finish(self) -> Result<Vec<u8>, Mp4Error> {
        self.head.finish()
    }
}

/// Where a segment begins and ends, on its push's timeline.
struct Bounds {
    first_dts_ms: i64,
    first_pts_ms: i64,
    end_pts_ms: i64,
    video_dts_ms: Option<i64>,
    audio_dts_ms: Option<i64>,
    video_end_ms: Option<i64>,
    audio_end_ms: Option<i64>,
}

impl Bounds {
    /// `None` without samples.
    fn of(samples: &[FragmentSample]) -> Option<Self> {
        let pts = |sample: &FragmentSample| sample.dts_ms.saturating_add(i64::from(sample.cto_ms));
        let lasts = |sample: &FragmentSample| i64::from(sample.duration_ms);
        let of = |track: Track| samples.iter().filter(move |sample| sample.track == track);
        let first = |track| of(track).map(|sample| sample.dts_ms).min();
        let end = |track| {
            of(track)
                .map(|sample| sample.dts_ms.saturating_add(lasts(sample)))
                .max()
        };
        Some(Self {
            first_dts_ms: samples.iter().map(|sample| sample.dts_ms).min()?,
            first_pts_ms: samples.iter().map(pts).min()?,
            end_pts_ms: samples
                .iter()
                .map(|sample| pts(sample).saturating_add(lasts(sample)))
                .max()?,
            video_dts_ms: first(Track::Video),
            audio_dts_ms: first(Track::Audio),
            video_end_ms: end(Track::Video),
            audio_end_ms: end(Track::Audio),
        })
    }
}

/// What tells the layout of a decoder configuration.
fn config_unit(codec: Codec, track: Track) -> UnitInfo {
    UnitInfo {
        kind: match track {
            Track::Video => UnitKind::VideoConfig,
            Track::Audio => UnitKind::AudioConfig,
        },
        codec,
        key: false,
        dts_ms: 0,
        cto_ms: 0,
        body_len: 0,
        header_len: 0,
        arrival_ms: 0,
    }
}

fn unit(configs: &[Config], sample: &FragmentSample, offset_ms: i64) -> UnitInfo {
    let codec = configs.iter().find(|(_, track, _)| *track == sample.track);
    UnitInfo {
        kind: match sample.track {
            Track::Video => UnitKind::Video,
            Track::Audio => UnitKind::Audio,
        },
        codec: codec.map_or(Codec::Other, |(codec, ..)| *codec),
        key: sample.key,
        dts_ms: sample.dts_ms.saturating_add(offset_ms),
        cto_ms: sample.cto_ms,
        body_len: sample.size,
        header_len: 0,
        arrival_ms: 0,
    }
}
