//! Recordings of several publishes: one list, and one MP4 composed of its segments.

use media::{hls, mp4};
use shared::ids::RecordingId;
use shared::lease::{Epoch, Stitch};
use shared::template::{Format, Mp4Stitch};

use super::index::{self, Index};
use super::tests::World;
use super::{FinishedFile, Reach, Setting, Stitched, crc};
use crate::stream::finish::{Composer, Order};
use crate::upload::{Objects, Sites};
use shared::telemetry::WorkerMetrics;

/// The setting of a publish of a recording that goes on, under `epoch`, behind `before`.
pub(super) fn stitched(world: &World, name: &str, epoch: u64, before: &[u64], lost: bool) -> Setting {
    let epoch = Epoch::new(epoch);
    Setting {
        prefix: format!("{name}/{}/hls", epoch.path_component()),
        stitch: Some(Stitched {
            root: name.to_owned(),
            epoch,
            behind: Stitch {
                before: before.iter().copied().map(Epoch::new).collect(),
                lost,
            },
        }),
        fragments: of_fragments(name),
        ..world.setting(name, Format::Hls, 6_000)
    }
}

fn index_of(world: &World, name: &str, epoch: u64) -> (Index, media::hls::MediaPlaylist) {
    let bytes = world.get(&index::key(name, Epoch::new(epoch)));
    let text = String::from_utf8(bytes.clone()).expect("text");
    (
        Index::parse(&bytes).expect("an index"),
        media::hls::MediaPlaylist::parse(&text).expect("a playlist"),
    )
}

/// Whether segments are fragments of MP4 is in the name.
fn of_fragments(name: &str) -> bool {
    name.contains("fmp4")
}

/// Three publishes one after the other are one list, and a kill at any step changes no byte of it.
fn stitches(world: &World, name: &str) {
    let mut expected = Vec::new();
    for every in [usize::MAX, 1, 3] {
        let name = format!("{name}-{every}");
        for epoch in 1..=3 {
            let before: Vec<u64> = (1..epoch).rev().collect();
            let setting = stitched(world, &name, epoch, &before, false);
            let files = world.render(&setting, |n| n % every == every - 1);
            assert_eq!(files, [], "it is not whole yet");
            let (index, list) = index_of(world, &name, epoch);
            assert!(index.totals.paused && !list.ended);
            assert_eq!(index.totals.video_units, epoch * 30 * 25);
            assert_eq!(index.totals.segments, list.segments.len() as u64);
            let lasts: u32 = list.segments.iter().map(|segment| segment.duration_ms).sum();
            assert_eq!(index.totals.duration_ms, i64::from(lasts));
        }
        let (index, list) = index_of(world, &name, 3);
        let breaks = list.segments.iter().filter(|segment| segment.discontinuity).count();
        assert_eq!(breaks, 2, "one for each time the stream came back");
        assert_eq!(
            index
                .totals
                .gaps
                .iter()
                .filter(|gap| gap.reason == "interrupted")
                .count(),
            2
        );
        let ended = index.ended(Epoch::new(3));
        let list = media::hls::MediaPlaylist::parse(&ended).expect("a playlist");
        let maps = list.segments.iter().filter(|segment| segment.map.is_some()).count();
        assert_eq!(maps, if of_fragments(&name) { 3 } else { 0 }, "one for each publish");
        assert_eq!(list.header.version, if of_fragments(&name) { 6 } else { 3 });
        let named = |segment: &media::hls::Segment| [segment.map.clone(), Some(segment.uri.clone())];
        for uri in list.segments.iter().flat_map(named).flatten() {
            let key = uri.strip_prefix("../../").expect("another epoch's");
            assert!(!world.get(&format!("{name}/{key}")).is_empty(), "{key}");
        }
        let objects = world.objects_below(&name);
        if expected.is_empty() {
            expected = objects;
        } else {
            assert_eq!(objects, expected, "{name}");
        }
    }
}

#[test]
fn publishes_are_stitched_to_the_same_bytes_killed_or_not() {
    let mut world = World::new();
    world.stream(30);
    stitches(&world, "local");
    stitches(&world, "local-fmp4");
    world.use_a_bucket();
    stitches(&world, "bucket");
    stitches(&world, "bucket-fmp4");
}

#[test]
fn a_successor_waits_for_its_predecessor_unless_that_is_lost() {
    let mut world = World::new();
    world.stream(30);
    for name in ["local", "bucket"] {
        if name == "bucket" {
            world.use_a_bucket();
        }
        let first = stitched(&world, name, 1, &[], false);
        let half = Reach {
            end: world.ends[world.ends.len() / 2],
            last: false,
            until_ms: None,
        };
        let whole = Reach {
            end: *world.ends.last().expect("an end"),
            last: true,
            until_ms: None,
        };
        let mut predecessor = world.open(&first);
        world.advance(&mut predecessor, half);
        let (running, _) = index_of(&world, name, 1);
        assert!(!running.totals.paused && running.totals.segments > 0);

        let mut successor = world.open(&stitched(&world, name, 2, &[1], false));
        let waiting = world.advance(&mut successor, whole);
        assert!(waiting.waits && !waiting.done, "the journal has everything");
        let mut impatient = world.open(&stitched(&world, name, 3, &[2, 1], true));
        assert!(world.advance(&mut impatient, whole).done);
        let (index, _) = index_of(&world, name, 3);
        assert_eq!(index.totals.gaps[0].reason, "worker_lost");
        assert!(index.totals.video_units < 2 * 30 * 25 && index.totals.video_units > 30 * 25);

        assert!(world.advance(&mut predecessor, whole).done);
        assert!(world.advance(&mut successor, whole).done);
        let (index, list) = index_of(&world, name, 2);
        assert_eq!(index.totals.video_units, 2 * 30 * 25, "nothing is left out");
        assert_eq!(index.totals.segments, list.segments.len() as u64);
    }
}

