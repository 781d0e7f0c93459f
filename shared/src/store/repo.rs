//! [`Repo`]: typed access to the store, and the commits of workers under their fencing tokens.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{TryStreamExt as _, stream::FuturesOrdered};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{Entry, Guard, MAX_TXN_OPS, MetaStore, Revision, Scan, StoreError, Txn, keys};
use crate::{
    composition::Composition,
    ids::{FileId, PublishId, RecordingId, StreamKey, WorkerId},
    lease::{Epoch, Fenced, FencingToken, Window},
    recording::{Cause, Gap, MediaFile, Recording, RecordingState},
    template::Format,
    time::Timestamp,
};

/// How often a commit is tried again when another was quicker.
const ATTEMPTS: usize = 16;
/// Most keys that one page of a filtered list looks at, so that a filter that fits nothing does not read everything.
const LOOK_AT: usize = 4_000;
/// Requests at a time of those who read many values.
const READS: usize = 8;
/// Most entries of a page.
const MAX_PAGE: u32 = 1_000;
/// Entries of a page where none are asked for.
const DEFAULT_PAGE: u32 = 100;

/// Epoch and owner of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its name.
    pub stream: StreamKey,
    /// Ownership count; only grows.
    pub epoch: Epoch,
    /// The publish that holds it; none: it is offline.
    pub publish: Option<PublishId>,
    /// When this record changed last.
    pub changed: Timestamp,
}

/// A recording whose worker is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// Which recording.
    pub recording: RecordingId,
    /// Whose.
    pub worker: WorkerId,
    /// Since when, wall clock.
    pub since: Timestamp,
}

/// What was granted to a publish. Kept for a while after its end, so that a repeated request finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRecord {
    /// Identity.
    pub id: PublishId,
    /// What it publishes.
    pub stream: StreamKey,
    /// The worker that takes it.
    pub worker: WorkerId,
    /// Ownership it was granted.
    pub epoch: Epoch,
    /// Raw query of the push URL.
    pub params: String,
    /// Publisher's address, host:port.
    pub client_addr: String,
    /// Wall clock of its begin.
    pub started: Timestamp,
    /// Wall clock of its end; none while it is live.
    pub ended: Option<Timestamp>,
    /// Why it ended, in words.
    pub reason: String,
    /// The recordings that it feeds.
    pub recordings: Vec<RecordingId>,
    /// Version of that set: grows with each change of it while the publish is live.
    #[serde(default)]
    pub revision: u64,
    /// Those recordings' parts of the publish, where they are not the whole.
    #[serde(default)]
    pub windows: BTreeMap<RecordingId, Window>,
    /// Names where its worker's objects lie; see [`StitchRecord`](super::StitchRecord).
    #[serde(default)]
    pub storage: String,
    /// The same of the places that templates name, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, String>,
}

impl PublishRecord {
    /// Names where its worker's objects of a place lie; empty where no other worker reads, and where the worker does not have it.
    #[must_use]
    pub fn storage_of(&self, place: &str) -> &str {
        storage_of((&self.storage, &self.places), place).unwrap_or_default()
    }
}

/// Names where the objects of a place lie, of what a worker says of `objects.url` and of named places; none: it does not have it.
#[must_use]
pub fn storage_of<'a>((own, named): (&'a str, &'a BTreeMap<String, String>), place: &str) -> Option<&'a str> {
    match place {
        "" => Some(own),
        place => named.get(place).map(String::as_str),
    }
}

/// A page of a list: how many, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Most entries wanted: 1 to 1000; 0 means 100.
    pub size: u32,
    /// What the page before said; empty: from the start.
    pub token: String,
}

impl Page {
    /// Entries wanted, within the bounds.
    #[must_use]
    pub fn entries(&self) -> usize {
        let size = if self.size == 0 {
            DEFAULT_PAGE
        } else {
            self.size.min(MAX_PAGE)
        };
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

/// Which recordings are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordingFilter {
    /// In this state.
    pub state: Option<RecordingState>,
    /// Of this domain.
    pub domain: Option<String>,
    /// Of this app.
    pub app: Option<String>,
    /// Of this stream name.
    pub stream: Option<String>,
}

/// Which files are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileFilter {
    /// Of this recording.
    pub recording: Option<RecordingId>,
    /// Of this format.
    pub format: Option<Format>,
    /// Of this domain.
    pub domain: Option<String>,
    /// Of this app.
    pub app: Option<String>,
    /// Of this stream name.
    pub stream: Option<String>,
}

