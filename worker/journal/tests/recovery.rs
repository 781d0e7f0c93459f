//! Torn tails at every byte, bits flipped anywhere, files gone: what was whole is kept, what is not is named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use journal::recover::{Recovered, recover};
use journal::{Batch, Control, JournalError, Options, Position, Reader, Writer};
use support::{
    Read, SMALL, Tag, assert_index_agrees, assert_same, controls_of, copy_files, files, publish, read_all, read_from,
    scratch, stream, tags_of, unpublish, write,
};

/// Ends a recovered journal the way the worker does.
fn finish(dir: &Path, recovered: &Recovered, at_least: Position) {
    let mut writer = Writer::reopen(dir, SMALL, recovered, at_least, 3_000_000).unwrap();
    if let Some(gap) = recovered.torn_tail() {
        writer.control(&gap, 3_000_000).unwrap();
    }
    writer.close(&unpublish(), 3_000_000).unwrap();
}

/// Positions behind each batch of the only segment, and how many tags are below.
fn batch_ends(all: &[Read], group: usize) -> Vec<(u64, usize)> {
    let tags: Vec<_> = all.iter().filter(|read| matches!(read, Read::Tag { .. })).collect();
    let mut ends: Vec<_> = tags
        .windows(2)
        .zip(1..)
        .filter_map(|(pair, count)| {
            // Where a batch begins, its header of 48 bytes is part of the first tag's place.
            let header = pair[1].next().0 - pair[1].at().0 - tag_len(pair[1]);
            (header > 0).then_some((pair[0].next().0, count))
        })
        .collect();
    ends.push((tags.last().unwrap().next().0, tags.len()));
    assert!(ends.len() >= tags.len() / group);
    ends
}

