//! Tasks between the wire and the domain.

use proto::v1;

use super::{WireError, clock_if_any, required, wanted};
use crate::{
    ids::StreamKey,
    store::TaskFilter,
    task::{NewTask, StreamType, Task, TaskState},
    time::Timestamp,
};

impl From<TaskState> for v1::TaskState {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Scheduled => v1::TaskState::Scheduled,
            TaskState::Waiting => v1::TaskState::Waiting,
            TaskState::Recording => v1::TaskState::Recording,
            TaskState::Interrupted => v1::TaskState::Interrupted,
            TaskState::Finishing => v1::TaskState::Finishing,
            TaskState::Completed => v1::TaskState::Completed,
            TaskState::Failed => v1::TaskState::Failed,
            TaskState::Cancelled => v1::TaskState::Cancelled,
        }
    }
}

/// Reads an enum's number as a state; unspecified is none.
///
/// # Errors
/// [`WireError`] for unknown numbers.
pub fn task_state(number: i32) -> Result<Option<TaskState>, WireError> {
    let unknown = |_| WireError::new("state", format!("{number} is unknown: use 1 to 8, or 0 for any"));
    Ok(match v1::TaskState::try_from(number).map_err(unknown)? {
        v1::TaskState::Unspecified => None,
        v1::TaskState::Scheduled => Some(TaskState::Scheduled),
        v1::TaskState::Waiting => Some(TaskState::Waiting),
        v1::TaskState::Recording => Some(TaskState::Recording),
        v1::TaskState::Interrupted => Some(TaskState::Interrupted),
        v1::TaskState::Finishing => Some(TaskState::Finishing),
        v1::TaskState::Completed => Some(TaskState::Completed),
        v1::TaskState::Failed => Some(TaskState::Failed),
        v1::TaskState::Cancelled => Some(TaskState::Cancelled),
    })
}

fn stream_type(number: i32) -> Result<StreamType, WireError> {
    let unknown = |_| {
        WireError::new(
            "stream_type",
            format!("{number} is unknown: use 1 for a push, 2 for a mixed stream"),
        )
    };
    Ok(match v1::StreamType::try_from(number).map_err(unknown)? {
        v1::StreamType::Unspecified | v1::StreamType::Push => StreamType::Push,
        v1::StreamType::Mixed => StreamType::Mixed,
    })
}

/// Reads what a task shall be.
///
/// # Errors
/// [`WireError`] for the first field that cannot be.
pub fn new_task(request: v1::CreateTaskRequest) -> Result<NewTask, WireError> {
    let stream = StreamKey::try_from(required("stream", request.stream)?)?;
    let start = clock_if_any("start_ms", request.start_ms)?;
    let end = clock_if_any("end_ms", request.end_ms)?
        .ok_or_else(|| WireError::new("end_ms", "is missing: a task has an end, milliseconds since 1970"))?;
    Ok(NewTask {
        stream,
        start,
        end,
        template_ref: request.template,
        stream_type: stream_type(request.stream_type)?,
        client_token: request.client_token,
        require_live: request.require_live,
    })
}

/// Reads which tasks are wanted.
///
/// # Errors
/// [`WireError`] for the first field that cannot be.
pub fn task_filter(request: &v1::ListTasksRequest) -> Result<TaskFilter, WireError> {
    let (from, to) = (
        clock_if_any("from_ms", request.from_ms)?,
        clock_if_any("to_ms", request.to_ms)?,
    );
    if let (Some(from), Some(to)) = (from, to)
        && to <= from
    {
        return Err(WireError::new(
            "to_ms",
            "is not after from_ms: give a later one, or 0 for no bound",
        ));
    }
    if request.within && (from.is_none() || to.is_none()) {
        return Err(WireError::new("within", "needs both from_ms and to_ms"));
    }
    Ok(TaskFilter {
        state: task_state(request.state)?,
        domain: wanted("domain", request.domain.clone())?,
        app: wanted("app", request.app.clone())?,
        stream: wanted("stream", request.stream.clone())?,
        from,
        to,
        within: request.within,
    })
}

impl From<&Task> for v1::Task {
    fn from(task: &Task) -> Self {
        let stream_type = match task.stream_type {
            StreamType::Push => v1::StreamType::Push,
            StreamType::Mixed => v1::StreamType::Mixed,
        };
        v1::Task {
            task_id: task.id.to_string(),
            stream: Some((&task.stream).into()),
            start_ms: task.start.as_millis(),
            end_ms: task.end.as_millis(),
            template_ref: task.template_ref.clone(),
            template: Some((&task.template).into()),
            stream_type: stream_type.into(),
            state: v1::TaskState::from(task.state).into(),
            reason: task.reason.clone(),
            created_ms: task.created.as_millis(),
            stopped_ms: task.stopped.map_or(0, Timestamp::as_millis),
            ended_ms: task.ended.map_or(0, Timestamp::as_millis),
            client_token: task.client_token.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_the_wire() {
        for state in TaskState::ALL {
            assert_eq!(task_state(v1::TaskState::from(state).into()), Ok(Some(state)));
        }
        assert_eq!(task_state(0), Ok(None));
        assert!(task_state(9).unwrap_err().to_string().contains("state: 9 is unknown"));
    }
}
