//! [`HeadBuilder`]: composes what stands in front of the body.

use alloc::vec::Vec;

use bytes::BufMut;

use super::{
    HEAD_ALIGNMENT, Layout, Mp4Error, Take,
    boxes::{boxed, counted_box, put_time},
    entry,
    layout::Configuration,
    sample_log::{SampleLog, Summary},
    tables::{self, ChunkOffsets},
    track::{put_mdia, put_mvhd, put_tkhd, version_for},
};
use crate::access_unit::{Codec, Track, UnitInfo};

/// From the epoch of the format's times, the beginning of 1904, to that of Unix.
const EPOCH_1904_S: i64 = 2_082_844_800;
/// What a head holds besides sample tables and decoder configurations, padding included, generously.
const FIXED_BYTES: u64 = 2 * HEAD_ALIGNMENT as u64;
/// What a sample entry holds besides its decoder configuration, generously.
const ENTRY_BYTES: usize = 256;
/// A longer distance between the last two decode times is taken for a pause, not for how long a sample lasts.
const MAX_LAST_DURATION_MS: u32 = 1000;

/// A track with leading pictures that begins no later than this has no edit list. Longer, and its presentation times would
/// stand too far from its decode times.
const MAX_COMPOSED_START_MS: u64 = 10_000;

/// Composes the head of a file from the units that were offered to it, in the same order as to [`Layout`].
///
/// Memory: some seven bytes a unit until [`Self::finish`], which adds the head itself (some 20 bytes a unit).
#[derive(Debug, Clone)]
pub struct HeadBuilder {
    layout: Layout,
    video: SampleLog,
    audio: SampleLog,
    created_ms: i64,
}

impl HeadBuilder {
    /// A head for a file that begins with these configurations in force (see [`Layout::push`] for their shape).
    /// `created_ms`, milliseconds since the Unix epoch, becomes the movie's creation time, in whole seconds.
    #[must_use]
    pub fn new(start_configs: &[(Codec, Track, &[u8])], created_ms: i64) -> Self {
        Self {
            layout: Layout::with_configs(start_configs),
            video: SampleLog::default(),
            audio: SampleLog::default(),
            created_ms,
        }
    }

    /// Notes a unit. The answer is [`Layout::push`]'s to the same questions; only `Take::Yes` changes the head.
    pub fn push(&mut self, unit: &UnitInfo, config: Option<&[u8]>) -> Take {
        match self.layout.place(unit, config) {
            Ok(placed) => {
                match placed.track {
                    Track::Video => self.video.push(&placed),
                    Track::Audio => self.audio.push(&placed),
                }
                Take::Yes
            }
            Err(other) => other,
        }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of the body that the head describes.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.layout.body_len()
    }

