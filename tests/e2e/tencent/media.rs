//! Finding what was recorded, playing it from its link, and removing it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::programs::{output, text};
use support::publisher::Publisher;
use support::server::Server;
use support::source::{Numbered, Shape};
use support::tencent::Sdk;

use super::{DOMAIN, world};

/// Pushes a moment of media, waits for its recording's end, and tells how many pictures it had.
pub(super) fn record(server: &Server, app: &str, stream: &str, count: usize) -> Result<usize> {
    let mut publisher = Publisher::start_at(server.rtmp(), &format!("{app}?domain={DOMAIN}"), stream)?;
    let source = Numbered::new(Shape {
        gop_frames: 5,
        ..Shape::default()
    });
    let prologue = source.prologue();
    let frames: Vec<_> = source.take(150).collect();
    let pictures = frames.iter().filter(|frame| frame.message_type == 9).count();
    for frame in prologue.into_iter().chain(frames) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    publisher.finish()?;
    server.finished(stream, count)?;
    Ok(pictures)
}

pub(super) fn rule_for_all(sdk: &mut Sdk, formats: &[&str]) -> Result<()> {
    let mut template = json!({"TemplateName": "all"});
    for format in formats {
        template[*format] = json!({"Enable": 1});
    }
    let id = sdk.ask("live", "CreateLiveRecordTemplate", &template)?["TemplateId"].clone();
    let rule = json!({"DomainName": DOMAIN, "AppName": "", "StreamName": "", "TemplateId": id});
    sdk.ask("live", "CreateLiveRecordRule", &rule)?;
    Ok(())
}

fn search(sdk: &mut Sdk, params: Value) -> Result<Vec<Value>> {
    let found = sdk.ask("vod", "SearchMedia", &params)?;
    let set = found["MediaInfoSet"].as_array().context("no MediaInfoSet")?.clone();
    Ok(set)
}

/// Status, headers and body.
type Fetched = (u16, Vec<(String, String)>, Vec<u8>);

/// What an answer holds, by curl: it knows nothing of this project.
fn fetch(url: &str, headers: &[&str]) -> Result<Fetched> {
    let mut command = Command::new("curl");
    command.args(["-s", "-i", "--noproxy", "*", "--max-time", "30", "--path-as-is"]);
    for header in headers {
        command.args(["-H", header]);
    }
    let bytes = output(command.arg(url))?.stdout;
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no head")?;
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("no status")?
        .parse()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Ok((status, headers, bytes[end + 4..].to_vec()))
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers
        .iter()
        .find(|(known, _)| known == name)
        .map_or("", |(_, value)| value.as_str())
}

#[test]
fn a_search_finds_a_recording_and_its_link_plays() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam", "HlsParam", "Mp4Param"])?;
    let pictures = record(&server, "live", "cam 1", 1)?.to_string();
    let found = search(
        &mut sdk,
        json!({"SourceTypes": ["Record"], "StreamIds": ["cam 1"], "Sort": {"Field": "CreateTime", "Order": "Desc"}}),
    )?;
    ensure!(found.len() == 3, "{found:?}");
    for media in &found {
        let basic = &media["BasicInfo"];
        let source = &basic["SourceInfo"]["LiveRecordInfo"];
        ensure!(
            source["Domain"] == DOMAIN && source["Path"] == "live" && source["StreamId"] == "cam 1",
            "{media}"
        );
        let url = basic["MediaUrl"].as_str().context("no MediaUrl")?;
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
        let frames = frames
            .trim()
            .trim_end_matches(',')
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        ensure!(
            frames == pictures,
            "{} plays {frames} of {pictures} pictures from {url}",
            basic["Type"]
        );
        let size = media["MetaData"]["Size"].as_u64().context("no size")?;
        let duration = media["MetaData"]["Duration"].as_f64().context("no duration")?;
        ensure!(size > 1_000 && (1.5..4.0).contains(&duration), "{media}");
    }
    let now = "2018-08-01T00:00:00Z";
    ensure!(
        search(&mut sdk, json!({"CreateTime": {"Before": now}}))?.is_empty(),
        "before there was anything"
    );
    ensure!(
        search(&mut sdk, json!({"CreateTime": {"After": now}}))?.len() == 3,
        "after that"
    );
    ensure!(
        search(&mut sdk, json!({"Offset": 1, "Limit": 1}))?.len() == 1,
        "one page"
    );
    let oldest = search(&mut sdk, json!({"Sort": {"Field": "CreateTime", "Order": "Asc"}}))?;
    let ids = |set: &[Value]| set.iter().map(|media| media["FileId"].to_string()).collect::<Vec<_>>();
    let mut turned = ids(&oldest);
    turned.reverse();
    ensure!(turned == ids(&found), "both orders");
    Ok(())
}

