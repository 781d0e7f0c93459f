//! Two workers, and who may write: duplicate publishers, a worker that stands still past its time-out, one that is given up, and a
//! coordinator whose store was set back.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::etcd::{Etcd, free_port};
use support::frames::Frames;
use support::pacer::Pacer;
use support::publisher::Publisher;
use support::rtmp::VIDEO;
use support::server::{Server, Setup};
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};
use tempfile::TempDir;

use crate::data;

const LIMIT: Duration = Duration::from_secs(30);
const BINARY: &str = env!("CARGO_BIN_EXE_aircheck");

struct Cluster {
    folder: TempDir,
    etcd: Etcd,
    coordinator: Setup,
}

impl Cluster {
    /// A coordinator that takes a worker for lost after a second, on a port that it keeps.
    fn new(more: &[&str]) -> Result<(Self, Server)> {
        let (folder, data) = data()?;
        let etcd = Etcd::start(1)?;
        let address = format!("coordinator.grpc=127.0.0.1:{}", free_port()?);
        let coordinator = Setup::coordinator(BINARY, &data, &etcd.url("fencing"))
            .record("flv")
            .args(&["--set", &address])
            .args(&[
                "--set",
                "coordinator.heartbeat=200ms",
                "--set",
                "coordinator.worker_timeout=1s",
            ])
            .args(more);
        let running = coordinator.start()?;
        let cluster = Self {
            folder,
            etcd,
            coordinator,
        };
        Ok((cluster, running))
    }

    fn objects(&self) -> PathBuf {
        self.folder.path().join("objects")
    }

    fn worker(&self, name: &str, coordinator: &Server) -> Result<Server> {
        let objects = format!("file://{}", self.objects().display());
        Setup::worker(BINARY, &self.folder.path().join(name), &coordinator.grpc_url())
            .args(&["--objects", &objects, "--set", &format!("worker.name={name}")])
            .start()
    }
}

/// Waits until the stream is in a state, and gives it.
fn stream_is(coordinator: &Server, state: &str, worker: &str) -> Result<Value> {
    until(LIMIT, &format!("the stream to be {state} on {worker}"), || {
        let streams = coordinator.streams()?;
        let met = streams
            .iter()
            .find(|one| one["state"] == state && one["worker"] == worker);
        Ok(Seen::some(met.cloned(), format!("{streams:?}")))
    })
}

/// A publisher that sends numbered frames as fast as it is asked.
struct Hand {
    publisher: Publisher,
    source: Numbered,
}

impl Hand {
    fn start(worker: &Server) -> Result<Self> {
        let mut publisher = Publisher::start(worker.rtmp(), "show")?;
        let source = Numbered::new(Shape::default());
        for frame in source.prologue() {
            publisher.send(frame.message_type, 0, &frame.body)?;
        }
        Ok(Self { publisher, source })
    }

    /// Sends so many frames; gives how many of them were pictures.
    fn send(&mut self, count: usize) -> Result<usize> {
        let mut pictures = 0;
        for frame in self.source.by_ref().take(count) {
            self.publisher
                .send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
            pictures += usize::from(frame.message_type == VIDEO);
        }
        Ok(pictures)
    }
}

