//! Power is lost at every moment around the cuts and the end of what a recorder renders to a directory.
//!
//! What a sync covered is on the disk; of what was written since, anything may be. So at each moment a fresh recorder goes on from the notes as
//! they are now or as the last sync left them, with the objects as they are now, as the last sync left them, or half way between.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use journal::GroupSync;
use shared::ids::{RecordingId, Seeded};
use shared::template::Format;
use shared::time::Timestamp;

use super::pool::Scratch;
use super::tests::World;
use super::{FinishedFile, Reach, Recorder, Setting};
use crate::stream::document::noted_files;
use crate::upload::{Local, Objects};

/// Steps from sync to sync: with two more between, so that a power loss can undo a decision, and what followed from it too.
const SYNC_EVERY: usize = 3;

/// Files below a directory, by their path below it.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let below = path.strip_prefix(root).expect("below").to_path_buf();
                found.insert(below, fs::read(&path).expect("read"));
            }
        }
    }
    found
}

fn plant(root: &Path, tree: &Tree) {
    fs::create_dir_all(root).expect("a folder");
    for (below, bytes) in tree {
        let path = root.join(below);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }
}

/// A recorder's disk: what it notes and where its objects lie.
struct Disk {
    dir: tempfile::TempDir,
    setting: Setting,
    objects: Objects,
    /// Syncs when it is told to, and then only in name: everything is in memory of the operating system anyway.
    sync: Arc<GroupSync>,
}

impl Disk {
    fn new(setting: &Setting, notes: &Tree, objects: &Tree) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        plant(&dir.path().join("notes"), notes);
        plant(&dir.path().join("objects"), objects);
        let mut setting = setting.clone();
        setting.notes = dir.path().join("notes");
        let local = Local::open(&dir.path().join("objects")).expect("objects");
        Self {
            setting,
            objects: Objects::Local(local),
            sync: Arc::new(GroupSync::start(&[], Duration::from_secs(3_600)).expect("a thread")),
            dir,
        }
    }

    fn open(&self) -> Recorder {
        let (setting, objects) = (self.setting.clone(), self.objects.clone());
        Recorder::open(setting, objects, Arc::clone(&self.sync)).expect("open")
    }

    fn notes(&self) -> Tree {
        tree(&self.dir.path().join("notes"))
    }

    fn objects(&self) -> Tree {
        tree(&self.dir.path().join("objects"))
    }

    /// What is stored, without what is staged.
    fn stored(&self) -> Tree {
        let mut all = self.objects();
        all.retain(|path, _| !path.starts_with(".staging"));
        all
    }

    /// Goes on to the end.
    fn go_on(&self, recorder: &mut Recorder, end: u64) -> Vec<FinishedFile> {
        let mut files = Vec::new();
        for _ in 0..100 {
            let stepped = recorder.step(&mut Scratch::default(), reach(end, true)).expect("step");
            files.extend(stepped.files);
            if stepped.done {
                return files;
            }
            self.sync.sync_now().expect("synced");
        }
        panic!("it does not come to an end");
    }
}

fn reach(end: u64, last: bool) -> Reach {
    Reach {
        end,
        last,
        until_ms: None,
    }
}

/// What the disk may hold of the objects when power is lost: all, what a sync covered, and what lies between for what was published since.
fn halves(synced: &Tree, now: &Tree) -> Vec<(&'static str, Tree)> {
    let new: Vec<&PathBuf> = now
        .keys()
        .filter(|key| !key.starts_with(".staging") && !synced.contains_key(*key))
        .collect();
    let mut all = vec![("now", now.clone()), ("synced", synced.clone())];
    let Some(key) = new
        .first()
        .filter(|key| key.extension().is_none_or(|e| e != "m3u8" && e != "ts"))
    else {
        return all;
    };
    let bytes = &now[*key];
    // It has its head, and not its name.
    let folder = key.iter().nth(1).and_then(|format| format.to_str()).unwrap_or_default();
    let recording = key.iter().next().and_then(|name| name.to_str()).unwrap_or_default();
    let sequence = key.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let staged = PathBuf::from(format!(".staging/{recording}-{folder}-{sequence}"));
    let mut unnamed = now.clone();
    unnamed.remove(*key);
    unnamed.insert(staged, bytes.clone());
    all.push(("head and no name", unnamed));
    // The room for its head is there, and its bytes are not.
    if folder == "flv" || folder == "mp4" {
        let mut blank = now.clone();
        let mut bytes = bytes.clone();
        bytes[..4_096].fill(0);
        blank.insert((*key).clone(), bytes);
        all.push(("a blank head", blank));
    }
    all
}