    /// Bytes of memory that the units noted so far take.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        self.video.memory_len() + self.audio.memory_len()
    }

    /// Where the movie begins, in milliseconds of the publish's timeline: its earliest presentation time. `None` without units.
    #[must_use]
    pub fn start_ms(&self) -> Option<i64> {
        self.summaries().map(|summary| summary.first_pts_ms).min()
    }

    /// How long the movie says it is, milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.start_ms().map_or(0, |start_ms| {
            self.tracks(start_ms)
                .map(|track| track.movie_duration())
                .max()
                .unwrap_or(0)
        })
    }

    /// Composes `ftyp`, `moov`, `free` and the header of `mdat`: a multiple of [`HEAD_ALIGNMENT`] bytes, to be followed by
    /// the body, [`Self::body_len`] bytes, and nothing else.
    ///
    /// # Errors
    ///
    /// [`Mp4Error::Empty`] if no unit was taken.
    pub fn finish(self) -> Result<Vec<u8>, Mp4Error> {
        let start_ms = self.start_ms().ok_or(Mp4Error::Empty)?;
        let body_len = self.body_len();
        let wide = body_len + self.len_bound(start_ms, false) > u64::from(u32::MAX);
        let most = self.len_bound(start_ms, wide);
        if most > u64::from(u32::MAX) {
            return Err(Mp4Error::TooLarge(most));
        }

        let mut head = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
        put_ftyp(&mut head);
        let mut offsets = [None, None];
        boxed(&mut head, b"moov", |out| {
            put_mvhd(out, self.created(), self.duration_ms());
            for (track, offsets) in self.tracks(start_ms).zip(&mut offsets) {
                *offsets = Some(track.put_trak(out, self.created(), wide));
            }
        });
        put_padding_and_mdat(&mut head, body_len);
        let len = head.len() as u64;
        for offsets in offsets.iter().flatten() {
            offsets.add(&mut head, len);
        }
        Ok(head)
    }

    /// Bytes that the head takes at most.
    fn len_bound(&self, start_ms: i64, wide: bool) -> u64 {
        let tables: u64 = self.summaries().map(|summary| tables::len_bound(summary, wide)).sum();
        let entries = self.tracks(start_ms).flat_map(|track| track.entries);
        let entries: usize = entries.map(|entry| entry.record.len() + ENTRY_BYTES).sum();
        FIXED_BYTES + tables + entries as u64
    }

    fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.video.summary().into_iter().chain(self.audio.summary())
    }

    /// The tracks that have samples: video, then audio.
    fn tracks(&self, start_ms: i64) -> impl Iterator<Item = TrackHead<'_>> {
        let heads = [(Track::Video, &self.video), (Track::Audio, &self.audio)];
        heads.into_iter().filter_map(move |(kind, log)| {
            let summary = log.summary()?;
            let entries = self.layout.track(kind).entries();
            Some(TrackHead::new(kind, log, summary, entries, start_ms))
        })
    }

    /// Seconds since 1904.
    fn created(&self) -> u64 {
        u64::try_from(self.created_ms.div_euclid(1000).saturating_add(EPOCH_1904_S)).unwrap_or(0)
    }
}

/// One track with samples, and its place in the movie.
struct TrackHead<'a> {
    kind: Track,
    log: &'a SampleLog,
    summary: &'a Summary,
    entries: &'a [Configuration],
    last_duration: u32,
    /// From the earliest presentation time to the end of the last.
    presented: u64,
    start: Start,
}

/// How a track says when its presentation begins.
struct Start {
    /// Added to each composition offset.
    shift: i64,
    /// Duration of an empty edit, then media time at which the track begins; `None`: no edit list, media time is movie time.
    edit: Option<(u64, u64)>,
}

impl Start {
    /// For a track whose earliest presentation time is `delay` after the movie's.
    ///
    /// FFmpeg looks for a sync sample at or before the beginning of an edit, and complains where there is none. So it is with a
    /// file cut in front of an open group of pictures, whose leading pictures are presented before the sync sample.
    /// There, the composition offsets say when to begin; they may go below 0 for it.
    fn new(summary: &Summary, delay: u64) -> Self {
        let lead = summary.first_pts_ms - summary.first_dts_ms;
        if !summary.starts_clean && delay <= MAX_COMPOSED_START_MS {
            return Self {
                shift: delay.cast_signed() - lead,
                edit: None,
            };
        }
        // An edit can begin at media time 0 at the earliest, where the first decode time stands.
        let shift = (-lead).max(0);
        Self {
            shift,
            edit: Some((delay, (lead + shift).unsigned_abs())),
        }
    }
}

impl<'a> TrackHead<'a> {
    fn new(kind: Track, log: &'a SampleLog, summary: &'a Summary, entries: &'a [Configuration], start_ms: i64) -> Self {
        let nominal = entries.last().map_or(1, entry::nominal_duration_ms);
        let last_duration = match summary.last_delta_ms {
            known @ 1..=MAX_LAST_DURATION_MS => known,
            _ => nominal,
        };
        let presented = distance(summary.first_pts_ms, summary.last_pts_ms) + u64::from(last_duration);
        let mut start = Start::new(summary, distance(start_ms, summary.first_pts_ms));
        let media_duration = distance(summary.first_dts_ms, summary.last_dts_ms) + u64::from(last_duration);
        if start.edit == Some((0, 0)) && presented == media_duration {
            start.edit = None;
        }
        Self {
            kind,
            log,
            summary,
            entries,
            last_duration,
            presented,
            start,
        }
    }

