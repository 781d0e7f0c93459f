//! [`Fleet`]: what is believed of each worker, and when it is no longer believed. Pure: time is an argument.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    ids::{PublishId, WorkerId},
    store::storage_of,
    time::Monotonic,
};
use thiserror::Error;

use crate::scaler::Member;

/// Number of a session; a later one of the same worker is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    /// Name for people.
    pub(crate) name: String,
    /// Where it takes RTMP, host:port.
    pub(crate) rtmp_addr: String,
    /// Version of its program.
    pub(crate) version: String,
    /// Names where its objects lie; see [`StitchRecord`](shared::store::StitchRecord).
    pub(crate) storage: String,
    /// The same of the places that templates name, by their names.
    pub(crate) places: BTreeMap<String, String>,
}

/// What was counted for a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Media bits a second over the last interval.
    pub(crate) bits_per_second: u64,
    /// Video access units so far.
    pub(crate) video_units: u64,
    /// Audio access units so far.
    pub(crate) audio_units: u64,
    /// Media bytes so far.
    pub(crate) bytes: u64,
}

/// What a heartbeat says of the worker itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Report {
    pub(crate) counters: BTreeMap<PublishId, Counters>,
    /// It is leaving.
    pub(crate) draining: bool,
    /// Because the set of workers shrinks.
    pub(crate) for_scale_in: bool,
    /// Thousandths of one core.
    pub(crate) cpu_milli: u32,
    /// Bytes in its journals.
    pub(crate) journal_bytes: u64,
    /// Age of the oldest, milliseconds.
    pub(crate) journal_age_ms: u64,
    /// Finished files on their way to the library.
    pub(crate) uploads_waiting: u32,
}

/// Why a worker is not told to drain. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DrainError {
    #[error("no worker {0:?}: `aircheck worker list` shows what there is")]
    None(String),
    #[error("{count} workers are called {name:?}: say which by its id, `aircheck worker list` shows them")]
    Several { name: String, count: usize },
    #[error(
        "worker {0:?} has no session with the coordinator just now: try again when `aircheck worker list` shows it alive"
    )]
    Silent(String),
}

/// How a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Alive,
    Silent,
    Lost,
    Draining,
}

/// What is believed of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) about: About,
    session: Option<SessionId>,
    heard: Monotonic,
    /// Its last heartbeat.
    beat: Option<Monotonic>,
    lost: bool,
    pub(crate) report: Report,
}

impl Presence {
    /// How it stands, and for how long it has not been heard.
    pub(crate) fn standing(&self, now: Monotonic) -> (Standing, Duration) {
        let standing = match (self.lost, self.session, self.report.draining) {
            (true, ..) => Standing::Lost,
            (_, None, _) => Standing::Silent,
            (_, Some(_), true) => Standing::Draining,
            (_, Some(_), false) => Standing::Alive,
        };
        (standing, now.since(self.heard))
    }

    /// Bits a second that it takes.
    pub(crate) fn bits_per_second(&self) -> u64 {
        let bits = self.report.counters.values().map(|counted| counted.bits_per_second);
        bits.fold(0, u64::saturating_add)
    }
}

/// All workers that were heard from or hold a stream.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    timeout: Duration,
    workers: BTreeMap<WorkerId, Presence>,
}

impl Fleet {
    pub(crate) fn new(timeout: Duration) -> Self {
        Fleet {
            timeout,
            workers: BTreeMap::new(),
        }
    }

    fn presence(&mut self, worker: WorkerId, now: Monotonic) -> &mut Presence {
        self.workers.entry(worker).or_insert_with(|| Presence {
            about: About::default(),
            session: None,
            heard: now,
            beat: None,
            lost: false,
            report: Report::default(),
        })
    }

    /// Gives a worker that holds a stream the whole time-out to be heard from.
    pub(crate) fn expect(&mut self, worker: WorkerId, now: Monotonic) {
        self.presence(worker, now);
    }

    /// A session begins; it replaces an older one of the same worker. True if the worker was lost before.
    pub(crate) fn opened(&mut self, worker: WorkerId, session: SessionId, about: About, now: Monotonic) -> bool {
        let presence = self.presence(worker, now);
        presence.about = about;
        presence.session = Some(session);
        presence.heard = now;
        std::mem::take(&mut presence.lost)
    }

