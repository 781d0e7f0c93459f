//! Starts real etcd members on free ports, in a folder of their own that goes with them.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::programs;
use crate::proxy::Proxy;
use crate::wait::{Seen, until};

const START_LIMIT: Duration = Duration::from_secs(30);
/// A port may be taken between being found and being used.
const ATTEMPTS: usize = 5;

/// A port that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Certificates for TLS tests: an authority, a server's for loopback, and a client's.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them in a folder, valid for a day.
    ///
    /// # Errors
    /// openssl is not there or fails.
    pub fn make(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let made = Self {
            folder: folder.to_owned(),
        };
        std::fs::write(
            made.path("names"),
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n",
        )?;
        made.openssl("req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test-ca -keyout ca.key -out ca.pem")?;
        for name in ["server", "client"] {
            made.openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj /CN=test-{name} -keyout {name}.key -out {name}.csr"
            ))?;
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile names -out {name}.pem"
            ))?;
        }
        Ok(made)
    }

    fn openssl(&self, words: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command.current_dir(&self.folder).args(words.split(' '));
        programs::output(&mut command).map(drop)
    }

    /// One of them: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// One member or several. Dropped, they are killed and their data is removed.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    cluster: String,
    tls: Option<Certificates>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: u16,
    peer: u16,
    /// The wire on which the others reach it, if it can be cut.
    wire: Option<Proxy>,
    child: Option<Child>,
}

impl Member {
    /// Where the others reach it.
    fn known_at(&self) -> u16 {
        self.wire.as_ref().map_or(self.peer, |wire| wire.addr().port())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Etcd {
    /// Starts this many members, and waits until they serve.
    ///
    /// # Errors
    /// etcd is not there (the set-up installs it), or does not come up; with the end of its log.
    pub fn start(members: usize) -> Result<Self> {
        Self::start_with(members, false, |_| Ok(None))
    }

    /// [`Etcd::start`], with wires between the members that [`Etcd::isolate`] cuts.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn start_wired(members: usize) -> Result<Self> {
        Self::start_with(members, true, |_| Ok(None))
    }

    /// Cuts a member off from all others, both ways, or lets it back. Clients still reach it.
    ///
    /// # Errors
    /// It does not run, or was not started by [`Etcd::start_wired`].
    pub fn isolate(&self, member: usize, cut: bool) -> Result<()> {
        let id = self.member_id(member)?;
        for (index, other) in self.members.iter().enumerate() {
            let wire = other.wire.as_ref().context("not wired")?;
            if index == member {
                wire.cut(cut);
            } else {
                wire.cut_from(&id, cut);
            }
        }
        Ok(())
    }

    /// How a member names itself to the others.
    fn member_id(&self, member: usize) -> Result<String> {
        let mut command = etcdctl(self.tls.as_ref(), &self.endpoint(member));
        let output = programs::text(command.args(["endpoint", "status", "-w", "json"]))?;
        let said: serde_json::Value = serde_json::from_str(&output)?;
        let id = said[0]["Status"]["header"]["member_id"]
            .as_u64()
            .context("no member id")?;
        Ok(format!("{id:x}"))
    }

    /// One member that takes TLS connections alone, and only from clients with a certificate.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn start_tls() -> Result<Self> {
        Self::start_with(1, false, |folder| {
            Certificates::make(&folder.join("certificates")).map(Some)
        })
    }

