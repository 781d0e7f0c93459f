//! Events: what is told of a publish, a recording and a file, to real receivers that do not always answer well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::v1;
use shared::{config::CoordinatorConfig, template::Format};
use support::receiver::{Answer, Heard, Receiver};
use tonic::{Code, transport::Channel};

use crate::world::{World, until};

fn quick(config: &mut CoordinatorConfig) {
    config.record = vec![Format::Flv];
    // No worker has a session here, and none is to be missed.
    config.worker_timeout = Duration::from_secs(60);
    config.events.retry_after = Duration::from_millis(100);
    config.events.reply_timeout = Duration::from_secs(2);
    config.events.allow = vec!["127.0.0.0/8".parse().unwrap()];
}

fn callbacks(world: &World) -> v1::callbacks_client::CallbacksClient<Channel> {
    v1::callbacks_client::CallbacksClient::new(world.channel.clone())
}

fn events(world: &World) -> v1::events_client::EventsClient<Channel> {
    v1::events_client::EventsClient::new(world.channel.clone())
}

fn all_to(receiver: &Receiver) -> v1::CallbackUrls {
    v1::CallbackUrls {
        push_start: receiver.url("/start"),
        push_end: receiver.url("/end"),
        file: receiver.url("/file"),
        status: receiver.url("/status"),
        exception: receiver.url("/exception"),
        push_exception: receiver.url("/push-exception"),
    }
}

async fn bind(world: &World, name: &str, app: &str, urls: v1::CallbackUrls) -> u64 {
    let spec = v1::CallbackTemplateSpec {
        name: name.into(),
        urls: Some(urls),
        ..Default::default()
    };
    let request = v1::CreateCallbackTemplateRequest {
        spec: Some(spec),
        key: "callbackKey123".into(),
    };
    let made = callbacks(world)
        .create_callback_template(request)
        .await
        .unwrap()
        .into_inner();
    let rule = v1::CreateCallbackRuleRequest {
        domain: "d".into(),
        app: app.into(),
        template: name.into(),
    };
    callbacks(world).create_callback_rule(rule).await.unwrap();
    made.template.unwrap().id
}

/// A whole publish with so many files.
async fn publish(world: &World, app: &str, stream: &str, files: u32) {
    let mut ask = world.ask(world.worker(), stream);
    ask.stream.as_mut().unwrap().app = app.into();
    let granted = world.grant(&ask).await;
    let recording = granted.recordings[0].recording_id.clone();
    for sequence in 0..files {
        let file = v1::MediaFile {
            video_units: 25,
            ..world.file(v1::Format::Flv, sequence)
        };
        let commit = v1::CommitFileRequest {
            recording_id: recording.clone(),
            epoch: granted.epoch,
            file: Some(file),
        };
        world.workers().commit_file(commit.clone()).await.unwrap();
        // A worker says everything again until it is answered.
        world.workers().commit_file(commit).await.unwrap();
    }
    let release = v1::ReleaseLeaseRequest {
        publish_id: ask.publish_id.clone(),
        epoch: granted.epoch,
        reason: "deleteStream".into(),
        ended_ms: world.now().as_millis(),
        revision: 0,
    };
    world.workers().release_lease(release).await.unwrap();
    let end = v1::CommitRecordingRequest {
        recording_id: recording,
        epoch: granted.epoch,
        state: v1::RecordingState::Finished.into(),
        reason: "unpublish".into(),
        ended_ms: world.now().as_millis(),
        gaps: vec![],
        files,
    };
    world.workers().commit_recording(end.clone()).await.unwrap();
    world.workers().commit_recording(end).await.unwrap();
}

/// What a receiver heard of one recording, in short.
fn story(heard: &[Heard]) -> Vec<String> {
    let short = |heard: &Heard| match heard.kind() {
        332 => heard.body["record_event"].as_str().unwrap_or_default().to_owned(),
        100 => "file".to_owned(),
        number => number.to_string(),
    };
    heard.iter().map(short).collect()
}

/// What a receiver heard, once it fits.
async fn heard(receiver: &Receiver, fits: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
    until(true, async || fits(&receiver.heard())).await;
    receiver.heard()
}

async fn pending(world: &World) -> usize {
    let request = v1::ListEventsRequest {
        state: v1::EventState::Pending.into(),
        ..Default::default()
    };
    events(world)
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events
        .len()
}

