//! Stream names of every kind: legal ones are kept as they are and made safe in paths, illegal ones are refused.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use support::publisher::Publisher;
use support::server::Server;
use support::source::{Numbered, Shape};

use crate::recording;

/// Sends half a second and ends the publish.
fn push(mut publisher: Publisher) -> Result<()> {
    let source = Numbered::new(Shape {
        gop_frames: 5,
        ..Shape::default()
    });
    for frame in source.prologue().into_iter().chain(source.take(40)) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    publisher.finish()
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?)
        } else {
            found.push(path)
        }
    }
    Ok(found)
}

/// The server's folder holds its data directory and its log.
fn ensure_nothing_outside(folder: &Path, server: &Server) -> Result<()> {
    let mut outside = files_below(folder)?;
    outside.retain(|path| !path.starts_with(server.data()) && path.extension().is_none_or(|e| e != "log"));
    ensure!(outside.is_empty(), "files outside the data directory: {outside:?}");
    Ok(())
}

#[test]
fn legal_names_are_kept_and_made_safe_in_paths() -> Result<()> {
    let (folder, server) = recording("flv")?;
    let names = [
        "plain",
        "with/slash",
        "with space",
        "ümläut-日本語",
        "emoji-🎥",
        "a.b.c",
        "per%2Fcent",
        "tilde~colon:star*",
    ];
    for name in names {
        push(Publisher::start(server.rtmp(), name).with_context(|| format!("publishing {name:?}"))?)?;
        server.finished(name, 1).with_context(|| format!("{name:?}"))?;
        let file = server.file(name, "flv")?;
        ensure!(
            file.path.starts_with(server.data().join("objects")),
            "{name:?} lies in {}",
            file.path.display()
        );
        ensure!(
            file.record["stream"]["stream"] == name,
            "{name:?} is called {}",
            file.record["stream"]
        );
    }
    ensure_nothing_outside(folder.path(), &server)
}

#[test]
fn illegal_names_are_refused_with_a_reason() -> Result<()> {
    let (folder, mut server) = recording("flv")?;
    let long = "x".repeat(4096);
    for name in ["", ".", "..", "nul\0byte", "line\nbreak", &long] {
        let refusal = Publisher::start(server.rtmp(), name).err();
        let refusal = refusal.with_context(|| format!("{:?} was accepted", &name[..name.len().min(40)]))?;
        let words = format!("{refusal:#}");
        ensure!(
            words.contains("NetStream.Publish"),
            "{:?}: {words}",
            &name[..name.len().min(40)]
        );
    }
    ensure!(server.running()?, "the server has ended");
    // Taken or refused: nothing may come to lie outside.
    for name in [
        "../../escape",
        "a/../../../escape",
        "/escape",
        "..\\escape",
        "%2e%2e/escape",
    ] {
        if let Ok(publisher) = Publisher::start(server.rtmp(), name) {
            push(publisher)?;
            server.finished(name, 1)?;
            let path = server.file(name, "flv")?.path;
            ensure!(
                path.canonicalize()?
                    .starts_with(server.data().join("objects").canonicalize()?),
                "{}",
                path.display()
            );
        }
    }
    ensure_nothing_outside(folder.path(), &server)
}

#[test]
fn query_parameters_and_the_push_domain_are_understood() -> Result<()> {
    let (_folder, server) = recording("flv")?;
    push(Publisher::start_at(
        server.rtmp(),
        "live?domain=push.example.com",
        "one?txSecret=abc&txTime=5F000000",
    )?)?;
    let recording = server.finished("one", 1)?.pop().context("no recording")?;
    ensure!(recording["stream"]["domain"] == "push.example.com", "{recording}");
    ensure!(recording["stream"]["app"] == "live", "{recording}");
    let params = recording["params"].as_str().unwrap_or_default();
    ensure!(
        params.contains("txSecret=abc") && params.contains("txTime=5F000000"),
        "{params:?}"
    );
    push(Publisher::start(server.rtmp(), "two")?)?;
    let recording = server.finished("two", 1)?.pop().context("no recording")?;
    ensure!(recording["stream"]["domain"] == "127.0.0.1", "{recording}");
    Ok(())
}
