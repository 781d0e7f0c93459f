//! A worker that is to take no streams any more lets each publisher go when that costs least, and takes streams again when told to.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::publisher::Publisher;
use support::rtmp::VIDEO;
use support::server::Server;
use support::source::{Frame, Numbered, Shape};
use support::wait::{Seen, until};

use crate::{data, recording, setup};

const LIMIT: Duration = Duration::from_secs(10);
/// A picture in 30 is a key picture: one a second.
const SHAPE: Shape = Shape {
    frame_rate: 30,
    gop_frames: 30,
    bits_per_second: 500_000,
    audio_bits_per_second: 64_000,
    b_frames: false,
};

fn is_key(frame: &Frame) -> bool {
    frame.message_type == VIDEO && frame.body[0] >> 4 == 1
}

fn is_header(frame: &Frame) -> bool {
    frame.body.get(1) == Some(&0)
}

/// Sends frames; gives how many pictures and sounds they were.
fn send(publisher: &mut Publisher, frames: &[Frame]) -> Result<u64> {
    for frame in frames {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    let units = frames
        .iter()
        .filter(|frame| frame.message_type != 18 && !is_header(frame));
    Ok(units.count() as u64)
}

/// Waits until the worker has journaled so many units of a stream.
fn arrived(server: &Server, stream: &str, units: u64) -> Result<()> {
    until(LIMIT, "the units", || {
        let streams = server.streams()?;
        let live = streams.iter().find(|live| live["stream"]["stream"] == stream);
        let count = |track: &str| live.and_then(|live| live[track].as_u64()).unwrap_or(0);
        let there = count("video_units") + count("audio_units");
        Ok(Seen::when(there >= units, format!("{there} of {units}: {streams:?}")))
    })
}

/// Units in the only file of a stream, once it is there.
fn recorded(server: &Server, stream: &str) -> Result<u64> {
    server.finished(stream, 1)?;
    let files = server.ask(&["file", "list", "--stream", stream])?;
    let files = files["files"].as_array().context("no list of files")?;
    ensure!(files.len() == 1, "{files:?}");
    let count = |track: &str| files[0][track].as_u64().context("no count of units");
    Ok(count("video_units")? + count("audio_units")?)
}

fn worker(server: &Server) -> Result<(String, String)> {
    let list = server.ask(&["worker", "list"])?;
    let text = |name: &str| {
        list["workers"][0][name]
            .as_str()
            .map(str::to_owned)
            .context("no worker")
    };
    Ok((text("name")?, text("state")?))
}

#[test]
fn publishers_go_by_themselves_or_behind_a_key_picture_and_nothing_of_theirs_is_lost() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data)
        .record("flv")
        .args(&[
            "--set",
            "worker.drain_handover=30s",
            "--set",
            "coordinator.heartbeat=200ms",
        ])
        .start()?;
    let (name, _) = worker(&server)?;
    let mut source = Numbered::new(SHAPE);
    let prologue = source.prologue();
    let frames: Vec<Frame> = source.by_ref().take(200).collect();
    let next_key = 20 + frames[20..].iter().position(is_key).context("a key picture")?;

    let mut able = Publisher::start_reconnecting(server.rtmp(), "able")?;
    let mut unable = Publisher::start(server.rtmp(), "unable")?;
    let mut sound = Publisher::start(server.rtmp(), "sound")?;
    let sounds: Vec<Frame> = prologue
        .iter()
        .chain(&frames[..40])
        .filter(|f| f.message_type == 8)
        .cloned()
        .collect();
    let mut sent = [0; 3];
    sent[0] = send(&mut able, &prologue)? + send(&mut able, &frames[..20])?;
    sent[1] = send(&mut unable, &prologue)? + send(&mut unable, &frames[..20])?;
    sent[2] = send(&mut sound, &sounds)?;
    for (stream, units) in ["able", "unable", "sound"].into_iter().zip(sent) {
        arrived(&server, stream, units)?;
    }

    server.ask(&["worker", "drain", &name, "--no-wait"])?;
    // Sound has no moment that is better than now.
    sound.closed(LIMIT)?;
    ensure!(recorded(&server, "sound")? == sent[2], "sound was lost");
    able.asked_to_reconnect(LIMIT)?;
    until(LIMIT, "the worker draining", || {
        let (_, state) = worker(&server)?;
        Ok(Seen::when(state == "draining", state))
    })?;
    let (status, _) = server.get("/readyz")?;
    ensure!(status == 200, "the coordinator in this process goes on: {status}");

    // Who was asked is heard on until it goes; who cannot be asked, until its next key picture.
    sent[0] += send(&mut able, &frames[20..next_key])?;
    arrived(&server, "able", sent[0])?;
    sent[1] += send(&mut unable, &frames[20..next_key])?;
    arrived(&server, "unable", sent[1])?;
    sent[1] += send(&mut unable, &frames[next_key..=next_key])?;
    unable.closed(LIMIT)?;
    ensure!(
        recorded(&server, "unable")? == sent[1],
        "what came until the key picture is there"
    );
    sent[0] += send(&mut able, &frames[next_key..])?;
    able.finish()?;
    ensure!(recorded(&server, "able")? == sent[0], "all that was sent is there");

    let refused = Publisher::start(server.rtmp(), "late")
        .err()
        .context("a publish was taken")?;
    ensure!(format!("{refused:#}").contains("connect again"), "{refused:#}");
    // Without streams there is nothing to wait for.
    server.ask(&["worker", "drain", &name])?;
    server.ask(&["worker", "drain", &name, "--undo"])?;
    Publisher::start(server.rtmp(), "again")?.finish()?;
    let unknown = server
        .ask(&["worker", "drain", "nobody"])
        .err()
        .context("it was told")?;
    ensure!(format!("{unknown:#}").contains("aircheck worker list"), "{unknown:#}");
    Ok(())
}

#[test]
fn whoever_does_not_go_in_time_is_closed() -> Result<()> {
    let (_folder, mut server) = recording("flv")?;
    let mut able = Publisher::start_reconnecting(server.rtmp(), "able")?;
    let source = Numbered::new(SHAPE);
    let prologue = source.prologue();
    send(&mut able, &prologue)?;
    let frames: Vec<Frame> = source.take(20).collect();
    let sent = send(&mut able, &frames)?;
    arrived(&server, "able", sent)?;
    server.signal("TERM")?;
    able.asked_to_reconnect(LIMIT)?;
    // worker.drain_handover is 10 s.
    able.closed(Duration::from_secs(15))?;
    let status = server.ended(LIMIT)?;
    ensure!(status.success(), "{status}");
    Ok(())
}
