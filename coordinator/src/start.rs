//! [`start`]: from configuration and dependencies to a running coordinator.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Weak},
    time::Duration,
};

use actix_web::dev::ServerHandle;
use shared::{
    auth::{
        Gate, SecretError, Tokens,
        tls::{Certificates, TlsError},
    },
    config::{CoordinatorConfig, StoreConfig},
    ids::IdGen,
    objects::{Archive, ObjectError, Places},
    shutdown::{Phase, Shutdown},
    store::{self, ErrorClass, MetaStore, MetadataUrl, OpenError, Repo, StoreError},
    telemetry::Metrics,
    time::{Clock, Steady},
};
use thiserror::Error;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::{
    actors::{
        coordinator::{Leave, Tools},
        supervisor::{self, Handle, Supervisor},
    },
    api::{forward::ToLeader, grpc, hooks, media::Media, ops, rest::Rest, tencent::Tencent},
    election::{Candidate, Election, Led},
    events::Teller,
    media::copies::Copyist,
    planner::State,
    secrets::{self, SecretsError},
};

/// Time for the store to be reachable when the coordinator starts.
const STORE_LIMIT: Duration = Duration::from_secs(30);
/// Time for running calls to finish when the coordinator stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether the store is closed.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// What a coordinator does not make itself.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Both times.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdGen>,
    /// The process's counters.
    pub metrics: Metrics,
}

/// Why a coordinator did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A socket cannot be listened on.
    #[error("cannot listen on {addr} for {what}")]
    Bind {
        /// `gRPC` or `HTTP`.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be reached, or what lies in it cannot be used.
    #[error("cannot use the metadata store {url}")]
    Store {
        /// Where, without its password.
        url: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The store cannot be read.
    #[error("cannot load the coordinator's state")]
    Load(#[from] StoreError),
    /// A token cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Secrets cannot be sealed and opened.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// Settings and environment do not make a client of object storage.
    #[error("cannot use object storage")]
    Objects(#[source] ObjectError),
    /// The descriptors for reflection are not whole.
    #[error("cannot set up gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A running coordinator.
pub struct Running {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    shutdown: Shutdown,
    tasks: TaskTracker,
    grpc: tokio::task::JoinHandle<()>,
    http: ServerHandle,
    handle: Handle,
    supervisor: Supervisor,
    election: Election,
    /// Of a store that nobody else was given: its file is closed when this leads nowhere.
    own_store: Weak<()>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("grpc_addr", &self.grpc_addr)
            .field("http_addr", &self.http_addr)
            .finish_non_exhaustive()
    }
}

fn bind(what: &'static str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = TcpListener::bind(addr).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    });
    bound.map_err(|source| StartError::Bind { what, addr, source })
}

/// Opens the store, loads the state, binds both sockets and serves. Must be called on an actix system's thread over a
/// tokio runtime.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start(config: CoordinatorConfig, store: StoreConfig, deps: Deps) -> Result<Running, StartError> {
    let open = store::open(&store, &config.data_dir, Arc::clone(&deps.clock))?;
    ready(open.as_ref(), &store).await?;
    let own = open.held();
    let mut running = match store.url {
        MetadataUrl::Embedded => start_over(config, open, deps).await,
        MetadataUrl::Etcd { .. } => start_among_others(config, open, deps).await,
    }?;
    running.own_store = own;
    Ok(running)
}

/// Waits until the store can be used. An etcd may come up after its coordinators do.
async fn ready(open: &dyn MetaStore, config: &StoreConfig) -> Result<(), StartError> {
    let begin = tokio::time::Instant::now();
    loop {
        let source = match store::ensure_layout(open).await {
            Ok(()) => return Ok(()),
            Err(source) => source,
        };
        if source.class() != ErrorClass::Retry || begin.elapsed() >= STORE_LIMIT {
            let url = config.url.to_string();
            return Err(StartError::Store { url, source });
        }
        warn!(url = %config.url, error = &source as &dyn std::error::Error, "metadata store not reachable yet");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// [`start`] over an open store that nobody else uses: this coordinator always leads.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start_over(
    config: CoordinatorConfig,
    store: Arc<dyn MetaStore>,
    deps: Deps,
) -> Result<Running, StartError> {
    // Large, as everything that it starts is: whoever waits for it shall not hold it within.
    Box::pin(run(config, store, deps, true)).await
}

/// [`start`] over an open store that other coordinators may use: they elect a leader among them.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start_among_others(
    config: CoordinatorConfig,
    store: Arc<dyn MetaStore>,
    deps: Deps,
) -> Result<Running, StartError> {
    Box::pin(run(config, store, deps, false)).await
}

/// Where clients reach HTTP: as the settings say, or where it is served.
fn public_url(config: &CoordinatorConfig, served: SocketAddr) -> Arc<str> {
    match &config.public_url {
        Some(url) => url.trim_end_matches('/').into(),
        None => format!("{}://{served}", scheme(config)).into(),
    }
}

/// Name for people.
fn name(config: &CoordinatorConfig) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|host| host.trim().to_owned());
    config
        .name
        .clone()
        .or_else(|| host().ok())
        .unwrap_or_else(|| "coordinator".to_owned())
}

