//! A second place of objects: what is in the library is there as well, whatever happens on the way, and nothing waits for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::faults::{Fault, Proxy};
use support::pacer::Pacer;
use support::programs::{output, text};
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::source::Shape;
use support::wait::{Seen, until};
use tempfile::TempDir;

use crate::retention::briefly;
use crate::{ALL, FAT, data, listed, setup};

const LIMIT: Duration = Duration::from_secs(60);

/// Two places of one S3 server, each behind its own proxy.
struct World {
    s3: S3,
    first: Proxy,
    second: Proxy,
    setup: Setup,
    data: PathBuf,
    folder: TempDir,
}

fn world(kind: Kind) -> Result<World> {
    let s3 = S3::start(kind)?;
    let (first, second) = (Proxy::start(s3.endpoint())?, Proxy::start(s3.endpoint())?);
    let (folder, data) = data()?;
    let endpoint = format!("objects.copy.endpoint={}", second.endpoint());
    let mut setup = setup(&data)
        .record(ALL)
        .args(&["--objects", &format!("s3://{BUCKET}/first")])
        .args(&["--set", &format!("objects.copy.url=s3://{BUCKET}/second")])
        .args(&["--set", &endpoint, "--set", "objects.part_size=5 MiB"])
        .args(&["--set", "objects.request_timeout=5s"])
        .args(&["--set", "coordinator.retention_interval=200ms"]);
    for (name, value) in s3.env() {
        setup = setup.env(name, &value).client_env(name, &value);
    }
    let setup = setup.env("AWS_ENDPOINT_URL", &first.endpoint());
    Ok(World {
        s3,
        first,
        second,
        setup,
        data,
        folder,
    })
}

/// Waits until nothing is left to be copied, and every file says that it was.
fn ensure_copied(server: &Server) -> Result<()> {
    until(LIMIT, "copies of everything", || {
        let left = listed(server, &["file", "copies"])?;
        Ok(Seen::when(left.is_empty(), format!("{left:#?}")))
    })?;
    let files = listed(server, &["file", "list"])?;
    let missing: Vec<&Value> = files.iter().filter(|file| file["copied"].is_null()).collect();
    ensure!(!files.is_empty() && missing.is_empty(), "{missing:#?}");
    Ok(())
}

fn read(folder: &Path, at: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(at)? {
        let path = entry?.path();
        match path.is_dir() {
            true => read(folder, &path, found)?,
            false => drop(found.insert(path.strip_prefix(folder)?.to_owned(), std::fs::read(&path)?)),
        }
    }
    Ok(())
}

impl World {
    fn objects(&self, place: &str) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let folder = tempfile::tempdir_in(self.folder.path())?;
        self.s3.mirror(&format!("{place}/"), folder.path())?;
        let mut found = BTreeMap::new();
        read(folder.path(), folder.path(), &mut found)?;
        Ok(found)
    }

    /// Both places hold the same bytes under the same keys, and no upload is left.
    fn ensure_equal(&self) -> Result<usize> {
        let (first, second) = (self.objects("first")?, self.objects("second")?);
        ensure!(!first.is_empty(), "nothing is in the first place");
        let differs = |key: &&PathBuf| first.get(*key) != second.get(*key);
        let differing: Vec<&PathBuf> = first.keys().chain(second.keys()).filter(differs).collect();
        ensure!(differing.is_empty(), "{differing:#?} differ");
        let left = self.s3.uploads()?;
        ensure!(left.is_empty(), "uploads that nobody completes: {left:?}");
        Ok(first.len())
    }
}

fn push(server: &Server, stream: &str, shape: Shape, seconds: u64) -> Result<()> {
    Pacer::start_for(server.rtmp(), stream, shape, Some(Duration::from_secs(seconds)))?.ended()?;
    server.finished(stream, 1).map(drop)
}

/// What stands behind the link to a file.
fn media(server: &Server, file: &Value) -> Result<Vec<u8>> {
    let id = file["file_id"].as_str().context("no id")?;
    let url = format!("http://{}/api/v1/files/{id}", server.http());
    let get = |url: &str| output(Command::new("curl").args(["-sfL", "--noproxy", "*", url]));
    let said: Value = serde_json::from_slice(&get(&url)?.stdout)?;
    Ok(get(said["url"].as_str().with_context(|| format!("no url in {said}"))?)?.stdout)
}

