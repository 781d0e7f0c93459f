//! A push that breaks up is one HLS recording, if its stream comes back in time: whatever happened to the process meanwhile.

mod bench;
mod checks;
mod compose;
mod matrix;
mod one_file;
mod rolling;
mod tasks;
mod workers;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::frames::Frames;
use support::pacer::Pacer;
use support::programs::{reader, text};
use support::publisher::Publisher;
use support::rtmp::VIDEO;
use support::server::{MediaFile, Server};
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use crate::{data, setup};

/// What publishers' streams are recorded under by default.
const DOMAIN: &str = "127.0.0.1";
const SHAPE: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 400_000,
    audio_bits_per_second: 64_000,
    b_frames: true,
};
/// Frames of both tracks in one push.
const FRAMES: usize = 150;
/// They are sent faster than they last: the next push may arrive before the one before it would have been over.
const FASTER: [&str; 2] = ["--overlap-ms", "3000"];

/// Has every stream recorded as HLS and FLV, and waited for.
fn wait_for_streams(server: &Server, window: &str) -> Result<()> {
    let template = [
        "template",
        "create",
        "watch",
        "--hls",
        "--hls-continue",
        window,
        "--flv",
    ];
    server.ask(&template)?;
    server.ask(&["rule", "create", "--domain", DOMAIN, "--template", "watch"])?;
    Ok(())
}

/// Pushes [`FRAMES`] as fast as the server takes them; gives how many of them are pictures.
fn push(server: &Server, stream: &str) -> Result<usize> {
    let mut publisher = until(Duration::from_secs(10), "a free stream", || {
        Ok(match Publisher::start(server.rtmp(), stream) {
            Ok(publisher) => Seen::Met(publisher),
            Err(refused) => Seen::Not(format!("{refused:#}")),
        })
    })?;
    let source = Numbered::new(SHAPE);
    let mut pictures = 0;
    for frame in source.prologue() {
        publisher.send(frame.message_type, 0, &frame.body)?;
    }
    for frame in source.take(FRAMES) {
        pictures += usize::from(frame.message_type == VIDEO);
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    publisher.finish()?;
    Ok(pictures)
}

/// Waits until the stream's only recording waits for its stream, with everything of it in storage.
fn interrupted(server: &Server, stream: &str) -> Result<String> {
    let recording = until(Duration::from_secs(20), "an interrupted recording", || {
        let recordings = server.recordings(stream)?;
        let waits = recordings.len() == 1 && recordings[0]["state"] == "interrupted";
        Ok(Seen::some(
            waits.then(|| recordings[0].clone()),
            format!("{recordings:?}"),
        ))
    })?;
    Ok(recording["recording_id"].as_str().context("no id")?.to_owned())
}

/// That the stream is one recording, whose list holds every push's pictures, each once and in order, and that it is sound.
fn ensure_one(server: &Server, stream: &str, pushes: &[usize]) -> Result<()> {
    let recordings = server.finished(stream, 1)?;
    ensure!(
        recordings.len() == 1,
        "{} recordings: {recordings:#?}",
        recordings.len()
    );
    let files = server.files(stream)?;
    let of = |format: &str| files.iter().filter(|f| f.format == format).cloned().collect::<Vec<_>>();
    let (lists, flvs) = (of("hls"), of("flv"));
    ensure!(lists.len() == 1 && flvs.len() == pushes.len(), "{files:#?}");
    let list = lists.first().context("no list")?;
    let frames = Frames::of(list)?;
    let numbers: Vec<u64> = frames.video.iter().map(|frame| frame.number).collect();
    let sent: Vec<u64> = pushes.iter().flat_map(|count| 0..*count as u64).collect();
    ensure!(numbers == sent, "{stream}: pictures {numbers:?} of {pushes:?}");
    ensure!(list.record["video_units"] == sent.len(), "{:#}", list.record);
    let gaps = list.record["gaps"].as_array().map_or(0, Vec::len);
    ensure!(
        gaps + 1 == pushes.len(),
        "each interruption is named: {:#}",
        list.record
    );
    ensure_sound(list, pushes.len() - 1)?;
    for (flv, count) in Frames::of_all(&flvs)?.iter().zip(pushes) {
        ensure!(
            flv.video.len() == *count,
            "{} pictures of {count} in an FLV file",
            flv.video.len()
        );
    }
    ensure_documented(server, stream, &recordings[0], files.len(), pushes.len())
}

fn ensure_sound(list: &MediaFile, breaks: usize) -> Result<()> {
    text(reader("hls_check.py").args(FASTER).arg(&list.path))?;
    let playlist = std::fs::read_to_string(&list.path)?;
    let found = playlist.matches("#EXT-X-DISCONTINUITY\n").count();
    ensure!(found == breaks, "{found} discontinuities, not {breaks}:\n{playlist}");
    ensure!(playlist.contains("PLAYLIST-TYPE:VOD"), "{playlist}");
    Ok(())
}

/// That `recording.json` says so on its own.
fn ensure_documented(
    server: &Server,
    stream: &str,
    recording: &serde_json::Value,
    files: usize,
    pushes: usize,
) -> Result<()> {
    let id = recording["recording_id"].as_str().context("no id")?;
    let folder = server.data().join("objects").join(DOMAIN).join("live").join(stream);
    let said: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join(id).join("recording.json"))?)?;
    let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
    ensure!(said["recording"]["state"] == "finished", "{said:#}");
    ensure!(count(&said["files"]) == files, "{files} files: {said:#}");
    ensure!(
        count(&said["recording"]["publishes"]) == pushes,
        "{pushes} publishes: {said:#}"
    );
    Ok(())
}

