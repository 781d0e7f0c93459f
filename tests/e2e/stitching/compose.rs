//! New files of pieces of stored ones: every unit of what was asked for, each once, whatever formats the pieces have and whoever dies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::clips::{B_FRAMES, Clip, HEAVY, HEVC, LARGER, SHORT_GOP};
use support::faults::{Fault, Proxy};
use support::flv::Tag;
use support::programs::{ffmpeg_new, output};
use support::rtmp::{AUDIO, VIDEO};
use support::server::Server;
use support::wait::{Seen, until};

use super::bench::{Bench, PREFIX, keep, send, tags_of};
use super::one_file::ensure_holds;
use crate::{data, setup};

const LIMIT: Duration = Duration::from_secs(60);

/// A server that records all in the formats that can be joined.
fn world() -> Result<(tempfile::TempDir, Server)> {
    let (folder, data) = data()?;
    let server = setup(&data).start()?;
    let formats = ["--flv", "--mp4", "--hls", "--hls-segments", "fmp4"];
    server.ask(&[&["template", "create", "all"], &formats[..]].concat())?;
    server.ask(&["rule", "create", "--domain", super::DOMAIN, "--template", "all"])?;
    Ok((folder, server))
}

/// Pushes media; gives it as a file to compare with.
fn push(server: &Server, folder: &Path, stream: &str, tags: &[Tag]) -> Result<PathBuf> {
    send(server.rtmp(), "live", stream, tags, 0)?.finish()?;
    server.finished(stream, 1)?;
    let folder = folder.join(stream);
    std::fs::create_dir_all(&folder)?;
    keep(&folder, 0, tags)
}

/// The id of a stream's file of a format.
fn file(server: &Server, stream: &str, format: &str) -> Result<String> {
    let found = server.ask(&["file", "list", "--stream", stream, "--format", format])?;
    let id = found["files"][0]["file_id"].as_str();
    Ok(id
        .with_context(|| format!("no {format} of {stream}: {found:#}"))?
        .to_owned())
}

/// Composes and waits; gives the composition.
fn compose(server: &Server, pieces: &[String], more: &[&str]) -> Result<Value> {
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let words = ["compose", "create", "--name", "joined", "--wait"];
    server.ask(&[&words[..], &pieces, more].concat())
}

/// Where the file of a composition lies, with its record.
fn made(server: &Server, composition: &Value) -> Result<(PathBuf, Value)> {
    ensure!(
        composition["state"] == "finished" && composition["progress"] == 100,
        "{composition:#}"
    );
    let id = composition["file_id"].as_str().context("no file")?;
    let record = server.ask(&["file", "get", id])?;
    let key = record["object_key"].as_str().context("no key")?;
    let path = server.data().join("objects").join(key);
    ensure!(record["size"] == std::fs::metadata(&path)?.len(), "{record:#}");
    Ok((path, record))
}

#[test]
fn recordings_of_any_format_are_joined() -> Result<()> {
    let (folder, server) = world()?;
    let clips: [(&str, &Clip); 2] = [("one", &B_FRAMES), ("two", &LARGER)];
    let mut pushes = Vec::new();
    for (stream, clip) in clips {
        pushes.push(push(&server, folder.path(), stream, &tags_of(clip)?)?);
    }
    // Before there are composed ones.
    let joins = [["flv", "mp4"], ["mp4", "hls"], ["hls", "flv"]].map(|formats| {
        let pieces = [file(&server, "one", formats[0]), file(&server, "two", formats[1])];
        (formats, pieces)
    });
    for (formats, pieces) in joins {
        let pieces: Vec<String> = pieces.into_iter().collect::<Result<_>>()?;
        let (path, record) = made(&server, &compose(&server, &pieces, &[])?)?;
        ensure_holds(&path, &pushes, false).with_context(|| format!("{formats:?}"))?;
        ensure!(record["name"] == "joined.mp4", "{record:#}");
    }
    let mute = compose(&server, &[file(&server, "one", "flv")?], &["--no-audio"])?;
    let (_, record) = made(&server, &mute)?;
    ensure!(
        record["audio_units"] == 0 && record["video_units"].as_u64() > Some(100),
        "{record:#}"
    );
    // It is a recording of its own, which says on its own what it is.
    let recordings = server.ask(&["recording", "list", "--stream", "one"])?;
    let composed = recordings["recordings"].as_array().context("no list")?;
    let composed: Vec<_> = composed.iter().filter(|one| one["cause"] == "composition").collect();
    ensure!(
        composed.len() == 4 && composed.iter().all(|one| one["state"] == "finished"),
        "{recordings:#}"
    );
    Ok(())
}

