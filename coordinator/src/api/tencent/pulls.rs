//! Pull tasks: streams that are fetched from an origin, as far as a pull source does it: one live source for each stream.

use serde_json::{Value, json};
use shared::{
    ids::{PullId, StreamKey},
    pull::{MadeBy, PullPhase, PullState, PullUrl},
    time::Timestamp,
};

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::Fields,
    streams::{Paging, stream},
    text::{read_iso, utc},
};
use crate::{
    actors::coordinator::Arrange,
    pulls::{NewPull, PullChange, PullError, PullRef, PullView},
};

/// The kind of source that is fetched.
const LIVE: &str = "PullLivePushLive";
/// Longest time between the ends of a task, milliseconds: 30 days.
const MAX_SPAN_MS: i64 = 30 * 86_400_000;
/// Most tasks on a page.
const MAX_PAGE: i64 = 100;
/// Longest URL, characters.
const MAX_URL: usize = shared::pull::MAX_URL_BYTES;
/// Who asks and what for; which news of the task are wanted, of which there are none; how recorded files are played, which are not fetched.
const WITHOUT_EFFECT: [&str; 6] = [
    "Operator",
    "Comment",
    "CallbackEvents",
    "ExtraCmd",
    "VodLoopTimes",
    "VodRefreshType",
];
/// Other sources and goals than one live stream and one stream of this server.
const REFUSED: [&str; 13] = [
    "PushArgs",
    "CallbackUrl",
    "SpecifyTaskId",
    "ToUrl",
    "BackupToUrl",
    "FileIndex",
    "OffsetTime",
    "BackupSourceType",
    "BackupSourceUrl",
    "WatermarkList",
    "VodLocalMode",
    "RecordTemplateId",
    "TranscodeTemplateName",
];

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        let code = match &error {
            PullError::Exists(_) => "ResourceInUse",
            PullError::None(_) => "InvalidParameter.TaskNotExist",
            PullError::TooMany(_) => "InvalidParameter.TaskNumMoreThanLimit",
            PullError::Url(_) => "InvalidParameter.InvalidSourceUrl",
            PullError::Window | PullError::Past => "InvalidParameter.InvalidTaskTime",
            PullError::Store(error) => return error.clone().into(),
        };
        ApiError::new(code, error)
    }
}

/// The one URL of a live source; none where nothing is said.
fn url(fields: &mut Fields) -> Result<Option<PullUrl>, ApiError> {
    let mut urls = fields.texts("SourceUrls", 1, MAX_URL)?;
    let read = |url: String| url.parse::<PullUrl>().map_err(|error| PullError::from(error).into());
    urls.pop().map(read).transpose()
}

/// A moment, if one is given.
fn moment(fields: &mut Fields, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let text = fields.text(name)?.filter(|text| !text.is_empty());
    text.map(|text| read_iso(name, &text)).transpose()
}

/// # Errors
/// The ends of a task lie too far apart, or the wrong way round.
fn check_span(from: Option<Timestamp>, until: Option<Timestamp>) -> Result<(), ApiError> {
    let (Some(from), Some(until)) = (from, until) else {
        return Ok(());
    };
    match until.as_millis().saturating_sub(from.as_millis()) {
        1..=MAX_SPAN_MS => Ok(()),
        _ => Err(ApiError::new(
            "InvalidParameter.InvalidTaskTime",
            "EndTime must lie after StartTime, at most 30 days",
        )),
    }
}

fn task_id(fields: &mut Fields) -> Result<PullId, ApiError> {
    let text = fields.required("TaskId")?;
    text.parse()
        .map_err(|_| ApiError::new("InvalidParameter.InvalidTaskId", format!("TaskId {text:?} is not one")))
}

pub(super) async fn create(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let kind = fields.required("SourceType")?;
    if kind != LIVE {
        return Err(ApiError::unsupported(format!(
            "SourceType {kind:?} is not supported by this server: {LIVE} is"
        )));
    }
    let url = url(&mut fields)?.ok_or_else(|| ApiError::missing("SourceUrls"))?;
    let stream: StreamKey = stream(&mut fields)?;
    let from = moment(&mut fields, "StartTime")?.ok_or_else(|| ApiError::missing("StartTime"))?;
    let until = moment(&mut fields, "EndTime")?.ok_or_else(|| ApiError::missing("EndTime"))?;
    fields.required("Operator")?;
    fields.without_effect(&WITHOUT_EFFECT);
    fields.refuse(&REFUSED)?;
    fields.finish()?;
    check_span(Some(from), Some(until))?;
    cx.caller.check_domain(stream.domain())?;
    let new = NewPull {
        stream,
        url,
        paused: false,
        from: Some(from),
        until: Some(until),
        made_by: MadeBy::Operator,
    };
    let create = Arrange(Box::new(move |pulls, moment| {
        let id = PullId::generate(moment.ids, moment.now);
        let (_, txn) = pulls.create(new, id, moment.now)?;
        Ok((id, None, txn))
    }));
    let id = cx.handle.ask(create).await??;
    field("TaskId", id.to_string())
}

/// The source, if the caller may see it.
async fn seen(cx: &Context<'_>, id: PullId) -> Result<PullView, ApiError> {
    let by = PullRef::Id(id);
    let view = cx.look(move |state| state.pulls.get(&by)).await??;
    match cx.caller.scope.covers(view.source.stream.domain()) {
        true => Ok(view),
        false => Err(PullError::None(PullRef::Id(id)).into()),
    }
}

