//! [`Demuxer`]: reads back what [`Muxer`](super::Muxer) wrote: the access units of segments, as they were pushed.
//!
//! Nothing but its own writing is taken: one PES packet an access unit, its packets one behind the other, start codes of four bytes. Any other bytes
//! are refused by name.
//!
//! # What comes out as it went in
//!
//! * All coded bytes, with NAL units behind lengths of 4 bytes. What the muxer put in front of a picture is taken away again, see
//!   `video::Added`; empty NAL units are gone. ADTS headers are taken away.
//! * All distances between times. Time 0 is the decode time of the first unit that is read: the 33 bits of a transport stream do not say how
//!   often they have wrapped before.
//! * Decoder configurations as parameter sets say them; of AAC the core coder's.

use super::video::{Added, Role, START_CODE, role};
use super::{AUDIO_PID, PACKET_LEN, PMT_PID, VIDEO_PID, tables};
use crate::access_unit::{Codec, Track};
use crate::codec::{aac, avc, hevc, mp3};
use alloc::vec::Vec;
use core::ops::Range;

/// Longest PES packet that is read, bytes: a message of 16 MiB, whose start codes may be longer than its lengths were.
const LONGEST: usize = 32 << 20;
/// Most NAL units of one picture.
const MAX_NALS: usize = 65_536;
/// 33 bits.
const WRAP: i64 = 1 << 33;
/// Times that are hinted at lie within this, so that no sum overflows: 3,000 years.
const FAR_90K: i64 = 1 << 53;

/// Not as [`Muxer`](super::Muxer) writes it; says what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transport stream is not as this program writes it: {0}")]
pub struct Unreadable(pub &'static str);

/// An access unit that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Which elementary stream.
    pub track: Track,
    /// How it is coded.
    pub codec: Codec,
    /// Decode time, milliseconds from the first unit's.
    pub dts_ms: i64,
    /// Presentation time less decode time, milliseconds.
    pub cto_ms: i32,
    /// Decoding can start here.
    pub key: bool,
    /// As in [`AccessUnit::data`](crate::access_unit::AccessUnit::data), NAL units behind lengths of 4 bytes.
    pub data: Vec<u8>,
    /// The decoder configuration from this unit on, where it is another than before: `avcC`, `hvcC`, `AudioSpecificConfig`, four bytes of an MP3
    /// frame's header.
    pub config: Option<Vec<u8>>,
}

/// Reads the segments of one push, in order. Memory: one access unit.
#[derive(Debug, Clone, Default)]
pub struct Demuxer {
    video: Elementary,
    audio: Elementary,
    open: Option<Pes>,
    /// Decode time of the first unit, not wrapped.
    zero_90k: Option<i64>,
    /// Decode time of the last unit, or what is said of the next.
    near_90k: i64,
}

#[derive(Debug, Clone, Default)]
struct Elementary {
    /// As the program map has it; 0: not there.
    stream_type: u8,
    /// The last packet's.
    continuity: Option<u8>,
    /// What was said last of its configuration.
    config: Vec<u8>,
}

/// A PES packet that is read.
#[derive(Debug, Clone)]
struct Pes {
    track: Track,
    key: bool,
    note: Option<[u8; 2]>,
    bytes: Vec<u8>,
}

/// What an adaptation field says.
#[derive(Debug, Default)]
struct Said {
    discontinuity: bool,
    random_access: bool,
    note: Option<[u8; 2]>,
}

impl Demuxer {
    /// A demuxer that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a segment. `near_ms` is where its first decode time lies, milliseconds from the first unit's, give or take 13 hours: what makes
    /// times exact that have wrapped in a pause.
    pub fn start_segment(&mut self, near_ms: i64) {
        self.open = None;
        self.video.continuity = None;
        self.audio.continuity = None;
        if let Some(zero) = self.zero_90k {
            let near = near_ms.saturating_mul(90).clamp(-FAR_90K, FAR_90K);
            self.near_90k = zero.saturating_add(near);
        }
    }

