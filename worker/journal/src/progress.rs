//! [`Progress`]: how far a journal goes, told to its readers.

use std::sync::{Mutex, PoisonError};

use media::access_unit::{UnitInfo, UnitKind};
use media::segmenter::Segmenter;

use crate::Position;

/// How far a journal goes: the totals of everything committed. Times are milliseconds on the publish's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Behind the last committed batch: what lies below can be read.
    pub end: Position,
    /// Decode time of the first audio or video unit.
    pub first_dts_ms: Option<i64>,
    /// Greatest decode time of any audio or video unit.
    pub end_dts_ms: Option<i64>,
    /// The last place where a file may begin, with its decode time, by the rule of [`Segmenter::is_random_access`].
    pub last_random_access: Option<(Position, i64)>,
    /// Greatest decode time of a video unit; none: no video yet.
    pub video_dts_ms: Option<i64>,
    /// Video units.
    pub video_units: u64,
    /// Audio units.
    pub audio_units: u64,
    /// Bytes of all FLV tags, 15 bytes of framing each included.
    pub bytes: u64,
    /// Wall clock of the last commit, milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// True once the terminal record is written.
    pub closed: bool,
}

/// True for an access unit, false for configurations and script data.
pub(crate) fn is_unit(info: &UnitInfo) -> bool {
    matches!(info.kind, UnitKind::Video | UnitKind::Audio)
}

impl Snapshot {
    /// Counts one committed tag at `at`.
    pub(crate) fn count(&mut self, at: Position, info: &UnitInfo) {
        self.bytes += info.tag_len();
        if !is_unit(info) {
            return;
        }
        let dts_ms = info.dts_ms;
        let rule = Segmenter {
            last_video_ms: self.video_dts_ms,
            ..Segmenter::new(0)
        };
        let random_access = rule.is_random_access(info);
        if info.kind == UnitKind::Video {
            self.video_units += 1;
            self.video_dts_ms = self.video_dts_ms.max(Some(dts_ms));
        } else {
            self.audio_units += 1;
        }
        if random_access {
            self.last_random_access = Some((at, dts_ms));
        }
        self.first_dts_ms = self.first_dts_ms.or(Some(dts_ms));
        self.end_dts_ms = self.end_dts_ms.max(Some(dts_ms));
    }
}

/// Shared by one writer and any number of readers; both sides hold a lock for a copy of 128 bytes.
#[derive(Debug, Default)]
pub struct Progress {
    now: Mutex<Snapshot>,
}

impl Progress {
    /// Progress that stands at `now`: of a journal that is written no more.
    #[must_use]
    pub fn new(now: Snapshot) -> Self {
        Self { now: Mutex::new(now) }
    }

    /// A consistent copy.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, now: Snapshot) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
