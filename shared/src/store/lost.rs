//! Recordings whose worker is away: they are interrupted, and given up in the end.

use super::{Guard, Interruption, Repo, StoreError, Txn, keys};
use crate::{
    ids::{RecordingId, WorkerId},
    recording::{Gap, Recording, RecordingState},
    time::Timestamp,
};

/// How often a change is tried again when another was quicker.
const ATTEMPTS: usize = 16;

/// A recording that waits for its worker while its stream is live.
const fn waits(state: RecordingState) -> bool {
    matches!(state, RecordingState::Interrupted | RecordingState::Scheduled)
}

impl Repo {
    /// Moves a running recording between recording and interrupted, whatever its epoch: for the coordinator, when a
    /// worker goes or comes back. A recording that is not there or has ended is left alone.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn set_interrupted(&self, id: RecordingId, interrupted: bool, now: Timestamp) -> Result<(), StoreError> {
        let key = keys::recording(id);
        let (from, to) = match interrupted {
            true => (RecordingState::Recording, RecordingState::Interrupted),
            false => (RecordingState::Interrupted, RecordingState::Recording),
        };
        for _ in 0..ATTEMPTS {
            let Some((mut recording, revision)) = self.get::<Recording>(&key).await? else {
                return Ok(());
            };
            // One that has not begun stays so; that its worker is away is noted all the same.
            match recording.state {
                state if state == from => recording.state = to,
                RecordingState::Scheduled => {}
                _ => return Ok(()),
            }
            let index = keys::interrupted(id);
            let txn = Txn::new()
                .guard(Guard::AtRevision(key.clone(), revision))
                .put_json(key.clone(), &recording)?;
            let interruption = Interruption {
                recording: id,
                worker: recording.worker,
                since: now,
            };
            let txn = match interrupted {
                // How long a stitched one is waited for is in its own record.
                true if recording.is_stitched() => txn,
                true => txn.put_json(index, &interruption)?,
                false => txn.delete(index),
            };
            match self.store().commit(txn).await {
                Err(StoreError::Stale { .. }) => {}
                other => return other.map(drop),
            }
        }
        Err(StoreError::Stale { key })
    }

    /// Ends recordings whose worker has been away since before `until`: they fail as `worker_lost`, with a gap of that name
    /// behind what is in the library. Those of workers that `is_back` names go on instead. Gives those that failed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn fail_lost(
        &self,
        until: Timestamp,
        now: Timestamp,
        is_back: impl Fn(WorkerId) -> bool + Sync,
    ) -> Result<Vec<RecordingId>, StoreError> {
        let mut failed = self.fail_unfinished(until, now, &is_back).await?;
        for lost in self.all::<Interruption>(keys::INTERRUPTED).await? {
            if is_back(lost.worker) {
                // The mark was not taken away when it came back.
                self.set_interrupted(lost.recording, false, now).await?;
            } else if lost.since < until && self.fail_as_lost(&lost, now, waits).await? {
                failed.push(lost.recording);
            }
        }
        Ok(failed)
    }

    /// The same for recordings whose publish has ended and that their workers were finishing then. While a worker is there, it is noted now
    /// and then that it was.
    async fn fail_unfinished(
        &self,
        until: Timestamp,
        now: Timestamp,
        is_back: &(impl Fn(WorkerId) -> bool + Sync),
    ) -> Result<Vec<RecordingId>, StoreError> {
        let mut failed = Vec::new();
        let limit = now.as_millis().saturating_sub(until.as_millis());
        for mut lost in self.all::<Interruption>(keys::FINISHING).await? {
            if is_back(lost.worker) {
                if now.as_millis().saturating_sub(lost.since.as_millis()) > limit / 8 {
                    lost.since = now;
                    self.still_finishing(&lost).await?;
                }
            } else if lost.since < until && self.fail_as_lost(&lost, now, |state| !state.is_terminal()).await? {
                failed.push(lost.recording);
            }
        }
        Ok(failed)
    }

    /// Notes when a recording's worker was there, unless it has finished it.
    async fn still_finishing(&self, lost: &Interruption) -> Result<(), StoreError> {
        let (recording, finishing) = (keys::recording(lost.recording), keys::finishing(lost.recording));
        let held = self.get::<Recording>(&recording).await?;
        let txn = match held.filter(|(held, _)| !held.state.is_terminal()) {
            Some((_, revision)) => Txn::new()
                .guard(Guard::AtRevision(recording, revision))
                .put_json(finishing, lost)?,
            None => Txn::new().delete(finishing),
        };
        match self.store().commit(txn).await {
            Ok(_) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fail_as_lost(
        &self,
        lost: &Interruption,
        now: Timestamp,
        waits: impl Fn(RecordingState) -> bool,
    ) -> Result<bool, StoreError> {
        let (key, index) = (keys::recording(lost.recording), keys::interrupted(lost.recording));
        for _ in 0..ATTEMPTS {
            let found = self.get::<Recording>(&key).await?;
            let Some((mut recording, revision)) = found.filter(|(recording, _)| waits(recording.state)) else {
                // Its worker or somebody else has ended it; only the index is left.
                return self.forget_lost(lost.recording).await.map(|()| false);
            };
            recording.state = RecordingState::Failed;
            recording.reason = format!("worker_lost: its worker was away from {}", lost.since);
            recording.ended = Some(now);
            let from_ms = recording.gaps.iter().map(|gap| gap.to_ms).max().unwrap_or(0);
            recording.gaps.push(Gap {
                reason: "worker_lost".to_owned(),
                from_ms,
                to_ms: from_ms,
                units: 0,
            });
            let txn = Txn::new()
                .guard(Guard::AtRevision(key.clone(), revision))
                .put_json(key.clone(), &recording)?
                .put_json(keys::salvage(lost.recording), &lost.recording)?
                .delete(index.clone())
                .delete(keys::finishing(lost.recording));
            match self.store().commit(txn).await {
                Err(StoreError::Stale { .. }) => {}
                other => return other.map(|_| true),
            }
        }
        Err(StoreError::Stale { key })
    }

    async fn forget_lost(&self, id: RecordingId) -> Result<(), StoreError> {
        let txn = Txn::new().delete(keys::interrupted(id)).delete(keys::finishing(id));
        self.store().commit(txn).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ids::Seeded,
        recording::tests::sample,
        store::{Model, Scan},
        time::Manual,
    };

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + ms)
    }

    #[tokio::test]
    async fn what_a_worker_was_finishing_is_given_up_when_it_stays_away_and_not_before() {
        const LIMIT: i64 = 8_000;
        let repo = Repo::new(Arc::new(Model::new(Arc::new(Manual::at(at(0))))));
        let (mut recording, _) = sample(&Seeded::new(1));
        recording.state = RecordingState::Recording;
        let finishing = Interruption {
            recording: recording.id,
            worker: recording.worker,
            since: at(0),
        };
        let txn = Txn::new()
            .put_json(keys::recording(recording.id), &recording)
            .unwrap()
            .put_json(keys::finishing(recording.id), &finishing)
            .unwrap();
        repo.store().commit(txn).await.unwrap();
        let look = async |now: i64, there: bool| repo.fail_lost(at(now - LIMIT), at(now), |_| there).await.unwrap();
        // It takes long, and the worker is there all the time.
        for now in (0..50_000).step_by(1_500) {
            assert_eq!(look(now, true).await, []);
        }
        assert_eq!(look(54_000, false).await, []);
        assert_eq!(look(58_000, false).await, [recording.id]);
        let failed = repo.recording(recording.id).await.unwrap().unwrap();
        assert_eq!(failed.state, RecordingState::Failed);
        assert_eq!(failed.gaps.last().unwrap().reason, "worker_lost");
        assert_eq!(repo.salvages(9).await.unwrap(), [recording.id]);
        assert_eq!(look(90_000, false).await, [], "once");
        let left = repo.store().scan(Scan::prefix(keys::FINISHING)).await.unwrap();
        assert!(left.entries.is_empty());
    }

    #[tokio::test]
    async fn the_note_of_a_recording_that_has_ended_goes() {
        let repo = Repo::new(Arc::new(Model::new(Arc::new(Manual::at(at(0))))));
        let (recording, _) = sample(&Seeded::new(1));
        let finishing = Interruption {
            recording: recording.id,
            worker: recording.worker,
            since: at(0),
        };
        for there in [true, false] {
            let txn = Txn::new()
                .put_json(keys::recording(recording.id), &recording)
                .unwrap()
                .put_json(keys::finishing(recording.id), &finishing)
                .unwrap();
            repo.store().commit(txn).await.unwrap();
            assert_eq!(repo.fail_lost(at(8_000), at(9_000), |_| there).await.unwrap(), []);
            let left = repo.store().scan(Scan::prefix(keys::FINISHING)).await.unwrap();
            assert!(left.entries.is_empty(), "there: {there}");
            assert_eq!(repo.recording(recording.id).await.unwrap().unwrap(), recording);
        }
    }
}
