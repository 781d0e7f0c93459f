//! HTTP of a worker that has no coordinator in its process: `/healthz`, `/readyz`, `/metrics`.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::header, web};
use shared::auth::{Gate, Tokens, bearer, tls::Certificates};
use shared::config::WorkerConfig;
use shared::telemetry::Metrics;

struct Page {
    metrics: Metrics,
    gate: Gate,
}

/// It runs.
async fn well() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("ok\n")
}

/// It takes streams.
async fn ready(page: web::Data<Arc<Page>>) -> HttpResponse {
    let (mut answer, text) = if page.metrics.worker.accepting.get() == 1 {
        (HttpResponse::Ok(), "ready\n")
    } else {
        let why = "no publish is taken: the worker leaves, its disk is nearly full, or its journals wait for storage\n";
        (HttpResponse::ServiceUnavailable(), why)
    };
    answer.content_type("text/plain; charset=utf-8").body(text)
}

async fn metrics(request: HttpRequest, page: web::Data<Arc<Page>>) -> HttpResponse {
    let header = request.headers().get(header::AUTHORIZATION);
    if !page
        .gate
        .operator(header.and_then(|value| value.to_str().ok()).and_then(bearer))
    {
        return HttpResponse::Unauthorized().body("the API token is wanted as bearer token (auth.api_token_file)\n");
    }
    match page.metrics.encode() {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

/// Serves at `worker.http`; none where that is not set.
pub(crate) fn serve(
    config: &WorkerConfig,
    metrics_of: Metrics,
) -> Result<Option<(SocketAddr, ServerHandle)>, Box<dyn Error>> {
    let Some(address) = config.http else { return Ok(None) };
    let page = Arc::new(Page {
        metrics: metrics_of,
        gate: Gate::new(Tokens::load(&config.auth)?, false),
    });
    let tls = Certificates::follow(&config.tls)?.http_server()?;
    let listener =
        TcpListener::bind(address).map_err(|error| format!("cannot listen on {address} for HTTP: {error}"))?;
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(Arc::clone(&page)))
            .route("/healthz", web::get().to(well))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(metrics))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(2);
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    let server = server.run();
    let handle = server.handle();
    actix::spawn(server);
    Ok(Some((address, handle)))
}
