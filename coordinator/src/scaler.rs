//! [`Targets::wanted`]: how many workers the fleet should have for what it carries; [`ScaleIn`]: who leaves when that is fewer than there are, so
//! that nobody is removed who has a live stream. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use shared::{config::ScaleInConfig, ids::WorkerId, time::Monotonic};
use thiserror::Error;

/// What the fleet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Live streams, and interrupted ones: they are expected back.
    pub streams: u64,
    /// Media bits a second of all of them.
    pub bits_per_second: u64,
}

/// What one worker is for, and how much is kept free for streams that start all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Streams of a worker, 1 to 100,000.
    pub streams_per_worker: u64,
    /// Media bits a second of a worker, 1,000,000 to 1,000,000,000,000.
    pub bits_per_worker: u64,
    /// Streams that there is always room for, beside those that are live; at most 1,000,000.
    pub reserve_streams: u64,
    /// The same as a share of those that are live, percent, at most 1,000. The larger of the two counts.
    pub reserve_percent: u64,
}

impl Default for Targets {
    /// As the settings' defaults.
    fn default() -> Self {
        Targets::of(&ScaleInConfig::default())
    }
}

/// A trigger that says something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Nothing of this name can be set.
    #[error(
        "{0:?} is not a setting of this scaler: use streamsPerWorker, bitsPerWorker, reserveStreams, reservePercent"
    )]
    Unknown(String),
    /// Not a number, or out of range.
    #[error("{name} is {value:?}, it must be a whole number of {min} to {max}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
}

/// What a trigger says to KEDA itself, and what stands beside our own settings therefore.
const OF_KEDA: [&str; 8] = [
    "scalerAddress",
    "enableTLS",
    "unsafeSsl",
    "caCert",
    "tlsCertFile",
    "tlsClientCert",
    "tlsClientKey",
    "activationTargetSize",
];

fn number(name: &'static str, value: &str, min: u64, max: u64) -> Result<u64, TargetError> {
    let read = value.trim().parse().ok().filter(|number| (min..=max).contains(number));
    read.ok_or_else(|| TargetError::Range {
        name,
        value: value.to_owned(),
        min,
        max,
    })
}

impl Targets {
    /// As the settings say.
    fn of(config: &ScaleInConfig) -> Targets {
        Targets {
            streams_per_worker: config.streams_per_worker,
            bits_per_worker: config.bits_per_worker,
            reserve_streams: config.reserve_streams,
            reserve_percent: config.reserve_percent,
        }
    }

    /// Reads the metadata of a trigger. What is absent has its default.
    ///
    /// # Errors
    /// The first setting, by name, that is unknown or out of range.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<Targets, TargetError> {
        let mut targets = Targets::default();
        for (name, value) in metadata {
            match name.as_str() {
                "streamsPerWorker" => targets.streams_per_worker = number("streamsPerWorker", value, 1, 100_000)?,
                "bitsPerWorker" => {
                    targets.bits_per_worker = number("bitsPerWorker", value, 1_000_000, 1_000_000_000_000)?;
                }
                "reserveStreams" => targets.reserve_streams = number("reserveStreams", value, 0, 1_000_000)?,
                "reservePercent" => targets.reserve_percent = number("reservePercent", value, 0, 1_000)?,
                name if OF_KEDA.contains(&name) => {}
                _ => return Err(TargetError::Unknown(name.clone())),
            }
        }
        Ok(targets)
    }

    /// Workers that carry `load` and have the reserve free; at least 1.
    ///
    /// Streams of the reserve are taken to be as heavy as those that are live.
    #[must_use]
    pub fn wanted(&self, load: Load) -> u64 {
        let reserve = (u128::from(load.streams) * u128::from(self.reserve_percent))
            .div_ceil(100)
            .max(u128::from(self.reserve_streams));
        let streams = u128::from(load.streams) + reserve;
        let by_streams = streams.div_ceil(u128::from(self.streams_per_worker.max(1)));
        let bits = match load.streams {
            0 => 0,
            live => u128::from(load.bits_per_second)
                .saturating_mul(streams)
                .div_ceil(u128::from(live)),
        };
        let by_bits = bits.div_ceil(u128::from(self.bits_per_worker.max(1)));
        u64::try_from(by_streams.max(by_bits).max(1)).unwrap_or(u64::MAX)
    }
}

/// A worker of a set that is scaled by number: the highest number is removed first, as by a StatefulSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub worker: WorkerId,
    /// Its number in the set.
    pub ordinal: u64,
    /// Streams that are live on it.
    pub streams: u64,
    /// It is heard, and can be told something.
    pub heard: bool,
    /// It takes no streams.
    pub draining: bool,
    /// And that because of [`ScaleIn`]: it may be told to take some again.
    pub for_scale_in: bool,
}

