//! Recordings in object storage: the real binary with `--objects s3://…` against real S3 servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::faults::{Fault, Proxy};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::{Log, Pacer};
use support::publisher::Publisher;
use support::rtmp::{AUDIO, VIDEO};
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};
use tempfile::TempDir;

use crate::{ALL, FAT, data, setup};

/// A server that stores everything below `prefix` of the bucket.
struct World {
    s3: S3,
    setup: Setup,
    data: PathBuf,
    _folder: TempDir,
}

fn world(kind: Kind) -> Result<World> {
    let s3 = S3::start(kind)?;
    let endpoint = s3.endpoint().to_owned();
    through(s3, &endpoint)
}

/// As [`world`], with its storage reached at `endpoint`.
fn through(s3: S3, endpoint: &str) -> Result<World> {
    let (folder, data) = data()?;
    let mut setup = setup(&data)
        .record(ALL)
        .args(&["--objects", &format!("s3://{BUCKET}/some/where")])
        .args(&[
            "--set",
            "objects.part_size=5 MiB",
            "--set",
            "objects.request_timeout=5s",
        ]);
    for (name, value) in s3.env() {
        setup = setup.env(name, &value);
    }
    let setup = setup.env("AWS_ENDPOINT_URL", endpoint);
    Ok(World {
        s3,
        setup,
        data,
        _folder: folder,
    })
}

impl World {
    /// Waits for a stream's recording, fetches it from the bucket, and compares it with what was sent.
    fn ensure_stored(&self, server: &Server, stream: &str, log: &Log, least: AtLeast) -> Result<()> {
        server.finished(stream, 1)?;
        self.s3.mirror("some/where/", &self.data.join("objects"))?;
        let files = server.files(stream)?;
        let mut formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
        formats.dedup();
        ensure!(formats == ["aac", "flv", "hls", "mp4"], "{stream} has {formats:?}");
        for file in &files {
            let len = std::fs::metadata(&file.path)?.len();
            ensure!(
                file.format == "hls" || file.record["size"] == len,
                "{} has {len} bytes, the library says {}",
                file.path.display(),
                file.record["size"]
            );
        }
        ensure_holds(&files, log, least)
    }

    /// Uploads whose begin was answered to nobody are aborted once storage can be asked about them.
    fn ensure_no_uploads(&self) -> Result<()> {
        until(Duration::from_secs(20), "no upload of nobody", || {
            let left = self.s3.uploads()?;
            Ok(Seen::some(left.is_empty().then_some(()), format!("{left:?}")))
        })
    }
}

fn all(log: &Log) -> AtLeast {
    AtLeast {
        video: log.count(VIDEO),
        audio: log.count(AUDIO),
    }
}

fn happy(kind: Kind) -> Result<()> {
    let world = world(kind)?;
    let server = world.setup.start()?;
    let small = Pacer::start_for(server.rtmp(), "small", Shape::default(), Some(Duration::from_secs(3)))?;
    let fat = Pacer::start_for(server.rtmp(), "fat", FAT, Some(Duration::from_secs(8)))?;
    let (small, fat) = (small.ended()?, fat.ended()?);
    world.ensure_stored(&server, "small", &small, all(&small))?;
    world.ensure_stored(&server, "fat", &fat, all(&fat))?;
    world.ensure_no_uploads()?;
    let keys = world.s3.keys("some/where/")?;
    ensure!(keys.iter().any(|key| key.ends_with("/recording.json")), "{keys:?}");
    let local: Vec<_> = std::fs::read_dir(world.data.join("journal"))?.collect();
    ensure!(local.is_empty(), "journals that nobody needs: {local:?}");
    Ok(())
}

#[test]
fn every_format_is_in_the_bucket_juicefs() -> Result<()> {
    happy(Kind::JuiceFs)
}

#[test]
fn every_format_is_in_the_bucket_moto() -> Result<()> {
    happy(Kind::Moto)
}

/// What the product promises, and what measuring may add: older than this at the kill is in the files.
const SAFE: Duration = Duration::from_millis(280);

fn sent_before(log: &Log, kill: Instant) -> AtLeast {
    let safe = kill - SAFE - log.lateness;
    AtLeast {
        video: log.sent_by(VIDEO, safe),
        audio: log.sent_by(AUDIO, safe),
    }
}

