//! Streams fetched from a real origin, nginx with its RTMP module: announced by its webhooks, recorded exactly, taken up
//! again when the origin or the worker dies.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::clips::B_FRAMES;
use support::etcd::{Certificates, Etcd};
use support::frames::Frames;
use support::origin::{HttpFlv, Origin};
use support::pacer::{Log, Pacer};
use support::rtmp::{AUDIO, VIDEO};
use support::server::{MediaFile, Server, Setup};
use support::source::Shape;
use support::wait::{Seen, until};

use crate::publishers::ensure_same;
use crate::{data, setup};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(30);

/// Small frames, a key frame each second: more happens in less time.
const SHAPE: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 600_000,
    audio_bits_per_second: 64_000,
    b_frames: true,
};

fn pulling(data: &Path) -> Setup {
    setup(data).record("flv").args(&[
        "--set",
        "worker.pull.allow_loopback=true",
        "--set",
        "worker.pull.silence=2s",
    ])
}

/// Waits until the source of a stream is in a state.
fn pull_is(server: &Server, stream: &str, state: &str) -> Result<Value> {
    until(LIMIT, &format!("the pull of {stream} to be {state}"), || {
        let pull = server.ask(&["pull", "get", stream])?;
        let met = pull["state"] == state;
        Ok(Seen::some(met.then(|| pull.clone()), format!("{pull}")))
    })
}

/// Waits until a stream has taken so many bytes.
fn took(server: &Server, stream: &str, bytes: u64) -> Result<()> {
    until(LIMIT, &format!("{bytes} bytes of {stream}"), || {
        let live = server.streams()?;
        let one = live.iter().find(|live| live["stream"]["stream"] == stream);
        let taken = one.and_then(|one| one["bytes"].as_u64()).unwrap_or(0);
        Ok(Seen::when(taken >= bytes, format!("{taken}")))
    })
}

/// That a file holds what was sent from some frame on without a hole, each frame at its distance from the first; and at
/// least `least` pictures. Gives the numbers of its first and last picture.
fn ensure_stretch(file: &MediaFile, log: &Log, least: usize) -> Result<(u64, u64)> {
    let frames = Frames::of(file)?;
    let mut range = (0, 0);
    for (found, kind) in [(&frames.video, VIDEO), (&frames.audio, AUDIO)] {
        let first = found.first().context("no frames")?;
        let mut sent = log.of(kind).skip_while(|sent| sent.number != first.number).peekable();
        let origin = **sent.peek().context("a frame that was never sent")?;
        for frame in found {
            let Some(sent) = sent.next() else { break };
            ensure!(
                frame.number == sent.number,
                "frame {} where {} was sent",
                frame.number,
                sent.number
            );
            if let (Some(at), Some(start)) = (frame.dts_ms, first.dts_ms) {
                let (is, should) = (at - start, (sent.dts_ms - origin.dts_ms) as f64);
                ensure!(
                    (is - should).abs() < 0.6,
                    "frame {} is at {is} ms, sent at {should}",
                    frame.number
                );
            }
        }
        if kind == VIDEO {
            ensure!(
                found.len() >= least,
                "{} pictures, at least {least} were to come",
                found.len()
            );
            range = (first.number, found.last().map_or(0, |frame| frame.number));
        }
    }
    Ok(range)
}

fn hook_lines(server: &Server) -> String {
    let url = format!("http://{}/hooks/nginx-rtmp?token={TOKEN}", server.http());
    format!("on_publish {url}; on_publish_done {url};")
}

