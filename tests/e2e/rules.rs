//! Templates and rules by the command line: which rule wins, what is frozen, what is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::publisher::Publisher;
use support::server::Server;
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};
use tempfile::TempDir;

use crate::{data, recording, setup};

const DOMAIN: &str = "push.example.com";

fn bare() -> Result<(TempDir, Server)> {
    let (folder, data) = data()?;
    let server = setup(&data).start()?;
    Ok((folder, server))
}

fn start(server: &Server, app: &str, stream: &str) -> Result<Publisher> {
    let mut publisher = Publisher::start_at(server.rtmp(), &format!("{app}?domain={DOMAIN}"), stream)?;
    let source = Numbered::new(Shape {
        gop_frames: 5,
        ..Shape::default()
    });
    for frame in source.prologue().into_iter().chain(source.take(60)) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    Ok(publisher)
}

/// Pushes a moment of media and returns the formats it was recorded in, once that is settled.
fn formats_of(server: &Server, app: &str, stream: &str) -> Result<BTreeSet<String>> {
    let before = server.recordings(stream)?.len();
    let publisher = start(server, app, stream)?;
    until(Duration::from_secs(10), "the stream in the list", || {
        let streams = server.streams()?;
        Ok(Seen::when(
            streams.iter().any(|live| live["stream"]["stream"] == stream),
            format!("{streams:?}"),
        ))
    })?;
    publisher.finish()?;
    until(Duration::from_secs(20), "the stream's end", || {
        let streams = server.streams()?;
        Ok(Seen::when(
            streams.iter().all(|live| live["stream"]["stream"] != stream),
            format!("{streams:?}"),
        ))
    })?;
    let count = server.recordings(stream)?.len();
    if count == before {
        return Ok(BTreeSet::new());
    }
    let newest = server
        .finished(stream, count)?
        .into_iter()
        .next()
        .context("no recording")?;
    let id = newest["recording_id"].as_str().context("no id")?.to_owned();
    Ok(server
        .files(stream)?
        .into_iter()
        .filter(|file| file.record["recording_id"] == id.as_str())
        .map(|file| file.format)
        .collect())
}

fn set(formats: &[&str]) -> BTreeSet<String> {
    formats.iter().map(|&format| format.to_owned()).collect()
}

#[test]
fn the_most_specific_rule_wins() -> Result<()> {
    let (_folder, server) = bare()?;
    let key = ["--domain", DOMAIN];
    for (template, format) in [
        ("all", "--flv"),
        ("app", "--mp4"),
        ("stream", "--hls"),
        ("both", "--aac"),
    ] {
        server.ask(&["template", "create", template, format])?;
    }
    let rule = |verb: &str, more: &[&str], template: &str| -> Result<Value> {
        let mut words = vec!["rule", verb];
        words.extend(key);
        words.extend(more);
        if verb == "create" {
            words.extend(["--template", template]);
        }
        server.ask(&words)
    };
    ensure!(
        formats_of(&server, "live", "one")?.is_empty(),
        "recorded without a rule"
    );
    let steps: [(&[&str], &str, &str); 4] = [
        (&[], "all", "flv"),
        (&["--app", "live"], "app", "mp4"),
        (&["--stream", "one"], "stream", "hls"),
        (&["--app", "live", "--stream", "one"], "both", "aac"),
    ];
    for (more, template, format) in steps {
        rule("create", more, template)?;
        ensure!(
            formats_of(&server, "live", "one")? == set(&[format]),
            "after the rule for {template}"
        );
        let said = server.ask(&["recording", "explain", &format!("{DOMAIN}/live/one")])?;
        let text = serde_json::to_string(&said)?;
        ensure!(
            text.contains(&format!("\"{template}\"")),
            "the explanation does not name {template}: {said:#}"
        );
    }
    ensure!(
        formats_of(&server, "other", "two")? == set(&["flv"]),
        "another application"
    );
    ensure!(
        formats_of(&server, "other", "one")? == set(&["hls"]),
        "the stream's name in another application"
    );
    rule("delete", &["--app", "live", "--stream", "one"], "")?;
    ensure!(
        formats_of(&server, "live", "one")? == set(&["hls"]),
        "after the deletion"
    );
    Ok(())
}

