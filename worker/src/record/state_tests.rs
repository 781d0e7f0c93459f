//! How large a recorder's state can be, and that it can be saved whatever a publisher sends.

use std::sync::Arc;

use journal::Slot;
use journal::format::MAX_INLINE_LEN;
use shared::lease::Epoch;
use shared::recording::Gap;
use shared::template::Format;

use super::Reach;
use super::file::{MAX_HOLES, MAX_METADATA};
use super::index::{self, Totals};
use super::keeper::Keeper;
use super::state::{Config, Counts, HlsState, MAX_GAPS, OpenFile, Span, State};
use super::tests::{World, video};
use crate::upload::Upload;

/// More than a state takes with all that it holds as long as it may be, twice over.
const LARGEST: usize = 2 << 20;

/// An `onMetaData` of so many bytes: its array of positions is what makes those of played files so long.
fn metadata(len: usize) -> Vec<u8> {
    let mut body = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x01\x00\x09positions\x0c".to_vec();
    let text = len - body.len() - 4 - 3;
    body.extend_from_slice(&u32::try_from(text).expect("short").to_be_bytes());
    body.extend((0..text).map(|n| b'a' + (n % 26) as u8));
    body.extend_from_slice(&[0, 0, 9]);
    body
}

fn gaps(count: usize) -> Vec<Gap> {
    let gap = |n: usize| Gap {
        reason: format!("{n:064}"),
        from_ms: i64::MIN + 1,
        to_ms: i64::MAX,
        units: u64::MAX,
    };
    (0..count).map(gap).collect()
}

/// All that a state can hold, as long as it can be.
fn largest() -> State {
    let config = || {
        Some(Config {
            codec: u8::MAX,
            header_len: u8::MAX,
            body: vec![0xff; MAX_INLINE_LEN].into(),
        })
    };
    let metadata = || Some(metadata(MAX_METADATA as usize).into());
    let span = Some(Span {
        first_ms: i64::MIN,
        last_ms: i64::MIN,
        step_ms: i64::MIN,
    });
    let counts = Counts {
        video: u64::MAX,
        audio: u64::MAX,
        video_span: span,
        audio_span: span,
        first_arrival_ms: i64::MIN,
        last_arrival_ms: i64::MIN,
    };
    let mut before = Totals::default();
    for epoch in 1..=1_100 {
        before.taken_over(Epoch::new(u64::MAX - epoch), false);
    }
    before.gaps = Vec::new();
    shared::recording::join_gaps(&mut before.gaps, &gaps(2_000));
    assert_eq!(before.gaps.len(), 1_024);
    State {
        cursor: u64::MAX,
        next_sequence: u32::MAX,
        seen_key: false,
        video_config: config(),
        audio_config: config(),
        metadata: metadata(),
        // Those of reasons that came when there were that many already.
        gaps: gaps(MAX_GAPS + 32),
        open: Some(OpenFile {
            sequence: u32::MAX,
            file_id: "f".repeat(255),
            from: u64::MAX,
            base_ms: i64::MIN,
            body_len: u64::MAX,
            body_crc: u64::MAX,
            video_config: config(),
            audio_config: config(),
            metadata: metadata(),
            seen_key_before: false,
            counts,
            holes: vec![(u64::MAX, u64::MAX); MAX_HOLES],
            finishing: Some(u64::MAX),
            upload: Some(Upload {
                id: "u".repeat(1_024),
                parts: u32::MAX,
                ids_len: u64::MAX,
                second: true,
            }),
        }),
        hls: Some(HlsState {
            counts,
            before: Some(before),
            wall_zero_ms: Some(i64::MIN),
            segment_ms: Some(i64::MIN),
            ..HlsState::default()
        }),
        done: false,
    }
}

#[test]
fn the_largest_state_can_be_saved_twice_over() {
    let world = World::new();
    let setting = world.setting("large", Format::Flv, 1_000);
    std::fs::create_dir_all(&setting.notes).expect("a folder");
    let (mut keeper, _) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
    let state = largest();
    for _ in 0..3 {
        keeper.save(&state).expect("saved");
        world.sync.sync_now().expect("synced");
    }
    assert_eq!(keeper.safe(), &state, "the journal is given up behind it");
    let len = std::fs::metadata(setting.notes.join("large-flv.slot"))
        .expect("there")
        .len();
    assert!(len <= 2 * LARGEST as u64, "{len}");
    for boot in ["boot", "another boot"] {
        let mut setting = setting.clone();
        setting.boot_id = boot.into();
        let (_, found) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
        assert_eq!(found, state);
    }
}

