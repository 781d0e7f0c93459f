//! Which numbered frames are in a file, and at which times: found by an independent demuxer.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::programs::{reader, text};
use crate::server::MediaFile;

/// A numbered frame as it stands in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// Decode time in the file, milliseconds; none where the format has no times.
    pub dts_ms: Option<f64>,
    /// Presentation time in the file, milliseconds.
    pub pts_ms: Option<f64>,
}

/// The frames of a file, each track in file order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frames {
    /// Pictures.
    pub video: Vec<Found>,
    /// Sound.
    pub audio: Vec<Found>,
}

impl Frames {
    /// Reads files of the library; of HLS all segments in the order of the playlist, which must have ended.
    ///
    /// # Errors
    /// One cannot be demuxed, or holds what has no number.
    pub fn of_all(files: &[MediaFile]) -> Result<Vec<Self>> {
        let mut paths = Vec::new();
        let mut counts = Vec::new();
        for file in files {
            let parts = if file.format == "hls" {
                segments(&file.path)?
            } else {
                vec![file.path.clone()]
            };
            counts.push(parts.len());
            paths.extend(parts);
        }
        // One process for all: starting it costs more than reading.
        let said = text(reader("frame_numbers.py").args(&paths))?;
        let mut read = said.lines();
        let mut all = Vec::new();
        for count in counts {
            let mut one = Self::default();
            for line in read.by_ref().take(count) {
                let said: Value = serde_json::from_str(line)?;
                one.video.extend(track(&said, "video")?);
                one.audio.extend(track(&said, "audio")?);
            }
            all.push(one);
        }
        Ok(all)
    }

    /// Reads one file of the library.
    ///
    /// # Errors
    /// As [`Frames::of_all`].
    pub fn of(file: &MediaFile) -> Result<Self> {
        Self::of_all(std::slice::from_ref(file))?
            .pop()
            .context("nothing was read")
    }
}

fn track(said: &Value, name: &str) -> Result<Vec<Found>> {
    let list = said[name].as_array().with_context(|| format!("no {name} in {said}"))?;
    list.iter()
        .map(|entry| {
            let number = entry[0].as_u64().with_context(|| format!("no number in {entry}"))?;
            Ok(Found {
                number,
                dts_ms: entry[1].as_f64(),
                pts_ms: entry[2].as_f64(),
            })
        })
        .collect()
}

/// The segments of a finished playlist on this machine.
///
/// # Errors
/// It has no end, or names a file that is not there.
pub fn segments(playlist: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(playlist)?;
    ensure!(
        text.contains("#EXT-X-ENDLIST"),
        "{} has no end:\n{text}",
        playlist.display()
    );
    let folder = playlist.parent().context("a playlist without a folder")?;
    let segments: Vec<PathBuf> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| folder.join(line))
        .collect();
    for segment in &segments {
        ensure!(
            segment.is_file(),
            "{} names {}, which is not there",
            playlist.display(),
            segment.display()
        );
    }
    Ok(segments)
}

/// That `found` is 0, 1, 2, … without hole, repetition or disorder.
///
/// # Errors
/// Names the first place where it is not.
pub fn ensure_unbroken(found: &[Found], what: &str) -> Result<()> {
    for (index, frame) in found.iter().enumerate() {
        ensure!(
            frame.number == index as u64,
            "{what}: frame {} stands where {index} should",
            frame.number
        );
    }
    Ok(())
}
