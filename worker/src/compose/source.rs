//! [`Source`]: the samples of a stored file, batch by batch, whatever its format; their data stays where it lies until it is asked for, unless it is not
//! stored as it is.

use std::ops::Range;

use bytes::Bytes;
use media::access_unit::{Codec, Track, UnitKind};
use media::flv;
use media::mp4::{BOX_HEADER, Config, FragmentSample, Movie, Placed, box_header, read_init};
use shared::composition::Piece;
use shared::template::Format;

use super::frames::Frames;
use super::playlist::{Entry, Playlist, Runs};
use super::transport::Transport;
use super::window::{WINDOW, Window};
use super::{Problem, Stop};
use crate::upload::Sites;

/// Samples that are given at a time, at most.
pub(super) const BATCH: usize = 512;
/// Longest `moov` that is read: some 6 million samples, 17 hours of 100 a second.
const LONGEST_MOOV: usize = 128 << 20;
/// Longest decoder configuration that is read, bytes.
const LONGEST_CONFIG: u64 = 64 << 10;
/// What tells what an FLV tag is, bytes of its body.
const TELLING: u64 = 64;
/// How long a sample lasts of which nothing better is known, milliseconds.
const USUAL_MS: u32 = 40;
/// A longer distance between two samples is a pause, not for how long the first lasts.
const LONGEST_MS: u32 = 1_000;

/// Samples in the order of their data, under the same decoder configurations.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) configs: Vec<Config>,
    pub(super) samples: Vec<FragmentSample>,
    /// Where the data of each lies in the object in hand, or in `held`.
    pub(super) data: Vec<Range<u64>>,
    /// The data, where it is not stored as it is.
    pub(super) held: Option<Bytes>,
    /// Times have nothing to do with those of the batch before.
    pub(super) joins: bool,
    /// Added to a presentation time: the file's own time, whose beginning is 0.
    pub(super) offset_ms: i64,
}

/// A stored file that is read.
pub(super) struct Source<'a> {
    window: Window<'a>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Mp4 { movie: Box<Movie>, ahead: Option<Placed> },
    Flv(Flv),
    Fragments(Fragments<'a>),
    Transport(Box<Transport<'a>>),
    Frames(Frames),
}

/// Where an FLV file is read.
#[derive(Default)]
struct Flv {
    at: u64,
    configs: Vec<Config>,
    lasted: Lasted,
    /// The file's own time of its earliest presentation.
    zero_ms: Option<i64>,
}

struct Fragments<'a> {
    list: Playlist<'a>,
    configs: Vec<Config>,
    runs: Runs,
}

pub(super) fn damaged(key: &str, what: impl std::fmt::Display) -> Stop {
    Stop::Never(Problem::SourceDamaged, format!("{key}: {what}"))
}

pub(super) fn missing(key: &str) -> Stop {
    Stop::Never(Problem::SourceMissing, format!("{key} is not in storage (any more)"))
}

impl<'a> Source<'a> {
    pub(super) async fn open(objects: &'a Sites, piece: &Piece) -> Result<Self, Stop> {
        let mut window = Window::new(objects, piece.key.clone());
        let kind = match piece.format {
            Format::Mp4 => {
                let movie = read_movie(&mut window).await?;
                Kind::Mp4 {
                    movie: Box::new(movie),
                    ahead: None,
                }
            }
            Format::Flv => {
                let head = window.get(0, 9).await?.ok_or_else(|| missing(&piece.key))?;
                let header = flv::read_file_header(&head).map_err(|error| damaged(&piece.key, error))?;
                let header = header.ok_or_else(|| damaged(&piece.key, "ends within its header"))?;
                Kind::Flv(Flv {
                    at: header.first_tag.into(),
                    ..Flv::default()
                })
            }
            Format::Hls => {
                let list = Playlist::open(objects, &piece.key).await?;
                match list.is_fragments() {
                    true => Kind::Fragments(Fragments {
                        list,
                        configs: Vec::new(),
                        runs: Runs::default(),
                    }),
                    false => Kind::Transport(Box::new(Transport::new(list))),
                }
            }
            Format::Aac => Kind::Frames(Frames::new(Codec::Aac)),
            Format::Mp3 => Kind::Frames(Frames::new(Codec::Mp3)),
        };
        Ok(Self { window, kind })
    }

