//! [`Wire`]: the network between a worker and the coordinators.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coordinator::sim::Node;
use proto::v1::acquire_lease_response::Outcome;
use proto::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, CommitFileRequest, CommitRecordingRequest, CoordinatorDown,
    ReadRecordingRequest, ReadRecordingResponse, ReleaseLeaseRequest, ReleaseLeaseResponse, WorkerUp,
};
use shared::store::keys;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use worker::{Directives, Line};

use crate::checks::Checks;
use crate::process::Call;
use crate::world::{Place, World, lock};

/// Time for one call, as for gRPC.
const CALL: Duration = Duration::from_secs(10);
/// A session of which nothing is heard is tried this often, and given up after so many times.
const PING: Duration = Duration::from_secs(3);
const PINGS: u32 = 5;

/// The coordinators that run, for whoever calls them.
pub(crate) type Doors = Arc<Mutex<Vec<Option<mpsc::UnboundedSender<Call<Node>>>>>>;

/// What a call does at the coordinator.
pub(crate) type Act<R, T> = fn(Rc<Node>, R) -> Pin<Box<dyn Future<Output = Result<T, Status>>>>;

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) doors: Doors,
    pub(crate) checks: Arc<Checks>,
    pub(crate) from: Place,
    /// The coordinator that answered a call last.
    pub(crate) current: AtomicUsize,
    /// The coordinator that the session is tried with.
    pub(crate) session: AtomicUsize,
}

impl Wire {
    fn door(&self, to: usize) -> Option<mpsc::UnboundedSender<Call<Node>>> {
        lock(&self.doors).get(to).cloned().flatten()
    }

    /// The epoch that a recording is at.
    fn epoch(&self, recording: &str) -> Option<u64> {
        let seen = lock(&self.checks.seen);
        let known = seen.recordings.get(&keys::recording(recording.parse().ok()?));
        known.map(|known| known.epoch.get())
    }

    fn target(&self) -> usize {
        self.current.load(Ordering::Relaxed) % lock(&self.doors).len().max(1)
    }

    fn next(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) async fn call<R, T>(&self, request: R, act: Act<R, T>) -> Result<T, Status>
    where
        R: Clone + Send + 'static,
        T: Send + 'static,
    {
        let to = self.target();
        let answer = tokio::time::timeout(CALL, self.once(to, request, act)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")));
        if answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
            self.next();
        }
        answer
    }

    async fn once<R, T>(&self, to: usize, request: R, act: Act<R, T>) -> Result<T, Status>
    where
        R: Clone + Send + 'static,
        T: Send + 'static,
    {
        let place = Place::Coordinator(to);
        self.world.travel(self.from, place).await;
        let door = self.door(to).ok_or_else(|| Status::unavailable("connection refused"))?;
        if self.world.happens(self.world.weather().repeated) {
            let again = request.clone();
            let call: Call<Node> = Box::new(move |node| {
                Box::pin(async move {
                    drop(act(node, again).await);
                })
            });
            drop(door.send(call));
        }
        let (answer, answered) = oneshot::channel();
        let call: Call<Node> = Box::new(move |node| {
            Box::pin(async move {
                drop(answer.send(act(node, request).await));
            })
        });
        door.send(call).map_err(|_| Status::unavailable("connection refused"))?;
        let answer = answered.await.map_err(|_| Status::unavailable("connection reset"))?;
        self.world.travel(place, self.from).await;
        answer
    }

