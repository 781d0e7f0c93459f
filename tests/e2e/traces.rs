//! Where every second of a recording went: one trace, whoever took part.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::Etcd;
use support::faults::{Fault, Proxy};
use support::otlp::{Receiver, Span};
use support::publisher::Publisher;
use support::receiver::Receiver as Told;
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::source::{Numbered, Shape};
use support::wait::{Seen, until};

use crate::data;

const BINARY: &str = env!("CARGO_BIN_EXE_aircheck");
const LIMIT: Duration = Duration::from_secs(40);

/// Five seconds of media, as fast as it is taken.
fn push(server: &Server, stream: &str) -> Result<()> {
    let mut publisher = Publisher::start(server.rtmp(), stream)?;
    let source = Numbered::new(Shape::default());
    for frame in source.prologue() {
        publisher.send(frame.message_type, 0, &frame.body)?;
    }
    for frame in source.take(350) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    publisher.finish()
}

fn state_is(coordinator: &Server, state: &str) -> Result<String> {
    let recording = until(LIMIT, &format!("a recording that is {state}"), || {
        let recordings = coordinator.recordings("show")?;
        let found = recordings.iter().find(|one| one["state"] == state);
        Ok(Seen::some(found.cloned(), format!("{recordings:?}")))
    })?;
    Ok(recording["trace_id"].as_str().context("no trace")?.to_owned())
}

fn count(spans: &[Span], name: &str, process: &str) -> usize {
    spans
        .iter()
        .filter(|span| span.name == name && span.process == process)
        .count()
}

#[test]
fn two_workers_and_a_coordinator_tell_of_a_recording_in_one_trace() -> Result<()> {
    let receiver = Receiver::start()?;
    let (s3, etcd) = (S3::start(Kind::Moto)?, Etcd::start(1)?);
    let proxy = Proxy::start(s3.endpoint())?;
    let (folder, at) = data()?;
    let coordinator = Setup::coordinator(BINARY, &at, &etcd.url("traces"))
        .args(&["--set", "coordinator.name=desk"])
        .args(&["--set", "coordinator.events.allow=127.0.0.0/8"])
        .args(&receiver.over_grpc().each_ref().map(String::as_str))
        .start()?;
    let told = Told::start()?;
    let url = told.url("/told");
    coordinator.ask(&[
        "callback", "template", "create", "desk", "--file", &url, "--status", &url,
    ])?;
    coordinator.ask(&[
        "callback",
        "rule",
        "create",
        "--domain",
        "127.0.0.1",
        "--template",
        "desk",
    ])?;
    coordinator.ask(&["template", "create", "watch", "--hls", "--hls-continue", "8s"])?;
    coordinator.ask(&["rule", "create", "--domain", "127.0.0.1", "--template", "watch"])?;
    let worker = |name: &str, endpoint: &str| {
        let mut setup = Setup::worker(BINARY, &folder.path().join(name), &coordinator.grpc_url()).args(&[
            "--objects",
            &format!("s3://{BUCKET}/traces"),
            "--set",
            &format!("worker.name={name}"),
        ]);
        for (key, value) in s3.env() {
            setup = setup.env(key, &value);
        }
        setup.env("AWS_ENDPOINT_URL", endpoint)
    };
    let one = worker("one", s3.endpoint())
        .args(&receiver.over_grpc().each_ref().map(String::as_str))
        .start()?;
    let two = worker("two", &proxy.endpoint())
        .args(&receiver.over_http().each_ref().map(String::as_str))
        .start()?;

    push(&one, "show")?;
    state_is(&coordinator, "interrupted")?;
    let failed = AtomicBool::new(false);
    proxy.set(move |line, _| {
        let segment = line.starts_with("PUT") && line.contains(".ts");
        if segment && !failed.swap(true, Ordering::Relaxed) {
            Fault::Busy
        } else {
            Fault::None
        }
    });
    push(&two, "show")?;
    let trace = state_is(&coordinator, "finished")?;

    told.until(LIMIT, |heard| heard.iter().any(|one| one.kind() == 100))?;
    let spans = until(LIMIT, "the recording's end in its trace", || {
        let spans: Vec<Span> = receiver
            .spans()?
            .into_iter()
            .filter(|span| span.trace == trace)
            .collect();
        let ends = spans.iter().any(|span| span.name == "finish")
            && spans.iter().any(|span| span.name.ends_with("/CommitFile"))
            && count(&spans, "upload", "two") > 0
            && count(&spans, "callback", "desk") >= told.heard().len().max(1);
        Ok(Seen::some(ends.then(|| spans.clone()), format!("{spans:#?}")))
    })?;
    ensure_whole(&spans)?;
    for worker in ["one", "two"] {
        for (name, expected) in [("publish", 1), ("unpublish", 1), ("record", 1)] {
            let found = count(&spans, name, worker);
            ensure!(found == expected, "{found} {name:?} of worker {worker}: {spans:#?}");
        }
        for name in ["render", "upload", "commit recording"] {
            ensure!(
                count(&spans, name, worker) > 0,
                "no {name:?} of worker {worker}: {spans:#?}"
            );
        }
    }
    ensure!(count(&spans, "lease", "desk") == 2, "{spans:#?}");
    // Away between the two pushes, and behind the second until it was waited for no longer.
    ensure!(count(&spans, "interruption", "desk") == 2, "{spans:#?}");
    ensure!(count(&spans, "callback", "desk") == told.heard().len(), "{spans:#?}");
    let failures: Vec<&Span> = spans.iter().filter(|span| span.failed).collect();
    let [failure] = failures.as_slice() else {
        anyhow::bail!("one request failed, the trace has {failures:#?}");
    };
    ensure!(
        (failure.name.as_str(), failure.process.as_str()) == ("storage request", "two"),
        "{failure:?}"
    );
    let again = |span: &&Span| span.name == failure.name && span.parent == failure.parent && span.begin > failure.begin;
    ensure!(
        spans.iter().any(|span| again(&span)),
        "it was not made again: {spans:#?}"
    );
    Ok(())
}

