//! Starts real S3 servers on free ports, in folders of their own that go with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::etcd::free_port;
use crate::programs::{self, reader, root};
use crate::wait::{Seen, until};

const START_LIMIT: Duration = Duration::from_secs(60);
/// A port may be taken between being found and being used.
const ATTEMPTS: usize = 5;
const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JuiceFS's gateway: verifies signatures, keeps its data over a restart.
    JuiceFs,
    /// moto: in memory, refuses short parts as the original does.
    Moto,
}

/// A running server with one bucket. Dropped, it is killed.
#[derive(Debug)]
pub struct S3 {
    child: Child,
    endpoint: String,
    folder: TempDir,
}

/// The bucket that every server has.
pub const BUCKET: &str = "recordings";

impl Drop for S3 {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tool(name: &str) -> PathBuf {
    root().join(".tools/venv/bin").join(name)
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::create(log)?;
    let words = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command
        .spawn()
        .with_context(|| format!("starting {words} (deploy/setup/install test installs it)"))
}

fn launch(kind: Kind, folder: &Path, port: u16) -> Result<Child> {
    let address = format!("127.0.0.1:{port}");
    let log = folder.join("log");
    match kind {
        Kind::Moto => {
            let mut command = Command::new(tool("moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            spawn(&mut command, &log)
        }
        Kind::JuiceFs => {
            let meta = format!("sqlite3://{}", folder.join("meta.db").display());
            let data = format!("{}/", folder.join("data").display());
            let mut format = Command::new(tool("juicefs"));
            format.args(["format", "--storage", "file", "--bucket", &data, &meta, "test"]);
            programs::output(&mut format)?;
            let mut command = Command::new(tool("juicefs"));
            command
                .env("MINIO_ROOT_USER", ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
                .args([
                    "gateway",
                    "--multi-buckets",
                    "--keep-etag",
                    "--no-usage-report",
                    "--cache-dir",
                ])
                .arg(folder.join("cache"))
                .args([&meta, &address]);
            spawn(&mut command, &log)
        }
    }
}

impl S3 {
    /// Starts a server and makes [`BUCKET`].
    ///
    /// # Errors
    /// The server is not there (the set-up installs it), or does not come up; with the end of its log.
    pub fn start(kind: Kind) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let folder = tempfile::Builder::new().prefix("aircheck-s3-").tempdir()?;
            let port = free_port()?;
            let mut server = Self {
                child: launch(kind, folder.path(), port)?,
                endpoint: format!("http://127.0.0.1:{port}"),
                folder,
            };
            match server.come_up(port) {
                Ok(()) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt")?)
    }

    fn come_up(&mut self, port: u16) -> Result<()> {
        until(START_LIMIT, "the S3 server's port", || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the S3 server ended with {status}:\n{}", self.log());
            }
            let open = std::net::TcpStream::connect(("127.0.0.1", port));
            Ok(Seen::when(open.is_ok(), format!("{open:?}")))
        })?;
        until(START_LIMIT, "the S3 server's bucket", || {
            let made = self.ask(&["make", BUCKET]);
            Ok(Seen::when(made.is_ok(), format!("{made:?}")))
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it listens, `http://HOST:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The variables that a client of it needs.
    #[must_use]
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
        ]
    }

    /// Runs an outsider's look into a bucket; see `s3.py`.
    ///
    /// # Errors
    /// It fails.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = reader("s3.py");
        command
            .args(words)
            .envs(self.env())
            .env("AWS_DEFAULT_REGION", "us-east-1");
        programs::text(&mut command)
    }

    /// Keys below a prefix.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(serde_json::from_str(&self.ask(&["keys", BUCKET, prefix])?)?)
    }

    /// Bytes and storage class of what lies below a prefix, by key.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn objects(&self, prefix: &str) -> Result<BTreeMap<String, (u64, String)>> {
        Ok(serde_json::from_str(&self.ask(&["objects", BUCKET, prefix])?)?)
    }

    /// Stores an object.
    ///
    /// # Errors
    /// It is refused.
    pub fn put(&self, key: &str, text: &str) -> Result<()> {
        self.ask(&["put", BUCKET, key, text]).map(drop)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// It is not there, or no text.
    pub fn get(&self, key: &str) -> Result<String> {
        self.ask(&["get", BUCKET, key])
    }

    /// Copies what lies below a prefix to a folder.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn mirror(&self, prefix: &str, folder: &Path) -> Result<()> {
        self.ask(&["mirror", BUCKET, prefix, &folder.display().to_string()])
            .map(drop)
    }

    /// Multipart uploads that are neither complete nor aborted: key and id.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn uploads(&self) -> Result<Vec<(String, String)>> {
        Ok(serde_json::from_str(&self.ask(&["uploads", BUCKET])?)?)
    }
}
