//! Finding recorded media, and saying things about it.

mod compose;
mod query;
mod search;

use std::time::Duration;

use serde_json::{Map, Value, json};
use shared::{
    ids::FileId,
    recording::MediaFile,
    store::{RemovalError, Txn, keys},
    time::Timestamp,
};

use self::query::{Blocks, category};
use super::{
    actions::{Answer, Context, done},
    error::ApiError,
    params::Fields,
    text::{read_iso, utc},
};

use crate::media::{note::Note, place::depth};

pub(super) use compose::{compose, describe_task};
pub(super) use search::search;

/// The year that means never.
const NEVER: &str = "9999-12-31T23:59:59Z";
/// Most tags of a file.
const MAX_TAGS: usize = 16;

/// A file of the library with its note; none for what is not there or belongs to a domain that the caller's key is not for.
async fn find(cx: &Context<'_>, id: FileId) -> Result<Option<(MediaFile, Note)>, ApiError> {
    let Some(file) = cx.tools.repo.file(id).await? else {
        return Ok(None);
    };
    if !cx.caller.scope.covers(file.stream.domain()) {
        return Ok(None);
    }
    let note = note(cx, id).await?;
    Ok(Some((file, note)))
}

async fn note(cx: &Context<'_>, id: FileId) -> Result<Note, ApiError> {
    let known = cx.tools.repo.get::<Note>(&keys::media_note(id)).await?;
    Ok(known.map(|(note, _)| note).unwrap_or_default())
}

pub(super) async fn describe(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let ids = fields.texts("FileIds", usize::MAX, 64)?;
    let blocks = Blocks::read(&mut fields)?;
    fields.without_effect(&["SubAppId"]);
    fields.finish()?;
    if ids.is_empty() {
        return Err(ApiError::new("InvalidParameterValue.FileIdsEmpty", "FileIds is empty"));
    }
    if ids.len() > 20 {
        let problem = format!("FileIds has {} members, at most 20 are allowed", ids.len());
        return Err(ApiError::new("InvalidParameterValue.FileIdsOverLimit", problem));
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for text in ids {
        let known = match text.parse() {
            Ok(id) => find(cx, id).await?,
            Err(_) => None,
        };
        match known {
            Some((file, note)) => found.push(written(cx, &file, &note, blocks)),
            None => missing.push(text),
        }
    }
    Ok(Map::from_iter([
        ("MediaInfoSet".to_owned(), found.into()),
        ("NotExistFileIdSet".to_owned(), missing.into()),
    ]))
}

pub(super) async fn modify(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let text = fields.required("FileId")?;
    let name = limited(&mut fields, "Name", 64)?;
    let description = limited(&mut fields, "Description", 128)?;
    let expires = match fields.text("ExpireTime")?.as_deref() {
        None | Some("") => None,
        Some(NEVER) => Some(None),
        Some(time) => Some(Some(
            read_iso("ExpireTime", time).map_err(|error| error.of("ExpireTime"))?,
        )),
    };
    let tag = |error: ApiError| match error.code() {
        "InvalidParameterValue" => ApiError::new("InvalidParameterValue.TagTooLong", error.message()),
        _ => error,
    };
    let add = fields.texts("AddTags", 1_000, 32).map_err(tag)?;
    let delete = fields.texts("DeleteTags", 1_000, 32).map_err(tag)?;
    let clear = fields.switch("ClearTags")?.unwrap_or(false);
    for (other, code) in [
        (clear, "InvalidParameterValue.AddTagsAndClearTagsConflict"),
        (!delete.is_empty(), "InvalidParameterValue.AddTagsAndDeleteTagsConflict"),
    ] {
        if !add.is_empty() && other {
            return Err(ApiError::new(
                code,
                "tags are added and taken away at once: send two requests",
            ));
        }
    }
    fields.without_effect(&["SubAppId", "ClassId"]);
    fields.refuse(&[
        "CoverData",
        "AddKeyFrameDescs",
        "DeleteKeyFrameDescs",
        "ClearKeyFrameDescs",
        "AddSubtitles",
        "DeleteSubtitleIds",
        "ClearSubtitles",
        "DeleteKnowledgeBases",
        "ClearKnowledgeBases",
    ])?;
    fields.finish()?;
    let known = match text.parse() {
        Ok(id) => find(cx, id).await?,
        Err(_) => None,
    };
    let Some((file, mut note)) = known else {
        return Err(ApiError::new(
            "ResourceNotFound.FileNotExist",
            format!("there is no file {text}"),
        ));
    };
    note.name = name.or(note.name);
    note.description = description.unwrap_or(note.description);
    note.updated = Some(cx.tools.clock.now());
    note.tags.retain(|tag| !clear && !delete.contains(tag));
    for tag in add {
        if !note.tags.contains(&tag) {
            note.tags.push(tag);
        }
    }
    if note.tags.len() > MAX_TAGS {
        return Err(ApiError::new(
            "LimitExceeded.TagCountReachMax",
            format!(
                "the file would have {} tags, at most {MAX_TAGS} are allowed",
                note.tags.len()
            ),
        ));
    }
    if let Some(expires) = expires {
        // Not below zero: the index by time counts from there.
        let expires = expires.map(|at: Timestamp| at.max(Timestamp::default()));
        let changed = cx.tools.repo.change_file(file.id, |file| file.expires = expires).await;
        changed.map_err(|error| match error {
            RemovalError::Store(error) => error.into(),
            other => ApiError::new("ResourceNotFound.FileNotExist", other.to_string()),
        })?;
    }
    let key = keys::media_note(file.id);
    cx.decide(move |_, _| -> Result<_, ApiError> { Ok(((), Txn::new().put_json(key, &note)?)) })
        .await?;
    Ok(Map::from_iter([
        ("CoverUrl".to_owned(), json!("")),
        ("AddedSubtitleSet".to_owned(), json!([])),
    ]))
}

/// Removes a file. One whose recording runs stays: the recording counts its files when it ends.
pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let text = fields.required("FileId")?;
    for mut part in fields.blocks("DeleteParts", 10)? {
        let kind = part.required("Type")?;
        part.without_effect(&["Definition"]);
        part.finish()?;
        if kind != "OriginalFiles" {
            return Err(ApiError::unsupported(format!(
                "DeleteParts of type {kind:?}: there are only OriginalFiles here"
            )));
        }
    }
    fields.without_effect(&["SubAppId"]);
    fields.finish()?;
    let known = match text.parse() {
        Ok(id) => find(cx, id).await?,
        Err(_) => None,
    };
    let Some((file, _)) = known else {
        return Err(ApiError::new("ResourceNotFound", format!("there is no file {text}")));
    };
    match cx.tools.remove(file.id).await {
        Ok(()) => done(),
        Err(RemovalError::NoFile(_)) => Err(ApiError::new("ResourceNotFound", format!("there is no file {text}"))),
        Err(RemovalError::Store(error)) => Err(error.into()),
        Err(error) => Err(ApiError::new("FailedOperation", error.to_string())),
    }
}

