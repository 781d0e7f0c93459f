//! [`Movie`]: reads back what [`HeadBuilder`](super::HeadBuilder) composed: every sample of a finished file, in the order of their data.
//!
//! Nothing but its own writing is taken, as of [`segment`](super::segment). Tables are read where they lie in `moov`.

use alloc::{collections::BTreeMap, vec::Vec};

use bytes::{Buf as _, Bytes};

use super::segment::{Boxes, Config, Fields, FragmentSample, Unreadable, child, read_entry, track_of};
use crate::access_unit::Track;

/// A sample of a file, and where its data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The sample; its times are the movie's, whose earliest presentation time is 0.
    pub sample: FragmentSample,
    /// Of its first byte, from the file's first.
    pub offset: u64,
    /// Which of its track's decoder configurations is in force.
    pub config: usize,
}

/// A finished file's samples. Memory: its `moov`, some 20 bytes a sample.
#[derive(Debug, Clone)]
pub struct Movie {
    tracks: BTreeMap<Track, Cursor>,
}

impl Movie {
    /// Given the body of `moov`.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(moov: &Bytes) -> Result<Self, Unreadable> {
        let mut tracks = BTreeMap::new();
        for (_, trak) in Boxes(moov).filter(|(kind, _)| kind == b"trak") {
            let (track, cursor) = Cursor::read(moov, trak).ok_or(Unreadable("trak"))?;
            tracks.insert(track, cursor);
        }
        match tracks.is_empty() {
            true => Err(Unreadable("moov")),
            false => Ok(Self { tracks }),
        }
    }

    /// The decoder configuration of that number of a track.
    #[must_use]
    pub fn config(&self, track: Track, number: usize) -> Option<&Config> {
        self.tracks.get(&track)?.configs.get(number)
    }

    /// The next sample in the order of the file's data; `None` at its end.
    ///
    /// # Errors
    /// [`Unreadable`]: a table ends before the samples do.
    pub fn next_sample(&mut self) -> Result<Option<Placed>, Unreadable> {
        for cursor in self.tracks.values_mut() {
            cursor.look()?;
        }
        let next = self
            .tracks
            .values_mut()
            .filter(|cursor| cursor.ahead.is_some())
            .min_by_key(|cursor| cursor.ahead.map(|placed| placed.offset));
        Ok(next.and_then(|cursor| cursor.ahead.take()))
    }
}

/// What is left of a table: whole entries.
#[derive(Debug, Clone, Default)]
struct Table(Bytes);

