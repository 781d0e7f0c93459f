//! [`Sweeper`]: removes what is due, again and again, for as long as its coordinator leads.
//!
//! What is to be done stands in the store alone: due files in an index, begun removals under their own key. So it does not matter when this
//! process or another takes over, nor how often. One look takes [`PAGE`] files at a time and does not begin more than storage lets go.

use std::{collections::BTreeMap, error::Error as StdError, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use shared::{
    ids::{FileId, RecordingId, WorkerId},
    objects::{Archive, ObjectError},
    recording::{MediaFile, RecordingDocument},
    store::{Looked, Removal, RemovalError, Repo, StoreError, Txn, keys},
    telemetry::{CoordinatorMetrics, Reason},
    template::Format,
    time::{Clock, Timestamp},
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{actors::coordinator::Tools, compositions::Sources};

use super::{
    place::{is_epoch, recording_folder},
    retention::{self, Belief},
};

/// Due files that are taken at a time.
const PAGE: usize = 200;
/// Begun removals that are read at a time, and so most that wait: while there are so many, no more are begun.
const MAX_BEGUN: usize = 1_000;
/// Recordings whose objects are removed at a time.
const AT_A_TIME: usize = 4;

/// What removing works with.
#[derive(Debug, Clone)]
pub(crate) struct Remover {
    pub(crate) repo: Repo,
    pub(crate) archive: Archive,
    /// Where copies lie; none: there is no second place.
    pub(crate) second: Option<Archive>,
    /// The second place is a backup: what lies there may lie there alone.
    pub(crate) is_backup: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: CoordinatorMetrics,
    /// What open compositions read: it stays until they have ended.
    pub(crate) sources: Sources,
}

/// Keeps the task running. Dropped, it ends after what it is at.
#[derive(Debug)]
pub(crate) struct Sweeper {
    _alive: mpsc::Sender<()>,
}

impl Sweeper {
    /// Starts the task.
    pub(crate) fn start(remover: Remover, every: Duration, tasks: &tokio_util::task::TaskTracker) -> Self {
        let (alive, mut dropped) = mpsc::channel(1);
        tasks.spawn(async move {
            let mut belief = None;
            loop {
                let look = async {
                    match remover.look(&mut belief).await {
                        Ok(()) => {}
                        Err(error) => warn!(error = &error as &dyn StdError, "files to be removed not looked for"),
                    }
                    tokio::time::sleep(every).await;
                };
                tokio::select! {
                    biased;
                    _ = dropped.recv() => return,
                    () = look => {}
                }
            }
        });
        Sweeper { _alive: alive }
    }
}

impl Tools {
    /// What removes files; none where this coordinator was not told where they lie.
    pub(crate) fn remover(&self) -> Option<Remover> {
        Some(Remover {
            repo: self.repo.clone(),
            archive: self.archive.clone()?,
            second: self.second.clone(),
            is_backup: self.config.objects.backup().is_some(),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            sources: self.sources.clone(),
        })
    }

    /// Removes a file because somebody asked for it. When this returns it is out of the library; what storage does not let go now is
    /// removed later.
    ///
    /// # Errors
    /// [`RemovalError`]; nothing has happened then.
    pub(crate) async fn remove(&self, file: FileId) -> Result<(), RemovalError> {
        if let Some(composition) = self.sources.reader(file) {
            return Err(RemovalError::Composed { file, composition });
        }
        let removal = self.repo.remove_file(file, self.clock.now()).await?;
        if let Some(remover) = self.remover()
            && let Err(error) = remover.carry_out(vec![removal]).await
        {
            warn!(%file, error = &error as &dyn StdError, "file not removed yet");
        }
        Ok(())
    }
}

impl Remover {
    /// Everything that is due by now.
    async fn look(&self, belief: &mut Option<Belief>) -> Result<(), StoreError> {
        let (now, mono) = (self.clock.now(), self.clock.monotonic());
        self.salvage_all(now).await?;
        self.count_copies(now).await?;
        let waiting = self.go_on(now).await?;
        let belief = match belief {
            Some(belief) => belief,
            None => {
                let looked = self.repo.get::<Looked>(keys::RETENTION).await?;
                belief.insert(Belief::new(looked.map(|(looked, _)| looked), mono))
            }
        };
        let believed = belief.believes(now, mono);
        if self.metrics.retention_held.set(i64::from(!believed)) == 0 && !believed {
            warn!(%now, "the clock has jumped ahead: nothing is removed by itself until that has lasted for a day");
        }
        if !believed {
            return Ok(());
        }
        if let Some(looked) = belief.news(now) {
            let noted = Txn::new().put_json(keys::RETENTION.to_owned(), &looked)?;
            self.repo.store().commit(noted).await?;
        }
        if waiting < MAX_BEGUN {
            self.remove_due(now).await?;
        }
        Ok(())
    }

    /// Goes on with what was begun, by this process or another; gives how many removals wait still.
    async fn go_on(&self, now: Timestamp) -> Result<usize, StoreError> {
        let begun = self.repo.removals(None, MAX_BEGUN).await?;
        let mut waiting = begun.len();
        let mut groups: BTreeMap<RecordingId, Vec<Removal>> = BTreeMap::new();
        for removal in begun.into_iter().filter(|removal| retention::is_due(removal, now)) {
            groups.entry(removal.file.recording).or_default().push(removal);
        }
        for group in groups.into_values() {
            let count = group.len();
            match self.carry_out(group).await? {
                Outcome::Gone => waiting = waiting.saturating_sub(count),
                Outcome::Refused => {}
                // It is the same for all others.
                Outcome::Away => break,
            }
        }
        self.metrics.removals.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        Ok(waiting)
    }

    async fn remove_due(&self, now: Timestamp) -> Result<(), StoreError> {
        let (mut after, mut count, mut unseen) = (None, 0, 0_i64);
        loop {
            let (due, more) = self.repo.due_files(now, after, PAGE).await?;
            after = due.last().map(|due| due.key.clone());
            let due: Vec<_> = due
                .into_iter()
                .filter(|due| self.sources.reader(due.file).is_none())
                .collect();
            let results = stream::iter(retention::by_recording(&due))
                .map(async |(recording, files)| self.remove_of(recording, &files, now).await)
                .buffer_unordered(AT_A_TIME)
                .collect::<Vec<_>>()
                .await;
            let mut away = false;
            for result in results {
                match result? {
                    Removed::Files(files) => count += files,
                    Removed::Unseen => unseen += 1,
                    Removed::Away => away = true,
                }
            }
            if away || !more {
                break;
            }
        }
        self.metrics.retention_unseen.set(unseen);
        if count > 0 {
            info!(files = count, "files removed: their storage time is over");
        }
        Ok(())
    }

    /// Removes due files of one recording.
    async fn remove_of(&self, id: RecordingId, files: &[FileId], now: Timestamp) -> Result<Removed, StoreError> {
        let Some(recording) = self.repo.recording(id).await? else {
            return self.remove_seen(id, files, now).await;
        };
        let document = format!("{}/{id}/recording.json", recording.stream.path());
        match self.has(&document).await {
            Ok(true) => self.remove_seen(id, files, now).await,
            Ok(false) => {
                // Records must not go while the objects lie where this process does not look.
                debug!(recording = %id, document, "files are due and their recording.json is not seen from here");
                Ok(Removed::Unseen)
            }
            Err(error) => {
                warn!(recording = %id, %error, "storage does not answer: nothing is removed now");
                Ok(Removed::Away)
            }
        }
    }

    /// The second place, where it is a backup.
    pub(super) fn backup(&self) -> Option<&Archive> {
        self.second.as_ref().filter(|_| self.is_backup)
    }

    /// Whether an object is in either place. A second place that does not answer is not asked about what the first has.
    async fn has(&self, key: &str) -> Result<bool, ObjectError> {
        match (self.archive.has(key).await?, self.backup()) {
            (false, Some(second)) => second.has(key).await,
            (there, _) => Ok(there),
        }
    }

    async fn remove_seen(&self, id: RecordingId, files: &[FileId], now: Timestamp) -> Result<Removed, StoreError> {
        let begun = self.repo.remove_expired(id, files, now).await?;
        if begun.is_empty() {
            return Ok(Removed::Files(0));
        }
        let count = begun.len();
        Ok(match self.carry_out(begun).await? {
            Outcome::Gone => Removed::Files(count),
            Outcome::Refused => Removed::Files(0),
            Outcome::Away => Removed::Away,
        })
    }

    /// Removes the objects of begun removals, all of one recording, and says so in the store; what fails is noted there.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn carry_out(&self, group: Vec<Removal>) -> Result<Outcome, StoreError> {
        let Some(recording) = group.first().map(|removal| removal.file.recording) else {
            return Ok(Outcome::Gone);
        };
        let left = self.repo.left_of(recording).await?;
        // Nothing is left of it, and nothing else waits to be removed: all that lies in its folder goes.
        let whole = left == Some(0);
        if let Some(worker) = self.stop_copies(&group, whole).await? {
            let problem = format!("worker {worker} is still copying it");
            self.note(group, &problem).await?;
            return Ok(Outcome::Refused);
        }
        match self.remove_everywhere(&group, whole).await {
            Ok(()) => {
                let files: Vec<FileId> = group.iter().map(|removal| removal.file.id).collect();
                self.repo.end_removals(recording, &files, whole).await?;
                for removal in &group {
                    let reason = removal.cause.as_str();
                    self.metrics.files_removed.get_or_create(&Reason { reason }).inc();
                }
                Ok(Outcome::Gone)
            }
            Err(error) => {
                let (outcome, reason) = match &error {
                    ObjectError::Unavailable(_) => (Outcome::Away, "unavailable"),
                    ObjectError::Refused(_) | ObjectError::Missing(_) => (Outcome::Refused, "refused"),
                };
                self.metrics.removal_failures.get_or_create(&Reason { reason }).inc();
                warn!(%recording, files = group.len(), %error, "files not removed from storage yet");
                self.note(group, &error.to_string()).await?;
                Ok(outcome)
            }
        }
    }

    /// Notes why files are not removed yet.
    async fn note(&self, group: Vec<Removal>, problem: &str) -> Result<(), StoreError> {
        let now = self.clock.now();
        for removal in group {
            let removal = retention::failed(removal, problem, now);
            self.repo.note_removal(&removal).await?;
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

    /// How much waits to be copied to the second place.
    async fn count_copies(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.second.is_some() {
            let backlog = self.repo.copies_waiting().await?;
            let age = backlog
                .since
                .map_or(0, |since| (now.as_millis() - since.as_millis()).max(0) / 1_000);
            self.metrics.copies.set(i64::try_from(backlog.jobs).unwrap_or(i64::MAX));
            self.metrics.copies_age.set(age);
        }
        Ok(())
    }

    /// Removes from the first place, then from the second. What is gone is removed already when that is done again.
    async fn remove_everywhere(&self, group: &[Removal], whole: bool) -> Result<(), ObjectError> {
        remove_objects(&self.archive, group, whole).await?;
        let Some(second) = &self.second else { return Ok(()) };
        remove_uploads(second, group, whole).await?;
        remove_objects(second, group, whole).await
    }
}

/// True if a key in the folder `root` belongs to its HLS.
fn is_hls(root: &str, key: &str) -> bool {
    let mut parts = key.get(root.len() + 1..).unwrap_or_default().split('/');
    parts.next().is_some_and(is_epoch) && parts.next() == Some("hls")
}

/// Aborts uploads of copies that were broken off.
async fn remove_uploads(archive: &Archive, group: &[Removal], whole: bool) -> Result<(), ObjectError> {
    let (Archive::Bucket(bucket), Some(first)) = (archive, group.first()) else {
        return Ok(());
    };
    let root = format!("{}/{}", first.file.stream.path(), first.file.recording);
    let goes = |key: &str| {
        let of = |file: &MediaFile| file.object_key == key || file.format == Format::Hls && is_hls(&root, key);
        whole || group.iter().any(|removal| of(&removal.file))
    };
    let pending = match bucket.pending(&format!("{root}/")).await {
        // Such a service has a rule for it, as the worker says in its log.
        Err(ObjectError::Refused(_)) => return Ok(()),
        pending => pending?,
    };
    for upload in pending.into_iter().filter(|upload| goes(&upload.key)) {
        bucket.abort(&upload.key, &upload.upload_id).await?;
    }
    Ok(())
}

async fn remove_objects(archive: &Archive, group: &[Removal], whole: bool) -> Result<(), ObjectError> {
    for removal in group {
        let file = &removal.file;
        match (file.format, recording_folder(&file.object_key)) {
            (Format::Hls, Some((root, _))) => {
                archive.remove_below(root, |key| is_hls(root, key)).await?;
            }
            _ => archive.remove(&file.object_key).await?,
        }
    }
    let Some(file) = group.first().map(|removal| &removal.file) else {
        return Ok(());
    };
    let root = format!("{}/{}", file.stream.path(), file.recording);
    let document = format!("{root}/recording.json");
    if whole {
        // The document goes last: as long as it is there, the rest is found by it.
        archive.remove_below(&root, |key| key != document).await?;
        return archive.remove(&document).await;
    }
    leave_out(archive, &document, group).await
}

/// Writes a recording's document without what is removed.
async fn leave_out(archive: &Archive, key: &str, group: &[Removal]) -> Result<(), ObjectError> {
    let bytes = match archive.get(key).await {
        Ok(bytes) => bytes,
        Err(ObjectError::Missing(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(mut document) = RecordingDocument::from_json(&bytes) else {
        warn!(key, "recording.json cannot be read and is left as it is");
        return Ok(());
    };
    let before = document.files.len();
    let is_gone = |id: FileId| group.iter().any(|removal| removal.file.id == id);
    document.files.retain(|file| !is_gone(file.id));
    if document.files.len() == before {
        return Ok(());
    }
    match document.to_json() {
        Ok(json) => archive.put(key, json.into()).await,
        Err(error) => Err(ObjectError::Refused(error.to_string())),
    }
}

/// What became of due files of one recording.
enum Removed {
    /// So many are gone.
    Files(usize),
    /// Their recording is not where this process looks.
    Unseen,
    /// Storage does not answer.
    Away,
}

/// What became of removals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The objects are gone.
    Gone,
    /// Storage does not let these go.
    Refused,
    /// Storage does not answer.
    Away,
}

#[cfg(test)]
#[path = "sweeper_tests.rs"]
mod tests;
