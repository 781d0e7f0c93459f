//! Streams that are fetched from origins: the service, who is told to fetch what, and webhooks.

use std::{collections::BTreeMap, time::Duration};

use proto::v1::{self, PullSourceState, coordinator_down::Message};
use shared::auth::Secret;
use tonic::Code;

use crate::world::{Session, World, http, until};

fn key(name: &str) -> Option<v1::StreamKey> {
    Some(v1::StreamKey {
        domain: "d".into(),
        app: "live".into(),
        stream: name.into(),
    })
}

fn named(name: &str) -> Option<v1::PullRef> {
    Some(v1::PullRef {
        by: key(name).map(v1::pull_ref::By::Stream),
    })
}

fn new(name: &str) -> v1::CreatePullSourceRequest {
    v1::CreatePullSourceRequest {
        stream: key(name),
        url: format!("rtmp://origin.example.com/live/{name}?pass=secret"),
        ..Default::default()
    }
}

impl World {
    async fn create_pull(&self, request: v1::CreatePullSourceRequest) -> Result<v1::PullSource, tonic::Status> {
        let made = self.pulls().create_pull_source(request).await?;
        Ok(made.into_inner().pull_source.unwrap())
    }

    async fn pull(&self, name: &str) -> v1::PullSource {
        let request = v1::GetPullSourceRequest { pull: named(name) };
        let got = self.pulls().get_pull_source(request).await.unwrap();
        got.into_inner().pull_source.unwrap()
    }

    /// Sources by stream, with the worker of each.
    async fn placed(&self) -> BTreeMap<String, String> {
        let list = self
            .pulls()
            .list_pull_sources(v1::ListPullSourcesRequest::default())
            .await;
        let sources = list.unwrap().into_inner().pull_sources;
        sources
            .into_iter()
            .map(|source| (source.stream.unwrap().stream, source.worker_id))
            .collect()
    }
}

impl Session {
    async fn says(&self, beat: v1::Heartbeat) {
        let message = Some(v1::worker_up::Message::Heartbeat(beat));
        self.up.send(v1::WorkerUp { message }).await.unwrap();
    }

    /// The next set that the worker is told.
    async fn told(&mut self) -> v1::SetPulls {
        loop {
            let next = tokio::time::timeout(crate::world::LIMIT, self.down.message())
                .await
                .unwrap();
            if let Some(Message::SetPulls(set)) = next.unwrap().unwrap().message {
                return set;
            }
        }
    }
}

#[actix_rt::test]
async fn sources_are_made_shown_changed_and_deleted() {
    let mut world = World::new(|config| config.max_pulls = 2).await;
    let made = world.create_pull(new("a")).await.unwrap();
    assert_eq!(made.state(), PullSourceState::Unplaced);
    assert_eq!(
        made.url, "rtmp://origin.example.com/live/a?***",
        "what may be a secret is not shown"
    );
    world.restart().await;
    assert_eq!(world.pull("a").await, made, "it is durable");

    let again = world.create_pull(new("a")).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let later = v1::CreatePullSourceRequest {
        from_ms: world.now().as_millis() + 3_600_000,
        ..new("b")
    };
    assert_eq!(
        world.create_pull(later).await.unwrap().state(),
        PullSourceState::Scheduled
    );
    let full = world.create_pull(new("c")).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("coordinator.max_pulls"), "{full}");

    let pause = v1::UpdatePullSourceRequest {
        pull: named("a"),
        paused: Some(true),
        ..Default::default()
    };
    let paused = world
        .pulls()
        .update_pull_source(pause)
        .await
        .unwrap()
        .into_inner()
        .pull_source
        .unwrap();
    assert_eq!(
        (paused.state(), paused.url.as_str()),
        (PullSourceState::Paused, made.url.as_str())
    );

    let page = v1::ListPullSourcesRequest {
        page_size: 1,
        page_token: String::new(),
    };
    let first = world.pulls().list_pull_sources(page).await.unwrap().into_inner();
    assert_eq!(first.pull_sources.len(), 1);
    let rest = v1::ListPullSourcesRequest {
        page_size: 5,
        page_token: first.next_page_token,
    };
    let rest = world.pulls().list_pull_sources(rest).await.unwrap().into_inner();
    assert_eq!((rest.pull_sources.len(), rest.next_page_token.as_str()), (1, ""));

    let delete = v1::DeletePullSourceRequest { pull: named("a") };
    world.pulls().delete_pull_source(delete.clone()).await.unwrap();
    let gone = world.pulls().delete_pull_source(delete).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("aircheck pull list"), "{gone}");
}

