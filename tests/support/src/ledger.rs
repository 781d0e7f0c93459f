//! Compares what is in the files with what was sent, frame by frame.

use anyhow::{Context as _, Result, ensure};

use crate::frames::{Found, Frames, ensure_unbroken};
use crate::pacer::{Log, Sent};
use crate::rtmp::{AUDIO, VIDEO};
use crate::server::MediaFile;

/// How many frames each file must hold.
#[derive(Debug, Clone, Copy)]
pub struct AtLeast {
    /// Pictures.
    pub video: usize,
    /// Audio frames.
    pub audio: usize,
}

/// That every file of one publish holds the sent frames from the first on, each once, in order, at the distances they were
/// sent with, and at least so many; and that all formats end at the same frame.
///
/// # Errors
/// Names the format and the first frame that differs.
pub fn ensure_holds(files: &[MediaFile], log: &Log, least: AtLeast) -> Result<()> {
    let mut ends = Vec::new();
    for (file, frames) in files.iter().zip(Frames::of_all(files)?) {
        let format = file.format.as_str();
        let sound_only = format == "aac" || format == "mp3";
        if !sound_only {
            let sent: Vec<Sent> = log.of(VIDEO).copied().collect();
            ensure_prefix(&frames.video, &sent, least.video).with_context(|| format!("video in {format}"))?;
        }
        let sent: Vec<Sent> = log.of(AUDIO).copied().collect();
        ensure_prefix(&frames.audio, &sent, least.audio).with_context(|| format!("audio in {format}"))?;
        if !sound_only {
            ensure_in_sync(&frames, log).with_context(|| format!("in {format}"))?;
            ends.push((format.to_owned(), frames.video.len()));
        }
    }
    ensure!(!ends.is_empty(), "no file with video among {} files", files.len());
    ensure!(
        ends.iter().all(|(_, count)| *count == ends[0].1),
        "the formats end at different pictures: {ends:?}"
    );
    Ok(())
}

fn ensure_prefix(found: &[Found], sent: &[Sent], least: usize) -> Result<()> {
    ensure_unbroken(found, "order")?;
    ensure!(
        found.len() >= least,
        "{} frames, at least {least} of {} must be there",
        found.len(),
        sent.len()
    );
    // The frame that was on its way when the sender noticed the end may have arrived whole.
    ensure!(
        found.len() <= sent.len() + 1,
        "{} frames of {} sent",
        found.len(),
        sent.len()
    );
    let (Some(first), Some(origin)) = (found.first(), sent.first()) else {
        return Ok(());
    };
    for (frame, sent) in found.iter().zip(sent) {
        for (words, at, start, due, begin) in [
            ("decoded", frame.dts_ms, first.dts_ms, sent.dts_ms, origin.dts_ms),
            ("shown", frame.pts_ms, first.pts_ms, sent.pts_ms, origin.pts_ms),
        ] {
            let (Some(at), Some(start)) = (at, start) else { continue };
            let (is, should) = (at - start, (due - begin) as f64);
            ensure!(
                (is - should).abs() < 0.6,
                "frame {} is {words} {is} ms after the first, not {should}",
                frame.number
            );
        }
    }
    Ok(())
}

/// That sound and picture stand to each other as they were sent, to a millisecond.
fn ensure_in_sync(frames: &Frames, log: &Log) -> Result<()> {
    let (Some(video), Some(audio)) = (frames.video.first(), frames.audio.first()) else {
        return Ok(());
    };
    let (Some(sent_video), Some(sent_audio)) = (log.of(VIDEO).next(), log.of(AUDIO).next()) else {
        return Ok(());
    };
    let (Some(video), Some(audio)) = (video.pts_ms, audio.pts_ms) else {
        return Ok(());
    };
    let (is, should) = (audio - video, sent_audio.pts_ms as f64 - sent_video.pts_ms as f64);
    ensure!(
        (is - should).abs() <= 1.0,
        "sound comes {is} ms after the picture, not {should}"
    );
    Ok(())
}
