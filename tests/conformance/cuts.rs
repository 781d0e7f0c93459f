//! Files cut by RecordInterval: together they are the input, each unit once, and each file begins where decoding can.

use anyhow::{Context as _, Result, ensure};
use support::clips::{AUDIO_MINUTES, Clip, MINUTES};
use support::flv::{Tag, read_tags};
use support::server::{Server, Setup};
use tempfile::TempDir;

/// The shortest interval there is, seconds.
const INTERVAL_S: u32 = 60;

/// Pushes a clip under a rule that cuts every minute of media; faster than real time, which the cuts do not see.
fn cut(clip: &Clip) -> Result<(TempDir, Server)> {
    let folder = tempfile::Builder::new().prefix("aircheck-cuts-").tempdir()?;
    let server = Setup::new(env!("CARGO_BIN_EXE_aircheck"), &folder.path().join("data")).start()?;
    let interval = format!("{INTERVAL_S}s");
    server.ask(&[
        "template",
        "create",
        "short",
        "--flv",
        "--mp4",
        "--aac",
        "--hls",
        "--interval",
        &interval,
    ])?;
    server.ask(&["rule", "create", "--domain", "127.0.0.1", "--template", "short"])?;
    clip.push(&server.push_url(clip.name))?;
    server.finished(clip.name, 1)?;
    Ok((folder, server))
}

/// Media tags without decoder headers and script data.
fn media(tags: Vec<Tag>) -> Vec<Tag> {
    tags.into_iter()
        .filter(|tag| tag.tag_type != 18 && !tag.is_config() && !(tag.tag_type == 9 && tag.body.get(1) == Some(&2)))
        .collect()
}

fn track(tags: &[Tag], tag_type: u8) -> Vec<&Tag> {
    tags.iter().filter(|tag| tag.tag_type == tag_type).collect()
}

fn ensure_union_is_the_input(clip: &Clip) -> Result<()> {
    let (_folder, server) = cut(clip)?;
    let sent = media(read_tags(&std::fs::read(clip.reference()?)?)?);
    let files = server.files(clip.name)?;

    let mut union = Vec::new();
    let cut: Vec<_> = files.iter().filter(|file| file.format == "flv").collect();
    ensure!(
        cut.len() as u32 >= clip.seconds / (INTERVAL_S + 10),
        "{} FLV files of {} s",
        cut.len(),
        clip.seconds
    );
    for (index, file) in cut.iter().enumerate() {
        let tags = media(read_tags(&std::fs::read(&file.path)?)?);
        let first = tags.first().with_context(|| format!("file {index} is empty"))?;
        ensure!(
            clip.video.is_none() || (first.tag_type == 9 && first.body[0] >> 4 == 1),
            "file {index} begins with {first:?}"
        );
        union.extend(tags);
    }
    for tag_type in [8, 9] {
        let (sent, found) = (track(&sent, tag_type), track(&union, tag_type));
        ensure!(
            sent.len() == found.len(),
            "type {tag_type}: {} units of {}",
            found.len(),
            sent.len()
        );
        for (index, (sent, found)) in sent.iter().zip(&found).enumerate() {
            ensure!(sent.body == found.body, "type {tag_type}: unit {index} differs");
        }
    }

    // ADTS: seven bytes of header that say the length, then the raw frame.
    let mut frames = Vec::new();
    let cut: Vec<_> = files.iter().filter(|file| file.format == "aac").collect();
    ensure!(
        cut.len() as u32 >= clip.seconds / (INTERVAL_S + 10),
        "{} AAC files",
        cut.len()
    );
    for file in cut {
        let bytes = std::fs::read(&file.path)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            ensure!(
                rest.len() >= 7 && rest[0] == 0xFF && rest[1] & 0xF6 == 0xF0,
                "no ADTS header where one is due"
            );
            let len = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5]) >> 5;
            frames.push(rest.get(7..len).context("the file ends inside a frame")?.to_vec());
            rest = &rest[len..];
        }
    }
    let sent: Vec<&[u8]> = track(&sent, 8).into_iter().map(|tag| &tag.body[2..]).collect();
    ensure!(
        frames.iter().map(Vec::as_slice).eq(sent.iter().copied()),
        "{} AAC frames of {}",
        frames.len(),
        sent.len()
    );
    Ok(())
}

#[test]
fn cut_files_together_are_the_input() -> Result<()> {
    ensure_union_is_the_input(&MINUTES)
}

#[test]
fn sound_alone_is_cut_too() -> Result<()> {
    ensure_union_is_the_input(&AUDIO_MINUTES)
}

#[test]
fn pictures_alone_are_cut_too() -> Result<()> {
    const PICTURES: Clip = Clip {
        name: "picture-minutes",
        audio: None,
        ..MINUTES
    };
    let (_folder, server) = cut(&PICTURES)?;
    let sent = media(read_tags(&std::fs::read(PICTURES.reference()?)?)?);
    let mut union = Vec::new();
    for file in server.files(PICTURES.name)?.iter().filter(|file| file.format == "flv") {
        union.extend(media(read_tags(&std::fs::read(&file.path)?)?));
    }
    let bodies = |tags: &[Tag]| tags.iter().map(|tag| tag.body.clone()).collect::<Vec<_>>();
    ensure!(
        bodies(&union) == bodies(&sent),
        "{} units of {}",
        union.len(),
        sent.len()
    );
    Ok(())
}
