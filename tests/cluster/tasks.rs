//! Tasks over a change of leaders: whoever leads at the second of a start or an end, and whoever dies then, the recording is exact.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::cluster::Cluster;
use support::pacer::Pacer;
use support::server::MediaFile;
use support::wait::{Seen, until};
use support::window::{SHAPE, Wall, ensure_exact};

use crate::shape;

const LIMIT: Duration = Duration::from_secs(60);
/// Each stream's task begins so long after the one before it: some begin just before the leader dies, some while nobody leads.
const APART_MS: i64 = 400;
const STREAMS: usize = 4;

fn rfc(ms: i64) -> Result<String> {
    Ok(jiff::Timestamp::from_millisecond(ms)?.to_string())
}

/// Makes a task; gives its id.
fn between(cluster: &Cluster, stream: &str, (from, until): (i64, i64)) -> Result<String> {
    let stream = format!("127.0.0.1/live/{stream}");
    let (from, until) = (rfc(from)?, rfc(until)?);
    let task = cluster
        .asker()
        .ask(&["task", "create", &stream, "--start", &from, "--end", &until])?;
    Ok(task["task_id"].as_str().context("no task id")?.to_owned())
}

/// Waits until a task is completed; gives its only file.
fn file(cluster: &Cluster, task: &str) -> Result<MediaFile> {
    let done: Value = until(LIMIT, &format!("task {task} to be completed"), || {
        let said = match cluster.asker().ask(&["task", "get", task]) {
            Ok(said) => said,
            Err(error) => return Ok(Seen::Not(format!("{error:#}"))),
        };
        let done = said["state"] == "completed";
        Ok(Seen::some(done.then(|| said.clone()), format!("{said:#}")))
    })?;
    let recordings = done["recordings"].as_array().context("no recordings")?;
    ensure!(recordings.len() == 1, "one recording: {done:#}");
    ensure!(
        recordings[0]["gaps"].as_array().is_some_and(Vec::is_empty),
        "no gaps: {done:#}"
    );
    let files = recordings[0]["files"].as_array().context("no files")?;
    ensure!(files.len() == 1, "one file: {done:#}");
    let key = files[0]["object_key"].as_str().context("no object key")?;
    Ok(MediaFile {
        format: files[0]["format"].as_str().context("no format")?.to_owned(),
        sequence: 0,
        path: cluster.asker().objects.join(key),
        record: files[0].clone(),
    })
}

/// Kills the leader, and starts it again as soon as another leads.
fn leader_dies(cluster: &mut Cluster) -> Result<()> {
    let old = cluster.leader(None)?;
    cluster.coordinators[old].kill()?;
    cluster.leader(Some(old))?;
    cluster.coordinators[old].start()
}

#[test]
fn a_task_is_exact_when_the_leader_dies_at_its_start_and_at_its_end() -> Result<()> {
    let mut cluster = Cluster::start(&shape(3, 3, 2))?;
    let wall = Wall::new();
    let mut pacers = Vec::new();
    for number in 0..STREAMS {
        let worker = cluster.workers[number % 2].up()?.rtmp();
        pacers.push(Pacer::start(worker, &format!("s{number}"), SHAPE)?);
    }
    until(LIMIT, "all streams live", || {
        let streams = cluster.asker().streams()?;
        Ok(Seen::when(streams.len() == STREAMS, format!("{streams:?}")))
    })?;
    let begin = wall.now() + 3_000;
    let mut tasks = Vec::new();
    for number in 0..STREAMS {
        let from = begin + APART_MS * i64::try_from(number)?;
        let window = (from, from + 9_000);
        tasks.push((between(&cluster, &format!("s{number}"), window)?, number, window));
    }
    // Among the starts.
    wall.reach(begin + APART_MS / 2);
    // Heard of by the leader, and by nobody else: it begins while nobody leads.
    let now = wall.now();
    let sudden = (now + 100, now + 5_000);
    tasks.push((between(&cluster, "s0", sudden)?, 0, sudden));
    leader_dies(&mut cluster)?;
    // Among the ends.
    wall.reach(begin + 9_000 + APART_MS / 2);
    leader_dies(&mut cluster)?;

    let mut files = Vec::new();
    for (task, number, window) in &tasks {
        files.push((file(&cluster, task)?, *number, *window));
    }
    let mut logs = Vec::new();
    for pacer in pacers {
        let log = pacer.finish()?;
        ensure!(log.broken.is_none(), "a push was disturbed: {:?}", log.broken);
        logs.push(log);
    }
    for (file, number, (from, until)) in &files {
        ensure_exact(file, &logs[*number], wall, (Some(*from), Some(*until)))
            .with_context(|| format!("{} of s{number}, {from} to {until}", file.path.display()))?;
    }
    Ok(())
}