#[test]
fn a_paused_worker_can_neither_publish_nor_overwrite() -> Result<()> {
    let (cluster, coordinator) = Cluster::new(&[])?;
    let (a, b) = (cluster.worker("a", &coordinator)?, cluster.worker("b", &coordinator)?);
    let mut first = Hand::start(&a)?;
    let pictures = first.send(200)?;
    stream_is(&coordinator, "live", "a")?;

    // While the first lives, a second publisher on another worker is sent away and the first keeps the stream.
    let mut second = Publisher::start(b.rtmp(), "show")?;
    second
        .closed(Duration::from_secs(10))
        .context("a duplicate is not closed")?;
    stream_is(&coordinator, "live", "a")?;

    a.signal("STOP")?;
    stream_is(&coordinator, "interrupted", "a")?;
    let pacer = Pacer::start(b.rtmp(), "show", Shape::default())?;
    let taken_over = stream_is(&coordinator, "live", "b")?;
    ensure!(taken_over["epoch"] == 2, "{taken_over}");
    a.signal("CONT")?;
    // Its publisher is still connected: it is told, and the stream stays where it is.
    first
        .publisher
        .closed(LIMIT)
        .context("the replaced publisher is not closed")?;
    let live = stream_is(&coordinator, "live", "b")?;
    ensure!(live["publish_id"] == taken_over["publish_id"], "{live}");
    let log = pacer.finish()?;
    ensure!(log.broken.is_none(), "the owner was disturbed: {:?}", log.broken);
    coordinator.finished("show", 2)?;

    // Each has its own file under its own epoch, and both are whole: what came before the pause is not lost either.
    let files = coordinator.files_in("show", &cluster.objects())?;
    let epochs: Vec<_> = files.iter().map(|file| file.record["epoch"].as_u64()).collect();
    ensure!(epochs == [Some(1), Some(2)], "{epochs:?}");
    ensure!(files[0].path != files[1].path, "one file for both");
    let held = [Frames::of(&files[0])?.video.len(), Frames::of(&files[1])?.video.len()];
    ensure!(
        held[0] == pictures,
        "{} of {pictures} pictures from before the pause",
        held[0]
    );
    ensure!(
        held[1] == log.count(VIDEO),
        "{} of {} pictures",
        held[1],
        log.count(VIDEO)
    );
    Ok(())
}

