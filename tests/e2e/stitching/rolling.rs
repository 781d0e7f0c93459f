//! A rolling restart under live pushes whose encoders connect again: each stream stays one recording, and all that is missing of it is what was
//! on its way when a connection was closed.
//!
//! `AIRCHECK_ROLLING_PUSHES` says how many there are; `tests/README.md`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use support::frames::Frames;
use support::publisher::Publisher;
use support::rtmp::VIDEO;
use support::server::{MediaFile, Server};
use support::source::{Frame, Numbered, Shape};
use support::wait::{Seen, until};

use super::bench::Bench;

const APP: &str = "live";
/// Small frames: what counts is their number. A key picture a second.
const SHAPE: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 200_000,
    audio_bits_per_second: 32_000,
    b_frames: false,
};
/// Pushes, where nothing else is asked for.
const PUSHES: usize = 20;
const WORKERS: usize = 3;
/// A worker's way out, and back in.
const LIMIT: Duration = Duration::from_secs(60);
/// What may be on its way when a connection is closed under an encoder that was not asked to go.
const IN_FLIGHT_S: f64 = 1.0;

/// What stands in front of the workers: those that take streams.
#[derive(Debug, Default)]
struct Balancer(Mutex<Vec<SocketAddr>>);

impl Balancer {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn pick(&self, turn: usize) -> Option<SocketAddr> {
        let all = self.all();
        all.get(turn.checked_rem(all.len())?).copied()
    }
}

/// What an encoder did.
#[derive(Debug, Default)]
struct Log {
    /// Pictures that went out, by number.
    video: Vec<u64>,
    /// Sounds.
    audio: Vec<u64>,
    /// From the last frame on one connection to the first on the next, for each move.
    moves: Vec<Duration>,
    /// Connections that were closed under it.
    broken: u32,
}

/// An encoder that connects again.
struct Encoder {
    name: String,
    /// It understands being asked.
    able: bool,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Log>>,
}

impl Encoder {
    fn start(index: usize, balancer: &Arc<Balancer>) -> Self {
        let (name, able) = (format!("s{index:02}"), index.is_multiple_of(2));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, balancer, stream) = (Arc::clone(&stop), Arc::clone(balancer), name.clone());
        let thread = std::thread::spawn(move || encode(&stream, able, index, &balancer, &told));
        Self {
            name,
            able,
            stop,
            thread,
        }
    }

    fn finish(self) -> Result<(String, bool, Log)> {
        self.stop.store(true, Ordering::Relaxed);
        let log = self.thread.join().map_err(|_| anyhow!("an encoder panicked"))?;
        let log = log.with_context(|| self.name.clone())?;
        Ok((self.name, self.able, log))
    }
}

fn is_key(frame: &Frame) -> bool {
    frame.message_type == VIDEO && frame.body.first() == Some(&0x17)
}

fn connect(stream: &str, able: bool, turn: &mut usize, balancer: &Balancer) -> Result<Publisher> {
    until(LIMIT, "a worker that takes the stream", || {
        *turn += 1;
        let Some(server) = balancer.pick(*turn) else {
            return Ok(Seen::Not("no worker takes streams".to_owned()));
        };
        let publisher = match able {
            true => Publisher::start_reconnecting(server, stream),
            false => Publisher::start(server, stream),
        };
        Ok(match publisher {
            Ok(publisher) => Seen::Met(publisher),
            Err(refused) => Seen::Not(format!("{refused:#}")),
        })
    })
}

/// Sends frames when they are due, one connection after the other. Each begins with a key picture; what is due between two connections is sent
/// late by an encoder that was asked to go, and left out by one that was not.
fn encode(stream: &str, able: bool, mut turn: usize, balancer: &Balancer, stop: &AtomicBool) -> Result<Log> {
    let mut log = Log::default();
    let mut source = Numbered::new(SHAPE).peekable();
    let begin = Instant::now();
    let mut moved_at: Option<Instant> = None;
    loop {
        let mut publisher = connect(stream, able, &mut turn, balancer)?;
        while source.next_if(|frame| !is_key(frame)).is_some() {}
        let at = source.peek().context("an endless source")?.dts_ms;
        for frame in Numbered::new(SHAPE).prologue() {
            publisher.send(frame.message_type, u32::try_from(at)?, &frame.body)?;
        }
        let mut last = Instant::now();
        let asked = loop {
            let frame = source.peek().context("an endless source")?;
            if is_key(frame) && publisher.asked()? {
                publisher.finish()?;
                break true;
            }
            // A frame is due at a moment: waiting for it is what a paced source does.
            std::thread::sleep(Duration::from_millis(frame.dts_ms).saturating_sub(begin.elapsed()));
            if stop.load(Ordering::Relaxed) {
                publisher.finish()?;
                return Ok(log);
            }
            let Ok(sent) = publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body) else {
                log.broken += 1;
                break false;
            };
            log.moves.extend(moved_at.take().map(|last| sent - last));
            last = sent;
            let numbers = if frame.message_type == VIDEO {
                &mut log.video
            } else {
                &mut log.audio
            };
            numbers.push(frame.number);
            source.next();
        };
        moved_at = Some(last);
        if !asked {
            // What became due meanwhile is gone: it is a camera, not a file.
            let now = begin.elapsed();
            while source
                .next_if(|frame| Duration::from_millis(frame.dts_ms) < now)
                .is_some()
            {}
        }
    }
}

