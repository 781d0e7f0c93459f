//! A worker's machine is lost with its disk, and what it had in storage is completed without it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::etcd::{Etcd, free_port};
use support::faults::{Fault, Proxy};
use support::frames::Frames;
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::Pacer;
use support::rtmp::{AUDIO, VIDEO};
use support::s3::{BUCKET, Kind, S3};
use support::server::{MediaFile, Server, Setup};
use support::wait::{Seen, until};

use crate::{FAT, data, setup};

const LIMIT: Duration = Duration::from_secs(60);
const FORMATS: &str = "flv,hls,mp4";

/// Gives workers up soon, and makes the shortest parts that there are.
fn impatient(mut setup: Setup) -> Setup {
    for setting in [
        "coordinator.heartbeat=100ms",
        "coordinator.worker_timeout=1s",
        "coordinator.offline_timeout=1s",
        "coordinator.lost_timeout=2s",
        "coordinator.retention_interval=200ms",
        "objects.part_size=5 MiB",
        "objects.request_timeout=5s",
        "worker.hls.target_segment=2s",
        "worker.time_zone=Asia/Tokyo",
    ] {
        setup = setup.args(&["--set", setting]);
    }
    setup.args(&["--objects", &format!("s3://{BUCKET}/some/where")])
}

struct World {
    s3: S3,
    proxy: Proxy,
    setup: Setup,
    _folder: tempfile::TempDir,
}

fn world(kind: Kind) -> Result<World> {
    let s3 = S3::start(kind)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let (folder, data) = data()?;
    let mut setup = impatient(setup(&data)).record(FORMATS);
    for (name, value) in s3.env() {
        setup = match name {
            "AWS_ENDPOINT_URL" => setup.env(name, &proxy.endpoint()),
            _ => setup.env(name, &value),
        };
    }
    Ok(World {
        s3,
        proxy,
        setup,
        _folder: folder,
    })
}

impl World {
    /// The server again, its coordinator with its metadata, its worker on a new disk.
    fn without_the_workers_disk(&self, server: Server) -> Result<Server> {
        let data = server.data().to_owned();
        let setup = server.kill()?;
        for entry in std::fs::read_dir(&data)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ["metadata.redb", "secrets.key", "lock"].contains(&name.as_str()) {
                continue;
            }
            match path.is_dir() {
                true => std::fs::remove_dir_all(path)?,
                false => std::fs::remove_file(path)?,
            }
        }
        self.proxy.set(|_, _| Fault::None);
        setup.start()
    }

    /// Waits until the recording is given up and everything of it is settled; gives it and its files, fetched from the bucket.
    fn settled(&self, server: &Server, stream: &str) -> Result<(Value, Vec<MediaFile>)> {
        self.settled_as(server, stream, "failed")
    }

    /// As [`World::settled`], once the recording is in this state.
    fn settled_as(&self, server: &Server, stream: &str, state: &str) -> Result<(Value, Vec<MediaFile>)> {
        let recording = until(LIMIT, "a recording that is given up", || {
            let known = server.recordings(stream)?.into_iter().next().context("no recording")?;
            Ok(Seen::some(
                (known["state"] == state).then(|| known.clone()),
                known["state"].to_string(),
            ))
        })?;
        until(LIMIT, "nothing half-made in the bucket", || {
            let uploads = self.s3.uploads()?;
            let keys = self.s3.keys("some/where/")?;
            let open = keys
                .iter()
                .any(|key| key.ends_with(".rescue") || key.ends_with(".held"));
            let log = server.log();
            let settled = log.contains("what a lost worker had in storage is completed");
            Ok(Seen::when(
                settled && uploads.is_empty() && !open,
                format!("{uploads:?} {keys:?}"),
            ))
        })?;
        let folder = server.data().join("mirror");
        self.s3.mirror("some/where/", &folder)?;
        Ok((recording, server.files_in(stream, &folder)?))
    }
}

