//! A coordinator without sockets: its services are called as functions, everything behind them is what runs elsewhere.
//!
//! Must be made and called within a `tokio` local set; when that is dropped nothing of the coordinator is left, as after a kill.

use std::{pin::Pin, sync::Arc};

use proto::v1::{self, tasks_server::Tasks as _, workers_server::Workers as _};
use shared::{
    config::CoordinatorConfig,
    secret::{Vault, VaultError},
    shutdown::Shutdown,
    store::{MetaStore, Repo},
    time::Steady,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};

use crate::{
    Deps,
    actors::{
        coordinator::Tools,
        supervisor::{self, Supervisor},
    },
    api::grpc::Api,
    election::{Candidate, Election, Led},
};

/// What comes down a session.
pub type Directives = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorDown, Status>> + Send>>;

/// One process.
pub struct Node {
    api: Api,
    election: Election,
    _supervisor: Supervisor,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// As over gRPC.
        pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Status> {
            Ok(self.led()?.$name(Request::new(request)).await?.into_inner())
        }
    )*};
}

impl Node {
    /// Starts one of several coordinators that share a store.
    ///
    /// # Errors
    /// Where there is no vault.
    pub fn start(config: CoordinatorConfig, store: Arc<dyn MetaStore>, deps: Deps) -> Result<Self, VaultError> {
        let tasks = TaskTracker::new();
        let candidate = Candidate {
            instance: deps.ids.uuid(deps.clock.now()),
            name: config.name.clone().unwrap_or_default(),
            address: config.advertise.clone().unwrap_or_default(),
            http: None,
            ttl: config.leader_ttl,
        };
        let mut tools = Tools {
            config: Arc::new(config),
            repo: Repo::new(Arc::clone(&store)),
            clock: Steady::over(deps.clock),
            ids: deps.ids,
            metrics: deps.metrics.coordinator,
            vault: Arc::new(Vault::new(&[7; 32])?),
            tasks: tasks.clone(),
            archive: None,
            second: None,
            copies_at: Arc::default(),
            sources: crate::compositions::Sources::default(),
            public_url: Arc::from(""),
        };
        let (clock, metrics) = (Arc::clone(&tools.clock), tools.metrics.clone());
        let election = Election::among_others(candidate, Arc::clone(&store), clock, metrics, &tasks);
        let (handle, supervisor) = supervisor::start(None, tools.clone(), election.roles());
        tools.repo = Repo::new(Arc::new(Led::new(store, election.roles())));
        Ok(Node {
            api: Api {
                handle,
                tools,
                shutdown: Shutdown::new(),
                lately: Arc::default(),
                listeners: Arc::new(tokio::sync::Semaphore::new(crate::api::grpc::scaler::MAX_LISTENERS)),
            },
            election,
            _supervisor: supervisor,
        })
    }

    /// True if it leads and has loaded what it decides upon.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.election.roles().borrow().term().is_some() && self.api.handle.is_ready()
    }

    /// Only who leads answers; a follower's way to the leader is not part of this.
    fn led(&self) -> Result<&Api, Status> {
        match self.election.roles().borrow().term() {
            Some(_) => Ok(&self.api),
            None => Err(Status::unavailable("this coordinator does not lead")),
        }
    }

    /// Opens a worker's session.
    ///
    /// # Errors
    /// As over gRPC.
    pub async fn session(&self, up: mpsc::Receiver<v1::WorkerUp>) -> Result<Directives, Status> {
        self.led()?.converse(ReceiverStream::new(up).map(Ok), None).await
    }

    calls! {
        /// Asks for a stream.
        acquire_lease(AcquireLeaseRequest) -> AcquireLeaseResponse;
        /// Says that a stream is free.
        release_lease(ReleaseLeaseRequest) -> ReleaseLeaseResponse;
        /// Enters a file into the library.
        commit_file(CommitFileRequest) -> CommitFileResponse;
        /// Says where a recording stands.
        commit_recording(CommitRecordingRequest) -> CommitRecordingResponse;
        /// Gives what the library has of a recording.
        read_recording(ReadRecordingRequest) -> ReadRecordingResponse;
        /// Makes a task.
        create_task(CreateTaskRequest) -> CreateTaskResponse;
        /// Stops a task.
        stop_task(StopTaskRequest) -> StopTaskResponse;
        /// Deletes a task.
        delete_task(DeleteTaskRequest) -> DeleteTaskResponse;
    }
}
