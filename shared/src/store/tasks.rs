//! Tasks in the store: [`Repo`]'s reading and forgetting of them. What a task becomes is the coordinator's to decide and to commit.

use super::{Page, Repo, Revision, Scan, StoreError, Txn, keys, repo};
use crate::{
    ids::{RecordingId, TaskId},
    recording::Recording,
    task::{Task, TaskState},
    time::Timestamp,
};

/// Keys that one transaction of forgetting deletes.
const BATCH: usize = 100;
/// Tasks that one call forgets; the next goes on.
const SWEEP: usize = 1_000;

/// Which tasks are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFilter {
    /// In this state.
    pub state: Option<TaskState>,
    /// Of this domain.
    pub domain: Option<String>,
    /// Of this app.
    pub app: Option<String>,
    /// Of this stream name.
    pub stream: Option<String>,
    /// Whose time reaches beyond this moment.
    pub from: Option<Timestamp>,
    /// Whose time begins before this moment.
    pub to: Option<Timestamp>,
    /// Whose whole time lies between the two.
    pub within: bool,
}

impl TaskFilter {
    fn fits(&self, task: &Task) -> bool {
        let in_time = if self.within {
            self.from.is_none_or(|from| task.start >= from) && self.to.is_none_or(|to| task.end <= to)
        } else {
            self.from.is_none_or(|from| task.end > from) && self.to.is_none_or(|to| task.start < to)
        };
        let wanted = self.state.is_none_or(|state| state == task.state);
        let (domain, app, stream) = (self.domain.as_deref(), self.app.as_deref(), self.stream.as_deref());
        in_time && wanted && repo::stream_fits(&task.stream, domain, app, stream)
    }
}

/// A recording of a task, and what the library has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecording {
    /// The recording.
    pub recording: Recording,
    /// Its files in the library.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl Repo {
    /// Reads a task.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.get(&keys::task(id)).await?.map(|(task, _)| task))
    }

    /// Reads the task that was made with a token.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn task_of_token(&self, token: &str) -> Result<Option<Task>, StoreError> {
        let found: Option<(TaskId, Revision)> = self.get(&keys::task_token(token)).await?;
        match found {
            Some((id, _)) => self.task(id).await,
            None => Ok(None),
        }
    }

    /// A page of tasks, the newest first, and the token of the next page; empty: that was the last. A page may hold fewer
    /// than wanted and still not be the last.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn tasks(&self, filter: &TaskFilter, page: &Page) -> Result<(Vec<Task>, String), StoreError> {
        let whole = match (&filter.domain, &filter.app, &filter.stream) {
            (Some(domain), Some(app), Some(stream)) => crate::ids::StreamKey::new(domain, app, stream).ok(),
            _ => None,
        };
        let (prefix, target) = match &whole {
            Some(stream) => (keys::stream_tasks(stream), Some(keys::TASKS)),
            None => (keys::TASKS.to_owned(), None),
        };
        self.page(&prefix, page, true, target, |task| filter.fits(task)).await
    }

    /// A task's recordings, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Repo::get`].
    pub async fn task_recordings(&self, id: TaskId, limit: usize) -> Result<Vec<TaskRecording>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let scan = Scan::prefix(keys::task_recordings(id)).after(after).limit(limit);
            let scanned = self.store().scan(scan).await?;
            for entry in &scanned.entries {
                let Ok(recording) = keys::last_part(&entry.key).parse::<RecordingId>() else {
                    continue;
                };
                // One that never began has left the library.
                if let Some(recording) = self.recording(recording).await? {
                    let (files, bytes) = self.file_totals(recording.id).await?;
                    found.push(TaskRecording {
                        recording,
                        files,
                        bytes,
                    });
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                return Ok(found);
            }
        }
    }

    /// Removes what else is kept of a task that is deleted: its list of recordings, and last the entry by which a killed
    /// coordinator finds again that there is something to remove. The recordings stay.
    ///
    /// # Errors
    /// Those of the store; what is left goes with the next call, or with [`Repo::forget_tasks`].
    pub async fn clear_task(&self, task: &Task) -> Result<(), StoreError> {
        self.clear(task.id, keys::task_by_end(task)).await
    }

    async fn clear(&self, id: TaskId, by_end: String) -> Result<(), StoreError> {
        loop {
            let scan = Scan::prefix(keys::task_recordings(id)).limit(BATCH);
            let scanned = self.store().scan(scan).await?;
            let txn = scanned
                .entries
                .iter()
                .fold(Txn::new(), |txn, entry| txn.delete(entry.key.clone()));
            let last = !scanned.more;
            let txn = if last { txn.delete(by_end.clone()) } else { txn };
            self.store().commit(txn).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Forgets tasks whose time ended before `until`, the oldest first, in small transactions; tells how many. A task that
    /// has not come to its final state is kept. At most a thousand at a time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget_tasks(&self, until: Timestamp) -> Result<usize, StoreError> {
        let scan = Scan::prefix(keys::TASKS_BY_END).limit(SWEEP);
        let limit = keys::tasks_ending_at(until);
        let mut count = 0;
        for entry in self.store().scan(scan).await?.entries {
            if entry.key >= limit {
                break;
            }
            let Ok(id) = keys::last_part(&entry.key).parse::<TaskId>() else {
                continue;
            };
            if let Some(task) = self.task(id).await? {
                if !task.state.is_terminal() {
                    continue;
                }
                self.store().commit(forget_task(&task)).await?;
            }
            self.clear(id, entry.key).await?;
            count += 1;
        }
        Ok(count)
    }
}

/// Removes a task, but for what [`Repo::clear_task`] removes.
#[must_use]
pub(super) fn forget_task(task: &Task) -> Txn {
    let txn = Txn::new()
        .delete(keys::task(task.id))
        .delete(keys::open_task(task.id))
        .delete(keys::stream_task(task));
    match task.client_token.as_str() {
        "" => txn,
        token => txn.delete(keys::task_token(token)),
    }
}

impl Txn {
    /// Enters a new task.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it has no JSON form.
    pub fn create_task(self, task: &Task) -> Result<Self, StoreError> {
        let txn = self
            .update_task(task)?
            .put(keys::stream_task(task), "")
            .put(keys::task_by_end(task), "");
        match task.client_token.as_str() {
            "" => Ok(txn),
            token => txn.put_json(keys::task_token(token), &task.id),
        }
    }

    /// Stores a task as it is now; one that has ended is no longer among the open ones.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it has no JSON form.
    pub fn update_task(self, task: &Task) -> Result<Self, StoreError> {
        let txn = self.put_json(keys::task(task.id), task)?;
        if task.state.is_terminal() {
            Ok(txn.delete(keys::open_task(task.id)))
        } else {
            txn.put_json(keys::open_task(task.id), task)
        }
    }

    /// Removes a task; [`Repo::clear_task`] removes the rest.
    #[must_use]
    pub fn delete_task(mut self, task: &Task) -> Self {
        self.ops.extend(forget_task(task).ops);
        self
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
