//! Tasks: what is in their files, access unit by access unit, whatever streams, processes and operators do meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::frames::Frames;
use support::pacer::{Log, Pacer, Sent};
use support::rtmp::{AUDIO, VIDEO};
use support::server::{MediaFile, Server, Setup};
use support::wait::{Seen, until};
use support::window::{MEASURING, SHAPE, VISIT, Wall, ensure_exact, place};

use crate::{data, setup};

const LIMIT: Duration = Duration::from_secs(40);

fn rfc(ms: i64) -> Result<String> {
    Ok(jiff::Timestamp::from_millisecond(ms)?.to_string())
}

/// Quick to notice that a worker is gone, so that a task without a stream is soon known to have had none.
fn quick(setup: Setup) -> Setup {
    setup.args(&[
        "--set",
        "coordinator.heartbeat=200ms",
        "--set",
        "coordinator.worker_timeout=1s",
    ])
}

fn name(stream: &str) -> String {
    format!("127.0.0.1/live/{stream}")
}

fn create(server: &Server, stream: &str, more: &[&str]) -> Result<String> {
    let name = name(stream);
    let words: Vec<&str> = ["task", "create", &name]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    let task = server.ask(&words)?;
    Ok(task["task_id"].as_str().context("no task id")?.to_owned())
}

fn between(server: &Server, stream: &str, (start, end): (i64, i64), more: &[&str]) -> Result<String> {
    let (start, end) = (rfc(start)?, rfc(end)?);
    let words: Vec<&str> = ["--start", &start, "--end", &end]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    create(server, stream, &words)
}

/// Waits until a task is in a state; gives it with its recordings.
fn task_is(server: &Server, task: &str, state: &str) -> Result<Value> {
    until(LIMIT, &format!("task {task} to be {state}"), || {
        // A server that is just starting says so, and is asked again.
        let said = match server.ask(&["task", "get", task]) {
            Ok(said) => said,
            Err(error) => return Ok(Seen::Not(format!("{error:#}"))),
        };
        Ok(Seen::some(
            (said["state"] == state).then(|| said.clone()),
            format!("{said:#}"),
        ))
    })
    .with_context(|| format!("the server's log:\n{}", server.log()))
}

fn live(server: &Server, stream: &str) -> Result<()> {
    until(LIMIT, "the stream in the list", || {
        let streams = server.streams()?;
        let there = streams.iter().any(|live| live["stream"]["stream"] == stream);
        Ok(Seen::when(there, format!("{streams:?}")))
    })
}

/// The files of each of a task's recordings, the oldest first.
fn files(server: &Server, task: &Value) -> Result<Vec<Vec<MediaFile>>> {
    let recordings = task["recordings"].as_array().context("no recordings")?;
    let file = |record: &Value| -> Result<MediaFile> {
        let key = record["object_key"].as_str().context("no object key")?;
        Ok(MediaFile {
            format: record["format"].as_str().context("no format")?.to_owned(),
            sequence: record["sequence"].as_u64().unwrap_or(0),
            path: server.data().join("objects").join(key),
            record: record.clone(),
        })
    };
    let of_one = |recording: &Value| -> Result<Vec<MediaFile>> {
        ensure!(
            recording["gaps"].as_array().is_some_and(Vec::is_empty),
            "gaps: {recording:#}"
        );
        recording["files"]
            .as_array()
            .context("no files")?
            .iter()
            .map(file)
            .collect()
    };
    recordings.iter().map(of_one).collect()
}

/// The only file of a task's only recording.
fn only_file(server: &Server, task: &Value) -> Result<MediaFile> {
    let mut files: Vec<MediaFile> = files(server, task)?.into_iter().flatten().collect();
    ensure!(files.len() == 1, "{} files: {task:#}", files.len());
    files.pop().context("no file")
}

