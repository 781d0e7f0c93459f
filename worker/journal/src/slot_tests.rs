//! Tests of [`super::Slot`].

use super::*;

#[test]
fn what_is_written_is_read_also_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cursor.slot");
    let mut slot = Slot::open(&path).unwrap();
    assert_eq!(slot.read().unwrap(), None);
    for round in 0..9u8 {
        let payload = vec![round; usize::from(round) * 300];
        slot.write(&payload).unwrap();
        assert_eq!(slot.read().unwrap().unwrap(), payload);
        assert_eq!(Slot::open(&path).unwrap().read().unwrap().unwrap(), payload);
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192);
}

#[test]
fn a_longer_payload_gets_longer_places() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cursor.slot");
    let mut slot = Slot::open(&path).unwrap();
    for len in [10, ALIGN - HEADER_LEN, ALIGN - HEADER_LEN + 1, 9, 2 << 20, 3] {
        let payload = vec![7; len];
        slot.write(&payload).unwrap();
        assert_eq!(Slot::open(&path).unwrap().read().unwrap().unwrap(), payload);
        slot.write(b"short").unwrap();
        assert_eq!(slot.read().unwrap().unwrap(), b"short");
    }
    assert!(!dir.path().join("cursor.slot.tmp").exists());
}

#[test]
fn a_write_torn_at_any_byte_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cursor.slot");
    let mut slot = Slot::open(&path).unwrap();
    slot.write(b"zero").unwrap();
    for round in 1..5u8 {
        let old = slot.read().unwrap().unwrap();
        let before = fs::read(&path).unwrap();
        let new = vec![round; 700 + usize::from(round)];
        slot.write(&new).unwrap();
        let after = fs::read(&path).unwrap();
        let begin = if before[..4096] == after[..4096] { 4096 } else { 0 };
        let len = HEADER_LEN + new.len();
        for torn in 0..=len {
            let mut mixed = before.clone();
            mixed[begin..begin + torn].copy_from_slice(&after[begin..begin + torn]);
            fs::write(&path, &mixed).unwrap();
            let mut slot = Slot::open(&path).unwrap();
            let found = slot.read().unwrap().unwrap();
            assert_eq!(
                found,
                if mixed == after { new.clone() } else { old.clone() },
                "torn at {torn}"
            );
            if torn % 97 == 0 {
                slot.write(b"goes on").unwrap();
                assert_eq!(Slot::open(&path).unwrap().read().unwrap().unwrap(), b"goes on");
            }
        }
        fs::write(&path, &after).unwrap();
        slot = Slot::open(&path).unwrap();
    }
}

#[test]
fn a_file_of_any_bytes_reads_as_never_written_and_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cursor.slot");
    for junk in [vec![], vec![1; 100], vec![0; 8192], vec![0xFF; 8192], vec![0; 8193]] {
        fs::write(&path, &junk).unwrap();
        let mut slot = Slot::open(&path).unwrap();
        assert_eq!(slot.read().unwrap(), None);
        slot.write(b"anew").unwrap();
        assert_eq!(Slot::open(&path).unwrap().read().unwrap().unwrap(), b"anew");
    }
}
