//! Sources, made by ffmpeg from its test pictures and tones: each once for a build folder, shared by all tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::programs::{ffmpeg, ffmpeg_new, output, shared_folder};

/// Counts up when a recipe changes, so that a kept clip is not taken for the new one.
const EDITION: u32 = 1;

/// A source: a name and how it is encoded.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    /// File name without extension.
    pub name: &'static str,
    /// Seconds of media.
    pub seconds: u32,
    /// ffmpeg's video source and encoder options; none: audio only.
    pub video: Option<(&'static str, &'static str)>,
    /// ffmpeg's audio encoder options; none: video only.
    pub audio: Option<&'static str>,
    /// Encoded and pushed by the current ffmpeg instead of Debian's.
    pub new: bool,
}

const PICTURES: &str = "testsrc2=size=320x180:rate=25";
const AAC: &str = "-c:a aac -b:a 64k -ar 48000";

/// Three B pictures, a key frame every two seconds.
pub const B_FRAMES: Clip = Clip {
    name: "b-frames",
    seconds: 12,
    video: Some((
        PICTURES,
        "-c:v libx264 -preset veryfast -g 50 -keyint_min 50 -sc_threshold 0 -bf 3 -b_strategy 0",
    )),
    audio: Some(AAC),
    new: false,
};
/// Irregular distances between pictures.
pub const VARIABLE_RATE: Clip = Clip {
    name: "variable-rate",
    seconds: 12,
    video: Some((
        "testsrc2=size=320x180:rate=50,select='not(mod(n\\,3))+not(mod(n\\,7))+between(mod(n\\,100)\\,40\\,55)'",
        "-fps_mode vfr -c:v libx264 -preset veryfast -g 40 -bf 2",
    )),
    audio: Some(AAC),
    new: false,
};
/// Groups of pictures that refer to the one before.
pub const OPEN_GOP: Clip = Clip {
    name: "open-gop",
    seconds: 12,
    video: Some((
        PICTURES,
        "-c:v libx264 -preset veryfast -g 50 -bf 3 -x264-params open-gop=1:scenecut=0",
    )),
    audio: Some(AAC),
    new: false,
};
/// A key frame every second.
pub const SHORT_GOP: Clip = Clip {
    name: "gop-1s",
    seconds: 10,
    video: Some((
        PICTURES,
        "-c:v libx264 -preset veryfast -g 25 -keyint_min 25 -sc_threshold 0 -bf 0",
    )),
    audio: Some(AAC),
    new: false,
};
/// A key frame every ten seconds.
pub const LONG_GOP: Clip = Clip {
    name: "gop-10s",
    seconds: 25,
    video: Some((
        PICTURES,
        "-c:v libx264 -preset veryfast -g 250 -keyint_min 250 -sc_threshold 0 -bf 2",
    )),
    audio: Some(AAC),
    new: false,
};
/// H.265 in enhanced RTMP.
pub const HEVC: Clip = Clip {
    name: "hevc",
    seconds: 10,
    video: Some((
        PICTURES,
        "-c:v libx265 -preset ultrafast -x265-params keyint=50:min-keyint=50:bframes=2:log-level=none",
    )),
    audio: Some(AAC),
    new: true,
};
/// Sound alone.
pub const AUDIO_ONLY: Clip = Clip {
    name: "audio-only",
    seconds: 20,
    video: None,
    audio: Some(AAC),
    new: false,
};
/// Pictures alone.
pub const VIDEO_ONLY: Clip = Clip {
    name: "video-only",
    seconds: 10,
    video: Some((PICTURES, "-c:v libx264 -preset veryfast -g 50 -bf 2")),
    audio: None,
    new: false,
};
/// MP3 sound.
pub const MP3: Clip = Clip {
    name: "mp3",
    seconds: 10,
    video: Some((PICTURES, "-c:v libx264 -preset veryfast -g 50 -bf 2")),
    audio: Some("-c:a libmp3lame -b:a 128k -ar 44100"),
    new: false,
};
/// Long enough for several files of the shortest interval.
pub const MINUTES: Clip = Clip {
    name: "minutes",
    seconds: 200,
    video: Some((
        "testsrc2=size=160x90:rate=12.5",
        "-c:v libx264 -preset ultrafast -g 50 -bf 2",
    )),
    audio: Some("-c:a aac -b:a 32k -ar 44100"),
    new: false,
};
/// Sound alone, as long.
pub const AUDIO_MINUTES: Clip = Clip {
    name: "audio-minutes",
    seconds: 200,
    video: None,
    audio: Some("-c:a aac -b:a 32k -ar 44100"),
    new: false,
};
/// Pictures of another size and sound of another rate, to follow upon [`B_FRAMES`].
pub const OTHER_SIZE: Clip = Clip {
    name: "other-size",
    seconds: 8,
    video: Some((
        "testsrc2=size=480x270:rate=30",
        "-c:v libx264 -preset veryfast -profile:v main -g 60 -bf 1",
    )),
    audio: Some("-c:a aac -b:a 96k -ar 44100 -ac 1"),
    new: false,
};

