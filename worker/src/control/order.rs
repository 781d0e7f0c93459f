//! [`Order`]: publishes of a stream are asked about one after the other, in the order in which they began. A push that breaks up is over before
//! the next begins, and goes on with that only where the coordinator hears of it first. The coordinator cannot mend that: while it knows the later
//! one alone, nothing says that there was another.
//!
//! Who waits has a journal on this worker: so many wait at most. Streams do not wait for each other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ids::StreamKey;
use tokio::sync::oneshot;

/// The turns of all streams. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Order(Arc<Mutex<Lines>>);

/// A place in a stream's line, until it is dropped: then the next one comes.
#[derive(Debug)]
pub(crate) struct Turn {
    stream: StreamKey,
    number: u64,
    /// Hears when nobody is before it any more.
    first: Option<oneshot::Receiver<()>>,
    order: Order,
}

/// Who waits for whom.
#[derive(Debug, Default)]
struct Lines {
    lines: BTreeMap<StreamKey, VecDeque<Waiter>>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// None once it was told.
    tell: Option<oneshot::Sender<()>>,
}

impl Order {
    /// A turn behind all of that stream.
    pub(super) fn turn(&self, stream: &StreamKey) -> Turn {
        let (tell, first) = oneshot::channel();
        Turn {
            stream: stream.clone(),
            number: self.lock().enter(stream, tell),
            first: Some(first),
            order: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until those before it are gone.
    pub(super) async fn comes(&mut self) {
        if let Some(first) = self.first.take() {
            // It is told before its line forgets it.
            let _ = first.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.order.lock().leave(&self.stream, self.number);
    }
}

impl Lines {
    fn enter(&mut self, stream: &StreamKey, tell: oneshot::Sender<()>) -> u64 {
        self.next += 1;
        let number = self.next;
        let line = self.lines.entry(stream.clone()).or_default();
        let tell = Some(tell);
        line.push_back(Waiter { number, tell });
        Self::tell_first(line);
        number
    }

    fn leave(&mut self, stream: &StreamKey, number: u64) {
        let Some(line) = self.lines.get_mut(stream) else { return };
        line.retain(|waiter| waiter.number != number);
        Self::tell_first(line);
        if line.is_empty() {
            self.lines.remove(stream);
        }
    }

    fn tell_first(line: &mut VecDeque<Waiter>) {
        if let Some(tell) = line.front_mut().and_then(|first| first.tell.take()) {
            // Who has stopped waiting leaves the line, too.
            let _ = tell.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn stream(name: &str) -> StreamKey {
        StreamKey::new("push.example.com", "live", name).expect("a name")
    }

    fn is_first(turn: &mut Turn) -> bool {
        let first = turn.first.as_mut();
        first.is_none_or(|first| pin!(first).poll(&mut Context::from_waker(Waker::noop())).is_ready())
    }

    #[test]
    fn each_stream_has_one_first_and_who_goes_from_the_middle_lets_nobody_past_the_first() {
        let order = Order::default();
        let [mut a, mut b, mut c] = [(); 3].map(|()| order.turn(&stream("one")));
        let mut other = order.turn(&stream("two"));
        assert!(is_first(&mut other), "another stream waits for nobody");
        assert!(is_first(&mut a) && !is_first(&mut b));
        drop(b);
        assert!(!is_first(&mut c), "the first is there still");
        drop(a);
        c.first.as_mut().expect("not awaited").try_recv().expect("it is first");
        drop((c, other));
        assert!(order.lock().lines.is_empty(), "nothing is kept of who is gone");
    }
}
