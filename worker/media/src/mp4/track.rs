//! What a track says of itself besides its samples: the same in a file and in the initialisation segment of fragments.

use alloc::vec::Vec;

use bytes::BufMut;

use super::{
    TIMESCALE,
    boxes::{boxed, counted_box, full_box, put_time},
    entry,
    layout::Configuration,
};
use crate::access_unit::Track;

/// Scale 1, no turning: the matrix every track and movie carries. §6.2.2.
const UNITY_MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// `sample_flags` of §8.8.3.1: depends on no other sample; depends on others and is no sync sample.
pub(super) const SYNC_SAMPLE: u32 = 0x0200_0000;
pub(super) const OTHER_SAMPLE: u32 = 0x0101_0000;
/// Flags of `tfhd`: data offsets count from the `moof`'s first byte. §8.8.7.
pub(super) const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
/// Flags of `trun`: data offset; duration, size, flags and composition offset of each sample. §8.8.8.
pub(super) const TRUN_FIELDS: u32 = 0x01 | 0x100 | 0x200 | 0x400 | 0x800;

/// The same in every file, whether the other track is there or not.
pub(super) fn track_id(track: Track) -> u32 {
    match track {
        Track::Video => 1,
        Track::Audio => 2,
    }
}

/// A movie's times: seconds since 1904, ticks of [`TIMESCALE`]. §8.2.2.
pub(super) fn put_mvhd(out: &mut Vec<u8>, created: u64, duration: u64) {
    let version = version_for(&[created, duration]);
    full_box(out, b"mvhd", version, 0, |out| {
        put_time(out, version, created);
        put_time(out, version, created);
        out.put_u32(TIMESCALE);
        put_time(out, version, duration);
        out.put_u32(0x1_0000); // at normal speed
        out.put_u16(0x100); // at full volume
        out.put_bytes(0, 10);
        UNITY_MATRIX.iter().for_each(|&value| out.put_u32(value));
        out.put_bytes(0, 24);
        out.put_u32(track_id(Track::Audio) + 1); // next free track
    });
}

/// §8.3.2. The size is that of the first configuration's pictures.
pub(super) fn put_tkhd(out: &mut Vec<u8>, kind: Track, created: u64, duration: u64, entries: &[Configuration]) {
    let version = version_for(&[created, duration]);
    full_box(out, b"tkhd", version, 3, |out| {
        put_time(out, version, created);
        put_time(out, version, created);
        out.put_u32(track_id(kind));
        out.put_u32(0);
        put_time(out, version, duration);
        out.put_bytes(0, 12);
        out.put_u16(if kind == Track::Audio { 0x100 } else { 0 });
        out.put_u16(0);
        UNITY_MATRIX.iter().for_each(|&value| out.put_u32(value));
        let (width, height) = entries.first().map_or((0, 0), entry::dimensions);
        out.put_u32(u32::from(width) << 16);
        out.put_u32(u32::from(height) << 16);
    });
}

/// The box `mdia` around the sample tables that `put_tables` appends. §8.4.
pub(super) fn put_mdia(
    out: &mut Vec<u8>,
    kind: Track,
    created: u64,
    duration: u64,
    put_tables: impl FnOnce(&mut Vec<u8>),
) {
    boxed(out, b"mdia", |out| {
        put_mdhd(out, created, duration);
        put_hdlr(out, kind);
        boxed(out, b"minf", |out| {
            match kind {
                Track::Video => full_box(out, b"vmhd", 0, 1, |out| out.put_bytes(0, 8)),
                Track::Audio => full_box(out, b"smhd", 0, 0, |out| out.put_bytes(0, 4)),
            }
            boxed(out, b"dinf", |out| {
                counted_box(out, b"dref", 0, |out| {
                    full_box(out, b"url ", 0, 1, |_| {}); // this file
                    1
                });
            });
            boxed(out, b"stbl", put_tables);
        });
    });
}

/// §8.4.2.
fn put_mdhd(out: &mut Vec<u8>, created: u64, duration: u64) {
    let version = version_for(&[created, duration]);
    full_box(out, b"mdhd", version, 0, |out| {
        put_time(out, version, created);
        put_time(out, version, created);
        out.put_u32(TIMESCALE);
        put_time(out, version, duration);
        out.put_u16(0x55c4); // language: und
        out.put_u16(0);
    });
}

/// §8.4.3.
fn put_hdlr(out: &mut Vec<u8>, kind: Track) {
    let (kind, name): (&[u8; 4], &[u8]) = match kind {
        Track::Video => (b"vide", b"video\0"),
        Track::Audio => (b"soun", b"audio\0"),
    };
    full_box(out, b"hdlr", 0, 0, |out| {
        out.put_u32(0);
        out.put_slice(kind);
        out.put_bytes(0, 12);
        out.put_slice(name);
    });
}

/// 1, for 64-bit fields, where one of these needs it.
pub(super) fn version_for(values: &[u64]) -> u8 {
    u8::from(values.iter().any(|&value| value > u64::from(u32::MAX)))
}
