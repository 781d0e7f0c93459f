//! Recorders over real journals in temporary directories: killed at every step, they give the same bytes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use journal::{Batch, Control, GroupSync, Options, Publish, Writer};
use shared::objects::Faulty;
use shared::telemetry::WorkerMetrics;
use shared::template::Format;

use super::pool::Scratch;
use super::{FinishedFile, Reach, Recorder, Setting, Stepped};
use crate::upload::{Haste, Limits, Local, Object, Objects, Remote, Store};

/// A real baseline configuration, 320x240, and one for AAC-LC at 44.1 kHz in stereo.
const AVCC: [u8; 39] = [
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 0x17, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x07, 0xec, 0x04, 0x40, 0, 0, 0x03,
    0, 0x40, 0, 0, 0x0c, 0x83, 0xc5, 0x8b, 0xa8, 1, 0, 4, 0x68, 0xce, 0x0f, 0xc8, 0, 0,
];
const ASC: [u8; 2] = [0x12, 0x10];

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) sync: Arc<GroupSync>,
    pub(super) objects: Objects,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) progress: Arc<journal::Progress>,
    pub(super) writer: Option<Writer>,
    batch: Batch,
    /// Ends of the journal after each commit.
    pub(super) ends: Vec<u64>,
    /// Pictures are so many times as large.
    pub(super) weight: usize,
}

