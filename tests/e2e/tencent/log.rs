//! `DescribeCallbackRecordsList`: what was sent to receivers, and what came of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::receiver::{Answer, Receiver};
use support::tencent::{Client, Key, Sdk};
use support::wait::{Seen, until};

use super::media::record;
use super::{DOMAIN, now};
use crate::{data, setup};

fn at(seconds: u64) -> Result<jiff::Timestamp> {
    Ok(jiff::Timestamp::from_second(i64::try_from(seconds)?)?)
}

fn listed(sdk: &mut Sdk, more: Value) -> Result<(Vec<Value>, Value)> {
    let mut all = json!({
        "StartTime": at(now()? - 60)?.to_string(),
        "EndTime": at(now()? + 60)?.to_string(),
        "StreamName": "told",
        "PageNum": 1,
        "PageSize": 50,
    });
    if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    let said = sdk.ask("live", "DescribeCallbackRecordsList", &all)?;
    let list = said["DataInfoList"].as_array().context("no DataInfoList")?.clone();
    Ok((list, said))
}

#[test]
fn what_was_sent_is_listed_with_what_came_of_it() -> Result<()> {
    let (_folder, data) = data()?;
    let near = [
        "--set",
        "coordinator.events.allow=127.0.0.0/8",
        "--set",
        "coordinator.events.retries=0",
    ];
    let server = setup(&data).record("flv").args(&near).start()?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &Key::create(&server, &[])?)?;
    // It refuses to hear of ends.
    let receiver = Receiver::scripted(|heard| match heard.kind() {
        0 => Answer::Status(500),
        _ => Answer::Take,
    })?;
    let template = json!({
        "TemplateName": "told",
        "StreamBeginNotifyUrl": receiver.url("/begin"),
        "StreamEndNotifyUrl": receiver.url("/end"),
        "RecordNotifyUrl": receiver.url("/record"),
    });
    let id = sdk.ask("live", "CreateLiveCallbackTemplate", &template)?["TemplateId"].clone();
    let rule = json!({"DomainName": DOMAIN, "AppName": "live", "TemplateId": id});
    sdk.ask("live", "CreateLiveCallbackRule", &rule)?;
    record(&server, "live", "told", 1)?;
    let all = until(Duration::from_secs(30), "three events that were sent", || {
        let (list, said) = listed(&mut sdk, json!({}))?;
        Ok(Seen::some((list.len() == 3).then_some(list), format!("{said}")))
    })?;
    for (kind, result) in [(1, 0), (0, 1), (100, 0)] {
        let of_kind: Vec<&Value> = all.iter().filter(|event| event["EventType"] == kind).collect();
        let [event] = of_kind.as_slice() else {
            anyhow::bail!("{kind}: {all:#?}");
        };
        ensure!(event["ResultCode"] == result && event["StreamId"] == "told", "{event}");
        let sent: Value = serde_json::from_str(event["Request"].as_str().context("no request")?)?;
        ensure!(sent["event_type"] == kind && sent["stream_id"] == "told", "{event}");
        let said = event["Response"].as_str().unwrap_or_default();
        ensure!(said.contains("500") == (result == 1), "{event}");
        ensure!(
            event["EventTime"].as_str().is_some_and(|time| time.ends_with('Z')),
            "{event}"
        );
        let (found, _) = listed(&mut sdk, json!({"EventType": kind}))?;
        ensure!(found.len() == 1 && found[0] == **event, "{found:#?}");
    }
    ensure!(listed(&mut sdk, json!({"ResultCode": 0}))?.0.len() == 2, "delivered");
    ensure!(
        listed(&mut sdk, json!({"ResultCode": 7}))?.0.len() == 1,
        "any other is failed"
    );
    ensure!(
        listed(&mut sdk, json!({"StreamName": "tol"}))?.0.is_empty(),
        "names are exact"
    );
    let (page, said) = listed(&mut sdk, json!({"PageNum": 2, "PageSize": 2}))?;
    ensure!(
        page.len() == 1 && said["TotalNum"] == 3 && said["TotalPage"] == 2,
        "{said}"
    );
    // In the other way of writing times they are at UTC+8.
    let beijing = |seconds| -> Result<String> {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
        Ok(at(seconds)?.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
    };
    let span = json!({"StartTime": beijing(now()? - 60)?, "EndTime": beijing(now()? + 60)?});
    let (list, _) = listed(&mut sdk, span)?;
    ensure!(
        list.len() == 3 && list[0]["EventTime"].as_str().is_some_and(|time| time.contains(' ')),
        "{list:#?}"
    );
    let before = json!({"StartTime": at(now()? - 7_200)?.to_string(), "EndTime": at(now()? - 3_600)?.to_string()});
    ensure!(listed(&mut sdk, before)?.0.is_empty(), "an hour ago");
    let (start, end) = (at(now()? - 90_000)?.to_string(), at(now()?)?.to_string());
    for (params, code) in [
        (
            json!({"StartTime": start, "EndTime": end, "StreamName": "told", "PageNum": 1, "PageSize": 5}),
            "InvalidParameterValue",
        ),
        (
            json!({"StartTime": end, "EndTime": start, "StreamName": "told", "PageNum": 1, "PageSize": 5}),
            "InvalidParameterValue",
        ),
        (
            json!({"StartTime": end, "EndTime": end, "PageNum": 1, "PageSize": 5}),
            "MissingParameter",
        ),
        (
            json!({"StartTime": "today", "EndTime": end, "StreamName": "told"}),
            "InvalidParameterValue",
        ),
    ] {
        sdk.refused("live", "DescribeCallbackRecordsList", &params, code)?;
    }
    Ok(())
}
