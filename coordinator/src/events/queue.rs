//! [`Queue`]: which event goes out next, and when again. Pure: time is an argument.
//!
//! The events of one publish or recording for one receiver are a lane: one is on its way at a time, and the next follows when it was
//! delivered or given up. Lanes of one receiver share its places; what one receiver does costs no other a place.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use shared::{config::EventsConfig, time::Timestamp};
use uuid::Uuid;

use super::letter::{Event, Letter, Outcome};

/// Names an event: its letter, and its place there.
pub(crate) type Name = (u64, usize);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LaneKey {
    receiver: String,
    subject: Uuid,
}

/// An event to be sent now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) name: Name,
    pub(crate) template: u64,
    pub(crate) subject: Uuid,
    pub(crate) event: Event,
}

/// What a letter has become, to be written down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Some of it is still on its way.
    Keep(Letter),
    /// Nothing is.
    Settle(Letter),
}

#[derive(Debug, Default)]
struct Receiver {
    busy: usize,
    /// Lanes whose first event may go now.
    ready: VecDeque<LaneKey>,
}

/// Events on their way.
#[derive(Debug)]
pub(crate) struct Queue {
    config: EventsConfig,
    letters: BTreeMap<u64, Letter>,
    lanes: BTreeMap<LaneKey, VecDeque<Name>>,
    receivers: BTreeMap<String, Receiver>,
    /// Lanes whose first event failed, and when it goes again.
    waiting: BTreeSet<(Timestamp, LaneKey)>,
    /// The lanes of events that are on their way.
    sent: BTreeMap<Name, LaneKey>,
}

impl Queue {
    pub(crate) fn new(config: EventsConfig) -> Self {
        Queue {
            config,
            letters: BTreeMap::new(),
            lanes: BTreeMap::new(),
            receivers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Letters that are not settled.
    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn has(&self, sequence: u64) -> bool {
        self.letters.contains_key(&sequence)
    }

    /// When the oldest of them was written.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.letters.values().next().map(|letter| letter.at)
    }

    /// Takes a letter up. Letters come in the order of their places. `url` tells where an event goes now; empty: nobody knows.
    pub(crate) fn add(&mut self, letter: Letter, now: Timestamp, url: impl Fn(&Event) -> String) {
        for (index, event) in letter.events.iter().enumerate() {
            if event.outcome.is_some() {
                continue;
            }
            let lane = LaneKey {
                receiver: url(event),
                subject: letter.subject,
            };
            let queue = self.lanes.entry(lane.clone()).or_default();
            queue.push_back((letter.sequence, index));
            if queue.len() == 1 {
                let at = self.next_at(event, now);
                self.waiting.insert((at, lane));
            }
        }
        self.letters.insert(letter.sequence, letter);
    }

    /// When an event goes out: at once, or some time after it failed.
    fn next_at(&self, event: &Event, now: Timestamp) -> Timestamp {
        match event.tried {
            // A clock that went back does not make anybody wait for it.
            Some(tried) if tried <= now => tried + self.pause(event.attempts),
            _ => now,
        }
    }

    /// Time after so many failures.
    fn pause(&self, failures: u32) -> Duration {
        let factor = self.config.retry_factor.saturating_pow(failures.saturating_sub(1));
        let grown = self.config.retry_after.saturating_mul(factor);
        grown.min(self.config.max_retry_after.max(self.config.retry_after))
    }

    /// When something is due next; none: nothing waits for its time.
    pub(crate) fn wake(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// What goes out now.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<Attempt> {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, lane)) = self.waiting.pop_first() {
                let receiver = self.receivers.entry(lane.receiver.clone()).or_default();
                receiver.ready.push_back(lane);
            }
        }
        let mut out = Vec::new();
        for receiver in self.receivers.values_mut() {
            while receiver.busy < self.config.per_receiver {
                let Some(lane) = receiver.ready.pop_front() else { break };
                let Some(name) = self.lanes.get(&lane).and_then(|queue| queue.front()).copied() else {
                    continue;
                };
                let letter = self.letters.get(&name.0);
                let Some((letter, event)) = letter.and_then(|letter| Some((letter, letter.events.get(name.1)?))) else {
                    continue;
                };
                out.push(Attempt {
                    name,
                    template: letter.template,
                    subject: letter.subject,
                    event: event.clone(),
                });
                self.sent.insert(name, lane);
                receiver.busy += 1;
            }
        }
        out
    }

    /// What became of an attempt, if it was under way. `last`: it is not to be tried again.
    pub(crate) fn done(
        &mut self,
        name: Name,
        result: Result<(), String>,
        last: bool,
        now: Timestamp,
    ) -> Option<(Change, bool)> {
        let lane = self.sent.remove(&name)?;
        if let Some(receiver) = self.receivers.get_mut(&lane.receiver) {
            receiver.busy = receiver.busy.saturating_sub(1);
            if receiver.busy == 0 && receiver.ready.is_empty() {
                self.receivers.remove(&lane.receiver);
            }
        }
        let letter = self.letters.get_mut(&name.0)?;
        let event = letter.events.get_mut(name.1)?;
        event.attempts = event.attempts.saturating_add(1);
        event.tried = Some(now);
        match result {
            Ok(()) => {
                event.problem.clear();
                event.outcome = Some(Outcome::Delivered);
            }
            Err(problem) => {
                event.problem = problem;
                event.outcome = (last || event.attempts > self.config.retries).then_some(Outcome::GivenUp);
            }
        }
        let over = event.outcome.is_some();
        let given_up = event.outcome == Some(Outcome::GivenUp);
        let letter = letter.clone();
        let change = match letter.is_settled() {
            true => {
                self.letters.remove(&name.0);
                Change::Settle(letter)
            }
            false => Change::Keep(letter),
        };
        self.go_on(lane, over, now);
        Some((change, given_up))
    }

    /// The lane of an event that came back goes on: with the next one, or with the same after a while.
    fn go_on(&mut self, lane: LaneKey, over: bool, now: Timestamp) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        if over {
            queue.pop_front();
        }
        let Some((sequence, index)) = queue.front().copied() else {
            self.lanes.remove(&lane);
            return;
        };
        let event = self.letters.get(&sequence).and_then(|letter| letter.events.get(index));
        let at = event.map_or(now, |event| self.next_at(event, now));
        self.waiting.insert((at, lane));
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
