//! When to look at a socket next. Pure.
//!
//! What costs is the number of wake-ups, not the bytes. So a publishing socket is left alone until about
//! [`TARGET_BYTES`] have gathered in it, but never longer than [`LONGEST_MS`]: that is the promise of what a killed process may lose.

/// No publishing socket waits longer than this to be read, milliseconds. With the write that follows it stays under the
/// 250 ms that the product promises.
pub(crate) const LONGEST_MS: u64 = 200;
/// A socket that fills faster is read sooner, milliseconds at the least.
const SHORTEST_MS: u64 = 2;
/// What should gather between two reads, bytes: well inside the receive buffer the listener asks for.
const TARGET_BYTES: u64 = 80 * 1024;
/// While a client is still talking commands, each answer waits for at most this, milliseconds.
pub(crate) const TALKING_MS: u64 = 10;
/// Visits fall on multiples of this, milliseconds, so that one wake-up serves many sockets.
const GRID_MS: u64 = 25;

/// How fast one connection's bytes come, and when to read it next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    last_ms: u64,
    /// Bytes a second, smoothed over about four visits.
    rate: u64,
}

impl Pace {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            last_ms: now_ms,
            rate: 0,
        }
    }

    /// Takes note of `bytes` read at `now_ms`; says when to come again. `more` means that the socket was not emptied.
    pub(crate) fn next(&mut self, now_ms: u64, bytes: u64, publishing: bool, more: bool) -> u64 {
        let elapsed = now_ms.saturating_sub(self.last_ms).max(1);
        self.last_ms = now_ms;
        let seen = bytes.saturating_mul(1000) / elapsed;
        self.rate = if self.rate == 0 {
            seen
        } else {
            (self.rate * 3 + seen) / 4
        };
        if more {
            return now_ms;
        }
        if !publishing {
            return now_ms + TALKING_MS;
        }
        let wait = (TARGET_BYTES * 1000)
            .checked_div(self.rate)
            .unwrap_or(LONGEST_MS)
            .clamp(SHORTEST_MS, LONGEST_MS);
        let due = now_ms + wait;
        // Rounded down, so that the grid never makes the wait longer than promised.
        if wait > GRID_MS {
            (due / GRID_MS * GRID_MS).max(now_ms + 1)
        } else {
            due
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_stream_is_visited_five_times_a_second() {
        let mut pace = Pace::new(0);
        let mut now = 0;
        let mut visits = 0;
        while now < 10_000 {
            now = pace.next(now, 20, true, false);
            visits += 1;
        }
        assert!((50..=58).contains(&visits), "{visits}");
    }

    #[test]
    fn no_wait_is_longer_than_promised() {
        for bytes in [0, 1, 1000, 10_000, 1_000_000] {
            let mut pace = Pace::new(3);
            let mut now = 3;
            for _ in 0..100 {
                let next = pace.next(now, bytes, true, false);
                assert!(next > now && next - now <= LONGEST_MS, "{now} {next}");
                now = next;
            }
        }
    }

    #[test]
    fn a_fast_stream_is_visited_before_its_window_fills() {
        let mut pace = Pace::new(0);
        let mut now = 0;
        // 5 MB/s: 5 kB for each millisecond since the last visit.
        let mut last = 0;
        for _ in 0..50 {
            let next = pace.next(now, 5_000 * (now - last).max(1), true, false);
            (last, now) = (now, next);
        }
        assert!(now - last <= 20, "{}", now - last);
    }

    #[test]
    fn an_unfinished_read_goes_on_at_once() {
        assert_eq!(Pace::new(0).next(50, 1 << 20, true, true), 50);
    }
}