fn copies_everything(kind: Kind) -> Result<()> {
    let world = world(kind)?;
    let server = world.setup.start()?;
    push(&server, "small", Shape::default(), 3)?;
    push(&server, "fat", FAT, 8)?;
    ensure_copied(&server)?;
    world.ensure_equal()?;

    // The first place goes away: links lead to the second.
    let files = listed(&server, &["file", "list", "--stream", "small"])?;
    ensure!(files.len() == 4, "{files:#?}");
    world.first.set(|_, _| Fault::Busy);
    for file in &files {
        let bytes = media(&server, file)?;
        let is_whole = file["format"] == "hls" || file["size"] == bytes.len();
        ensure!(is_whole && !bytes.is_empty(), "{} bytes of {file:#}", bytes.len());
    }
    world.first.set(|_, _| Fault::None);

    // What is removed goes from both.
    let gone = files[0]["file_id"].as_str().context("no id")?;
    server.ask(&["file", "delete", gone])?;
    until(LIMIT, "the end of the removal", || {
        let left = listed(&server, &["file", "removals"])?;
        Ok(Seen::when(left.is_empty(), format!("{left:#?}")))
    })?;
    world.ensure_equal()?;

    // All of a library that was lost is in the second place as well.
    let before = listed(&server, &["file", "list"])?.len();
    server.kill()?;
    std::fs::remove_file(world.data.join("metadata.redb"))?;
    let server = world.setup.start()?;
    let said = server.ask(&["recover", "--from-objects", &format!("s3://{BUCKET}/second")])?;
    ensure!(
        said["files_restored"] == before && said["problem_count"] == 0 && said["stray_count"] == 0,
        "{before} files: {said:#}"
    );
    Ok(())
}

#[test]
fn everything_is_in_both_places_and_either_gives_it_juicefs() -> Result<()> {
    copies_everything(Kind::JuiceFs)
}

#[test]
fn everything_is_in_both_places_and_either_gives_it_moto() -> Result<()> {
    copies_everything(Kind::Moto)
}

#[test]
fn a_second_place_that_is_away_delays_copies_and_nothing_else() -> Result<()> {
    let world = world(Kind::JuiceFs)?;
    world.second.set(|_, _| Fault::Busy);
    let server = world.setup.start()?;
    push(&server, "one", Shape::default(), 3)?;
    let left = until(LIMIT, "a copy that failed", || {
        let left = listed(&server, &["file", "copies"])?;
        let failed = left.iter().any(|copy| copy["failures"] != 0);
        Ok(Seen::some(failed.then(|| left.clone()), format!("{left:#?}")))
    })?;
    ensure!(left.len() == 5, "four files and a document wait: {left:#?}");
    let problem = left
        .iter()
        .find_map(|copy| copy["problem"].as_str().filter(|text| !text.is_empty()));
    ensure!(problem.is_some_and(|text| text.contains("second place")), "{left:#?}");
    let (address, waiting) = (server.http(), "aircheck_coordinator_copies 5");
    until(LIMIT, "the backlog among the metrics", || {
        let url = format!("http://{address}/metrics");
        let said = text(Command::new("curl").args(["-sf", "--noproxy", "*", &url]))?;
        Ok(Seen::when(said.contains(waiting), said))
    })?;
    ensure!(world.objects("second")?.is_empty(), "nothing was to arrive");
    // It comes back badly.
    world.second.set(|_, n| match n % 9 {
        0 => Fault::Busy,
        3 => Fault::Cut,
        6 => Fault::AnswerLost,
        _ => Fault::None,
    });
    push(&server, "fat", FAT, 6)?;
    until(LIMIT, "copies among faults", || {
        let left = listed(&server, &["file", "copies"])?;
        Ok(Seen::when(left.len() < 5, format!("{left:#?}")))
    })?;
    world.second.set(|_, _| Fault::None);
    ensure_copied(&server)?;
    world.ensure_equal().map(drop)
}

/// Waits until the first place and the library are empty; gives what waits for the second.
fn ensure_first_empty(world: &World, server: &Server) -> Result<Vec<Value>> {
    until(LIMIT, "nothing in the first place and in the library", || {
        let (there, known) = (world.s3.keys("first/")?, listed(server, &["recording", "list"])?);
        let gone = there.is_empty() && known.is_empty();
        Ok(Seen::when(gone, format!("{there:#?} {known:#?}")))
    })?;
    let waiting = listed(server, &["file", "removals"])?;
    let elsewhere: Vec<&Value> = waiting.iter().filter(|removal| removal["place"] != "second").collect();
    ensure!(elsewhere.is_empty(), "{elsewhere:#?}");
    Ok(waiting)
}

/// Waits until what was refused last says so.
fn until_refused(server: &Server, reason: &str) -> Result<()> {
    until(LIMIT, "removals that the second place did not let happen", || {
        let (_, said) = server.get("/metrics")?;
        let name = format!("second_removal_failures_total{{reason=\"{reason}\"}}");
        Ok(Seen::when(said.contains(&name), said))
    })
}

