//! A writer killed at any moment loses nothing that it acknowledged, doubles nothing and keeps the order.
//!
//! The test runs itself again as the writer: the child appends numbered tags, commits as fast as it can, and prints the
//! number of the last tag of each commit that returned; the parent kills it without warning.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use journal::recover::recover;
use journal::{Batch, Options, Position, Writer};
use media::flv;
use support::{Read, SMALL, assert_index_agrees, controls_of, publish, read_all, scratch, unpublish};

/// Set for the child: where to write.
const CHILD_DIR: &str = "JOURNAL_KILL_TEST_DIR";
const ROUNDS: u64 = 300;

/// The body of tag `number`: the number, and bytes that follow from it.
fn body(number: u32) -> Vec<u8> {
    let mut body = vec![if number.is_multiple_of(30) { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend_from_slice(&number.to_be_bytes());
    let len = 9 + (number.wrapping_mul(2_654_435_761) >> 16) as usize % 3_000;
    body.resize(len, number as u8);
    body
}

/// In the child: writes until it is killed. In the parent there is nothing to do.
#[test]
fn writer_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let options = Options {
        segment_bytes: 256 << 10,
        ..SMALL
    };
    let mut writer = Writer::create(Path::new(&dir), options, &publish(), 0).unwrap();
    let mut batch = Batch::new();
    let mut stdout = std::io::stdout().lock();
    for number in 0.. {
        writer.append(&mut batch, flv::VIDEO, number * 20, &body(number), i64::from(number), 0);
        if number % 7 == 6 {
            writer.commit(&mut batch).unwrap();
            writeln!(stdout, "acknowledged {number}").unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    let root = scratch();
    let mut seed = 42u64;
    let (mut torn, mut most) = (0, 0);
    for round in 0..ROUNDS {
        let dir = root.path().join(round.to_string());
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Mostly among the first commits, where segments begin too; each at another moment between two of them.
        let commits = 1 + (seed >> 33) % if round % 10 == 0 { 1_000 } else { 60 };
        let acknowledged = kill_after(&dir, commits, Duration::from_nanos((seed >> 20) % 40_000));
        let recovered = recover(&dir).unwrap();
        torn += u64::from(recovered.torn_bytes > 0);
        assert!(recovered.closed.is_none() && recovered.damaged.is_empty());
        let all = read_all(&dir);
        let mut count = 0;
        for read in &all {
            let Read::Tag { tag, info, .. } = read else { continue };
            assert!(
                tag.0[11..tag.0.len() - 4] == body(count)[..],
                "round {round}, tag {count}"
            );
            assert_eq!(info.dts_ms, i64::from(count) * 20);
            count += 1;
        }
        assert!(
            count > acknowledged,
            "round {round}: {acknowledged} acknowledged, {count} found"
        );
        // Of a commit that was cut short whole batches may be there: more than was acknowledged, never less.
        assert_eq!(recovered.snapshot.video_units, u64::from(count));
        assert_index_agrees(&dir, &all);
        most = most.max(count);
        let mut writer = Writer::reopen(&dir, SMALL, &recovered, Position::START, 0).unwrap();
        if let Some(gap) = recovered.torn_tail() {
            writer.control(&gap, 0).unwrap();
        }
        writer.close(&unpublish(), 0).unwrap();
        assert_eq!(controls_of(&read_all(&dir)).last(), Some(&unpublish()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
    println!("{ROUNDS} rounds, {torn} torn tails, up to {most} tags");
}

/// Runs the child until it has acknowledged so many commits, and a little longer; the last number it acknowledged.
fn kill_after(dir: &PathBuf, commits: u64, then: Duration) -> u32 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writer_child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: &str| line.strip_prefix("acknowledged ")?.parse::<u32>().ok();
    let mut last = None;
    let mut seen = 0;
    for line in lines.by_ref() {
        let line = line.unwrap();
        // The test harness may say something first, on the same line.
        if let Some(number) = line.find("acknowledged").and_then(|at| number(&line[at..])) {
            last = Some(number);
            seen += 1;
        }
        if seen == commits {
            break;
        }
    }
    let began = std::time::Instant::now();
    while began.elapsed() < then {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    for line in lines.map_while(Result::ok) {
        // Cut off by the kill, a number would be a smaller one: only whole lines end in a line break, which `lines`
        // does not tell. A number that is not the last of a commit was cut off.
        if let Some(number) = number(&line).filter(|&number| number % 7 == 6 && Some(number) > last) {
            last = Some(number);
        }
    }
    child.wait().unwrap();
    last.unwrap()
}