#[test]
fn two_lines_of_an_origins_configuration_have_its_streams_recorded() -> Result<()> {
    let (_folder, data) = data()?;
    let port = support::etcd::free_port()?;
    let server = pulling(&data)
        .args(&[
            "--set",
            &format!("hooks.origin=rtmp://127.0.0.1:{port}/{{app}}/{{stream}}"),
        ])
        .args(&[
            "--set",
            "hooks.domain=push.example.com",
            "--set",
            &format!("hooks.token={TOKEN}"),
        ])
        .start()?;
    let mut origin = Origin::start_on(port, &hook_lines(&server))?;
    let pacer = Pacer::start(origin.address(), "show", SHAPE)?;
    took(&server, "show", 400_000)?;
    let pull = pull_is(&server, "push.example.com/live/show", "live")?;
    ensure!(pull["made_by"] == "hook" && pull["worker"].is_string(), "{pull}");
    let log = pacer.finish()?;
    server.finished("show", 1)?;
    let (_, last) = ensure_stretch(&server.file("show", "flv")?, &log, 80)?;
    let sent = log.of(VIDEO).last().context("nothing sent")?.number;
    ensure!(
        last == sent,
        "the last picture sent is {sent}, the last recorded {last}"
    );
    let left = server.ask(&["pull", "list"])?;
    ensure!(left["pulls"].as_array().is_some_and(Vec::is_empty), "{left}");

    // Again, with the origin dying under it: its publisher comes back to the new one and is announced anew.
    let pacer = Pacer::start(origin.address(), "again", SHAPE)?;
    took(&server, "again", 200_000)?;
    origin.stop();
    let first = pacer.ended()?;
    origin.up()?;
    let pacer = Pacer::start(origin.address(), "again", SHAPE)?;
    until(LIMIT, "two recordings", || {
        let count = server.recordings("again")?.len();
        Ok(Seen::when(count == 2, format!("{count}")))
    })?;
    took(&server, "again", 200_000)?;
    let second = pacer.finish()?;
    server.finished("again", 2)?;
    let files: Vec<MediaFile> = server.files("again")?;
    ensure!(files.len() == 2, "{} files", files.len());
    ensure_stretch(&files[0], &first, 25).context("before the origin died")?;
    ensure_stretch(&files[1], &second, 25).context("after it came back")?;
    Ok(())
}

#[test]
fn what_an_operator_asks_for_is_fetched_again_and_again_and_says_how_it_fares() -> Result<()> {
    let (_folder, data) = data()?;
    let server = pulling(&data).start()?;
    let mut origin = Origin::start("")?;
    let stream = "push.example.com/live/show";
    let url = format!("{}?pass=secret", origin.url("show"));
    server.ask(&["pull", "create", stream, &url])?;
    pull_is(&server, stream, "waiting")?;
    let pacer = Pacer::start(origin.address(), "show", SHAPE)?;
    took(&server, "show", 300_000)?;
    pull_is(&server, stream, "live")?;
    origin.stop();
    let log = pacer.ended()?;
    let failing = until(LIMIT, "a failure with its reason", || {
        let pull = server.ask(&["pull", "get", stream])?;
        Ok(Seen::some(
            pull["failures"].as_u64().filter(|n| *n > 0).map(|_| pull.clone()),
            format!("{pull}"),
        ))
    })?;
    ensure!(
        failing["last_error"]
            .as_str()
            .is_some_and(|text| text.contains("cannot connect")),
        "{failing}"
    );
    server.finished("show", 1)?;
    ensure_stretch(&server.file("show", "flv")?, &log, 50)?;
    origin.up()?;
    let pacer = Pacer::start(origin.address(), "show", SHAPE)?;
    took(&server, "show", 200_000)?;
    server.ask(&["pull", "pause", stream])?;
    server.finished("show", 2)?;
    pull_is(&server, stream, "paused")?;
    pacer.finish()?;
    server.ask(&["pull", "delete", stream])?;
    ensure!(!server.log().contains("secret"), "a secret is in the log");
    Ok(())
}

#[test]
fn an_origin_beside_the_worker_needs_a_setting_and_the_refusal_names_it() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).record("flv").start()?;
    let stream = "push.example.com/live/show";
    server.ask(&["pull", "create", stream, "rtmp://127.0.0.1:9/live/show"])?;
    let error = until(LIMIT, "the refusal", || {
        let pull = server.ask(&["pull", "get", stream])?;
        Ok(Seen::some(
            pull["last_error"].as_str().map(str::to_owned),
            format!("{pull}"),
        ))
    })?;
    ensure!(error.contains("worker.pull.allow_loopback"), "{error}");
    Ok(())
}

