//! MPEG transport stream, as HLS segments hold it. ISO/IEC 13818-1; RFC 8216 §3.2.
//!
//! # Tour
//!
//! 1. This file: [`Muxer`], access units to packets, and [`State`], all that must survive a restart.
//! 2. `video`, `audio`: what goes into a unit's PES packet.
//! 3. `packets`: 188 bytes at a time; program tables.
//! 4. [`Demuxer`]: the same access units of such packets again.
//!
//! # What comes out
//!
//! * One PES packet for each access unit, with its exact times: 90 kHz = milliseconds · 90 + [`State::offset_90k`].
//! * Pictures as Annex B with one access unit delimiter each, and the parameter sets in force before each key
//!   picture that does not bring its own. AAC behind an ADTS header each. MP3 as it is.
//! * PAT and PMT at each [`Muxer::start_segment`], and where a track appears or changes its codec.
//! * A program clock reference at most 100 ms after the one before, on the video packets if there are any, else on audio;
//!   packets that hold nothing else fill pauses. It runs [`CLOCK_LEAD_90K`] behind the decode times, and never back.
//! * Continuity counters that go on across segments.
//! * Two bytes of `transport_private_data` beside a picture of which the encoder's own delimiter or parameter sets could be taken for added ones.
//!
//! A unit is written whole or not at all: an error leaves the output and the state as they were.

mod audio;
mod packets;
mod reader;
mod tables;
mod video;

use crate::access_unit::{AccessUnit, Codec, Track};
use crate::codec::CodecError;
use alloc::vec::Vec;
use audio::Audio;
use packets::{Adaptation, Packets};
use video::Video;

pub use reader::{Demuxer, Unit, Unreadable};

/// Bytes of a packet.
pub const PACKET_LEN: usize = 188;
/// PID of the program map table.
pub const PMT_PID: u16 = 0x1000;
/// PID of the pictures.
pub const VIDEO_PID: u16 = 0x100;
/// PID of the sound.
pub const AUDIO_PID: u16 = 0x101;
/// Where time 0 stands by default: one second, so that neither the clock nor an early presentation time is negative there.
pub const DEFAULT_OFFSET_90K: i64 = 90_000;
/// How far the program clock stays behind the decode times: 0.7 s, what a decoder may buffer.
pub const CLOCK_LEAD_90K: i64 = 63_000;

/// Longest step of the program clock. ISO/IEC 13818-1 §2.7.2 asks for 100 ms; this leaves room for rounding.
const CLOCK_STEP_90K: i64 = 90 * 90;
/// A clock reference younger than this is not repeated: 20 ms.
const CLOCK_FRESH_90K: i64 = 20 * 90;
/// A pause longer than this is marked as a discontinuity of the clock, not filled with packets: 10 s.
const CLOCK_FILL_90K: i64 = 10_000 * 90;
/// How far sound may run ahead of the pictures before it drives the clock in their place: 2.5 s.
const AUDIO_AHEAD_90K: i64 = 2_500 * 90;

/// All that a muxer must remember from one segment to the next, besides the codec configurations. Plain numbers, to be persisted as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Added to each time: ticks of 90 kHz.
    pub offset_90k: i64,
    /// The next continuity counter of each PID, 0 to 15.
    pub pat_continuity: u8,
    /// See [`State::pat_continuity`].
    pub pmt_continuity: u8,
    /// See [`State::pat_continuity`].
    pub video_continuity: u8,
    /// See [`State::pat_continuity`].
    pub audio_continuity: u8,
    /// Version of the program map, 0 to 31; grows with each change.
    pub pmt_version: u8,
    /// Stream type of the pictures in the program map, 0: none.
    pub video_stream_type: u8,
    /// Stream type of the sound in the program map, 0: none.
    pub audio_stream_type: u8,
    /// The last program clock reference, ticks of 90 kHz, not wrapped; `None` before the first and after a discontinuity.
    pub clock_90k: Option<i64>,
    /// The next packet of the clock's PID carries a reference, however young the last one is.
    pub clock_due: bool,
    /// The next packet of the PID says that its counter and times do not continue the packets before.
    pub video_discontinuity: bool,
    /// See [`State::video_discontinuity`].
    pub audio_discontinuity: bool,
}

