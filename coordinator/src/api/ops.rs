//! The HTTP server, and its pages for operators: `/healthz`, `/readyz`, `/metrics`.

use std::{io, net::TcpListener, sync::Arc};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::Server, get, http::header, middleware::from_fn, web};
use shared::{
    auth::{Gate, bearer},
    shutdown::{Phase, Shutdown},
    telemetry::Metrics,
};

use super::{
    forward::{self, ToLeader},
    hooks::{self, Hooks},
    media::{self, Media},
    rest::{self, Rest},
    tencent::{self, Tencent},
};
use crate::{actors::supervisor::Handle, election::Role};
use tokio::sync::watch;

/// What the pages look at.
#[derive(Clone)]
pub(crate) struct Ops {
    pub(crate) handle: Handle,
    pub(crate) roles: watch::Receiver<Role>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    pub(crate) gate: Arc<Gate>,
}

/// The process runs.
#[get("/healthz")]
async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("ok\n")
}

/// The coordinator takes requests: it leads and has its state, or it knows who leads.
#[get("/readyz")]
async fn readyz(ops: web::Data<Ops>) -> HttpResponse {
    let role = ops.roles.borrow().clone();
    let (mut answer, text) = match (ops.shutdown.phase(), &role) {
        (Phase::Draining | Phase::Stopped, _) => (HttpResponse::ServiceUnavailable(), "draining\n".to_owned()),
        (_, Role::Leading(_)) if ops.handle.is_ready() => (HttpResponse::Ok(), "ready, leads\n".to_owned()),
        (_, Role::Leading(_)) => (
            HttpResponse::ServiceUnavailable(),
            "the coordinator is starting anew\n".to_owned(),
        ),
        (_, Role::Following(leader)) => (
            HttpResponse::Ok(),
            format!("ready, follows {} at {}\n", leader.name, leader.address),
        ),
        (_, Role::Waiting) => (HttpResponse::ServiceUnavailable(), "nobody leads\n".to_owned()),
    };
    answer.content_type("text/plain; charset=utf-8").body(text)
}

/// Every counter, in the `OpenMetrics` text format.
#[get("/metrics")]
async fn metrics(request: HttpRequest, ops: web::Data<Ops>) -> HttpResponse {
    let header = request.headers().get(header::AUTHORIZATION);
    if !ops
        .gate
        .operator(header.and_then(|value| value.to_str().ok()).and_then(bearer))
    {
        return HttpResponse::Unauthorized().body("the API token is wanted as bearer token (auth.api_token_file)\n");
    }
    match ops.metrics.encode() {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

/// What is served besides, and the way to who leads.
pub(crate) struct Doors {
    pub(crate) hooks: Hooks,
    pub(crate) media: Arc<Media>,
    pub(crate) rest: Arc<Rest>,
    pub(crate) tencent: Arc<Tencent>,
    pub(crate) leader: Arc<ToLeader>,
}

/// Serves on a bound socket.
pub(crate) fn serve(
    listener: TcpListener,
    ops: Ops,
    doors: Doors,
    tls: Option<rustls::ServerConfig>,
) -> io::Result<Server> {
    let Doors {
        hooks,
        media,
        rest,
        tencent,
        leader,
    } = doors;
    let (ops, hooks) = (web::Data::new(ops), web::Data::new(hooks));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(ops.clone())
            .app_data(hooks.clone())
            .app_data(web::Data::from(Arc::clone(&leader)))
            .wrap(from_fn(forward::pass_on))
            .configure(hooks::routes)
            .service(healthz)
            .service(readyz)
            .service(metrics)
            .configure(|config| media::configure(config, Arc::clone(&media)))
            .configure(|config| rest::configure(config, Arc::clone(&rest)))
            .configure(|config| tencent::configure(config, Arc::clone(&tencent)))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(2);
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}
