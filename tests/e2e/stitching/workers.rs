//! What is left of a recording whose worker does not come back: another goes on with it, or finishes it, from the bucket and the metadata alone.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::faults::{Fault, Proxy};
use support::wait::{Seen, until};

use super::bench::{Bench, Change, PREFIX, keep, send, units};
use super::{DOMAIN, checks};

/// Quick to notice what is gone.
const SETTINGS: [&str; 3] = [
    "coordinator.heartbeat=300ms",
    "coordinator.worker_timeout=2s",
    "coordinator.offline_timeout=4s",
];
const APP: &str = "watch";
/// Two whole segments and more.
const LEN_MS: u32 = 12_000;
const LIMIT: Duration = Duration::from_secs(40);

fn has_gap(recording: &Value, reason: &str) -> bool {
    let gaps = recording["gaps"].as_array();
    gaps.is_some_and(|gaps| gaps.iter().any(|gap| gap["reason"] == reason))
}

/// The only recording of a stream, once it has ended, with its list, fetched from the bucket.
fn ended(bench: &Bench, stream: &str) -> Result<(Value, Option<PathBuf>)> {
    let recordings = bench.finished(stream, 1)?;
    let [recording] = recordings.as_slice() else {
        anyhow::bail!("{} recordings: {recordings:#?}", recordings.len());
    };
    let id = recording["recording_id"].as_str().context("no id")?;
    let folder = bench.fetch(APP, stream)?;
    let list = bench.list(stream, id)?.map(|below| folder.join(below));
    Ok((recording.clone(), list))
}

/// Waits until an index of the stream is in the bucket.
fn indexed(bench: &Bench, stream: &str) -> Result<()> {
    until(LIMIT, "an index in the bucket", || {
        let keys = bench.s3.keys(&format!("{PREFIX}{DOMAIN}/{APP}/{stream}/"))?;
        let there = keys.iter().any(|key| key.ends_with("/index.m3u8"));
        Ok(Seen::when(there, format!("{keys:?}")))
    })
}

#[test]
fn another_worker_goes_on_where_the_first_was_lost() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    bench.wait_for(APP, Duration::from_secs(10), &[])?;
    let (first, second) = (bench.worker().start()?, bench.worker().start()?);
    let folder = bench.path("pushes")?;
    let media = Change::None.media(0, LEN_MS)?;
    let pushes = [keep(&folder, 0, &media)?, keep(&folder, 1, &media)?];

    let publisher = send(first.rtmp(), APP, "one", &media, 0)?;
    bench.arrived("one", units(&media))?;
    indexed(&bench, "one")?;
    first.kill()?;
    drop(publisher);
    // Until then the stream is live elsewhere, and a push of it is refused.
    bench.interrupted("one", 1)?;
    send(second.rtmp(), APP, "one", &media, 0)?.finish()?;

    let (recording, list) = ended(&bench, "one")?;
    ensure!(has_gap(&recording, "worker_lost"), "{recording:#}");
    let list = list.context("no list")?;
    checks::ensure_holds_beginnings(&list, &pushes)?;
    checks::ensure_plays(&bench.fetch(APP, "one")?, &list, false)?;
    // The second push is all there: from its list's own folder.
    let text = std::fs::read_to_string(&list)?;
    let (_, own) = text.split_once("#EXT-X-DISCONTINUITY\n").context("no join")?;
    let seconds: f64 = own
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse::<f64>().ok())
        .sum();
    ensure!(
        (seconds - f64::from(LEN_MS) / 1000.0).abs() < 0.1,
        "{seconds} s of the second push"
    );
    Ok(())
}

#[test]
fn what_a_worker_stores_that_came_back_late_is_in_the_final_list() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    bench.wait_for(APP, Duration::from_secs(10), &[])?;
    let (first, second) = (bench.worker().start()?, bench.worker().start()?);
    let folder = bench.path("pushes")?;
    let media = Change::None.media(0, LEN_MS)?;
    let pushes = [keep(&folder, 0, &media)?, keep(&folder, 1, &media)?];

    let publisher = send(first.rtmp(), APP, "one", &media, 0)?;
    bench.arrived("one", units(&media))?;
    indexed(&bench, "one")?;
    let setup = first.kill()?;
    drop(publisher);
    bench.interrupted("one", 1)?;
    // The other goes on with what the first had stored, and only then that one is back.
    let publisher = send(second.rtmp(), APP, "one", &media, 0)?;
    until(LIMIT, "the second push's index", || {
        let keys = bench.s3.keys(&format!("{PREFIX}{DOMAIN}/{APP}/one/"))?;
        let there = keys.iter().any(|key| key.ends_with("e000002/hls/index.m3u8"));
        Ok(Seen::when(there, format!("{keys:?}")))
    })?;
    let _back = setup.start()?;
    publisher.finish()?;

    let (recording, list) = ended(&bench, "one")?;
    ensure!(!has_gap(&recording, "worker_lost"), "nothing is missing: {recording:#}");
    let list = list.context("no list")?;
    checks::ensure_holds(&list, &pushes)?;
    checks::ensure_decodes(&list)
}

