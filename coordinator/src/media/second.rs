//! Removes from the second place of objects what is gone from the first.
//!
//! It is a queue of its own, with a task of its own: a second place that is away, or whose keys may not remove, lets that queue grow and holds
//! nothing else back. While it lets nothing go one removal is tried for all; one that is refused lets others pass.

use futures_util::{StreamExt as _, stream};
use shared::{
    ids::{FileId, RecordingId, WorkerId},
    objects::Archive,
    store::{Removal, RemovalFrom, StoreError},
    telemetry::Reason,
};
use std::collections::BTreeMap;
use tracing::{info, warn};

use super::{
    retention::{self, Turn},
    sweeper::{AT_A_TIME, Outcome, Remover, remove_objects, remove_uploads},
};

/// Removals that are read at a time.
const PAGE: usize = 200;
/// Pages of which nothing goes that one look reads; the next look goes on behind them.
const VAIN_PAGES: usize = 5;
/// So far the queue is counted.
const MAX_COUNTED: usize = 10_000;

/// What became of a page of removals.
#[derive(Debug, Default)]
struct Came {
    gone: usize,
    refused: usize,
    away: bool,
}

impl Remover {
    /// Everything that the second place lets go by now, behind the file `after` first. Where there is no second place whatever was left to it waits.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn look_second(&self, turn: &mut Turn, after: &mut Option<FileId>) -> Result<(), StoreError> {
        let waiting = self.repo.removals_waiting(RemovalFrom::Second, MAX_COUNTED).await?;
        self.metrics
            .second_removals
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let Some(second) = &self.second else { return Ok(()) };
        if waiting == 0 || !turn.is_due(self.clock.monotonic()) {
            return Ok(());
        }
        let (mut count, mut vain) = (0, 0);
        loop {
            let page = self.repo.removals(RemovalFrom::Second, *after, PAGE).await?;
            *after = page.get(PAGE - 1).map(|removal| removal.file.id);
            let came = self.remove_page(second, page, turn.is_waiting()).await?;
            count += came.gone;
            if came.away || came.refused > 0 && came.gone == 0 {
                turn.tried(false, self.clock.monotonic());
                break;
            }
            if came.gone > 0 {
                turn.tried(true, self.clock.monotonic());
            } else {
                vain += 1;
            }
            if after.is_none() || vain == VAIN_PAGES {
                break;
            }
        }
        if count > 0 {
            info!(files = count, "files removed from the second place");
        }
        Ok(())
    }

    /// Tries a page; with `carefully` one recording after another.
    async fn remove_page(&self, second: &Archive, page: Vec<Removal>, carefully: bool) -> Result<Came, StoreError> {
        let now = self.clock.now();
        let mut groups: BTreeMap<RecordingId, Vec<Removal>> = BTreeMap::new();
        for removal in page.into_iter().filter(|removal| retention::is_due(removal, now)) {
            groups.entry(removal.file.recording).or_default().push(removal);
        }
        let at_a_time = if carefully { 1 } else { AT_A_TIME };
        let mut results = stream::iter(groups)
            .map(async |(recording, group)| {
                let files = group.len();
                (files, self.remove_second(second, recording, group).await)
            })
            .buffer_unordered(at_a_time);
        let mut came = Came::default();
        while let Some((files, result)) = results.next().await {
            match result? {
                Some(Outcome::Gone) => came.gone += files,
                Some(Outcome::Refused) => came.refused += files,
                Some(Outcome::Away) => {
                    // It is the same for all others.
                    came.away = true;
                    break;
                }
                None => {}
            }
        }
        Ok(came)
    }

    /// Removes files of one recording, and says so in the store; what fails is noted there. None: a worker is still copying.
    async fn remove_second(
        &self,
        second: &Archive,
        recording: RecordingId,
        group: Vec<Removal>,
    ) -> Result<Option<Outcome>, StoreError> {
        // As the library is now: what was not the last of its recording may be by now, and one that was restored meanwhile is not whole.
        let whole = self.repo.left_of(recording).await? == Some(0);
        if let Some(worker) = self.stop_copies(&group, whole).await? {
            let problem = format!("worker {worker} is still copying it");
            self.note_second(group, &problem, None).await?;
            return Ok(None);
        }
        let removed = async {
            remove_uploads(second, &group, whole).await?;
            remove_objects(second, &group, whole).await
        };
        match removed.await {
            Ok(()) => {
                self.repo.end_second_removals(&group).await?;
                Ok(Some(Outcome::Gone))
            }
            Err(error) => {
                let (outcome, reason) = Outcome::of(&error);
                let failures = &self.metrics.second_removal_failures;
                failures.get_or_create(&Reason { reason }).inc();
                warn!(%recording, files = group.len(), %error, "files not removed from the second place yet");
                self.note_second(group, &error.to_string(), Some(outcome)).await?;
                Ok(Some(outcome))
            }
        }
    }

    /// Notes why files are not removed yet. A place that is away is nobody's failure but its own.
    async fn note_second(
        &self,
        group: Vec<Removal>,
        problem: &str,
        outcome: Option<Outcome>,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        for removal in group {
            let (failures, retry_at) = (removal.failures, removal.retry_at);
            let mut removal = retention::failed(removal, problem, now);
            if outcome == Some(Outcome::Away) {
                (removal.failures, removal.retry_at) = (failures, retry_at);
            }
            self.repo.note_removal(RemovalFrom::Second, &removal).await?;
        }
        Ok(())
    }

    /// Sees to it that nobody copies what is about to be removed; the worker that may be at it still, if there is one.
    async fn stop_copies(&self, group: &[Removal], whole: bool) -> Result<Option<WorkerId>, StoreError> {
        let now = self.clock.now();
        for removal in group {
            if let Some(worker) = self.repo.drop_copy(removal.file.id.as_uuid(), now).await? {
                return Ok(Some(worker));
            }
        }
        match group.first().filter(|_| whole) {
            Some(removal) => self.repo.drop_copy(removal.file.recording.as_uuid(), now).await,
            None => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "second_tests.rs"]
mod tests;