/// What shrinking means for now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shrink {
    /// Workers that there must be: those that carry the load, and everybody below one who still has a stream or may get one.
    pub size: u64,
    /// Are to take no stream any more, and to let publishers go.
    pub leave: Vec<WorkerId>,
    /// Were told to leave, and are to take streams again.
    pub stay: Vec<WorkerId>,
}

/// How a set of workers shrinks: the ones with the highest numbers are drained, and removed when they are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleIn {
    /// What the workers are called, without the number: `aircheck-worker` for `aircheck-worker-3`.
    pub set: String,
    /// For how long fewer must have been wanted all the time. 0 s to a day.
    pub after: Duration,
    /// Workers that are never drained for it.
    pub least: u64,
}

impl ScaleIn {
    /// As the settings say, with what a worker is for; none where they name no workers: then nobody is drained.
    #[must_use]
    pub fn of(config: &ScaleInConfig) -> Option<(ScaleIn, Targets)> {
        let scale_in = ScaleIn {
            set: config.workers.clone()?,
            after: config.after,
            least: config.least,
        };
        Some((scale_in, Targets::of(config)))
    }

    /// What follows from so many workers being `wanted` now. `calm`: the most that were wanted of late; none: that is not known for long enough.
    #[must_use]
    pub fn decide(&self, members: &[Member], wanted: u64, calm: Option<u64>) -> Shrink {
        let leaves = |member: &&Member| calm.is_some_and(|calm| member.ordinal >= calm.max(self.least));
        // One that nobody hears may have streams that nobody knows of.
        let empty = |member: &&Member| member.heard && member.draining && member.streams == 0;
        let needed = members.iter().filter(|member| !empty(member));
        let below = needed.map(|member| member.ordinal + 1).max().unwrap_or(0);
        let told = |members: &mut dyn Iterator<Item = &Member>| members.map(|member| member.worker).collect();
        let heard = || members.iter().filter(|member| member.heard);
        let back = |member: &&Member| member.for_scale_in && member.ordinal < wanted.max(self.least);
        Shrink {
            size: wanted.max(below),
            leave: told(&mut heard().filter(leaves).filter(|member| !member.draining)),
            stay: told(&mut heard().filter(back)),
        }
    }
}

/// Moments closer together than this are noted as one: who asks often costs no memory.
const NOTED_TOGETHER: Duration = Duration::from_secs(1);

/// How many workers were wanted of late; an entry a second of the window at most.
#[derive(Debug, Clone, Default)]
pub struct Lately(VecDeque<(Monotonic, u64)>);