#[actix_rt::test]
async fn a_publish_is_told_of_from_its_start_to_its_end() {
    let world = World::new(quick).await;
    let receiver = Receiver::start().unwrap();
    // One URL, one order.
    let url = receiver.url("/all");
    let urls = v1::CallbackUrls {
        status: url.clone(),
        file: url,
        push_start: receiver.url("/push"),
        push_end: receiver.url("/push"),
        ..Default::default()
    };
    bind(&world, "all", "", urls).await;
    publish(&world, "live", "cam", 3).await;
    until(0, async || pending(&world).await).await;
    let heard = receiver.heard();
    let of = |path: &str| story(&heard.iter().filter(|one| one.path == path).cloned().collect::<Vec<_>>());
    assert_eq!(of("/push"), ["1", "0"]);
    assert_eq!(
        of("/all"),
        ["record_start_succeeded", "file", "file", "file", "record_ended"]
    );
    assert_eq!(receiver.events().len(), heard.len(), "each came once");
    for one in &heard {
        assert_eq!(one.content_type, "application/json");
        let (t, sign) = (one.body["t"].as_i64().unwrap(), one.body["sign"].as_str().unwrap());
        assert!(t > world.now().as_millis() / 1_000 + 500, "{t}");
        assert_eq!(sign.len(), 32);
        assert_eq!(one.body["event_id"], one.id.as_str());
    }
    let file = heard.iter().find(|one| one.kind() == 100).unwrap();
    assert!(
        file.body["video_url"].as_str().unwrap().contains("/media/"),
        "{}",
        file.body
    );
    assert_eq!(file.body["stream_param"], "a=1");
    // Of streams that no rule is for nothing is told.
    let mut ask = world.ask(world.worker(), "cam");
    ask.stream.as_mut().unwrap().domain = "other".into();
    world.grant(&ask).await;
    assert_eq!(pending(&world).await, 0);
}

#[actix_rt::test]
async fn a_receiver_that_fails_eleven_times_gets_everything_in_order() {
    let world = World::new(quick).await;
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let redirected = Receiver::start().unwrap();
    let elsewhere = redirected.url("/elsewhere");
    let receiver = Receiver::scripted(move |heard| {
        if heard.path != "/file" {
            return Answer::Take;
        }
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Answer::Status(500),
            2 | 3 => Answer::Redirect(elsewhere.clone()),
            4 => Answer::Hang,
            5..8 => Answer::Die,
            8..11 => Answer::Status(201),
            _ => Answer::Take,
        }
    })
    .unwrap();
    bind(&world, "all", "live", all_to(&receiver)).await;
    publish(&world, "live", "cam", 2).await;
    let heard = heard(&receiver, |heard| {
        heard.iter().filter(|one| one.kind() == 100).count() == 13
    })
    .await;
    let files: Vec<Heard> = heard.into_iter().filter(|one| one.kind() == 100).collect();
    assert!(
        files[..12].iter().all(|one| one.id == files[0].id),
        "twelve times the same event"
    );
    assert_ne!(files[12].id, files[0].id, "and then the next");
    assert_ne!(files[0].body["file_id"], files[12].body["file_id"]);
    assert!(redirected.heard().is_empty(), "redirects are not followed");
    until(0, async || pending(&world).await).await;
    let counted = |reason: &'static str| {
        let label = shared::telemetry::Reason { reason };
        world.metrics.coordinator.callbacks.get_or_create(&label).get()
    };
    assert_eq!((counted("failed"), counted("given_up")), (11, 0));
    assert_eq!(counted("delivered"), receiver.events().len() as u64);
}

#[actix_rt::test]
async fn one_that_hangs_slows_no_other_and_is_given_up_in_the_end() {
    let world = World::new(|config| {
        quick(config);
        config.events.retries = 2;
        config.events.reply_timeout = Duration::from_secs(1);
        config.events.per_receiver = 2;
    })
    .await;
    let (stuck, good) = (
        Receiver::scripted(|_| Answer::Hang).unwrap(),
        Receiver::start().unwrap(),
    );
    bind(&world, "stuck", "bad", all_to(&stuck)).await;
    bind(&world, "good", "good", all_to(&good)).await;
    for n in 0..4 {
        publish(&world, "bad", &format!("b{n}"), 1).await;
    }
    let begin = std::time::Instant::now();
    publish(&world, "good", "g", 1).await;
    heard(&good, |heard| heard.len() == 5).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let given_up = async || {
        let request = v1::ListEventsRequest {
            state: v1::EventState::GivenUp.into(),
            ..Default::default()
        };
        let listed = events(&world).list_events(request).await.unwrap().into_inner().events;
        (!listed.is_empty(), listed)
    };
    let mut last = Vec::new();
    until(true, async || {
        let (any, listed) = given_up().await;
        last = listed;
        any
    })
    .await;
    let one = last.remove(0);
    assert_eq!(one.attempts, 3);
    assert!(one.problem.contains("no answer within 1 s"), "{}", one.problem);
    // A template that names no URL for it any more: what waits is not sent there.
    let update = v1::UpdateCallbackTemplateRequest {
        template: "stuck".into(),
        spec: Some(v1::CallbackTemplateSpec {
            name: "stuck".into(),
            urls: Some(all_to(&good)),
            ..Default::default()
        }),
        key: None,
    };
    callbacks(&world).update_callback_template(update).await.unwrap();
    until(0, async || pending(&world).await).await;
    assert!(good.events().len() > 5, "what waited went to the new URL");
}

