//! The roles as processes: settings in, roles started, signals obeyed, everything ended in order.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use shared::config::{Config, Overrides, Role};
use shared::ids::{IdGen, Random};
use shared::telemetry::Process;
use shared::time::{Clock, System};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::cli::{Coordinator, Node, Settings, Standalone, Worker};
use crate::ops;

type Done = Result<ExitCode, Box<dyn Error>>;

/// What a process says by its exit code when the second signal cut its end short: 128 and the number of TERM.
const ABORTED: u8 = 143;

pub(crate) fn standalone(args: &Standalone) -> Done {
    let mut flags = Overrides::default();
    set(&mut flags, "coordinator.record", args.record.as_ref());
    set(&mut flags, "coordinator.http", args.http);
    set(&mut flags, "coordinator.grpc", args.grpc);
    set(&mut flags, "worker.rtmp", args.rtmp);
    set(&mut flags, "store.url", args.metadata.as_ref());
    set(&mut flags, "objects.url", args.objects.as_ref());
    run(load(&args.node, flags, Role::Standalone)?, Role::Standalone)
}

pub(crate) fn coordinator(args: &Coordinator) -> Done {
    let mut flags = Overrides::default();
    set(&mut flags, "coordinator.record", args.record.as_ref());
    set(&mut flags, "coordinator.http", args.http);
    set(&mut flags, "coordinator.grpc", args.grpc);
    set(&mut flags, "store.url", args.metadata.as_ref());
    set(&mut flags, "objects.url", args.objects.as_ref());
    set(&mut flags, "coordinator.name", args.name.as_ref());
    set(&mut flags, "coordinator.advertise", args.advertise.as_ref());
    run(load(&args.node, flags, Role::Coordinator)?, Role::Coordinator)
}

pub(crate) fn worker(args: &Worker) -> Done {
    let mut flags = Overrides::default();
    set(&mut flags, "worker.coordinator", args.coordinator.as_ref());
    set(&mut flags, "worker.rtmp", args.rtmp);
    set(&mut flags, "worker.http", args.http);
    set(&mut flags, "worker.name", args.name.as_ref());
    set(&mut flags, "objects.url", args.objects.as_ref());
    run(load(&args.node, flags, Role::Worker)?, Role::Worker)
}

pub(crate) fn check_config(args: &Settings) -> Done {
    let config = read(args, Overrides::default())?;
    config.validate(Role::Standalone)?;
    let text = config.to_toml()?;
    match std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn set(flags: &mut Overrides, key: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        flags.set(key, value.to_string());
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(crate) fn read(args: &Settings, mut flags: Overrides) -> Result<Config, Box<dyn Error>> {
    for pair in &args.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("--set {pair:?} is not KEY=VALUE"))?;
        flags.set(key.trim(), value.trim());
    }
    Ok(Config::load(args.config.as_deref(), std::env::vars(), &flags)?)
}

fn load(node: &Node, mut flags: Overrides, role: Role) -> Result<Config, Box<dyn Error>> {
    if let Some(dir) = &node.data_dir {
        flags.set("node.data_dir", dir.display());
    }
    if node.insecure {
        flags.set("node.insecure", true);
    }
    let config = read(&node.settings, flags)?;
    config.validate(role)?;
    Ok(config)
}

/// The runtime has several threads, so that actors, gRPC and HTTP share it, and telemetry can be flushed at the end.
fn run(config: Config, role: Role) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.node.runtime_threads)
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let system = actix::System::with_tokio_rt(|| runtime);
    let exporter = {
        let _runtime = handle.enter();
        shared::telemetry::init(&config.telemetry, process(&config, role))?
    };
    let done = system.block_on(serve(config, role));
    if let Some(exporter) = exporter {
        exporter.stop();
    }
    done
}

fn process(config: &Config, role: Role) -> Process<'_> {
    let (role, name) = match role {
        Role::Standalone => ("standalone", &config.worker.name),
        Role::Coordinator => ("coordinator", &config.coordinator.name),
        Role::Worker => ("worker", &config.worker.name),
    };
    let name = name.as_deref();
    Process { role, name }
}

