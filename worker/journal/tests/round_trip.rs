//! What is appended is what is read, in any grouping, from any place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use journal::{Batch, Control, Entry, IndexReader, JournalError, Options, Position, Reader, Writer};
use media::access_unit::UnitKind;
use proptest::prelude::*;
use support::{
    Bytes, Read, SMALL, Tag, assert_index_agrees, assert_same, controls_of, publish, read_all, read_from, stream,
    tags_of, unpublish, write,
};

#[test]
fn an_ordinary_stream_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("journal");
    let tags = stream(2_000);
    let mut writer = Writer::create(&dir, SMALL, &publish(), 1_000_000).unwrap();
    let progress = writer.progress();
    write(&mut writer, &tags, 15);
    let end = progress.snapshot().end;
    let live = read_from(&dir, Position::START, Some(end));
    assert_same(&tags_of(&live), &tags.iter().map(Tag::bytes).collect::<Vec<_>>());
    writer.close(&unpublish(), 2_000_000).unwrap();

    let all = read_all(&dir);
    assert_same(&tags_of(&all), &tags_of(&live));
    assert_eq!(controls_of(&all), [Control::Publish(publish()), unpublish()]);
    assert_index_agrees(&dir, &all);
    let now = progress.snapshot();
    assert!(now.closed);
    assert_eq!((now.video_units, now.audio_units), (2_000, 2_000));
    assert_eq!((now.first_dts_ms, now.end_dts_ms), (Some(0), Some(1_999 * 40 + 7)));
    assert_eq!(
        now.bytes,
        tags.iter().map(|tag| tag.bytes().0.len() as u64).sum::<u64>()
    );
    assert_eq!(now.last_random_access.unwrap().1, 1_975 * 40);
    assert_eq!(all.last().unwrap().next(), now.end);
}

#[test]
fn reading_may_begin_at_every_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 1_000_000).unwrap();
    write(&mut writer, &stream(300), 7);
    writer.close(&unpublish(), 2_000_000).unwrap();
    let all = read_all(dir.path());
    for (number, entry) in all.iter().enumerate() {
        let mut reader = Reader::open(dir.path(), entry.at(), Vec::new()).unwrap();
        assert_eq!(Read::of(reader.next().unwrap().unwrap()), *entry);
        let mut reader = Reader::open(dir.path(), entry.next(), Vec::new()).unwrap();
        let next = reader.next().unwrap().map(Read::of);
        assert_eq!(next.as_ref(), all.get(number + 1));
        if let Read::Tag { at, .. } = entry {
            let mut index = IndexReader::open(dir.path(), *at).unwrap();
            assert_eq!(index.next().unwrap().unwrap().at, *at);
        }
    }
    let Read::Tag { at, .. } = all[5] else { panic!("a tag") };
    let inside = Position(at.0 + 1);
    let result = Reader::open(dir.path(), inside, Vec::new()).and_then(|mut reader| reader.next().map(|_| ()));
    assert!(matches!(result, Err(JournalError::NotABoundary { .. })), "{result:?}");
}

#[test]
fn a_reader_goes_on_with_another_buffer_at_any_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 1_000_000).unwrap();
    write(&mut writer, &stream(300), 7);
    writer.close(&unpublish(), 2_000_000).unwrap();
    let all = read_all(dir.path());
    let mut reader = Reader::open(dir.path(), Position::START, Vec::new()).unwrap();
    let mut again = Vec::new();
    while let Some(mut entry) = reader.next().unwrap() {
        let read = match &mut entry {
            // What is patched in place is not what is read again.
            Entry::Tag { at, next, info, tag } => {
                let copy = Read::Tag {
                    at: *at,
                    next: *next,
                    info: *info,
                    tag: Bytes(tag.to_vec()),
                };
                media::flv::patch_timestamp(tag, 77);
                copy
            }
            Entry::Control { at, next, control, .. } => Read::Control {
                at: *at,
                next: *next,
                control: control.clone(),
            },
        };
        again.push(read);
        if again.len() % 3 == 0 {
            let buf = reader.take_buffer();
            if again.len() % 2 == 0 {
                reader.set_buffer(buf);
            }
        }
    }
    assert_same(&again, &all);
}

