//! A picture as Annex B: delimiter, parameter sets, NAL units behind start codes. ITU-T H.264 annex B, H.265 annex B.

use super::packets::Packets;
use crate::access_unit::{AccessUnit, Codec};
use crate::codec::{CodecError, avc, hevc, nal::NalUnits};
use alloc::vec::Vec;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
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
}

impl Video {
    pub(super) fn new(codec: Codec, config: &[u8]) -> Result<Self, CodecError> {
        let mut sets = Vec::new();
        let mut append = |nal: &[u8]| {
            sets.extend_from_slice(&START_CODE);
            sets.extend_from_slice(nal);
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
        })
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// ISO/IEC 13818-1 table 2-34.
    pub(super) fn stream_type(&self) -> u8 {
        if self.codec == Codec::Hevc { 0x24 } else { 0x1B }
    }

    fn delimiter(&self) -> &'static [u8] {
        if self.codec == Codec::Hevc {
            &HEVC_DELIMITER
        } else {
            &AVC_DELIMITER
        }
    }

    fn role(&self, nal: &[u8]) -> Role {
        match self.codec {
            Codec::Hevc => match hevc::nal_type(nal) {
                hevc::NAL_AUD => Role::Delimiter,
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

    /// Looks the unit through once: afterwards its length is known, and writing cannot fail.
    pub(super) fn picture<'a>(&self, unit: &AccessUnit<'a>) -> Result<Picture<'a>, CodecError> {
        let mut len = 0;
        let mut delimited = false;
        let (mut sps, mut pps) = (false, false);
        for nal in NalUnits::new(unit.data, self.length_size) {
            let nal = nal?;
            match self.role(nal) {
                Role::Delimiter => delimited |= len == 0,
                Role::Sps => sps = true,
                Role::Pps => pps = true,
                Role::Other => {}
            }
            len += START_CODE.len() + nal.len();
        }
        if len == 0 {
            return Err(CodecError::Invalid("access unit without NAL units"));
        }
        let add_sets = unit.key && !(sps && pps);
        len += if delimited { 0 } else { self.delimiter().len() };
        len += if add_sets { self.sets.len() } else { 0 };
        Ok(Picture {
            nals: NalUnits::new(unit.data, self.length_size),
            len,
            delimited,
            add_sets,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Delimiter,
    Sps,
    Pps,
    Other,
}

/// A unit that was looked through.
#[derive(Debug, Clone)]
pub(super) struct Picture<'a> {
    nals: NalUnits<'a>,
    len: usize,
    delimited: bool,
    add_sets: bool,
}

impl Picture<'_> {
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
            packets.write(video.delimiter());
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