#[test]
fn what_was_given_up_is_not_written_any_more_and_the_journal_is_kept() -> Result<()> {
    let more = [
        "--set",
        "coordinator.offline_timeout=1s",
        "--set",
        "coordinator.lost_timeout=2s",
    ];
    let (cluster, coordinator) = Cluster::new(&more)?;
    let a = cluster.worker("a", &coordinator)?;
    let mut hand = Hand::start(&a)?;
    hand.send(200)?;
    stream_is(&coordinator, "live", "a")?;
    a.signal("STOP")?;
    let failed = until(LIMIT, "the recording to be given up", || {
        let recordings = coordinator.recordings("show")?;
        let failed = recordings.iter().find(|one| one["state"] == "failed");
        Ok(Seen::some(failed.cloned(), format!("{recordings:?}")))
    })?;
    ensure!(
        failed["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("worker_lost")),
        "{failed}"
    );
    ensure!(failed["gaps"][0]["reason"] == "worker_lost", "{failed}");
    drop(hand);
    a.signal("CONT")?;
    let fenced = cluster.folder.path().join("a").join("fenced");
    let kept = until(LIMIT, "the journal to be put aside", || {
        let kept = std::fs::read_dir(&fenced).ok().and_then(|mut dirs| dirs.next());
        let kept = kept.transpose()?.map(|entry| entry.path());
        Ok(Seen::some(
            kept.filter(|kept| kept.join("fenced.txt").exists()),
            a.log(),
        ))
    })?;
    let reason = std::fs::read_to_string(kept.join("fenced.txt"))?;
    ensure!(reason.contains("failed, which is final"), "{reason}");
    let held: Vec<_> = std::fs::read_dir(&kept)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    let text = support::programs::text(a.client().arg("inspect").arg(&fenced)).with_context(|| format!("{held:?}"))?;
    ensure!(text.contains("show"), "{text}");
    let recordings = coordinator.recordings("show")?;
    ensure!(
        recordings
            .iter()
            .any(|one| one["recording_id"] == failed["recording_id"] && one["state"] == "failed"),
        "{recordings:?}"
    );
    let left: Vec<_> = std::fs::read_dir(cluster.folder.path().join("a/journal"))?.collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_coordinator_whose_store_forgot_everything_learns_it_from_the_workers() -> Result<()> {
    let (cluster, coordinator) = Cluster::new(&[])?;
    let a = cluster.worker("a", &coordinator)?;
    // A first publish, so that the one that is live has an epoch that an empty store would not give.
    Pacer::start_for(a.rtmp(), "show", Shape::default(), Some(Duration::from_secs(1)))?.ended()?;
    coordinator.finished("show", 1)?;
    let pacer = Pacer::start(a.rtmp(), "show", Shape::default())?;
    let before = stream_is(&coordinator, "live", "a")?;
    ensure!(before["epoch"] == 2, "{before}");
    // What a worker has not heard yet it cannot tell: its recording has begun when the bucket says so.
    let id = before["recording_ids"][0].as_str().context("no recording")?;
    let document = cluster
        .objects()
        .join("127.0.0.1/live/show")
        .join(id)
        .join("recording.json");
    until(LIMIT, "the recording's begin", || {
        Ok(Seen::when(document.is_file(), document.display().to_string()))
    })?;
    coordinator.kill()?;
    cluster.etcd.ctl(&["del", "--prefix", ""])?;
    let coordinator = cluster.coordinator.start()?;
    let after = stream_is(&coordinator, "live", "a")?;
    for field in ["publish_id", "epoch", "recording_ids"] {
        ensure!(after[field] == before[field], "{field}: {before} then {after}");
    }
    let log = pacer.finish()?;
    coordinator.finished("show", 1)?;
    let files = coordinator.files_in("show", &cluster.objects())?;
    ensure!(files.len() == 1, "{} files", files.len());
    let held = Frames::of(&files[0])?.video.len();
    ensure!(held == log.count(VIDEO), "{held} of {} pictures", log.count(VIDEO));
    let next = Pacer::start(a.rtmp(), "show", Shape::default())?;
    let live = stream_is(&coordinator, "live", "a")?;
    ensure!(live["epoch"] == 3, "no epoch comes twice: {live}");
    next.finish()?;
    Ok(())
}

#[test]
fn workers_are_listed_with_their_load_and_serve_their_own_metrics() -> Result<()> {
    let (cluster, coordinator) = Cluster::new(&[])?;
    let a = cluster.worker("a", &coordinator)?;
    let pacer = Pacer::start(a.rtmp(), "show", Shape::default())?;
    let listed = until(LIMIT, "the worker's load", || {
        let said = coordinator.ask(&["worker", "list"])?;
        let one = said["workers"][0].clone();
        let carries = one["bits_per_second"].as_u64().is_some_and(|bits| bits > 0)
            && one["cpu_milli"].as_u64().is_some_and(|cpu| cpu > 0);
        Ok(Seen::some(carries.then_some(one), said.to_string()))
    })?;
    ensure!(
        listed["name"] == "a" && listed["state"] == "alive" && listed["streams"] == 1,
        "{listed}"
    );
    let (status, metrics) = a.get("/metrics")?;
    ensure!(
        status == 200 && metrics.contains("aircheck_worker_publishes 1"),
        "{status}: {metrics}"
    );
    ensure!(a.get("/healthz")?.0 == 200 && a.get("/readyz")?.0 == 200, "not well");
    pacer.finish()?;
    coordinator.finished("show", 1)?;
    Ok(())
}

#[test]
fn a_worker_that_takes_no_stream_says_that_it_is_not_ready() -> Result<()> {
    let (cluster, coordinator) = Cluster::new(&[])?;
    let data = cluster.folder.path().join("full");
    let full = Setup::worker(BINARY, &data, &coordinator.grpc_url())
        .env("AIRCHECK_WORKER__JOURNAL__MIN_FREE", "900000GiB")
        .start()?;
    ensure!(Publisher::start(full.rtmp(), "show").is_err(), "a publish is taken");
    let (status, text) = full.get("/readyz")?;
    ensure!(
        status == 503 && text.contains("no publish is taken"),
        "{status}: {text}"
    );
    ensure!(full.get("/healthz")?.0 == 200, "it is alive all the same");
    Ok(())
}
