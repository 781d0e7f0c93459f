//! One continuous time for each publish, from 32-bit timestamps that wrap, jump and stumble.
//!
//! [`Timeline::map`] is asked once for each access unit, in order of arrival, and answers with `base_ms`
//! such that `dts_ms = base_ms + timestamp`. The base changes as seldom as it can: for a stream whose
//! timestamps never go back it stays 0 but for the 2³² added at each wrap, so the distances between
//! timestamps come out exactly as they went in.
//!
//! # How a unit finds its base
//!
//! The timeline knows up to four *offsets*, the one last used in front. Each offers a place for the unit:
//! of all `offset + timestamp + k·2³²` the one nearest to the latest time seen on either track (that is
//! all there is to wrapping). With *last* the time of the track's previous unit and *front* the latest
//! time of either track, a place **fits** if it is
//!
//! 1. not more than [`HOLD_MS`] before *last*, and
//! 2. at most [`STEP_MS`] after *last* or after *front* (so a track may pause, and audio may run seconds
//!    ahead of video), or, for the offset in front only, not further ahead than the arrival clock
//!    advanced since the track's previous unit, plus [`STEP_MS`] (a pause of the encoder is no jump).
//!
//! A track's first unit fits within [`STEP_MS`] of *front* on either side. The first unit of all is
//! placed at its own timestamp.
//!
//! The offsets are tried in order; the first that fits goes to the front. So a single unit stamped hours
//! away gets an offset of its own, and the next one snaps back to the offset before; tracks whose clocks
//! differ for good keep one offset each; and after a jump the second track finds the offset that the
//! first one made, which keeps the distance between sound and picture exactly as the encoder stamps it.
//!
//! If none fits, the offset in front plus 2²⁴ is tried (encoders that fill only the 24-bit field wrap
//! there), and else the unit makes a new offset, which places it one nominal frame (the track's last
//! distance of 1 ms to 1 s) after *last*: a **jump**, reported with its size.
//!
//! # Small steps back
//!
//! A place up to [`HOLD_MS`] before *last* is **held**: this one unit is moved up to *last*, and the
//! offset stays, so that jitter never adds up to drift and an encoder that stamps presentation times
//! with reordered pictures keeps its sound in step. Where more than [`HOLD_UNITS`] units of a track in a
//! row would have to be held, time has really gone back: that is a jump.
//!
//! So, for each track, `dts_ms` never goes back; it may repeat.

use crate::access_unit::Track;

/// Longest step ahead, or lead of one track over the other, that needs no confirmation. Milliseconds.
///
/// Ten seconds: longer than any group of pictures an encoder skips when its link stalls, far shorter than what a
/// broken clock jumps by.
pub const STEP_MS: i64 = 10_000;
/// Longest step back that is taken for jitter or reordering: sixteen pictures at 32 a second. Milliseconds.
pub const HOLD_MS: i64 = 500;
/// Units of one track in a row that may be held: half of the pictures a reordering encoder may have between two references.
pub const HOLD_UNITS: u8 = 8;
/// Offsets remembered: one for each track, one for an outlier, one to spare.
const KNOWN: usize = 4;
/// Longest distance of two units taken for a frame's duration. Milliseconds.
const NOMINAL_MAX_MS: i64 = 1_000;
/// Where encoders wrap that fill only the timestamp's lower field. RTMP 1.0 §5.3.1.3.
const WRAP_24_BITS: i64 = 1 << 24;

/// Where a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Add to the timestamp as received: decode time in milliseconds on the publish's timeline.
    pub base_ms: i64,
    /// Set where the timestamps jumped: a new offset begins with this unit.
    pub jump: Option<Jump>,
    /// How far this unit was moved up so that its track does not go back. Milliseconds, 0 to [`HOLD_MS`], nearly always 0.
    pub held_ms: u16,
}

/// A jump of the timestamps, taken out of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// Where the track's previous unit (else the other track's) stands on the timeline.
    pub from_ms: i64,
    /// Where the unit would stand without the new offset.
    pub to_ms: i64,
}

/// What the timeline remembers of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    dts_ms: i64,
    arrival_ms: i64,
    nominal_ms: i64,
    held_units: u8,
}

/// Maps timestamps as received to one continuous time. See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The offset last used in front; only the first `known` count.
    offsets: [i64; KNOWN],
    known: usize,
    video: Option<Last>,
    audio: Option<Last>,
}

/// How a place relates to what its track has seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    Held,
    No,
}

