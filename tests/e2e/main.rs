//! The real binary on loopback, pushed into by real programs and by hostile ones.

mod access;
mod backup;
mod bucket;
mod copies;
mod crash;
mod credentials;
mod crowd;
mod disk;
mod drain;
mod fencing;
mod hostile;
mod limits;
mod live;
mod names;
mod places;
mod publishers;
mod pulls;
mod recover;
mod rest;
mod retention;
mod rules;
mod salvage;
mod secrets;
mod shutdown;
mod stitching;
mod storage;
mod takeover;
mod tasks;
mod tencent;
mod traces;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use support::server::{Server, Setup};
use support::source::Shape;
use tempfile::TempDir;

/// Every format that standalone records.
const ALL: &str = "flv,hls,mp4,aac";

/// Several parts of an upload within seconds.
const FAT: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 24_000_000,
    audio_bits_per_second: 64_000,
    b_frames: true,
};

/// A folder that goes with its last user, and a data directory in it.
fn data() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("aircheck-e2e-").tempdir()?;
    let data = folder.path().join("data");
    Ok((folder, data))
}

fn setup(data: &Path) -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_aircheck"), data)
}

/// A server that records everything in `formats`.
fn recording(formats: &str) -> Result<(TempDir, Server)> {
    let (folder, data) = data()?;
    let server = setup(&data).record(formats).start()?;
    Ok((folder, server))
}

/// The entries of what a command lists.
fn listed(server: &Server, words: &[&str]) -> Result<Vec<Value>> {
    let said = server.ask(words)?;
    let list = said.as_object().and_then(|map| map.values().find_map(Value::as_array));
    list.cloned().with_context(|| format!("no list in {said}"))
}
