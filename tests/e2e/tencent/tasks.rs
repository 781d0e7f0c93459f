//! Record tasks through the API: by schedule, at once, beside a rule, stopped early; and the older three actions.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::server::Server;
use support::tencent::Sdk;
use support::wait::{Seen, until};

use super::media::rule_for_all;
use super::pushes::{live, push, push_more};
use super::{DOMAIN, now, world};

fn stream(more: Value) -> Value {
    let mut all = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": "cam"});
    if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    all
}

fn tasks(sdk: &mut Sdk) -> Result<Vec<Value>> {
    let window = json!({"StartTime": now()? - 3_600, "EndTime": now()? + 7_200, "DomainName": DOMAIN});
    let said = sdk.ask("live", "DescribeRecordTask", &window)?;
    ensure!(said["ScrollToken"] == "", "{said}");
    Ok(said["TaskList"].as_array().context("no TaskList")?.clone())
}

fn formats(server: &Server) -> Result<BTreeSet<String>> {
    Ok(server.files("cam")?.into_iter().map(|file| file.format).collect())
}

/// Waits until something is being recorded by a task.
fn recorded_by_task(server: &Server) -> Result<()> {
    until(Duration::from_secs(20), "a recording by a task", || {
        let recordings = server.recordings("cam")?;
        let by_task = |recording: &Value| {
            recording["cause"]
                .as_str()
                .is_some_and(|cause| cause.starts_with("task "))
        };
        Ok(Seen::when(recordings.iter().any(by_task), format!("{recordings:?}")))
    })
}

#[test]
fn a_highlight_beside_a_rule_makes_two_recordings_and_is_stopped_early() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["HlsParam"])?;
    let mut publisher = push(&server, "", "cam")?;
    live(&server, "cam")?;
    let made = sdk.ask("live", "CreateRecordTask", &stream(json!({"EndTime": now()? + 3_600})))?;
    let id = made["TaskId"].as_str().context("TaskId is no text")?.to_owned();
    recorded_by_task(&server)?;
    push_more(&server, &mut publisher, "cam")?;
    let listed = tasks(&mut sdk)?;
    ensure!(listed.len() == 1 && listed[0]["TaskId"] == id.as_str(), "{listed:?}");
    ensure!(listed[0]["TemplateId"] == 0 && listed[0]["Stopped"] == 0, "{listed:?}");
    sdk.ask("live", "StopRecordTask", &json!({"TaskId": id}))?;
    ensure!(
        tasks(&mut sdk)?[0]["Stopped"].as_u64().is_some_and(|at| at > 0),
        "not stopped"
    );
    until(
        Duration::from_secs(30),
        "the task's file while the push goes on",
        || {
            let formats = formats(&server)?;
            Ok(Seen::when(formats.contains("flv"), format!("{formats:?}")))
        },
    )?;
    publisher.finish()?;
    server.finished("cam", 2)?;
    ensure!(
        formats(&server)? == BTreeSet::from(["flv".to_owned(), "hls".to_owned()]),
        "two recordings"
    );
    sdk.ask("live", "DeleteRecordTask", &json!({"TaskId": id}))?;
    ensure!(tasks(&mut sdk)?.is_empty(), "a deleted task is still listed");
    Ok(())
}

#[test]
fn a_task_of_a_template_waits_for_its_stream() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    let template = json!({"TemplateName": "mp4", "Mp4Param": {"Enable": 1}});
    let template = sdk.ask("live", "CreateLiveRecordTemplate", &template)?["TemplateId"].clone();
    let task = stream(json!({"StartTime": now()? - 1, "EndTime": now()? + 3_600, "TemplateId": template}));
    sdk.ask("live", "CreateRecordTask", &task)?;
    ensure!(tasks(&mut sdk)?[0]["TemplateId"] == template, "the template's number");
    let publisher = push(&server, "", "cam")?;
    recorded_by_task(&server)?;
    publisher.finish()?;
    server.finished("cam", 1)?;
    ensure!(
        formats(&server)? == BTreeSet::from(["mp4".to_owned()]),
        "{:?}",
        formats(&server)?
    );
    let unknown = stream(json!({"EndTime": now()? + 3_600, "TemplateId": 17016}));
    sdk.ask("live", "CreateRecordTask", &unknown)
        .context("an unknown template is no error")?;
    Ok(())
}

