//! Real pushes: rules made through the API record, push keys and bans are enforced.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use support::publisher::Publisher;
use support::server::Server;
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use super::media::{record, rule_for_all};
use super::{DOMAIN, world};

/// Publishes some media and leaves the connection open.
pub(super) fn push(server: &Server, query: &str, stream: &str) -> Result<Publisher> {
    let mut publisher = Publisher::start_at(
        server.rtmp(),
        &format!("live?domain={DOMAIN}"),
        &format!("{stream}{query}"),
    )?;
    let source = Numbered::new(Shape::default());
    for frame in source.prologue().into_iter().chain(source.take(10)) {
        // One that is refused may be gone already.
        if publisher
            .send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)
            .is_err()
        {
            break;
        }
    }
    Ok(publisher)
}

fn is_live(server: &Server, stream: &str) -> Result<bool> {
    Ok(server.streams()?.iter().any(|live| live["stream"]["stream"] == stream))
}

/// Goes on publishing, and waits until the server has counted it.
pub(super) fn push_more(server: &Server, publisher: &mut Publisher, stream: &str) -> Result<()> {
    let count = || -> Result<u64> {
        let streams = server.streams()?;
        let known = streams.iter().find(|live| live["stream"]["stream"] == stream);
        Ok(known.and_then(|live| live["video_units"].as_u64()).unwrap_or(0))
    };
    let frames: Vec<_> = Numbered::new(Shape::default()).skip(10).take(400).collect();
    let pictures = frames.iter().filter(|frame| frame.message_type == 9).count();
    for frame in frames {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    until(Duration::from_secs(20), "the pictures to be counted", || {
        let counted = count()?;
        Ok(Seen::when(
            counted >= u64::try_from(pictures)?,
            format!("{counted} of {pictures}"),
        ))
    })
}

pub(super) fn live(server: &Server, stream: &str) -> Result<()> {
    until(Duration::from_secs(10), "the stream in the list", || {
        Ok(Seen::when(is_live(server, stream)?, "not there"))
    })
}

fn txsecret(key: &str, stream: &str, time: &str) -> Result<String> {
    let script = "import hashlib, sys; print(hashlib.md5(''.join(sys.argv[1:]).encode()).hexdigest())";
    let mut command = std::process::Command::new(support::programs::python());
    let text = support::programs::text(command.args(["-c", script, key, stream, time]))?;
    Ok(text.trim().to_owned())
}

#[test]
fn a_push_key_is_enforced() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam"])?;
    sdk.ask("live", "AddLiveDomain", &json!({"DomainName": DOMAIN, "DomainType": 0}))?;
    let auth = sdk.ask("live", "DescribeLivePushAuthKey", &json!({"DomainName": DOMAIN}))?;
    let key = auth["PushAuthKeyInfo"]["MasterAuthKey"]
        .as_str()
        .context("no key")?
        .to_owned();
    let now = super::now()?;
    let (later, earlier) = (format!("{:X}", now + 600), format!("{:x}", now - 600));
    let query = |key: &str, time: &str| -> Result<String> {
        Ok(format!("?txSecret={}&txTime={time}&x=1", txsecret(key, "cam", time)?))
    };
    for (bad, number) in [
        (String::new(), "500"),
        (query(&key, &earlier)?, "501"),
        (format!("?txTime={later}"), "502"),
        (query("another key", &later)?, "503"),
    ] {
        let mut publisher = push(&server, &bad, "cam")?;
        publisher
            .closed(Duration::from_secs(20))
            .with_context(|| format!("{bad} is let in"))?;
        ensure!(
            server.log().contains(&format!("(18, {number})")),
            "{bad}: the log does not name {number}"
        );
        ensure!(!is_live(&server, "cam")?, "{bad} is live");
    }
    ensure!(server.recordings("cam")?.is_empty(), "a refused push was recorded");
    let publisher = push(&server, &query(&key, &later)?, "cam")?;
    live(&server, "cam")?;
    publisher.finish()?;
    server.finished("cam", 1)?;
    // Both keys are good while one is being changed, and none is asked for when it is switched off.
    sdk.ask(
        "live",
        "ModifyLivePushAuthKey",
        &json!({"DomainName": DOMAIN, "BackupAuthKey": "second"}),
    )?;
    push(&server, &query("second", &later)?, "cam")?.finish()?;
    server.finished("cam", 2)?;
    sdk.ask(
        "live",
        "ModifyLivePushAuthKey",
        &json!({"DomainName": DOMAIN, "Enable": 0}),
    )?;
    push(&server, "", "cam")?.finish()?;
    server.finished("cam", 3)?;
    Ok(())
}

