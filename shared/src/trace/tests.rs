use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanProcessor},
};
use tracing::{Instrument, subscriber::DefaultGuard};
use tracing_subscriber::prelude::*;

use super::{export::provider, *};
use crate::ids::{IdGen, Seeded};

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Kept {
    fn all(&self) -> Vec<SpanData> {
        self.0.lock().unwrap().clone()
    }

    fn named(&self, name: &str) -> SpanData {
        let all = self.all();
        let mut found = all.iter().filter(|span| span.name == name);
        let one = found
            .next()
            .unwrap_or_else(|| panic!("no span {name} in {all:#?}"))
            .clone();
        assert!(found.next().is_none(), "more than one span {name}");
        one
    }
}

/// Spans end up in what is given back, as long as the guard lives. The global provider is set once for each process, and a
/// test is one.
fn traced(share: f64) -> (Kept, DefaultGuard) {
    let kept = Kept::default();
    let provider: SdkTracerProvider = provider(kept.clone(), share).build();
    global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("aircheck"));
    let guard = tracing_subscriber::registry().with(layer).set_default();
    (kept, guard)
}

fn recording(seed: u64) -> RecordingId {
    RecordingId::from_uuid(Seeded::new(seed).uuid(Timestamp::default()))
}

#[test]
fn everything_of_a_recording_is_one_trace_without_anything_handed_on() {
    let (kept, _guard) = traced(1.0);
    let id_of = recording(1);
    let (root, first) = (Place::recording(id_of), Place::publish(id_of, Epoch::new(1)));
    // In another process, after a crash, out of order: it is the same.
    first.span("render").in_scope(|| {});
    first.show(Past::between("publish", Timestamp::from_millis(1_000), Timestamp::from_millis(1_500)).with("n", 3));
    root.show(Past::now("recording"));

    let trace = TraceId::from_bytes(id_of.as_uuid().into_bytes());
    for span in kept.all() {
        assert_eq!(span.span_context.trace_id(), trace, "{span:?}");
    }
    assert_eq!(trace.to_string(), id(id_of));
    let (root, publish, render) = (kept.named("recording"), kept.named("publish"), kept.named("render"));
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    assert_eq!(publish.parent_span_id, root.span_context.span_id());
    assert_eq!(render.parent_span_id, publish.span_context.span_id());
    assert_eq!(
        publish.end_time.duration_since(publish.start_time).unwrap().as_millis(),
        500
    );
    assert!(publish.attributes.contains(&KeyValue::new("n", 3)));
    assert!(
        publish
            .attributes
            .contains(&KeyValue::new("aircheck.recording.id", id_of.to_string()))
    );
}

#[test]
fn owners_and_recordings_have_places_of_their_own() {
    let places = [
        Place::recording(recording(1)),
        Place::publish(recording(1), Epoch::new(1)),
        Place::publish(recording(1), Epoch::new(2)),
        Place::publish(recording(2), Epoch::new(1)),
        Place::recording(recording(2)),
    ];
    for (n, place) in places.iter().enumerate() {
        assert!(!places[..n].iter().any(|other| other.span == place.span), "{place:?}");
        assert_ne!(place.span, SpanId::INVALID);
    }
}

#[tokio::test]
async fn a_call_carries_its_span_to_the_one_who_answers() {
    let (kept, _guard) = traced(1.0);
    let mut headers = HashMap::new();
    let place = Place::recording(recording(1));
    async { inject(&mut headers) }.instrument(place.call("commit")).await;
    assert!(headers["traceparent"].contains(&id(recording(1))), "{headers:?}");
    let span = extract(&headers, "CommitFile").unwrap();
    fail(&span, "fenced");
    drop(span);

    let (client, server) = (kept.named("commit"), kept.named("CommitFile"));
    assert_eq!(server.parent_span_id, client.span_context.span_id());
    assert_eq!(
        (client.span_kind, server.span_kind),
        (SpanKind::Client, SpanKind::Server)
    );
    assert_eq!(server.status, Status::error("fenced"));

    let mut none = HashMap::new();
    inject(&mut none);
    assert!(none.is_empty(), "what is below no span carries none: {none:?}");
    assert!(extract(&none, "x").is_none());
    let bad = HashMap::from([("traceparent".to_owned(), "00-zz-1-01".to_owned())]);
    assert!(extract(&bad, "x").is_none());
}

#[test]
fn a_share_of_recordings_is_whole_and_the_rest_only_what_failed() {
    let (kept, _guard) = traced(0.25);
    let mut taken = 0;
    for seed in 0..400 {
        let place = Place::recording(recording(seed));
        place.show(Past::now("recording"));
        place.past(Past::now("upload").failed("503"));
        place.span("render").in_scope(|| {});
        let spans = kept.0.lock().unwrap().split_off(0);
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
        match names.as_slice() {
            ["upload"] => {}
            ["recording", "upload", "render"] => taken += 1,
            other => panic!("half a trace: {other:?}"),
        }
        assert!(spans.iter().all(|span| span.span_context.is_sampled()));
    }
    assert!((70..130).contains(&taken), "{taken} of 400 at a share of a quarter");
}

#[tokio::test(start_paused = true)]
async fn long_work_is_cut_into_chapters_that_are_linked() {
    let (kept, _guard) = traced(1.0);
    let below = Place::publish(recording(1), Epoch::new(1));
    let mut chapters = Chapters::new(below, "record", ("aircheck.format", "mp4"));
    let first = chapters.place();
    assert_eq!(chapters.place(), first);
    tokio::time::advance(CHAPTER).await;
    let second = chapters.place();
    assert_ne!(second, first);
    second.span("render").in_scope(|| {});

    let all = kept.all();
    assert_eq!(all.len(), 3, "{all:#?}");
    let (one, two) = (&all[0], &all[1]);
    assert_eq!((one.parent_span_id, two.parent_span_id), (below.span, below.span));
    assert!(one.links.links.is_empty());
    assert_eq!(two.links.links[0].span_context.span_id(), one.span_context.span_id());
    assert_eq!(all[2].parent_span_id, two.span_context.span_id());
}

#[test]
fn requests_hang_below_the_work_that_makes_them() {
    let (kept, _guard) = traced(1.0);
    request("storage").in_scope(|| {});
    assert!(kept.all().is_empty(), "nothing is traced here");
    Place::recording(recording(1))
        .span("upload")
        .in_scope(|| fail(&request("storage"), "503"));
    let (work, request) = (kept.named("upload"), kept.named("storage"));
    assert_eq!(request.parent_span_id, work.span_context.span_id());
    assert_eq!((work.status, request.status), (Status::Unset, Status::error("503")));
}

#[test]
fn without_a_receiver_nothing_comes_of_it() {
    let place = Place::recording(recording(1));
    place.show(Past::now("recording"));
    assert_eq!(place.past(Past::now("x")).recording, place.recording);
    let mut headers = HashMap::new();
    place.call("c").in_scope(|| inject(&mut headers));
    assert!(headers.is_empty());
}
