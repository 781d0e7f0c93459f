//! [`GroupSync`], which makes what all journals wrote durable at once: one `syncfs` for each file system, not one `fsync`
//! for each file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Failed generations remembered one by one; what failed before them counts as failed with all below it.
const FAILURES_KEPT: usize = 1024;

/// Whether what was written in a generation is safe from power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its sync has not ended.
    Pending,
    /// It is safe.
    Durable,
    /// Its sync failed: the operating system may have dropped what it could not write. A later sync does not heal that.
    Failed,
}

/// Figures of a [`GroupSync`] since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncStats {
    /// Syncs that ended well.
    pub syncs: u64,
    /// Syncs that failed.
    pub errors: u64,
    /// The operating system's number of the last error.
    pub last_error: Option<i32>,
    /// How long the oldest write that is not durable has been waiting; none: all is durable.
    pub oldest_unsynced: Option<Duration>,
    /// Longest time from a write being marked to the start of its sync.
    pub longest_wait: Duration,
    /// Longest time from a write being marked to the end of its sync: what a power loss can cost.
    pub longest_unsynced: Duration,
    /// Longest sync.
    pub longest_sync: Duration,
    /// Time in all syncs that ended well.
    pub total: Duration,
}

/// One thread for the whole node that syncs the file systems of the given directories `interval` after the first
/// write since the last sync.
///
/// Writes are numbered by *generation*: [`GroupSync::mark_dirty`], called after a write, says which one the write is in,
/// and it is durable once [`GroupSync::completed`] has reached that number and [`GroupSync::outcome`] says so. To keep a
/// promise of one second from arrival, choose the interval so that it, a visit (250 ms) and the slowest sync
/// ([`SyncStats::longest_sync`]) fit into it.
///
/// Dropping it syncs once more if there is anything to sync, and ends the thread.
#[derive(Debug)]
pub struct GroupSync {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    interval: Duration,
    /// The generation that a write made now is in, from 1.
    generation: AtomicU64,
    completed: AtomicU64,
    /// When the first write since the last sync was marked, microseconds since `origin`, at least 1; 0: none was.
    dirty_since_us: AtomicU64,
    /// The same for the sync under way.
    syncing_since_us: AtomicU64,
    state: Mutex<State>,
    /// Tells the thread that there is something to do.
    wake: Condvar,
    /// Tells waiters that a sync has ended.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    now: bool,
    /// Somebody waits for the next sync.
    soon: bool,
    /// The last generation whose sync has ended, well or not.
    attempted: u64,
    failed: VecDeque<u64>,
    /// Every generation up to this one counts as failed.
    failed_up_to: u64,
    stats: SyncStats,
}

impl GroupSync {
    /// Starts the thread. Directories on the same file system are synced once.
    ///
    /// # Errors
    ///
    /// As the operating system says when a directory is opened or the thread is made.
    pub fn start(dirs: &[PathBuf], interval: Duration) -> io::Result<Self> {
        let mut devices = Vec::new();
        let mut files = Vec::new();
        for dir in dirs {
            let file = File::open(dir)?;
            let device = file.metadata()?.dev();
            if !devices.contains(&device) {
                devices.push(device);
                // Held open from before the first write: a file system reports an error once to each file opened before it.
                files.push(file);
            }
        }
        Self::start_with(interval, move || {
            let mut result = Ok(());
            for file in &files {
                result = result.and(rustix::fs::syncfs(file).map_err(io::Error::from));
            }
            result
        })
    }

