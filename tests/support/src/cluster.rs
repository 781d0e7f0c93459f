//! A whole cluster on loopback: etcd, coordinators, workers, with a wire that can be cut on each way between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::asker::Asker;
use crate::etcd::{Etcd, free_port};
use crate::proxy::Proxy;
use crate::s3::{BUCKET, Kind, S3};
use crate::server::{Server, Setup};
use crate::wait::{Seen, until};

/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Where media lies in the bucket.
const PREFIX: &str = "cluster";

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
    /// Media goes to a real S3 server, each worker over a wire of its own; else to a folder that all share.
    pub bucket: bool,
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
    /// For each worker the wire to the object storage, where that is a bucket.
    pub to_bucket: Vec<Proxy>,
    bucket: Option<S3>,
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
            to_bucket: Vec::new(),
            bucket: shape.bucket.then(|| S3::start(Kind::JuiceFs)).transpose()?,
            asker: Asker {
                binary: shape.binary.into(),
                servers: String::new(),
                objects,
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
            cluster.add_worker(n, shape, &addresses)?;
        }
        cluster.leader(None)?;
        Ok(cluster)
    }

    fn add_worker(&mut self, n: usize, shape: &Shape<'_>, coordinators: &[SocketAddr]) -> Result<()> {
        let wires = proxies(coordinators)?;
        let data = self.path(&format!("w{n}"));
        let rtmp = format!("127.0.0.1:{}", free_port()?);
        let mut setup = Setup::worker(shape.binary, &data, &list(&wires, "http://"));
        setup = setup.args(&["--name", &format!("w{n}"), "--rtmp", &rtmp]);
        if let Some(bucket) = &self.bucket {
            let address = bucket.endpoint().trim_start_matches("http://").parse()?;
            let wire = Proxy::start(address)?;
            setup = setup.args(&["--objects", &format!("s3://{BUCKET}/{PREFIX}")]);
            for (name, value) in bucket.env() {
                setup = setup.env(name, &value);
            }
            setup = setup.env("AWS_ENDPOINT_URL", &format!("http://{}", wire.addr()));
            self.to_bucket.push(wire);
        } else {
            setup = setup.args(&["--objects", &format!("file://{}", self.asker.objects.display())]);
        }
        for pair in shape.worker_settings {
            setup = setup.args(&["--set", pair]);
        }
        let mut node = Node { setup, server: None };
        node.start()?;
        self.workers.push(node);
        self.worker_to.push(wires);
        Ok(())
    }

    /// Copies what is stored to where [`Asker::files`] looks for it. Nothing to do where that is the storage.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn fetch_media(&self) -> Result<()> {
        match &self.bucket {
            Some(bucket) => bucket.mirror(&format!("{PREFIX}/"), &self.asker.objects),
            None => Ok(()),
        }
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
