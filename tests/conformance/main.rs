//! Each format read back by programs that know nothing of this project, and compared with what was sent.

mod formats;
mod players;

use anyhow::Result;
use support::clips::Clip;
use support::server::{Server, Setup};
use tempfile::TempDir;

fn setup() -> Result<(TempDir, Setup)> {
    let folder = tempfile::Builder::new().prefix("aircheck-conformance-").tempdir()?;
    let setup = Setup::new(env!("CARGO_BIN_EXE_aircheck"), &folder.path().join("data"));
    Ok((folder, setup))
}

/// A server that records everything in every format.
fn server() -> Result<(TempDir, Server)> {
    let (folder, setup) = setup()?;
    Ok((folder, setup.record("flv,hls,mp4,aac,mp3").start()?))
}

/// Pushes a clip as a stream of its own name and waits until its recording is finished.
fn recorded(clip: &Clip) -> Result<(TempDir, Server)> {
    let (folder, server) = server()?;
    clip.push(&server.push_url(clip.name))?;
    server.finished(clip.name, 1)?;
    Ok((folder, server))
}

/// As [`recorded`], under a rule that cuts files every minute of media, the shortest interval there is. The push is
/// faster than real time, which cuts do not see.
fn cut(clip: &Clip) -> Result<(TempDir, Server)> {
    let (folder, setup) = setup()?;
    let server = setup.start()?;
    server.ask(&[
        "template",
        "create",
        "short",
        "--flv",
        "--mp4",
        "--aac",
        "--hls",
        "--interval",
        "60s",
    ])?;
    server.ask(&["rule", "create", "--domain", "127.0.0.1", "--template", "short"])?;
    clip.push(&server.push_url(clip.name))?;
    server.finished(clip.name, 1)?;
    Ok((folder, server))
}
