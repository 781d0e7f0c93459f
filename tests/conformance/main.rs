//! Each format read back by programs that know nothing of this project, and compared with what was sent.

mod cuts;
mod players;

use anyhow::Result;
use support::clips::Clip;
use support::server::{Server, Setup};
use tempfile::TempDir;

/// Every format that standalone records.
const ALL: &str = "flv,hls,mp4,aac,mp3";

/// Pushes a clip as a stream of its own name and waits until its recording is finished.
fn recorded(clip: &Clip) -> Result<(TempDir, Server)> {
    let folder = tempfile::Builder::new().prefix("aircheck-conformance-").tempdir()?;
    let server = Setup::new(env!("CARGO_BIN_EXE_aircheck"), &folder.path().join("data"))
        .record(ALL)
        .start()?;
    clip.push(&server.push_url(clip.name))?;
    server.finished(clip.name, 1)?;
    Ok((folder, server))
}
