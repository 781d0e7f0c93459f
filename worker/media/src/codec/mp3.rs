//! MPEG-1/2 audio: the frame header. ISO/IEC 11172-3 §2.4.2.3, ISO/IEC 13818-3.

use super::CodecError;

/// What the four bytes in front of each frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// MPEG-1 (else MPEG-2, or 2.5).
    pub mpeg1: bool,
    /// Layer, 1 to 3.
    pub layer: u8,
    /// Bits a second; 0 is "free format".
    pub bit_rate: u32,
    /// Hertz, 8000 to 48000.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u8,
    /// Samples a frame and channel: 384, 576 or 1152.
    pub samples: u16,
    /// Bytes of the frame with its header; 0 where the format is free.
    pub frame_len: u16,
}

/// Kilobits a second of layer 3, MPEG-1.
const RATES_1: [u16; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
/// Kilobits a second of layers 2 and 3, MPEG-2.
const RATES_2: [u16; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
/// Kilobits a second of layer 1, MPEG-1.
const RATES_1_LAYER_1: [u16; 15] = [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
/// Kilobits a second of layer 2, MPEG-1.
const RATES_1_LAYER_2: [u16; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
/// Kilobits a second of layer 1, MPEG-2.
const RATES_2_LAYER_1: [u16; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];

impl FrameHeader {
    /// Reads the header at the front of `frame`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`], or [`CodecError::Invalid`] where no frame begins here.
    pub fn parse(frame: &[u8]) -> Result<Self, CodecError> {
        let &[sync, b1, b2, b3] = frame
            .first_chunk::<4>()
            .ok_or(CodecError::Truncated("MP3 frame header"))?;
        let invalid = CodecError::Invalid("MP3 frame header");
        if sync != 0xFF || b1 & 0xE0 != 0xE0 {
            return Err(invalid);
        }
        let version = b1 >> 3 & 3; // 0: 2.5, 2: MPEG-2, 3: MPEG-1
        let layer = match b1 >> 1 & 3 {
            1 => 3,
            2 => 2,
            3 => 1,
            _ => return Err(invalid),
        };
        let mpeg1 = version == 3;
        let full_rate = match b2 >> 2 & 3 {
            0 => 44_100u32,
            1 => 48_000,
            2 => 32_000,
            _ => return Err(invalid),
        };
        let sample_rate = match version {
            3 => full_rate,
            2 => full_rate / 2,
            0 => full_rate / 4,
            _ => return Err(invalid),
        };
        let rates = match (mpeg1, layer) {
            (true, 1) => &RATES_1_LAYER_1,
            (true, 2) => &RATES_1_LAYER_2,
            (true, _) => &RATES_1,
            (false, 1) => &RATES_2_LAYER_1,
            (false, _) => &RATES_2,
        };
        let bit_rate = u32::from(*rates.get(usize::from(b2 >> 4)).ok_or(invalid)?) * 1000;
        let padding = u32::from(b2 >> 1 & 1);
        let samples: u16 = match (mpeg1, layer) {
            (_, 1) => 384,
            (false, 3) => 576,
            _ => 1152,
        };
        let bytes = match layer {
            _ if bit_rate == 0 => 0,
            1 => (12 * bit_rate / sample_rate + padding) * 4,
            _ => u32::from(samples) / 8 * bit_rate / sample_rate + padding,
        };
        Ok(Self {
            mpeg1,
            layer,
            bit_rate,
            sample_rate,
            channels: if b3 >> 6 == 3 { 1 } else { 2 },
            samples,
            frame_len: u16::try_from(bytes).map_err(|_| invalid)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_encoders_write_them_are_read() {
        for (bytes, rate, bit_rate, channels, samples, len) in [
            ([0xFF, 0xFB, 0x90, 0x64], 44_100, 128_000, 2, 1152, 417),
            ([0xFF, 0xFB, 0x92, 0x64], 44_100, 128_000, 2, 1152, 418),
            ([0xFF, 0xFB, 0x94, 0xC4], 48_000, 128_000, 1, 1152, 384),
            ([0xFF, 0xF3, 0x84, 0xC0], 24_000, 64_000, 1, 576, 192),
            ([0xFF, 0xE3, 0x48, 0xC0], 8_000, 32_000, 1, 576, 288),
            ([0xFF, 0xFD, 0xA4, 0x00], 48_000, 192_000, 2, 1152, 576),
        ] {
            let header = FrameHeader::parse(&bytes).unwrap();
            assert_eq!(
                (
                    header.sample_rate,
                    header.bit_rate,
                    header.channels,
                    header.samples,
                    header.frame_len
                ),
                (rate, bit_rate, channels, samples, len),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        assert_eq!(
            FrameHeader::parse(&[0xFF, 0xFB]),
            Err(CodecError::Truncated("MP3 frame header"))
        );
        for bytes in [
            [0, 0, 0, 0],
            [0xFF, 0xF9, 0x90, 0],
            [0xFF, 0xFB, 0xF0, 0],
            [0xFF, 0xFB, 0x9C, 0],
            [0xFF, 0xEB, 0x90, 0],
        ] {
            assert_eq!(
                FrameHeader::parse(&bytes),
                Err(CodecError::Invalid("MP3 frame header")),
                "{bytes:x?}"
            );
        }
    }
}