fn tag_len(read: &Read) -> u64 {
    match read {
        Read::Tag { tag, .. } => tag.0.len() as u64,
        Read::Control { .. } => 0,
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_back_to_the_last_whole_batch() {
    let dir = scratch();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    let tags: Vec<_> = stream(24)
        .into_iter()
        .map(|mut tag| {
            tag.body.truncate(150);
            tag
        })
        .collect();
    let mut writer = Writer::create(&source, Options::default(), &publish(), 1_000_000).unwrap();
    write(&mut writer, &tags, 4);
    drop(writer);
    let all = read_all(&source);
    let expected = tags_of(&all);
    assert_eq!(expected.len(), tags.len());
    let ends = batch_ends(&all, 4);
    let segment = fs::read(&files(&source, "seg")[0]).unwrap();
    let head_len = all[0].next().0 as usize;
    fs::create_dir(&copy).unwrap();
    let path = copy.join(files(&source, "seg")[0].file_name().unwrap());
    for torn in 0..=segment.len() {
        // What is behind the tear: nothing; zeros, as a file system leaves them; other bytes.
        for variant in 0..3 {
            if variant > 0 && torn % 5 != 0 {
                continue;
            }
            let mut bytes = segment[..torn].to_vec();
            match variant {
                1 => bytes.resize(segment.len(), 0),
                2 => bytes.extend(segment.iter().skip(torn).map(|byte| byte ^ 0x55)),
                _ => {}
            }
            fs::remove_dir_all(&copy).unwrap();
            fs::create_dir(&copy).unwrap();
            fs::write(&path, &bytes).unwrap();
            let recovered = recover(&copy);
            if torn < head_len {
                assert!(
                    matches!(recovered, Err(JournalError::Empty { .. })),
                    "{torn}: {recovered:?}"
                );
                continue;
            }
            let recovered = recovered.unwrap();
            let (end, count) = ends
                .iter()
                .rev()
                .find(|(end, _)| *end <= torn as u64)
                .copied()
                .unwrap_or((head_len as u64, 0));
            assert_eq!(recovered.end, Position(end), "torn at {torn}");
            assert_eq!(recovered.torn_bytes, bytes.len() as u64 - end);
            assert_eq!((&recovered.publish, &recovered.closed), (&publish(), &None));
            assert!(recovered.damaged.is_empty());
            let again = recover(&copy).unwrap();
            assert_eq!(
                (again.torn_bytes, again.rebuilt_indexes, again.end),
                (0, 0, recovered.end)
            );
            assert_eq!(again.snapshot, recovered.snapshot);
            let read = read_all(&copy);
            assert_same(&tags_of(&read), &expected[..count]);
            assert!(!read.iter().any(Read::is_gap));
            if torn % 16 == 0 {
                assert_index_agrees(&copy, &read);
                finish(&copy, &recovered, Position::START);
                let finished = read_all(&copy);
                assert_same(&finished[..read.len()], &read);
                let mut controls = controls_of(&finished);
                assert_eq!(controls.pop(), Some(unpublish()));
                assert_eq!(
                    controls.pop().is_some_and(|c| matches!(c, Control::Gap { .. })),
                    recovered.torn_bytes > 0
                );
                let closed = recover(&copy).unwrap();
                assert_eq!((closed.closed, closed.torn_bytes), (Some(unpublish()), 0));
            }
        }
    }
}

/// A journal of several segments, closed, and its reading.
fn several_segments(dir: &Path) -> Vec<Read> {
    let mut writer = Writer::create(dir, SMALL, &publish(), 1_000_000).unwrap();
    write(&mut writer, &stream(260), 20);
    writer.close(&unpublish(), 2_000_000).unwrap();
    assert!(files(dir, "seg").len() >= 3);
    read_all(dir)
}

#[test]
fn an_index_torn_at_any_byte_or_gone_is_made_again() {
    let dir = scratch();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    let all = several_segments(&source);
    let name = files(&source, "idx")[1].file_name().unwrap().to_owned();
    let whole = fs::read(source.join(&name)).unwrap();
    copy_files(&source, &copy);
    for torn in (0..whole.len()).step_by(7) {
        fs::write(copy.join(&name), &whole[..torn]).unwrap();
        assert_index_agrees(&copy, &all);
        let recovered = recover(&copy).unwrap();
        assert_eq!((recovered.rebuilt_indexes, recovered.torn_bytes), (1, 0));
        assert!(fs::read(copy.join(&name)).unwrap() == whole);
    }
    for path in files(&copy, "idx") {
        fs::remove_file(path).unwrap();
    }
    let recovered = recover(&copy).unwrap();
    assert_eq!(recovered.closed, Some(unpublish()));
    for path in files(&source, "idx") {
        assert!(fs::read(&path).unwrap() == fs::read(copy.join(path.file_name().unwrap())).unwrap());
    }
}

#[test]
fn a_torn_head_of_the_last_segment_takes_nothing_with_it() {
    let dir = scratch();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    let all = several_segments(&source);
    let last = files(&source, "seg").pop().unwrap();
    let first: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let before: Vec<_> = all.iter().filter(|read| read.next().0 <= first).cloned().collect();
    let bytes = fs::read(&last).unwrap();
    let head_len = journal::format::FileHead::decode_segment(&bytes).unwrap().len();
    for torn in 0..head_len {
        copy_files(&source, &copy);
        fs::remove_file(files(&copy, "idx").pop().unwrap()).unwrap();
        fs::write(files(&copy, "seg").pop().unwrap(), &bytes[..torn]).unwrap();
        assert_same(&read_all(&copy), &before);
        let recovered = recover(&copy).unwrap();
        assert_eq!((recovered.end.0, recovered.torn_bytes), (first, torn as u64));
        assert_same(&read_all(&copy), &before);
    }
}

/// Checks that what was read is what was written, less what the gaps cover, and returns the gaps' count of units.
fn assert_only_gaps_are_missing(read: &[Read], all: &[Read]) -> Vec<Option<u64>> {
    let gaps: Vec<_> = read.iter().filter(|read| read.is_gap()).collect();
    let expected: Vec<_> = all
        .iter()
        .filter(|entry| !gaps.iter().any(|gap| gap.at() <= entry.at() && entry.at() < gap.next()))
        .cloned()
        .collect();
    let kept: Vec<_> = read.iter().filter(|read| !read.is_gap()).cloned().collect();
    assert_same(&kept, &expected);
    let units = |gap: &&Read| match gap {
        Read::Control {
            control: Control::Gap { lost_units, .. },
            ..
        } => *lost_units,
        _ => None,
    };
    gaps.iter().map(units).collect()
}

#[test]
fn a_bit_flipped_anywhere_costs_its_batch_and_is_named() {
    let dir = scratch();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    let all = several_segments(&source);
    let end = all.last().unwrap().next();
    copy_files(&source, &copy);
    let segments = files(&copy, "seg");
    let mut seed = 1u64;
    for round in 0..700u64 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let path = &segments[(seed >> 33) as usize % segments.len()];
        let original = fs::read(path).unwrap();
        // Each byte of the heads and of the first batches, then anywhere.
        let at = if round < 300 {
            round as usize
        } else {
            (seed >> 17) as usize % original.len()
        };
        let mut bytes = original.clone();
        bytes[at] ^= 1 << (seed % 8);
        fs::write(path, &bytes).unwrap();
        let read = read_all(&copy);
        let lost = assert_only_gaps_are_missing(&read, &all);
        assert!(lost.len() <= 1, "one flip, one gap");
        let missing = all.iter().filter(|read| matches!(read, Read::Tag { .. })).count() - tags_of(&read).len();
        if missing > 0 {
            // Configurations and metadata are tags, not units.
            assert!(
                lost[0].is_some_and(|units| units <= missing as u64 && missing as u64 <= units + 2),
                "{lost:?}"
            );
        }
        assert_eq!(read.last().unwrap().next(), end);
        assert_same(&read_from(&copy, Position::START, Some(end)), &read);
        // The index does not depend on the bodies, nor recovery where there is an index.
        let recovered = recover(&copy).unwrap();
        assert_eq!(
            (recovered.end, recovered.torn_bytes, recovered.rebuilt_indexes),
            (end, 0, 0)
        );
        if round % 10 == 0 {
            let indexes = files(&copy, "idx");
            indexes.iter().for_each(|path| fs::remove_file(path).unwrap());
            let recovered = recover(&copy).unwrap();
            assert_index_agrees(&copy, &read_all(&copy));
            let found = recovered.damaged.len() + usize::from(recovered.torn_bytes > 0);
            assert!(
                found <= 1 + usize::from(path == segments.last().unwrap()),
                "{recovered:?}"
            );
            copy_files(&source, &copy);
        }
        fs::write(path, &original).unwrap();
    }
    assert_same(&read_all(&copy), &all);
}

#[test]
fn bodies_cut_off_under_a_whole_index_are_named_with_their_units() {
    let dir = scratch();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    let all = several_segments(&source);
    for number in 0..files(&source, "seg").len() {
        copy_files(&source, &copy);
        let path = files(&copy, "seg")[number].clone();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        for _ in 0..2 {
            let read = read_all(&copy);
            let lost = assert_only_gaps_are_missing(&read, &all);
            assert!(lost.len() == 1 && lost[0].is_some(), "{lost:?}");
            assert_eq!(read.last().unwrap().next(), all.last().unwrap().next());
            assert_index_agrees(&copy, &all);
            let recovered = recover(&copy).unwrap();
            assert_eq!(
                (recovered.damaged.len(), recovered.end),
                (1, all.last().unwrap().next())
            );
        }
    }
}

#[test]
fn a_segment_gone_from_the_middle_is_a_gap_or_purged_but_never_silence() {
    let dir = scratch();
    let all = several_segments(dir.path());
    fs::remove_file(&files(dir.path(), "seg")[1]).unwrap();
    let mut reader = Reader::open(dir.path(), Position::START, Vec::new()).unwrap();
    let error = loop {
        match reader.next() {
            Ok(entry) => assert!(entry.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Purged { .. }), "{error:?}");
    fs::remove_file(&files(dir.path(), "idx")[1]).unwrap();
    let read = read_all(dir.path());
    assert_eq!(assert_only_gaps_are_missing(&read, &all).len(), 1);
    assert_eq!(recover(dir.path()).unwrap().damaged.len(), 1);
}

#[test]
fn positions_beyond_what_is_left_never_come_to_mean_something_else() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), Options::default(), &publish(), 0).unwrap();
    write(&mut writer, &stream(50), 5);
    let cursor = writer.progress().snapshot().end;
    drop(writer);
    // A power loss: the last pages were never written.
    let path = files(dir.path(), "seg").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let recovered = recover(dir.path()).unwrap();
    assert!(recovered.end < cursor);
    finish(dir.path(), &recovered, cursor);
    assert_eq!(
        controls_of(&read_from(dir.path(), cursor, None)).last(),
        Some(&unpublish())
    );
    let all = read_all(dir.path());
    let gap = all.iter().find(|read| read.is_gap()).unwrap();
    assert_eq!((gap.at(), gap.next()), (recovered.end, cursor));
    let closed = recover(dir.path()).unwrap();
    assert!(matches!(
        Writer::reopen(dir.path(), SMALL, &closed, cursor, 0),
        Err(JournalError::Closed { .. })
    ));
}

