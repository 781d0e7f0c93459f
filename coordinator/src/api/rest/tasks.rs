//! `/api/v1/tasks`.

use actix_web::{
    delete, get, post,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, tasks_server::Tasks as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Answer, Deleted, Refusals, Request, Rest, Wanted,
    caller::Caller,
    deleted,
    documents::{Recording, Stream, TemplateSpec, instant, moment, word},
    problem::Problem,
    there, unseen,
};

/// A task to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTask {
    /// What to record.
    stream: Stream,
    /// When it begins; absent: now, and then the stream must be live.
    start: Option<String>,
    /// When it ends.
    end: String,
    /// Id or name of a record template; empty or unknown: FLV files of 30 minutes.
    #[serde(default)]
    template: String,
    /// The same token again gives the task that it made.
    #[serde(default)]
    client_token: String,
    /// Refuse unless the stream is live now.
    #[serde(default)]
    require_live: bool,
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Task {
    /// UUID.
    task_id: String,
    /// What it records.
    stream: Stream,
    /// When it begins.
    start: Option<String>,
    /// When it ends.
    end: Option<String>,
    /// `scheduled`, `waiting`, `recording`, `interrupted`, `finishing`, `completed`, `failed`, `cancelled`.
    state: String,
    /// Why it failed or was cancelled.
    reason: String,
    /// Settings, frozen when it was made.
    template: TemplateSpec,
    /// When it was made.
    created: Option<String>,
    /// When it was stopped.
    stopped: Option<String>,
    /// Since when it is in its final state.
    ended: Option<String>,
}

impl From<v1::Task> for Task {
    fn from(task: v1::Task) -> Self {
        let state = word(task.state().as_str_name(), "TASK_STATE_");
        Task {
            task_id: task.task_id,
            stream: task.stream.into(),
            start: instant(task.start_ms),
            end: instant(task.end_ms),
            state,
            reason: task.reason,
            template: task.template.into(),
            created: instant(task.created_ms),
            stopped: instant(task.stopped_ms),
            ended: instant(task.ended_ms),
        }
    }
}

/// A task with its recordings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TaskRecordings {
    /// The task.
    task: Task,
    /// The oldest first.
    recordings: Vec<Recording>,
}

/// A page of tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tasks {
    /// The newest first.
    tasks: Vec<Task>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// Remove it also while it records.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Removal {
    /// What it records goes on to the end of the push or of the task's time.
    let_run: bool,
}

/// Lists tasks.
#[utoipa::path(tag = "tasks", responses((status = 200, body = Tasks), Refusals))]
#[get("/tasks")]
pub(super) async fn list_tasks(caller: Caller, rest: Data<Rest>, wanted: Query<Wanted>) -> Answer<Tasks> {
    let wanted = wanted.into_inner();
    let request = v1::ListTasksRequest {
        page_size: wanted.page_size,
        page_token: wanted.page_token,
        domain: wanted.domain,
        app: wanted.app,
        stream: wanted.stream,
        ..Default::default()
    };
    let answer = rest.api.list_tasks(Request::new(request)).await?.into_inner();
    let tasks = answer.tasks.into_iter();
    Ok(Json(Tasks {
        tasks: tasks
            .filter(|task| caller.sees(task.stream.as_ref()))
            .map(Task::from)
            .collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Records a stream between two moments, whatever the rules say of it.
#[utoipa::path(tag = "tasks", responses((status = 200, body = Task), Refusals))]
#[post("/tasks")]
pub(super) async fn create_task(caller: Caller, rest: Data<Rest>, task: Json<NewTask>) -> Answer<Task> {
    let task = task.into_inner();
    caller.domain(&task.stream.domain)?;
    let start_ms = task.start.as_deref().map(|text| moment("start", text)).transpose()?;
    let request = v1::CreateTaskRequest {
        stream: Some(task.stream.into()),
        start_ms: start_ms.unwrap_or(0),
        end_ms: moment("end", &task.end)?,
        template: task.template,
        stream_type: v1::StreamType::Push.into(),
        client_token: task.client_token,
        require_live: task.require_live,
    };
    let answer = rest.api.create_task(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.task)?.into()))
}

/// The task and its recordings, if the caller may see them.
async fn seen(caller: &Caller, rest: &Rest, id: &str) -> Result<(v1::Task, Vec<v1::Recording>), Problem> {
    let request = v1::GetTaskRequest { task_id: id.to_owned() };
    let answer = rest.api.get_task(Request::new(request)).await?.into_inner();
    let task = there(answer.task)?;
    match caller.sees(task.stream.as_ref()) {
        true => Ok((task, answer.recordings)),
        false => Err(unseen(id)),
    }
}

/// Reads a task and its recordings.
#[utoipa::path(tag = "tasks", responses((status = 200, body = TaskRecordings), Refusals))]
#[get("/tasks/{task_id}")]
pub(super) async fn get_task(caller: Caller, rest: Data<Rest>, task_id: Path<String>) -> Answer<TaskRecordings> {
    let (task, recordings) = seen(&caller, &rest, &task_id).await?;
    Ok(Json(TaskRecordings {
        task: task.into(),
        recordings: recordings.into_iter().map(Recording::from).collect(),
    }))
}

/// Ends a task now. What was recorded is kept and finished.
#[utoipa::path(tag = "tasks", responses((status = 200, body = Task), Refusals))]
#[post("/tasks/{task_id}/stop")]
pub(super) async fn stop_task(caller: Caller, rest: Data<Rest>, task_id: Path<String>) -> Answer<Task> {
    seen(&caller, &rest, &task_id).await?;
    let request = v1::StopTaskRequest {
        task_id: task_id.into_inner(),
    };
    let answer = rest.api.stop_task(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.task)?.into()))
}

/// Removes a task; its recordings and files stay.
#[utoipa::path(tag = "tasks", responses((status = 200, body = Deleted), Refusals))]
#[delete("/tasks/{task_id}")]
pub(super) async fn delete_task(
    caller: Caller,
    rest: Data<Rest>,
    task_id: Path<String>,
    removal: Query<Removal>,
) -> Answer<Deleted> {
    seen(&caller, &rest, &task_id).await?;
    let request = v1::DeleteTaskRequest {
        task_id: task_id.clone(),
        let_run: removal.let_run,
    };
    rest.api.delete_task(Request::new(request)).await?;
    Ok(deleted(task_id.into_inner()))
}