#[test]
fn media_is_served_in_ranges_to_who_holds_a_link_and_to_nobody_else() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam", "HlsParam"])?;
    record(&server, "live", "日本 \"x\"", 1)?;
    let mut urls = std::collections::BTreeMap::new();
    for media in search(&mut sdk, json!({}))? {
        let url = media["BasicInfo"]["MediaUrl"]
            .as_str()
            .context("no MediaUrl")?
            .to_owned();
        urls.insert(media["BasicInfo"]["Type"].as_str().unwrap_or_default().to_owned(), url);
    }
    let flv = &urls["flv"];
    let on_disk = std::fs::read(server.file("日本 \"x\"", "flv")?.path)?;
    let (status, headers, whole) = fetch(flv, &[])?;
    ensure!(status == 200 && whole == on_disk, "{status}");
    ensure!(header(&headers, "content-type") == "video/x-flv", "{headers:?}");
    ensure!(header(&headers, "accept-ranges") == "bytes", "{headers:?}");
    let disposition = header(&headers, "content-disposition");
    ensure!(
        disposition.starts_with("inline") && disposition.contains("%E6%97%A5"),
        "{disposition}"
    );
    let etag = header(&headers, "etag").to_owned();
    ensure!(etag.len() > 4, "{headers:?}");
    let (status, headers, part) = fetch(flv, &["Range: bytes=10-19"])?;
    ensure!(status == 206 && part == on_disk[10..20], "{status}");
    ensure!(
        header(&headers, "content-range") == format!("bytes 10-19/{}", on_disk.len()),
        "{headers:?}"
    );
    let (status, ..) = fetch(flv, &["Range: bytes=999999999-"])?;
    ensure!(status == 416, "{status}");
    let (status, _, body) = fetch(flv, &[&format!("If-None-Match: {etag}")])?;
    ensure!(status == 304 && body.is_empty(), "{status}");
    let (_, headers, _) = fetch(&format!("{flv}?download"), &[])?;
    ensure!(
        header(&headers, "content-disposition").starts_with("attachment"),
        "{headers:?}"
    );
    let playlist = &urls["m3u8"];
    let (status, headers, body) = fetch(playlist, &[])?;
    let body = String::from_utf8(body)?;
    ensure!(
        status == 200 && header(&headers, "content-type") == "application/vnd.apple.mpegurl",
        "{headers:?}"
    );
    let segment = body.lines().find(|line| line.ends_with(".ts")).context("no segment")?;
    let (folder, _) = playlist.rsplit_once('/').context("no folder")?;
    let (status, headers, _) = fetch(&format!("{folder}/{segment}"), &[])?;
    ensure!(
        status == 200 && header(&headers, "content-type") == "video/mp2t",
        "{status} {headers:?}"
    );
    let stranger = |url: String| -> Result<u16> { Ok(fetch(&url, &[])?.0) };
    for tail in [
        "../recording.json",
        "..%2frecording.json",
        "%2e%2e/000000.ts",
        "%2fetc%2fpasswd",
        "recording.json",
    ] {
        let status = stranger(format!("{folder}/{tail}"))?;
        ensure!(matches!(status, 403 | 404), "{tail}: {status}");
    }
    let parts: Vec<&str> = flv.split('/').collect();
    let (link, file) = (parts[4], parts[5]);
    let other = playlist.split('/').nth(5).context("no id")?;
    let (expires, mac) = link.split_once('-').context("no link")?;
    let base = format!("http://{}/media", server.http());
    for url in [
        format!("{base}/{link}/{other}/x"),
        format!("{base}/{}-{mac}/{file}/x", expires.parse::<u64>()? + 1),
        format!("{base}/{expires}-{}/{file}/x", "0".repeat(32)),
        format!("{base}/x/{file}/x"),
        format!("{base}/{link}/nonsense/x"),
    ] {
        ensure!(stranger(url.clone())? == 403, "{url}");
    }
    Ok(())
}

