//! [`Sweeper`]: removes what is due, again and again, for as long as its coordinator leads.
//!
//! What is to be done stands in the store alone: due files in an index, begun removals under their own key. So it does not matter when this
//! process or another takes over, nor how often. One look takes [`PAGE`] files at a time and does not begin more than storage lets go. This is
//! about the first place of objects; `second` removes from the second what is gone from the first, beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use shared::{
    ids::{FileId, RecordingId},
    objects::{Archive, ObjectError, Places, place_of},
    recording::{MediaFile, RecordingDocument},
    store::{Looked, Removal, RemovalError, RemovalFrom, Repo, StoreError, Txn, keys},
    telemetry::{CoordinatorMetrics, Reason},
    template::Format,
    time::{Clock, Timestamp},
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{actors::coordinator::Tools, compositions::Sources};

use super::{
    place::{is_epoch, recording_folder},
    retention::{self, Belief, Turn},
};

/// Due files that are taken at a time.
const PAGE: usize = 200;
/// Begun removals from the first place that are read at a time, and so most that wait: while there are so many, no more are begun.
const MAX_BEGUN: usize = 1_000;
/// Recordings whose objects are removed at a time.
pub(super) const AT_A_TIME: usize = 4;

/// What removing works with.
#[derive(Debug, Clone)]
pub(crate) struct Remover {
    pub(crate) repo: Repo,
    pub(crate) archive: Places<Archive>,
    /// Where copies lie; none: there is no second place.
    pub(crate) second: Option<Archive>,
    /// The second place is a backup: what lies there may lie there alone.
    pub(crate) is_backup: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: CoordinatorMetrics,
    /// What open compositions read: it stays until they have ended.
    pub(crate) sources: Sources,
}

/// Keeps the tasks running, one for each place. Dropped, they end at once: whatever they are at is gone on with from the store.
#[derive(Debug)]
pub(crate) struct Sweeper {
    _alive: watch::Sender<()>,
}

impl Sweeper {
    /// Starts the tasks.
    pub(crate) fn start(remover: Remover, every: Duration, tasks: &tokio_util::task::TaskTracker) -> Self {
        let (alive, dropped) = watch::channel(());
        let first = remover.clone();
        let looks = async move {
            let mut belief = None;
            loop {
                pause(first.look(&mut belief).await, every).await;
            }
        };
        tasks.spawn(until(dropped.clone(), looks));
        let looks = async move {
            let (mut turn, mut after) = (Turn::default(), None);
            loop {
                pause(remover.look_second(&mut turn, &mut after).await, every).await;
            }
        };
        tasks.spawn(until(dropped, looks));
        Sweeper { _alive: alive }
    }
}

/// Waits between two looks, and says what went wrong with the first.
async fn pause(looked: Result<(), StoreError>, every: Duration) {
    if let Err(error) = looked {
        warn!(error = &error as &dyn StdError, "files to be removed not looked for");
    }
    tokio::time::sleep(every).await;
}

