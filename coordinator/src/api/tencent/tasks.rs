//! Record tasks, and the older three actions of the same kind.
//!
//! A task's `TaskId` is its UUID. The older actions count: there a task's number is the millisecond of its making, which
//! its UUID of version 7 begins with, as with templates.

use std::time::Duration;

use serde_json::{Value, json};
use shared::{
    ids::{StreamKey, TaskId},
    store::{Page, Scan, TaskFilter, keys},
    task::{NewTask, StreamType, Task},
    template::{Format, FormatSettings, MAX_STORAGE_TIME_S, TemplateSpec},
    time::Timestamp,
};

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::{Fields, decode_form},
    streams::{optional_domain, stream},
    text::read_beijing,
};
use crate::{
    actors::tasks::{CreateTask, DeleteTask, StopTask},
    catalog::TemplateRef,
    tasks::TaskError,
};

/// Longest window of a list, seconds: 7 days.
const MAX_WINDOW_S: i64 = 7 * 86_400;
/// How far back a window may begin, seconds: 90 days.
const MAX_BACK_S: i64 = 90 * 86_400;
/// Tasks of a page.
const PAGE: u32 = 100;
/// Longest task of the older kind that begins at once, milliseconds: 30 min.
const HIGHLIGHT_MS: i64 = 30 * 60_000;
/// Latest second that is read: of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

fn refused(error: TaskError) -> ApiError {
    let code = match &error {
        TaskError::Input(_) | TaskError::RecordsNothing(_) | TaskError::NoTask(_) | TaskError::Over { .. } => {
            "InvalidParameter"
        }
        TaskError::NotLive(_) => "ResourceUnavailable.StreamNotExist",
        TaskError::TooMany(_) | TaskError::TooManyOfStream { .. } => "LimitExceeded.MaximumRunningTask",
        TaskError::Running { .. } => "FailedOperation.AlterTaskState",
        TaskError::Store(error) => return error.clone().into(),
        TaskError::TokenTaken { .. } | TaskError::Transition { .. } => "InternalError",
    };
    ApiError::new(code, error)
}

fn second(fields: &mut Fields, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let at = fields.int(name, 0..=LAST_SECOND)?;
    Ok(at.map(|seconds| Timestamp::from_millis(seconds * 1_000)))
}

async fn make(cx: &Context<'_>, new: NewTask, template: Option<TemplateSpec>) -> Result<Task, ApiError> {
    cx.caller.check_domain(new.stream.domain())?;
    let made = cx.handle.ask(CreateTask {
        new,
        known: None,
        template,
    });
    made.await?.map_err(refused)
}

pub(super) async fn create(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = stream(&mut fields)?;
    let start = second(&mut fields, "StartTime")?;
    let end = second(&mut fields, "EndTime")?.ok_or_else(|| ApiError::missing("EndTime"))?;
    let mixed = fields.switch("StreamType")?.unwrap_or(false);
    let number = fields.int("TemplateId", 0..=i64::MAX)?.unwrap_or(0);
    fields.without_effect(&["Extension"]);
    fields.finish()?;
    // An unknown template is no error here: the default recording is made.
    let by = TemplateRef::Number(u64::try_from(number).unwrap_or_default());
    let template = cx
        .look(move |state| state.catalog.template(&by).ok().map(|known| known.id))
        .await?;
    let new = NewTask {
        stream,
        // Without a start it begins now, whether the stream is live already or not.
        start: Some(start.unwrap_or_else(|| cx.tools.clock.now())),
        end,
        template_ref: template.map_or_else(String::new, |id| id.to_string()),
        stream_type: if mixed { StreamType::Mixed } else { StreamType::Push },
        client_token: String::new(),
        require_live: false,
    };
    let task = make(cx, new, None).await?;
    field("TaskId", task.id.to_string())
}

/// The task that a request names, if the caller's key is for it.
async fn named(cx: &Context<'_>, fields: &mut Fields) -> Result<Task, ApiError> {
    let text = fields.required("TaskId")?;
    let unknown = || ApiError::invalid(format!("there is no task {text}"));
    let id: TaskId = text.parse().map_err(|_| unknown())?;
    let task = cx.tools.repo.task(id).await?.ok_or_else(unknown)?;
    cx.caller.check_domain(task.stream.domain())?;
    Ok(task)
}

async fn stop_task(cx: &Context<'_>, task: Task) -> Result<Task, ApiError> {
    let stop = StopTask {
        id: task.id,
        stored: Some(task),
    };
    cx.handle.ask(stop).await?.map_err(refused)
}

pub(super) async fn stop(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let task = named(cx, &mut fields).await?;
    fields.finish()?;
    stop_task(cx, task).await?;
    done()
}

async fn delete_task(cx: &Context<'_>, task: Task, let_run: bool) -> Result<Task, ApiError> {
    let delete = DeleteTask {
        id: task.id,
        stored: Some(task),
        let_run,
    };
    cx.handle.ask(delete).await?.map_err(refused)
}