#[test]
fn links_expire() -> Result<()> {
    let (_folder, data) = crate::data()?;
    let server = crate::setup(&data)
        .args(&[
            "--set",
            "coordinator.media_link_ttl=1m",
            "--set",
            "coordinator.public_url=https://media.example/",
        ])
        .record("flv")
        .start()?;
    let key = support::tencent::Key::create(&server, &["--read-only"])?;
    let mut sdk = Sdk::start(support::tencent::Client::Node(&[]), server.http(), &key)?;
    record(&server, "live", "one", 1)?;
    let media = search(&mut sdk, json!({}))?
        .into_iter()
        .next()
        .context("nothing found")?;
    let url = media["BasicInfo"]["MediaUrl"]
        .as_str()
        .context("no MediaUrl")?
        .to_owned();
    let path = url
        .strip_prefix("https://media.example/media/")
        .with_context(|| url.clone())?;
    let expires: u64 = path.split('-').next().context("no time")?.parse()?;
    let now = super::now()?;
    ensure!((now + 30..=now + 61).contains(&expires), "{expires} at {now}");
    Ok(())
}

#[test]
fn what_people_say_of_a_file_is_kept_and_a_removed_file_is_gone() -> Result<()> {
    let (_folder, server, key, mut sdk) = world()?;
    rule_for_all(&mut sdk, &["FlvParam", "HlsParam"])?;
    record(&server, "live", "one", 1)?;
    let id_of = |sdk: &mut Sdk, kind: &str| -> Result<String> {
        let found = search(sdk, json!({"MediaTypes": [kind]}))?;
        Ok(found
            .first()
            .and_then(|media| media["FileId"].as_str())
            .context("not found")?
            .to_owned())
    };
    let (flv, hls) = (id_of(&mut sdk, "flv")?, id_of(&mut sdk, "hls")?);
    sdk.ask(
        "vod",
        "ModifyMediaInfo",
        &json!({"FileId": flv, "Name": "The Final.flv", "Description": "seen from the left", "AddTags": ["cup", "left"]}),
    )?;
    sdk.ask(
        "vod",
        "ModifyMediaInfo",
        &json!({"FileId": flv, "DeleteTags": ["left"], "ExpireTime": "2099-01-01T00:00:00Z"}),
    )?;
    sdk.refused(
        "vod",
        "ModifyMediaInfo",
        &json!({"FileId": flv, "AddTags": ["a"], "ClearTags": 1}),
        "InvalidParameterValue.AddTagsAndClearTagsConflict",
    )?;
    let tags: Vec<String> = (0..16).map(|tag| tag.to_string()).collect();
    let many = json!({"FileId": flv, "AddTags": tags});
    sdk.refused("vod", "ModifyMediaInfo", &many, "LimitExceeded.TagCountReachMax")?;
    let long = json!({"FileId": flv, "AddTags": ["x".repeat(33)]});
    sdk.refused("vod", "ModifyMediaInfo", &long, "InvalidParameterValue.TagTooLong")?;
    sdk.refused(
        "vod",
        "ModifyMediaInfo",
        &json!({"FileId": flv, "Name": "x".repeat(65)}),
        "InvalidParameterValue.Name",
    )?;
    for hit in [
        json!({"Names": ["final"]}),
        json!({"NamePrefixes": ["The"]}),
        json!({"Tags": ["cup"]}),
        json!({"Descriptions": ["LEFT"]}),
    ] {
        let found = search(&mut sdk, hit.clone())?;
        ensure!(
            found.len() == 1 && found[0]["FileId"] == flv.as_str(),
            "{hit}: {found:?}"
        );
        ensure!(found[0]["BasicInfo"]["TagSet"] == json!(["cup"]), "{found:?}");
    }
    let known = sdk.ask(
        "vod",
        "DescribeMediaInfos",
        &json!({"FileIds": [flv, "none", hls], "Filters": ["basicInfo"]}),
    )?;
    ensure!(known["NotExistFileIdSet"] == json!(["none"]), "{known}");
    let set = known["MediaInfoSet"].as_array().context("no set")?;
    ensure!(
        set.len() == 2 && set[0]["BasicInfo"]["ExpireTime"] == "2099-01-01T00:00:00Z",
        "{known}"
    );
    let (of_flv, of_hls) = (server.file("one", "flv")?.path, server.file("one", "hls")?.path);
    for id in [&flv, &hls] {
        sdk.ask("vod", "DeleteMedia", &json!({"FileId": id}))?;
        sdk.refused("vod", "DeleteMedia", &json!({"FileId": id}), "ResourceNotFound")?;
    }
    ensure!(!of_flv.exists() && !of_hls.exists(), "the objects are still there");
    let server = server.kill()?.start()?;
    let mut sdk = Sdk::start(support::tencent::Client::Python(&[]), server.http(), &key)?;
    ensure!(search(&mut sdk, json!({}))?.is_empty(), "the library still has them");
    ensure!(server.files("one")?.is_empty(), "the list still has them");
    Ok(())
}

