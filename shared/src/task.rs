//! A recording of one stream between two moments: [`Task`], its states, and what a new one must fulfil. Pure.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    config::TasksConfig,
    ids::{StreamKey, TaskId},
    template::{Format, TemplateSpec},
    time::Timestamp,
};

/// Longest client token, bytes.
pub const MAX_TOKEN_BYTES: usize = 64;
/// Longest reference to a template, bytes.
pub const MAX_TEMPLATE_REF_BYTES: usize = 255;
/// Name of the settings of a task without a template.
pub const DEFAULT_TEMPLATE: &str = "task-default";
/// Why a task failed: the stream was not live at any moment of its time.
pub const STREAM_NEVER_LIVE: &str = "stream_never_live";
/// Why a task failed: the stream was live and sent nothing that can be recorded.
pub const NO_MEDIA: &str = "no_media";
/// Why a recording ended: its task's time was over, by the clock of the worker that recorded it.
pub const TASK_ENDED: &str = "task_ended";
/// Why a task was cancelled.
pub const STOPPED_BEFORE_RECORDING: &str = "stopped_before_recording";

/// What the stream of a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamType {
    /// A push of its own.
    #[default]
    Push,
    /// The output of a mix, which is pushed under a name of its own and recorded like any push of that name.
    Mixed,
}

/// State of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its start has not come.
    Scheduled,
    /// Its time is running and the stream is not live.
    Waiting,
    /// The stream is live and recorded.
    Recording,
    /// The stream's worker has not been heard from for the time-out.
    Interrupted,
    /// Its time is over or it was stopped: its files are being finished.
    Finishing,
    /// Everything that was recorded is in the library. Final.
    Completed,
    /// Nothing was recorded, or not all that should have been. Final.
    Failed,
    /// Stopped before anything was recorded. Final.
    Cancelled,
}

impl TaskState {
    /// All of them, in the order of a task's life.
    pub const ALL: [TaskState; 8] = [
        TaskState::Scheduled,
        TaskState::Waiting,
        TaskState::Recording,
        TaskState::Interrupted,
        TaskState::Finishing,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Cancelled,
    ];