impl Lately {
    /// Notes what is wanted now. Gives the most that was wanted within `window`; none while that is not known for a whole one, as after a change of
    /// the leader, or where nobody has asked for half of one.
    pub fn note(&mut self, now: Monotonic, wanted: u64, window: Duration) -> Option<u64> {
        if self.0.back().is_some_and(|(last, _)| now.since(*last) > window / 2) {
            self.0.clear();
        }
        let together = NOTED_TOGETHER.min(window / 4);
        match self.0.back_mut() {
            Some((first, most)) if now.since(*first) < together => *most = wanted.max(*most),
            _ => self.0.push_back((now, wanted)),
        }
        // The oldest stays that tells of the window's beginning.
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= window) {
            self.0.pop_front();
        }
        let known = self.0.front().is_some_and(|(at, _)| now.since(*at) >= window);
        let most = self.0.iter().map(|(_, wanted)| *wanted).max();
        most.filter(|_| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{
        ids::{IdGen as _, Seeded},
        time::Timestamp,
    };

    fn members(streams: &[u64]) -> Vec<Member> {
        let ids = Seeded::new(1);
        let member = |(ordinal, streams): (usize, &u64)| Member {
            worker: WorkerId::from_uuid(ids.uuid(Timestamp::default())),
            ordinal: ordinal as u64,
            streams: *streams,
            heard: true,
            draining: false,
            for_scale_in: false,
        };
        streams.iter().enumerate().map(member).collect()
    }

    fn scale_in() -> ScaleIn {
        ScaleIn {
            set: "w".to_owned(),
            after: Duration::from_secs(600),
            least: 2,
        }
    }

    #[test]
    fn nobody_is_removed_who_has_a_stream_or_may_get_one() {
        let mut set = members(&[9, 9, 9, 4, 0]);
        let shrink = scale_in().decide(&set, 3, Some(3));
        assert_eq!(
            shrink.size, 5,
            "the highest is empty, but may be given a stream this moment"
        );
        assert_eq!(shrink.leave, [set[3].worker, set[4].worker]);
        for member in &mut set[3..] {
            (member.draining, member.for_scale_in) = (true, true);
        }
        assert_eq!(scale_in().decide(&set, 3, Some(3)).size, 4, "one still has streams");
        set[3].streams = 0;
        let shrink = scale_in().decide(&set, 3, Some(3));
        assert_eq!((shrink.size, shrink.leave.len(), shrink.stay.len()), (3, 0, 0));
        set[3].heard = false;
        assert_eq!(
            scale_in().decide(&set, 3, Some(3)).size,
            4,
            "of one that is not heard nobody knows"
        );
    }

    #[test]
    fn who_is_wanted_again_takes_streams_again_unless_a_person_told_it_to_leave() {
        let mut set = members(&[9, 9, 3, 3]);
        for member in &mut set[1..] {
            member.draining = true;
        }
        set[3].for_scale_in = true;
        let shrink = scale_in().decide(&set, 4, Some(4));
        assert_eq!((shrink.stay, shrink.size), (vec![set[3].worker], 4));
    }

    #[test]
    fn nobody_leaves_before_fewer_were_wanted_for_long_enough_nor_below_the_least() {
        let set = members(&[1, 1, 1]);
        assert_eq!(scale_in().decide(&set, 1, None).leave, []);
        assert_eq!(scale_in().decide(&set, 1, Some(3)).leave, []);
        assert_eq!(
            scale_in().decide(&set, 1, Some(1)).leave,
            [set[2].worker],
            "two are the least"
        );
    }

    #[test]
    fn what_was_wanted_lately_is_known_after_a_whole_window_without_a_pause() {
        let window = Duration::from_secs(60);
        let mut lately = Lately::default();
        let mut at = |s: i64, wanted| lately.note(Monotonic::from_millis(s * 1_000), wanted, window);
        assert_eq!(at(0, 7), None);
        for s in [15, 30, 45] {
            assert_eq!(at(s, 3), None);
        }
        assert_eq!(at(60, 3), Some(7));
        assert_eq!(at(75, 3), Some(3));
        assert_eq!(at(90, 5), Some(5));
        assert_eq!(at(200, 1), None, "nobody has asked in between");
    }

    #[test]
    fn who_asks_often_costs_no_memory() {
        let window = Duration::from_secs(60);
        let mut lately = Lately::default();
        for ms in 0..120_000 {
            let wanted = if ms == 70_500 { 9 } else { 3 };
            lately.note(Monotonic::from_millis(ms), wanted, window);
        }
        assert!(lately.0.len() < 65, "{}", lately.0.len());
        let last = lately.note(Monotonic::from_millis(120_000), 3, window);
        assert_eq!(last, Some(9), "what was wanted for a moment is remembered");
    }

    #[test]
    fn nobody_is_drained_unless_the_settings_name_the_workers() {
        assert_eq!(ScaleIn::of(&ScaleInConfig::default()), None);
        let named = ScaleInConfig {
            workers: Some("w".to_owned()),
            least: 2,
            ..ScaleInConfig::default()
        };
        assert_eq!(ScaleIn::of(&named), Some((scale_in(), Targets::default())));
    }

    const TARGETS: Targets = Targets {
        streams_per_worker: 200,
        bits_per_worker: 500_000_000,
        reserve_streams: 50,
        reserve_percent: 10,
    };

    fn wanted(streams: u64, mbits: u64) -> u64 {
        TARGETS.wanted(Load {
            streams,
            bits_per_second: mbits * 1_000_000,
        })
    }

    #[test]
    fn the_reserve_is_whichever_is_larger() {
        assert_eq!(wanted(0, 0), 1);
        assert_eq!(wanted(150, 0), 1);
        assert_eq!(wanted(151, 0), 2, "room for 50 more");
        assert_eq!(wanted(2_000, 0), 11, "room for 200 more");
    }

    #[test]
    fn heavy_streams_need_more_workers_than_many() {
        assert_eq!(wanted(100, 250), 1);
        // 10 streams of 100 Mbit/s, and as heavy ones in reserve: 60 × 100 Mbit/s.
        assert_eq!(wanted(10, 1_000), 12);
    }

    #[test]
    fn more_load_never_wants_fewer_workers() {
        let mut last = 0;
        for streams in 0..3_000 {
            let now = wanted(streams, streams * 3);
            assert!(now >= last, "{streams}");
            last = now;
        }
    }

    #[test]
    fn no_load_is_too_much_to_be_counted() {
        let all = Load {
            streams: u64::MAX,
            bits_per_second: u64::MAX,
        };
        let none = Targets {
            streams_per_worker: 1,
            bits_per_worker: 1_000_000,
            reserve_streams: 1_000_000,
            reserve_percent: 1_000,
        };
        assert_eq!(none.wanted(all), u64::MAX);
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Targets, TargetError> {
        Targets::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_trigger_is_read_and_what_is_wrong_in_it_named() {
        assert_eq!(read(&[("scalerAddress", "c:7070")]), Ok(Targets::default()));
        let targets = read(&[("streamsPerWorker", "400"), ("reserveStreams", "1000")]).unwrap();
        assert_eq!((targets.streams_per_worker, targets.reserve_streams), (400, 1_000));
        for (name, value, said) in [
            ("streamsPerWorker", "0", "1 to 100000"),
            ("bitsPerWorker", "500M", "500M"),
            ("reservePercent", "-1", "reservePercent"),
            ("streamPerWorker", "200", "use streamsPerWorker"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
