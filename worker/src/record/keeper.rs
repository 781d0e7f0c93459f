//! Remembers how far a recorder came.
//!
//! Each step's state goes to a two-slot file without waiting for the disk. A state counts as durable once a group sync that
//! began after it was written has ended; the journal is only given up behind a durable state that is itself noted durably.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use journal::{GroupSync, Outcome, Slot};

use super::state::{OLDEST, Saved, State, VERSION};
use super::{RecordError, Setting};

#[derive(Debug)]
pub(super) struct Keeper {
    slot: Slot,
    path: PathBuf,
    boot_id: Arc<str>,
    sync: Arc<GroupSync>,
    durable: State,
    /// States that will be durable once a generation is complete: of the one whose sync is under way and of the next at most.
    pending: VecDeque<(u64, State)>,
    /// Durable states that are noted in the slot as such, in the same way.
    noted: VecDeque<(u64, State)>,
    /// The earliest that a power loss leads back to, as far as this process knows: at first the beginning.
    safe: State,
    is_reopened: bool,
}

/// How far a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    cursor: u64,
    /// The file whose end is decided.
    finishing: Option<u32>,
}

impl Point {
    fn of(state: &State) -> Self {
        let finishing = state.open.as_ref().filter(|open| open.finishing.is_some());
        Self {
            cursor: state.cursor,
            finishing: finishing.map(|open| open.sequence),
        }
    }
}

/// Takes in what is written in a generation, in place of what was written in it before.
fn note(queue: &mut VecDeque<(u64, State)>, generation: u64, state: State) {
    queue.pop_back_if(|(last, _)| *last == generation);
    queue.push_back((generation, state));
}