#[actix_rt::test]
async fn what_waits_survives_a_restart_and_is_replayed_under_its_id() {
    let mut world = World::new(|config| {
        quick(config);
        config.events.retry_after = Duration::from_millis(300);
    })
    .await;
    let up = Arc::new(AtomicUsize::new(0));
    let is_up = Arc::clone(&up);
    let receiver = Receiver::scripted(move |_| match is_up.load(Ordering::SeqCst) {
        0 => Answer::Status(503),
        _ => Answer::Take,
    })
    .unwrap();
    bind(&world, "all", "", all_to(&receiver)).await;
    publish(&world, "live", "cam", 2).await;
    heard(&receiver, |heard| !heard.is_empty()).await;
    assert!(pending(&world).await >= 6);
    world.restart().await;
    up.store(1, Ordering::SeqCst);
    until(0, async || pending(&world).await).await;
    let told = receiver.events();
    assert_eq!(told.len(), 6, "{:?}", story(&told));
    let request = v1::ListEventsRequest {
        state: v1::EventState::Delivered.into(),
        page_size: 2,
        ..Default::default()
    };
    let (mut all, mut next) = (Vec::new(), request.clone());
    loop {
        let page = events(&world).list_events(next).await.unwrap().into_inner();
        all.extend(page.events);
        if page.next_page_token.is_empty() {
            break;
        }
        next = v1::ListEventsRequest {
            page_token: page.next_page_token,
            ..request.clone()
        };
    }
    assert_eq!(all.len(), 6);
    let id = told[0].id.clone();
    let before = receiver.heard().len();
    events(&world)
        .replay_event(v1::ReplayEventRequest { id: id.clone() })
        .await
        .unwrap();
    let heard = heard(&receiver, |heard| heard.len() > before).await;
    assert_eq!(heard.last().unwrap().id, id);
    until(0, async || pending(&world).await).await;
    let shown = events(&world)
        .get_event(v1::GetEventRequest { id })
        .await
        .unwrap()
        .into_inner()
        .event
        .unwrap();
    assert_eq!((shown.state(), shown.attempts), (v1::EventState::Delivered, 1));
    for id in ["", "x", "ffff-0", "0000000000000000-0"] {
        let refused = events(&world)
            .replay_event(v1::ReplayEventRequest { id: id.into() })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{id}");
    }
}

#[actix_rt::test]
async fn receivers_within_the_own_network_are_refused_unless_allowed() {
    let world = World::new(|config| config.record = vec![Format::Flv]).await;
    let receiver = Receiver::start().unwrap();
    let request = |url: String| v1::CreateCallbackTemplateRequest {
        spec: Some(v1::CallbackTemplateSpec {
            name: "x".into(),
            urls: Some(v1::CallbackUrls {
                push_start: url,
                ..Default::default()
            }),
            ..Default::default()
        }),
        key: String::new(),
    };
    let refused = callbacks(&world)
        .create_callback_template(request(receiver.url("/")))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("coordinator.events.allow"),
        "{}",
        refused.message()
    );
    // A name says what it is only when it is resolved.
    let port = receiver.url("").rsplit_once(':').unwrap().1.to_owned();
    let by_name = request(format!("http://localhost:{port}/"));
    callbacks(&world).create_callback_template(by_name).await.unwrap();
    let rule = v1::CreateCallbackRuleRequest {
        domain: "d".into(),
        app: String::new(),
        template: "x".into(),
    };
    callbacks(&world).create_callback_rule(rule).await.unwrap();
    publish(&world, "live", "cam", 0).await;
    let tried = async || {
        let listed = events(&world)
            .list_events(v1::ListEventsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .events;
        listed
            .iter()
            .any(|event| event.attempts > 0 && event.problem.contains("a loopback address"))
    };
    until(true, tried).await;
    assert!(receiver.heard().is_empty());
}
