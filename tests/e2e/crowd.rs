//! Many streams that end in the same second: all of them arrive in object storage, and memory does not grow with their number.
//!
//! 100 streams; `AIRCHECK_CROWD=500` for more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use loadgen::Options;
use serde_json::Value;
use support::s3::{BUCKET, Kind, S3};
use support::wait::{Seen, until};

use crate::{data, setup};

/// Streams where the environment does not say.
const STREAMS: usize = 100;
/// Memory above idle that each stream may cost while it is live or finished, as of docs/performance.md.
const STREAM_KB: u64 = 150;
/// Bytes that are rendered and stored at a time: `max_uploads` parts of 5 MiB, each held once more by the one that sends it.
const UPLOADS_KB: u64 = 4 * 2 * 5 * 1024;
/// What the allocator may keep of what is freed: a threaded process has several arenas, and gives their middle back to nobody.
const KEPT_KB: u64 = 24 * 1024;

#[expect(clippy::disallowed_methods, reason = "the one setting of a longer run")]
fn streams() -> Result<usize> {
    match std::env::var("AIRCHECK_CROWD") {
        Ok(count) => count.parse().context("AIRCHECK_CROWD is a number of streams"),
        Err(_) => Ok(STREAMS),
    }
}

#[test]
fn streams_that_end_in_the_same_second_all_arrive() -> Result<()> {
    let streams = streams()?;
    let s3 = S3::start(Kind::JuiceFs)?;
    let (_folder, data) = data()?;
    let mut setup = setup(&data)
        .record("flv,hls")
        .args(&["--objects", &format!("s3://{BUCKET}/crowd")])
        .args(&["--set", "objects.max_uploads=4", "--set", "objects.part_size=5 MiB"]);
    for (name, value) in s3.env() {
        setup = setup.env(name, &value);
    }
    let server = setup.start()?;
    let idle_kb = server.heap_kb()?;
    let mut options = Options::new(&format!("rtmp://{}/live", server.rtmp()), streams);
    options.bitrate = 250_000;
    options.seconds = 8.0;
    let load = std::thread::spawn(move || loadgen::run(&options, &mut |_| Ok(())));
    let mut most_kb = 0;
    while !load.is_finished() {
        most_kb = most_kb.max(server.heap_kb()?);
        std::thread::sleep(Duration::from_millis(250));
    }
    let ended = Instant::now();
    let report = load
        .join()
        .map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
    ensure!(report["failures"].as_array().is_some_and(Vec::is_empty), "{report}");
    let recordings = until(Duration::from_secs(300), "the end of all recordings", || {
        most_kb = most_kb.max(server.heap_kb()?);
        let said = server.ask(&["recording", "list"])?;
        let list = said["recordings"].as_array().cloned().unwrap_or_default();
        let done = list.iter().filter(|recording| recording["state"] == "finished").count();
        Ok(Seen::some(
            (done == streams).then(|| list.clone()),
            format!("{done} of {}", list.len()),
        ))
    })?;
    let took = ended.elapsed();
    let gaps: Vec<&Value> = recordings
        .iter()
        .filter(|r| r["gaps"].as_array().is_none_or(|gaps| !gaps.is_empty()))
        .collect();
    ensure!(gaps.is_empty(), "{gaps:#?}");

    let said = server.ask(&["file", "list"])?;
    let files = said["files"].as_array().context("no files")?;
    ensure!(files.len() == 2 * streams, "{} files of {streams} streams", files.len());
    let stored = s3.objects("crowd/")?;
    let mut bytes = 0;
    for file in files {
        let key = file["object_key"].as_str().context("no key")?;
        let (there, _) = stored
            .get(&format!("crowd/{key}"))
            .with_context(|| format!("{key} is not in the bucket"))?;
        if file["format"] == "flv" {
            ensure!(file["size"] == *there, "{key} has {there} bytes: {file:#}");
            bytes += there;
        }
    }
    let sent = report["bytes_sent"].as_u64().context("no bytes sent")?;
    // FLV's tag headers cost a little more than RTMP's chunk headers.
    ensure!(
        bytes >= sent * 99 / 100 && bytes <= sent * 103 / 100,
        "{bytes} bytes recorded of {sent} sent"
    );
    let uploads = s3.uploads()?;
    ensure!(uploads.is_empty(), "{uploads:?}");
    let above_kb = most_kb.saturating_sub(idle_kb);
    println!("{streams} streams: complete {took:?} after the last ended, {above_kb} kB above {idle_kb} kB idle");
    let bound_kb = UPLOADS_KB + KEPT_KB + streams as u64 * STREAM_KB;
    ensure!(
        above_kb <= bound_kb,
        "{above_kb} kB above idle, the bound is {bound_kb}"
    );
    Ok(())
}
