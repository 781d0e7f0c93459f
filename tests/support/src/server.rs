//! Starts the real binary in a folder of its own, on ports that the system gives, and talks to it as people do: by its
//! command line.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

pub use crate::asker::{Asker, MediaFile};
use crate::wait::{Seen, until};

/// A debug build on a busy machine takes some seconds to come up.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Setup {
    binary: PathBuf,
    role: &'static str,
    data: PathBuf,
    record: Option<String>,
    more: Vec<String>,
    env: Vec<(String, String)>,
    client_env: Vec<(String, String)>,
    tls: bool,
    disk_mb: Option<u32>,
    grpc: Option<SocketAddr>,
}

impl Setup {
    /// `standalone` with its data in `data`, recording nothing by itself.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, data: &Path) -> Self {
        Self {
            binary: binary.into(),
            role: "standalone",
            data: data.to_owned(),
            record: None,
            more: Vec::new(),
            env: Vec::new(),
            client_env: Vec::new(),
            tls: false,
            disk_mb: None,
            grpc: None,
        }
    }

    /// `coordinator` with its data in `data`, over the metadata at `metadata`.
    #[must_use]
    pub fn coordinator(binary: impl Into<PathBuf>, data: &Path, metadata: &str) -> Self {
        let mut setup = Self::new(binary, data).args(&["--metadata", metadata]);
        setup.role = "coordinator";
        setup
    }

    /// `worker` with its data in `data`, that speaks to the coordinator at `coordinator`.
    #[must_use]
    pub fn worker(binary: impl Into<PathBuf>, data: &Path, coordinator: &str) -> Self {
        let mut setup = Self::new(binary, data).args(&["--coordinator", coordinator]);
        setup.role = "worker";
        setup
    }

    /// The doors that the role has.
    fn doors(&self) -> &'static [&'static str] {
        match self.role {
            "coordinator" => &["http", "grpc"],
            "worker" => &["rtmp", "http"],
            _ => &["rtmp", "http", "grpc"],
        }
    }

    /// Records every stream in these formats.
    #[must_use]
    pub fn record(mut self, formats: &str) -> Self {
        self.record = Some(formats.to_owned());
        self
    }

    /// The value of an argument that was given.
    #[must_use]
    pub fn argument(&self, flag: &str) -> Option<&str> {
        let at = self.more.iter().position(|word| word == flag)?;
        self.more.get(at + 1).map(String::as_str)
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|&word| word.to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of the client commands that ask it.
    #[must_use]
    pub fn client_env(mut self, name: &str, value: &str) -> Self {
        self.client_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// It serves gRPC over TLS: its URL says so, and `localhost`.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Lets it serve gRPC where a server before it did, so that those who knew that one find it.
    #[must_use]
    pub fn grpc_at(mut self, address: SocketAddr) -> Self {
        self.grpc = Some(address);
        self
    }

    /// Gives it a disk of so many megabytes for its data: memory, in a name space of its own that ends with the process.
    #[must_use]
    pub fn on_a_disk_of(mut self, megabytes: u32) -> Self {
        self.disk_mb = Some(megabytes);
        self
    }

    /// The program to start, up to its own arguments.
    fn program(&self) -> Command {
        let Some(megabytes) = self.disk_mb else {
            return Command::new(&self.binary);
        };
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let script = format!("mount -t tmpfs -o size={megabytes}m data \"$1\" && shift && exec \"$@\"");
        command
            .args(["sh", "-c", &script, "sh"])
            .arg(&self.data)
            .arg(&self.binary);
        command
    }

    /// Starts it and waits until it says where it listens.
    ///
    /// # Errors
    /// It ends, or says nothing in time; with the end of its log.
    pub fn start(&self) -> Result<Server> {
        std::fs::create_dir_all(&self.data)?;
        let addresses = self.data.join("addresses.json");
        match std::fs::remove_file(&addresses) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let log = self.data.with_extension("log");
        let mut command = self.program();
        command.arg(self.role).arg("--data-dir").arg(&self.data);
        for door in self.doors() {
            let flag = format!("--{door}");
            if self.argument(&flag).is_some() {
                continue;
            }
            let at = self.grpc.filter(|_| *door == "grpc");
            let at = at.map_or_else(|| "127.0.0.1:0".to_owned(), |at| at.to_string());
            command.args([flag, at]);
        }
        if let Some(formats) = &self.record {
            command.args(["--record", formats]);
        }
        let err = File::options().create(true).append(true).open(&log)?;
        command
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(err.try_clone()?)
            .stderr(err);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let data = match self.disk_mb {
            // What the process sees under that path.
            Some(_) => {
                let below = self.data.strip_prefix("/").unwrap_or(&self.data);
                Path::new("/proc").join(child.id().to_string()).join("root").join(below)
            }
            None => self.data.clone(),
        };
        let addresses = data.join("addresses.json");
        let mut server = Server {
            setup: self.clone(),
            data,
            child,
            log,
            rtmp: none,
            http: none,
            grpc: none,
            asker: Asker {
                binary: self.binary.clone(),
                servers: String::new(),
                objects: self.data.join("objects"),
                env: self.client_env.clone(),
            },
        };
        let said: Value = until(START_LIMIT, "the server's addresses", || {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", server.log_end());
            }
            let said = std::fs::read(&addresses)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok());
            Ok(Seen::some(said, "no addresses.json"))
        })?;
        for (name, slot) in [
            ("rtmp", &mut server.rtmp),
            ("http", &mut server.http),
            ("grpc", &mut server.grpc),
        ] {
            if !self.doors().contains(&name) {
                continue;
            }
            let address = said[name].as_str().with_context(|| format!("no {name} in {said}"))?;
            *slot = address.parse().with_context(|| format!("{name}: {address}"))?;
        }
        server.asker.servers = server.grpc_url();
        server.asker.objects = server.data.join("objects");
        Ok(server)
    }
}

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    data: PathBuf,
    child: Child,
    log: PathBuf,
    rtmp: SocketAddr,
    http: SocketAddr,
    grpc: SocketAddr,
    asker: Asker,
}