    /// True if nothing comes after it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, TaskState::Completed | TaskState::Failed | TaskState::Cancelled)
    }

    /// As in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TaskState::Scheduled => "scheduled",
            TaskState::Waiting => "waiting",
            TaskState::Recording => "recording",
            TaskState::Interrupted => "interrupted",
            TaskState::Finishing => "finishing",
            TaskState::Completed => "completed",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
        }
    }

    /// The state after an event. What is not listed cannot happen, and is an error.
    ///
    /// # Errors
    /// [`IllegalTransition`].
    pub const fn after(self, event: TaskEvent) -> Result<TaskState, IllegalTransition> {
        use TaskEvent as E;
        use TaskState as S;
        Ok(match (self, event) {
            (S::Scheduled | S::Waiting | S::Interrupted, E::StreamLive) => S::Recording,
            (S::Scheduled | S::Recording | S::Interrupted, E::StreamGone) => S::Waiting,
            (S::Scheduled | S::Waiting | S::Recording, E::WorkerLost) => S::Interrupted,
            (S::Scheduled, E::Stopped) => S::Cancelled,
            (S::Waiting | S::Recording | S::Interrupted, E::Stopped) => S::Finishing,
            (S::Scheduled | S::Waiting | S::Recording | S::Interrupted, E::TimeOver) => S::Finishing,
            (S::Finishing, E::Completed) => S::Completed,
            (S::Finishing, E::Failed) => S::Failed,
            (S::Finishing, E::Cancelled) => S::Cancelled,
            (from, event) => return Err(IllegalTransition { from, event }),
        })
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskEvent {
    /// Its time is running and the stream is live.
    StreamLive,
    /// Its time is running and the stream is not live.
    StreamGone,
    /// Its time is running and the stream's worker is not heard from.
    WorkerLost,
    /// Its end has come.
    TimeOver,
    /// It was stopped.
    Stopped,
    /// All its recordings have ended with all they should hold.
    Completed,
    /// All its recordings have ended, one without all it should hold; or there was nothing.
    Failed,
    /// It was stopped, and there is nothing.
    Cancelled,
}

impl TaskEvent {
    /// All of them.
    pub const ALL: [TaskEvent; 8] = [
        TaskEvent::StreamLive,
        TaskEvent::StreamGone,
        TaskEvent::WorkerLost,
        TaskEvent::TimeOver,
        TaskEvent::Stopped,
        TaskEvent::Completed,
        TaskEvent::Failed,
        TaskEvent::Cancelled,
    ];
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a task that is {from} cannot take the event {event:?}")]
pub struct IllegalTransition {
    /// The state.
    pub from: TaskState,
    /// The event.
    pub event: TaskEvent,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Identity.
    pub id: TaskId,
    /// What to record.
    pub stream: StreamKey,
    /// From when on.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// The template as it was asked for, id or name; empty: none.
    pub template_ref: String,
    /// Settings, frozen when the task was made.
    pub template: TemplateSpec,
    /// What the stream is.
    pub stream_type: StreamType,
    /// State.
    pub state: TaskState,
    /// Why it failed or was cancelled.
    pub reason: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was stopped.
    pub stopped: Option<Timestamp>,
    /// When it came to its final state.
    pub ended: Option<Timestamp>,
    /// The token it was made with; empty: none.
    pub client_token: String,
}

impl Task {
    /// When its time is over: at its end, or when it was stopped.
    #[must_use]
    pub fn over(&self) -> Timestamp {
        self.stopped.map_or(self.end, |stopped| stopped.min(self.end))
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`IllegalTransition`]; the task is as it was.
    pub fn take(&mut self, event: TaskEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.state = self.state.after(event)?;
        if self.state.is_terminal() {
            self.ended = Some(now);
        }
        Ok(())
    }

    /// True if a request for a task with this one's token asks for this one. A start that is now is no longer known.
    #[must_use]
    pub fn answers(&self, new: &NewTask) -> bool {
        self.stream == new.stream
            && self.end == new.end
            && new.start.is_none_or(|start| start == self.start)
            && self.template_ref == new.template_ref
            && self.stream_type == new.stream_type
    }
}

/// A task that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// What to record.
    pub stream: StreamKey,
    /// From when on; none: now.
    pub start: Option<Timestamp>,
    /// Until when.
    pub end: Timestamp,
    /// Id or name of a template; empty: none.
    pub template_ref: String,
    /// What the stream is.
    pub stream_type: StreamType,
    /// At most one task is made with a token; empty: none.
    pub client_token: String,
    /// Only if the stream is live.
    pub require_live: bool,
}

/// Why a task is not made. The message says what would be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TaskInputError {
    /// It would be over before it begins.
    #[error("end {end} is not after start {start}: give a later end")]
    EndBeforeStart {
        /// The start.
        start: Timestamp,
        /// The end.
        end: Timestamp,
    },
    /// It would be over by now.
    #[error("end {end} is past, it is {now} now: give a later end")]
    EndPast {
        /// The end.
        end: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// It would take too long.
    #[error("start to end is {}, at most {} are allowed (coordinator.tasks.max_span): end it earlier, or make several tasks", humantime::format_duration(*.span), humantime::format_duration(*.max))]
    SpanTooLong {
        /// Its length.
        span: Duration,
        /// The limit.
        max: Duration,
    },
    /// It lies too far ahead.
    #[error("end {end} is more than {} ahead (coordinator.tasks.max_ahead): make the task later", humantime::format_duration(*.max))]
    TooFarAhead {
        /// The end.
        end: Timestamp,
        /// The limit.
        max: Duration,
    },
    /// Not a token.
    #[error("client_token {found:?}: use at most {MAX_TOKEN_BYTES} bytes of letters, digits, `_` and `-`")]
    Token {
        /// What was given, shortened.
        found: String,
    },
    /// Not the id or name of any template.
    #[error("template has {len} bytes, an id or a name has at most {MAX_TEMPLATE_REF_BYTES}")]
    TemplateRef {
        /// Its length, bytes.
        len: usize,
    },
}

impl NewTask {
    /// Checks what can be checked of it alone; gives its start.
    ///
    /// # Errors
    /// [`TaskInputError`] for the first thing that is wrong.
    pub fn check(&self, now: Timestamp, limits: &TasksConfig) -> Result<Timestamp, TaskInputError> {
        let (start, end) = (self.start.unwrap_or(now), self.end);
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.client_token.len() > MAX_TOKEN_BYTES || !self.client_token.chars().all(legal) {
            let found = self.client_token.chars().take(MAX_TOKEN_BYTES).collect();
            return Err(TaskInputError::Token { found });
        }
        if self.template_ref.len() > MAX_TEMPLATE_REF_BYTES {
            let len = self.template_ref.len();
            return Err(TaskInputError::TemplateRef { len });
        }
        if end <= start {
            return Err(TaskInputError::EndBeforeStart { start, end });
        }
        if end <= now {
            return Err(TaskInputError::EndPast { end, now });
        }
        let apart = |from: Timestamp, to: Timestamp| {
            let ms = to.as_millis().saturating_sub(from.as_millis());
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        };
        let (span, max) = (apart(start, end), limits.max_span);
        if span > max {
            return Err(TaskInputError::SpanTooLong { span, max });
        }
        let max = limits.max_ahead;
        if apart(now, end) > max {
            return Err(TaskInputError::TooFarAhead { end, max });
        }
        Ok(start)
    }
}

/// What is recorded where no template is named, or an unknown one: FLV files of 30 minutes, kept for ever.
#[must_use]
pub fn default_recording() -> TemplateSpec {
    TemplateSpec::plain(DEFAULT_TEMPLATE, &[Format::Flv])
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
