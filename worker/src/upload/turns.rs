//! [`Turns`]: who may have rendered bytes in memory and store them, and who waits for that.
//!
//! Turns bound both the uploads at a time and the bytes that they hold, whatever the number of recorders. Recordings that began together fill
//! their parts together, and then hundreds of parts wait. What ends goes before them, since somebody waits for it; what goes on has its
//! journal. So that neither is kept waiting for ever, every fourth turn goes to what goes on, if any of it waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// While both wait, so many turns go to what ends before one goes to what goes on.
const ENDS_IN_A_ROW: u32 = 3;

/// How soon somebody wants a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// A recording ends.
    Ending,
    /// Anything else.
    GoingOn,
}

/// Turns, each a slot and so many units of memory. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Queues>>);

/// The right to so many units, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    units: u32,
    haste: Haste,
    turns: Turns,
}

#[derive(Debug)]
struct Queues {
    free: Room,
    /// What may still go to what goes on: the rest is for what ends.
    free_going_on: Room,
    /// All there is, and all of it that what goes on may have.
    most: [u32; 2],
    ending: VecDeque<Waiter>,
    going_on: VecDeque<Waiter>,
    /// Turns in a row that went to what ends while something else waited.
    in_a_row: u32,
}

#[derive(Debug, Clone, Copy)]
struct Room {
    slots: usize,
    units: u32,
}

#[derive(Debug)]
struct Waiter {
    units: u32,
    tell: oneshot::Sender<Held>,
}

