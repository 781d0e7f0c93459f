//! [`Clock`]: the only door to the time of day and to elapsed time, so that both can be an argument.

mod steady;

use std::{
    fmt,
    ops::{Add, Sub},
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

pub use self::steady::Steady;

/// Wall clock, milliseconds since the Unix epoch, UTC. Media time never follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Takes milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Timestamp(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds; the bare number outside the years -9999 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, after: Duration) -> Timestamp {
        Timestamp(
            self.0
                .saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

/// Elapsed time, milliseconds since an arbitrary start; never goes back. Leases and time-outs count in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(i64);

impl Monotonic {
    /// Takes milliseconds since the clock's start.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Monotonic(ms)
    }

    /// Milliseconds since the clock's start.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Time since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Monotonic;
    fn add(self, after: Duration) -> Monotonic {
        Monotonic(
            self.0
                .saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl Sub for Monotonic {
    type Output = Duration;
    fn sub(self, earlier: Monotonic) -> Duration {
        self.since(earlier)
    }
}

/// Tells both times.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day. May jump either way.
    fn now(&self) -> Timestamp;
    /// Elapsed time. Never goes back.
    fn monotonic(&self) -> Monotonic;
    /// True if the time of day has agreed with elapsed time for long enough to decide by it what nobody can take back.
    fn is_settled(&self) -> bool {
        true
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct System {
    start: Instant,
}

impl System {
    /// Starts the elapsed time at zero.
    #[must_use]
    pub fn new() -> Self {
        System { start: Instant::now() }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for System {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct Manual {
    wall_ms: AtomicI64,
    mono_ms: AtomicI64,
}

impl Manual {
    /// Starts at a time of day; elapsed time starts at zero.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Manual {
            wall_ms: AtomicI64::new(now.0),
            mono_ms: AtomicI64::new(0),
        }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.mono_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Lets the time of day jump; elapsed time stays.
    pub fn set_wall(&self, now: Timestamp) {
        self.wall_ms.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.mono_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_may_jump_and_elapsed_time_does_not() {
        let clock = Manual::at(Timestamp::from_millis(1_000));
        let before = clock.monotonic();
        clock.advance(Duration::from_millis(5));
        clock.set_wall(Timestamp::from_millis(-7));
        assert_eq!(clock.now().as_millis(), -7);
        assert_eq!(clock.monotonic() - before, Duration::from_millis(5));
        assert_eq!(before - clock.monotonic(), Duration::ZERO);
    }

    #[test]
    fn a_timestamp_reads_as_rfc_3339() {
        assert_eq!(
            Timestamp::from_millis(1_597_017_600_007).to_string(),
            "2020-08-10T00:00:00.007Z"
        );
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), format!("{} ms", i64::MAX));
    }
}
