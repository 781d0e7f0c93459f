//! A whole cluster on loopback: etcd, coordinators, workers, with a wire that can be cut on each way between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::asker::Asker;
use crate::etcd::{Etcd, free_port};
use crate::proxy::Proxy;
use crate::server::{Server, Setup};
use crate::wait::{Seen, until};

/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How large, and how it is set.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// Path of the binary.
    pub binary: &'a str,
    /// Members of etcd.
    pub members: usize,
    /// Coordinators.
    pub coordinators: usize,
    /// Workers.
    pub workers: usize,
    /// Formats that everything is recorded in.
    pub record: &'a str,
    /// Settings of coordinators, `KEY=VALUE`.
    pub coordinator_settings: &'a [&'a str],
    /// Settings of workers.
    pub worker_settings: &'a [&'a str],
}

/// One process that may be down.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    server: Option<Server>,
}

impl Node {
    /// The process.
    ///
    /// # Errors
    /// It is down.
    pub fn up(&self) -> Result<&Server> {
        self.server.as_ref().context("the process is down")
    }

    /// Kills it: SIGKILL.
    ///
    /// # Errors
    /// It was down.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the process is down")?.kill()?;
        Ok(())
    }

    /// Starts it again on its data.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self) -> Result<()> {
        self.server = Some(self.setup.start()?);
        Ok(())
    }

    /// Ends it in good order and waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the process is down")?;
        server.signal("TERM")?;
        server.ended(LIMIT)?;
        Ok(())
    }
}

/// All of it. Dropped, everything is killed and its data removed.
#[derive(Debug)]
pub struct Cluster {
    /// etcd.
    pub etcd: Etcd,
    /// Coordinators.
    pub coordinators: Vec<Node>,
    /// Workers.
    pub workers: Vec<Node>,
    /// For each coordinator the wires to each member of etcd.
    pub to_etcd: Vec<Vec<Proxy>>,
    /// For each coordinator the wire on which the others reach it.
    pub to_coordinator: Vec<Proxy>,
    /// For each worker the wires to each coordinator.
    pub worker_to: Vec<Vec<Proxy>>,
    asker: Asker,
    _folder: TempDir,
}

fn proxies(to: &[SocketAddr]) -> Result<Vec<Proxy>> {
    to.iter().map(|to| Proxy::start(*to)).collect()
}

fn list(proxies: &[Proxy], scheme: &str) -> String {
    let urls: Vec<String> = proxies
        .iter()
        .map(|proxy| format!("{scheme}{}", proxy.addr()))
        .collect();
    urls.join(",")
}

impl Cluster {
    /// Starts everything, and waits until a coordinator leads.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn start(shape: &Shape<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("aircheck-cluster-").tempdir()?;
        let etcd = Etcd::start_wired(shape.members)?;
        let objects = folder.path().join("objects");
        let members: Result<Vec<SocketAddr>> = (0..etcd.len()).map(|n| Ok(etcd.endpoint(n).parse()?)).collect();
        let members = members?;
        let mut cluster = Self {
            etcd,
            coordinators: Vec::new(),
            workers: Vec::new(),
            to_etcd: Vec::new(),
            to_coordinator: Vec::new(),
            worker_to: Vec::new(),
            asker: Asker {
                binary: shape.binary.into(),
                servers: String::new(),
                objects: objects.clone(),
                env: Vec::new(),
            },
            _folder: folder,
        };
        for n in 0..shape.coordinators {
            cluster.add_coordinator(n, shape, &members)?;
        }
        let addresses: Vec<SocketAddr> = cluster.grpc()?;
        let urls: Vec<String> = addresses.iter().map(|addr| format!("http://{addr}")).collect();
        cluster.asker.servers = urls.join(",");
        for n in 0..shape.workers {
            let wires = proxies(&addresses)?;
            let data = cluster.path(&format!("w{n}"));
            let rtmp = format!("127.0.0.1:{}", free_port()?);
            let media = format!("file://{}", objects.display());
            let mut setup = Setup::worker(shape.binary, &data, &list(&wires, "http://"));
            setup = setup.args(&["--name", &format!("w{n}"), "--rtmp", &rtmp, "--objects", &media]);
            for pair in shape.worker_settings {
                setup = setup.args(&["--set", pair]);
            }
            let mut node = Node { setup, server: None };
            node.start()?;
            cluster.workers.push(node);
            cluster.worker_to.push(wires);
        }
        cluster.leader(None)?;
        Ok(cluster)
    }

    fn path(&self, name: &str) -> PathBuf {
        self._folder.path().join(name)
    }

    fn add_coordinator(&mut self, n: usize, shape: &Shape<'_>, members: &[SocketAddr]) -> Result<()> {
        let wires = proxies(members)?;
        let url = format!("etcd://{}/aircheck", list(&wires, ""));
        let own = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut setup = Setup::coordinator(shape.binary, &self.path(&format!("c{n}")), &url);
        setup = setup.args(&["--grpc", &own.to_string()]);
        let way = Proxy::start(own)?;
        let advertise = format!("http://{}", way.addr());
        setup = setup.record(shape.record);
        setup = setup.args(&["--name", &format!("c{n}"), "--advertise", &advertise]);
        for pair in shape.coordinator_settings {
            setup = setup.args(&["--set", pair]);
        }
        let mut node = Node { setup, server: None };
        node.start()?;
        self.coordinators.push(node);
        self.to_etcd.push(wires);
        self.to_coordinator.push(way);
        Ok(())
    }

    fn grpc(&self) -> Result<Vec<SocketAddr>> {
        let parse = |node: &Node| Ok(node.setup.argument("--grpc").context("--grpc")?.parse()?);
        self.coordinators.iter().map(parse).collect()
    }

    /// Asks all coordinators, as a client does that knows them all.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Asks one coordinator alone.
    ///
    /// # Errors
    /// It is down.
    pub fn ask_one(&self, coordinator: usize) -> Result<Asker> {
        Ok(Asker {
            servers: format!("http://{}", self.coordinators[coordinator].up()?.grpc()),
            ..self.asker.clone()
        })
    }

    /// Waits for a leader that is ready and not `other`, and tells which one.
    ///
    /// # Errors
    /// There is none in time.
    pub fn leader(&self, other: Option<usize>) -> Result<usize> {
        until(LIMIT, "a coordinator that leads", || {
            let mut said = Vec::new();
            for (n, node) in self.coordinators.iter().enumerate() {
                let Some(server) = node.server.as_ref().filter(|_| Some(n) != other) else {
                    continue;
                };
                match server.get("/readyz") {
                    Ok((200, text)) if text.contains("leads") => return Ok(Seen::Met(n)),
                    Ok((status, text)) => said.push(format!("c{n}: {status} {text}")),
                    Err(error) => said.push(format!("c{n}: {error:#}")),
                }
            }
            Ok(Seen::Not(said.join("; ")))
        })
    }

    /// How long it takes from `begin` until a client that knows all coordinators is answered.
    ///
    /// # Errors
    /// It is not in time.
    pub fn answered_since(&self, begin: Instant) -> Result<Duration> {
        until(LIMIT, "an answer of the cluster", || {
            Ok(match self.asker.ask(&["stream", "list"]) {
                Ok(_) => Seen::Met(begin.elapsed()),
                Err(error) => Seen::Not(format!("{error:#}")),
            })
        })
    }
}
