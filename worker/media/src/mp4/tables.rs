//! The sample tables of one track, `stts` to `co64`, from its log. ISO/IEC 14496-12 §8.6.1, §8.7.

use alloc::vec::Vec;

use bytes::BufMut;

use super::{
    boxes::{counted_box, full_box},
    sample_log::{Sample, SampleLog, Summary},
};

/// Where chunk offsets stand in the head, to be completed once the head's length is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChunkOffsets {
    /// Of the first one, in bytes from the buffer's start.
    pub(super) at: usize,
    pub(super) count: u32,
    /// Eight bytes each (`co64`) or four (`stco`).
    pub(super) wide: bool,
}

impl ChunkOffsets {
    /// Adds the head's length to each offset.
    pub(super) fn add(&self, head: &mut [u8], len: u64) {
        let entries = head.get_mut(self.at..).unwrap_or_default();
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        if self.wide {
            for entry in entries.as_chunks_mut().0.iter_mut().take(count) {
                *entry = (u64::from_be_bytes(*entry) + len).to_be_bytes();
            }
        } else {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            for entry in entries.as_chunks_mut().0.iter_mut().take(count) {
                *entry = u32::from_be_bytes(*entry).wrapping_add(len).to_be_bytes();
            }
        }
    }
}

/// Bytes that the tables of a track take, give or take a few.
pub(super) fn len_bound(summary: &Summary, wide: bool) -> u64 {
    let entries: [(u64, u32); 6] = [
        (8, summary.delta_changes), // stts
        (8, summary.cto_changes),   // ctts
        (4, if summary.all_sync() { 0 } else { summary.sync_samples }),
        (12, summary.chunk_changes), // stsc
        (4, summary.samples),        // stsz
        (if wide { 8 } else { 4 }, summary.chunks),
    ];
    // Six headers of at most 20 bytes, and in three tables a first or last run that is no change.
    256 + entries.iter().map(|&(len, count)| len * u64::from(count)).sum::<u64>()
}

/// How long each sample is decoded: until the next one is, and the last for `last`.
fn durations(log: &SampleLog, last: u32) -> impl Iterator<Item = u32> {
    log.samples()
        .skip(1)
        .map(|sample| sample.delta_ms)
        .chain(core::iter::once(last))
}

/// Appends `value` with the number of times it comes in a row, for each run.
fn put_runs<T: PartialEq + Copy>(
    out: &mut Vec<u8>,
    values: impl Iterator<Item = T>,
    put: impl Fn(&mut Vec<u8>, T),
) -> u32 {
    let mut runs = 0;
    let mut open: Option<(T, u32)> = None;
    for value in values {
        open = match open {
            Some((same, times)) if same == value => Some((same, times + 1)),
            other => {
                if let Some((value, times)) = other {
                    out.put_u32(times);
                    put(out, value);
                    runs += 1;
                }
                Some((value, 1))
            }
        };
    }
    if let Some((value, times)) = open {
        out.put_u32(times);
        put(out, value);
        runs += 1;
    }
    runs
}

/// `stts`: decode times, as differences.
pub(super) fn put_stts(out: &mut Vec<u8>, log: &SampleLog, last_duration: u32) {
    counted_box(out, b"stts", 0, |out| {
        put_runs(out, durations(log, last_duration), |out, duration| {
            out.put_u32(duration)
        })
    });
}

/// `ctts`: composition offsets plus `shift`; version 1 where one is negative, no box where all are 0.
pub(super) fn put_ctts(out: &mut Vec<u8>, log: &SampleLog, summary: &Summary, shift: i64) {
    let least = i64::from(summary.min_cto_ms) + shift;
    if least == 0 && summary.min_cto_ms == summary.max_cto_ms {
        return;
    }
    let version = u8::from(least < 0);
    let offsets = log.samples().map(|sample| i64::from(sample.cto_ms) + shift);
    // Both versions hold the low 32 bits: the layout keeps offsets within ±2^30, a shift at most as much.
    counted_box(out, b"ctts", version, |out| {
        put_runs(out, offsets, |out, offset| out.put_u32(offset as u32))
    });
}

/// `stss`: the samples where decoding can start, counted from 1; no box where all are.
pub(super) fn put_stss(out: &mut Vec<u8>, log: &SampleLog, summary: &Summary) {
    if summary.all_sync() {
        return;
    }
    counted_box(out, b"stss", 0, |out| {
        let mut count = 0;
        for (number, _) in (1u32..).zip(log.samples()).filter(|(_, sample)| sample.sync) {
            out.put_u32(number);
            count += 1;
        }
        count
    });
}

/// `stsc`: samples a chunk and their sample entry, for each run of like chunks.
pub(super) fn put_stsc(out: &mut Vec<u8>, log: &SampleLog) {
    counted_box(out, b"stsc", 0, |out| {
        let mut count = 0;
        let mut written = (0, 0);
        let mut put = |number: u32, samples: u32, entry: u8| {
            let like = (samples, entry);
            if samples > 0 && written != like {
                out.put_u32(number);
                out.put_u32(samples);
                out.put_u32(u32::from(entry) + 1);
                written = like;
                count += 1;
            }
        };
        let (mut number, mut samples, mut entry) = (0, 0, 0);
        for sample in log.samples() {
            if sample.chunk.is_some() {
                put(number, samples, entry);
                (number, samples, entry) = (number + 1, 0, sample.entry);
            }
            samples += 1;
        }
        put(number, samples, entry);
        count
    });
}

/// `stsz`: sizes, or the one size of all.
pub(super) fn put_stsz(out: &mut Vec<u8>, log: &SampleLog, summary: &Summary) {
    full_box(out, b"stsz", 0, 0, |out| {
        let uniform = summary.min_size == summary.max_size;
        out.put_u32(if uniform { summary.max_size } else { 0 });
        out.put_u32(summary.samples);
        if !uniform {
            log.samples().for_each(|sample| out.put_u32(sample.size));
        }
    });
}

/// `stco` or `co64`: where each chunk starts, counted from the body's first byte for now.
pub(super) fn put_chunk_offsets(out: &mut Vec<u8>, log: &SampleLog, wide: bool) -> ChunkOffsets {
    let mut offsets = ChunkOffsets { at: 0, count: 0, wide };
    counted_box(out, if wide { b"co64" } else { b"stco" }, 0, |out| {
        offsets.at = out.len();
        for start in log.samples().filter_map(|Sample { chunk, .. }| chunk) {
            if wide {
                out.put_u64(start);
            } else {
                out.put_u32(u32::try_from(start).unwrap_or(u32::MAX));
            }
            offsets.count += 1;
        }
        offsets.count
    });
    offsets
}