#[test]
fn tags_longer_than_a_segment_and_a_block_come_back_and_the_buffer_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 1_000_000).unwrap();
    let lens = [70_000, 100, 3 << 20, 5, media::flv::MAX_BODY_LEN, 10, 300_000];
    let tags: Vec<_> = lens
        .iter()
        .zip(0..)
        .map(|(&len, n)| Tag::video(n == 0, n * 40, len))
        .collect();
    write(&mut writer, &tags, 3);
    writer.close(&unpublish(), 2_000_000).unwrap();
    let mut reader = Reader::open(dir.path(), Position::START, Vec::new()).unwrap();
    let mut read = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        if let Entry::Tag { tag, .. } = entry {
            read.push(Bytes(tag.to_vec()));
        }
    }
    assert_same(&read, &tags.iter().map(Tag::bytes).collect::<Vec<_>>());
    assert!(reader.into_buffer().capacity() <= 1 << 20);
    assert_index_agrees(dir.path(), &read_all(dir.path()));
}

#[test]
fn what_cannot_be_kept_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), Options::default(), &publish(), 0).unwrap();
    let mut batch = Batch::new();
    writer.append(&mut batch, 9, 0, &[], 0, 0);
    writer.append(&mut batch, 8, 0, &[], 0, 0);
    writer.append(&mut batch, 9, 0, &vec![0x27; media::flv::MAX_BODY_LEN + 1], 0, 0);
    writer.append(&mut batch, 4, 0, &[1, 2], 0, 0);
    assert!(batch.is_empty());
    writer.commit(&mut batch).unwrap();
    writer.close(&unpublish(), 5).unwrap();
    let refused = |kind: &str, count| Control::Refused {
        kind: kind.into(),
        count,
    };
    let expected = [
        Control::Publish(publish()),
        refused("empty", 2),
        refused("too long", 1),
        refused("unknown tag type", 1),
        unpublish(),
    ];
    assert_eq!(controls_of(&read_all(dir.path())), expected);
}

#[test]
fn a_jump_of_the_timestamps_is_recorded_and_media_time_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), Options::default(), &publish(), 0).unwrap();
    let mut tags: Vec<_> = (0..50).map(|n| Tag::video(n % 10 == 0, n * 40, 50)).collect();
    tags.extend((0..50).map(|n| Tag::video(n % 10 == 0, 36_000_000 + n * 40, 50)));
    write(&mut writer, &tags, 5);
    writer.close(&unpublish(), 0).unwrap();
    let all = read_all(dir.path());
    assert_same(&tags_of(&all), &tags.iter().map(Tag::bytes).collect::<Vec<_>>());
    let dts: Vec<_> = all
        .iter()
        .filter_map(|read| match read {
            Read::Tag { info, .. } => Some(info.dts_ms),
            Read::Control { .. } => None,
        })
        .collect();
    assert_eq!(dts, (0..100).map(|n| n * 40).collect::<Vec<i64>>());
    let jump = Control::Jump {
        from_ms: 49 * 40,
        to_ms: 36_000_000,
    };
    assert_eq!(controls_of(&all), [Control::Publish(publish()), jump, unpublish()]);
    assert_index_agrees(dir.path(), &all);
}

#[test]
#[should_panic(expected = "second writer")]
fn a_batch_is_not_passed_to_a_second_writer() {
    let dir = tempfile::tempdir().unwrap();
    let other = journal::Publish {
        id: "other".into(),
        ..publish()
    };
    let mut one = Writer::create(&dir.path().join("1"), SMALL, &publish(), 0).unwrap();
    let mut two = Writer::create(&dir.path().join("2"), SMALL, &other, 0).unwrap();
    let mut batch = Batch::new();
    one.append(&mut batch, 8, 0, &[0xAF, 1, 2], 0, 0);
    two.append(&mut batch, 8, 0, &[0xAF, 1, 2], 0, 0);
}

