//! `aircheck task …`

use std::time::Duration;

use proto::v1::tasks_client::TasksClient;
use proto::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetTaskRequest, ListTasksRequest, Recording, StopTaskRequest, StreamType,
    Task, TaskState,
};
use serde_json::{Value, json};
use shared::time::{Clock as _, System};

use super::{
    Done, PAGE, connect, format_name, given, instant, parse_stream, print, said, stream_json, stream_name, table, when,
};
use crate::cli::{self, Client, List, Of, TaskCommand};

pub(crate) async fn run(command: TaskCommand) -> Done {
    match command {
        TaskCommand::Create(create) => {
            let now = now_ms();
            let start = create.start.map(|start| start.ms(now));
            let after = |length: Duration| start.unwrap_or(now).saturating_add(ms(length));
            let end = create.end.map(|end| end.ms(now));
            let request = CreateTaskRequest {
                stream: Some(parse_stream(&create.stream)?),
                start_ms: start.unwrap_or(0),
                end_ms: end.or(create.length.map(|l| after(l.into()))).unwrap_or(0),
                template: given(create.template.as_ref()),
                stream_type: if create.mixed {
                    StreamType::Mixed
                } else {
                    StreamType::Push
                }
                .into(),
                client_token: given(create.token.as_ref()),
                require_live: false,
            };
            make(&create.client, request).await
        }
        TaskCommand::Highlight {
            stream,
            last,
            length,
            template,
            client,
        } => {
            let now = now_ms();
            let request = CreateTaskRequest {
                stream: Some(parse_stream(&stream)?),
                start_ms: now.saturating_sub(ms(last.into())),
                end_ms: now.saturating_add(ms(length.into())),
                template: given(template.as_ref()),
                stream_type: StreamType::Push.into(),
                client_token: String::new(),
                require_live: true,
            };
            make(&client, request).await
        }
        TaskCommand::Stop { task, client } => {
            let mut service = TasksClient::new(connect(&client)?);
            let answer = service.stop_task(StopTaskRequest { task_id: task }).await;
            show(&client, answer.map_err(said)?.into_inner().task)
        }
        TaskCommand::Delete { task, let_run, client } => {
            let mut service = TasksClient::new(connect(&client)?);
            let task_id = task.clone();
            let request = DeleteTaskRequest { task_id, let_run };
            service.delete_task(request).await.map_err(said)?;
            print(&client, &json!({ "deleted": task }), || format!("{task} deleted\n"))
        }
        TaskCommand::Get { task, client } => get(&client, task).await,
        TaskCommand::List(wanted) => list(wanted).await,
    }
}

fn now_ms() -> i64 {
    System::new().now().as_millis()
}

