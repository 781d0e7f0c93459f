//! `ComposeMedia` by the official SDKs: recordings joined while nobody waits, found and played.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::programs::text;
use support::tencent::{Client, Sdk};
use support::wait::{Seen, until};

use super::media::{record, rule_for_all};
use super::world;

/// The newest file of a stream in a format.
fn file(sdk: &mut Sdk, stream: &str, kind: &str) -> Result<String> {
    let found = sdk.ask("vod", "SearchMedia", &json!({"StreamIds": [stream]}))?;
    let all = found["MediaInfoSet"].as_array().context("no MediaInfoSet")?;
    let of_kind = all.iter().find(|media| media["BasicInfo"]["Type"] == kind);
    let id = of_kind.and_then(|media| media["FileId"].as_str());
    Ok(id.with_context(|| format!("no {kind} in {found}"))?.to_owned())
}

fn track(items: &[Value]) -> Value {
    let items: Vec<Value> = items
        .iter()
        .map(|item| json!({"Type": "Video", "VideoItem": item}))
        .collect();
    json!([{"Type": "Video", "TrackItems": items}])
}

/// Waits for a task's end.
fn ended(sdk: &mut Sdk, task: &Value) -> Result<Value> {
    until(Duration::from_secs(60), "the end of a task", || {
        let said = sdk.ask("vod", "DescribeTaskDetail", &json!({"TaskId": task}))?;
        ensure!(said["TaskType"] == "ComposeMedia", "{said}");
        let status = said["Status"].as_str().unwrap_or_default().to_owned();
        ensure!(
            ["WAITING", "PROCESSING", "FINISH", "ABORTED"].contains(&status.as_str()),
            "{said}"
        );
        let over = ["FINISH", "ABORTED"].contains(&status.as_str());
        Ok(Seen::some(over.then(|| said.clone()), status))
    })
}