#[test]
fn tasks_are_exact_overlap_and_reach_back() -> Result<()> {
    let (_folder, data) = data()?;
    let server = quick(setup(&data)).record("flv").start()?;
    server.ask(&["template", "create", "both", "--mp4", "--hls"])?;
    let wall = Wall::new();
    let pacer = Pacer::start(server.rtmp(), "show", SHAPE)?;
    live(&server, "show")?;
    wall.reach(wall.ms + 3_500);
    let now = wall.now();
    let (ahead, back, early) = (
        (now + 2_300, now + 4_700),
        (now - 1_700, now + 3_100),
        (now - 600_000, now + 2_000),
    );
    let tasks = [
        (between(&server, "show", ahead, &[])?, ahead),
        (between(&server, "show", back, &["--template", "both"])?, back),
    ];
    let whole = between(&server, "show", early, &["--template", "no such template"])?;
    let clip = server.ask(&[
        "task",
        "highlight",
        &name("show"),
        "--last",
        "2s",
        "--for",
        "1s",
        "--template",
        "both",
    ])?;
    let clip = clip["task_id"].as_str().context("no id")?.to_owned();
    wall.reach(ahead.1 + 1_500);
    // All of them end while the push goes on, within seconds.
    let mut done = Vec::new();
    for (task, window) in &tasks {
        done.push((task_is(&server, task, "completed")?, *window));
    }
    let whole = task_is(&server, &whole, "completed")?;
    let clip = task_is(&server, &clip, "completed")?;
    live(&server, "show")?;
    let log = pacer.finish()?;
    for (task, (from, until)) in &done {
        for file in files(&server, task)?.into_iter().flatten() {
            let exact = ensure_exact(&file, &log, wall, (Some(*from), Some(*until)));
            exact.with_context(|| format!("{} of {task:#}", file.format))?;
        }
    }
    let formats: Vec<String> = files(&server, &done[1].0)?
        .concat()
        .into_iter()
        .map(|file| file.format)
        .collect();
    ensure!(formats == ["hls", "mp4"], "{formats:?}");
    let file = only_file(&server, &whole)?;
    ensure!(file.format == "flv" && whole["template"] == "task-default", "{whole:#}");
    ensure_exact(&file, &log, wall, (None, Some(early.1))).context("a start before the publish")?;
    for file in files(&server, &clip)?.concat() {
        let time = |field: &str| -> Result<i64> {
            let text = clip[field].as_str().context("no time")?;
            Ok(text.parse::<jiff::Timestamp>()?.as_millisecond())
        };
        ensure_exact(&file, &log, wall, (Some(time("start")?), Some(time("end")?))).context("the highlight")?;
    }
    // The rule's recording knows nothing of all that.
    let all = until(LIMIT, "the rule's recording", || {
        let recordings = server.recordings("show")?;
        let rule = recordings
            .iter()
            .find(|r| r["cause"] == "built-in")
            .context("no rule's recording")?;
        Ok(Seen::some(
            (rule["state"] == "finished").then(|| rule.clone()),
            rule.to_string(),
        ))
    })?;
    let id = all["recording_id"].as_str().context("no id")?;
    let of_rule = server
        .files("show")?
        .into_iter()
        .find(|file| file.record["recording_id"] == id);
    ensure_exact(&of_rule.context("no file")?, &log, wall, (None, None)).context("the rule")
}

