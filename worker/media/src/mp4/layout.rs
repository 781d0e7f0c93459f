//! [`Layout`]: decides, unit by unit, what is in a file.

use alloc::{boxed::Box, vec::Vec};

use super::{MAX_CONFIGURATION_LEN, MAX_SAMPLE_ENTRIES, MAX_TRACK_UNITS, Take, entry, reason};
use crate::access_unit::{Codec, Track, UnitInfo, UnitKind};

/// Decode times beyond this are refused, so that no sum below overflows: 140,000 years.
const TIME_BOUND_MS: i64 = 1 << 52;
/// Composition offsets reach this far either way, so that `ctts` holds them even when shifted.
const OFFSET_BOUND_MS: i64 = 1 << 30;

/// Answers for each unit of a stream whether it goes into the file. Small (the decoder configurations are its bulk), cheap
/// to ask, and a function of what was pushed alone: after a restart, push the file's units again.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    video: TrackLayout,
    audio: TrackLayout,
    body_len: u64,
}

impl Layout {
    /// An empty file with no decoder configuration in force.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty file that begins in mid-stream, with the configurations then in force (see [`Self::push`] for their shape).
    #[must_use]
    pub fn with_configs(configs: &[(Codec, Track, &[u8])]) -> Self {
        let mut layout = Self::new();
        for &(codec, track, config) in configs {
            layout.track_mut(track).configure(codec, config);
        }
        layout
    }

    /// Asks where the next tag goes.
    ///
    /// `config` is the `avcC`, `hvcC` or `AudioSpecificConfig` record for the two `*Config` kinds (without it they change
    /// nothing, nor does a record that is malformed or longer than [`MAX_CONFIGURATION_LEN`]), and for an MP3 unit its first
    /// four bytes or more, if at hand: they carry sampling rate and channels, for which 44.1 kHz stereo is written otherwise.
    /// Each is needed once, and when it changes.
    pub fn push(&mut self, unit: &UnitInfo, config: Option<&[u8]>) -> Take {
        match self.place(unit, config) {
            Ok(_) => Take::Yes,
            Err(other) => other,
        }
    }

    /// Bytes of the body so far: the coded data of every unit taken.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.body_len
    }

    /// As [`Self::push`], with what the sample tables need of a unit that is taken.
    pub(super) fn place(&mut self, unit: &UnitInfo, config: Option<&[u8]>) -> Result<Placed, Take> {
        let track = match unit.kind {
            UnitKind::Video => Track::Video,
            UnitKind::Audio => Track::Audio,
            UnitKind::VideoConfig | UnitKind::AudioConfig => {
                let track = if unit.kind == UnitKind::VideoConfig {
                    Track::Video
                } else {
                    Track::Audio
                };
                if let Some(config) = config {
                    self.track_mut(track).configure(unit.codec, config);
                }
                return Err(Take::NotAUnit);
            }
            UnitKind::Metadata | UnitKind::Text | UnitKind::Other => return Err(Take::NotAUnit),
        };
        let offset = self.body_len;
        let (entry, dts_ms, cto_ms) = self.track_mut(track).place(track, unit, config)?;
        let size = unit.data_len();
        self.body_len += u64::from(size);
        Ok(Placed {
            track,
            entry,
            offset,
            size,
            dts_ms,
            cto_ms,
            key: unit.key,
        })
    }

    pub(super) fn track(&self, track: Track) -> &TrackLayout {
        match track {
            Track::Video => &self.video,
            Track::Audio => &self.audio,
        }
    }

    fn track_mut(&mut self, track: Track) -> &mut TrackLayout {
        match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        }
    }
}

/// A unit's place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) track: Track,
    /// Index of its sample entry within the track.
    pub(super) entry: u8,
    /// Of its first byte, from the body's first.
    pub(super) offset: u64,
    pub(super) size: u32,
    /// Never less than the track's previous one.
    pub(super) dts_ms: i64,
    /// To the presentation time as received, also where `dts_ms` was held up.
    pub(super) cto_ms: i32,
    pub(super) key: bool,
}

/// A decoder configuration, as received; for MP3 what [`entry::mp3_parameters`] keeps of a frame header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) codec: Codec,
    pub(super) record: Box<[u8]>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TrackLayout {
    /// The last configuration of each codec, and its index in `entries` once a unit has used it. At most two.
    in_force: Vec<(Configuration, Option<u8>)>,
    /// Configurations that units use, in order of first use. All have one codec.
    entries: Vec<Configuration>,
    units: u32,
    last_dts_ms: i64,
}

impl TrackLayout {
    /// The configurations in use, in the order of their sample entries.
    pub(super) fn entries(&self) -> &[Configuration] {
        &self.entries
    }