fn ms(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

async fn make(client: &Client, request: CreateTaskRequest) -> Done {
    let mut service = TasksClient::new(connect(client)?);
    let answer = service.create_task(request).await.map_err(said)?;
    show(client, answer.into_inner().task)
}

fn show(client: &Client, task: Option<Task>) -> Done {
    let task = task.ok_or("the coordinator sent no task")?;
    print(client, &document(&task), || {
        table(&HEADINGS, &[row(&task)]) + &default_note(&task)
    })
}

/// A template that is not known is no error; it is said.
fn default_note(task: &Task) -> String {
    let used = task.template.as_ref().map_or("", |template| template.name.as_str());
    if task.template_ref.is_empty() || used != shared::task::DEFAULT_TEMPLATE {
        return String::new();
    }
    format!(
        "template {:?} is not known: recorded as FLV files of 30 minutes, kept for ever\n",
        task.template_ref
    )
}

async fn get(client: &Client, task_id: String) -> Done {
    let channel = connect(client)?;
    let mut service = TasksClient::new(channel.clone());
    let answer = service.get_task(GetTaskRequest { task_id }).await.map_err(said)?;
    let answer = answer.into_inner();
    let task = answer.task.ok_or("the coordinator sent no task")?;
    let any = Of {
        domain: None,
        app: None,
        stream: None,
    };
    let (mut recordings, mut files) = (Vec::new(), Vec::new());
    for recording in &answer.recordings {
        let of_one = super::files::list(channel.clone(), &any, Some(&recording.recording_id), None).await?;
        recordings.push(with_files(recording, &of_one));
        files.extend(of_one);
    }
    let mut all = document(&task);
    if let Some(fields) = all.as_object_mut() {
        fields.insert("recordings".to_owned(), recordings.into());
    }
    print(client, &all, || {
        format!(
            "{}{}\n{}\n{}",
            table(&HEADINGS, &[row(&task)]),
            default_note(&task),
            super::recordings::listing(&answer.recordings),
            super::files::listing(&files)
        )
    })
}

fn with_files(recording: &Recording, files: &[proto::v1::MediaFile]) -> Value {
    let mut all = super::recordings::document(recording);
    if let Some(fields) = all.as_object_mut() {
        fields.insert("files".to_owned(), files.iter().map(super::files::document).collect());
    }
    all
}

async fn list(wanted: List) -> Done {
    let mut service = TasksClient::new(connect(&wanted.client)?);
    let now = now_ms();
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTasksRequest {
            page_size: PAGE,
            page_token,
            state: wanted.state.map_or(TaskState::Unspecified, of_cli).into(),
            domain: given(wanted.of.domain.as_ref()),
            app: given(wanted.of.app.as_ref()),
            stream: given(wanted.of.stream.as_ref()),
            from_ms: wanted.from.map_or(0, |from| from.ms(now)),
            to_ms: wanted.to.map_or(0, |to| to.ms(now)),
            within: wanted.within,
        };
        let page = service.list_tasks(request).await.map_err(said)?.into_inner();
        all.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let document = json!({ "tasks": all.iter().map(document).collect::<Vec<_>>() });
    print(&wanted.client, &document, || {
        table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>())
    })
}

const fn of_cli(state: cli::TaskState) -> TaskState {
    match state {
        cli::TaskState::Scheduled => TaskState::Scheduled,
        cli::TaskState::Waiting => TaskState::Waiting,
        cli::TaskState::Recording => TaskState::Recording,
        cli::TaskState::Interrupted => TaskState::Interrupted,
        cli::TaskState::Finishing => TaskState::Finishing,
        cli::TaskState::Completed => TaskState::Completed,
        cli::TaskState::Failed => TaskState::Failed,
        cli::TaskState::Cancelled => TaskState::Cancelled,
    }
}

const HEADINGS: [&str; 8] = ["stream", "state", "start", "end", "stopped", "template", "reason", "id"];

fn state(task: &Task) -> &'static str {
    shared::wire::task_state(task.state).map_or("unknown", |state| state.map_or("unknown", |state| state.as_str()))
}

fn document(task: &Task) -> Value {
    let template = task.template.clone().unwrap_or_default();
    json!({
        "task_id": task.task_id,
        "stream": stream_json(task.stream.as_ref()),
        "stream_type": if task.stream_type() == StreamType::Mixed { "mixed" } else { "push" },
        "start": instant(task.start_ms),
        "end": instant(task.end_ms),
        "state": state(task),
        "reason": task.reason,
        "template_ref": task.template_ref,
        "template": template.name,
        "formats": template.formats.iter().map(|f| format_name(f.format)).collect::<Vec<_>>(),
        "created": instant(task.created_ms),
        "stopped": instant(task.stopped_ms),
        "ended": instant(task.ended_ms),
        "client_token": task.client_token,
    })
}

fn row(task: &Task) -> Vec<String> {
    vec![
        stream_name(task.stream.as_ref()),
        state(task).to_owned(),
        when(task.start_ms),
        when(task.end_ms),
        when(task.stopped_ms),
        task.template.as_ref().map(|t| t.name.clone()).unwrap_or_default(),
        task.reason.clone(),
        task.task_id.clone(),
    ]
}
