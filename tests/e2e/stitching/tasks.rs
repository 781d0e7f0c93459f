//! A task whose stream breaks up is one HLS recording within the task's time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::frames::Frames;
use support::pacer::{Log, Pacer};
use support::rtmp::VIDEO;
use support::server::{MediaFile, Server, Setup};
use support::wait::{Seen, until};
use support::window::{MEASURING, SHAPE, VISIT, Wall};

use crate::{data, setup};

const LIMIT: Duration = Duration::from_secs(40);

/// Quick to look at what is due.
fn quick(setup: Setup) -> Setup {
    setup.args(&[
        "--set",
        "coordinator.heartbeat=200ms",
        "--set",
        "coordinator.worker_timeout=2s",
    ])
}

fn template(server: &Server, wait: &str) -> Result<()> {
    server.ask(&[
        "template",
        "create",
        "evening",
        "--hls",
        "--hls-continue",
        wait,
        "--flv",
    ])?;
    Ok(())
}

/// A task of `show` between two moments; gives its id.
fn between(server: &Server, start: i64, end: i64) -> Result<String> {
    let rfc = |ms: i64| jiff::Timestamp::from_millisecond(ms).map(|at| at.to_string());
    let (start, end) = (rfc(start)?, rfc(end)?);
    let words = [
        "task",
        "create",
        "127.0.0.1/live/show",
        "--template",
        "evening",
        "--start",
        &start,
        "--end",
        &end,
    ];
    let task = server.ask(&words)?;
    Ok(task["task_id"].as_str().context("no id")?.to_owned())
}

fn task_is(server: &Server, task: &str, state: &str) -> Result<Value> {
    until(LIMIT, &format!("the task to be {state}"), || {
        let said = server.ask(&["task", "get", task])?;
        Ok(Seen::some(
            (said["state"] == state).then(|| said.clone()),
            format!("{said:#}"),
        ))
    })
    .with_context(|| format!("the server's log:\n{}", server.log()))
}

/// The list of a task's only recording, and its other files.
fn only_recording(server: &Server, task: &Value) -> Result<(Value, MediaFile, Vec<Value>)> {
    let recordings = task["recordings"].as_array().context("no recordings")?;
    let [recording] = recordings.as_slice() else {
        anyhow::bail!("{} recordings: {task:#}", recordings.len());
    };
    let files = recording["files"].as_array().context("no files")?;
    let (lists, others): (Vec<Value>, Vec<Value>) = files.iter().cloned().partition(|file| file["format"] == "hls");
    let [list] = lists.as_slice() else {
        anyhow::bail!("{} lists: {recording:#}", lists.len());
    };
    let key = list["object_key"].as_str().context("no key")?;
    let list = MediaFile {
        format: "hls".to_owned(),
        sequence: 0,
        path: server.data().join("objects").join(key),
        record: list.clone(),
    };
    Ok((recording.clone(), list, others))
}

/// That a list holds all pictures of these pushes, but of the last only those sent by `until`.
fn ensure_holds(list: &MediaFile, logs: &[Log], wall: Wall, until: Option<i64>) -> Result<()> {
    let numbers: Vec<u64> = Frames::of(list)?.video.iter().map(|frame| frame.number).collect();
    let (last, whole) = logs.split_last().context("no push")?;
    let mut expected: Vec<u64> = whole.iter().flat_map(|log| 0..log.count(VIDEO) as u64).collect();
    let rest = numbers.get(expected.len()..).context("pictures are missing")?;
    ensure!(rest.iter().copied().eq(0..rest.len() as u64), "{numbers:?}");
    let slack = i64::try_from((VISIT + MEASURING + last.lateness).as_millis())?;
    let sent = |by: Option<i64>| {
        last.of(VIDEO)
            .filter(|frame| by.is_none_or(|by| wall.of(frame.at) <= by))
            .count()
    };
    let (least, most) = (sent(until.map(|until| until - slack)), sent(until));
    ensure!(
        (least..=most).contains(&rest.len()),
        "{} pictures of the last push, not {least} to {most}",
        rest.len()
    );
    expected.extend(rest);
    ensure!(numbers == expected, "{numbers:?}");
    super::ensure_sound(list, logs.len() - 1)
}

