//! Reading while another thread writes, deleting what was read, and printing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use journal::{
    Batch, Control, Entry, IndexReader, JournalError, Options, Position, Reader, Style, Writer, inspect, recover,
    retention,
};
use support::{
    Read, SMALL, Tag, assert_same, controls_of, files, publish, read_all, read_from, scratch, stream, tags_of,
    unpublish, write,
};

#[test]
fn a_reader_never_sees_a_torn_batch_while_the_writer_appends() {
    let dir = scratch();
    let tags: Vec<_> = stream(6_000);
    let options = Options {
        segment_bytes: 200 << 10,
        ..SMALL
    };
    let mut writer = Writer::create(dir.path(), options, &publish(), 0).unwrap();
    let progress = writer.progress();
    let written = AtomicBool::new(false);
    let expected: Vec<_> = tags.iter().map(Tag::bytes).collect();
    thread::scope(|scope| {
        // One that is told how far it may go, one that finds out by itself.
        for limited in [true, false, false] {
            let (progress, written, expected) = (&progress, &written, &expected);
            let dir = dir.path();
            scope.spawn(move || {
                let mut reader = Reader::open(dir, Position::START, Vec::new()).unwrap();
                let mut count = 0;
                loop {
                    let last_look = written.load(Ordering::SeqCst);
                    if limited {
                        reader.set_limit(progress.snapshot().end);
                    }
                    while let Some(entry) = reader.next().unwrap() {
                        match entry {
                            Entry::Tag { tag, .. } => {
                                assert!(*tag == expected[count].0, "tag {count}");
                                count += 1;
                            }
                            Entry::Control { control, .. } => {
                                assert!(!matches!(control, Control::Gap { .. }), "{control:?}")
                            }
                        }
                    }
                    if last_look {
                        break;
                    }
                    thread::yield_now();
                }
                assert_eq!(count, expected.len());
            });
        }
        write(&mut writer, &tags, 3);
        writer.close(&unpublish(), 0).unwrap();
        written.store(true, Ordering::SeqCst);
    });
}

#[test]
fn the_index_of_the_open_segment_grows_with_it() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), Options::default(), &publish(), 0).unwrap();
    let mut index = IndexReader::open(dir.path(), Position::START).unwrap();
    let tags = stream(20);
    let mut count = 0;
    for part in tags.chunks(10) {
        index.set_limit(writer.progress().snapshot().end);
        while index.next().unwrap().is_some() {
            count += 1;
        }
        write(&mut writer, part, 10);
    }
    assert!(count < tags.len());
    index.set_limit(writer.progress().snapshot().end);
    while index.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, tags.len());
}

#[test]
fn bodies_go_and_their_index_stays() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 0).unwrap();
    write(&mut writer, &stream(400), 20);
    let all = read_from(dir.path(), Position::START, Some(writer.progress().snapshot().end));
    let third = files(dir.path(), "seg")[2]
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let usage = retention::usage(dir.path()).unwrap();

    // Not a byte of a segment that is still needed in part.
    assert_eq!(retention::drop_bodies_before(dir.path(), Position(1)).unwrap(), 0);
    let freed = retention::drop_bodies_before(dir.path(), Position(third + 1)).unwrap();
    assert!(freed > 0 && retention::usage(dir.path()).unwrap() == usage - freed);
    assert_eq!(
        retention::drop_bodies_before(dir.path(), Position(third + 1)).unwrap(),
        0
    );
    let error = Reader::open(dir.path(), Position::START, Vec::new()).unwrap_err();
    assert!(
        matches!(error, JournalError::Purged { first: Some(first), .. } if first.0 == third),
        "{error:?}"
    );
    let rest: Vec<_> = all.iter().filter(|read| read.at().0 >= third).cloned().collect();
    assert_same(
        &read_from(dir.path(), Position(third), Some(writer.progress().snapshot().end)),
        &rest,
    );
    let mut index = IndexReader::open(dir.path(), Position::START).unwrap();
    index.set_limit(writer.progress().snapshot().end);
    let bodies: Vec<_> = (0..2).map(|_| index.next().unwrap().unwrap().body.unwrap()).collect();
    assert_eq!(bodies, [Tag::metadata(0).body, Tag::config(0).body]);
    let mut count = 2;
    while index.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, tags_of(&all).len());

    // The open segment's bodies stay, whatever is asked.
    let end = writer.progress().snapshot().end;
    retention::drop_bodies_before(dir.path(), end).unwrap();
    assert_eq!(files(dir.path(), "seg").len(), 1);
    writer.close(&unpublish(), 0).unwrap();
    let end = recover::recover(dir.path()).unwrap().end;
    retention::drop_bodies_before(dir.path(), end).unwrap();
    assert!(files(dir.path(), "seg").is_empty());
    let recovered = recover::recover(dir.path()).unwrap();
    assert_eq!(
        (recovered.end, recovered.closed, &recovered.publish),
        (end, Some(unpublish()), &publish())
    );
    assert_eq!(
        Reader::open(dir.path(), end, Vec::new())
            .unwrap()
            .next()
            .unwrap()
            .map(Read::of),
        None
    );

    assert!(retention::drop_index_before(dir.path(), Position(third)).unwrap() > 0);
    let error = IndexReader::open(dir.path(), Position::START).unwrap_err();
    assert!(matches!(error, JournalError::Purged { .. }), "{error:?}");
    assert!(
        IndexReader::open(dir.path(), Position(third))
            .unwrap()
            .next()
            .unwrap()
            .is_some()
    );
    retention::drop_index_before(dir.path(), end).unwrap();
    assert_eq!(files(dir.path(), "idx").len(), 1, "the last index says who published");
    assert_eq!(recover::recover(dir.path()).unwrap().publish, publish());
}

