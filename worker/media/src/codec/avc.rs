//! H.264: the `avcC` record and what the sequence parameter set says of the picture. ISO/IEC 14496-15 §5.3.3.1, ITU-T H.264 §7.3.2.1.1.

use super::{
    CodecError, CodecName, PictureSize,
    bits::{Bits, unescape},
};
use alloc::{format, vec::Vec};

/// `nal_unit_type` of a slice of a picture where decoding can start. H.264 table 7-1.
pub const NAL_IDR: u8 = 5;
/// Supplemental enhancement information.
pub const NAL_SEI: u8 = 6;
/// Sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// Picture parameter set.
pub const NAL_PPS: u8 = 8;
/// Access unit delimiter.
pub const NAL_AUD: u8 = 9;

/// The `nal_unit_type` of a NAL unit; 0 (unspecified) for no bytes.
#[must_use]
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1F)
}

/// An `avcC` record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<'a> {
    /// `AVCProfileIndication`.
    pub profile: u8,
    /// `profile_compatibility`: the constraint flags.
    pub compatibility: u8,
    /// `AVCLevelIndication`: ten times the level.
    pub level: u8,
    /// Bytes of the length in front of each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// Sequence parameter sets, without length or start code. At least one, at most 31.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets, likewise. At most 255.
    pub pps: Vec<&'a [u8]>,
}

impl<'a> Config<'a> {
    /// Reads an `avcC` record; bytes behind the picture parameter sets (the High profiles' extension) are not looked at.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`], and [`CodecError::Invalid`] for another version, a length size of 3 or no sequence parameter set.
    pub fn parse(record: &'a [u8]) -> Result<Self, CodecError> {
        let cut = CodecError::Truncated("avcC");
        let (&[version, profile, compatibility, level, sizes, sps_count], rest) =
            record.split_first_chunk::<6>().ok_or(cut)?;
        if version != 1 {
            return Err(CodecError::Invalid("avcC version"));
        }
        let length_size = (sizes & 3) + 1;
        if length_size == 3 {
            return Err(CodecError::Invalid("avcC length size"));
        }
        let (sps, rest) = sets(rest, sps_count & 0x1F).ok_or(cut)?;
        let (&pps_count, rest) = rest.split_first().ok_or(cut)?;
        let (pps, _) = sets(rest, pps_count).ok_or(cut)?;
        if sps.is_empty() {
            return Err(CodecError::Invalid("avcC without parameter sets"));
        }
        Ok(Self {
            profile,
            compatibility,
            level,
            length_size,
            sps,
            pps,
        })
    }

    /// The picture's size, from the first sequence parameter set.
    ///
    /// # Errors
    ///
    /// As [`picture_size`].
    pub fn picture_size(&self) -> Result<PictureSize, CodecError> {
        picture_size(self.sps.first().copied().unwrap_or_default())
    }

    /// `avc1.` with profile, constraints and level in hexadecimal. RFC 6381 §3.3.
    #[must_use]
    pub fn codec_name(&self) -> CodecName {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.compatibility, self.level)
    }
}

/// `count` NAL units, each behind 16 bits of length, and what follows them.
fn sets(mut rest: &[u8], count: u8) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut sets = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (set, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        sets.push(set);
        rest = tail;
    }
    Some((sets, rest))
}

/// Bytes of a sequence parameter set that are read at most: scaling lists included, the picture's size lies within.
const SPS_BYTES: usize = 4096;