#[test]
fn the_older_actions_count_their_tasks() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    let highlight = stream(json!({"Highlight": 1, "FileFormat": "mp4"}));
    sdk.refused(
        "live",
        "CreateLiveRecord",
        &highlight,
        "ResourceUnavailable.StreamNotExist",
    )?;
    let mut publisher = push(&server, "", "cam")?;
    live(&server, "cam")?;
    let nameless = json!({"StreamName": "cam", "Highlight": 1, "FileFormat": "mp4"});
    let made = sdk
        .ask("live", "CreateLiveRecord", &nameless)
        .context("the live stream's domain")?;
    let id = made["TaskId"].as_u64().context("TaskId is no number")?;
    let task = |id: u64| json!({"StreamName": "cam", "TaskId": id});
    recorded_by_task(&server)?;
    push_more(&server, &mut publisher, "cam")?;
    sdk.refused("live", "DeleteLiveRecord", &task(id), "FailedOperation.AlterTaskState")?;
    sdk.refused("live", "StopLiveRecord", &task(id + 1), "ResourceNotFound.TaskId")?;
    let other = json!({"StreamName": "other", "TaskId": id});
    sdk.refused("live", "StopLiveRecord", &other, "ResourceNotFound.TaskId")?;
    sdk.ask("live", "StopLiveRecord", &task(id))?;
    publisher.finish()?;
    server.finished("cam", 1)?;
    ensure!(
        formats(&server)? == BTreeSet::from(["mp4".to_owned()]),
        "{:?}",
        formats(&server)?
    );
    until(Duration::from_secs(30), "the deletion of the ended task", || {
        let deleted = sdk.call("live", "DeleteLiveRecord", &task(id))?;
        Ok(Seen::when(deleted.is_ok(), format!("{deleted:?}")))
    })?;
    sdk.refused("live", "DeleteLiveRecord", &task(id), "ResourceNotFound.TaskId")?;
    let timed = stream(json!({"StartTime": "2030-01-01 00:00:00", "EndTime": "2029-01-01 00:00:00"}));
    sdk.refused("live", "CreateLiveRecord", &timed, "InvalidParameter")?;
    Ok(())
}

#[test]
fn what_is_wrong_with_a_task_has_its_documented_code() -> Result<()> {
    let (_folder, _server, _, mut sdk) = world()?;
    let now = now()?;
    let window = |from: u64, to: u64| json!({"StartTime": from, "EndTime": to});
    for (action, params, code) in [
        ("CreateRecordTask", stream(json!({})), "MissingParameter"),
        (
            "CreateRecordTask",
            stream(json!({"EndTime": now - 1})),
            "InvalidParameter",
        ),
        (
            "CreateRecordTask",
            stream(json!({"StartTime": now + 10, "EndTime": now + 5})),
            "InvalidParameter",
        ),
        (
            "CreateRecordTask",
            stream(json!({"StartTime": now, "EndTime": now + 86_402})),
            "InvalidParameter",
        ),
        (
            "CreateRecordTask",
            stream(json!({"StartTime": now + 8 * 86_400, "EndTime": now + 8 * 86_400 + 60})),
            "InvalidParameter",
        ),
        (
            "CreateRecordTask",
            stream(json!({"EndTime": now + 60, "StreamType": 2})),
            "InvalidParameterValue",
        ),
        ("StopRecordTask", json!({"TaskId": "none"}), "InvalidParameter"),
        ("StopRecordTask", json!({}), "MissingParameter"),
        (
            "DeleteRecordTask",
            json!({"TaskId": "00000000-0000-4000-8000-000000000000"}),
            "InvalidParameter",
        ),
        ("DescribeRecordTask", window(now, now - 1), "InvalidParameter"),
        ("DescribeRecordTask", window(now, now + 8 * 86_400), "InvalidParameter"),
        (
            "DescribeRecordTask",
            window(now - 91 * 86_400, now - 90 * 86_400),
            "InvalidParameter",
        ),
        ("CreateLiveRecord", stream(json!({})), "MissingParameter"),
        (
            "CreateLiveRecord",
            json!({"StreamName": "cam", "StartTime": "x", "EndTime": "y"}),
            "MissingParameter",
        ),
        (
            "CreateLiveRecord",
            stream(json!({"StartTime": "x", "EndTime": "y"})),
            "InvalidParameterValue",
        ),
    ] {
        sdk.refused("live", action, &params, code)?;
    }
    for _ in 0..3 {
        sdk.ask(
            "live",
            "CreateRecordTask",
            &stream(json!({"StartTime": now + 600, "EndTime": now + 900})),
        )?;
    }
    ensure!(tasks(&mut sdk)?.len() == 3, "three tasks of one stream and time");
    Ok(())
}
