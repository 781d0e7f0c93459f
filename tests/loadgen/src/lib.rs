//! Publishes thousands of RTMP streams from one thread, as encoders would: each message when it is due.
//!
//! The media is cut into chunks once; all streams send slices of that one buffer. Its headers carry distances, not
//! timestamps (type 1), so that the same bytes go round for ever. It prints one JSON line when every stream publishes
//! and one at the end: bytes, how long each stream was held back, failures, its own CPU.

mod clip;
mod run;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::Value;

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rate {
    /// Each message when it is due.
    Realtime,
    /// As fast as the server takes it.
    Flat,
}

/// Publishes many RTMP streams to one server.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// Server and application, such as rtmp://127.0.0.1:1935/live
    #[arg(long)]
    pub url: String,
    /// How many streams
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Seconds to send once every stream publishes
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// How fast to send
    #[arg(long, value_enum, default_value_t = Rate::Realtime)]
    pub rate: Rate,
    /// Bits a second of each stream; with --clip the clip's own
    #[arg(long, default_value_t = 2_500_000)]
    pub bitrate: u64,
    /// An FLV file to send instead of generated frames, over and over
    #[arg(long)]
    pub clip: Option<std::path::PathBuf>,
    /// Streams are called PREFIX0, PREFIX1, …
    #[arg(long, default_value = "s")]
    pub prefix: String,
    /// Seconds over which the streams begin; default: one key frame distance
    #[arg(long, default_value_t = 2.0)]
    pub stagger: f64,
    /// Stop after so many megabytes in all, even if seconds are left
    #[arg(long)]
    pub megabytes: Option<f64>,
    /// End without a word, as a lost network does
    #[arg(long)]
    pub abandon: bool,
}

impl Options {
    /// The defaults of the command line, for `streams` streams to `url`.
    #[must_use]
    pub fn new(url: &str, streams: usize) -> Self {
        Self::parse_from(["loadgen", "--url", url, "--streams", &streams.to_string()])
    }
}

/// Runs the load. `announce` gets an event when all streams publish and one when all is sent. Returns the report.
///
/// # Errors
/// The clip cannot be read, or a stream is not let publish. Later failures are in the report.
pub fn run(options: &Options, announce: &mut dyn FnMut(Value) -> Result<()>) -> Result<Value> {
    let clip = match &options.clip {
        Some(path) => {
            clip::Loop::from_flv(&std::fs::read(path).with_context(|| format!("reading {}", path.display()))?)?
        }
        None => clip::Loop::synthetic(options.bitrate)?,
    };
    run::run(options, &clip, announce)
}
