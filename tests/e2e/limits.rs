//! What many streams and long groups of pictures cost in memory. The bounds are promises of docs/performance.md.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loadgen::{Options, Rate};
use support::clips::B_FRAMES;
use support::publisher::Publisher;
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use crate::{ALL, recording};

/// Memory above idle that each stream may cost, all formats on.
const STREAM_KB: u64 = 150;
/// Memory above idle that one stream may cost, however long its groups of pictures are.
const LONG_GOP_KB: u64 = 48 * 1024;

#[test]
fn a_thousand_quiet_streams_stay_within_their_memory() -> Result<()> {
    const STREAMS: usize = 1000;
    let (_folder, server) = recording(ALL)?;
    // What the first recording allocates once is there before the first look.
    B_FRAMES.push(&server.push_url("warm"))?;
    server.finished("warm", 1)?;
    let idle_kb = server.heap_kb()?;
    let mut options = Options::new(&format!("rtmp://{}/live", server.rtmp()), STREAMS);
    options.bitrate = 24_000;
    options.seconds = 6.0;
    options.stagger = 5.0;
    // How a thousand recordings are finished is not this test's matter.
    options.abandon = true;
    let load = std::thread::spawn(move || loadgen::run(&options, &mut |_| Ok(())));
    let mut most_kb = 0;
    while !load.is_finished() {
        most_kb = most_kb.max(server.heap_kb()?);
        std::thread::sleep(Duration::from_millis(250));
    }
    let report = load
        .join()
        .map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
    ensure!(
        report["failures"].as_array().is_some_and(Vec::is_empty),
        "streams failed: {report}"
    );
    let each_kb = most_kb.saturating_sub(idle_kb) / STREAMS as u64;
    ensure!(
        each_kb <= STREAM_KB,
        "{each_kb} kB a stream ({idle_kb} kB idle, {most_kb} kB at most)"
    );
    Ok(())
}

#[test]
fn a_group_of_pictures_of_a_minute_stays_within_its_memory() -> Result<()> {
    let (_folder, server) = recording(ALL)?;
    let idle_kb = server.heap_kb()?;
    // 8 Mbit/s: 60 MB from key frame to key frame, two of them.
    let shape = Shape {
        gop_frames: 30 * 60,
        bits_per_second: 8_000_000,
        b_frames: false,
        ..Shape::default()
    };
    let mut publisher = Publisher::start(server.rtmp(), "long")?;
    let source = Numbered::new(shape);
    let mut most_kb = 0;
    for header in source.prologue() {
        publisher.send(header.message_type, 0, &header.body)?;
    }
    for (index, frame) in source.take_while(|frame| frame.dts_ms < 130_000).enumerate() {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
        if index % 200 == 0 {
            most_kb = most_kb.max(server.heap_kb()?);
        }
    }
    publisher.finish()?;
    until(Duration::from_secs(40), "the recording's end", || {
        most_kb = most_kb.max(server.heap_kb()?);
        let recordings = server.recordings("long")?;
        let done = recordings
            .first()
            .is_some_and(|recording| recording["state"] == "finished");
        Ok(Seen::when(done, format!("{recordings:?}")))
    })?;
    let above_kb = most_kb.saturating_sub(idle_kb);
    ensure!(above_kb <= LONG_GOP_KB, "{above_kb} kB above {idle_kb} kB");
    Ok(())
}

#[test]
fn as_fast_as_the_socket_gives_nothing_is_dropped() -> Result<()> {
    let (_folder, server) = recording("flv")?;
    let mut options = Options::new(&format!("rtmp://{}/live", server.rtmp()), 4);
    options.rate = Rate::Flat;
    options.megabytes = Some(120.0);
    options.seconds = 40.0;
    options.stagger = 0.1;
    let report = loadgen::run(&options, &mut |_| Ok(()))?;
    ensure!(report["failures"].as_array().is_some_and(Vec::is_empty), "{report}");
    let mut recorded = 0;
    for index in 0..4 {
        let name = format!("s{index}");
        server.finished(&name, 1)?;
        recorded += server
            .files(&name)?
            .iter()
            .map(|file| file.record["size"].as_u64().unwrap_or(0))
            .sum::<u64>();
    }
    let sent = report["bytes_sent"].as_u64().context("no bytes sent")?;
    // FLV's tag headers cost a little more than RTMP's chunk headers.
    ensure!(
        recorded >= sent * 99 / 100 && recorded <= sent * 103 / 100,
        "{recorded} bytes recorded of {sent} sent"
    );
    Ok(())
}
