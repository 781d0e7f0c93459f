//! [`Composition`]: one new file of pieces of stored ones, made by a worker while nobody waits, and [`ComposeJob`], what that worker is told.
//!
//! What it makes is a recording of its own, under the same id: each attempt is an owner of it, fenced off by the next.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{FileId, RecordingId, StreamKey, WorkerId},
    lease::Epoch,
    template::{Format, TemplateSpec},
    time::Timestamp,
};

/// Most pieces of one composition.
pub const MAX_PIECES: usize = 500;
/// Longest name of the new file, characters.
pub const MAX_NAME_CHARS: usize = 64;
/// Longest description of the new file, characters.
pub const MAX_DESCRIPTION_CHARS: usize = 128;
/// Longest token of a composition, characters.
pub const MAX_TOKEN_CHARS: usize = 50;
/// Longest text that a composition carries for its maker, characters.
pub const MAX_CONTEXT_CHARS: usize = 1_000;

/// What the new file is called inside its recording.
pub const FILE_ID: &str = "composed-mp4";

/// A part of a stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Which.
    pub file: FileId,
    /// Where it lies, below the objects URL.
    pub key: String,
    /// What it is.
    pub format: Format,
    /// From the key picture at or before this time of the file on, milliseconds from its beginning.
    pub from_ms: u64,
    /// To the key picture at or behind so much later, milliseconds; none: to the end.
    pub for_ms: Option<u64>,
}

/// Where a composition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompositionState {
    /// For a worker that has room.
    Waiting,
    /// A worker has it.
    Running,
    /// Its file is in the library. Final.
    Finished,
    /// There is no file. Final.
    Failed,
}

impl CompositionState {
    /// True if nothing comes after it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, CompositionState::Finished | CompositionState::Failed)
    }

    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CompositionState::Waiting => "waiting",
            CompositionState::Running => "running",
            CompositionState::Finished => "finished",
            CompositionState::Failed => "failed",
        }
    }
}

/// A composition, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewComposition {
    /// The new file's pieces, in order; 1 to [`MAX_PIECES`].
    pub pieces: Vec<Piece>,
    /// The stream that the new file is said to be of: that of the first piece.
    pub stream: StreamKey,
    /// Wall clock at the new file's beginning.
    pub start: Timestamp,
    /// Workers that wrote the pieces: where they lie on one machine, only that one reads them.
    pub writers: Vec<WorkerId>,
    /// The new file's name without extension.
    pub name: String,
    /// Words about the new file.
    pub description: String,
    /// Pictures are taken over.
    pub video: bool,
    /// Sound is taken over.
    pub audio: bool,
    /// Nothing else is made with the same; empty: none.
    pub token: String,
    /// What its maker wants to read again with it.
    pub context: String,
    /// When the new file is removed by itself; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// A composition and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Composition {
    /// Its own, and that of the recording that it makes.
    pub id: RecordingId,
    /// What was asked for.
    pub new: NewComposition,
    /// Where it stands.
    pub state: CompositionState,
    /// How often a worker was told to make it: the epoch of the last.
    pub attempt: Epoch,
    /// The last of them.
    pub worker: Option<WorkerId>,
    /// Why it failed: a stable short name, a colon, words. Empty otherwise.
    pub problem: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// When a worker was told first.
    pub begun: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl Composition {
    /// What its recording is made by.
    #[must_use]
    pub fn template() -> TemplateSpec {
        TemplateSpec::plain("composed", &[Format::Mp4])
    }

    /// The new file, once it is there.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        let made = self.state == CompositionState::Finished;
        made.then(|| self.file_id())
    }

    /// The new file, whether or not it is there.
    #[must_use]
    pub fn file_id(&self) -> FileId {
        crate::recording::MediaFile::id_of(self.id, FILE_ID)
    }

    /// What a worker is told of it.
    #[must_use]
    pub fn job(&self) -> ComposeJob {
        ComposeJob {
            recording: self.id,
            epoch: self.attempt,
            stream: self.new.stream.clone(),
            start: self.new.start,
            created: self.created,
            name: self.new.name.clone(),
            video: self.new.video,
            audio: self.new.audio,
            pieces: self.new.pieces.clone(),
        }
    }

    /// The short name of why it failed; empty: it did not.
    #[must_use]
    pub fn problem_name(&self) -> &str {
        self.problem.split_once(':').map_or("", |(name, _)| name)
    }
}

/// A composition that a worker is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeJob {
    /// The recording that it makes.
    pub recording: RecordingId,
    /// Under which ownership.
    pub epoch: Epoch,
    /// As of [`NewComposition`].
    pub stream: StreamKey,
    /// As of [`NewComposition`].
    pub start: Timestamp,
    /// When it was asked for.
    pub created: Timestamp,
    /// As of [`NewComposition`].
    pub name: String,
    /// As of [`NewComposition`].
    pub video: bool,
    /// As of [`NewComposition`].
    pub audio: bool,
    /// As of [`NewComposition`].
    pub pieces: Vec<Piece>,
}

/// How far a worker is with a composition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComposeStatus {
    /// Which.
    pub recording: RecordingId,
    /// Under which ownership.
    pub epoch: Epoch,
    /// Hundredths of it, at most 100.
    pub progress: u8,
    /// Bytes of media looked at and written for it since the worker began it, less than [`MAX_MADE`].
    pub bytes: u64,
}

/// More bytes than any worker looks at and writes for one composition.
pub const MAX_MADE: u64 = 1 << 50;
