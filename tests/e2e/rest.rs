//! `/api/v1`: plain JSON by curl, its keys, and schemathesis over its own OpenAPI document.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::programs::{output, python};
use support::server::Server;
use support::tencent::Key;

use crate::{data, setup};

/// Status, content type and body of an answer, by curl: it knows nothing of this project.
fn ask(
    server: &Server,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<(u16, String, Value)> {
    let mut command = Command::new("curl");
    command.args(["-s", "--noproxy", "*", "--max-time", "30", "-X", method]);
    command.args(["-w", "\n%{http_code} %{content_type}"]);
    if let Some(token) = token {
        command.args(["-H", &format!("authorization: Bearer {token}")]);
    }
    if let Some(body) = body {
        command.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
    }
    let bytes = output(command.arg(format!("http://{}/api/v1{path}", server.http())))?.stdout;
    let text = String::from_utf8(bytes)?;
    let (body, last) = text.rsplit_once('\n').context("no status")?;
    let (status, kind) = last.split_once(' ').context("no content type")?;
    Ok((
        status.parse()?,
        kind.to_owned(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    ))
}

#[test]
fn the_same_resources_as_plain_json() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).record("flv").start()?;
    let call = |method: &str, path: &str, body: Option<Value>| ask(&server, method, path, None, body.as_ref());
    let spec = json!({"name": "day", "formats": [{"format": "mp4", "record_interval_s": 3600}]});
    let (status, kind, made) = call("POST", "/templates", Some(spec.clone()))?;
    ensure!(status == 200 && kind == "application/json", "{status} {kind} {made}");
    ensure!(made["formats"][0]["record_interval_s"] == 3600, "{made}");
    let (status, kind, refused) = call("POST", "/templates", Some(spec))?;
    ensure!(
        status == 409 && kind == "application/problem+json",
        "{status} {kind} {refused}"
    );
    ensure!(refused["status"] == 409 && refused["detail"].is_string(), "{refused}");
    let rule = json!({"domain": "push.example.com", "app": "live", "template": "day"});
    let (status, _, rule) = call("POST", "/rules", Some(rule))?;
    ensure!(
        status == 200 && rule["stream"].is_null() && rule["template"] == "day",
        "{rule}"
    );
    // What the command line sees is the same.
    let known = server.ask(&["rule", "list"])?;
    ensure!(known["rules"][0]["template_id"] == made["template_id"], "{known}");
    let (status, _, refused) = call("DELETE", "/templates/day", None)?;
    ensure!(status == 409, "a rule uses it: {refused}");
    let (_, _, why) = call(
        "GET",
        "/streams/explain?domain=push.example.com&app=live&stream=x",
        None,
    )?;
    ensure!(why["formats"] == json!(["mp4"]) && why["live"] == false, "{why}");
    for n in 0..3 {
        call("POST", "/templates", Some(json!({"name": format!("t{n}")})))?;
    }
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let (_, _, page) = call("GET", &format!("/templates?page_size=3&page_token={token}"), None)?;
        for template in page["templates"].as_array().context("no templates")? {
            names.push(template["name"].as_str().unwrap_or_default().to_owned());
        }
        token = page["next_page_token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    ensure!(names == ["day", "t0", "t1", "t2"], "{names:?}");
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/recordings/x", 400),
        ("GET", "/files?format=avi", 400),
        ("GET", "/files?unknown=1", 400),
        ("GET", "/tasks/00000000-0000-0000-0000-000000000000", 404),
        ("POST", "/templates", 400),
        ("DELETE", "/rules", 400),
    ] {
        let (found, kind, body) = call(method, path, None)?;
        ensure!(
            found == status && kind == "application/problem+json",
            "{method} {path}: {found} {kind} {body}"
        );
    }
    let (status, _, refused) = call(
        "POST",
        "/templates",
        Some(json!({"name": "y", "formats": [{"format": "mov"}]})),
    )?;
    ensure!(
        status == 400 && refused["detail"].to_string().contains("mov"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn domains_push_keys_and_bans_are_the_same_as_plain_json_and_by_the_command_line() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).record("flv").start()?;
    let call = |method: &str, path: &str, body: Option<Value>| ask(&server, method, path, None, body.as_ref());
    let (status, _, made) = call("POST", "/domains", Some(json!({"name": "Push.example.com"})))?;
    ensure!(
        status == 200 && made["name"] == "push.example.com" && made["push_auth"] == true,
        "{made}"
    );
    let keys = server.ask(&["domain", "keys", "push.example.com"])?;
    ensure!(keys["master_key"].as_str().is_some_and(|key| key.len() == 32), "{keys}");
    let (_, _, shown) = call("GET", "/domains/push.example.com/push-keys", None)?;
    ensure!(shown == keys, "{shown}");
    // A push without a key is not taken; once none is asked for it is.
    let publish = || support::publisher::Publisher::start_at(server.rtmp(), "live?domain=push.example.com", "cam");
    let is_live = || -> Result<bool> { Ok(!server.streams()?.is_empty()) };
    let (status, _, changed) = call("PATCH", "/domains/push.example.com", Some(json!({"push_auth": false})))?;
    ensure!(
        status == 200 && changed["push_auth"] == false && changed["has_master_key"] == true,
        "{changed}"
    );
    let publisher = publish()?;
    let limit = std::time::Duration::from_secs(20);
    let live = |wanted: bool| {
        support::wait::until(limit, "a stream that is live, or is not", || {
            Ok(support::wait::Seen::when(is_live()? == wanted, ""))
        })
    };
    live(true)?;
    let (status, _, dropped) = call("POST", "/streams/push.example.com/live/cam/drop", None)?;
    ensure!(status == 200, "{dropped}");
    live(false)?;
    drop(publisher);
    let stream = json!({"domain": "push.example.com", "app": "live", "stream": "cam"});
    let (status, _, ban) = call("POST", "/bans", Some(json!({"stream": stream, "reason": "rights"})))?;
    ensure!(
        status == 200 && ban["reason"] == "rights" && ban["until"].is_string(),
        "{ban}"
    );
    let bans = server.ask(&["domain", "bans"])?;
    ensure!(bans["bans"][0]["stream"] == stream, "{bans}");
    // It is let in for a moment, and ended as soon as the coordinator is asked.
    let mut publisher = publish()?;
    ensure!(
        publisher.closed(limit)?.is_some() || !is_live()?,
        "a banned stream is ended"
    );
    let (status, ..) = call("DELETE", "/bans/push.example.com/live/cam", None)?;
    ensure!(
        status == 200 && server.ask(&["domain", "bans"])?["bans"] == json!([]),
        "{status}"
    );
    let _publisher = publish()?;
    live(true)?;
    let far = moment(91 * 86_400)?;
    for (method, path, body, status) in [
        ("POST", "/domains", json!({"name": "push.example.com"}), 409),
        ("POST", "/domains", json!({"name": "no host"}), 400),
        ("PATCH", "/domains/nobody.example.com", json!({"enabled": false}), 404),
        (
            "PATCH",
            "/domains/push.example.com",
            json!({"push_auth": true, "master_key": ""}),
            400,
        ),
        ("PATCH", "/domains/push.example.com", json!({"grace_s": 2_592_001}), 400),
        ("POST", "/bans", json!({"stream": stream, "until": far}), 400),
        ("POST", "/compositions", json!({"pieces": [], "name": "x"}), 400),
    ] {
        let (found, _, said) = call(method, path, Some(body))?;
        ensure!(found == status, "{method} {path}: {found} {said}");
    }
    let (status, ..) = call("DELETE", "/domains/push.example.com", None)?;
    ensure!(
        status == 200 && call("GET", "/domains/push.example.com", None)?.0 == 404,
        "{status}"
    );
    // A key for another domain sees nothing of it, one that may only read no push keys.
    for (more, expected) in [
        (&["--domain", "other.example.com"][..], 403),
        (&["--read-only"][..], 403),
    ] {
        server
            .ask(&["domain", "create", "mine.example.com"])
            .or_else(|_| server.ask(&["domain", "list"]))?;
        let key = Key::create(&server, more)?;
        let token = format!("{}:{}", key.id, key.secret);
        let (status, ..) = ask(
            &server,
            "GET",
            "/domains/mine.example.com/push-keys",
            Some(&token),
            None,
        )?;
        ensure!(status == expected, "{more:?}: {status}");
    }
    Ok(())
}

#[test]
fn what_was_recorded_is_found_locked_and_deleted() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    let call = |method: &str, path: &str, body: Option<Value>| ask(&server, method, path, None, body.as_ref());
    call(
        "POST",
        "/templates",
        Some(json!({"name": "all", "formats": [{"format": "flv"}]})),
    )?;
    call(
        "POST",
        "/rules",
        Some(json!({"domain": "push.example.com", "template": "all"})),
    )?;
    super::tencent::one_push(&server, "cam")?;
    let (_, _, files) = call("GET", "/files?stream=cam", None)?;
    let file = &files["files"][0];
    let url = file["url"].as_str().context("no url")?;
    let media = output(Command::new("curl").args(["-sf", "--noproxy", "*", url]))?.stdout;
    ensure!(media.starts_with(b"FLV"), "{url}");
    let id = file["file_id"].as_str().context("no id")?;
    let (_, _, recordings) = call("GET", "/recordings?domain=push.example.com", None)?;
    let recording = &recordings["recordings"][0];
    ensure!(
        recording["state"] == "finished" && recording["file_count"] == 1,
        "{recording}"
    );
    let (_, _, locked) = call("POST", &format!("/files/{id}/lock"), None)?;
    ensure!(locked["locked"] == true, "{locked}");
    let (status, _, refused) = call("DELETE", &format!("/files/{id}"), None)?;
    ensure!(status == 409, "{refused}");
    call("POST", &format!("/files/{id}/unlock"), None)?;
    let (status, _, gone) = call("DELETE", &format!("/files/{id}"), None)?;
    ensure!(status == 200 && gone["deleted"] == id, "{gone}");
    let (status, ..) = call("GET", &format!("/files/{id}"), None)?;
    ensure!(status == 404, "it is gone");
    Ok(())
}

