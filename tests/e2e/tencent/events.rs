//! Events: the official SDKs make callback templates and rules, real pushes are told to a real receiver.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::programs::text;
use support::receiver::{Answer, Heard, Receiver};
use support::server::{Server, Setup};
use support::tencent::{Client, Key, Sdk};

use super::media::record;
use super::pushes::{live, push, push_more};
use super::{DOMAIN, now};
use crate::{data, setup};

const LIMIT: Duration = Duration::from_secs(60);

/// Receivers may run beside the server, and are asked again soon.
fn near(setup: Setup) -> Setup {
    setup.args(&[
        "--set",
        "coordinator.events.allow=127.0.0.0/8",
        "--set",
        "coordinator.events.retry_after=200ms",
    ])
}

fn callback(sdk: &mut Sdk, name: &str, receiver: &Receiver) -> Result<Value> {
    let template = json!({
        "TemplateName": name,
        "CallbackKey": "callbackKey123",
        "StreamBeginNotifyUrl": receiver.url("/begin"),
        "StreamEndNotifyUrl": receiver.url("/end"),
        "RecordNotifyUrl": receiver.url("/record"),
        "RecordStatusNotifyUrl": receiver.url("/status"),
        "RecordExceptionNotifyUrl": receiver.url("/exception"),
        "PushExceptionNotifyUrl": receiver.url("/push-exception"),
    });
    let id = sdk.ask("live", "CreateLiveCallbackTemplate", &template)?["TemplateId"].clone();
    let rule = json!({"DomainName": DOMAIN, "AppName": "live", "TemplateId": id});
    sdk.ask("live", "CreateLiveCallbackRule", &rule)?;
    Ok(id)
}

fn template_for(sdk: &mut Sdk, stream: &str, mut template: Value) -> Result<Value> {
    template["TemplateName"] = json!(format!("for-{stream}"));
    let id = sdk.ask("live", "CreateLiveRecordTemplate", &template)?["TemplateId"].clone();
    let rule = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": stream, "TemplateId": id});
    sdk.ask("live", "CreateLiveRecordRule", &rule)?;
    Ok(id)
}

fn of_kind(heard: &[Heard], kind: i64) -> Vec<Heard> {
    heard.iter().filter(|heard| heard.kind() == kind).cloned().collect()
}