/// That there is one root, that every span hangs below one that is there, and that a call's two ends are joined.
fn ensure_whole(spans: &[Span]) -> Result<()> {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    ensure!(ids.len() == spans.len(), "ids are used twice: {spans:#?}");
    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    ensure!(
        roots.len() == 1 && roots.iter().all(|root| root.name == "recording"),
        "roots: {roots:#?}"
    );
    for span in spans.iter().filter(|span| !span.parent.is_empty()) {
        ensure!(
            ids.contains(span.parent.as_str()),
            "the parent of {span:?} is missing: {spans:#?}"
        );
    }
    for served in spans.iter().filter(|span| span.name.starts_with("aircheck.v1.")) {
        let caller = spans
            .iter()
            .find(|span| span.id == served.parent)
            .context("no caller")?;
        ensure!(
            caller.name.starts_with("commit") && caller.process != served.process,
            "{served:?} below {caller:?}"
        );
    }
    Ok(())
}

#[test]
fn metrics_arrive_over_both_protocols_under_the_names_that_are_fetched() -> Result<()> {
    let receiver = Receiver::start()?;
    for (name, way) in [
        ("grpc", receiver.over_grpc().to_vec()),
        ("http", receiver.over_http().to_vec()),
    ] {
        let (_folder, at) = data()?;
        let way: Vec<&str> = way.iter().map(String::as_str).collect();
        let server = Setup::new(BINARY, &at)
            .args(&["--record", "flv", "--set", &format!("worker.name={name}")])
            .args(&["--set", "telemetry.otlp_metrics_interval=1s"])
            .args(&way)
            .start()?;
        push(&server, "show")?;
        let sent = until(LIMIT, "a file that is told of over OTLP", || {
            let sent = receiver.metrics(name)?;
            let files = sent.get("aircheck_worker_files_total").copied();
            Ok(Seen::some(
                (files == Some(1.0)).then(|| sent.clone()),
                format!("{sent:?}"),
            ))
        })?;
        ensure!(sent["aircheck_worker_lease_seconds"] >= 1.0, "{sent:?}");
        ensure!(sent["aircheck_worker_units_recorded_total"] == 350.0, "{sent:?}");

        let (_, page) = server.get("/metrics")?;
        for series in sent.keys() {
            let there = page.lines().any(|line| line.starts_with(series.as_str()));
            ensure!(there, "{series} is not fetched:\n{page}");
        }
    }
    Ok(())
}

#[test]
fn a_live_stream_has_series_of_its_own_where_that_is_switched_on() -> Result<()> {
    let (_folder, at) = data()?;
    let server = Setup::new(BINARY, &at)
        .args(&["--record", "flv", "--set", "telemetry.stream_metrics=true"])
        .start()?;
    let mut publisher = Publisher::start(server.rtmp(), "one")?;
    let source = Numbered::new(Shape::default());
    for frame in source.prologue() {
        publisher.send(frame.message_type, 0, &frame.body)?;
    }
    for frame in source.take(350) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    let series = "aircheck_worker_stream_units{domain=\"127.0.0.1\",app=\"live\",stream=\"one\"} 350";
    let page = |what: &str, fits: &dyn Fn(&str) -> bool| {
        until(LIMIT, what, || {
            let (_, page) = server.get("/metrics")?;
            Ok(Seen::when(fits(&page), page))
        })
    };
    page("the stream's units", &|page| page.contains(series))?;
    page("units of all streams, while it is live", &|page| {
        page.contains("aircheck_worker_units_total{track=\"video\"}") && page.contains("aircheck_worker_publishes 1")
    })?;
    publisher.finish()?;
    page("no series of a stream that is gone", &|page| {
        !page.contains("stream=\"one\"")
    })?;
    Ok(())
}
