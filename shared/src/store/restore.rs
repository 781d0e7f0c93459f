//! Rebuilds what the library has lost from what lies beside the media: each `recording.json` says on its own what its recording is.
//!
//! What the library has is never changed: a record there is as new as any document, or newer. So restoring may be repeated, and may run while
//! workers record.

use std::{collections::BTreeMap, time::Duration};

use super::{Guard, Interruption, Repo, Scan, StoreError, Txn, keys, library, repo};
use crate::{
    ids::{FileId, RecordingId},
    recording::{Cause, MediaFile, Recording, RecordingDocument, RecordingState},
    time::Timestamp,
};

/// A restored file stays at least so long, so that there is time to lock it: locks are not in the bucket.
const GRACE: Duration = Duration::from_secs(86_400);
/// Why a recording has failed whose stream was waited for when its metadata was lost.
const METADATA_LOST: &str = "metadata_lost: its stream was away when the metadata was lost";

/// What restoring a recording came to, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// The recording was not in the library.
    pub made: bool,
    /// Files that were not in the library.
    pub files: u32,
    /// Files that were.
    pub known: u32,
    /// Files that are on their way out.
    pub leaving: u32,
}

/// The recording as it enters the library again; none for one that holds nothing.
fn as_restored(document: &Recording, files: usize) -> Option<Recording> {
    let mut recording = document.clone();
    recording.locked = false;
    match recording.state {
        RecordingState::Finished | RecordingState::Failed => {}
        RecordingState::Scheduled if files == 0 => return None,
        // Until when it waits, and who finishes it, was only in the store.
        _ if recording.is_stitched() => {
            recording.state = RecordingState::Failed;
            METADATA_LOST.clone_into(&mut recording.reason);
            recording.ended = recording.ended.or(Some(recording.started));
        }
        // Its worker may come back and finish it.
        _ => recording.state = RecordingState::Interrupted,
    }
    Some(recording)
}

