//! [`Tasks`]: what is to be recorded between two moments. Pure: tasks, live streams and the time give decisions.
//!
//! A worker learns of a task up to an hour before its start and keeps to the times by its own knowledge, so nothing here need happen
//! at the very second: a leader that takes over late only tells late what has happened. Each look begins anew from the wall clock;
//! a clock that jumps makes no task begin or end twice. A task whose time seems over is finishing, and that can still be told to have
//! been too early: its final state waits until the clock has stood for a while, or a worker's clock said the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shared::{
    config::TasksConfig,
    ids::{StreamKey, TaskId},
    lease::Window,
    recording::RecordingState,
    store::{StoreError, TaskRecording, Txn},
    task::{
        self, IllegalTransition, NO_MEDIA, NewTask, STOPPED_BEFORE_RECORDING, STREAM_NEVER_LIVE, TASK_ENDED, Task,
        TaskEvent, TaskInputError, TaskState,
    },
    template::TemplateSpec,
    time::{Monotonic, Timestamp},
};
use thiserror::Error;

/// How long before its start a live stream's worker is told of a task.
pub(crate) const AHEAD: Duration = Duration::from_secs(3_600);
/// Time between two looks at the recordings of a task that is finishing, if nothing says sooner that they may have ended.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Tasks that are looked at in one go.
const LOOKS: usize = 64;

/// Why something cannot be done to a task. The message says what to do.
#[derive(Debug, Clone, Error)]
pub(crate) enum TaskError {
    #[error(transparent)]
    Input(#[from] TaskInputError),
    #[error("stream {0} is not live: start its push first, or give a start")]
    NotLive(StreamKey),
    #[error(
        "template {0:?} has no format on, so that a task with it would record nothing: name another, or none for the default"
    )]
    RecordsNothing(String),
    #[error("client_token {token:?} made task {task}, which is another one: use a new token for each task")]
    TokenTaken { token: String, task: TaskId },
    #[error(
        "there are {0} tasks that have not ended, the most that coordinator.tasks.max_open allows: stop some, or raise the limit"
    )]
    TooMany(usize),
    #[error(
        "stream {stream} has {count} tasks that have not ended, the most that coordinator.tasks.max_per_stream allows: stop some, or raise the limit"
    )]
    TooManyOfStream { stream: StreamKey, count: usize },
    #[error("no task {0}: `aircheck task list` shows what there is")]
    NoTask(TaskId),
    #[error("task {task} is {state} already: there is nothing to stop")]
    Over { task: TaskId, state: TaskState },
    #[error(
        "task {task} is {state}: stop it first and wait for its end, or delete it with let_run and what it records goes on"
    )]
    Running { task: TaskId, state: TaskState },
    #[error("task {task}: {error}")]
    Transition { task: TaskId, error: IllegalTransition },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nobody publishes it.
    Offline,
    /// It is live, and its worker is heard from.
    Live,
    /// It was live when its worker was heard from last.
    Interrupted,
}

/// What follows from a look.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Changed tasks, to be stored.
    pub(crate) txns: Vec<Txn>,
    /// Tasks whose stream's live publish must be told of them, unless it has been.
    pub(crate) grant: Vec<TaskId>,
    /// Tasks whose recordings must be read: see [`Tasks::settle`].
    pub(crate) read: Vec<TaskId>,
    /// When the next task begins or ends, or is to be told of; none: nothing is foreseen.
    pub(crate) wake: Option<Timestamp>,
}

/// What to do with a request for a task.
#[derive(Debug)]
pub(crate) enum Made {
    /// It is made.
    New(Task, Txn),
    /// Its token had made it before.
    Again(Task),
}

#[derive(Debug)]
struct Open {
    task: Task,
    /// When its recordings are read next.
    look_at: Monotonic,
}

/// All tasks that have not ended.
#[derive(Debug)]
pub(crate) struct Tasks {
    limits: TasksConfig,
    /// Time for workers to say what they know: after a coordinator's start, and after a task's end.
    patience: Duration,
    loaded: Monotonic,
    open: BTreeMap<TaskId, Open>,
    streams: BTreeMap<StreamKey, BTreeSet<TaskId>>,
    tokens: BTreeMap<String, TaskId>,
}

impl Tasks {
    pub(crate) fn new(limits: TasksConfig, patience: Duration, open: Vec<Task>, mono: Monotonic) -> Self {
        let mut tasks = Tasks {
            limits,
            patience,
            loaded: mono,
            open: BTreeMap::new(),
            streams: BTreeMap::new(),
            tokens: BTreeMap::new(),
        };
        for task in open.into_iter().filter(|task| !task.state.is_terminal()) {
            tasks.insert(task, mono);
        }
        tasks
    }

    fn insert(&mut self, task: Task, mono: Monotonic) {
        self.streams.entry(task.stream.clone()).or_default().insert(task.id);
        if !task.client_token.is_empty() {
            self.tokens.insert(task.client_token.clone(), task.id);
        }
        self.open.insert(task.id, Open { task, look_at: mono });
    }