#[actix_rt::test]
async fn bad_sources_are_refused_by_field_and_without_their_secrets() {
    let world = World::new(|_| {}).await;
    let url = |url: &str| v1::CreatePullSourceRequest {
        url: url.into(),
        ..new("x")
    };
    let window = |from_ms, until_ms| v1::CreatePullSourceRequest {
        from_ms,
        until_ms,
        ..new("x")
    };
    let far = world.now().as_millis() + 1_000_000;
    let long = "n".repeat(1 << 20);
    for (bad, says) in [
        (v1::CreatePullSourceRequest::default(), "stream: is missing"),
        (
            v1::CreatePullSourceRequest {
                stream: key("nul\0"),
                ..new("x")
            },
            "U+0000",
        ),
        (
            v1::CreatePullSourceRequest {
                stream: key(&long),
                ..new("x")
            },
            "256",
        ),
        (url(""), "cannot be read"),
        (url("file:///etc/passwd"), "rtmp, http (HTTP-FLV) and https"),
        (url("rtmp://u:secret@o/live/x"), "in the query"),
        (url("rtmp://o/live?secret"), "APP/STREAM"),
        (url(&format!("http://o/{long}")), "at most 2048"),
        (url("http://0.0.0.0/x.flv"), "no address of one machine"),
        (window(-1, 0), "from_ms: is -1: give milliseconds since 1970"),
        (window(far, far), "a window ends after it begins"),
        (window(0, 5), "until_ms is past"),
    ] {
        let status = world.create_pull(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(says), "{says}: {}", status.message());
        assert!(!status.message().contains("secret"), "{}", status.message());
    }
    for (bad, says) in [
        (None, "pull: is missing"),
        (Some(v1::PullRef { by: None }), "its id or its stream"),
    ] {
        let status = world
            .pulls()
            .get_pull_source(v1::GetPullSourceRequest { pull: bad })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(says), "{}", status.message());
    }
    let token = v1::ListPullSourcesRequest {
        page_size: 1,
        page_token: "x".into(),
    };
    assert_eq!(
        world.pulls().list_pull_sources(token).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(world.placed().await.len(), 0);
}

