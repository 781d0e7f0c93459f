//! `DescribeCallbackRecordsList`: which events were sent, and what came of them.

use std::time::Duration;

use serde_json::{Value, json};
use shared::time::Timestamp;

use super::{
    actions::{Answer, Context},
    error::ApiError,
    params::Fields,
    streams::Paging,
    text::{beijing, read_beijing, read_iso, utc},
};
use crate::events::{
    desk::{self, Found},
    letter::{Event, Letter, Outcome},
};

/// Longest time that is looked at.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Most changes that are looked at.
const LOOK_AT: usize = 20_000;

/// A time in either way of writing; true: it was the one with its zone.
fn time(fields: &mut Fields, name: &str) -> Result<(Timestamp, bool), ApiError> {
    let text = fields.required(name)?;
    match text.contains('T') {
        true => Ok((read_iso(name, &text)?, true)),
        false => Ok((read_beijing(name, &text)?, false)),
    }
}

pub(super) async fn callbacks(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let (from, iso) = time(&mut fields, "StartTime")?;
    let (to, _) = time(&mut fields, "EndTime")?;
    let stream = fields.required("StreamName")?;
    let kind = fields.int("EventType", 0..=i64::from(u32::MAX))?;
    let code = fields.int("ResultCode", i64::MIN..=i64::MAX)?;
    let paging = Paging::read(&mut fields, 1..=1_000)?;
    fields.finish()?;
    if to < from || to > from + LONGEST {
        return Err(ApiError::value(
            "EndTime",
            "must be at or behind StartTime, at most one day",
        ));
    }
    let fits = |letter: &Letter, event: &Event| {
        event.tried.is_some()
            && letter.stream.stream() == stream
            && cx.caller.scope.covers(letter.stream.domain())
            && kind.is_none_or(|kind| i64::from(event.kind.number()) == kind)
            && code.is_none_or(|code| (code == 0) == (result(event) == 0))
    };
    let found = desk::between(&cx.tools.repo, (from, to), LOOK_AT, fits).await?;
    let Some(all) = found else {
        return Err(ApiError::new(
            "LimitExceeded",
            format!("there were more than {LOOK_AT} changes in that time: ask for a shorter one"),
        ));
    };
    let (page, mut out) = paging.cut(all);
    let page: Vec<Value> = page.iter().map(|found| written(found, iso)).collect();
    out.insert("DataInfoList".to_owned(), page.into());
    Ok(out)
}

/// 0: it was delivered.
fn result(event: &Event) -> u8 {
    u8::from(event.outcome != Some(Outcome::Delivered))
}

fn written(found: &Found, iso: bool) -> Value {
    let time = |at: Timestamp| if iso { utc(at) } else { beijing(at) };
    let Found { letter, event } = found;
    json!({
        "EventTime": time(letter.at),
        "EventType": event.kind.number(),
        "Request": Value::Object(event.body.clone()).to_string(),
        // What a receiver answers is not kept, why it did not count is.
        "Response": event.problem,
        "ResponseTime": event.tried.map_or_else(String::new, time),
        "ResultCode": result(event),
        "StreamId": letter.stream.stream(),
    })
}
