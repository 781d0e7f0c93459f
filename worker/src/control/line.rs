//! [`Line`]: the calls of the service `Workers`, each made once; [`Grpc`] makes them over the network.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use proto::v1::workers_client::WorkersClient;
use proto::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, CommitFileRequest, CommitRecordingRequest, CoordinatorDown,
    ReadRecordingRequest, ReadRecordingResponse, ReleaseLeaseRequest, ReleaseLeaseResponse, WorkerUp,
};
use shared::auth::Caller;
use shared::servers::Servers;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;

/// A session lasts longer than any call may take.
const SESSION: Duration = Duration::from_secs(365 * 24 * 3600);

/// What comes down a session.
pub type Directives = Pin<Box<dyn Stream<Item = Result<CoordinatorDown, Status>> + Send>>;

/// The way to the coordinators. A call fails when there is no answer within a bounded time; whoever makes it makes it again.
#[async_trait]
pub trait Line: fmt::Debug + Send + Sync {
    /// Opens a session; it ends when either side lets go of it.
    async fn session(&self, up: mpsc::Receiver<WorkerUp>) -> Result<Directives, Status>;

    /// Asks for a stream.
    async fn acquire_lease(&self, request: AcquireLeaseRequest) -> Result<AcquireLeaseResponse, Status>;

    /// Says that a stream is free.
    async fn release_lease(&self, request: ReleaseLeaseRequest) -> Result<ReleaseLeaseResponse, Status>;

    /// Enters a file into the library.
    async fn commit_file(&self, request: CommitFileRequest) -> Result<(), Status>;

    /// Says where a recording stands.
    async fn commit_recording(&self, request: CommitRecordingRequest) -> Result<(), Status>;

    /// Gives what the library has of a recording, by pages.
    async fn read_recording(&self, request: ReadRecordingRequest) -> Result<ReadRecordingResponse, Status>;
}

/// gRPC, to whichever coordinator answers.
#[derive(Debug)]
pub(super) struct Grpc {
    servers: InterceptedService<Servers, Caller>,
}

impl Grpc {
    pub(super) fn new(servers: Servers, caller: Caller) -> Self {
        Self {
            servers: InterceptedService::new(servers, caller),
        }
    }

    fn client(&self) -> WorkersClient<InterceptedService<Servers, Caller>> {
        WorkersClient::new(self.servers.clone())
    }
}

#[async_trait]
impl Line for Grpc {
    async fn session(&self, up: mpsc::Receiver<WorkerUp>) -> Result<Directives, Status> {
        let mut request = tonic::Request::new(ReceiverStream::new(up));
        request.set_timeout(SESSION);
        Ok(Box::pin(self.client().session(request).await?.into_inner()))
    }

    async fn acquire_lease(&self, request: AcquireLeaseRequest) -> Result<AcquireLeaseResponse, Status> {
        let answer = self.client().acquire_lease(request).await?;
        Ok(answer.into_inner())
    }

    async fn release_lease(&self, request: ReleaseLeaseRequest) -> Result<ReleaseLeaseResponse, Status> {
        let answer = self.client().release_lease(request).await?;
        Ok(answer.into_inner())
    }

    async fn commit_file(&self, request: CommitFileRequest) -> Result<(), Status> {
        self.client().commit_file(request).await.map(drop)
    }

    async fn commit_recording(&self, request: CommitRecordingRequest) -> Result<(), Status> {
        self.client().commit_recording(request).await.map(drop)
    }

    async fn read_recording(&self, request: ReadRecordingRequest) -> Result<ReadRecordingResponse, Status> {
        let answer = self.client().read_recording(request).await?;
        Ok(answer.into_inner())
    }
}