    fn remove(&mut self, id: TaskId) -> Option<Task> {
        let Open { task, .. } = self.open.remove(&id)?;
        if let Some(of_stream) = self.streams.get_mut(&task.stream) {
            of_stream.remove(&id);
            if of_stream.is_empty() {
                self.streams.remove(&task.stream);
            }
        }
        self.tokens.remove(&task.client_token);
        Some(task)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// A task that has not ended.
    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        self.open.get(&id).map(|open| &open.task)
    }

    /// Makes a task. `template` is what its reference leads to; `known` the task in the store that has its token.
    pub(crate) fn create(
        &mut self,
        new: NewTask,
        id: TaskId,
        (template, known): (Option<TemplateSpec>, Option<Task>),
        presence: Presence,
        (now, mono): (Timestamp, Monotonic),
    ) -> Result<Made, TaskError> {
        let of_token = self.tokens.get(&new.client_token).and_then(|id| self.get(*id)).cloned();
        if let Some(before) = of_token.or(known).filter(|_| !new.client_token.is_empty()) {
            if before.answers(&new) {
                return Ok(Made::Again(before));
            }
            return Err(TaskError::TokenTaken {
                token: new.client_token,
                task: before.id,
            });
        }
        let start = new.check(now, &self.limits)?;
        if (new.start.is_none() || new.require_live) && presence != Presence::Live {
            return Err(TaskError::NotLive(new.stream));
        }
        let template = template.unwrap_or_else(task::default_recording);
        if template.is_no_record() {
            return Err(TaskError::RecordsNothing(new.template_ref));
        }
        if self.open.len() >= self.limits.max_open {
            return Err(TaskError::TooMany(self.open.len()));
        }
        let count = self.streams.get(&new.stream).map_or(0, BTreeSet::len);
        if count >= self.limits.max_per_stream {
            return Err(TaskError::TooManyOfStream {
                stream: new.stream,
                count,
            });
        }
        let task = Task {
            id,
            stream: new.stream,
            start,
            end: new.end,
            template_ref: new.template_ref,
            template,
            stream_type: new.stream_type,
            state: TaskState::Scheduled,
            reason: String::new(),
            created: now,
            stopped: None,
            ended: None,
            client_token: new.client_token,
        };
        let txn = Txn::new().create_task(&task)?;
        self.insert(task.clone(), mono);
        Ok(Made::New(task, txn))
    }

    /// Stops a task; `stored` is what the store has of one that has ended. None: it was stopped before.
    pub(crate) fn stop(
        &mut self,
        id: TaskId,
        stored: Option<Task>,
        now: Timestamp,
    ) -> Result<(Task, Option<Txn>), TaskError> {
        let Some(open) = self.open.get_mut(&id) else {
            let task = stored.ok_or(TaskError::NoTask(id))?;
            return match task.stopped {
                Some(_) => Ok((task, None)),
                None => Err(TaskError::Over {
                    task: id,
                    state: task.state,
                }),
            };
        };
        let task = &mut open.task;
        if task.stopped.is_some() {
            return Ok((task.clone(), None));
        }
        let mut changed = task.clone();
        let legal = changed.take(TaskEvent::Stopped, now);
        if legal.is_err() {
            let state = task.state;
            return Err(TaskError::Over { task: id, state });
        }
        changed.stopped = Some(now);
        if changed.state == TaskState::Cancelled {
            changed.reason = STOPPED_BEFORE_RECORDING.to_owned();
        }
        let txn = Txn::new().update_task(&changed)?;
        *task = changed.clone();
        if changed.state.is_terminal() {
            self.remove(id);
        }
        Ok((changed, Some(txn)))
    }

    /// Removes a task; `stored` is what the store has of one that has ended.
    pub(crate) fn delete(&mut self, id: TaskId, stored: Option<Task>, let_run: bool) -> Result<(Task, Txn), TaskError> {
        let task = match self.get(id) {
            Some(task) => {
                let idle = matches!(task.state, TaskState::Scheduled | TaskState::Waiting);
                if !idle && !let_run {
                    let state = task.state;
                    return Err(TaskError::Running { task: id, state });
                }
                self.remove(id)
            }
            None => stored,
        };
        let task = task.ok_or(TaskError::NoTask(id))?;
        let txn = Txn::new().delete_task(&task);
        Ok((task, txn))
    }

    /// The tasks that a publish of `stream` that began at `started` is to record, and which part of it each; soonest first.
    pub(crate) fn wanted(&self, stream: &StreamKey, started: Timestamp, now: Timestamp) -> Vec<(&Task, Window)> {
        let ids = self.streams.get(stream).into_iter().flatten();
        let tasks = ids.filter_map(|id| self.get(*id));
        let wanted = tasks.filter(|task| task.stopped.is_none() && task.start <= now + AHEAD && task.end > started);
        let mut wanted: Vec<_> = wanted.map(|task| (task, window(task))).collect();
        wanted.sort_by_key(|(task, _)| (task.start, task.id));
        wanted
    }