#[test]
fn storage_time_ends_in_the_first_place_whatever_the_second_does() -> Result<()> {
    let world = world(Kind::JuiceFs)?;
    let server = world.setup.start()?;
    briefly(&server, "6s")?;
    push(&server, "one", Shape::default(), 2)?;
    // Some of it is there before the second goes away for good.
    until(LIMIT, "copies in the second place", || {
        let there = world.s3.keys("second/")?;
        Ok(Seen::when(!there.is_empty(), format!("{there:#?}")))
    })?;
    world.second.set(|_, _| Fault::Hang);
    push(&server, "two", Shape::default(), 2)?;
    let waiting = ensure_first_empty(&world, &server)?;
    ensure!(waiting.len() == 6, "three files of each: {waiting:#?}");
    until_refused(&server, "unavailable")?;
    ensure!(!world.s3.keys("second/")?.is_empty(), "nothing was to go from there");
    until(LIMIT, "what waits for the second place among the metrics", || {
        let (_, said) = server.get("/metrics")?;
        let there = said.contains("aircheck_coordinator_second_removals 6");
        Ok(Seen::when(there, said))
    })?;

    // It answers, and its keys may not remove: the first goes on, also after a kill.
    world.second.set(|line, _| match line.starts_with("DELETE ") {
        true => Fault::Forbidden,
        false => Fault::None,
    });
    let server = server.kill()?.start()?;
    push(&server, "three", Shape::default(), 2)?;
    let waiting = ensure_first_empty(&world, &server)?;
    ensure!(waiting.len() >= 3, "{waiting:#?}");
    until_refused(&server, "refused")?;

    world.second.set(|_, _| Fault::None);
    until(LIMIT, "nothing in the second place", || {
        let there = world.s3.keys("second/")?;
        let waiting = listed(&server, &["file", "removals"])?;
        let gone = there.is_empty() && waiting.is_empty();
        Ok(Seen::when(gone, format!("{there:#?} {waiting:#?}")))
    })?;
    let uploads = world.s3.uploads()?;
    ensure!(uploads.is_empty(), "{uploads:?}");
    Ok(())
}

#[test]
fn kills_while_copying_lose_nothing_and_leave_nothing() -> Result<()> {
    let mut world = world(Kind::JuiceFs)?;
    // Slow enough to be killed in each part.
    let slow = ["--set", "objects.copy.max_bandwidth=6 MiB"];
    let fast = world.setup.clone();
    world.setup = world.setup.args(&slow);
    let mut server = world.setup.start()?;
    push(&server, "fat", FAT, 6)?;
    for life in [300, 900, 1_700, 2_600] {
        // The life of the process is what this test varies.
        std::thread::sleep(Duration::from_millis(life));
        server.kill()?;
        server = world.setup.start()?;
    }
    let left = listed(&server, &["file", "copies"])?;
    ensure!(!left.is_empty(), "the kills came too late to show anything");
    server.kill()?;
    let server = fast.start()?;
    ensure_copied(&server)?;
    world.ensure_equal().map(drop)
}

#[test]
fn what_is_deleted_while_it_is_copied_is_gone_from_both() -> Result<()> {
    let mut world = world(Kind::JuiceFs)?;
    world.setup = world.setup.args(&["--set", "objects.copy.max_bandwidth=3 MiB"]);
    let server = world.setup.start()?;
    push(&server, "fat", FAT, 5)?;
    until(LIMIT, "a copy under way", || {
        let left = listed(&server, &["file", "copies"])?;
        let taken = left.iter().any(|copy| copy["worker_id"] != "");
        Ok(Seen::when(taken, format!("{left:#?}")))
    })?;
    for file in listed(&server, &["file", "list"])? {
        server.ask(&["file", "delete", file["file_id"].as_str().context("no id")?])?;
    }
    let waits = |removal: &Value| {
        removal["problem"]
            .as_str()
            .is_some_and(|text| text.contains("still copying"))
    };
    until(LIMIT, "a removal that waits for its copy", || {
        let waiting = listed(&server, &["file", "removals"])?;
        let there = waiting.iter().any(waits);
        Ok(Seen::when(there, format!("{waiting:#?}")))
    })?;
    until(Duration::from_secs(150), "the end of all removals", || {
        let left = listed(&server, &["file", "removals"])?;
        Ok(Seen::when(left.is_empty(), format!("{left:#?}")))
    })?;
    let left: Vec<PathBuf> = world
        .objects("first")?
        .into_keys()
        .chain(world.objects("second")?.into_keys())
        .collect();
    ensure!(left.is_empty(), "{left:#?}");
    let uploads = world.s3.uploads()?;
    ensure!(uploads.is_empty(), "{uploads:?}");
    Ok(())
}
