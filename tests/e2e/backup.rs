//! A second place of objects as backup: where the first goes away while streams are recorded, recordings go on in the second.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::faults::{Fault, Proxy};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::{Log, Pacer};
use support::programs::output;
use support::rtmp::{AUDIO, VIDEO};
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::wait::{Seen, until};
use tempfile::TempDir;

use crate::{ALL, FAT, data, listed, setup};

const LIMIT: Duration = Duration::from_secs(60);

/// Two S3 servers, the first behind a proxy.
struct World {
    first: S3,
    second: S3,
    proxy: Proxy,
    setup: Setup,
    data: PathBuf,
    _folder: TempDir,
}

fn world(kind: Kind) -> Result<World> {
    let (first, second) = (S3::start(kind)?, S3::start(kind)?);
    let proxy = Proxy::start(first.endpoint())?;
    let (folder, data) = data()?;
    let places = [
        ("AIRCHECK_OBJECTS__URL", format!("s3://{BUCKET}/tv")),
        ("AIRCHECK_OBJECTS__COPY__URL", format!("s3://{BUCKET}/tv")),
        ("AIRCHECK_OBJECTS__COPY__ENDPOINT", second.endpoint().to_owned()),
        ("AIRCHECK_OBJECTS__COPY__MODE", "backup".to_owned()),
        ("AIRCHECK_OBJECTS__COPY__AFTER", "2s".to_owned()),
    ];
    let mut setup = setup(&data)
        .record(ALL)
        .args(&["--set", "objects.part_size=5 MiB"])
        .args(&["--set", "objects.request_timeout=5s"])
        .args(&["--set", "worker.journal.preroll=0s"])
        .args(&["--set", "worker.journal.segment_size=1 MiB"])
        .args(&["--set", "coordinator.retention_interval=200ms"]);
    let endpoint = [("AWS_ENDPOINT_URL", proxy.endpoint())];
    for (name, value) in first.env().iter().chain(&places).chain(&endpoint) {
        setup = setup.env(name, value).client_env(name, value);
    }
    Ok(World {
        first,
        second,
        proxy,
        setup,
        data,
        _folder: folder,
    })
}

fn fat(server: &Server, stream: &str, seconds: u64) -> Result<Pacer> {
    Pacer::start_for(server.rtmp(), stream, FAT, Some(Duration::from_secs(seconds)))
}

fn get(url: &str) -> Result<Vec<u8>> {
    Ok(output(Command::new("curl").args(["-sfL", "--noproxy", "*", url]))?.stdout)
}

/// The link to a file.
fn link(server: &Server, file: &Value) -> Result<String> {
    let id = file["file_id"].as_str().context("no id")?;
    let said: Value = serde_json::from_slice(&get(&format!("http://{}/api/v1/files/{id}", server.http()))?)?;
    Ok(said["url"]
        .as_str()
        .with_context(|| format!("no url in {said}"))?
        .to_owned())
}

/// What the links to a stream's files give, segments of its playlist one by one: so many files and segments.
pub(crate) fn ensure_links(server: &Server, stream: &str) -> Result<usize> {
    let mut count = 0;
    for file in listed(server, &["file", "list", "--stream", stream])? {
        let url = link(server, &file)?;
        let bytes = get(&url)?;
        if file["format"] != "hls" {
            ensure!(file["size"] == bytes.len(), "{} bytes of {file:#}", bytes.len());
            count += 1;
            continue;
        }
        let text = String::from_utf8(bytes)?;
        ensure!(text.contains("#EXT-X-ENDLIST"), "{text}");
        let folder = url.rsplit_once('/').context("no folder")?.0;
        for segment in text.lines().filter(|line| !line.starts_with('#')) {
            let bytes = get(&format!("{folder}/{segment}")).with_context(|| segment.to_owned())?;
            ensure!(bytes.first() == Some(&0x47), "{segment} is no transport stream");
            count += 1;
        }
    }
    Ok(count)
}

impl World {
    fn cut_off(&self) {
        self.proxy.set(|_, _| Fault::Cut);
    }

    fn bring_back(&self) {
        self.proxy.set(|_, _| Fault::None);
    }

    /// Waits for a stream's recording, and compares what is in both places with what was sent; media that is in both is the same.
    fn ensure_recorded(&self, server: &Server, stream: &str, log: &Log, least: AtLeast) -> Result<()> {
        server.finished(stream, 1)?;
        let objects = self.data.join("objects");
        for place in [&self.first, &self.second] {
            place.mirror("tv/", &objects)?;
        }
        let files = server.files_in(stream, &objects)?;
        let mut formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
        formats.dedup();
        ensure!(formats == ["aac", "flv", "hls", "mp4"], "{stream} has {formats:?}");
        ensure_holds(&files, log, least)
    }

    fn keys(&self, place: &S3, stream: &str) -> Result<Vec<String>> {
        place.keys(&format!("tv/127.0.0.1/live/{stream}/"))
    }

    fn ensure_no_uploads(&self) -> Result<()> {
        until(Duration::from_secs(30), "no upload of nobody", || {
            let left = [self.first.uploads()?, self.second.uploads()?];
            Ok(Seen::when(left.iter().all(Vec::is_empty), format!("{left:?}")))
        })
    }

    /// Pushes until parts are in the first place, which then goes away; the push goes on, however long it took to see them.
    fn cut_off_within(&self, server: &Server, stream: &str) -> Result<Pacer> {
        let pacer = Pacer::start(server.rtmp(), stream, FAT)?;
        until(Duration::from_secs(20), "parts in the first place", || {
            let uploads = self.first.uploads()?;
            let keys = self.keys(&self.first, stream)?;
            Ok(Seen::when(
                uploads.len() >= 2 && keys.iter().any(|key| key.ends_with(".ts")),
                format!("{uploads:?} {keys:?}"),
            ))
        })?;
        self.cut_off();
        Ok(pacer)
    }
}