#[test]
fn a_stream_is_listed_dropped_forbidden_and_resumed() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam"])?;
    let stream = json!({"DomainName": DOMAIN, "AppName": "live", "StreamName": "cam"});
    let mut state = |expected: &str| -> Result<()> {
        let said = sdk.ask("live", "DescribeLiveStreamState", &stream)?;
        ensure!(said["StreamState"] == expected, "{said}, not {expected}");
        Ok(())
    };
    state("inactive")?;
    let mut publisher = push(&server, "", "cam")?;
    live(&server, "cam")?;
    state("active")?;
    let online = sdk.ask("live", "DescribeLiveStreamOnlineList", &json!({"DomainName": DOMAIN}))?;
    ensure!(
        online["TotalNum"] == 1 && online["OnlineInfo"][0]["StreamName"] == "cam",
        "{online}"
    );
    let none = sdk.ask("live", "DescribeLiveStreamOnlineList", &json!({"AppName": "other"}))?;
    ensure!(none["TotalNum"] == 0, "{none}");
    sdk.ask("live", "DropLiveStream", &stream)?;
    publisher
        .closed(Duration::from_secs(20))
        .context("the dropped publisher goes on")?;
    sdk.ask("live", "DropLiveStream", &stream)?;
    server.finished("cam", 1)?;
    let mut publisher = push(&server, "", "cam")?;
    live(&server, "cam")?;
    sdk.ask("live", "ForbidLiveStream", &stream)?;
    publisher
        .closed(Duration::from_secs(20))
        .context("the forbidden publisher goes on")?;
    let mut again = push(&server, "", "cam")?;
    again
        .closed(Duration::from_secs(20))
        .context("a forbidden stream is let in")?;
    server.finished("cam", 2)?;
    let said = sdk.ask("live", "DescribeLiveStreamState", &stream)?;
    ensure!(said["StreamState"] == "forbid", "{said}");
    let server = server.kill()?.start()?;
    let key = support::tencent::Key::create(&server, &[])?;
    let mut sdk = support::tencent::Sdk::start(support::tencent::Client::Node(&[]), server.http(), &key)?;
    let said = sdk.ask("live", "DescribeLiveStreamState", &stream)?;
    ensure!(said["StreamState"] == "forbid", "after a restart: {said}");
    let banned = sdk.ask("live", "DescribeLiveForbidStreamList", &json!({}))?;
    ensure!(
        banned["TotalNum"] == 1 && banned["ForbidStreamList"][0]["StreamName"] == "cam",
        "{banned}"
    );
    sdk.ask("live", "ResumeLiveStream", &stream)?;
    record(&server, "live", "cam", 3)?;
    Ok(())
}

#[test]
fn only_known_domains_are_let_in_if_the_settings_say_so() -> Result<()> {
    let (_folder, data) = crate::data()?;
    let server = crate::setup(&data)
        .args(&["--set", "coordinator.known_domains_only=true"])
        .record("flv")
        .start()?;
    let mut publisher = push(&server, "", "cam")?;
    publisher
        .closed(Duration::from_secs(20))
        .context("an unknown domain is let in")?;
    let key = support::tencent::Key::create(&server, &[])?;
    let mut sdk = support::tencent::Sdk::start(support::tencent::Client::Python(&[]), server.http(), &key)?;
    sdk.ask("live", "AddLiveDomain", &json!({"DomainName": DOMAIN, "DomainType": 0}))?;
    sdk.ask(
        "live",
        "ModifyLivePushAuthKey",
        &json!({"DomainName": DOMAIN, "Enable": 0}),
    )?;
    record(&server, "live", "cam", 1)?;
    Ok(())
}
