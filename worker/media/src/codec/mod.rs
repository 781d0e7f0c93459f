//! Decoder configurations and frame headers, as far as the muxers must read them.
//!
//! * [`avc`], [`hevc`]: `avcC` and `hvcC` records, picture size, NAL units within an access unit.
//! * [`aac`]: `AudioSpecificConfig` and the ADTS header made from it.
//! * [`mp3`]: the frame header, which is all the configuration there is.
//!
//! Everything borrows from the bytes it was given, and any bytes are either understood or an error.

pub mod aac;
pub mod avc;
mod bits;
pub mod hevc;
pub mod mp3;
pub mod nal;

use alloc::string::String;

/// Why a configuration or a header is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the structure does.
    #[error("{0} is cut short")]
    Truncated(&'static str),
    /// A field has a value that the specification forbids.
    #[error("{0} is invalid")]
    Invalid(&'static str),
    /// Legal, but there is no way to say it in the format asked for.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

/// Size of a picture as shown, cropping applied. Each side 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureSize {
    /// Luma samples a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl PictureSize {
    fn new(width: Option<u32>, height: Option<u32>) -> Result<Self, CodecError> {
        let side = |side: Option<u32>| side.and_then(|side| u16::try_from(side).ok()).filter(|&side| side > 0);
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Ok(Self { width, height }),
            _ => Err(CodecError::Invalid("picture size")),
        }
    }
}

/// The codec as RFC 6381 names it: `avc1.64001f`, `hvc1.1.6.L93.B0`, `mp4a.40.2`.
pub type CodecName = String;
