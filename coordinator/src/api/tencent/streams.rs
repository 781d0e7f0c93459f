//! Streams that are live, and which may not be.

use serde_json::{Map, Value, json};
use shared::{
    ids::{StreamKey, check_domain},
    time::Timestamp,
};

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::Fields,
    text::{read_iso, utc},
};
use crate::doors::{Ban, DoorError};

/// How long a stream is forbidden where nothing else is said, milliseconds: 7 days.
const DEFAULT_BAN_MS: i64 = 7 * 86_400_000;
/// How long a stream may be forbidden, milliseconds: 90 days.
const MAX_BAN_MS: i64 = 90 * 86_400_000;
/// Longest reason of a ban, bytes.
const MAX_REASON: usize = 2_048;

/// Page number and size, both counted from 1.
pub(super) struct Paging {
    pub(super) number: usize,
    pub(super) size: usize,
}

impl Paging {
    pub(super) fn read(fields: &mut Fields, sizes: std::ops::RangeInclusive<i64>) -> Result<Self, ApiError> {
        let number = fields.int("PageNum", 1..=100_000)?.unwrap_or(1);
        let size = fields.int("PageSize", sizes)?.unwrap_or(10);
        Ok(Paging {
            number: usize::try_from(number).unwrap_or(1),
            size: usize::try_from(size).unwrap_or(10),
        })
    }

    /// The page's entries, and the fields that tell where it stands.
    pub(super) fn cut<T>(&self, all: Vec<T>) -> (Vec<T>, Map<String, Value>) {
        let total = all.len();
        let before = (self.number - 1).saturating_mul(self.size);
        let page = all.into_iter().skip(before).take(self.size).collect();
        let told = [
            ("PageNum", self.number),
            ("PageSize", self.size),
            ("TotalNum", total),
            ("TotalPage", total.div_ceil(self.size)),
        ];
        let told = told.map(|(name, number)| (name.to_owned(), json!(number)));
        (page, Map::from_iter(told))
    }
}

/// Domain, application and stream name, all of which must be there.
pub(super) fn stream(fields: &mut Fields) -> Result<StreamKey, ApiError> {
    let (domain, app, stream) = (
        fields.required("DomainName")?,
        fields.required("AppName")?,
        fields.required("StreamName")?,
    );
    StreamKey::new(&domain, &app, &stream).map_err(|error| ApiError::new("InvalidParameterValue", error))
}

/// A filter by domain, in lower case.
pub(super) fn optional_domain(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    match fields.text("DomainName")?.filter(|name| !name.is_empty()) {
        None => Ok(None),
        Some(name) => check_domain(&name)
            .map(Some)
            .map_err(|error| ApiError::new("InvalidParameterValue", error)),
    }
}

pub(super) async fn online(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let domain = optional_domain(&mut fields)?;
    let app = fields.text("AppName")?.unwrap_or_else(|| "live".to_owned());
    let name = fields.text("StreamName")?.filter(|name| !name.is_empty());
    let paging = Paging::read(&mut fields, 10..=300_000)?;
    fields.finish()?;
    let scope = cx.caller.scope.clone();
    let live: Vec<(StreamKey, Timestamp)> = cx
        .look(move |state| {
            let fits = |stream: &StreamKey| {
                scope.covers(stream.domain())
                    && domain.as_ref().is_none_or(|domain| domain == stream.domain())
                    && (app.is_empty() || app == stream.app())
                    && name.as_ref().is_none_or(|name| name == stream.stream())
            };
            let live = state.leases.streams().map(|live| &live.record);
            live.filter(|record| fits(&record.stream))
                .map(|record| (record.stream.clone(), record.started))
                .collect()
        })
        .await?;
    let (page, mut out) = paging.cut(live);
    let page: Vec<Value> = page
        .into_iter()
        .map(|(stream, started)| {
            json!({
                "StreamName": stream.stream(),
                "AppName": stream.app(),
                "DomainName": stream.domain(),
                "PublishTimeList": [{"PublishTime": utc(started)}],
                "PushToDelay": 0,
            })
        })
        .collect();
    out.insert("OnlineInfo".to_owned(), page.into());
    Ok(out)
}

