//! One publisher for a stream: a second is refused, unless the first has been silent for ten seconds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::Pacer;
use support::publisher::Publisher;
use support::rtmp::{AUDIO, VIDEO};
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use crate::{ALL, recording};

/// So long a publisher may be silent before another may take its stream.
const SILENCE: Duration = Duration::from_secs(10);

#[test]
fn a_second_publisher_is_refused_while_the_first_sends() -> Result<()> {
    let (_folder, server) = recording(ALL)?;
    let pacer = Pacer::start(server.rtmp(), "one", Shape::default())?;
    for _ in 0..3 {
        let refusal = Publisher::start(server.rtmp(), "one")
            .err()
            .context("a second publisher was accepted")?;
        ensure!(
            format!("{refusal:#}").contains("NetStream.Publish.BadName"),
            "{refusal:#}"
        );
    }
    Publisher::start(server.rtmp(), "other")
        .context("a stream of another name")?
        .finish()?;
    let log = pacer.finish()?;
    ensure!(
        log.broken.is_none(),
        "the first publisher was disturbed: {:?}",
        log.broken
    );
    server.finished("one", 1)?;
    ensure_holds(
        &server.files("one")?,
        &log,
        AtLeast {
            video: log.count(VIDEO),
            audio: log.count(AUDIO),
        },
    )
}

#[test]
fn a_silent_publisher_is_replaced_after_ten_seconds() -> Result<()> {
    let (_folder, server) = recording("flv,mp4")?;
    let mut silent = Publisher::start(server.rtmp(), "one")?;
    let source = Numbered::new(Shape::default());
    for frame in source.prologue() {
        silent.send(frame.message_type, 0, &frame.body)?;
    }
    let mut last = Instant::now();
    for frame in source.take(50) {
        last = silent.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    let second = until(
        SILENCE + Duration::from_secs(10),
        "a second publisher's acceptance",
        || {
            Ok(match Publisher::start(server.rtmp(), "one") {
                Ok(publisher) => Seen::Met(publisher),
                Err(refusal) => Seen::Not(format!("{refusal:#}")),
            })
        },
    )?;
    let after = last.elapsed();
    ensure!(
        after >= SILENCE - Duration::from_millis(300),
        "replaced after only {after:?} of silence"
    );
    silent
        .closed(Duration::from_secs(5))
        .context("the silent publisher's connection stays open")?;
    second.finish()?;
    server.finished("one", 1)?;
    Ok(())
}
