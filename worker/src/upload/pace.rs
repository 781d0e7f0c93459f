//! [`Pace`]: the bandwidth limit, shared by all uploads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets bytes go at a rate: each waits until those before it would be through.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second; 0: no limit.
    rate: u64,
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate,
            free: Mutex::new(None),
        }
    }

    /// Waits until `len` bytes may go.
    pub(crate) async fn wait(&self, len: u64) {
        if self.rate == 0 {
            return;
        }
        let takes = Duration::from_secs_f64(len as f64 / self.rate as f64);
        let begin = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = free.map_or_else(Instant::now, |at| at.max(Instant::now()));
            *free = Some(begin + takes);
            begin
        };
        tokio::time::sleep_until(begin).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_the_rate_whoever_sends_them() {
        let pace = Pace::new(1_000_000);
        let begin = Instant::now();
        for _ in 0..11 {
            pace.wait(500_000).await;
        }
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        let free = Pace::new(0);
        free.wait(u64::MAX).await;
    }
}
