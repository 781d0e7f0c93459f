//! A real origin: nginx with its RTMP module, which takes publishers and lets others play.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::etcd::free_port;
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
        let log = File::options().create(true).append(true).open(self.log())?;
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .iter()
            .find(|path| Path::new(path).exists());
        let child = Command::new(program.copied().unwrap_or("nginx"))
            .arg("-c")
            .arg(self.folder.path().join("nginx.conf"))
            .arg("-p")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting nginx (deploy/setup/install test installs it)")?;
        let child = self.child.insert(child);
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

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

fn configuration(folder: &Path, address: SocketAddr, lines: &str) -> String {
    let folder = folder.display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    format!(
        "load_module {MODULE};\nmaster_process off;\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/log info;\n{user}\
         events {{ worker_connections 1024; }}\n\
         rtmp {{ access_log off; server {{ listen {address}; chunk_size 4096;\n\
           notify_method post;\n\
           application live {{ live on; {lines} }} }} }}\n"
    )
}
