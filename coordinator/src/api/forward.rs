//! [`ToLeader`]: HTTP that only the leader can answer is passed on to it by whoever is asked: method, path, headers and body
//! as they came, so that signatures hold; and its answer as it comes. What lies open to everybody (health, metrics, media) is
//! answered where it is asked.
//!
//! A request that was passed on is not passed on again. The header that says so also names the client's address, signed with a
//! key that all coordinators of a cluster share: the leader limits and logs clients, not the coordinators in between.

use std::{
    error::Error as _,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::{BodyStream, BoxBody, MessageBody, SizedStream},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web::{self, Bytes, BytesMut},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyStream as Frames, Full};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use ring::hmac;
use rustls::pki_types::ServerName;
use shared::{auth::tls::Certificates, secret::Vault, telemetry::CoordinatorMetrics, time::Clock};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tonic::codegen::http;
use tracing::warn;

use super::{rest, tencent};
use crate::{
    actors::supervisor::Handle,
    election::{LeaderRecord, Role},
};

/// Says that a request was passed on by a coordinator, and for whom: `MILLISECONDS,ADDRESS,SIGNATURE`.
const FORWARDED: &str = "aircheck-forwarded";
/// What is answered by whoever is asked.
const LOCAL: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/media/", "/console"];
/// Longest body that is passed on, bytes: none that is taken at its goal is longer.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Time for a body to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// Most requests under way to the leader; further ones are refused.
const MAX_UNDER_WAY: usize = 256;
/// For how long a leader is looked for: longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for it.
const AGAIN: Duration = Duration::from_millis(100);
/// What is said where there is none.
const NOBODY: &str =
    "no coordinator leads just now: try again in a moment. If this lasts, the metadata store cannot be reached";
/// Time to connect to the leader.
const CONNECT: Duration = Duration::from_secs(1);
/// Time for its answer to begin, and then for each part of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Idle connections to the leader are closed after this.
const IDLE: Duration = Duration::from_secs(20);
/// Age at which the word of another coordinator is believed no more, and most by which its clock may be ahead, ms.
const FRESH_MS: i64 = 60_000;
/// What belongs to one connection and not to the request (RFC 9110 §7.6.1), and what is said anew.
const OF_THE_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

type Sender = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Where a request comes from that another coordinator passed on.
#[derive(Debug, Clone, Copy)]
struct Vouched(IpAddr);

/// Where the client of a request is.
pub(crate) fn client(request: &HttpRequest) -> Option<IpAddr> {
    let said = request.extensions().get::<Vouched>().map(|client| client.0);
    said.or_else(|| request.peer_addr().map(|peer| peer.ip()))
}

/// Knows who leads, and how to reach it.
pub(crate) struct ToLeader {
    handle: Handle,
    roles: watch::Receiver<Role>,
    tls: Arc<Certificates>,
    /// Connections, and the certificates that they were made with.
    sender: Mutex<Option<(Arc<rustls::ClientConfig>, Sender)>>,
    /// Of all coordinators of the cluster: the first signs, all are accepted.
    keys: Vec<hmac::Key>,
    clock: Arc<dyn Clock>,
    metrics: CoordinatorMetrics,
    places: Semaphore,
}

/// Who answers.
enum Goal {
    Here,
    Leader(LeaderRecord),
    Nobody,
}

/// There is no answer of the leader.
struct NoAnswer {
    /// For the client.
    words: String,
    /// Nothing was asked of anybody: it may be tried again.
    never_sent: bool,
}

impl ToLeader {
    pub(crate) fn new(
        handle: Handle,
        roles: watch::Receiver<Role>,
        tls: &Arc<Certificates>,
        vault: &Vault,
        clock: Arc<dyn Clock>,
        metrics: CoordinatorMetrics,
    ) -> Arc<Self> {
        Arc::new(ToLeader {
            handle,
            roles,
            tls: Arc::clone(tls),
            sender: Mutex::new(None),
            keys: vault
                .peer_keys()
                .map(|key| hmac::Key::new(hmac::HMAC_SHA256, key))
                .collect(),
            clock,
            metrics,
            places: Semaphore::new(MAX_UNDER_WAY),
        })
    }

    fn goal(&self) -> Goal {
        let role = self.roles.borrow().clone();
        match role {
            Role::Following(leader) => Goal::Leader(leader),
            _ if role.term().is_some() && self.handle.is_ready() => Goal::Here,
            Role::Leading(_) | Role::Waiting => Goal::Nobody,
        }
    }

