//! The HTTP API that speaks Tencent's protocol: live of 2018-08-01 and vod of 2018-07-17 at `/` of one port.
//!
//! # Tour
//!
//! 1. `request`: a request in any of four forms, read into one (pure).
//! 2. `signature`: who signed it (pure); `replays`, `limits`: how often (pure).
//! 3. `params`: its parameters, read one by one; what is unknown is refused (pure).
//! 4. `gate`: those put together: who may ask for what, before anything is done.
//! 5. `actions`: the table of what is offered, each with its right and its rate; `templates`, `rules`, …: what each does.
//! 6. This file: from the socket to an answer. Always HTTP 200 and exactly `application/json`: clients of that protocol
//!    read errors from the body, and some read them only then.

mod actions;
mod callbacks;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod checks;
mod domains;
mod error;
mod gate;
mod limits;
mod log;
mod params;
mod pulls;
mod replays;
mod request;
mod rules;
mod signature;
mod streams;
mod tasks;
mod templates;
mod text;
mod vod;

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use tracing::{debug, error, warn};
use uuid::Uuid;

use self::{
    actions::Context,
    error::ApiError,
    gate::{Gate, Passed},
    signature::Received,
};
use super::forward;
use crate::{
    actors::{coordinator::Tools, supervisor::Handle},
    media::link::Links,
};

/// Longest body, bytes. The largest legal request is far below.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Time for a body to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(20);

/// What the API works with.
pub(crate) struct Tencent {
    handle: Handle,
    tools: Tools,
    gate: Gate,
    links: Links,
}

impl Tencent {
    pub(crate) fn new(handle: Handle, tools: Tools) -> Arc<Self> {
        Arc::new(Tencent {
            gate: Gate::new(&tools),
            links: Links::new(tools.vault.media_keys()),
            handle,
            tools,
        })
    }
}

/// Adds the API at `/`.
pub(crate) fn configure(config: &mut web::ServiceConfig, api: Arc<Tencent>) {
    config
        .app_data(web::Data::from(api))
        .service(web::resource("/").to(entry));
}

async fn entry(request: HttpRequest, body: web::Payload, api: web::Data<Tencent>) -> HttpResponse {
    let id = api.tools.ids.uuid(api.tools.clock.now());
    let answered = answer(&request, body, &api).await;
    if let Err(refused) = &answered {
        let (code, message) = (refused.code(), refused.message());
        match code {
            "InternalError" => error!(%id, message, "HTTP API failed"),
            "ServiceUnavailable" => warn!(%id, message, "HTTP API cannot answer now"),
            _ => debug!(%id, code, message, "HTTP API refused a request"),
        }
    }
    envelope(id, answered)
}

/// Says that the API cannot answer now.
pub(crate) fn unavailable(request: &HttpRequest, words: &str) -> HttpResponse {
    let Some(api) = request.app_data::<web::Data<Tencent>>() else {
        return HttpResponse::ServiceUnavailable().body(words.to_owned());
    };
    let id = api.tools.ids.uuid(api.tools.clock.now());
    warn!(%id, message = words, "HTTP API cannot answer now");
    envelope(id, Err(ApiError::new("ServiceUnavailable", words)))
}

fn envelope(id: Uuid, answered: Result<Map<String, Value>, ApiError>) -> HttpResponse {
    let mut response = answered.unwrap_or_else(|refused| {
        let mut response = Map::new();
        let error = json!({"Code": refused.code(), "Message": refused.message()});
        response.insert("Error".to_owned(), error);
        response
    });
    response.insert("RequestId".to_owned(), Value::String(id.to_string()));
    // Without a charset: with one, a client of this protocol takes an error for a success.
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(json!({ "Response": response }).to_string())
}

async fn answer(request: &HttpRequest, body: web::Payload, api: &Tencent) -> Result<Map<String, Value>, ApiError> {
    let method = request.method().as_str();
    if !matches!(method, "GET" | "POST") {
        return Err(ApiError::new(
            "UnsupportedProtocol",
            format!("{method} is not taken here: use GET or POST"),
        ));
    }
    let peer = forward::client(request);
    api.gate.admit(peer)?;
    let headers = headers(request)?;
    let body = gather(body).await?;
    let received = Received {
        method,
        path: request.path(),
        query: request.query_string(),
        headers: &headers,
        body: &body,
    };
    let Passed { caller, action, fields } = api.gate.pass(&received, peer).await?;
    let context = Context {
        handle: &api.handle,
        tools: &api.tools,
        links: &api.links,
        public_url: &api.tools.public_url,
        caller,
    };
    (action.run)(&context, fields).await
}

/// Names are in lower case already.
fn headers(request: &HttpRequest) -> Result<Vec<(String, String)>, ApiError> {
    let read = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| ApiError::invalid(format!("the header {name} is not UTF-8")))?;
        Ok((name.as_str().to_owned(), value.to_owned()))
    };
    request.headers().iter().map(read).collect()
}

/// The whole body, if it is not too long and arrives in time.
async fn gather(mut body: web::Payload) -> Result<Vec<u8>, ApiError> {
    let all = async {
        let mut out = Vec::new();
        while let Some(chunk) = body.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::new("InvalidRequest", format!("the body is broken: {error}")))?;
            if out.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(ApiError::new(
                    "RequestSizeLimitExceeded",
                    format!("the body has more than {MAX_BODY_BYTES} bytes"),
                ));
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    };
    match tokio::time::timeout(BODY_LIMIT, all).await {
        Ok(gathered) => gathered,
        Err(_) => Err(ApiError::new(
            "InvalidRequest",
            format!("the body did not arrive within {BODY_LIMIT:?}"),
        )),
    }
}