#[actix_rt::test]
async fn a_worker_is_told_its_whole_set_until_it_has_it_and_a_dead_ones_goes_to_another() {
    let world = World::new(|_| {}).await;
    let (a, b) = (world.worker(), world.worker());
    let mut first = world.session(a).await;
    for name in ["x", "y"] {
        world.create_pull(new(name)).await.unwrap();
    }
    let mut set = first.told().await;
    while set.pulls.len() < 2 {
        set = first.told().await;
    }
    assert!(
        set.pulls.iter().all(|pull| pull.url.contains("?pass=secret")),
        "the worker needs it"
    );
    // The word is lost: the heartbeat does not name the set, and it comes again.
    first.says(v1::Heartbeat::default()).await;
    assert_eq!(first.told().await, set);
    let status = |state: PullSourceState, error: &str| v1::PullStatus {
        pull_id: set.pulls[0].pull_id.clone(),
        state: state.into(),
        error: error.into(),
        failures: 3,
    };
    let beat = v1::Heartbeat {
        pulls_revision: set.revision,
        pulls: vec![status(PullSourceState::Connecting, "no route")],
        ..Default::default()
    };
    first.says(beat).await;
    let name = set.pulls[0].stream.clone().unwrap().stream;
    until("no route".to_owned(), async || world.pull(&name).await.last_error).await;
    let shown = world.pull(&name).await;
    assert_eq!(
        (shown.state(), shown.failures, shown.worker_name.as_str()),
        (PullSourceState::Connecting, 3, "w")
    );

    let mut second = world.session(b).await;
    // The first says nothing more; its time-out passes while the second goes on.
    let alone = async {
        loop {
            second.says(v1::Heartbeat::default()).await;
            let placed = world.placed().await;
            if placed.len() == 2 && placed.values().all(|worker| *worker == b.to_string()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::world::LIMIT, alone).await.unwrap();
    let mut moved = second.told().await;
    while moved.pulls.len() < 2 {
        moved = second.told().await;
    }
    assert_eq!(moved.revision, set.revision, "the same set has the same name");
    // Back again, with what it had: it is told to have nothing.
    let back = v1::Heartbeat {
        pulls_revision: set.revision,
        ..Default::default()
    };
    first.says(back).await;
    let mut said = first.told().await;
    while said.revision != 0 {
        said = first.told().await;
    }
    assert!(said.pulls.is_empty());
}

#[actix_rt::test]
async fn a_heartbeat_with_a_wrong_pull_ends_the_session_with_the_reason() {
    let world = World::new(|_| {}).await;
    let mut session = world.session(world.worker()).await;
    let wrong = v1::PullStatus {
        pull_id: "x".into(),
        ..Default::default()
    };
    session
        .says(v1::Heartbeat {
            pulls: vec![wrong],
            ..Default::default()
        })
        .await;
    let status = session.down.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("pulls.pull_id"), "{status}");
}

const TOKEN: &str = "0123456789abcdef0123";

async fn hooked() -> World {
    World::new(|config| {
        config.hooks.origin = Some("rtmp://origin.example.com:1936/{app}/{stream}".into());
        config.hooks.domain = Some("d".into());
        config.hooks.token = Some(Secret::new(TOKEN).unwrap());
    })
    .await
}

#[actix_rt::test]
async fn origins_announce_streams_each_in_its_own_way() {
    let world = hooked().await;
    let query = format!("?token={TOKEN}");
    let nginx = |call: &str, client: u32| format!("call={call}&app=live&name=a&clientid={client}&addr=1.2.3.4");
    let srs = |action: &str| format!(r#"{{"action":"{action}","client_id":"7","app":"live","stream":"b"}}"#);
    let ready = |event: &str| format!("/hooks/mediamtx{query}&event={event}&path=live/c");
    let nginx_path = format!("/hooks/nginx-rtmp{query}");
    let srs_path = format!("/hooks/srs/{TOKEN}");
    assert_eq!(
        http(world.http_addr(), "POST", &nginx_path, &nginx("publish", 1)).await,
        (200, "ok\n".into())
    );
    assert_eq!(
        http(world.http_addr(), "POST", &nginx_path, &nginx("publish", 1))
            .await
            .0,
        200
    );
    assert_eq!(
        http(world.http_addr(), "POST", &nginx_path, &nginx("play", 2)).await.0,
        200
    );
    assert_eq!(
        http(world.http_addr(), "POST", &srs_path, &srs("on_publish")).await,
        (200, "0".into())
    );
    assert_eq!(http(world.http_addr(), "GET", &ready("ready"), "").await.0, 200);
    let names = async || world.placed().await.into_keys().collect::<Vec<_>>();
    assert_eq!(names().await, ["a", "b", "c"]);
    let a = world.pull("a").await;
    assert_eq!(
        (a.url.as_str(), a.by_hook),
        ("rtmp://origin.example.com:1936/live/a", true)
    );
    assert_eq!(
        http(world.http_addr(), "POST", &nginx_path, &nginx("publish_done", 9))
            .await
            .0,
        200
    );
    assert_eq!(names().await, ["a", "b", "c"], "another client's end ends nothing");
    assert_eq!(
        http(world.http_addr(), "POST", &nginx_path, &nginx("publish_done", 1))
            .await
            .0,
        200
    );
    assert_eq!(
        http(world.http_addr(), "POST", &srs_path, &srs("on_unpublish")).await,
        (200, "0".into())
    );
    assert_eq!(http(world.http_addr(), "POST", &ready("not-ready"), "").await.0, 200);
    assert_eq!(names().await, Vec::<String>::new());
}

#[actix_rt::test]
async fn a_hook_without_the_token_or_of_wrong_shape_is_refused_with_the_reason() {
    let world = hooked().await;
    let publish = "call=publish&app=live&name=a";
    let with = |path: &str| format!("{path}?token={TOKEN}");
    let long = format!("{publish}&x={}", "y".repeat(100_000));
    for (target, body, status, says) in [
        ("/hooks/nginx-rtmp".to_owned(), publish, 401, "hooks.token"),
        (
            "/hooks/nginx-rtmp?token=wrong".to_owned(),
            publish,
            401,
            "missing or wrong",
        ),
        (format!("/hooks/nginx-rtmp/{TOKEN}x"), publish, 401, "missing or wrong"),
        (with("/hooks/wowza"), publish, 404, "/hooks/mediamtx"),
        (with("/hooks/nginx-rtmp"), "", 400, "call is missing"),
        (
            with("/hooks/nginx-rtmp"),
            "call=publish&app=live&name=..",
            400,
            "stream is `..`",
        ),
        (
            with("/hooks/nginx-rtmp"),
            "call=publish&app=live&name=a%20b",
            400,
            "white space",
        ),
        (with("/hooks/srs"), "<xml/>", 400, "not the JSON"),
        (with("/hooks/mediamtx"), "event=ready&path=one", 400, "APP/STREAM"),
        (with("/hooks/nginx-rtmp"), &long, 413, ""),
    ] {
        let (got, text) = http(world.http_addr(), "POST", &target, body).await;
        assert_eq!(got, status, "{target}: {text}");
        assert!(text.contains(says), "{target}: {text}");
        assert!(!text.contains(TOKEN), "{text}");
    }
    assert_eq!(world.placed().await.len(), 0);
    let off = World::new(|_| {}).await;
    let (status, text) = http(off.http_addr(), "POST", "/hooks/nginx-rtmp?token=x", publish).await;
    assert_eq!(status, 404);
    assert!(text.contains("hooks.origin"), "{text}");
}
