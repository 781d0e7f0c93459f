//! CRC-64/NVME, the checksum that object stores know for whole objects: that of a whole follows from those of its parts.

use crc_fast::{CrcAlgorithm, Digest, checksum, checksum_combine};

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

/// The checksum's name in records.
pub(crate) const NAME: &str = "crc64nvme";

/// Checksum of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> u64 {
    checksum(ALGORITHM, bytes)
}

/// Checksum of what has `first` followed by `more`. Joining two checksums costs as much as reading some 100 kB; this costs nothing beside
/// the reading.
pub(crate) fn extend(first: u64, more: &[u8]) -> u64 {
    // The algorithm's state is its result inverted.
    let mut digest = Digest::new_with_init_state(ALGORITHM, !first);
    digest.update(more);
    digest.finalize()
}

/// Checksum of what has `first` followed by `second_len` bytes that have `second`.
pub(crate) fn join(first: u64, second: u64, second_len: u64) -> u64 {
    if second_len == 0 {
        first
    } else {
        checksum_combine(ALGORITHM, first, second, second_len)
    }
}

/// As it stands in records: `crc64nvme:` and 16 hexadecimal digits.
pub(crate) fn text(crc: u64) -> String {
    format!("{NAME}:{crc:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_has_the_joined_checksum_of_its_parts() {
        let whole: Vec<u8> = (0..10_000u32).map(|i| (i * 31).to_le_bytes()[0]).collect();
        let (head, body) = whole.split_at(4096);
        assert_eq!(join(of(head), of(body), body.len() as u64), of(&whole));
        assert_eq!(join(of(&[]), of(&whole), whole.len() as u64), of(&whole));
        assert_eq!(extend(of(head), body), of(&whole));
        assert_eq!(extend(of(&[]), &whole), of(&whole));
        // The check value of the Rocksoft catalogue.
        assert_eq!(of(b"123456789"), 0xae8b_1486_0a79_9888);
    }
}
