//! [`Forward`]: the way to the leader. Where another coordinator leads, calls are passed on to it as they came, and its
//! answers as they come: the services know nothing of it.
//!
//! A call that was passed on once is not passed on again: two coordinators that believe each other to lead would pass it
//! back and forth.

use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use shared::{
    auth::tls::Certificates,
    servers::NOT_DONE,
    shutdown::{Phase, Shutdown},
    telemetry::CoordinatorMetrics,
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    transport::{Channel, Endpoint},
};
use tracing::{debug, warn};

use crate::election::Role;

/// Says that a call was passed on by a coordinator.
const FORWARDED: &str = "aircheck-forwarded";
/// Time to connect to the leader.
const CONNECT: Duration = Duration::from_secs(1);
/// HTTP/2 keep-alive towards the leader: one that is gone without a word is noticed after at most twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// What is served by whoever is asked.
const LOCAL: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Marks a refusal as one before anything was done.
pub(super) fn mark_not_done(status: &mut Status) {
    status
        .metadata_mut()
        .insert(NOT_DONE, tonic::metadata::MetadataValue::from_static("1"));
}

fn refuse(message: impl Into<String>) -> Status {
    let mut status = Status::unavailable(message);
    mark_not_done(&mut status);
    status
}

/// Knows who leads, and keeps the connection to it.
#[derive(Clone)]
pub(super) struct Desk {
    roles: watch::Receiver<Role>,
    shutdown: Shutdown,
    metrics: CoordinatorMetrics,
    tls: Arc<Certificates>,
    link: Arc<Mutex<Option<Link>>>,
    made: Arc<AtomicU64>,
}

/// The connection to a leader.
#[derive(Clone)]
struct Link {
    address: String,
    term: u64,
    /// Tells it from others to the same leader.
    made: u64,
    channel: Channel,
    /// Ends what is under way when another leads.
    over: CancellationToken,
}

/// Whose business a call is.
enum Whose {
    Ours,
    Theirs(Link),
}

impl Desk {
    /// Ends calls to a leader as soon as it leads no more, and all of them when this process drains.
    pub(super) fn new(
        roles: watch::Receiver<Role>,
        tls: Arc<Certificates>,
        shutdown: Shutdown,
        metrics: CoordinatorMetrics,
    ) -> Self {
        let desk = Desk {
            roles,
            shutdown,
            metrics,
            tls,
            link: Arc::new(Mutex::new(None)),
            made: Arc::default(),
        };
        let watching = desk.clone();
        tokio::spawn(async move {
            let mut roles = watching.roles.clone();
            loop {
                tokio::select! {
                    biased;
                    () = watching.shutdown.reached(Phase::Draining) => return watching.cut(None),
                    changed = roles.changed() => match changed {
                        // Nobody known is no reason: the leader may be there and the store away.
                        Ok(()) => match &*roles.borrow_and_update() {
                            Role::Waiting => {}
                            Role::Leading(_) => watching.cut(None),
                            Role::Following(leader) => watching.cut(Some(leader.term)),
                        },
                        Err(_) => {
                            watching.shutdown.reached(Phase::Draining).await;
                            return watching.cut(None);
                        }
                    },
                }
            }
        });
        desk
    }

    /// Drops the link unless it is to the leader of this term.
    fn cut(&self, keep: Option<u64>) {
        let mut slot = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = slot.take_if(|link| Some(link.term) != keep) {
            link.over.cancel();
        }
    }

