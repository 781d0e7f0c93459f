//! Tokens and certificates between real processes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::{Certificates, Etcd};
use support::pacer::Pacer;
use support::server::Setup;
use support::source::Shape;
use support::wait::{Seen, until};

use crate::{data, setup};

const JOIN: &str = "join-0123456789abcdef";
const API: &str = "api-0123456789abcdef";
const BINARY: &str = env!("CARGO_BIN_EXE_aircheck");

#[test]
fn workers_and_clients_with_tokens_over_tls_record_and_strangers_get_nothing() -> Result<()> {
    let (folder, data) = data()?;
    let certificates = Certificates::make(&folder.path().join("certificates"))?;
    let file = |name: &str| certificates.path(name).display().to_string();
    let setting = |key: &str, name: &str| format!("tls.{key}={}", file(name));
    let etcd = Etcd::start(1)?;
    let coordinator = Setup::coordinator(BINARY, &data, &etcd.url("credentials"))
        .record("flv")
        .args(&["--set", &setting("cert_file", "server.pem")])
        .args(&["--set", &setting("key_file", "server.key")])
        .args(&["--set", &setting("ca_file", "ca.pem")])
        .env("AIRCHECK_JOIN_TOKEN", JOIN)
        .env("AIRCHECK_API_TOKEN", API)
        .client_env("AIRCHECK_API_TOKEN", API)
        .client_env("AIRCHECK_CA_FILE", &file("ca.pem"))
        .over_tls()
        .start()?;
    let objects = format!("file://{}", folder.path().join("objects").display());
    let worker = |name: &str| {
        Setup::worker(BINARY, &folder.path().join(name), &coordinator.grpc_url()).args(&[
            "--objects",
            &objects,
            "--set",
            &setting("ca_file", "ca.pem"),
        ])
    };
    let with_token = worker("token").env("AIRCHECK_JOIN_TOKEN", JOIN).start()?;
    let with_certificate = worker("certificate")
        .args(&["--set", &setting("cert_file", "client.pem")])
        .args(&["--set", &setting("key_file", "client.key")])
        .start()?;
    let stranger = worker("stranger").start()?;
    let mut pacers = Vec::new();
    for (name, worker) in [("a", &with_token), ("b", &with_certificate), ("c", &stranger)] {
        let limit = Some(Duration::from_secs(2));
        pacers.push(Pacer::start_for(worker.rtmp(), name, Shape::default(), limit)?);
    }
    for pacer in pacers {
        pacer.ended()?;
    }
    coordinator.finished("a", 1)?;
    coordinator.finished("b", 1)?;
    // The stranger's journal waits; the coordinator has never heard of its stream.
    until(Duration::from_secs(20), "the stranger's refusal", || {
        Ok(Seen::when(
            stranger.log().contains("takes workers that show its join token"),
            stranger.log(),
        ))
    })?;
    ensure!(
        coordinator.recordings("c")?.is_empty(),
        "a stranger's stream is recorded"
    );

    let ask = |name: &str, value: Option<&str>, ca: Option<&str>| -> Result<String> {
        let mut command = Command::new(BINARY);
        command
            .args(["rule", "list", "--server", &coordinator.grpc_url()])
            .env_remove(name);
        if let Some(value) = value {
            command.env(name, value);
        }
        if let Some(ca) = ca {
            command.args(["--ca-file", ca]);
        }
        let output = command.output()?;
        ensure!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ca = file("ca.pem");
    let nobody = ask("AIRCHECK_API_TOKEN", None, Some(&ca))?;
    ensure!(nobody.contains("AIRCHECK_API_TOKEN"), "{nobody}");
    let worker_token = ask("AIRCHECK_API_TOKEN", Some(JOIN), Some(&ca))?;
    ensure!(worker_token.contains("wants its API token"), "{worker_token}");
    let untrusting = ask("AIRCHECK_API_TOKEN", Some(API), None)?;
    ensure!(
        untrusting.contains("no coordinator at") || untrusting.contains("certificate"),
        "{untrusting}"
    );
    for log in [coordinator.log(), with_token.log(), stranger.log()] {
        ensure!(!log.contains(JOIN) && !log.contains(API), "a token is in a log");
    }
    Ok(())
}

/// The certificate that is shown to who connects now.
fn shown(address: std::net::SocketAddr) -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string()]);
    let said = String::from_utf8(support::programs::output(&mut command)?.stdout)?;
    let (_, rest) = said.split_once("-----BEGIN").context("no certificate is shown")?;
    let (body, _) = rest.split_once("-----END").context("half a certificate")?;
    Ok(body.split_whitespace().collect())
}

