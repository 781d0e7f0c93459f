//! `ComposeMedia` and `DescribeTaskDetail`: recordings joined, and cut at key pictures. What would need coding is refused by name.

use serde_json::{Map, Value, json};
use shared::{
    composition::{Composition, CompositionState},
    ids::{FileId, RecordingId},
    time::Timestamp,
};

use super::{find, media_url, meta};
use crate::{
    api::{
        compose::{Asked, Part, Refused},
        tencent::{
            actions::{Answer, Context, field},
            error::ApiError,
            params::Fields,
            text::{read_iso, utc},
        },
    },
    compositions::CompositionError,
};

/// Most tracks that the protocol has.
const MAX_TRACKS: usize = 30;
/// Most items of a track that the protocol has.
const MAX_ITEMS: usize = 500;
/// Longest time that is taken, seconds: a year.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

pub(in crate::api::tencent) async fn compose(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let parts = parts(&mut fields)?;
    let token = fields.text("SessionId")?.unwrap_or_default();
    let context = fields.text("SessionContext")?.unwrap_or_default();
    fields.without_effect(&["SubAppId"]);
    fields.refuse(&["Canvas"])?;
    let mut output = fields.block("Output")?.ok_or_else(|| ApiError::missing("Output"))?;
    let name = output.required("FileName")?;
    let description = output.text("Description")?.unwrap_or_default();
    let container = output.text("Container")?.unwrap_or_default();
    if !matches!(container.as_str(), "" | "mp4") {
        return Err(ApiError::unsupported(
            "Output.Container: only mp4 is made without coding anew",
        ));
    }
    let without = |output: &mut Fields, name: &str| Ok::<_, ApiError>(output.switch(name)?.unwrap_or(false));
    let (video, audio) = (
        !without(&mut output, "RemoveVideo")?,
        !without(&mut output, "RemoveAudio")?,
    );
    output.without_effect(&["ClassId"]);
    let expires = expiry(&mut output, cx.tools.clock.now())?;
    output.refuse(&["VideoStream", "AudioStream"])?;
    output.finish()?;
    fields.finish()?;
    let asked = Asked {
        parts,
        name,
        description,
        video,
        audio,
        token,
        context,
        expires,
    };
    let scope = cx.caller.scope.clone();
    let new = asked
        .resolve(&cx.tools.repo, |file| scope.covers(file.stream.domain()))
        .await?;
    let made = cx
        .decide(move |state, moment| Ok(state.compositions.create(new, moment.now, moment.ids)?))
        .await?;
    field("TaskId", made.id.to_string())
}

/// When the new file goes; none: never.
fn expiry(output: &mut Fields, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let text = output.text("ExpireTime")?.unwrap_or_default();
    if matches!(text.as_str(), "" | super::NEVER) {
        return Ok(None);
    }
    let at = read_iso("Output.ExpireTime", &text)?;
    match at > now {
        true => Ok(Some(at)),
        false => Err(ApiError::value("Output.ExpireTime", format!("{text} has passed"))),
    }
}

/// The items of the one track that can be joined as it is.
fn parts(fields: &mut Fields) -> Result<Vec<Part>, ApiError> {
    let mut tracks = fields.blocks("Tracks", MAX_TRACKS)?;
    let Some(mut track) = tracks.pop() else {
        return Err(ApiError::missing("Tracks"));
    };
    if !tracks.is_empty() {
        return Err(ApiError::unsupported(
            "Tracks: several are layers or mixed sound, which would have to be coded anew; give one",
        ));
    }
    let kind = track.required("Type")?;
    let item = match kind.as_str() {
        "Video" => "VideoItem",
        "Audio" => "AudioItem",
        _ => {
            return Err(ApiError::unsupported(format!(
                "Tracks.0.Type: {kind:?} would have to be coded; give Video or Audio"
            )));
        }
    };
    let items = track.blocks("TrackItems", MAX_ITEMS)?;
    track.finish()?;
    let parts = items.into_iter().map(|fields| part(fields, &kind, item));
    parts.collect()
}

fn part(mut fields: Fields, kind: &str, item: &str) -> Result<Part, ApiError> {
    let said = fields.required("Type")?;
    if said != kind {
        return Err(ApiError::unsupported(format!(
            "TrackItems of type {said:?} in a track of type {kind}: only pieces of files are joined"
        )));
    }
    let mut block = fields.block(item)?.ok_or_else(|| ApiError::missing(item))?;
    fields.refuse(&["VideoItem", "AudioItem", "StickerItem", "TransitionItem", "EmptyItem"])?;
    fields.finish()?;
    let source = block.required("SourceMedia")?;
    let file: FileId = source.parse().map_err(|_| match source.contains("://") {
        true => {
            ApiError::unsupported("SourceMedia: files of the library are joined, by their FileId; URLs are not fetched")
        }
        false => ApiError::new("ResourceNotFound", format!("there is no file {source}")),
    })?;
    let from_ms = millis(&mut block, "SourceMediaStartTime")?.unwrap_or(0);
    let for_ms = millis(&mut block, "Duration")?;
    let target = millis(&mut block, "TargetDuration")?;
    if target.is_some_and(|target| target != 0 && Some(target) != for_ms) {
        return Err(ApiError::unsupported(
            "TargetDuration: another speed would have to be coded anew",
        ));
    }
    block.refuse(&[
        "CoordinateOrigin",
        "XPos",
        "YPos",
        "Width",
        "Height",
        "AudioOperations",
        "ImageOperations",
    ])?;
    block.finish()?;
    Ok(Part {
        file,
        from_ms,
        // As documented, nothing said is the whole.
        for_ms: for_ms.filter(|length| *length > 0),
    })
}

