//! H.265: the `hvcC` record and what the sequence parameter set says of the picture. ISO/IEC 14496-15 §8.3.3.1, ITU-T H.265 §7.3.2.2.

use super::{
    CodecError, CodecName, PictureSize,
    avc::append_sets,
    bits::{Bits, unescape},
};
use alloc::{format, vec::Vec};
use core::fmt::Write;

/// First `nal_unit_type` of the pictures where decoding can start (`BLA_W_LP`). H.265 table 7-1.
pub const NAL_IRAP_FIRST: u8 = 16;
/// Last `nal_unit_type` of those, reserved ones included.
pub const NAL_IRAP_LAST: u8 = 23;
/// Video parameter set.
pub const NAL_VPS: u8 = 32;
/// Sequence parameter set.
pub const NAL_SPS: u8 = 33;
/// Picture parameter set.
pub const NAL_PPS: u8 = 34;
/// Access unit delimiter.
pub const NAL_AUD: u8 = 35;

/// The `nal_unit_type` of a NAL unit; 0 (a trailing picture) for no bytes.
#[must_use]
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte >> 1 & 0x3F)
}

/// An `hvcC` record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<'a> {
    /// `general_profile_space`, 0 to 3.
    pub profile_space: u8,
    /// `general_tier_flag`.
    pub high_tier: bool,
    /// `general_profile_idc`, 0 to 31.
    pub profile: u8,
    /// `general_profile_compatibility_flags`.
    pub compatibility: u32,
    /// The 48 bits of constraint flags.
    pub constraints: [u8; 6],
    /// `general_level_idc`: thirty times the level.
    pub level: u8,
    /// Bytes of the length in front of each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// All NAL units of the record in its order: parameter sets of each type, and SEI.
    pub nals: Vec<&'a [u8]>,
}

impl<'a> Config<'a> {
    /// Reads an `hvcC` record.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`], and [`CodecError::Invalid`] for a version above 1, a length size of 3 or no sequence parameter set.
    /// (Version 0 is what encoders wrote before the record was standardised.)
    pub fn parse(record: &'a [u8]) -> Result<Self, CodecError> {
        let cut = CodecError::Truncated("hvcC");
        let (
            &[
                version,
                profile,
                p0,
                p1,
                p2,
                p3,
                c0,
                c1,
                c2,
                c3,
                c4,
                c5,
                level,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                sizes,
                arrays,
            ],
            mut rest,
        ) = record.split_first_chunk::<23>().ok_or(cut)?;
        if version > 1 {
            return Err(CodecError::Invalid("hvcC version"));
        }
        let length_size = (sizes & 3) + 1;
        if length_size == 3 {
            return Err(CodecError::Invalid("hvcC length size"));
        }
        let mut nals = Vec::new();
        for _ in 0..arrays {
            let (&[_, n0, n1], tail) = rest.split_first_chunk::<3>().ok_or(cut)?;
            rest = tail;
            for _ in 0..u16::from_be_bytes([n0, n1]) {
                let (length, tail) = rest.split_first_chunk::<2>().ok_or(cut)?;
                let (nal, tail) = tail
                    .split_at_checked(usize::from(u16::from_be_bytes(*length)))
                    .ok_or(cut)?;
                nals.push(nal);
                rest = tail;
            }
        }
        if !nals.iter().any(|nal| nal_type(nal) == NAL_SPS) {
            return Err(CodecError::Invalid("hvcC without parameter sets"));
        }
        Ok(Self {
            profile_space: profile >> 6,
            high_tier: profile & 0x20 != 0,
            profile: profile & 0x1F,
            compatibility: u32::from_be_bytes([p0, p1, p2, p3]),
            constraints: [c0, c1, c2, c3, c4, c5],
            level,
            length_size,
            nals,
        })
    }

    /// The picture's size, from the first sequence parameter set.
    ///
    /// # Errors
    ///
    /// As [`picture_size`].
    pub fn picture_size(&self) -> Result<PictureSize, CodecError> {
        let sps = self.nals.iter().find(|nal| nal_type(nal) == NAL_SPS);
        picture_size(sps.copied().unwrap_or_default())
    }

    /// `hvc1.` with profile, compatibility, tier, level and constraints. ISO/IEC 14496-15 annex E.3.
    #[must_use]
    pub fn codec_name(&self) -> CodecName {
        let space = ["", "A", "B", "C"]
            .get(usize::from(self.profile_space))
            .copied()
            .unwrap_or_default();
        let tier = if self.high_tier { 'H' } else { 'L' };
        let compatibility = self.compatibility.reverse_bits();
        let mut name = format!("hvc1.{space}{}.{compatibility:X}.{tier}{}", self.profile, self.level);
        let used = self
            .constraints
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        for byte in self.constraints.iter().take(used) {
            // Writing to a string cannot fail.
            let _ = write!(name, ".{byte:X}");
        }
        name
    }
}

