//! [`Needs`]: what of a publish's journal is still needed. Pure.
//!
//! Needed is what lies before a recorder, what a recording to come may begin with, and what a recording had before it when it was
//! lost: its journal is put aside, and may hold what nobody else has.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use journal::Snapshot;
use shared::ids::RecordingId;
use shared::template::Format;
use shared::time::Monotonic;

/// A random access point further back than this, milliseconds of media, is not kept for recordings to come.
const LONGEST_GOP_MS: i64 = 60_000;

/// What each recorder needs, and the pre-roll.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// What each recorder has behind it for good.
    behind: BTreeMap<(RecordingId, Format), u64>,
    /// Where a recording could have begun at past looks: when that was, milliseconds of the monotonic clock, and its position. Tells what the pre-roll still needs.
    starts: VecDeque<(i64, u64)>,
}

impl Needs {
    /// A recorder begins, or has it behind it up to here for good.
    pub(super) fn came_to(&mut self, recording: RecordingId, format: Format, position: u64) {
        self.behind.insert((recording, format), position);
    }

    /// A recorder needs nothing any more.
    pub(super) fn done(&mut self, recording: RecordingId, format: Format) {
        self.came_to(recording, format, u64::MAX);
    }

    /// A recording was lost: what its recorder did not have behind it is kept, all where that is not known.
    pub(super) fn lost(&mut self, recording: RecordingId, format: Format) {
        self.behind.entry((recording, format)).or_insert(0);
    }

    /// The library has the end of a recording.
    pub(super) fn ended(&mut self, recording: RecordingId) {
        self.behind.retain(|(id, _), _| *id != recording);
    }

    /// Nothing can wait any longer: what `still` says runs ends by itself, and whatever else is kept for a recording is given up.
    pub(super) fn give_up(&mut self, still: impl Fn(&(RecordingId, Format)) -> bool) {
        self.behind.retain(|which, _| still(which));
    }

    /// Where each recorder has come to.
    pub(super) fn cursors(&self) -> impl Iterator<Item = u64> {
        self.behind.values().copied()
    }

    /// Before this position nothing is needed. `preroll`: how much is kept for recordings to come.
    pub(super) fn from(&mut self, journaled: &Snapshot, preroll: Duration, now: Monotonic) -> u64 {
        let now = now.as_millis();
        let end = journaled.end.0;
        // A recording may begin at the random access point before the moment it asks for: that one is kept too.
        let end_ms = journaled.end_dts_ms.unwrap_or(0);
        let recent = |at: &i64| end_ms.saturating_sub(*at) <= LONGEST_GOP_MS;
        let start = journaled.last_random_access.filter(|(_, dts_ms)| recent(dts_ms));
        self.starts
            .push_back((now, start.map_or(end, |(position, _)| position.0)));
        let preroll = i64::try_from(preroll.as_millis()).unwrap_or(i64::MAX);
        let past = |(at, _): &(i64, u64)| now.saturating_sub(*at) >= preroll;
        while self.starts.get(1).is_some_and(past) {
            self.starts.pop_front();
        }
        let old = self.starts.front().filter(|start| past(start)).map_or(0, |(_, at)| *at);
        self.behind.values().copied().min().unwrap_or(end).min(old)
    }
}

#[cfg(test)]
mod tests {
    use journal::Position;
    use shared::ids::Seeded;
    use shared::time::Timestamp;

    use super::*;

    const PREROLL: Duration = Duration::from_secs(30);

    /// A journal of so many units, one every second, each of which decoding may begin at.
    fn units(count: u64) -> Snapshot {
        let last = count.saturating_sub(1);
        let dts_ms = i64::try_from(last).unwrap() * 1_000;
        Snapshot {
            end: Position(count),
            end_dts_ms: Some(dts_ms),
            last_random_access: Some((Position(last), dts_ms)),
            ..Snapshot::default()
        }
    }

    fn at(seconds: i64) -> Monotonic {
        Monotonic::from_millis(seconds * 1_000)
    }

    fn recordings() -> (RecordingId, RecordingId) {
        let ids = Seeded::new(1);
        let id = || RecordingId::generate(&ids, Timestamp::from_millis(1));
        (id(), id())
    }

    #[test]
    fn what_a_recorder_or_the_preroll_needs_is_kept() {
        let (one, _) = recordings();
        let mut needs = Needs::default();
        needs.came_to(one, Format::Flv, 0);
        assert_eq!(needs.from(&units(10), PREROLL, at(10)), 0);
        needs.came_to(one, Format::Flv, 35);
        assert_eq!(needs.from(&units(40), PREROLL, at(40)), 9, "the pre-roll");
        assert_eq!(needs.from(&units(80), PREROLL, at(80)), 35, "the recorder");
        needs.done(one, Format::Flv);
        assert_eq!(needs.from(&units(120), PREROLL, at(120)), 79, "the pre-roll");
    }

    #[test]
    fn what_a_lost_recording_had_before_it_is_kept_until_nothing_can_wait_any_longer() {
        let (lost, other) = recordings();
        let mut needs = Needs::default();
        needs.came_to(lost, Format::Flv, 5);
        needs.lost(lost, Format::Flv);
        needs.came_to(other, Format::Flv, 8);
        for seconds in [10, 50, 100] {
            needs.from(&units(seconds), PREROLL, at(i64::try_from(seconds).unwrap()));
        }
        // Its recorders have stopped, and say nothing any more.
        needs.came_to(other, Format::Flv, 150);
        assert_eq!(needs.from(&units(200), PREROLL, at(200)), 5);
        needs.give_up(|(recording, _)| *recording == other);
        assert_eq!(needs.from(&units(240), PREROLL, at(240)), 150);
        needs.ended(other);
        assert_eq!(needs.from(&units(280), PREROLL, at(280)), 239);
    }

    #[test]
    fn of_a_recording_that_was_lost_before_a_restart_all_is_kept() {
        let (lost, other) = recordings();
        let mut needs = Needs::default();
        needs.lost(lost, Format::Flv);
        needs.done(other, Format::Flv);
        needs.from(&units(10), PREROLL, at(10));
        assert_eq!(needs.from(&units(10), PREROLL, at(100)), 0);
    }
}
