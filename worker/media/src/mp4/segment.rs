//! Reads back what [`Fragmenter`](super::Fragmenter) wrote: decoder configurations of an initialisation segment, samples of a fragment.
//!
//! Nothing but its own writing is taken: another writer's boxes may mean what is not looked at here.

use alloc::vec::Vec;

use super::{
    entry,
    track::{self, track_id},
};
use crate::access_unit::{Codec, Track};

/// Bytes of a box's header: its size in 32 bits and its kind.
pub const BOX_HEADER: usize = 8;

/// A decoder configuration, in the shape of [`Layout::push`](super::Layout::push).
pub type Config = (Codec, Track, Vec<u8>);

/// Not as [`Fragmenter`](super::Fragmenter) writes it; says which box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the box {0} is not as this program writes it")]
pub struct Unreadable(pub &'static str);

/// A sample of a fragment. The fragment's data is that of its samples, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentSample {
    /// Which track it is of.
    pub track: Track,
    /// Decode time, milliseconds, as the fragment says it.
    pub dts_ms: i64,
    /// Presentation time less decode time, milliseconds.
    pub cto_ms: i32,
    /// How long it lasts, milliseconds.
    pub duration_ms: u32,
    /// Bytes of coded data.
    pub size: u32,
    /// Decoding can start here.
    pub key: bool,
}

/// Kind and whole length of the box that `bytes` begin with, which need not be there whole. `None`: fewer than [`BOX_HEADER`] bytes, or a
/// length that no box of ours has.
#[must_use]
pub fn box_header(bytes: &[u8]) -> Option<([u8; 4], usize)> {
    let (size, rest) = bytes.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*size)).ok()?;
    (len >= BOX_HEADER).then_some((*rest.first_chunk()?, len))
}

/// The decoder configurations of an initialisation segment.
///
/// # Errors
/// [`Unreadable`].
pub fn read_init(bytes: &[u8]) -> Result<Vec<Config>, Unreadable> {
    let moov = child(bytes, b"moov").ok_or(Unreadable("moov"))?;
    let configs: Option<Vec<Config>> = Boxes(moov).filter(|(kind, _)| kind == b"trak").map(read_trak).collect();
    configs.filter(|configs| !configs.is_empty()).ok_or(Unreadable("trak"))
}

/// The samples of a fragment, given its whole `moof`, in the order of their data, which begins behind the header of the `mdat` behind it.
///
/// # Errors
/// [`Unreadable`].
pub fn read_moof(moof: &[u8]) -> Result<Vec<FragmentSample>, Unreadable> {
    let body = moof.get(BOX_HEADER..).ok_or(Unreadable("moof"))?;
    let mut samples = Vec::new();
    let mut data_at = (moof.len() + BOX_HEADER) as u64;
    for (_, traf) in Boxes(body).filter(|(kind, _)| kind == b"traf") {
        data_at = read_traf(traf, data_at, &mut samples).ok_or(Unreadable("traf"))?;
    }
    if samples.is_empty() {
        return Err(Unreadable("moof"));
    }
    Ok(samples)
}

/// Boxes one after another: kind and body of each. Ends in front of one that is not whole.
pub(super) struct Boxes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, len) = box_header(self.0)?;
        let (whole, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some((kind, whole.get(BOX_HEADER..)?))
    }
}

pub(super) fn child<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    Boxes(bytes).find(|(found, _)| found == kind).map(|(_, body)| body)
}

/// Takes big-endian fields off the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn skip(&mut self, len: usize) -> Option<&mut Self> {
        self.0 = self.0.get(len..)?;
        Some(self)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The body of a descriptor with this tag. 14496-1 §8.3.3.
    fn descriptor(&mut self, tag: u8) -> Option<Fields<'a>> {
        if self.u8()? != tag {
            return None;
        }
        let mut len = 0usize;
        for _ in 0..4 {
            let byte = self.u8()?;
            len = len << 7 | usize::from(byte & 0x7f);
            if byte < 0x80 {
                let (body, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                return Some(Fields(body));
            }
        }
        None
    }
}

