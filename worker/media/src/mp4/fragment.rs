//! [`Fragmenter`]: an initialisation segment and movie fragments, as HLS segments hold them. ISO/IEC 14496-12 §8.8; RFC 8216 §3.3.

use alloc::vec::Vec;
use core::mem;

use bytes::BufMut;

use super::{
    Layout, Take,
    boxes::{boxed, counted_box, full_box, set_u32},
    entry::{self, Rate},
    layout::Placed,
    reason,
    track::{DEFAULT_BASE_IS_MOOF, OTHER_SAMPLE, SYNC_SAMPLE, TRUN_FIELDS, put_mdia, put_mvhd, put_tkhd, track_id},
};
use crate::access_unit::{Codec, Track, UnitInfo};

/// A fragment is written when this much coded data has gathered, so that memory does not grow with a segment. One unit
/// (at most 16 MiB) may come on top.
pub const FRAGMENT_BYTES: usize = 1 << 20;

/// All that must be remembered from one segment to the next, besides the decoder configurations. Plain values, to be
/// persisted as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Added to each decode time, milliseconds; a unit that would be decoded before 0 is refused by name.
    pub offset_ms: i64,
    /// Fragments written so far, modulo 2^32.
    pub fragments: u32,
    /// The initialisation segment in force lists pictures.
    pub video: bool,
    /// The initialisation segment in force lists sound.
    pub audio: bool,
}

/// Writes the units of one segment as fragments, and says which initialisation segment they need.
///
/// Each track's times run at [`super::TIMESCALE`] without an edit list: a decode time is the publish's plus
/// [`State::offset_ms`], a presentation time comes out as received. A sample lasts until the next of its track; the last of
/// a segment as long as the one before it.
///
/// The same units after the same state give the same bytes.
#[derive(Debug, Clone)]
pub struct Fragmenter {
    state: State,
    layout: Layout,
    video: Pending,
    audio: Pending,
}

/// Samples of a track that are in no fragment yet.
#[derive(Debug, Clone, Default)]
struct Pending {
    samples: Vec<Sample>,
    data: Vec<u8>,
    /// How long the sample before the first of these lasted.
    last_duration: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    dts_ms: i64,
    cto_ms: i32,
    size: u32,
    key: bool,
}

impl Fragmenter {
    /// Begins a segment with the configurations then in force (see [`Layout::push`] for their shape).
    #[must_use]
    pub fn new(state: State, configs: &[(Codec, Track, &[u8])]) -> Self {
        Self {
            state,
            layout: Layout::with_configs(configs),
            video: Pending::default(),
            audio: Pending::default(),
        }
    }

    /// What to persist in order to go on behind the fragments written so far.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes a unit, or a decoder configuration (see [`Layout::push`]); `data` is its coded data, which `unit` tells the
    /// length of. Appends a fragment when [`FRAGMENT_BYTES`] have gathered.
    ///
    /// After [`Take::NewFile`] the segment must end, and the next begin under another initialisation segment.
    pub fn push(&mut self, unit: &UnitInfo, config: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) -> Take {
        if unit.dts_ms.saturating_add(self.state.offset_ms) < 0 {
            return match self.layout.push(unit, config) {
                Take::Yes => Take::Skip(reason::TIME_OUT_OF_RANGE),
                other => other,
            };
        }
        let placed = match self.layout.place(unit, config) {
            Ok(placed) => placed,
            Err(other) => return other,
        };
        if placed.entry > 0 {
            return Take::NewFile(reason::CONFIGURATION_CHANGED);
        }
        match placed.track {
            Track::Video => {
                self.state.video = true;
                self.video.push(&placed, data);
            }
            Track::Audio => {
                self.state.audio = true;
                self.audio.push(&placed, data);
            }
        }
        if self.video.data.len() + self.audio.data.len() >= FRAGMENT_BYTES {
            self.flush(false, out);
        }
        Take::Yes
    }