pub(super) async fn state(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = stream(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(stream.domain())?;
    let now = cx.tools.clock.now();
    let state = cx
        .look(move |state| {
            if state.doors.ban_of(&stream, now).is_some() {
                "forbid"
            } else if state.leases.holder(&stream).is_some() {
                "active"
            } else {
                "inactive"
            }
        })
        .await?;
    field("StreamState", state)
}

pub(super) async fn drop_stream(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = stream(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(stream.domain())?;
    cx.decide(move |state, moment| -> Result<_, ApiError> {
        let reason = "dropped through the API (21, 100)";
        Ok(((), state.leases.evict(&stream, reason, moment.now)?))
    })
    .await?;
    done()
}

pub(super) async fn forbid(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = stream(&mut fields)?;
    let now = cx.tools.clock.now();
    let until = match fields.text("ResumeTime")?.filter(|time| !time.is_empty()) {
        None => Timestamp::from_millis(now.as_millis().saturating_add(DEFAULT_BAN_MS)),
        Some(time) => read_iso("ResumeTime", &time)?,
    };
    let length = until.as_millis().saturating_sub(now.as_millis());
    if !(1..=MAX_BAN_MS).contains(&length) {
        return Err(ApiError::value("ResumeTime", "must lie ahead, at most 90 days"));
    }
    let reason = fields.text("Reason")?.unwrap_or_default();
    if reason.len() > MAX_REASON {
        return Err(ApiError::value("Reason", format!("has more than {MAX_REASON} bytes")));
    }
    fields.finish()?;
    cx.caller.check_domain(stream.domain())?;
    cx.decide(move |state, moment| -> Result<_, ApiError> {
        let ban = Ban {
            stream: stream.clone(),
            created: moment.now,
            until,
            reason,
        };
        let mut txn = state.doors.forbid(ban)?;
        let evicted = state
            .leases
            .evict(&stream, "forbidden through the API (21, 101)", moment.now)?;
        txn.ops.extend(evicted.ops);
        Ok(((), txn))
    })
    .await?;
    done()
}

pub(super) async fn resume(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = stream(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(stream.domain())?;
    cx.decide(move |state, _| -> Result<_, ApiError> { Ok(((), state.doors.resume(&stream))) })
        .await?;
    done()
}

pub(super) async fn forbidden(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let name = fields.text("StreamName")?.filter(|name| !name.is_empty());
    let paging = Paging::read(&mut fields, 1..=100)?;
    fields.finish()?;
    let scope = cx.caller.scope.clone();
    let now = cx.tools.clock.now();
    let bans: Vec<Ban> = cx
        .look(move |state| {
            let fits = |ban: &&Ban| {
                scope.covers(ban.stream.domain())
                    && now < ban.until
                    && name.as_ref().is_none_or(|name| name == ban.stream.stream())
            };
            state.doors.bans().filter(fits).cloned().collect()
        })
        .await?;
    let (page, mut out) = paging.cut(bans);
    let page: Vec<Value> = page
        .into_iter()
        .map(|ban| {
            json!({
                "StreamName": ban.stream.stream(),
                "AppName": ban.stream.app(),
                "DomainName": ban.stream.domain(),
                "CreateTime": utc(ban.created),
                "ExpireTime": utc(ban.until),
            })
        })
        .collect();
    out.insert("ForbidStreamList".to_owned(), page.into());
    Ok(out)
}

impl From<DoorError> for ApiError {
    fn from(error: DoorError) -> Self {
        let code = match &error {
            DoorError::Known(_) => "FailedOperation.DomainAdded",
            DoorError::Unknown(_) => "ResourceNotFound.DomainNotExist",
            DoorError::TooManyDomains => "FailedOperation.HostOutLimit",
            DoorError::TooManyBans => "LimitExceeded",
            DoorError::Store(error) => return error.clone().into(),
        };
        ApiError::new(code, error)
    }
}
