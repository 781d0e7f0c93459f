//! What is removed when its storage time is over, and what is not: the real binary, over a folder and over a bucket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::faults::{Fault, Proxy};
use support::pacer::Pacer;
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::source::Shape;
use support::wait::{Seen, until};

use crate::{data, listed, setup};

const LIMIT: Duration = Duration::from_secs(60);

/// Looks for what is due five times a second.
pub(crate) fn often(setup: Setup) -> Setup {
    setup.args(&["--set", "coordinator.retention_interval=200ms"])
}

/// Has everything recorded in three formats and kept for so long.
pub(crate) fn briefly(server: &Server, kept: &str) -> Result<()> {
    let words = [
        "template",
        "create",
        "brief",
        "--flv",
        "--hls",
        "--mp4",
        "--storage",
        kept,
    ];
    server.ask(&words)?;
    server.ask(&["rule", "create", "--domain", "127.0.0.1", "--template", "brief"])?;
    Ok(())
}

/// Records `live/<stream>` for two seconds, locked from its begin on; gives the recording's id.
pub(crate) fn locked(server: &Server, stream: &str) -> Result<String> {
    let pacer = Pacer::start(server.rtmp(), stream, Shape::default())?;
    let id = until(LIMIT, "a recording", || {
        let first = server.recordings(stream)?.into_iter().next();
        let id = first.and_then(|recording| recording["recording_id"].as_str().map(str::to_owned));
        Ok(Seen::some(id, "none"))
    })?;
    let locked = server.ask(&["recording", "lock", &id])?;
    ensure!(locked["locked"] == true, "{locked}");
    std::thread::sleep(Duration::from_secs(2));
    pacer.finish()?;
    server.finished(stream, 1)?;
    Ok(id)
}

fn of_format(files: &[Value], format: &str) -> Result<String> {
    let file = files.iter().find(|file| file["format"] == format);
    let id = file.and_then(|file| file["file_id"].as_str());
    Ok(id.with_context(|| format!("no {format} in {files:?}"))?.to_owned())
}

fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != ".staging") {
            found.extend(below(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}

/// Waits until the library has so many files.
fn until_files(server: &Server, count: usize) -> Result<Vec<Value>> {
    until(LIMIT, &format!("{count} files in the library"), || {
        let files = listed(server, &["file", "list"])?;
        Ok(Seen::some(
            (files.len() == count).then(|| files.clone()),
            format!("{files:#?}"),
        ))
    })
}

#[test]
fn files_go_when_their_time_is_over_and_locked_ones_stay() -> Result<()> {
    let (_folder, data) = data()?;
    let server = often(setup(&data)).start()?;
    briefly(&server, "1s")?;
    let id = locked(&server, "one")?;
    let files = listed(&server, &["file", "list", "--recording", &id])?;
    ensure!(
        files.len() == 3 && files.iter().all(|file| !file["expires"].is_null()),
        "{files:#?}"
    );
    let (hls, mp4) = (of_format(&files, "hls")?, of_format(&files, "mp4")?);

    // A locked recording's files stay, whoever asks, beyond their time.
    let second = locked(&server, "two")?;
    ensure!(listed(&server, &["file", "list"])?.len() == 6);
    let said = server.refused(&["file", "delete", &hls])?;
    ensure!(
        said.contains("is locked") && said.contains("recording unlock"),
        "{said}"
    );

    let file = server.ask(&["file", "lock", &mp4])?;
    ensure!(file["locked"] == true, "{file}");
    server.ask(&["recording", "unlock", &id])?;
    let left = until_files(&server, 4)?;
    ensure!(of_format(&left, "mp4").is_ok(), "{left:#?}");
    let said = server.refused(&["file", "delete", &mp4])?;
    ensure!(said.contains("file unlock"), "{said}");
    let objects = server.data().join("objects");
    let root = objects.join("127.0.0.1/live/one").join(&id);
    until(LIMIT, "only the locked file and its document", || {
        let there: Vec<PathBuf> = below(&root)?.into_iter().filter(|path| path.is_file()).collect();
        Ok(Seen::when(there.len() == 2, format!("{there:#?}")))
    })?;
    let document: Value = serde_json::from_slice(&std::fs::read(root.join("recording.json"))?)?;
    ensure!(
        document["files"].as_array().is_some_and(|files| files.len() == 1),
        "{document:#}"
    );

    // The last file takes the recording with it, and all its folders.
    server.ask(&["file", "unlock", &mp4])?;
    until_files(&server, 3)?;
    until(LIMIT, "nothing of the recording", || {
        let there = below(&objects.join("127.0.0.1/live/one"))?;
        let known = server.recordings("one")?;
        Ok(Seen::when(
            there.is_empty() && known.is_empty(),
            format!("{there:#?} {known:#?}"),
        ))
    })?;

    // Deleting by hand is the same way.
    server.ask(&["recording", "lock", &second])?;
    let files = listed(&server, &["file", "list", "--recording", &second])?;
    let flv = of_format(&files, "flv")?;
    server.ask(&["file", "lock", &of_format(&files, "hls")?])?;
    server.ask(&["file", "lock", &of_format(&files, "mp4")?])?;
    server.ask(&["file", "lock", &flv])?;
    server.ask(&["recording", "unlock", &second])?;
    server.ask(&["file", "unlock", &flv])?;
    until_files(&server, 2)?;
    ensure!(server.refused(&["file", "delete", &flv])?.contains("no file"));
    let (_, metrics) = server.get("/metrics")?;
    ensure!(
        metrics.contains("aircheck_coordinator_files_removed_total{reason=\"expired\"} 4"),
        "{metrics}"
    );
    Ok(())
}

#[test]
fn a_process_that_is_killed_while_it_removes_goes_on_after_its_next_start() -> Result<()> {
    let (_folder, data) = data()?;
    let mut server = often(setup(&data)).start()?;
    briefly(&server, "1s")?;
    let names = ["a", "b", "c", "d"];
    let mut ids = Vec::new();
    for name in names {
        ids.push(locked(&server, name)?);
    }
    for (id, wait) in ids.iter().zip([0, 40, 150, 300]) {
        // The answer is the begin of their removal within the next fifth of a second: die somewhere in it.
        server.ask(&["recording", "unlock", id])?;
        std::thread::sleep(Duration::from_millis(wait));
        server = server.kill()?.start()?;
    }
    until_files(&server, 0)?;
    let objects = server.data().join("objects/127.0.0.1");
    until(LIMIT, "nothing in storage and nothing under way", || {
        let there = below(&objects)?;
        let removals = listed(&server, &["file", "removals"])?;
        let known = listed(&server, &["recording", "list"])?;
        let gone = there.is_empty() && removals.is_empty() && known.is_empty();
        Ok(Seen::when(gone, format!("{there:#?} {removals:#?} {known:#?}")))
    })
}

#[test]
fn files_leave_a_bucket_also_after_it_was_away() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let proxy = Proxy::start(s3.endpoint())?;
    let (_folder, data) = data()?;
    let mut setup = often(setup(&data))
        .args(&["--objects", &format!("s3://{BUCKET}/some/where")])
        .args(&["--set", "objects.request_timeout=2s"]);
    for (name, value) in s3.env() {
        setup = match name {
            "AWS_ENDPOINT_URL" => setup.env(name, &proxy.endpoint()),
            _ => setup.env(name, &value),
        };
    }
    let server = setup.start()?;
    briefly(&server, "1s")?;
    let id = locked(&server, "one")?;
    ensure!(s3.keys("some/where/")?.len() > 4);

    proxy.set(|_, _| Fault::Busy);
    let files = listed(&server, &["file", "list"])?;
    let flv = of_format(&files, "flv")?;
    server.ask(&["file", "lock", &of_format(&files, "hls")?])?;
    server.ask(&["file", "lock", &of_format(&files, "mp4")?])?;
    server.ask(&["file", "lock", &flv])?;
    server.ask(&["recording", "unlock", &id])?;
    server.ask(&["file", "unlock", &flv])?;
    // Records stay while storage does not answer; who asks for a file's removal is answered, and its objects go later.
    match server.ask(&["file", "delete", &flv]) {
        Ok(_) => {
            let removals = listed(&server, &["file", "removals"])?;
            let problem = removals.first().map(|removal| removal["problem"].clone());
            ensure!(problem.is_some_and(|problem| problem != ""), "{removals:#?}");
        }
        Err(error) => return Err(error),
    }
    let (_, metrics) = server.get("/metrics")?;
    ensure!(
        metrics.contains("removal_failures_total{reason=\"unavailable\"}"),
        "{metrics}"
    );
    ensure!(listed(&server, &["file", "list"])?.len() == 2);

    proxy.set(|_, _| Fault::None);
    until(LIMIT, "nothing under way", || {
        let removals = listed(&server, &["file", "removals"])?;
        Ok(Seen::when(removals.is_empty(), format!("{removals:#?}")))
    })?;
    ensure!(!s3.keys("some/where/")?.iter().any(|key| key.ends_with(".flv")));
    for file in listed(&server, &["file", "list"])? {
        server.ask(&["file", "unlock", file["file_id"].as_str().context("no id")?])?;
    }
    until(LIMIT, "an empty bucket", || {
        let left = s3.keys("some/where/")?;
        let known = listed(&server, &["recording", "list"])?;
        Ok(Seen::when(
            left.is_empty() && known.is_empty(),
            format!("{left:#?} {known:#?}"),
        ))
    })
}
