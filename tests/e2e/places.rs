//! Recordings go to the places that their templates name, and nothing of one place holds back another: a folder and a bucket beside `objects.url`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::faults::{Fault, Proxy};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::{Log, Pacer};
use support::rtmp::{AUDIO, VIDEO};
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::source::Shape;
use support::wait::{Seen, until};
use tempfile::TempDir;

use crate::backup::ensure_links;
use crate::retention::{locked, often};
use crate::{data, listed, setup};

const LIMIT: Duration = Duration::from_secs(60);
const FORMATS: &str = "flv,hls,mp4";
/// Below this the bucket has what is in the place `bucket`.
const PREFIX: &str = "some/where";

/// A server with two places beside its own folder: `bucket`, behind a proxy, and `disk`.
struct World {
    s3: S3,
    proxy: Proxy,
    setup: Setup,
    data: PathBuf,
    disk: PathBuf,
    folder: TempDir,
}

fn world() -> Result<World> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let (folder, data) = data()?;
    let disk = folder.path().join("disk");
    let mut setup = setup(&data)
        .record(FORMATS)
        .args(&["--set", "objects.request_timeout=2s"]);
    for (name, value) in s3.env() {
        if name != "AWS_ENDPOINT_URL" {
            setup = setup.env(name, &value).client_env(name, &value);
        }
    }
    Ok(World {
        s3,
        proxy,
        setup,
        data,
        disk,
        folder,
    })
}

impl World {
    /// What the settings say of places.
    fn places(&self) -> Vec<String> {
        [
            format!("objects.places.bucket.url=s3://{BUCKET}/{PREFIX}"),
            format!("objects.places.bucket.endpoint={}", self.proxy.endpoint()),
            format!("objects.places.disk.url=file://{}", self.disk.display()),
        ]
        .into_iter()
        .flat_map(|setting| ["--set".to_owned(), setting])
        .collect()
    }

    fn with_places(&self) -> Setup {
        let places = self.places();
        let words: Vec<&str> = places.iter().map(String::as_str).collect();
        self.setup.clone().args(&words)
    }

    /// What lies in the bucket, in a folder of the disk.
    fn mirrored(&self) -> Result<PathBuf> {
        let folder = self.folder.path().join("mirror");
        self.s3.mirror(&format!("{PREFIX}/"), &folder)?;
        Ok(folder)
    }

    fn ensure_holds(&self, server: &Server, stream: &str, objects: &Path, log: &Log) -> Result<()> {
        let files = server.files_in(stream, objects)?;
        let mut formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
        formats.dedup();
        ensure!(formats == ["flv", "hls", "mp4"], "{stream} has {formats:?}");
        let least = AtLeast {
            video: log.count(VIDEO),
            audio: log.count(AUDIO),
        };
        ensure_holds(&files, log, least)
    }

    fn own(&self) -> PathBuf {
        self.data.join("objects")
    }
}

/// Has a stream recorded in the place of its name, files kept for so long.
fn placed(server: &Server, name: &str, storage: &str) -> Result<()> {
    let made = [
        "template",
        "create",
        name,
        "--flv",
        "--hls",
        "--mp4",
        "--place",
        name,
        "--storage",
        storage,
    ];
    let made = server.ask(&made)?;
    ensure!(made["place"] == name, "{made:#}");
    let rule = ["--domain", "127.0.0.1", "--stream", name, "--template", name];
    server.ask(&[&["rule", "create"], &rule[..]].concat()).map(drop)
}

/// Names of what lies in a folder, but for what is hidden.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if folder.exists() {
        for entry in std::fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