#[test]
fn the_sdks_make_callback_templates_and_rules() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    let key = Key::create(&server, &[])?;
    for (index, client) in [
        Client::Python(&[]),
        Client::Python(&["--asynchronous"]),
        Client::Python(&["--sign", "HmacSHA256", "--method", "GET"]),
        Client::Node(&[]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut sdk = Sdk::start(client, server.http(), &key)?;
        let app = format!("app{index}");
        let made = sdk.ask(
            "live",
            "CreateLiveCallbackTemplate",
            &json!({
                "TemplateName": app,
                "Description": "한글 & more",
                "RecordNotifyUrl": "https://receiver.example/record?a=b&c=d",
                "SnapshotNotifyUrl": "https://receiver.example/snapshot",
                "CallbackKey": "k",
                "RecordExceptionLevels": ["error", "warning"],
            }),
        )?;
        let id = json!({"TemplateId": made["TemplateId"]});
        sdk.ask(
            "live",
            "ModifyLiveCallbackTemplate",
            &json!({"TemplateId": made["TemplateId"], "StreamBeginNotifyUrl": "http://receiver.example/b", "CallbackKey": "l"}),
        )?;
        let shown = sdk.ask("live", "DescribeLiveCallbackTemplate", &id)?["Template"].clone();
        ensure!(
            shown["TemplateName"] == app.as_str() && shown["CallbackKey"] == "l",
            "{shown}"
        );
        ensure!(
            shown["RecordNotifyUrl"] == "https://receiver.example/record?a=b&c=d",
            "{shown}"
        );
        ensure!(shown["StreamBeginNotifyUrl"] == "http://receiver.example/b", "{shown}");
        ensure!(shown["RecordExceptionLevels"] == json!(["error", "warning"]), "{shown}");
        let rule = json!({"DomainName": DOMAIN, "AppName": app, "TemplateId": made["TemplateId"]});
        sdk.ask("live", "CreateLiveCallbackRule", &rule)?;
        let rules = sdk.ask("live", "DescribeLiveCallbackRules", &json!({}))?;
        ensure!(rules["Rules"][0]["AppName"] == app.as_str(), "{rules}");
        let all = sdk.ask("live", "DescribeLiveCallbackTemplates", &json!({}))?;
        ensure!(all["Templates"].as_array().is_some_and(|all| all.len() == 1), "{all}");
        for (action, params, code) in [
            (
                "CreateLiveCallbackTemplate",
                json!({"RecordNotifyUrl": "http://a.example/"}),
                "MissingParameter",
            ),
            (
                "CreateLiveCallbackTemplate",
                json!({"TemplateName": "x"}),
                "InvalidParameterValue",
            ),
            (
                "CreateLiveCallbackTemplate",
                json!({"TemplateName": "x", "RecordNotifyUrl": "http://127.0.0.1:9/"}),
                "InvalidParameter.UrlNotSafe",
            ),
            (
                "CreateLiveCallbackTemplate",
                json!({"TemplateName": "x", "RecordNotifyUrl": "http://169.254.169.254/latest"}),
                "InvalidParameter.UrlNotSafe",
            ),
            (
                "CreateLiveCallbackTemplate",
                json!({"TemplateName": "\u{1}", "RecordNotifyUrl": "http://a.example/"}),
                "InvalidParameter.ArgsNotMatch",
            ),
            (
                "CreateLiveCallbackTemplate",
                json!({"TemplateName": "x", "RecordNotifyUrl": "http://a.example/", "RecordExceptionLevels": ["loud"]}),
                "InvalidParameterValue",
            ),
            (
                "ModifyLiveCallbackTemplate",
                json!({"TemplateId": 1}),
                "FailedOperation.NotFound",
            ),
            (
                "DescribeLiveCallbackTemplate",
                json!({"TemplateId": 1}),
                "FailedOperation.NotFound",
            ),
            ("DeleteLiveCallbackTemplate", id.clone(), "FailedOperation.ConfInUsed"),
            (
                "CreateLiveCallbackRule",
                rule.clone(),
                "FailedOperation.RuleAlreadyExist",
            ),
            (
                "CreateLiveCallbackRule",
                json!({"DomainName": DOMAIN, "AppName": "other", "TemplateId": 1}),
                "InvalidParameter.ConfNotFound",
            ),
            (
                "CreateLiveCallbackRule",
                json!({"DomainName": "no host", "AppName": "other", "TemplateId": 1}),
                "InvalidParameter.DomainFormatError",
            ),
            (
                "DeleteLiveCallbackRule",
                json!({"DomainName": DOMAIN, "AppName": "other"}),
                "FailedOperation.NotFound",
            ),
        ] {
            sdk.refused("live", action, &params, code)?;
        }
        sdk.ask(
            "live",
            "DeleteLiveCallbackRule",
            &json!({"DomainName": DOMAIN, "AppName": app}),
        )?;
        sdk.ask("live", "DeleteLiveCallbackTemplate", &id)?;
    }
    let reader = Key::create(&server, &["--read-only"])?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &reader)?;
    let template = json!({"TemplateName": "x", "RecordNotifyUrl": "http://a.example/"});
    sdk.refused("live", "CreateLiveCallbackTemplate", &template, "UnauthorizedOperation")?;
    Ok(())
}

