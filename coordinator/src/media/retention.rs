//! When files are removed by themselves: what the clock must look like for that, and when what failed is tried again. Pure.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    ids::{FileId, RecordingId},
    store::{Due, Looked, Removal},
    time::{Monotonic, Timestamp},
};

/// A time of day that is so much further on than elapsed time is a jump.
const JUMP: Duration = Duration::from_secs(3_600);
/// So long a coordinator may have been away before its clock is taken for one that jumped meanwhile.
const AWAY: Duration = Duration::from_secs(7 * 86_400);
/// A jump that lasts so long is believed.
const DOUBT: Duration = Duration::from_secs(86_400);
/// First wait after storage did not let a file go; doubled with each failure, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Longest text of a problem that is kept, bytes.
const MAX_PROBLEM: usize = 500;
/// How often it is noted in the store how far the clock has come.
const NOTE_EVERY: Duration = Duration::from_secs(3_600);

/// Whether the time of day is believed. A clock that jumps ahead would have everything removed, and nobody could take it back; one that
/// goes back only lets files wait.
#[derive(Debug, Clone)]
pub(crate) struct Belief {
    last: Option<(Timestamp, Monotonic)>,
    allowance: Duration,
    doubted: Option<Monotonic>,
    noted: Option<Timestamp>,
}

impl Belief {
    /// Goes on from when was looked last, which is in the store.
    pub(crate) fn new(looked: Option<Looked>, mono: Monotonic) -> Self {
        Belief {
            last: looked.map(|looked| (looked.at, mono)),
            allowance: AWAY,
            doubted: None,
            noted: looked.map(|looked| looked.at),
        }
    }

    /// True if it is believed that it is `now`.
    pub(crate) fn believes(&mut self, now: Timestamp, mono: Monotonic) -> bool {
        if let Some((wall, at)) = self.last
            && now > wall + mono.since(at) + self.allowance
        {
            let since = *self.doubted.get_or_insert(mono);
            if mono.since(since) < DOUBT {
                return false;
            }
        }
        self.last = Some((now, mono));
        self.allowance = JUMP;
        self.doubted = None;
        true
    }

    /// What is to be noted in the store, now and then.
    pub(crate) fn news(&mut self, now: Timestamp) -> Option<Looked> {
        let is_due = self.noted.is_none_or(|noted| now >= noted + NOTE_EVERY || now < noted);
        is_due.then(|| {
            self.noted = Some(now);
            Looked { at: now }
        })
    }
}

/// First wait of a [`Turn`]; doubled with each failure, up to [`LONGEST_TURN`].
const FIRST_TURN: Duration = Duration::from_secs(10);
const LONGEST_TURN: Duration = Duration::from_secs(600);

/// When a place that let nothing go is tried again: by one removal for all that wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn(Option<(Duration, Monotonic)>);

impl Turn {
    /// True if it is to be tried by now.
    pub(crate) fn is_due(&self, now: Monotonic) -> bool {
        self.0.is_none_or(|(_, again)| now >= again)
    }

    /// True if it let nothing go when it was tried last.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what came of trying.
    pub(crate) fn tried(&mut self, worked: bool, now: Monotonic) {
        let wait = self.0.map_or(FIRST_TURN, |(wait, _)| (wait * 2).min(LONGEST_TURN));
        self.0 = (!worked).then_some((wait, now + wait));
    }
}

/// Puts due files of one recording together.
pub(crate) fn by_recording(due: &[Due]) -> BTreeMap<RecordingId, Vec<FileId>> {
    let mut groups: BTreeMap<RecordingId, Vec<FileId>> = BTreeMap::new();
    for due in due {
        groups.entry(due.recording).or_default().push(due.file);
    }
    groups
}

/// A removal that failed once more.
pub(crate) fn failed(mut removal: Removal, problem: &str, now: Timestamp) -> Removal {
    let wait = FIRST_WAIT
        .saturating_mul(1 << removal.failures.min(16))
        .min(LONGEST_WAIT);
    removal.failures = removal.failures.saturating_add(1);
    removal.retry_at = now + wait;
    problem.clone_into(&mut removal.problem);
    removal.problem.truncate(problem.floor_char_boundary(MAX_PROBLEM));
    removal
}

