//! A picture as Annex B: delimiter, parameter sets, NAL units behind start codes. ITU-T H.264 annex B, H.265 annex B.

use super::packets::Packets;
use crate::access_unit::{AccessUnit, Codec};
use crate::codec::{CodecError, avc, hevc, nal::NalUnits};
use alloc::vec::Vec;

pub(super) const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Delimiter that allows every slice type. H.264 §7.3.2.4.
const AVC_DELIMITER: [u8; 6] = [0, 0, 0, 1, 0x09, 0xF0];
/// The same of H.265 §7.3.2.5.
const HEVC_DELIMITER: [u8; 7] = [0, 0, 0, 1, 0x46, 0x01, 0x50];

/// The pictures' configuration, as far as writing needs it.
#[derive(Debug, Clone)]
pub(super) struct Video {
    codec: Codec,
    length_size: u8,
    /// The parameter sets, each behind a start code.
    sets: Vec<u8>,
    set_count: u16,
}

impl Video {
    pub(super) fn new(codec: Codec, config: &[u8]) -> Result<Self, CodecError> {
        let mut sets = Vec::new();
        let mut set_count = 0u16;
        let mut append = |nal: &[u8]| {
            sets.extend_from_slice(&START_CODE);
            sets.extend_from_slice(nal);
            set_count = set_count.saturating_add(1);
        };
        let length_size = match codec {
            Codec::Avc => {
                let config = avc::Config::parse(config)?;
                config
                    .sps
                    .iter()
                    .chain(&config.pps)
                    .filter(|nal| !nal.is_empty())
                    .for_each(|nal| append(nal));
                config.length_size
            }
            Codec::Hevc => {
                let config = hevc::Config::parse(config)?;
                // In the order of dependence, whatever the record's.
                for nal_type in [hevc::NAL_VPS, hevc::NAL_SPS, hevc::NAL_PPS] {
                    let of_type = config
                        .nals
                        .iter()
                        .filter(|nal| !nal.is_empty() && hevc::nal_type(nal) == nal_type);
                    of_type.for_each(|nal| append(nal));
                }
                config.length_size
            }
            _ => return Err(CodecError::Unsupported("video codec in MPEG-TS")),
        };
        Ok(Self {
            codec,
            length_size,
            sets,
            set_count,
        })
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// ISO/IEC 13818-1 table 2-34.
    pub(super) fn stream_type(&self) -> u8 {
        if self.codec == Codec::Hevc { 0x24 } else { 0x1B }
    }

    /// Looks the unit through once: afterwards its length is known, and writing cannot fail.
    pub(super) fn picture<'a>(&self, unit: &AccessUnit<'a>) -> Result<Picture<'a>, CodecError> {
        let delimiter = delimiter(self.codec);
        let mut len = 0;
        let (mut delimited, mut alike, mut sets_lead) = (false, false, false);
        let (mut sps, mut pps) = (false, false);
        for (number, nal) in NalUnits::new(unit.data, self.length_size).enumerate() {
            let nal = nal?;
            let role = role(self.codec, nal);
            match role {
                Role::Delimiter if number == 0 => {
                    delimited = true;
                    alike = delimiter.ends_with(nal);
                }
                Role::Sps => sps = true,
                Role::Pps => pps = true,
                Role::Delimiter | Role::Vps | Role::Other => {}
            }
            sets_lead |= number == usize::from(delimited) && role.is_set();
            len += START_CODE.len() + nal.len();
        }
        if len == 0 {
            return Err(CodecError::Invalid("access unit without NAL units"));
        }
        let add_sets = unit.key && !(sps && pps);
        len += if delimited { 0 } else { delimiter.len() };
        len += if add_sets { self.sets.len() } else { 0 };
        let added = Added {
            delimiter: !delimited,
            sets: if add_sets { self.set_count } else { 0 },
        };
        Ok(Picture {
            nals: NalUnits::new(unit.data, self.length_size),
            len,
            delimited,
            add_sets,
            note: (alike || (unit.key && sets_lead)).then(|| added.to_bytes()),
        })
    }
}

/// The delimiter that is put in front of pictures which have none, behind its start code.
fn delimiter(codec: Codec) -> &'static [u8] {
    match codec {
        Codec::Hevc => &HEVC_DELIMITER,
        _ => &AVC_DELIMITER,
    }
}

/// What a NAL unit is, as far as the stream cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Delimiter,
    Vps,
    Sps,
    Pps,
    Other,
}

impl Role {
    /// True for a parameter set.
    pub(super) fn is_set(self) -> bool {
        matches!(self, Self::Vps | Self::Sps | Self::Pps)
    }
}

pub(super) fn role(codec: Codec, nal: &[u8]) -> Role {
    match codec {
        Codec::Hevc => match hevc::nal_type(nal) {
            hevc::NAL_AUD => Role::Delimiter,
            hevc::NAL_VPS => Role::Vps,
            hevc::NAL_SPS => Role::Sps,
            hevc::NAL_PPS => Role::Pps,
            _ => Role::Other,
        },
        _ => match avc::nal_type(nal) {
            avc::NAL_AUD => Role::Delimiter,
            avc::NAL_SPS => Role::Sps,
            avc::NAL_PPS => Role::Pps,
            _ => Role::Other,
        },
    }
}

/// What stands in front of a picture that the encoder did not send: a delimiter, then parameter sets behind the delimiter.
///
/// As a rule the stream itself shows it ([`Added::usual`]). Where an encoder's own NAL units look the same, two bytes beside the picture say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) delimiter: bool,
    /// At most 32,767: a record of 16 KiB cannot hold more.
    pub(super) sets: u16,
}

impl Added {
    /// What is taken for added where nothing is said: a delimiter like ours, and the parameter sets that a key picture begins with.
    pub(super) fn usual<'a>(codec: Codec, key: bool, mut nals: impl Iterator<Item = &'a [u8]>) -> Self {
        let first = nals.next().unwrap_or_default();
        let sets = nals.take_while(|nal| key && role(codec, nal).is_set()).count();
        Self {
            delimiter: delimiter(codec).ends_with(first),
            sets: u16::try_from(sets).unwrap_or(u16::MAX),
        }
    }

    pub(super) fn from_bytes(bytes: [u8; 2]) -> Self {
        let word = u16::from_be_bytes(bytes);
        Self {
            delimiter: word & 0x8000 != 0,
            sets: word & 0x7FFF,
        }
    }

    fn to_bytes(self) -> [u8; 2] {
        (u16::from(self.delimiter) << 15 | self.sets.min(0x7FFF)).to_be_bytes()
    }
}

/// A unit that was looked through.
#[derive(Debug, Clone)]
pub(super) struct Picture<'a> {
    nals: NalUnits<'a>,
    len: usize,
    delimited: bool,
    add_sets: bool,
    note: Option<[u8; 2]>,
}

impl Picture<'_> {
    /// [`Added`], where the stream does not show it.
    pub(super) fn note(&self) -> Option<[u8; 2]> {
        self.note
    }

    /// Bytes as Annex B.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes delimiter, parameter sets, NAL units.
    pub(super) fn write(self, video: &Video, packets: &mut Packets<'_>) {
        let Self {
            mut nals,
            delimited,
            add_sets,
            ..
        } = self;
        if delimited {
            if let Some(Ok(nal)) = nals.next() {
                packets.write(&START_CODE);
                packets.write(nal);
            }
        } else {
            packets.write(delimiter(video.codec));
        }
        if add_sets {
            packets.write(&video.sets);
        }
        for nal in nals.flatten() {
            packets.write(&START_CODE);
            packets.write(nal);
        }
    }
}
