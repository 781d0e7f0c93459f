//! Recorders: cursors over a journal that render files. See `docs/ARCHITECTURE.md`.
//!
//! [`body`] and [`state`] are pure; [`file`] (FLV, MP4, AAC, MP3) and [`hls`] read a stretch of the journal, render it and write it;
//! [`actor`] says when, [`window`] which part of the journal. [`keeper`] remembers how far a recorder came, for killed processes and for power loss.

pub(crate) mod actor;
mod body;
pub(crate) mod crc;
mod file;
mod hls;
pub(crate) mod index;
mod keeper;
#[cfg(test)]
mod outage_tests;
mod packed;
mod parameters;
mod place;
pub(crate) mod pool;
#[cfg(test)]
mod power_tests;
pub(crate) mod state;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod stitch_tests;
#[cfg(test)]
mod tests;
pub(crate) mod window;
#[cfg(test)]
mod window_tests;

use std::path::PathBuf;
use std::sync::Arc;

use journal::{GroupSync, JournalError};
use shared::ids::RecordingId;
use shared::lease::{Epoch, Stitch};
pub(crate) use shared::recording::FinishedFile;
use shared::recording::Gap;
use shared::template::Format;

use crate::upload::{Mark, Objects, Store, Stored};
use pool::Scratch;

/// What one recorder renders, and to where. Fixed when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) recording_id: String,
    pub(crate) format: Format,
    /// A file is cut at the first random access point this long after its start, milliseconds; for HLS, a segment.
    pub(crate) interval_ms: i64,
    /// The publish's journal.
    pub(crate) journal: PathBuf,
    /// Where this recorder keeps its state and the records of its finished files.
    pub(crate) notes: PathBuf,
    /// Key of everything it stores, without a slash at the end: `domain/app/stream/recording/e000001/mp4`.
    pub(crate) prefix: String,
    /// Tells a restarted machine from a restarted process.
    pub(crate) boot_id: Arc<str>,
    /// The worker's time zone, by its name, for whoever names its files instead of it.
    pub(crate) zone: Arc<str>,
    /// It begins at the random access point that arrived at or before this moment, milliseconds since the Unix epoch; none: at the
    /// journal's start.
    pub(crate) from_ms: Option<i64>,
    /// HLS: segments are fragments of MP4, not MPEG-TS.
    pub(crate) fragments: bool,
    /// Its recording goes on with the stream's next publish.
    pub(crate) stitch: Option<Stitched>,
}

/// What a recorder is to make of a publish, wherever its journal lies; fields as in [`Setting`].
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) recording: RecordingId,
    /// Of its publish.
    pub(crate) epoch: Epoch,
    pub(crate) format: Format,
    pub(crate) interval_ms: i64,
    pub(crate) prefix: String,
    pub(crate) from_ms: Option<i64>,
    pub(crate) fragments: bool,
    /// What object storage is told of its media; none: what the settings say.
    pub(crate) storage_class: Option<String>,
    pub(crate) stitch: Option<Stitched>,
}

impl Order {
    /// For the journal in this directory.
    pub(crate) fn on(self, journal: PathBuf, notes: PathBuf, boot_id: Arc<str>, zone: Arc<str>) -> Setting {
        Setting {
            recording_id: self.recording.to_string(),
            format: self.format,
            interval_ms: self.interval_ms,
            journal,
            notes,
            prefix: self.prefix,
            boot_id,
            zone,
            from_ms: self.from_ms,
            fragments: self.fragments,
            stitch: self.stitch,
        }
    }
}

/// What a recorder knows of the publishes around its own.
#[derive(Debug, Clone)]
pub(crate) struct Stitched {
    /// Key of everything of the recording, without a slash at the end.
    pub(crate) root: String,
    /// Epoch of this publish.
    pub(crate) epoch: Epoch,
    /// What is behind it.
    pub(crate) behind: Stitch,
}

impl Setting {
    /// A name for what is staged and noted, unique in the worker: two publishes of one recording may be at work at the same time.
    fn name(&self) -> String {
        let epoch = self
            .stitch
            .as_ref()
            .map(|stitch| format!("-{}", stitch.epoch.path_component()));
        format!(
            "{}-{}{}",
            self.recording_id,
            self.format.as_str(),
            epoch.unwrap_or_default()
        )
    }

    /// The note that its recorder has gone to the second place of objects.
    pub(crate) fn mark(&self) -> Mark {
        Mark::of(&self.notes, &self.name())
    }

    pub(crate) fn file_id(&self, sequence: u32) -> String {
        format!("{}-{sequence:06}", self.name())
    }
}