/// Bytes of a sequence parameter set that are read at most: the picture's size stands near its start.
const SPS_BYTES: usize = 512;

/// The picture's size from one sequence parameter set NAL unit.
///
/// # Errors
///
/// [`CodecError::Truncated`] or [`CodecError::Invalid`] where it is none.
pub fn picture_size(sps: &[u8]) -> Result<PictureSize, CodecError> {
    let rbsp = unescape(sps, SPS_BYTES);
    let Head {
        chroma,
        separate_planes,
        width,
        height,
        crop,
        ..
    } = Head::read(&mut Bits::new(&rbsp, "HEVC sequence parameter set"))?;
    let [left, right, top, bottom] = crop;
    let (unit_x, unit_y) = match chroma {
        1 if !separate_planes => (2, 2),
        2 if !separate_planes => (2, 1),
        _ => (1, 1),
    };
    let side = |side: u32, near: u32, far: u32, unit: u32| side.checked_sub(near.checked_add(far)?.checked_mul(unit)?);
    PictureSize::new(side(width, left, right, unit_x), side(height, top, bottom, unit_y))
}

/// What a sequence parameter set begins with.
struct Head {
    /// `sps_max_sub_layers_minus1`, 0 to 7.
    sub_layers: u32,
    nested: bool,
    chroma: u32,
    separate_planes: bool,
    width: u32,
    height: u32,
    /// Left, right, top, bottom.
    crop: [u32; 4],
    /// Bits of a luma sample and of a chroma sample, less 8.
    depths: [u32; 2],
}

impl Head {
    /// One layer of 4:2:0 with 8 bits.
    const USUAL: Self = Self {
        sub_layers: 0,
        nested: true,
        chroma: 1,
        separate_planes: false,
        width: 0,
        height: 0,
        crop: [0; 4],
        depths: [0; 2],
    };

    fn read(bits: &mut Bits<'_>) -> Result<Self, CodecError> {
        bits.skip(16 + 4)?;
        let sub_layers = bits.bits(3)?;
        let nested = bits.bit()?;
        skip_profile_tier_level(bits, sub_layers)?;
        bits.ue()?; // sps_seq_parameter_set_id
        let chroma = bits.ue()?;
        let separate_planes = chroma == 3 && bits.bit()?;
        let (width, height) = (bits.ue()?, bits.ue()?);
        let crop = if bits.bit()? {
            [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?]
        } else {
            [0; 4]
        };
        // They stand behind the size: where the bytes end before, it is still known.
        let depths = [bits.ue().unwrap_or(0), bits.ue().unwrap_or(0)];
        Ok(Self {
            sub_layers,
            nested,
            chroma,
            separate_planes,
            width,
            height,
            crop,
            depths,
        })
    }
}

/// Makes the `hvcC` record of parameter sets, for NAL units behind lengths of 4 bytes. ISO/IEC 14496-15 §8.3.3.1.
///
/// # Errors
///
/// [`CodecError::Truncated`] without a whole sequence parameter set, [`CodecError::Invalid`] for more, or longer ones, than the record can hold.
pub fn record(vps: &[&[u8]], sps: &[&[u8]], pps: &[&[u8]]) -> Result<Vec<u8>, CodecError> {
    let cut = CodecError::Truncated("HEVC sequence parameter set");
    let rbsp = unescape(sps.first().copied().unwrap_or_default(), SPS_BYTES);
    // Behind the NAL unit's header and one byte: profile, tier, compatibility, constraints, level.
    let profile = rbsp.get(3..15).ok_or(cut)?;
    // Sets that cannot be read so far are for decoders to judge: then what is usual is repeated of them.
    let head = Head::read(&mut Bits::new(&rbsp, "HEVC sequence parameter set")).unwrap_or(Head::USUAL);
    let low = |value: u32, mask: u32| u8::try_from(value & mask).unwrap_or(0);
    let [luma, chroma] = head.depths;
    let layers = low(head.sub_layers, 7).saturating_add(1).min(7);
    let mut out = alloc::vec![1];
    out.extend_from_slice(profile);
    // Segmentation and parallelism unknown; frame rate unspecified.
    out.extend([0xF0, 0, 0xFC, 0xFC | low(head.chroma, 3)]);
    out.extend([0xF8 | low(luma, 7), 0xF8 | low(chroma, 7), 0, 0]);
    out.push(layers << 3 | u8::from(head.nested) << 2 | 3);
    let arrays = [(NAL_VPS, vps), (NAL_SPS, sps), (NAL_PPS, pps)];
    let there = || arrays.iter().filter(|(_, sets)| !sets.is_empty());
    out.push(u8::try_from(there().count()).unwrap_or(0));
    for (nal_type, sets) in there() {
        let count = u16::try_from(sets.len()).map_err(|_| CodecError::Invalid("number of HEVC parameter sets"))?;
        out.push(0x80 | nal_type);
        out.extend(count.to_be_bytes());
        append_sets(&mut out, sets)?;
    }
    Ok(out)
}