    fn start_with(interval: Duration, sync: impl FnMut() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            interval,
            generation: AtomicU64::new(1),
            completed: AtomicU64::new(0),
            dirty_since_us: AtomicU64::new(0),
            syncing_since_us: AtomicU64::new(0),
            state: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
        });
        let thread = thread::Builder::new().name("group-sync".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(sync)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Says that something was written; returns the generation it is in. Call it after the write. It costs two loads, once
    /// in an interval a wake-up.
    pub fn mark_dirty(&self) -> u64 {
        // First the generation: were it read after the mark was seen, a sync between the two would take the mark and leave
        // a generation that nothing makes complete.
        let generation = self.shared.generation.load(SeqCst);
        if self.shared.dirty_since_us.load(SeqCst) == 0 {
            let now_us = self.shared.now_us();
            if self
                .shared
                .dirty_since_us
                .compare_exchange(0, now_us, SeqCst, SeqCst)
                .is_ok()
            {
                let _state = self.shared.lock();
                self.shared.wake.notify_one();
            }
        }
        generation
    }

    /// Says that somebody waits for what was marked: it is synced after a quarter of the interval. However many say so there is
    /// no more than one sync in that time.
    pub fn hasten(&self) {
        self.shared.lock().soon = true;
        self.shared.wake.notify_one();
    }

    /// The generation that a write made now is in.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(SeqCst)
    }

    /// The last generation whose sync ended well.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.shared.completed.load(SeqCst)
    }

    /// Whether what was written in `generation` is durable.
    #[must_use]
    pub fn outcome(&self, generation: u64) -> Outcome {
        self.shared.lock().outcome(generation)
    }

    /// Syncs without waiting for the interval; returns when what was written before the call is durable.
    ///
    /// # Errors
    ///
    /// `Other` if that sync failed; [`SyncStats::last_error`] has the number.
    pub fn sync_now(&self) -> io::Result<()> {
        let generation = self.generation();
        self.shared
            .dirty_since_us
            .compare_exchange(0, self.shared.now_us(), SeqCst, SeqCst)
            .ok();
        let mut state = self.shared.lock();
        state.now = true;
        self.shared.wake.notify_one();
        while state.outcome(generation) == Outcome::Pending {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match (state.outcome(generation), state.stats.last_error) {
            (Outcome::Durable, _) => Ok(()),
            (_, Some(error)) => Err(io::Error::from_raw_os_error(error)),
            _ => Err(io::Error::other("sync failed")),
        }
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> SyncStats {
        let mut stats = self.shared.lock().stats;
        let since = [&self.shared.syncing_since_us, &self.shared.dirty_since_us];
        let oldest_us = since.map(|us| us.load(SeqCst)).into_iter().filter(|&us| us > 0).min();
        stats.oldest_unsynced = oldest_us.map(|us| self.shared.since(us));
        stats
    }
}

impl Drop for GroupSync {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has nothing to add here.
            thread.join().ok();
        }
    }
}

impl State {
    fn outcome(&self, generation: u64) -> Outcome {
        if generation > self.attempted {
            Outcome::Pending
        } else if generation <= self.failed_up_to || self.failed.contains(&generation) {
            Outcome::Failed
        } else {
            Outcome::Durable
        }
    }

    fn fail(&mut self, generation: u64) {
        if self.failed.len() == FAILURES_KEPT
            && let Some(oldest) = self.failed.pop_front()
        {
            self.failed_up_to = oldest;
        }
        self.failed.push_back(generation);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn since(&self, us: u64) -> Duration {
        Duration::from_micros(self.now_us().saturating_sub(us))
    }

    fn run(&self, mut sync: impl FnMut() -> io::Result<()>) {
        while let Some(since_us) = self.wait() {
            // First the mark is taken, then the generation ends, then the sync begins: see `mark_dirty`.
            self.syncing_since_us.store(since_us, SeqCst);
            self.dirty_since_us.store(0, SeqCst);
            let generation = self.generation.fetch_add(1, SeqCst);
            let waited = self.since(since_us);
            let began = Instant::now();
            let result = sync();
            let took = began.elapsed();
            self.finish(generation, since_us, waited, took, result);
        }
    }

    /// Waits until a sync is due; says since when. `None`: the end.
    fn wait(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            let since_us = self.dirty_since_us.load(SeqCst);
            let interval = if state.soon { self.interval / 4 } else { self.interval };
            let left = interval.saturating_sub(self.since(since_us));
            if since_us > 0 && (state.now || state.stop || left.is_zero()) {
                (state.now, state.soon) = (false, false);
                return Some(since_us);
            }
            if state.stop {
                return None;
            }
            state = if since_us > 0 {
                let (state, _) = self
                    .wake
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner);
                state
            } else {
                self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn finish(&self, generation: u64, since_us: u64, waited: Duration, took: Duration, result: io::Result<()>) {
        let mut state = self.lock();
        self.syncing_since_us.store(0, SeqCst);
        state.attempted = generation;
        let unsynced = self.since(since_us);
        let stats = &mut state.stats;
        stats.longest_wait = stats.longest_wait.max(waited);
        stats.longest_sync = stats.longest_sync.max(took);
        stats.longest_unsynced = stats.longest_unsynced.max(unsynced);
        match result {
            Ok(()) => {
                stats.syncs += 1;
                stats.total += took;
                self.completed.store(generation, SeqCst);
            }
            Err(error) => {
                stats.errors += 1;
                stats.last_error = error.raw_os_error();
                state.fail(generation);
            }
        }
        self.done.notify_all();
    }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