/// How far a step may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Journal position to stop at.
    pub(crate) end: u64,
    /// Nothing comes after it: finish what is open.
    pub(crate) last: bool,
    /// What arrived after this moment, milliseconds since the Unix epoch, is beyond the end: given once there may be such.
    pub(crate) until_ms: Option<i64>,
}

/// What a step did.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) files: Vec<FinishedFile>,
    pub(crate) done: bool,
    /// Once done: what was left out and is in no file's gaps, because there was no file to tell it.
    pub(crate) left_out: Vec<Gap>,
    /// Journal positions before this are rendered and safe against power loss.
    pub(crate) retired: u64,
    /// It waits for another: to be asked again in a while, not at once.
    pub(crate) waits: bool,
    /// It waits for syncs, and has more to do then.
    pub(crate) settles: bool,
    /// To be stored, and [`Recorder::stored`] to be called, before the next step. Nothing else of this is filled in then, but `files`.
    pub(crate) store: Option<Store>,
}

/// Why a step failed. The journal still holds everything: it can be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    #[error("storing {what}: {source}")]
    Store { what: String, source: std::io::Error },
    #[error("composing the head of {what}: {reason}")]
    Head { what: String, reason: String },
    #[error("recorder state {path}: {reason}")]
    State { path: PathBuf, reason: String },
}

impl RecordError {
    fn store(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Store { what, source }
    }
}

/// A recorder of either kind.
#[derive(Debug)]
pub(crate) enum Recorder {
    File(Box<file::FileRecorder>),
    Hls(Box<hls::HlsRecorder>),
}

impl Recorder {
    /// Opens a recorder where it was left, or at the journal's start.
    pub(crate) fn open(setting: Setting, objects: Objects, sync: Arc<GroupSync>) -> Result<Self, RecordError> {
        std::fs::create_dir_all(&setting.notes).map_err(RecordError::store("the recorder's notes"))?;
        Ok(match setting.format {
            Format::Hls => Self::Hls(Box::new(hls::HlsRecorder::open(setting, objects, sync)?)),
            _ => Self::File(Box::new(file::FileRecorder::open(setting, objects, sync)?)),
        })
    }

    /// Renders what the journal holds up to `reach`, within the recorder's window.
    pub(crate) fn step(&mut self, scratch: &mut Scratch, reach: Reach) -> Result<Stepped, RecordError> {
        let (setting, state) = match self {
            Self::File(recorder) => recorder.place(),
            Self::Hls(recorder) => recorder.place(),
        };
        let Some(reach) = window::enter(setting.journal.as_path(), setting.from_ms, state, reach)? else {
            return Ok(Stepped::default());
        };
        match self {
            Self::File(recorder) => recorder.step(scratch, reach),
            Self::Hls(recorder) => recorder.step(scratch, reach),
        }
    }

    /// Goes on after what the last step gave back is stored.
    pub(crate) fn stored(&mut self, stored: Stored) -> Result<Stepped, RecordError> {
        match self {
            Self::File(recorder) => recorder.stored(stored),
            Self::Hls(recorder) => recorder.stored(stored),
        }
    }

    /// The open file's upload is no more: its file is begun anew if the journal still has it, else it is a gap.
    pub(crate) fn lose_upload(&mut self) -> Result<(), RecordError> {
        match self {
            Self::File(recorder) => recorder.lose_upload(),
            Self::Hls(_) => Ok(()),
        }
    }

    /// Below what uploads would be left with this place, and the id of one that is known.
    pub(crate) fn upload(&self) -> (String, Option<String>) {
        match self {
            Self::File(recorder) => recorder.upload(),
            Self::Hls(recorder) => (recorder.prefix(), None),
        }
    }

    /// True where nothing would be lost if it went to another place: a segment is whole when it is sent.
    pub(crate) fn can_leave(&self) -> bool {
        match self {
            Self::File(recorder) => recorder.can_leave(),
            Self::Hls(_) => true,
        }
    }

    /// True where it may come back to the first place: HLS stays where its running playlist is.
    pub(crate) fn can_return(&self) -> bool {
        match self {
            Self::File(recorder) => recorder.is_between(),
            Self::Hls(_) => false,
        }
    }

    /// Bytes that a step up to `end` may have in memory until they are stored.
    pub(crate) fn weight(&self, end: u64) -> u64 {
        match self {
            Self::File(recorder) => recorder.weight(),
            Self::Hls(recorder) => recorder.weight(end),
        }
    }

    /// True where a step up to `end` would be worth its cost.
    pub(crate) fn worthwhile(&self, end: u64, random_access_ms: Option<i64>) -> bool {
        match self {
            Self::File(recorder) => recorder.worthwhile(end),
            Self::Hls(recorder) => recorder.worthwhile(random_access_ms),
        }
    }
}
