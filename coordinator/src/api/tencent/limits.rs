//! [`Buckets`]: how often somebody may do something. Pure and bounded.

use std::collections::BTreeMap;

use shared::time::Monotonic;

/// Most names that are counted at a time.
const MOST: usize = 10_000;

/// One bucket for each name, refilled steadily, holding one second's worth.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    /// Thousandths of a request left, and when that was so.
    buckets: BTreeMap<K, (i64, Monotonic)>,
}

impl<K: Ord> Default for Buckets<K> {
    fn default() -> Self {
        Buckets {
            buckets: BTreeMap::new(),
        }
    }
}

impl<K: Ord> Buckets<K> {
    fn level(&self, name: &K, per_second: u32, now: Monotonic) -> i64 {
        let full = i64::from(per_second) * 1_000;
        self.buckets.get(name).map_or(full, |(left, since)| {
            let waited = i64::try_from(now.since(*since).as_millis()).unwrap_or(i64::MAX);
            left.saturating_add(waited.saturating_mul(i64::from(per_second)))
                .min(full)
        })
    }

    /// True if there is something left, which is not taken.
    pub(crate) fn has(&self, name: &K, per_second: u32, now: Monotonic) -> bool {
        self.level(name, per_second, now) >= 1_000
    }

    /// Takes one; false if there is none left. When too many names are counted those that have waited a second are
    /// forgotten, for theirs are full again, and if none has, nobody new is let in.
    pub(crate) fn take(&mut self, name: K, per_second: u32, now: Monotonic) -> bool {
        let level = self.level(&name, per_second, now);
        if level < 1_000 {
            return false;
        }
        if self.buckets.len() >= MOST && !self.buckets.contains_key(&name) {
            self.buckets
                .retain(|_, (_, since)| now.since(*since) < std::time::Duration::from_secs(1));
            if self.buckets.len() >= MOST {
                return false;
            }
        }
        self.buckets.insert(name, (level - 1_000, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_at_once_and_the_rest_steadily() {
        let mut buckets = Buckets::default();
        let at = Monotonic::from_millis;
        for _ in 0..20 {
            assert!(buckets.take("a", 20, at(0)));
        }
        assert!(!buckets.take("a", 20, at(49)));
        assert!(!buckets.has(&"a", 20, at(49)));
        assert!(buckets.take("b", 20, at(49)), "each name has its own");
        assert!(buckets.take("a", 20, at(50)));
        assert!(!buckets.take("a", 20, at(50)));
        assert!((0..20).all(|_| buckets.take("a", 20, at(10_000))));
        assert!(!buckets.take("a", 20, at(10_000)));
    }

    #[test]
    fn names_are_bounded() {
        let mut buckets = Buckets::default();
        let at = Monotonic::from_millis;
        for name in 0..MOST {
            assert!(buckets.take(name, 5, at(0)));
        }
        assert!(!buckets.take(MOST, 5, at(999)));
        assert!(buckets.take(MOST, 5, at(1_000)));
        assert_eq!(buckets.buckets.len(), 1);
    }
}
