//! What this process and its journals cost, sampled for heartbeats: [`Sampler`].

use std::sync::Arc;

use shared::ids::PublishId;
use shared::time::Clock;

/// Bytes and age of all journals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Journals {
    pub(crate) bytes: u64,
    /// Of the oldest, milliseconds; 0: there is none.
    pub(crate) age_ms: u64,
}

/// CPU time used so far, at a moment.
#[derive(Debug, Clone, Copy)]
struct Cpu {
    ticks: u64,
    at_ms: i64,
}

/// Measures.
#[derive(Debug)]
pub(crate) struct Sampler {
    clock: Arc<dyn Clock>,
    cpu: Option<Cpu>,
    milli: u32,
}

impl Sampler {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            cpu: None,
            milli: 0,
        }
    }

    /// Thousandths of one core that the process used since the look before; 0 at the first, and where the system does not say.
    pub(crate) fn cpu_milli(&mut self) -> u32 {
        let ticks = std::fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|stat| cpu_ticks(&stat));
        let Some(ticks) = ticks else { return 0 };
        let now = Cpu {
            ticks,
            at_ms: self.clock.monotonic().as_millis(),
        };
        if let Some(before) = self.cpu {
            let elapsed_ms = u64::try_from(now.at_ms - before.at_ms).unwrap_or(0);
            if elapsed_ms == 0 {
                return self.milli;
            }
            let used_ms =
                now.ticks.saturating_sub(before.ticks) * 1000 / rustix::param::clock_ticks_per_second().max(1);
            self.milli = u32::try_from(used_ms * 1000 / elapsed_ms).unwrap_or(u32::MAX);
        }
        self.cpu = Some(now);
        self.milli
    }
}

/// User and system time in `/proc/self/stat`, clock ticks: fields 14 and 15, behind a name that may hold anything. proc(5).
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

impl Journals {
    /// Sums up what each journal takes, given by its directory's name: its publish's id, which says when it began.
    pub(crate) fn of(journals: &[(String, u64)], now_ms: i64) -> Self {
        let age_ms = |name: &str| {
            let (s, nanos) = name.parse::<PublishId>().ok()?.as_uuid().get_timestamp()?.to_unix();
            let began_ms = i64::try_from(s).ok()?.saturating_mul(1000) + i64::from(nanos / 1_000_000);
            u64::try_from(now_ms.saturating_sub(began_ms)).ok()
        };
        Self {
            bytes: journals.iter().map(|(_, bytes)| bytes).sum(),
            age_ms: journals.iter().filter_map(|(name, _)| age_ms(name)).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use shared::ids::{Random, Seeded};
    use shared::time::{Manual, Timestamp};

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 70 7 0 0 20 0 1 0 5 6";
        assert_eq!(cpu_ticks(stat), Some(77));
        assert_eq!(cpu_ticks("nonsense"), None);
        assert_eq!(cpu_ticks("1 (x) S 1 2"), None);
    }

    #[test]
    fn a_process_that_works_uses_cpu() {
        let clock = Arc::new(Manual::default());
        let mut sampler = Sampler::new(Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(sampler.cpu_milli(), 0, "nothing to compare with yet");
        // Work until the system has accounted for some of it; the clock says that it took a second.
        let ids = Random;
        let mut used = 0;
        while used == 0 {
            for _ in 0..100_000 {
                std::hint::black_box(shared::ids::IdGen::uuid(&ids, Timestamp::default()));
            }
            clock.advance(Duration::from_secs(1));
            used = sampler.cpu_milli();
        }
        assert!(used <= 64_000, "{used}");
    }

    #[test]
    fn journals_are_summed_up_and_the_oldest_id_tells_their_age() {
        assert_eq!(Journals::of(&[], 9_000), Journals::default());
        let ids = Seeded::new(1);
        let journal = |began_ms, bytes| {
            let id = PublishId::generate(&ids, Timestamp::from_millis(began_ms));
            (id.to_string(), bytes)
        };
        let found = [journal(5_000, 7), journal(2_000, 10), ("no id".to_owned(), 1)];
        let expected = Journals {
            bytes: 18,
            age_ms: 7_000,
        };
        assert_eq!(Journals::of(&found, 9_000), expected);
        assert_eq!(
            Journals::of(&found, 1_000).age_ms,
            0,
            "a clock that was set back makes no age"
        );
    }
}
