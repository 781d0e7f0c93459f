//! gRPC: thin services that read a request into domain types, ask, and write the answer. What is decided is decided in
//! the actor or the library.

mod callbacks;
mod compositions;
mod copies;
mod domains;
mod files;
mod fleet;
mod forward;
mod guard;
mod keys;
mod listen;
mod pulls;
mod recordings;
mod rules;
pub(crate) mod scaler;
mod status;
mod streams;
mod tasks;
mod templates;
mod traced;
pub(crate) mod workers;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use proto::v1;
use shared::{
    access::AccessScope,
    auth::{Gate, tls::Certificates},
    shutdown::{Phase, Shutdown},
    store::Page,
};
use tokio::sync::{Semaphore, watch};
use tonic::{service::Routes, transport::Server};

use crate::{
    actors::{coordinator::Tools, supervisor::Handle},
    election::Role,
    scaler::Lately,
};

/// What every service works with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) handle: Handle,
    pub(crate) tools: Tools,
    pub(crate) shutdown: Shutdown,
    /// How many workers were wanted of late; see [`scaler`].
    pub(crate) lately: Arc<Mutex<Lately>>,
    /// Room for those who are told of activity.
    pub(crate) listeners: Arc<Semaphore>,
}

/// Longest message that is taken, bytes: a commit with many gaps is the largest there is.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// HTTP/2 keep-alive: a peer that is gone without a word is noticed after at most twice this.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves on a bound socket until `shutdown` drains. The future ends when every call has.
pub(crate) fn serve(
    listener: tokio::net::TcpListener,
    api: Api,
    gate: Arc<Gate>,
    tls: Arc<Certificates>,
    roles: watch::Receiver<Role>,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let shutdown = api.shutdown.clone();
    // Large: whoever starts it shall not hold it within.
    Ok(Box::pin(async move {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<v1::workers_server::WorkersServer<Api>>().await;
        let own = Routes::new(health)
            .add_service(reflection)
            .add_service(
                v1::templates_server::TemplatesServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(v1::rules_server::RulesServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(
                v1::streams_server::StreamsServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                v1::recordings_server::RecordingsServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(v1::tasks_server::TasksServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(v1::keys_server::KeysServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(
                v1::callbacks_server::CallbacksServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(v1::events_server::EventsServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(
                v1::compositions_server::CompositionsServer::new(api.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                v1::domains_server::DomainsServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(v1::files_server::FilesServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(v1::fleet_server::FleetServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(
                v1::pull_sources_server::PullSourcesServer::new(api.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                proto::externalscaler::external_scaler_server::ExternalScalerServer::new(api.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                v1::workers_server::WorkersServer::new(api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .prepare();
        let desk = forward::Desk::new(roles, Arc::clone(&tls), shutdown.clone(), api.tools.metrics.clone());
        let server = Server::builder()
            .layer(guard::GuardLayer(gate))
            .layer(traced::TraceLayer)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE));
        let service = forward::Forward::new(own, desk);
        let draining = async move { shutdown.reached(Phase::Draining).await };
        if tls.grpc_server().is_some() {
            let connections = listen::secured(listener, tls);
            server
                .serve_with_incoming_shutdown(service, connections, draining)
                .await
        } else {
            let connections = listen::plain(listener);
            server
                .serve_with_incoming_shutdown(service, connections, draining)
                .await
        }
    }))
}

/// Where the peer of a request is, for logs.
pub(crate) fn peer<T>(request: &tonic::Request<T>) -> Option<SocketAddr> {
    request.remote_addr()
}

/// Domains that whoever asks may see: those of its key where it came over HTTP with one, else all. Lists leave the others out before they are cut, so
/// that no page's token names what is on none.
fn scope<T>(request: &tonic::Request<T>) -> AccessScope {
    let all = || AccessScope {
        domains: Vec::new(),
        manage: false,
    };
    request.extensions().get().cloned().unwrap_or_else(all)
}

/// Cuts a list that is at hand to a page: at most `page.entries()`, and the token of the last if there are more.
fn cut<T>(mut list: Vec<T>, page: &Page, token: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let more = list.len() > page.entries();
    list.truncate(page.entries());
    let next = list.last().filter(|_| more).map(token).unwrap_or_default();
    (list, next)
}
