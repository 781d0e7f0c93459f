//! Events that wait are told by whoever leads next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::cluster::{Cluster, Shape};
use support::publisher::Publisher;
use support::receiver::{Answer, Receiver};
use support::source::{Numbered, Shape as Media};
use support::wait::{Seen, until};

use crate::shape;

#[test]
fn events_that_wait_are_told_by_the_next_leader_under_their_ids_and_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("secrets.key");
    let keys = format!("coordinator.secrets_key_file={}", keys.to_str().context("a path")?);
    let mut cluster = Cluster::start(&Shape {
        coordinator_settings: &[
            "coordinator.heartbeat=500ms",
            "coordinator.worker_timeout=3s",
            "coordinator.events.allow=127.0.0.0/8",
            "coordinator.events.retry_after=500ms",
            "coordinator.events.retries=1000",
            &keys,
        ],
        ..shape(1, 3, 1)
    })?;
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let receiver = Receiver::scripted(move |_| match opened.load(Ordering::SeqCst) {
        true => Answer::Take,
        false => Answer::Status(503),
    })?;
    let urls = ["push-start", "push-end", "file", "status"].map(|kind| (format!("--{kind}"), receiver.url("/told")));
    let mut create = vec!["callback", "template", "create", "told"];
    create.extend(urls.iter().flat_map(|(flag, url)| [flag.as_str(), url.as_str()]));
    cluster.asker().ask(&create)?;
    let rule = [
        "callback",
        "rule",
        "create",
        "--domain",
        "127.0.0.1",
        "--template",
        "told",
    ];
    cluster.asker().ask(&rule)?;
    let mut publisher = Publisher::start(cluster.workers[0].up()?.rtmp(), "told")?;
    let source = Numbered::new(Media::default());
    for frame in source.prologue().into_iter().chain(source.take(200)) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    publisher.finish()?;
    cluster.asker().finished("told", 1)?;
    let listed = |cluster: &Cluster| -> Result<Vec<Value>> {
        let all = cluster.asker().ask(&["event", "list"])?;
        Ok(all["events"].as_array().context("no events")?.clone())
    };
    let ids = |events: &[Value]| -> std::collections::BTreeSet<String> {
        events
            .iter()
            .filter_map(|event| event["id"].as_str().map(str::to_owned))
            .collect()
    };
    let waiting = listed(&cluster)?;
    ensure!(
        waiting.len() >= 5 && waiting.iter().all(|event| event["state"] == "pending"),
        "{waiting:?}"
    );
    // One leader after another dies with them.
    let mut dead = None;
    for _ in 0..2 {
        let leader = cluster.leader(dead)?;
        let heard = receiver.heard().len();
        receiver.until(Duration::from_secs(20), |all| all.len() > heard)?;
        cluster.coordinators[leader].kill()?;
        if let Some(before) = dead.replace(leader) {
            cluster.coordinators[before].start()?;
        }
    }
    cluster.leader(dead)?;
    ensure!(ids(&listed(&cluster)?) == ids(&waiting), "none is lost, none is new");
    let before = receiver.heard().len();
    open.store(true, Ordering::SeqCst);
    until(Duration::from_secs(30), "every event to be delivered", || {
        let all = listed(&cluster)?;
        let done = all.iter().all(|event| event["state"] == "delivered");
        Ok(Seen::when(done && !all.is_empty(), format!("{all:?}")))
    })?;
    let told = receiver.heard().split_off(before);
    let told_ids = told.iter().map(|heard| heard.id.clone()).collect();
    ensure!(ids(&waiting) == told_ids, "{told_ids:?}");
    let of_push: Vec<i64> = told
        .iter()
        .map(support::receiver::Heard::kind)
        .filter(|kind| *kind < 2)
        .collect();
    ensure!(of_push == [1, 0], "its begin before its end: {of_push:?}");
    let of_recording: Vec<&Value> = told
        .iter()
        .filter(|heard| matches!(heard.kind(), 100 | 332))
        .map(|heard| &heard.body)
        .collect();
    let (first, last) = (
        of_recording.first().context("none")?,
        of_recording.last().context("none")?,
    );
    ensure!(
        first["record_event"] == "record_start_succeeded"
            && last["record_event"] == "record_ended"
            && of_recording.len() == 3,
        "{of_recording:?}"
    );
    Ok(())
}