    /// Appends what is left: the end of the segment.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.flush(true, out);
    }

    /// The initialisation segment that the fragments need: every track of [`State`], which grows with each unit taken.
    /// `None` while it lists no track.
    #[must_use]
    pub fn init(&self) -> Option<Vec<u8>> {
        let listed = [(Track::Video, self.state.video), (Track::Audio, self.state.audio)];
        let tracks: Vec<_> = listed
            .into_iter()
            .filter(|(_, listed)| *listed)
            .filter_map(|(track, _)| Some((track, self.layout.track(track).leading()?)))
            .collect();
        if tracks.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(1024);
        // `iso6` for composition offsets below 0 in fragments whose base is their own `moof`.
        boxed(&mut out, b"ftyp", |out| {
            out.put_slice(b"iso6");
            out.put_u32(0);
            out.put_slice(b"iso6mp41");
        });
        boxed(&mut out, b"moov", |out| {
            put_mvhd(out, 0, 0);
            for &(track, configuration) in &tracks {
                boxed(out, b"trak", |out| {
                    put_tkhd(out, track, 0, 0, core::slice::from_ref(configuration));
                    put_mdia(out, track, 0, 0, |out| {
                        counted_box(out, b"stsd", 0, |out| {
                            entry::put_sample_entry(out, configuration, Rate::default());
                            1
                        });
                        for table in [b"stts", b"stsc", b"stco"] {
                            counted_box(out, table, 0, |_| 0);
                        }
                        full_box(out, b"stsz", 0, 0, |out| out.put_bytes(0, 8));
                    });
                });
            }
            boxed(out, b"mvex", |out| {
                for &(track, _) in &tracks {
                    // §8.8.3: no defaults but the first sample entry.
                    full_box(out, b"trex", 0, 0, |out| {
                        out.put_u32(track_id(track));
                        out.put_u32(1);
                        out.put_bytes(0, 12);
                    });
                }
            });
        });
        Some(out)
    }

    /// Appends a fragment. Unless it is the segment's last, each track keeps its last sample, which lasts until one that
    /// has not come yet.
    fn flush(&mut self, last: bool, out: &mut Vec<u8>) {
        let nominal = |track| {
            let configuration = self.layout.track(track).leading();
            configuration.map_or(0, entry::nominal_duration_ms)
        };
        let ends = [Track::Video, Track::Audio].map(|track| last.then(|| nominal(track)));
        let runs = [
            (Track::Video, self.video.take(ends[0])),
            (Track::Audio, self.audio.take(ends[1])),
        ];
        if runs.iter().all(|(_, run)| run.samples.is_empty()) {
            return;
        }
        self.state.fragments = self.state.fragments.wrapping_add(1);
        let start = out.len();
        let mut offsets = [None, None];
        boxed(out, b"moof", |out| {
            full_box(out, b"mfhd", 0, 0, |out| out.put_u32(self.state.fragments));
            for ((track, run), offset) in runs.iter().zip(&mut offsets) {
                if !run.samples.is_empty() {
                    *offset = Some(run.put_traf(out, *track, self.state.offset_ms));
                }
            }
        });
        const BOX_HEADER: usize = 8;
        let mut at = out.len() - start + BOX_HEADER;
        let len: usize = runs.iter().map(|(_, run)| run.data.len()).sum();
        // At most FRAGMENT_BYTES and one unit: far below what 32 bits hold.
        out.put_u32(u32::try_from(len + BOX_HEADER).unwrap_or(u32::MAX));
        out.put_slice(b"mdat");
        for ((_, run), offset) in runs.iter().zip(offsets) {
            if let Some(offset) = offset {
                set_u32(out, offset, u32::try_from(at).unwrap_or(u32::MAX));
            }
            out.put_slice(&run.data);
            at += run.data.len();
        }
    }
}

/// Samples of one track within a fragment.
struct Run {
    samples: Vec<(Sample, u32)>,
    data: Vec<u8>,
}

impl Pending {
    fn push(&mut self, unit: &Placed, data: &[u8]) {
        self.samples.push(Sample {
            dts_ms: unit.dts_ms,
            cto_ms: unit.cto_ms,
            size: unit.size,
            key: unit.key,
        });
        self.data.extend_from_slice(data);
    }

    /// Takes the samples whose durations are known; with `end`, all of them: the last lasts as long as the one before it, or
    /// `end` if it is alone.
    fn take(&mut self, end: Option<u32>) -> Run {
        let mut samples = Vec::with_capacity(self.samples.len());
        for pair in self.samples.windows(2) {
            if let [sample, next] = pair {
                let duration = u32::try_from(next.dts_ms - sample.dts_ms).unwrap_or(0);
                self.last_duration = Some(duration);
                samples.push((*sample, duration));
            }
        }
        let mut kept = self.samples.last().copied();
        if let Some(nominal) = end {
            samples.extend(
                kept.take()
                    .map(|sample| (sample, self.last_duration.unwrap_or(nominal))),
            );
        }
        let kept_len = kept.map_or(0, |sample| usize::try_from(sample.size).unwrap_or(0));
        let kept_data = self.data.split_off(self.data.len() - kept_len.min(self.data.len()));
        self.samples.clear();
        self.samples.extend(kept);
        Run {
            samples,
            data: mem::replace(&mut self.data, kept_data),
        }
    }
}

impl Run {
    /// Appends `traf` (§8.8.6 to §8.8.12); gives the place of the data offset, which is counted from the `moof`'s first byte.
    fn put_traf(&self, out: &mut Vec<u8>, track: Track, offset_ms: i64) -> usize {
        let first_dts_ms = self.samples.first().map_or(0, |(sample, _)| sample.dts_ms);
        let mut data_offset = 0;
        boxed(out, b"traf", |out| {
            full_box(out, b"tfhd", 0, DEFAULT_BASE_IS_MOOF, |out| {
                out.put_u32(track_id(track))
            });
            full_box(out, b"tfdt", 1, 0, |out| {
                out.put_u64(u64::try_from(first_dts_ms.saturating_add(offset_ms)).unwrap_or(0));
            });
            full_box(out, b"trun", 1, TRUN_FIELDS, |out| {
                out.put_u32(u32::try_from(self.samples.len()).unwrap_or(u32::MAX));
                data_offset = out.len();
                out.put_u32(0);
                for (sample, duration) in &self.samples {
                    out.put_u32(*duration);
                    out.put_u32(sample.size);
                    out.put_u32(if sample.key { SYNC_SAMPLE } else { OTHER_SAMPLE });
                    out.put_i32(sample.cto_ms);
                }
            });
        });
        data_offset
    }
}