async fn serve(mut config: Config, role: Role) -> Done {
    let mut stop = Stop::new()?;
    let data_dir = config.node.data_dir.clone();
    std::fs::create_dir_all(&data_dir)
        .map_err(|e| format!("cannot make the data directory {}: {e}", data_dir.display()))?;
    let _lock = lock(&data_dir)?;
    let clock: Arc<dyn Clock> = Arc::new(System::new());
    let ids: Arc<dyn IdGen> = Arc::new(Random);
    let metrics = shared::telemetry::Metrics::with_streams(config.telemetry.stream_metrics);
    let sender = shared::telemetry::otlp::Sender::start(
        &config.telemetry,
        metrics.clone(),
        process(&config, role),
        Arc::clone(&clock),
    )?;

    let coordinator = if role == Role::Worker {
        None
    } else {
        let deps = coordinator::Deps {
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            metrics: metrics.clone(),
        };
        let running = coordinator::start(config.coordinator.clone(), config.store.clone(), deps).await?;
        if role == Role::Standalone {
            config.worker.coordinator = vec![own_address(&config, running.grpc_addr())];
            // Over TLS the certificate decides what it is called.
            let name = &mut config.worker.tls.coordinator_name;
            name.get_or_insert_with(|| "localhost".to_owned());
        }
        Some(running)
    };
    let worker = if role == Role::Coordinator {
        None
    } else {
        let deps = worker::Deps {
            clock,
            ids,
            metrics: metrics.worker.clone(),
        };
        Some(worker::start(config.worker.clone(), deps).await?)
    };
    // Where a coordinator runs too, its page says everything.
    let page = match role {
        Role::Worker => ops::serve(&config.worker, metrics.clone())?,
        _ => None,
    };
    let addresses = Addresses {
        rtmp: worker.as_ref().map(worker::Running::rtmp_addr),
        http: coordinator
            .as_ref()
            .map(coordinator::Running::http_addr)
            .or(page.as_ref().map(|(address, _)| *address)),
        grpc: coordinator.as_ref().map(coordinator::Running::grpc_addr),
    };
    addresses.write(&data_dir)?;
    info!(data_dir = %data_dir.display(), "ready");

    stop.first().await;
    info!(grace = ?config.worker.drain_grace, "stopping: finishing what is being recorded; signal again to end at once");
    let finish = async move {
        let drained = match worker {
            Some(worker) => worker.drain(config.worker.drain_grace).await,
            None => true,
        };
        if let Some(coordinator) = coordinator {
            coordinator.stop().await;
        }
        if let Some((_, page)) = page {
            page.stop(true).await;
        }
        if let Some(sender) = sender {
            sender.stop().await;
        }
        drained
    };
    tokio::select! {
        biased;
        () = stop.again() => {
            error!("ended at once; what is unfinished is finished by the next start");
            Ok(ExitCode::from(ABORTED))
        }
        drained = finish => {
            if drained {
                info!("stopped");
            } else {
                warn!("the grace period was not enough; what is unfinished is finished by the next start");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Where a standalone worker reaches its own coordinator.
fn own_address(config: &Config, grpc: SocketAddr) -> String {
    let ip = if grpc.ip().is_unspecified() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        grpc.ip()
    };
    let scheme = if config.tls.serves() { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, grpc.port()))
}

/// One process for each data directory.
fn lock(data_dir: &Path) -> Result<std::fs::File, Box<dyn Error>> {
    let path = data_dir.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(format!(
            "another aircheck uses {}; choose another --data-dir or stop it",
            data_dir.display()
        )
        .into()),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Where the roles of this process listen, for people and scripts: port 0 means any.
#[derive(Debug, serde::Serialize)]
struct Addresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmp: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<SocketAddr>,
}

impl Addresses {
    fn write(&self, data_dir: &Path) -> Result<(), Box<dyn Error>> {
        let path = data_dir.join("addresses.json");
        let temp = path.with_extension("tmp");
        std::fs::write(&temp, serde_json::to_vec_pretty(self)?)?;
        Ok(std::fs::rename(&temp, &path)?)
    }
}

/// The signals that end a process: TERM and INT.
struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn first(&mut self) {
        tokio::select! {
            biased;
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// The next one. Two that come within a moment are one: a terminal and its shell may both send it.
    async fn again(&mut self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.first().await;
    }
}
