//! Two coordinators on one store: the one that does not lead passes calls on.

use std::{sync::Arc, time::Duration};

use coordinator::{Running, start_among_others};
use proto::v1;
use shared::{
    config::CoordinatorConfig,
    ids::Random,
    store::{MetaStore, Model, Unreliable},
    telemetry::Metrics,
    time::System,
};
use tonic::Code;

use crate::world::{LIMIT, World, connect, deps, until};

/// A leader, and a world whose calls all go to the follower.
async fn pair() -> (Running, World) {
    pair_with(|_| {}).await
}

/// The same with other settings.
pub(crate) async fn pair_with(change: impl FnOnce(&mut CoordinatorConfig)) -> (Running, World) {
    let store: Arc<dyn MetaStore> = Arc::new(Model::new(Arc::new(System::new())));
    // Large, as what starts the two is: whoever waits for them shall not hold it within.
    let world = Box::pin(World::new(|config| {
        config.record = vec![shared::template::Format::Flv];
        config.leader_ttl = Duration::from_secs(2);
        change(config);
    }));
    let mut world = world.await;
    world.running.take().unwrap().stop().await;
    let start = async || {
        let start = Box::pin(start_among_others(world.config.clone(), Arc::clone(&store), deps()));
        start.await.unwrap()
    };
    let leader = start().await;
    until(true, async || ready(&leader).await.contains("ready, leads")).await;
    let follower = start().await;
    until(true, async || ready(&follower).await.contains("follows")).await;
    world.channel = connect(&follower).await;
    world.running = Some(follower);
    world.ids = Random;
    world.metrics = Metrics::new();
    (leader, world)
}

pub(crate) async fn ready(running: &Running) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(running.http_addr()).await.unwrap();
    socket
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[actix_rt::test]
async fn calls_and_sessions_reach_the_leader_through_a_follower() {
    let (leader, world) = pair().await;
    world.create_template("t", &[v1::Format::Flv]).await.unwrap();
    let refused = world.create_template("t", &[v1::Format::Flv]).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::AlreadyExists,
        "in the leader's own words: {refused}"
    );
    let worker = world.worker();
    let mut session = world.session(worker).await;
    let ask = world.ask(worker, "cam");
    let granted = world.grant(&ask).await;
    session.beat(&[&ask]).await;
    until(vec![("cam".to_owned(), v1::StreamState::Live)], async || {
        world.live().await
    })
    .await;
    let stale = v1::CommitFileRequest {
        recording_id: granted.recordings[0].recording_id.clone(),
        epoch: granted.epoch + 1,
        file: Some(world.file(v1::Format::Flv, 0)),
    };
    let refused = world.workers().commit_file(stale).await.unwrap_err();
    assert!(
        shared::wire::fenced_from_details(refused.details()).is_some(),
        "details come through: {refused:?}"
    );

    // The leader goes; its sessions end with a word that says to come again, and the follower takes over with all that
    // was decided.
    leader.stop().await;
    let ended = tokio::time::timeout(LIMIT, session.down.message()).await.expect("ends");
    assert!(
        ended.as_ref().is_ok_and(Option::is_none) || ended.as_ref().is_err_and(|s| s.code() == Code::Unavailable),
        "{ended:?}"
    );
    until(true, async || {
        ready(world.running.as_ref().unwrap()).await.contains("ready, leads")
    })
    .await;
    until(1, async || world.live().await.len()).await;
    let mut session = world.session(worker).await;
    session.beat(&[&ask]).await;
    assert_eq!(
        world.grant(&ask).await.epoch,
        granted.epoch,
        "the same publish, the same epoch"
    );
    until(vec![("cam".to_owned(), v1::StreamState::Live)], async || {
        world.live().await
    })
    .await;
    drop(session.up);
    assert!(session.down.message().await.is_ok());
}

#[actix_rt::test]
async fn what_was_passed_on_is_not_passed_on_again() {
    let (leader, world) = pair().await;
    let mut request = tonic::Request::new(v1::ListStreamsRequest::default());
    request
        .metadata_mut()
        .insert("aircheck-forwarded", "1".parse().unwrap());
    let refused = world.streams().list_streams(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.metadata().contains_key(shared::servers::NOT_DONE));
    leader.stop().await;
}

#[actix_rt::test]
async fn where_nobody_leads_it_is_said() {
    let clock = Arc::new(System::new());
    let store = Arc::new(Unreliable::new(Arc::new(Model::new(clock))));
    store.fail_commits(true);
    let world = World::new(|_| {}).await;
    let running = start_among_others(world.config.clone(), Arc::clone(&store) as _, deps())
        .await
        .unwrap();
    assert!(ready(&running).await.contains("503") && ready(&running).await.contains("nobody leads"));
    let mut streams = v1::streams_client::StreamsClient::new(connect(&running).await);
    let refused = streams
        .list_streams(v1::ListStreamsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("no coordinator leads"), "{refused}");
    assert!(refused.metadata().contains_key(shared::servers::NOT_DONE));
    store.fail_commits(false);
    until(true, async || ready(&running).await.contains("ready, leads")).await;
    streams.list_streams(v1::ListStreamsRequest::default()).await.unwrap();
    running.stop().await;
}
