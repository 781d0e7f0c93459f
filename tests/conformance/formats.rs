//! Exactness: in each format the units read back by an independent demuxer are those that were sent, with their times.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use support::clips::{
    AUDIO_MINUTES, AUDIO_ONLY, B_FRAMES, Clip, HEVC, LONG_GOP, MINUTES, MP3, OPEN_GOP, OTHER_SIZE, SHORT_GOP,
    VARIABLE_RATE, VIDEO_ONLY,
};
use support::flv::{follow, legacy_hevc, read_tags};
use support::programs::{output, reader};
use support::publisher::publish_tags;
use support::server::{MediaFile, Server};

use crate::{cut, recorded, server};

/// That `files` behind each other hold the units of `sent`.
pub(crate) fn ensure_same(sent: &Path, files: &[&MediaFile], more: &[&str]) -> Result<()> {
    let format = files.first().context("no files")?.format.as_str();
    let mut command = reader("compare.py");
    command.args(more);
    if format == "aac" || format == "mp3" {
        command.args(["--tracks", "audio"]);
    }
    command.arg(sent).args(files.iter().map(|file| &file.path));
    output(&mut command)
        .with_context(|| format!("comparing {format}"))
        .map(drop)
}

/// What each format must keep to beside its units.
pub(crate) fn ensure_well_formed(file: &MediaFile) -> Result<()> {
    let scripts: &[&str] = match file.format.as_str() {
        "mp4" => &["bmff_check.py"],
        "hls" => &["ts_check.py", "hls_check.py"],
        _ => &[],
    };
    scripts
        .iter()
        .try_for_each(|script| output(reader(script).arg(&file.path)).map(drop))
}

fn of<'a>(files: &'a [MediaFile], format: &str) -> Vec<&'a MediaFile> {
    files.iter().filter(|file| file.format == format).collect()
}

/// All files of a stream against what was sent, in exactly these formats.
fn ensure_recorded(server: &Server, stream: &str, sent: &Path, formats: &[&str]) -> Result<()> {
    let files = server.files(stream)?;
    let mut found: Vec<&str> = files.iter().map(|file| file.format.as_str()).collect();
    found.dedup();
    ensure!(found == formats, "{stream} was recorded as {found:?}, not {formats:?}");
    for format in formats {
        ensure_same(sent, &of(&files, format), &[])?;
    }
    files.iter().try_for_each(ensure_well_formed)
}

fn exact(clip: &Clip, formats: &[&str]) -> Result<()> {
    let (_folder, server) = recorded(clip)?;
    ensure_recorded(&server, clip.name, &clip.reference()?, formats)
}

