//! How files leave the library: locks, removal, and which are due.
//!
//! A file leaves in two steps. First its record becomes a [`Removal`], in one transaction that holds only if nobody has locked it or
//! changed it meanwhile: from then on nobody finds it, and nobody can lock it. Then its objects go, and with the last of them the removal.
//! Whoever is stopped in between, it is gone on with from the removal. Where there is a second place of objects, a removal whose objects are gone
//! from the first moves to a queue of its own ([`RemovalFrom::Second`]), so that neither place waits for the other.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Guard, MAX_TXN_OPS, Repo, Revision, Scan, StoreError, Txn, keys, repo};
use crate::{
    ids::{FileId, RecordingId},
    recording::{MediaFile, Recording, RecordingState},
    time::Timestamp,
};

/// How often a change is tried again when another was quicker.
const ATTEMPTS: usize = 16;
/// Operations that take one file out of the library.
const OPS_OF_ONE: usize = 6;
/// Most files that one transaction takes out; there is room for the leader's own guard and decision.
const AT_ONCE: usize = (MAX_TXN_OPS - 8) / OPS_OF_ONE;

/// Why a file is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalCause {
    /// Its storage time is over.
    Expired,
    /// Somebody asked for it.
    Asked,
}

impl RemovalCause {
    /// As in JSON and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RemovalCause::Expired => "expired",
            RemovalCause::Asked => "asked",
        }
    }
}

/// From which place of objects a file is removed next. Each has its own queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalFrom {
    /// The first; where that is done, from the second, if there is one.
    First,
    /// The second: nothing is left in the first.
    Second,
}

impl RemovalFrom {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RemovalFrom::First => "first",
            RemovalFrom::Second => "second",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            RemovalFrom::First => keys::REMOVALS,
            RemovalFrom::Second => keys::SECOND_REMOVALS,
        }
    }

    fn key(self, id: FileId) -> String {
        format!("{}{id}", self.prefix())
    }
}

/// A file that has left the library and whose objects are being removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// As it was.
    pub file: MediaFile,
    /// Why.
    pub cause: RemovalCause,
    /// When it left the library.
    pub begun: Timestamp,
    /// Times that the place it is in the queue of did not let it go.
    pub failures: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
    /// What storage said last.
    pub problem: String,
}

/// When files to be removed were looked for last, by the wall clock. A clock that is far ahead of it is not believed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The time of day.
    pub at: Timestamp,
}

/// A file whose time is over, as the index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its key in the index: where to go on.
    pub key: String,
    /// Which.
    pub file: FileId,
    /// Its recording.
    pub recording: RecordingId,
}