/// True for a removal that is to be tried. One whose time lies absurdly far ahead was noted by a clock that has gone back since.
pub(crate) fn is_due(removal: &Removal, now: Timestamp) -> bool {
    removal.retry_at <= now || removal.retry_at > now + LONGEST_WAIT + LONGEST_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + ms)
    }

    fn mono(ms: i64) -> Monotonic {
        Monotonic::from_millis(5_000 + ms)
    }

    #[test]
    fn a_clock_that_goes_on_is_believed() {
        let mut belief = Belief::new(None, mono(0));
        for hour in 0..48 {
            assert!(belief.believes(at(hour * HOUR), mono(hour * HOUR)));
        }
        assert!(
            belief.believes(at(48 * HOUR + HOUR / 2), mono(48 * HOUR)),
            "somebody set it"
        );
        assert!(belief.believes(at(10), mono(48 * HOUR + 1)), "it went back");
        assert!(belief.believes(at(HOUR), mono(49 * HOUR)));
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_when_that_has_lasted_for_a_day() {
        let mut belief = Belief::new(None, mono(0));
        assert!(belief.believes(at(0), mono(0)));
        let ahead = 10_000 * HOUR;
        for hour in 1..=24 {
            assert!(
                !belief.believes(at(ahead + hour * HOUR), mono(hour * HOUR)),
                "hour {hour}"
            );
        }
        assert!(belief.believes(at(ahead + 25 * HOUR), mono(25 * HOUR)));
        assert!(belief.believes(at(ahead + 26 * HOUR), mono(26 * HOUR)));
    }

    #[test]
    fn a_clock_that_comes_back_in_time_did_no_harm() {
        let mut belief = Belief::new(None, mono(0));
        assert!(belief.believes(at(0), mono(0)));
        assert!(!belief.believes(at(9_000 * HOUR), mono(HOUR)));
        assert!(belief.believes(at(2 * HOUR), mono(2 * HOUR)));
        assert!(!belief.believes(at(9_000 * HOUR), mono(3 * HOUR)), "it is doubted anew");
        assert!(!belief.believes(at(9_000 * HOUR), mono(26 * HOUR)));
    }

    #[test]
    fn a_jump_while_no_coordinator_ran_is_noticed_and_a_holiday_is_not_taken_for_one() {
        let looked = |ms| Some(Looked { at: at(ms) });
        assert!(Belief::new(looked(0), mono(0)).believes(at(6 * 24 * HOUR), mono(0)));
        let mut belief = Belief::new(looked(0), mono(0));
        assert!(!belief.believes(at(9 * 24 * HOUR), mono(0)));
        assert!(belief.believes(at(10 * 24 * HOUR), mono(24 * HOUR)));
        assert!(Belief::new(looked(9_000 * HOUR), mono(0)).believes(at(0), mono(0)));
    }

    #[test]
    fn how_far_the_clock_has_come_is_noted_once_an_hour() {
        let mut belief = Belief::new(None, mono(0));
        let noted = (0..240).filter(|n| belief.news(at(n * HOUR / 60)).is_some()).count();
        assert_eq!(noted, 4);
        assert!(belief.news(at(-HOUR)).is_some(), "also when it has gone back");
    }

    #[test]
    fn a_place_that_lets_nothing_go_is_tried_less_often_until_it_does() {
        let mut turn = Turn::default();
        let (mut now, mut waits) = (mono(0), Vec::new());
        assert!(turn.is_due(now) && !turn.is_waiting());
        for _ in 0..10 {
            turn.tried(false, now);
            let since = now;
            while !turn.is_due(now) {
                now = now + Duration::from_secs(1);
            }
            waits.push(now.since(since).as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
        turn.tried(true, now);
        assert!(turn.is_due(now) && !turn.is_waiting());
        turn.tried(false, now);
        assert!(!turn.is_due(now) && turn.is_due(now + FIRST_TURN));
    }

    #[test]
    fn failures_wait_longer_each_time_but_never_more_than_an_hour() {
        use shared::{ids::Seeded, lease::Epoch, recording::MediaFile, store::RemovalCause, template::Format};

        let ids = Seeded::new(1);
        let file = MediaFile {
            id: FileId::generate(&ids, at(0)),
            recording: RecordingId::generate(&ids, at(0)),
            stream: shared::ids::StreamKey::new("d", "a", "s").unwrap(),
            format: Format::Flv,
            sequence: 0,
            name: "n".to_owned(),
            object_key: "k".to_owned(),
            size: 1,
            duration_ms: 1,
            start: at(0),
            end: at(0),
            checksum: String::new(),
            video_units: 0,
            audio_units: 0,
            gaps: vec![],
            epoch: Epoch::new(1),
            committed: at(0),
            expires: None,
            locked: false,
            copied: None,
        };
        let mut removal = Removal {
            file,
            cause: RemovalCause::Expired,
            begun: at(0),
            failures: 0,
            retry_at: at(0),
            problem: String::new(),
        };
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(is_due(&removal, removal.retry_at));
            let now = removal.retry_at;
            removal = failed(removal, &"é".repeat(400), now);
            assert!(!is_due(&removal, now) && removal.problem.len() <= MAX_PROBLEM);
            waits.push((removal.retry_at.as_millis() - now.as_millis()) / 1_000);
        }
        assert_eq!(waits.first(), Some(&10));
        assert_eq!(waits.last(), Some(&3_600));
        assert!(waits.is_sorted());
        assert!(is_due(&removal, at(-9_000 * HOUR)), "the clock has gone back since");
    }
}
