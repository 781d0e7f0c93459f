//! What KEDA asks and is told.

use proto::externalscaler::{GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use std::time::Duration;

use proto::v1::{self, fleet_client::FleetClient};
use tonic::Code;

use crate::world::{LIMIT, Session, World, until};

fn scaled(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    ScaledObjectRef {
        name: "aircheck-worker".to_owned(),
        namespace: "aircheck".to_owned(),
        scaler_metadata: metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn ask(metadata: &[(&str, &str)]) -> GetMetricsRequest {
    GetMetricsRequest {
        scaled_object_ref: Some(scaled(metadata)),
        metric_name: "aircheck_workers_wanted".to_owned(),
    }
}

async fn wanted(client: &mut ExternalScalerClient<tonic::transport::Channel>, metadata: &[(&str, &str)]) -> i64 {
    let answer = client.get_metrics(ask(metadata)).await.unwrap().into_inner();
    let [value] = answer.metric_values.as_slice() else {
        panic!("one metric: {answer:?}");
    };
    assert_eq!(value.metric_name, "aircheck_workers_wanted");
    assert!((value.metric_value_float - f64::from(i32::try_from(value.metric_value).unwrap())).abs() < 1e-9);
    value.metric_value
}

#[actix_rt::test]
async fn as_many_workers_are_wanted_as_the_live_streams_need() {
    let mut world = World::new(|_| {}).await;
    let mut client = ExternalScalerClient::new(world.channel.clone());
    let one_each = [
        ("scalerAddress", "c:7070"),
        ("streamsPerWorker", "1"),
        ("reserveStreams", "2"),
    ];

    let spec = client.get_metric_spec(scaled(&one_each)).await.unwrap().into_inner();
    assert_eq!(spec.metric_specs.len(), 1);
    assert_eq!(spec.metric_specs[0].target_size, 1, "a worker for each worker wanted");
    assert!((spec.metric_specs[0].target_size_float - 1.0).abs() < 1e-9);
    assert!(!client.is_active(scaled(&[])).await.unwrap().into_inner().result);
    assert_eq!(wanted(&mut client, &one_each).await, 2, "the reserve");

    let mut watched = client.stream_is_active(scaled(&[])).await.unwrap().into_inner();
    assert!(!watched.message().await.unwrap().unwrap().result, "told at once");
    let worker = world.worker();
    let _session = world.session(worker).await;
    for stream in ["a", "b", "c"] {
        world.grant(&world.ask(worker, stream)).await;
    }
    let news = tokio::time::timeout(LIMIT, watched.message()).await.unwrap();
    assert!(news.unwrap().unwrap().result, "told when it changes");
    assert!(client.is_active(scaled(&[])).await.unwrap().into_inner().result);
    assert_eq!(wanted(&mut client, &one_each).await, 5);
    assert_eq!(wanted(&mut client, &[]).await, 1, "a worker is for 200");

    // Nobody has to show anything: there is room for so many.
    let mut listening = Vec::new();
    for _ in 1..64 {
        listening.push(client.stream_is_active(scaled(&[])).await.unwrap());
    }
    let refused = client.stream_is_active(scaled(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(listening);

    // Who watches does not hold up the end.
    world.restart().await;
    assert!(tokio::time::timeout(LIMIT, watched.message()).await.is_ok());
    let mut client = ExternalScalerClient::new(world.channel.clone());
    assert_eq!(
        wanted(&mut client, &one_each).await,
        5,
        "the next one knows the streams from the store"
    );
}

/// The next time that a worker is told whether to take streams: whether it is to leave, and whether that is for the set to shrink.
async fn told(session: &mut Session) -> (bool, bool) {
    let next = async {
        loop {
            let down = session.down.message().await.unwrap().unwrap();
            if let Some(v1::coordinator_down::Message::SetDraining(set)) = down.message {
                return (set.draining, set.for_scale_in);
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.unwrap()
}

#[actix_rt::test]
async fn the_last_worker_of_a_set_is_drained_and_counted_until_it_is_empty() {
    let world = World::new(|config| {
        config.scale_in.workers = Some("w".to_owned());
        config.scale_in.after = Duration::ZERO;
        config.scale_in.streams_per_worker = 26;
        config.scale_in.reserve_streams = 25;
    })
    .await;
    let mut client = ExternalScalerClient::new(world.channel.clone());
    let (first, last) = (world.worker(), world.worker());
    let stays = world.session_of(first, "w-0").await;
    let mut leaves = world.session_of(last, "w-1").await;
    let _another_set = world.session_of(world.worker(), "v-7").await;
    let live = world.ask(last, "a");
    let granted = world.grant(&live).await;
    leaves.beat(&[&live]).await;
    stays.beat(&[]).await;

    assert_eq!(wanted(&mut client, &[]).await, 2, "the second has a stream");
    assert_eq!(told(&mut leaves).await, (true, true));
    leaves.beat_leaving(&[&live]).await;
    assert_eq!(wanted(&mut client, &[]).await, 2, "it still has it");

    let release = v1::ReleaseLeaseRequest {
        publish_id: live.publish_id.clone(),
        epoch: granted.epoch,
        reason: "deleteStream".into(),
        ended_ms: world.now().as_millis(),
        revision: 0,
    };
    world.workers().release_lease(release).await.unwrap();
    leaves.beat_leaving(&[]).await;
    until(true, async || wanted(&mut client, &[]).await == 1).await;

    // Two streams and the reserve are more than one is for.
    for stream in ["b", "c"] {
        world.grant(&world.ask(first, stream)).await;
    }
    assert_eq!(wanted(&mut client, &[]).await, 2);
    assert_eq!(told(&mut leaves).await, (false, false), "it is wanted after all");
}

/// Whoever reaches gRPC may ask, without a token: nobody is drained for what a question says.
#[actix_rt::test]
async fn no_question_drains_a_worker() {
    let alone = [
        ("streamsPerWorker", "100000"),
        ("reserveStreams", "0"),
        ("reservePercent", "0"),
    ];
    for workers in [None, Some("w".to_owned())] {
        let shrinks = workers.is_some();
        let world = World::new(|config| {
            config.scale_in.workers = workers;
            config.scale_in.after = Duration::ZERO;
            config.scale_in.streams_per_worker = 1;
            config.scale_in.reserve_streams = 2;
        })
        .await;
        let mut client = ExternalScalerClient::new(world.channel.clone());
        let _first = world.session_of(world.worker(), "w-0").await;
        let second = world.worker();
        let mut session = world.session_of(second, "w-1").await;
        session.beat(&[]).await;
        let answer = wanted(&mut client, &alone).await;
        assert_eq!(
            answer,
            if shrinks { 2 } else { 1 },
            "where workers are drained the settings count"
        );
        let named = client
            .get_metrics(ask(&[("workers", "w"), ("scaleInAfter", "0")]))
            .await;
        assert_eq!(named.unwrap_err().code(), Code::InvalidArgument);

        let by_hand = v1::DrainWorkerRequest {
            worker: "w-1".to_owned(),
            ..Default::default()
        };
        FleetClient::new(world.channel.clone())
            .drain_worker(by_hand)
            .await
            .unwrap();
        assert_eq!(
            told(&mut session).await,
            (true, false),
            "what a person said is the first that it is told"
        );
    }
}

#[actix_rt::test]
async fn a_trigger_that_says_something_wrong_is_refused() {
    let world = World::new(|_| {}).await;
    let mut client = ExternalScalerClient::new(world.channel.clone());
    let refused = client.get_metrics(ask(&[("streamPerWorker", "1")])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("use streamsPerWorker"), "{refused}");
    let refused = client.is_active(scaled(&[("bitsPerWorker", "1")])).await.unwrap_err();
    assert!(refused.message().contains("1000000 to"), "{refused}");
    let mut other = ask(&[]);
    other.metric_name = "cpu".to_owned();
    let refused = client.get_metrics(other).await.unwrap_err();
    assert!(refused.message().contains("aircheck_workers_wanted"), "{refused}");
}