pub(super) fn track_of(id: u32) -> Option<Track> {
    [Track::Video, Track::Audio]
        .into_iter()
        .find(|track| track_id(*track) == id)
}

fn read_trak((_, trak): ([u8; 4], &[u8])) -> Option<Config> {
    let mut tkhd = Fields(child(trak, b"tkhd")?);
    // Two times stand in front of the id, longer ones in version 1.
    let times = if tkhd.u8()? == 0 { 8 } else { 16 };
    let track = track_of(tkhd.skip(3 + times)?.u32()?)?;
    let mdia = child(trak, b"mdia")?;
    if Fields(child(mdia, b"mdhd")?).skip(12)?.u32()? != super::TIMESCALE {
        return None;
    }
    let stbl = child(child(mdia, b"minf")?, b"stbl")?;
    let entries = child(stbl, b"stsd")?.get(8..)?;
    read_entry(Boxes(entries).next()?, track)
}

/// A sample entry of a track.
pub(super) fn read_entry((kind, body): ([u8; 4], &[u8]), track: Track) -> Option<Config> {
    let (codec, record) = match (&kind, track) {
        (b"avc1", Track::Video) => (Codec::Avc, child(body.get(78..)?, b"avcC")?.to_vec()),
        (b"hvc1", Track::Video) => (Codec::Hevc, child(body.get(78..)?, b"hvcC")?.to_vec()),
        (b"mp4a", Track::Audio) => read_sound(body)?,
        _ => return None,
    };
    Some((codec, track, record))
}

/// Of an `AudioSampleEntry`.
fn read_sound(body: &[u8]) -> Option<(Codec, Vec<u8>)> {
    let mut fields = Fields(body);
    let channels = fields.skip(16)?.u16()?;
    let rate = fields.skip(6)?.u32()? >> 16;
    let mut esds = Fields(child(fields.0, b"esds")?);
    let mut stream = esds.skip(4)?.descriptor(3)?;
    let mut decoder = stream.skip(3)?.descriptor(4)?;
    match decoder.u8()? {
        0x40 => Some((Codec::Aac, decoder.skip(12)?.descriptor(5)?.0.to_vec())),
        0x6b | 0x69 => Some((Codec::Mp3, entry::mp3_header(rate, channels)?.to_vec())),
        _ => None,
    }
}

/// Appends the samples of a track; `data_at` is where their data must begin, from the `moof`'s first byte. Gives where it ends.
fn read_traf(traf: &[u8], data_at: u64, samples: &mut Vec<FragmentSample>) -> Option<u64> {
    let mut tfhd = Fields(child(traf, b"tfhd")?);
    if tfhd.u32()? != track::DEFAULT_BASE_IS_MOOF {
        return None;
    }
    let track = track_of(tfhd.u32()?)?;
    let mut dts_ms = i64::try_from(Fields(child(traf, b"tfdt")?).skip(4)?.u64()?).ok()?;
    let mut trun = Fields(child(traf, b"trun")?);
    if trun.u32()? != 1 << 24 | track::TRUN_FIELDS {
        return None;
    }
    let count = trun.u32()?;
    if u64::from(trun.u32()?) != data_at || u64::from(count) * 16 != trun.0.len() as u64 {
        return None;
    }
    let mut end = data_at;
    for _ in 0..count {
        let (duration_ms, size, flags) = (trun.u32()?, trun.u32()?, trun.u32()?);
        samples.push(FragmentSample {
            track,
            dts_ms,
            cto_ms: trun.u32()?.cast_signed(),
            duration_ms,
            size,
            key: flags == track::SYNC_SAMPLE,
        });
        dts_ms = dts_ms.checked_add(i64::from(duration_ms))?;
        end += u64::from(size);
    }
    Some(end)
}