#[test]
fn a_push_that_breaks_up_is_one_recording() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    wait_for_streams(&server, "6s")?;
    let streams: [(&str, usize); 4] = [("never", 0), ("once", 1), ("twice", 2), ("often", 20)];
    let pushed: Result<Vec<(&str, Vec<usize>)>> = std::thread::scope(|scope| {
        let server = &server;
        let one = |(stream, interruptions): (&'static str, usize)| {
            scope.spawn(move || {
                let pushes: Result<Vec<usize>> = (0..=interruptions).map(|_| push(server, stream)).collect();
                Ok((stream, pushes?))
            })
        };
        let threads = streams.map(one);
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(&'static str, Vec<usize>)>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))?
        };
        threads.into_iter().map(join).collect()
    });
    for (stream, pushes) in pushed? {
        ensure_one(&server, stream, &pushes)?;
    }
    Ok(())
}

#[test]
fn a_stream_that_comes_back_too_late_is_another_recording() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    wait_for_streams(&server, "1s")?;
    let first = push(&server, "late")?;
    ensure_one(&server, "late", &[first])?;
    push(&server, "late")?;
    let recordings = server.finished("late", 2)?;
    ensure!(recordings.len() == 2, "{recordings:#?}");
    Ok(())
}

#[test]
fn killed_in_the_interruption_it_goes_on_after_the_restart() -> Result<()> {
    let (_folder, data) = data()?;
    let start = setup(&data);
    let server = start.start()?;
    wait_for_streams(&server, "25s")?;
    let first = push(&server, "one")?;
    let id = interrupted(&server, "one")?;
    server.kill()?;
    let server = start.start()?;
    let second = push(&server, "one")?;
    ensure!(interrupted(&server, "one")? == id, "another recording");
    let index = data
        .join("objects")
        .join(DOMAIN)
        .join("live/one")
        .join(&id)
        .join("e000002/hls/index.m3u8");
    text(reader("hls_check.py").args(FASTER).arg("--running").arg(&index))
        .context("it can be watched while it waits")?;
    ensure_one(&server, "one", &[first, second])
}

#[test]
fn its_time_runs_out_while_the_process_is_down() -> Result<()> {
    let (_folder, data) = data()?;
    let start = setup(&data);
    let server = start.start()?;
    wait_for_streams(&server, "3s")?;
    let first = push(&server, "one")?;
    server.kill()?;
    // The clock goes on while nothing runs: that is what this tests.
    std::thread::sleep(Duration::from_secs(4));
    let server = start.start()?;
    ensure_one(&server, "one", &[first])?;
    push(&server, "one")?;
    ensure!(server.finished("one", 2)?.len() == 2, "too late to go on");
    Ok(())
}

#[test]
fn killed_in_a_push_it_goes_on_with_the_next() -> Result<()> {
    let (_folder, data) = data()?;
    let start = setup(&data);
    let server = start.start()?;
    wait_for_streams(&server, "20s")?;
    let pacer = Pacer::start(server.rtmp(), "one", SHAPE)?;
    until(Duration::from_secs(20), "a recording", || {
        let recordings = server.recordings("one")?;
        Ok(Seen::when(recordings.len() == 1, format!("{recordings:?}")))
    })?;
    server.kill()?;
    pacer.ended()?;
    let server = start.start()?;
    let second = push(&server, "one")?;
    let recordings = server.finished("one", 1)?;
    ensure!(recordings.len() == 1, "{recordings:#?}");
    let list = server.file("one", "hls")?;
    let numbers: Vec<u64> = Frames::of(&list)?.video.iter().map(|frame| frame.number).collect();
    let cut = numbers
        .len()
        .checked_sub(second)
        .context("the second push is not all there")?;
    let each_once = |part: &[u64]| part.iter().copied().eq(0..part.len() as u64);
    ensure!(each_once(&numbers[..cut]) && each_once(&numbers[cut..]), "{numbers:?}");
    ensure_sound(&list, usize::from(cut > 0))?;
    ensure!(journals(&data)? == 0, "a journal is left");
    Ok(())
}

/// Where the index of a recording's first push lies.
fn first_index(server: &Server, stream: &str, id: &str) -> std::path::PathBuf {
    let folder = server.data().join("objects").join(DOMAIN).join("live").join(stream);
    folder.join(id).join("e000001/hls/index.m3u8")
}

#[test]
fn an_index_that_cannot_be_read_is_waited_for_and_not_dropped() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    wait_for_streams(&server, "4s")?;
    let first = push(&server, "one")?;
    let id = interrupted(&server, "one")?;
    let index = first_index(&server, "one", &id);
    let text = std::fs::read_to_string(&index)?;
    let newer = text.replace("\"version\":1", "\"version\":2");
    ensure!(newer != text, "{text}");
    std::fs::write(&index, newer)?;
    until(Duration::from_secs(20), "a word on the index", || {
        let said = server.log().contains("cannot be read by this version");
        Ok(Seen::when(said, "nothing in the log"))
    })?;
    ensure!(interrupted(&server, "one")? == id, "it has ended without its list");
    std::fs::write(&index, text)?;
    ensure_one(&server, "one", &[first])
}

#[test]
fn an_index_that_is_gone_is_a_named_gap() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    wait_for_streams(&server, "4s")?;
    push(&server, "one")?;
    let id = interrupted(&server, "one")?;
    std::fs::remove_file(first_index(&server, "one", &id))?;
    let recordings = server.finished("one", 1)?;
    let gaps = recordings[0]["gaps"].as_array().context("no gaps")?;
    ensure!(
        gaps.iter().any(|gap| gap["reason"] == "index_missing"),
        "{:#}",
        recordings[0]
    );
    ensure!(server.file("one", "flv").is_ok(), "what else was recorded is there");
    Ok(())
}

fn journals(data: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(data.join("journal"))?.count())
}