/// The final list of three publishes, whose segments are fragments, and what is known to be missing.
fn three_publishes(world: &World, name: &str) -> (hls::MediaPlaylist, Index) {
    for epoch in 1..=3 {
        let before: Vec<u64> = (1..epoch).rev().collect();
        world.render(&stitched(world, name, epoch, &before, false), |_| false);
    }
    let (index, _) = index_of(world, name, 3);
    let ended = index.ended(Epoch::new(3));
    (hls::MediaPlaylist::parse(&ended).expect("a playlist"), index)
}

/// Composes, as the owner of epoch 4.
fn composed(world: &World, name: &str, (list, index): &(hls::MediaPlaylist, Index)) -> Vec<FinishedFile> {
    let order = Order {
        recording: RecordingId::from_uuid(uuid::Uuid::nil()),
        root: name,
        epoch: Epoch::new(4),
        behind: Epoch::new(3),
        stitch: Mp4Stitch::Keep,
        storage_class: None,
        segments: &list.segments,
        gaps: &index.totals.gaps,
        start_ms: 1_000_000,
    };
    let composer = Composer::new(Sites::new(world.objects.clone().into(), WorkerMetrics::default()).expect("opened"));
    world.runtime.block_on(composer.compose(&order)).expect("composed")
}

/// The data of all fragments that a list names, one after another.
fn data_of(world: &World, name: &str, list: &hls::MediaPlaylist) -> Vec<u8> {
    let mut data = Vec::new();
    for segment in &list.segments {
        let key = segment.uri.strip_prefix("../../").expect("another epoch's");
        let bytes = world.get(&format!("{name}/{key}"));
        let mut rest = bytes.as_slice();
        while let Some((kind, len)) = mp4::box_header(rest) {
            if &kind == b"mdat" {
                data.extend_from_slice(&rest[mp4::BOX_HEADER..len]);
            }
            rest = &rest[len..];
        }
    }
    data
}

#[test]
fn one_mp4_holds_what_the_segments_of_all_publishes_hold_wherever_they_lie() {
    let mut world = World::new();
    // Several parts of an upload.
    world.weight = 8;
    world.stream(30);
    let mut in_directory = None;
    for name in ["local-fmp4", "bucket-fmp4"] {
        if name.starts_with("bucket") {
            world.use_a_bucket();
        }
        let list = three_publishes(&world, name);
        let files = composed(&world, name, &list);
        let [file] = &files[..] else {
            panic!("one file, not {files:#?}")
        };
        assert_eq!(file.key, format!("{name}/e000004/mp4/000000.mp4"));
        assert_eq!(
            (file.video_units, file.audio_units),
            (3 * 750, list.1.totals.audio_units)
        );
        let gaps: Vec<_> = file
            .gaps
            .iter()
            .map(|gap| (gap.reason.as_str(), gap.to_ms - gap.from_ms))
            .collect();
        assert_eq!(gaps.len(), 2, "{gaps:?}");
        assert!(
            gaps.iter()
                .all(|(reason, long)| *reason == "interrupted" && (0..200).contains(long)),
            "{gaps:?}"
        );
        assert!((90_000..90_500).contains(&file.duration_ms), "{}", file.duration_ms);
        let whole = world.get(&file.key);
        assert_eq!(
            (whole.len() as u64, crc::text(crc::of(&whole))),
            (file.size, file.checksum.clone())
        );
        let data = data_of(&world, name, &list.0);
        assert!(
            data.len() > 10 << 20 && whole.ends_with(&data),
            "{} bytes of data",
            data.len()
        );
        assert_eq!((whole.len() - data.len()) % mp4::HEAD_ALIGNMENT, 0);
        assert_eq!(composed(&world, name, &list), files, "it may be done again");
        assert_eq!(world.get(&file.key), whole);
        assert!(
            *in_directory.get_or_insert_with(|| whole.clone()) == whole,
            "a bucket gets what a directory gets"
        );
    }
}

#[test]
fn a_segment_that_is_gone_or_damaged_is_a_gap_and_the_rest_is_there() {
    let mut world = World::new();
    world.stream(30);
    let name = "fmp4";
    let list = three_publishes(&world, name);
    let Objects::Local(local) = &world.objects else {
        panic!("a directory")
    };
    let key = |at: usize| format!("{name}/{}", list.0.segments[at].uri.trim_start_matches("../../"));
    let per_push = list.0.segments.len() / 3;
    std::fs::remove_file(local.root().join(key(1))).expect("removed");
    let mut damaged = world.get(&key(per_push + 1));
    damaged[40] ^= 0xff;
    local.put(&key(per_push + 1), &damaged).expect("put");
    let half = world.get(&key(per_push * 2))[..5_000].to_vec();
    local.put(&key(per_push * 2), &half).expect("put");
    let files = composed(&world, name, &list);
    let [file] = &files[..] else {
        panic!("one file, not {files:#?}")
    };
    let reasons: Vec<&str> = file.gaps.iter().map(|gap| gap.reason.as_str()).collect();
    let count = |reason: &str| reasons.iter().filter(|found| **found == reason).count();
    assert_eq!(
        (count("segment_missing"), count("segment_damaged"), count("interrupted")),
        (1, 2, 2),
        "{reasons:?}"
    );
    assert_eq!(file.video_units, 3 * 750 - 3 * 150, "three segments of six seconds");
    assert_eq!(world.get(&file.key).len() as u64, file.size);
}
