//! [`Traced`]: puts the work for a call into the trace that the call came from. Calls that come from none get none.

use std::task::{Context, Poll};

use opentelemetry_http::HeaderExtractor;
use shared::trace;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tower_layer::Layer;
use tracing::Instrument;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Puts a [`Traced`] in front of a service.
#[derive(Debug, Clone)]
pub(super) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// Shows each call as a span named by its method.
#[derive(Debug, Clone)]
pub(super) struct Traced<S> {
    inner: S,
}

impl<S> Service<Request> for Traced<S>
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
        let method = request.uri().path().trim_start_matches('/');
        let span = trace::extract(&HeaderExtractor(request.headers()), method);
        // The clone is the one that may not be ready.
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        let answer = async move { ready.call(request).await };
        let Some(span) = span else { return Box::pin(answer) };
        let shown = span.clone();
        Box::pin(
            async move {
                let answer = answer.await?;
                // A unary call that failed says so in its head (gRPC over HTTP/2, "Trailers-Only").
                let refused = Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok);
                if let Some(status) = refused {
                    trace::fail(&shown, status.message());
                }
                Ok(answer)
            }
            .instrument(span),
        )
    }
}
