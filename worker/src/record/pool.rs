//! The render pool: a few threads that turn stretches of journals into bytes of files.
//!
//! Rendering is calculation and plain file access, so it stays off the actors' threads. Memory is bounded by the number of
//! threads, not of streams: each has one set of buffers that all jobs use in turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// Buffers of one render thread, lent to each job in turn.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What the journal reader reads into.
    pub(crate) read: Vec<u8>,
    /// What is rendered, before it is written.
    pub(crate) out: Vec<u8>,
}

/// Buffers that grew beyond this for one large unit are given back afterwards, bytes.
const KEEP_BYTES: usize = 4 << 20;

type Job = Box<dyn FnOnce(&mut Scratch) + Send>;

/// A fixed number of render threads with one queue. The queue holds at most one job for each recorder, since a recorder waits
/// for its job before it asks for another.
#[derive(Debug)]
pub(crate) struct Pool {
    /// None: there are no threads (any more).
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        let threads = (0..threads.max(1))
            .map(|n| {
                let inbox = Arc::clone(&inbox);
                std::thread::Builder::new()
                    .name(format!("render-{n}"))
                    .spawn(move || work(&inbox))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            jobs: Some(jobs),
            threads,
        })
    }

    /// One without threads: jobs run where they are asked for, at once, so that no time passes meanwhile.
    #[cfg(test)]
    pub(crate) fn without_threads() -> Self {
        Self {
            jobs: None,
            threads: Vec::new(),
        }
    }

    /// Runs `job` on a render thread. The receiver fails if the job panicked or the pool has stopped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        let job = move |scratch: &mut Scratch| drop(done.send(job(scratch)));
        match &self.jobs {
            Some(jobs) => drop(jobs.send(Box::new(job))),
            None => job(&mut Scratch::default()),
        }
        result
    }
}

impl Drop for Pool {
    /// Waits for the jobs that were asked for.
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(inbox: &Mutex<mpsc::Receiver<Job>>) {
    let mut scratch = Scratch::default();
    loop {
        let job = match inbox.lock() {
            Ok(inbox) => inbox.recv(),
            Err(_) => return,
        };
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut scratch))).is_err() {
            // The job's receiver learns of it; its buffers may be in any state.
            scratch = Scratch::default();
        }
        if scratch.read.capacity() > KEEP_BYTES {
            scratch.read = Vec::new();
        }
        if scratch.out.capacity() > KEEP_BYTES {
            scratch.out = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_job_fails_alone() {
        let pool = Pool::start(1).expect("threads");
        let bad = pool.run(|_| -> u32 { panic!("on purpose") });
        let good = pool.run(|scratch| {
            scratch.out.push(1);
            scratch.out.len()
        });
        assert!(bad.blocking_recv().is_err());
        assert_eq!(good.blocking_recv(), Ok(1));
    }
}
