//! Health, metrics, and starts that fail.

use std::sync::Arc;

use coordinator::{start, start_over};
use shared::{
    config::StoreConfig,
    store::{Embedded, MetaStore, Model, Txn, Unreliable, keys},
    time::System,
};
use tonic::Code;

use crate::world::{World, connect, deps, until};

#[actix_rt::test]
async fn operators_see_health_metrics_and_reflection() {
    let world = World::new(|_| {}).await;
    let http = world.running.as_ref().unwrap().http_addr();
    let get = async |path: &str| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(
        get("/metrics")
            .await
            .contains("aircheck_coordinator_leases_granted_total 0")
    );
    assert!(get("/none").await.starts_with("HTTP/1.1 404"));
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest {
        service: "aircheck.v1.Workers".into(),
    };
    let serving = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(serving, tonic_health::pb::health_check_response::ServingStatus::Serving);
}

#[actix_rt::test]
async fn a_store_that_cannot_be_read_stops_the_start_with_its_key() {
    let mut world = World::new(|_| {}).await;
    world.running.take().unwrap().stop().await;
    let path = world.dir.path().join("metadata.redb");
    let store = Embedded::open(&path, Arc::new(System::new())).unwrap();
    store
        .commit(Txn::new().put(format!("{}x", keys::TEMPLATES), "not json"))
        .await
        .unwrap();
    let busy = start(world.config.clone(), StoreConfig::default(), deps())
        .await
        .unwrap_err()
        .to_string();
    assert!(busy.contains("another process has it open"), "{busy}");
    drop(store);
    let error = start(world.config.clone(), StoreConfig::default(), deps())
        .await
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("v1/template/x"), "{source}");
}

#[actix_rt::test]
async fn a_failing_store_is_said_and_survived() {
    let mut world = World::new(|_| {}).await;
    let store = Arc::new(Unreliable::new(Arc::new(Model::new(Arc::new(System::new())))));
    let over = Arc::clone(&store) as Arc<dyn MetaStore>;
    let running = start_over(world.config.clone(), over, deps()).await.unwrap();
    world.channel = connect(&running).await;
    world.create_template("before", &[]).await.unwrap();
    store.fail_commits(true);
    let failed = world.create_template("lost", &[]).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(failed.message().contains("no space left"), "{}", failed.message());
    store.fail_commits(false);
    // What was not durable is not there: the state is what the store has.
    until(Ok("after".to_owned()), async || {
        let made = world.create_template("after", &[]).await;
        made.map(|template| template.spec.unwrap().name)
            .map_err(|status| status.code())
    })
    .await;
    let list = world
        .templates()
        .list_templates(proto::v1::ListTemplatesRequest::default())
        .await
        .unwrap();
    let names: Vec<_> = list
        .into_inner()
        .templates
        .into_iter()
        .map(|template| template.spec.unwrap().name)
        .collect();
    assert_eq!(names, ["before", "after"]);
    running.stop().await;
}
