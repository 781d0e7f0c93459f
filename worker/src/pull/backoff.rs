//! How long to wait before an origin is tried again. Pure.

use std::time::Duration;

/// Wait after the first failure.
const FIRST: Duration = Duration::from_millis(500);

/// The wait after `failures` tries in a row that brought no media (0: the last one did): doubled with each, at most
/// `longest`, give or take a quarter by `random`, so that many streams of one origin do not come back in step.
pub(super) fn wait(failures: u32, longest: Duration, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = FIRST.saturating_mul(1 << doublings).min(longest);
    // 750 to 1249 thousandths.
    let thousandths = 750 + u32::try_from(random % 500).unwrap_or(0);
    wait.saturating_mul(thousandths) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let longest = Duration::from_secs(15);
        let middle = |failures| wait(failures, longest, 250).as_millis();
        assert_eq!([0, 1, 2, 3, 6, 40].map(middle), [500, 500, 1000, 2000, 15_000, 15_000]);
        for random in 0..2_000 {
            let waited = wait(3, longest, random).as_millis();
            assert!((1_500..=2_500).contains(&waited), "{waited}");
        }
        assert_ne!(wait(1, longest, 1), wait(1, longest, 2));
        assert!(wait(u32::MAX, longest, u64::MAX) <= longest * 5 / 4);
    }
}
