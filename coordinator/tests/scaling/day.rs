//! A simulated day: streams come and go, an autoscaler asks for workers every 15 s as Kubernetes' does, workers take their
//! time to start. Second by second, from a seed.

use std::collections::BTreeMap;

use std::time::Duration;

use coordinator::scaler::{Lately, Load, Member, ScaleIn, Targets};
use shared::{ids::WorkerId, time::Monotonic};

pub(crate) const SECONDS: u64 = 86_400;
/// Streams of a worker by its resource request (docs/operations.md).
pub(crate) const WORKER: u64 = 200;
/// Streams at which it refuses more here. A real one does not count, it becomes slow: 250 streams need 382m of the 500m requested.
const LIMIT: u64 = 250;
/// From being asked for until it takes streams: scheduling, a volume, the image, the start.
const START: u64 = 90;
/// Mean length of a stream.
const LENGTH: f64 = 2_700.0;
const BITS: u64 = 2_500_000;
/// A thousand streams begin in this second, and last half an hour: once while few workers run, once in the evening's rise.
pub(crate) const BURSTS: [u64; 2] = [3 * 3_600 + 30 * 60, 18 * 3_600 + 50 * 60];

/// The chart's behaviour of the autoscaler (`aircheck.scaling`).
const EVERY: u64 = 15;
const UP_PERIOD: u64 = 30;
const UP_PODS: u64 = 4;
const UP_PERCENT: u64 = 100;
pub(crate) const STABLE: u64 = 600;
pub(crate) const LEAST: u64 = 3;
pub(crate) const DOWN_PERIOD: u64 = 60;
pub(crate) const DOWN_PERCENT: u64 = 5;

/// What is looked at in the end.
#[derive(Debug, Default)]
pub(crate) struct Day {
    /// Every minute: streams, room of the workers that take streams, room of all that run.
    pub(crate) minutes: Vec<(u64, u64, u64)>,
    pub(crate) started: u64,
    pub(crate) refused: u64,
    /// Streams that were asked to connect anew because their worker is to go.
    pub(crate) moved: u64,
    /// Streams that were live on a worker when it was removed.
    pub(crate) cut: u64,
    pub(crate) most_on_one: u64,
    room_seconds: u64,
    stream_seconds: u64,
}

impl Day {
    /// Share of the room that was paid for and not used.
    pub(crate) fn idle(&self) -> f64 {
        1.0 - self.stream_seconds as f64 / self.room_seconds as f64
    }
}

struct Dice(u64);

impl Dice {
    /// Uniform in [0, 1); `SplitMix64`.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn length(&mut self, mean: f64) -> u64 {
        (-(1.0 - self.roll()).ln() * mean) as u64 + 1
    }
}

/// Streams that the day means to have at a time: night, morning ramp, day, evening peak.
fn meant(second: u64) -> f64 {
    const POINTS: [(f64, f64); 9] = [
        (0.0, 4_000.0),
        (1.5, 2_500.0),
        (6.0, 2_500.0),
        (9.0, 6_500.0),
        (17.0, 7_000.0),
        (20.0, 12_000.0),
        (22.0, 12_000.0),
        (23.5, 4_500.0),
        (24.0, 4_000.0),
    ];
    let hour = second as f64 / 3_600.0;
    let next = POINTS.iter().position(|(at, _)| *at > hour).unwrap_or(POINTS.len() - 1);
    let ((a, from), (b, to)) = (POINTS[next - 1], POINTS[next]);
    from + (to - from) * (hour - a) / (b - a)
}

/// A worker: when it takes streams, how many it has, and how many of them end in which second.
#[derive(Default)]
struct Worker {
    from: u64,
    streams: u64,
    ends: BTreeMap<u64, u64>,
    draining: bool,
}

/// By ordinal.
struct Fleet(Vec<Worker>);

impl Fleet {
    fn streams(&self) -> u64 {
        self.0.iter().map(|worker| worker.streams).sum()
    }

    /// The ready worker with the fewest streams, as a load balancer by connections chooses.
    fn place(&mut self, now: u64, end: u64) -> bool {
        let ready = self
            .0
            .iter_mut()
            .filter(|worker| worker.from <= now && !worker.draining);
        match ready.min_by_key(|worker| worker.streams) {
            Some(worker) if worker.streams < LIMIT => {
                worker.streams += 1;
                *worker.ends.entry(end).or_default() += 1;
                true
            }
            _ => false,
        }
    }

