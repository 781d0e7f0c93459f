//! How publishers are let go when this worker takes no more: each at the moment that costs its recording least.
//!
//! A client that says so in `connect` is asked to connect again and leaves by itself, whole. Any other is closed when its next key
//! picture has come: an encoder that connects again begins with a key picture, and what was sent since the last one is here. Sound alone
//! has no such moment and ends at once.

use std::time::Duration;

use super::Event;
use super::connection::{Ending, Now};
use super::poller::Poller;

/// What publishers hear.
pub(super) const LEAVING: &str = "this worker takes no streams any more; connect again";
/// Time between two visits of a publisher that is to go.
pub(super) const VISIT_MS: u64 = 20;

/// Publishers are being let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// Who is here then is closed. Milliseconds, monotonic.
    until_ms: u64,
    /// Nobody is here any more, which was said.
    done: bool,
}

impl Poller {
    /// Accepts no publish from now on, and lets those that are live go within this time.
    pub(super) fn leave(&mut self, within: Duration) {
        let now = self.desk.now();
        let until_ms = now
            .mono_ms
            .saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        self.desk.leaving = Some(Leaving { until_ms, done: false });
        self.desk.metrics.accepting.set(0);
        for place in 0..self.places.len() {
            // What has already arrived is still the publisher's due.
            self.visit(place);
            let stays = self
                .places
                .get_mut(place)
                .and_then(Option::as_mut)
                .is_some_and(|connection| connection.leave());
            if !stays {
                self.let_go(place, now);
            }
        }
        self.see_off(now);
    }

    /// Takes publishers again.
    pub(super) fn resume(&mut self) {
        self.desk.leaving = None;
        self.places
            .iter_mut()
            .flatten()
            .for_each(|connection| connection.stay());
    }

    /// Closes whoever is here after the time to go, and says so when nobody is.
    pub(super) fn see_off(&mut self, now: Now) {
        let Some(leaving) = self.desk.leaving.filter(|leaving| !leaving.done) else {
            return;
        };
        if now.mono_ms >= leaving.until_ms {
            for place in 0..self.places.len() {
                self.visit(place);
                self.let_go(place, now);
            }
        }
        if self.desk.live.is_empty() {
            self.desk.leaving = Some(Leaving { done: true, ..leaving });
            self.desk.emit(Event::Drained);
        }
    }

    fn let_go(&mut self, place: usize, now: Now) {
        self.end(place, &Ending::new("worker_stopped", LEAVING), now);
    }
}