#[test]
fn b_frames() -> Result<()> {
    exact(&B_FRAMES, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn variable_rate() -> Result<()> {
    exact(&VARIABLE_RATE, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn open_gops() -> Result<()> {
    exact(&OPEN_GOP, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn gops_of_a_second() -> Result<()> {
    exact(&SHORT_GOP, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn gops_of_ten_seconds() -> Result<()> {
    exact(&LONG_GOP, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn hevc_in_enhanced_rtmp() -> Result<()> {
    exact(&HEVC, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn sound_alone() -> Result<()> {
    exact(&AUDIO_ONLY, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn pictures_alone() -> Result<()> {
    exact(&VIDEO_ONLY, &["flv", "hls", "mp4"])
}

#[test]
fn mp3_sound() -> Result<()> {
    exact(&MP3, &["flv", "hls", "mp3", "mp4"])
}

#[test]
fn hevc_in_the_older_way() -> Result<()> {
    let (_folder, server) = server()?;
    let tags = legacy_hevc(&read_tags(&std::fs::read(HEVC.flv()?)?)?)?;
    publish_tags(server.rtmp(), "legacy", &tags)?;
    server.finished("legacy", 1)?;
    let files = server.files("legacy")?;
    for format in ["hls", "mp4", "aac"] {
        ensure_same(&HEVC.reference()?, &of(&files, format), &[])?;
    }
    let flv = of(&files, "flv").pop().context("no FLV")?;
    let bodies = |tags: Vec<support::flv::Tag>| -> Vec<Vec<u8>> {
        let media = |tag: &support::flv::Tag| tag.tag_type == 9 && tag.body.get(1) == Some(&1);
        tags.into_iter().filter(media).map(|tag| tag.body).collect()
    };
    ensure!(
        bodies(read_tags(&std::fs::read(&flv.path)?)?) == bodies(tags),
        "the FLV's pictures are not as sent"
    );
    Ok(())
}

/// Pushes a clip with one track's times moved by two seconds, in the order it had.
fn skewed(name: &str, moved: u8, well_formed: bool) -> Result<()> {
    let (folder, server) = server()?;
    let mut tags = read_tags(&std::fs::read(B_FRAMES.reference()?)?)?;
    for tag in tags.iter_mut().filter(|tag| tag.tag_type == moved && !tag.is_config()) {
        tag.timestamp_ms += 2000;
    }
    let sent = write_flv(&folder.path().join("sent.flv"), &tags)?;
    publish_tags(server.rtmp(), name, &tags)?;
    server.finished(name, 1)?;
    let files = server.files(name)?;
    for format in ["aac", "flv", "hls", "mp4"] {
        ensure_same(&sent, &of(&files, format), &[])?;
    }
    if well_formed {
        files.iter().try_for_each(ensure_well_formed)
    } else {
        Ok(())
    }
}

#[test]
fn sound_two_seconds_ahead_of_the_picture() -> Result<()> {
    skewed("ahead", 8, true)
}

/// Times are kept here too. But the transport stream's clock follows the pictures as they come, and sound that comes two
/// seconds late cannot be ahead of it: that this is no stream a hardware decoder would take is the publisher's doing.
#[test]
fn sound_two_seconds_behind_the_picture() -> Result<()> {
    skewed("behind", 9, false)
}

#[test]
fn other_parameters_in_mid_stream() -> Result<()> {
    let (folder, server) = server()?;
    let read = |clip: &Clip| -> Result<_> { read_tags(&std::fs::read(clip.reference()?)?) };
    let tags = follow(&read(&B_FRAMES)?, &read(&OTHER_SIZE)?);
    let sent = write_flv(&folder.path().join("sent.flv"), &tags)?;
    publish_tags(server.rtmp(), "changed", &tags)?;
    server.finished("changed", 1)?;
    let files = server.files("changed")?;
    for format in ["flv", "mp4", "aac", "hls"] {
        ensure_same(&sent, &of(&files, format), &[])?;
    }
    files.iter().try_for_each(ensure_well_formed)?;
    let playlist = std::fs::read_to_string(&of(&files, "hls").pop().context("no playlist")?.path)?;
    ensure!(
        playlist.matches("#EXT-X-DISCONTINUITY\n").count() == 1,
        "one discontinuity is due:\n{playlist}"
    );
    Ok(())
}

fn write_flv(path: &Path, tags: &[support::flv::Tag]) -> Result<PathBuf> {
    std::fs::write(path, support::flv::file(tags))?;
    Ok(path.to_owned())
}

/// Files cut every minute of media together are the input, and each begins where decoding can.
fn exact_when_cut(clip: &Clip, formats: &[&str]) -> Result<()> {
    let (_folder, server) = cut(clip)?;
    let files = server.files(clip.name)?;
    for format in formats {
        let files = of(&files, format);
        let least = if *format == "hls" {
            1
        } else {
            clip.seconds as usize / 70
        };
        ensure!(
            files.len() >= least.max(1),
            "{} {format} files of {} s",
            files.len(),
            clip.seconds
        );
        ensure_same(&clip.reference()?, &files, &[])?;
        for file in files {
            let begins = clip.video.is_none() || *format == "aac" || begins_with_a_key_picture(file)?;
            ensure!(begins, "{} does not begin with a key picture", file.path.display());
        }
    }
    files.iter().try_for_each(ensure_well_formed)
}

fn begins_with_a_key_picture(file: &MediaFile) -> Result<bool> {
    let listed = support::programs::text(reader("units.py").arg(&file.path))?;
    let first = listed
        .lines()
        .find(|line| line.contains("\"video\""))
        .context("no picture")?;
    Ok(serde_json::from_str::<serde_json::Value>(first)?["key"] == true)
}

#[test]
fn cut_files_together_are_the_input() -> Result<()> {
    exact_when_cut(&MINUTES, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn sound_alone_is_cut_too() -> Result<()> {
    exact_when_cut(&AUDIO_MINUTES, &["aac", "flv", "hls", "mp4"])
}

#[test]
fn pictures_alone_are_cut_too() -> Result<()> {
    exact_when_cut(
        &Clip {
            name: "picture-minutes",
            audio: None,
            ..MINUTES
        },
        &["flv", "hls", "mp4"],
    )
}

/// The readers find faults that are put into files on purpose.
#[test]
fn the_readers_see_what_they_are_for() -> Result<()> {
    for script in ["units.py", "compare.py", "bmff_check.py", "ts_check.py", "hls_check.py"] {
        output(reader(script).arg("--self-test"))?;
    }
    Ok(())
}