/// Why a file does not leave the library.
#[derive(Debug, Clone, Error)]
pub enum RemovalError {
    /// There is no such file.
    #[error("no file {0}: `aircheck file list` shows what there is")]
    NoFile(FileId),
    /// It is locked.
    #[error("file {0} is locked: `aircheck file unlock {0}` first")]
    FileLocked(FileId),
    /// Its recording is locked.
    #[error("recording {0} is locked: `aircheck recording unlock {0}` first")]
    RecordingLocked(RecordingId),
    /// Its recording has not ended.
    #[error("the recording of file {0} is still running: delete it when it has ended")]
    Running(FileId),
    /// A composition that has not ended reads it.
    #[error(
        "file {file} is a source of composition {composition}: delete it when that has ended (`aircheck compose get {composition}`)"
    )]
    Composed {
        /// The file.
        file: FileId,
        /// Which reads it.
        composition: RecordingId,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Enters a file into the library, with all its indexes.
///
/// # Errors
/// [`StoreError::Invalid`] when it has no JSON form.
pub(super) fn enter(file: &MediaFile) -> Result<Txn, StoreError> {
    let txn = Txn::new()
        .put_json(keys::file(file.id), file)?
        .put_json(keys::recording_file(file), &file.size)?
        .put(keys::file_by_time(file), "");
    expiring(txn, file)
}

fn expiring(txn: Txn, file: &MediaFile) -> Result<Txn, StoreError> {
    match file.expires {
        Some(at) if !file.locked => txn.put_json(keys::expiry(at, file.id), &file.recording),
        _ => Ok(txn),
    }
}

/// Changes a file's record from what it was, and its place among those that are removed by themselves.
fn change(before: &MediaFile, revision: Revision, after: &MediaFile) -> Result<Txn, StoreError> {
    let key = keys::file(after.id);
    let mut txn = Txn::new()
        .guard(Guard::AtRevision(key.clone(), revision))
        .put_json(key, after)?;
    if let Some(at) = before.expires
        && (after.locked || after.expires != before.expires)
    {
        txn = txn.delete(keys::expiry(at, before.id));
    }
    expiring(txn, after)
}

/// Makes a file's record a removal.
fn begin(txn: Txn, file: &MediaFile, revision: Revision, removal: &Removal) -> Result<Txn, StoreError> {
    let txn = txn
        .guard(Guard::AtRevision(keys::file(file.id), revision))
        .put_json(keys::removal(file.id), removal)?
        .delete(keys::file(file.id))
        .delete(keys::recording_file(file))
        .delete(keys::file_by_time(file))
        .delete(keys::media_note(file.id));
    Ok(match file.expires {
        Some(at) if !file.locked => txn.delete(keys::expiry(at, file.id)),
        _ => txn,
    })
}

impl Removal {
    /// Of a file that was asked to go.
    #[must_use]
    pub fn asked(file: &MediaFile, now: Timestamp) -> Self {
        removal(file, RemovalCause::Asked, now)
    }
}

fn removal(file: &MediaFile, cause: RemovalCause, now: Timestamp) -> Removal {
    Removal {
        file: file.clone(),
        cause,
        begun: now,
        failures: 0,
        retry_at: now,
        problem: String::new(),
    }
}

impl Repo {
    /// Changes a file's lock or the time at which it is removed; gives it as it is then.
    ///
    /// # Errors
    /// [`RemovalError::NoFile`], and those of the store.
    pub async fn change_file(
        &self,
        id: FileId,
        change_to: impl Fn(&mut MediaFile) + Send,
    ) -> Result<MediaFile, RemovalError> {
        let key = keys::file(id);
        for _ in 0..ATTEMPTS {
            let (before, revision) = self.get::<MediaFile>(&key).await?.ok_or(RemovalError::NoFile(id))?;
            let mut after = before.clone();
            change_to(&mut after);
            if after == before {
                return Ok(after);
            }
            match self.store().commit(change(&before, revision, &after)?).await {
                Ok(_) => return Ok(after),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale { key }.into())
    }

    /// Locks or unlocks a recording; gives it as it is then, none where there is none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn lock_recording(&self, id: RecordingId, locked: bool) -> Result<Option<Recording>, StoreError> {
        let key = keys::recording(id);
        for _ in 0..ATTEMPTS {
            let Some((mut recording, revision)) = self.get::<Recording>(&key).await? else {
                return Ok(None);
            };
            if recording.locked == locked {
                return Ok(Some(recording));
            }
            recording.locked = locked;
            let txn = Txn::new().guard(Guard::AtRevision(key.clone(), revision));
            match self.store().commit(txn.put_json(key.clone(), &recording)?).await {
                Ok(_) => return Ok(Some(recording)),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Stale { key })
    }

    /// Files that are due by `now` behind the index's key `after`, the earliest first: at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn due_files(
        &self,
        now: Timestamp,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Due>, bool), StoreError> {
        let scan = Scan::prefix(keys::EXPIRIES).after(after).limit(limit);
        let scanned = self.store().scan(scan).await?;
        let beyond = keys::expiring_at(Timestamp::from_millis(now.as_millis().saturating_add(1)));
        let mut due = Vec::new();
        for entry in &scanned.entries {
            if entry.key >= beyond {
                return Ok((due, false));
            }
            let file = keys::last_part(&entry.key).parse();
            due.push(Due {
                key: entry.key.clone(),
                file: file.map_err(|_| StoreError::Corrupt {
                    key: entry.key.clone(),
                    problem: "does not end in an id".to_owned(),
                })?,
                recording: repo::decode(entry)?,
            });
        }
        Ok((due, scanned.more))
    }

    /// Takes one file out of the library because somebody asked for it.
    ///
    /// # Errors
    /// [`RemovalError`].
    pub async fn remove_file(&self, id: FileId, now: Timestamp) -> Result<Removal, RemovalError> {
        let key = keys::file(id);
        for _ in 0..ATTEMPTS {
            let (file, revision) = self.get::<MediaFile>(&key).await?.ok_or(RemovalError::NoFile(id))?;
            let held = self.get::<Recording>(&keys::recording(file.recording)).await?;
            let mut txn = Txn::new();
            if let Some((recording, at)) = held {
                if !recording.state.is_terminal() {
                    return Err(RemovalError::Running(id));
                }
                if recording.locked {
                    return Err(RemovalError::RecordingLocked(recording.id));
                }
                txn = txn.guard(Guard::AtRevision(keys::recording(recording.id), at));
            }
            if file.locked {
                return Err(RemovalError::FileLocked(id));
            }
            let removal = removal(&file, RemovalCause::Asked, now);
            match self.store().commit(begin(txn, &file, revision, &removal)?).await {
                Ok(_) => return Ok(removal),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale { key }.into())
    }

    /// Takes those of these files of one recording out of the library whose time is over by `now`, and gives their removals. Of a recording
    /// that has not ended, is locked, or belongs to a task that has not ended, none. Nothing happens to files that were locked or prolonged
    /// meanwhile.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn remove_expired(
        &self,
        recording: RecordingId,
        files: &[FileId],
        now: Timestamp,
    ) -> Result<Vec<Removal>, StoreError> {
        let mut begun = Vec::new();
        for chunk in files.chunks(AT_ONCE) {
            begun.extend(self.remove_expired_chunk(recording, chunk, now).await?);
        }
        Ok(begun)
    }

    async fn remove_expired_chunk(
        &self,
        recording: RecordingId,
        files: &[FileId],
        now: Timestamp,
    ) -> Result<Vec<Removal>, StoreError> {
        for _ in 0..ATTEMPTS {
            let mut txn = Txn::new();
            if let Some((held, at)) = self.get::<Recording>(&keys::recording(recording)).await? {
                if !self.may_go(&held).await? {
                    return Ok(Vec::new());
                }
                txn = txn.guard(Guard::AtRevision(keys::recording(recording), at));
            }
            let mut begun = Vec::new();
            for id in files {
                let Some((file, revision)) = self.get::<MediaFile>(&keys::file(*id)).await? else {
                    continue;
                };
                if file.locked || file.expires.is_none_or(|at| at > now) {
                    continue;
                }
                let removal = removal(&file, RemovalCause::Expired, now);
                txn = begin(txn, &file, revision, &removal)?;
                begun.push(removal);
            }
            if begun.is_empty() {
                return Ok(begun);
            }
            match self.store().commit(txn).await {
                Ok(_) => return Ok(begun),
                // Somebody locked one of them, or was quicker: what is there now is looked at again.
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    /// True if files of this recording may be removed by themselves.
    async fn may_go(&self, recording: &Recording) -> Result<bool, StoreError> {
        if recording.locked || !recording.state.is_terminal() {
            return Ok(false);
        }
        // It has ended, and what a lost worker had in storage is not completed yet.
        if self.store().get(&keys::salvage(recording.id)).await?.is_some() {
            return Ok(false);
        }
        match recording.cause {
            crate::recording::Cause::Task(task) => Ok(self.store().get(&keys::open_task(task)).await?.is_none()),
            _ => Ok(true),
        }
    }

    /// Removals from a place that are under way, the first `limit` behind the file `after`.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn removals(
        &self,
        from: RemovalFrom,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<Removal>, StoreError> {
        let scan = Scan::prefix(from.prefix())
            .after(after.map(|id| from.key(id)))
            .limit(limit);
        let scanned = self.store().scan(scan).await?;
        scanned.entries.iter().map(repo::decode).collect()
    }

    /// How many removals from a place are under way, counted up to `most` and a page.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn removals_waiting(&self, from: RemovalFrom, most: usize) -> Result<usize, StoreError> {
        let (mut count, mut after) = (0, None);
        while count < most {
            let scanned = self.store().scan(Scan::prefix(from.prefix()).after(after)).await?;
            count += scanned.entries.len();
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                break;
            }
        }
        Ok(count)
    }

    /// Notes that a place did not let a file go.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_removal(&self, from: RemovalFrom, removal: &Removal) -> Result<(), StoreError> {
        let key = from.key(removal.file.id);
        let Some(entry) = self.store().get(&key).await? else {
            // Another was luckier.
            return Ok(());
        };
        let txn = Txn::new().guard(Guard::AtRevision(key.clone(), entry.revision));
        match self.store().commit(txn.put_json(key, removal)?).await {
            Ok(_) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is left of a recording in the library, for whoever is about to remove the last of it: none where the recording stays whatever
    /// happens to its files, because it has not ended, is not completed or is locked.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn left_of(&self, recording: RecordingId) -> Result<Option<u32>, StoreError> {
        if let Some(held) = self.recording(recording).await?
            && !self.may_go(&held).await?
        {
            return Ok(None);
        }
        Ok(Some(self.file_totals(recording).await?.0))
    }

    /// The objects of these removals, all of one recording, are gone from the first place. With `second` they are to go from the second as
    /// well: in its queue they begin as they began. With `whole` nothing of the recording is left, and its record goes, unless it was locked
    /// meanwhile.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_removals(
        &self,
        recording: RecordingId,
        removals: &[Removal],
        (whole, second): (bool, bool),
    ) -> Result<(), StoreError> {
        let mut chunks = removals.chunks((MAX_TXN_OPS - 16) / 2).peekable();
        while let Some(chunk) = chunks.next() {
            let mut gone = Txn::new();
            for removal in chunk {
                gone = gone.delete(keys::removal(removal.file.id));
                if second {
                    let anew = self::removal(&removal.file, removal.cause, removal.begun);
                    gone = gone.put_json(RemovalFrom::Second.key(removal.file.id), &anew)?;
                }
            }
            let is_last = chunks.peek().is_none();
            if whole
                && is_last
                && let Some((held, at)) = self.get::<Recording>(&keys::recording(recording)).await?
                && matches!(held.state, RecordingState::Finished | RecordingState::Failed)
                && !held.locked
            {
                let forgotten = repo::forget_recording(&held);
                gone.ops.extend(forgotten.ops);
                gone = gone.guard(Guard::AtRevision(keys::recording(recording), at));
            }
            self.store().commit(gone).await?;
        }
        Ok(())
    }

    /// The objects of these removals are gone from the second place, and so from everywhere.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_second_removals(&self, removals: &[Removal]) -> Result<(), StoreError> {
        for chunk in removals.chunks(MAX_TXN_OPS - 16) {
            let key = |removal: &Removal| RemovalFrom::Second.key(removal.file.id);
            let gone = chunk.iter().fold(Txn::new(), |txn, gone| txn.delete(key(gone)));
            self.store().commit(gone).await?;
        }
        Ok(())
    }

    /// True if a file has left the library and something of it may lie in either place still.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn is_leaving(&self, id: FileId) -> Result<bool, StoreError> {
        // In this order: it moves from the first queue to the second.
        for from in [RemovalFrom::First, RemovalFrom::Second] {
            if self.store().get(&from.key(id)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