/// A server can be asked what a client can.
impl std::ops::Deref for Server {
    type Target = Asker;
    fn deref(&self) -> &Asker {
        &self.asker
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log ends:\n{}", self.log_end());
        }
    }
}

impl Server {
    /// Where publishers connect.
    #[must_use]
    pub fn rtmp(&self) -> SocketAddr {
        self.rtmp
    }

    /// Where gRPC is served, as a URL.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        if self.setup.tls {
            return format!("https://localhost:{}", self.grpc.port());
        }
        format!("http://{}", self.grpc)
    }

    /// Where the HTTP side listens.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the gRPC side listens.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The push URL of `live/<stream>`.
    #[must_use]
    pub fn push_url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.rtmp)
    }

    /// All it has logged, also before a restart.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// As [`Asker::finished`], with the end of the log when it fails.
    ///
    /// # Errors
    /// As there.
    pub fn finished(&self, stream: &str, count: usize) -> Result<Vec<Value>> {
        let done = self.asker.finished(stream, count);
        done.with_context(|| format!("the server's log ends:\n{}", self.log_end()))
    }

    /// As [`Asker::files`], with the objects in this folder.
    ///
    /// # Errors
    /// As there.
    pub fn files_in(&self, stream: &str, objects: &Path) -> Result<Vec<MediaFile>> {
        let elsewhere = Asker {
            objects: objects.to_owned(),
            ..self.asker.clone()
        };
        elsewhere.files(stream)
    }

    /// What `GET path` answers: status and body.
    ///
    /// # Errors
    /// No HTTP answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        use std::io::Write as _;
        let mut socket = TcpStream::connect(self.http)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        )?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .context("no HTTP status")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// Makes its disk larger (see [`Setup::on_a_disk_of`]).
    ///
    /// # Errors
    /// It has none of its own.
    pub fn enlarge_disk(&self, megabytes: u32) -> Result<()> {
        let pid = self.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        let size = format!("remount,size={megabytes}m");
        crate::programs::output(command.args(["mount", "-o", &size]).arg(&self.setup.data))?;
        Ok(())
    }

    /// True while the process runs.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it at once, as the system does when memory runs out: SIGKILL.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill(mut self) -> Result<Setup> {
        ensure!(self.running()?, "the server had ended by itself:\n{}", self.log_end());
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.setup.clone())
    }

    /// Sends a signal by name, such as `TERM`.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().to_string();
        crate::programs::output(Command::new("kill").args(["-s", name, &pid]))?;
        Ok(())
    }

    /// Waits for the process to end.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        until(limit, "the server's end", || {
            Ok(Seen::some(
                self.child.try_wait()?,
                format!("running after {:?}", begin.elapsed()),
            ))
        })
        .with_context(|| self.log_end())
    }

    /// How to start it again on the same data.
    #[must_use]
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Anonymous memory in kB: heap, stacks and changed data.
    ///
    /// Pages of the program file do not count: they are shared with each other server that runs just now, so that a share of
    /// them says more about those than about this one.
    ///
    /// # Errors
    /// The process is gone.
    pub fn heap_kb(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let line = text
            .lines()
            .find(|line| line.starts_with("Anonymous:"))
            .context("no Anonymous")?;
        Ok(line.split_whitespace().nth(1).context("an empty Anonymous")?.parse()?)
    }
}
