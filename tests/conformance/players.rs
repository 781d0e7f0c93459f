//! Programs that people play recordings with: ffmpeg decodes every file without one warning, Chromium plays the playlist
//! to its end, a strict parser finds it in order.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::clips::{AUDIO_ONLY, B_FRAMES, Clip, HEVC, LONG_GOP, MP3, OPEN_GOP, VARIABLE_RATE, VIDEO_ONLY};
use support::frames::segments;
use support::programs::{ffmpeg, ffmpeg_new, output, root, text};
use support::server::{MediaFile, Server};

use crate::recorded;

/// Decodes all of a file; what ffmpeg says about it is a fault.
fn ensure_decodes(program: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(["-v", "warning", "-nostdin", "-xerror"])
        .arg("-i")
        .arg(file);
    let said = output(command.args(["-map", "0", "-f", "null", "-"]))?;
    let words = String::from_utf8_lossy(&said.stderr);
    // Raw ADTS and MP3 have no place for a duration; that is no fault of the file.
    let faults = words
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.contains("Estimating duration from bitrate"));
    ensure!(
        faults.count() == 0,
        "{} decoding {}:\n{words}",
        program.display(),
        file.display()
    );
    Ok(())
}

fn ensure_all_decode(clip: &Clip) -> Result<()> {
    let (_folder, server) = recorded(clip)?;
    let files = server.files(clip.name)?;
    ensure!(!files.is_empty(), "no files");
    for file in &files {
        ensure_decodes(&ffmpeg_new(), &file.path)?;
        // Debian's ffmpeg takes enhanced RTMP's FLV for something else; its own MP4 and TS readers know HEVC.
        if !(clip.new && file.format == "flv") {
            ensure_decodes(&ffmpeg(), &file.path)?;
        }
    }
    Ok(())
}

#[test]
fn ffmpeg_decodes_b_frames_without_a_warning() -> Result<()> {
    ensure_all_decode(&B_FRAMES)
}

#[test]
fn ffmpeg_decodes_variable_rate_without_a_warning() -> Result<()> {
    ensure_all_decode(&VARIABLE_RATE)
}

#[test]
fn ffmpeg_decodes_open_gops_without_a_warning() -> Result<()> {
    ensure_all_decode(&OPEN_GOP)
}

#[test]
fn ffmpeg_decodes_long_gops_without_a_warning() -> Result<()> {
    ensure_all_decode(&LONG_GOP)
}

#[test]
fn ffmpeg_decodes_hevc_without_a_warning() -> Result<()> {
    ensure_all_decode(&HEVC)
}

#[test]
fn ffmpeg_decodes_sound_alone_without_a_warning() -> Result<()> {
    ensure_all_decode(&AUDIO_ONLY)
}

#[test]
fn ffmpeg_decodes_pictures_alone_without_a_warning() -> Result<()> {
    ensure_all_decode(&VIDEO_ONLY)
}

#[test]
fn ffmpeg_decodes_mp3_without_a_warning() -> Result<()> {
    ensure_all_decode(&MP3)
}

fn playlist(server: &Server, stream: &str) -> Result<MediaFile> {
    server.file(stream, "hls")
}

fn ensure_plays(clip: &Clip, player: &str) -> Result<()> {
    let (_folder, server) = recorded(clip)?;
    let file = playlist(&server, clip.name)?;
    let folder = file.path.parent().context("a playlist without a folder")?;
    let name = file
        .path
        .file_name()
        .context("a playlist without a name")?
        .to_string_lossy();
    let said = support::browser::play(folder, &format!("playlist={name}&rate=4&with={player}"))?;
    ensure!(said["how"] == "ended", "{said:#}");
    // A busy machine decodes four times real time with pauses; that is no fault of the stream.
    let faults = said["errors"].as_array().context("no list of errors")?.iter();
    let faults: Vec<_> = faults
        .filter(|error| error["details"] != "bufferStalledError")
        .collect();
    ensure!(faults.is_empty(), "{faults:#?}");
    let seconds = f64::from(clip.seconds);
    let duration = said["duration"].as_f64().context("no duration")?;
    ensure!((duration - seconds).abs() < 0.5, "{duration} s of {seconds}: {said:#}");
    ensure!(
        clip.video.is_none() || said["frames"].as_u64().is_some_and(|frames| frames > 0),
        "{said:#}"
    );
    Ok(())
}

#[test]
fn hls_js_plays_to_the_end() -> Result<()> {
    ensure_plays(&B_FRAMES, "hls.js")
}

#[test]
fn hls_js_plays_open_gops_to_the_end() -> Result<()> {
    ensure_plays(&OPEN_GOP, "hls.js")
}

#[test]
fn hls_js_plays_sound_alone_to_the_end() -> Result<()> {
    ensure_plays(&AUDIO_ONLY, "hls.js")
}

#[test]
fn chromium_itself_plays_to_the_end() -> Result<()> {
    ensure_plays(&B_FRAMES, "native")
}

#[test]
fn the_playlist_is_strictly_in_order() -> Result<()> {
    let (_folder, server) = recorded(&LONG_GOP)?;
    let file = playlist(&server, LONG_GOP.name)?;
    let players = root().join("tests/players");
    let said: Value = serde_json::from_str(&text(
        Command::new("node")
            .current_dir(players)
            .arg("strict.js")
            .arg(&file.path),
    )?)?;
    ensure!(said["type"] == "VOD" && said["ended"] == true, "{said:#}");
    let listed = said["segments"].as_array().context("no segments")?;
    ensure!(listed.len() == segments(&file.path)?.len(), "{said:#}");
    let target = said["target"].as_f64().context("no target duration")?;
    let mut total = 0.0;
    let begin = listed.first().and_then(|first| first["at"].as_f64());
    let begin = begin.context("no date and time where the list begins")?;
    for segment in listed {
        let duration = segment["duration"].as_f64().context("no duration")?;
        ensure!(
            duration <= target + 0.5,
            "a segment of {duration} s with a target of {target}"
        );
        // Dates between follow from the durations.
        if let Some(at) = segment["at"].as_f64() {
            ensure!((at - begin - 1000.0 * total).abs() < 3.0, "the date is off: {segment}");
        }
        total += duration;
    }
    ensure!((total - f64::from(LONG_GOP.seconds)).abs() < 0.2, "{total} s");
    Ok(())
}
