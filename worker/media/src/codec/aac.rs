//! AAC: `AudioSpecificConfig`, and the ADTS header made from it. ISO/IEC 14496-3 §1.6.2.1, §1.A.2.

use super::{CodecError, CodecName, bits::Bits};
use alloc::format;

/// Sampling rates by `samplingFrequencyIndex`. ISO/IEC 14496-3 table 1.18.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];
/// Object type of spectral band replication.
const SBR: u8 = 5;
/// Object type of parametric stereo.
const PS: u8 = 29;
/// Bytes of an ADTS header without checksum.
pub const ADTS_HEADER_LEN: usize = 7;

/// What an `AudioSpecificConfig` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Object type of the core coder: 2 is AAC-LC.
    pub object_type: u8,
    /// Sampling rate of the core coder, hertz.
    pub core_rate: u32,
    /// Sampling rate of what comes out, hertz: twice the core's with explicitly signalled SBR, as a rule.
    pub output_rate: u32,
    /// `channelConfiguration`, 0 to 15; 0 means that a program config element says it.
    pub channel_config: u8,
    /// Spectral band replication is signalled, by object type or by the extension behind the core's configuration.
    pub sbr: bool,
    /// Parametric stereo is signalled likewise.
    pub ps: bool,
    /// Samples a frame of the core coder: 1024, or 960.
    pub core_samples: u16,
}

impl Config {
    /// Reads an `AudioSpecificConfig`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`], and [`CodecError::Invalid`] for object type 0 or a reserved rate.
    pub fn parse(asc: &[u8]) -> Result<Self, CodecError> {
        let mut bits = Bits::new(asc, "AudioSpecificConfig");
        let mut object_type = object_type(&mut bits)?;
        let core_rate = rate(&mut bits)?;
        let channel_config = u8::try_from(bits.bits(4)?).unwrap_or(0);
        let mut config = Self {
            object_type,
            core_rate,
            output_rate: core_rate,
            channel_config,
            sbr: false,
            ps: false,
            core_samples: 1024,
        };
        if object_type == SBR || object_type == PS {
            config.sbr = true;
            config.ps = object_type == PS;
            config.output_rate = rate(&mut bits)?;
            object_type = self::object_type(&mut bits)?;
            config.object_type = object_type;
        }
        if matches!(object_type, 1..=4 | 6 | 7 | 17 | 19..=23) && bits.bit()? {
            config.core_samples = 960;
        }
        if !config.sbr && channel_config != 0 {
            // The extension is for decoders that know it; nothing in it, or rubbish, takes nothing away.
            let _ = config.sync_extension(&mut bits);
        }
        Ok(config)
    }

    /// Backward compatible signalling behind the core's configuration. ISO/IEC 14496-3 §1.6.6.
    fn sync_extension(&mut self, bits: &mut Bits<'_>) -> Result<(), CodecError> {
        if self.object_type != 2 {
            return Ok(()); // other types carry fields of unknown length in between
        }
        if bits.bit()? {
            bits.skip(14)?; // coreCoderDelay
        }
        bits.skip(1)?;
        if bits.bits(11)? != 0x2B7 || object_type(bits)? != SBR || !bits.bit()? {
            return Ok(());
        }
        self.output_rate = rate(bits)?;
        self.sbr = true;
        if bits.bits(11)? == 0x548 {
            self.ps = bits.bit()?;
        }
        Ok(())
    }

    /// Channels that come out: 0 where only the program config element knows.
    #[must_use]
    pub fn channels(&self) -> u8 {
        match self.channel_config {
            1 if self.ps => 2,
            count @ 1..=6 => count,
            7 | 12 | 14 => 8,
            11 => 7,
            _ => 0,
        }
    }

    /// Samples a frame that come out at [`Config::output_rate`].
    #[must_use]
    pub fn output_samples(&self) -> u32 {
        let samples = u32::from(self.core_samples);
        if self.sbr && self.output_rate > self.core_rate {
            samples * 2
        } else {
            samples
        }
    }

    /// `mp4a.40.` with the object type that a decoder must know. RFC 6381 §3.3.
    #[must_use]
    pub fn codec_name(&self) -> CodecName {
        let object_type = match (self.ps, self.sbr) {
            (true, _) => PS,
            (_, true) => SBR,
            _ => self.object_type,
        };
        format!("mp4a.40.{object_type}")
    }

