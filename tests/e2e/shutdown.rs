//! SIGTERM finishes what runs; a second one ends at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::Pacer;
use support::rtmp::{AUDIO, VIDEO};
use support::source::Shape;
use support::wait::{Seen, until};

use crate::{ALL, recording};

/// The grace period that the product keeps by default.
const GRACE: Duration = Duration::from_secs(30);

#[test]
fn sigterm_finishes_the_recordings_of_live_streams() -> Result<()> {
    let (_folder, mut server) = recording(ALL)?;
    let pacer = Pacer::start(server.rtmp(), "live", Shape::default())?;
    until(Duration::from_secs(10), "the stream's media", || {
        let streams = server.streams()?;
        let units = streams.first().and_then(|stream| stream["video_units"].as_u64());
        Ok(Seen::some(units.filter(|units| *units > 30), format!("{streams:?}")))
    })?;
    server.signal("TERM")?;
    let status = server.ended(GRACE)?;
    ensure!(status.success(), "it ended with {status}");
    let log = pacer.ended()?;
    ensure!(log.broken.is_some(), "the publisher was not disconnected");

    let server = server.setup().start()?;
    server.finished("live", 1)?;
    let files = server.files("live")?;
    ensure!(files.len() == 4, "{} files", files.len());
    // What was on its way in the socket when the server stopped reading is lost with the connection.
    let least = AtLeast {
        video: log.count(VIDEO) - 30,
        audio: log.count(AUDIO) - 48,
    };
    ensure_holds(&files, &log, least)
}

#[test]
fn sigterm_without_streams_ends_quickly() -> Result<()> {
    let (_folder, mut server) = recording(ALL)?;
    server.signal("TERM")?;
    let status = server.ended(Duration::from_secs(5))?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

#[test]
fn a_second_signal_aborts_and_the_next_start_finishes() -> Result<()> {
    let (_folder, mut server) = recording(ALL)?;
    let log = Pacer::start_for(server.rtmp(), "live", Shape::default(), Some(Duration::from_secs(3)));
    let pacer = log?;
    until(Duration::from_secs(10), "the stream", || {
        Ok(Seen::when(!server.streams()?.is_empty(), "no stream"))
    })?;
    server.signal("TERM")?;
    server.signal("INT")?;
    server.ended(Duration::from_secs(3))?;
    pacer.ended()?;
    let server = server.setup().start()?;
    server.finished("live", 1)?;
    ensure!(server.files("live")?.len() == 4, "the files are not complete");
    Ok(())
}
