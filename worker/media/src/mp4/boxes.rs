//! How a box is written: size, type, body. ISO/IEC 14496-12 §4.2.

use alloc::vec::Vec;

use bytes::BufMut;

/// Appends a box whose body `write` appends. Bodies of 4 GiB and more are the caller's to prevent.
pub(super) fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    out.put_slice(kind);
    write(out);
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    set_u32(out, start, size);
}

/// Appends a box whose body starts with a version and 24 bits of flags.
pub(super) fn full_box(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, write: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        out.put_u32(u32::from(version) << 24 | flags & 0x00ff_ffff);
        write(out);
    });
}

/// Appends a full box that starts with a count of entries: `write` appends the entries and returns how many they are.
pub(super) fn counted_box(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, write: impl FnOnce(&mut Vec<u8>) -> u32) {
    full_box(out, kind, version, 0, |out| {
        let at = out.len();
        out.put_u32(0);
        let count = write(out);
        set_u32(out, at, count);
    });
}

/// Overwrites four bytes written before.
pub(super) fn set_u32(out: &mut [u8], at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_be_bytes();
    }
}

/// Appends a time or duration in 32 bits (version 0) or 64 (version 1).
pub(super) fn put_time(out: &mut Vec<u8>, version: u8, value: u64) {
    if version == 0 {
        out.put_u32(u32::try_from(value).unwrap_or(u32::MAX));
    } else {
        out.put_u64(value);
    }
}
