//! A recorder that leaves the first of two places, and dies at any step of that.

use shared::lease::Epoch;
use shared::objects::{Bucket, HELD, RESCUE};
use shared::telemetry::WorkerMetrics;
use shared::template::Format;

use super::*;
use crate::record::pool::Scratch;
use crate::record::stitch_tests::stitched;
use crate::record::tests::World;
use crate::record::{Reach, index};
use crate::upload::{Haste, Limits, Needs, Remote, StoreError};

/// After which step of leaving the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    Before,
    Noted,
    UploadLost,
    Marked,
}

const LIMITS: Limits = Limits {
    max_uploads: 2,
    part_size: 5 << 20,
    max_bandwidth: 0,
};

fn two_places() -> Remote {
    let remote = Remote::new(Bucket::in_memory(), LIMITS, WorkerMetrics::default()).expect("threads");
    let backup = (Bucket::in_memory(), LIMITS);
    let after = (std::time::Duration::from_secs(1), Needs::default());
    remote.with_backup(backup, after, WorkerMetrics::default())
}

/// Steps up to `end`, each store performed in the place that the recorder is in; an upload that is gone is lost, as the actor has it.
fn advance(world: &World, setting: &Setting, objects: &Objects, reach: Reach) {
    let mut recorder = reopened(world, setting, objects);
    let Objects::Remote(remote) = objects else {
        panic!("a bucket")
    };
    loop {
        let mut stepped = recorder.step(&mut Scratch::default(), reach).expect("a step");
        let Some(store) = stepped.store.take() else {
            assert_eq!(stepped.done, reach.last);
            return;
        };
        let stored = world.runtime.block_on(async {
            let turn = remote.turn(0, Haste::GoingOn).await.expect("a turn");
            remote.perform(store, turn).await
        });
        match stored {
            Ok(stored) => {
                let stepped = recorder.stored(stored).expect("noted");
                for file in &stepped.files {
                    assert!(world.runtime.block_on(remote.settle(&file.key)), "the library has it");
                }
                if stepped.done {
                    return;
                }
            }
            // The store in memory says it in its own words.
            Err(error) if matches!(error, StoreError::UploadLost(_)) || error.to_string().contains("not found") => {
                recorder = reopened(world, setting, objects);
                recorder.lose_upload().expect("noted");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn reopened(world: &World, setting: &Setting, objects: &Objects) -> Recorder {
    Recorder::open(setting.clone(), objects.clone(), Arc::clone(&world.sync)).expect("a recorder")
}

fn leave(world: &World, setting: &Setting, abandoned: &Abandoned, objects: &Objects, dies: Dies) {
    let mut recorder = reopened(world, setting, objects);
    if dies == Dies::Before {
        return;
    }
    if dies == Dies::Marked {
        let leaving = Leaving {
            setting: setting.clone(),
            objects: objects.clone(),
            sync: Arc::clone(&world.sync),
            abandoned: abandoned.clone(),
            mark: setting.mark(),
        };
        assert!(leaving.leave(Some(recorder)).expect("left").is_none());
        return;
    }
    let (key, upload) = recorder.upload();
    assert_eq!(upload.is_some(), setting.format != Format::Hls);
    abandoned.note_left(&key, upload.as_deref()).expect("noted");
    if dies == Dies::UploadLost {
        recorder.lose_upload().expect("lost");
    }
}

#[test]
fn whoever_dies_while_it_leaves_loses_nothing_and_leaves_nothing() {
    let mut world = World::with_segments_of(4 << 20);
    world.weight = 60;
    world.stream(16);
    for format in [Format::Mp4, Format::Flv, Format::Hls] {
        let interval_ms = if format == Format::Hls { 4_000 } else { 1_800_000 };
        let setting = world.setting("local", format, interval_ms);
        world.render(&setting, |_| false);
        let expected = world.objects_below(&setting.prefix);
        for dies in [Dies::Before, Dies::Noted, Dies::UploadLost, Dies::Marked] {
            let first = two_places();
            let second = first.second().expect("two places");
            let objects = Objects::Remote(first.clone());
            let name = format!("{dies:?}").to_lowercase();
            let setting = world.setting(&name, format, interval_ms);
            let abandoned = Abandoned::open(&world.dir.path().join(format!("left-{name}-{format:?}"))).expect("notes");
            let reach = |end, last| Reach {
                end,
                last,
                until_ms: None,
            };
            let half = world.ends[world.ends.len() * 3 / 4];
            let end = *world.ends.last().expect("an end");
            advance(&world, &setting, &objects, reach(half, false));
            leave(&world, &setting, &abandoned, &objects, dies);
            world.runtime.block_on(abandoned.sweep("", &first)).expect("swept");

            // The next start: it is where its mark says.
            assert_eq!(setting.mark().is_set(), dies == Dies::Marked);
            let place = if setting.mark().is_set() { &second } else { &first };
            let objects = Objects::Remote(place.clone());
            advance(&world, &setting, &objects, reach(end, true));

            let mut found = Vec::new();
            for (key, bytes) in &expected {
                let key = format!("{}/{key}", setting.prefix);
                let got = world.runtime.block_on(first.first(std::slice::from_ref(&key)));
                let (_, got) = got.unwrap_or_else(|| panic!("{format:?} {dies:?}: no {key}"));
                assert!(got == bytes, "{format:?} {dies:?}: {key} is another");
                found.push(key);
            }
            for bucket in [first.bucket(), second.bucket()] {
                let keys = world.runtime.block_on(bucket.keys("")).expect("listed");
                let strange = |key: &&String| !found.contains(key) || key.ends_with(HELD) || key.ends_with(RESCUE);
                assert_eq!(keys.iter().find(strange), None, "{format:?} {dies:?}");
            }
        }
    }
}

#[test]
fn a_file_whose_journal_is_gone_stays_with_its_upload() {
    let mut world = World::with_segments_of(1 << 20);
    world.weight = 60;
    world.stream(16);
    let first = two_places();
    let objects = Objects::Remote(first);
    let setting = world.setting("stays", Format::Mp4, 1_800_000);
    let half = world.ends[world.ends.len() * 3 / 4];
    let reach = Reach {
        end: half,
        last: false,
        until_ms: None,
    };
    advance(&world, &setting, &objects, reach);
    let journal = world.dir.path().join("journal");
    journal::retention::drop_bodies_before(&journal, journal::Position(half / 2)).expect("dropped");
    let leaving = Leaving {
        setting: setting.clone(),
        objects,
        sync: Arc::clone(&world.sync),
        abandoned: Abandoned::open(&world.dir.path().join("left")).expect("notes"),
        mark: setting.mark(),
    };
    let stays = leaving.leave(None).expect("asked");
    assert!(stays.is_some_and(|recorder| recorder.upload().1.is_some()));
    assert!(!setting.mark().is_set());
}

/// Whichever place each publish of it was stored in, its list is one, and all that it names is found.
#[test]
fn a_recording_of_several_publishes_goes_on_from_one_place_to_the_other() {
    let mut world = World::new();
    world.stream(30);
    let epochs = 1..=3;
    let render = |world: &World, epoch: u64| {
        let before: Vec<u64> = (1..epoch).rev().collect();
        world.render(&stitched(world, "r", epoch, &before, false), |n| n % 3 == 2);
    };
    epochs.clone().for_each(|epoch| render(&world, epoch));
    let expected = world.objects_below("r");
    for in_second in [[true, false, false], [false, true, false], [true, false, true]] {
        // What recorders and their notes left of the turn before.
        std::fs::remove_dir_all(world.dir.path().join("notes")).expect("removed");
        let first = two_places();
        let second = first.second().expect("two places");
        for (epoch, in_second) in epochs.clone().zip(in_second) {
            let place = if in_second { &second } else { &first };
            world.objects = Objects::Remote(place.clone());
            render(&world, epoch);
        }
        let found = |key: String| world.runtime.block_on(first.first(&[key])).map(|(_, bytes)| bytes);
        let list = found(index::key("r", Epoch::new(3))).expect("a list");
        let list = media::hls::MediaPlaylist::parse(std::str::from_utf8(&list).expect("text")).expect("a playlist");
        assert_eq!(list.segments.iter().filter(|segment| segment.discontinuity).count(), 2);
        for segment in &list.segments {
            let own = format!("e000003/hls/{}", segment.uri);
            let key = segment.uri.strip_prefix("../../").unwrap_or(&own);
            assert!(found(format!("r/{key}")).is_some(), "{in_second:?}: {key}");
        }
        for (key, bytes) in &expected {
            assert!(
                found(format!("r/{key}")).is_some_and(|got| got == *bytes),
                "{in_second:?}: {key}"
            );
        }
    }
}