    /// The next samples; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, Stop> {
        match &mut self.kind {
            Kind::Mp4 { movie, ahead } => next_of_movie(movie, ahead, &self.window.key),
            Kind::Flv(flv) => flv.next(&mut self.window).await,
            Kind::Frames(frames) => frames.next(&mut self.window).await,
            Kind::Transport(transport) => transport.next().await,
            Kind::Fragments(fragments) => {
                let Some((window, batch)) = fragments.next().await? else {
                    return Ok(None);
                };
                self.window = window;
                Ok(Some(batch))
            }
        }
    }

    /// Up to so many bytes of the object in hand.
    pub(super) async fn data(&mut self, at: Range<u64>) -> Result<Bytes, Stop> {
        let read = self.window.get(at.start, (at.end - at.start).min(WINDOW)).await?;
        let bytes = read.ok_or_else(|| missing(&self.window.key))?;
        match bytes.is_empty() {
            true => Err(damaged(&self.window.key, "ends before its samples do")),
            false => Ok(bytes),
        }
    }

    /// How much of the file has been looked at, of 1,000; `last` is the end of the data that was taken last.
    pub(super) fn permille(&self, last: u64) -> u64 {
        match &self.kind {
            Kind::Fragments(fragments) => fragments.list.permille(),
            Kind::Transport(transport) => transport.permille(),
            _ => last.saturating_mul(1_000) / self.window.of().unwrap_or(1).max(1),
        }
        .min(1_000)
    }
}

async fn read_movie(window: &mut Window<'_>) -> Result<Movie, Stop> {
    let mut at = 0;
    loop {
        let header = window.get(at, BOX_HEADER as u64).await?;
        let header = header.ok_or_else(|| missing(&window.key))?;
        let (kind, len) = box_header(&header).ok_or_else(|| damaged(&window.key, "has no moov in front"))?;
        if &kind == b"moov" {
            if len > LONGEST_MOOV {
                return Err(damaged(&window.key, format!("has a moov of {len} bytes")));
            }
            let moov = window.get(at, len as u64).await?.unwrap_or_default();
            if moov.len() != len {
                return Err(damaged(&window.key, "ends within its moov"));
            }
            return Movie::read(&moov.slice(BOX_HEADER..)).map_err(|error| damaged(&window.key, error));
        }
        at += len as u64;
    }
}

fn next_of_movie(movie: &mut Movie, ahead: &mut Option<Placed>, key: &str) -> Result<Option<Batch>, Stop> {
    let mut batch = Batch::default();
    while batch.samples.len() < BATCH {
        let next = match ahead.take() {
            Some(placed) => Some(placed),
            None => movie.next_sample().map_err(|error| damaged(key, error))?,
        };
        let Some(placed) = next else { break };
        let track = placed.sample.track;
        let config = movie.config(track, placed.config);
        let config = config.ok_or_else(|| damaged(key, "names a decoder configuration that it has not"))?;
        match batch.configs.iter().find(|(_, known, _)| *known == track) {
            Some(known) if known != config => {
                *ahead = Some(placed);
                break;
            }
            Some(_) => {}
            None => batch.configs.push(config.clone()),
        }
        batch.samples.push(placed.sample);
        batch
            .data
            .push(placed.offset..placed.offset + u64::from(placed.sample.size));
    }
    Ok((!batch.samples.is_empty()).then_some(batch))
}

