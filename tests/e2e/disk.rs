//! The disk fills up: the process stays, nobody panics, the reason is named, and what fitted is kept.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::publisher::Publisher;
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use crate::{data, setup};

const DISK_MB: u32 = 48;

/// Sends frames until the server no longer takes them, at most `megabytes`; returns what it sent and how it ended.
fn pour(publisher: &mut Publisher, megabytes: usize) -> Result<(usize, Option<String>)> {
    let source = Numbered::new(Shape {
        bits_per_second: 20_000_000,
        ..Shape::default()
    });
    let mut sent = 0;
    for frame in source.prologue().into_iter().chain(source) {
        if let Err(error) = publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body) {
            return Ok((sent, Some(format!("{error:#}"))));
        }
        sent += frame.body.len();
        if sent > megabytes * 1_000_000 {
            break;
        }
    }
    Ok((sent, None))
}

/// Fills the disk of a server that keeps `min_free` bytes free, and looks at what is left standing.
fn fill(min_free: &str) -> Result<()> {
    let (_folder, data) = data()?;
    std::fs::create_dir_all(&data)?;
    let mut server = setup(&data)
        .record("flv,mp4")
        .env("AIRCHECK_WORKER__JOURNAL__MIN_FREE", min_free)
        .on_a_disk_of(DISK_MB)
        .start()?;
    let mut publisher = Publisher::start(server.rtmp(), "big")?;
    let (sent, broken) = pour(&mut publisher, 3 * DISK_MB as usize)?;
    if broken.is_none() {
        publisher
            .closed(Duration::from_secs(20))
            .with_context(|| format!("{sent} bytes were taken on {DISK_MB} MB"))?;
    }
    ensure!(server.running()?, "the server has ended:\n{}", server.log());
    let log = server.log();
    ensure!(!log.contains("panicked"), "a panic:\n{log}");
    ensure!(log.contains("disk_full"), "the log does not say why:\n{log}");
    let (status, _) = server.get("/healthz")?;
    ensure!(status == 200, "/healthz answers {status}");
    ensure!(
        Publisher::start(server.rtmp(), "next").is_err(),
        "a publish is accepted on a full disk"
    );

    // What was taken waits for space and completes itself.
    server.enlarge_disk(4 * DISK_MB)?;
    let recording = server.finished("big", 1)?.pop().context("no recording")?;
    ensure!(
        serde_json::to_string(&recording)?.contains("disk_full"),
        "the recording does not say why: {recording:#}"
    );
    for file in server.files("big")? {
        let frames = support::frames::Frames::of(&file)?;
        support::frames::ensure_unbroken(&frames.video, &file.format)?;
        ensure!(
            frames.video.len() > 100,
            "{} pictures in {}",
            frames.video.len(),
            file.format
        );
    }
    until(Duration::from_secs(10), "the next publish's acceptance", || {
        Ok(match Publisher::start(server.rtmp(), "next") {
            Ok(publisher) => Seen::Met(publisher),
            Err(refusal) => Seen::Not(format!("{refusal:#}")),
        })
    })?
    .finish()
}

#[test]
fn before_the_disk_is_full_publishes_end_with_a_reason() -> Result<()> {
    fill("16 MiB")
}

#[test]
fn a_full_disk_ends_recordings_with_a_reason_and_nothing_else() -> Result<()> {
    fill("0 B")
}

#[test]
fn while_space_is_short_no_publish_is_accepted() -> Result<()> {
    let (_folder, data) = data()?;
    std::fs::create_dir_all(&data)?;
    let server = setup(&data).record("flv").on_a_disk_of(DISK_MB).start()?;
    // The default wants far more free than this disk has.
    let refusal = until(Duration::from_secs(10), "a refusal", || {
        Ok(match Publisher::start(server.rtmp(), "one") {
            Ok(_) => Seen::Not("accepted".to_owned()),
            Err(refusal) => Seen::Met(format!("{refusal:#}")),
        })
    })?;
    ensure!(refusal.contains("free"), "{refusal}");
    Ok(())
}
