//! [`Window`]: an object front to back, a stretch of a bounded length in memory.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use media::mp4::{BOX_HEADER, FragmentSample, box_header, read_moof};

use crate::upload::Sites;

/// Bytes that are read at a time: most segments are shorter.
pub(crate) const WINDOW: u64 = 8 << 20;
/// Longest `moof` that is read. Ours have some 100 bytes and 16 for each unit of a megabyte.
const LONGEST_MOOF: usize = 64 << 20;
/// The name of a gap: a segment of the list is not in storage.
const SEGMENT_MISSING: &str = "segment_missing";
/// The name of a gap: a segment is not as it was written.
pub(crate) const SEGMENT_DAMAGED: &str = "segment_damaged";

/// A segment as it is stored.
pub(crate) struct Found {
    pub(crate) samples: Vec<FragmentSample>,
    /// Where its data lies.
    pub(crate) data: Vec<Range<u64>>,
}

/// Reads an object front to back, a stretch at a time.
pub(crate) struct Window<'a> {
    objects: &'a Sites,
    pub(crate) key: String,
    at: u64,
    bytes: Bytes,
    /// Length of the object, once something of it was read.
    of: Option<u64>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(objects: &'a Sites, key: String) -> Self {
        Self {
            objects,
            key,
            at: 0,
            bytes: Bytes::new(),
            of: None,
        }
    }

    /// Length of the object, once something of it was read.
    pub(crate) fn of(&self) -> Option<u64> {
        self.of
    }

    /// Up to `len` bytes from `from` on, fewer at the end. None: there is no such object.
    pub(crate) async fn get(&mut self, from: u64, len: u64) -> io::Result<Option<Bytes>> {
        let is_end = |of: Option<u64>| of.is_some_and(|of| from >= of);
        if is_end(self.of) {
            return Ok(Some(Bytes::new()));
        }
        let end = from + len;
        let there = self.at + self.bytes.len() as u64;
        let whole = self.of.is_some_and(|of| there >= of.min(end));
        if from < self.at || !whole {
            let read = self.objects.read(&self.key, from, len.max(WINDOW)).await?;
            let Some(read) = read else { return Ok(None) };
            (self.at, self.bytes, self.of) = (from, read.bytes, Some(read.of));
        }
        let skip = usize::try_from(from - self.at)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let rest = self.bytes.slice(skip..);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        Ok(Some(rest.slice(..len)))
    }

    /// What the segment holds, or the name of what is wrong with it.
    pub(crate) async fn segment(&mut self) -> io::Result<Result<Found, &'static str>> {
        let mut found = Found {
            samples: Vec::new(),
            data: Vec::new(),
        };
        let mut at = 0;
        // Bytes that the samples of the `moof` in hand have.
        let mut due = 0;
        loop {
            let Some(header) = self.get(at, BOX_HEADER as u64).await? else {
                return Ok(Err(SEGMENT_MISSING));
            };
            if header.is_empty() && due == 0 && !found.samples.is_empty() {
                return Ok(Ok(found));
            }
            let Some((kind, len)) = box_header(&header) else {
                return Ok(Err(SEGMENT_DAMAGED));
            };
            let end = at + len as u64;
            match &kind {
                b"moof" if due == 0 && len <= LONGEST_MOOF => {
                    let moof = self.get(at, len as u64).await?.unwrap_or_default();
                    let Ok(samples) = read_moof(&moof) else {
                        return Ok(Err(SEGMENT_DAMAGED));
                    };
                    due = samples.iter().map(|sample| u64::from(sample.size)).sum();
                    found.samples.extend(samples);
                }
                b"mdat" if due > 0 && due == (len - BOX_HEADER) as u64 && self.of.is_some_and(|of| end <= of) => {
                    found.data.push(at + BOX_HEADER as u64..end);
                    due = 0;
                }
                _ => return Ok(Err(SEGMENT_DAMAGED)),
            }
            at = end;
        }
    }
}
