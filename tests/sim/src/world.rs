//! [`World`]: virtual time, chance, the network, and what everybody saw.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::time::{Clock, Monotonic, Timestamp};
use tokio::time::Instant;
use tonic::Status;

use crate::sabotage::Sabotage;

/// Wall clock at the beginning, milliseconds since the Unix epoch.
const BEGIN_MS: i64 = 1_790_000_000_000;
/// A connection that nothing passes for so long is broken.
const BROKEN_AFTER: Duration = Duration::from_secs(15);

/// Locks; what panicked while it held a lock has failed the run already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who can be reached or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Coordinator(usize),
    Worker(usize),
    Store,
    Bucket,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Coordinator(n) => write!(f, "c{n}"),
            Place::Worker(n) => write!(f, "w{n}"),
            Place::Store => f.write_str("store"),
            Place::Bucket => f.write_str("bucket"),
        }
    }
}

/// How bad things are just now. All are chances in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) late: u64,
    pub(crate) store_fails: u64,
    pub(crate) store_answer_lost: u64,
    pub(crate) store_slow: u64,
    pub(crate) bucket_fails: u64,
}

#[derive(Debug)]
struct Inner {
    chance: u64,
    cut: BTreeSet<(Place, Place)>,
    stopped: BTreeSet<Place>,
    weather: Weather,
    trace: Vec<String>,
    broken: Vec<String>,
}

/// Everything that is nobody's own.
#[derive(Debug)]
pub(crate) struct World {
    begin: Instant,
    /// The rule that is broken on purpose.
    pub(crate) sabotage: Option<Sabotage>,
    inner: Mutex<Inner>,
    /// A worker has followed a clock that was wrong.
    misled: AtomicBool,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>) -> Arc<Self> {
        Arc::new(World {
            begin: Instant::now(),
            sabotage,
            inner: Mutex::new(Inner {
                chance: seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x1234_5678_9ABC_DEF1,
                cut: BTreeSet::new(),
                stopped: BTreeSet::new(),
                weather: Weather::default(),
                trace: Vec::new(),
                broken: Vec::new(),
            }),
            misled: AtomicBool::new(false),
        })
    }

    /// A worker follows a clock that is wrong from now on, or will.
    pub(crate) fn mislead(&self) {
        self.misled.store(true, Ordering::Relaxed);
    }

    /// False if all workers know the time.
    pub(crate) fn is_misled(&self) -> bool {
        self.misled.load(Ordering::Relaxed)
    }

    /// Milliseconds since the beginning.
    pub(crate) fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.begin.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The true time of day.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(BEGIN_MS + self.elapsed_ms())
    }

    /// A number below `bound`: `SplitMix64` (Steele, Lea, Flood 2014).
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut inner = lock(&self.inner);
        inner.chance = inner.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = inner.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound.max(1)
    }

    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True so many times in a thousand.
    pub(crate) fn happens(&self, thousandths: u64) -> bool {
        thousandths > 0 && self.below(1_000) < thousandths
    }

    pub(crate) fn pick(&self, of: usize) -> usize {
        usize::try_from(self.below(of as u64)).unwrap_or(0)
    }

    pub(crate) fn say(&self, what: impl fmt::Display) {
        let line = format!("{:>9} {what}", self.elapsed_ms());
        lock(&self.inner).trace.push(line);
    }

    /// An invariant does not hold.
    pub(crate) fn broke(&self, what: impl fmt::Display) {
        let line = format!("{:>9} BROKEN: {what}", self.elapsed_ms());
        let mut inner = lock(&self.inner);
        inner.trace.push(line.clone());
        inner.broken.push(line);
    }

    pub(crate) fn broken(&self) -> Vec<String> {
        lock(&self.inner).broken.clone()
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        lock(&self.inner).trace.clone()
    }

    pub(crate) fn weather(&self) -> Weather {
        lock(&self.inner).weather
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        lock(&self.inner).weather = weather;
    }

    pub(crate) fn cut(&self, one: Place, other: Place) {
        let mut inner = lock(&self.inner);
        inner.cut.insert((one, other));
        inner.cut.insert((other, one));
    }

    pub(crate) fn heal(&self, one: Place, other: Place) {
        let mut inner = lock(&self.inner);
        inner.cut.remove(&(one, other));
        inner.cut.remove(&(other, one));
    }

    pub(crate) fn heal_all(&self) {
        lock(&self.inner).cut.clear();
    }

    pub(crate) fn is_cut(&self, one: Place, other: Place) -> bool {
        lock(&self.inner).cut.contains(&(one, other))
    }

    pub(crate) fn set_stopped(&self, place: Place, stopped: bool) {
        let mut inner = lock(&self.inner);
        match stopped {
            true => inner.stopped.insert(place),
            false => inner.stopped.remove(&place),
        };
    }

    pub(crate) fn is_stopped(&self, place: Place) -> bool {
        lock(&self.inner).stopped.contains(&place)
    }

    /// Time for one way.
    fn way(&self) -> Duration {
        let late = self.weather().late;
        Duration::from_millis(match self.happens(late) {
            true => self.between(100, 4_000),
            false => self.between(1, 20),
        })
    }

    /// The way of a request or an answer; one that is lost never arrives, and its caller gives up waiting.
    pub(crate) async fn travel(&self, from: Place, to: Place) {
        tokio::time::sleep(self.way()).await;
        if self.is_cut(from, to) || self.happens(self.weather().lost) {
            std::future::pending::<()>().await;
        }
    }

    /// The way of one of a row of messages over a connection: none is lost alone.
    pub(crate) async fn travel_in_row(&self, from: Place, to: Place) -> Result<(), Status> {
        tokio::time::sleep(self.way()).await;
        let since = Instant::now();
        while self.is_cut(from, to) {
            if since.elapsed() > BROKEN_AFTER {
                return Err(Status::unavailable("the connection is broken"));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if self.happens(self.weather().lost / 4) {
            return Err(Status::unavailable("the connection was reset"));
        }
        Ok(())
    }
}

/// The clocks of one machine. Its time of day may be wrong.
#[derive(Debug)]
pub(crate) struct MachineClock {
    world: Arc<World>,
    ahead_ms: AtomicI64,
}

impl MachineClock {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(MachineClock {
            world: Arc::clone(world),
            ahead_ms: AtomicI64::new(0),
        })
    }

    pub(crate) fn is_wrong(&self) -> bool {
        self.ahead_ms.load(Ordering::Relaxed) != 0
    }

    /// Lets the time of day jump to so far ahead of the true one.
    pub(crate) fn jump_to(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.world.now().as_millis() + self.ahead_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_millis(self.world.elapsed_ms())
    }
}