/// The picture's size from one sequence parameter set NAL unit.
///
/// # Errors
///
/// [`CodecError::Truncated`] or [`CodecError::Invalid`] where it is none.
pub fn picture_size(sps: &[u8]) -> Result<PictureSize, CodecError> {
    let rbsp = unescape(sps, SPS_BYTES);
    let mut bits = Bits::new(&rbsp, "AVC sequence parameter set");
    let Head {
        chroma,
        separate_planes,
        ..
    } = Head::read(&mut bits)?;
    bits.ue()?; // log2_max_frame_num
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.skip(1)?;
            bits.se()?;
            bits.se()?;
            let cycle = bits.ue()?;
            if cycle > 255 {
                return Err(CodecError::Invalid("AVC sequence parameter set"));
            }
            for _ in 0..cycle {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?; // max_num_ref_frames
    bits.skip(1)?;
    let columns = bits.ue()?.checked_add(1);
    let rows = bits.ue()?.checked_add(1);
    let fields = if bits.bit()? { 1 } else { 2 };
    if fields == 2 {
        bits.skip(1)?;
    }
    bits.skip(1)?; // direct_8x8_inference
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
    let side = |blocks: Option<u32>, scale: u32, near: u32, far: u32, unit: u32| {
        let crop = near.checked_add(far)?.checked_mul(unit)?;
        blocks?.checked_mul(16 * scale)?.checked_sub(crop)
    };
    PictureSize::new(
        side(columns, 1, left, right, unit_x),
        side(rows, fields, top, bottom, unit_y * fields),
    )
}

/// What a sequence parameter set begins with.
struct Head {
    chroma: u32,
    separate_planes: bool,
    /// Bits of a luma sample and of a chroma sample, less 8.
    depths: [u32; 2],
}

impl Head {
    /// Reads as far as the scaling lists go.
    fn read(bits: &mut Bits<'_>) -> Result<Self, CodecError> {
        let mut head = Self {
            chroma: 1,
            separate_planes: false,
            depths: [0; 2],
        };
        bits.skip(8)?;
        let profile = bits.bits(8)?;
        bits.skip(16)?;
        bits.ue()?; // seq_parameter_set_id
        if !matches!(
            profile,
            44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244
        ) {
            return Ok(head);
        }
        head.chroma = bits.ue()?;
        if head.chroma == 3 {
            head.separate_planes = bits.bit()?;
        }
        head.depths = [bits.ue()?, bits.ue()?];
        bits.skip(1)?;
        if bits.bit()? {
            for list in 0..if head.chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Ok(head)
    }
}

/// Makes the `avcC` record of parameter sets, for NAL units behind lengths of 4 bytes. ISO/IEC 14496-15 §5.3.3.1.
///
/// # Errors
///
/// [`CodecError::Truncated`] without a whole sequence parameter set, [`CodecError::Invalid`] for more, or longer ones, than the record can hold.
pub fn record(sps: &[&[u8]], pps: &[&[u8]]) -> Result<Vec<u8>, CodecError> {
    let first = sps.first().copied().unwrap_or_default();
    let Some(&[_, profile, compatibility, level]) = first.first_chunk::<4>() else {
        return Err(CodecError::Truncated("AVC sequence parameter set"));
    };
    let count = |sets: &[&[u8]], most: usize| match u8::try_from(sets.len()) {
        Ok(count) if sets.len() <= most => Ok(count),
        _ => Err(CodecError::Invalid("number of AVC parameter sets")),
    };
    let mut out = alloc::vec![1, profile, compatibility, level, 0xFF, 0xE0 | count(sps, 31)?];
    append_sets(&mut out, sps)?;
    out.push(count(pps, 255)?);
    append_sets(&mut out, pps)?;
    let rbsp = unescape(first, SPS_BYTES);
    // Sets that cannot be read so far are for decoders to judge: the record may do without what it repeats of them.
    let head = Head::read(&mut Bits::new(&rbsp, "AVC sequence parameter set"));
    if let (false, Ok(head)) = (matches!(profile, 66 | 77 | 88), head) {
        let low = |value: u32, mask: u32| u8::try_from(value & mask).unwrap_or(0);
        let [luma, chroma] = head.depths;
        out.extend([
            0xFC | low(head.chroma, 3),
            0xF8 | low(luma, 7),
            0xF8 | low(chroma, 7),
            0,
        ]);
    }
    Ok(out)
}

/// Appends NAL units, each behind 16 bits of length.
pub(super) fn append_sets(out: &mut Vec<u8>, sets: &[&[u8]]) -> Result<(), CodecError> {
    for set in sets {
        let length = u16::try_from(set.len()).map_err(|_| CodecError::Invalid("length of a parameter set"))?;
        out.extend(length.to_be_bytes());
        out.extend_from_slice(set);
    }
    Ok(())
}

/// H.264 §7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Result<(), CodecError> {
    let mut last = 8i32;
    let mut next = 8i32;
    for _ in 0..size {
        if next != 0 {
            next = last.wrapping_add(bits.se()?) & 0xFF;
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1920x1080: rows cropped from 1088.
    const CROPPED: [u8; 27] = [
        0x67, 0x64, 0x00, 0x28, 0xAC, 0xD9, 0x40, 0x78, 0x02, 0x27, 0xE5, 0xC0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04,
        0x00, 0x00, 0x03, 0x00, 0x50, 0x3C, 0x60, 0xC6, 0x58,
    ];

    #[test]
    fn picture_sizes_are_those_that_were_encoded() {
        let cases: [(&[u8], u16, u16); 6] = [
            (&CROPPED, 1920, 1080),
            // Interlaced: rows count twice.
            (
                &[
                    0x67, 0x64, 0x00, 0x28, 0xAC, 0xD9, 0x40, 0x78, 0x04, 0x4F, 0xDE, 0x02, 0x20, 0x00,
                ],
                1920,
                1080,
            ),
            // 4:2:2 with scaling lists.
            (
                &[
                    0x67, 0x7A, 0x00, 0x0C, 0xBC, 0xD9, 0x41, 0x51, 0x9E, 0x22, 0x2F, 0x01, 0x10, 0x00,
                ],
                322,
                182,
            ),
            // 4:4:4, odd sides.
            (
                &[
                    0x67, 0xF4, 0x00, 0x0A, 0x91, 0x9B, 0x28, 0x58, 0x8F, 0x08, 0x44, 0x7F, 0xE0, 0x3C, 0x80,
                ],
                161,
                121,
            ),
            // Monochrome.
            (
                &[
                    0x67, 0x64, 0x00, 0x0A, 0xF3, 0x65, 0x11, 0xEC, 0x05, 0xB2, 0x00, 0x00, 0x03, 0x00,
                ],
                64,
                48,
            ),
            // Baseline.
            (
                &[
                    0x67, 0x42, 0xC0, 0x16, 0xD9, 0x00, 0xA0, 0x2F, 0xF9, 0x70, 0x11, 0x00, 0x00, 0x03,
                ],
                640,
                360,
            ),
        ];
        for (sps, width, height) in cases {
            assert_eq!(picture_size(sps), Ok(PictureSize { width, height }));
        }
        for len in 0..10 {
            assert!(picture_size(&CROPPED[..len]).is_err());
        }
    }

    #[test]
    fn a_record_is_read_whole_or_refused() {
        let sets = [
            &[1, 0x64, 0, 0x28, 0xFF, 0xE1, 0, 27][..],
            &CROPPED,
            &[2, 0, 2, 0x68, 1, 0, 2, 0x68, 2],
        ]
        .concat();
        let config = Config::parse(&sets).unwrap();
        assert_eq!((config.sps.len(), config.pps.len(), config.length_size), (1, 2, 4));
        assert_eq!(config.pps[1], [0x68, 2]);
        assert_eq!(config.codec_name(), "avc1.640028");
        assert_eq!(
            config.picture_size(),
            Ok(PictureSize {
                width: 1920,
                height: 1080
            })
        );
        for len in 0..sets.len() {
            assert_eq!(Config::parse(&sets[..len]), Err(CodecError::Truncated("avcC")), "{len}");
        }
        let with = |at: usize, byte| {
            let mut changed = sets.clone();
            changed[at] = byte;
            Config::parse(&changed).map(|config| config.length_size)
        };
        assert_eq!(with(0, 2), Err(CodecError::Invalid("avcC version")));
        assert_eq!(with(4, 0xFE), Err(CodecError::Invalid("avcC length size")));
        assert_eq!(with(4, 0xFC), Ok(1));
        assert_eq!(
            Config::parse(&[1, 0x64, 0, 0x28, 0xFF, 0xE0, 0]),
            Err(CodecError::Invalid("avcC without parameter sets"))
        );
    }
}