impl Flv {
    async fn next(&mut self, window: &mut Window<'_>) -> Result<Option<Batch>, Stop> {
        let mut batch = Batch::default();
        while batch.samples.len() < BATCH {
            let header = window.get(self.at, flv::TAG_HEADER_LEN as u64).await?;
            let header = header.ok_or_else(|| missing(&window.key))?;
            if header.is_empty() {
                break;
            }
            let Some(&[tag_type, s0, s1, s2, t0, t1, t2, extension, ..]) = header.first_chunk::<11>() else {
                return Err(damaged(&window.key, "ends within a tag"));
            };
            let len = u64::from(u32::from_be_bytes([0, s0, s1, s2]));
            let body_at = self.at + flv::TAG_HEADER_LEN as u64;
            let next = self.at + flv::TAG_OVERHEAD as u64 + len;
            let body = window.get(body_at, len.min(TELLING)).await?.unwrap_or_default();
            if body.len() as u64 != len.min(TELLING) || window.of().is_none_or(|of| next > of) {
                return Err(damaged(&window.key, "ends within a tag"));
            }
            let Some(class) = flv::classify(tag_type, &body) else {
                self.at = next;
                continue;
            };
            let track = match class.kind {
                UnitKind::Video | UnitKind::VideoConfig => Track::Video,
                UnitKind::Audio | UnitKind::AudioConfig => Track::Audio,
                UnitKind::Metadata | UnitKind::Text | UnitKind::Other => {
                    self.at = next;
                    continue;
                }
            };
            let skip = u64::from(class.header_len);
            let said = match class.kind {
                UnitKind::VideoConfig | UnitKind::AudioConfig => {
                    let record = window.get(body_at + skip, (len - skip).min(LONGEST_CONFIG)).await?;
                    Some(record.unwrap_or_default().to_vec())
                }
                _ if class.codec == Codec::Mp3 => body.get(usize::from(class.header_len)..).map(first_four),
                _ => None,
            };
            if let Some(record) = said {
                let config = (class.codec, track, record);
                if !self.configs.contains(&config) {
                    if batch.samples.iter().any(|sample| sample.track == track) {
                        break;
                    }
                    self.configs.retain(|(_, known, _)| *known != track);
                    self.configs.push(config);
                }
            }
            if matches!(class.kind, UnitKind::Video | UnitKind::Audio) {
                let dts_ms = i64::from(u32::from_be_bytes([extension, t0, t1, t2]));
                batch.samples.push(FragmentSample {
                    track,
                    dts_ms,
                    cto_ms: class.cto_ms,
                    duration_ms: 0,
                    size: u32::try_from(len - skip).unwrap_or(u32::MAX),
                    key: class.key,
                });
                batch.data.push(body_at + skip..body_at + len);
            }
            self.at = next;
        }
        self.lasted.time(&mut batch.samples);
        let earliest = batch.samples.iter().map(pts).min();
        batch.offset_ms = -*self.zero_ms.get_or_insert(earliest.unwrap_or(0));
        batch.configs.clone_from(&self.configs);
        Ok((!batch.samples.is_empty()).then_some(batch))
    }
}

/// How long the last sample of each track lasted, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lasted([u32; 2]);

impl Default for Lasted {
    fn default() -> Self {
        Self([USUAL_MS; 2])
    }
}

impl Lasted {
    /// Says how long samples last: until the next of their track, the last of a batch as long as the one before it.
    pub(super) fn time(&mut self, samples: &mut [FragmentSample]) {
        for (track, lasted) in [Track::Video, Track::Audio].into_iter().zip(&mut self.0) {
            let mut of_track = samples.iter_mut().filter(|sample| sample.track == track).peekable();
            while let Some(sample) = of_track.next() {
                if let Some(next) = of_track.peek() {
                    let until = u32::try_from(next.dts_ms - sample.dts_ms).unwrap_or(0);
                    *lasted = until.min(LONGEST_MS);
                }
                sample.duration_ms = *lasted;
            }
        }
    }
}

fn first_four(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().take(4).copied().collect()
}

impl<'a> Fragments<'a> {
    async fn next(&mut self) -> Result<Option<(Window<'a>, Batch)>, Stop> {
        let Some(entry) = self.list.next() else {
            return Ok(None);
        };
        let Entry { key, map, .. } = &entry;
        if let Some(map) = map {
            let init = self
                .list
                .objects
                .read(map, 0, WINDOW)
                .await?
                .ok_or_else(|| missing(map))?;
            self.configs = read_init(&init.bytes).map_err(|error| damaged(map, error))?;
        }
        let mut window = Window::new(self.list.objects, key.clone());
        let found = match window.segment().await? {
            Ok(found) => found,
            Err(_) if window.of().is_none() => return Err(missing(key)),
            Err(reason) => return Err(damaged(key, reason)),
        };
        let mut batch = Batch {
            configs: self.configs.clone(),
            data: Vec::with_capacity(found.samples.len()),
            ..Batch::default()
        };
        let mut stretches = found.data.into_iter();
        let mut at = stretches.next().unwrap_or_default();
        for sample in &found.samples {
            let size = u64::from(sample.size);
            while at.is_empty() && size > 0 {
                at = stretches
                    .next()
                    .ok_or_else(|| damaged(key, "ends before its samples do"))?;
            }
            batch.data.push(at.start..at.start + size);
            at.start += size;
        }
        batch.samples = found.samples;
        (batch.joins, batch.offset_ms) = self.runs.place(&entry, &batch.samples);
        Ok(Some((window, batch)))
    }
}

/// When a sample is presented.
pub(super) fn pts(sample: &FragmentSample) -> i64 {
    sample.dts_ms.saturating_add(i64::from(sample.cto_ms))
}
