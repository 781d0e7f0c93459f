//! NAL units inside an access unit, each behind its length. ISO/IEC 14496-15 §5.3.3.

use super::CodecError;

/// Walks over the NAL units of one access unit. Empty ones are skipped.
///
/// A length that points behind the end ends the walk with an error; so do stray bytes at the end.
#[derive(Debug, Clone)]
pub struct NalUnits<'a> {
    rest: &'a [u8],
    length_size: u8,
}

impl<'a> NalUnits<'a> {
    /// `length_size` is 1, 2 or 4 (3 is read as well), as the decoder configuration says.
    #[must_use]
    pub fn new(data: &'a [u8], length_size: u8) -> Self {
        Self {
            rest: data,
            length_size,
        }
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let split = self
                .rest
                .split_at_checked(usize::from(self.length_size))
                .and_then(|(length, rest)| {
                    let length = length
                        .iter()
                        .fold(0usize, |length, &byte| length << 8 | usize::from(byte));
                    rest.split_at_checked(length)
                });
            let Some((nal, rest)) = split.filter(|_| self.length_size > 0) else {
                self.rest = &[];
                return Some(Err(CodecError::Truncated("NAL unit")));
            };
            self.rest = rest;
            if !nal.is_empty() {
                return Some(Ok(nal));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn nal_units_come_in_order_whatever_their_length_size() {
        for (size, data) in [
            (1, &[1, 9, 0, 2, 5, 6][..]),
            (2, &[0, 1, 9, 0, 0, 0, 2, 5, 6]),
            (4, &[0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0, 2, 5, 6]),
        ] {
            let nals: Result<Vec<_>, _> = NalUnits::new(data, size).collect();
            assert_eq!(nals.unwrap(), [&[9][..], &[5, 6]]);
        }
    }

    #[test]
    fn a_length_that_lies_ends_the_walk() {
        let mut nals = NalUnits::new(&[0, 1, 9, 0, 3, 5, 6], 2);
        assert_eq!(nals.next(), Some(Ok(&[9][..])));
        assert_eq!(nals.next(), Some(Err(CodecError::Truncated("NAL unit"))));
        assert_eq!(nals.next(), None);
        assert!(NalUnits::new(&[0, 0, 0], 4).next().unwrap().is_err());
        assert!(NalUnits::new(&[1], 0).next().unwrap().is_err());
    }
}