#[test]
fn headers_of_version_1_are_read() {
    let world = World::new();
    let setting = world.setting("old", Format::Flv, 1_000);
    std::fs::create_dir_all(&setting.notes).expect("a folder");
    let state = r#"{"cursor":7,"next_sequence":1,"seen_key":true,"video_config":{"codec":7,"header_len":5,"body":[23,0,255]},
        "audio_config":null,"metadata":[2,0,10],"gaps":[],"open":null,"hls":null,"done":false}"#;
    let saved = format!(r#"{{"version":1,"boot_id":"boot","current":{state},"durable":{state}}}"#);
    let mut slot = Slot::open(&setting.notes.join("old-flv.slot")).expect("a slot");
    slot.write(saved.as_bytes()).expect("written");
    let (mut keeper, found) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
    assert_eq!((found.cursor, found.metadata.as_deref()), (7, Some(&[2, 0, 10][..])));
    assert_eq!(
        found.video_config.as_ref().map(|config| &*config.body),
        Some(&[23, 0, 255][..])
    );
    keeper.save(&found).expect("saved");
    let (_, again) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
    assert_eq!(again, found);
}

#[test]
fn however_long_a_publishers_headers_are_its_media_is_recorded_and_its_journal_given_up() {
    let mut world = World::new();
    world.append(18, 0, &metadata(MAX_METADATA as usize));
    let short = [&[0x17, 0, 0, 0, 0][..], &[1; 300]].concat();
    world.append(9, 0, &short);
    // One that is no configuration, and longer than any.
    world.append(8, 0, &[&[0xaf, 0][..], &vec![0x12; 1 << 20]].concat());
    world.stream(12);
    for format in [Format::Flv, Format::Mp4, Format::Aac, Format::Hls] {
        let setting = world.setting("headers", format, 4_000);
        let mut recorder = world.open(&setting);
        let (mut files, mut retired) = (0, 0);
        for (n, end) in world.ends.iter().enumerate() {
            let reach = Reach {
                end: *end,
                last: n + 1 == world.ends.len(),
                until_ms: None,
            };
            let stepped = world.advance(&mut recorder, reach);
            world.sync.sync_now().expect("synced");
            files += stepped.files.len();
            retired = retired.max(stepped.retired);
        }
        assert!(
            files >= if format == Format::Hls { 1 } else { 3 },
            "{format:?}: {files}"
        );
        assert!(
            retired > *world.ends.last().expect("an end") / 2,
            "{format:?}: {retired}"
        );
    }
}

#[test]
fn a_recording_that_was_interrupted_a_thousand_times_goes_on() {
    let mut world = World::new();
    world.append(9, 0, &video(true, 0, 1));
    world.stream(6);
    let mut totals = Totals::default();
    for push in 0..1_100 {
        totals.duration_ms = push * 1_000;
        totals.gap_at_end("interrupted");
    }
    totals.segments = 1_100;
    totals.paused = true;
    let mut text = "#EXTM3U\n".to_owned();
    totals.append(&mut text);
    for n in 0..1_100 {
        text.push_str(&format!("#EXTINF:1.000,\n{n:06}.ts\n"));
    }
    let crate::upload::Objects::Local(local) = &world.objects else {
        panic!("a directory")
    };
    let mut setting = world.setting("often", Format::Hls, 2_000);
    let before = Epoch::new(1_100);
    local
        .put(&index::key("often", before), text.as_bytes())
        .expect("stored");
    setting.stitch = Some(super::Stitched {
        root: "often".to_owned(),
        epoch: Epoch::new(1_101),
        behind: shared::lease::Stitch {
            before: vec![before],
            ..shared::lease::Stitch::default()
        },
    });
    setting.prefix = format!("often/{}/hls", Epoch::new(1_101).path_component());
    let files = world.render(&setting, |n| n % 3 == 1);
    assert!(files.is_empty(), "it is paused: {files:?}");
    let text = String::from_utf8(world.get(&format!("{}/index.m3u8", setting.prefix))).expect("text");
    assert_eq!(text.matches("\"interrupted\"").count(), 1_024);
    assert!(text.lines().filter(|line| line.ends_with(".ts")).count() > 1_102);
}