pub(super) fn stream_fits(key: &StreamKey, domain: Option<&str>, app: Option<&str>, stream: Option<&str>) -> bool {
    domain.is_none_or(|wanted| wanted == key.domain())
        && app.is_none_or(|wanted| wanted == key.app())
        && stream.is_none_or(|wanted| wanted == key.stream())
}

impl RecordingFilter {
    fn fits(&self, recording: &Recording) -> bool {
        self.state.is_none_or(|state| state == recording.state)
            && stream_fits(
                &recording.stream,
                self.domain.as_deref(),
                self.app.as_deref(),
                self.stream.as_deref(),
            )
    }

    /// The one stream it is about, if it names all three parts.
    fn whole_stream(&self) -> Option<StreamKey> {
        StreamKey::new(self.domain.as_deref()?, self.app.as_deref()?, self.stream.as_deref()?).ok()
    }
}

impl FileFilter {
    fn fits(&self, file: &MediaFile) -> bool {
        self.format.is_none_or(|format| format == file.format)
            && self.recording.is_none_or(|recording| recording == file.recording)
            && stream_fits(
                &file.stream,
                self.domain.as_deref(),
                self.app.as_deref(),
                self.stream.as_deref(),
            )
    }
}

/// Where a recording stands, as its worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingUpdate {
    /// State.
    pub state: RecordingState,
    /// Why it ended or failed; empty while it runs.
    pub reason: String,
    /// Wall clock of the end; none while it runs.
    pub ended: Option<Timestamp>,
    /// All gaps known so far.
    pub gaps: Vec<Gap>,
    /// Files committed for it, if the worker says so.
    pub files: Option<u32>,
}

/// Why a worker's commit did not happen.
#[derive(Debug, Clone, Error)]
pub enum CommitError {
    /// Its ownership is over.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// There is no such recording.
    #[error("recording {0} is not known")]
    NoRecording(RecordingId),
    /// The recording has ended otherwise.
    #[error("recording {recording} is {state}, which is final")]
    Final {
        /// Which.
        recording: RecordingId,
        /// How it ended.
        state: RecordingState,
    },
    /// A recording is said to be finished before all its files are in the library.
    #[error("recording {recording} shall end with {said} files, the library holds {held}: commit the files first")]
    MissingFiles {
        /// Which.
        recording: RecordingId,
        /// What the worker said.
        said: u32,
        /// What the library has.
        held: u32,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Typed access to a store.
#[derive(Debug, Clone)]
pub struct Repo {
    store: Arc<dyn MetaStore>,
}

/// Removes a recording that has no files.
pub(super) fn forget_recording(recording: &Recording) -> Txn {
    let txn = Txn::new()
        .delete(keys::recording(recording.id))
        .delete(keys::stream_recording(&recording.stream, recording.id));
    match recording.cause {
        Cause::Task(task) => txn.delete(keys::task_recording(task, recording.id)),
        _ => txn,
    }
}

/// Reads a stored value.
pub(super) fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value).map_err(|error| StoreError::Corrupt {
        key: entry.key.clone(),
        problem: error.to_string(),
    })
}

impl Txn {
    /// Adds a put of a value as JSON.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the value has no JSON form.
    pub fn put_json<T: Serialize>(self, key: String, value: &T) -> Result<Self, StoreError> {
        let json = serde_json::to_vec(value).map_err(|error| StoreError::Invalid(format!("{key:?}: {error}")))?;
        Ok(self.put(key, json))
    }
}

impl Repo {
    /// Over a store.
    #[must_use]
    pub fn new(store: Arc<dyn MetaStore>) -> Self {
        Repo { store }
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn MetaStore> {
        &self.store
    }

    /// Reads one value and the transaction that put it.
    ///
    /// # Errors
    /// Those of the store, and [`StoreError::Corrupt`].
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Revision)>, StoreError> {
        match self.store.get(key).await? {
            Some(entry) => Ok(Some((decode(&entry)?, entry.revision))),
            None => Ok(None),
        }
    }

