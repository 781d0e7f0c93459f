//! H.265: the `hvcC` record and what the sequence parameter set says of the picture. ISO/IEC 14496-15 §8.3.3.1, ITU-T H.265 §7.3.2.2.

use super::{
    CodecError, CodecName, PictureSize,
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
    let mut bits = Bits::new(&rbsp, "HEVC sequence parameter set");
    bits.skip(16 + 4)?;
    let sub_layers = bits.bits(3)?;
    bits.skip(1)?;
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma = bits.ue()?;
    let separate_planes = chroma == 3 && bits.bit()?;
    let width = bits.ue()?;
    let height = bits.ue()?;
    let crop = if bits.bit()? {
        [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?]
    } else {
        [0; 4]
    };
    let [left, right, top, bottom] = crop;
    let (unit_x, unit_y) = match chroma {
        1 if !separate_planes => (2, 2),
        2 if !separate_planes => (2, 1),
        _ => (1, 1),
    };
    let side = |side: u32, near: u32, far: u32, unit: u32| side.checked_sub(near.checked_add(far)?.checked_mul(unit)?);
    PictureSize::new(side(width, left, right, unit_x), side(height, top, bottom, unit_y))
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
