//! Sound: AAC behind ADTS headers, MP3 as it is. ISO/IEC 13818-1 §2.4.2; ISO/IEC 14496-3 §1.A.2.

use super::{Short, TsError};
use crate::access_unit::Codec;
use crate::codec::{
    CodecError,
    aac::{self, Adts},
    mp3,
};

/// The sound's configuration, as far as writing needs it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Audio {
    Aac(Adts),
    Mp3 { mpeg1: bool },
}

impl Audio {
    pub(super) fn new(codec: Codec, config: &[u8]) -> Result<Self, CodecError> {
        match codec {
            Codec::Aac => Ok(Self::Aac(aac::Config::parse(config)?.adts()?)),
            Codec::Mp3 => Ok(Self::Mp3 {
                mpeg1: mp3::FrameHeader::parse(config)?.mpeg1,
            }),
            _ => Err(CodecError::Unsupported("audio codec in MPEG-TS")),
        }
    }

    pub(super) fn codec(&self) -> Codec {
        match self {
            Self::Aac(_) => Codec::Aac,
            Self::Mp3 { .. } => Codec::Mp3,
        }
    }

    /// ISO/IEC 13818-1 table 2-34.
    pub(super) fn stream_type(&self) -> u8 {
        match self {
            Self::Aac(_) => 0x0F,
            Self::Mp3 { mpeg1: true } => 0x03,
            Self::Mp3 { mpeg1: false } => 0x04,
        }
    }

    /// What goes in front of a frame.
    pub(super) fn frame_header(&self, data: &[u8]) -> Result<Short<{ aac::ADTS_HEADER_LEN }>, TsError> {
        let mut header = Short::default();
        if let Self::Aac(adts) = self {
            header.push(&adts.header(data.len()).ok_or(TsError::TooLong(data.len()))?);
        }
        Ok(header)
    }
}
