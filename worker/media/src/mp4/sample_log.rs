//! The samples of one track in some seven bytes each, until the tables are made from them.
//!
//! A sample is a record of LEB128 integers: `size << 3 | flags`, milliseconds since the previous decode time, then, where
//! the flags say so, the composition offset (zigzag) and the bytes of other tracks in front of it followed by its sample
//! entry. So a file of 30 minutes with 100 units a second costs some 1.2 MB while its head is composed.

use alloc::vec::Vec;
use core::{iter, mem, slice};

use super::{entry::Rate, layout::Placed};

/// Records are kept in blocks of this many bytes: growing one large buffer would hold it twice over.
const BLOCK_LEN: usize = 16 << 10;
/// No record is longer: five integers of at most ten bytes.
const MAX_RECORD_LEN: usize = 50;
/// A chunk ends after this much decode time even where no other track's unit follows, so that players read in small steps.
const CHUNK_MS: i64 = 1000;

const NOT_SYNC: u64 = 1;
const OFFSET_CHANGES: u64 = 2;
const STARTS_CHUNK: u64 = 4;

/// One sample, as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sample {
    pub(super) size: u32,
    pub(super) sync: bool,
    /// Since the track's previous decode time; 0 for the first.
    pub(super) delta_ms: u32,
    pub(super) cto_ms: i32,
    /// Where its chunk starts, from the body's first byte, if it is the first of one.
    pub(super) chunk: Option<u64>,
    /// Index of its sample entry.
    pub(super) entry: u8,
}

/// What holds for the track as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) samples: u32,
    pub(super) first_dts_ms: i64,
    pub(super) last_dts_ms: i64,
    /// Between the last two decode times.
    pub(super) last_delta_ms: u32,
    /// Earliest and latest presentation time.
    pub(super) first_pts_ms: i64,
    pub(super) last_pts_ms: i64,
    /// The first sample is one where decoding can start, and none is presented before it.
    pub(super) starts_clean: bool,
    pub(super) min_cto_ms: i32,
    pub(super) max_cto_ms: i32,
    pub(super) sync_samples: u32,
    pub(super) chunks: u32,
    /// Times that the distance between decode times changed, the composition offset, and what `stsc` says of a whole chunk.
    pub(super) delta_changes: u32,
    pub(super) cto_changes: u32,
    pub(super) chunk_changes: u32,
    pub(super) bytes: u64,
    pub(super) max_size: u32,
    pub(super) min_size: u32,
}

impl Summary {
    /// Every sample is one where decoding can start.
    pub(super) fn all_sync(&self) -> bool {
        self.sync_samples == self.samples
    }

