//! Certificates that are renewed under a running coordinator.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use coordinator::{Running, start, start_among_others};
use proto::v1;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use shared::{
    auth::{
        Caller, Secret,
        tls::{Certificates, TlsError},
    },
    config::{CoordinatorConfig, StoreConfig, TlsConfig},
    servers::{Manner, Servers},
    store::{MetaStore, Model},
    time::System,
};
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;

use crate::{
    credentials::{Authority, trusting},
    world::{deps, until},
};

const EVERY: Duration = Duration::from_millis(20);

/// The certificate that is shown to a client that begins now.
async fn shown(address: SocketAddr, dir: &Path, alpn: Option<&str>) -> Option<Vec<u8>> {
    let mut client = rustls::ClientConfig::clone(&Certificates::load(&trusting(dir, "ca")).unwrap().http_client());
    client.alpn_protocols.extend(alpn.map(|name| name.as_bytes().to_vec()));
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("localhost").unwrap();
    let greeted = connector.connect(name, socket).await.ok()?;
    let (_, session) = greeted.get_ref();
    let certificate = session.peer_certificates()?.first()?;
    Some(certificate.to_vec())
}

fn der(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

/// Both listeners show what a file holds, from some moment on.
async fn both_show(running: &Running, dir: &Path, file: &str) {
    let expected = Some(der(&dir.join(file)));
    until(expected.clone(), async || {
        shown(running.grpc_addr(), dir, Some("h2")).await
    })
    .await;
    until(expected, async || shown(running.http_addr(), dir, None).await).await;
}

fn settings(dir: &Path, tls: TlsConfig) -> CoordinatorConfig {
    let any = "127.0.0.1:0".parse().unwrap();
    CoordinatorConfig {
        http: any,
        grpc: any,
        data_dir: dir.to_owned(),
        tls: TlsConfig {
            reload_interval: EVERY,
            ..tls
        },
        ..CoordinatorConfig::default()
    }
}

/// Puts the pair of one name in the place of another's, as a renewal does.
fn renew(dir: &Path, from: &str, to: &str) {
    for kind in ["pem", "key"] {
        let fresh = dir.join(format!("{to}.{kind}.new"));
        std::fs::copy(dir.join(format!("{from}.{kind}")), &fresh).unwrap();
        std::fs::rename(fresh, dir.join(format!("{to}.{kind}"))).unwrap();
    }
}

#[actix_rt::test]
async fn renewed_files_are_shown_to_whoever_comes_next_and_bad_ones_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    let tls = authority.pair(dir, "server", "ca");
    authority.pair(dir, "first", "ca");
    authority.pair(dir, "second", "ca");
    authority.pair(dir, "third", "ca");
    renew(dir, "first", "server");
    let running = start(settings(dir, tls), StoreConfig::default(), deps()).await.unwrap();
    both_show(&running, dir, "first.pem").await;
    // A call that was made before goes on over its connection.
    let caller = Caller::new(None, Some(Certificates::load(&trusting(dir, "ca")).unwrap())).unwrap();
    let servers = Servers::new(
        &[format!("https://localhost:{}", running.grpc_addr().port())],
        &caller,
        Manner {
            limit: Duration::from_secs(5),
            patience: None,
            first: 0,
        },
    )
    .unwrap();
    let mut scaler = tonic_health::pb::health_client::HealthClient::new(servers);
    scaler
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap();

    renew(dir, "second", "server");
    both_show(&running, dir, "second.pem").await;
    scaler
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap();

    // Half of a renewal, and what is no certificate at all: the old one stays.
    std::fs::copy(dir.join("third.pem"), dir.join("server.pem")).unwrap();
    for _ in 0..5 {
        tokio::time::sleep(EVERY).await;
        assert_eq!(
            shown(running.http_addr(), dir, None).await,
            Some(der(&dir.join("second.pem")))
        );
    }
    std::fs::write(dir.join("server.pem"), "half of a cert").unwrap();
    for _ in 0..5 {
        tokio::time::sleep(EVERY).await;
        let shown = shown(running.grpc_addr(), dir, Some("h2")).await;
        assert_eq!(shown, Some(der(&dir.join("second.pem"))));
    }
    renew(dir, "third", "server");
    both_show(&running, dir, "third.pem").await;
    running.stop().await;
}

#[test]
fn a_look_says_what_is_wrong_and_keeps_what_was_right() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    let tls = authority.pair(dir, "server", "ca");
    authority.pair(dir, "other", "ca");
    let certificates = Certificates::load(&tls).unwrap();
    let before = certificates.grpc_server().unwrap();
    assert!(!certificates.look().unwrap(), "nothing has changed");
    std::fs::copy(dir.join("other.pem"), dir.join("server.pem")).unwrap();
    assert!(matches!(certificates.look(), Err(TlsError::Pair(_))));
    std::fs::remove_file(dir.join("server.pem")).unwrap();
    assert!(matches!(certificates.look(), Err(TlsError::File { .. })));
    std::fs::write(dir.join("server.pem"), "text").unwrap();
    assert!(matches!(certificates.look(), Err(TlsError::Pem { .. })));
    std::fs::copy(dir.join("other.pem"), dir.join("server.pem")).unwrap();
    std::fs::write(dir.join("ca.pem"), "text").unwrap();
    assert!(matches!(certificates.look(), Err(TlsError::Pem { .. })));
    assert!(Arc::ptr_eq(&before, &certificates.grpc_server().unwrap()));
    Authority::new(dir, "ca");
    renew(dir, "other", "server");
    assert!(certificates.look().unwrap());
    assert!(!Arc::ptr_eq(&before, &certificates.grpc_server().unwrap()));
}