#[test]
fn leftovers_are_removed_and_other_files_are_left_alone() {
    let dir = scratch();
    several_segments(dir.path());
    fs::write(dir.path().join("00000000000000000000.idx.tmp"), b"x").unwrap();
    fs::write(dir.path().join("cursor.slot"), b"x").unwrap();
    fs::write(dir.path().join("00000.seg"), b"x").unwrap();
    recover(dir.path()).unwrap();
    assert!(files(dir.path(), "tmp").is_empty());
    assert!(dir.path().join("cursor.slot").exists() && dir.path().join("00000.seg").exists());
}

#[test]
fn a_segment_that_lost_all_its_bytes_is_a_gap_in_front_of_the_next() {
    let dir = scratch();
    let all = several_segments(dir.path());
    for path in files(dir.path(), "idx").iter().take(2) {
        fs::remove_file(path).unwrap();
    }
    for path in files(dir.path(), "seg").iter().take(2) {
        fs::write(path, b"").unwrap();
    }
    let recovered = recover(dir.path()).unwrap();
    assert_eq!((recovered.damaged.len(), recovered.closed), (1, Some(unpublish())));
    assert_eq!(recover(dir.path()).unwrap().damaged, recovered.damaged);
    let read = read_all(dir.path());
    assert_only_gaps_are_missing(&read, &all);
    assert_eq!(read[0].at(), Position::START);
    // Nothing but such: nothing is known of it.
    for path in files(dir.path(), "seg").iter().chain(&files(dir.path(), "idx")) {
        fs::write(path, b"").unwrap();
    }
    assert!(matches!(recover(dir.path()), Err(JournalError::Empty { .. })));
}