    /// A worker is heard. Heartbeats of replaced sessions do not count. True if the worker was lost before.
    pub(crate) fn heartbeat(&mut self, worker: WorkerId, session: SessionId, report: Report, now: Monotonic) -> bool {
        match self
            .workers
            .get_mut(&worker)
            .filter(|presence| presence.session == Some(session))
        {
            Some(presence) => {
                presence.heard = now;
                presence.beat = Some(now);
                presence.report = report;
                std::mem::take(&mut presence.lost)
            }
            None => false,
        }
    }

    /// A session ended. The worker keeps what is left of its time-out to come back.
    pub(crate) fn closed(&mut self, worker: WorkerId, session: SessionId) {
        if let Some(presence) = self
            .workers
            .get_mut(&worker)
            .filter(|presence| presence.session == Some(session))
        {
            presence.session = None;
        }
    }

    /// Workers whose silence has just become longer than the time-out.
    pub(crate) fn tick(&mut self, now: Monotonic) -> Vec<WorkerId> {
        let mut lost = Vec::new();
        for (id, presence) in &mut self.workers {
            if !presence.lost && now.since(presence.heard) > self.timeout {
                presence.lost = true;
                presence.report = Report::default();
                lost.push(*id);
            }
        }
        lost
    }

    /// Workers that have been silent for longer than `limit`.
    pub(crate) fn silent_for(&self, limit: Duration, now: Monotonic) -> Vec<WorkerId> {
        let silent = self
            .workers
            .iter()
            .filter(|(_, presence)| presence.lost && now.since(presence.heard) > limit);
        silent.map(|(id, _)| *id).collect()
    }

    /// Forgets lost workers that hold nothing. One whose session stands may still be heard on it.
    pub(crate) fn forget(&mut self, holds_something: impl Fn(WorkerId) -> bool) {
        self.workers
            .retain(|id, presence| !presence.lost || presence.session.is_some() || holds_something(*id));
    }

    /// The worker of that id or name.
    pub(crate) fn find(&self, worker: &str) -> Result<WorkerId, DrainError> {
        if let Some(id) = worker.parse().ok().filter(|id| self.workers.contains_key(id)) {
            return Ok(id);
        }
        let named = |(_, presence): &(&WorkerId, &Presence)| presence.about.name == worker;
        let mut named = self.workers.iter().filter(named).map(|(id, _)| *id);
        let first = named.next().ok_or_else(|| DrainError::None(worker.to_owned()))?;
        match named.count() {
            0 => Ok(first),
            more => Err(DrainError::Several {
                name: worker.to_owned(),
                count: more + 1,
            }),
        }
    }

    /// True if the worker was heard from within the time-out.
    pub(crate) fn is_alive(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|presence| !presence.lost)
    }

    /// True if the worker has been silent for longer than `limit`, or is not known.
    pub(crate) fn is_gone(&self, worker: WorkerId, limit: Duration, now: Monotonic) -> bool {
        self.workers
            .get(&worker)
            .is_none_or(|presence| presence.lost && now.since(presence.heard) > limit)
    }

    /// Names where its objects of a place lie; empty where no other worker reads; none where it has not said that it has that place.
    pub(crate) fn storage(&self, worker: WorkerId, place: &str) -> Option<&str> {
        let about = &self.workers.get(&worker)?.about;
        storage_of((&about.storage, &about.places), place)
    }

    /// True if what the worker pulls may stay there.
    pub(crate) fn stays(&self, worker: WorkerId) -> bool {
        let presence = self.workers.get(&worker);
        presence.is_some_and(|presence| !presence.lost && !presence.report.draining)
    }

    /// Workers that can be given something: alive, with an open session, and not leaving; with the bits a second they take.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (WorkerId, u64)> {
        let ready = self
            .workers
            .iter()
            .filter(|(_, presence)| !presence.lost && !presence.report.draining && presence.session.is_some());
        ready.map(|(id, presence)| (*id, presence.bits_per_second()))
    }

    /// The workers that are called `set` and a number behind it.
    pub(crate) fn members(&self, set: &str) -> Vec<Member> {
        let member = |(worker, presence): (&WorkerId, &Presence)| {
            let (of, number) = presence.about.name.rsplit_once('-')?;
            Some(Member {
                worker: *worker,
                ordinal: number.parse().ok().filter(|_| of == set)?,
                streams: presence.report.counters.len() as u64,
                heard: !presence.lost && presence.session.is_some(),
                draining: presence.report.draining,
                for_scale_in: presence.report.for_scale_in,
            })
        };
        self.workers.iter().filter_map(member).collect()
    }

    /// Every worker, in the order of their ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = (WorkerId, &Presence)> {
        self.workers.iter().map(|(id, presence)| (*id, presence))
    }

    /// When the worker last said what it has.
    pub(crate) fn last_beat(&self, worker: WorkerId) -> Option<Monotonic> {
        self.workers.get(&worker).and_then(|presence| presence.beat)
    }

    /// Its name for people; its id where it has not said hello.
    pub(crate) fn name(&self, worker: WorkerId) -> String {
        match self.workers.get(&worker).map(|presence| presence.about.name.as_str()) {
            None | Some("") => worker.to_string(),
            Some(name) => name.to_owned(),
        }
    }

    /// What was last counted for a publish.
    pub(crate) fn counters(&self, worker: WorkerId, publish: PublishId) -> Counters {
        self.workers
            .get(&worker)
            .and_then(|presence| presence.report.counters.get(&publish))
            .copied()
            .unwrap_or_default()
    }

    /// Media bits a second of all publishes, as last counted.
    pub(crate) fn bits_per_second(&self) -> u64 {
        let reports = self
            .workers
            .values()
            .flat_map(|presence| presence.report.counters.values());
        reports.fold(0, |sum, counters| sum.saturating_add(counters.bits_per_second))
    }

    /// Workers that are alive.
    pub(crate) fn alive(&self) -> usize {
        self.workers.values().filter(|presence| !presence.lost).count()
    }
}

