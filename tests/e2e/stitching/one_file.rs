//! One MP4 of all pushes: every unit once, decoded and played to its end, whoever finishes it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::clips::HEAVY;
use support::faults::{Fault, Proxy};
use support::programs::{ffmpeg_new, output, reader, text};
use support::server::Server;

use super::bench::{Bench, Change, keep, send, tags_of, units};
use super::checks;

const SETTINGS: [&str; 3] = [
    "coordinator.heartbeat=300ms",
    "coordinator.worker_timeout=2s",
    "coordinator.offline_timeout=4s",
];
const WINDOW: Duration = Duration::from_secs(4);
const LEN_MS: u32 = 4_000;

/// Records streams of the application that is called as the policy: fragments, and one MP4 of all pushes.
fn one_file(bench: &Bench, gaps: &str, window: Duration) -> Result<()> {
    let more = ["--hls-segments", "fmp4", "--mp4", "--mp4-stitch", gaps];
    bench.wait_for(gaps, window, &more)
}

/// The MP4 files of a stream's only recording, fetched, with their records.
fn ended(bench: &Bench, app: &str, stream: &str) -> Result<(PathBuf, Vec<(Value, PathBuf)>)> {
    let recordings = bench.finished(stream, 1)?;
    let [recording] = recordings.as_slice() else {
        anyhow::bail!("{} recordings: {recordings:#?}", recordings.len());
    };
    let id = recording["recording_id"].as_str().context("no id")?;
    let folder = bench.fetch(app, stream)?;
    let list = bench.list(stream, id)?.context("no list")?;
    let files = bench.files(stream, id, "mp4")?;
    let placed: Vec<(Value, PathBuf)> = files
        .into_iter()
        .map(|(file, below)| (file, folder.join(below)))
        .collect();
    for (record, path) in &placed {
        let len = std::fs::metadata(path)?.len();
        ensure!(record["size"] == len, "{len} bytes of {record:#}");
    }
    ensure!(folder.join(list).is_file(), "the list is not there");
    Ok((folder, placed))
}

/// That a file holds these pushes' units, each once, is sound and decodes without a word.
pub(super) fn ensure_holds(file: &Path, pushes: &[PathBuf], apart: bool) -> Result<()> {
    let mut command = reader("stitched.py");
    command.arg("--file");
    if apart {
        command.arg("--apart");
    }
    text(command.arg(file).args(pushes))?;
    text(reader("bmff_check.py").arg(file))?;
    let mut command = Command::new(ffmpeg_new());
    command.args(["-v", "error", "-nostdin", "-i"]).arg(file);
    let said = output(command.args(["-map", "0", "-f", "null", "-"]))?;
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(
        said.status.success() && words.is_empty(),
        "decoding {}:\n{words}",
        file.display()
    );
    Ok(())
}

fn interrupted(bench: &Bench, workers: &[Server], app: &str, change: Change) -> Result<()> {
    let stream = format!("{app}-{}", change.name());
    let folder = bench.path(&format!("pushes/{stream}"))?;
    let mut pushes = Vec::new();
    change.media(1, LEN_MS)?; // encoding it takes its time
    for (number, worker) in [0, 1, 0].into_iter().enumerate() {
        let media = change.media(number, LEN_MS)?;
        pushes.push(keep(&folder, number, &media)?);
        let begun = Instant::now();
        let from = match change {
            Change::TimesAnew => change.begin_ms(number, LEN_MS),
            _ => 0,
        };
        let publisher = send(worker_of(workers, worker)?, app, &stream, &media, from)?;
        bench.arrived(&stream, units(&media))?;
        publisher.finish()?;
        // It is away for a while: what is sent faster than it lasts leaves no time between.
        if number < 2 {
            std::thread::sleep(Duration::from_millis(u64::from(LEN_MS) + 2_000).saturating_sub(begun.elapsed()));
        }
    }
    let (folder, files) = ended(bench, app, &stream)?;
    let [(record, file)] = files.as_slice() else {
        anyhow::bail!("{} files: {files:#?}", files.len());
    };
    ensure_holds(file, &pushes, app == "keep").with_context(|| stream.clone())?;
    let gaps = record["gaps"].as_array().context("no gaps")?;
    let named = gaps.iter().filter(|gap| gap["reason"] == "interrupted").count();
    ensure!(named == 2, "each interruption is named: {record:#}");
    let count = |kind: &str| record[kind].as_u64().unwrap_or(0);
    ensure!(count("duration_ms") >= u64::from(LEN_MS) * 3 - 200, "{record:#}");
    // Chromium takes the first description of pictures for that of all.
    if change == Change::Resolution {
        return Ok(());
    }
    let said = checks::plays_natively(&folder, file)?;
    ensure!(
        said["how"] == "ended" && said["frames"].as_u64() > Some(0),
        "{stream}: {said:#}"
    );
    Ok(())
}

