//! HTTP over whichever coordinator: signed requests in every form that the SDKs send, and webhooks of origins.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::cluster::{Cluster, Shape};
use support::tencent::{CLIENTS, Client, Key, Sdk};
use support::wait::{Seen, until};

use crate::shape;

const TOKEN: &str = "0123456789abcdef0123";
/// What is promised: from the leader's death to an answer.
const FAILOVER: Duration = Duration::from_secs(5);

/// Two coordinators that share a key file, on a real etcd.
fn pair(folder: &std::path::Path) -> Result<Cluster> {
    let keys = format!(
        "coordinator.secrets_key_file={}",
        folder.join("secrets.key").to_str().context("a path")?
    );
    let token = format!("hooks.token={TOKEN}");
    let settings = [
        "coordinator.heartbeat=500ms",
        "coordinator.worker_timeout=3s",
        "hooks.origin=rtmp://127.0.0.1:9/{app}/{stream}",
        "hooks.domain=push.example.com",
        &keys,
        &token,
    ];
    Cluster::start(&Shape {
        coordinator_settings: &settings,
        ..shape(1, 2, 0)
    })
}

#[test]
fn every_form_of_signed_request_is_answered_by_every_coordinator() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = pair(folder.path())?;
    let leader = cluster.leader(None)?;
    let key = Key::create(cluster.coordinators[1 - leader].up()?, &[])?;
    let follower = cluster.coordinators[1 - leader].up()?.http();
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let mut sdk = Sdk::start(client, follower, &key)?;
        let name = format!("t{number}");
        let odd = "it's \"odd\" ~*{}|^[]";
        let made = sdk.ask(
            "live",
            "CreateLiveRecordTemplate",
            &json!({"TemplateName": name, "Description": odd, "FlvParam": {"Enable": 1, "RecordInterval": 1800, "StorageTime": 0}}),
        );
        let made = made.with_context(|| format!("{client:?}"))?;
        let read = sdk.ask(
            "live",
            "DescribeLiveRecordTemplate",
            &json!({"TemplateId": made["TemplateId"]}),
        )?;
        ensure!(read["Template"]["Description"] == odd, "{client:?}: {read}");
    }
    // The leader has what came over the other one, and refuses in the same words.
    let mut sdk = Sdk::start(Client::Python(&[]), cluster.coordinators[leader].up()?.http(), &key)?;
    let all = sdk.ask("live", "DescribeLiveRecordTemplates", &json!({}))?;
    ensure!(
        all["Templates"]
            .as_array()
            .is_some_and(|list| list.len() == CLIENTS.len()),
        "{all}"
    );
    let wrong = Key {
        secret: "0123456789abcdef0123456789abcdef".to_owned(),
        ..key.clone()
    };
    let mut stranger = Sdk::start(Client::Python(&[]), follower, &wrong)?;
    stranger.refused(
        "live",
        "DescribeLiveRecordTemplates",
        &json!({}),
        "AuthFailure.SignatureFailure",
    )?;

    // The one that is asked goes on to answer when the other dies.
    let begin = Instant::now();
    cluster.coordinators[leader].kill()?;
    let mut sdk = Sdk::start(Client::Python(&[]), follower, &key)?;
    until(Duration::from_secs(20), "an answer", || {
        Ok(match sdk.call("live", "DescribeLiveRecordTemplates", &json!({}))? {
            Ok(answer) => Seen::Met(answer),
            Err(refused) => Seen::Not(format!("{refused:?}")),
        })
    })?;
    eprintln!("HTTP answered {:?} after kill -9 of the leader", begin.elapsed());
    ensure!(begin.elapsed() < FAILOVER, "{:?}", begin.elapsed());
    Ok(())
}

/// Tells a coordinator of a publish at the origin, with the program that origins call.
fn tell(cluster: &Cluster, coordinator: usize, name: &str) -> Result<String> {
    let url = format!(
        "http://{}/hooks/nginx-rtmp?token={TOKEN}",
        cluster.coordinators[coordinator].up()?.http()
    );
    let body = format!("call=publish&app=live&name={name}&clientid=7&addr=127.0.0.1");
    let mut command = std::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]);
    command.args(["--write-out", "%{http_code}", "--data", &body, &url]);
    let output = support::programs::output(&mut command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_webhook_is_taken_by_whichever_coordinator_it_reaches_also_during_an_election() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = pair(folder.path())?;
    let leader = cluster.leader(None)?;
    for (coordinator, name) in [(leader, "a"), (1 - leader, "b")] {
        let said = tell(&cluster, coordinator, name)?;
        ensure!(said == "ok\n200", "{said}");
    }
    let begin = Instant::now();
    cluster.coordinators[leader].kill()?;
    // An origin that is refused may send its publisher away: it is held until somebody leads.
    let said = tell(&cluster, 1 - leader, "c")?;
    ensure!(said == "ok\n200", "{said}");
    ensure!(begin.elapsed() < FAILOVER, "{:?}", begin.elapsed());
    let list = cluster.asker().ask(&["pull", "list"])?;
    let known = list["pulls"].as_array().map_or(0, Vec::len);
    ensure!(known == 3, "{list}");
    Ok(())
}

/// Asks `/api/v1` of one coordinator by curl; with a body it is a POST.
fn plain(cluster: &Cluster, coordinator: usize, path: &str, body: Option<&Value>) -> Result<Value> {
    let url = format!("http://{}/api/v1{path}", cluster.coordinators[coordinator].up()?.http());
    let mut command = std::process::Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "20",
        "--noproxy",
        "*",
    ]);
    if let Some(body) = body {
        command.args([
            "--header",
            "Content-Type: application/json",
            "--data",
            &body.to_string(),
        ]);
    }
    let text = support::programs::text(command.arg(&url))?;
    serde_json::from_str(&text).with_context(|| format!("{path} answers {text:?}"))
}

#[test]
fn what_is_written_as_plain_json_over_a_follower_is_read_over_it_at_once() -> Result<()> {
    let cluster = Cluster::start(&shape(1, 3, 0))?;
    let leader = cluster.leader(None)?;
    for round in 0..10 {
        let writer = (leader + 1 + round % 2) % 3;
        let name = format!("json-{round}");
        let body = json!({"name": name, "formats": [{"format": "mp4"}]});
        let made = plain(&cluster, writer, "/templates", Some(&body))?;
        let id = made["template_id"].as_str().context("no template_id")?.to_owned();
        // The same client, then a client of another coordinator.
        for reader in [writer, leader, (leader + 2) % 3] {
            let read = plain(&cluster, reader, &format!("/templates/{id}"), None)?;
            ensure!(read["name"] == name, "{read}");
            let all = plain(&cluster, reader, "/templates", None)?;
            let count = all["templates"].as_array().map_or(0, Vec::len);
            ensure!(count == round + 1, "{count} templates over c{reader}: {all}");
        }
    }
    Ok(())
}