fn all(log: &Log) -> AtLeast {
    AtLeast {
        video: log.count(VIDEO),
        audio: log.count(AUDIO),
    }
}

#[test]
fn a_recording_is_completed_in_the_second_place_and_the_next_is_in_the_first_again() -> Result<()> {
    let world = world(Kind::JuiceFs)?;
    let server = world.setup.start()?;
    let pacer = world.cut_off_within(&server, "one")?;
    until(LIMIT, "the playlist's recorder in the second place", || {
        let log = server.log();
        let mut moved = log
            .lines()
            .filter(|line| line.contains("goes to the second place of objects, "));
        Ok(Seen::when(moved.any(|line| line.contains("hls")), "it has not left"))
    })?;
    let log = pacer.finish()?;
    // It ends, and is in the library, while the first place is away.
    world.ensure_recorded(&server, "one", &log, all(&log))?;
    let (first, second) = (world.keys(&world.first, "one")?, world.keys(&world.second, "one")?);
    let of = |keys: &[String], end: &str| keys.iter().filter(|key| key.ends_with(end)).count();
    for end in [".mp4", ".flv", ".aac", "index.m3u8", "recording.json"] {
        ensure!(
            of(&second, end) == 1,
            "{end} in the second: {second:?}, in the first: {first:?}"
        );
    }
    ensure!(of(&first, ".ts") > 0 && of(&second, ".ts") > 0, "{first:?} {second:?}");
    let mp4 = listed(&server, &["file", "list", "--stream", "one", "--format", "mp4"])?;
    ensure!(
        get(&link(&server, &mp4[0])?)?.len() > 1 << 20,
        "the link leads to the second"
    );

    world.bring_back();
    // What was left there is gone: so the worker has heard that the first answers.
    world.ensure_no_uploads()?;
    let log = fat(&server, "two", 7)?.ended()?;
    world.ensure_recorded(&server, "two", &log, all(&log))?;
    let (first, second) = (world.keys(&world.first, "two")?, world.keys(&world.second, "two")?);
    ensure!(of(&first, ".mp4") == 1, "the next is in the first: {first:?}");
    ensure!(second.iter().all(|key| key.ends_with("recording.json")), "{second:?}");
    world.ensure_no_uploads()?;
    ensure!(ensure_links(&server, "one")? > 5, "links to all of it");
    until(LIMIT, "nothing of the files that were left", || {
        let left = world.keys(&world.first, "one")?;
        let beside = |key: &String| key.ends_with(".held") || key.ends_with(".rescue");
        Ok(Seen::when(!left.iter().any(beside), format!("{left:?}")))
    })?;

    // A library that was lost is in both places together.
    let before = listed(&server, &["file", "list"])?.len();
    server.kill()?;
    std::fs::remove_file(world.data.join("metadata.redb"))?;
    let server = world.setup.start()?;
    let recover = ["recover", "--from-objects", &format!("s3://{BUCKET}/tv")];
    // A document that is damaged in one place does not hide the other's.
    let keys = world.keys(&world.first, "two")?;
    let mut documents = keys.iter().filter(|key| key.ends_with("recording.json"));
    let document = documents.next().context("no recording.json")?;
    world.first.put(document, "{")?;
    let said = server.refused(&recover)?;
    let named = said.contains(document.trim_start_matches("tv/")) && said.contains("the other place's was taken");
    let restored = format!("\"files_restored\":{before},");
    ensure!(
        named && said.replace(' ', "").contains(&restored),
        "{before} files: {said}"
    );
    let copy = world.second.get(document)?;
    world.first.put(document, &copy)?;
    let said = server.ask(&recover)?;
    ensure!(
        said["files_known"] == before && said["problem_count"] == 0 && said["stray_count"] == 0,
        "{before} files: {said:#}"
    );

    // What is removed goes from both.
    for file in listed(&server, &["file", "list"])? {
        server.ask(&["file", "delete", file["file_id"].as_str().context("no id")?])?;
    }
    until(LIMIT, "the end of all removals", || {
        let left = [world.first.keys("tv/")?, world.second.keys("tv/")?];
        Ok(Seen::when(left.iter().all(Vec::is_empty), format!("{left:?}")))
    })
}

/// What the product promises, and what measuring may add: older than this at the kill is in the files.
const SAFE: Duration = Duration::from_millis(280);

#[test]
fn kills_while_a_recording_moves_lose_nothing() -> Result<()> {
    let world = world(Kind::Moto)?;
    for (round, life) in [1_500, 2_400, 3_500].into_iter().enumerate() {
        let stream = format!("round{round}");
        let server = world.setup.start()?;
        let pacer = world.cut_off_within(&server, &stream)?;
        // The life of the process is what this test varies: before, while and after it goes to the second place.
        std::thread::sleep(Duration::from_millis(life));
        let kill = Instant::now();
        server.kill()?;
        let log = pacer.ended()?;
        let server = world.setup.start()?;
        let safe = kill - SAFE - log.lateness;
        let least = AtLeast {
            video: log.sent_by(VIDEO, safe),
            audio: log.sent_by(AUDIO, safe),
        };
        world
            .ensure_recorded(&server, &stream, &log, least)
            .with_context(|| format!("killed after {life} ms"))?;
        world.bring_back();
        world.ensure_no_uploads()?;
        ensure_links(&server, &stream)?;
        server.kill()?;
    }
    Ok(())
}