#[test]
fn keys_open_it_as_far_as_they_reach() -> Result<()> {
    let (_folder, data) = data()?;
    let token = "an-api-token-of-this-test";
    let server = setup(&data)
        .env("AIRCHECK_API_TOKEN", token)
        .client_env("AIRCHECK_API_TOKEN", token)
        .start()?;
    let bearer = |key: &Key| format!("{}:{}", key.id, key.secret);
    let all = bearer(&Key::create(&server, &[])?);
    let reader = bearer(&Key::create(&server, &["--read-only"])?);
    let single = Key::create(&server, &["--domain", "one.example.com"])?;
    let ended = Key::create(&server, &[])?;
    server.ask(&["key", "disable", &ended.id])?;
    let spec = json!({"name": "x"});
    for (shown, reads, writes) in [
        (None, 401, 401),
        (Some("wrong"), 401, 401),
        (Some("AKIDnobody:x"), 401, 401),
        (Some(&*format!("{all}x")), 401, 401),
        (Some(&*bearer(&ended)), 401, 401),
        (Some(&*bearer(&single)), 200, 403),
        (Some(&*reader), 200, 403),
        (Some(&*all), 200, 200),
        (Some(token), 200, 409),
    ] {
        let (read, ..) = ask(&server, "GET", "/templates", shown, None)?;
        let (written, ..) = ask(&server, "POST", "/templates", shown, Some(&spec))?;
        ensure!((read, written) == (reads, writes), "{shown:?}: {read} {written}");
    }
    for domain in ["one.example.com", "two.example.com"] {
        let rule = json!({"domain": domain, "template": "x"});
        let (status, _, made) = ask(&server, "POST", "/rules", Some(token), Some(&rule))?;
        ensure!(status == 200, "{made}");
        let task = json!({
            "stream": {"domain": domain, "app": "live", "stream": "s"},
            "start": moment(3_600)?,
            "end": moment(7_200)?,
        });
        let (status, _, made) = ask(&server, "POST", "/tasks", Some(token), Some(&task))?;
        ensure!(status == 200, "{made}");
    }
    // A key for one domain sees nothing of another.
    let single = bearer(&single);
    let (_, _, rules) = ask(&server, "GET", "/rules", Some(&single), None)?;
    ensure!(
        rules["rules"].as_array().is_some_and(|rules| rules.len() == 1)
            && rules["rules"][0]["domain"] == "one.example.com",
        "{rules}"
    );
    // Nor do pages say where they go on: what they leave out has no name here.
    for name in ["one.example.com", "two.example.com", "a.example.com"] {
        let ban = json!({"stream": {"domain": name, "app": "live", "stream": "s"}});
        let (status, _, made) = ask(&server, "POST", "/bans", Some(token), Some(&ban))?;
        ensure!(status == 200, "{made}");
    }
    for (list, field) in [("bans", "bans"), ("rules", "rules")] {
        let (_, _, page) = ask(&server, "GET", &format!("/{list}?page_size=1"), Some(&single), None)?;
        ensure!(
            page[field].as_array().is_some_and(|list| list.len() == 1) && page["next_page_token"] == "",
            "{page}"
        );
        let text = page.to_string();
        ensure!(
            !text.contains("two.example.com") && !text.contains("a.example.com/"),
            "{page}"
        );
    }
    let (_, _, all_tasks) = ask(&server, "GET", "/tasks", Some(token), None)?;
    let of = |domain: &str| {
        let tasks = all_tasks["tasks"].as_array()?;
        let task = tasks.iter().find(|task| task["stream"]["domain"] == domain)?;
        task["task_id"].as_str()
    };
    for (domain, reads, stops) in [("one.example.com", 200, 200), ("two.example.com", 404, 404)] {
        let id = of(domain).with_context(|| format!("{all_tasks}"))?;
        let (read, ..) = ask(&server, "GET", &format!("/tasks/{id}"), Some(&single), None)?;
        let (stopped, ..) = ask(&server, "POST", &format!("/tasks/{id}/stop"), Some(&single), None)?;
        ensure!((read, stopped) == (reads, stops), "{domain}: {read} {stopped}");
    }
    let rule = json!({"domain": "two.example.com", "app": "a", "template": "x"});
    for (method, path, body) in [
        ("POST", "/rules", Some(&rule)),
        ("DELETE", "/rules?domain=two.example.com", None),
        ("GET", "/workers", None),
        ("GET", "/callback-templates", None),
        ("GET", "/access-keys", None),
    ] {
        let (status, ..) = ask(&server, method, path, Some(&single), body)?;
        ensure!(status == 403, "{method} {path}: {status}");
    }
    // Keys are made by who runs the cluster.
    let (status, ..) = ask(&server, "GET", "/access-keys", Some(&all), None)?;
    ensure!(status == 403, "{status}");
    let (_, _, made) = ask(
        &server,
        "POST",
        "/access-keys",
        Some(token),
        Some(&json!({"read_only": true})),
    )?;
    let made = format!(
        "{}:{}",
        made["key"]["secret_id"].as_str().context("no id")?,
        made["secret_key"].as_str().context("no secret")?
    );
    let (status, ..) = ask(&server, "GET", "/rules", Some(&made), None)?;
    ensure!(status == 200, "{status}");
    let (open, ..) = ask(&server, "GET", "/openapi.json", None, None)?;
    ensure!(open == 200, "the document is open");
    Ok(())
}

/// A moment so many seconds ahead.
fn moment(ahead_s: i64) -> Result<String> {
    let at = jiff::Timestamp::from_second(i64::try_from(super::tencent::now()?)? + ahead_s)?;
    Ok(at.to_string())
}

/// Schemathesis makes requests from the document, good and bad: no answer may be the server's fault, or one that the document
/// does not tell of.
#[test]
fn no_request_that_the_document_allows_or_forbids_is_a_server_error() -> Result<()> {
    let (folder, data) = data()?;
    let token = "an-api-token-of-this-test";
    let server = setup(&data)
        .env("AIRCHECK_API_TOKEN", token)
        .client_env("AIRCHECK_API_TOKEN", token)
        .start()?;
    let mut command = Command::new(python());
    command.current_dir(folder.path());
    command.args(["-m", "schemathesis.cli", "run"]);
    command.arg(format!("http://{}/api/v1/openapi.json", server.http()));
    command.args([
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,ignored_auth",
        "--header",
        &format!("Authorization: Bearer {token}"),
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "15",
        "--generation-deterministic",
        "--request-timeout",
        "10",
        "--no-color",
    ]);
    command.env("NO_PROXY", "*");
    output(&mut command)?;
    Ok(())
}