    /// The sum of the edits; of the samples, where there is no edit list. §8.3.2.3.
    fn movie_duration(&self) -> u64 {
        self.start
            .edit
            .map_or(self.media_duration(), |(empty, _)| empty + self.presented)
    }

    fn media_duration(&self) -> u64 {
        distance(self.summary.first_dts_ms, self.summary.last_dts_ms) + u64::from(self.last_duration)
    }

    /// §8.3.1.
    fn put_trak(&self, out: &mut Vec<u8>, created: u64, wide: bool) -> ChunkOffsets {
        let mut offsets = ChunkOffsets::default();
        boxed(out, b"trak", |out| {
            put_tkhd(out, self.kind, created, self.movie_duration(), self.entries);
            self.put_edts(out);
            put_mdia(out, self.kind, created, self.media_duration(), |out| {
                offsets = self.put_tables(out, wide);
            });
        });
        offsets
    }

    /// An empty edit up to the track's beginning, then the track from its earliest presentation time. §8.6.6.
    fn put_edts(&self, out: &mut Vec<u8>) {
        let Some((empty, media_time)) = self.start.edit else {
            return;
        };
        let fits = media_time <= u64::from(i32::MAX.unsigned_abs());
        let version = if fits { version_for(&[empty, self.presented]) } else { 1 };
        let put_edit = |out: &mut Vec<u8>, duration: u64, media_time: u64| {
            put_time(out, version, duration);
            put_time(out, version, media_time);
            out.put_u32(0x1_0000); // at normal speed
        };
        let none = if version == 0 { u64::from(u32::MAX) } else { u64::MAX };
        boxed(out, b"edts", |out| {
            counted_box(out, b"elst", version, |out| {
                if empty > 0 {
                    put_edit(out, empty, none);
                }
                put_edit(out, self.presented, media_time);
                1 + u32::from(empty > 0)
            });
        });
    }

    fn put_tables(&self, out: &mut Vec<u8>, wide: bool) -> ChunkOffsets {
        counted_box(out, b"stsd", 0, |out| {
            self.entries
                .iter()
                .map(|configuration| entry::put_sample_entry(out, configuration, self.summary.rate()))
                .fold(0, |n, ()| n + 1)
        });
        tables::put_stts(out, self.log, self.last_duration);
        tables::put_ctts(out, self.log, self.summary, self.start.shift);
        tables::put_stss(out, self.log, self.summary);
        tables::put_stsc(out, self.log);
        tables::put_stsz(out, self.log, self.summary);
        tables::put_chunk_offsets(out, self.log, wide)
    }
}

/// §4.3. `iso4` for composition offsets below 0, `iso2` for edit lists.
fn put_ftyp(out: &mut Vec<u8>) {
    boxed(out, b"ftyp", |out| {
        out.put_slice(b"isom");
        out.put_u32(0x200);
        out.put_slice(b"isomiso2iso4mp41");
    });
}

/// `free` (§8.1.2) up to where the header of `mdat` (§8.1.1) ends on a multiple of [`HEAD_ALIGNMENT`].
fn put_padding_and_mdat(out: &mut Vec<u8>, body_len: u64) {
    const BOX_HEADER: usize = 8;
    let short = u32::try_from(body_len + BOX_HEADER as u64).ok();
    let header = if short.is_some() { BOX_HEADER } else { BOX_HEADER + 8 };
    let padding = (out.len() + BOX_HEADER + header).next_multiple_of(HEAD_ALIGNMENT) - out.len() - BOX_HEADER - header;
    boxed(out, b"free", |out| out.put_bytes(0, padding));
    out.put_u32(short.unwrap_or(1));
    out.put_slice(b"mdat");
    if short.is_none() {
        out.put_u64(body_len + header as u64);
    }
}

/// From `from_ms` to `to_ms`, which is not before it.
fn distance(from_ms: i64, to_ms: i64) -> u64 {
    u64::try_from(to_ms - from_ms).unwrap_or(0)
}