/// What files say that does not depend on how often they were begun.
fn told(files: &[FinishedFile]) -> BTreeMap<u32, (u64, String, u64, u64, String)> {
    let told = |file: &FinishedFile| {
        let gaps = format!("{:?}", file.gaps);
        (
            file.size,
            file.checksum.clone(),
            file.video_units,
            file.audio_units,
            gaps,
        )
    };
    files.iter().map(|file| (file.sequence, told(file))).collect()
}

fn lose_power_everywhere(format: Format) {
    let mut world = World::new();
    world.stream(6);
    let ends: Vec<u64> = world
        .ends
        .iter()
        .copied()
        .step_by(3)
        .chain(world.ends.last().copied())
        .collect();
    let (none, end) = (Tree::new(), *world.ends.last().expect("an end"));
    let setting = world.setting("power", format, 2_000);
    let smooth = Disk::new(&setting, &none, &none);
    let expected = told(&smooth.go_on(&mut smooth.open(), end));
    let stored = smooth.stored();
    assert!(
        format == Format::Hls || expected.len() > 2,
        "{format:?} is cut: {expected:?}"
    );

    let disk = Disk::new(&setting, &none, &none);
    let mut after = setting.clone();
    after.boot_id = "another boot".into();
    let mut recorder = disk.open();
    let (mut synced_notes, mut synced_objects) = (none.clone(), none.clone());
    let (mut known, mut at, mut retired) = (BTreeMap::new(), 0, 0);
    for moment in 0..400 {
        let last = at + 1 >= ends.len();
        let stepped = recorder
            .step(&mut Scratch::default(), reach(ends[at.min(ends.len() - 1)], last))
            .expect("step");
        known.extend(told(&stepped.files));
        retired = retired.max(stepped.retired);
        let (notes, objects) = (disk.notes(), disk.objects());
        for (which, notes) in [("now", &notes), ("synced", &synced_notes)] {
            for (how, objects) in halves(&synced_objects, &objects) {
                let what = format!("{format:?}, moment {moment}, notes {which}, objects {how}");
                let lost = Disk::new(&after, notes, &objects);
                // Objects of before the last sync are there with notes of after it only if nothing in these needs more.
                let mut fresh = Recorder::open(lost.setting.clone(), lost.objects.clone(), Arc::clone(&lost.sync))
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let cursor = match &mut fresh {
                    Recorder::File(recorder) => recorder.place().1.cursor,
                    Recorder::Hls(recorder) => recorder.place().1.cursor,
                };
                assert!(cursor >= retired, "{what}: {cursor} is given up, up to {retired}");
                let mut all = known.clone();
                all.extend(told(&lost.go_on(&mut fresh, end)));
                assert_eq!(all, expected, "{what}");
                assert!(lost.stored() == stored, "{what}: other bytes");
            }
        }
        if stepped.done {
            assert_eq!(known, expected);
            return;
        }
        if moment % SYNC_EVERY == SYNC_EVERY - 1 {
            disk.sync.sync_now().expect("synced");
            (synced_notes, synced_objects) = (notes, objects);
        }
        at += 1;
    }
    panic!("{format:?} does not come to an end");
}

#[test]
fn power_lost_at_any_moment_costs_no_unit_and_no_byte_of_flv() {
    lose_power_everywhere(Format::Flv);
}

#[test]
fn power_lost_at_any_moment_costs_no_unit_and_no_byte_of_mp4() {
    lose_power_everywhere(Format::Mp4);
}

#[test]
fn power_lost_at_any_moment_costs_no_unit_and_no_byte_of_aac() {
    lose_power_everywhere(Format::Aac);
}

#[test]
fn power_lost_at_any_moment_costs_no_unit_and_no_byte_of_hls() {
    lose_power_everywhere(Format::Hls);
}

#[test]
fn a_note_without_its_bytes_hides_no_other() {
    let mut world = World::new();
    world.stream(5);
    let recording = RecordingId::generate(&Seeded::new(1), Timestamp::from_millis(5));
    let setting = world.setting(&recording.to_string(), Format::Flv, 2_000);
    let files = world.render(&setting, |_| false);
    assert_eq!(files.len(), 3);
    let lost = setting.notes.join(format!("{}-000002.json", setting.name()));
    fs::write(lost, b"").expect("written");
    let noted = noted_files(&setting.notes, recording).expect("read");
    assert_eq!(noted, files[..2]);
}