    /// Reads the next packet; gives the unit that is whole with it, the one before.
    ///
    /// # Errors
    /// [`Unreadable`]: nothing more is to be had of this segment.
    pub fn push(&mut self, packet: &[u8; PACKET_LEN]) -> Result<Option<Unit>, Unreadable> {
        let (&[sync, flags, low, control], rest) = packet.split_first_chunk::<4>().ok_or(Unreadable("a packet"))?;
        if sync != 0x47 || flags & 0x80 != 0 || control & 0xC0 != 0 {
            return Err(Unreadable("a packet's header"));
        }
        let (said, payload) = match control >> 4 {
            1 => (Said::default(), rest),
            2 | 3 => Said::read(rest).ok_or(Unreadable("an adaptation field"))?,
            _ => return Err(Unreadable("a packet's header")),
        };
        let pid = u16::from_be_bytes([flags & 0x1F, low]);
        let track = match pid {
            0 => return self.close(),
            PMT_PID => {
                let unit = self.close()?;
                let map = tables::read_map(payload).ok_or(Unreadable("the program map"))?;
                self.video.list(map.0);
                self.audio.list(map.1);
                return Ok(unit);
            }
            VIDEO_PID => Track::Video,
            AUDIO_PID => Track::Audio,
            _ => return Err(Unreadable("a PID")),
        };
        let of = self.of(track);
        if said.discontinuity {
            of.continuity = None;
        }
        // Only the clock: such packets are not counted.
        if control & 0x10 == 0 {
            return Ok(None);
        }
        let counter = control & 15;
        if of.continuity.is_some_and(|last| (last + 1) & 15 != counter) {
            return Err(Unreadable("packets are missing"));
        }
        of.continuity = Some(counter);
        if flags & 0x40 != 0 {
            let unit = self.close()?;
            self.open = Some(Pes {
                track,
                key: said.random_access,
                note: said.note,
                bytes: payload.to_vec(),
            });
            return Ok(unit);
        }
        let open = self.open.as_mut().filter(|open| open.track == track);
        let open = open.ok_or(Unreadable("a packet without a beginning"))?;
        if open.bytes.len() + payload.len() > LONGEST {
            return Err(Unreadable("a unit is too long"));
        }
        open.bytes.extend_from_slice(payload);
        Ok(None)
    }

    /// Ends the segment; gives its last unit.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn end_segment(&mut self) -> Result<Option<Unit>, Unreadable> {
        self.close()
    }

    fn of(&mut self, track: Track) -> &mut Elementary {
        match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        }
    }

    /// Makes a unit of the PES packet that is open, if one is.
    fn close(&mut self) -> Result<Option<Unit>, Unreadable> {
        let Some(pes) = self.open.take() else { return Ok(None) };
        let times = Times::read(&pes).ok_or(Unreadable("a PES packet"))?;
        let mut data = pes.bytes;
        data.drain(..times.header_len);
        let first = self.zero_90k.is_none();
        let dts = if first {
            times.dts
        } else {
            unroll(times.dts, self.near_90k)
        };
        let zero = *self.zero_90k.get_or_insert(dts);
        self.near_90k = dts;
        let cto = unroll(times.pts, dts) - dts;
        let whole = (dts - zero) % 90 == 0 && cto % 90 == 0;
        let cto_ms = i32::try_from(cto / 90).ok().filter(|_| whole);
        let cto_ms = cto_ms.ok_or(Unreadable("a time between two milliseconds"))?;
        let of = self.of(pes.track);
        let codec = match of.stream_type {
            0x1B => Codec::Avc,
            0x24 => Codec::Hevc,
            0x0F => Codec::Aac,
            3 | 4 => Codec::Mp3,
            _ => return Err(Unreadable("a stream that the program map does not list")),
        };
        let config = match codec {
            Codec::Aac => strip_adts(&mut data)?.to_vec(),
            Codec::Mp3 => mp3_config(&data, &of.config)?,
            _ => frame(codec, pes.key, pes.note, &mut data)?,
        };
        let config = Some(config).filter(|config| !config.is_empty() && *config != of.config);
        if let Some(config) = &config {
            of.config.clone_from(config);
        }
        Ok(Some(Unit {
            track: pes.track,
            codec,
            dts_ms: (dts - zero) / 90,
            cto_ms,
            key: pes.key || pes.track == Track::Audio,
            data,
            config,
        }))
    }
}

