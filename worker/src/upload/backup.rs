//! Two places of objects: where the first does not answer for long, a recorder goes to the second with what it has to store.
//!
//! Each place is a [`Remote`] of its own, with its own turns and its own health, so that neither holds back the other. A recorder is in one of
//! them; that it has left the first it notes on disk before it sends anything to the second ([`Mark`]). Objects that are replaced are written
//! under their key in one place only, or by [`Remote::insist`] in both; so what lies in the second is never older than what lies in the first, and
//! is looked for first. Media does not change under its key and is read wherever it is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use shared::objects::{Bucket, HELD, ObjectError, RESCUE};
use shared::telemetry::WorkerMetrics;
use tracing::info;

use super::growing::Stretch;
use super::health::Health;
use super::remote::{Inner, Limits, Object, Remote, Store, Stored, Turn};
use super::shelf::Found;
use super::turns::Haste;

/// How often a recorder that waits asks whether it has waited long enough.
const LOOK: Duration = Duration::from_secs(1);
/// So long the slower of two places is waited for that are both believed to answer.
const GRACE: Duration = Duration::from_secs(5);
/// What the name of a [`Mark`] ends with.
const MARK: &str = "second";

/// The other of two places.
#[derive(Debug)]
pub(super) enum Other {
    /// The first, seen from the second.
    First(Weak<Inner>),
    /// The second, seen from the first.
    Second(Backup),
}

#[derive(Debug)]
pub(super) struct Backup {
    second: Arc<Inner>,
    after: Duration,
    needs: Needs,
}

/// What journals need, as the worker sees them.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// So much of their budget is used that nobody waits any longer.
    pub hurry: Arc<AtomicBool>,
    /// So much that nothing is kept which is not needed.
    pub room: Arc<AtomicBool>,
}

impl Needs {
    /// So many bytes are used of a budget of `limit`; 0: there is none.
    pub(crate) fn follow(&self, used: u64, limit: u64) {
        let is_past = |percent: u64| limit > 0 && used.saturating_mul(100) / limit >= percent;
        self.hurry.store(is_past(50), Ordering::Relaxed);
        self.room.store(is_past(80), Ordering::Relaxed);
    }
}

/// What a recorder that waited is to do.
pub(crate) enum Way {
    /// Render and store.
    Go(Turn),
    /// The first place has not answered for long: go to the second.
    Leave,
}

/// Whether a recorder that waits for the first place leaves it. Pure.
fn leaves(away: Option<Duration>, after: Duration, hurry: bool, second_is_away: bool) -> bool {
    away.is_some_and(|away| hurry || away >= after) && !second_is_away
}

impl Remote {
    /// The same place with another behind it, for when it has not answered for `after`. Both have the same threads.
    #[must_use]
    pub fn with_backup(
        self,
        (bucket, limits): (Bucket, Limits),
        (after, needs): (Duration, Needs),
        metrics: WorkerMetrics,
    ) -> Self {
        let health = Health::new("the second place of objects", metrics.backup_up.clone());
        let second = Self::open(Arc::clone(&self.0.threads), bucket, limits, metrics, health).0;
        // Both are new: nothing is there yet.
        let _ = second.other.set(Other::First(Arc::downgrade(&self.0)));
        let _ = self.0.other.set(Other::Second(Backup { second, after, needs }));
        self
    }

    fn backup(&self) -> Option<&Backup> {
        match self.0.other.get()? {
            Other::Second(backup) => Some(backup),
            Other::First(_) => None,
        }
    }

    /// The second place, where this is the first of two.
    pub(crate) fn second(&self) -> Option<Self> {
        let backup = self.backup()?;
        Some(Self::beside(Arc::clone(&backup.second)))
    }

    pub(crate) fn is_second(&self) -> bool {
        matches!(self.0.other.get(), Some(Other::First(_)))
    }

    /// True while it does not answer.
    pub(crate) fn is_away(&self) -> bool {
        self.0.health.is_away()
    }

    /// True where the journal of files that are not whole yet is worth keeping, so that they can be begun anew elsewhere.
    pub(crate) fn keeps_journal(&self) -> bool {
        match self.0.other.get() {
            Some(Other::Second(backup)) => !backup.needs.room.load(Ordering::Relaxed),
            Some(Other::First(_)) | None => false,
        }
    }

