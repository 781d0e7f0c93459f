//! What every stitched recording must pass: validators, readers, decoders, players.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::programs::{ffmpeg_new, output, reader, root, text};

/// Pushes are sent faster than they last, so that the next may begin before the one before would have been over.
const OVERLAP_MS: &str = "30000";

/// That a finished playlist holds these pushes' units, each once, and passes all checkers and ffmpeg.
pub(super) fn ensure_holds(list: &Path, pushes: &[PathBuf]) -> Result<()> {
    text(reader("stitched.py").arg(list).args(pushes))?;
    ensure_sound(list, false)?;
    if list_text(list)?.contains(".ts\n") {
        text(reader("ts_check.py").arg(list))?;
    }
    ensure_decodes(list)
}

fn list_text(list: &Path) -> Result<String> {
    std::fs::read_to_string(list).with_context(|| list.display().to_string())
}

/// That a playlist is in order; `running`: it may grow.
pub(super) fn ensure_sound(list: &Path, running: bool) -> Result<()> {
    let mut command = reader("hls_check.py");
    command.args(["--overlap-ms", OVERLAP_MS]);
    if running {
        command.arg("--running");
    }
    text(command.arg(list)).map(drop)
}

/// That ffmpeg decodes all of it without an error.
pub(super) fn ensure_decodes(list: &Path) -> Result<()> {
    let mut command = Command::new(ffmpeg_new());
    command.args(["-v", "error", "-nostdin", "-i"]).arg(list);
    let said = output(command.args(["-f", "null", "-"]))?;
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(words.trim().is_empty(), "decoding {}:\n{words}", list.display());
    Ok(())
}

/// That hls.js in Chromium plays it to its end; `folder` holds the whole recording, `list` is a path below it.
pub(super) fn ensure_plays(folder: &Path, list: &Path) -> Result<Value> {
    let below = list.strip_prefix(folder)?.display().to_string();
    let said = support::browser::play(folder, &format!("playlist={below}&rate=8&with=hls.js"))?;
    ensure!(said["how"] == "ended", "{}: {said:#}", list.display());
    let faults = said["errors"].as_array().context("no list of errors")?.iter();
    let fatal: Vec<_> = faults.filter(|error| error["fatal"] == true).collect();
    ensure!(fatal.is_empty(), "{}: {fatal:#?}", list.display());
    Ok(said)
}

/// That the strict parser takes it.
pub(super) fn ensure_strict(list: &Path) -> Result<()> {
    let mut command = Command::new("node");
    command
        .current_dir(root().join("tests/players"))
        .arg("strict.js")
        .arg(list);
    let said: Value = serde_json::from_str(&text(&mut command)?)?;
    ensure!(said["ended"] == true, "{said:#}");
    Ok(())
}
