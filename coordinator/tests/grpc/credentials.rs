//! Who is let in: tokens and certificates, over real TLS.

use std::path::Path;

use coordinator::{Running, start};
use proto::v1;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use shared::{
    auth::{Caller, Secret, tls::Certificates},
    config::{CoordinatorConfig, StoreConfig, TlsConfig},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{
    Code, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::world::{World, deps};

const JOIN: &str = "join-join-join-join";
const API: &str = "api-api-api-api-api";

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

type Way = InterceptedService<Channel, Caller>;

async fn way(running: &Running, token: Option<&str>, tls: Option<&TlsConfig>) -> Result<Way, tonic::transport::Error> {
    let token = token.map(secret);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let caller = Caller::new(token.as_ref(), tls.map(|tls| Certificates::load(tls).unwrap())).unwrap();
    let url = format!("{scheme}://localhost:{}", running.grpc_addr().port());
    let endpoint = caller.endpoint(Endpoint::from_shared(url).unwrap())?;
    Ok(InterceptedService::new(endpoint.connect().await?, caller))
}

async fn as_worker(way: &Way) -> Result<(), Status> {
    let mut client = v1::workers_client::WorkersClient::new(way.clone());
    client.release_lease(v1::ReleaseLeaseRequest::default()).await.map(drop)
}

async fn as_client(way: &Way) -> Result<(), Status> {
    let mut client = v1::rules_client::RulesClient::new(way.clone());
    client.list_rules(v1::ListRulesRequest::default()).await.map(drop)
}

/// Let in, and told what is wrong with the empty request.
fn is_in(result: &Result<(), Status>) -> bool {
    result
        .as_ref()
        .err()
        .is_none_or(|status| status.code() == Code::InvalidArgument)
}

fn is_refused(result: &Result<(), Status>, says: &str) -> bool {
    let status = result.as_ref().unwrap_err();
    status.code() == Code::Unauthenticated && status.message().contains(says)
}

/// An authority, and pairs that it signed, as files.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Authority(issuer)
    }

    /// Settings with a pair of this authority's, that trust the authority whose file is named.
    pub(crate) fn pair(&self, dir: &Path, name: &str, trusts: &str) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let (cert_file, key_file) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        TlsConfig {
            cert_file: Some(cert_file),
            key_file: Some(key_file),
            ca_file: Some(dir.join(format!("{trusts}.pem"))),
            ..TlsConfig::default()
        }
    }
}

pub(crate) fn trusting(dir: &Path, name: &str) -> TlsConfig {
    TlsConfig {
        ca_file: Some(dir.join(format!("{name}.pem"))),
        ..TlsConfig::default()
    }
}