#[test]
fn recordings_are_joined_by_both_sdks() -> Result<()> {
    let (_folder, server, key, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam", "Mp4Param", "HlsParam"])?;
    let pictures = record(&server, "live", "one", 1)? + record(&server, "live", "two", 1)?;
    let mut node = Sdk::start(Client::Node(&[]), server.http(), &key)?;
    // HLS is MPEG-TS as long as nobody says otherwise.
    for (number, (sdk, kind)) in [(&mut sdk, "m3u8"), (&mut node, "flv")].into_iter().enumerate() {
        let items = [
            json!({"SourceMedia": file(sdk, "one", kind)?}),
            json!({"SourceMedia": file(sdk, "two", "mp4")?, "SourceMediaStartTime": 0.0, "Duration": 0.0}),
        ];
        let session = format!("session-{number}");
        let asked = json!({
            "Tracks": track(&items),
            "Output": {"FileName": format!("joined-{number}"), "Description": "both", "Container": "mp4"},
            "SessionId": session,
            "SessionContext": "whose",
        });
        let task = sdk.ask("vod", "ComposeMedia", &asked)?["TaskId"].clone();
        let said = ended(sdk, &task)?;
        let made = &said["ComposeMediaTask"];
        ensure!(
            said["Status"] == "FINISH" && made["ErrCode"] == 0 && made["Progress"] == 100,
            "{said}"
        );
        ensure!(
            made["SessionId"] == session.as_str() && made["SessionContext"] == "whose",
            "{said}"
        );
        ensure!(said["BeginProcessTime"] != "" && said["FinishTime"] != "", "{said}");
        let input = &made["Input"]["Tracks"][0]["TrackItems"];
        ensure!(input.as_array().map(Vec::len) == Some(2), "{said}");
        let id = made["Output"]["FileId"].as_str().context("no FileId")?;
        let found = sdk.ask("vod", "SearchMedia", &json!({"FileIds": [id]}))?;
        let basic = &found["MediaInfoSet"][0]["BasicInfo"];
        let name = format!("joined-{number}.mp4");
        ensure!(
            basic["Name"] == name.as_str() && basic["Description"] == "both",
            "{found}"
        );
        for url in [&basic["MediaUrl"], &made["Output"]["FileUrl"]] {
            let mut probe = Command::new("ffprobe");
            probe.args(["-v", "error", "-count_packets", "-select_streams", "v"]);
            probe.args(["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]);
            let frames = text(probe.arg(url.as_str().context("no URL")?))?;
            ensure!(
                frames.trim().trim_end_matches(',') == pictures.to_string(),
                "{frames} of {pictures}"
            );
        }
        sdk.refused("vod", "ComposeMedia", &asked, "InvalidParameterValue.SessionId")?;
    }
    Ok(())
}

#[test]
fn files_of_sound_are_joined_in_a_track_of_sound() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["AacParam"])?;
    record(&server, "live", "one", 1)?;
    let item = json!({"Type": "Audio", "AudioItem": {"SourceMedia": file(&mut sdk, "one", "aac")?}});
    let asked = json!({
        "Tracks": [{"Type": "Audio", "TrackItems": [item, item]}],
        "Output": {"FileName": "sound", "Container": "mp4", "ExpireTime": "2099-01-02T03:04:05Z"},
    });
    let task = sdk.ask("vod", "ComposeMedia", &asked)?["TaskId"].clone();
    let said = ended(&mut sdk, &task)?;
    ensure!(said["Status"] == "FINISH", "{said}");
    let made = said["ComposeMediaTask"]["Output"]["FileUrl"]
        .as_str()
        .context("no URL")?;
    let packets = |url: &str| {
        let mut probe = Command::new("ffprobe");
        probe.args([
            "-v",
            "error",
            "-count_packets",
            "-show_entries",
            "stream=codec_type,nb_read_packets",
        ]);
        text(probe.args(["-of", "csv=p=0", url]))
    };
    let found = sdk.ask(
        "vod",
        "SearchMedia",
        &json!({"FileIds": [item["AudioItem"]["SourceMedia"]]}),
    )?;
    let source = found["MediaInfoSet"][0]["BasicInfo"]["MediaUrl"]
        .as_str()
        .context("no URL")?;
    let count = |line: String| -> Result<u32> {
        let count = line.trim().strip_prefix("audio,").with_context(|| line.clone())?;
        Ok(count.trim_end_matches(',').parse()?)
    };
    let (before, after) = (count(packets(source)?)?, count(packets(made)?)?);
    ensure!(before > 50 && after == 2 * before, "{before} and {after}");
    let id = &said["ComposeMediaTask"]["Output"]["FileId"];
    let found = sdk.ask("vod", "SearchMedia", &json!({"FileIds": [id]}))?;
    let expires = &found["MediaInfoSet"][0]["BasicInfo"]["ExpireTime"];
    ensure!(expires == "2099-01-02T03:04:05Z", "{found}");
    Ok(())
}

#[test]
fn what_would_have_to_be_coded_is_refused_by_its_code() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam"])?;
    record(&server, "live", "one", 1)?;
    let flv = file(&mut sdk, "one", "flv")?;
    let good = json!({"SourceMedia": flv});
    let output = json!({"FileName": "x"});
    let one = |item: Value| json!({"Tracks": track(&[item]), "Output": output});
    let with = |name: &str, value: Value| {
        let mut item = good.clone();
        item[name] = value;
        one(item)
    };
    let transition = json!({"Type": "Video", "TrackItems": [
        {"Type": "Video", "VideoItem": good}, {"Type": "Transition", "TransitionItem": {"Duration": 1.0}},
    ]});
    let many: Vec<Value> = (0..501).map(|_| good.clone()).collect();
    let cases = [
        (json!({"Output": output}), "MissingParameter"),
        (
            json!({"Tracks": track(std::slice::from_ref(&good))}),
            "MissingParameter",
        ),
        (json!({"Tracks": track(&[]), "Output": output}), "InvalidParameterValue"),
        (
            json!({"Tracks": track(&many), "Output": output}),
            "InvalidParameterValue",
        ),
        (
            json!({"Tracks": [track(std::slice::from_ref(&good))[0], track(std::slice::from_ref(&good))[0]], "Output": output}),
            "UnsupportedOperation",
        ),
        (
            json!({"Tracks": [{"Type": "Sticker", "TrackItems": []}], "Output": output}),
            "UnsupportedOperation",
        ),
        (
            json!({"Tracks": [transition], "Output": output}),
            "UnsupportedOperation",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": {"FileName": "x", "Container": "mp3"}}),
            "UnsupportedOperation",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": {"FileName": "x", "ExpireTime": "2001-01-02T03:04:05Z"}}),
            "InvalidParameterValue",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": output, "Canvas": {"Width": 640}}),
            "UnsupportedOperation",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": {"FileName": "x", "RemoveVideo": 1, "RemoveAudio": 1}}),
            "InvalidParameterValue",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": {"FileName": "y".repeat(65)}}),
            "InvalidParameterValue",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": output, "SessionId": "s".repeat(51)}),
            "InvalidParameterValue.SessionId",
        ),
        (
            json!({"Tracks": track(std::slice::from_ref(&good)), "Output": output, "SessionContext": "s".repeat(1001)}),
            "InvalidParameterValue.SessionContextTooLong",
        ),
        (
            with("SourceMediaStartTime", json!(99.0)),
            "InvalidParameterValue.ClipDuration",
        ),
        (
            with("SourceMediaStartTime", json!(-1.0)),
            "InvalidParameterValue.ClipDuration",
        ),
        (with("TargetDuration", json!(9.0)), "UnsupportedOperation"),
        (with("XPos", json!("10%")), "UnsupportedOperation"),
        (
            with(
                "AudioOperations",
                json!([{"Type": "Volume", "VolumeParam": {"Mute": 1}}]),
            ),
            "UnsupportedOperation",
        ),
        (
            with("SourceMedia", json!("http://127.0.0.1/x.mp4")),
            "UnsupportedOperation",
        ),
        (with("SourceMedia", json!("nobody")), "ResourceNotFound"),
        (
            with("SourceMedia", json!("0198f3b2-0000-7000-8000-000000000000")),
            "ResourceNotFound",
        ),
    ];
    for (params, code) in cases {
        sdk.refused("vod", "ComposeMedia", &params, code)?;
    }
    for task in ["nobody", "0198f3b2-0000-7000-8000-000000000000"] {
        sdk.refused(
            "vod",
            "DescribeTaskDetail",
            &json!({"TaskId": task}),
            "ResourceNotFound",
        )?;
    }
    Ok(())
}
