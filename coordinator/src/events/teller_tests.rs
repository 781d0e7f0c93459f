use shared::{
    ids::{FileId, IdGen, PublishId, RecordingId, Seeded, WorkerId},
    lease::{Epoch, FencingToken},
    recording::{Cause, RecordingState},
    store::{Model, RecordingUpdate},
    telemetry::Metrics,
    template::{Format, TemplateSpec},
    time::Manual,
};

use super::*;
use crate::events::{
    Kind, Policy,
    book::{CallbackSpec, Place},
    desk,
};

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

struct World {
    inner: Arc<dyn MetaStore>,
    teller: Arc<Teller>,
    clock: Arc<Manual>,
    metrics: CoordinatorMetrics,
}

impl World {
    async fn new(max_pending: usize) -> World {
        let clock = Arc::new(Manual::at(at(0)));
        let inner: Arc<dyn MetaStore> = Arc::new(Model::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let metrics = Metrics::new().coordinator;
        let repo = Repo::new(Arc::clone(&inner));
        let spec = CallbackSpec {
            name: "all".to_owned(),
            urls: Kind::ALL
                .into_iter()
                .map(|kind| (kind, "http://receiver.example/".to_owned()))
                .collect(),
            ..CallbackSpec::default()
        };
        let made = desk::change(&repo, |book| {
            book.create_template(spec.clone(), &Policy::default(), at(0))
        });
        let id = made.await.unwrap().unwrap().id;
        desk::change(&repo, |book| book.create_rule(Place::new("d", "").unwrap(), id, at(0)))
            .await
            .unwrap()
            .unwrap();
        let mut world = World {
            teller: Arc::new(Teller::new(
                Arc::clone(&inner),
                Arc::clone(&clock) as Arc<dyn Clock>,
                EventsConfig::default(),
                metrics.clone(),
            )),
            inner,
            clock,
            metrics,
        };
        world.fresh(max_pending);
        world
    }

    /// Another process over the same store.
    fn fresh(&mut self, max_pending: usize) {
        let config = EventsConfig {
            max_pending,
            ..EventsConfig::default()
        };
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.teller = Arc::new(Teller::new(
            Arc::clone(&self.inner),
            clock,
            config,
            self.metrics.clone(),
        ));
    }

    fn repo(&self) -> Repo {
        Repo::new(Arc::clone(&self.teller) as Arc<dyn MetaStore>)
    }

    /// What is told so far, in its order.
    async fn told(&self) -> Vec<String> {
        let letters: Vec<Letter> = Repo::new(Arc::clone(&self.inner)).all(keys::OUTBOX).await.unwrap();
        let word = |event: &crate::events::letter::Event| {
            let status = event.body.get("record_event").and_then(|word| word.as_str());
            status.map_or_else(|| event.kind.to_string(), str::to_owned)
        };
        letters
            .iter()
            .flat_map(|letter| letter.events.iter().map(word))
            .collect()
    }
}

fn parts(domain: &str) -> (PublishRecord, Recording, MediaFile) {
    let ids = Seeded::new(domain.len() as u64);
    let stream = StreamKey::new(domain, "a", "s").unwrap();
    let publish = PublishRecord {
        id: PublishId::generate(&ids, at(0)),
        stream: stream.clone(),
        worker: WorkerId::generate(&ids, at(0)),
        epoch: Epoch::new(1),
        params: String::new(),
        client_addr: "127.0.0.1:1".to_owned(),
        started: at(0),
        ended: None,
        reason: String::new(),
        recordings: vec![],
        revision: 1,
        windows: std::collections::BTreeMap::new(),
        storage: String::new(),
        places: std::collections::BTreeMap::new(),
    };
    let recording = Recording {
        id: RecordingId::generate(&ids, at(0)),
        stream: stream.clone(),
        cause: Cause::BuiltIn,
        state: RecordingState::Recording,
        reason: String::new(),
        epoch: Epoch::new(1),
        template: TemplateSpec::plain("x", &[Format::Flv]),
        template_id: None,
        publishes: vec![publish.id],
        worker: publish.worker,
        params: String::new(),
        started: at(0),
        ended: None,
        gaps: vec![],
        locked: false,
    };
    let file = MediaFile {
        id: FileId::from_uuid(ids.uuid(at(0))),
        recording: recording.id,
        stream,
        format: Format::Flv,
        sequence: 0,
        name: "x.flv".to_owned(),
        object_key: "k/x.flv".to_owned(),
        size: 1,
        duration_ms: 1_000,
        start: at(0),
        end: at(1_000),
        checksum: String::new(),
        video_units: 1,
        audio_units: 1,
        gaps: vec![],
        epoch: Epoch::new(1),
        committed: at(0),
        expires: None,
        locked: false,
        copied: None,
    };
    (publish, recording, file)
}

fn begin(publish: &PublishRecord, recording: &Recording) -> Txn {
    Txn::new()
        .put_json(keys::publish(publish.id), publish)
        .and_then(|txn| txn.put_json(keys::recording(recording.id), recording))
        .unwrap()
}

fn update(state: RecordingState) -> RecordingUpdate {
    RecordingUpdate {
        state,
        reason: String::new(),
        ended: None,
        gaps: vec![],
        files: None,
    }
}

/// A whole publish by the hands that write it; each step is in the store with its events, or neither is.
#[tokio::test]
async fn whoever_is_killed_between_two_steps_has_told_of_what_is_stored_and_of_nothing_else() {
    let mut world = World::new(100).await;
    let (publish, recording, file) = parts("d");
    let token = FencingToken {
        recording: recording.id,
        epoch: Epoch::new(1),
    };
    let mut expected: Vec<&str> = Vec::new();
    for step in 0..6 {
        // Whoever takes the next step knows nothing of those before, and its clock may be behind.
        world.fresh(100);
        world.clock.set_wall(at(-1_000 * step));
        let repo = world.repo();
        match step {
            0 => {
                repo.store().commit(begin(&publish, &recording)).await.unwrap();
                expected.extend(["push_start", "record_start_succeeded"]);
            }
            1 => {
                repo.commit_file(token, file.clone(), at(0)).await.unwrap();
                expected.push("file");
            }
            2 => repo.commit_file(token, file.clone(), at(0)).await.unwrap(),
            3 => {
                repo.set_interrupted(recording.id, true, at(0)).await.unwrap();
                expected.push("record_paused");
            }
            4 => {
                let over = PublishRecord {
                    ended: Some(at(9)),
                    ..publish.clone()
                };
                let txn = Txn::new().put_json(keys::publish(publish.id), &over).unwrap();
                repo.store().commit(txn).await.unwrap();
                expected.push("push_end");
            }
            _ => {
                repo.commit_recording(token, &update(RecordingState::Finished))
                    .await
                    .unwrap();
                repo.commit_recording(token, &update(RecordingState::Finished))
                    .await
                    .unwrap();
                expected.push("record_ended");
            }
        }
        assert_eq!(world.told().await, expected, "after step {step}");
    }
    // A transaction that does not happen tells nothing.
    let stale = Txn::new()
        .guard(Guard::Absent(keys::publish(publish.id)))
        .put_json(keys::publish(publish.id), &publish)
        .unwrap();
    assert!(matches!(
        world.teller.commit(stale).await,
        Err(StoreError::Stale { .. })
    ));
    assert_eq!(world.told().await, expected);
}

#[tokio::test]
async fn nobody_hears_of_other_domains_and_too_many_events_are_counted() {
    let mut world = World::new(5).await;
    let (publish, recording, _) = parts("other");
    world.teller.commit(begin(&publish, &recording)).await.unwrap();
    assert_eq!(world.told().await, Vec::<String>::new());
    world.metrics.events_pending.set(5);
    let (publish, recording, _) = parts("d");
    world.teller.commit(begin(&publish, &recording)).await.unwrap();
    assert_eq!((world.told().await.len(), world.metrics.events_dropped.get()), (0, 2));
    world.metrics.events_pending.set(4);
    world.fresh(5);
    world
        .inner
        .commit(Txn::new().delete(keys::publish(publish.id)))
        .await
        .unwrap();
    world.teller.commit(begin(&publish, &recording)).await.unwrap();
    assert_eq!(world.told().await, ["push_start"], "the recording was there before");
}
