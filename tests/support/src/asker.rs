//! Asks coordinators as people do: by the command line.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::wait::{Seen, until};

/// What finishing a recording of a test's length may take.
const FINISH_LIMIT: Duration = Duration::from_secs(40);

/// Asks coordinators by the command line.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The program.
    pub binary: PathBuf,
    /// Their URLs, separated by commas.
    pub servers: String,
    /// Where objects lie on this machine.
    pub objects: PathBuf,
    /// Variables that commands get besides.
    pub env: Vec<(String, String)>,
}

/// A finished file as the library has it.
#[derive(Debug, Clone)]
pub struct MediaFile {
    /// `flv`, `hls`, `mp4`, `aac`, `mp3`.
    pub format: String,
    /// Place among the recording's files of this format, from 0.
    pub sequence: u64,
    /// Where it lies on this machine; of HLS the playlist.
    pub path: PathBuf,
    /// The whole record.
    pub record: Value,
}

impl Asker {
    /// A client command against this server, to be given its words.
    #[must_use]
    pub fn client(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("AIRCHECK_SERVER", &self.servers);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a client command and reads its JSON.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let text = crate::programs::text(self.client().args(words).args(["--output", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("{words:?} printed {text:?}"))
    }

    /// Runs a client command that must fail, and returns what it said.
    ///
    /// # Errors
    /// It succeeds.
    pub fn refused(&self, words: &[&str]) -> Result<String> {
        let output = self
            .client()
            .args(words)
            .args(["--output", "json"])
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            !output.status.success(),
            "{words:?} succeeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
    }

    /// The entries of a listing.
    fn listed(&self, words: &[&str]) -> Result<Vec<Value>> {
        let said = self.ask(words)?;
        let list = match &said {
            Value::Array(list) => Some(list),
            Value::Object(map) => map.values().find_map(Value::as_array),
            _ => None,
        };
        list.cloned().with_context(|| format!("no list in {said}"))
    }

    /// The live streams.
    ///
    /// # Errors
    /// The command fails.
    pub fn streams(&self) -> Result<Vec<Value>> {
        self.listed(&["stream", "list"])
    }

    /// The recordings of `live/<stream>`, the newest first.
    ///
    /// # Errors
    /// The command fails.
    pub fn recordings(&self, stream: &str) -> Result<Vec<Value>> {
        self.listed(&["recording", "list", "--stream", stream])
    }

    /// Waits until the stream has `count` recordings and each has come to an end.
    ///
    /// # Errors
    /// They do not in time, or one failed.
    pub fn finished(&self, stream: &str, count: usize) -> Result<Vec<Value>> {
        let what = format!("{count} finished recordings of {stream}");
        let done = until(FINISH_LIMIT, &what, || {
            // A server that is just restarting something of its own says so, and is asked again.
            let recordings = match self.recordings(stream) {
                Ok(recordings) => recordings,
                Err(error) => return Ok(Seen::Not(format!("{error:#}"))),
            };
            let states: Vec<&str> = recordings.iter().map(|r| r["state"].as_str().unwrap_or("?")).collect();
            let done = recordings.len() >= count && states.iter().all(|state| ["finished", "failed"].contains(state));
            Ok(Seen::some(done.then(|| recordings.clone()), format!("{states:?}")))
        })?;
        for recording in &done {
            ensure!(recording["state"] == "finished", "a recording failed: {recording:#}");
        }
        Ok(done)
    }

    /// The finished files of a stream, in order of format and sequence, the oldest recording first.
    ///
    /// # Errors
    /// The command fails, or a file is not where the library says.
    pub fn files(&self, stream: &str) -> Result<Vec<MediaFile>> {
        let recordings = self.recordings(stream)?;
        let mut files = Vec::new();
        for recording in recordings.iter().rev() {
            let id = recording["recording_id"]
                .as_str()
                .context("a recording without an id")?;
            let mut of_one = self.listed(&["file", "list", "--recording", id])?;
            of_one.sort_by_key(|f| (f["format"].as_str().map(str::to_owned), f["sequence"].as_u64()));
            for record in of_one {
                let key = record["object_key"]
                    .as_str()
                    .with_context(|| format!("no object key in {record}"))?;
                let path = self.objects.join(key);
                ensure!(
                    path.is_file(),
                    "the library names {}, which is not there",
                    path.display()
                );
                files.push(MediaFile {
                    format: record["format"].as_str().context("no format")?.to_owned(),
                    sequence: record["sequence"].as_u64().unwrap_or(0),
                    path,
                    record,
                });
            }
        }
        Ok(files)
    }

    /// The only file of a format.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn file(&self, stream: &str, format: &str) -> Result<MediaFile> {
        let mut files: Vec<MediaFile> = self.files(stream)?.into_iter().filter(|f| f.format == format).collect();
        ensure!(files.len() == 1, "{} {format} files of {stream}", files.len());
        files.pop().context("no file")
    }
}
