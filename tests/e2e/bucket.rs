//! What lies in the bucket: `recording.json` accounts for every byte there, and a running recording can be watched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::frames::{Frames, ensure_unbroken, segments};
use support::pacer::Pacer;
use support::publisher::Publisher;
use support::server::Server;
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use crate::{ALL, recording};

/// CRC-64/NVME, bit by bit: what `crc64nvme:` in a record means.
fn crc64nvme(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x9A6C_9329_AC4B_C9B5
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

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

/// That the recording of a stream is all that its folder holds, as its own document says.
fn ensure_accounted_for(server: &Server, stream: &str) -> Result<()> {
    let files = server.files(stream)?;
    let first = files.first().context("no files")?;
    let objects = server.data().join("objects");
    let id = first.record["recording_id"].as_str().context("no recording id")?;
    let folder = objects.join("127.0.0.1/live").join(stream).join(id);
    let document: Value = serde_json::from_slice(&std::fs::read(folder.join("recording.json"))?)?;
    ensure!(
        document["recording"]["state"] == "finished",
        "{:#}",
        document["recording"]
    );

    let mut expected = vec![folder.join("recording.json")];
    let listed = document["files"].as_array().context("no files in the document")?;
    ensure!(
        listed.len() == files.len(),
        "{} files in the document, {} in the library",
        listed.len(),
        files.len()
    );
    for (said, frames) in listed.iter().zip(frames_of(listed, &objects)?) {
        let path = objects.join(said["object_key"].as_str().context("no key")?);
        let bytes = std::fs::read(&path)?;
        let mut size = bytes.len() as u64;
        if said["format"] == "hls" {
            for segment in segments(&path)? {
                size += std::fs::metadata(&segment)?.len();
                expected.push(segment);
            }
        }
        ensure!(
            said["size"] == size,
            "{} has {size} bytes, the document says {}",
            path.display(),
            said["size"]
        );
        let sum = format!("crc64nvme:{:016x}", crc64nvme(&bytes));
        ensure!(
            said["checksum"] == sum.as_str(),
            "{} is {sum}, the document says {}",
            path.display(),
            said["checksum"]
        );
        let (video, audio) = (frames.video.len(), frames.audio.len());
        let sound_only = said["format"] == "aac";
        ensure!(
            sound_only || said["video_units"] == video,
            "{video} pictures in {}: {said:#}",
            path.display()
        );
        ensure!(
            said["audio_units"] == audio,
            "{audio} audio frames in {}: {said:#}",
            path.display()
        );
        expected.push(path);
    }
    let (mut there, mut expected) = (files_below(&folder)?, expected);
    there.sort();
    expected.sort();
    ensure!(
        there == expected,
        "in the folder: {there:#?}\naccounted for: {expected:#?}"
    );
    Ok(())
}

fn frames_of(listed: &[Value], objects: &Path) -> Result<Vec<Frames>> {
    let files: Result<Vec<_>> = listed
        .iter()
        .map(|said| {
            Ok(support::server::MediaFile {
                format: said["format"].as_str().context("no format")?.to_owned(),
                sequence: 0,
                path: objects.join(said["object_key"].as_str().context("no key")?),
                record: said.clone(),
            })
        })
        .collect();
    Frames::of_all(&files?)
}

#[test]
fn the_document_accounts_for_every_byte() -> Result<()> {
    let (_folder, server) = recording(ALL)?;
    Pacer::start_for(server.rtmp(), "one", Shape::default(), Some(Duration::from_secs(3)))?.ended()?;
    server.finished("one", 1)?;
    ensure_accounted_for(&server, "one")
}

#[test]
fn the_document_accounts_for_every_byte_after_a_kill() -> Result<()> {
    let (_folder, server) = recording(ALL)?;
    let pacer = Pacer::start(server.rtmp(), "one", Shape::default())?;
    until(Duration::from_secs(20), "three seconds of media", || {
        let streams = server.streams()?;
        let units = streams
            .first()
            .and_then(|stream| stream["video_units"].as_u64())
            .unwrap_or(0);
        Ok(Seen::when(units > 90, format!("{streams:?}")))
    })?;
    let setup = server.kill()?;
    pacer.ended()?;
    let server = setup.start()?;
    server.finished("one", 1)?;
    ensure_accounted_for(&server, "one")
}

#[test]
fn a_running_recording_can_be_watched() -> Result<()> {
    let (_folder, server) = recording("hls")?;
    let mut publisher = Publisher::start(server.rtmp(), "one")?;
    let source = Numbered::new(Shape::default());
    for frame in source
        .prologue()
        .into_iter()
        .chain(source.take_while(|frame| frame.dts_ms < 27_000))
    {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    let objects = server.data().join("objects");
    let (path, text) = until(Duration::from_secs(30), "a playlist of three segments", || {
        let found = files_below(&objects)?
            .into_iter()
            .find(|path| path.ends_with("index.m3u8"));
        let read = found
            .map(|path| Ok::<_, std::io::Error>((std::fs::read_to_string(&path)?, path)))
            .transpose()?;
        Ok(match read {
            Some((text, path)) if text.matches("#EXTINF").count() >= 3 => Seen::Met((path, text)),
            other => Seen::Not(format!("{other:?}")),
        })
    })?;
    ensure!(text.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n"), "{text}");
    ensure!(!text.contains("#EXT-X-ENDLIST"), "{text}");
    let folder = path.parent().context("no folder")?;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        ensure!(
            folder.join(line).is_file(),
            "the playlist names {line} before it is there"
        );
    }
    publisher.finish()?;
    server.finished("one", 1)?;
    let end = std::fs::read_to_string(&path)?;
    ensure!(
        end.contains("#EXT-X-PLAYLIST-TYPE:VOD\n") && end.ends_with("#EXT-X-ENDLIST\n"),
        "{end}"
    );
    let segments = |text: &str| {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    ensure!(
        segments(&end).starts_with(&segments(&text)),
        "what was listed is listed no more:\n{end}"
    );
    ensure_unbroken(&Frames::of(&server.file("one", "hls")?)?.video, "pictures")
}