#[test]
fn a_file_of_a_running_recording_stays() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    let template = json!({"TemplateName": "cut", "FlvParam": {"Enable": 1, "RecordInterval": 30}});
    let id = sdk.ask("live", "CreateLiveRecordTemplate", &template)?["TemplateId"].clone();
    let rule = json!({"DomainName": DOMAIN, "AppName": "", "StreamName": "", "TemplateId": id});
    sdk.ask("live", "CreateLiveRecordRule", &rule)?;
    let mut publisher = Publisher::start_at(server.rtmp(), &format!("live?domain={DOMAIN}"), "one")?;
    let source = Numbered::new(Shape {
        gop_frames: 5,
        ..Shape::default()
    });
    // 50 s of media in a moment: the first file is cut after 30 s.
    for frame in source.prologue().into_iter().chain(source.take(4_000)) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    support::wait::until(Duration::from_secs(30), "the first file", || {
        let files = server.files("one")?;
        Ok(support::wait::Seen::when(!files.is_empty(), "none"))
    })?;
    let file = search(&mut sdk, json!({}))?.first().context("not found")?["FileId"].clone();
    sdk.refused("vod", "DeleteMedia", &json!({"FileId": file}), "FailedOperation")?;
    publisher.finish()?;
    server.finished("one", 1)?;
    sdk.ask("vod", "DeleteMedia", &json!({"FileId": file}))?;
    Ok(())
}

/// Recordings in a bucket: a link leads there for a while, with the right name and type, and players find everything by it.
#[test]
fn media_in_a_bucket_is_had_by_the_same_links() -> Result<()> {
    let s3 = support::s3::S3::start(support::s3::Kind::JuiceFs)?;
    let (_folder, data) = crate::data()?;
    let url = format!("s3://{}/live", support::s3::BUCKET);
    let mut setup = crate::setup(&data).args(&["--objects", &url]);
    for (name, value) in s3.env() {
        setup = setup.env(name, &value);
    }
    let server = setup.start()?;
    let key = support::tencent::Key::create(&server, &[])?;
    let mut sdk = Sdk::start(support::tencent::Client::Python(&[]), server.http(), &key)?;
    rule_for_all(&mut sdk, &["FlvParam", "HlsParam", "Mp4Param"])?;
    let pictures = record(&server, "live", "日本 cam", 1)?.to_string();
    let found = search(&mut sdk, json!({}))?;
    ensure!(found.len() == 3, "{found:?}");
    for media in &found {
        let basic = &media["BasicInfo"];
        let url = basic["MediaUrl"].as_str().context("no MediaUrl")?;
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
        let (status, headers, body) = fetch(url, &[])?;
        if basic["Type"] == "m3u8" {
            ensure!(status == 200 && body.starts_with(b"#EXTM3U"), "{status} {headers:?}");
            ensure!(
                header(&headers, "content-type") == "application/vnd.apple.mpegurl",
                "{headers:?}"
            );
            continue;
        }
        let to = header(&headers, "location").to_owned();
        ensure!(status == 302 && to.contains("X-Amz-Expires="), "{status} {headers:?}");
        let (status, headers, part) = fetch(&to, &["Range: bytes=0-9"])?;
        ensure!(status == 206 && part.len() == 10, "{status} {headers:?}");
        let disposition = header(&headers, "content-disposition");
        ensure!(
            disposition.starts_with("inline") && disposition.contains("%E6%97%A5"),
            "{disposition}"
        );
        let kind = if basic["Type"] == "flv" {
            "video/x-flv"
        } else {
            "video/mp4"
        };
        ensure!(header(&headers, "content-type") == kind, "{headers:?}");
        let (_, headers, _) = fetch(&format!("{url}?download"), &[])?;
        let (_, headers, _) = fetch(header(&headers, "location"), &["Range: bytes=0-0"])?;
        ensure!(
            header(&headers, "content-disposition").starts_with("attachment"),
            "{headers:?}"
        );
        let wrong = url.replacen("/media/", "/media/1", 1);
        ensure!(fetch(&wrong, &[])?.0 == 403, "{wrong}");
    }
    Ok(())
}