    /// Looks at every task: what has begun or ended by now, what a worker must be told.
    pub(crate) fn plan(
        &mut self,
        presence: impl Fn(&StreamKey) -> Presence,
        (now, mono): (Timestamp, Monotonic),
    ) -> Result<Plan, TaskError> {
        let mut plan = Plan::default();
        for (id, open) in &mut self.open {
            let task = &mut open.task;
            let presence = presence(&task.stream);
            if let Some(event) = event(task, presence, now) {
                let taken = task.take(event, now);
                taken.map_err(|error| TaskError::Transition { task: *id, error })?;
                plan.txns.push(Txn::new().update_task(task)?);
            }
            if task.state == TaskState::Finishing {
                if mono >= open.look_at && plan.read.len() < LOOKS {
                    open.look_at = mono + LOOK_EVERY;
                    plan.read.push(*id);
                }
                if is_over(task, now) {
                    continue;
                }
            }
            if presence != Presence::Offline && task.start <= now + AHEAD {
                plan.grant.push(*id);
            }
            let tell = Timestamp::from_millis(task.start.as_millis() - millis(AHEAD));
            let next = [tell, task.start, task.end].into_iter().find(|at| *at > now);
            plan.wake = [plan.wake, next].into_iter().flatten().min();
        }
        Ok(plan)
    }

    /// A recording of this task may have ended: its recordings are read with the next look.
    pub(crate) fn hint(&mut self, id: TaskId, mono: Monotonic) {
        if let Some(open) = self.open.get_mut(&id) {
            open.look_at = mono;
        }
    }

    /// Decides from a finishing task's recordings whether it has ended, and how. None: not yet. The clock `is_settled` if it may end
    /// a task by itself.
    pub(crate) fn settle(
        &mut self,
        id: TaskId,
        recordings: &[TaskRecording],
        (now, mono): (Timestamp, Monotonic),
        is_settled: bool,
    ) -> Result<Option<(Task, Txn)>, TaskError> {
        let (patience, loaded) = (self.patience, self.loaded);
        let Some(open) = self.open.get_mut(&id) else {
            return Ok(None);
        };
        let task = &mut open.task;
        if task.state != TaskState::Finishing || recordings.iter().any(|r| !r.recording.state.is_terminal()) {
            return Ok(None);
        }
        let is_witnessed = task.stopped.is_some() || recordings.iter().any(|r| r.recording.reason == TASK_ENDED);
        if !is_over(task, now) || !(is_settled || is_witnessed) {
            return Ok(None);
        }
        let failed = recordings.iter().find(|r| r.recording.state == RecordingState::Failed);
        let (event, reason) = match failed {
            Some(failed) => (TaskEvent::Failed, failed.recording.reason.clone()),
            None if recordings.iter().any(|r| r.files > 0) => (TaskEvent::Completed, String::new()),
            None if task.stopped.is_some() => (TaskEvent::Cancelled, STOPPED_BEFORE_RECORDING.to_owned()),
            // A worker that could not ask for a while may hold a publish that nobody has heard of.
            None if now < task.over() + patience || mono.since(loaded) < patience => return Ok(None),
            None if recordings.is_empty() => (TaskEvent::Failed, STREAM_NEVER_LIVE.to_owned()),
            None => (TaskEvent::Failed, NO_MEDIA.to_owned()),
        };
        let taken = task.take(event, now);
        taken.map_err(|error| TaskError::Transition { task: id, error })?;
        task.reason = reason;
        let txn = Txn::new().update_task(task)?;
        Ok(self.remove(id).map(|task| (task, txn)))
    }
}

/// Which part of a publish a task is.
pub(crate) fn window(task: &Task) -> Window {
    Window {
        from: Some(task.start),
        until: Some(task.over()),
        cancelled: false,
    }
}

/// True if nothing of a task is to come.
fn is_over(task: &Task, now: Timestamp) -> bool {
    task.stopped.is_some() || now >= task.over()
}

/// What happens to a task now, if anything.
fn event(task: &Task, presence: Presence, now: Timestamp) -> Option<TaskEvent> {
    let (event, state) = match presence {
        _ if task.state == TaskState::Finishing => return None,
        _ if is_over(task, now) => (TaskEvent::TimeOver, TaskState::Finishing),
        // Also after a clock that jumped back: what has begun goes on.
        _ if task.state == TaskState::Scheduled && now < task.start => return None,
        Presence::Live => (TaskEvent::StreamLive, TaskState::Recording),
        Presence::Interrupted => (TaskEvent::WorkerLost, TaskState::Interrupted),
        Presence::Offline => (TaskEvent::StreamGone, TaskState::Waiting),
    };
    (task.state != state).then_some(event)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