#[test]
fn bodies_stay_while_their_index_is_not_whole() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 0).unwrap();
    write(&mut writer, &stream(300), 20);
    writer.close(&unpublish(), 0).unwrap();
    let end = recover::recover(dir.path()).unwrap().end;
    let path = &files(dir.path(), "idx")[0];
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    retention::drop_bodies_before(dir.path(), end).unwrap();
    assert_eq!(files(dir.path(), "seg").len(), 1);
}

#[test]
fn a_journal_is_removed_as_a_whole() {
    let root = scratch();
    let dir = root.path().join("one");
    let writer = Writer::create(&dir, SMALL, &publish(), 0).unwrap();
    writer.close(&unpublish(), 0).unwrap();
    // As a crash in the middle leaves it.
    std::fs::create_dir(root.path().join("two.removing")).unwrap();
    std::fs::write(root.path().join("two.removing/x"), b"x").unwrap();
    retention::remove(&dir).unwrap();
    assert!(!dir.exists());
    assert_eq!(retention::sweep(root.path()).unwrap(), 1);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

fn printed(path: &std::path::Path, style: Style) -> String {
    let mut out = Vec::new();
    inspect(path, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_journal_can_be_printed_whole_damaged_or_in_part() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 0).unwrap();
    write(&mut writer, &stream(300), 20);
    writer.close(&unpublish(), 0).unwrap();
    let mut slot = journal::Slot::open(&dir.path().join("flv.slot")).unwrap();
    slot.write(b"state").unwrap();

    let text = printed(dir.path(), Style::Text);
    for word in [
        "publish 0193-test of push.example/live/one",
        "agrees",
        "300 video and 300 audio",
        ", closed",
        "flv.slot",
        "the test ends",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for line in printed(dir.path(), Style::Json).lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["type"].is_string());
    }
    let segments = files(dir.path(), "seg");
    assert!(printed(&segments[0], Style::Text).contains("media"));
    assert!(printed(&files(dir.path(), "idx")[0], Style::Json).contains(r#""kind":"media""#));
    assert!(printed(&dir.path().join("flv.slot"), Style::Text).contains("sequences [Some(1), None]"));

    let mut bytes = std::fs::read(&segments[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segments[0], &bytes).unwrap();
    let text = printed(dir.path(), Style::Text);
    assert!(text.contains("cannot be read") && text.contains("differs"), "{text}");
    std::fs::write(dir.path().join("other"), b"something else").unwrap();
    let error = inspect(&dir.path().join("other"), Style::Text, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, JournalError::Format { .. }), "{error:?}");
}

#[test]
fn records_come_back_in_their_place() {
    let dir = scratch();
    let mut writer = Writer::create(dir.path(), SMALL, &publish(), 0).unwrap();
    let mut batch = Batch::new();
    let gap = Control::Gap {
        reason: "disk full".into(),
        from_ms: Some(1),
        to_ms: None,
        lost_bytes: 0,
        lost_units: Some(3),
    };
    writer.append(&mut batch, 8, 0, &[0xAF, 1, 2], 0, 0);
    writer.commit(&mut batch).unwrap();
    writer.control(&gap, 5).unwrap();
    writer.append(&mut batch, 8, 20, &[0xAF, 1, 2], 0, 0);
    writer.commit(&mut batch).unwrap();
    let long = Control::Unpublish {
        reason: "x".repeat(100_000),
        at_ms: 0,
    };
    assert!(matches!(writer.control(&long, 0), Err(JournalError::TooLong { .. })));
    writer.close(&unpublish(), 0).unwrap();
    let all = read_all(dir.path());
    assert_eq!(controls_of(&all), [Control::Publish(publish()), gap, unpublish()]);
    assert!(matches!(all[2], Read::Control { .. }) && matches!(all[3], Read::Tag { .. }));
    // A record of a later version is known to be there.
    assert_eq!(
        serde_json::from_str::<Control>(r#"{"type":"later","x":1}"#).unwrap(),
        Control::Unknown
    );
}