    /// Checks once that frames of this configuration have an ADTS header.
    ///
    /// # Errors
    ///
    /// [`CodecError::Unsupported`] for what ADTS cannot say: an object type above 4, a rate beyond its
    /// table, channels said by a program config element or by a configuration above 7.
    pub fn adts(&self) -> Result<Adts, CodecError> {
        let profile = match self.object_type {
            object_type @ 1..=4 => object_type - 1,
            _ => return Err(CodecError::Unsupported("AAC object type in ADTS")),
        };
        let rate = RATES
            .iter()
            .position(|&rate| rate == self.core_rate)
            .and_then(|index| u8::try_from(index).ok());
        let rate = rate.ok_or(CodecError::Unsupported("sampling rate in ADTS"))?;
        if self.core_samples != 1024 {
            return Err(CodecError::Unsupported("960 samples a frame in ADTS"));
        }
        let channels = self.channel_config;
        if !(1..=7).contains(&channels) {
            return Err(CodecError::Unsupported("channel configuration in ADTS"));
        }
        Ok(Adts {
            profile,
            rate,
            channels,
        })
    }
}

/// What all ADTS headers of a configuration have in common; checked, so that [`Adts::header`] need not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adts {
    profile: u8,
    rate: u8,
    channels: u8,
}

impl Adts {
    /// The header in front of a raw data block of `len` bytes; `None` where its 13-bit length cannot say it (8184 bytes and more).
    #[must_use]
    pub fn header(&self, len: usize) -> Option<[u8; ADTS_HEADER_LEN]> {
        let len = u16::try_from(len).ok()?.checked_add(7).filter(|&len| len < 1 << 13)?;
        let [high, low] = len.to_be_bytes();
        Some([
            0xFF,
            0xF1, // MPEG-4, no checksum
            self.profile << 6 | self.rate << 2 | self.channels >> 2,
            self.channels << 6 | high >> 3,
            high << 5 | low >> 3,
            low << 5 | 0x1F, // buffer fullness: variable rate
            0xFC,
        ])
    }
}

/// What an ADTS header says of the raw data block behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdtsFrame {
    adts: Adts,
    /// Bytes of header and block, [`ADTS_HEADER_LEN`] at least.
    pub frame_len: u16,
}

impl AdtsFrame {
    /// Reads a header of the kind that [`Adts::header`] makes: MPEG-4, no checksum, one block.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`] below [`ADTS_HEADER_LEN`] bytes; [`CodecError::Invalid`] for anything else, also a rate or channels that the header
    /// cannot say.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let Some(&[0xFF, 0xF1, b2, b3, b4, b5, b6]) = bytes.first_chunk::<ADTS_HEADER_LEN>() else {
            return Err(match bytes.len() < ADTS_HEADER_LEN {
                true => CodecError::Truncated("ADTS header"),
                false => CodecError::Invalid("ADTS header"),
            });
        };
        let adts = Adts {
            profile: b2 >> 6,
            rate: b2 >> 2 & 15,
            channels: (b2 & 1) << 2 | b3 >> 6,
        };
        let frame_len = u16::from(b3 & 3) << 11 | u16::from(b4) << 3 | u16::from(b5) >> 5;
        let is_known = usize::from(adts.rate) < RATES.len() && adts.channels > 0 && b6 & 3 == 0;
        match is_known && usize::from(frame_len) >= ADTS_HEADER_LEN {
            true => Ok(Self { adts, frame_len }),
            false => Err(CodecError::Invalid("ADTS header")),
        }
    }

    /// The `AudioSpecificConfig` of its core coder. What extends it (SBR, PS) is not in an ADTS header: decoders find it in the blocks.
    #[must_use]
    pub fn config(&self) -> [u8; 2] {
        let Adts {
            profile,
            rate,
            channels,
        } = self.adts;
        [(profile + 1) << 3 | rate >> 1, (rate & 1) << 7 | channels << 3]
    }

    /// Sampling rate of the core coder, hertz.
    #[must_use]
    pub fn core_rate(&self) -> u32 {
        RATES.get(usize::from(self.adts.rate)).copied().unwrap_or(0)
    }
}

/// `GetAudioObjectType`. ISO/IEC 14496-3 §1.6.2.1.
fn object_type(bits: &mut Bits<'_>) -> Result<u8, CodecError> {
    let short = bits.bits(5)?;
    let object_type = if short == 31 { bits.bits(6)? + 32 } else { short };
    match u8::try_from(object_type) {
        Ok(object_type) if object_type > 0 => Ok(object_type),
        _ => Err(CodecError::Invalid("AAC object type")),
    }
}