    fn end_streams(&mut self, now: u64) {
        for worker in &mut self.0 {
            while let Some(ended) = worker.ends.first_entry().filter(|entry| *entry.key() <= now) {
                worker.streams -= ended.remove();
            }
        }
    }
}

pub(crate) fn run(seed: u64, targets: Targets) -> Day {
    let mut dice = Dice(seed);
    let mut day = Day::default();
    let first = targets.wanted(load(meant(0) as u64));
    let mut fleet = Fleet((0..first).map(|_| Worker::default()).collect());
    for _ in 0..meant(0) as u64 {
        let end = dice.length(LENGTH);
        assert!(fleet.place(0, end), "the night begins with room");
    }
    let mut lately = Lately::default();
    let mut due = 0.0;
    for now in 0..SECONDS {
        fleet.end_streams(now);
        due += meant(now) / LENGTH + meant(now + 1) - meant(now);
        let mut lengths = Vec::new();
        while due >= 1.0 {
            due -= 1.0;
            lengths.push(dice.length(LENGTH));
        }
        if BURSTS.contains(&now) {
            lengths.extend((0..1_000).map(|_| dice.length(1_800.0)));
        }
        for length in lengths {
            day.started += 1;
            day.refused += u64::from(!fleet.place(now, now + length));
        }
        if now.is_multiple_of(EVERY) {
            autoscale(now, targets, &mut fleet, &mut lately, &mut day);
        }
        account(now, &fleet, &mut day);
    }
    day
}

fn load(streams: u64) -> Load {
    Load {
        streams,
        bits_per_second: streams * BITS,
    }
}

fn id(ordinal: usize) -> WorkerId {
    WorkerId::from_uuid(uuid::Uuid::from_u128(ordinal as u128))
}

fn autoscale(now: u64, targets: Targets, fleet: &mut Fleet, lately: &mut Lately, day: &mut Day) {
    let have = fleet.0.len() as u64;
    let wanted = targets.wanted(load(fleet.streams()));
    let calm = lately.note(
        Monotonic::from_millis(now as i64 * 1_000),
        wanted,
        Duration::from_secs(STABLE),
    );
    let scale_in = ScaleIn {
        set: "worker".to_owned(),
        after: Duration::from_secs(STABLE),
        least: LEAST,
    };
    let member = |(ordinal, worker): (usize, &Worker)| Member {
        worker: id(ordinal),
        ordinal: ordinal as u64,
        streams: worker.streams,
        heard: worker.from <= now,
        draining: worker.draining,
        for_scale_in: worker.draining,
    };
    let members: Vec<Member> = fleet.0.iter().enumerate().map(member).collect();
    let shrink = scale_in.decide(&members, wanted, calm);
    for (ordinal, worker) in fleet.0.iter_mut().enumerate() {
        worker.draining |= shrink.leave.contains(&id(ordinal));
        worker.draining &= !shrink.stay.contains(&id(ordinal));
    }
    if shrink.size > have && now.is_multiple_of(UP_PERIOD) {
        let most = have + UP_PODS.max(have * UP_PERCENT / 100);
        for _ in have..shrink.size.min(most) {
            fleet.0.push(Worker {
                from: now + START,
                ..Worker::default()
            });
        }
    }
    if shrink.size < have && now.is_multiple_of(DOWN_PERIOD) {
        let least = have - (have * DOWN_PERCENT).div_ceil(100);
        for _ in shrink.size.max(least)..have {
            // The highest ordinal goes.
            day.cut += fleet.0.pop().map_or(0, |worker| worker.streams);
        }
    }
    // Who pushes to one that drains is asked to connect anew, which takes it less than the time to the next look.
    for ordinal in 0..fleet.0.len() {
        if !fleet.0[ordinal].draining {
            continue;
        }
        fleet.0[ordinal].streams = 0;
        for (end, count) in std::mem::take(&mut fleet.0[ordinal].ends) {
            for _ in 0..count {
                day.moved += 1;
                day.refused += u64::from(!fleet.place(now, end));
            }
        }
    }
}

fn account(now: u64, fleet: &Fleet, day: &mut Day) {
    let streams = fleet.streams();
    let room = fleet.0.len() as u64 * WORKER;
    day.most_on_one = day
        .most_on_one
        .max(fleet.0.iter().map(|worker| worker.streams).max().unwrap_or(0));
    day.stream_seconds += streams.min(room);
    day.room_seconds += room;
    if now.is_multiple_of(60) {
        let ready = fleet.0.iter().filter(|worker| worker.from <= now).count() as u64;
        day.minutes.push((streams, ready * WORKER, room));
    }
}
