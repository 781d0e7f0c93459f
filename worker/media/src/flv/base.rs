//! Which publish time is an FLV file's time 0, and what a unit's timestamp in the file is.
//!
//! Behind a cut before a picture, the next audio frame is often stamped a few milliseconds *earlier*: encoders
//! interleave by their own order. FLV has no negative timestamps, and readers disagree about wrapped ones.
//! So time 0 is the earliest of the first units of both tracks, which [`FileBase`] finds by looking ahead; decode times never
//! go back in a track (see `timeline`), so nothing later lies before it.
//!
//! The look ahead ends with the first unit of the second track, or after [`LOOK_AHEAD_MS`] or
//! [`LOOK_AHEAD_UNITS`] without one. A track that begins later than that and *still* lies before time 0 is
//! moved up to 0 ([`file_time_ms`]): the only timestamps that FLV cannot express.

use crate::access_unit::{UnitInfo, UnitKind};

/// How far ahead a second track is looked for, in media time. Milliseconds.
pub const LOOK_AHEAD_MS: i64 = 1_000;
/// How far ahead a second track is looked for, in access units of the first one.
pub const LOOK_AHEAD_UNITS: u16 = 256;

/// Finds a file's time 0 from the units at its start. The same units give the same answer, however many follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileBase {
    video: Option<i64>,
    audio: Option<i64>,
    units: u16,
    decided: bool,
}

impl FileBase {
    /// Has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            video: None,
            audio: None,
            units: 0,
            decided: false,
        }
    }

    /// Takes the next unit of the file, in journal order. `Some`: decided, later units change nothing.
    pub fn push(&mut self, unit: &UnitInfo) -> Option<i64> {
        if self.decided {
            return self.finish();
        }
        let first = match unit.kind {
            UnitKind::Video => &mut self.video,
            UnitKind::Audio => &mut self.audio,
            _ => return None,
        };
        let first_ms = *first.get_or_insert(unit.dts_ms);
        self.units = self.units.saturating_add(1);
        self.decided = (self.video.is_some() && self.audio.is_some())
            || unit.dts_ms.saturating_sub(first_ms) >= LOOK_AHEAD_MS
            || self.units >= LOOK_AHEAD_UNITS;
        if self.decided { self.finish() } else { None }
    }

    /// The answer if nothing more comes: `None` where the file has no access unit at all.
    #[must_use]
    pub fn finish(&self) -> Option<i64> {
        [self.video, self.audio].into_iter().flatten().min()
    }
}

/// A unit's timestamp in the file that has its time 0 at `base_ms`: 0 to 2³² − 1, units before time 0 at 0.
///
/// A file longer than 49 days wraps, as RTMP does.
#[must_use]
pub fn file_time_ms(dts_ms: i64, base_ms: i64) -> u32 {
    let [.., b0, b1, b2, b3] = dts_ms.saturating_sub(base_ms).max(0).to_be_bytes();
    u32::from_be_bytes([b0, b1, b2, b3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_unit::Codec;

    fn unit(kind: UnitKind, dts_ms: i64) -> UnitInfo {
        UnitInfo {
            kind,
            codec: Codec::Other,
            key: true,
            dts_ms,
            cto_ms: 0,
            body_len: 10,
            header_len: 5,
            arrival_ms: 0,
        }
    }

    #[test]
    fn the_earlier_of_both_tracks_is_time_0() {
        let mut base = FileBase::new();
        assert_eq!(base.push(&unit(UnitKind::VideoConfig, 3)), None);
        assert_eq!(base.push(&unit(UnitKind::Video, 1000)), None);
        assert_eq!(base.push(&unit(UnitKind::Video, 1040)), None);
        assert_eq!(base.push(&unit(UnitKind::Audio, 990)), Some(990));
        assert_eq!(base.push(&unit(UnitKind::Audio, 12)), Some(990));
    }

    #[test]
    fn a_single_track_is_decided_after_a_second() {
        let mut base = FileBase::new();
        let decided = (0..100).map(|n| unit(UnitKind::Audio, 7 + n * 23)).find_map(|unit| {
            let answer = base.push(&unit);
            answer.map(|base_ms| (base_ms, unit.dts_ms))
        });
        assert_eq!(decided, Some((7, 7 + 44 * 23)));
        let mut base = FileBase::new();
        assert!((0..300).any(|_| base.push(&unit(UnitKind::Video, 5)) == Some(5)));
    }

    #[test]
    fn a_short_file_is_decided_by_its_end() {
        let mut base = FileBase::new();
        assert_eq!(base.finish(), None);
        base.push(&unit(UnitKind::Video, -50));
        assert_eq!(base.finish(), Some(-50));
    }

    #[test]
    fn file_times_are_never_negative() {
        assert_eq!(file_time_ms(1000, 990), 10);
        assert_eq!(file_time_ms(-5, -5), 0);
        assert_eq!(file_time_ms(980, 990), 0);
        assert_eq!(file_time_ms((1 << 32) + 7, 0), 7);
        assert_eq!(file_time_ms(i64::MAX, i64::MIN), u32::MAX);
    }
}
