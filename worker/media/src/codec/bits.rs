//! Bit by bit through a header, with Exp-Golomb codes. ITU-T H.264 §9.1; H.265 §9.2.

use super::CodecError;
use alloc::vec::Vec;

/// Reads bits from the most significant one on. Past the end everything is [`CodecError::Truncated`].
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Bits<'a> {
    /// `what` names the structure in errors.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    pub(super) fn bit(&mut self) -> Result<bool, CodecError> {
        let byte = self.bytes.get(self.at / 8).ok_or(CodecError::Truncated(self.what))?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// Up to 32 bits.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, CodecError> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Ok(value)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), CodecError> {
        let at = self.at.saturating_add(count);
        if at > self.bytes.len().saturating_mul(8) {
            return Err(CodecError::Truncated(self.what));
        }
        self.at = at;
        Ok(())
    }

    /// `ue(v)`: 0 to 2³² − 2.
    pub(super) fn ue(&mut self) -> Result<u32, CodecError> {
        let mut zeros = 0u32;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return Err(CodecError::Invalid(self.what));
            }
        }
        let rest = self.bits(zeros)?;
        Ok((1u32 << zeros) - 1 + rest)
    }

    /// `se(v)`.
    pub(super) fn se(&mut self) -> Result<i32, CodecError> {
        let code = self.ue()?;
        let half = i32::try_from(code / 2).map_err(|_| CodecError::Invalid(self.what))?;
        Ok(if code % 2 == 1 { half.saturating_add(1) } else { -half })
    }
}

/// A parameter set without its emulation prevention bytes. H.264 §7.4.1, H.265 §7.4.2.
///
/// At most `limit` bytes: what a header's interesting part takes; the rest is not copied.
pub(super) fn unescape(nal: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len().min(limit));
    let mut zeros = 0;
    for &byte in nal {
        if out.len() == limit {
            break;
        }
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_read() {
        // 1 | 010 | 011 | 00100 | 00111 -> 0 1 2 3 6
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0011, 0b1000_0000], "test");
        let values: Vec<_> = (0..5).map(|_| bits.ue().unwrap()).collect();
        assert_eq!(values, [0, 1, 2, 3, 6]);
        let mut bits = Bits::new(&[0b0100_1100, 0b1000_0101, 0b0000_0000], "test");
        let values: Vec<_> = (0..4).map(|_| bits.se().unwrap()).collect();
        assert_eq!(values, [1, -1, 2, -2]);
        assert_eq!(Bits::new(&[0; 8], "test").ue(), Err(CodecError::Invalid("test")));
        assert_eq!(Bits::new(&[0; 2], "test").ue(), Err(CodecError::Truncated("test")));
        assert_eq!(
            Bits::new(&[0, 0, 0, 1, 255, 255, 255, 255], "test").ue(),
            Ok(u32::MAX - 1)
        );
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3], 99), [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(unescape(&[1, 2, 3, 4], 2), [1, 2]);
    }
}