#[test]
fn an_empty_directory_is_no_journal() {
    let dir = scratch();
    assert!(matches!(recover(dir.path()), Err(JournalError::Empty { .. })));
    assert!(matches!(
        Reader::open(dir.path(), Position::START, Vec::new()),
        Err(JournalError::Empty { .. })
    ));
    assert_eq!(
        recover(&dir.path().join("none")).unwrap_err().kind(),
        Some(std::io::ErrorKind::NotFound)
    );
}

#[test]
fn bytes_that_a_publisher_made_to_look_like_a_batch_are_not_taken_for_one() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), Options::default(), &publish(), 0).unwrap();
    let position = writer.progress().snapshot().end.0;
    // A whole batch, sealed for the very place where it will stand, but with a salt that is not the journal's.
    let inner = Tag::video(true, 0, 100).bytes().0;
    let at = position + 48 + 11 + 5;
    let header = journal::format::BatchHeader {
        checksum: 0,
        salt: 77,
        kind: journal::format::BatchKind::Media,
        payload_len: inner.len() as u32,
        units: 1,
        at,
        base_ms: 0,
        wall_ms: 0,
    };
    let mut fake = vec![0; 48];
    fake.extend_from_slice(&inner);
    journal::format::seal(&mut fake, &header);
    let mut body = vec![0x17, 1, 0, 0, 0];
    body.extend_from_slice(&fake);
    let mut batch = Batch::new();
    writer.append(&mut batch, 9, 0, &body, 0, 0);
    writer.commit(&mut batch).unwrap();
    writer.close(&unpublish(), 0).unwrap();
    let path = files(dir.path(), "seg").pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[at as usize..][..4], *b"ACB1");
    bytes[position as usize] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(tags_of(&read_all(dir.path())).is_empty());
    fs::remove_file(files(dir.path(), "idx").pop().unwrap()).unwrap();
    assert_eq!(recover(dir.path()).unwrap().damaged.len(), 1);
}
