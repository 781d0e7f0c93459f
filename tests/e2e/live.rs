//! One link plays a recording's HLS while its push goes on, over a break, and afterwards: from a folder and from a bucket.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::programs::{output, text};
use support::publisher::Publisher;
use support::rtmp::VIDEO;
use support::s3::{BUCKET, Kind, S3};
use support::server::Server;
use support::source::{Frame, Numbered, Shape};
use support::wait::{Seen, until};

use crate::{data, setup};

/// Frames of both tracks in one push: some segments.
const FRAMES: usize = 2_000;

/// The link of the stream's only recording.
fn link(server: &Server, stream: &str) -> Result<String> {
    let recordings = server.recordings(stream)?;
    ensure!(recordings.len() == 1, "{recordings:?}");
    let id = recordings[0]["recording_id"].as_str().context("no id")?;
    let found = server.ask(&["recording", "get", id])?;
    Ok(found["hls_url"].as_str().context("no link")?.to_owned())
}

/// The playlist, if there is one yet.
fn playlist(url: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    let answer = output(curl.args(["-s", "--noproxy", "*", "--max-time", "10", url]))?;
    Ok(String::from_utf8(answer.stdout)?)
}

fn send(publisher: &mut Publisher, frames: impl IntoIterator<Item = Frame>) -> Result<usize> {
    let mut pictures = 0;
    for frame in frames {
        let is_header = frame.body.get(1) == Some(&0);
        pictures += usize::from(frame.message_type == VIDEO && !is_header);
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    Ok(pictures)
}

/// A player that begins at the first segment and ends with the playlist; it prints how many pictures it read.
fn player(url: &str) -> Command {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-live_start_index", "0", "-count_packets"]);
    command.args(["-select_streams", "v", "-show_entries", "stream=nb_read_packets"]);
    command.args(["-of", "csv=p=0", url]);
    command.env("no_proxy", "*");
    command
}

fn count(printed: &str) -> Result<usize> {
    let first = printed.lines().next().unwrap_or_default();
    Ok(first.trim_end_matches(',').trim().parse()?)
}

/// Pushes twice, with a player that watches from the middle of the first push on.
fn plays(server: &Server) -> Result<()> {
    server.ask(&["template", "create", "watch", "--hls", "--hls-continue", "8s"])?;
    server.ask(&["rule", "create", "--domain", "127.0.0.1", "--template", "watch"])?;
    let mut publisher = Publisher::start(server.rtmp(), "show")?;
    let mut source = Numbered::new(Shape::default());
    let mut pictures = send(&mut publisher, source.prologue())?;
    pictures += send(&mut publisher, source.by_ref().take(FRAMES / 2))?;
    until(Duration::from_secs(10), "a recording", || {
        Ok(Seen::when(!server.recordings("show")?.is_empty(), "none"))
    })?;
    let url = link(server, "show")?;
    let early = until(Duration::from_secs(20), "a playlist with a segment", || {
        let text = playlist(&url)?;
        Ok(Seen::some(text.contains("#EXTINF").then(|| text.clone()), text))
    })?;
    ensure!(
        early.contains("#EXT-X-PLAYLIST-TYPE:EVENT") && !early.contains("#EXT-X-ENDLIST"),
        "{early}"
    );
    let watching = player(&url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    pictures += send(&mut publisher, source.take(FRAMES / 2))?;
    publisher.finish()?;
    // The stream comes back: in another epoch's folder, and the player goes on with the link that it has.
    let mut publisher = until(Duration::from_secs(10), "a free stream", || {
        Ok(match Publisher::start(server.rtmp(), "show") {
            Ok(publisher) => Seen::Met(publisher),
            Err(refused) => Seen::Not(format!("{refused:#}")),
        })
    })?;
    let again = Numbered::new(Shape::default());
    pictures += send(&mut publisher, again.prologue())?;
    pictures += send(&mut publisher, again.take(FRAMES / 2))?;
    let joined = until(Duration::from_secs(20), "a playlist of both pushes", || {
        let text = playlist(&url)?;
        let folders = |text: &str| {
            let names = text.lines().filter(|line| !line.starts_with('#'));
            names
                .filter_map(|name| Some(name.split_once('/')?.0.to_owned()))
                .collect::<std::collections::BTreeSet<_>>()
                .len()
        };
        Ok(Seen::some((folders(&text) == 2).then(|| text.clone()), text))
    })?;
    ensure!(joined.contains("#EXT-X-DISCONTINUITY"), "{joined}");
    publisher.finish()?;
    let recordings = server.finished("show", 1)?;
    let watched = watching.wait_with_output()?;
    let said = String::from_utf8_lossy(&watched.stderr).into_owned();
    let seen = count(&String::from_utf8(watched.stdout)?).with_context(|| said.clone())?;
    ensure!(seen == pictures, "{seen} of {pictures} pictures while it ran: {said}");
    let after = count(&text(&mut player(&url))?)?;
    ensure!(after == pictures, "{after} of {pictures} pictures afterwards");
    let done = playlist(&url)?;
    ensure!(done.contains("#EXT-X-ENDLIST"), "{done}");
    nothing_else(server, &url, &recordings[0])
}

/// What the link does not open.
fn nothing_else(server: &Server, url: &str, recording: &Value) -> Result<()> {
    let status = |url: &str| -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args([
            "-s",
            "--noproxy",
            "*",
            "--path-as-is",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            url,
        ]);
        text(&mut curl)
    };
    let (folder, _) = url.rsplit_once('/').context("no folder")?;
    for tail in [
        "recording.json",
        "e000001/hls/../../recording.json",
        "e000001/hls/..%2f..%2frecording.json",
        "e000001/mp4/000000.mp4",
        "e000001/hls/999999.ts",
        "e999999/hls/000000.ts",
    ] {
        let found = status(&format!("{folder}/{tail}"))?;
        // Of a bucket, what is not there is found out where the redirect leads.
        ensure!(
            found == "404" || (found == "302" && tail.contains("999999")),
            "{tail}: {found}"
        );
    }
    let id = recording["recording_id"].as_str().context("no id")?;
    for subject in [id.to_owned(), format!("r-{}", "0".repeat(36)), "r-".to_owned()] {
        let other = url.replace(&format!("r-{id}"), &subject);
        ensure!(status(&other)? == "403", "{other}");
    }
    let removed = server.ask(&["file", "list", "--stream", "show"])?;
    let file = removed["files"][0]["file_id"].as_str().context("no file")?;
    server.ask(&["file", "delete", file])?;
    ensure!(status(url)? == "404", "its file was deleted");
    Ok(())
}

#[test]
fn a_recording_plays_by_one_link_from_a_folder() -> Result<()> {
    let (_folder, data) = data()?;
    plays(&setup(&data).start()?)
}

#[test]
fn a_recording_plays_by_one_link_from_a_bucket() -> Result<()> {
    let s3 = S3::start(Kind::JuiceFs)?;
    let (_folder, data) = data()?;
    let mut server = setup(&data).args(&["--objects", &format!("s3://{BUCKET}/tv")]);
    for (name, value) in s3.env() {
        server = server.env(name, &value);
    }
    plays(&server.start()?)
}