#[actix_rt::test]
async fn a_worker_comes_back_with_the_certificate_that_it_has_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (ours, others) = (Authority::new(dir, "ca"), Authority::new(dir, "other-ca"));
    let config = settings(dir, ours.pair(dir, "server", "ca"));
    let running = start(config.clone(), StoreConfig::default(), deps()).await.unwrap();
    let at = running.grpc_addr();
    // Nobody lets this one in.
    let worker = TlsConfig {
        reload_interval: EVERY,
        ..others.pair(dir, "worker", "ca")
    };
    let caller = Caller::new(None, Some(Certificates::follow(&worker).unwrap())).unwrap();
    let manner = Manner {
        limit: Duration::from_secs(5),
        patience: None,
        first: 0,
    };
    let servers = Servers::new(&[format!("https://localhost:{}", at.port())], &caller, manner).unwrap();
    let mut client = v1::workers_client::WorkersClient::new(InterceptedService::new(servers, caller));
    let mut let_in = async || {
        let answer = client.release_lease(v1::ReleaseLeaseRequest::default()).await;
        answer.unwrap_err().code() == tonic::Code::InvalidArgument
    };
    assert!(!let_in().await);
    ours.pair(dir, "worker", "ca");
    until(true, &mut let_in).await;
    running.stop().await;
}

#[actix_rt::test]
async fn a_follower_passes_calls_on_over_tls_also_after_a_renewal() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    let store: Arc<dyn MetaStore> = Arc::new(Model::new(Arc::new(System::new())));
    let start = async |name: &str| {
        let port = support::etcd::free_port().unwrap();
        let mut config = settings(dir, authority.pair(dir, name, "ca"));
        config.grpc = SocketAddr::from(([127, 0, 0, 1], port));
        // As pods do, which have certificates for the name of their Service.
        config.advertise = Some(format!("https://127.0.0.1:{port}"));
        config.tls.coordinator_name = Some("localhost".to_owned());
        config.leader_ttl = Duration::from_secs(2);
        config.auth.api_token = Some(Secret::new("api-api-api-api-api").unwrap());
        start_among_others(config, Arc::clone(&store), deps()).await.unwrap()
    };
    shared::objects::install_tls();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&std::fs::read(dir.join("ca.pem")).unwrap()).unwrap()])
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let get = async |running: &Running, path: &str| {
        let url = format!("https://localhost:{}{path}", running.http_addr().port());
        client.get(url).send().await.unwrap().text().await.unwrap()
    };
    let leader = start("leader").await;
    until(true, async || get(&leader, "/readyz").await.contains("ready, leads")).await;
    let follower = start("follower").await;
    until(true, async || get(&follower, "/readyz").await.contains("follows")).await;
    let refused = get(&follower, "/?Action=DescribeLiveRecordTemplates").await;
    assert!(
        refused.contains("AuthFailure") || refused.contains("MissingParameter"),
        "{refused}"
    );

    let token = Secret::new("api-api-api-api-api").unwrap();
    let caller = Caller::new(Some(&token), Some(Certificates::load(&trusting(dir, "ca")).unwrap())).unwrap();
    let at = format!("https://localhost:{}", follower.grpc_addr().port());
    let way = caller
        .endpoint(tonic::transport::Endpoint::from_shared(at).unwrap())
        .unwrap();
    let way = InterceptedService::new(way.connect().await.unwrap(), caller);
    let mut rules = v1::rules_client::RulesClient::new(way);
    let listed = rules.list_rules(v1::ListRulesRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().rules, []);

    // Everybody's pair is renewed under a new authority.
    let fresh = Authority::new(dir, "ca");
    fresh.pair(dir, "leader", "ca");
    fresh.pair(dir, "follower", "ca");
    both_show(&leader, dir, "leader.pem").await;
    both_show(&follower, dir, "follower.pem").await;
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&std::fs::read(dir.join("ca.pem")).unwrap()).unwrap()])
        .build()
        .unwrap();
    let url = format!(
        "https://localhost:{}/?Action=DescribeLiveRecordTemplates",
        follower.http_addr().port()
    );
    until(false, async || {
        let text = client.get(&url).send().await.unwrap().text().await.unwrap();
        text.contains("ServiceUnavailable")
    })
    .await;
    follower.stop().await;
    leader.stop().await;
}