impl Keeper {
    /// Opens the state file; gives the state to go on from.
    pub(super) fn open(setting: &Setting, sync: Arc<GroupSync>) -> Result<(Self, State), RecordError> {
        let path = setting.notes.join(format!("{}.slot", setting.name()));
        let fail = |reason: String| RecordError::State {
            path: path.clone(),
            reason,
        };
        let mut slot = Slot::open(&path).map_err(|e| fail(e.to_string()))?;
        let saved: Option<Saved> = match slot.read().map_err(|e| fail(e.to_string()))? {
            Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?),
            None => None,
        };
        let is_reopened = saved.is_some();
        let (current, durable) = match saved {
            Some(saved) if !(OLDEST..=VERSION).contains(&saved.version) => {
                return Err(fail(format!(
                    "version {} is not known, only {OLDEST} to {VERSION}",
                    saved.version
                )));
            }
            Some(saved) if *saved.boot_id == *setting.boot_id => (saved.current, saved.durable),
            // The machine was off: only what a sync had covered is believed.
            Some(saved) => (saved.durable.clone(), saved.durable),
            None => (State::default(), State::default()),
        };
        let mut keeper = Self {
            slot,
            path,
            boot_id: Arc::clone(&setting.boot_id),
            sync,
            durable,
            pending: VecDeque::new(),
            noted: VecDeque::new(),
            safe: State::default(),
            is_reopened,
        };
        if !is_reopened {
            keeper.save(&current)?;
        }
        Ok((keeper, current))
    }

    /// True if whoever opened it before may have begun something of which the state does not tell.
    pub(super) fn is_reopened(&self) -> bool {
        self.is_reopened
    }

    /// The oldest state that may be gone back to: durable, and noted durably as such.
    pub(super) fn safe(&self) -> &State {
        &self.safe
    }

    /// Goes back to an earlier state, which refers to nothing that a sync must cover: what lies behind it is needed again.
    pub(super) fn rewind(&mut self, state: &State) {
        self.durable = state.clone();
        (self.pending, self.noted) = (VecDeque::new(), VecDeque::new());
        self.safe = State::default();
    }

    /// The journal position behind which nothing is needed any more.
    pub(super) fn retired(&self) -> u64 {
        self.safe.cursor
    }

    /// Notes `state` for what can be done only once no power loss leads back to before it; says whether that is so now. It takes two
    /// syncs: one makes it durable, the next the note that it is.
    pub(super) fn settle(&mut self, state: &State) -> Result<bool, RecordError> {
        self.take_up();
        let point = Point::of(state);
        if Point::of(&self.safe) == point {
            return Ok(true);
        }
        let is_under_way =
            |queue: &VecDeque<(u64, State)>| queue.back().is_some_and(|(_, state)| Point::of(state) == point);
        if !is_under_way(&self.noted) && !is_under_way(&self.pending) {
            self.save(state)?;
            self.sync.hasten();
        }
        Ok(false)
    }

    /// Takes up what syncs have ended with.
    fn take_up(&mut self) {
        let sync = &self.sync;
        let ended = |generation: u64| sync.outcome(generation) != Outcome::Pending;
        // After a failed sync nobody knows what reached the disk: the next one that succeeds says.
        let durable = |generation: u64| sync.outcome(generation) == Outcome::Durable;
        while let Some((generation, state)) = self.pending.pop_front_if(|(generation, _)| ended(*generation)) {
            if durable(generation) {
                self.durable = state;
            }
        }
        while let Some((generation, state)) = self.noted.pop_front_if(|(generation, _)| ended(*generation)) {
            if durable(generation) {
                self.safe = state;
            }
        }
    }

    /// Notes `state`; gives the journal position behind which nothing is needed any more.
    pub(super) fn save(&mut self, state: &State) -> Result<u64, RecordError> {
        self.take_up();
        let saved = Saved {
            version: VERSION,
            boot_id: self.boot_id.to_string(),
            current: state.clone(),
            durable: self.durable.clone(),
        };
        let fail = |reason: String| RecordError::State {
            path: self.path.clone(),
            reason,
        };
        let bytes = serde_json::to_vec(&saved).map_err(|e| fail(e.to_string()))?;
        self.slot.write(&bytes).map_err(|e| fail(e.to_string()))?;
        let generation = self.sync.mark_dirty();
        note(&mut self.pending, generation, saved.current);
        note(&mut self.noted, generation, saved.durable);
        Ok(self.retired())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;
    use shared::template::Format;

    #[test]
    fn nothing_is_given_up_before_a_sync_covers_a_state_and_another_the_note_of_it() {
        let world = World::new();
        let setting = world.setting("kept", Format::Flv, 1_000);
        std::fs::create_dir_all(&setting.notes).expect("a folder");
        let (mut keeper, mut state) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
        let mut save = |cursor| {
            state.cursor = cursor;
            keeper.save(&state).expect("saved")
        };
        assert_eq!((save(100), save(200)), (0, 0), "nothing is on the disk");
        world.sync.sync_now().expect("synced");
        assert_eq!(save(300), 0, "that it is there is not noted on the disk");
        world.sync.sync_now().expect("synced");
        assert_eq!(save(400), 200);
    }

    #[test]
    fn what_a_recorder_goes_back_to_is_needed_again() {
        let world = World::new();
        let setting = world.setting("rewound", Format::Flv, 1_000);
        std::fs::create_dir_all(&setting.notes).expect("a folder");
        let (mut keeper, mut state) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
        let mut retired = 0;
        for cursor in 1..=4 {
            state.cursor = cursor * 100;
            retired = keeper.save(&state).expect("saved");
            world.sync.sync_now().expect("synced");
        }
        assert!(retired > 100, "{retired}");
        state.cursor = 100;
        keeper.rewind(&state);
        for _ in 0..3 {
            assert!(keeper.save(&state).expect("saved") <= 100);
            world.sync.sync_now().expect("synced");
        }
        assert_eq!(keeper.save(&state).expect("saved"), 100);
        let (_, found) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
        assert_eq!(found.cursor, 100);
    }
}