impl State {
    /// The state before the first packet.
    #[must_use]
    pub const fn new(offset_90k: i64) -> Self {
        Self {
            offset_90k,
            pat_continuity: 0,
            pmt_continuity: 0,
            video_continuity: 0,
            audio_continuity: 0,
            pmt_version: 0,
            video_stream_type: 0,
            audio_stream_type: 0,
            clock_90k: None,
            clock_due: true,
            video_discontinuity: false,
            audio_discontinuity: false,
        }
    }
}

/// Which tracks a segment's program map lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracks {
    /// Pictures, if their configuration is known.
    pub video: bool,
    /// Sound, if its configuration is known.
    pub audio: bool,
}

/// Why an access unit cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TsError {
    /// No configuration was set for this track and codec.
    #[error("no codec configuration")]
    NoConfig,
    /// The unit's bytes are not what its codec says.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Longer than a PES packet of sound can be (65,535 bytes), or an AAC frame (8,191).
    #[error("{0} bytes do not fit into one packet of sound")]
    TooLong(usize),
}

/// Writes access units as transport stream packets.
#[derive(Debug, Clone)]
pub struct Muxer {
    state: State,
    video: Option<Video>,
    audio: Option<Audio>,
}

impl Muxer {
    /// A muxer that continues from `state`; the configurations must be set again.
    #[must_use]
    pub const fn new(state: State) -> Self {
        Self {
            state,
            video: None,
            audio: None,
        }
    }

    /// What to persist in order to continue after the last unit pushed.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Sets the decoder configuration that holds from the next unit of the track on.
    ///
    /// `config` is an `avcC` or `hvcC` record or an `AudioSpecificConfig`; for [`Codec::Mp3`] the first
    /// frame, whose header is the configuration.
    ///
    /// # Errors
    ///
    /// [`CodecError`] where it cannot be read or not be said in a transport stream; the one before stays.
    pub fn set_config(&mut self, codec: Codec, track: Track, config: &[u8]) -> Result<(), CodecError> {
        match track {
            Track::Video => self.video = Some(Video::new(codec, config)?),
            Track::Audio => self.audio = Some(Audio::new(codec, config)?),
        }
        Ok(())
    }

    /// What follows does not continue what came before: another publish, another owner, a hole.
    pub fn mark_discontinuity(&mut self) {
        self.state.clock_90k = None;
        self.state.clock_due = true;
        self.state.video_discontinuity = true;
        self.state.audio_discontinuity = true;
    }

    /// Begins a segment: PAT and PMT with those of `tracks` whose configuration is set.
    ///
    /// A track that is missing here is added by another PMT when its first unit comes.
    pub fn start_segment(&mut self, tracks: Tracks, out: &mut Vec<u8>) {
        let video = self
            .video
            .as_ref()
            .filter(|_| tracks.video)
            .map_or(0, Video::stream_type);
        let audio = self
            .audio
            .as_ref()
            .filter(|_| tracks.audio)
            .map_or(0, Audio::stream_type);
        self.list(video, audio);
        self.state.clock_due = true;
        tables::append(&mut self.state, out);
    }

    /// Writes one access unit.
    ///
    /// # Errors
    ///
    /// [`TsError`]: nothing was written.
    pub fn push(&mut self, unit: &AccessUnit<'_>, out: &mut Vec<u8>) -> Result<(), TsError> {
        match unit.track {
            Track::Video => self.push_video(unit, out),
            Track::Audio => self.push_audio(unit, out),
        }
    }