/// Loses the machine so long after the push began, with these formats to be there afterwards.
fn lost_after(kind: Kind, life: Duration, expected: &[&str]) -> Result<()> {
    let world = world(kind)?;
    let server = world.setup.start()?;
    let pacer = Pacer::start(server.rtmp(), "one", FAT)?;
    // How far the uploads have come is what this test varies.
    std::thread::sleep(life);
    let server = world.without_the_workers_disk(server)?;
    let log = pacer.ended()?;
    let (recording, files) = world.settled(&server, "one")?;
    ensure!(
        recording["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("worker_lost")),
        "{recording:#}"
    );
    let gaps = recording["gaps"].as_array().context("no gaps")?;
    ensure!(gaps.iter().any(|gap| gap["reason"] == "worker_lost"), "{recording:#}");
    let formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
    ensure!(formats == expected, "{formats:?}, not {expected:?}");
    for file in files {
        let frames = Frames::of(&file)?;
        if file.format != "hls" {
            let len = std::fs::metadata(&file.path)?.len();
            ensure!(
                file.record["size"] == len,
                "{} has {len} bytes: {}",
                file.path.display(),
                file.record
            );
        }
        ensure!(file.record["video_units"] == frames.video.len(), "{}", file.record);
        ensure!(file.record["audio_units"] == frames.audio.len(), "{}", file.record);
        ensure_named_in_tokyo(&file)?;
        ensure_holds(&[file], &log, AtLeast { video: 40, audio: 40 })?;
    }
    Ok(())
}

/// That the time in a file's name is that of the worker's time zone.
fn ensure_named_in_tokyo(file: &MediaFile) -> Result<()> {
    let start = file.record["start"].as_str().context("no start")?;
    let there = start.parse::<jiff::Timestamp>()?.in_tz("Asia/Tokyo")?;
    let time = there.strftime("one_%Y-%m-%d-%H-%M-%S_").to_string();
    let name = file.record["name"].as_str().context("no name")?;
    ensure!(name.starts_with(&time), "{name} does not begin with {time}");
    Ok(())
}

#[test]
fn of_a_recording_that_waits_for_its_stream_the_other_files_are_completed_too() -> Result<()> {
    let world = world(Kind::JuiceFs)?;
    let server = world.setup.start()?;
    server.ask(&[
        "template",
        "create",
        "wait",
        "--hls",
        "--hls-continue",
        "3s",
        "--flv",
        "--mp4",
    ])?;
    server.ask(&["rule", "create", "--domain", "127.0.0.1", "--template", "wait"])?;
    let pacer = Pacer::start(server.rtmp(), "one", FAT)?;
    until(LIMIT, "something to complete both files by", || {
        let keys = world.s3.keys("some/where/")?;
        let count = keys.iter().filter(|key| key.ends_with(".rescue")).count();
        let listed = keys.iter().any(|key| key.ends_with("/index.m3u8"));
        Ok(Seen::when(count == 2 && listed, format!("{keys:?}")))
    })?;
    let server = world.without_the_workers_disk(server)?;
    let log = pacer.ended()?;
    let (recording, files) = world.settled_as(&server, "one", "finished")?;
    let gaps = recording["gaps"].as_array().context("no gaps")?;
    ensure!(gaps.iter().any(|gap| gap["reason"] == "worker_lost"), "{recording:#}");
    let formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
    ensure!(formats == ["flv", "hls", "mp4"], "{formats:?}");
    for file in files {
        ensure_named_in_tokyo(&file)?;
        ensure_holds(&[file], &log, AtLeast { video: 40, audio: 40 })?;
    }
    Ok(())
}

#[test]
fn what_was_stored_of_a_lost_machine_is_whole_and_plays() -> Result<()> {
    lost_after(Kind::JuiceFs, Duration::from_secs(9), &["flv", "hls", "mp4"])
}

#[test]
fn what_was_stored_of_a_lost_machine_is_whole_and_plays_moto() -> Result<()> {
    lost_after(Kind::Moto, Duration::from_secs(7), &["flv", "hls", "mp4"])
}

#[test]
fn a_machine_that_is_lost_before_anything_was_stored_leaves_nothing_half_made() -> Result<()> {
    lost_after(Kind::JuiceFs, Duration::from_millis(900), &[])
}

#[test]
fn a_machine_that_is_lost_while_it_completes_its_files_loses_little() -> Result<()> {
    let world = world(Kind::JuiceFs)?;
    let server = world.setup.start()?;
    let pacer = Pacer::start(server.rtmp(), "one", FAT)?;
    until(LIMIT, "something to complete both files by", || {
        let keys = world.s3.keys("some/where/")?;
        let count = keys.iter().filter(|key| key.ends_with(".rescue")).count();
        Ok(Seen::when(count == 2, format!("{keys:?}")))
    })?;
    // Parts are taken, and no upload is completed.
    world
        .proxy
        .set(|line, _| match line.starts_with("POST") && line.contains("uploadId=") {
            true => Fault::Busy,
            false => Fault::None,
        });
    let log = pacer.finish()?;
    until(LIMIT, "a completion that failed", || {
        Ok(Seen::when(world.proxy.counts().1 >= 2, "none"))
    })?;
    let server = world.without_the_workers_disk(server)?;
    let (_, files) = world.settled(&server, "one")?;
    let formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
    ensure!(formats.contains(&"flv") && formats.contains(&"mp4"), "{formats:?}");
    for file in files {
        ensure_holds(&[file], &log, AtLeast { video: 40, audio: 40 })?;
    }
    Ok(())
}

/// Files become whole while no coordinator answers, and their machine is lost before one does.
#[test]
fn files_that_no_coordinator_has_heard_of_are_in_the_library_in_the_end() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let etcd = Etcd::start(1)?;
    let (_folder, data) = data()?;
    let grpc = format!("coordinator.grpc=127.0.0.1:{}", free_port()?);
    let binary = env!("CARGO_BIN_EXE_aircheck");
    let in_bucket = |setup: Setup| {
        let env = s3.env();
        env.iter().fold(setup, |setup, (name, value)| setup.env(name, value))
    };
    let coordinator = Setup::coordinator(binary, &data.join("coordinator"), &etcd.url("salvage"));
    let coordinator = in_bucket(impatient(coordinator))
        .record(FORMATS)
        .args(&["--set", &grpc])
        .start()?;
    let worker = Setup::worker(binary, &data.join("worker"), &coordinator.grpc_url());
    let worker = in_bucket(impatient(worker)).start()?;

    let pacer = Pacer::start(worker.rtmp(), "one", FAT)?;
    let beside = |end: &str| -> Result<usize> {
        let keys = s3.keys("some/where/")?;
        Ok(keys.iter().filter(|key| key.ends_with(end)).count())
    };
    until(LIMIT, "parts of both files", || {
        let count = beside(".rescue")?;
        Ok(Seen::when(count == 2, count.to_string()))
    })?;
    let coordinator = coordinator.kill()?;
    let log = pacer.finish()?;
    until(LIMIT, "whole files that are vouched for", || {
        let (uploads, keys) = (s3.uploads()?, s3.keys("some/where/")?);
        let ended = keys.iter().any(|key| key.ends_with("index.m3u8.rescue"));
        Ok(Seen::when(ended && uploads.is_empty(), format!("{uploads:?} {keys:?}")))
    })?;
    let folder = worker.data().to_owned();
    worker.kill()?;
    std::fs::remove_dir_all(folder)?;

    let coordinator = coordinator.start()?;
    let recording = until(LIMIT, "a recording that is given up", || {
        let known = coordinator
            .recordings("one")?
            .into_iter()
            .next()
            .context("no recording")?;
        let state = known["state"].clone();
        Ok(Seen::some((state == "failed").then_some(known), state.to_string()))
    })?;
    ensure!(
        recording["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("worker_lost")),
        "{recording:#}"
    );
    until(LIMIT, "nothing beside the files", || {
        let left = beside(".rescue")? + beside(".held")?;
        Ok(Seen::when(left == 0, left.to_string()))
    })?;
    let mirror = data.join("mirror");
    s3.mirror("some/where/", &mirror)?;
    let files = coordinator.files_in("one", &mirror)?;
    let formats: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
    ensure!(formats == ["flv", "hls", "mp4"], "{formats:?}");
    let everything = AtLeast {
        video: log.count(VIDEO),
        audio: log.count(AUDIO),
    };
    for file in files {
        ensure_holds(&[file], &log, everything)?;
    }
    Ok(())
}
