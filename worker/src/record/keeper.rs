//! Remembers how far a recorder came.
//!
//! Each step's state goes to a two-slot file without waiting for the disk. A state counts as durable once a group sync that
//! began after it was written has ended; the journal is only given up behind a durable state that is itself noted durably.

use std::path::PathBuf;
use std::sync::Arc;

use journal::{GroupSync, Outcome, Slot};

use super::state::{Saved, State, VERSION};
use super::{RecordError, Setting};

#[derive(Debug)]
pub(super) struct Keeper {
    slot: Slot,
    path: PathBuf,
    boot_id: Arc<str>,
    sync: Arc<GroupSync>,
    durable: State,
    /// A state that will be durable once this generation is complete.
    pending: Option<(u64, State)>,
    /// A durable cursor, noted in the slot, that may be relied on once this generation is complete.
    noted: Option<(u64, u64)>,
    retired: u64,
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
        let (current, durable) = match saved {
            Some(saved) if saved.version != VERSION => {
                return Err(fail(format!("version {} is not known, only {VERSION}", saved.version)));
            }
            Some(saved) if *saved.boot_id == *setting.boot_id => (saved.current, saved.durable),
            // The machine was off: only what a sync had covered is believed.
            Some(saved) => (saved.durable.clone(), saved.durable),
            None => (State::default(), State::default()),
        };
        let retired = durable.cursor;
        let keeper = Self {
            slot,
            path,
            boot_id: Arc::clone(&setting.boot_id),
            sync,
            durable,
            pending: None,
            noted: None,
            retired,
        };
        Ok((keeper, current))
    }

    /// The newest state that is known to be safe against power loss, and so the oldest that may be gone back to.
    pub(super) fn durable(&self) -> &State {
        &self.durable
    }

    /// Goes back to an earlier state, which refers to nothing that a sync must cover: what lies behind it is needed again.
    pub(super) fn rewind(&mut self, state: &State) {
        self.durable = state.clone();
        (self.pending, self.noted) = (None, None);
        self.retired = state.cursor;
    }

    /// Notes `state`; gives the journal position behind which nothing is needed any more.
    pub(super) fn save(&mut self, state: &State) -> Result<u64, RecordError> {
        let outcome = |generation: u64| self.sync.outcome(generation);
        match self
            .pending
            .take_if(|(generation, _)| outcome(*generation) != Outcome::Pending)
        {
            Some((generation, state)) if outcome(generation) == Outcome::Durable => self.durable = state,
            // After a failed sync nobody knows what reached the disk: the next one that succeeds says.
            _ => {}
        }
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
        if self.pending.is_none() {
            self.pending = Some((generation, saved.current));
        }
        let ended = |(generation, _): &mut (u64, u64)| self.sync.outcome(*generation) != Outcome::Pending;
        match self.noted.take_if(ended) {
            Some((generation, cursor)) if self.sync.outcome(generation) == Outcome::Durable => {
                self.retired = self.retired.max(cursor);
            }
            _ => {}
        }
        if self.noted.is_none() {
            self.noted = Some((generation, self.durable.cursor));
        }
        Ok(self.retired)
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
        assert_eq!(save(400), 100);
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
            assert_eq!(keeper.save(&state).expect("saved"), 100);
            world.sync.sync_now().expect("synced");
        }
        let (_, found) = Keeper::open(&setting, Arc::clone(&world.sync)).expect("a keeper");
        assert_eq!(found.cursor, 100);
    }
}