#[test]
fn each_file_is_told_of_and_its_link_plays() -> Result<()> {
    let (_folder, data) = data()?;
    let server = near(setup(&data)).start()?;
    let key = Key::create(&server, &[])?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &key)?;
    let receiver = Receiver::start()?;
    callback(&mut sdk, "all", &receiver)?;
    let formats = json!({"FlvParam": {"Enable": 1}, "HlsParam": {"Enable": 1}, "Mp4Param": {"Enable": 1}});
    let template = template_for(&mut sdk, "cam", formats)?.to_string();
    let pictures = record(&server, "live", "cam", 1)?.to_string();
    receiver.until(LIMIT, |heard| {
        of_kind(heard, 332).len() == 6 && of_kind(heard, 0).len() == 1
    })?;
    let heard = receiver.events();
    ensure!(of_kind(&heard, 1).len() == 1, "{heard:#?}");
    let begin = of_kind(&heard, 1).remove(0).body;
    ensure!(
        begin["app"] == DOMAIN && begin["appname"] == "live" && begin["stream_id"] == "cam",
        "{begin}"
    );
    ensure!(begin["user_ip"] == "127.0.0.1", "{begin}");
    let files = of_kind(&heard, 100);
    ensure!(files.len() == 3, "{files:#?}");
    for file in &files {
        let body = &file.body;
        ensure!(body["record_temp_id"] == template && body["task_id"] == "", "{body}");
        let url = body["video_url"].as_str().context("no video_url")?;
        let frames = text(Command::new("ffprobe").args([
            "-v",
            "error",
            "-count_packets",
            "-select_streams",
            "v",
            "-show_entries",
            "stream=nb_read_packets",
            "-of",
            "csv=p=0",
            url,
        ]))?;
        let frames = frames.lines().next().unwrap_or_default().trim_end_matches(',');
        ensure!(frames == pictures, "{url} plays {frames} of {pictures} pictures");
        let found = sdk.ask("vod", "DescribeMediaInfos", &json!({"FileIds": [body["file_id"]]}))?;
        ensure!(
            found["MediaInfoSet"][0]["MetaData"]["Size"] == body["file_size"],
            "{found}"
        );
        ensure!(signed(body)?, "{body}");
    }
    // Nothing is on its way, and the command line shows what was told.
    support::wait::until(LIMIT, "every event to be noted as delivered", || {
        let waiting = server.ask(&["event", "list", "--state", "pending"])?;
        let none = waiting["events"].as_array().is_some_and(Vec::is_empty);
        Ok(support::wait::Seen::when(none, waiting.to_string()))
    })?;
    let told = server.ask(&["event", "list", "--state", "delivered"])?;
    let told = told["events"].as_array().context("no events")?.clone();
    ensure!(told.len() == heard.len(), "{} of {}", told.len(), heard.len());
    let id = files.first().context("no file")?.id.clone();
    let shown = server.ask(&["event", "show", &id])?;
    ensure!(
        shown["state"] == "delivered" && shown["body"]["event_type"] == 100,
        "{shown}"
    );
    let before = receiver.heard().len();
    server.ask(&["event", "replay", &id])?;
    let heard = receiver.until(LIMIT, |heard| heard.len() > before)?;
    ensure!(heard.last().is_some_and(|last| last.id == id), "replayed under its id");
    Ok(())
}

/// True if the signature is the lower-case MD5 of key and time, by Python: it knows nothing of this project.
fn signed(body: &Value) -> Result<bool> {
    let t = body["t"].as_i64().context("no t")?;
    let script = "import hashlib, sys; print(hashlib.md5(sys.argv[1].encode()).hexdigest())";
    let mut command = Command::new(support::programs::python());
    let md5 = text(command.args(["-c", script, &format!("callbackKey123{t}")]))?;
    Ok(body["sign"] == md5.trim() && u64::try_from(t)? > now()?)
}

#[test]
fn a_stitched_recording_is_told_of_once_and_a_task_without_its_push_s_parameters() -> Result<()> {
    let (_folder, data) = data()?;
    let server = near(setup(&data)).start()?;
    let key = Key::create(&server, &[])?;
    let mut sdk = Sdk::start(Client::Node(&[]), server.http(), &key)?;
    let receiver = Receiver::start()?;
    callback(&mut sdk, "all", &receiver)?;
    let stitched = json!({"HlsParam": {"Enable": 1}, "HlsSpecialParam": {"FlowContinueDuration": 3}});
    template_for(&mut sdk, "show", stitched)?;
    template_for(&mut sdk, "cam", json!({"FlvParam": {"Enable": 1}}))?;
    for _ in 0..2 {
        let mut publisher = push(&server, "?k=v", "show")?;
        live(&server, "show")?;
        push_more(&server, &mut publisher, "show")?;
        publisher.finish()?;
        support::wait::until(LIMIT, "the stream to be offline", || {
            Ok(support::wait::Seen::when(server.streams()?.is_empty(), "live"))
        })?;
    }
    let mut publisher = push(&server, "?k=v&x=1", "cam")?;
    live(&server, "cam")?;
    let end = now()? + 3_600;
    let task = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": "cam", "EndTime": end});
    let task = sdk.ask("live", "CreateRecordTask", &task)?["TaskId"].clone();
    push_more(&server, &mut publisher, "cam")?;
    publisher.finish()?;
    let heard = receiver.until(LIMIT, |heard| of_kind(heard, 100).len() == 3)?;
    let files = of_kind(&heard, 100);
    let of = |stream: &str| -> Vec<&Value> {
        files
            .iter()
            .map(|file| &file.body)
            .filter(|body| body["stream_id"] == stream)
            .collect()
    };
    let param = |body: &Value| body["stream_param"].as_str().unwrap_or_default().to_owned();
    let [joined] = of("show")[..] else {
        anyhow::bail!("not one final event: {files:#?}")
    };
    ensure!(
        joined["file_format"] == "hls" && param(joined).ends_with("k=v"),
        "{joined}"
    );
    let (by_task, by_rule): (Vec<&Value>, Vec<&Value>) =
        of("cam").into_iter().partition(|body| body["task_id"] == task);
    let ([by_task], [by_rule]) = (&by_task[..], &by_rule[..]) else {
        anyhow::bail!("not one of each: {files:#?}")
    };
    ensure!(
        by_task.get("stream_param").is_none() && by_task["record_temp_id"] == "",
        "{by_task}"
    );
    ensure!(param(by_rule).ends_with("k=v&x=1"), "{by_rule}");
    // The stitched one paused and went on, in this order.
    let heard = receiver.until(LIMIT, |heard| {
        of_kind(heard, 332)
            .iter()
            .filter(|one| one.body["record_event"] == "record_ended")
            .count()
            == 3
    })?;
    let session = |body: &Value| body["session_id"].as_str().unwrap_or_default().to_owned();
    let mut stories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in of_kind(&heard, 332) {
        let word = one.body["record_event"].as_str().unwrap_or_default().to_owned();
        stories.entry(session(&one.body)).or_default().push(word);
    }
    let of_show = of_kind(&heard, 332)
        .into_iter()
        .find(|one| one.body["stream_id"] == "show")
        .context("no status")?;
    let story = &stories[&session(&of_show.body)];
    ensure!(
        story.first().is_some_and(|word| word == "record_start_succeeded")
            && story.last().is_some_and(|word| word == "record_ended")
            && story.contains(&"record_resumed".to_owned()),
        "{story:?}"
    );
    Ok(())
}