#[test]
fn a_template_without_formats_records_nothing_and_beats_the_built_in_rule() -> Result<()> {
    let (_folder, server) = recording("flv")?;
    ensure!(
        formats_of(&server, "live", "one")? == set(&["flv"]),
        "the built-in rule"
    );
    server.ask(&["template", "create", "never"])?;
    server.ask(&["rule", "create", "--domain", DOMAIN, "--template", "never"])?;
    ensure!(
        formats_of(&server, "live", "one")?.is_empty(),
        "recorded against its rule"
    );
    let said = server.ask(&["stream", "explain", &format!("{DOMAIN}/live/one")])?;
    ensure!(serde_json::to_string(&said)?.contains("never"), "{said:#}");
    Ok(())
}

#[test]
fn settings_freeze_when_the_publish_starts() -> Result<()> {
    let (_folder, server) = bare()?;
    server.ask(&["template", "create", "t", "--flv"])?;
    server.ask(&["rule", "create", "--domain", DOMAIN, "--template", "t"])?;
    let publisher = start(&server, "live", "one")?;
    until(Duration::from_secs(10), "the recording", || {
        Ok(Seen::when(!server.recordings("one")?.is_empty(), "no recording"))
    })?;
    server.ask(&["template", "update", "t", "--mp4"])?;
    publisher.finish()?;
    server.finished("one", 1)?;
    let formats: Vec<String> = server.files("one")?.into_iter().map(|file| file.format).collect();
    ensure!(formats == ["flv"], "{formats:?}");
    ensure!(
        formats_of(&server, "live", "one")? == set(&["mp4"]),
        "the next publish has the new settings"
    );
    Ok(())
}

#[test]
fn what_is_wrong_is_refused_with_a_reason() -> Result<()> {
    let (_folder, server) = bare()?;
    server.ask(&["template", "create", "used", "--flv"])?;
    server.ask(&["rule", "create", "--domain", DOMAIN, "--template", "used"])?;
    let cases: [(&[&str], &str); 8] = [
        (&["template", "delete", "used"], DOMAIN),
        (&["template", "create", "used", "--mp4"], "used"),
        (&["rule", "create", "--domain", DOMAIN, "--template", "used"], DOMAIN),
        (
            &["rule", "create", "--domain", "b.example", "--template", "missing"],
            "missing",
        ),
        (&["template", "create", "fast", "--mp4", "--interval", "29s"], "30"),
        (&["template", "create", "no good", "--mp4"], "name"),
        (&["rule", "delete", "--domain", "c.example"], "c.example"),
        (&["template", "get", "missing"], "missing"),
    ];
    for (words, reason) in cases {
        let said = server.refused(words)?;
        ensure!(
            said.contains(reason),
            "{words:?} is refused without naming {reason}: {said}"
        );
    }
    server.ask(&["rule", "delete", "--domain", DOMAIN])?;
    server.ask(&["template", "delete", "used"])?;
    Ok(())
}

#[test]
fn there_are_at_most_fifty_of_each_and_they_outlive_a_kill() -> Result<()> {
    let (_folder, server) = bare()?;
    for index in 0..50 {
        let name = format!("t{index}");
        server.ask(&["template", "create", &name, "--flv"])?;
        server.ask(&[
            "rule",
            "create",
            "--domain",
            &format!("d{index}.example"),
            "--template",
            &name,
        ])?;
    }
    let said = server.refused(&["template", "create", "t50", "--flv"])?;
    ensure!(said.contains("50"), "{said}");
    let said = server.refused(&["rule", "create", "--domain", "d50.example", "--template", "t0"])?;
    ensure!(said.contains("50"), "{said}");
    let server = server.kill()?.start()?;
    let listed = serde_json::to_string(&server.ask(&["rule", "list"])?)?;
    ensure!(
        (0..50).all(|index| listed.contains(&format!("\"d{index}.example\""))),
        "{listed}"
    );
    Ok(())
}
