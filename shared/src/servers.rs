//! [`Servers`]: several coordinators as one gRPC service. Calls go to one of them until it fails, then to the next.
//!
//! A name that resolves to several addresses is several servers; it is resolved anew when all of them have failed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use thiserror::Error;
use tokio::time::Instant;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    transport::{Channel, Endpoint},
};

use crate::auth::Caller;

/// Header of a refusal before anything was done: the call may be made again, there or elsewhere, whatever it is.
pub const NOT_DONE: &str = "aircheck-not-done";

/// Time to connect to one server.
const CONNECT: Duration = Duration::from_secs(2);
/// HTTP/2 keep-alive while something is awaited: a peer that is gone or frozen is noticed after at most twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Time for a server to say that it is there, before a call is trusted to it.
const ALIVE: Duration = Duration::from_secs(1);
/// Wait before a patient call is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// Longest request that a patient call keeps, bytes.
const MAX_KEPT_BYTES: usize = 4 << 20;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Not a list of servers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{url:?} is not a URL such as http://127.0.0.1:7070: {problem}")]
pub struct ServersError {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How calls are made.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Time for an answer to begin.
    pub limit: Duration,
    /// For how long a call is made again that was refused before anything was done; none: it is not.
    pub patience: Option<Duration>,
    /// Which server comes first, counted around: so that many clients do not all begin with the same.
    pub first: usize,
}

impl Manner {
    fn apply(self, endpoint: Endpoint) -> Endpoint {
        endpoint
            .connect_timeout(CONNECT)
            .timeout(self.limit)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true)
    }
}

/// The host of a URL, an IPv6 address without its brackets.
fn host(uri: &http::Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

/// Several servers as one. Clones share connections.
#[derive(Debug, Clone)]
pub struct Servers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoints: Vec<Endpoint>,
    caller: Caller,
    manner: Manner,
    ring: Mutex<Ring>,
}

/// The servers as they were resolved last.
#[derive(Debug, Default)]
struct Ring {
    channels: Vec<Channel>,
    at: usize,
    /// Failures since the last resolution or success.
    failed: usize,
    /// The one whose turn it is has answered.
    proven: bool,
    /// Counts the moves: a failure of an earlier choice does not move again.
    turn: u64,
}