impl Turns {
    /// `slots` at a time with `units`, at least 1, in all; without slots nobody ever has a turn. Half of each, rounded down, is for what ends alone.
    pub(super) fn new(slots: usize, units: u32) -> Self {
        let going_on = Room {
            slots: slots - slots / 2,
            units: units - units / 2,
        };
        Self(Arc::new(Mutex::new(Queues {
            free: Room { slots, units },
            free_going_on: going_on,
            most: [units, going_on.units],
            ending: VecDeque::new(),
            going_on: VecDeque::new(),
            in_a_row: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn with so many units. Who asks for more than there ever is for its kind waits for all of that.
    pub(super) async fn take(&self, units: u32, haste: Haste) -> Option<Held> {
        let (tell, told) = oneshot::channel();
        self.lock().wait(Waiter { units, tell }, haste);
        self.serve();
        told.await.ok()
    }

    /// Gives turns to those who wait, as far as there is room.
    fn serve(&self) {
        loop {
            let next = self.lock().next();
            let Some((Waiter { units, tell }, haste)) = next else {
                return;
            };
            let turns = self.clone();
            // Who stopped waiting this moment gives it back, by dropping it.
            drop(tell.send(Held { units, haste, turns }));
        }
    }

    /// Turns that are free, of either kind.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.lock().free.slots
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.turns.lock().give_back(self.units, self.haste);
        self.turns.serve();
    }
}

impl Queues {
    fn wait(&mut self, mut waiter: Waiter, haste: Haste) {
        let [all, going_on] = self.most;
        let (queue, most) = match haste {
            Haste::Ending => (&mut self.ending, all),
            Haste::GoingOn => (&mut self.going_on, going_on),
        };
        waiter.units = waiter.units.clamp(1, most);
        queue.push_back(waiter);
    }

    /// Takes the next one who may go out of its queue, and what it has out of what is free.
    fn next(&mut self) -> Option<(Waiter, Haste)> {
        for queue in [&mut self.ending, &mut self.going_on] {
            while queue.front().is_some_and(|first| first.tell.is_closed()) {
                queue.pop_front();
            }
        }
        let haste = self.whose()?;
        let (queue, others) = match haste {
            Haste::Ending => (&mut self.ending, !self.going_on.is_empty()),
            Haste::GoingOn => (&mut self.going_on, false),
        };
        let next = queue.pop_front()?;
        self.in_a_row = if others { self.in_a_row + 1 } else { 0 };
        for room in self.rooms(haste) {
            room.slots -= 1;
            room.units -= next.units;
        }
        Some((next, haste))
    }

    /// Whose turn it is; none: nobody waits, or there is no room for the one whose turn it is. Nobody takes the room that another waits for.
    fn whose(&self) -> Option<Haste> {
        let has = |room: Room, first: &Waiter| room.slots > 0 && room.units >= first.units;
        let going_on = self.going_on.front().filter(|first| has(self.free_going_on, first));
        let (first, haste) = match (self.ending.front(), going_on) {
            (Some(ending), Some(_)) if self.in_a_row < ENDS_IN_A_ROW => (ending, Haste::Ending),
            (_, Some(going_on)) => (going_on, Haste::GoingOn),
            (Some(ending), None) => (ending, Haste::Ending),
            (None, None) => return None,
        };
        has(self.free, first).then_some(haste)
    }

    /// Where a turn of this kind comes from.
    fn rooms(&mut self, haste: Haste) -> impl Iterator<Item = &mut Room> {
        let going_on = (haste == Haste::GoingOn).then_some(&mut self.free_going_on);
        [Some(&mut self.free), going_on].into_iter().flatten()
    }

    fn give_back(&mut self, units: u32, haste: Haste) {
        for room in self.rooms(haste) {
            room.slots += 1;
            room.units += units;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    /// Who waits, in the order of asking.
    type Asked = Vec<(usize, Pin<Box<dyn Future<Output = Option<Held>>>>)>;

    /// Those who have a turn now.
    fn served(asked: &mut Asked) -> Vec<(usize, Held)> {
        let mut served = Vec::new();
        asked.retain_mut(
            |(who, wait)| match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(held) => {
                    served.push((*who, held.expect("a turn")));
                    false
                }
                Poll::Pending => true,
            },
        );
        served
    }

    /// Asks, and is in the queue; who can have a turn at once has it.
    fn ask(turns: &Turns, asked: &mut Asked, who: usize, units: u32, haste: Haste) -> Vec<(usize, Held)> {
        let turns = turns.clone();
        asked.push((who, Box::pin(async move { turns.take(units, haste).await })));
        served(asked)
    }

    #[test]
    fn what_ends_goes_before_what_waits_already_and_that_is_not_kept_waiting_for_ever() {
        let turns = Turns::new(1, 8);
        let mut asked = Asked::new();
        let mut held = ask(&turns, &mut asked, 0, 4, Haste::GoingOn);
        for who in 1..4 {
            held.extend(ask(&turns, &mut asked, who, 4, Haste::GoingOn));
        }
        for who in 10..18 {
            held.extend(ask(&turns, &mut asked, who, 8, Haste::Ending));
        }
        let mut order = Vec::new();
        while let Some((who, turn)) = held.pop() {
            order.push(who);
            drop(turn);
            held.extend(served(&mut asked));
            assert!(held.len() <= 1);
        }
        assert_eq!(order, [0, 10, 11, 12, 1, 13, 14, 15, 2, 16, 17, 3]);
    }

    #[test]
    fn half_is_for_what_ends_alone() {
        let turns = Turns::new(8, 80);
        let mut asked = Asked::new();
        let mut held = Vec::new();
        for who in 0..100 {
            held.extend(ask(&turns, &mut asked, who, 1, Haste::GoingOn));
        }
        assert_eq!((held.len(), turns.free()), (4, 4));
        // With all that is left of the memory.
        assert_eq!(ask(&turns, &mut asked, 100, 76, Haste::Ending).len(), 1);
    }

    #[test]
    fn who_asks_for_more_than_there_is_has_all_there_is() {
        let turns = Turns::new(4, 8);
        let mut asked = Asked::new();
        let held = ask(&turns, &mut asked, 0, u32::MAX, Haste::GoingOn);
        assert_eq!(held.iter().map(|(_, held)| held.units).collect::<Vec<_>>(), [4]);
        assert!(ask(&turns, &mut asked, 1, u32::MAX, Haste::Ending).is_empty());
        drop(held);
        let held = served(&mut asked);
        assert_eq!(held.iter().map(|(_, held)| held.units).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn who_does_not_wait_any_more_takes_nothing_with_it() {
        let turns = Turns::new(2, 2);
        let mut asked = Asked::new();
        let mut held = Vec::new();
        for who in 0..1_000 {
            held.extend(ask(&turns, &mut asked, who, 1, Haste::Ending));
        }
        asked.clear();
        assert!(ask(&turns, &mut asked, 7, 2, Haste::Ending).is_empty());
        // One that was served and did not hear of it gives it back as well.
        drop(held);
        asked.clear();
        assert_eq!(turns.free(), 2);
    }

    proptest! {
        #[test]
        fn everybody_has_a_turn_and_there_are_never_more_than_there_are(
            slots in 1_usize..9,
            units in 1_u32..40,
            all in prop::collection::vec((0_u32..60, any::<bool>(), 0_usize..3), 1..60),
        ) {
            let turns = Turns::new(slots, units);
            let mut asked = Asked::new();
            let (mut held, mut count) = (Vec::new(), 0);
            for (who, (wanted, ends, ready)) in all.iter().enumerate() {
                let haste = if *ends { Haste::Ending } else { Haste::GoingOn };
                held.extend(ask(&turns, &mut asked, who, *wanted, haste));
                prop_assert!(held.len() <= slots);
                prop_assert!(held.iter().map(|(_, held)| held.units).sum::<u32>() <= units);
                for _ in 0..(*ready).min(held.len()) {
                    count += 1;
                    drop(held.remove(0));
                }
            }
            while !held.is_empty() || !asked.is_empty() {
                held.extend(served(&mut asked));
                prop_assert!(!held.is_empty(), "{} wait for ever", asked.len());
                count += 1;
                drop(held.remove(0));
            }
            prop_assert_eq!(count, all.len());
        }
    }
}
