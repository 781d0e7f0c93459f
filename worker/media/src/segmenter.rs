//! Where files may be cut: before a random access point, once the target has passed.
//!
//! A random access point is a key picture if the publish has pictures, else any audio frame. When pictures
//! have been silent for [`VIDEO_SILENCE_MS`] of media time, audio counts again: a camera that was unplugged must not
//! keep a file open for ever.
//!
//! The answer depends on the units alone, in journal order, so every renderer cuts at the same place. All state is
//! in plain public fields: what was persisted continues where it stopped.

use crate::access_unit::{UnitInfo, UnitKind};

/// How far sound must have run ahead of the last picture before it makes cuts of its own. Milliseconds of media time.
pub const VIDEO_SILENCE_MS: i64 = 5_000;

/// Finds the cuts of one recording in one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmenter {
    /// Least duration of a file, milliseconds.
    pub target_ms: i64,
    /// Decode time of the first unit since the last cut; `None` before the first.
    pub start_ms: Option<i64>,
    /// Decode time of the last picture; `None` while the publish has none.
    pub last_video_ms: Option<i64>,
}

impl Segmenter {
    /// A segmenter that has seen nothing and cuts at least `target_ms` apart.
    #[must_use]
    pub const fn new(target_ms: i64) -> Self {
        Self {
            target_ms,
            start_ms: None,
            last_video_ms: None,
        }
    }

    /// Takes the next unit, in journal order; true: cut *before* it.
    ///
    /// The first unit never cuts. Tags that are no access units never do.
    pub fn push(&mut self, unit: &UnitInfo) -> bool {
        if !matches!(unit.kind, UnitKind::Video | UnitKind::Audio) {
            return false;
        }
        let start_ms = *self.start_ms.get_or_insert(unit.dts_ms);
        let due = unit.dts_ms.saturating_sub(start_ms) >= self.target_ms && unit.dts_ms > start_ms;
        let cut = due && self.is_random_access(unit);
        if cut {
            self.start_ms = Some(unit.dts_ms);
        }
        if unit.kind == UnitKind::Video {
            self.last_video_ms = Some(unit.dts_ms);
        }
        cut
    }

    /// Whether decoding may begin at this unit, given what came before it.
    #[must_use]
    pub fn is_random_access(&self, unit: &UnitInfo) -> bool {
        match unit.kind {
            UnitKind::Video => unit.key,
            UnitKind::Audio => self
                .last_video_ms
                .is_none_or(|video_ms| unit.dts_ms.saturating_sub(video_ms) >= VIDEO_SILENCE_MS),
            _ => false,
        }
    }

    /// Counts the target from `dts_ms` on: a cut was made there for another reason.
    pub fn cut_at(&mut self, dts_ms: i64) {
        self.start_ms = Some(dts_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_unit::Codec;
    use alloc::vec::Vec;

    fn unit(kind: UnitKind, key: bool, dts_ms: i64) -> UnitInfo {
        UnitInfo {
            kind,
            codec: Codec::Other,
            key,
            dts_ms,
            cto_ms: 0,
            body_len: 10,
            header_len: 5,
            arrival_ms: 0,
        }
    }

    fn cuts(target_ms: i64, units: &[UnitInfo]) -> Vec<i64> {
        let mut segmenter = Segmenter::new(target_ms);
        units
            .iter()
            .filter(|unit| segmenter.push(unit))
            .map(|unit| unit.dts_ms)
            .collect()
    }

    #[test]
    fn pictures_cut_at_the_first_key_picture_past_the_target() {
        let units: Vec<_> = (0..100)
            .flat_map(|n| {
                [
                    unit(UnitKind::Video, n % 8 == 0, n * 100),
                    unit(UnitKind::Audio, true, n * 100 + 50),
                ]
            })
            .collect();
        assert_eq!(cuts(2000, &units), [2400, 4800, 7200, 9600]);
        assert_eq!(cuts(800, &units).len(), 12);
    }

    #[test]
    fn sound_alone_cuts_anywhere() {
        let units: Vec<_> = (0..1000).map(|n| unit(UnitKind::Audio, true, 500 + n * 23)).collect();
        assert_eq!(cuts(1000, &units)[..2], [500 + 44 * 23, 500 + 88 * 23]);
    }

    #[test]
    fn sound_counts_again_when_pictures_fall_silent() {
        let mut units: Vec<_> = (0..10).map(|n| unit(UnitKind::Video, n == 0, n * 40)).collect();
        units.extend((0..400).map(|n| unit(UnitKind::Audio, true, n * 23)));
        assert_eq!(cuts(2000, &units)[0], 5_382);
        assert_eq!(cuts(2000, &units).len(), 2);
    }

    #[test]
    fn headers_and_script_data_never_cut() {
        let units = [
            unit(UnitKind::Video, true, 0),
            unit(UnitKind::VideoConfig, true, 9000),
            unit(UnitKind::Metadata, true, 9000),
            unit(UnitKind::Other, true, 9000),
        ];
        assert!(cuts(1000, &units).is_empty());
    }

    #[test]
    fn a_target_of_nothing_still_moves_on() {
        let units = [
            unit(UnitKind::Video, true, 0),
            unit(UnitKind::Video, true, 0),
            unit(UnitKind::Video, true, 1),
        ];
        assert_eq!(cuts(0, &units), [1]);
    }
}