#[test]
fn a_stitched_recording_in_transport_streams_is_joined() -> Result<()> {
    let (folder, data) = data()?;
    let server = setup(&data).start()?;
    // MPEG-TS, as a template has it that says nothing else.
    server.ask(&["template", "create", "hls", "--hls", "--hls-continue", "5s"])?;
    server.ask(&["rule", "create", "--domain", super::DOMAIN, "--template", "hls"])?;
    let clips: [&Clip; 2] = [&B_FRAMES, &LARGER];
    let mut pushes = Vec::new();
    let media = [tags_of(clips[0])?, tags_of(clips[1])?];
    for (number, tags) in media.iter().enumerate() {
        send(server.rtmp(), "live", "one", tags, 0)?.finish()?;
        pushes.push(keep(folder.path(), number, tags)?);
    }
    server.finished("one", 1)?;
    let id = file(&server, "one", "hls")?;
    let key = server.ask(&["file", "get", &id])?["object_key"].clone();
    let list = server.data().join("objects").join(key.as_str().context("no key")?);
    let list = std::fs::read_to_string(list)?;
    ensure!(
        list.contains("#EXT-X-DISCONTINUITY\n") && list.contains(".ts\n"),
        "{list}"
    );
    pushes.push(push(&server, folder.path(), "two", &media[0])?);
    let pieces = [id.clone(), file(&server, "two", "hls")?];
    let (path, _) = made(&server, &compose(&server, &pieces, &[])?)?;
    ensure_holds(&path, &pushes, false)?;
    let (path, record) = made(&server, &compose(&server, &[id], &["--no-video"])?)?;
    ensure!(
        record["video_units"] == 0 && record["audio_units"].as_u64() > Some(100),
        "{record:#}"
    );
    let sound: Vec<PathBuf> = (0..).zip(&media).map(sound_of(folder.path())).collect::<Result<_>>()?;
    ensure_holds(&path, &sound, false)
}

/// Keeps a push without its pictures.
fn sound_of<'a>(folder: &'a Path) -> impl Fn((usize, &Vec<Tag>)) -> Result<PathBuf> + 'a {
    |(number, tags)| {
        let sound: Vec<Tag> = tags.iter().filter(|tag| tag.tag_type != VIDEO).cloned().collect();
        keep(folder, 10 + number, &sound)
    }
}

#[test]
fn files_of_sound_alone_are_joined() -> Result<()> {
    let (folder, data) = data()?;
    let server = setup(&data).start()?;
    server.ask(&["template", "create", "sound", "--aac"])?;
    server.ask(&["rule", "create", "--domain", super::DOMAIN, "--template", "sound"])?;
    let media = [tags_of(&B_FRAMES)?, tags_of(&LARGER)?];
    let mut pieces = Vec::new();
    for (stream, tags) in ["one", "two"].into_iter().zip(&media) {
        push(&server, folder.path(), stream, tags)?;
        pieces.push(file(&server, stream, "aac")?);
    }
    let (mut expected, mut duration_ms, mut units) = (Vec::new(), 0, 0);
    for piece in &pieces {
        let source = server.ask(&["file", "get", piece])?;
        let key = source["object_key"].as_str().context("no key")?;
        expected.extend(frames(&server.data().join("objects").join(key))?);
        duration_ms += source["duration_ms"].as_u64().context("no duration")?;
        units += source["audio_units"].as_u64().context("no count")?;
    }
    let (path, record) = made(&server, &compose(&server, &pieces, &[])?)?;
    ensure!(units > 200 && record["audio_units"] == units, "{units}: {record:#}");
    ensure!(record["video_units"] == 0, "{record:#}");
    // Such files hold no times: they follow from the frames, which last 21 to 24 ms.
    let lasts = record["duration_ms"].as_u64().context("no duration")?;
    ensure!(lasts.abs_diff(duration_ms) <= 60, "{lasts} of {duration_ms} ms");
    ensure!(frames(&path)? == expected, "the coded bytes are not the same");
    Ok(())
}

/// The coded bytes of a file's sound, one frame behind the other.
fn frames(path: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new(ffmpeg_new());
    command.args(["-v", "error", "-nostdin", "-i"]).arg(path);
    let said = output(command.args([
        "-map",
        "0:a",
        "-c",
        "copy",
        "-bsf:a",
        "aac_adtstoasc",
        "-f",
        "data",
        "-",
    ]))?;
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success() && words.is_empty(), "{}: {words}", path.display());
    Ok(said.stdout)
}