fn rate(bits: &mut Bits<'_>) -> Result<u32, CodecError> {
    let index = bits.bits(4)? as usize;
    let rate = if index == 15 {
        bits.bits(24)?
    } else {
        RATES.get(index).copied().unwrap_or(0)
    };
    if rate == 0 {
        Err(CodecError::Invalid("AAC sampling rate"))
    } else {
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_extended_configurations_are_read() {
        type Case<'a> = (&'a [u8], u8, u32, u32, u8, &'a str);
        let cases: [Case<'_>; 6] = [
            (&[0x12, 0x10], 2, 44_100, 44_100, 2, "mp4a.40.2"),
            (&[0x11, 0x88], 2, 48_000, 48_000, 1, "mp4a.40.2"),
            (&[0x11, 0x90, 0x56, 0xE5, 0x00], 2, 48_000, 48_000, 2, "mp4a.40.2"),
            // Explicit SBR: type 5, core 24 kHz, 2 channels, extension 48 kHz, type 2.
            (&[0x2B, 0x11, 0x88, 0x00], 2, 24_000, 48_000, 2, "mp4a.40.5"),
            // Explicit PS: type 29, core 22.05 kHz, 1 channel, extension 44.1 kHz, type 2.
            (&[0xEB, 0x8A, 0x08, 0x00], 2, 22_050, 44_100, 2, "mp4a.40.29"),
            // Backward compatible SBR: LC 24 kHz, then 0x2B7, 5, 48 kHz.
            (&[0x13, 0x10, 0x56, 0xE5, 0x98], 2, 24_000, 48_000, 2, "mp4a.40.5"),
        ];
        for (asc, object_type, core, output, channels, name) in cases {
            let config = Config::parse(asc).unwrap();
            assert_eq!(
                (config.object_type, config.core_rate, config.output_rate),
                (object_type, core, output)
            );
            assert_eq!(
                (config.channels(), config.codec_name().as_str()),
                (channels, name),
                "{asc:x?}"
            );
        }
    }

    #[test]
    fn rates_off_the_table_are_read_in_full_but_have_no_adts() {
        // Type 2, index 15, 0x00ABCD, 2 channels.
        let asc = [0x17, 0x80, 0x55, 0xE6, 0x90];
        let config = Config::parse(&asc).unwrap();
        assert_eq!(config.core_rate, 0x00_ABCD);
        assert_eq!(config.adts(), Err(CodecError::Unsupported("sampling rate in ADTS")));
    }

    #[test]
    fn useless_configurations_are_errors() {
        assert_eq!(Config::parse(&[]), Err(CodecError::Truncated("AudioSpecificConfig")));
        assert_eq!(
            Config::parse(&[0x12]),
            Err(CodecError::Truncated("AudioSpecificConfig"))
        );
        assert_eq!(Config::parse(&[0, 0]), Err(CodecError::Invalid("AAC object type")));
        assert_eq!(
            Config::parse(&[0x16, 0x90]),
            Err(CodecError::Invalid("AAC sampling rate"))
        );
    }

    #[test]
    fn the_adts_header_has_every_field_in_its_place() {
        let adts = Config::parse(&[0x12, 0x10]).unwrap().adts().unwrap();
        assert_eq!(adts.header(371), Some([0xFF, 0xF1, 0x50, 0x80, 0x2F, 0x5F, 0xFC]));
        assert_eq!(adts.header(0).unwrap()[4..6], [0x00, 0xFF]);
        assert!(adts.header(8184).is_some());
        assert_eq!(adts.header(8185), None);
        assert_eq!(adts.header(usize::MAX), None);
    }

    #[test]
    fn an_adts_header_says_what_it_was_made_of() {
        for asc in [[0x12, 0x10], [0x11, 0x88], [0x0A, 0x10], [0x13, 0x38]] {
            let config = Config::parse(&asc).unwrap();
            let header = config.adts().unwrap().header(371).unwrap();
            let frame = AdtsFrame::read(&header).unwrap();
            assert_eq!((frame.config(), frame.frame_len), (asc, 378));
            assert_eq!(frame.core_rate(), config.core_rate);
            for at in 0..ADTS_HEADER_LEN {
                assert_eq!(
                    AdtsFrame::read(&header[..at]),
                    Err(CodecError::Truncated("ADTS header"))
                );
            }
        }
        let good = [0xFF, 0xF1, 0x50, 0x80, 0x2F, 0x5F, 0xFC];
        // No sync, a checksum, a reserved rate, no channels, a length within the header, two blocks.
        for (at, byte) in [(0, 0xFE), (1, 0xF0), (2, 0x74), (3, 0x00), (4, 0x00), (6, 0xFD)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(AdtsFrame::read(&bad), Err(CodecError::Invalid("ADTS header")), "{at}");
        }
    }
}
