//! `loadgen` publishes thousands of RTMP streams from one thread, as an encoder would: each message when it is due.
//!
//! The media is cut into chunks once; all streams send slices of that one buffer. Its headers carry distances, not
//! timestamps (type 1), so that the same bytes go round for ever. It prints one JSON line when every stream publishes
//! and one at the end: bytes, how long each stream was held back, failures, its own CPU.

mod clip;
mod run;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rate {
    /// Each message when it is due.
    Realtime,
    /// As fast as the server takes it.
    Flat,
}

/// Publishes many RTMP streams to one server.
#[derive(Debug, Parser)]
struct Options {
    /// Server and application, such as rtmp://127.0.0.1:1935/live
    #[arg(long)]
    url: String,
    /// How many streams
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Seconds to send once every stream publishes
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How fast to send
    #[arg(long, value_enum, default_value_t = Rate::Realtime)]
    rate: Rate,
    /// Bits a second of each stream; with --clip the clip's own
    #[arg(long, default_value_t = 2_500_000)]
    bitrate: u64,
    /// An FLV file to send instead of generated frames, over and over
    #[arg(long)]
    clip: Option<std::path::PathBuf>,
    /// Streams are called PREFIX0, PREFIX1, …
    #[arg(long, default_value = "s")]
    prefix: String,
    /// Seconds over which the streams begin; default: one key frame distance
    #[arg(long, default_value_t = 2.0)]
    stagger: f64,
    /// Stop after so many megabytes in all, even if seconds are left
    #[arg(long)]
    megabytes: Option<f64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let clip = match &options.clip {
        Some(path) => {
            clip::Loop::from_flv(&std::fs::read(path).with_context(|| format!("reading {}", path.display()))?)?
        }
        None => clip::Loop::synthetic(options.bitrate)?,
    };
    let mut out = std::io::stdout().lock();
    let report = run::run(&options, &clip, &mut |event| {
        Ok(writeln!(out, "{event}").and_then(|()| out.flush())?)
    })?;
    let failed = report["failures"]
        .as_array()
        .is_some_and(|failures| !failures.is_empty());
    writeln!(out, "{report}")?;
    std::process::exit(i32::from(failed));
}