impl Repo {
    /// Enters a recording and those of its files that are `seen` in storage, with the time at which each was stored, if they are not in the
    /// library. With `dry` nothing is changed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn restore(
        &self,
        document: &RecordingDocument,
        seen: &BTreeMap<FileId, Timestamp>,
        now: Timestamp,
        dry: bool,
    ) -> Result<Restored, StoreError> {
        let mut restored = Restored::default();
        let known = self.recording(document.recording.id).await?;
        let Some(recording) = known
            .clone()
            .or_else(|| as_restored(&document.recording, document.files.len()))
        else {
            return Ok(restored);
        };
        // Files first: a recording whose last file goes is removed with all that lies in its folder.
        for file in &document.files {
            let Some(stored) = seen.get(&file.id) else { continue };
            if self.store().get(&keys::file(file.id)).await?.is_some() {
                restored.known += 1;
            } else if self.is_leaving(file.id).await? {
                restored.leaving += 1;
            } else {
                restored.files += 1;
                if !dry {
                    self.restore_file(file, &recording, *stored, now).await?;
                }
            }
        }
        restored.made = known.is_none();
        if restored.made && !dry {
            self.restore_recording(&recording, now).await?;
        }
        Ok(restored)
    }

    /// Recordings of which what lies in storage is to be completed, the first `limit`.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn salvages(&self, limit: usize) -> Result<Vec<RecordingId>, StoreError> {
        let scanned = self.store().scan(Scan::prefix(keys::SALVAGES).limit(limit)).await?;
        scanned.entries.iter().map(repo::decode).collect()
    }

    /// That is done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn salvaged(&self, id: RecordingId) -> Result<(), StoreError> {
        self.store()
            .commit(Txn::new().delete(keys::salvage(id)))
            .await
            .map(drop)
    }

    /// Enters a file of a recording that has ended, once. False: it was in the library and is on its way out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn enter_salvaged(
        &self,
        recording: &Recording,
        file: &MediaFile,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let is_known = self.store().get(&keys::file(file.id)).await?.is_some();
        if !is_known && self.is_leaving(file.id).await? {
            return Ok(false);
        }
        // Nobody removes files of a recording by themselves while it is not completed.
        self.restore_file(file, recording, now, now).await.map(|()| true)
    }

    async fn restore_file(
        &self,
        file: &MediaFile,
        recording: &Recording,
        stored: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut file = file.clone();
        file.recording = recording.id;
        file.stream = recording.stream.clone();
        file.committed = stored;
        file.locked = false;
        file.copied = None;
        file.expires = MediaFile::expiry(file.format, stored, recording).map(|at| at.max(now + GRACE));
        let txn = library::enter(&file)?.guard(Guard::Absent(keys::file(file.id)));
        match self.store().commit(txn).await {
            // Its worker was quicker.
            Ok(_) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn restore_recording(&self, recording: &Recording, now: Timestamp) -> Result<(), StoreError> {
        let key = keys::recording(recording.id);
        let mut txn = Txn::new()
            .guard(Guard::Absent(key.clone()))
            .put_json(key, recording)?
            .put(keys::stream_recording(&recording.stream, recording.id), "");
        if let Cause::Task(task) = recording.cause {
            txn = txn.put(keys::task_recording(task, recording.id), "");
        }
        if recording.state == RecordingState::Interrupted {
            let interruption = Interruption {
                recording: recording.id,
                worker: recording.worker,
                since: now,
            };
            txn = txn.put_json(keys::interrupted(recording.id), &interruption)?;
        }
        match self.store().commit(txn).await {
            Ok(_) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
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
        template::Format,
        time::Manual,
    };

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn repo() -> Repo {
        Repo::new(Arc::new(Model::new(Arc::new(Manual::at(now())))))
    }

    async fn all(repo: &Repo) -> Vec<(String, bytes::Bytes)> {
        let scanned = repo.store().scan(Scan::prefix("v1/")).await.unwrap();
        scanned
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect()
    }

    fn lost() -> (RecordingDocument, BTreeMap<FileId, Timestamp>) {
        let (recording, file) = sample(&Seeded::new(1));
        let seen = BTreeMap::from([(file.id, file.end)]);
        (RecordingDocument::new(recording, vec![file]), seen)
    }

    #[tokio::test]
    async fn a_lost_library_is_what_it_was_and_again_changes_nothing() {
        let (document, seen) = lost();
        let (before, after) = (repo(), repo());
        let recording = Recording {
            state: RecordingState::Recording,
            ..document.recording.clone()
        };
        let running = Txn::new()
            .put_json(keys::recording(recording.id), &recording)
            .unwrap()
            .put(keys::stream_recording(&recording.stream, recording.id), "");
        before.store().commit(running).await.unwrap();
        let token = crate::lease::FencingToken {
            recording: recording.id,
            epoch: recording.epoch,
        };
        let file = document.files[0].clone();
        before.commit_file(token, file.clone(), file.end).await.unwrap();
        let ended = super::super::RecordingUpdate {
            state: document.recording.state,
            reason: document.recording.reason.clone(),
            ended: document.recording.ended,
            gaps: document.recording.gaps.clone(),
            files: Some(1),
        };
        before.commit_recording(token, &ended).await.unwrap();

        let tried = after.restore(&document, &seen, now(), true).await.unwrap();
        assert_eq!(all(&after).await, [], "a dry run changes nothing");
        let done = after.restore(&document, &seen, now(), false).await.unwrap();
        assert_eq!(done, tried);
        assert_eq!((done.made, done.files, done.known), (true, 1, 0));
        assert_eq!(all(&after).await, all(&before).await);
        let again = after.restore(&document, &seen, now(), false).await.unwrap();
        assert_eq!((again.made, again.files, again.known), (false, 0, 1));
        assert_eq!(all(&after).await, all(&before).await);
    }

    #[tokio::test]
    async fn what_the_library_has_is_not_changed_and_what_is_not_seen_is_not_entered() {
        let (document, seen) = lost();
        let repo = repo();
        repo.restore(&document, &seen, now(), false).await.unwrap();
        repo.lock_recording(document.recording.id, true).await.unwrap();
        let before = all(&repo).await;
        let mut older = document.clone();
        older.recording.reason = "older".to_owned();
        older.files[0].name = "older".to_owned();
        repo.restore(&older, &seen, now(), false).await.unwrap();
        assert_eq!(all(&repo).await, before);

        let other = super::tests::repo();
        let done = other.restore(&document, &BTreeMap::new(), now(), false).await.unwrap();
        assert_eq!((done.made, done.files), (true, 0));
        assert!(other.file(document.files[0].id).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_was_deleted_does_not_come_back_and_what_is_overdue_gets_a_day() {
        let (mut document, seen) = lost();
        document
            .recording
            .template
            .formats
            .get_mut(&Format::Flv)
            .unwrap()
            .storage_time_s = 60;
        let repo = repo();
        repo.restore(&document, &seen, now(), false).await.unwrap();
        let file = repo.file(document.files[0].id).await.unwrap().unwrap();
        assert_eq!(file.expires, Some(now() + GRACE));
        let removal = repo.remove_file(file.id, now()).await.unwrap();
        let again = repo.restore(&document, &seen, now(), false).await.unwrap();
        assert_eq!((again.files, again.leaving), (0, 1));
        assert!(repo.file(file.id).await.unwrap().is_none());
        // Nor while the second place has it still.
        repo.end_removals(file.recording, std::slice::from_ref(&removal), (false, true))
            .await
            .unwrap();
        let again = repo.restore(&document, &seen, now(), false).await.unwrap();
        assert_eq!((again.files, again.leaving), (0, 1));
        repo.end_second_removals(&[removal]).await.unwrap();
        let again = repo.restore(&document, &seen, now(), true).await.unwrap();
        assert_eq!((again.files, again.leaving), (1, 0));
    }

    #[tokio::test]
    async fn what_had_not_ended_waits_for_its_worker_or_ends_by_name() {
        let (mut document, _) = lost();
        document.recording.state = RecordingState::Recording;
        document.recording.ended = None;
        let waits = repo();
        waits.restore(&document, &BTreeMap::new(), now(), false).await.unwrap();
        let id = document.recording.id;
        assert_eq!(
            waits.recording(id).await.unwrap().unwrap().state,
            RecordingState::Interrupted
        );
        let late = now() + Duration::from_millis(1);
        assert_eq!(waits.fail_lost(late, late, |_| false).await.unwrap(), [id]);

        document
            .recording
            .template
            .formats
            .get_mut(&Format::Hls)
            .unwrap()
            .flow_continue_s = 60;
        let stitched = repo();
        stitched
            .restore(&document, &BTreeMap::new(), now(), false)
            .await
            .unwrap();
        let ended = stitched.recording(id).await.unwrap().unwrap();
        assert_eq!(ended.state, RecordingState::Failed);
        assert!(ended.reason.starts_with("metadata_lost") && ended.ended.is_some());

        document.recording.state = RecordingState::Scheduled;
        document.files.clear();
        let none = repo();
        assert_eq!(
            none.restore(&document, &BTreeMap::new(), now(), false).await.unwrap(),
            Restored::default()
        );
    }
}