pub(super) async fn modify(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let id = task_id(&mut fields)?;
    let url = url(&mut fields)?;
    let (from, until) = (moment(&mut fields, "StartTime")?, moment(&mut fields, "EndTime")?);
    let paused = match fields.text("Status")?.as_deref() {
        None | Some("") => None,
        Some("enable") => Some(false),
        Some("pause") => Some(true),
        Some(other) => {
            return Err(ApiError::value(
                "Status",
                format!("is {other:?}, it must be enable or pause"),
            ));
        }
    };
    fields.without_effect(&WITHOUT_EFFECT);
    fields.refuse(&REFUSED)?;
    fields.refuse(&["BackupVodUrl"])?;
    fields.finish()?;
    let before = seen(cx, id).await?.source;
    check_span(from.or(before.from), until.or(before.until))?;
    let change = PullChange {
        url,
        paused,
        from: from.map(Some),
        until: until.map(Some),
        restart: false,
    };
    let update = Arrange(Box::new(move |pulls, moment| {
        let (view, txn) = pulls.update(&PullRef::Id(id), change, moment.now)?;
        Ok(((), view.source.worker, txn))
    }));
    cx.handle.ask(update).await??;
    done()
}

/// Fetches a source anew.
pub(super) async fn restart(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let id = task_id(&mut fields)?;
    fields.without_effect(&["Operator"]);
    fields.finish()?;
    seen(cx, id).await?;
    let change = PullChange {
        restart: true,
        ..PullChange::default()
    };
    let update = Arrange(Box::new(move |pulls, moment| {
        let (view, txn) = pulls.update(&PullRef::Id(id), change, moment.now)?;
        Ok(((), view.source.worker, txn))
    }));
    cx.handle.ask(update).await??;
    done()
}

pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let id = task_id(&mut fields)?;
    fields.required("Operator")?;
    fields.refuse(&["SpecifyTaskId"])?;
    fields.finish()?;
    seen(cx, id).await?;
    let delete = Arrange(Box::new(move |pulls, _| {
        let (worker, txn) = pulls.delete(&PullRef::Id(id))?;
        Ok(((), worker, txn))
    }));
    cx.handle.ask(delete).await??;
    done()
}

fn written(view: &PullView) -> Value {
    let source = &view.source;
    let time = |at: Option<Timestamp>| at.map_or_else(String::new, utc);
    json!({
        "TaskId": source.id.to_string(),
        "SourceType": LIVE,
        // Without what it holds of passwords.
        "SourceUrls": [source.url.to_string()],
        "DomainName": source.stream.domain(),
        "AppName": source.stream.app(),
        "StreamName": source.stream.stream(),
        "PushArgs": "",
        "StartTime": time(source.from),
        "EndTime": time(source.until),
        "Region": "",
        "VodLoopTimes": 0,
        "VodRefreshType": "",
        "CreateTime": utc(source.created),
        "UpdateTime": utc(source.updated),
        "CreateBy": "",
        "UpdateBy": "",
        "CallbackUrl": "",
        "CallbackEvents": [],
        "CallbackInfo": "",
        "ErrorInfo": view.status.as_ref().map_or("", |status| status.error.as_str()),
        "Status": if source.paused { "pause" } else { "enable" },
        "Comment": "",
        "BackupSourceType": "",
        "BackupSourceUrl": "",
        "VodLocalMode": 0,
    })
}

pub(super) async fn list(cx: &Context<'_>, mut fields: Fields) -> Answer {
    // What is no id names no task.
    let wanted = fields.text("TaskId")?.filter(|id| !id.is_empty());
    let wanted = wanted.map(|text| text.parse::<PullId>().ok());
    let paging = Paging::read(&mut fields, 1..=MAX_PAGE)?;
    fields.refuse(&["SpecifyTaskId"])?;
    fields.finish()?;
    let scope = cx.caller.scope.clone();
    let all: Vec<PullView> = cx
        .look(move |state| {
            let fits = |view: &PullView| {
                view.source.made_by == MadeBy::Operator
                    && scope.covers(view.source.stream.domain())
                    && wanted.is_none_or(|wanted| wanted == Some(view.source.id))
            };
            state.pulls.list(None).filter(fits).collect()
        })
        .await?;
    let (page, mut out) = paging.cut(all);
    out.insert("TaskInfos".to_owned(), page.iter().map(written).collect());
    out.insert("LimitTaskNum".to_owned(), json!(cx.tools.config.max_pulls));
    Ok(out)
}

pub(super) async fn status(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let id = task_id(&mut fields)?;
    fields.finish()?;
    let view = seen(cx, id).await?;
    let now = cx.tools.clock.now();
    let runs = view.source.phase(now) == PullPhase::Active
        && view
            .status
            .as_ref()
            .is_some_and(|status| status.state == PullState::Live);
    field(
        "TaskStatusInfo",
        json!({
            "FileUrl": view.source.url.to_string(),
            "LoopedTimes": 0,
            "OffsetTime": 0,
            "ReportTime": utc(now),
            "RunStatus": if runs { "active" } else { "inactive" },
            "FileDuration": 0,
            "NextFileUrl": "",
        }),
    )
}