/// The units of a push between two of its key pictures, counted from the first, as a push of their own.
fn between(tags: &[Tag], from: u32, to: u32) -> Vec<Tag> {
    let picture = tags.iter().find(|tag| tag.tag_type == VIDEO && !tag.is_config());
    let zero = picture.map_or(0, |tag| tag.timestamp_ms);
    // What comes before the first picture is the beginning's.
    let from = if from == 0 { 0 } else { zero + from };
    let within = |tag: &&Tag| {
        let media = matches!(tag.tag_type, AUDIO | VIDEO) && !tag.is_config();
        !media || (from..zero + to).contains(&tag.timestamp_ms)
    };
    tags.iter().filter(within).cloned().collect()
}

#[test]
fn pieces_are_cut_at_key_pictures_and_hold_everything_once() -> Result<()> {
    let (folder, server) = world()?;
    let tags = tags_of(&SHORT_GOP)?;
    push(&server, folder.path(), "cut", &tags)?;
    let expected = |spans: &[(u32, u32)]| -> Result<Vec<PathBuf>> {
        let keep =
            |(number, (from, to)): (usize, &(u32, u32))| keep(folder.path(), number, &between(&tags, *from, *to));
        spans.iter().enumerate().map(keep).collect()
    };
    // Key pictures stand so much later than whole seconds of the file.
    let media = |tag: &&Tag| matches!(tag.tag_type, AUDIO | VIDEO) && !tag.is_config();
    let first = |wanted: &dyn Fn(&Tag) -> bool| {
        let times = tags
            .iter()
            .filter(media)
            .filter(|tag| wanted(tag))
            .map(|tag| tag.timestamp_ms);
        times.min().unwrap_or(0)
    };
    let lead = first(&|tag| tag.tag_type == VIDEO) - first(&|_| true);
    // Before there are composed ones.
    let ids = ["flv", "mp4", "hls"].map(|format| (format, file(&server, "cut", format)));
    for (format, id) in ids {
        let id = id?;
        // In the middle of pictures: from the key picture before to the one behind.
        let (path, record) = made(&server, &compose(&server, &[format!("{id}@2500ms..4100ms")], &[])?)?;
        ensure_holds(&path, &expected(&[(2_000, 5_000)])?, false).with_context(|| format.to_owned())?;
        ensure!(
            (2_990..3_050).contains(&record["duration_ms"].as_u64().unwrap_or(0)),
            "{record:#}"
        );
        // One behind the other they are the whole.
        let (three, seven) = (3_000 + lead, 7_000 + lead);
        let pieces = [
            format!("{id}@..{three}ms"),
            format!("{id}@{three}ms..{seven}ms"),
            format!("{id}@{seven}ms.."),
        ];
        let (path, _) = made(&server, &compose(&server, &pieces, &[])?)?;
        let spans = [(0, 3_000), (3_000, 7_000), (7_000, 60_000)];
        ensure_holds(&path, &expected(&spans)?, false).with_context(|| format.to_owned())?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_joined_fails_by_name_and_nothing_is_left() -> Result<()> {
    let (folder, server) = world()?;
    push(&server, folder.path(), "avc", &tags_of(&B_FRAMES)?)?;
    push(&server, folder.path(), "hevc", &tags_of(&HEVC)?)?;
    let pieces = [file(&server, "avc", "mp4")?, file(&server, "hevc", "mp4")?];
    let words = ["compose", "create", "--name", "mix", "--wait", &pieces[0], &pieces[1]];
    let said = server.refused(&words)?;
    ensure!(
        said.contains("not_joinable") && said.contains("codec_changed"),
        "{said}"
    );
    // The file that is gone from storage fails those that wait for it, by name.
    let gone = server.ask(&["file", "get", &pieces[0]])?;
    let key = gone["object_key"].as_str().context("no key")?;
    std::fs::remove_file(server.data().join("objects").join(key))?;
    let said = server.refused(&["compose", "create", "--name", "gone", "--wait", &pieces[0]])?;
    ensure!(said.contains("source_missing"), "{said}");
    let listed = server.ask(&["compose", "list"])?;
    let states: Vec<_> = listed["compositions"].as_array().context("no list")?.iter().collect();
    ensure!(
        states.len() == 2 && states.iter().all(|one| one["state"] == "failed"),
        "{listed:#}"
    );
    let staged = server.data().join("objects/.staging");
    let left: Vec<_> = std::fs::read_dir(&staged).into_iter().flatten().collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_source_cannot_be_deleted_until_its_composition_has_ended() -> Result<()> {
    let bench = Bench::start(&[])?;
    bench.coordinator.ask(&["template", "create", "all", "--flv"])?;
    let rule = ["rule", "create", "--domain", super::DOMAIN, "--template", "all"];
    bench.coordinator.ask(&rule)?;
    let worker = bench.worker().start()?;
    send(worker.rtmp(), "live", "kept", &tags_of(&B_FRAMES)?, 0)?.finish()?;
    bench.finished("kept", 1)?;
    let id = file(&bench.coordinator, "kept", "flv")?;
    // It waits, for nobody is there to make it.
    drop(worker);
    let one = bench.coordinator.ask(&["compose", "create", "--name", "joined", &id])?;
    let composition = one["composition_id"].as_str().context("no id")?;
    let said = bench.coordinator.refused(&["file", "delete", &id])?;
    ensure!(said.contains(composition) && said.contains(&id), "{said}");
    let _worker = bench.worker().start()?;
    until(LIMIT, "the end of the composition", || {
        let one = bench.coordinator.ask(&["compose", "get", composition])?;
        Ok(Seen::when(one["state"] == "finished", one.to_string()))
    })?;
    bench.coordinator.ask(&["file", "delete", &id])?;
    Ok(())
}

/// Kills the worker that composes at the `step`th write of the new file.
fn killed_at(step: u64) -> Result<()> {
    let bench = Bench::start(&[
        "coordinator.heartbeat=300ms",
        "coordinator.worker_timeout=2s",
        "coordinator.offline_timeout=4s",
    ])?;
    bench.coordinator.ask(&["template", "create", "all", "--flv"])?;
    let rule = ["rule", "create", "--domain", super::DOMAIN, "--template", "all"];
    bench.coordinator.ask(&rule)?;
    let writes = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for _ in 0..2 {
        let proxy = Proxy::start(bench.s3.endpoint())?;
        let worker = bench.worker_through(&proxy.endpoint()).start()?;
        let (pid, seen) = (worker.pid().to_string(), Arc::clone(&writes));
        proxy.set(move |line, _| {
            let of_file = line.contains("/mp4/") && (line.starts_with("PUT") || line.starts_with("POST"));
            if !of_file || seen.fetch_add(1, Ordering::SeqCst) != step {
                return Fault::None;
            }
            // It cannot fail: the process is this test's own.
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
            Fault::Cut
        });
        workers.push((worker, proxy));
    }
    let stream = "killed";
    let (media, folder) = (tags_of(&HEAVY)?, bench.path("pushes")?);
    let mut pushes = Vec::new();
    for number in 0..2 {
        pushes.push(keep(&folder, number, &media)?);
        let rtmp = workers.first().context("no worker")?.0.rtmp();
        send(rtmp, "live", stream, &media, 0)?.finish()?;
        bench.finished(stream, number + 1)?;
    }
    let listed = bench.coordinator.ask(&["file", "list", "--stream", stream])?;
    let mut ids: Vec<&str> = Vec::new();
    for found in listed["files"].as_array().context("no files")?.iter().rev() {
        ids.push(found["file_id"].as_str().context("no id")?);
    }
    let words = ["compose", "create", "--name", "joined", "--wait"];
    let one = bench.coordinator.ask(&[&words[..], &ids].concat())?;
    ensure!(writes.load(Ordering::SeqCst) > step, "the moment never came: {one:#}");
    ensure!(one["attempts"] == 2 && one["state"] == "finished", "{one:#}");
    let id = one["file_id"].as_str().context("no file")?;
    let record = bench.coordinator.ask(&["file", "get", id])?;
    let key = record["object_key"].as_str().context("no key")?;
    let (_, below) = key.split_once("/killed/").context("a key without the stream")?;
    ensure_holds(&bench.fetch("live", stream)?.join(below), &pushes, false)?;
    until(LIMIT, "nothing left of the first attempt", || {
        let keys = bench.s3.keys(&format!("{PREFIX}{}/live/{stream}/", super::DOMAIN))?;
        let files = keys.iter().filter(|key| key.ends_with(".mp4")).count();
        let uploads = bench.s3.uploads()?;
        Ok(Seen::when(
            files == 1 && uploads.is_empty(),
            format!("{keys:?} {uploads:?}"),
        ))
    })
}

#[test]
fn killed_in_the_middle_of_it_another_worker_makes_the_file() -> Result<()> {
    killed_at(1)
}

#[test]
fn killed_at_its_end_another_worker_makes_the_file() -> Result<()> {
    killed_at(3)
}
