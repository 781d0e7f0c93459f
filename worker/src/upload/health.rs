//! [`Health`]: whether storage answers, for all recorders together.
//!
//! While it does not, one recorder tries it for all of them, at growing distances; the others wait with empty hands. The first
//! answer lets everybody go on. So an outage costs no rendering, no memory and one line in the log, however many wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::telemetry::Gauge;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tracing::{info, warn};

/// First wait before storage is tried again; doubled with each failure, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Held by the one who tries storage for all.
pub(crate) type Probe = OwnedMutexGuard<()>;

#[derive(Debug)]
pub(super) struct Health {
    away: Mutex<Option<Away>>,
    prober: Arc<tokio::sync::Mutex<()>>,
    /// What is said of it in the log, and where people see whether it answers.
    name: String,
    up: Gauge,
}

#[derive(Debug, Clone, Copy)]
struct Away {
    since: Instant,
    next: Instant,
    wait: Duration,
}

impl Health {
    pub(super) fn new(name: impl Into<String>, up: Gauge) -> Self {
        up.set(1);
        Self {
            away: Mutex::new(None),
            prober: Arc::default(),
            name: name.into(),
            up,
        }
    }

    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_away(&self) -> bool {
        self.away().is_some()
    }

    /// For how long it has not answered; none: it does.
    pub(super) fn away_for(&self) -> Option<Duration> {
        self.away().map(|away| away.since.elapsed())
    }

    /// Returns when storage is believed to answer, or when it is the caller's turn to try: then with the probe.
    pub(super) async fn wait(&self) -> Option<Probe> {
        if !self.is_away() {
            return None;
        }
        let probe = Arc::clone(&self.prober).lock_owned().await;
        let next = self.away().map(|away| away.next);
        tokio::time::sleep_until(next?).await;
        self.is_away().then_some(probe)
    }

    /// Storage answered.
    pub(super) fn answered(&self) {
        if let Some(away) = self.away().take() {
            self.up.set(1);
            info!(away = ?away.since.elapsed(), "{} answers again", self.name);
        }
    }

    /// Storage did not answer; `probe` says that this was the try for all.
    pub(super) fn failed(&self, probe: Option<Probe>, error: &str) {
        let now = Instant::now();
        let mut away = self.away();
        match (*away, probe) {
            (None, _) => {
                self.up.set(0);
                warn!(
                    error,
                    "{} does not answer; recordings wait in their journals", self.name
                );
                *away = Some(Away {
                    since: now,
                    next: now + FIRST_WAIT,
                    wait: FIRST_WAIT,
                });
            }
            (Some(last), Some(_)) => {
                let wait = (last.wait * 2).min(LONGEST_WAIT);
                *away = Some(Away {
                    next: now + wait,
                    wait,
                    ..last
                });
            }
            // It set out before storage was known to be away.
            (Some(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_tries_for_all_and_the_first_answer_lets_everybody_go() {
        let health = Arc::new(Health::new("storage", Gauge::default()));
        assert!(health.wait().await.is_none());
        health.failed(None, "503");
        let begin = Instant::now();
        let probe = health.wait().await.expect("the try for all");
        assert_eq!(begin.elapsed(), FIRST_WAIT);
        let others: Vec<_> = (0..10)
            .map(|_| {
                let health = Arc::clone(&health);
                tokio::spawn(async move { health.wait().await.is_none() })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(others.iter().all(|other| !other.is_finished()));
        health.failed(Some(probe), "503");
        health.answered();
        for other in others {
            assert!(other.await.expect("no panic"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tries_become_rarer_up_to_a_bound() {
        let health = Health::new("storage", Gauge::default());
        health.failed(None, "503");
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            let begin = Instant::now();
            let probe = health.wait().await;
            let waited = begin.elapsed();
            assert!(waited >= last && waited <= LONGEST_WAIT, "{waited:?} after {last:?}");
            last = waited;
            health.failed(probe, "503");
        }
        assert_eq!(last, LONGEST_WAIT);
    }
}