pub(super) fn video(key: bool, n: u32, weight: usize) -> Vec<u8> {
    let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, if n % 3 == 1 { 80 } else { 40 }];
    let nal = vec![(n % 251) as u8; (200 + (n as usize * 37) % 900) * weight];
    body.extend_from_slice(&u32::try_from(nal.len() + 1).expect("small").to_be_bytes());
    body.push(if key { 0x65 } else { 0x41 });
    body.extend_from_slice(&nal);
    body
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_segments_of(64 << 10)
    }

    pub(super) fn with_segments_of(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = Objects::Local(Local::open(&dir.path().join("objects")).expect("objects"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let sync = GroupSync::start(&[dir.path().to_path_buf()], Duration::from_millis(20)).expect("sync");
        let publish = Publish {
            id: "p".to_owned(),
            stream: "s".to_owned(),
            ..Publish::default()
        };
        let options = Options {
            segment_bytes,
            ..Options::default()
        };
        let writer = Writer::create(&dir.path().join("journal"), options, &publish, 1_000_000).expect("journal");
        Self {
            dir,
            sync: Arc::new(sync),
            objects,
            runtime,
            progress: writer.progress(),
            writer: Some(writer),
            batch: Batch::new(),
            ends: Vec::new(),
            weight: 1,
        }
    }

    /// Stores in a bucket from now on, one in memory.
    pub(super) fn use_a_bucket(&mut self) {
        let limits = Limits {
            max_uploads: 2,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let bucket = Faulty::default().bucket(Duration::from_secs(30));
        let remote = Remote::new(bucket, limits, WorkerMetrics::default()).expect("threads");
        self.objects = Objects::Remote(remote);
    }

    pub(super) fn get(&self, key: &str) -> Vec<u8> {
        match &self.objects {
            Objects::Local(local) => local.get(key).expect("stored"),
            Objects::Remote(remote) => self
                .runtime
                .block_on(remote.bucket().get(key))
                .expect("stored")
                .to_vec(),
        }
    }

    /// Every object below a prefix, by what stands behind it.
    pub(super) fn objects_below(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let prefix = format!("{prefix}/");
        let keys = match &self.objects {
            Objects::Local(local) => files_below(local.root(), &local.root().join(&prefix)),
            Objects::Remote(remote) => self.runtime.block_on(remote.bucket().keys(&prefix)).expect("listed"),
        };
        let named = |key: String| (key[prefix.len()..].to_owned(), self.get(&key));
        keys.into_iter().map(named).collect()
    }

    /// Makes one step, and what follows from it: all that is due up to `reach`.
    pub(super) fn advance(&self, recorder: &mut Recorder, reach: Reach) -> Stepped {
        let mut all = Stepped::default();
        loop {
            let mut stepped = recorder.step(&mut Scratch::default(), reach).expect("step");
            let store = stepped.store.take();
            let more = store.is_some();
            if let (Some(store), Objects::Remote(remote)) = (store, &self.objects) {
                let stored = self.runtime.block_on(async {
                    let turn = remote.turn(0, Haste::GoingOn).await.expect("a turn");
                    remote.perform(store, turn).await
                });
                let after = recorder.stored(stored.expect("stored")).expect("noted");
                for file in &after.files {
                    assert!(self.runtime.block_on(remote.settle(&file.key)), "the library has it");
                }
                all.files.extend(stepped.files);
                stepped = after;
            }
            all.files.extend(stepped.files);
            all.left_out.extend(stepped.left_out);
            (all.done, all.retired, all.waits) = (stepped.done, stepped.retired, stepped.waits);
            if stepped.settles {
                self.sync.sync_now().expect("synced");
            } else if stepped.done || !more || stepped.waits {
                return all;
            }
        }
    }

    pub(super) fn append(&mut self, tag_type: u8, at: u32, body: &[u8]) {
        let writer = self.writer.as_mut().expect("open");
        writer.append(
            &mut self.batch,
            tag_type,
            at,
            body,
            i64::from(at),
            1_000_000 + i64::from(at),
        );
    }

    pub(super) fn commit(&mut self) {
        let writer = self.writer.as_mut().expect("open");
        writer.commit(&mut self.batch).expect("commit");
        self.ends.push(writer.progress().snapshot().end.0);
    }

    /// What comes before the first picture and sound.
    pub(super) fn configure(&mut self) {
        self.append(9, 0, &[&[0x17, 0, 0, 0, 0][..], &AVCC].concat());
        self.append(8, 0, &[&[0xaf, 0][..], &ASC].concat());
    }

    /// `seconds` of 25 pictures and 43 sounds each, a key picture every 2 s, a commit every 200 ms.
    pub(super) fn stream(&mut self, seconds: u32) {
        self.configure();
        let mut sound = 0;
        for n in 0..seconds * 25 {
            let at = n * 40;
            while sound * 1024 * 10 / 441 < at {
                self.append(
                    8,
                    sound * 1024 * 10 / 441,
                    &[&[0xaf, 1][..], &[sound as u8; 150]].concat(),
                );
                sound += 1;
            }
            self.append(9, at, &video(n % 50 == 0, n, self.weight));
            if n % 5 == 4 {
                self.commit();
            }
        }
        self.commit();
        self.close();
    }

    /// The publish ends.
    pub(super) fn close(&mut self) {
        let last = Control::Unpublish {
            reason: "deleteStream".to_owned(),
            at_ms: 2_000_000,
        };
        let writer = self.writer.take().expect("open");
        let progress = writer.progress();
        writer.close(&last, 2_000_000).expect("close");
        self.ends.push(progress.snapshot().end.0);
    }

    pub(super) fn setting(&self, name: &str, format: Format, interval_ms: i64) -> Setting {
        Setting {
            recording_id: name.to_owned(),
            format,
            interval_ms,
            journal: self.dir.path().join("journal"),
            notes: self.dir.path().join("notes"),
            prefix: format!("{name}/{}", format.as_str()),
            boot_id: "boot".into(),
            zone: "UTC".into(),
            from_ms: None,
            fragments: false,
            stitch: None,
        }
    }

    pub(super) fn open(&self, setting: &Setting) -> Recorder {
        Recorder::open(setting.clone(), self.objects.clone(), Arc::clone(&self.sync)).expect("open")
    }

    /// Renders the whole journal, in steps that end where `kill` says, each by a recorder that knows only what is on disk.
    pub(super) fn render(&self, setting: &Setting, kill: impl Fn(usize) -> bool) -> Vec<FinishedFile> {
        let mut files: Vec<FinishedFile> = Vec::new();
        let mut recorder = self.open(setting);
        for (n, end) in self.ends.iter().enumerate() {
            let last = n + 1 == self.ends.len();
            if kill(n) {
                recorder = self.open(setting);
            }
            let reach = Reach {
                end: *end,
                last,
                until_ms: None,
            };
            let stepped = self.advance(&mut recorder, reach);
            assert_eq!(stepped.done, last);
            files.extend(stepped.files);
        }
        files
    }
}

/// Every file below a directory, by its path below `root`.
fn files_below(root: &Path, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        // What holds nothing is not there.
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let key = path.strip_prefix(root).expect("below");
                found.push(key.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn killed_at_any_step_a_recorder_gives_the_same_bytes() {
    let mut world = World::new();
    world.stream(30);
    same_bytes(&world, "local");
    world.use_a_bucket();
    same_bytes(&world, "bucket");
}

fn same_bytes(world: &World, name: &str) {
    for format in [Format::Flv, Format::Hls, Format::Mp4, Format::Aac] {
        let interval_ms = if format == Format::Hls { 6_000 } else { 8_000 };
        let smooth = world.setting(&format!("{name}-smooth"), format, interval_ms);
        let files = world.render(&smooth, |_| false);
        let expected = world.objects_below(&smooth.prefix);
        for every in [1, 3, 7] {
            let killed = world.setting(&format!("{name}-killed{every}"), format, interval_ms);
            let again = world.render(&killed, |n| n % every == every - 1);
            assert_eq!(
                world.objects_below(&killed.prefix),
                expected,
                "{format:?} killed every {every}"
            );
            let bare = |f: &FinishedFile| {
                (
                    f.sequence,
                    f.size,
                    f.checksum.clone(),
                    f.video_units,
                    f.audio_units,
                    f.start_ms,
                )
            };
            assert_eq!(
                again.iter().map(bare).collect::<Vec<_>>(),
                files.iter().map(bare).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn every_unit_is_in_exactly_one_file() {
    let mut world = World::new();
    world.stream(30);
    for format in [Format::Flv, Format::Mp4, Format::Hls] {
        let setting = world.setting("all", format, if format == Format::Hls { 6_000 } else { 8_000 });
        let files = world.render(&setting, |_| false);
        assert_eq!(files.iter().map(|f| f.video_units).sum::<u64>(), 30 * 25, "{format:?}");
        assert!(
            files.iter().map(|f| f.audio_units).sum::<u64>() >= 30 * 43 - 2,
            "{format:?}"
        );
        if format != Format::Hls {
            assert_eq!(files.len(), 4);
        }
    }
}

#[test]
fn what_is_stored_is_what_the_record_says() {
    let mut world = World::new();
    world.stream(10);
    for format in [Format::Flv, Format::Mp4, Format::Aac] {
        let setting = world.setting("sums", format, 1_800_000);
        for file in world.render(&setting, |_| false) {
            let bytes = world.get(&file.key);
            assert_eq!(bytes.len() as u64, file.size);
            assert_eq!(super::crc::text(super::crc::of(&bytes)), file.checksum);
            assert!((9_900..=10_100).contains(&file.duration_ms), "{}", file.duration_ms);
        }
    }
}

#[test]
fn pictures_before_the_first_key_picture_are_a_named_gap() {
    let mut world = World::new();
    world.append(9, 0, &[&[0x17, 0, 0, 0, 0][..], &AVCC].concat());
    for n in 0..10 {
        world.append(9, n * 40, &video(false, n, 1));
    }
    world.append(9, 400, &video(true, 10, 1));
    world.append(9, 440, &video(false, 11, 1));
    world.commit();
    let setting = world.setting("late", Format::Mp4, 1_800_000);
    let reach = Reach {
        end: world.ends[0],
        last: true,
        until_ms: None,
    };
    let stepped = world.advance(&mut world.open(&setting), reach);
    let [file] = stepped.files.as_slice() else {
        panic!("one file")
    };
    assert_eq!(file.video_units, 2);
    let [gap] = file.gaps.as_slice() else {
        panic!("one gap: {:?}", file.gaps)
    };
    assert_eq!(
        (gap.reason.as_str(), gap.units, gap.from_ms, gap.to_ms),
        ("before_first_key_frame", 10, 0, 360)
    );
}

#[test]
fn what_the_journal_says_is_missing_is_said_by_the_file() {
    let mut world = World::new();
    world.append(9, 0, &[&[0x17, 0, 0, 0, 0][..], &AVCC].concat());
    world.append(9, 0, &video(true, 0, 1));
    world.commit();
    let gap = Control::Gap {
        reason: "torn tail".to_owned(),
        from_ms: Some(0),
        to_ms: Some(80),
        lost_bytes: 17,
        lost_units: Some(2),
    };
    world
        .writer
        .as_mut()
        .expect("open")
        .control(&gap, 1_000_100)
        .expect("control");
    world.append(9, 120, &video(false, 1, 1));
    world.commit();
    for format in [Format::Flv, Format::Hls] {
        let setting = world.setting("torn", format, 1_800_000);
        let reach = Reach {
            end: *world.ends.last().expect("an end"),
            last: true,
            until_ms: None,
        };
        let stepped = world.advance(&mut world.open(&setting), reach);
        let [file] = stepped.files.as_slice() else {
            panic!("one file")
        };
        let [gap] = file.gaps.as_slice() else {
            panic!("one gap: {:?}", file.gaps)
        };
        assert_eq!(
            (gap.reason.as_str(), gap.from_ms, gap.to_ms, gap.units),
            ("torn_tail", 0, 80, 2)
        );
    }
}

#[test]
fn what_no_file_can_tell_is_told_by_the_recorder() {
    let mut world = World::new();
    world.stream(2);
    let setting = world.setting("mute", Format::Mp3, 1_800_000);
    let reach = Reach {
        end: *world.ends.last().expect("an end"),
        last: true,
        until_ms: None,
    };
    let stepped = world.advance(&mut world.open(&setting), reach);
    assert!(stepped.files.is_empty());
    let [gap] = stepped.left_out.as_slice() else {
        panic!("one gap: {:?}", stepped.left_out)
    };
    assert_eq!(gap.reason, "codec_is_not_mp3");
    assert!(gap.units >= 85, "{}", gap.units);
}

#[test]
fn after_power_loss_only_what_a_sync_covered_is_believed() {
    let mut world = World::new();
    world.stream(20);
    let smooth = world.setting("smooth", Format::Mp4, 1_800_000);
    world.render(&smooth, |_| false);
    let mut lost = world.setting("lost", Format::Mp4, 1_800_000);
    let mut scratch = Scratch::default();
    let half = world.ends.len() / 2;
    let mut recorder = world.open(&lost);
    for end in &world.ends[..half] {
        recorder
            .step(
                &mut scratch,
                Reach {
                    end: *end,
                    last: false,
                    until_ms: None,
                },
            )
            .expect("step");
        world.sync.sync_now().expect("sync");
    }
    drop(recorder);
    // The machine comes back, and the last write to the body never reached the disk.
    lost.boot_id = "another boot".into();
    let Objects::Local(local) = &world.objects else {
        panic!("a directory")
    };
    let staged = local.stage("lost-mp4-000000").expect("staged");
    let len = staged.size().expect("size");
    staged.truncate(len - 100).expect("truncate");
    let mut recorder = world.open(&lost);
    let end = *world.ends.last().expect("an end");
    let reach = Reach {
        end,
        last: true,
        until_ms: None,
    };
    assert!(world.advance(&mut recorder, reach).done);
    let bytes = |name: &str| world.get(&format!("{name}/mp4/000000.mp4"));
    assert_eq!(bytes("lost"), bytes("smooth"));
}

#[test]
fn a_bucket_gets_in_many_parts_what_a_directory_gets_in_one_file() {
    let mut world = World::with_segments_of(4 << 20);
    // About a megabyte a second: each file has several parts, each HLS segment more than one.
    world.weight = 60;
    world.stream(26);
    // A step every 3 s: less often than commits, as in life.
    let (steps, last) = (
        world.ends.iter().copied().skip(14).step_by(15),
        *world.ends.last().expect("an end"),
    );
    world.ends = steps.filter(|end| *end < last).chain([last]).collect();
    let cases = [
        (Format::Flv, 16_000),
        (Format::Mp4, 1_800_000),
        (Format::Hls, 6_000),
        (Format::Aac, 8_000),
    ];
    let local: Vec<_> = cases
        .map(|(format, interval_ms)| {
            let setting = world.setting("local", format, interval_ms);
            (world.render(&setting, |_| false), world.objects_below(&setting.prefix))
        })
        .into();
    world.use_a_bucket();
    for every in [1, usize::MAX] {
        for ((format, interval_ms), (files, objects)) in cases.iter().zip(&local) {
            let setting = world.setting(&format!("bucket{every}"), *format, *interval_ms);
            let again = world.render(&setting, |n| n % every == every - 1);
            assert!(
                &world.objects_below(&setting.prefix) == objects,
                "{format:?} killed every {every}"
            );
            let bare = |f: &FinishedFile| (f.sequence, f.size, f.checksum.clone(), f.video_units, f.audio_units);
            assert!(again.iter().map(bare).eq(files.iter().map(bare)), "{format:?}");
        }
    }
}

#[test]
fn an_upload_that_storage_gave_up_is_begun_anew_from_the_journal() {
    let mut world = World::with_segments_of(4 << 20);
    world.weight = 60;
    world.stream(16);
    let setting = world.setting("local", Format::Mp4, 1_800_000);
    world.render(&setting, |_| false);
    let whole = world.get("local/mp4/000000.mp4");
    world.use_a_bucket();
    let setting = world.setting("lost", Format::Mp4, 1_800_000);
    let reach = |end, last| Reach {
        end,
        last,
        until_ms: None,
    };
    let (half, end) = (
        world.ends[world.ends.len() * 3 / 4],
        *world.ends.last().expect("an end"),
    );
    world.advance(&mut world.open(&setting), reach(half, false));
    let mut recorder = world.open(&setting);
    recorder.lose_upload().expect("noted");
    assert!(world.advance(&mut recorder, reach(end, true)).done);
    assert!(world.get("lost/mp4/000000.mp4") == whole);
}

/// The machine loses power behind the end of a file: what is believed afterwards is older than what is stored.
#[test]
fn a_file_that_was_whole_before_the_power_went_is_not_taken_for_lost() {
    let mut world = World::with_segments_of(1 << 20);
    world.weight = 60;
    world.stream(18);
    let sync = GroupSync::start(&[world.dir.path().to_path_buf()], Duration::from_secs(3_600));
    world.sync = Arc::new(sync.expect("sync"));
    let (steps, end) = (
        world.ends.iter().copied().skip(12).step_by(9),
        *world.ends.last().expect("an end"),
    );
    world.ends = steps.filter(|step| *step < end).chain([end]).collect();
    let bare = |f: &FinishedFile| (f.sequence, f.size, f.checksum.clone(), f.gaps.clone());
    let directory = world.objects.clone();
    for (format, interval_ms) in [(Format::Mp4, 1_800_000), (Format::Flv, 12_000)] {
        world.objects = directory.clone();
        let setting = world.setting("local", format, interval_ms);
        let files = world.render(&setting, |_| false);
        let expected = world.objects_below(&setting.prefix);
        for synced in world.ends.len() / 3..world.ends.len() {
            world.use_a_bucket();
            let setting = world.setting(&format!("bucket{synced}"), format, interval_ms);
            let reach = |end, last| Reach {
                end,
                last,
                until_ms: None,
            };
            let mut recorder = world.open(&setting);
            for (n, step) in world.ends.iter().enumerate() {
                world.advance(&mut recorder, reach(*step, *step == end));
                if n <= synced {
                    world.sync.sync_now().expect("synced");
                }
            }
            drop(recorder);
            let back = Setting {
                boot_id: "another boot".into(),
                ..setting.clone()
            };
            let again = world.advance(&mut world.open(&back), reach(end, true)).files;
            let what = format!("{format:?} synced at step {synced}");
            assert!(world.objects_below(&setting.prefix) == expected, "{what}");
            let known = files.len() - again.len();
            assert!(
                again.iter().map(bare).eq(files[known..].iter().map(bare)),
                "{what}: {again:?}"
            );
        }
    }
}

#[test]
fn an_upload_that_storage_gave_up_is_a_gap_where_the_journal_has_gone_on() {
    let mut world = World::with_segments_of(1 << 20);
    world.weight = 60;
    world.stream(16);
    world.use_a_bucket();
    let setting = world.setting("lost", Format::Mp4, 1_800_000);
    let reach = |end, last| Reach {
        end,
        last,
        until_ms: None,
    };
    let (half, end) = (
        world.ends[world.ends.len() * 3 / 4],
        *world.ends.last().expect("an end"),
    );
    world.advance(&mut world.open(&setting), reach(half, false));
    let journal = world.dir.path().join("journal");
    assert!(journal::retention::drop_bodies_before(&journal, journal::Position(half / 2)).expect("dropped") > 0);
    let mut recorder = world.open(&setting);
    recorder.lose_upload().expect("noted");
    let stepped = world.advance(&mut recorder, reach(end, true));
    let [file] = stepped.files.as_slice() else {
        panic!("one file: {:?}", stepped.files)
    };
    let reasons: Vec<&str> = file.gaps.iter().map(|gap| gap.reason.as_str()).collect();
    assert_eq!(reasons, ["upload_lost", "before_first_key_frame"]);
    let lost: u64 = file.gaps.iter().map(|gap| gap.units).sum();
    let sounds = (0..)
        .take_while(|sound| sound * 1024 * 10 / 441 < (16 * 25 - 1) * 40)
        .count() as u64;
    assert_eq!(file.video_units + file.audio_units + lost, 16 * 25 + sounds);
}

/// Keys of what is stored by this, in its order; of a playlist the names in it.
fn order_of(store: &Store) -> Vec<(String, Vec<String>)> {
    let named = |object: &Object| {
        let folder = object.key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let text = String::from_utf8(object.chunks.concat()).unwrap_or_default();
        let map = |line: &str| Some(line.strip_prefix("#EXT-X-MAP:URI=\"")?.split('"').next()?.to_owned());
        let names = text.lines().filter_map(|line| match line.starts_with('#') {
            true => map(line),
            false => Some(line.to_owned()),
        });
        let names = names.map(|name| format!("{folder}/{name}")).collect();
        let is_playlist = object.key.ends_with(".m3u8");
        (object.key.clone(), if is_playlist { names } else { Vec::new() })
    };
    match store {
        Store::Objects(objects) => objects.iter().map(named).collect(),
        Store::File { key, then, .. } => {
            let first = (key.clone(), Vec::new());
            std::iter::once(first).chain(then.iter().map(named)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_list_names_and_the_library_hears_of_only_what_is_stored() {
    let mut world = World::new();
    world.stream(30);
    world.use_a_bucket();
    let Objects::Remote(remote) = world.objects.clone() else {
        panic!("a bucket")
    };
    for format in [Format::Hls, Format::Mp4, Format::Flv, Format::Aac] {
        let setting = world.setting("ordered", format, 6_000);
        let mut recorder = world.open(&setting);
        let (mut there, mut lists, mut files) = (std::collections::BTreeSet::new(), 0, 0);
        for (n, end) in world.ends.iter().enumerate() {
            let reach = Reach {
                end: *end,
                last: n + 1 == world.ends.len(),
                until_ms: None,
            };
            loop {
                let mut stepped = recorder.step(&mut Scratch::default(), reach).expect("step");
                let Some(store) = stepped.store.take() else { break };
                assert!(stepped.files.is_empty(), "{format:?}: a file that is not stored yet");
                assert_eq!(stepped.retired, 0, "nothing is given up for what is not stored yet");
                for (key, names) in order_of(&store) {
                    let missing: Vec<_> = names.iter().filter(|name| !there.contains(*name)).collect();
                    assert!(missing.is_empty(), "{key} names {missing:?}, which is not stored");
                    lists += usize::from(!names.is_empty());
                    there.insert(key);
                }
                let stored = world.runtime.block_on(async {
                    let turn = remote.turn(0, Haste::GoingOn).await.expect("a turn");
                    remote.perform(store, turn).await
                });
                let stepped = recorder.stored(stored.expect("stored")).expect("noted");
                for file in &stepped.files {
                    let size = world.runtime.block_on(remote.bucket().size(&file.key)).expect("asked");
                    assert!(size.is_some(), "{} is not there", file.key);
                }
                files += stepped.files.len();
                if stepped.done {
                    break;
                }
            }
        }
        assert!(
            files > 0 && (format != Format::Hls || lists > 2),
            "{format:?}: {files} {lists}"
        );
    }
}