/// Looks until it is dropped.
async fn until(mut dropped: watch::Receiver<()>, looks: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = dropped.changed() => {}
        () = looks => {}
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
    /// removed later, and so is what the second place has.
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
        let now = self.clock.now();
        self.count_copies(now).await?;
        self.keep_time(belief, now).await?;
        // It may wait for the second place, so it comes last.
        self.salvage_all(now).await
    }

    /// Removes what is to go by now.
    async fn keep_time(&self, belief: &mut Option<Belief>, now: Timestamp) -> Result<(), StoreError> {
        let mono = self.clock.monotonic();
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
        let begun = self.repo.removals(RemovalFrom::First, None, MAX_BEGUN).await?;
        let mut waiting = begun.len();
        let mut groups: BTreeMap<RecordingId, Vec<Removal>> = BTreeMap::new();
        for removal in begun.into_iter().filter(|removal| retention::is_due(removal, now)) {
            groups.entry(removal.file.recording).or_default().push(removal);
        }
        let mut away = BTreeSet::new();
        for group in groups.into_values() {
            let count = group.len();
            let place = group
                .first()
                .map(|removal| place_of(&removal.file.object_key).to_owned());
            if place.as_ref().is_some_and(|place| away.contains(place)) {
                continue;
            }
            match self.carry_out(group).await? {
                Outcome::Gone => waiting = waiting.saturating_sub(count),
                Outcome::Refused => {}
                // It is the same for all others in that place.
                Outcome::Away => away.extend(place),
            }
        }
        self.metrics.removals.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        Ok(waiting)
    }

    async fn remove_due(&self, now: Timestamp) -> Result<(), StoreError> {
        let (mut after, mut count, mut unseen, mut away) = (None, 0, 0_i64, BTreeSet::new());
        let second_away = AtomicBool::new(false);
        loop {
            let (due, more) = self.repo.due_files(now, after, PAGE).await?;
            after = due.last().map(|due| due.key.clone());
            let due: Vec<_> = due
                .into_iter()
                .filter(|due| self.sources.reader(due.file).is_none())
                .collect();
            let results = stream::iter(retention::by_recording(&due))
                .map(async |(recording, files)| self.remove_of(recording, &files, now, (&away, &second_away)).await)
                .buffer_unordered(AT_A_TIME)
                .collect::<Vec<_>>()
                .await;
            for result in results {
                match result? {
                    Removed::Files(files) => count += files,
                    Removed::Unseen => unseen += 1,
                    Removed::Away(place) => drop(away.insert(place)),
                }
            }
            // What lies in other places goes.
            if !more || away.len() >= self.archive.iter().count() {
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
    async fn remove_of(
        &self,
        id: RecordingId,
        files: &[FileId],
        now: Timestamp,
        (away, second_away): (&BTreeSet<String>, &AtomicBool),
    ) -> Result<Removed, StoreError> {
        let Some(recording) = self.repo.recording(id).await? else {
            return self.remove_seen(id, files, now).await;
        };
        let place = &recording.template.place;
        if away.contains(place) {
            return Ok(Removed::Away(place.clone()));
        }
        let document = format!("{}/recording.json", recording.folder());
        match self.has(&document, second_away).await {
            Ok(true) => self.remove_seen(id, files, now).await,
            Ok(false) => {
                // Records must not go while the objects lie where this process does not look.
                debug!(recording = %id, document, "files are due and their recording.json is not seen from here");
                Ok(Removed::Unseen)
            }
            Err(error) => {
                warn!(recording = %id, place, %error, "storage does not answer: nothing is removed there now");
                Ok(Removed::Away(place.clone()))
            }
        }
    }

    /// The second place, where it is a backup.
    pub(super) fn backup(&self) -> Option<&Archive> {
        self.second.as_ref().filter(|_| self.is_backup)
    }

    /// Whether an object is seen in either place. A second that does not answer is not asked about what the first has, and about nothing else
    /// once `second_away` is noted: what only it has is not seen then, and what the first has does not wait for it.
    async fn has(&self, key: &str, second_away: &AtomicBool) -> Result<bool, ObjectError> {
        match (self.archive.of(key)?.has(key).await?, self.backup()) {
            (false, Some(second)) if !second_away.load(Ordering::Relaxed) => {
                let there = second.has(key).await;
                if let Err(error) = &there {
                    warn!(key, %error, "the second place does not answer: what it may have alone is not removed now");
                    second_away.store(true, Ordering::Relaxed);
                }
                Ok(there.unwrap_or(false))
            }
            (there, _) => Ok(there),
        }
    }

    async fn remove_seen(&self, id: RecordingId, files: &[FileId], now: Timestamp) -> Result<Removed, StoreError> {
        let begun = self.repo.remove_expired(id, files, now).await?;
        if begun.is_empty() {
            return Ok(Removed::Files(0));
        }
        let count = begun.len();
        let place = begun.first().map_or("", |removal| place_of(&removal.file.object_key));
        let place = place.to_owned();
        Ok(match self.carry_out(begun).await? {
            Outcome::Gone => Removed::Files(count),
            Outcome::Refused => Removed::Files(0),
            Outcome::Away => Removed::Away(place),
        })
    }

    /// Removes the objects of begun removals, all of one recording, from the first place, and says so in the store; what fails is noted there. Where
    /// there is a second place they wait for it from then on.
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
        match self.remove_first(&group, whole).await {
            Ok(()) => {
                let ends = (whole, self.second.is_some());
                self.repo.end_removals(recording, &group, ends).await?;
                for removal in &group {
                    let reason = removal.cause.as_str();
                    self.metrics.files_removed.get_or_create(&Reason { reason }).inc();
                }
                Ok(Outcome::Gone)
            }
            Err(error) => {
                let (outcome, reason) = Outcome::of(&error);
                self.metrics.removal_failures.get_or_create(&Reason { reason }).inc();
                warn!(%recording, files = group.len(), %error, "files not removed from storage yet");
                self.note(group, &error.to_string()).await?;
                Ok(outcome)
            }
        }
    }

    /// Removes from the first place, whichever it is that they lie in.
    async fn remove_first(&self, group: &[Removal], whole: bool) -> Result<(), ObjectError> {
        let key = group.first().map_or("", |removal| &removal.file.object_key);
        let archive = self.archive.of(key)?;
        if whole {
            remove_uploads(archive, group, whole).await?;
        }
        remove_objects(archive, group, whole).await
    }

    /// Notes why files are not removed yet.
    async fn note(&self, group: Vec<Removal>, problem: &str) -> Result<(), StoreError> {
        let now = self.clock.now();
        for removal in group {
            let removal = retention::failed(removal, problem, now);
            self.repo.note_removal(RemovalFrom::First, &removal).await?;
        }
        Ok(())
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
}

/// True if a key in the folder `root` belongs to its HLS.
fn is_hls(root: &str, key: &str) -> bool {
    let mut parts = key.get(root.len() + 1..).unwrap_or_default().split('/');
    parts.next().is_some_and(is_epoch) && parts.next() == Some("hls")
}

/// Aborts uploads that were broken off: of copies, or of a worker that went on after it was given up.
pub(super) async fn remove_uploads(archive: &Archive, group: &[Removal], whole: bool) -> Result<(), ObjectError> {
    let (Archive::Bucket(bucket), Some(first)) = (archive, group.first()) else {
        return Ok(());
    };
    let root = first.file.folder();
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

/// Removes the objects of files of one recording, with `whole` everything of it. What is gone is removed already when that is done again.
pub(super) async fn remove_objects(archive: &Archive, group: &[Removal], whole: bool) -> Result<(), ObjectError> {
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
    let root = file.folder();
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
    /// The place of this name does not answer.
    Away(String),
}

/// What became of removals from one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The objects are gone.
    Gone,
    /// Storage does not let these go.
    Refused,
    /// Storage does not answer.
    Away,
}

impl Outcome {
    /// What a failure means for what else waits, and its name among the metrics. Keys that may not remove one thing may remove another.
    pub(super) fn of(error: &ObjectError) -> (Self, &'static str) {
        match error {
            ObjectError::Unavailable(_) if !error.is_forbidden() => (Outcome::Away, "unavailable"),
            ObjectError::Unavailable(_) | ObjectError::Refused(_) | ObjectError::Missing(_) => {
                (Outcome::Refused, "refused")
            }
        }
    }
}

#[cfg(test)]
#[path = "sweeper_tests.rs"]
pub(super) mod tests;