impl Table {
    /// Of a box's body, which counts its entries behind `skip` bytes.
    fn read(moov: &Bytes, body: &[u8], skip: usize, entry: usize) -> Option<Self> {
        let mut fields = Fields(body);
        let count = usize::try_from(fields.skip(skip)?.u32()?).ok()?;
        let entries = fields.0.get(..count.checked_mul(entry)?)?;
        Some(Self(moov.slice_ref(entries)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }
}

/// Where a track's tables are read.
#[derive(Debug, Clone)]
struct Cursor {
    track: Track,
    configs: Vec<Config>,
    left: u32,
    /// Size of every sample; none: each has its own.
    size: Option<u32>,
    sizes: Table,
    durations: Table,
    duration: (u32, u32),
    offsets: Option<Table>,
    offset: (u32, u32),
    syncs: Option<Table>,
    next_sync: u32,
    number: u32,
    chunks: Table,
    wide: bool,
    /// Samples a chunk and their configuration, and from which chunk on the next run holds.
    runs: Table,
    run: (u32, usize),
    next_run: Option<(u32, u32, usize)>,
    chunk: u32,
    in_chunk: u32,
    at: u64,
    dts_ms: i64,
    ahead: Option<Placed>,
}

impl Cursor {
    fn read(moov: &Bytes, trak: &[u8]) -> Option<(Track, Self)> {
        let mut tkhd = Fields(child(trak, b"tkhd")?);
        let times = if tkhd.u8()? == 0 { 8 } else { 16 };
        let track = track_of(tkhd.skip(3 + times)?.u32()?)?;
        let mdia = child(trak, b"mdia")?;
        let mut mdhd = Fields(child(mdia, b"mdhd")?);
        let times = if mdhd.u8()? == 0 { 8 } else { 16 };
        if mdhd.skip(3 + times)?.u32()? != super::TIMESCALE {
            return None;
        }
        let stbl = child(child(mdia, b"minf")?, b"stbl")?;
        let entries = Boxes(child(stbl, b"stsd")?.get(8..)?);
        let configs: Option<Vec<Config>> = entries.map(|entry| read_entry(entry, track)).collect();
        let stsz = child(stbl, b"stsz")?;
        let mut sizes = Fields(stsz);
        let size = sizes.skip(4)?.u32()?;
        let left = sizes.u32()?;
        let table = |kind: &[u8; 4], entry| Table::read(moov, child(stbl, kind)?, 4, entry);
        let wide = child(stbl, b"co64").is_some();
        let cursor = Self {
            track,
            configs: configs?,
            left,
            size: (size != 0).then_some(size),
            sizes: match size {
                0 => Table::read(moov, stsz, 8, 4)?,
                _ => Table::default(),
            },
            durations: table(b"stts", 8)?,
            duration: (0, 0),
            offsets: match child(stbl, b"ctts") {
                Some(_) => Some(table(b"ctts", 8)?),
                None => None,
            },
            offset: (0, 0),
            syncs: match child(stbl, b"stss") {
                Some(_) => Some(table(b"stss", 4)?),
                None => None,
            },
            next_sync: 0,
            number: 0,
            chunks: match wide {
                true => table(b"co64", 8)?,
                false => table(b"stco", 4)?,
            },
            wide,
            runs: table(b"stsc", 12)?,
            run: (0, 0),
            next_run: None,
            chunk: 0,
            in_chunk: 0,
            at: 0,
            dts_ms: read_edits(trak)?,
            ahead: None,
        };
        Some((track, cursor))
    }

    /// Reads the track's next sample, unless it is known.
    fn look(&mut self) -> Result<(), Unreadable> {
        if self.ahead.is_none() && self.left > 0 {
            self.ahead = Some(self.next().ok_or(Unreadable("stbl"))?);
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Placed> {
        if self.in_chunk == 0 {
            self.enter_chunk()?;
        }
        self.left = self.left.checked_sub(1)?;
        self.number = self.number.checked_add(1)?;
        self.in_chunk = self.in_chunk.checked_sub(1)?;
        let size = match self.size {
            Some(size) => size,
            None => self.sizes.u32()?,
        };
        let duration_ms = next_of_run(&mut self.duration, &mut self.durations)?;
        let cto = match &mut self.offsets {
            Some(offsets) => next_of_run(&mut self.offset, offsets)?,
            None => 0,
        };
        let sample = FragmentSample {
            track: self.track,
            dts_ms: self.dts_ms,
            cto_ms: cto.cast_signed(),
            duration_ms,
            size,
            key: self.is_sync()?,
        };
        let placed = Placed {
            sample,
            offset: self.at,
            config: self.run.1,
        };
        self.dts_ms = self.dts_ms.checked_add(i64::from(duration_ms))?;
        self.at = self.at.checked_add(u64::from(size))?;
        Some(placed)
    }

    fn is_sync(&mut self) -> Option<bool> {
        let Some(syncs) = &mut self.syncs else {
            return Some(true);
        };
        if self.next_sync < self.number && !syncs.0.is_empty() {
            self.next_sync = syncs.u32()?;
        }
        Some(self.next_sync == self.number)
    }

    fn enter_chunk(&mut self) -> Option<()> {
        self.at = match self.wide {
            true => self.chunks.u64()?,
            false => u64::from(self.chunks.u32()?),
        };
        self.chunk = self.chunk.checked_add(1)?;
        if self.next_run.is_none() && !self.runs.0.is_empty() {
            self.next_run = Some(self.read_run()?);
        }
        if let Some((from, samples, config)) = self.next_run
            && from <= self.chunk
        {
            self.run = (samples, config);
            self.next_run = None;
        }
        self.in_chunk = self.run.0;
        (self.in_chunk > 0).then_some(())
    }

    fn read_run(&mut self) -> Option<(u32, u32, usize)> {
        let (from, samples, entry) = (self.runs.u32()?, self.runs.u32()?, self.runs.u32()?);
        Some((from, samples, usize::try_from(entry.checked_sub(1)?).ok()?))
    }
}

/// The next value of a table of runs: how often it comes, and which.
fn next_of_run(run: &mut (u32, u32), table: &mut Table) -> Option<u32> {
    while run.0 == 0 {
        *run = (table.u32()?, table.u32()?);
    }
    run.0 = run.0.checked_sub(1)?;
    Some(run.1)
}

/// The movie's time at which the first sample is decoded, from the track's edits: an empty one at most, then one from some media time on.
fn read_edits(trak: &[u8]) -> Option<i64> {
    let Some(elst) = child(trak, b"edts").and_then(|edts| child(edts, b"elst")) else {
        return Some(0);
    };
    let mut fields = Fields(elst);
    let wide = fields.u8()? == 1;
    let count = fields.skip(3)?.u32()?;
    let mut begin = 0i64;
    for _ in 0..count {
        let (duration, media_time) = match wide {
            true => (i64::try_from(fields.u64()?).ok()?, fields.u64()?.cast_signed()),
            false => (i64::from(fields.u32()?), i64::from(fields.u32()?.cast_signed())),
        };
        fields.skip(4)?;
        begin = match media_time {
            -1 => begin.checked_add(duration)?,
            _ => begin.checked_sub(media_time)?,
        };
    }
    Some(begin)
}