/// That what was found is of what was sent, in order, each once; and how many are missing.
fn missing(found: &[u64], sent: &[u64]) -> Result<usize> {
    ensure!(found.is_sorted_by(|a, b| a < b), "out of order, or twice");
    let all: BTreeSet<u64> = sent.iter().copied().collect();
    // One that was on its way when the connection broke may have arrived.
    let strangers = found.iter().filter(|number| !all.contains(number)).count();
    ensure!(strangers <= 2 * WORKERS, "{strangers} were never sent");
    Ok(sent.len() - (found.len() - strangers))
}

fn ensure_recorded(bench: &Bench, name: &str, able: bool, log: &Log) -> Result<()> {
    let recordings = bench.finished(name, 1)?;
    let [recording] = recordings.as_slice() else {
        anyhow::bail!("{} recordings: {recordings:#?}", recordings.len());
    };
    let id = recording["recording_id"].as_str().context("no id")?;
    let list = bench.list(name, id)?.context("no list")?;
    let file = MediaFile {
        format: "hls".to_owned(),
        sequence: 0,
        path: bench.fetch(APP, name)?.join(list),
        record: recording.clone(),
    };
    let frames = Frames::of_all(std::slice::from_ref(&file))?
        .pop()
        .context("no frames")?;
    for (what, found, sent, rate) in [
        ("pictures", &frames.video, &log.video, 25.0),
        ("sounds", &frames.audio, &log.audio, 47.0),
    ] {
        let found: Vec<u64> = found.iter().map(|frame| frame.number).collect();
        let missing = missing(&found, sent).with_context(|| what.to_owned())?;
        let most = if able {
            0.0
        } else {
            IN_FLIGHT_S * rate * f64::from(log.broken)
        };
        ensure!(
            missing as f64 <= most,
            "{missing} {what} of {} are missing, {most} may be",
            sent.len()
        );
    }
    Ok(())
}

fn restart(worker: &mut Server, balancer: &Balancer) -> Result<()> {
    let address = worker.rtmp();
    // As a balancer does that hears from /readyz.
    balancer.all().retain(|other| *other != address);
    worker.signal("TERM")?;
    let status = worker.ended(LIMIT)?;
    ensure!(status.success(), "a worker ended with {status}");
    *worker = worker.setup().start()?;
    balancer.all().push(worker.rtmp());
    Ok(())
}

/// Where it was before, as behind a Service.
fn restart_coordinator(coordinator: &mut Server) -> Result<()> {
    coordinator.signal("TERM")?;
    let status = coordinator.ended(LIMIT)?;
    ensure!(status.success(), "a coordinator ended with {status}");
    *coordinator = coordinator.setup().grpc_at(coordinator.grpc()).start()?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no setting of the product"
)]
fn pushes() -> Result<usize> {
    Ok(std::env::var("AIRCHECK_ROLLING_PUSHES").map_or(Ok(PUSHES), |count| count.parse())?)
}

#[test]
fn workers_and_coordinators_are_restarted_one_by_one_under_live_pushes() -> Result<()> {
    let count = pushes()?;
    let settings = ["coordinator.heartbeat=300ms"];
    let mut bench = Bench::start(&settings)?;
    bench.start_beside(&settings)?;
    bench.wait_for(APP, Duration::from_secs(20), &[])?;
    let mut workers = Vec::new();
    let balancer = Arc::new(Balancer::default());
    for _ in 0..WORKERS {
        let worker = bench.worker().start()?;
        balancer.all().push(worker.rtmp());
        workers.push(worker);
    }
    let encoders: Vec<Encoder> = (0..count).map(|index| Encoder::start(index, &balancer)).collect();
    let all_live = |bench: &Bench, pictures: u64| {
        until(LIMIT, "all streams live", || {
            let streams = bench.coordinator.streams()?;
            let has_some = |live: &&serde_json::Value| live["video_units"].as_u64() >= Some(pictures);
            let live = streams.iter().filter(has_some).count();
            Ok(Seen::when(live == count, format!("{live} of {count}")))
        })
    };
    all_live(&bench, 25)?;
    for worker in &mut workers {
        restart(worker, &balancer)?;
        all_live(&bench, 10)?;
    }
    // The one that leads first: the other takes over, and then hands back.
    restart_coordinator(&mut bench.coordinator)?;
    all_live(&bench, 25)?;
    restart_coordinator(bench.beside.as_mut().context("there are two")?)?;
    all_live(&bench, 25)?;

    let logs: Vec<_> = encoders.into_iter().map(Encoder::finish).collect::<Result<_>>()?;
    for (name, able, log) in &logs {
        let how = || {
            format!(
                "{name}, able {able}, closed {} times, moves {:?}",
                log.broken, log.moves
            )
        };
        ensure!(!able || log.broken == 0, "{}: it was asked and not waited for", how());
        ensure_recorded(&bench, name, *able, log).with_context(how)?;
    }
    for able in [true, false] {
        let of = logs.iter().filter(|(_, is, _)| *is == able);
        let mut moves: Vec<Duration> = of.flat_map(|(_, _, log)| &log.moves).copied().collect();
        moves.sort();
        ensure!(!moves.is_empty(), "nobody moved");
        let (median, longest) = (moves[moves.len() / 2], moves[moves.len() - 1]);
        println!(
            "asked to go: {able}; {} moves, median {median:.2?}, longest {longest:.2?}",
            moves.len()
        );
    }
    Ok(())
}