/// H.265 §7.3.3. `sub_layers` is `sps_max_sub_layers_minus1`, 0 to 7.
fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Result<(), CodecError> {
    bits.skip(88 + 8)?;
    if sub_layers == 0 {
        return Ok(());
    }
    let mut skip = 0;
    for _ in 0..sub_layers {
        skip += if bits.bit()? { 88 } else { 0 };
        skip += if bits.bit()? { 8 } else { 0 };
    }
    // The present flags are padded to eight pairs.
    let padding = 8usize.saturating_sub(sub_layers as usize).saturating_mul(2);
    bits.skip(padding.saturating_add(skip))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1920x1080, Main, level 4.
    const MAIN: [u8; 42] = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x78,
        0xA0, 0x03, 0xC0, 0x80, 0x10, 0xE5, 0x96, 0x56, 0x69, 0x24, 0xCA, 0xF0, 0x16, 0x80, 0x80, 0x00, 0x00, 0x03,
        0x00, 0x80, 0x00, 0x00, 0x05, 0x04,
    ];

    fn record() -> Vec<u8> {
        let mut record = alloc::vec![1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 120];
        record.extend([0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, 2]);
        record.extend([0xA1, 0, 1, 0, 42]);
        record.extend(MAIN);
        record.extend([0xA0, 0, 1, 0, 2, 0x40, 1]);
        record
    }

    #[test]
    fn picture_sizes_are_those_that_were_encoded() {
        let cases: [(&[u8], u16, u16); 3] = [
            (&MAIN, 1920, 1080),
            // 4:2:2.
            (
                &[
                    0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9D, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00,
                    0x1E, 0xB0, 0x15, 0x20, 0x20, 0x72, 0x4F, 0x96, 0x56, 0x69, 0x24, 0xCA, 0xF0, 0x16, 0x80, 0x80,
                ],
                162,
                122,
            ),
            // 4:4:4 with 10 bits.
            (
                &[
                    0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9C, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00,
                    0x1E, 0x90, 0x04, 0x90, 0x73, 0x9E, 0x76, 0xCB, 0x2B, 0x35, 0xC9, 0x95, 0xE0, 0x2D, 0x01, 0x00,
                ],
                66,
                50,
            ),
        ];
        for (sps, width, height) in cases {
            assert_eq!(picture_size(sps), Ok(PictureSize { width, height }));
        }
        for len in 0..20 {
            assert!(picture_size(&MAIN[..len]).is_err());
        }
    }

    #[test]
    fn a_record_is_read_whole_or_refused() {
        let record = record();
        let config = Config::parse(&record).unwrap();
        assert_eq!((config.nals.len(), config.length_size, config.level), (2, 4, 120));
        assert_eq!(
            config.picture_size(),
            Ok(PictureSize {
                width: 1920,
                height: 1080
            })
        );
        assert_eq!(config.codec_name(), "hvc1.1.6.L120.90");
        for len in 0..record.len() {
            assert_eq!(
                Config::parse(&record[..len]),
                Err(CodecError::Truncated("hvcC")),
                "{len}"
            );
        }
        let with = |at: usize, byte| {
            let mut changed = record.clone();
            changed[at] = byte;
            Config::parse(&changed).map(|config| config.length_size)
        };
        assert_eq!(with(0, 2), Err(CodecError::Invalid("hvcC version")));
        assert_eq!(with(0, 0), Ok(4));
        assert_eq!(with(21, 0x0E), Err(CodecError::Invalid("hvcC length size")));
        assert_eq!(with(22, 0), Err(CodecError::Invalid("hvcC without parameter sets")));
    }

    #[test]
    fn the_name_says_space_tier_and_constraints() {
        let record = record();
        let config = Config::parse(&record).unwrap();
        let config = Config {
            profile_space: 1,
            high_tier: true,
            profile: 2,
            constraints: [0xB0, 0, 0x20, 0, 0, 0],
            ..config
        };
        assert_eq!(config.codec_name(), "hvc1.A2.6.H120.B0.0.20");
        let config = Config {
            constraints: [0; 6],
            profile_space: 0,
            ..config
        };
        assert_eq!(config.codec_name(), "hvc1.2.6.H120");
    }
}
