//! [`Guard`]: lets calls in that show what is asked for, before anything else sees them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use shared::auth::{Gate, bearer};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower_layer::Layer;
use tracing::debug;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Puts a [`Guard`] in front of a service.
#[derive(Debug, Clone)]
pub(super) struct GuardLayer(pub(super) Arc<Gate>);

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            gate: Arc::clone(&self.0),
            inner,
        }
    }
}

/// Answers `UNAUTHENTICATED` to calls that show nothing that opens their door.
#[derive(Debug, Clone)]
pub(super) struct Guard<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let header = request.headers().get(http::header::AUTHORIZATION);
        let shown = header.and_then(|value| value.to_str().ok()).and_then(bearer);
        // The handshake let through only certificates that the authority signed.
        let certified = request
            .extensions()
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .is_some_and(|info| info.peer_certs().is_some_and(|certs| !certs.is_empty()));
        if let Err(refusal) = self.gate.check(request.uri().path(), shown, certified) {
            debug!(
                path = request.uri().path(),
                token = shown.is_some(),
                certified,
                "call refused"
            );
            let status = Status::unauthenticated(refusal);
            return Box::pin(async move { Ok(status.into_http()) });
        }
        // The clone is the one that may not be ready.
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move { ready.call(request).await })
    }
}
