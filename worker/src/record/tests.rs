//! Recorders over real journals in temporary directories: killed at every step, they give the same bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use journal::{Batch, Control, GroupSync, Options, Publish, Writer};
use shared::template::Format;

use super::pool::Scratch;
use super::{FinishedFile, Reach, Recorder, Setting};
use crate::upload::Objects;

/// A real baseline configuration, 320x240, and one for AAC-LC at 44.1 kHz in stereo.
const AVCC: [u8; 39] = [
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 0x17, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x07, 0xec, 0x04, 0x40, 0, 0, 0x03,
    0, 0x40, 0, 0, 0x0c, 0x83, 0xc5, 0x8b, 0xa8, 1, 0, 4, 0x68, 0xce, 0x0f, 0xc8, 0, 0,
];
const ASC: [u8; 2] = [0x12, 0x10];

struct World {
    dir: tempfile::TempDir,
    sync: Arc<GroupSync>,
    objects: Objects,
    writer: Option<Writer>,
    batch: Batch,
    /// Ends of the journal after each commit.
    ends: Vec<u64>,
}

fn video(key: bool, n: u32) -> Vec<u8> {
    let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, if n % 3 == 1 { 80 } else { 40 }];
    let nal = vec![(n % 251) as u8; 200 + (n as usize * 37) % 900];
    body.extend_from_slice(&u32::try_from(nal.len() + 1).expect("small").to_be_bytes());
    body.push(if key { 0x65 } else { 0x41 });
    body.extend_from_slice(&nal);
    body
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = Objects::open(&dir.path().join("objects")).expect("objects");
        let sync = GroupSync::start(&[dir.path().to_path_buf()], Duration::from_millis(20)).expect("sync");
        let publish = Publish {
            id: "p".to_owned(),
            stream: "s".to_owned(),
            ..Publish::default()
        };
        let options = Options {
            segment_bytes: 64 << 10,
            ..Options::default()
        };
        let writer = Writer::create(&dir.path().join("journal"), options, &publish, 1_000_000).expect("journal");
        Self {
            dir,
            sync: Arc::new(sync),
            objects,
            writer: Some(writer),
            batch: Batch::new(),
            ends: Vec::new(),
        }
    }

    fn append(&mut self, tag_type: u8, at: u32, body: &[u8]) {
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

    fn commit(&mut self) {
        let writer = self.writer.as_mut().expect("open");
        writer.commit(&mut self.batch).expect("commit");
        self.ends.push(writer.progress().snapshot().end.0);
    }

    /// `seconds` of 25 pictures and 43 sounds each, a key picture every 2 s, a commit every 200 ms.
    fn stream(&mut self, seconds: u32) {
        self.append(9, 0, &[&[0x17, 0, 0, 0, 0][..], &AVCC].concat());
        self.append(8, 0, &[&[0xaf, 0][..], &ASC].concat());
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
            self.append(9, at, &video(n % 50 == 0, n));
            if n % 5 == 4 {
                self.commit();
            }
        }
        self.commit();
        let last = Control::Unpublish {
            reason: "deleteStream".to_owned(),
            at_ms: 2_000_000,
        };
        let writer = self.writer.take().expect("open");
        let progress = writer.progress();
        writer.close(&last, 2_000_000).expect("close");
        self.ends.push(progress.snapshot().end.0);
    }

    fn setting(&self, name: &str, format: Format, interval_ms: i64) -> Setting {
        Setting {
            recording_id: name.to_owned(),
            format,
            interval_ms,
            journal: self.dir.path().join("journal"),
            notes: self.dir.path().join("notes"),
            prefix: format!("{name}/{}", format.as_str()),
            boot_id: "boot".into(),
            from_ms: None,
        }
    }

    fn open(&self, setting: &Setting) -> Recorder {
        Recorder::open(setting.clone(), self.objects.clone(), Arc::clone(&self.sync)).expect("open")
    }

    /// Renders the whole journal, in steps that end where `kill` says, each by a recorder that knows only what is on disk.
    fn render(&self, setting: &Setting, kill: impl Fn(usize) -> bool) -> Vec<FinishedFile> {
        let mut files: Vec<FinishedFile> = Vec::new();
        let mut scratch = Scratch::default();
        let mut recorder = self.open(setting);
        for (n, end) in self.ends.iter().enumerate() {
            let last = n + 1 == self.ends.len();
            if kill(n) {
                recorder = self.open(setting);
            }
            let stepped = recorder
                .step(
                    &mut scratch,
                    Reach {
                        end: *end,
                        last,
                        until_ms: None,
                    },
                )
                .expect("step");
            assert_eq!(stepped.done, last);
            files.extend(stepped.files);
        }
        files
    }
}

/// Every object below a directory, by key.
fn objects_below(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((
                    path.strip_prefix(root).expect("below").to_path_buf(),
                    std::fs::read(&path).expect("a file"),
                ));
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
    for format in [Format::Flv, Format::Hls, Format::Mp4, Format::Aac] {
        let interval_ms = if format == Format::Hls { 6_000 } else { 8_000 };
        let smooth = world.setting("smooth", format, interval_ms);
        let files = world.render(&smooth, |_| false);
        let expected = objects_below(&world.objects.root().join(&smooth.prefix));
        for every in [1, 3, 7] {
            let killed = world.setting(&format!("killed{every}"), format, interval_ms);
            let again = world.render(&killed, |n| n % every == every - 1);
            assert_eq!(
                objects_below(&world.objects.root().join(&killed.prefix)),
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
            let bytes = world.objects.get(&file.key).expect("stored");
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
        world.append(9, n * 40, &video(false, n));
    }
    world.append(9, 400, &video(true, 10));
    world.append(9, 440, &video(false, 11));
    world.commit();
    let setting = world.setting("late", Format::Mp4, 1_800_000);
    let mut scratch = Scratch::default();
    let stepped = world
        .open(&setting)
        .step(
            &mut scratch,
            Reach {
                end: world.ends[0],
                last: true,
                until_ms: None,
            },
        )
        .expect("step");
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
    world.append(9, 0, &video(true, 0));
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
    world.append(9, 120, &video(false, 1));
    world.commit();
    for format in [Format::Flv, Format::Hls] {
        let setting = world.setting("torn", format, 1_800_000);
        let reach = Reach {
            end: *world.ends.last().expect("an end"),
            last: true,
            until_ms: None,
        };
        let stepped = world.open(&setting).step(&mut Scratch::default(), reach).expect("step");
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
    let stepped = world.open(&setting).step(&mut Scratch::default(), reach).expect("step");
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
    let staged = world.objects.stage("lost-mp4-000000").expect("staged");
    let len = staged.size().expect("size");
    staged.truncate(len - 100).expect("truncate");
    let mut recorder = world.open(&lost);
    let end = *world.ends.last().expect("an end");
    recorder
        .step(
            &mut scratch,
            Reach {
                end,
                last: true,
                until_ms: None,
            },
        )
        .expect("step");
    let bytes = |name: &str| world.objects.get(&format!("{name}/mp4/000000.mp4")).expect("stored");
    assert_eq!(bytes("lost"), bytes("smooth"));
}