#[test]
fn a_recording_goes_where_its_template_says_and_is_served_removed_and_recovered_from_there() -> Result<()> {
    let world = world()?;
    let server = world.with_places().start()?;
    let refused = server.refused(&["template", "create", "bad", "--mp4", "--place", "cold"])?;
    ensure!(
        refused.contains("place \"cold\"") && refused.contains("have these places of objects: bucket, disk"),
        "{refused}"
    );
    placed(&server, "bucket", "0s")?;
    placed(&server, "disk", "0s")?;
    let (status, templates) = server.get("/api/v1/templates")?;
    ensure!(
        status == 200 && templates.contains("\"place\":\"disk\""),
        "{status}: {templates}"
    );
    let pushed: Vec<Pacer> = ["bucket", "disk", "plain"]
        .into_iter()
        .map(|stream| Pacer::start_for(server.rtmp(), stream, Shape::default(), Some(Duration::from_secs(4))))
        .collect::<Result<_>>()?;
    let mirror = world.folder.path().join("mirror");
    let folders = [
        ("bucket", mirror.clone()),
        ("disk", world.disk.clone()),
        ("plain", world.own()),
    ];
    for (pushed, (stream, objects)) in pushed.into_iter().zip(&folders) {
        let log = pushed.ended()?;
        server.finished(stream, 1)?;
        world.mirrored()?;
        world.ensure_holds(&server, stream, objects, &log)?;
        ensure!(ensure_links(&server, stream)? >= 3, "links to all of {stream}");
    }
    // Each place has its own and nothing else.
    ensure!(names(&world.own())? == ["127.0.0.1"], "{:?}", names(&world.own())?);
    ensure!(names(&world.disk)? == ["@disk"], "{:?}", names(&world.disk)?);
    let keys = world.s3.keys("")?;
    let below = format!("{PREFIX}/@bucket/127.0.0.1/live/bucket/");
    ensure!(keys.iter().all(|key| key.starts_with(&below)), "{keys:#?}");
    let document = keys.iter().find(|key| key.ends_with("/recording.json"));
    let document = mirror.join(&document.context("no recording.json")?[PREFIX.len() + 1..]);
    let document: Value = serde_json::from_slice(&std::fs::read(document)?)?;
    ensure!(document["recording"]["template"]["place"] == "bucket", "{document:#}");
    ensure!(document["recording"]["state"] == "finished", "{document:#}");

    ensure_removed(&world, &server)?;
    ensure_recovered(&world, server)
}

/// A file goes from the place that it is in, and the last takes all with it.
fn ensure_removed(world: &World, server: &Server) -> Result<()> {
    let of = |stream: &str| listed(server, &["file", "list", "--stream", stream]);
    let delete = |file: &Value| server.ask(&["file", "delete", file["file_id"].as_str().context("no id")?]);
    let flv = of("bucket")?.into_iter().find(|file| file["format"] == "flv");
    delete(&flv.context("no FLV")?)?;
    until(LIMIT, "no FLV in the bucket", || {
        let keys = world.s3.keys("")?;
        Ok(Seen::when(
            !keys.iter().any(|key| key.ends_with(".flv")),
            format!("{keys:?}"),
        ))
    })?;
    ensure!(world.s3.keys("")?.iter().any(|key| key.ends_with(".mp4")));
    for file in of("disk")? {
        delete(&file)?;
    }
    until(LIMIT, "nothing in the folder", || {
        let left = names(&world.disk)?;
        Ok(Seen::when(left.is_empty(), format!("{left:?}")))
    })?;
    ensure!(of("plain")?.len() == 3);
    Ok(())
}

/// What the settings name is recovered with the first place; each alone by its URL.
fn ensure_recovered(world: &World, mut server: Server) -> Result<()> {
    let before = listed(&server, &["file", "list"])?.len();
    server.signal("TERM")?;
    server.ended(Duration::from_secs(30))?;
    std::fs::remove_file(world.data.join("metadata.redb"))?;
    let server = server.setup().start()?;
    ensure!(listed(&server, &["file", "list"])?.is_empty());
    let places = world.places();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let data_dir = format!("node.data_dir={}", world.data.display());
    let recover = |url: &str| {
        let words = ["recover", "--from-objects", url, "--set", &data_dir];
        server.ask(&[&words[..], &places].concat())
    };
    let bucket = recover(&format!("s3://{BUCKET}/{PREFIX}"))?;
    ensure!(
        bucket["recordings_restored"] == 1 && bucket["files_restored"] == 2,
        "{bucket:#}"
    );
    let all = recover(&format!("file://{}", world.own().display()))?;
    ensure!(all["recordings"] == 2 && all["recordings_restored"] == 1, "{all:#}");
    ensure!(all["problem_count"] == 0 && all["stray_count"] == 0, "{all:#}");
    ensure!(before == 5 && listed(&server, &["file", "list"])?.len() == before);
    for stream in ["bucket", "plain"] {
        ensure!(ensure_links(&server, stream)? > 1, "links to {stream}");
    }
    Ok(())
}