impl Timeline {
    /// A timeline that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            offsets: [0; KNOWN],
            known: 0,
            video: None,
            audio: None,
        }
    }

    /// Places one access unit, timestamp `raw` in milliseconds as received, arrived at `arrival_ms` of a monotonic clock.
    ///
    /// Ask for access units only, in order of arrival; for all other tags ask [`Timeline::attach`].
    pub fn map(&mut self, track: Track, raw: u32, arrival_ms: i64) -> Mapped {
        let raw_ms = i64::from(raw);
        let Some(front_ms) = self.front_ms() else {
            self.offsets[0] = 0;
            self.known = 1;
            self.settle(track, raw_ms, arrival_ms, false);
            return Mapped {
                base_ms: 0,
                jump: None,
                held_ms: 0,
            };
        };
        if let Some((dts_ms, fit)) = self.known_place(track, raw_ms, front_ms, arrival_ms) {
            let last_ms = self.last(track).map_or(dts_ms, |last| last.dts_ms);
            let settled_ms = dts_ms.max(if fit == Fit::Held { last_ms } else { dts_ms });
            self.settle(track, settled_ms, arrival_ms, fit == Fit::Held);
            let held_ms = u16::try_from(settled_ms - dts_ms).unwrap_or(0);
            return Mapped {
                base_ms: settled_ms - raw_ms,
                jump: None,
                held_ms,
            };
        }
        let dts_ms = self.last(track).map_or(front_ms, |last| last.dts_ms + last.nominal_ms);
        let from_ms = self.last(track).map_or(front_ms, |last| last.dts_ms);
        let to_ms = place(self.offsets[0], raw_ms, front_ms);
        self.bring_front(KNOWN - 1, dts_ms - raw_ms);
        self.settle(track, dts_ms, arrival_ms, false);
        Mapped {
            base_ms: dts_ms - raw_ms,
            jump: Some(Jump { from_ms, to_ms }),
            held_ms: 0,
        }
    }

    /// The base for a tag that is no access unit (script data, codec headers, end of sequence); changes nothing.
    ///
    /// Such tags often carry a timestamp of 0 or none at all. A place within [`STEP_MS`] of the latest
    /// time seen is kept; else the tag stands at the latest time. Before the first unit the base is 0.
    #[must_use]
    pub fn attach(&self, raw: u32) -> i64 {
        let raw_ms = i64::from(raw);
        let Some(front_ms) = self.front_ms() else {
            return 0;
        };
        let dts_ms = place(self.offsets[0], raw_ms, front_ms);
        if (dts_ms - front_ms).abs() <= STEP_MS {
            dts_ms - raw_ms
        } else {
            front_ms - raw_ms
        }
    }

    /// The latest time placed on either track.
    fn front_ms(&self) -> Option<i64> {
        let dts_ms = |last: Option<Last>| last.map(|last| last.dts_ms);
        dts_ms(self.video).max(dts_ms(self.audio))
    }

    /// The first known offset whose place fits goes to the front.
    fn known_place(&mut self, track: Track, raw_ms: i64, front_ms: i64, arrival_ms: i64) -> Option<(i64, Fit)> {
        for (index, &offset) in self.offsets.iter().enumerate().take(self.known) {
            let dts_ms = place(offset, raw_ms, front_ms);
            let fit = self.fit(track, dts_ms, front_ms, (index == 0).then_some(arrival_ms));
            if fit != Fit::No {
                // Wraps move the offset along: what is kept is what was used.
                self.bring_front(index, dts_ms - raw_ms);
                return Some((dts_ms, fit));
            }
        }
        let wrapped = self.offsets[0] + WRAP_24_BITS;
        let dts_ms = place(wrapped, raw_ms, front_ms);
        let fit = self.fit(track, dts_ms, front_ms, None);
        (fit != Fit::No).then(|| {
            self.bring_front(KNOWN - 1, wrapped);
            (dts_ms, fit)
        })
    }

    /// `arrival_ms` only where the arrival clock may confirm a long step.
    fn fit(&self, track: Track, dts_ms: i64, front_ms: i64, arrival_ms: Option<i64>) -> Fit {
        let Some(last) = self.last(track) else {
            return if (dts_ms - front_ms).abs() <= STEP_MS {
                Fit::Yes
            } else {
                Fit::No
            };
        };
        let step_ms = dts_ms - last.dts_ms;
        let elapsed_ms = arrival_ms.map_or(0, |arrival_ms| arrival_ms.saturating_sub(last.arrival_ms).max(0));
        if step_ms < 0 {
            let jitter = step_ms >= -HOLD_MS && last.held_units < HOLD_UNITS;
            if jitter { Fit::Held } else { Fit::No }
        } else if step_ms <= elapsed_ms.saturating_add(STEP_MS) || dts_ms - front_ms <= STEP_MS {
            Fit::Yes
        } else {
            Fit::No
        }
    }

    fn last(&self, track: Track) -> Option<&Last> {
        match track {
            Track::Video => self.video.as_ref(),
            Track::Audio => self.audio.as_ref(),
        }
    }

    /// Makes `offset` the one in front; the one at `index` (or the oldest) gives up its place.
    fn bring_front(&mut self, index: usize, offset: i64) {
        let end = index.min(self.known).min(KNOWN - 1);
        self.known = self.known.max(end + 1);
        if let Some(part) = self.offsets.get_mut(..=end) {
            part.rotate_right(1);
        }
        self.offsets[0] = offset;
    }

    /// Remembers where the track's unit was put.
    fn settle(&mut self, track: Track, dts_ms: i64, arrival_ms: i64, held: bool) {
        let slot = match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        };
        // Until two units are known: 25 pictures a second; 1024 samples at 44.1 kHz.
        let first_ms = if track == Track::Video { 40 } else { 23 };
        let nominal_ms = slot.as_ref().map_or(first_ms, |last| match dts_ms - last.dts_ms {
            step_ms @ 1..=NOMINAL_MAX_MS => step_ms,
            _ => last.nominal_ms,
        });
        let held_units = if held {
            slot.as_ref().map_or(0, |last| last.held_units) + 1
        } else {
            0
        };
        *slot = Some(Last {
            dts_ms,
            arrival_ms,
            nominal_ms,
            held_units,
        });
    }
}

/// Of all `offset + raw + k·2³²` the one nearest to `near_ms`.
fn place(offset: i64, raw_ms: i64, near_ms: i64) -> i64 {
    let distance = (offset + raw_ms).wrapping_sub(near_ms);
    // The low 32 bits, read as a signed number, are the distance modulo 2³² in −2³¹..2³¹.
    let [.., b0, b1, b2, b3] = distance.to_be_bytes();
    near_ms + i64::from(i32::from_be_bytes([b0, b1, b2, b3]))
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
