//! [`ByteSize`]: bytes with a unit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A number of bytes, written with its unit: `64 MiB`, `1.5GB` is not legal, `1500MB` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// Takes bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        ByteSize(bytes)
    }

    /// Takes units of 2^20 bytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        ByteSize(count << 20)
    }

    /// Bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bad =
            || format!("{text:?} is not a size: write a whole number and B, KiB, MiB, GiB, TiB, kB, MB, GB or TB");
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))
            .ok_or_else(bad)?;
        let count: u64 = number.trim_end().parse().map_err(|_| bad())?;
        count
            .checked_mul(*factor)
            .map(ByteSize)
            .ok_or_else(|| format!("{text:?} is more than 2^64 bytes"))
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that keeps it whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = [
            ("TiB", 1u64 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ];
        match binary
            .iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1 GiB", 1 << 30),
            ("64MiB", 64 << 20),
            ("1500MB", 1_500_000_000),
            ("0 B", 0),
            ("7 kB", 7_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(ByteSize::mib(1536).to_string(), "1536 MiB");
        assert_eq!(ByteSize::from_bytes(1_000).to_string(), "1000 B");
        for bad in ["", "12", "MiB", "1.5 GB", "-1 B", "99999999999 TiB", "5 mb"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
