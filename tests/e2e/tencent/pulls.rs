//! Pull tasks through the API, from a real origin.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::origin::Origin;
use support::pacer::Pacer;
use support::server::Server;
use support::source::Shape;
use support::tencent::{Client, Key, Sdk};
use support::wait::{Seen, until};

use super::{DOMAIN, now};
use crate::{data, setup};

fn iso(seconds: u64) -> Result<String> {
    Ok(jiff::Timestamp::from_second(i64::try_from(seconds)?)?.to_string())
}

fn task(url: &str, more: Value) -> Result<Value> {
    let mut all = json!({
        "SourceType": "PullLivePushLive",
        "SourceUrls": [url],
        "DomainName": DOMAIN,
        "AppName": "live",
        "StreamName": "fetched",
        "StartTime": iso(now()? - 60)?,
        "EndTime": iso(now()? + 3_600)?,
        "Operator": "tester",
    });
    if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    Ok(all)
}

/// Waits until a task runs, or does not.
fn is(sdk: &mut Sdk, id: &str, wanted: &str) -> Result<()> {
    until(Duration::from_secs(30), &format!("an {wanted} task"), || {
        let said = sdk.ask("live", "DescribeLivePullStreamTaskStatus", &json!({"TaskId": id}))?;
        let status = said["TaskStatusInfo"]["RunStatus"].clone();
        Ok(Seen::when(status == wanted, format!("{said}")))
    })
}

#[test]
fn a_pull_task_fetches_a_stream_until_it_is_paused_or_deleted() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data)
        .record("flv")
        .args(&["--set", "worker.pull.allow_loopback=true"])
        .start()?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &Key::create(&server, &[])?)?;
    let origin = Origin::start("")?;
    let pacer = Pacer::start(origin.address(), "source", Shape::default())?;
    let url = format!("{}?password=hidden", origin.url("source"));
    let made = sdk.ask("live", "CreateLivePullStreamTask", &task(&url, json!({}))?)?;
    let id = made["TaskId"].as_str().context("TaskId is no text")?.to_owned();
    is(&mut sdk, &id, "active")?;
    let listed = sdk.ask(
        "live",
        "DescribeLivePullStreamTasks",
        &json!({"PageNum": 1, "PageSize": 10}),
    )?;
    let info = &listed["TaskInfos"][0];
    ensure!(
        listed["TotalNum"] == 1 && info["TaskId"] == id.as_str() && info["Status"] == "enable",
        "{listed}"
    );
    ensure!(
        info["StreamName"] == "fetched" && !info["SourceUrls"].to_string().contains("hidden"),
        "{info}"
    );
    let pull = server.ask(&["pull", "get", &format!("{DOMAIN}/live/fetched")])?;
    ensure!(pull["pull_id"] == id.as_str(), "the same by the command line: {pull}");
    let publish = |server: &Server| -> Result<Value> {
        let streams = server.streams()?;
        Ok(streams
            .first()
            .map(|live| live["publish_id"].clone())
            .unwrap_or_default())
    };
    let before = publish(&server)?;
    ensure!(before.is_string(), "a fetched stream is live");
    sdk.ask(
        "live",
        "RestartLivePullStreamTask",
        &json!({"TaskId": id, "Operator": "tester"}),
    )?;
    until(Duration::from_secs(30), "another fetch", || {
        let now = publish(&server)?;
        Ok(Seen::when(now.is_string() && now != before, format!("{now}")))
    })?;
    sdk.refused(
        "live",
        "RestartLivePullStreamTask",
        &json!({"TaskId": "0198f3b2-0000-7000-8000-000000000000", "Operator": "tester"}),
        "InvalidParameter.TaskNotExist",
    )?;
    for (change, status) in [("pause", "inactive"), ("enable", "active")] {
        let change = json!({"TaskId": id, "Operator": "tester", "Status": change});
        sdk.ask("live", "ModifyLivePullStreamTask", &change)?;
        is(&mut sdk, &id, status)?;
    }
    sdk.ask(
        "live",
        "DeleteLivePullStreamTask",
        &json!({"TaskId": id, "Operator": "tester"}),
    )?;
    let listed = sdk.ask("live", "DescribeLivePullStreamTasks", &json!({"TaskId": id}))?;
    ensure!(listed["TotalNum"] == 0, "{listed}");
    server.finished("fetched", 2)?;
    pacer.finish()?;
    Ok(())
}

#[test]
fn pull_tasks_that_cannot_be_are_refused_with_the_documented_codes() -> Result<()> {
    let (_folder, server, _, mut sdk) = super::world()?;
    let url = "rtmp://origin.example.com/live/a";
    let soon = iso(now()? + 60)?;
    for (more, expected) in [
        (json!({"SourceType": "PullVodPushLive"}), "UnsupportedOperation"),
        (json!({"SourceUrls": ["srt://x"]}), "InvalidParameter.InvalidSourceUrl"),
        (json!({"SourceUrls": []}), "MissingParameter"),
        (json!({"SourceUrls": [url, url]}), "InvalidParameterValue"),
        (
            json!({"EndTime": iso(now()? - 30)?}),
            "InvalidParameter.InvalidTaskTime",
        ),
        (
            json!({"EndTime": iso(now()? + 31 * 86_400)?}),
            "InvalidParameter.InvalidTaskTime",
        ),
        (
            json!({"StartTime": soon, "EndTime": soon}),
            "InvalidParameter.InvalidTaskTime",
        ),
        (json!({"EndTime": "tomorrow"}), "InvalidParameterValue"),
        (json!({"ToUrl": "rtmp://elsewhere/live/x"}), "UnsupportedOperation"),
        (json!({"StreamName": ""}), "MissingParameter"),
    ] {
        sdk.refused("live", "CreateLivePullStreamTask", &task(url, more)?, expected)?;
    }
    let none = "00000000-0000-0000-0000-000000000000";
    for (action, params, expected) in [
        (
            "DescribeLivePullStreamTaskStatus",
            json!({"TaskId": none}),
            "InvalidParameter.TaskNotExist",
        ),
        (
            "DescribeLivePullStreamTaskStatus",
            json!({"TaskId": "x"}),
            "InvalidParameter.InvalidTaskId",
        ),
        (
            "DeleteLivePullStreamTask",
            json!({"TaskId": none, "Operator": "t"}),
            "InvalidParameter.TaskNotExist",
        ),
        (
            "ModifyLivePullStreamTask",
            json!({"TaskId": none, "Operator": "t", "Status": "gone"}),
            "InvalidParameterValue",
        ),
    ] {
        sdk.refused("live", action, &params, expected)?;
    }
    // Another domain's key neither sees nor makes one.
    let made = sdk.ask("live", "CreateLivePullStreamTask", &task(url, json!({}))?)?;
    sdk.refused(
        "live",
        "CreateLivePullStreamTask",
        &task(url, json!({}))?,
        "ResourceInUse",
    )?;
    let key = Key::create(&server, &["--domain", "other.example.com"])?;
    let mut other = Sdk::start(Client::Python(&[]), server.http(), &key)?;
    let listed = other.ask("live", "DescribeLivePullStreamTasks", &json!({}))?;
    ensure!(listed["TotalNum"] == 0, "{listed}");
    let delete = json!({"TaskId": made["TaskId"], "Operator": "t"});
    other.refused(
        "live",
        "DeleteLivePullStreamTask",
        &delete,
        "InvalidParameter.TaskNotExist",
    )?;
    Ok(())
}