/// What it records already goes on.
pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let task = named(cx, &mut fields).await?;
    fields.finish()?;
    delete_task(cx, task, true).await?;
    done()
}

fn written(task: &Task) -> Value {
    let seconds = |at: Timestamp| at.as_millis().div_euclid(1_000);
    let template: Option<shared::ids::TemplateId> = task.template_ref.parse().ok();
    json!({
        "TaskId": task.id.to_string(),
        "DomainName": task.stream.domain(),
        "AppName": task.stream.app(),
        "StreamName": task.stream.stream(),
        "StartTime": seconds(task.start),
        "EndTime": seconds(task.end),
        "TemplateId": template.map_or(0, shared::ids::TemplateId::number),
        "Stopped": task.stopped.map_or(0, seconds),
    })
}

pub(super) async fn list(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let from = fields.required_int("StartTime", 0..=LAST_SECOND)?;
    let to = fields.required_int("EndTime", 0..=LAST_SECOND)?;
    let now = cx.tools.clock.now().as_millis().div_euclid(1_000);
    if to <= from || to - from > MAX_WINDOW_S {
        return Err(ApiError::invalid("EndTime must lie after StartTime, at most 7 days"));
    }
    if from < now - MAX_BACK_S {
        return Err(ApiError::invalid("StartTime must not lie more than 90 days back"));
    }
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    let filter = TaskFilter {
        state: None,
        domain: optional_domain(&mut fields)?,
        app: named(fields.text("AppName")?),
        stream: named(fields.text("StreamName")?),
        from: Some(Timestamp::from_millis(from * 1_000)),
        to: Some(Timestamp::from_millis(to * 1_000)),
        within: true,
    };
    let token = fields.text("ScrollToken")?.unwrap_or_default();
    fields.finish()?;
    if !token.is_empty() && token.parse::<TaskId>().is_err() {
        return Err(ApiError::invalid("ScrollToken is not one of an earlier answer"));
    }
    if let Some(domain) = &filter.domain {
        cx.caller.check_domain(domain)?;
    }
    let (tasks, next) = cx.tools.repo.tasks(&filter, &Page { size: PAGE, token }).await?;
    let seen = tasks.iter().filter(|task| cx.caller.scope.covers(task.stream.domain()));
    let mut out = field("TaskList", seen.map(written).collect::<Vec<_>>())?;
    out.insert("ScrollToken".to_owned(), next.into());
    Ok(out)
}

/// The stream that an older action means: where no domain is named, that of a live stream, or the only push domain.
async fn older_stream(cx: &Context<'_>, fields: &mut Fields) -> Result<StreamKey, ApiError> {
    let name = fields.required("StreamName")?;
    let app = fields.text("AppName")?.filter(|app| !app.is_empty());
    let app = app.unwrap_or_else(|| "live".to_owned());
    let wrong = |error: shared::ids::NameError| ApiError::new("InvalidParameterValue", error);
    if let Some(domain) = optional_domain(fields)? {
        return StreamKey::new(&domain, &app, &name).map_err(wrong);
    }
    let (of_name, of_app) = (name.clone(), app.clone());
    let (live, domains): (Vec<StreamKey>, Vec<String>) = cx
        .look(move |state| {
            let live = state.leases.streams().map(|live| &live.record.stream);
            let live = live.filter(|stream| stream.stream() == of_name && stream.app() == of_app);
            let domains = state.doors.domains().map(|domain| domain.name.clone());
            (live.take(2).cloned().collect(), domains.take(2).collect())
        })
        .await?;
    match (live.as_slice(), domains.as_slice()) {
        ([stream], _) => Ok(stream.clone()),
        ([], [domain]) => StreamKey::new(domain, &app, &name).map_err(wrong),
        _ => Err(ApiError::missing("DomainName")),
    }
}

/// The settings of an older task: one format, and what `StreamParam` says.
fn older_settings(fields: &mut Fields) -> Result<TemplateSpec, ApiError> {
    let kind = fields.text("RecordType")?.unwrap_or_default().to_lowercase();
    let format = fields.text("FileFormat")?.unwrap_or_default().to_lowercase();
    let format: Format = match format.as_str() {
        "" => Format::Flv,
        format => format
            .parse()
            .map_err(|_| ApiError::value("FileFormat", "must be flv, hls, mp4, aac or mp3"))?,
    };
    let audio = matches!(format, Format::Aac | Format::Mp3);
    match (kind.as_str(), audio) {
        ("" | "video", false) | ("audio", true) => {}
        ("" | "video" | "audio", _) => {
            return Err(ApiError::value(
                "FileFormat",
                format!("{format} does not hold what RecordType asks for"),
            ));
        }
        _ => return Err(ApiError::value("RecordType", "must be video or audio")),
    }
    let mut settings = FormatSettings::default();
    let said = decode_form(&fields.text("StreamParam")?.unwrap_or_default())?;
    let mut said = Fields::from_flat(&said)?;
    if let Some(interval) = said.int("record_interval", 1_800..=7_200)? {
        settings.record_interval_s = u32::try_from(interval).unwrap_or_default();
    }
    if let Some(storage) = said.int("storage_time", 0..=i64::from(MAX_STORAGE_TIME_S))? {
        settings.storage_time_s = u32::try_from(storage).unwrap_or_default();
    }
    said.finish()?;
    let mut spec = TemplateSpec::plain(shared::task::DEFAULT_TEMPLATE, &[]);
    spec.formats.insert(format, settings);
    Ok(spec)
}

