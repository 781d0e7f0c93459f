//! The coordinator over real gRPC on loopback and an embedded store on disk.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use coordinator::{Deps, Running, start};
use proto::v1::{self, acquire_lease_response::Outcome};
use shared::{
    config::{CoordinatorConfig, StoreConfig},
    ids::{FileId, IdGen, PublishId, Random, WorkerId},
    store::{Embedded, MAX_VALUE_BYTES, MetaStore as _, Txn, keys},
    telemetry::Metrics,
    time::{Clock as _, System, Timestamp},
    wire,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

const LIMIT: Duration = Duration::from_secs(20);

/// A coordinator on a folder, and every client.
struct World {
    dir: tempfile::TempDir,
    config: CoordinatorConfig,
    running: Option<Running>,
    channel: Channel,
    metrics: Metrics,
    ids: Random,
}

impl World {
    async fn new(change: impl FnOnce(&mut CoordinatorConfig)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = CoordinatorConfig {
            http: any,
            grpc: any,
            data_dir: dir.path().to_owned(),
            heartbeat: Duration::from_millis(100),
            worker_timeout: Duration::from_millis(400),
            ..CoordinatorConfig::default()
        };
        change(&mut config);
        let metrics = Metrics::new();
        let (running, channel) = run(&config, &metrics).await;
        World {
            dir,
            config,
            running: Some(running),
            channel,
            metrics,
            ids: Random,
        }
    }

    /// Ends the coordinator and starts another on the same folder.
    async fn restart(&mut self) {
        let stopping = std::time::Instant::now();
        self.running.take().unwrap().stop().await;
        assert!(
            stopping.elapsed() < Duration::from_secs(3),
            "a stop waits for nothing: {:?}",
            stopping.elapsed()
        );
        (self.running, self.channel) = {
            let (running, channel) = run(&self.config, &self.metrics).await;
            (Some(running), channel)
        };
    }

    fn templates(&self) -> v1::templates_client::TemplatesClient<Channel> {
        v1::templates_client::TemplatesClient::new(self.channel.clone())
    }

    fn rules(&self) -> v1::rules_client::RulesClient<Channel> {
        v1::rules_client::RulesClient::new(self.channel.clone())
    }

    fn streams(&self) -> v1::streams_client::StreamsClient<Channel> {
        v1::streams_client::StreamsClient::new(self.channel.clone())
    }

    fn recordings(&self) -> v1::recordings_client::RecordingsClient<Channel> {
        v1::recordings_client::RecordingsClient::new(self.channel.clone())
    }

    fn files(&self) -> v1::files_client::FilesClient<Channel> {
        v1::files_client::FilesClient::new(self.channel.clone())
    }

    fn workers(&self) -> v1::workers_client::WorkersClient<Channel> {
        v1::workers_client::WorkersClient::new(self.channel.clone())
    }

    fn now(&self) -> Timestamp {
        System::new().now()
    }

    async fn create_template(&self, name: &str, formats: &[v1::Format]) -> Result<v1::Template, tonic::Status> {
        let spec = spec(name, formats);
        let made = self
            .templates()
            .create_template(v1::CreateTemplateRequest { spec: Some(spec) })
            .await?;
        Ok(made.into_inner().template.unwrap())
    }

    async fn create_rule(
        &self,
        domain: &str,
        app: &str,
        stream: &str,
        template: &str,
    ) -> Result<v1::Rule, tonic::Status> {
        let request = v1::CreateRuleRequest {
            key: Some(v1::RuleKey {
                domain: domain.into(),
                app: app.into(),
                stream: stream.into(),
            }),
            template: Some(v1::create_rule_request::Template::TemplateName(template.into())),
        };
        Ok(self.rules().create_rule(request).await?.into_inner().rule.unwrap())
    }

    fn ask(&self, worker: WorkerId, stream: &str) -> v1::AcquireLeaseRequest {
        v1::AcquireLeaseRequest {
            worker_id: worker.to_string(),
            publish_id: PublishId::generate(&self.ids, self.now()).to_string(),
            stream: Some(v1::StreamKey {
                domain: "d".into(),
                app: "live".into(),
                stream: stream.into(),
            }),
            params: "a=1".into(),
            client_addr: "127.0.0.1:9".into(),
            started_ms: self.now().as_millis(),
            adopted: false,
        }
    }

    async fn acquire(&self, request: &v1::AcquireLeaseRequest) -> Outcome {
        self.workers()
            .acquire_lease(request.clone())
            .await
            .unwrap()
            .into_inner()
            .outcome
            .unwrap()
    }

    async fn grant(&self, request: &v1::AcquireLeaseRequest) -> v1::LeaseGranted {
        match self.acquire(request).await {
            Outcome::Granted(granted) => granted,
            Outcome::Refused(refused) => panic!("{refused:?}"),
        }
    }

    fn worker(&self) -> WorkerId {
        WorkerId::from_uuid(self.ids.uuid(self.now()))
    }

    async fn session(&self, worker: WorkerId) -> Session {
        let (up, outbox) = mpsc::channel(16);
        let hello = v1::Hello {
            worker_id: worker.to_string(),
            name: "w".into(),
            rtmp_addr: "127.0.0.1:1".into(),
            version: "1".into(),
        };
        up.send(v1::WorkerUp {
            message: Some(v1::worker_up::Message::Hello(hello)),
        })
        .await
        .unwrap();
        let mut down = self
            .workers()
            .session(ReceiverStream::new(outbox))
            .await
            .unwrap()
            .into_inner();
        let welcome = down.message().await.unwrap().unwrap();
        assert!(matches!(welcome.message, Some(v1::coordinator_down::Message::Welcome(w)) if w.heartbeat_ms == 100));
        Session { up, down }
    }

    /// Live streams by name, with their state.
    async fn live(&self) -> Vec<(String, v1::StreamState)> {
        let list = self
            .streams()
            .list_streams(v1::ListStreamsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .streams;
        list.into_iter()
            .map(|live| (live.stream.clone().unwrap().stream, live.state()))
            .collect()
    }

    async fn recording(&self, id: &str) -> v1::Recording {
        let request = v1::GetRecordingRequest {
            recording_id: id.into(),
        };
        self.recordings()
            .get_recording(request)
            .await
            .unwrap()
            .into_inner()
            .recording
            .unwrap()
    }

    fn file(&self, format: v1::Format, sequence: u32) -> v1::MediaFile {
        v1::MediaFile {
            file_id: FileId::generate(&self.ids, self.now()).to_string(),
            format: format.into(),
            sequence,
            name: "x.flv".into(),
            object_key: "k/x.flv".into(),
            size: 1_000,
            duration_ms: 5_000,
            checksum: "crc64nvme:1".into(),
            ..Default::default()
        }
    }
}

struct Session {
    up: mpsc::Sender<v1::WorkerUp>,
    down: tonic::Streaming<v1::CoordinatorDown>,
}

impl Session {
    async fn beat(&self, publishes: &[&v1::AcquireLeaseRequest]) {
        let live = |request: &&v1::AcquireLeaseRequest| v1::LivePublish {
            publish_id: request.publish_id.clone(),
            counters: Some(v1::StreamCounters {
                bits_per_second: 5,
                video_units: 6,
                audio_units: 7,
                bytes: 8,
            }),
        };
        let beat = v1::Heartbeat {
            publishes: publishes.iter().map(live).collect(),
            journal_bytes: 1,
            cpu_milli: 2,
        };
        self.up
            .send(v1::WorkerUp {
                message: Some(v1::worker_up::Message::Heartbeat(beat)),
            })
            .await
            .unwrap();
    }
}

async fn run(config: &CoordinatorConfig, metrics: &Metrics) -> (Running, Channel) {
    let deps = Deps {
        clock: Arc::new(System::new()),
        ids: Arc::new(Random),
        metrics: metrics.clone(),
    };
    let running = start(config.clone(), StoreConfig::default(), deps).await.unwrap();
    let url = format!("http://{}", running.grpc_addr());
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    (running, channel)
}

fn spec(name: &str, formats: &[v1::Format]) -> v1::TemplateSpec {
    let settings = |format: &v1::Format| v1::FormatSettings {
        format: (*format).into(),
        ..Default::default()
    };
    v1::TemplateSpec {
        name: name.into(),
        description: String::new(),
        formats: formats.iter().map(settings).collect(),
    }
}

fn named(name: &str) -> Option<v1::TemplateRef> {
    Some(v1::TemplateRef {
        by: Some(v1::template_ref::By::Name(name.into())),
    })
}

/// Asks again and again until the answer is the one that must come.
async fn until<T: PartialEq + std::fmt::Debug>(expected: T, mut ask: impl AsyncFnMut() -> T) {
    let mut last = None;
    let waiting = async {
        loop {
            let answer = ask().await;
            if answer == expected {
                return;
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    assert!(waited.is_ok(), "still {last:?}, not {expected:?}");
}

#[actix_rt::test]
async fn templates_live_and_are_limited() {
    let mut world = World::new(|config| config.max_templates = 3).await;
    let made = world
        .create_template("day", &[v1::Format::Flv, v1::Format::Hls])
        .await
        .unwrap();
    let settings = made.spec.clone().unwrap().formats;
    assert_eq!(
        settings
            .iter()
            .map(|f| (f.format(), f.record_interval_s))
            .collect::<Vec<_>>(),
        [(v1::Format::Flv, 1_800), (v1::Format::Hls, 1_800)]
    );
    assert!(
        settings.iter().all(|f| f.file_name.starts_with("{StreamID}_")),
        "defaults are filled in"
    );
    let again = world.create_template("day", &[]).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    for (name, formats, message) in [
        ("a b", vec![], "letters, digits"),
        ("x", vec![v1::Format::Unspecified], "FLV, HLS, MP4, AAC or MP3"),
        ("x", vec![v1::Format::Flv, v1::Format::Flv], "twice"),
        ("built-in", vec![], "--record"),
    ] {
        let refused = world.create_template(name, &formats).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(message), "{}", refused.message());
    }
    world.create_template("night", &[]).await.unwrap();
    world.create_template("third", &[]).await.unwrap();
    let full = world.create_template("fourth", &[]).await.unwrap_err();
    assert_eq!(
        (full.code(), full.message().contains("coordinator.max_templates")),
        (Code::ResourceExhausted, true)
    );

    let update = v1::UpdateTemplateRequest {
        template: named("night"),
        spec: Some(spec("nights", &[v1::Format::Mp4])),
    };
    world.templates().update_template(update.clone()).await.unwrap();
    assert_eq!(
        world.templates().update_template(update).await.unwrap_err().code(),
        Code::NotFound
    );
    world
        .templates()
        .delete_template(v1::DeleteTemplateRequest {
            template: named("third"),
        })
        .await
        .unwrap();
    world.restart().await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListTemplatesRequest {
            page_size: 1,
            page_token,
        };
        let page = world.templates().list_templates(request).await.unwrap().into_inner();
        names.extend(page.templates.into_iter().map(|template| template.spec.unwrap().name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["day", "nights"]);
    let get = v1::GetTemplateRequest { template: named("day") };
    assert_eq!(
        world.templates().get_template(get).await.unwrap().into_inner().template,
        Some(made)
    );
    let bad = v1::ListTemplatesRequest {
        page_token: "x".into(),
        page_size: 0,
    };
    assert_eq!(
        world.templates().list_templates(bad).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[actix_rt::test]
async fn rules_bind_templates_and_say_why() {
    let mut world = World::new(|config| config.record = vec![shared::template::Format::Aac]).await;
    world.create_template("day", &[v1::Format::Flv]).await.unwrap();
    world.create_template("never", &[]).await.unwrap();
    assert_eq!(
        world.create_rule("d", "", "", "none").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        world.create_rule("", "", "", "day").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    world.create_rule("D", "", "", "day").await.unwrap();
    assert_eq!(
        world.create_rule("d", "", "", "never").await.unwrap_err().code(),
        Code::AlreadyExists
    );
    world.create_rule("d", "live", "quiet", "never").await.unwrap();
    let used = world
        .templates()
        .delete_template(v1::DeleteTemplateRequest { template: named("day") })
        .await
        .unwrap_err();
    assert_eq!(used.code(), Code::FailedPrecondition);
    assert!(used.message().contains("d/*/*"), "{}", used.message());

    world.restart().await;
    let explain = async |domain: &str, stream: &str| {
        let stream = v1::StreamKey {
            domain: domain.into(),
            app: "live".into(),
            stream: stream.into(),
        };
        let request = v1::ExplainStreamRequest { stream: Some(stream) };
        world.streams().explain_stream(request).await.unwrap().into_inner()
    };
    let said = explain("d", "cam").await;
    assert_eq!(said.formats().collect::<Vec<_>>(), [v1::Format::Flv]);
    assert_eq!(
        said.candidates
            .iter()
            .filter(|c| c.wins)
            .map(|c| c.rule.as_str())
            .collect::<Vec<_>>(),
        ["d/*/*"]
    );
    assert_eq!(said.candidates.len(), 5);
    assert_eq!(explain("d", "quiet").await.formats.len(), 0);
    assert_eq!(
        explain("e", "cam").await.formats().collect::<Vec<_>>(),
        [v1::Format::Aac]
    );
    let quiet = world.grant(&world.ask(world.worker(), "quiet")).await;
    assert!(quiet.recordings.is_empty(), "a no-record template wins like any other");

    let list = world
        .rules()
        .list_rules(v1::ListRulesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .rules;
    let shown: Vec<_> = list
        .iter()
        .map(|rule| (rule.key.clone().unwrap().stream, rule.template_name.clone()))
        .collect();
    assert_eq!(
        shown,
        [
            (String::new(), "day".to_owned()),
            ("quiet".to_owned(), "never".to_owned())
        ]
    );
    let key = Some(v1::RuleKey {
        domain: "d".into(),
        ..Default::default()
    });
    world
        .rules()
        .delete_rule(v1::DeleteRuleRequest { key: key.clone() })
        .await
        .unwrap();
    assert_eq!(
        world
            .rules()
            .delete_rule(v1::DeleteRuleRequest { key })
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

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

#[actix_rt::test]
async fn finished_files_enter_the_library_once_and_only_under_the_current_epoch() {
    let mut world = World::new(|config| config.record = vec![shared::template::Format::Flv]).await;
    let ask = world.ask(world.worker(), "cam");
    let granted = world.grant(&ask).await;
    let recording = granted.recordings[0].recording_id.clone();
    let first = world.file(v1::Format::Flv, 0);
    let commit = v1::CommitFileRequest {
        recording_id: recording.clone(),
        epoch: 1,
        file: Some(first.clone()),
    };
    world.workers().commit_file(commit.clone()).await.unwrap();
    world.workers().commit_file(commit.clone()).await.unwrap();

    let stale = v1::CommitFileRequest {
        epoch: 0,
        file: Some(world.file(v1::Format::Flv, 1)),
        ..commit.clone()
    };
    let fenced = world.workers().commit_file(stale).await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
    let detail = wire::fenced_from_details(fenced.details()).unwrap();
    assert_eq!((detail.held.get(), detail.current.get()), (0, 1));
    assert_eq!(world.metrics.coordinator.fenced.get(), 1);
    let nowhere = v1::CommitFileRequest {
        recording_id: world.ask(world.worker(), "x").publish_id,
        ..commit.clone()
    };
    assert_eq!(
        world.workers().commit_file(nowhere).await.unwrap_err().code(),
        Code::NotFound
    );

    let end = |files| v1::CommitRecordingRequest {
        recording_id: recording.clone(),
        epoch: 1,
        state: v1::RecordingState::Finished.into(),
        reason: "unpublish".into(),
        ended_ms: 99,
        gaps: vec![v1::Gap {
            reason: "torn_tail".into(),
            from_ms: 1,
            to_ms: 2,
            units: 0,
        }],
        files,
    };
    let early = world.workers().commit_recording(end(2)).await.unwrap_err();
    assert_eq!(
        (early.code(), early.message().contains("commit the files first")),
        (Code::FailedPrecondition, true)
    );
    let second = v1::CommitFileRequest {
        file: Some(world.file(v1::Format::Flv, 1)),
        ..commit.clone()
    };
    world.workers().commit_file(second).await.unwrap();
    world.restart().await;
    world.workers().commit_recording(end(2)).await.unwrap();
    world.workers().commit_recording(end(2)).await.unwrap();
    let failed = v1::CommitRecordingRequest {
        state: v1::RecordingState::Failed.into(),
        ..end(0)
    };
    assert_eq!(
        world.workers().commit_recording(failed).await.unwrap_err().code(),
        Code::FailedPrecondition
    );

    let stored = world.recording(&recording).await;
    assert_eq!(
        (stored.state(), stored.file_count, stored.bytes),
        (v1::RecordingState::Finished, 2, 2_000)
    );
    assert_eq!(
        (stored.ended_ms, stored.gaps.len(), stored.reason.as_str()),
        (99, 1, "unpublish")
    );
    let request = v1::ListFilesRequest {
        recording_id: recording.clone(),
        ..Default::default()
    };
    let files = world.files().list_files(request).await.unwrap().into_inner().files;
    assert_eq!(files.iter().map(|file| file.sequence).collect::<Vec<_>>(), [0, 1]);
    let get = v1::GetFileRequest { file_id: first.file_id };
    let file = world.files().get_file(get).await.unwrap().into_inner().file.unwrap();
    assert_eq!((file.epoch, file.stream.unwrap().stream.as_str()), (1, "cam"));
    assert!(file.committed_ms > 0);

    // Asked about again after a restart of its worker, the publish has nothing left to do.
    let adopted = world.grant(&v1::AcquireLeaseRequest { adopted: true, ..ask }).await;
    assert_eq!(adopted.recordings[0].state(), v1::RecordingState::Finished);
    let filter = v1::ListRecordingsRequest {
        state: v1::RecordingState::Finished.into(),
        domain: "D".into(),
        ..Default::default()
    };
    let list = world
        .recordings()
        .list_recordings(filter)
        .await
        .unwrap()
        .into_inner()
        .recordings;
    assert_eq!(
        list.into_iter().map(|r| r.recording_id).collect::<Vec<_>>(),
        [recording]
    );
}

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

fn deps() -> Deps {
    Deps {
        clock: Arc::new(System::new()),
        ids: Arc::new(Random),
        metrics: Metrics::new(),
    }
}
