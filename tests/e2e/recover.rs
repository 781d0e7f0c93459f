//! The library, rebuilt from what lies beside the media: `aircheck recover --from-objects`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use support::pacer::Pacer;
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::source::Shape;
use support::wait::{Seen, until};

use crate::{ALL, data, setup};

/// In the order of their ids.
fn listed(server: &Server, words: &[&str]) -> Result<Vec<Value>> {
    let mut list = crate::listed(server, words)?;
    list.sort_by_key(|entry| {
        entry["file_id"]
            .as_str()
            .or(entry["recording_id"].as_str())
            .map(str::to_owned)
    });
    Ok(list)
}

/// All that the library says, but for when files entered it: that time is taken from storage.
fn library(server: &Server) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut files = listed(server, &["file", "list"])?;
    for file in &mut files {
        let entered = file["committed"].take();
        ensure!(!entered.is_null(), "{file:#}");
    }
    Ok((listed(server, &["recording", "list"])?, files))
}

/// Ends the server and starts it again without its metadata.
fn without_metadata(mut server: Server) -> Result<Server> {
    server.signal("TERM")?;
    server.ended(Duration::from_secs(30))?;
    std::fs::remove_file(server.data().join("metadata.redb"))?;
    server.setup().start()
}

fn ensure_rebuilt(setup: Setup, url: &str, strays: impl FnOnce() -> Result<()>) -> Result<()> {
    let server = setup.start()?;
    for stream in ["one", "two"] {
        Pacer::start_for(server.rtmp(), stream, Shape::default(), Some(Duration::from_secs(3)))?.ended()?;
        server.finished(stream, 1)?;
    }
    let before = library(&server)?;
    ensure!(before.0.len() == 2 && before.1.len() == 8, "{before:#?}");

    let server = without_metadata(server)?;
    ensure!(library(&server)? == (vec![], vec![]));
    let tried = server.ask(&["recover", "--from-objects", url, "--dry-run"])?;
    ensure!(
        tried["recordings_restored"] == 2 && tried["files_restored"] == 8,
        "{tried:#}"
    );
    ensure!(library(&server)? == (vec![], vec![]), "a dry run changes nothing");

    // While a stream is recorded.
    let live = Pacer::start(server.rtmp(), "live", Shape::default())?;
    until(Duration::from_secs(20), "a live stream", || {
        Ok(Seen::when(!server.recordings("live")?.is_empty(), "none"))
    })?;
    let done = server.ask(&["recover", "--from-objects", url])?;
    ensure!(
        done["recordings_restored"] == 2 && done["files_restored"] == 8,
        "{done:#}"
    );
    ensure!(done["problem_count"] == 0 && done["stray_count"] == 0, "{done:#}");
    live.finish()?;
    server.finished("live", 1)?;

    let mut after = library(&server)?;
    let of_live = |entry: &Value| entry["stream"]["stream"] == "live";
    ensure!(after.1.iter().any(of_live), "the live one was recorded meanwhile");
    after.0.retain(|recording| !of_live(recording));
    after.1.retain(|file| !of_live(file));
    ensure!(after == before, "before {before:#?}\nafter {after:#?}");

    strays()?;
    let all = library(&server)?;
    let again = server.ask(&["recover", "--from-objects", url])?;
    ensure!(
        again["recordings_restored"] == 0 && again["files_restored"] == 0,
        "{again:#}"
    );
    ensure!(again["recordings"] == 3 && again["files_known"] == 12, "{again:#}");
    ensure!(again["stray_count"] == 1, "{again:#}");
    ensure!(library(&server)? == all, "again changes nothing");
    Ok(())
}

#[test]
fn a_library_that_was_lost_is_what_it_was_from_a_folder() -> Result<()> {
    let (_folder, data) = data()?;
    let objects: PathBuf = data.join("objects");
    let url = format!("file://{}", objects.display());
    ensure_rebuilt(setup(&data).record(ALL), &url, || {
        std::fs::create_dir_all(objects.join("127.0.0.1/live/one/x"))?;
        Ok(std::fs::write(objects.join("127.0.0.1/live/one/x/y.flv"), "nobody's")?)
    })
}

#[test]
fn a_library_that_was_lost_is_what_it_was_from_a_bucket() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let (_folder, data) = data()?;
    let url = format!("s3://{BUCKET}/some/where");
    let mut setup = setup(&data).record(ALL).args(&["--objects", &url]);
    for (name, value) in s3.env() {
        setup = setup.env(name, &value).client_env(name, &value);
    }
    ensure_rebuilt(setup, &url, || {
        s3.put("some/where/127.0.0.1/live/one/x/y.flv", "nobody's")
    })
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_restored() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).record(ALL).start()?;
    Pacer::start_for(server.rtmp(), "one", Shape::default(), Some(Duration::from_secs(3)))?.ended()?;
    server.finished("one", 1)?;
    let (flv, hls) = (server.file("one", "flv")?.path, server.file("one", "hls")?.path);
    let objects = server.data().join("objects");
    let server = without_metadata(server)?;
    std::fs::OpenOptions::new().write(true).open(&flv)?.set_len(100)?;
    std::fs::remove_file(hls.with_file_name("000000.ts"))?;
    let url = format!("file://{}", objects.display());
    let said = server.refused(&["recover", "--from-objects", &url])?;
    ensure!(said.contains("has 100 bytes, its recording.json says"), "{said}");
    ensure!(said.contains("000000.ts, which is not there"), "{said}");
    ensure!(said.contains("2 files or recordings were not restored"), "{said}");
    let formats: Vec<String> = server.files("one")?.into_iter().map(|file| file.format).collect();
    ensure!(formats == ["aac", "mp4"], "{formats:?}");
    Ok(())
}