impl Servers {
    /// Takes a list of URLs; connects when first needed. Must be used within a tokio runtime.
    ///
    /// # Errors
    /// [`ServersError`] for the first that is no URL, or for an empty list.
    pub fn new(urls: &[String], caller: &Caller, manner: Manner) -> Result<Self, ServersError> {
        let mut endpoints = Vec::with_capacity(urls.len());
        for url in urls {
            let bad = |problem: String| ServersError {
                url: url.clone(),
                problem,
            };
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| bad(error.to_string()))?;
            let scheme = endpoint.uri().scheme_str().unwrap_or_default();
            if endpoint.uri().host().is_none() || !["http", "https"].contains(&scheme) {
                return Err(bad("write http://HOST:PORT or https://HOST:PORT".to_owned()));
            }
            let endpoint = caller.endpoint(endpoint).map_err(|error| bad(error.to_string()))?;
            endpoints.push(manner.apply(endpoint));
        }
        if endpoints.is_empty() {
            return Err(ServersError {
                url: String::new(),
                problem: "the list is empty".to_owned(),
            });
        }
        Ok(Servers(Arc::new(Inner {
            endpoints,
            caller: caller.clone(),
            manner,
            ring: Mutex::new(Ring::default()),
        })))
    }

    /// How many servers there are, as far as is known.
    fn len(&self) -> usize {
        self.ring().channels.len().max(self.0.endpoints.len())
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server to ask now, and the turn it is.
    async fn current(&self) -> (u64, Channel) {
        {
            let ring = self.ring();
            if ring.failed < ring.channels.len().max(1)
                && let Some(channel) = ring.channels.get(ring.at)
            {
                return (ring.turn, channel.clone());
            }
        }
        let fresh = self.resolve().await;
        let mut ring = self.ring();
        if ring.channels.is_empty() {
            ring.at = self.0.manner.first % fresh.len().max(1);
        }
        ring.at %= fresh.len().max(1);
        ring.failed = 0;
        ring.channels = fresh;
        let channel = ring.channels.get(ring.at).cloned();
        // An address list is never empty: what does not resolve stays as it is written, and fails when it is used.
        (
            ring.turn,
            channel.unwrap_or_else(|| Endpoint::from_static("http://127.0.0.1:0").connect_lazy()),
        )
    }

    /// One channel for each address of each name.
    async fn resolve(&self) -> Vec<Channel> {
        let mut channels = Vec::new();
        for endpoint in &self.0.endpoints {
            let uri = endpoint.uri();
            let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default_port);
            let found = tokio::net::lookup_host((host(uri), port)).await;
            let addresses: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
            if addresses.len() < 2 {
                // Certificates may have been renewed since.
                let fresh = self.0.caller.endpoint(endpoint.clone());
                channels.push(fresh.as_ref().unwrap_or(endpoint).connect_lazy());
                continue;
            }
            let scheme = uri.scheme_str().unwrap_or("http");
            for address in addresses {
                let one = Endpoint::from_shared(format!("{scheme}://{address}"))
                    .and_then(|one| self.0.caller.endpoint_of(one, Some(host(uri))))
                    .map(|one| self.0.manner.apply(one.origin(uri.clone())));
                channels.extend(one.ok().map(|one| one.connect_lazy()));
            }
        }
        channels
    }

    /// Moves on to the next server, unless somebody else has meanwhile.
    fn failed(&self, turn: u64) {
        let mut ring = self.ring();
        if ring.turn == turn {
            ring.turn += 1;
            ring.proven = false;
            ring.failed += 1;
            ring.at = (ring.at + 1) % ring.channels.len().max(1);
        }
    }

    fn worked(&self, turn: u64) {
        let mut ring = self.ring();
        if ring.turn == turn {
            ring.failed = 0;
            ring.proven = true;
        }
    }

    /// The server to ask now. One that was not asked before must first say that it is there: a frozen process takes
    /// connections and answers nothing, and then nobody knew what came of the call.
    async fn responsive(&self) -> (u64, Channel) {
        for _ in 1..self.len() {
            let (turn, channel) = self.current().await;
            if self.ring().proven || answers(channel.clone()).await {
                return (turn, channel);
            }
            self.failed(turn);
        }
        self.current().await
    }

    /// Asks the server whose turn it is.
    async fn once(&self, request: Request) -> Result<Response, (Status, bool)> {
        let (turn, mut channel) = self.responsive().await;
        let answered = match std::future::poll_fn(|cx| channel.poll_ready(cx)).await {
            Ok(()) => channel.call(request).await,
            Err(error) => Err(error),
        };
        match answered {
            Err(error) => {
                self.failed(turn);
                if never_sent(&error) {
                    Err((self.unreachable(&error), true))
                } else {
                    Err((Status::from_error(Box::new(error)), false))
                }
            }
            Ok(response) => {
                let unavailable = Status::from_header_map(response.headers())
                    .is_some_and(|status| status.code() == Code::Unavailable);
                if unavailable {
                    self.failed(turn);
                } else {
                    self.worked(turn);
                }
                Ok(response)
            }
        }
    }

    fn unreachable(&self, error: &tonic::transport::Error) -> Status {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let urls: Vec<String> = self.0.endpoints.iter().map(|one| one.uri().to_string()).collect();
        Status::unavailable(format!(
            "no coordinator at {}: {cause}",
            urls.join(" or ").replace("/ ", " ").trim_end_matches('/')
        ))
    }

    /// Asks until there is an answer other than "not done, ask another", or patience ends.
    async fn patiently(&self, request: Request, patience: Duration) -> Result<Response, Status> {
        let deadline = Instant::now() + patience;
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        if body.len() > MAX_KEPT_BYTES {
            return Err(Status::resource_exhausted("the request is longer than 4 MiB"));
        }
        let mut unreachable = 0;
        loop {
            let copy = http::Request::from_parts(head.clone(), Body::new(Full::<Bytes>::new(body.clone())));
            let answer = self.once(copy).await;
            let again = match &answer {
                Ok(response) => {
                    unreachable = 0;
                    response.headers().contains_key(NOT_DONE)
                }
                Err((_, never_sent)) => {
                    unreachable += 1;
                    // Where none can even be connected to, waiting is of no use.
                    *never_sent && unreachable < self.len()
                }
            };
            if !again || Instant::now() + AGAIN >= deadline {
                return answer.map_err(|(status, _)| status);
            }
            if answer.is_ok() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// True if a server answers the question how it is, or cannot be connected to, which a call finds out by itself.
async fn answers(mut channel: Channel) -> bool {
    let mut question = http::Request::new(Body::new(Full::<Bytes>::new(Bytes::from_static(&[0; 5]))));
    *question.method_mut() = http::Method::POST;
    *question.uri_mut() = http::Uri::from_static("/grpc.health.v1.Health/Check");
    let headers = question.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    let asked = async {
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
        channel.call(question).await
    };
    match tokio::time::timeout(ALIVE, asked).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => never_sent(&error),
        Err(_) => false,
    }
}

fn never_sent(error: &tonic::transport::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl Service<Request> for Servers {
    type Response = Response;
    type Error = Status;
    type Future = BoxFuture<Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let servers = self.clone();
        Box::pin(async move {
            match servers.0.manner.patience {
                Some(patience) => servers.patiently(request, patience).await,
                None => servers.once(request).await.map_err(|(status, _)| status),
            }
        })
    }
}
