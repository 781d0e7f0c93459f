//! A full disk, or a file that may not grow, costs nothing but what could not be written, and says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use journal::recover::recover;
use journal::{Batch, Control, JournalError, Options, Position, Slot, Writer};
use media::flv;
use support::{
    Read, SMALL, Tag, assert_index_agrees, assert_same, controls_of, publish, read_from, tags_of, unpublish,
};

/// Set for the child that lives with a small file size limit.
const CHILD_DIR: &str = "JOURNAL_FULL_TEST_DIR";

/// Appends until the disk is full; what was committed, and the error. The batch holds what was not.
fn fill(writer: &mut Writer, batch: &mut Batch, len: usize) -> (Vec<support::Bytes>, JournalError) {
    let mut committed = Vec::new();
    for number in 0.. {
        let tags = [
            Tag::video(number % 25 == 0, number * 40, len),
            Tag::audio(number * 40, 100),
        ];
        for tag in &tags {
            writer.append(batch, tag.tag_type, tag.raw_ms, &tag.body, 0, 0);
        }
        match writer.commit(batch) {
            Ok(()) => committed.extend(tags.iter().map(Tag::bytes)),
            Err(error) => return (committed, error),
        }
    }
    unreachable!()
}

/// What must hold when a writer has just been refused, whatever the reason.
fn check_refused(
    dir: &Path,
    mut writer: Writer,
    batch: &mut Batch,
    committed: &[support::Bytes],
    make_room: &dyn Fn(),
) {
    let progress = writer.progress();
    let end = progress.snapshot().end;
    let read = read_from(dir, Position::START, Some(end));
    assert_same(&tags_of(&read), committed);
    // Nothing half-written stays: the file ends where the journal does.
    let last = support::files(dir, "seg").pop().unwrap();
    let first: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(first + fs::metadata(&last).unwrap().len(), end.0);
    // Again without room: the same, and the batch is still there.
    let waiting = batch.len();
    assert!(writer.commit(batch).is_err());
    assert_eq!(batch.len(), waiting);
    assert_eq!(progress.snapshot().end, end);

    make_room();
    writer.commit(batch).unwrap();
    assert!(batch.is_empty());
    let read = read_from(dir, Position::START, Some(progress.snapshot().end));
    assert_same(&tags_of(&read)[..committed.len()], committed);
    assert_eq!(tags_of(&read).len(), committed.len() + 2);
    writer.close(&unpublish(), 0).unwrap();
    let recovered = recover(dir).unwrap();
    assert_eq!((recovered.torn_bytes, recovered.closed), (0, Some(unpublish())));
    assert_index_agrees(dir, &support::read_all(dir));
}

/// A file system of its own, 2 MiB; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "journal-test"])
            .arg(dir.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// With room for a while: on a disk of its own if one may be mounted, else under a limit to the size of files.
#[test]
fn a_full_disk_is_named_and_costs_only_what_was_not_written() {
    for len in [700, 30_000, 300_000] {
        for segment_bytes in [64 << 10, 8 << 20] {
            let Some(disk) = SmallDisk::mount() else {
                return run_limited_child();
            };
            let dir = disk.0.path().join("journal");
            let ballast = disk.0.path().join("ballast");
            fs::write(&ballast, vec![1; 600 << 10]).unwrap();
            let options = Options { segment_bytes, ..SMALL };
            let mut writer = Writer::create(&dir, options, &publish(), 0).unwrap();
            let mut batch = Batch::new();
            let (committed, error) = fill(&mut writer, &mut batch, len);
            assert!(error.is_full() && error.raw_os_error() == Some(28), "{error:?}");
            assert!(journal::free_bytes(&dir).unwrap() < 1 << 20);
            check_refused(&dir, writer, &mut batch, &committed, &|| {
                fs::remove_file(&ballast).unwrap()
            });
        }
    }
}

#[test]
fn what_is_given_up_is_counted_and_can_be_named() {
    let Some(disk) = SmallDisk::mount() else {
        return run_limited_child();
    };
    let dir = disk.0.path().join("journal");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 400 << 10]).unwrap();
    let mut writer = Writer::create(&dir, SMALL, &publish(), 0).unwrap();
    let mut batch = Batch::new();
    let (committed, _) = fill(&mut writer, &mut batch, 5_000);
    let lost = batch.abandon();
    assert_eq!(lost.units, 2);
    assert_eq!(lost.bytes, 5_000 + 100 + 2 * flv::TAG_OVERHEAD as u64);
    fs::remove_file(&ballast).unwrap();
    let gap = Control::Gap {
        reason: "disk full".into(),
        from_ms: lost.first_dts_ms,
        to_ms: lost.end_dts_ms,
        lost_bytes: 0,
        lost_units: Some(lost.units),
    };
    writer.control(&gap, 0).unwrap();
    writer.close(&unpublish(), 0).unwrap();
    let all = support::read_all(&dir);
    assert_same(&tags_of(&all), &committed);
    assert_eq!(controls_of(&all), [Control::Publish(publish()), gap, unpublish()]);
    assert_eq!(all.iter().filter(|read| Read::is_gap(read)).count(), 1);
}

