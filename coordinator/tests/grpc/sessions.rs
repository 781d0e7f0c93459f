//! Workers' sessions.

use proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::world::{LIMIT, World, until};

#[actix_rt::test]
async fn a_silent_workers_streams_are_interrupted_and_go_on_when_it_is_back() {
    let world = World::new(|config| config.record = vec![shared::template::Format::Flv]).await;
    let (a, b) = (world.worker(), world.worker());
    let mut session = world.session(a).await;
    let on_a = world.ask(a, "cam");
    let recording = world.grant(&on_a).await.recordings[0].recording_id.clone();
    session.beat(&[&on_a]).await;
    until(5, async || {
        let list = world
            .streams()
            .list_streams(v1::ListStreamsRequest::default())
            .await
            .unwrap()
            .into_inner();
        list.streams[0].counters.unwrap().bits_per_second
    })
    .await;

    // Silence.
    until(vec![("cam".to_owned(), v1::StreamState::Interrupted)], async || {
        world.live().await
    })
    .await;
    until(v1::RecordingState::Interrupted, async || {
        world.recording(&recording).await.state()
    })
    .await;
    session.beat(&[&on_a]).await;
    until(vec![("cam".to_owned(), v1::StreamState::Live)], async || {
        world.live().await
    })
    .await;
    until(v1::RecordingState::Recording, async || {
        world.recording(&recording).await.state()
    })
    .await;

    // Silence again, and another worker takes the stream: the first is told when it speaks again.
    until(vec![("cam".to_owned(), v1::StreamState::Interrupted)], async || {
        world.live().await
    })
    .await;
    let on_b = world.ask(b, "cam");
    assert_eq!(world.grant(&on_b).await.epoch, 2);
    session.beat(&[&on_a]).await;
    let down = tokio::time::timeout(LIMIT, session.down.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let Some(v1::coordinator_down::Message::DropStream(dropped)) = down.message else {
        panic!("{down:?}")
    };
    assert_eq!(dropped.publish_id, on_a.publish_id);
    assert!(dropped.reason.contains("taken over"), "{}", dropped.reason);
}

#[actix_rt::test]
async fn a_second_session_of_a_worker_ends_the_first() {
    let mut world = World::new(|_| {}).await;
    let worker = world.worker();
    let mut first = world.session(worker).await;
    let second = world.session(worker).await;
    let ended = tokio::time::timeout(LIMIT, first.down.message()).await.unwrap();
    assert!(matches!(ended, Ok(None)), "{ended:?}");
    second.beat(&[]).await;

    let (up, outbox) = mpsc::channel(1);
    up.send(v1::WorkerUp {
        message: Some(v1::worker_up::Message::Heartbeat(v1::Heartbeat::default())),
    })
    .await
    .unwrap();
    let impolite = world.workers().session(ReceiverStream::new(outbox)).await.unwrap_err();
    assert_eq!(impolite.code(), Code::InvalidArgument);
    // Open sessions do not hold up a stop.
    world.restart().await;
    drop(second);
}

#[actix_rt::test]
async fn a_worker_that_lost_its_data_does_not_keep_its_streams() {
    let world = World::new(|_| {}).await;
    let worker = world.worker();
    let session = world.session(worker).await;
    world.grant(&world.ask(worker, "cam")).await;
    until(0, async || {
        session.beat(&[]).await;
        world.live().await.len()
    })
    .await;
}

#[actix_rt::test]
async fn workers_are_listed_with_what_they_carry() {
    let world = World::new(|_| {}).await;
    let (worker, mut session) = (world.worker(), None);
    let mut fleet = v1::fleet_client::FleetClient::new(world.channel.clone());
    assert!(
        fleet
            .list_workers(v1::ListWorkersRequest::default())
            .await
            .unwrap()
            .into_inner()
            .workers
            .is_empty()
    );
    let ask = world.ask(worker, "cam");
    let open = session.insert(world.session(worker).await);
    world.grant(&ask).await;
    let beat = v1::Heartbeat {
        publishes: vec![v1::LivePublish {
            publish_id: ask.publish_id.clone(),
            counters: Some(v1::StreamCounters {
                bits_per_second: 5_000,
                ..Default::default()
            }),
            ..Default::default()
        }],
        journal_bytes: 7,
        journal_age_ms: 8,
        uploads_waiting: 9,
        cpu_milli: 250,
        ..Default::default()
    };
    open.up
        .send(v1::WorkerUp {
            message: Some(v1::worker_up::Message::Heartbeat(beat)),
        })
        .await
        .unwrap();
    let load = v1::WorkerLoad {
        bits_per_second: 5_000,
        cpu_milli: 250,
        journal_bytes: 7,
        journal_age_ms: 8,
        uploads_waiting: 9,
    };
    until(Some(load), async || {
        let mut fleet = v1::fleet_client::FleetClient::new(world.channel.clone());
        let list = fleet.list_workers(v1::ListWorkersRequest::default()).await.unwrap();
        list.into_inner().workers.first().and_then(|worker| worker.load)
    })
    .await;
    let list = fleet
        .list_workers(v1::ListWorkersRequest::default())
        .await
        .unwrap()
        .into_inner();
    let one = &list.workers[0];
    assert_eq!(
        (one.worker_id.as_str(), one.name.as_str(), one.streams),
        (worker.to_string().as_str(), "w", 1)
    );
    assert_eq!(one.state(), v1::WorkerState::Alive);
    drop(session);
    until(v1::WorkerState::Lost, async || {
        let mut fleet = v1::fleet_client::FleetClient::new(world.channel.clone());
        let list = fleet.list_workers(v1::ListWorkersRequest::default()).await.unwrap();
        list.into_inner()
            .workers
            .first()
            .map_or(v1::WorkerState::Unspecified, v1::Worker::state)
    })
    .await;
    let token = v1::ListWorkersRequest {
        page_size: 1,
        page_token: "x".into(),
    };
    assert_eq!(
        fleet.list_workers(token).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
}