/// As [`B_FRAMES`], with pictures of another size alone.
pub const LARGER: Clip = Clip {
    name: "larger",
    seconds: 8,
    video: Some((
        "testsrc2=size=480x270:rate=25",
        "-c:v libx264 -preset veryfast -g 50 -keyint_min 50 -sc_threshold 0 -bf 3 -b_strategy 0",
    )),
    audio: Some(AAC),
    new: false,
};
/// Some ten megabytes: several parts of an upload.
pub const HEAVY: Clip = Clip {
    name: "heavy",
    seconds: 8,
    video: Some((
        "testsrc2=size=640x360:rate=25,noise=alls=80:allf=t",
        "-c:v libx264 -preset ultrafast -g 50 -keyint_min 50 -sc_threshold 0 -bf 0 -b:v 10M -minrate 10M -maxrate 10M -bufsize 5M",
    )),
    audio: Some(AAC),
    new: false,
};
/// As [`B_FRAMES`], with sound of another rate alone.
pub const OTHER_RATE: Clip = Clip {
    name: "other-rate",
    seconds: 8,
    audio: Some("-c:a aac -b:a 64k -ar 44100"),
    ..B_FRAMES
};

impl Clip {
    /// The ffmpeg that made it and pushes it.
    #[must_use]
    pub fn ffmpeg(&self) -> PathBuf {
        if self.new { ffmpeg_new() } else { ffmpeg() }
    }

    /// Its FLV file, exactly as ffmpeg writes and pushes it.
    ///
    /// # Errors
    /// ffmpeg fails.
    pub fn flv(&self) -> Result<PathBuf> {
        made_once(&format!("{}-{EDITION}.flv", self.name), |to| {
            let mut command = Command::new(self.ffmpeg());
            command.args(["-v", "error", "-y"]);
            let seconds = self.seconds.to_string();
            if let Some((source, _)) = self.video {
                command.args(["-f", "lavfi", "-t", &seconds, "-i", source]);
            }
            if self.audio.is_some() {
                command.args([
                    "-f",
                    "lavfi",
                    "-t",
                    &seconds,
                    "-i",
                    "sine=frequency=440:beep_factor=4:sample_rate=48000",
                ]);
            }
            if let Some((_, options)) = self.video {
                command.args(options.split(' ')).args(["-pix_fmt", "yuv420p"]);
            }
            if let Some(options) = self.audio {
                command.args(options.split(' '));
                if !options.contains("-ac ") {
                    command.args(["-ac", "2"]);
                }
            }
            output(command.args(["-f", "flv"]).arg(to)).map(drop)
        })
    }

    /// What the same ffmpeg sends when it copies the clip: the reference for what is recorded.
    ///
    /// # Errors
    /// ffmpeg fails.
    pub fn reference(&self) -> Result<PathBuf> {
        let source = self.flv()?;
        made_once(&format!("{}-{EDITION}-reference.flv", self.name), |to| {
            let mut command = Command::new(self.ffmpeg());
            command
                .args(["-v", "error", "-y", "-i"])
                .arg(&source)
                .args(["-c", "copy", "-f", "flv"]);
            output(command.arg(to)).map(drop)
        })
    }

    /// Pushes it with ffmpeg, as fast as the server takes it, and waits for ffmpeg's end.
    ///
    /// # Errors
    /// ffmpeg fails.
    pub fn push(&self, url: &str) -> Result<()> {
        output(&mut self.push_command(url, &[])?).map(drop)
    }

    /// The command that pushes it, with `before` in front of the input (such as `-re`).
    ///
    /// # Errors
    /// The clip cannot be made.
    pub fn push_command(&self, url: &str, before: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.ffmpeg());
        command
            .args(["-v", "error", "-nostdin"])
            .args(before)
            .arg("-i")
            .arg(self.flv()?);
        command.args(["-c", "copy", "-f", "flv", url]);
        Ok(command)
    }
}

/// A file that is made by the first who needs it; others wait for it.
fn made_once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = shared_folder("clips")?;
    let path = folder.join(name);
    let lock = File::options()
        .create(true)
        .append(true)
        .open(folder.join(format!("{name}.lock")))?;
    lock.lock().context("waiting for another test to make the clip")?;
    if !path.exists() {
        let new = folder.join(format!("new-{name}"));
        make(&new).with_context(|| format!("making {name}"))?;
        std::fs::rename(&new, &path)?;
    }
    Ok(path)
}