    fn push_video(&mut self, unit: &AccessUnit<'_>, out: &mut Vec<u8>) -> Result<(), TsError> {
        let Some(video) = self.video.as_ref().filter(|video| video.codec() == unit.codec) else {
            return Err(TsError::NoConfig);
        };
        let picture = video.picture(unit)?;
        let stream_type = video.stream_type();
        if self.state.video_stream_type != stream_type {
            self.list(stream_type, self.state.audio_stream_type);
            tables::append(&mut self.state, out);
        }
        let mut adaptation = self.adaptation(unit, out);
        adaptation.note = picture.note();
        let times = Times::of(unit, self.state.offset_90k);
        let Some(video) = self.video.as_ref() else {
            return Err(TsError::NoConfig);
        };
        let pes = times.pes_header(0xE0, picture.len());
        let len = pes.as_slice().len() + picture.len();
        let mut packets = Packets::start(out, VIDEO_PID, self.state.video_continuity, len, adaptation);
        packets.write(pes.as_slice());
        picture.write(video, &mut packets);
        self.state.video_continuity = packets.finish();
        Ok(())
    }

    fn push_audio(&mut self, unit: &AccessUnit<'_>, out: &mut Vec<u8>) -> Result<(), TsError> {
        let Some(audio) = self.audio.filter(|audio| audio.codec() == unit.codec) else {
            return Err(TsError::NoConfig);
        };
        let header = audio.frame_header(unit.data)?;
        let len = header.as_slice().len() + unit.data.len();
        let times = Times::of(unit, self.state.offset_90k);
        let pes = times.pes_header(0xC0, len);
        // 65,535 is the longest PES packet that says its length; sound must.
        if len + pes.as_slice().len() > 65_535 {
            return Err(TsError::TooLong(unit.data.len()));
        }
        if self.state.audio_stream_type != audio.stream_type() {
            self.list(self.state.video_stream_type, audio.stream_type());
            tables::append(&mut self.state, out);
        }
        let adaptation = self.adaptation(unit, out);
        let len = len + pes.as_slice().len();
        let mut packets = Packets::start(out, AUDIO_PID, self.state.audio_continuity, len, adaptation);
        packets.write(pes.as_slice());
        packets.write(header.as_slice());
        packets.write(unit.data);
        self.state.audio_continuity = packets.finish();
        Ok(())
    }

    /// Changes what the program map lists.
    fn list(&mut self, video: u8, audio: u8) {
        let state = &mut self.state;
        if (state.video_stream_type, state.audio_stream_type) != (video, audio) {
            let first = (state.video_stream_type, state.audio_stream_type) == (0, 0);
            state.pmt_version = if first {
                state.pmt_version
            } else {
                (state.pmt_version + 1) & 31
            };
            (state.video_stream_type, state.audio_stream_type) = (video, audio);
        }
    }

    /// The adaptation field of a unit's first packet; writes packets that only carry the clock where a pause must be filled.
    fn adaptation(&mut self, unit: &AccessUnit<'_>, out: &mut Vec<u8>) -> Adaptation {
        let drives = (unit.track == Track::Video) == (self.state.video_stream_type != 0);
        let now = ticks(unit.dts_ms, self.state.offset_90k).saturating_sub(CLOCK_LEAD_90K);
        let target = if drives {
            now
        } else {
            now.saturating_sub(AUDIO_AHEAD_90K)
        };
        self.fill_clock(target, out);
        let mut adaptation = Adaptation::default();
        let discontinuity = match unit.track {
            Track::Video => &mut self.state.video_discontinuity,
            Track::Audio => &mut self.state.audio_discontinuity,
        };
        adaptation.discontinuity = core::mem::take(discontinuity);
        adaptation.random_access = unit.track == Track::Video && unit.key;
        if drives {
            let clock = self.state.clock_90k.map_or(now, |last| last.max(now));
            let stale = self.state.clock_90k.is_none_or(|last| clock - last >= CLOCK_FRESH_90K);
            if stale || self.state.clock_due || adaptation.random_access || adaptation.discontinuity {
                self.state.clock_due = false;
                self.state.clock_90k = Some(clock);
                adaptation.clock_90k = Some(clock);
                adaptation.random_access |= unit.key;
            }
        }
        adaptation
    }

