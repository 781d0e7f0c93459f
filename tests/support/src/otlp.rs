//! A real receiver of traces and metrics, and what it was told.

use std::collections::BTreeMap;

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::etcd::free_port;
use crate::programs::root;
use crate::wait::{Seen, until};

const START_LIMIT: Duration = Duration::from_secs(10);

/// A span as the receiver got it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// Ids in hexadecimal digits.
    pub trace: String,
    /// Of this one.
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    /// What is done.
    pub name: String,
    /// `service.instance.id` of the process that sent it.
    pub process: String,
    /// It failed.
    pub failed: bool,
    /// Nanoseconds since the Unix epoch.
    pub begin: u128,
}

/// A running receiver (rotel). It ends with this value.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    grpc: u16,
    http: u16,
    folder: TempDir,
}

fn program() -> Result<PathBuf> {
    let libraries = root().join(".tools/venv/lib");
    for entry in std::fs::read_dir(&libraries).with_context(|| libraries.display().to_string())? {
        let path = entry?.path().join("site-packages/rotel/rotel-agent");
        if path.exists() {
            return Ok(path);
        }
    }
    bail!(
        "no rotel below {}; deploy/setup/install test installs it",
        libraries.display()
    )
}

impl Receiver {
    /// Starts one on free ports.
    ///
    /// # Errors
    /// It is not there, or does not come up.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("aircheck-otlp-").tempdir()?;
        let (grpc, http) = (free_port()?, free_port()?);
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = Command::new(program()?)
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "traces", "--debug-log", "metrics"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
            .current_dir(folder.path())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn()?;
        let receiver = Self {
            child,
            grpc,
            http,
            folder,
        };
        for port in [grpc, http] {
            until(START_LIMIT, "the receiver's port", || {
                let open = std::net::TcpStream::connect(("127.0.0.1", port));
                Ok(Seen::when(open.is_ok(), format!("{open:?}")))
            })?;
        }
        Ok(receiver)
    }

    /// Settings of a process that sends to it over gRPC.
    #[must_use]
    pub fn over_grpc(&self) -> [String; 2] {
        [
            "--set".to_owned(),
            format!("telemetry.otlp=http://127.0.0.1:{}", self.grpc),
        ]
    }

    /// Settings of a process that sends to it over HTTP.
    #[must_use]
    pub fn over_http(&self) -> [String; 4] {
        let [flag, address] = [
            "--set".to_owned(),
            format!("telemetry.otlp=http://127.0.0.1:{}", self.http),
        ];
        [flag.clone(), address, flag, "telemetry.otlp_protocol=http".to_owned()]
    }

    /// The last value of each series of a process without labels; of a distribution, how many it holds.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn metrics(&self, of: &str) -> Result<BTreeMap<String, f64>> {
        let log = std::fs::read_to_string(self.folder.path().join("log"))?;
        let (mut process, mut name, mut values) = (String::new(), String::new(), BTreeMap::new());
        for line in log.lines() {
            // Spans have names and attributes, too.
            if line.starts_with("ResourceSpans") {
                process.clear();
            }
            let Some((key, value)) = line.split_once(": ") else {
                continue;
            };
            match key.trim() {
                "-> service.instance.id" => {
                    value
                        .trim_start_matches("Str(")
                        .trim_end_matches(')')
                        .clone_into(&mut process);
                }
                "-> Name" => value.clone_into(&mut name),
                "Value" | "Count" if process == of => {
                    values.insert(name.clone(), value.trim().parse()?);
                }
                _ => {}
            }
        }
        Ok(values)
    }

    /// Everything it got by now.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let log = std::fs::read_to_string(self.folder.path().join("log"))?;
        let mut process = String::new();
        let mut spans: Vec<Span> = Vec::new();
        for line in log.lines() {
            if line.starts_with("Span #") {
                spans.push(Span {
                    process: process.clone(),
                    ..Span::default()
                });
                continue;
            }
            let Some((key, value)) = line.split_once(": ").or(line.strip_suffix(':').map(|key| (key, ""))) else {
                continue;
            };
            let value = value.trim();
            if key.trim() == "-> service.instance.id" {
                value
                    .trim_start_matches("Str(")
                    .trim_end_matches(')')
                    .clone_into(&mut process);
            }
            let Some(span) = spans.last_mut() else { continue };
            match key.trim() {
                "Trace ID" => value.clone_into(&mut span.trace),
                "Parent ID" => value.clone_into(&mut span.parent),
                "ID" => value.clone_into(&mut span.id),
                "Name" => value.clone_into(&mut span.name),
                "Start time" => span.begin = value.parse()?,
                "Status code" => span.failed = value == "STATUS_CODE_ERROR",
                _ => {}
            }
        }
        Ok(spans)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
