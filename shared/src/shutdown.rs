//! How a process ends: [`Shutdown`] tells every part which [`Phase`] it is in.

use std::{fmt, time::Duration};

use tokio::sync::watch;

/// Where a process is in its life. Only ever goes on, never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Opening what it needs; takes no work yet.
    Starting,
    /// Serving.
    Running,
    /// Refuses new work and finishes what it has.
    Draining,
    /// Done, or told to leave at once.
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Draining => "draining",
            Phase::Stopped => "stopped",
        })
    }
}

/// The process's phase; cheap to clone, every clone sees the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// In [`Phase::Starting`].
    #[must_use]
    pub fn new() -> Self {
        Shutdown {
            phase: watch::Sender::new(Phase::Starting),
        }
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a phase; going back is without effect.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let on = phase > *current;
            if on {
                *current = phase;
            }
            on
        });
    }

    /// Waits until the phase is `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        let mut seen = self.phase.subscribe();
        // This clone holds a sender, so the channel cannot close while it waits.
        let _ = seen.wait_for(|current| *current >= phase).await;
    }

    /// Waits for `phase`, but no longer than `limit`. True if it was reached.
    pub async fn reached_within(&self, phase: Phase, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.reached(phase)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_go_on_and_never_back() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        let waiter = tokio::spawn(async move { other.reached(Phase::Draining).await });
        shutdown.enter(Phase::Running);
        assert!(!shutdown.reached_within(Phase::Draining, Duration::from_secs(1)).await);
        shutdown.enter(Phase::Stopped);
        shutdown.enter(Phase::Draining);
        waiter.await.unwrap();
        assert_eq!(shutdown.phase(), Phase::Stopped);
    }
}
