//! What is still to be copied to the second place of objects: each file once it is in the library, and each `recording.json` once its
//! recording has ended.
//!
//! A [`CopyJob`] is written in the transaction that gives cause for it, and goes when the copy is there. A worker that copies has taken the
//! job for a while and says so again and again. Copying twice is as copying once, so that it is taken from one that is slow does no harm; that
//! it has been taken tells those who remove files that somebody may be writing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Guard, Repo, Revision, Scan, StoreError, Txn, keys, repo};
use crate::{
    ids::{FileId, RecordingId, StreamKey, WorkerId},
    objects::folder,
    recording::MediaFile,
    time::Timestamp,
};

/// For so long a worker has taken a job, from when it said so last.
pub const COPY_LEASE: Duration = Duration::from_secs(90);
/// First wait after a copy failed; doubled with each failure, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Longest text of a problem that is kept, bytes.
const MAX_PROBLEM: usize = 500;
/// How often a change is tried again when another was quicker.
const ATTEMPTS: usize = 16;
/// Jobs that are read at a time.
const PAGE: usize = 100;
/// Most that are counted.
const MAX_COUNTED: u64 = 100_000;

/// What is to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyOf {
    /// A file of the library, and the `recording.json` as it is then.
    File(FileId),
    /// The `recording.json` of a recording that has ended.
    Document(RecordingId),
}

impl CopyOf {
    /// What names it among all jobs.
    #[must_use]
    pub fn id(self) -> Uuid {
        match self {
            CopyOf::File(id) => id.as_uuid(),
            CopyOf::Document(id) => id.as_uuid(),
        }
    }
}

/// A worker that copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Which.
    pub by: WorkerId,
    /// Until when, if it does not say otherwise.
    pub until: Timestamp,
}

/// Something that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyJob {
    /// What.
    pub of: CopyOf,
    /// Its recording.
    pub recording: RecordingId,
    /// Its stream.
    pub stream: StreamKey,
    /// The place that it is in; empty: `objects.url`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// When there came to be cause for it. A document that changes once more has another cause.
    pub since: Timestamp,
    /// Who is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// Times that it failed.
    #[serde(default)]
    pub failures: u32,
    /// When it is tried again.
    #[serde(default)]
    pub retry_at: Timestamp,
    /// What went wrong last.
    #[serde(default)]
    pub problem: String,
}

impl CopyJob {
    /// One that nobody has looked at.
    #[must_use]
    pub fn new(of: CopyOf, (recording, stream, place): (RecordingId, StreamKey, &str), since: Timestamp) -> Self {
        CopyJob {
            of,
            recording,
            stream,
            place: place.to_owned(),
            since,
            taken: None,
            failures: 0,
            retry_at: since,
            problem: String::new(),
        }
    }

    /// The folder of its recording.
    #[must_use]
    pub fn root(&self) -> String {
        folder(&self.place, &self.stream, self.recording)
    }

    /// Who may be writing by now. A time that lies absurdly far ahead was noted by a clock that has gone back since.
    #[must_use]
    pub fn taken_at(&self, now: Timestamp) -> Option<WorkerId> {
        let taken = self.taken?;
        (taken.until > now && taken.until <= now + COPY_LEASE + COPY_LEASE).then_some(taken.by)
    }

    /// True if `worker` may begin it now. What it took itself and does not hold any more it took before it was started anew.
    fn is_free(&self, worker: WorkerId, now: Timestamp) -> bool {
        let is_due = self.retry_at <= now || self.retry_at > now + LONGEST_WAIT + LONGEST_WAIT;
        is_due && self.taken_at(now).is_none_or(|by| by == worker)
    }

    fn failed(&mut self, problem: &str, now: Timestamp) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.taken = None;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + wait;
        problem.clone_into(&mut self.problem);
        self.problem.truncate(problem.floor_char_boundary(MAX_PROBLEM));
    }
}

/// A job that a worker was given, with the file that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOrder {
    /// The job.
    pub job: CopyJob,
    /// The file; none: it is about the document alone.
    pub file: Option<MediaFile>,
}

/// How much is still to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Jobs, at most 100,000.
    pub jobs: u64,
    /// Since when the oldest of them waits.
    pub since: Option<Timestamp>,
}

impl Repo {
    async fn copy_job(&self, id: Uuid) -> Result<Option<(CopyJob, Revision)>, StoreError> {
        self.get(&keys::copy(id)).await
    }