    /// Waits until this leader leads no more.
    async fn deposed(&self, leader: &LeaderRecord) {
        let mut roles = self.roles.clone();
        let gone = roles.wait_for(|role| match role {
            Role::Following(now) => now.term != leader.term,
            Role::Leading(_) => true,
            // The leader may be there and the store away.
            Role::Waiting => false,
        });
        if gone.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn sender(&self) -> Sender {
        let now = self.tls.http_client();
        let mut slot = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_with, sender)) = slot.as_ref()
            && Arc::ptr_eq(made_with, &now)
        {
            return sender.clone();
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let mut https = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&now))
            .https_or_http();
        // Checked with the settings.
        let name = self
            .tls
            .coordinator_name()
            .and_then(|name| ServerName::try_from(name.to_owned()).ok());
        if let Some(name) = name {
            https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let connector = https.enable_http1().wrap_connector(connector);
        let sender = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        *slot = Some((now, sender.clone()));
        sender
    }

    fn signed(&self, ms: i64, client: IpAddr, method: &str, target: &str) -> String {
        let signed = words(ms, client, method, target);
        let tag = self.keys.first().map(|key| hmac::sign(key, signed.as_bytes()));
        let tag = tag.map(|tag| URL_SAFE_NO_PAD.encode(tag));
        format!("{ms},{client},{}", tag.unwrap_or_default())
    }

    /// The client that another coordinator speaks for, if it is one.
    fn vouched(&self, said: &str, method: &str, target: &str) -> Option<IpAddr> {
        let mut parts = said.splitn(3, ',');
        let (ms, client, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let (ms, client) = (ms.parse().ok()?, client.parse().ok()?);
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let signed = words(ms, client, method, target);
        let mut keys = self.keys.iter();
        keys.find(|key| hmac::verify(key, signed.as_bytes(), &tag).is_ok())?;
        let age = self.clock.now().as_millis().saturating_sub(ms);
        (age.abs() <= FRESH_MS).then_some(client)
    }

    /// The request as it goes to the leader.
    fn outgoing(
        &self,
        request: &ServiceRequest,
        base: &str,
        body: Bytes,
    ) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let method = request.method().as_str();
        let mut out = http::Request::builder().method(method).uri(format!("{base}{target}"));
        let named = listed(request.headers().get_all(header::CONNECTION));
        for (name, value) in request.headers() {
            let name = name.as_str();
            // What was awaited before the body was sent has come.
            if OF_THE_CONNECTION.contains(&name) || name == "expect" || named.iter().any(|other| other == name) {
                continue;
            }
            out = out.header(name, value.as_bytes());
        }
        let client = client(request.request()).unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let ms = self.clock.now().as_millis();
        out.header(FORWARDED, self.signed(ms, client, method, target))
            .body(Full::new(body))
    }

    /// Asks the leader.
    async fn ask(
        self: &Arc<Self>,
        leader: &LeaderRecord,
        request: &ServiceRequest,
        body: Bytes,
    ) -> Result<HttpResponse<BoxBody>, NoAnswer> {
        let never_sent = |words: String| NoAnswer {
            words,
            never_sent: true,
        };
        let Some(base) = leader.http.as_deref() else {
            return Err(never_sent(format!(
                "the leader, {}, is of an earlier version that does not say where it serves HTTP: ask it there, or update it",
                leader.name
            )));
        };
        let outgoing = self.outgoing(request, base, body).map_err(|error| {
            never_sent(format!(
                "the leader says that it serves HTTP at {base:?}, which cannot be used ({error}): mend its coordinator.advertise_http"
            ))
        })?;
        let broken = |why: &str| NoAnswer {
            words: format!("the leader at {base} {why}: look whether it was done before you repeat it"),
            never_sent: false,
        };
        self.metrics.forwarded.inc();
        let answered = tokio::select! {
            biased;
            answered = timeout(ANSWER_LIMIT, self.sender().request(outgoing)) => answered,
            () = self.deposed(leader) => return Err(broken("leads no more")),
        };
        match answered {
            Err(_) => Err(broken("did not answer in time")),
            Ok(Ok(response)) => Ok(incoming(response)),
            Ok(Err(error)) if error.is_connect() => {
                let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Err(never_sent(format!("the leader at {base} cannot be reached: {cause}")))
            }
            Ok(Err(_)) => Err(broken("broke off")),
        }
    }

    /// Asks whoever leads, for as long as nobody has heard of the request and patience lasts. None: this one leads.
    async fn ask_patiently(
        self: &Arc<Self>,
        request: &ServiceRequest,
        body: &Bytes,
    ) -> Result<Option<HttpResponse<BoxBody>>, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let words = match self.goal() {
                Goal::Here => return Ok(None),
                Goal::Nobody => NOBODY.to_owned(),
                Goal::Leader(leader) => match self.ask(&leader, request, body.clone()).await {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(NoAnswer { words, never_sent }) if !never_sent => return Err(words),
                    Err(NoAnswer { words, .. }) => words,
                },
            };
            if Instant::now() >= deadline {
                return Err(words);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn words(ms: i64, client: IpAddr, method: &str, target: &str) -> String {
    format!("{ms} {client} {method} {target}")
}

/// The names in lists such as that of `Connection`, in lower case.
fn listed<'a>(values: impl Iterator<Item = &'a header::HeaderValue>) -> Vec<String> {
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

/// The leader's answer, whose body comes as it arrives.
fn incoming<B>(response: http::Response<B>) -> HttpResponse<BoxBody>
where
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let status = StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut out = HttpResponse::build(status);
    for (name, value) in response.headers() {
        if !OF_THE_CONNECTION.contains(&name.as_str()) {
            out.append_header((name.as_str(), value.as_bytes()));
        }
    }
    let body = response.into_body();
    let length = body.size_hint().exact();
    let frames = Box::pin(Frames::new(body));
    let parts = stream::unfold(Some(frames), async |frames| {
        let mut frames = frames?;
        let part = match timeout(ANSWER_LIMIT, frames.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => Err(std::io::Error::other(error)),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        let go_on = part.is_ok().then_some(frames);
        Some((part, go_on))
    });
    match length {
        Some(length) => out.body(SizedStream::new(length, parts)),
        None => out.body(BodyStream::new(parts)),
    }
}

/// A body as far as it came, and whether that is all of it.
async fn gather(payload: &mut Payload) -> (Bytes, bool) {
    let mut bytes = BytesMut::new();
    let all = async {
        while let Some(part) = payload.next().await {
            let Ok(part) = part else { return false };
            bytes.extend_from_slice(&part);
            if bytes.len() > MAX_BODY_BYTES {
                return false;
            }
        }
        true
    };
    let whole = timeout(BODY_LIMIT, all).await.unwrap_or(false);
    (bytes.freeze(), whole)
}

/// In front of everything: passes on what is the leader's to answer.
pub(crate) async fn pass_on(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let here = async |request| next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    let Some(way) = request.app_data::<web::Data<ToLeader>>().cloned() else {
        return here(request).await;
    };
    let way = way.into_inner();
    if LOCAL.iter().any(|local| request.path().starts_with(local)) {
        return here(request).await;
    }
    if let Some(said) = request.headers().get(FORWARDED) {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let said = said.to_str().unwrap_or_default();
        if let Some(client) = way.vouched(said, request.method().as_str(), target) {
            request.extensions_mut().insert(Vouched(client));
        }
        return here(request).await;
    }
    if matches!(way.goal(), Goal::Here) {
        return here(request).await;
    }
    let answered = match way.places.try_acquire() {
        Err(_) => Err(format!(
            "{MAX_UNDER_WAY} requests wait for the leader already: try again in a moment"
        )),
        Ok(_place) => {
            let mut payload = request.take_payload();
            let (body, whole) = gather(&mut payload).await;
            let answered = if whole {
                way.ask_patiently(&request, &body).await
            } else {
                // Too long, too slow or broken: whoever it is for says so in its own way.
                Ok(None)
            };
            if let Ok(None) = &answered {
                let again = stream::iter([Ok(body)]).chain(payload);
                request.set_payload(Payload::Stream {
                    payload: Box::pin(again),
                });
            }
            answered
        }
    };
    match answered {
        Ok(None) => here(request).await,
        Ok(Some(answer)) => Ok(request.into_response(answer)),
        Err(words) => {
            warn!(
                path = request.path(),
                words, "a request was not passed on to the leader"
            );
            let answer = unavailable(&request, &words);
            Ok(request.into_response(answer))
        }
    }
}

/// "Not now", in the form of what was asked.
fn unavailable(request: &ServiceRequest, words: &str) -> HttpResponse<BoxBody> {
    if request.path() == "/" {
        return tencent::unavailable(request.request(), words);
    }
    if let Some(answer) = rest::unavailable(request.request(), words) {
        return answer;
    }
    HttpResponse::ServiceUnavailable()
        .insert_header((header::RETRY_AFTER, "1"))
        .content_type("text/plain; charset=utf-8")
        .body(format!("{words}\n"))
}
