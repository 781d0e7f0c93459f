//! `/api/v1`: the same resources as over gRPC as plain JSON, with an OpenAPI document that is made from this code.
//!
//! Every handler asks the gRPC service of its resource: what may be asked, and what it comes to, is said once. `documents` is
//! how things look in JSON, `problem` how refusals do, `caller` who asks. The table below is both the routes and the document.

mod callbacks;
mod caller;
mod compositions;
mod documents;
mod domains;
mod events;
mod keys;
mod library;
mod problem;
mod pulls;
mod rules;
mod streams;
mod tasks;
mod templates;
mod workers;

use std::{fmt, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, ResponseError as _, Scope, web};
use serde::{Deserialize, Serialize};
use shared::auth::Gate;
use tonic::Request;
use utoipa::{
    IntoParams, Modify, OpenApi, ToSchema,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use self::problem::{Problem, Refusals};
use super::grpc::Api;
use crate::media::link::Links;

/// Where it lies.
const BASE: &str = "/api/v1";
/// Longest body, bytes: far more than the largest document that is taken.
const MAX_BODY: usize = 256 << 10;

/// What the API works with.
pub(crate) struct Rest {
    api: Api,
    gate: Arc<Gate>,
    links: Links,
}

impl Rest {
    pub(crate) fn new(api: Api, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Rest {
            links: Links::new(api.tools.vault.media_keys()),
            api,
            gate,
        })
    }
}

/// What a handler comes to.
type Answer<T> = Result<web::Json<T>, Problem>;

/// A page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// Most entries wanted: 1 to 1000; 0: 100.
    #[param(maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before; empty: the first page.
    page_token: String,
}

/// A page of a list of one stream's, application's or domain's.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Most entries wanted: 1 to 1000; 0: 100.
    #[param(maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before; empty: the first page.
    page_token: String,
    /// Only of this push domain.
    domain: String,
    /// Only of this application.
    app: String,
    /// Only of this stream name.
    stream: String,
}

/// Something was deleted.
#[derive(Debug, Serialize, ToSchema)]
struct Deleted {
    /// What.
    deleted: String,
}

fn deleted(what: impl Into<String>) -> web::Json<Deleted> {
    web::Json(Deleted { deleted: what.into() })
}

/// What an answer must hold.
fn there<T>(value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(Problem::internal)
}

/// What a caller may not see is, for it, not there.
fn unseen(what: impl fmt::Display) -> Problem {
    Problem::not_found(format!("{what} is not there, or of a domain that the key is not for"))
}

/// Declares the bearer token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The API token, or `SECRETID:SECRETKEY` of an access key (`aircheck key create`).",
            ))
            .build();
        if let Some(components) = document.components.as_mut() {
            components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        }
    }
}

macro_rules! operations {
    ($($module:ident::$handler:ident,)*) => {
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "Aircheck",
                description = "Templates, rules, tasks, live streams, push domains, the media library and compositions, callbacks, events, pull sources and workers of an Aircheck cluster. Times are RFC 3339 in UTC, `null` where there is none yet. Refusals are `application/problem+json` (RFC 9457)."
            ),
            servers((url = "/api/v1")),
            modifiers(&Bearer),
            security(("bearer" = [])),
            components(schemas(Problem)),
            paths($($module::$handler),*)
        )]
        struct Document;

        fn operations(scope: Scope) -> Scope {
            scope$(.service($module::$handler))*
        }
    };
}

operations! {
    templates::list_templates,
    templates::create_template,
    templates::get_template,
    templates::update_template,
    templates::delete_template,
    rules::list_rules,
    rules::create_rule,
    rules::delete_rule,
    tasks::list_tasks,
    tasks::create_task,
    tasks::get_task,
    tasks::stop_task,
    tasks::delete_task,
    streams::list_streams,
    streams::explain_stream,
    library::list_recordings,
    library::get_recording,
    library::lock_recording,
    library::unlock_recording,
    library::list_files,
    library::get_file,
    library::delete_file,
    library::lock_file,
    library::unlock_file,
    library::list_removals,
    library::list_copies,
    compositions::list_compositions,
    compositions::create_composition,
    compositions::get_composition,
    domains::list_domains,
    domains::create_domain,
    domains::get_domain,
    domains::update_domain,
    domains::delete_domain,
    domains::get_push_keys,
    domains::drop_stream,
    domains::list_bans,
    domains::create_ban,
    domains::delete_ban,
    callbacks::list_callback_templates,
    callbacks::create_callback_template,
    callbacks::update_callback_template,
    callbacks::delete_callback_template,
    callbacks::list_callback_rules,
    callbacks::create_callback_rule,
    callbacks::delete_callback_rule,
    events::list_events,
    events::get_event,
    events::replay_event,
    pulls::list_pulls,
    pulls::create_pull,
    pulls::get_pull,
    pulls::update_pull,
    pulls::delete_pull,
    workers::list_workers,
    keys::list_keys,
    keys::create_key,
    keys::disable_key,
}

/// The OpenAPI document. It holds no secret, and who cannot read it cannot learn to ask.
async fn document() -> HttpResponse {
    HttpResponse::Ok().json(Document::openapi())
}

async fn nothing_here() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found(format!(
        "there is no such path here, or not for this method: {BASE}/openapi.json says what there is"
    )))
}

/// Says that the API cannot answer now; none where it was not asked.
pub(crate) fn unavailable(request: &HttpRequest, words: &str) -> Option<HttpResponse> {
    let below = request.path().strip_prefix(BASE)?;
    (below.is_empty() || below.starts_with('/')).then(|| Problem::unavailable(words).error_response())
}

/// Adds the API at `/api/v1`.
pub(crate) fn configure(config: &mut web::ServiceConfig, rest: Arc<Rest>) {
    let wrong = |what: &str, error: &dyn fmt::Display| Problem::invalid(format!("{what}: {error}")).into();
    let scope = web::scope(BASE)
        .app_data(web::Data::from(rest))
        .app_data(
            web::JsonConfig::default()
                .limit(MAX_BODY)
                .error_handler(move |error, _| wrong("body", &error)),
        )
        .app_data(web::QueryConfig::default().error_handler(move |error, _| wrong("query", &error)))
        .app_data(web::PathConfig::default().error_handler(move |error, _| wrong("path", &error)))
        .route("/openapi.json", web::get().to(document));
    config.service(operations(scope).default_service(web::to(nothing_here)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_operation_once_with_its_refusals_and_what_it_needs() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in paths {
            assert!(path.starts_with('/') && !path.starts_with(BASE), "{path}");
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} twice");
                assert!(
                    operation["summary"].is_string() || operation["description"].is_string(),
                    "{id}"
                );
                for status in ["200", "400", "401", "403", "404", "409", "503"] {
                    assert!(
                        operation["responses"].get(status).is_some(),
                        "{method} {path}: {status}"
                    );
                }
                let named = path.matches('{').count();
                let parameters = operation["parameters"].as_array().map_or(0, |all| {
                    all.iter().filter(|parameter| parameter["in"] == "path").count()
                });
                assert_eq!(named, parameters, "{path}");
                assert_eq!(
                    operation.get("requestBody").is_some(),
                    id.starts_with("create_") || id.starts_with("update_"),
                    "{id}"
                );
            }
        }
        assert_eq!(ids.len(), 58);
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        assert_eq!(document["servers"][0]["url"], BASE);
    }
}