    /// The configuration of the first unit; before there is one, the configuration set last.
    pub(super) fn leading(&self) -> Option<&Configuration> {
        self.entries.first().or(self.in_force.last().map(|(known, _)| known))
    }

    fn configure(&mut self, codec: Codec, record: &[u8]) {
        let mp3 = if codec == Codec::Mp3 {
            entry::mp3_parameters(record)
        } else {
            None
        };
        let record = match &mp3 {
            Some(parameters) => parameters.as_slice(),
            None if record.len() <= MAX_CONFIGURATION_LEN && entry::is_usable(codec, record) => record,
            None => return,
        };
        if self
            .in_force
            .iter()
            .any(|(known, _)| known.codec == codec && *known.record == *record)
        {
            return;
        }
        let next = Configuration {
            codec,
            record: record.into(),
        };
        let entry = self
            .entries
            .iter()
            .position(|entry| *entry == next)
            .and_then(|at| u8::try_from(at).ok());
        self.in_force.retain(|(known, _)| known.codec != codec);
        self.in_force.push((next, entry));
    }

    /// The unit's sample entry, decode time and composition offset.
    fn place(&mut self, track: Track, unit: &UnitInfo, config: Option<&[u8]>) -> Result<(u8, i64, i32), Take> {
        let supported = match track {
            Track::Video => matches!(unit.codec, Codec::Avc | Codec::Hevc),
            Track::Audio => matches!(unit.codec, Codec::Aac | Codec::Mp3),
        };
        if !supported {
            return Err(Take::Skip(reason::CODEC_NOT_SUPPORTED));
        }
        if unit.data_len() == 0 {
            return Err(Take::Skip(reason::EMPTY_UNIT));
        }
        let cto_ms = i64::from(unit.cto_ms);
        if !within(unit.dts_ms, TIME_BOUND_MS) || !within(cto_ms, OFFSET_BOUND_MS) {
            return Err(Take::Skip(reason::TIME_OUT_OF_RANGE));
        }
        if unit.codec == Codec::Mp3 {
            self.configure_mp3(config);
        }
        let Some((configuration, entry)) = self.in_force.iter_mut().find(|(known, _)| known.codec == unit.codec) else {
            return Err(Take::Skip(reason::NO_DECODER_CONFIGURATION));
        };
        if self.entries.first().is_some_and(|first| first.codec != unit.codec) {
            return Err(Take::NewFile(reason::CODEC_CHANGED));
        }
        if entry.is_none() && self.entries.len() >= MAX_SAMPLE_ENTRIES {
            return Err(Take::NewFile(reason::TOO_MANY_CONFIGURATIONS));
        }
        if self.units >= MAX_TRACK_UNITS {
            return Err(Take::NewFile(reason::TOO_MANY_UNITS));
        }
        let last_dts_ms = if self.units == 0 { unit.dts_ms } else { self.last_dts_ms };
        let (dts_ms, cto_ms) = hold_up(last_dts_ms, unit.dts_ms, cto_ms)?;
        let index = match *entry {
            Some(index) => index,
            None => {
                let index = u8::try_from(self.entries.len()).unwrap_or(u8::MAX);
                self.entries.push(configuration.clone());
                *entry.insert(index)
            }
        };
        self.units += 1;
        self.last_dts_ms = dts_ms;
        Ok((index, dts_ms, cto_ms))
    }

    /// MP3 needs no configuration; what a frame's header says of rate and channels counts as one.
    fn configure_mp3(&mut self, first_bytes: Option<&[u8]>) {
        if let Some(bytes) = first_bytes {
            self.configure(Codec::Mp3, bytes);
        }
        if !self.in_force.iter().any(|(known, _)| known.codec == Codec::Mp3) {
            self.configure(Codec::Mp3, &entry::USUAL_MP3_HEADER);
        }
    }
}

/// Decode times must not go back within a track (ISO/IEC 14496-12 §8.6.1.2): one that does is held at the last, its
/// presentation time kept.
fn hold_up(last_dts_ms: i64, dts_ms: i64, cto_ms: i64) -> Result<(i64, i32), Take> {
    if dts_ms - last_dts_ms > i64::from(u32::MAX) {
        return Err(Take::NewFile(reason::PAUSE_TOO_LONG));
    }
    let held = dts_ms.max(last_dts_ms);
    let offset = dts_ms + cto_ms - held;
    match i32::try_from(offset) {
        Ok(cto_ms) if within(offset, OFFSET_BOUND_MS) => Ok((held, cto_ms)),
        _ => Err(Take::NewFile(reason::TIME_WENT_BACK)),
    }
}

fn within(value: i64, bound: i64) -> bool {
    (-bound..=bound).contains(&value)
}