/// Kills the server `life` after a push began, and then its successors at these moments of their recovery.
fn killed(world: &World, stream: &str, life: Duration, successors: &[Duration]) -> Result<()> {
    let server = world.setup.start()?;
    let pacer = Pacer::start(server.rtmp(), stream, FAT)?;
    // The life of the process is what this test varies.
    std::thread::sleep(life);
    let kill = Instant::now();
    server.kill()?;
    let log = pacer.ended()?;
    for life in successors {
        let server = world.setup.start()?;
        std::thread::sleep(*life);
        server.kill()?;
    }
    let server = world.setup.start()?;
    world.ensure_stored(&server, stream, &log, sent_before(&log, kill))?;
    world.ensure_no_uploads()?;
    server.kill()?;
    Ok(())
}

/// Kills at moments spread over the first seconds of a push, when parts begin, go up and end.
fn kills(kind: Kind, seed: u64) -> Result<()> {
    let world = world(kind)?;
    let mut state = seed;
    let mut next = |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_millis(state % most)
    };
    for round in 0..3 {
        let life = Duration::from_millis(1500) + next(5500);
        let successors = [next(900), next(1800)];
        killed(&world, &format!("round{round}"), life, &successors)
            .with_context(|| format!("seed {seed}, round {round}, life {life:?}, then {successors:?}"))?;
    }
    Ok(())
}

#[test]
fn kills_during_uploads_lose_and_double_nothing_juicefs() -> Result<()> {
    kills(Kind::JuiceFs, 0x51ED)
}

#[test]
fn kills_during_uploads_lose_and_double_nothing_moto() -> Result<()> {
    kills(Kind::Moto, 0xA17C)
}

/// Rendered bytes of four uploads, and what a dozen recorders in a debug build have besides.
const MEMORY_KB: u64 = 4 * (5 + 5) * 1024 + 90 * 1024;

#[test]
fn an_outage_delays_recordings_and_costs_neither_media_nor_memory() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let mut world = through(s3, &proxy.endpoint())?;
    world.setup = world.setup.args(&["--set", "objects.max_uploads=4"]);
    let server = world.setup.start()?;
    let push = |name: &str, seconds| Pacer::start_for(server.rtmp(), name, FAT, Some(Duration::from_secs(seconds)));
    let mut pacers = vec![("before", push("before", 8)?), ("across", push("across", 12)?)];
    until(Duration::from_secs(20), "parts in storage", || {
        let uploads = world.s3.uploads()?;
        Ok(Seen::when(!uploads.is_empty(), format!("{uploads:?}")))
    })?;
    proxy.set(|_, _| Fault::Busy);
    pacers.push(("within", push("within", 5)?));
    until(Duration::from_secs(20), "the outage in the log", || {
        let log = server.log();
        Ok(Seen::when(
            log.contains("object storage does not answer"),
            String::new(),
        ))
    })?;
    let logs: Result<Vec<_>> = pacers.into_iter().map(|(name, p)| Ok((name, p.ended()?))).collect();
    let logs = logs?;
    let memory = server.heap_kb()?;
    ensure!(memory < MEMORY_KB, "{memory} kB in an outage, the bound is {MEMORY_KB}");
    let asked = proxy.counts().0;
    // It comes back badly: one request in three meets another fault.
    proxy.set(|_, number| match number % 15 {
        0 => Fault::Busy,
        3 => Fault::Cut,
        6 => Fault::ErrorBody,
        9 => Fault::Damaged,
        12 => Fault::AnswerLost,
        _ => Fault::None,
    });
    // One tries for all, at distances that have grown to 15 s, and each try may meet the next fault.
    until(Duration::from_secs(90), "storage that answers again", || {
        let answers = server.log().contains("object storage answers again");
        Ok(Seen::when(answers, String::new()))
    })?;
    for (name, log) in &logs {
        world
            .ensure_stored(&server, name, log, all(log))
            .with_context(|| format!("{name}, {asked} requests in the outage"))?;
    }
    world.ensure_no_uploads()?;
    let log = server.log();
    // Said once for each change, not for each of the twelve recorders and their tries.
    ensure!(log.matches("object storage does not answer").count() < 10, "{log}");
    let memory = server.heap_kb()?;
    ensure!(
        memory < MEMORY_KB,
        "{memory} kB after an outage, the bound is {MEMORY_KB}"
    );
    let (_, metrics) = server.get("/metrics")?;
    ensure!(metrics.contains("aircheck_worker_storage_up 1"), "{metrics}");
    Ok(())
}