#[cfg(test)]
mod tests {
    use shared::{ids::Seeded, time::Timestamp};

    use super::*;

    fn at(s: i64) -> Monotonic {
        Monotonic::from_millis(s * 1_000)
    }

    #[test]
    fn a_worker_is_lost_after_the_time_out_and_found_again_by_a_word() {
        let worker = WorkerId::generate(&Seeded::new(1), Timestamp::default());
        let mut fleet = Fleet::new(Duration::from_secs(10));
        assert!(!fleet.opened(worker, SessionId(1), About::default(), at(0)));
        fleet.closed(worker, SessionId(1));
        assert!(fleet.tick(at(10)).is_empty());
        assert_eq!(fleet.tick(at(11)), [worker]);
        assert!(fleet.tick(at(12)).is_empty(), "lost once");
        assert!(!fleet.is_alive(worker));
        assert!(fleet.opened(worker, SessionId(2), About::default(), at(13)));
        assert!(fleet.is_alive(worker));
        fleet.closed(worker, SessionId(1));
        assert_eq!(fleet.last_beat(worker), None);
        assert!(!fleet.heartbeat(worker, SessionId(1), Report::default(), at(20)));
        assert_eq!(fleet.tick(at(24)), [worker], "nor is its heartbeat");
        let leaving = Report {
            draining: true,
            ..Report::default()
        };
        assert!(fleet.heartbeat(worker, SessionId(2), leaving, at(25)));
        assert!(fleet.is_alive(worker) && !fleet.stays(worker) && fleet.ready().count() == 0);
        fleet.heartbeat(worker, SessionId(2), Report::default(), at(26));
        assert_eq!(fleet.ready().count(), 1);
        fleet.forget(|_| false);
        assert_eq!(fleet.alive(), 1);
    }

    #[test]
    fn a_lost_worker_whose_session_stands_is_heard_on_it_again() {
        let worker = WorkerId::generate(&Seeded::new(1), Timestamp::default());
        let mut fleet = Fleet::new(Duration::from_secs(10));
        fleet.opened(worker, SessionId(1), About::default(), at(0));
        assert_eq!(fleet.tick(at(11)), [worker]);
        fleet.forget(|_| false);
        fleet.expect(worker, at(12));
        assert!(
            fleet.heartbeat(worker, SessionId(1), Report::default(), at(13)),
            "it was away, and is back"
        );
        assert!(fleet.is_alive(worker) && fleet.ready().count() == 1);
        assert_eq!(fleet.tick(at(24)), [worker]);
        fleet.closed(worker, SessionId(1));
        fleet.forget(|_| false);
        assert_eq!(fleet.all().count(), 0);
    }
}