    async fn open(&self, to: usize, mut up: mpsc::Receiver<WorkerUp>) -> Result<Directives, Status> {
        let place = Place::Coordinator(to);
        self.world.travel(self.from, place).await;
        let door = self.door(to).ok_or_else(|| Status::unavailable("connection refused"))?;
        let (to_node, said) = mpsc::channel(16);
        let (from_node, mut told) = mpsc::channel::<Result<CoordinatorDown, Status>>(256);
        let call: Call<Node> = Box::new(move |node| {
            Box::pin(async move {
                let mut down = match node.session(said).await {
                    Ok(down) => down,
                    Err(status) => return drop(from_node.send(Err(status)).await),
                };
                while let Some(item) = down.next().await {
                    if from_node.send(item).await.is_err() {
                        return;
                    }
                }
            })
        });
        door.send(call).map_err(|_| Status::unavailable("connection refused"))?;
        let (world, from) = (Arc::clone(&self.world), self.from);
        let (over, ended) = oneshot::channel::<()>();
        world.say(format_args!("{from} opens a session with {place}"));
        let rising = tokio::task::spawn_local(async move {
            while let Some(message) = up.recv().await {
                if world.travel_in_row(from, place).await.is_err() || to_node.send(message).await.is_err() {
                    break;
                }
            }
            drop(over);
        });
        let (deliver, delivered) = mpsc::channel(64);
        let world = Arc::clone(&self.world);
        tokio::task::spawn_local(async move {
            tokio::pin!(ended);
            let mut silent = 0;
            loop {
                let item = tokio::select! {
                    biased;
                    item = told.recv() => item,
                    _ = &mut ended => None,
                    () = tokio::time::sleep(PING) => {
                        // What HTTP/2's keep-alive finds out.
                        silent = if world.is_cut(from, place) || world.is_stopped(place) { silent + 1 } else { 0 };
                        if silent < PINGS { continue }
                        None
                    }
                };
                let Some(item) = item else { break };
                let item = world.travel_in_row(place, from).await.and(item);
                let last = item.is_err();
                if deliver.send(item).await.is_err() || last {
                    break;
                }
            }
            // With one direction goes the other.
            rising.abort();
            world.say(format_args!("the session of {from} with {place} ends"));
        });
        Ok(Box::pin(ReceiverStream::new(delivered)))
    }
}

#[async_trait]
impl Line for Wire {
    async fn session(&self, up: mpsc::Receiver<WorkerUp>) -> Result<Directives, Status> {
        // Whoever comes back comes to the next one; the one that leads keeps its session.
        let to = self.session.fetch_add(1, Ordering::Relaxed) % lock(&self.doors).len().max(1);
        let opened = tokio::time::timeout(CALL, self.open(to, up)).await;
        opened.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")))
    }

    async fn acquire_lease(&self, request: AcquireLeaseRequest) -> Result<AcquireLeaseResponse, Status> {
        let publish = request.publish_id.clone();
        let answer = self
            .call(request, |node, request| {
                Box::pin(async move { node.acquire_lease(request).await })
            })
            .await;
        match &answer {
            Ok(answer) => {
                if let Some(Outcome::Refused(refused)) = &answer.outcome {
                    self.world
                        .say(format_args!("{} is refused {publish}: {}", self.from, refused.reason));
                }
            }
            Err(status) => self.world.say(format_args!(
                "{} hears nothing of {publish}: {}",
                self.from,
                status.message()
            )),
        }
        answer
    }

    async fn release_lease(&self, request: ReleaseLeaseRequest) -> Result<ReleaseLeaseResponse, Status> {
        self.call(request, |node, request| {
            Box::pin(async move { node.release_lease(request).await })
        })
        .await
    }

    async fn commit_file(&self, mut request: CommitFileRequest) -> Result<(), Status> {
        if self.world.sabotage_file(&mut request, |id| self.epoch(id)) {
            return Ok(());
        }
        self.call(request, |node, request| {
            Box::pin(async move { node.commit_file(request).await.map(drop) })
        })
        .await
    }

    async fn commit_recording(&self, mut request: CommitRecordingRequest) -> Result<(), Status> {
        self.world.sabotage_recording(&mut request, |id| self.epoch(id));
        self.call(request, |node, request| {
            Box::pin(async move { node.commit_recording(request).await.map(drop) })
        })
        .await
    }

    async fn read_recording(&self, request: ReadRecordingRequest) -> Result<ReadRecordingResponse, Status> {
        self.call(request, |node, request| {
            Box::pin(async move { node.read_recording(request).await })
        })
        .await
    }
}