#[test]
fn a_task_reaches_back_as_far_as_the_journal_is_kept() -> Result<()> {
    let (_folder, data) = data()?;
    let small = [
        "--set",
        "worker.journal.preroll=3s",
        "--set",
        "worker.journal.segment_size=256 KiB",
    ];
    let server = quick(setup(&data)).args(&small).start()?;
    let wall = Wall::new();
    let pacer = Pacer::start(server.rtmp(), "show", SHAPE)?;
    live(&server, "show")?;
    wall.reach(wall.ms + 17_000);
    let now = wall.now();
    let (near, far) = ((now - 2_500, now + 1_500), (now - 15_000, now + 1_500));
    let near_task = between(&server, "show", near, &[])?;
    let far_task = between(&server, "show", far, &[])?;
    let near_done = task_is(&server, &near_task, "completed")?;
    let far_done = task_is(&server, &far_task, "completed")?;
    let log = pacer.finish()?;
    let kept = only_file(&server, &near_done)?;
    ensure_exact(&kept, &log, wall, (Some(near.0), Some(near.1))).context("within the pre-roll")?;

    let recording = &far_done["recordings"][0];
    let gaps = recording["gaps"].as_array().context("no gaps")?;
    let named: Vec<&str> = gaps.iter().filter_map(|gap| gap["reason"].as_str()).collect();
    // Behind what is gone, pictures wait for the next key picture.
    ensure!(
        ["preroll_expired", "before_first_key_frame"].starts_with(&named) && !named.is_empty(),
        "{recording:#}"
    );
    let units = |value: &Value, field: &str| value[field].as_u64().with_context(|| format!("no {field} in {value}"));
    let file = &recording["files"][0];
    let found = units(file, "video_units")? + units(file, "audio_units")?;
    let lost: Result<Vec<u64>> = gaps.iter().map(|gap| units(gap, "units")).collect();
    let lost: u64 = lost?.into_iter().sum();
    ensure!(lost > 0 && found > 0, "{recording:#}");
    // Units in = units out + units in the gap, but for what was on its way to the worker at both moments.
    let slack = i64::try_from((VISIT + MEASURING + log.lateness).as_millis())?;
    let sent = |from: i64, until: i64| {
        let within = |sent: &&Sent| (from..=until).contains(&wall.of(sent.at));
        log.sent.iter().filter(within).count() as u64
    };
    let (least, most) = (sent(far.0, far.1 - slack), sent(far.0 - slack, far.1));
    ensure!(
        (least..=most).contains(&(found + lost)),
        "{found} found and {lost} lost of {least} to {most}"
    );
    Ok(())
}

#[test]
fn a_stop_keeps_what_was_recorded_and_a_deleted_task_leaves_its_files() -> Result<()> {
    let (_folder, data) = data()?;
    let server = quick(setup(&data)).start()?;
    let wall = Wall::new();
    let pacer = Pacer::start(server.rtmp(), "show", SHAPE)?;
    live(&server, "show")?;
    wall.reach(wall.ms + 1_500);
    let before = wall.now();
    let task = create(&server, "show", &["--for", "1h", "--token", "only-one"])?;
    let again = server.ask(&["task", "list", "--state", "recording"])?;
    ensure!(
        again["tasks"].as_array().is_some_and(|tasks| tasks.len() == 1),
        "{again:#}"
    );
    let after = wall.now();
    task_is(&server, &task, "recording")?;
    wall.reach(after + 2_000);
    let stopping = wall.now();
    let stopped = server.ask(&["task", "stop", &task])?;
    let stopped_by = wall.now();
    ensure!(stopped["state"] == "finishing", "{stopped:#}");
    let done = task_is(&server, &task, "completed")?;
    ensure!(
        server.ask(&["task", "stop", &task])?["state"] == "completed",
        "a stop may be repeated"
    );
    live(&server, "show")?;
    wall.reach(wall.now() + 500);
    let log = pacer.finish()?;
    let file = only_file(&server, &done)?;
    let time = |field: &str| -> Result<i64> {
        Ok(done[field]
            .as_str()
            .context("no time")?
            .parse::<jiff::Timestamp>()?
            .as_millisecond())
    };
    let (start, stop) = (time("start")?, time("stopped")?);
    ensure!(
        (before..=after).contains(&start) && (stopping..=stopped_by).contains(&stop),
        "{done:#}"
    );
    // The stop reaches the worker late: what had been rendered by then stays. It is never less than was asked for.
    let frames = Frames::of(&file)?;
    let last = log.sent[place(&log, VIDEO, frames.video.last().context("no picture")?)?];
    let slack = i64::try_from((VISIT + MEASURING + log.lateness).as_millis())?;
    ensure!(
        wall.of(last.at) > stop - slack - 40,
        "ends {} ms before the stop",
        stop - wall.of(last.at)
    );
    ensure!(wall.of(last.at) <= stopped_by + 2_500, "ends long after the stop");

    server.ask(&["task", "delete", &task])?;
    ensure!(
        server.refused(&["task", "get", &task])?.contains("task list"),
        "it is gone"
    );
    ensure!(file.path.is_file(), "its file stays");
    let recordings = server.recordings("show")?;
    ensure!(
        recordings.iter().any(|r| r["cause"] == format!("task {task}")),
        "{recordings:#?}"
    );
    Ok(())
}