fn worker_of(workers: &[Server], at: usize) -> Result<std::net::SocketAddr> {
    workers.get(at).map(Server::rtmp).context("no such worker")
}

#[test]
fn pushes_that_break_up_are_one_mp4_that_plays() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    for gaps in ["close", "keep"] {
        one_file(&bench, gaps, WINDOW * 3)?;
    }
    let workers = [bench.worker().start()?, bench.worker().start()?];
    std::thread::scope(|scope| {
        let (bench, workers) = (&bench, &workers);
        let both = [
            Change::Resolution,
            Change::AudioLost,
            Change::AudioAppears,
            Change::None,
        ];
        let cases = ["close", "keep"]
            .into_iter()
            .flat_map(|app| both.map(|change| (app, change)))
            .chain([("close", Change::SampleRate), ("keep", Change::TimesAnew)]);
        let threads: Vec<_> = cases
            .map(|(app, change)| scope.spawn(move || interrupted(bench, workers, app, change)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a case panicked"))?)
    })
}

#[test]
fn another_codec_begins_another_file() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    one_file(&bench, "close", WINDOW)?;
    let worker = bench.worker().start()?;
    let folder = bench.path("pushes")?;
    let mut pushes = Vec::new();
    // Encoding them takes its time.
    let media = [Change::Codec.media(0, LEN_MS)?, Change::Codec.media(1, LEN_MS)?];
    for (number, media) in media.iter().enumerate() {
        pushes.push(keep(&folder, number, media)?);
        send(worker.rtmp(), "close", "codec", media, 0)?.finish()?;
    }
    let (_, files) = ended(&bench, "close", "codec")?;
    ensure!(files.len() == 2, "{files:#?}");
    for ((_, file), push) in files.iter().zip(pushes) {
        ensure_holds(file, &[push], false)?;
    }
    Ok(())
}

/// Kills the worker that finishes at the `step`th write of the MP4; tells whether that many came.
fn killed_at(bench: &Bench, step: u64, behind: bool) -> Result<bool> {
    let stream = format!("killed-{step}-{behind}");
    let proxy = Proxy::start(bench.s3.endpoint())?;
    let worker = bench.worker_through(&proxy.endpoint()).start()?;
    let (pid, writes) = (worker.pid().to_string(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&writes);
    proxy.set(move |line, _| {
        let of_file = line.contains("/mp4/") && (line.starts_with("PUT") || line.starts_with("POST"));
        if !of_file || seen.fetch_add(1, Ordering::SeqCst) != step {
            return Fault::None;
        }
        if behind {
            // The request is on its way: nobody hears the answer.
            let pid = pid.clone();
            std::thread::spawn(move || Command::new("kill").args(["-KILL", &pid]).status());
            return Fault::AnswerLost;
        }
        // It cannot fail: the process is this test's own.
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
        Fault::Cut
    });
    let folder = bench.path(&format!("pushes-{stream}"))?;
    let media = tags_of(&HEAVY)?;
    let mut pushes = Vec::new();
    for number in 0..2 {
        pushes.push(keep(&folder, number, &media)?);
        send(worker.rtmp(), "close", &stream, &media, 0)?.finish()?;
    }
    let (_, files) = ended(bench, "close", &stream).with_context(|| stream.clone())?;
    let [(_, file)] = files.as_slice() else {
        anyhow::bail!("{stream}: {} files: {files:#?}", files.len());
    };
    ensure_holds(file, &pushes, false).with_context(|| stream.clone())?;
    Ok(writes.load(Ordering::SeqCst) > step)
}

#[test]
fn killed_while_it_composes_another_finishes_the_file() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    one_file(&bench, "close", Duration::from_secs(2))?;
    let _other = bench.worker().start()?;
    let reached: Result<Vec<bool>> = std::thread::scope(|scope| {
        let bench = &bench;
        let threads: Vec<_> = (0..4)
            .flat_map(|step| [(step, false), (step, true)])
            .map(|(step, behind)| scope.spawn(move || killed_at(bench, step, behind)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<bool>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a case panicked"))?
        };
        threads.into_iter().map(join).collect()
    });
    let reached = reached?;
    ensure!(
        reached.iter().filter(|reached| **reached).count() >= 6,
        "few moments came: {reached:?}"
    );
    let open = bench.s3.uploads()?;
    ensure!(open.is_empty(), "uploads of nobody: {open:?}");
    Ok(())
}