#[test]
fn a_place_that_is_away_or_not_in_the_settings_holds_its_own_recordings_and_no_others() -> Result<()> {
    let world = world()?;
    let server = world.with_places().start()?;
    placed(&server, "bucket", "0s")?;
    world.proxy.set(|_, _| Fault::Cut);
    let mut pushed = Vec::new();
    for stream in ["bucket", "plain"] {
        let for_ms = Some(Duration::from_secs(4));
        pushed.push(Pacer::start_for(server.rtmp(), stream, Shape::default(), for_ms)?);
    }
    let pushed: Vec<Log> = pushed.into_iter().map(Pacer::ended).collect::<Result<_>>()?;
    server.finished("plain", 1)?;
    world.ensure_holds(&server, "plain", &world.own(), &pushed[1])?;
    let until_down = |server: &Server| {
        until(LIMIT, "the place among the metrics", || {
            let (_, metrics) = server.get("/metrics")?;
            let down = metrics.contains("aircheck_worker_place_up{place=\"bucket\"} 0");
            Ok(Seen::when(down, metrics))
        })
    };
    until_down(&server)?;
    let (_, metrics) = server.get("/metrics")?;
    ensure!(
        metrics.contains("aircheck_worker_place_up{place=\"bucket\"} 0"),
        "{metrics}"
    );
    ensure!(!is_finished(&server)?, "nothing of it can be stored");

    // Killed, and started with settings that have lost the place: it waits, and goes nowhere else.
    server.kill()?;
    let server = world.setup.start()?;
    world.proxy.set(|_, _| Fault::None);
    until(LIMIT, "the log to say why it waits", || {
        let log = server.log();
        let words = ["recordings wait in their journals", "objects.places.bucket.url"];
        Ok(Seen::when(words.iter().all(|word| log.contains(word)), log))
    })?;
    until_down(&server)?;
    ensure!(
        server
            .log()
            .contains("a template names a place of objects that the settings here do not have"),
        "{}",
        server.log()
    );
    Pacer::start_for(server.rtmp(), "other", Shape::default(), Some(Duration::from_secs(3)))?.ended()?;
    server.finished("other", 1)?;
    ensure!(!is_finished(&server)?, "there is nowhere to store it");
    ensure!(names(&world.own())? == ["127.0.0.1"], "{:?}", names(&world.own())?);
    ensure!(world.s3.keys("")?.is_empty());

    server.kill()?;
    let server = world.with_places().start()?;
    server.finished("bucket", 1)?;
    world.ensure_holds(&server, "bucket", &world.mirrored()?, &pushed[0])?;
    until(LIMIT, "no journal that nobody needs", || {
        let left = names(&world.data.join("journal"))?;
        Ok(Seen::when(left.is_empty(), format!("{left:?}")))
    })?;
    ensure!(world.s3.uploads()?.is_empty(), "uploads of nobody");
    Ok(())
}

fn is_finished(server: &Server) -> Result<bool> {
    let all = server.recordings("bucket")?;
    Ok(all.iter().any(|recording| recording["state"] != "recording"))
}

#[test]
fn files_of_one_place_go_in_time_while_another_is_away() -> Result<()> {
    let world = world()?;
    let server = often(world.with_places()).start()?;
    placed(&server, "bucket", "1s")?;
    placed(&server, "disk", "1s")?;
    let ids = [locked(&server, "bucket")?, locked(&server, "disk")?];
    world.proxy.set(|_, _| Fault::Busy);
    for id in &ids {
        server.ask(&["recording", "unlock", id])?;
    }
    until(LIMIT, "an empty folder", || {
        let left = names(&world.disk)?;
        Ok(Seen::when(left.is_empty(), format!("{left:?}")))
    })?;
    ensure!(
        listed(&server, &["file", "list", "--stream", "bucket"])?.len() == 3,
        "its records stay while it does not answer"
    );
    world.proxy.set(|_, _| Fault::None);
    until(LIMIT, "an empty bucket", || {
        let (left, known) = (world.s3.keys("")?, listed(&server, &["recording", "list"])?);
        Ok(Seen::when(
            left.is_empty() && known.is_empty(),
            format!("{left:?} {known:?}"),
        ))
    })
}
