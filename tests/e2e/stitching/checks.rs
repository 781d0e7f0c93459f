//! What every stitched recording must pass: validators, readers, decoders, players.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::programs::{ffmpeg_new, output, reader, root, text};

/// Pushes are sent faster than they last, so that the next may begin before the one before would have been over.
const OVERLAP_MS: &str = "30000";

/// That a finished playlist holds these pushes' units, each once, and passes all checkers.
pub(super) fn ensure_holds(list: &Path, pushes: &[PathBuf]) -> Result<()> {
    text(reader("stitched.py").arg(list).args(pushes))?;
    ensure_in_order(list)
}

/// As [`ensure_holds`], where each push's end may be missing.
pub(super) fn ensure_holds_beginnings(list: &Path, pushes: &[PathBuf]) -> Result<()> {
    text(reader("stitched.py").arg("--prefix").arg(list).args(pushes))?;
    ensure_in_order(list)?;
    ensure_decodes(list)
}

fn ensure_in_order(list: &Path) -> Result<()> {
    ensure_sound(list, false)?;
    if list_text(list)?.contains(".ts\n") {
        text(reader("ts_check.py").arg(list))?;
    }
    ensure_strict(list)
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
    // Times that begin anew are no fault for a decoder; what ffmpeg writes to nowhere here would have them in order.
    let of_time = "non monotonically increasing dts to muxer";
    let faults = words
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.contains(of_time));
    ensure!(faults.count() == 0, "decoding {}:\n{words}", list.display());
    Ok(())
}

/// As [`ensure_decodes`], each stretch between discontinuities by itself: ffmpeg's reader of HLS takes the codecs of the first stretch for those of
/// the whole list.
pub(super) fn ensure_stretches_decode(list: &Path) -> Result<()> {
    let whole = list_text(list)?;
    let (head, lines) = whole.split_once("#EXT-X-MEDIA-SEQUENCE:0\n").context("no sequence")?;
    let lines = lines.trim_end_matches("#EXT-X-ENDLIST\n");
    for (number, stretch) in lines.split("#EXT-X-DISCONTINUITY\n").enumerate() {
        let part = list.with_file_name(format!("stretch-{number}.m3u8"));
        std::fs::write(
            &part,
            format!("{head}#EXT-X-MEDIA-SEQUENCE:0\n{stretch}#EXT-X-ENDLIST\n"),
        )?;
        ensure_decodes(&part)?;
    }
    Ok(())
}

/// That hls.js in Chromium plays it to its end; `folder` holds the whole recording, `list` is a path below it.
/// Where sound comes and goes, the page begins anew behind the joins.
pub(super) fn ensure_plays(folder: &Path, list: &Path, sound_comes_and_goes: bool) -> Result<Value> {
    let said = plays(folder, list, sound_comes_and_goes)?;
    ensure!(said["how"] == "ended", "{}: {said:#}", list.display());
    Ok(said)
}

/// As [`ensure_plays`], where the player may stand at the last picture without a word: hls.js does with fragments that hold no sound.
pub(super) fn ensure_reaches_its_end(folder: &Path, list: &Path) -> Result<Value> {
    let said = plays(folder, list, false)?;
    let there = said["how"] == "ended" || said["how"] == "stands at the end";
    ensure!(there, "{}: {said:#}", list.display());
    Ok(said)
}

/// What Chromium by itself says of a file; `folder` holds it.
pub(super) fn plays_natively(folder: &Path, file: &Path) -> Result<Value> {
    let below = file.strip_prefix(folder)?.display();
    browse(folder, &format!("playlist={below}&rate=8&with=native"))
}

fn browse(folder: &Path, query: &str) -> Result<Value> {
    // Browsers share the machine's cores badly.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().map_err(|_| anyhow::anyhow!("another browser's panic"))?;
    support::browser::play(folder, query)
}

fn plays(folder: &Path, list: &Path, sound_comes_and_goes: bool) -> Result<Value> {
    let below = list.strip_prefix(folder)?.display().to_string();
    let joins = u8::from(sound_comes_and_goes);
    let query = format!("playlist={below}&rate=8&with=hls.js&joins={joins}").replace("&joins=0", "");
    let said = browse(folder, &query)?;
    let faults = said["errors"].as_array().context("no list of errors")?.iter();
    let fatal: Vec<_> = faults.filter(|error| error["fatal"] == true).collect();
    ensure!(
        fatal.is_empty() || sound_comes_and_goes,
        "{}: {fatal:#?}",
        list.display()
    );
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
