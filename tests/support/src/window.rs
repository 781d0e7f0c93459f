//! What a recording between two moments must hold, access unit by access unit.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::frames::{Found, Frames};
use crate::pacer::{Log, Sent};
use crate::rtmp::{AUDIO, VIDEO};
use crate::server::MediaFile;
use crate::source::Shape;

/// A unit has arrived when the worker has read it, at most so long after it was sent; the machine's own delays are added.
pub const VISIT: Duration = Duration::from_millis(250);
/// What our own looking at clocks adds.
pub const MEASURING: Duration = Duration::from_millis(50);
/// Pictures from one key picture to the next in [`SHAPE`].
pub const GOP: u64 = 25;

/// Small frames, a key frame each second: more happens in less time.
pub const SHAPE: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 600_000,
    audio_bits_per_second: 64_000,
    b_frames: true,
};

/// Tells the time of day of moments.
#[derive(Debug, Clone, Copy)]
pub struct Wall {
    instant: Instant,
    /// When it was made, milliseconds since the Unix epoch.
    pub ms: i64,
}

impl Default for Wall {
    fn default() -> Self {
        Self::new()
    }
}

impl Wall {
    /// As of now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "tasks have times of day")]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let instant = Instant::now();
        Self { instant, ms }
    }

    /// Milliseconds since the Unix epoch of a moment.
    #[must_use]
    pub fn of(self, at: Instant) -> i64 {
        let since =
            |a: Instant, b: Instant| i64::try_from(a.saturating_duration_since(b).as_millis()).unwrap_or(i64::MAX);
        self.ms + since(at, self.instant) - since(self.instant, at)
    }

    /// Milliseconds since the Unix epoch, now.
    #[must_use]
    pub fn now(self) -> i64 {
        self.of(Instant::now())
    }

    /// Waits for a moment: time itself is what is waited for.
    pub fn reach(self, ms: i64) {
        let left = u64::try_from(ms - self.now()).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(left));
    }
}

/// Where in the log a frame stands.
///
/// # Errors
/// It was never sent.
pub fn place(log: &Log, message_type: u8, found: &Found) -> Result<usize> {
    let is = |sent: &Sent| sent.message_type == message_type && sent.number == found.number;
    log.sent
        .iter()
        .position(is)
        .with_context(|| format!("{found:?} was never sent"))
}

/// That a file holds all units that were sent between two moments: one stretch of what was sent, without a hole, that begins with
/// the last key picture at or before `from`, or with the first of all, and ends with the last unit at or before `until`, or with the last of all.
///
/// # Errors
/// Names the first unit that should not be there, or is not.
pub fn ensure_exact(file: &MediaFile, log: &Log, wall: Wall, (from, until): (Option<i64>, Option<i64>)) -> Result<()> {
    let frames = Frames::of(file)?;
    let ends = |found: &[Found], what| -> Result<(Found, Found)> {
        for (index, frame) in found.iter().enumerate() {
            let due = found[0].number + index as u64;
            ensure!(frame.number == due, "{what} {} stands where {due} should", frame.number);
        }
        Ok((*found.first().context("nothing")?, *found.last().context("nothing")?))
    };
    let (first, last) = ends(&frames.video, "picture")?;
    let (first_sound, last_sound) = ends(&frames.audio, "sound")?;
    let begin = place(log, VIDEO, &first)?.min(place(log, AUDIO, &first_sound)?);
    let end = place(log, VIDEO, &last)?.max(place(log, AUDIO, &last_sound)?);
    let count = frames.video.len() + frames.audio.len();
    ensure!(
        end + 1 - begin == count,
        "{count} units of the {} sent between its ends",
        end + 1 - begin
    );

    let slack = i64::try_from((VISIT + MEASURING + log.lateness).as_millis())?;
    let sent = |index: usize| log.sent.get(index).map(|sent| wall.of(sent.at));
    match from {
        Some(from) => {
            ensure!(
                first.number % GOP == 0 && place(log, VIDEO, &first)? == begin,
                "begins with {:?}",
                log.sent[begin]
            );
            let key = sent(begin).context("no begin")?;
            ensure!(key <= from, "begins {} ms after its start", key - from);
            let next = Found {
                number: first.number + GOP,
                ..first
            };
            let next = sent(place(log, VIDEO, &next)?).context("no next")?;
            ensure!(
                next > from - slack,
                "a later key picture came {} ms before its start",
                from - next
            );
        }
        None => ensure!(begin == 0, "begins with {:?}", log.sent[begin]),
    }
    match until {
        Some(until) => {
            let last = sent(end).context("no end")?;
            ensure!(last <= until, "ends {} ms after its end", last - until);
            let next = sent(end + 1).context("nothing was sent behind its end")?;
            ensure!(
                next > until - slack,
                "a unit is missing that came {} ms before its end",
                until - next
            );
        }
        None => ensure!(
            end + 1 == log.sent.len(),
            "ends with {:?} of {}",
            log.sent[end],
            log.sent.len()
        ),
    }
    Ok(())
}