#[test]
fn a_stream_that_comes_late_goes_early_and_comes_back() -> Result<()> {
    let (_folder, data) = data()?;
    let server = quick(setup(&data)).start()?;
    let wall = Wall::new();
    let window = (wall.now() - 200, wall.now() + 9_000);
    let task = between(&server, "show", window, &[])?;
    let nobody = between(&server, "nobody", (window.0, wall.now() + 1_500), &[])?;
    task_is(&server, &task, "waiting")?;
    let mut logs = Vec::new();
    for length in [1_500, 1_200] {
        let pacer = Pacer::start_for(server.rtmp(), "show", SHAPE, Some(Duration::from_millis(length)))?;
        task_is(&server, &task, "recording")?;
        logs.push(pacer.ended()?);
        task_is(&server, &task, "waiting")?;
    }
    // The third is live when the time is over.
    let pacer = Pacer::start(server.rtmp(), "show", SHAPE)?;
    let done = task_is(&server, &task, "completed")?;
    wall.reach(wall.now().max(window.1 + 600));
    logs.push(pacer.finish()?);
    let files = files(&server, &done)?;
    ensure!(files.len() == 3, "{done:#}");
    for (index, (files, log)) in files.iter().zip(&logs).enumerate() {
        let [file] = files.as_slice() else {
            anyhow::bail!("one file: {files:?}")
        };
        let until = (index == 2).then_some(window.1);
        ensure_exact(file, log, wall, (None, until)).with_context(|| format!("publish {index}"))?;
    }
    let failed = task_is(&server, &nobody, "failed")?;
    ensure!(failed["reason"] == "stream_never_live", "{failed:#}");
    Ok(())
}

#[test]
fn killed_in_the_middle_of_a_task_nothing_but_the_last_moment_is_missing() -> Result<()> {
    let (_folder, data) = data()?;
    let setup = quick(setup(&data));
    let server = setup.start()?;
    server.ask(&["template", "create", "both", "--mp4", "--hls"])?;
    let wall = Wall::new();
    let first = Pacer::start(server.rtmp(), "show", SHAPE)?;
    live(&server, "show")?;
    let window = (wall.now() + 1_000, wall.now() + 14_000);
    let task = between(&server, "show", window, &["--template", "both"])?;
    task_is(&server, &task, "recording")?;
    wall.reach(window.0 + 2_500);
    let killed = Instant::now();
    let server = server.kill()?.start()?;
    let first = first.ended()?;
    let second = Pacer::start(server.rtmp(), "show", SHAPE)?;
    wall.reach(window.1 + 1_000);
    let done = task_is(&server, &task, "completed")?;
    let second = second.finish()?;
    let recordings = done["recordings"].as_array().context("no recordings")?;
    ensure!(recordings.len() == 2, "{done:#}");
    let files = |index: usize| -> Result<Vec<MediaFile>> {
        let mut one = done.clone();
        one["recordings"] = Value::Array(vec![recordings[index].clone()]);
        if let Some(gaps) = one["recordings"][0]["gaps"].as_array_mut() {
            // A torn tail is named, and all that may be missing.
            gaps.retain(|gap| gap["reason"] != "torn_tail");
        }
        Ok(files(&server, &one)?.concat())
    };
    ensure!(files(0)?.len() == 2 && files(1)?.len() == 2, "{done:#}");
    // What the first publish had sent by then is all there: as if it had ended at the kill.
    let safe = killed - VISIT - MEASURING - first.lateness;
    for file in files(0)? {
        let frames = Frames::of(&file)?;
        let last = frames.video.last().context("no picture")?.number;
        let least = first.sent_by(VIDEO, safe) as u64;
        ensure!(last + 1 >= least, "{}: {last} of {least} pictures", file.format);
        let log = Log {
            sent: first.sent[..=place(&first, VIDEO, frames.video.last().context("none")?)?.max(place(
                &first,
                AUDIO,
                frames.audio.last().context("none")?,
            )?)]
                .to_vec(),
            ..first.clone()
        };
        ensure_exact(&file, &log, wall, (Some(window.0), None)).context("before the kill")?;
    }
    for file in files(1)? {
        ensure_exact(&file, &second, wall, (None, Some(window.1))).context("after the kill")?;
    }
    Ok(())
}

