//! [`Steady`]: a clock that does not follow its own jumps until they have lasted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::{Clock, Monotonic, Timestamp};

/// A time of day that agrees with elapsed time to within this is followed at once: clocks are slewed, and set by a little.
const TOLERANCE: Duration = Duration::from_secs(1);
/// A jump that has lasted so long is believed.
const DOUBT: Duration = Duration::from_secs(30);
/// So long a clock is watched before a jump of it can be told, and before it decides for good.
const WATCHED: Duration = Duration::from_secs(10);

/// What time of day is believed. Pure.
#[derive(Debug, Clone, Copy)]
struct Belief {
    /// Time of day at elapsed time zero, milliseconds since the Unix epoch.
    offset_ms: i64,
    /// Since when it has stood.
    since: Monotonic,
    /// Another one that the clock tells, and since when.
    doubted: Option<(i64, Monotonic)>,
    /// The one that was left for this one before anything could be told, and when.
    left: Option<(i64, Monotonic)>,
}

fn is_near(one_ms: i64, other_ms: i64) -> bool {
    u128::from(one_ms.abs_diff(other_ms)) <= TOLERANCE.as_millis()
}

impl Belief {
    fn new(wall: Timestamp, mono: Monotonic) -> Self {
        Belief {
            offset_ms: wall.0.saturating_sub(mono.0),
            since: mono,
            doubted: None,
            left: None,
        }
    }

    /// True if the clock tells again what was left for another a moment ago: it was that one that was wrong.
    fn is_back(&self, offset_ms: i64, mono: Monotonic) -> bool {
        self.left
            .is_some_and(|(left_ms, at)| is_near(offset_ms, left_ms) && mono.since(at) < DOUBT)
    }

    /// The time of day at `mono`, at which the clock tells `wall`.
    fn tell(&mut self, wall: Timestamp, mono: Monotonic) -> Timestamp {
        let offset_ms = wall.0.saturating_sub(mono.0);
        if is_near(offset_ms, self.offset_ms) {
            (self.offset_ms, self.doubted) = (offset_ms, None);
            return wall;
        }
        if self.is_back(offset_ms, mono) {
            *self = Belief::new(wall, mono);
            return wall;
        }
        if mono.since(self.since) < WATCHED {
            // Which of the two is wrong cannot be told: nothing is decided for good meanwhile.
            let left = self.left.or(Some((self.offset_ms, mono)));
            *self = Belief {
                left,
                ..Belief::new(wall, mono)
            };
            return wall;
        }
        let since = match self.doubted {
            Some((doubted_ms, since)) if is_near(offset_ms, doubted_ms) => since,
            _ => mono,
        };
        if mono.since(since) >= DOUBT {
            (self.offset_ms, self.since, self.doubted) = (offset_ms, since, None);
            return wall;
        }
        self.doubted = Some((offset_ms, since));
        Timestamp(mono.0.saturating_add(self.offset_ms))
    }

    fn is_settled(&self, mono: Monotonic) -> bool {
        self.doubted.is_none() && mono.since(self.since) >= WATCHED
    }
}

/// A clock over another one. While that jumps by more than a second, the time of day goes on as elapsed time does; a jump that has
/// lasted for 30 s is believed. Within the first 10 s every jump is followed, since nothing is known that it could be measured by.
#[derive(Debug)]
pub struct Steady {
    clock: Arc<dyn Clock>,
    belief: Mutex<Belief>,
}

impl Steady {
    /// Watches `clock` from now on.
    #[must_use]
    pub fn over(clock: Arc<dyn Clock>) -> Arc<Self> {
        let belief = Belief::new(clock.now(), clock.monotonic());
        Arc::new(Steady {
            clock,
            belief: Mutex::new(belief),
        })
    }