#[actix_rt::test]
async fn an_unknown_worker_and_an_unknown_client_get_nothing() {
    let mut world = World::new(|config| {
        config.auth.join_token = Some(secret(JOIN));
        config.auth.api_token = Some(secret(API));
    })
    .await;
    let running = world.running.take().unwrap();
    let ways = [None, Some(JOIN), Some(API), Some("wrong-wrong-wrong-wrong")];
    let [nobody, worker, client, wrong] = ways.map(|token| way(&running, token, None));
    let (nobody, worker) = (nobody.await.unwrap(), worker.await.unwrap());
    let (client, wrong) = (client.await.unwrap(), wrong.await.unwrap());
    assert!(is_in(&as_worker(&worker).await) && is_in(&as_client(&client).await));
    for stranger in [&nobody, &client, &wrong] {
        assert!(is_refused(&as_worker(stranger).await, "auth.join_token_file"));
    }
    for stranger in [&nobody, &worker, &wrong] {
        assert!(is_refused(&as_client(stranger).await, "AIRCHECK_API_TOKEN"));
    }
    let mut session = v1::workers_client::WorkersClient::new(nobody.clone());
    let refused = session.session(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(nobody);
    health
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap();

    let metrics = async |header: &str| {
        let mut socket = tokio::net::TcpStream::connect(running.http_addr()).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(metrics("").await, "401");
    assert_eq!(metrics(&format!("Authorization: Bearer {API}\r\n")).await, "200");
    running.stop().await;
}

#[actix_rt::test]
async fn over_tls_a_certificate_stands_for_the_join_token_and_a_strangers_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "other-ca"));
    let any = "127.0.0.1:0".parse().unwrap();
    let config = CoordinatorConfig {
        http: any,
        grpc: any,
        data_dir: dir.path().to_owned(),
        tls: ours.pair(dir.path(), "server", "ca"),
        auth: shared::config::AuthConfig {
            join_token: Some(secret(JOIN)),
            api_token: Some(secret(API)),
            ..Default::default()
        },
        ..CoordinatorConfig::default()
    };
    let running = start(config, StoreConfig::default(), deps()).await.unwrap();
    let worker = way(&running, None, Some(&ours.pair(dir.path(), "worker", "ca")))
        .await
        .unwrap();
    assert!(is_in(&as_worker(&worker).await));
    assert!(
        is_refused(&as_client(&worker).await, "API token"),
        "a worker is no operator"
    );
    let client = way(&running, Some(API), Some(&trusting(dir.path(), "ca")))
        .await
        .unwrap();
    assert!(is_in(&as_client(&client).await));
    assert!(is_refused(&as_worker(&client).await, "certificate of its authority"));
    let token = way(&running, Some(JOIN), Some(&trusting(dir.path(), "ca")))
        .await
        .unwrap();
    assert!(is_in(&as_worker(&token).await));

    // A certificate of another authority does not even come to a call.
    let stranger = way(&running, None, Some(&others.pair(dir.path(), "stranger", "ca"))).await;
    let answer = match stranger {
        Err(error) => error.to_string(),
        Ok(stranger) => as_worker(&stranger).await.unwrap_err().message().to_owned(),
    };
    assert!(
        !answer.contains("publish_id") && !answer.contains("join token"),
        "it was heard: {answer}"
    );
    // Who does not know our authority does not speak to us, and nobody speaks in the clear.
    assert!(
        way(&running, Some(API), Some(&trusting(dir.path(), "other-ca")))
            .await
            .is_err()
    );
    let clear = way(&running, Some(API), None).await;
    assert!(match clear {
        Err(_) => true,
        Ok(clear) => as_client(&clear).await.is_err(),
    });

    // HTTP is served with the same certificate.
    shared::objects::install_tls();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&std::fs::read(dir.path().join("ca.pem")).unwrap()).unwrap()])
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/healthz", running.http_addr().port());
    assert!(client.get(url).send().await.unwrap().status().is_success());
    running.stop().await;
}

#[actix_rt::test]
async fn where_tokens_alone_let_in_no_certificate_stands_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca");
    let any = "127.0.0.1:0".parse().unwrap();
    let config = CoordinatorConfig {
        http: any,
        grpc: any,
        data_dir: dir.path().to_owned(),
        tls: TlsConfig {
            admit_certificates: false,
            ..authority.pair(dir.path(), "server", "ca")
        },
        auth: shared::config::AuthConfig {
            join_token: Some(secret(JOIN)),
            ..Default::default()
        },
        ..CoordinatorConfig::default()
    };
    let running = start(config, StoreConfig::default(), deps()).await.unwrap();
    let pair = authority.pair(dir.path(), "worker", "ca");
    let certified = way(&running, None, Some(&pair)).await.unwrap();
    assert!(is_refused(&as_worker(&certified).await, "join token"));
    let both = way(&running, Some(JOIN), Some(&pair)).await.unwrap();
    assert!(is_in(&as_worker(&both).await));
    running.stop().await;
}

#[actix_rt::test]
async fn certificates_that_cannot_be_used_stop_the_start_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca");
    let good = authority.pair(dir.path(), "server", "ca");
    let foreign = authority.pair(dir.path(), "foreign", "ca");
    std::fs::write(dir.path().join("text.pem"), "no certificate").unwrap();
    for (tls, says) in [
        (
            TlsConfig {
                cert_file: Some(dir.path().join("none.pem")),
                ..good.clone()
            },
            "tls.cert_file",
        ),
        (
            TlsConfig {
                cert_file: Some(dir.path().join("text.pem")),
                ..good.clone()
            },
            "no certificate in it",
        ),
        (
            TlsConfig {
                key_file: Some(dir.path().join("text.pem")),
                ..good.clone()
            },
            "tls.key_file",
        ),
        (
            TlsConfig {
                key_file: foreign.key_file,
                ..good.clone()
            },
            "cannot be used together",
        ),
        (
            TlsConfig {
                ca_file: Some(dir.path().join("text.pem")),
                ..good.clone()
            },
            "tls.ca_file",
        ),
    ] {
        let any = "127.0.0.1:0".parse().unwrap();
        let config = CoordinatorConfig {
            http: any,
            grpc: any,
            data_dir: dir.path().to_owned(),
            tls,
            ..CoordinatorConfig::default()
        };
        let error = start(config, StoreConfig::default(), deps()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}