    /// Brings the clock to within one step of `target`.
    fn fill_clock(&mut self, target: i64, out: &mut Vec<u8>) {
        let Some(mut clock) = self.state.clock_90k else {
            return;
        };
        let (pid, continuity, discontinuity) = if self.state.video_stream_type != 0 {
            (
                VIDEO_PID,
                self.state.video_continuity,
                &mut self.state.video_discontinuity,
            )
        } else {
            (
                AUDIO_PID,
                self.state.audio_continuity,
                &mut self.state.audio_discontinuity,
            )
        };
        if target.saturating_sub(clock) > CLOCK_FILL_90K {
            clock = target.saturating_sub(CLOCK_STEP_90K);
            *discontinuity = true;
        }
        while target.saturating_sub(clock) > CLOCK_STEP_90K {
            clock = clock.saturating_add(CLOCK_STEP_90K);
            packets::append_clock(out, pid, continuity, clock, core::mem::take(discontinuity));
        }
        self.state.clock_90k = Some(clock);
    }
}

/// 90 kHz ticks, not wrapped.
fn ticks(ms: i64, offset_90k: i64) -> i64 {
    ms.saturating_mul(90).saturating_add(offset_90k)
}

/// When a unit is decoded and shown, ticks of 90 kHz, not wrapped.
#[derive(Clone, Copy)]
struct Times {
    dts: i64,
    pts: i64,
}

impl Times {
    fn of(unit: &AccessUnit<'_>, offset_90k: i64) -> Self {
        let pts_ms = unit.dts_ms.saturating_add(i64::from(unit.cto_ms));
        Self {
            dts: ticks(unit.dts_ms, offset_90k),
            pts: ticks(pts_ms, offset_90k),
        }
    }

    /// The header of a PES packet with `len` bytes behind it. ISO/IEC 13818-1 §2.4.3.6.
    fn pes_header(self, stream_id: u8, len: usize) -> Short<24> {
        let mut header = Short::default();
        let both = self.pts != self.dts;
        let times_len: u8 = if both { 10 } else { 5 };
        // Pictures too long for the field say 0.
        let pes_len = u16::try_from(len + 3 + usize::from(times_len)).unwrap_or(0);
        let [l0, l1] = pes_len.to_be_bytes();
        // 0x84: the mark '10', data alignment. Then which times follow, and their length.
        header.push(&[
            0,
            0,
            1,
            stream_id,
            l0,
            l1,
            0x84,
            if both { 0xC0 } else { 0x80 },
            times_len,
        ]);
        header.push(&time_field(if both { 3 } else { 2 }, self.pts));
        if both {
            header.push(&time_field(1, self.dts));
        }
        header
    }
}

/// 33 bits of time in 5 bytes, wrapped. ISO/IEC 13818-1 §2.4.3.6.
fn time_field(mark: u8, ticks: i64) -> [u8; 5] {
    let [_, _, _, b3, b4, b5, b6, b7] = (ticks & 0x1_FFFF_FFFF).to_be_bytes();
    [
        mark << 4 | (b3 & 1) << 3 | (b4 >> 6) << 1 | 1,
        b4 << 2 | b5 >> 6,
        b5 << 2 | (b6 >> 7) << 1 | 1,
        b6 << 1 | b7 >> 7,
        b7 << 1 | 1,
    ]
}

/// A few bytes, made up on the stack.
#[derive(Debug, Clone, Copy)]
struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Short<N> {
    /// What does not fit is left out: every caller's parts are of known length.
    fn push(&mut self, part: &[u8]) {
        for (slot, &byte) in self.bytes.iter_mut().skip(self.len).zip(part) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "ts_tests.rs"]
mod tests;