    /// Reads many values, each where it is asked for; some requests at a time.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn many<T: DeserializeOwned>(&self, keys: &[String]) -> Result<Vec<Option<T>>, StoreError> {
        let mut chunks = keys.chunks(MAX_TXN_OPS);
        let mut reads = FuturesOrdered::new();
        let mut out = Vec::with_capacity(keys.len());
        loop {
            while reads.len() < READS
                && let Some(keys) = chunks.next()
            {
                reads.push_back(self.store.get_many(keys));
            }
            let Some(entries) = reads.try_next().await? else {
                return Ok(out);
            };
            for entry in entries {
                out.push(entry.as_ref().map(decode).transpose()?);
            }
        }
    }

    /// Reads every value under a prefix that holds few: templates, rules, streams.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        let mut out = Vec::new();
        let mut after = None;
        loop {
            let scanned = self.store.scan(Scan::prefix(prefix).after(after)).await?;
            for entry in &scanned.entries {
                out.push(decode(entry)?);
            }
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                return Ok(out);
            }
        }
    }

    /// Reads a recording.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn recording(&self, id: RecordingId) -> Result<Option<Recording>, StoreError> {
        Ok(self.get(&keys::recording(id)).await?.map(|(recording, _)| recording))
    }

    /// Reads a file's record.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn file(&self, id: FileId) -> Result<Option<MediaFile>, StoreError> {
        Ok(self.get(&keys::file(id)).await?.map(|(file, _)| file))
    }

    /// A page of recordings, the newest first, and the token of the next page; empty: that was the last. A page may
    /// hold fewer than wanted and still not be the last.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn recordings(
        &self,
        filter: &RecordingFilter,
        page: &Page,
    ) -> Result<(Vec<Recording>, String), StoreError> {
        let index = filter.whole_stream().map(|stream| keys::stream_recordings(&stream));
        let prefix = index.clone().unwrap_or_else(|| keys::RECORDINGS.to_owned());
        self.page(&prefix, page, true, index.map(|_| keys::RECORDINGS), |recording| {
            filter.fits(recording)
        })
        .await
    }

    /// A page of files: of one recording by format and sequence, else the newest first.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn files(&self, filter: &FileFilter, page: &Page) -> Result<(Vec<MediaFile>, String), StoreError> {
        let (prefix, reverse) = match filter.recording {
            Some(recording) => (keys::recording_files(recording), false),
            None => (keys::FILES_BY_TIME.to_owned(), true),
        };
        self.page(&prefix, page, reverse, Some(keys::FILES), |file| filter.fits(file))
            .await
    }

    /// Reads a page below `prefix`; with `target`, the keys there are an index whose last part leads below `target`.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        prefix: &str,
        page: &Page,
        reverse: bool,
        target: Option<&str>,
        fits: impl Fn(&T) -> bool,
    ) -> Result<(Vec<T>, String), StoreError> {
        let wanted = page.entries();
        let mut after = (!page.token.is_empty()).then(|| format!("{prefix}{}", page.token));
        let mut out = Vec::new();
        let mut looked_at = 0;
        loop {
            let mut scan = Scan::prefix(prefix).after(after.clone()).limit(wanted);
            scan.reverse = reverse;
            let scanned = self.store.scan(scan).await?;
            for (index, entry) in scanned.entries.iter().enumerate() {
                let value = match target {
                    None => Some(decode(entry)?),
                    Some(target) => {
                        let key = format!("{target}{}", keys::last_part(&entry.key));
                        self.get(&key).await?.map(|(value, _)| value)
                    }
                };
                out.extend(value.filter(|value| fits(value)));
                let last_of_all = !scanned.more && index + 1 == scanned.entries.len();
                if out.len() == wanted && !last_of_all {
                    return Ok((out, entry.key.get(prefix.len()..).unwrap_or_default().to_owned()));
                }
            }
            looked_at += scanned.entries.len();
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                return Ok((out, String::new()));
            }
            if looked_at >= LOOK_AT {
                let token = after
                    .as_deref()
                    .and_then(|key| key.get(prefix.len()..))
                    .unwrap_or_default()
                    .to_owned();
                return Ok((out, token));
            }
        }
    }

    /// How many files a recording has in the library, and their bytes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn file_totals(&self, id: RecordingId) -> Result<(u32, u64), StoreError> {
        let (mut count, mut bytes, mut after) = (0, 0, None);
        loop {
            let scanned = self
                .store
                .scan(Scan::prefix(keys::recording_files(id)).after(after))
                .await?;
            for entry in &scanned.entries {
                count += 1;
                bytes += decode::<u64>(entry)?;
            }
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                return Ok((count, bytes));
            }
        }
    }

    /// When the file that a composition makes is removed by itself.
    async fn composed_expiry(&self, id: RecordingId) -> Result<Option<Timestamp>, StoreError> {
        let found = self.get::<Composition>(&keys::composition(id)).await?;
        Ok(found.and_then(|(one, _)| one.new.expires))
    }

    /// Enters a file into the library, once: a file that is there already is left as it is. `file.recording`,
    /// `file.stream`, `file.epoch` and `file.committed` are set here.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit_file(
        &self,
        token: FencingToken,
        mut file: MediaFile,
        now: Timestamp,
    ) -> Result<(), CommitError> {
        for _ in 0..ATTEMPTS {
            let key = keys::recording(token.recording);
            let (recording, revision) = self
                .get::<Recording>(&key)
                .await?
                .ok_or(CommitError::NoRecording(token.recording))?;
            // Of a recording that goes on across publishes, each owner's own files are its to enter, however late. Its one playlist is not.
            let own = file.format != Format::Hls && recording.is_stitched() && token.epoch < recording.epoch;
            if !own {
                token.check(recording.epoch)?;
            }
            if self.store.get(&keys::file(file.id)).await?.is_some() {
                return Ok(());
            }
            if recording.state.is_terminal() {
                return Err(CommitError::Final {
                    recording: recording.id,
                    state: recording.state,
                });
            }
            file.recording = recording.id;
            file.stream = recording.stream.clone();
            file.epoch = token.epoch;
            file.committed = now;
            file.expires = match recording.cause {
                Cause::Composed => self.composed_expiry(recording.id).await?,
                _ => MediaFile::expiry(file.format, now, &recording),
            };
            file.locked = false;
            file.copied = None;
            let txn = super::library::enter(&file)?
                .guard(Guard::AtRevision(key, revision))
                .guard(Guard::Absent(keys::file(file.id)));
            match self.store.commit(txn).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale {
            key: keys::file(file.id),
        }
        .into())
    }

    /// Says where a recording stands. Repeating the same terminal state succeeds and changes nothing. A recording that was
    /// scheduled and ends without a file leaves the library.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit_recording(&self, token: FencingToken, update: &RecordingUpdate) -> Result<(), CommitError> {
        let key = keys::recording(token.recording);
        for _ in 0..ATTEMPTS {
            let (mut recording, revision) = self
                .get::<Recording>(&key)
                .await?
                .ok_or(CommitError::NoRecording(token.recording))?;
            let paused = recording.is_stitched() && update.state == RecordingState::Interrupted;
            if !(paused && token.epoch < recording.epoch) {
                token.check(recording.epoch)?;
            }
            if recording.state.is_terminal() {
                let state = recording.state;
                // A late word that it runs says nothing new; one that a publish of it is complete came too late.
                return if state == update.state || !(update.state.is_terminal() || paused) {
                    Ok(())
                } else {
                    Err(CommitError::Final {
                        recording: recording.id,
                        state,
                    })
                };
            }
            if update.state.is_terminal()
                && let Some(said) = update.files
            {
                let (held, _) = self.file_totals(recording.id).await?;
                if held < said {
                    return Err(CommitError::MissingFiles {
                        recording: recording.id,
                        said,
                        held,
                    });
                }
            }
            if recording.state == RecordingState::Scheduled
                && update.state.is_terminal()
                && self.file_totals(recording.id).await?.0 == 0
            {
                // Its start never came while the stream was live: there is nothing of it, and it goes.
                let txn = forget_recording(&recording).guard(Guard::AtRevision(key.clone(), revision));
                match self.store.commit(txn).await {
                    Ok(_) => return Ok(()),
                    Err(StoreError::Stale { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let before = recording.clone();
            // Of an earlier publish only its gaps are news.
            if token.epoch == recording.epoch {
                recording.state = update.state;
                recording.reason.clone_from(&update.reason);
                recording.ended = update.ended;
            }
            match paused {
                true => crate::recording::join_gaps(&mut recording.gaps, &update.gaps),
                false => recording.gaps.clone_from(&update.gaps),
            }
            if recording == before {
                return Ok(());
            }
            let mut txn = Txn::new()
                .guard(Guard::AtRevision(key.clone(), revision))
                .put_json(key.clone(), &recording)?;
            if recording.state.is_terminal() {
                txn = txn.delete(keys::finishing(recording.id));
            }
            match self.store.commit(txn).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale { key }.into())
    }

    /// Forgets publishes that ended before `until`, and tells how many.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget_publishes(&self, until: Timestamp) -> Result<usize, StoreError> {
        let (mut count, mut after) = (0, None);
        loop {
            let scanned = self
                .store
                .scan(Scan::prefix(keys::PUBLISHES).after(after).limit(100))
                .await?;
            let mut txn = Txn::new();
            for entry in &scanned.entries {
                let record: PublishRecord = decode(entry)?;
                if record.started > until {
                    // Keys sort by the time of their making: what follows began later still.
                    return self.store.commit(txn).await.map(|_| count);
                }
                if record.ended.is_some_and(|ended| ended < until) {
                    txn = txn
                        .guard(Guard::AtRevision(entry.key.clone(), entry.revision))
                        .delete(entry.key.clone());
                    count += 1;
                }
            }
            self.store.commit(txn).await?;
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                return Ok(count);
            }
        }
    }
}

#[cfg(test)]
#[path = "repo_tests.rs"]
mod tests;
