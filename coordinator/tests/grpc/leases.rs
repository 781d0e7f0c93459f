//! Who gets a stream.

use std::time::Duration;

use proto::v1::{self, acquire_lease_response::Outcome};
use shared::store::MAX_VALUE_BYTES;
use tonic::Code;

use crate::world::{World, named, spec};

#[actix_rt::test]
async fn leases_are_idempotent_exclusive_and_survive_a_restart() {
    let mut world = World::new(|config| config.worker_timeout = Duration::from_secs(30)).await;
    world
        .create_template("day", &[v1::Format::Flv, v1::Format::Mp4])
        .await
        .unwrap();
    world.create_rule("d", "", "", "day").await.unwrap();
    let (a, b) = (world.worker(), world.worker());
    let ask = world.ask(a, "cam");
    let granted = world.grant(&ask).await;
    assert_eq!((granted.epoch, granted.recordings.len()), (1, 1));
    assert_eq!(world.grant(&ask).await, granted);
    let template = granted.recordings[0].template.clone().unwrap();
    assert_eq!((template.name.as_str(), template.formats.len()), ("day", 2));

    // Settings are frozen when a publish starts.
    let update = v1::UpdateTemplateRequest {
        template: named("day"),
        spec: Some(spec("day", &[v1::Format::Hls])),
    };
    world.templates().update_template(update).await.unwrap();
    world.restart().await;
    assert_eq!(world.grant(&ask).await, granted);
    assert_eq!(world.live().await, [("cam".to_owned(), v1::StreamState::Live)]);

    let Outcome::Refused(refused) = world.acquire(&world.ask(b, "cam")).await else {
        panic!("granted twice")
    };
    assert_eq!(refused.kind(), v1::LeaseRefusal::AlreadyLive);
    let newer = world.grant(&world.ask(a, "cam")).await;
    assert_eq!(newer.epoch, 2);
    assert_eq!(newer.recordings[0].template.clone().unwrap().formats.len(), 1);
    let release = v1::ReleaseLeaseRequest {
        publish_id: ask.publish_id.clone(),
        epoch: 1,
        reason: "x".into(),
        ended_ms: 5,
        revision: 0,
    };
    world.workers().release_lease(release).await.unwrap();
    assert_eq!(
        world.live().await.len(),
        1,
        "the older publish no longer holds the stream"
    );

    let elsewhere = v1::AcquireLeaseRequest {
        stream: Some(v1::StreamKey {
            domain: "other".into(),
            app: "x".into(),
            stream: "y".into(),
        }),
        ..world.ask(b, "")
    };
    assert!(
        world.grant(&elsewhere).await.recordings.is_empty(),
        "listed, not recorded"
    );
    assert_eq!(world.live().await.len(), 2);

    for (bad, field) in [
        (
            v1::AcquireLeaseRequest {
                worker_id: "w".into(),
                ..ask.clone()
            },
            "worker_id",
        ),
        (
            v1::AcquireLeaseRequest {
                publish_id: String::new(),
                ..ask.clone()
            },
            "publish_id",
        ),
        (
            v1::AcquireLeaseRequest {
                stream: None,
                ..ask.clone()
            },
            "stream",
        ),
        (world.ask(a, "nul\0"), "U+0000"),
        (
            v1::AcquireLeaseRequest {
                params: "p".repeat(MAX_VALUE_BYTES),
                ..ask.clone()
            },
            "params",
        ),
    ] {
        let status = world.workers().acquire_lease(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field), "{}", status.message());
    }
}