#[test]
fn a_pull_goes_to_another_worker_when_its_own_dies() -> Result<()> {
    let (folder, coordinator_data) = data()?;
    let etcd = Etcd::start(1)?;
    let binary = env!("CARGO_BIN_EXE_aircheck");
    let objects = format!("file://{}", folder.path().join("objects").display());
    let coordinator = Setup::coordinator(binary, &coordinator_data, &etcd.url("pulls"))
        .record("flv")
        .args(&[
            "--set",
            "coordinator.heartbeat=200ms",
            "--set",
            "coordinator.worker_timeout=1s",
        ])
        .start()?;
    let worker = |name: &str| {
        Setup::worker(binary, &folder.path().join(name), &coordinator.grpc_url())
            .args(&["--objects", &objects, "--set", "worker.pull.allow_loopback=true"])
            .args(&["--set", &format!("worker.name={name}")])
            .start()
    };
    let mut workers = vec![("w1", worker("w1")?), ("w2", worker("w2")?)];
    let origin = Origin::start("")?;
    let pacer = Pacer::start(origin.address(), "show", SHAPE)?;
    let stream = "push.example.com/live/show";
    coordinator.ask(&["pull", "create", stream, &origin.url("show")])?;
    took(&coordinator, "show", 200_000)?;
    let before = pull_is(&coordinator, stream, "live")?["worker"]
        .as_str()
        .context("no worker")?
        .to_owned();
    let at = workers
        .iter()
        .position(|(name, _)| *name == before)
        .context("which worker?")?;
    let dead = workers.remove(at).1.kill()?;
    let after = until(LIMIT, "the pull to be live elsewhere", || {
        let pull = coordinator.ask(&["pull", "get", stream])?;
        let moved = pull["state"] == "live" && pull["worker"] != before.as_str();
        Ok(Seen::some(moved.then(|| pull["worker"].clone()), format!("{pull}")))
    })?;
    ensure!(after == workers[0].0, "{after}");
    took(&coordinator, "show", 200_000)?;
    // The dead one comes back: it finishes what it had, and the stream stays where it is.
    let _back = dead.start()?;
    until(LIMIT, "the first recording's end", || {
        let states: Vec<Value> = coordinator
            .recordings("show")?
            .iter()
            .map(|r| r["state"].clone())
            .collect();
        Ok(Seen::when(
            states.iter().filter(|state| *state == "finished").count() == 1,
            format!("{states:?}"),
        ))
    })?;
    pull_is(&coordinator, stream, "live")?;
    let log = pacer.finish()?;
    coordinator.ask(&["pull", "delete", stream])?;
    coordinator.finished("show", 2)?;
    let mut epochs = Vec::new();
    for file in coordinator.files_in("show", &folder.path().join("objects"))? {
        ensure_stretch(&file, &log, 25)?;
        epochs.push(file.record["epoch"].as_u64());
    }
    ensure!(epochs == [Some(1), Some(2)], "{epochs:?}");
    Ok(())
}

#[test]
fn flv_over_http_and_https_is_recorded_as_an_origin_serves_it() -> Result<()> {
    let (folder, data) = data()?;
    let certificates = Certificates::make(&folder.path().join("tls"))?;
    let authority = certificates.path("ca.pem");
    let server = pulling(&data)
        .env("SSL_CERT_FILE", authority.to_str().context("a path")?)
        .start()?;
    for (name, tls) in [("plain", None), ("sealed", Some(&certificates))] {
        let served = HttpFlv::start(&B_FRAMES, tls)?;
        let stream = format!("push.example.com/live/{name}");
        server.ask(&["pull", "create", &stream, &served.url()])?;
        pull_is(&server, &stream, "live").with_context(|| served.log())?;
        ensure_same(&server, name, &B_FRAMES.reference()?).with_context(|| served.log())?;
        let recording = &server.recordings(name)?[0];
        ensure!(recording["reason"] == "origin_ended", "{recording}");
        server.ask(&["pull", "delete", &stream])?;
    }

    // Whose certificate another authority signed is not asked for anything.
    let strange = Certificates::make(&folder.path().join("strange"))?;
    let served = HttpFlv::start(&B_FRAMES, Some(&strange))?;
    let stream = "push.example.com/live/strange";
    server.ask(&["pull", "create", stream, &served.url()])?;
    let error = until(LIMIT, "the refusal", || {
        let pull = server.ask(&["pull", "get", stream])?;
        let error = pull["last_error"].as_str().filter(|error| !error.is_empty());
        Ok(Seen::some(error.map(str::to_owned), format!("{pull}")))
    })?;
    ensure!(error.contains("certificate"), "{error}");
    ensure!(server.recordings("strange")?.is_empty());
    Ok(())
}