#[test]
fn a_task_whose_stream_breaks_up_is_one_recording_to_the_tasks_end() -> Result<()> {
    let (_folder, data) = data()?;
    let server = quick(setup(&data)).start()?;
    template(&server, "20s")?;
    let wall = Wall::new();
    let end = wall.now() + 11_000;
    let task = between(&server, wall.now() - 200, end)?;
    let mut logs = Vec::new();
    for length in [1_500, 1_200] {
        let pacer = Pacer::start_for(server.rtmp(), "show", SHAPE, Some(Duration::from_millis(length)))?;
        task_is(&server, &task, "recording")?;
        logs.push(pacer.ended()?);
        task_is(&server, &task, "waiting")?;
    }
    // The third is live when the time is over, and goes on.
    let pacer = Pacer::start(server.rtmp(), "show", SHAPE)?;
    let done = task_is(&server, &task, "completed")?;
    wall.reach(wall.now().max(end + 600));
    logs.push(pacer.finish()?);
    let (recording, list, others) = only_recording(&server, &done)?;
    ensure_holds(&list, &logs, wall, Some(end))?;
    ensure!(others.len() == 3, "a file of FLV for each push: {others:#?}");
    let gaps = recording["gaps"].as_array().context("no gaps")?;
    let named = gaps.iter().filter(|gap| gap["reason"] == "interrupted").count();
    ensure!(named == 2 && gaps.len() == 2, "{recording:#}");
    ensure!(recording["state"] == "finished", "{recording:#}");
    Ok(())
}

#[test]
fn a_task_that_is_over_or_stopped_while_its_stream_is_away_is_finished_then() -> Result<()> {
    let (_folder, data) = data()?;
    let server = quick(setup(&data)).start()?;
    template(&server, "10m")?;
    let wall = Wall::new();
    let end = wall.now() + 5_000;
    let tasks = [
        between(&server, wall.now() - 200, end)?,
        between(&server, wall.now() - 200, end + 3_600_000)?,
    ];
    let pacer = Pacer::start_for(server.rtmp(), "show", SHAPE, Some(Duration::from_millis(1_500)))?;
    let log = pacer.ended()?;
    for task in &tasks {
        task_is(&server, task, "waiting")?;
    }
    server.ask(&["task", "stop", &tasks[1]])?;
    for task in &tasks {
        let done = task_is(&server, task, "completed")?;
        let (_, list, _) = only_recording(&server, &done)?;
        ensure_holds(&list, std::slice::from_ref(&log), wall, None)?;
    }
    ensure!(wall.now() > end, "it was not over by then");
    // What comes later is of neither.
    Pacer::start_for(server.rtmp(), "show", SHAPE, Some(Duration::from_millis(500)))?.ended()?;
    for task in &tasks {
        only_recording(&server, &server.ask(&["task", "get", task])?)?;
    }
    Ok(())
}

#[test]
fn killed_in_a_tasks_interruption_it_goes_on_after_the_restart() -> Result<()> {
    let (_folder, data) = data()?;
    let start = quick(setup(&data));
    let server = start.start()?;
    template(&server, "10m")?;
    let wall = Wall::new();
    let end = wall.now() + 14_000;
    let task = between(&server, wall.now() - 200, end)?;
    let first = Pacer::start_for(server.rtmp(), "show", SHAPE, Some(Duration::from_millis(1_500)))?.ended()?;
    task_is(&server, &task, "waiting")?;
    server.kill()?;
    let server = start.start()?;
    let second = Pacer::start_for(server.rtmp(), "show", SHAPE, Some(Duration::from_millis(1_500)))?.ended()?;
    let done = task_is(&server, &task, "completed")?;
    let (_, list, _) = only_recording(&server, &done)?;
    ensure_holds(&list, &[first, second], wall, Some(end))
}
