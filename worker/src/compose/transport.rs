//! [`Transport`]: the samples of an HLS recording with MPEG-TS segments. Its coded data is not stored as an MP4 holds it, so batches hold it themselves.

use bytes::{Buf as _, Bytes};
use media::mp4::{Config, FragmentSample};
use media::ts::{Demuxer, PACKET_LEN, Unit, Unreadable};

use super::Stop;
use super::playlist::{Entry, Playlist, Runs};
use super::source::{BATCH, Batch, Lasted, damaged, missing};
use super::window::{WINDOW, Window};

/// A batch with so much data is given, bytes; a unit may go beyond it.
const BATCH_BYTES: usize = 4 << 20;
/// Read at a time: whole packets.
const STRETCH: u64 = WINDOW / PACKET_LEN as u64 * PACKET_LEN as u64;

pub(super) struct Transport<'a> {
    list: Playlist<'a>,
    segment: Option<Segment<'a>>,
    /// Of the push in hand, whose folder this is and which begins there in the playlist.
    demuxer: Demuxer,
    push: Option<(String, i64)>,
    /// A unit that begins the next batch, for it is under another configuration.
    ahead: Option<Unit>,
    configs: Vec<Config>,
    lasted: Lasted,
    runs: Runs,
}

/// A segment that is read.
struct Segment<'a> {
    entry: Entry,
    window: Window<'a>,
    /// Where what is behind `stretch` begins.
    at: u64,
    stretch: Bytes,
    over: bool,
}

impl<'a> Transport<'a> {
    pub(super) fn new(list: Playlist<'a>) -> Self {
        Self {
            list,
            segment: None,
            demuxer: Demuxer::new(),
            push: None,
            ahead: None,
            configs: Vec::new(),
            lasted: Lasted::default(),
            runs: Runs::default(),
        }
    }

    pub(super) fn permille(&self) -> u64 {
        self.list.permille()
    }

    /// The next samples, of one segment; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, Stop> {
        loop {
            let mut segment = match self.segment.take().filter(|known| !known.over || self.ahead.is_some()) {
                Some(segment) => segment,
                None => match self.list.next() {
                    Some(entry) => self.enter(entry),
                    None => return Ok(None),
                },
            };
            let mut batch = Batch::default();
            let filled = self.fill(&mut segment, &mut batch).await;
            filled.map_err(|error| match error {
                Trouble::Stop(stop) => stop,
                Trouble::Damaged(what) => damaged(&segment.entry.key, what),
            })?;
            if !batch.samples.is_empty() {
                self.lasted.time(&mut batch.samples);
                batch.configs.clone_from(&self.configs);
                (batch.joins, batch.offset_ms) = self.runs.place(&segment.entry, &batch.samples);
            }
            self.segment = Some(segment);
            if !batch.samples.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    /// Begins a segment, and with the first of a push a timeline.
    fn enter(&mut self, entry: Entry) -> Segment<'a> {
        let known = self.push.take().filter(|(folder, _)| folder == entry.folder());
        let (folder, begin_ms) = known.unwrap_or_else(|| {
            self.demuxer = Demuxer::new();
            (entry.folder().to_owned(), entry.at_ms)
        });
        self.demuxer.start_segment(entry.at_ms - begin_ms);
        self.push = Some((folder, begin_ms));
        Segment {
            window: Window::new(self.list.objects, entry.key.clone()),
            entry,
            at: 0,
            stretch: Bytes::new(),
            over: false,
        }
    }

    /// Reads until the batch is full, its configurations change, or the segment is over.
    async fn fill(&mut self, segment: &mut Segment<'a>, batch: &mut Batch) -> Result<(), Trouble> {
        let mut held = Vec::new();
        let mut unit = self.ahead.take();
        loop {
            if let Some(unit) = unit {
                let is_other = unit.config.is_some();
                if is_other && batch.samples.iter().any(|sample| sample.track == unit.track) {
                    self.ahead = Some(unit);
                    break;
                }
                self.take(unit, batch, &mut held);
            }
            if segment.over || batch.samples.len() >= BATCH || held.len() >= BATCH_BYTES {
                break;
            }
            unit = match segment.packet().await? {
                Some(packet) => self.demuxer.push(&packet)?,
                None => {
                    segment.over = true;
                    self.demuxer.end_segment()?
                }
            };
        }
        batch.held = Some(held.into());
        Ok(())
    }

    fn take(&mut self, unit: Unit, batch: &mut Batch, held: &mut Vec<u8>) {
        if let Some(config) = unit.config {
            self.configs.retain(|(_, track, _)| *track != unit.track);
            self.configs.push((unit.codec, unit.track, config));
        }
        batch.samples.push(FragmentSample {
            track: unit.track,
            dts_ms: unit.dts_ms,
            cto_ms: unit.cto_ms,
            duration_ms: 0,
            size: u32::try_from(unit.data.len()).unwrap_or(u32::MAX),
            key: unit.key,
        });
        let begin = held.len() as u64;
        held.extend_from_slice(&unit.data);
        batch.data.push(begin..held.len() as u64);
    }
}

/// Why a segment is not read on.
enum Trouble {
    Stop(Stop),
    Damaged(Unreadable),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Trouble::Stop(stop)
    }
}

impl From<Unreadable> for Trouble {
    fn from(error: Unreadable) -> Self {
        Trouble::Damaged(error)
    }
}

impl Segment<'_> {
    /// The next packet; none at the end.
    async fn packet(&mut self) -> Result<Option<[u8; PACKET_LEN]>, Stop> {
        if self.stretch.is_empty() {
            let read = self.window.get(self.at, STRETCH).await?;
            self.stretch = read.ok_or_else(|| missing(&self.entry.key))?;
            self.at += self.stretch.len() as u64;
        }
        match self.stretch.first_chunk().copied() {
            Some(packet) => {
                self.stretch.advance(PACKET_LEN);
                Ok(Some(packet))
            }
            None if self.stretch.is_empty() => Ok(None),
            None => Err(damaged(&self.entry.key, "ends within a packet")),
        }
    }
}