fn millis(fields: &mut Fields, name: &str) -> Result<Option<u64>, ApiError> {
    match fields.number(name)? {
        None => Ok(None),
        Some(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            let length = std::time::Duration::from_secs_f64(seconds).as_millis();
            Ok(u64::try_from(length).ok())
        }
        Some(seconds) => Err(ApiError::new(
            "InvalidParameterValue.ClipDuration",
            format!("{name} is {seconds} s, it must be 0 to {MAX_SECONDS} s"),
        )),
    }
}

impl From<Refused> for ApiError {
    fn from(error: Refused) -> Self {
        let code = match &error {
            Refused::Field { field: "context", .. } => "InvalidParameterValue.SessionContextTooLong",
            Refused::Field { field: "token", .. } => "InvalidParameterValue.SessionId",
            Refused::Field { .. } => "InvalidParameterValue",
            Refused::Span(_) => "InvalidParameterValue.ClipDuration",
            Refused::NoFile(_) => "ResourceNotFound",
            Refused::Store(error) => return error.clone().into(),
        };
        ApiError::new(code, error)
    }
}

impl From<CompositionError> for ApiError {
    fn from(error: CompositionError) -> Self {
        let code = match &error {
            CompositionError::TokenTaken(_) => "InvalidParameterValue.SessionId",
            CompositionError::TooManyOpen | CompositionError::TooManyKept => "LimitExceeded",
            CompositionError::Store(error) => return error.clone().into(),
        };
        ApiError::new(code, error)
    }
}

pub(in crate::api::tencent) async fn describe_task(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let text = fields.required("TaskId")?;
    fields.without_effect(&["SubAppId"]);
    fields.finish()?;
    let missing = || {
        ApiError::new(
            "ResourceNotFound",
            format!("there is no task {text}, or it ended more than three days ago"),
        )
    };
    let id: RecordingId = text.parse().map_err(|_| missing())?;
    let found = cx
        .look(move |state| {
            state
                .compositions
                .get(id)
                .map(|(one, progress)| (one.clone(), progress))
        })
        .await?;
    let (one, progress) = found
        .filter(|(one, _)| cx.caller.scope.covers(one.new.stream.domain()))
        .ok_or_else(missing)?;
    let time = |at: Option<shared::time::Timestamp>| at.map_or_else(String::new, utc);
    let mut out = Map::from_iter([
        ("TaskType".to_owned(), json!("ComposeMedia")),
        ("Status".to_owned(), json!(status(one.state))),
        ("CreateTime".to_owned(), json!(utc(one.created))),
        ("BeginProcessTime".to_owned(), json!(time(one.begun))),
        ("FinishTime".to_owned(), json!(time(one.ended))),
    ]);
    out.insert("ComposeMediaTask".to_owned(), task(cx, &one, progress).await?);
    Ok(out)
}

const fn status(state: CompositionState) -> &'static str {
    match state {
        CompositionState::Waiting => "WAITING",
        CompositionState::Running => "PROCESSING",
        CompositionState::Finished => "FINISH",
        CompositionState::Failed => "ABORTED",
    }
}

/// The number of why one failed; 0: it did not.
fn number(problem: &str) -> u32 {
    match problem {
        "" => 0,
        "source_missing" => 1,
        "source_damaged" => 2,
        "not_joinable" => 3,
        "empty" => 4,
        _ => 5,
    }
}

async fn task(cx: &Context<'_>, one: &Composition, progress: u8) -> Result<Value, ApiError> {
    let made = match one.file() {
        Some(id) => find(cx, id).await?,
        None => None,
    };
    let output = made.as_ref().map(|(file, note)| {
        json!({
            "FileType": file.format.extension(),
            "FileId": file.id.to_string(),
            "FileUrl": media_url(cx, file, note, cx.tools.clock.now()),
            "MediaName": note.name(file),
            "ClassId": 0,
            "ExpireTime": file.expires.map_or_else(|| super::NEVER.to_owned(), utc),
        })
    });
    let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
    let items = one.new.pieces.iter().map(|piece| {
        json!({
            "Type": "Video",
            "VideoItem": {
                "SourceMedia": piece.file.to_string(),
                "SourceMediaStartTime": seconds(piece.from_ms),
                "Duration": seconds(piece.for_ms.unwrap_or(0)),
            },
        })
    });
    let items: Vec<Value> = items.collect();
    Ok(json!({
        "TaskId": one.id.to_string(),
        "Status": status(one.state),
        "ErrCode": number(one.problem_name()),
        "Message": one.problem,
        "Progress": progress,
        "Input": {
            "Tracks": [{"Type": "Video", "TrackItems": items}],
            "Output": {
                "FileName": one.new.name,
                "Description": one.new.description,
                "ExpireTime": one.new.expires.map_or_else(|| super::NEVER.to_owned(), utc),
                "Container": "mp4",
                "RemoveVideo": u8::from(!one.new.video),
                "RemoveAudio": u8::from(!one.new.audio),
            },
        },
        "Output": output,
        "MetaData": made.as_ref().map(|(file, _)| meta(file)),
        "SessionId": one.new.token,
        "SessionContext": one.new.context,
    }))
}
