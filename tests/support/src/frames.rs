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
    /// Reads one container file.
    ///
    /// # Errors
    /// It cannot be demuxed, or holds what has no number.
    pub fn read(path: &Path) -> Result<Self> {
        let said: Value = serde_json::from_str(&text(reader("frame_numbers.py").arg(path))?)?;
        let track = |name: &str| -> Result<Vec<Found>> {
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
        };
        Ok(Self {
            video: track("video")?,
            audio: track("audio")?,
        })
    }

    /// Reads a file of the library; of HLS all segments in the order of the playlist, which must have ended.
    ///
    /// # Errors
    /// As [`Frames::read`].
    pub fn of(file: &MediaFile) -> Result<Self> {
        if file.format != "hls" {
            return Self::read(&file.path).with_context(|| format!("reading {}", file.path.display()));
        }
        let mut all = Self::default();
        for segment in segments(&file.path)? {
            let one = Self::read(&segment).with_context(|| format!("reading {}", segment.display()))?;
            all.video.extend(one.video);
            all.audio.extend(one.audio);
        }
        Ok(all)
    }
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