fn limited(fields: &mut Fields, name: &'static str, most: usize) -> Result<Option<String>, ApiError> {
    match fields.text(name)? {
        Some(text) if text.chars().count() > most => {
            Err(ApiError::value(name, format!("has more than {most} characters")).of(name))
        }
        text => Ok(text),
    }
}

/// A file as answers show it.
fn written(cx: &Context<'_>, file: &MediaFile, note: &Note, blocks: Blocks) -> Value {
    let mut out = Map::from_iter([("FileId".to_owned(), json!(file.id.to_string()))]);
    if blocks.basic {
        out.insert("BasicInfo".to_owned(), basic(cx, file, note));
    }
    if blocks.meta {
        out.insert("MetaData".to_owned(), meta(file));
    }
    out.into()
}

fn basic(cx: &Context<'_>, file: &MediaFile, note: &Note) -> Value {
    json!({
        "Name": note.name(file),
        "Description": note.description,
        "CreateTime": utc(file.committed),
        "UpdateTime": utc(note.updated.unwrap_or(file.committed)),
        "ExpireTime": file.expires.map_or_else(|| NEVER.to_owned(), utc),
        "ClassId": 0,
        "ClassName": "",
        "ClassPath": "",
        "CoverUrl": "",
        "Type": file.format.extension(),
        "MediaUrl": media_url(cx, file, note, cx.tools.clock.now()),
        "SourceInfo": {
            "SourceType": "Record",
            "SourceContext": "",
            "LiveRecordInfo": {
                "Domain": file.stream.domain(),
                "Path": file.stream.app(),
                "StreamId": file.stream.stream(),
                "RecordStartTime": utc(file.start),
                "RecordEndTime": utc(file.end),
            },
        },
        "StorageRegion": "",
        "StoragePath": file.object_key,
        "TagSet": note.tags,
        "Vid": file.id.to_string(),
        "Category": category(file.format),
        "Status": "Normal",
        "StorageClass": "STANDARD",
    })
}

fn meta(file: &MediaFile) -> Value {
    let bits = u128::from(file.size) * 8_000;
    let bitrate = bits.checked_div(u128::from(file.duration_ms)).unwrap_or(0);
    let seconds = Duration::from_millis(file.duration_ms).as_secs_f64();
    json!({
        "Size": file.size,
        "Container": file.format.extension(),
        "Bitrate": u64::try_from(bitrate).unwrap_or(u64::MAX),
        "Duration": seconds,
    })
}

fn media_url(cx: &Context<'_>, file: &MediaFile, note: &Note, now: Timestamp) -> String {
    let expires = now + cx.tools.config.media_link_ttl;
    let path = cx.links.path(file.id, &depth(file), note.name(file), expires);
    format!("{}{path}", cx.public_url)
}