impl Elementary {
    fn list(&mut self, stream_type: u8) {
        if self.stream_type != stream_type {
            self.stream_type = stream_type;
            self.config.clear();
        }
    }
}

impl Said {
    /// Reads the field; gives what is behind it. ISO/IEC 13818-1 §2.4.3.4.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&len, rest) = bytes.split_first()?;
        let (field, payload) = rest.split_at_checked(usize::from(len))?;
        let Some((&flags, mut field)) = field.split_first() else {
            return Some((Self::default(), payload));
        };
        if flags & 0x10 != 0 {
            field = field.get(6..)?;
        }
        let note = match flags & 2 != 0 {
            true => match field.first_chunk::<3>()? {
                &[2, high, low] => Some([high, low]),
                _ => return None,
            },
            false => None,
        };
        let said = Self {
            discontinuity: flags & 0x80 != 0,
            random_access: flags & 0x40 != 0,
            note,
        };
        Some((said, payload))
    }
}

/// Times of a PES packet, wrapped.
struct Times {
    header_len: usize,
    dts: i64,
    pts: i64,
}

impl Times {
    fn read(pes: &Pes) -> Option<Self> {
        let stream_id = match pes.track {
            Track::Video => 0xE0,
            Track::Audio => 0xC0,
        };
        let (&[0, 0, 1, id, l0, l1, 0x84, flags, times_len], rest) = pes.bytes.split_first_chunk::<9>()? else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        // Only pictures may be too long to say it.
        let is_whole = len == pes.bytes.len() - 6 || (len == 0 && pes.track == Track::Video);
        if id != stream_id || !is_whole {
            return None;
        }
        let (pts, dts) = match (flags, times_len) {
            (0x80, 5) => (time(2, rest)?, None),
            (0xC0, 10) => (time(3, rest)?, Some(time(1, rest.get(5..)?)?)),
            _ => return None,
        };
        Some(Self {
            header_len: 9 + usize::from(times_len),
            dts: dts.unwrap_or(pts),
            pts,
        })
    }
}

/// 33 bits of time in 5 bytes. ISO/IEC 13818-1 §2.4.3.6.
fn time(mark: u8, bytes: &[u8]) -> Option<i64> {
    let &[b0, b1, b2, b3, b4] = bytes.first_chunk::<5>()?;
    let is_marked = b0 >> 4 == mark && b0 & b2 & b4 & 1 == 1;
    let parts = [(b0 >> 1 & 7, 30), (b1, 22), (b2 >> 1, 15), (b3, 7), (b4 >> 1, 0)];
    let value = parts
        .iter()
        .fold(0, |value, (part, shift)| value | i64::from(*part) << shift);
    is_marked.then_some(value)
}

/// The time that wraps to `wrapped` and lies nearest to `near`.
fn unroll(wrapped: i64, near: i64) -> i64 {
    let ahead = (wrapped - near) & (WRAP - 1);
    near + if ahead >= WRAP / 2 { ahead - WRAP } else { ahead }
}

/// Takes the ADTS header away; gives the configuration that it says.
fn strip_adts(data: &mut Vec<u8>) -> Result<[u8; 2], Unreadable> {
    let frame = aac::AdtsFrame::read(data).ok();
    let frame = frame.filter(|frame| usize::from(frame.frame_len) == data.len());
    let frame = frame.ok_or(Unreadable("an ADTS frame"))?;
    data.drain(..aac::ADTS_HEADER_LEN);
    Ok(frame.config())
}

