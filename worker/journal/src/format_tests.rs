//! Tests of [`super`]: the bytes are those of `docs/journal.md`, and no bytes are too strange to read.

use proptest::prelude::*;

use super::*;

fn batch() -> (BatchHeader, Vec<u8>) {
    let mut bytes = vec![0; BATCH_HEADER_LEN];
    flv::append_tag(&mut bytes, 9, 0x0102_0304, &[0x17, 1, 0, 0, 0, 0xAA]);
    let header = BatchHeader {
        checksum: 0,
        salt: 0xA1B2_C3D4,
        kind: BatchKind::Media,
        payload_len: 21,
        units: 1,
        at: 0x1122,
        base_ms: -2,
        wall_ms: 1_700_000_000_000,
    };
    seal(&mut bytes, &header);
    (header, bytes)
}

/// Version 1 never changes: these bytes lie on people's disks.
#[test]
fn a_batch_is_these_bytes() {
    let (header, bytes) = batch();
    let expected: &[u8] = b"ACB1\x83\xa7\x22\x42\xd4\xc3\xb2\xa1\x01\0\0\0\x15\0\0\0\x01\0\0\0\
        \x22\x11\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\0\x68\xe5\xcf\x8b\x01\0\0\
        \x09\0\0\x06\x02\x03\x04\x01\0\0\0\x17\x01\0\0\0\xaa\0\0\0\x11";
    assert_eq!(bytes[8..], expected[8..]);
    assert_eq!(bytes[..8], expected[..8], "{:02x?}", &bytes[..8]);
    let read = BatchHeader::decode(&bytes).unwrap();
    assert_eq!(BatchHeader { checksum: 0, ..read }, header);
    assert!(is_whole(&bytes, &read) && is_tags(&bytes[BATCH_HEADER_LEN..], 1));
    assert!(!is_tags(&bytes[BATCH_HEADER_LEN..], 2) && !is_tags(&bytes[BATCH_HEADER_LEN..bytes.len() - 1], 1));
}

#[test]
fn a_segment_head_is_these_bytes() {
    let head = FileHead {
        first: 7,
        created_ms: 9,
        salt: 0x0102_0304,
        totals: Snapshot {
            end: Position(7),
            first_dts_ms: Some(-1),
            last_random_access: Some((Position(3), 4)),
            video_units: 5,
            ..Snapshot::default()
        },
        publish: b"{}".to_vec(),
    };
    let bytes = head.encode_segment();
    let mut expected = b"ACJSEG01....\x82\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x04\x03\x02\x01\x02\0\0\0".to_vec();
    expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&(-1i64).to_le_bytes());
    for number in [0i64, 3, 4, 0, 5, 0, 0, 0] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    expected.extend_from_slice(b"{}");
    let sum = checksum(&expected[12..]).to_le_bytes();
    expected[8..12].copy_from_slice(&sum);
    assert_eq!(bytes, expected);
    assert_eq!(FileHead::decode_segment(&bytes), Some(head));
}

#[test]
fn the_checksum_is_crc_32c() {
    // The check value of the catalogue of parametrised CRC algorithms.
    assert_eq!(checksum(b"123456789"), 0xE306_9283);
}

#[test]
fn a_flipped_bit_or_a_missing_byte_is_seen() {
    let (_, bytes) = batch();
    for at in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let read = BatchHeader::decode(&bytes);
        assert!(!read.is_some_and(|header| is_whole(&bytes, &header)), "bit {at}");
    }
    for len in 0..bytes.len() {
        let read = BatchHeader::decode(&bytes[..len]);
        assert!(!read.is_some_and(|header| is_whole(&bytes[..len], &header)));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..4) {
        let magic: &[u8] = [&SEGMENT_MAGIC[..], &INDEX_MAGIC, &BATCH_MAGIC, b""][kind as usize];
        let len = magic.len().min(bytes.len());
        bytes[..len].copy_from_slice(&magic[..len]);
        let _ = BatchHeader::decode(&bytes).map(|header| is_whole(&bytes, &header));
        let _ = FileHead::decode_segment(&bytes);
        let _ = FileHead::decode_index(&bytes);
        let _ = Group::decode(&bytes);
        let _ = read_entry(&bytes);
        let _ = is_tags(&bytes, 3);
        if let Some(entry) = IndexEntry::decode(&bytes) {
            prop_assert_eq!(IndexEntry::decode(&entry.encode()), Some(entry));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(
        numbers in prop::array::uniform8(any::<i64>()),
        counts in prop::array::uniform4(any::<u32>()),
        flags in prop::array::uniform5(any::<bool>()),
        publish in prop::collection::vec(any::<u8>(), 0..300),
        groups in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let [n0, n1, n2, n3, n4, n5, n6, n7] = numbers;
        let totals = Snapshot {
            end: Position(n0.unsigned_abs() & (MAX_POSITION - 1)),
            first_dts_ms: flags[0].then_some(n1),
            end_dts_ms: flags[1].then_some(n2),
            last_random_access: flags[2].then_some((Position(n3.unsigned_abs()), n4)),
            video_dts_ms: flags[3].then_some(n5),
            video_units: u64::from(counts[0]),
            audio_units: u64::from(counts[1]),
            bytes: u64::from(counts[2]),
            wall_ms: n6,
            closed: flags[4],
        };
        let head = FileHead { first: u64::from(counts[3]), created_ms: n7, salt: counts[0], totals, publish };
        prop_assert_eq!(FileHead::decode_segment(&head.encode_segment()), Some(head.clone()));
        let index = head.encode_index(&groups);
        prop_assert_eq!(FileHead::decode_index(&index), Some((head, &groups[..])));
        prop_assert_eq!(FileHead::decode_index(&index[..index.len() - 1]), None);
        let group = Group {
            offset: counts[0],
            payload_len: counts[1],
            base_ms: n1,
            wall_ms: n2,
            units: counts[2],
            kind: BatchKind::Control,
        };
        prop_assert_eq!(Group::decode(&group.encode()), Some(group));
    }
}