/// What the library has that must have been told.
fn told_of_all(server: &Server, receiver: &Receiver, streams: &[String]) -> Result<Option<String>> {
    let events = receiver.events();
    let has = |kind: i64, name: &str, value: &str| {
        let fits = |one: &&Heard| one.kind() == kind && one.body[name] == value;
        events.iter().filter(fits).count()
    };
    for stream in streams {
        for file in server.ask(&["file", "list", "--stream", stream])?["files"]
            .as_array()
            .context("no files")?
        {
            let id = file["file_id"].as_str().context("no id")?;
            let count = has(100, "file_id", id);
            if count != 1 {
                return Ok(Some(format!("file {id} of {stream} was told of {count} times")));
            }
        }
        for kind in [1, 0] {
            if has(kind, "stream_id", stream) == 0 {
                return Ok(Some(format!("no event {kind} of {stream}")));
            }
        }
    }
    Ok(None)
}

#[test]
fn nothing_is_lost_by_kill_9_at_any_moment() -> Result<()> {
    let (_folder, data) = data()?;
    let mut server = near(setup(&data)).record("flv,hls").start()?;
    let key = Key::create(&server, &[])?;
    let mut count = 0;
    // Every third request fails, in every way there is.
    let receiver = Receiver::scripted(move |_| {
        count += 1;
        match count % 9 {
            2 => Answer::Status(500),
            5 => Answer::Die,
            8 => Answer::Status(404),
            _ => Answer::Take,
        }
    })?;
    let mut sdk = Sdk::start(Client::Python(&[]), server.http(), &key)?;
    callback(&mut sdk, "all", &receiver)?;
    let mut streams = Vec::new();
    for round in 0..6_u64 {
        let mut publishers = Vec::new();
        for n in 0..3 {
            let stream = format!("r{round}s{n}");
            publishers.push(push(&server, "", &stream)?);
            live(&server, &stream)?;
            streams.push(stream);
        }
        for publisher in publishers {
            publisher.finish()?;
        }
        // While leases are released, files committed, recordings ended, events sent and noted.
        std::thread::sleep(Duration::from_millis(37 * round * round % 400));
        server = server.kill()?.start()?;
    }
    for stream in &streams {
        server.finished(stream, 1)?;
    }
    support::wait::until(LIMIT, "every file and push to be told of", || {
        let missing = told_of_all(&server, &receiver, &streams)?;
        Ok(support::wait::Seen::when(
            missing.is_none(),
            missing.unwrap_or_default(),
        ))
    })?;
    // In the order of each recording, doubles aside.
    let mut stories: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for one in of_kind(&receiver.events(), 332) {
        let detail: Value = serde_json::from_str(one.body["record_detail"].as_str().unwrap_or_default())?;
        let lane = (one.body["session_id"].to_string(), detail["file_format"].to_string());
        stories
            .entry(lane)
            .or_default()
            .push(one.body["record_event"].as_str().unwrap_or_default().to_owned());
    }
    for (lane, story) in stories {
        let starts = story.first().is_some_and(|word| word == "record_start_succeeded");
        let ended = story.iter().position(|word| word == "record_ended");
        ensure!(
            starts && ended.is_none_or(|at| at + 1 == story.len()),
            "{lane:?}: {story:?}"
        );
    }
    Ok(())
}
