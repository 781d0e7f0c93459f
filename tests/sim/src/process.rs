//! [`Process`]: tasks that can be stopped like a process, and killed like one.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

/// A call from outside into a process of `T`.
pub(crate) type Call<T> = Box<dyn FnOnce(Rc<T>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

#[derive(Debug, Default)]
struct Gate {
    made: Cell<bool>,
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Runs a process's tasks unless it is stopped.
struct Gated {
    tasks: LocalSet,
    gate: Rc<Gate>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.gate.waker.borrow_mut() = Some(cx.waker().clone());
        if self.gate.stopped.get() {
            return Poll::Pending;
        }
        Pin::new(&mut self.tasks).poll(cx)
    }
}

/// A process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process<T> {
    gate: Rc<Gate>,
    calls: mpsc::UnboundedSender<Call<T>>,
    running: JoinHandle<()>,
}

impl<T: 'static> Process<T> {
    /// Starts what `make` gives, and lets it be called.
    pub(crate) fn start(make: impl FnOnce() -> T + 'static) -> Self {
        let (calls, mut inbox) = mpsc::unbounded_channel::<Call<T>>();
        let gate = Rc::new(Gate::default());
        let tasks = LocalSet::new();
        let made = Rc::clone(&gate);
        tasks.spawn_local(async move {
            let inside = Rc::new(make());
            made.made.set(true);
            while let Some(call) = inbox.recv().await {
                tokio::task::spawn_local(call(Rc::clone(&inside)));
            }
            std::future::pending::<()>().await;
        });
        let gated = Gated {
            tasks,
            gate: Rc::clone(&gate),
        };
        Process {
            gate,
            calls,
            running: tokio::task::spawn_local(gated),
        }
    }

    /// Where calls are handed in.
    pub(crate) fn calls(&self) -> mpsc::UnboundedSender<Call<T>> {
        self.calls.clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.gate.stopped.get()
    }

    /// True once it has been made: before, nobody listens.
    pub(crate) fn is_made(&self) -> bool {
        self.gate.made.get()
    }

    /// Stops it, or lets it go on: what was due meanwhile is due then.
    pub(crate) fn stop(&self, stopped: bool) {
        self.gate.stopped.set(stopped);
        if let Some(waker) = self.gate.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl<T> Drop for Process<T> {
    fn drop(&mut self) {
        self.running.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    /// A publisher that came between a worker's start and its look at its disk was taken for what a killed worker had left.
    #[test]
    fn nobody_is_there_before_a_process_has_been_made() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let process = Process::start(|| ());
            assert!(!process.is_made());
            while !process.is_made() {
                tokio::task::yield_now().await;
            }
        });
    }
}