    /// For the sample entries.
    pub(super) fn rate(&self) -> Rate {
        let milliseconds = u64::try_from(self.last_dts_ms - self.first_dts_ms).unwrap_or(0);
        let average = (self.bytes * 8000).checked_div(milliseconds).unwrap_or(0);
        Rate {
            max_size: self.max_size,
            average: u32::try_from(average).unwrap_or(u32::MAX),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct SampleLog {
    /// Full blocks, then the one being filled.
    blocks: Vec<Vec<u8>>,
    tail: Vec<u8>,
    summary: Option<Summary>,
    cto_ms: i32,
    entry: u8,
    /// End of the track's last sample, from the body's first byte.
    end: u64,
    chunk_dts_ms: i64,
    chunk_samples: u32,
    /// Samples and sample entry of the last whole chunk.
    last_chunk: (u32, u8),
}

impl SampleLog {
    /// `None` until there is a sample.
    pub(super) fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    pub(super) fn push(&mut self, unit: &Placed) {
        let last_dts_ms = self.summary.map_or(unit.dts_ms, |summary| summary.last_dts_ms);
        let delta_ms = u32::try_from(unit.dts_ms - last_dts_ms).unwrap_or(0);
        let starts_chunk = self.summary.is_none()
            || self.end != unit.offset
            || self.entry != unit.entry
            || unit.dts_ms - self.chunk_dts_ms >= CHUNK_MS;
        let offset_changes = self.cto_ms != unit.cto_ms;
        if self.tail.len() + MAX_RECORD_LEN > BLOCK_LEN {
            let full = mem::replace(&mut self.tail, Vec::with_capacity(BLOCK_LEN));
            self.blocks.push(full);
        }
        let block = &mut self.tail;
        let flags = if unit.key { 0 } else { NOT_SYNC }
            | if offset_changes { OFFSET_CHANGES } else { 0 }
            | if starts_chunk { STARTS_CHUNK } else { 0 };
        put(block, u64::from(unit.size) << 3 | flags);
        put(block, u64::from(delta_ms));
        if offset_changes {
            put(block, zigzag(unit.cto_ms));
        }
        if starts_chunk {
            put(block, unit.offset - self.end);
            put(block, u64::from(unit.entry));
            self.end_chunk(unit.dts_ms);
        }
        self.chunk_samples += 1;
        self.cto_ms = unit.cto_ms;
        self.entry = unit.entry;
        self.end = unit.offset + u64::from(unit.size);
        self.summarize(unit, delta_ms, starts_chunk, offset_changes);
    }

    /// Bytes of memory the records take.
    pub(super) fn memory_len(&self) -> usize {
        self.blocks.capacity() * size_of::<Vec<u8>>() + self.blocks.len() * BLOCK_LEN + self.tail.capacity()
    }

    /// The samples in order.
    pub(super) fn samples(&self) -> Samples<'_> {
        Samples {
            blocks: self.blocks.iter().chain(iter::once(&self.tail)),
            bytes: [].iter(),
            last: Sample::default(),
            end: 0,
        }
    }

    fn end_chunk(&mut self, next_dts_ms: i64) {
        let chunk = (self.chunk_samples, self.entry);
        if let Some(summary) = &mut self.summary {
            summary.chunk_changes += u32::from(chunk != self.last_chunk);
        }
        self.last_chunk = chunk;
        self.chunk_samples = 0;
        self.chunk_dts_ms = next_dts_ms;
    }

    fn summarize(&mut self, unit: &Placed, delta_ms: u32, starts_chunk: bool, offset_changes: bool) {
        let pts_ms = unit.dts_ms + i64::from(unit.cto_ms);
        let summary = self.summary.get_or_insert(Summary {
            samples: 0,
            first_dts_ms: unit.dts_ms,
            last_dts_ms: unit.dts_ms,
            last_delta_ms: 0,
            first_pts_ms: pts_ms,
            last_pts_ms: pts_ms,
            starts_clean: unit.key,
            min_cto_ms: unit.cto_ms,
            max_cto_ms: unit.cto_ms,
            sync_samples: 0,
            chunks: 0,
            delta_changes: 0,
            cto_changes: 0,
            chunk_changes: 0,
            bytes: 0,
            max_size: unit.size,
            min_size: unit.size,
        });
        summary.samples += 1;
        summary.sync_samples += u32::from(unit.key);
        summary.chunks += u32::from(starts_chunk);
        summary.delta_changes += u32::from(summary.last_delta_ms != delta_ms);
        summary.cto_changes += u32::from(offset_changes);
        summary.last_dts_ms = unit.dts_ms;
        summary.last_delta_ms = delta_ms;
        summary.starts_clean &= pts_ms >= summary.first_pts_ms;
        summary.first_pts_ms = summary.first_pts_ms.min(pts_ms);
        summary.last_pts_ms = summary.last_pts_ms.max(pts_ms);
        summary.min_cto_ms = summary.min_cto_ms.min(unit.cto_ms);
        summary.max_cto_ms = summary.max_cto_ms.max(unit.cto_ms);
        summary.bytes += u64::from(unit.size);
        summary.max_size = summary.max_size.max(unit.size);
        summary.min_size = summary.min_size.min(unit.size);
    }
}

/// Reads the records back.
#[derive(Debug, Clone)]
pub(super) struct Samples<'a> {
    blocks: iter::Chain<slice::Iter<'a, Vec<u8>>, iter::Once<&'a Vec<u8>>>,
    bytes: slice::Iter<'a, u8>,
    last: Sample,
    end: u64,
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        if self.bytes.as_slice().is_empty() {
            self.bytes = self.blocks.next()?.iter();
        }
        let head = take(&mut self.bytes)?;
        self.last.size = u32::try_from(head >> 3).ok()?;
        self.last.sync = head & NOT_SYNC == 0;
        self.last.delta_ms = u32::try_from(take(&mut self.bytes)?).ok()?;
        if head & OFFSET_CHANGES != 0 {
            self.last.cto_ms = unzigzag(take(&mut self.bytes)?);
        }
        self.last.chunk = None;
        if head & STARTS_CHUNK != 0 {
            self.end += take(&mut self.bytes)?;
            self.last.chunk = Some(self.end);
            self.last.entry = u8::try_from(take(&mut self.bytes)?).ok()?;
        }
        self.end += u64::from(self.last.size);
        Some(self.last)
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut slice::Iter<'_, u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
}

fn unzigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