    /// Gives `worker` up to `want` jobs that are to be done and that it does not hold, looking behind the job `after` at first and at the
    /// others then; and where to look the next time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn take_copies(
        &self,
        (worker, holding): (WorkerId, &[Uuid]),
        want: usize,
        now: Timestamp,
        after: Option<Uuid>,
    ) -> Result<(Vec<CopyOrder>, Option<Uuid>), StoreError> {
        let mut orders = Vec::new();
        let mut at = after;
        // Once from where the last look ended, and once from the start.
        for begin in [after, None] {
            let scan = Scan::prefix(keys::COPIES).after(begin.map(keys::copy)).limit(PAGE);
            let scanned = self.store().scan(scan).await?;
            for entry in &scanned.entries {
                if orders.len() >= want {
                    return Ok((orders, at));
                }
                let job: CopyJob = repo::decode(entry)?;
                at = Some(job.of.id());
                if job.is_free(worker, now) && !holding.contains(&job.of.id()) {
                    orders.extend(self.take(job, entry.revision, worker, now).await?);
                }
            }
            if begin.is_none() || scanned.more {
                break;
            }
            at = None;
        }
        Ok((orders, at))
    }

    async fn take(
        &self,
        mut job: CopyJob,
        revision: Revision,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Option<CopyOrder>, StoreError> {
        let key = keys::copy(job.of.id());
        let guarded = Txn::new().guard(Guard::AtRevision(key.clone(), revision));
        let file = match job.of {
            CopyOf::File(id) => self.file(id).await?,
            CopyOf::Document(_) => None,
        };
        let gone = matches!(job.of, CopyOf::File(_)) && file.is_none();
        job.taken = Some(Taken {
            by: worker,
            until: now + COPY_LEASE,
        });
        let txn = match gone {
            true => guarded.delete(key),
            false => guarded.put_json(key, &job)?,
        };
        match self.store().commit(txn).await {
            Ok(_) if gone => Ok(None),
            Ok(_) => Ok(Some(CopyOrder { job, file })),
            Err(StoreError::Stale { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `worker` is still at this job; false: it is not its any more, and it must stop.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn hold_copy(&self, worker: WorkerId, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        let Some((mut job, revision)) = self.copy_job(id).await? else {
            return Ok(false);
        };
        if job.taken_at(now) != Some(worker) {
            return Ok(false);
        }
        let until = now + COPY_LEASE;
        if job.taken.is_some_and(|taken| taken.until > now + COPY_LEASE / 2) {
            return Ok(true);
        }
        job.taken = Some(Taken { by: worker, until });
        let key = keys::copy(id);
        let txn = Txn::new().guard(Guard::AtRevision(key.clone(), revision));
        match self.store().commit(txn.put_json(key, &job)?).await {
            Ok(_) => Ok(true),
            Err(StoreError::Stale { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The copy of that cause is there: the job goes, and its file's record says so.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn copied(&self, worker: WorkerId, id: Uuid, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let key = keys::copy(id);
        for _ in 0..ATTEMPTS {
            let Some((job, revision)) = self.copy_job(id).await? else {
                return Ok(());
            };
            // There is a newer version of it, or it was taken for lost and is another's to do.
            if job.since != since || job.taken.is_none_or(|taken| taken.by != worker) {
                return Ok(());
            }
            let mut txn = Txn::new()
                .guard(Guard::AtRevision(key.clone(), revision))
                .delete(key.clone());
            if let CopyOf::File(file) = job.of
                && let Some((mut file, at)) = self.get::<MediaFile>(&keys::file(file)).await?
            {
                let record = keys::file(file.id);
                file.copied = Some(now);
                txn = txn
                    .guard(Guard::AtRevision(record.clone(), at))
                    .put_json(record, &file)?;
            }
            match self.store().commit(txn).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Stale { key })
    }

    /// Copying came to nothing; it is tried again at growing distances, for as long as it takes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn copy_failed(
        &self,
        worker: WorkerId,
        id: Uuid,
        problem: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some((mut job, revision)) = self.copy_job(id).await? else {
            return Ok(());
        };
        if job.taken.is_none_or(|taken| taken.by != worker) {
            return Ok(());
        }
        job.failed(problem, now);
        let key = keys::copy(id);
        let txn = Txn::new().guard(Guard::AtRevision(key.clone(), revision));
        match self.store().commit(txn.put_json(key, &job)?).await {
            Ok(_) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Drops a job whose objects are about to be removed; the worker that may be writing them, if there is one: then nothing is dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn drop_copy(&self, id: Uuid, now: Timestamp) -> Result<Option<WorkerId>, StoreError> {
        let key = keys::copy(id);
        for _ in 0..ATTEMPTS {
            let Some((job, revision)) = self.copy_job(id).await? else {
                return Ok(None);
            };
            if let Some(worker) = job.taken_at(now) {
                return Ok(Some(worker));
            }
            let txn = Txn::new()
                .guard(Guard::AtRevision(key.clone(), revision))
                .delete(key.clone());
            match self.store().commit(txn).await {
                Ok(_) => return Ok(None),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Stale { key })
    }

    /// What is still to be copied, the first `limit` jobs.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn copies(&self, limit: usize) -> Result<Vec<CopyJob>, StoreError> {
        let scanned = self.store().scan(Scan::prefix(keys::COPIES).limit(limit)).await?;
        scanned.entries.iter().map(repo::decode).collect()
    }

    /// How much is still to be copied.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn copies_waiting(&self) -> Result<Backlog, StoreError> {
        let (mut backlog, mut after) = (Backlog::default(), None);
        while backlog.jobs < MAX_COUNTED {
            let scanned = self.store().scan(Scan::prefix(keys::COPIES).after(after)).await?;
            for entry in &scanned.entries {
                let job: CopyJob = repo::decode(entry)?;
                backlog.jobs += 1;
                backlog.since = Some(backlog.since.map_or(job.since, |since| since.min(job.since)));
            }
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                break;
            }
        }
        Ok(backlog)
    }
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
