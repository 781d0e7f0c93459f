//! `kill -9` at random moments: after a restart every recording completes itself, in every format, and holds all that
//! had arrived 250 ms before.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::{Log, Pacer};
use support::rtmp::{AUDIO, VIDEO};
use support::server::Setup;
use support::source::Shape;

use crate::{ALL, data, setup};

/// What the product promises: older than this at the kill is in the files.
const PROMISE: Duration = Duration::from_millis(250);
/// Between our looking at the clock and the signal's arrival; the machine's own delays are measured and added.
const MEASURING: Duration = Duration::from_millis(30);
const STREAMS: usize = 3;
const ROUNDS: usize = 4;

/// Small frames, a key frame each second: more happens in less time.
const SHAPE: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 600_000,
    audio_bits_per_second: 64_000,
    b_frames: true,
};

/// A repeatable source of moments.
struct Moments(u64);

impl Moments {
    fn next_ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(range.start + self.0 % (range.end - range.start))
    }
}

/// Pushes into a server and kills it after `life`; returns what each stream had sent, and when the kill was.
fn push_and_kill(setup: &Setup, round: usize, life: Duration) -> Result<(Vec<(String, Log)>, Instant)> {
    let server = setup.start()?;
    let names: Vec<String> = (0..STREAMS).map(|index| format!("r{round}s{index}")).collect();
    let mut pacers = Vec::new();
    for name in &names {
        pacers.push(Pacer::start(server.rtmp(), name, SHAPE)?);
    }
    // The life of the process is what this test varies.
    std::thread::sleep(life);
    let killed = Instant::now();
    server.kill()?;
    let logs: Result<Vec<Log>> = pacers.into_iter().map(Pacer::ended).collect();
    Ok((names.into_iter().zip(logs?).collect(), killed))
}

fn ensure_complete(setup: &Setup, logs: &[(String, Log)], killed: Instant) -> Result<()> {
    let server = setup.start()?;
    for (name, log) in logs {
        server.finished(name, 1)?;
        let files = server.files(name)?;
        let formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
        ensure!(formats == ["aac", "flv", "hls", "mp4"], "{name} has {formats:?}");
        let safe = killed - PROMISE - MEASURING - log.lateness;
        let least = AtLeast {
            video: log.sent_by(VIDEO, safe),
            audio: log.sent_by(AUDIO, safe),
        };
        ensure_holds(&files, log, least).with_context(|| {
            format!(
                "{name}: sent {} pictures; machine late by {:?}",
                log.count(VIDEO),
                log.lateness
            )
        })?;
    }
    ensure_no_leftovers(server.data())?;
    server.kill()?;
    Ok(())
}

/// Nothing half-made stays: each object belongs to a recording that says what it is.
fn ensure_no_leftovers(data: &Path) -> Result<()> {
    let mut folders = vec![data.join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ensure!(
                !name.ends_with(".tmp") && !name.contains('#'),
                "left over: {}",
                path.display()
            );
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

fn rounds(seed: u64) -> Result<()> {
    let mut moments = Moments(seed);
    let (_folder, data) = data()?;
    let setup = setup(&data).record(ALL);
    for round in 0..ROUNDS {
        let life = moments.next_ms(300..4000);
        let (logs, killed) = push_and_kill(&setup, round, life)?;
        ensure_complete(&setup, &logs, killed).with_context(|| format!("seed {seed}, round {round}, life {life:?}"))?;
    }
    Ok(())
}

#[test]
fn nothing_older_than_a_quarter_second_is_lost_by_a_kill_1() -> Result<()> {
    rounds(0x51ED)
}

#[test]
fn nothing_older_than_a_quarter_second_is_lost_by_a_kill_2() -> Result<()> {
    rounds(0xA17C)
}

#[test]
fn nothing_older_than_a_quarter_second_is_lost_by_a_kill_3() -> Result<()> {
    rounds(0x0FF5)
}

#[test]
fn nothing_older_than_a_quarter_second_is_lost_by_a_kill_4() -> Result<()> {
    rounds(0xBEE7)
}

#[test]
fn nothing_older_than_a_quarter_second_is_lost_by_a_kill_5() -> Result<()> {
    rounds(0xC0DE)
}

#[test]
fn nothing_older_than_a_quarter_second_is_lost_by_a_kill_6() -> Result<()> {
    rounds(0x1CE5)
}

#[test]
fn kills_during_the_recovery_change_nothing() -> Result<()> {
    let mut moments = Moments(0xDEAD);
    let (_folder, data) = data()?;
    let setup = setup(&data).record(ALL);
    let (logs, killed) = push_and_kill(&setup, 0, Duration::from_millis(2500))?;
    for _ in 0..5 {
        let server = setup.start()?;
        std::thread::sleep(moments.next_ms(0..400));
        server.kill()?;
    }
    ensure_complete(&setup, &logs, killed)
}

#[test]
fn a_publisher_that_comes_back_makes_a_recording_of_its_own() -> Result<()> {
    let (_folder, data) = data()?;
    let setup = setup(&data).record(ALL);
    let (logs, killed) = push_and_kill(&setup, 0, Duration::from_millis(1500))?;
    let (name, first) = &logs[0];
    let server = setup.start()?;
    let second = Pacer::start_for(server.rtmp(), name, SHAPE, Some(Duration::from_secs(2)))?.ended()?;
    server.finished(name, 2)?;
    let files = server.files(name)?;
    ensure!(
        files.len() == 8,
        "{} files of two recordings in four formats",
        files.len()
    );
    let safe = killed - PROMISE - MEASURING - first.lateness;
    let least = AtLeast {
        video: first.sent_by(VIDEO, safe),
        audio: first.sent_by(AUDIO, safe),
    };
    ensure_holds(&files[..4], first, least).context("before the kill")?;
    let all = AtLeast {
        video: second.count(VIDEO),
        audio: second.count(AUDIO),
    };
    ensure_holds(&files[4..], &second, all).context("after the kill")
}