/// The frame's header, unless it says the same of the stream as the one before.
fn mp3_config(data: &[u8], known: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let parameters = |bytes| {
        let header = mp3::FrameHeader::parse(bytes).ok();
        header.map(|header| (header.mpeg1, header.layer, header.sample_rate, header.channels))
    };
    let now = parameters(data).ok_or(Unreadable("an MP3 frame"))?;
    Ok(match parameters(known) == Some(now) {
        true => Vec::new(),
        false => data.get(..4).unwrap_or_default().to_vec(),
    })
}

/// Makes a picture of Annex B what it was: lengths in place of start codes, and without what was added. Gives the configuration that its parameter
/// sets say, if it is a key picture and has any.
fn frame(codec: Codec, key: bool, note: Option<[u8; 2]>, data: &mut Vec<u8>) -> Result<Vec<u8>, Unreadable> {
    let nals = nal_units(data).ok_or(Unreadable("a picture without start codes"))?;
    let bytes = |nal: &Range<usize>| data.get(nal.clone()).unwrap_or_default();
    let added = match note {
        Some(note) => Added::from_bytes(note),
        None => Added::usual(codec, key, nals.iter().map(bytes)),
    };
    let mut sets = nals.iter().skip(1).take(usize::from(added.sets));
    let is_delimited = nals
        .first()
        .is_some_and(|nal| role(codec, bytes(nal)) == Role::Delimiter);
    let are_sets = sets.len() == usize::from(added.sets) && sets.clone().all(|nal| role(codec, bytes(nal)).is_set());
    if !is_delimited || !are_sets {
        return Err(Unreadable("a picture's first NAL units"));
    }
    let config = match (key, added.sets) {
        (false, _) => Vec::new(),
        (true, 0) => record(codec, nals.iter().map(bytes))?,
        (true, _) => record(codec, sets.clone().map(bytes))?,
    };
    let delimiter_end = nals.first().map_or(0, |nal| nal.end);
    let sets_end = sets.next_back().map_or(delimiter_end, |nal| nal.end);
    data.drain(if added.delimiter { 0 } else { delimiter_end }..sets_end);
    match data.is_empty() {
        true => Err(Unreadable("a picture without NAL units")),
        false => Ok(config),
    }
}

/// Puts the length of each NAL unit in place of its start code, which has as many bytes; gives where the NAL units lie.
fn nal_units(data: &mut [u8]) -> Option<Vec<Range<usize>>> {
    let mut nals = Vec::new();
    let mut code = find(data, 0).filter(|at| *at == 0)?;
    loop {
        let begin = code + START_CODE.len();
        let next = find(data, begin);
        let end = next.unwrap_or(data.len());
        let length = u32::try_from(end - begin).ok()?;
        data.get_mut(code..begin)?.copy_from_slice(&length.to_be_bytes());
        nals.push(begin..end);
        match next {
            Some(_) if nals.len() == MAX_NALS => return None,
            Some(next) => code = next,
            None => return Some(nals),
        }
    }
}

/// Where the first start code from `from` on lies. Zeros in front of its own three are the NAL unit's before it.
fn find(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 3;
    loop {
        match data.get(at)? {
            0 => at += 1,
            1 if data.get(at - 3..at) == Some(&[0, 0, 0]) => return Some(at - 3),
            _ => at += 4,
        }
    }
}

/// The decoder configuration that parameter sets among NAL units say; empty: there are none.
fn record<'a>(codec: Codec, nals: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Unreadable> {
    let (mut vps, mut sps, mut pps) = (Vec::new(), Vec::new(), Vec::new());
    for nal in nals {
        match role(codec, nal) {
            Role::Vps => vps.push(nal),
            Role::Sps => sps.push(nal),
            Role::Pps => pps.push(nal),
            Role::Delimiter | Role::Other => {}
        }
    }
    if sps.is_empty() {
        return Ok(Vec::new());
    }
    let record = match codec {
        Codec::Hevc => hevc::record(&vps, &sps, &pps),
        _ => avc::record(&sps, &pps),
    };
    record.map_err(|_| Unreadable("parameter sets"))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