    /// Waits for a turn, or until it is time to go to the second place.
    pub(crate) async fn turn_or_leave(&self, bytes: u64, haste: Haste) -> Option<Way> {
        let Some(backup) = self.backup() else {
            return self.turn(bytes, haste).await.map(Way::Go);
        };
        let long_enough = async {
            let hurry = || backup.needs.hurry.load(Ordering::Relaxed);
            let second = &backup.second;
            loop {
                tokio::time::sleep(LOOK).await;
                if leaves(self.0.health.away_for(), backup.after, hurry(), second.health.is_away())
                    // It is not left for one that does not answer either.
                    && second.bucket.size("recording.json").await.is_ok()
                {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            turn = self.turn(bytes, haste) => turn.map(Way::Go),
            () = long_enough => Some(Way::Leave),
        }
    }

    /// Whoever stored below `prefix` does so elsewhere from now on: uploads of which only the answer was lost are of nobody.
    pub(crate) fn left(&self, prefix: &str) {
        let mut doubts = self.0.doubts();
        let left: Vec<String> = doubts
            .open
            .iter()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect();
        for key in left {
            doubts.open.remove(&key);
            doubts.stored.insert(key);
        }
    }

    /// Drops what was left under a key or below it: uploads, of which the id of one may be known, and what lay beside the file. False: it is to
    /// be tried again.
    pub(crate) async fn drop_left(&self, key: &str, upload: &str) -> bool {
        // Nobody else may be left who asks whether the place answers again.
        let Some(turn) = self.turn(0, Haste::GoingOn).await else {
            return false;
        };
        let tidy = Store::Tidy {
            prefix: key.to_owned(),
            keep: None,
        };
        if self.perform(tidy, turn).await.is_err() {
            return false;
        }
        let bucket = &self.0.bucket;
        let dropped = async {
            if !upload.is_empty() {
                // The service may be one that does not list uploads.
                bucket.abort(key, upload).await?;
            }
            if key.ends_with('/') {
                return Ok(());
            }
            bucket.delete(&format!("{key}{RESCUE}")).await?;
            bucket.delete(&format!("{key}{HELD}")).await
        };
        dropped.await.is_ok()
    }

    /// Stores a small object, as long as it takes: where there are two places in both, as far as they answer.
    pub(crate) async fn insist(&self, object: Object) {
        let (key, len) = (object.key.clone(), object.len());
        let put = || Store::Objects(vec![object.clone()]);
        let Some(second) = self.second() else {
            self.until_done(&key, len, put).await;
            return;
        };
        let mut here = Box::pin(self.until_done(&key, len, put));
        let mut there = Box::pin(second.until_done(&key, len, put));
        tokio::select! {
            _ = &mut here => if !second.is_away() {
                let _ = tokio::time::timeout(GRACE, there).await;
            },
            _ = &mut there => if !self.is_away() {
                let _ = tokio::time::timeout(GRACE, here).await;
            },
        }
    }

    /// The first of these objects that is there, and which of them it is; asks as long as it takes to be sure.
    pub(crate) async fn first(&self, keys: &[String]) -> Option<(usize, Bytes)> {
        let fetch = || Store::Fetch { keys: keys.to_vec() };
        let what = "an object to be read";
        let found = match self.second() {
            None => self.until_done(what, 0, fetch).await,
            // Either knows whether the other has it.
            Some(second) => tokio::select! {
                found = self.until_done(what, 0, fetch) => found,
                found = second.until_done(what, 0, fetch) => found,
            },
        };
        match found {
            Some(Stored::Fetched(found)) => found,
            _ => None,
        }
    }

    /// What lies under a key in each place that answers; one of them does.
    pub(crate) async fn each(&self, key: &str) -> Found {
        let Some(second) = self.second() else {
            let found = self.first(&[key.to_owned()]).await;
            return Found::alone(found.map(|(_, bytes)| bytes.to_vec()));
        };
        loop {
            let answers: [Option<Option<Bytes>>; 2] =
                tokio::join!(second.alone(key, self), self.alone(key, &second)).into();
            if answers.iter().any(Option::is_some) {
                let whole = answers.iter().all(Option::is_some);
                let found = answers.into_iter().flatten().flatten();
                let mut versions: Vec<Vec<u8>> = found.map(|bytes| bytes.to_vec()).collect();
                versions.dedup();
                return Found { versions, whole };
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What lies under a key in this place, whatever `other` has. None: it gives no answer to that, or none at all while the other does.
    async fn alone(&self, key: &str, other: &Self) -> Option<Option<Bytes>> {
        let place = &self.0;
        loop {
            let probe = tokio::select! {
                biased;
                probe = place.health.wait() => probe,
                () = tokio::time::sleep(LOOK) => match self.is_away() && !other.is_away() {
                    true => return None,
                    false => continue,
                },
            };
            let answer = place.again(key, || place.bucket.get(key)).await;
            match &answer {
                Err(ObjectError::Unavailable(error)) => place.health.failed(probe, error),
                _ => place.health.answered(),
            }
            match answer {
                Ok(bytes) => return Some(Some(bytes)),
                Err(ObjectError::Missing(_)) => return Some(None),
                Err(ObjectError::Refused(_)) => return None,
                Err(ObjectError::Unavailable(_)) => {}
            }
        }
    }

    /// Aborts every upload below a prefix, in each place, as long as it takes to be sure.
    pub(crate) async fn clear(&self, prefix: &str) -> bool {
        self.everywhere(|| Store::Tidy {
            prefix: prefix.to_owned(),
            keep: None,
        })
        .await
    }

    /// Performs this in each place, one after another. False: it is to be tried again.
    pub(super) async fn everywhere(&self, store: impl Fn() -> Store) -> bool {
        for place in [Some(self.clone()), self.second()].into_iter().flatten() {
            let Some(turn) = place.turn(0, Haste::GoingOn).await else {
                return false;
            };
            if place.perform(store(), turn).await.is_err() {
                return false;
            }
        }
        true
    }
}

impl Inner {
    /// The other place; none where there is one alone, or none any more.
    fn other(&self) -> Option<Arc<Inner>> {
        match self.other.get()? {
            Other::First(first) => first.upgrade(),
            Other::Second(backup) => Some(Arc::clone(&backup.second)),
        }
    }

    /// The first of these objects that is there.
    pub(super) async fn fetch(&self, keys: &[String]) -> Result<Option<(usize, Bytes)>, ObjectError> {
        for (which, key) in keys.iter().enumerate() {
            match self.newest(key).await {
                Ok(bytes) => return Ok(Some((which, bytes))),
                Err(ObjectError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What lies under the key of an object that is replaced. The second place has the newer one if it has one. If it does not answer, the first
    /// has what was there before: an index that lacks something says so itself, and is looked at again when its recording ends.
    async fn newest(&self, key: &str) -> Result<Bytes, ObjectError> {
        let own = || self.again(key, || self.bucket.get(key));
        match (self.other.get(), self.other()) {
            (Some(Other::Second(_)), Some(second)) => {
                if !second.health.is_away()
                    && let Ok(bytes) = second.bucket.get(key).await
                {
                    return Ok(bytes);
                }
                own().await
            }
            (Some(Other::First(_)), Some(first)) => match own().await {
                Err(ObjectError::Missing(_)) => first.bucket.get(key).await.map_err(elsewhere),
                other => other,
            },
            _ => own().await,
        }
    }

    /// Up to so many bytes of an object that does not change.
    pub(super) async fn read(&self, key: &str, from: u64, len: u64) -> Result<Option<Stretch>, ObjectError> {
        let other = self.other();
        let own = match self.again(key, || self.bucket.range(key, from, len)).await {
            Err(ObjectError::Missing(_)) => None,
            found => Some(found?),
        };
        let found = match (own, other) {
            (None, Some(other)) => match other.bucket.range(key, from, len).await {
                Err(ObjectError::Missing(_)) => None,
                found => Some(found.map_err(elsewhere)?),
            },
            (own, _) => own,
        };
        Ok(found.map(|(bytes, of)| Stretch { bytes, of }))
    }
}

/// An error of the other place, which says nothing of this one's health.
fn elsewhere(error: ObjectError) -> ObjectError {
    match error {
        ObjectError::Unavailable(text) => ObjectError::Refused(format!("the other place of objects: {text}")),
        other => other,
    }
}

/// The note that a recorder has left the first place. Safe against power loss before anything is in the second.
#[derive(Debug, Clone)]
pub(crate) struct Mark(PathBuf);

impl Mark {
    /// Of the recorder of that name, among its notes.
    pub(crate) fn of(notes: &Path, recorder: &str) -> Self {
        Self(notes.join(format!("{recorder}.{MARK}")))
    }

    /// One that is set among these notes; there may be no notes.
    pub(crate) fn find(notes: &Path) -> io::Result<Option<PathBuf>> {
        let entries = match fs::read_dir(notes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == MARK) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.exists()
    }

    pub(crate) fn set(&self) -> io::Result<()> {
        if let Some(folder) = self.0.parent() {
            fs::create_dir_all(folder)?;
            File::create(&self.0)?.sync_all()?;
        }
        self.sync()?;
        info!(mark = %self.0.display(), "a recorder goes to the second place of objects");
        Ok(())
    }

    /// It is back. Were that forgotten, what it begins in the first place now would be of nobody.
    pub(crate) fn clear(&self) -> io::Result<()> {
        fs::remove_file(&self.0)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        match self.0.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::objects::{Fault, Faulty};
    use tokio::runtime::Handle;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_place_is_left_when_it_is_away_for_long_and_the_other_answers() {
        let (after, s) = (Duration::from_secs(600), Duration::from_secs);
        for (away, hurry, second_is_away, expected) in [
            (None, false, false, false),
            (None, true, false, false),
            (Some(s(599)), false, false, false),
            (Some(s(600)), false, false, true),
            (Some(s(1)), true, false, true),
            (Some(s(9_000)), true, true, false),
        ] {
            assert_eq!(leaves(away, after, hurry, second_is_away), expected, "{away:?} {hurry}");
        }
    }
    #[test]
    fn journals_at_half_of_their_budget_are_in_a_hurry_and_at_four_fifths_need_room() {
        let needs = Needs::default();
        let seen = |used, limit| {
            needs.follow(used, limit);
            (needs.hurry.load(Ordering::Relaxed), needs.room.load(Ordering::Relaxed))
        };
        assert_eq!(seen(499, 1_000), (false, false));
        assert_eq!(seen(500, 1_000), (true, false));
        assert_eq!(seen(800, 1_000), (true, true));
        assert_eq!(seen(100, 1_000), (false, false), "it has drained");
        assert_eq!(seen(u64::MAX, 0), (false, false), "there is no budget");
    }

    /// A first place that has a fault from the first second on, and a second; the time in which it is left, in the first hours.
    async fn left_after(second_is_away: bool, fills: Option<Duration>) -> Option<Duration> {
        let (first, second) = (Faulty::default(), Faulty::default());
        first.set(Some(Fault::Unavailable));
        second.set(second_is_away.then_some(Fault::Unavailable));
        let limits = Limits {
            max_uploads: 1,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let (timeout, needs) = (Duration::from_secs(30), Needs::default());
        let metrics = WorkerMetrics::default();
        let remote = Remote::on(Handle::current(), first.bucket(timeout), limits, metrics.clone());
        let when = (Duration::from_secs(600), needs.clone());
        let remote = remote.with_backup((second.bucket(timeout), limits), when, metrics);
        if let Some(fills) = fills {
            tokio::spawn(async move {
                tokio::time::sleep(fills).await;
                needs.follow(50, 100);
            });
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(7_200) {
            let tries = tokio::time::timeout(Duration::from_secs(7_200), remote.turn_or_leave(1, Haste::GoingOn)).await;
            match tries.ok().flatten() {
                Some(Way::Leave) => return Some(begin.elapsed()),
                Some(Way::Go(turn)) => {
                    let read = Store::Read {
                        key: "k".to_owned(),
                        from: 0,
                        len: 1,
                    };
                    assert!(remote.perform(read, turn).await.is_err());
                }
                None => return None,
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_away_is_left_in_time_and_earlier_where_journals_fill() {
        let about = |left: Option<Duration>, seconds: u64| {
            let left = left.expect("it is left");
            let (least, most) = (Duration::from_secs(seconds), Duration::from_secs(seconds + 20));
            assert!((least..most).contains(&left), "left after {left:?}, not {seconds} s");
        };
        about(left_after(false, None).await, 600);
        about(left_after(false, Some(Duration::from_secs(60))).await, 60);
        let stays = left_after(true, Some(Duration::from_secs(60))).await;
        assert_eq!(stays, None, "for one that is away too");
    }
}
