//! A real origin: nginx with its RTMP module, which takes publishers and lets others play.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::clips::Clip;
use crate::etcd::{Certificates, free_port};
use crate::wait::{Seen, until};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
const START_LIMIT: Duration = Duration::from_secs(15);
/// A port may be taken between being found and being used.
const ATTEMPTS: usize = 5;

/// A running nginx with the application `live`. Dropped, it is killed.
#[derive(Debug)]
pub struct Origin {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Origin {
    /// Starts one on a free port. `lines` are added to its application, such as `on_publish http://…;`.
    ///
    /// # Errors
    /// nginx is not there (the set-up installs it), or does not come up; with the end of its log.
    pub fn start(lines: &str) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::start_on(free_port()?, lines) {
                Ok(origin) => return Ok(origin),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt")?)
    }

    /// As [`Origin::start`], on this port.
    ///
    /// # Errors
    /// As [`Origin::start`]; the port is taken.
    pub fn start_on(port: u16, lines: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("aircheck-origin-").tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        std::fs::write(
            folder.path().join("nginx.conf"),
            configuration(folder.path(), address, lines),
        )?;
        let mut origin = Self {
            folder,
            address,
            child: None,
        };
        origin.up()?;
        Ok(origin)
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// As [`Origin::start`].
    pub fn up(&mut self) -> Result<()> {
        let child = self.child.insert(nginx(self.folder.path())?);
        let log = self.folder.path().join("log");
        until(START_LIMIT, "the origin", || {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "nginx ended with {status}:\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            Ok(Seen::when(
                TcpStream::connect(self.address).is_ok(),
                "it does not listen",
            ))
        })
    }

    /// Kills it: SIGKILL. With a single process no worker of it stays behind.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where publishers and players connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The play URL of `live/<stream>`.
    #[must_use]
    pub fn url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.address)
    }
}

/// Starts nginx with the configuration in a folder.
fn nginx(folder: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .iter()
        .find(|path| Path::new(path).exists());
    Command::new(program.copied().unwrap_or("nginx"))
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-p")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting nginx (deploy/setup/install test installs it)")
}

/// A configuration of one process in the foreground.
fn frame(folder: &Path, modules: &str, servers: &str) -> String {
    let folder = folder.display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    format!(
        "{modules}master_process off;\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/log info;\n{user}\
         events {{ worker_connections 1024; }}\n{servers}"
    )
}

fn configuration(folder: &Path, address: SocketAddr, lines: &str) -> String {
    let servers = format!(
        "rtmp {{ access_log off; server {{ listen {address}; chunk_size 4096;\n\
           notify_method post;\n\
           application live {{ live on; {lines} }} }} }}\n"
    );
    frame(folder, &format!("load_module {MODULE};\n"), &servers)
}

/// A clip as FLV over HTTP, in real time from the moment at which its one client has come: ffmpeg serves it, and nginx stands before that, with
/// TLS or without. Dropped, both are killed.
#[derive(Debug)]
pub struct HttpFlv {
    folder: TempDir,
    port: u16,
    tls: bool,
    children: Vec<Child>,
}

impl Drop for HttpFlv {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl HttpFlv {
    /// Serves a clip. With `tls` over https.
    ///
    /// # Errors
    /// nginx or ffmpeg are not there (the set-up installs them), or nginx does not come up.
    pub fn start(clip: &Clip, tls: Option<&Certificates>) -> Result<Self> {
        let (port, behind) = (free_port()?, free_port()?);
        let folder = tempfile::Builder::new().prefix("aircheck-flv-").tempdir()?;
        let ssl = tls.map(|tls| {
            let (cert, key) = (tls.path("server.pem"), tls.path("server.key"));
            format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                cert.display(),
                key.display()
            )
        });
        let http = format!(
            "http {{ access_log off; server {{ listen 127.0.0.1:{port}{}; {} location / {{\n\
               proxy_pass http://127.0.0.1:{behind}; proxy_buffering off; proxy_http_version 1.1; }} }} }}\n",
            if tls.is_some() { " ssl" } else { "" },
            ssl.unwrap_or_default()
        );
        std::fs::write(folder.path().join("nginx.conf"), frame(folder.path(), "", &http))?;
        let mut served = Self {
            port,
            tls: tls.is_some(),
            children: vec![nginx(folder.path())?],
            folder,
        };
        let log = File::create(served.folder.path().join("ffmpeg.log"))?;
        let mut ffmpeg = Command::new(clip.ffmpeg());
        ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "warning", "-re", "-i"]);
        ffmpeg
            .arg(clip.flv()?)
            .args(["-c", "copy", "-f", "flv", "-listen", "1"]);
        ffmpeg.arg(format!("http://127.0.0.1:{behind}/live.flv"));
        ffmpeg.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        served.children.push(ffmpeg.spawn().context("starting ffmpeg")?);
        until(START_LIMIT, "nginx before the stream", || {
            Ok(Seen::when(
                TcpStream::connect(("127.0.0.1", port)).is_ok(),
                "it does not listen",
            ))
        })?;
        Ok(served)
    }

    /// What ffmpeg and nginx said.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("ffmpeg: {}\nnginx: {}", read("ffmpeg.log"), read("log"))
    }

    /// Where it is. Before ffmpeg listens, and behind the clip's end, the answer is 502.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/live.flv", self.port)
    }
}