    fn with<T>(&self, read: impl FnOnce(&mut Belief, Timestamp, Monotonic) -> T) -> T {
        let mut belief = self.belief.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, mono) = (self.clock.now(), self.clock.monotonic());
        let was_doubted = belief.doubted.is_some();
        let told = belief.tell(wall, mono);
        if belief.doubted.is_some() && !was_doubted {
            warn!(%wall, believed = %told, "the clock has jumped: it is believed when that has lasted for 30 s. Keep it in step with NTP");
        }
        read(&mut belief, told, mono)
    }
}

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        self.with(|_, told, _| told)
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }

    fn is_settled(&self) -> bool {
        self.with(|belief, _, mono| belief.is_settled(mono))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manual;
    use super::*;

    const BEGIN: i64 = 1_790_000_000_000;

    fn wall(s: i64) -> Timestamp {
        Timestamp::from_millis(BEGIN + s * 1_000)
    }

    fn watched() -> (Arc<Manual>, Arc<Steady>) {
        let clock = Arc::new(Manual::at(wall(0)));
        let steady = Steady::over(Arc::<Manual>::clone(&clock));
        (clock, steady)
    }

    fn pass(clock: &Manual, seconds: u64) {
        clock.advance(Duration::from_secs(seconds));
    }

    #[test]
    fn a_jump_is_not_followed_while_it_may_go_away_again() {
        for jump in [900, -900] {
            let (clock, steady) = watched();
            pass(&clock, 100);
            assert_eq!((steady.now(), steady.is_settled()), (wall(100), true));
            clock.set_wall(wall(100 + jump));
            for second in 100..129 {
                assert_eq!((steady.now(), steady.is_settled()), (wall(second), false), "{jump}");
                pass(&clock, 1);
            }
            clock.set_wall(wall(129));
            assert_eq!((steady.now(), steady.is_settled()), (wall(129), true), "it was wrong");
        }
    }

    #[test]
    fn a_clock_that_was_followed_too_early_is_followed_back_at_once() {
        for jump in [5_400, -5_400] {
            let (clock, steady) = watched();
            pass(&clock, 8);
            clock.set_wall(wall(8 + jump));
            assert_eq!(steady.now(), wall(8 + jump), "which of the two is wrong cannot be told");
            pass(&clock, 12);
            assert_eq!(steady.now(), wall(20 + jump));
            clock.set_wall(wall(20));
            assert_eq!((steady.now(), steady.is_settled()), (wall(20), false), "now it can");
            pass(&clock, 10);
            assert_eq!((steady.now(), steady.is_settled()), (wall(30), true));
            // Long after, it is a jump like any other.
            pass(&clock, 100);
            clock.set_wall(wall(130 + jump));
            assert_eq!(steady.now(), wall(130));
        }
    }

    #[test]
    fn a_jump_that_lasts_is_believed() {
        for jump in [7_200, -7_200] {
            let (clock, steady) = watched();
            pass(&clock, 100);
            clock.set_wall(wall(100 + jump));
            assert_eq!(steady.now(), wall(100));
            pass(&clock, 30);
            assert_eq!((steady.now(), steady.is_settled()), (wall(130 + jump), true));
        }
    }

    #[test]
    fn a_clock_that_jumps_on_and_on_is_never_believed() {
        let (clock, steady) = watched();
        pass(&clock, 100);
        for step in 1..20 {
            clock.set_wall(wall(step * 1_000));
            assert_eq!(steady.now(), wall(90 + step * 10));
            pass(&clock, 10);
        }
    }

    #[test]
    fn a_clock_that_is_slewed_or_set_by_a_little_is_followed() {
        let (clock, steady) = watched();
        pass(&clock, 100);
        for step in 1..100 {
            pass(&clock, 10);
            clock.set_wall(Timestamp::from_millis(steady.now().as_millis() + 900));
            assert_eq!(steady.now(), clock.now(), "{step}");
            assert!(steady.is_settled());
        }
    }

    #[test]
    fn a_clock_that_has_just_been_met_is_followed_and_settles_nothing() {
        let (clock, steady) = watched();
        pass(&clock, 9);
        assert!(!steady.is_settled());
        clock.set_wall(wall(3_600));
        assert_eq!((steady.now(), steady.is_settled()), (wall(3_600), false));
        pass(&clock, 9);
        assert!(!steady.is_settled(), "it has not stood for long since");
        pass(&clock, 1);
        assert!(steady.is_settled());
        assert_eq!(steady.monotonic(), clock.monotonic());
    }
}