#[test]
fn a_journal_is_not_created_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::create(dir.path(), SMALL, &publish(), 0).unwrap();
    let error = Writer::create(dir.path(), SMALL, &publish(), 0).unwrap_err();
    assert_eq!(error.kind(), Some(std::io::ErrorKind::AlreadyExists));
    drop(writer);
}

fn any_tag() -> impl Strategy<Value = Tag> {
    let body = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..200),
        2 => prop::collection::vec(any::<u8>(), 0..5_000),
        1 => (any::<u8>(), 0..70_000usize).prop_map(|(byte, len)| vec![byte; len]),
        // Bytes that look like the journal's own.
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(|mut tail| {
            let mut body = b"\x27ACB1".to_vec();
            body.append(&mut tail);
            body
        }),
    ];
    let raw = prop_oneof![8 => 0..100_000u32, 1 => any::<u32>()];
    (prop_oneof![Just(8u8), Just(9), Just(18)], raw, body).prop_map(|(tag_type, raw_ms, body)| Tag {
        tag_type,
        raw_ms,
        body,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn any_tags_in_any_grouping_come_back_with_their_index(
        visits in prop::collection::vec(prop::collection::vec(any_tag(), 0..20), 0..20),
        segment_bytes in (64u64 << 10)..(300 << 10),
        segment_index_bytes in (4usize << 10)..(8 << 10),
        keep_wall in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { segment_bytes, segment_index_bytes };
        let mut writer = Writer::create(dir.path(), options, &publish(), 0).unwrap();
        let mut batch = Batch::new();
        let mut kept = Vec::new();
        for (now_ms, visit) in (0i64..).step_by(200).zip(&visits) {
            for (n, tag) in (0i64..).zip(visit) {
                let wall_ms = if keep_wall { now_ms } else { now_ms + n / 5 };
                writer.append(&mut batch, tag.tag_type, tag.raw_ms, &tag.body, now_ms, wall_ms);
                if !tag.body.is_empty() {
                    kept.push((tag.bytes(), wall_ms));
                }
            }
            writer.commit(&mut batch).unwrap();
            prop_assert!(batch.is_empty());
        }
        let progress = writer.progress();
        let live = read_from(dir.path(), Position::START, Some(progress.snapshot().end));
        assert_index_agrees(dir.path(), &live);
        writer.close(&unpublish(), 9).unwrap();
        let all = read_all(dir.path());
        assert_index_agrees(dir.path(), &all);
        let expected: Vec<_> = kept.iter().map(|(bytes, _)| bytes.clone()).collect();
        prop_assert!(tags_of(&all) == expected);
        prop_assert!(tags_of(&live) == expected);
        let mut units = 0;
        let tags = all.iter().filter_map(|read| match read {
            Read::Tag { info, tag, .. } => Some((info, tag)),
            Read::Control { .. } => None,
        });
        for ((info, tag), (_, wall_ms)) in tags.zip(&kept) {
            prop_assert_eq!(info.arrival_ms, *wall_ms);
            prop_assert_eq!(info.tag_len(), tag.0.len() as u64);
            units += u64::from(matches!(info.kind, UnitKind::Video | UnitKind::Audio));
        }
        let now = progress.snapshot();
        prop_assert_eq!(now.video_units + now.audio_units, units);
        prop_assert!(!all.iter().any(Read::is_gap));
        for (ending, limit) in [("seg", segment_bytes), ("idx", segment_index_bytes as u64)] {
            for path in support::files(dir.path(), ending) {
                // The head is not counted in an index, and a single batch may be longer than both.
                let len = std::fs::metadata(path).unwrap().len();
                prop_assert!(len <= limit + 512 || len <= 300 << 10, "{ending} of {len} bytes");
            }
        }
    }
}
