//! The programs that tests start, found where the set-up puts them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The checkout's root.
#[must_use]
pub fn root() -> PathBuf {
    // This crate is tests/support.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// A folder for what tests make once and share: below the build's own folder, so that it goes with it.
///
/// # Errors
/// It cannot be made.
pub fn shared_folder(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .nth(3)
        .context("a test program outside a target folder")?;
    let folder = target.join("test-data").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The system's ffmpeg: Debian's 5.1, an encoder of the old kind.
#[must_use]
pub fn ffmpeg() -> PathBuf {
    PathBuf::from("ffmpeg")
}

/// A current ffmpeg that speaks enhanced RTMP.
#[must_use]
pub fn ffmpeg_new() -> PathBuf {
    root().join(".tools/bin/ffmpeg-new")
}

/// Python with the pinned readers.
#[must_use]
pub fn python() -> PathBuf {
    root().join(".tools/venv/bin/python")
}

/// One of the Python programs beside this crate, with arguments to follow.
#[must_use]
pub fn reader(script: &str) -> Command {
    let mut command = Command::new(python());
    command.arg("-B").arg(root().join("tests/support").join(script));
    command
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It is not there (the set-up installs it), or it fails; with what it said.
pub fn output(command: &mut Command) -> Result<Output> {
    let words = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {words} (deploy/setup/install test installs what tests need)"))?;
    ensure!(
        output.status.success(),
        "{words} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// Runs a program that must succeed, and returns its standard output as text.
///
/// # Errors
/// As [`output`]; or what it printed is not UTF-8.
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(output(command)?.stdout)?)
}
