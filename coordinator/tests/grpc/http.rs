//! HTTP through a coordinator that does not lead.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use coordinator::start_among_others;
use proto::v1;
use shared::{
    auth::Secret,
    config::CoordinatorConfig,
    store::{Model, Unreliable},
    time::System,
};

use crate::{
    forwarding::{pair_with, ready},
    world::{World, connect, deps, http, http_with, until},
};

const TOKEN: &str = "0123456789abcdef0123";

fn hooked(config: &mut CoordinatorConfig) {
    config.hooks.origin = Some("rtmp://origin.example.com/{app}/{stream}".into());
    config.hooks.domain = Some("d".into());
    config.hooks.token = Some(Secret::new(TOKEN).unwrap());
}

/// What nginx-rtmp says of a publish.
fn publish(name: &str) -> String {
    format!("call=publish&app=live&name={name}&clientid=1")
}

fn hook() -> String {
    format!("/hooks/nginx-rtmp?token={TOKEN}")
}

async fn pulled(world: &World) -> Vec<String> {
    let request = v1::ListPullSourcesRequest::default();
    let list = world.pulls().list_pull_sources(request).await.unwrap();
    let mut names: Vec<String> = list
        .into_inner()
        .pull_sources
        .into_iter()
        .map(|pull| pull.stream.unwrap().stream)
        .collect();
    names.sort();
    names
}

/// The code of an answer of the API at `/`.
fn code(answer: &(u16, String)) -> &str {
    assert_eq!(answer.0, 200, "that API says everything in the body: {answer:?}");
    let (_, rest) = answer.1.split_once("\"Code\":\"").unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

#[actix_rt::test]
async fn a_webhook_reaches_the_leader_through_a_follower_and_is_taken_once() {
    let (leader, world) = pair_with(hooked).await;
    let follower = world.http_addr();
    assert_eq!(
        http(follower, "POST", &hook(), &publish("a")).await,
        (200, "ok\n".into())
    );
    assert_eq!(pulled(&world).await, ["a"]);
    // The leader's own words, whatever they are.
    let (status, text) = http(follower, "POST", "/hooks/nginx-rtmp?token=wrong", &publish("b")).await;
    assert!(status == 401 && text.contains("hooks.token"), "{status} {text}");
    let (status, text) = http(follower, "GET", "/nowhere?x=1", "").await;
    assert_eq!(status, 404, "{text}");
    // What is too long is refused where it arrives, in the words of what it is for.
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(http(follower, "POST", &hook(), &long).await.0, 413);
    assert_eq!(
        code(&http(follower, "POST", "/", &long).await),
        "RequestSizeLimitExceeded"
    );
    // Health is everybody's own.
    assert!(ready(world.running.as_ref().unwrap()).await.contains("ready, follows"));
    assert_eq!(http(follower, "GET", "/healthz", "").await, (200, "ok\n".into()));
    leader.stop().await;
}

#[actix_rt::test]
async fn a_request_that_was_passed_on_is_not_passed_on_again() {
    let (leader, world) = pair_with(hooked).await;
    let passed_on = "aircheck-forwarded: 1,127.0.0.1,x\r\n";
    let (status, text) = http_with(world.http_addr(), "POST", &hook(), passed_on, &publish("a")).await;
    assert_eq!(status, 503, "{text}");
    assert_eq!(pulled(&world).await, Vec::<String>::new());
    leader.stop().await;
}

/// Says who it is without being able to prove it.
fn claim(world: &World, nonce: usize) -> String {
    let seconds = world.now().as_millis() / 1_000;
    format!(
        "/?Action=DescribeLiveRecordTemplates&Version=2018-08-01&Timestamp={seconds}&Nonce={nonce}&SecretId=AKIDnobody&Signature=x"
    )
}

#[actix_rt::test]
async fn the_leader_counts_the_clients_of_a_follower_and_believes_nobody_else() {
    let (leader, world) = pair_with(|_| {}).await;
    let follower = world.http_addr();
    let mut limited = false;
    for nonce in 0..200 {
        let answer = http(follower, "GET", &claim(&world, nonce), "").await;
        limited = code(&answer) == "RequestLimitExceeded.IPLimitExceeded";
        if limited {
            assert!(answer.1.contains("from 127.0.0.1"), "{}", answer.1);
            break;
        }
        assert!(code(&answer).starts_with("AuthFailure"), "{}", answer.1);
    }
    assert!(limited, "one client, whichever way it comes");
    // Somebody who names another address without the key is taken for who it is.
    let forged = "aircheck-forwarded: 1,10.1.2.3,AAAA\r\n";
    let mut said = String::new();
    for nonce in 0..200 {
        said = http_with(leader.http_addr(), "GET", &claim(&world, nonce), forged, "")
            .await
            .1;
        if said.contains("IPLimitExceeded") {
            break;
        }
    }
    assert!(said.contains("from 127.0.0.1"), "{said}");
    leader.stop().await;
}

/// A port that nobody listens on.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[actix_rt::test]
async fn a_leader_that_cannot_be_reached_is_named() {
    let away = nobody();
    let (leader, world) = pair_with(|config| {
        hooked(config);
        config.advertise_http = Some(format!("http://{away}"));
    })
    .await;
    let (status, text) = http(world.http_addr(), "POST", &hook(), &publish("a")).await;
    assert_eq!(status, 503);
    assert!(
        text.contains(&away.to_string()) && text.contains("cannot be reached"),
        "{text}"
    );
    let answer = http(world.http_addr(), "GET", &claim(&world, 1), "").await;
    assert_eq!(code(&answer), "ServiceUnavailable");
    assert!(answer.1.contains("cannot be reached"), "{}", answer.1);
    leader.stop().await;
}

#[actix_rt::test]
async fn a_request_waits_for_an_election_and_is_refused_in_clear_words_where_there_is_none() {
    let clock = Arc::new(System::new());
    let store = Arc::new(Unreliable::new(Arc::new(Model::new(clock))));
    store.fail_commits(true);
    let mut world = World::new(hooked).await;
    let running = start_among_others(world.config.clone(), Arc::clone(&store) as _, deps())
        .await
        .unwrap();
    world.channel = connect(&running).await;
    let (status, text) = http(running.http_addr(), "POST", &hook(), &publish("a")).await;
    assert_eq!(status, 503);
    assert!(text.contains("no coordinator leads just now"), "{text}");
    let answer = http(running.http_addr(), "GET", &claim(&world, 1), "").await;
    assert_eq!(code(&answer), "ServiceUnavailable");
    assert!(answer.1.contains("no coordinator leads just now"), "{}", answer.1);
    // One that comes during the election is answered after it.
    let (path, body) = (hook(), publish("b"));
    let (answered, ()) = tokio::join!(http(running.http_addr(), "POST", &path, &body), async {
        store.fail_commits(false);
    });
    assert_eq!(answered.0, 200, "{}", answered.1);
    until(vec!["b".to_owned()], async || pulled(&world).await).await;
    running.stop().await;
}