#[test]
fn a_journal_is_recovered_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        return run_limited_child();
    };
    let dir = disk.0.path().join("journal");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 400 << 10]).unwrap();
    let mut writer = Writer::create(&dir, SMALL, &publish(), 0).unwrap();
    let mut batch = Batch::new();
    let (committed, _) = fill(&mut writer, &mut batch, 700);
    let end = writer.progress().snapshot().end;
    drop(writer);
    for path in support::files(&dir, "idx") {
        fs::remove_file(path).unwrap();
    }
    // What the indexes held is taken too.
    let mut more = fs::OpenOptions::new().append(true).open(&ballast).unwrap();
    while std::io::Write::write_all(&mut more, &[1; 4096]).is_ok() {}
    let recovered = recover(&dir).unwrap();
    assert_eq!(
        (recovered.end, recovered.torn_bytes, recovered.rebuilt_indexes),
        (end, 0, 0)
    );
    assert!(recovered.unwritten_indexes > 0);
    let all = support::read_all(&dir);
    assert_same(&tags_of(&all), &committed);
    assert_index_agrees(&dir, &all);
    let error = Writer::reopen(&dir, SMALL, &recovered, Position::START, 0).unwrap_err();
    assert!(error.is_full());
    drop(more);
    fs::remove_file(&ballast).unwrap();
    let recovered = recover(&dir).unwrap();
    assert!(recovered.rebuilt_indexes > 0 && recovered.unwritten_indexes == 0);
    let writer = Writer::reopen(&dir, SMALL, &recovered, Position::START, 0).unwrap();
    writer.close(&unpublish(), 0).unwrap();
    assert_same(&tags_of(&support::read_all(&dir)), &committed);
}

#[test]
fn a_slot_on_a_full_disk_keeps_what_it_had() {
    let Some(disk) = SmallDisk::mount() else {
        return run_limited_child();
    };
    let path = disk.0.path().join("cursor.slot");
    let mut slot = Slot::open(&path).unwrap();
    slot.write(b"one").unwrap();
    let mut ballast = vec![0u8; 3 << 20];
    ballast.fill(1);
    fs::write(disk.0.path().join("ballast"), &ballast).unwrap_err();
    let error = slot.write(&vec![2; 60_000]).unwrap_err();
    assert!(error.is_full(), "{error:?}");
    assert_eq!(slot.read().unwrap().unwrap(), b"one");
    assert_eq!(Slot::open(&path).unwrap().read().unwrap().unwrap(), b"one");
}

/// Runs [`limited_child`] in a process that may not write files longer than 300 KiB.
fn run_limited_child() {
    let dir = tempfile::tempdir().unwrap();
    // `ulimit -f` counts blocks of 512 bytes in a POSIX shell; the signal is ignored so that the write fails instead.
    let output = Command::new("sh")
        .args([
            "-c",
            r#"trap '' XFSZ; ulimit -f 600; exec "$0" limited_child --exact --nocapture --test-threads=1"#,
        ])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_that_may_not_grow_is_as_good_as_a_full_disk() {
    run_limited_child();
}

/// In the child of [`run_limited_child`] only.
#[test]
fn limited_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    for (round, len) in [900, 60_000].into_iter().enumerate() {
        let dir = dir.join(round.to_string());
        let options = Options {
            segment_bytes: 64 << 20,
            segment_index_bytes: 16 << 20,
        };
        let mut writer = Writer::create(&dir, options, &publish(), 0).unwrap();
        let mut batch = Batch::new();
        let (committed, error) = fill(&mut writer, &mut batch, len);
        assert!(error.is_full() && error.raw_os_error() == Some(27), "{error:?}");
        let lost = batch.abandon();
        assert_eq!(lost.units, 2);
        let end = writer.progress().snapshot().end;
        assert_same(&tags_of(&read_from(&dir, Position::START, Some(end))), &committed);
        let recovered = recover(&dir).unwrap();
        assert_eq!((recovered.end, recovered.torn_bytes), (end, 0));
    }
}