#[test]
fn a_request_that_hangs_is_given_up_and_made_again() -> Result<()> {
    let s3 = S3::start(Kind::Moto)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let world = through(s3, &proxy.endpoint())?;
    proxy.set(|_, number| if number % 5 == 2 { Fault::Hang } else { Fault::None });
    let server = world
        .setup
        .clone()
        .args(&["--set", "objects.request_timeout=1s"])
        .start()?;
    let log = Pacer::start_for(server.rtmp(), "one", Shape::default(), Some(Duration::from_secs(3)))?.ended()?;
    world.ensure_stored(&server, "one", &log, all(&log))?;
    ensure!(proxy.counts().1 > 0, "nothing hung");
    world.ensure_no_uploads()
}

#[test]
fn journals_keep_to_their_budget_and_the_recording_that_ends_for_it_says_so() -> Result<()> {
    let s3 = S3::start(Kind::Moto)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let world = through(s3, &proxy.endpoint())?;
    let server = world
        .setup
        .clone()
        .args(&[
            "--set",
            "worker.journal.budget=64 MiB",
            "--set",
            "worker.journal.preroll=0s",
        ])
        .args(&["--set", "worker.journal.segment_size=1 MiB"])
        .start()?;
    proxy.set(|_, _| Fault::Busy);
    let mut publisher = Publisher::start(server.rtmp(), "large")?;
    let mut source = Numbered::new(FAT).peekable();
    let mut send_to = |publisher: &mut Publisher, end_ms| -> Result<()> {
        while let Some(frame) = source.next_if(|f| f.dts_ms < end_ms) {
            publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
        }
        Ok(())
    };
    for frame in Numbered::new(FAT).prologue() {
        publisher.send(frame.message_type, 0, &frame.body)?;
    }
    // Three megabytes for each second of media: to some 85 %, then by less than the way from 95 % to the end.
    send_to(&mut publisher, 15_000)?;
    let journals = |least: u64| {
        until(Duration::from_secs(20), "the journals' size", || {
            let (_, metrics) = server.get("/metrics")?;
            let mut lines = metrics.lines();
            let bytes = lines.find_map(|l| l.strip_prefix("aircheck_worker_journal_bytes "));
            let bytes: u64 = bytes.context("no metric")?.parse()?;
            Ok(Seen::some((bytes >= least).then_some(bytes), format!("{bytes}")))
        })
    };
    let mut bytes = journals(44_000_000)?;
    let mut end_ms = 15_000;
    while bytes < 95 * (64 << 20) / 100 {
        end_ms += 1_000;
        send_to(&mut publisher, end_ms)?;
        bytes = journals(bytes + 2_500_000)?;
    }
    let said = |words: &'static str| {
        until(Duration::from_secs(30), words, || {
            Ok(Seen::when(server.log().contains(words), String::new()))
        })
    };
    said("no publish is accepted until recordings are stored")?;
    let refused = Publisher::start(server.rtmp(), "another");
    ensure!(refused.is_err(), "a publish was accepted beyond the budget");
    send_to(&mut publisher, end_ms + 5_000)?;
    publisher.finish()?;
    said("journals have used up their budget")?;
    let ended = |state: &str| {
        until(Duration::from_secs(30), "the recording's end", || {
            let recordings = server.recordings("large")?;
            let met = recordings.first().is_some_and(|r| r["state"] == state);
            Ok(Seen::some(met.then(|| recordings.clone()), format!("{recordings:?}")))
        })
    };
    let recordings = ended("failed")?;
    ensure!(
        recordings[0]["reason"]
            .as_str()
            .is_some_and(|r| r.contains("journal_budget")),
        "{recordings:?}"
    );
    said("publishes are accepted again")?;
    // Storage comes back: the next recording is whole, and nothing of the one before is left half-made.
    proxy.set(|_, _| Fault::None);
    let log = Pacer::start_for(server.rtmp(), "next", Shape::default(), Some(Duration::from_secs(3)))?.ended()?;
    world.ensure_stored(&server, "next", &log, all(&log))?;
    until(Duration::from_secs(20), "no upload of nobody", || {
        let left = world.s3.uploads()?;
        Ok(Seen::when(left.is_empty(), format!("{left:?}")))
    })
}

