//! The real binary on loopback, pushed into by real programs and by hostile ones.

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

use anyhow::Result;
use support::server::{Server, Setup};
use tempfile::TempDir;

/// Every format that standalone records.
const ALL: &str = "flv,hls,mp4,aac";

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