#[test]
fn a_machine_that_has_lost_its_disk_finishes_from_the_bucket() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    bench.wait_for(APP, Duration::from_secs(2), &[])?;
    let worker = bench.worker().start()?;
    let media = Change::None.media(0, LEN_MS)?;
    let push = keep(&bench.path("pushes")?, 0, &media)?;
    let publisher = send(worker.rtmp(), APP, "one", &media, 0)?;
    bench.arrived("one", units(&media))?;
    indexed(&bench, "one")?;
    let data = worker.data().to_owned();
    let setup = worker.kill()?;
    drop(publisher);
    std::fs::remove_dir_all(data)?;
    let _anew = setup.start()?;

    let (recording, list) = ended(&bench, "one")?;
    ensure!(has_gap(&recording, "worker_lost"), "{recording:#}");
    checks::ensure_holds_beginnings(&list.context("no list")?, &[push])
}

/// When a worker is killed: in front of a request that writes, or behind it, before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    Behind,
}

/// Kills a worker of its own at its `step`th write; tells whether that many came.
fn killed_at(bench: &Bench, step: u64, moment: Moment) -> Result<bool> {
    let stream = format!("{moment:?}-{step}").to_lowercase();
    let proxy = Proxy::start(bench.s3.endpoint())?;
    let worker = bench.worker_through(&proxy.endpoint()).start()?;
    let (pid, writes) = (worker.pid().to_string(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&writes);
    proxy.set(move |line, _| {
        let writes = line.starts_with("PUT") || line.starts_with("POST");
        if !writes || seen.fetch_add(1, Ordering::SeqCst) != step {
            return Fault::None;
        }
        let fault = match moment {
            Moment::Before => Fault::Cut,
            Moment::Behind => Fault::AnswerLost,
        };
        if moment == Moment::Before {
            // It cannot fail: the process is this test's own.
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        } else {
            // The request is on its way: nobody hears the answer.
            let pid = pid.clone();
            std::thread::spawn(move || Command::new("kill").args(["-KILL", &pid]).status());
        }
        fault
    });
    let media = Change::None.media(0, LEN_MS)?;
    let push = keep(&bench.path(&format!("pushes-{stream}"))?, 0, &media)?;
    // It may be gone already.
    let _ = send(worker.rtmp(), APP, &stream, &media, 0).and_then(|publisher| publisher.finish());
    let (recording, list) = ended(bench, &stream).with_context(|| stream.clone())?;
    let reached = writes.load(Ordering::SeqCst) > step;
    match list {
        Some(list) => {
            checks::ensure_holds_beginnings(&list, std::slice::from_ref(&push)).with_context(|| stream.clone())?;
            let whole = checks::ensure_holds(&list, &[push]).is_ok();
            ensure!(whole || has_gap(&recording, "worker_lost"), "{stream}: {recording:#}");
        }
        None => ensure!(has_gap(&recording, "worker_lost"), "{stream}: {recording:#}"),
    }
    ensure!(
        reached || !has_gap(&recording, "worker_lost"),
        "{stream}: {recording:#}"
    );
    Ok(reached)
}

#[test]
fn killed_at_each_write_it_is_finished_by_another() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    bench.wait_for(APP, Duration::from_secs(1), &[])?;
    let _other = bench.worker().start()?;
    let reached: Result<Vec<bool>> = std::thread::scope(|scope| {
        let bench = &bench;
        let one = |step, moment| scope.spawn(move || killed_at(bench, step, moment));
        let threads: Vec<_> = (0..8)
            .flat_map(|step| [(step, Moment::Before), (step, Moment::Behind)])
            .map(|(step, moment)| one(step, moment))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<bool>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a case panicked"))?
        };
        threads.into_iter().map(join).collect()
    });
    let reached = reached?;
    let writes = reached.iter().filter(|reached| **reached).count();
    ensure!(writes >= 10, "only {writes} moments came: {reached:?}");
    Ok(())
}
