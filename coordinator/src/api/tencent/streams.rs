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
    cx.decide(move |state, moment| -> Result<_, ApiError> { Ok(((), state.drop_stream(&stream, moment.now)?)) })
        .await?;
    done()
}

pub(super) async fn forbid(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let stream = stream(&mut fields)?;
    let until = fields.text("ResumeTime")?.filter(|time| !time.is_empty());
    let until = until.map(|time| read_iso("ResumeTime", &time)).transpose()?;
    let reason = fields.text("Reason")?.unwrap_or_default();
    fields.finish()?;
    cx.caller.check_domain(stream.domain())?;
    cx.decide(move |state, moment| -> Result<_, ApiError> {
        let ban = Ban::new(stream, moment.now, until, reason)?;
        Ok(((), state.forbid(ban, moment.now)?))
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
            DoorError::NoKey => "InvalidParameter",
            DoorError::Until | DoorError::Reason => "InvalidParameterValue",
            DoorError::Store(error) => return error.clone().into(),
        };
        ApiError::new(code, error)
    }
}