    fn start_with(count: usize, wired: bool, tls: impl Fn(&Path) -> Result<Option<Certificates>>) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let folder = tempfile::Builder::new().prefix("aircheck-etcd-").tempdir()?;
            let tls = tls(folder.path())?;
            let mut members = Vec::new();
            for index in 0..count {
                let peer = free_port()?;
                let wire = wired.then(|| Proxy::start(([127, 0, 0, 1], peer).into())).transpose()?;
                members.push(Member {
                    name: format!("m{index}"),
                    client: free_port()?,
                    peer,
                    wire,
                    child: None,
                });
            }
            let peers: Vec<String> = members
                .iter()
                .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.known_at()))
                .collect();
            let mut etcd = Self {
                members,
                cluster: peers.join(","),
                tls,
                folder,
            };
            match etcd.up() {
                Ok(()) => return Ok(etcd),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt")?)
    }

    fn up(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            self.run(index)?;
        }
        self.healthy()
    }

    fn run(&mut self, index: usize) -> Result<()> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let member = self.members.get_mut(index).context("no such member")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let client = format!("{scheme}://127.0.0.1:{}", member.client);
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let known_at = format!("http://127.0.0.1:{}", member.known_at());
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name, "--data-dir"])
            .arg(self.folder.path().join(&member.name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &known_at])
            .args(["--initial-cluster", &self.cluster, "--logger", "zap"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(tls.path("server.pem"));
            command.arg("--key-file").arg(tls.path("server.key"));
            command.arg("--trusted-ca-file").arg(tls.path("ca.pem"));
            command.arg("--client-cert-auth");
        }
        let child = command
            .spawn()
            .context("starting etcd (deploy/setup/install test installs it)")?;
        member.child = Some(child);
        Ok(())
    }

    /// Waits until a majority serves over every running member.
    ///
    /// # Errors
    /// It does not in time, or a member has ended.
    pub fn healthy(&mut self) -> Result<()> {
        let endpoints = self.running();
        until(START_LIMIT, "etcd's health", || {
            for member in &mut self.members {
                if let Some(child) = &mut member.child
                    && let Some(status) = child.try_wait()?
                {
                    let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                    let lines: Vec<&str> = log.lines().collect();
                    bail!(
                        "etcd ended with {status}:\n{}",
                        lines[lines.len().saturating_sub(10)..].join("\n")
                    );
                }
            }
            let mut command = etcdctl(self.tls.as_ref(), &endpoints);
            let output = command.args(["endpoint", "health"]).output()?;
            Ok(Seen::when(
                output.status.success(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ))
        })
    }

    /// Number of members, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// `HOST:PORT` of a member.
    #[must_use]
    pub fn endpoint(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client)
    }

    /// `HOST:PORT` of all members, separated by commas.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let all: Vec<String> = (0..self.len()).map(|member| self.endpoint(member)).collect();
        all.join(",")
    }

    /// The metadata URL of a prefix.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}/{prefix}", self.endpoints())
    }

    /// Its certificates, if it has any.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref()
    }

    fn running(&self) -> String {
        let running = self.members.iter().filter(|member| member.child.is_some());
        let ports: Vec<String> = running.map(|member| format!("127.0.0.1:{}", member.client)).collect();
        ports.join(",")
    }

    /// Runs `etcdctl` with these words and returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        programs::text(etcdctl(self.tls.as_ref(), &self.running()).args(words))
    }

    /// The member that leads.
    ///
    /// # Errors
    /// There is none in time.
    pub fn leader(&self) -> Result<usize> {
        until(START_LIMIT, "a leader among etcd's members", || {
            for (index, member) in self.members.iter().enumerate().filter(|(_, m)| m.child.is_some()) {
                let endpoint = format!("127.0.0.1:{}", member.client);
                let mut command = etcdctl(self.tls.as_ref(), &endpoint);
                let output = command.args(["endpoint", "status", "-w", "json"]).output()?;
                let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
                let status = &said[0]["Status"];
                let own = &status["header"]["member_id"];
                if !own.is_null() && *own == status["leader"] {
                    return Ok(Seen::Met(index));
                }
            }
            Ok(Seen::Not("nobody says it leads".to_owned()))
        })
    }

    /// The member that the others of a member that is cut off say leads, if they have agreed on one.
    ///
    /// # Errors
    /// etcdctl is not there.
    pub fn leader_besides(&self, isolated: usize) -> Result<Option<usize>> {
        for index in (0..self.len()).filter(|index| *index != isolated) {
            let mut command = etcdctl(self.tls.as_ref(), &self.endpoint(index));
            let output = command.args(["endpoint", "status", "-w", "json"]).output()?;
            let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let status = &said[0]["Status"];
            if !status["leader"].is_null() && status["header"]["member_id"] == status["leader"] {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Process id of a running member.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, member: usize) -> Result<u32> {
        let child = self.members[member].child.as_ref();
        Ok(child.context("the member does not run")?.id())
    }

    /// Kills a member: SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        let mut child = self.members[member].child.take().context("the member does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts a killed member on its data. [`Etcd::healthy`] waits for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, member: usize) -> Result<()> {
        self.run(member)
    }

    /// Sends a signal by name, such as `STOP` or `CONT`.
    ///
    /// # Errors
    /// The member does not run.
    pub fn signal(&self, member: usize, name: &str) -> Result<()> {
        let pid = self.pid(member)?.to_string();
        programs::output(Command::new("kill").args(["-s", name, &pid])).map(drop)
    }
}

fn etcdctl(tls: Option<&Certificates>, endpoints: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").stdin(Stdio::null());
    command.args([
        "--endpoints",
        endpoints,
        "--dial-timeout",
        "2s",
        "--command-timeout",
        "5s",
    ]);
    if let Some(tls) = tls {
        command.arg("--cacert").arg(tls.path("ca.pem"));
        command.arg("--cert").arg(tls.path("client.pem"));
        command.arg("--key").arg(tls.path("client.key"));
    }
    command
}