#[test]
fn a_coordinator_that_is_dead_at_start_and_end_misses_neither() -> Result<()> {
    let (_folder, data) = data()?;
    let setup = quick(setup(&data.join("coordinator")));
    let server = setup.start()?;
    let objects = format!("file://{}", server.data().join("objects").display());
    let coordinator = format!("http://{}", server.grpc());
    let worker = Setup::worker(env!("CARGO_BIN_EXE_aircheck"), &data.join("worker"), &coordinator);
    let worker = worker.args(&["--objects", &objects]).start()?;
    let wall = Wall::new();
    let pacer = Pacer::start(worker.rtmp(), "show", SHAPE)?;
    live(&server, "show")?;
    let window = (wall.now() + 2_500, wall.now() + 5_000);
    let task = between(&server, "show", window, &[])?;
    let state = server.ask(&["task", "get", &task])?["state"].clone();
    ensure!(state == "scheduled", "{state}");
    // Its worker has been told ahead of time, and shows that with its heartbeat.
    until(LIMIT, "the recording that is to come", || {
        let recordings = server.recordings("show")?;
        Ok(Seen::when(
            recordings.iter().any(|r| r["state"] == "scheduled"),
            format!("{recordings:?}"),
        ))
    })?;
    wall.reach(window.0 - 700);
    let address = server.grpc();
    let setup = server.kill()?;
    wall.reach(window.1 + 1_500);
    let server = setup.grpc_at(address).start()?;
    let done = task_is(&server, &task, "completed")?;
    let log = pacer.finish()?;
    ensure_exact(
        &only_file(&server, &done)?,
        &log,
        wall,
        (Some(window.0), Some(window.1)),
    )
}

#[test]
fn what_is_wrong_is_refused_with_a_reason() -> Result<()> {
    let (_folder, data) = data()?;
    let server = setup(&data).start()?;
    server.ask(&["template", "create", "never"])?;
    let show = name("show");
    let cases: [(&[&str], &str); 9] = [
        (&["task", "create", &show, "--for", "1m"], "is not live"),
        (&["task", "highlight", &show], "is not live"),
        (
            &["task", "create", &show, "--start", "+1m", "--end", "+30s"],
            "is not after start",
        ),
        (&["task", "create", &show, "--start", "-2m", "--end", "-1m"], "is past"),
        (&["task", "create", &show, "--start", "+1m", "--for", "25h"], "max_span"),
        (&["task", "create", &show, "--start", "+8d", "--for", "1h"], "max_ahead"),
        (
            &["task", "create", &show, "--start", "soon", "--for", "1h"],
            "is no time",
        ),
        (
            &[
                "task",
                "create",
                &show,
                "--start",
                "+1m",
                "--for",
                "1h",
                "--template",
                "never",
            ],
            "no format on",
        ),
        (&["task", "stop", "0198f3b2-0000-7000-8000-000000000000"], "task list"),
    ];
    for (words, reason) in cases {
        let said = server.refused(words)?;
        ensure!(
            said.contains(reason),
            "{words:?} is refused without naming {reason}: {said}"
        );
    }
    Ok(())
}