fn scheme(config: &CoordinatorConfig) -> &'static str {
    if config.tls.serves() { "https" } else { "http" }
}

/// Where the others reach HTTP: where they reach gRPC, unless the settings say otherwise.
fn http_address(config: &CoordinatorConfig, listening: SocketAddr) -> String {
    if let Some(said) = &config.advertise_http {
        return said.trim_end_matches('/').to_owned();
    }
    let grpc = config.advertise.as_deref().and_then(|url| url::Url::parse(url).ok());
    match grpc.as_ref().and_then(url::Url::host_str) {
        Some(host) => format!("{}://{host}:{}", scheme(config), listening.port()),
        None => format!("{}://{listening}", scheme(config)),
    }
}

async fn run(
    config: CoordinatorConfig,
    store: Arc<dyn MetaStore>,
    deps: Deps,
    sole: bool,
) -> Result<Running, StartError> {
    let deps = Deps {
        clock: Steady::over(deps.clock),
        ..deps
    };
    let (grpc_listener, grpc_addr) = bind("gRPC", config.grpc)?;
    let (http_listener, http_addr) = bind("HTTP", config.http)?;
    let grpc_listener = tokio::net::TcpListener::from_std(grpc_listener).map_err(|source| StartError::Bind {
        what: "gRPC",
        addr: config.grpc,
        source,
    })?;
    let tasks = TaskTracker::new();
    let vault = secrets::open(&config, store.as_ref()).await?;
    let candidate = Candidate {
        instance: deps.ids.uuid(deps.clock.now()),
        name: name(&config),
        http: Some(http_address(&config, http_addr)),
        address: config
            .advertise
            .clone()
            .unwrap_or_else(|| format!("{}://{grpc_addr}", scheme(&config))),
        ttl: config.leader_ttl,
    };
    let archive = Places::open(&config.objects).map_err(StartError::Objects)?;
    let second = config.objects.second();
    let second = second.and_then(|config| Some(Archive::open(config.url.as_ref()?, &config)));
    let second = second.transpose().map_err(StartError::Objects)?;
    let store: Arc<dyn MetaStore> = match config.objects.copies() {
        Some(_) => Arc::new(Copyist::new(store, Arc::clone(&deps.clock))),
        None => store,
    };
    // Whoever changes something tells of it.
    let store: Arc<dyn MetaStore> = Arc::new(Teller::new(
        store,
        Arc::clone(&deps.clock),
        config.events.clone(),
        deps.metrics.coordinator.clone(),
    ));
    let mut tools = Tools {
        public_url: public_url(&config, http_addr),
        config: Arc::new(config),
        repo: Repo::new(Arc::clone(&store)),
        clock: deps.clock,
        ids: deps.ids,
        metrics: deps.metrics.coordinator.clone(),
        vault,
        tasks: tasks.clone(),
        archive,
        second,
        copies_at: Arc::default(),
        sources: crate::compositions::Sources::default(),
    };
    let gate = Gate::new(Tokens::load(&tools.config.auth)?, tools.config.tls.certifies());
    let gate = Arc::new(gate);
    let tls = Certificates::follow(&tools.config.tls)?;
    let http_tls = tls.http_server()?;
    let settings = hooks::Settings::load(&tools.config.hooks)?;
    // What cannot be read is said at the start, where nobody else may change it meanwhile.
    let first = if sole {
        Some(State::load(&tools.repo, &tools.config, tools.clock.as_ref()).await?)
    } else {
        None
    };
    let election = if sole {
        Election::sole(&tools.metrics)
    } else {
        let (clock, metrics) = (Arc::clone(&tools.clock), tools.metrics.clone());
        Election::among_others(candidate, Arc::clone(&store), clock, metrics, &tasks)
    };
    let (handle, supervisor) = supervisor::start(first, tools.clone(), election.roles());
    // Media is served by whoever is asked; everything else by who leads.
    let media = Media::new(&tools);
    tools.repo = Repo::new(Arc::new(Led::new(store, election.roles())));
    let (vault, clock, metrics) = (
        Arc::clone(&tools.vault),
        Arc::clone(&tools.clock),
        tools.metrics.clone(),
    );
    let tencent = Tencent::new(handle.clone(), tools.clone());
    let shutdown = Shutdown::new();
    let api = grpc::Api {
        handle: handle.clone(),
        tools,
        shutdown: shutdown.clone(),
        lately: Arc::default(),
        listeners: Arc::new(tokio::sync::Semaphore::new(crate::api::grpc::scaler::MAX_LISTENERS)),
    };
    let rest = Rest::new(api.clone(), Arc::clone(&gate));
    let server = grpc::serve(
        grpc_listener,
        api,
        Arc::clone(&gate),
        Arc::clone(&tls),
        election.roles(),
    )?;
    let hooks = hooks::Hooks {
        handle: handle.clone(),
        settings,
    };
    let ops = ops::Ops {
        handle: handle.clone(),
        roles: election.roles(),
        metrics: deps.metrics,
        shutdown: shutdown.clone(),
        gate,
    };
    let leader = ToLeader::new(
        handle.clone(),
        election.roles(),
        &tls,
        &vault,
        Arc::clone(&clock),
        metrics,
    );
    let doors = ops::Doors {
        hooks,
        media,
        rest,
        tencent,
        leader,
    };
    let http = ops::serve(http_listener, ops, doors, http_tls).map_err(|source| StartError::Bind {
        what: "HTTP",
        addr: http_addr,
        source,
    })?;
    let http_handle = http.handle();
    tasks.spawn(async move {
        if let Err(error) = http.await {
            error!(error = &error as &dyn std::error::Error, "HTTP server ended");
        }
    });
    let grpc = tasks.spawn(async move {
        if let Err(error) = server.await {
            error!(error = &error as &dyn std::error::Error, "gRPC server ended");
        }
    });
    shutdown.enter(Phase::Running);
    info!(grpc = %grpc_addr, http = %http_addr, "coordinator running");
    Ok(Running {
        grpc_addr,
        http_addr,
        shutdown,
        tasks,
        grpc,
        http: http_handle,
        handle,
        supervisor,
        election,
        own_store: Weak::new(),
    })
}

impl Running {
    /// Where gRPC is served.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Takes no new calls, ends the workers' sessions, lets running calls finish for at most 5 s, and leaves nothing
    /// undecided that was handed in. The store is closed when this returns, unless calls had to be left behind.
    pub async fn stop(self) {
        self.shutdown.enter(Phase::Draining);
        let finish = async {
            // First the one that would start a new actor.
            self.supervisor.stop().await;
            if self.handle.is_ready()
                && let Err(error) = self.handle.ask(Leave).await
            {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "coordinator stops without its actor"
                );
            }
            // Nothing is undecided any more: another may lead, at once.
            self.election.resign().await;
            self.http.stop(true).await;
            drop(self.grpc.await);
            drop(self.handle);
            self.tasks.close();
            self.tasks.wait().await;
            // The HTTP server's threads let go of what they serve from a moment after they say that they have ended.
            while self.own_store.strong_count() > 0 {
                tokio::time::sleep(CLOSE_POLL).await;
            }
        };
        if tokio::time::timeout(STOP_LIMIT, finish).await.is_err() {
            warn!(limit = ?STOP_LIMIT, "coordinator left calls behind");
        }
        self.shutdown.enter(Phase::Stopped);
        info!("coordinator stopped");
    }
}
