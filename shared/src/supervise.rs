//! What a parent needs to look after its children: [`ExitReason`], [`ExitGuard`] and [`Backoff`].
//!
//! No actor framework here: a guard lives inside whatever runs and reports when that is dropped, however it ended.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::time::Monotonic;

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// Its work is done.
    Finished,
    /// It was told to stop.
    Stopped,
    /// It gave up, and says why.
    Failed(String),
    /// It panicked, or was dropped without a word.
    Panicked,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Finished => f.write_str("finished"),
            ExitReason::Stopped => f.write_str("stopped"),
            ExitReason::Failed(why) => write!(f, "failed: {why}"),
            ExitReason::Panicked => f.write_str("panicked"),
        }
    }
}

/// Reports how its owner ended, exactly once: by [`ExitGuard::exit`], or as [`ExitReason::Panicked`] when dropped without it.
pub struct ExitGuard {
    report: Option<Box<dyn FnOnce(ExitReason) + Send>>,
}

impl fmt::Debug for ExitGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExitGuard")
            .field("armed", &self.report.is_some())
            .finish()
    }
}

impl ExitGuard {
    /// `report` must neither block nor panic: it may run while a thread unwinds.
    pub fn new(report: impl FnOnce(ExitReason) + Send + 'static) -> Self {
        ExitGuard {
            report: Some(Box::new(report)),
        }
    }

    /// Ends in order.
    pub fn exit(mut self, reason: ExitReason) {
        if let Some(report) = self.report.take() {
            report(reason);
        }
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(ExitReason::Panicked);
        }
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start a fresh child after this time.
    RetryAfter(Duration),
    /// Too many failures: hand the work back.
    GiveUp,
}

/// How long to wait after each failure, and when to give up. Pure: time is an argument.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    allowed: usize,
    within: Duration,
    failures: VecDeque<Monotonic>,
}

impl Default for Backoff {
    /// 100 ms, doubled up to 10 s; gives up at the fifth failure within 10 minutes.
    fn default() -> Self {
        Backoff::new(
            Duration::from_millis(100),
            Duration::from_secs(10),
            5,
            Duration::from_secs(600),
        )
    }
}

impl Backoff {
    /// Waits `first`, then twice as long each time up to `longest`, and gives up at `allowed` failures within `within`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration, allowed: usize, within: Duration) -> Self {
        Backoff {
            first,
            longest,
            allowed,
            within,
            failures: VecDeque::new(),
        }
    }

    /// Never gives up: for connections to what must come back.
    #[must_use]
    pub fn endless(first: Duration, longest: Duration) -> Self {
        Backoff::new(first, longest, usize::MAX, Duration::from_secs(600))
    }

    /// Counts a failure.
    pub fn failed(&mut self, now: Monotonic) -> Next {
        while self.failures.front().is_some_and(|at| now.since(*at) > self.within) {
            self.failures.pop_front();
        }
        // What an endless one remembers stays bounded; 32 doublings are beyond any longest wait.
        if self.failures.len() >= 32 {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() >= self.allowed {
            return Next::GiveUp;
        }
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(u32::MAX).min(31);
        Next::RetryAfter(self.first.saturating_mul(1 << doublings).min(self.longest))
    }

    /// Forgets all failures: it works again.
    pub fn succeeded(&mut self) {
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_guard_reports_once_and_a_panic_too() {
        let (tell, told) = mpsc::channel();
        let guard = |tell: &mpsc::Sender<ExitReason>| {
            let tell = tell.clone();
            ExitGuard::new(move |reason| {
                let _ = tell.send(reason);
            })
        };
        guard(&tell).exit(ExitReason::Finished);
        let inside = guard(&tell);
        let _ = std::thread::spawn(move || {
            let _inside = inside;
            std::panic::resume_unwind(Box::new("on purpose"));
        })
        .join();
        drop(tell);
        assert_eq!(
            told.iter().collect::<Vec<_>>(),
            [ExitReason::Finished, ExitReason::Panicked]
        );
    }

    #[test]
    fn waits_double_up_to_the_longest_and_the_fifth_failure_gives_up() {
        let mut backoff = Backoff::new(
            Duration::from_secs(1),
            Duration::from_secs(3),
            5,
            Duration::from_secs(600),
        );
        let at = |s: i64| Monotonic::from_millis(s * 1_000);
        let waits: Vec<_> = (0..5).map(|s| backoff.failed(at(s))).collect();
        let retry = |s| Next::RetryAfter(Duration::from_secs(s));
        assert_eq!(waits, [retry(1), retry(2), retry(3), retry(3), Next::GiveUp]);
        assert_eq!(backoff.failed(at(2_000)), retry(1), "old failures do not count");
        backoff.succeeded();
        assert_eq!(backoff.failed(at(2_001)), retry(1));
        let mut endless = Backoff::endless(Duration::from_secs(1), Duration::from_secs(5));
        assert!((0..100).all(|s| endless.failed(at(s)) != Next::GiveUp));
    }
}