    /// The next call connects anew, with the certificates of its moment.
    fn forget(&self, unreachable: &Link) {
        let mut slot = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take_if(|link| link.made == unreachable.made));
    }

    fn whose(&self, request: &Request) -> Result<Whose, Status> {
        let path = request.uri().path();
        if LOCAL.iter().any(|local| path.starts_with(local)) {
            return Ok(Whose::Ours);
        }
        let role = self.roles.borrow().clone();
        match &role {
            Role::Leading(_) if role.term().is_some() => Ok(Whose::Ours),
            _ if request.headers().contains_key(FORWARDED) => Err(refuse(
                "this coordinator was taken for the leader and is not (any more): try again in a moment",
            )),
            _ if self.shutdown.phase() >= Phase::Draining => {
                Err(refuse("this coordinator is leaving: try another, or again in a moment"))
            }
            Role::Following(leader) => self.link(&leader.address, leader.term).map(Whose::Theirs),
            Role::Leading(_) | Role::Waiting => Err(refuse(
                "no coordinator leads just now: try again in a moment. If this lasts, the metadata store cannot be reached",
            )),
        }
    }

    /// The connection to the leader, made when it is first needed.
    fn link(&self, address: &str, term: u64) -> Result<Link, Status> {
        let mut slot = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = slot.as_ref().filter(|link| link.term == term) {
            return Ok(link.clone());
        }
        let endpoint = Endpoint::from_shared(address.to_owned()).and_then(|endpoint| {
            // What callers show goes on as they show it; where that was a certificate, this one's own stands for it.
            match endpoint.uri().scheme_str() {
                Some("https") => endpoint.tls_config(self.tls.grpc_client(None)),
                _ => Ok(endpoint),
            }
        });
        let endpoint = endpoint.map_err(|error| {
            refuse(format!(
                "the leader says that it is at {address:?}, which cannot be used ({error}): mend its coordinator.advertise"
            ))
        })?;
        let channel = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true)
            .connect_lazy();
        let link = Link {
            address: address.to_owned(),
            term,
            made: self.made.fetch_add(1, Ordering::Relaxed),
            channel,
            over: CancellationToken::new(),
        };
        if let Some(old) = slot.replace(link.clone()) {
            old.over.cancel();
        }
        Ok(link)
    }
}

/// Answers calls, or passes them on.
#[derive(Clone)]
pub(super) struct Forward<S> {
    own: S,
    desk: Desk,
}

impl<S> Forward<S> {
    pub(super) fn new(own: S, desk: Desk) -> Self {
        Forward { own, desk }
    }
}

impl<S> Service<Request> for Forward<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.own.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.desk.whose(&request) {
            Ok(Whose::Ours) => Box::pin(self.own.call(request)),
            Ok(Whose::Theirs(link)) => {
                self.desk.metrics.forwarded.inc();
                let desk = self.desk.clone();
                Box::pin(async move {
                    let answered = pass_on(link.clone(), request).await;
                    Ok(answered.unwrap_or_else(|status| {
                        if status.metadata().contains_key(NOT_DONE) {
                            desk.forget(&link);
                        }
                        status.into_http()
                    }))
                })
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}

async fn pass_on(mut link: Link, mut request: Request) -> Result<Response, Status> {
    request
        .headers_mut()
        .insert(FORWARDED, http::HeaderValue::from_static("1"));
    let gone =
        |why: String| Status::unavailable(format!("the leader at {} {why}: try again in a moment", link.address));
    let ready = std::future::poll_fn(|cx| link.channel.poll_ready(cx));
    ready
        .await
        .map_err(|error| refuse(format!("the leader at {} cannot be reached: {error}", link.address)))?;
    let answered = tokio::select! {
        biased;
        () = link.over.cancelled() => return Err(gone("leads no more".to_owned())),
        answered = link.channel.call(request) => answered,
    };
    match answered {
        Ok(response) => Ok(response.map(|body| Body::new(Cut::new(body, link.over.clone())))),
        Err(error) if never_sent(&error) => {
            warn!(
                address = link.address,
                error = &error as &dyn StdError,
                "the leader cannot be reached"
            );
            Err(refuse(format!(
                "the leader at {} cannot be reached: try again in a moment",
                link.address
            )))
        }
        Err(error) => {
            debug!(
                address = link.address,
                error = &error as &dyn StdError,
                "a call to the leader broke off"
            );
            Err(gone("broke off".to_owned()))
        }
    }
}

fn never_sent(error: &tonic::transport::Error) -> bool {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An answer's body that ends when its leader does.
struct Cut {
    body: Body,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl Cut {
    fn new(body: Body, over: CancellationToken) -> Self {
        Cut {
            body,
            over: Box::pin(over.cancelled_owned()),
            ended: false,
        }
    }
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| {
                // Broken off: said in the words of gRPC, which a client understands.
                frame.or_else(|status| {
                    self.ended = true;
                    Ok(trailers(&Status::unavailable(format!(
                        "the connection to the leader broke off: {}",
                        status.message()
                    ))))
                })
            }));
        }
        if self.over.as_mut().poll(cx).is_ready() {
            self.ended = true;
            let status = Status::unavailable("the leader leads no more, or this coordinator is leaving: try again");
            return Poll::Ready(Some(Ok(trailers(&status))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = http::HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        headers.insert("grpc-status", http::HeaderValue::from_static("14"));
    }
    Frame::trailers(headers)
}