pub(super) async fn create_older(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = older_stream(cx, &mut fields).await?;
    let template = older_settings(&mut fields)?;
    let highlight = fields.switch("Highlight")?.unwrap_or(false);
    let mixed = fields.switch("MixStream")?.unwrap_or(false);
    let mut time = |name: &str| match fields.text(name)?.filter(|time| !time.is_empty()) {
        None => Ok(None),
        Some(time) => read_beijing(name, &time).map(Some),
    };
    let (start, end) = (time("StartTime")?, time("EndTime")?);
    fields.finish()?;
    let now = cx.tools.clock.now();
    let (start, end) = if highlight {
        let last = now + Duration::from_millis(HIGHLIGHT_MS.unsigned_abs());
        (None, end.filter(|end| now < *end).map_or(last, |end| end.min(last)))
    } else {
        let start = start.ok_or_else(|| ApiError::missing("StartTime"))?;
        (Some(start), end.ok_or_else(|| ApiError::missing("EndTime"))?)
    };
    let new = NewTask {
        stream,
        start,
        end,
        template_ref: String::new(),
        stream_type: if mixed { StreamType::Mixed } else { StreamType::Push },
        client_token: String::new(),
        require_live: highlight,
    };
    let task = make(cx, new, Some(template)).await?;
    field("TaskId", task.id.number())
}

/// The task that an older action names by its stream name and number.
async fn older_named(cx: &Context<'_>, fields: &mut Fields) -> Result<Task, ApiError> {
    let name = fields.required("StreamName")?;
    let number = fields.required_int("TaskId", 0..=(1 << 48) - 1)?;
    let unknown = || ApiError::new("ResourceNotFound.TaskId", format!("stream {name} has no task {number}"));
    let prefix = keys::tasks_of_millisecond(u64::try_from(number).unwrap_or_default());
    let scanned = cx.tools.repo.store().scan(Scan::prefix(prefix)).await?;
    for entry in &scanned.entries {
        let Ok(id) = keys::last_part(&entry.key).parse() else {
            continue;
        };
        if let Some(task) = cx
            .tools
            .repo
            .task(id)
            .await?
            .filter(|task| task.stream.stream() == name)
        {
            cx.caller.check_domain(task.stream.domain())?;
            return Ok(task);
        }
    }
    Err(unknown())
}

pub(super) async fn stop_older(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let task = older_named(cx, &mut fields).await?;
    fields.finish()?;
    stop_task(cx, task).await?;
    done()
}

/// Only the entry goes: a task that runs must be stopped first.
pub(super) async fn delete_older(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let task = older_named(cx, &mut fields).await?;
    fields.finish()?;
    delete_task(cx, task, false).await?;
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(body: Value) -> Result<TemplateSpec, ApiError> {
        let mut fields = Fields::from_json(body.to_string().as_bytes()).unwrap();
        let spec = older_settings(&mut fields)?;
        fields.finish()?;
        spec.validate().unwrap();
        Ok(spec)
    }

    #[test]
    fn the_older_actions_name_one_format() {
        assert!(settings(json!({})).unwrap().formats.contains_key(&Format::Flv));
        let spec = settings(json!({
            "RecordType": "Audio", "FileFormat": "AAC", "StreamParam": "record_interval=7200&storage_time=60",
        }))
        .unwrap();
        let aac = &spec.formats[&Format::Aac];
        assert_eq!((aac.record_interval_s, aac.storage_time_s), (7_200, 60));
        for (body, code) in [
            (json!({"RecordType": "audio"}), "InvalidParameterValue"),
            (json!({"RecordType": "smell"}), "InvalidParameterValue"),
            (json!({"FileFormat": "avi"}), "InvalidParameterValue"),
            (json!({"FileFormat": "aac"}), "InvalidParameterValue"),
            (json!({"StreamParam": "record_interval=60"}), "InvalidParameterValue"),
            (json!({"StreamParam": "x=1"}), "UnknownParameter"),
        ] {
            assert_eq!(settings(body.clone()).unwrap_err().code(), code, "{body}");
        }
    }
}