#[test]
fn a_standalone_process_calls_itself_over_tls() -> Result<()> {
    let (folder, data) = data()?;
    let certificates = Certificates::make(&folder.path().join("certificates"))?;
    let setting = |key: &str, name: &str| format!("tls.{key}={}", certificates.path(name).display());
    let server = setup(&data)
        .record("flv")
        .args(&["--set", &setting("cert_file", "server.pem")])
        .args(&["--set", &setting("key_file", "server.key")])
        .args(&["--set", &setting("ca_file", "ca.pem")])
        .args(&["--set", "tls.admit_certificates=false"])
        .client_env("AIRCHECK_CA_FILE", &certificates.path("ca.pem").display().to_string())
        .over_tls()
        .start()?;
    Pacer::start_for(server.rtmp(), "a", Shape::default(), Some(Duration::from_secs(1)))?.ended()?;
    server.finished("a", 1)?;
    Ok(())
}

#[test]
fn both_roles_use_renewed_certificates_and_keep_bad_ones_out() -> Result<()> {
    let (folder, data) = data()?;
    let certificates = Certificates::make(&folder.path().join("certificates"))?;
    let live = folder.path().join("live");
    std::fs::create_dir(&live)?;
    let (cert, key) = (live.join("tls.crt"), live.join("tls.key"));
    // One after the other, as unlucky writers do it.
    let renew = |name: &str| -> Result<()> {
        std::fs::copy(certificates.path(&format!("{name}.pem")), &cert)?;
        std::fs::copy(certificates.path(&format!("{name}.key")), &key)?;
        Ok(())
    };
    renew("server")?;
    let over_tls = |setup: Setup| {
        let setting = |name: &str, path: &std::path::Path| format!("tls.{name}={}", path.display());
        setup
            .args(&[
                "--set",
                &setting("cert_file", &cert),
                "--set",
                &setting("key_file", &key),
            ])
            .args(&["--set", &setting("ca_file", &certificates.path("ca.pem"))])
            .args(&["--set", "tls.reload_interval=100ms"])
            .client_env("AIRCHECK_CA_FILE", &certificates.path("ca.pem").display().to_string())
            .over_tls()
    };
    let etcd = Etcd::start(1)?;
    let coordinator = Setup::coordinator(BINARY, &data, &etcd.url("renewal"));
    let coordinator = over_tls(coordinator).start()?;
    let worker = Setup::worker(BINARY, &folder.path().join("worker"), &coordinator.grpc_url());
    let worker = over_tls(worker)
        .args(&[
            "--objects",
            &format!("file://{}", folder.path().join("objects").display()),
        ])
        .start()?;
    let doors = [coordinator.grpc(), coordinator.http(), worker.http()];
    let all_show = |name: &str| -> Result<bool> {
        let pem = std::fs::read_to_string(certificates.path(&format!("{name}.pem")))?;
        let (_, rest) = pem.split_once("-----BEGIN").context("PEM")?;
        let (body, _) = rest.split_once("-----END").context("PEM")?;
        let expected: String = body.split_whitespace().collect();
        for door in doors {
            if shown(door)? != expected {
                return Ok(false);
            }
        }
        Ok(true)
    };
    ensure!(all_show("server")?, "what was there at the start");
    renew("client")?;
    let limit = Duration::from_secs(20);
    until(limit, "the renewed certificate", || {
        Ok(Seen::when(all_show("client")?, "the old one"))
    })?;
    std::fs::write(&cert, "no certificate")?;
    for server in [&coordinator, &worker] {
        until(limit, "an error in the log", || {
            let log = server.log();
            let said = log.contains("renewed certificates cannot be used") && log.contains("tls.cert_file");
            Ok(Seen::when(said, log))
        })?;
    }
    ensure!(all_show("client")?, "the bad file is kept out");
    renew("server")?;
    until(limit, "the certificate after the bad one", || {
        Ok(Seen::when(all_show("server")?, "another"))
    })
}

#[test]
fn standalone_asks_for_what_it_is_told_to_and_lets_its_own_worker_in() -> Result<()> {
    let (folder, data) = data()?;
    let token = folder.path().join("token");
    std::fs::write(&token, format!("{API}\n"))?;
    let server = setup(&data)
        .record("flv")
        .args(&["--set", &format!("auth.api_token_file={}", token.display())])
        .env("AIRCHECK_JOIN_TOKEN", JOIN)
        .client_env("AIRCHECK_TOKEN_FILE", token.to_str().context("a path")?)
        .start()?;
    Pacer::start_for(server.rtmp(), "one", Shape::default(), Some(Duration::from_secs(1)))?.ended()?;
    server.finished("one", 1)?;
    ensure!(
        server.get("/metrics")?.0 == 401 && server.get("/healthz")?.0 == 200,
        "metrics are for operators"
    );
    Ok(())
}