#[test]
fn media_has_the_storage_class_of_its_template_and_what_is_small_has_not() -> Result<()> {
    let mut world = world(Kind::Moto)?;
    // Of what no template speaks of.
    world.setup = world.setup.args(&["--set", "objects.storage_class=ONEZONE_IA"]);
    let server = world.setup.start()?;
    let refused = server.refused(&["template", "create", "bad", "--mp4", "--storage-class", "cold"])?;
    ensure!(
        refused.contains("storage_class \"cold\": use capital letters"),
        "{refused}"
    );
    let refused = server.refused(&["template", "create", "bad", "--mp4", "--storage-class", "DEEP_ARCHIVE"])?;
    ensure!(refused.contains("must be restored"), "{refused}");
    let words = [
        "template",
        "create",
        "cold",
        "--hls",
        "--mp4",
        "--aac",
        "--storage-class",
        "STANDARD_IA",
    ];
    let made = server.ask(&words)?;
    ensure!(made["formats"][0]["storage_class"] == "STANDARD_IA", "{made:#}");
    server.ask(&[
        "rule",
        "create",
        "--domain",
        "127.0.0.1",
        "--stream",
        "cold",
        "--template",
        "cold",
    ])?;
    for (stream, class) in [("cold", "STANDARD_IA"), ("other", "ONEZONE_IA")] {
        // Long enough for an upload in parts beside what goes in one request.
        Pacer::start_for(server.rtmp(), stream, FAT, Some(Duration::from_secs(7)))?.ended()?;
        server.finished(stream, 1)?;
        let stored = world.s3.objects(&format!("some/where/127.0.0.1/live/{stream}/"))?;
        for (key, (size, found)) in &stored {
            let is_small = key.ends_with(".m3u8") || key.ends_with(".json");
            let expected = if is_small { "ONEZONE_IA" } else { class };
            ensure!(found == expected, "{key} of {size} bytes is {found}, not {expected}");
        }
        for end in [".mp4", ".aac", ".ts", ".m3u8", ".json"] {
            ensure!(stored.keys().any(|key| key.ends_with(end)), "no {end} in {stored:?}");
        }
    }
    Ok(())
}

#[test]
fn a_service_that_shows_what_it_has_late_is_asked_again() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let world = through(s3, &proxy.endpoint())?;
    proxy.set(|_, number| if number % 3 == 0 { Fault::None } else { Fault::Stale });
    let server = world.setup.start()?;
    let small = Pacer::start_for(server.rtmp(), "small", Shape::default(), Some(Duration::from_secs(3)))?;
    let fat = Pacer::start_for(server.rtmp(), "fat", FAT, Some(Duration::from_secs(7)))?;
    let (small, fat) = (small.ended()?, fat.ended()?);
    world.ensure_stored(&server, "small", &small, all(&small))?;
    world.ensure_stored(&server, "fat", &fat, all(&fat))?;
    world.ensure_no_uploads()
}

/// What a service that shows what it has late may do to the end of a file: the upload is complete and the answer was lost, no look says so, and
/// whatever is sent to it once more breaks, because the service has answered before it read it. Only the question for the upload's parts is answered.
#[test]
fn a_part_that_breaks_because_its_upload_is_complete_does_not_break_for_ever() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let world = through(s3, &proxy.endpoint())?;
    let (complete, broken, asked) = (flag(), flag(), flag());
    let seen = (Arc::clone(&complete), Arc::clone(&broken), Arc::clone(&asked));
    proxy.set(move |line, _| {
        let (complete, broken, asked) = &seen;
        let of_the_upload = line.contains("/mp4/") && line.contains("uploadId=");
        match line.split(' ').next() {
            Some("POST") if of_the_upload && !broken.load(Ordering::SeqCst) => {
                complete.store(true, Ordering::SeqCst);
                return Fault::AnswerLost;
            }
            Some("GET") if of_the_upload && broken.load(Ordering::SeqCst) => asked.store(true, Ordering::SeqCst),
            Some("PUT") if of_the_upload && complete.load(Ordering::SeqCst) && !asked.load(Ordering::SeqCst) => {
                broken.store(true, Ordering::SeqCst);
                return Fault::Cut;
            }
            Some("HEAD") if line.contains("/mp4/") && !asked.load(Ordering::SeqCst) => return Fault::Stale,
            _ => {}
        }
        Fault::None
    });
    let server = world.setup.start()?;
    let log = Pacer::start_for(server.rtmp(), "fat", FAT, Some(Duration::from_secs(7)))?.ended()?;
    world.ensure_stored(&server, "fat", &log, all(&log))?;
    ensure!(
        broken.load(Ordering::SeqCst) && asked.load(Ordering::SeqCst),
        "nothing broke"
    );
    world.ensure_no_uploads()
}

fn flag() -> Arc<AtomicBool> {
    Arc::default()
}
