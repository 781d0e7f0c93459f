//! HTTP for operators: `/healthz`, `/readyz`, `/metrics`.

use std::{io, net::TcpListener};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, get, web};
use shared::{
    shutdown::{Phase, Shutdown},
    telemetry::Metrics,
};

use super::hooks::{self, Hooks};
use crate::actors::supervisor::Handle;

/// What the pages look at.
#[derive(Clone)]
pub(crate) struct Ops {
    pub(crate) handle: Handle,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
}

/// The process runs.
#[get("/healthz")]
async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("ok\n")
}

/// The coordinator takes requests.
#[get("/readyz")]
async fn readyz(ops: web::Data<Ops>) -> HttpResponse {
    let (mut answer, text) = match (ops.shutdown.phase(), ops.handle.is_ready()) {
        (Phase::Starting | Phase::Running, true) => (HttpResponse::Ok(), "ready\n"),
        (Phase::Starting | Phase::Running, false) => {
            (HttpResponse::ServiceUnavailable(), "the coordinator is starting anew\n")
        }
        (Phase::Draining | Phase::Stopped, _) => (HttpResponse::ServiceUnavailable(), "draining\n"),
    };
    answer.content_type("text/plain; charset=utf-8").body(text)
}

/// Every counter, in the `OpenMetrics` text format.
#[get("/metrics")]
async fn metrics(ops: web::Data<Ops>) -> HttpResponse {
    match ops.metrics.encode() {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

/// Serves on a bound socket.
pub(crate) fn serve(listener: TcpListener, ops: Ops, hooks: Hooks) -> io::Result<Server> {
    let (ops, hooks) = (web::Data::new(ops), web::Data::new(hooks));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(ops.clone())
            .app_data(hooks.clone())
            .configure(hooks::routes)
            .service(healthz)
            .service(readyz)
            .service(metrics)
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(2)
    .listen(listener)?
    .run();
    Ok(server)
}
