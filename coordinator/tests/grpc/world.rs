//! A coordinator on a folder, and every client.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use coordinator::{Deps, Running, start};
use proto::v1::{self, acquire_lease_response::Outcome};
use shared::{
    config::{CoordinatorConfig, StoreConfig},
    ids::{FileId, IdGen, PublishId, Random, WorkerId},
    telemetry::Metrics,
    time::{Clock as _, System, Timestamp},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A coordinator on a folder, and every client.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: CoordinatorConfig,
    pub(crate) running: Option<Running>,
    pub(crate) channel: Channel,
    pub(crate) metrics: Metrics,
    pub(crate) ids: Random,
}

impl World {
    pub(crate) async fn new(change: impl FnOnce(&mut CoordinatorConfig)) -> World {
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
    pub(crate) async fn restart(&mut self) {
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

    pub(crate) fn templates(&self) -> v1::templates_client::TemplatesClient<Channel> {
        v1::templates_client::TemplatesClient::new(self.channel.clone())
    }

    pub(crate) fn rules(&self) -> v1::rules_client::RulesClient<Channel> {
        v1::rules_client::RulesClient::new(self.channel.clone())
    }

    pub(crate) fn streams(&self) -> v1::streams_client::StreamsClient<Channel> {
        v1::streams_client::StreamsClient::new(self.channel.clone())
    }

    pub(crate) fn recordings(&self) -> v1::recordings_client::RecordingsClient<Channel> {
        v1::recordings_client::RecordingsClient::new(self.channel.clone())
    }

    pub(crate) fn files(&self) -> v1::files_client::FilesClient<Channel> {
        v1::files_client::FilesClient::new(self.channel.clone())
    }

    pub(crate) fn pulls(&self) -> v1::pull_sources_client::PullSourcesClient<Channel> {
        v1::pull_sources_client::PullSourcesClient::new(self.channel.clone())
    }

    pub(crate) fn tasks(&self) -> v1::tasks_client::TasksClient<Channel> {
        v1::tasks_client::TasksClient::new(self.channel.clone())
    }

    pub(crate) fn workers(&self) -> v1::workers_client::WorkersClient<Channel> {
        v1::workers_client::WorkersClient::new(self.channel.clone())
    }

    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.running.as_ref().unwrap().http_addr()
    }

    pub(crate) fn now(&self) -> Timestamp {
        System::new().now()
    }

    pub(crate) async fn create_template(
        &self,
        name: &str,
        formats: &[v1::Format],
    ) -> Result<v1::Template, tonic::Status> {
        let spec = spec(name, formats);
        let made = self
            .templates()
            .create_template(v1::CreateTemplateRequest { spec: Some(spec) })
            .await?;
        Ok(made.into_inner().template.unwrap())
    }

    pub(crate) async fn create_rule(
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

    pub(crate) fn ask(&self, worker: WorkerId, stream: &str) -> v1::AcquireLeaseRequest {
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
            ..Default::default()
        }
    }

    pub(crate) async fn acquire(&self, request: &v1::AcquireLeaseRequest) -> Outcome {
        self.workers()
            .acquire_lease(request.clone())
            .await
            .unwrap()
            .into_inner()
            .outcome
            .unwrap()
    }

    pub(crate) async fn grant(&self, request: &v1::AcquireLeaseRequest) -> v1::LeaseGranted {
        match self.acquire(request).await {
            Outcome::Granted(granted) => granted,
            Outcome::Refused(refused) => panic!("{refused:?}"),
        }
    }

    pub(crate) fn worker(&self) -> WorkerId {
        WorkerId::from_uuid(self.ids.uuid(self.now()))
    }

    pub(crate) async fn session(&self, worker: WorkerId) -> Session {
        self.session_of(worker, "w").await
    }

    /// A session of a worker with this name.
    pub(crate) async fn session_of(&self, worker: WorkerId, name: &str) -> Session {
        self.session_at(worker, name, "").await
    }

    /// A session of a worker that stores here; those who store in one place read each other's.
    pub(crate) async fn session_at(&self, worker: WorkerId, name: &str, storage: &str) -> Session {
        let (up, outbox) = mpsc::channel(16);
        let hello = v1::Hello {
            worker_id: worker.to_string(),
            name: name.into(),
            rtmp_addr: "127.0.0.1:1".into(),
            version: "1".into(),
            storage: storage.to_owned(),
            places: Vec::new(),
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
    pub(crate) async fn live(&self) -> Vec<(String, v1::StreamState)> {
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

    pub(crate) async fn recording(&self, id: &str) -> v1::Recording {
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

    pub(crate) fn file(&self, format: v1::Format, sequence: u32) -> v1::MediaFile {
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

pub(crate) struct Session {
    pub(crate) up: mpsc::Sender<v1::WorkerUp>,
    pub(crate) down: tonic::Streaming<v1::CoordinatorDown>,
}

impl Session {
    pub(crate) async fn beat(&self, publishes: &[&v1::AcquireLeaseRequest]) {
        self.beat_at(1, publishes).await;
    }

    /// A heartbeat of a worker that leaves because its set shrinks.
    pub(crate) async fn beat_leaving(&self, publishes: &[&v1::AcquireLeaseRequest]) {
        let leaving = v1::Heartbeat {
            draining: true,
            draining_for_scale_in: true,
            ..Default::default()
        };
        self.beat_with(leaving, 1, publishes).await;
    }

    /// A heartbeat of a worker that has applied this revision of each publish's recordings.
    pub(crate) async fn beat_at(&self, revision: u64, publishes: &[&v1::AcquireLeaseRequest]) {
        self.beat_with(v1::Heartbeat::default(), revision, publishes).await;
    }

    async fn beat_with(&self, says: v1::Heartbeat, revision: u64, publishes: &[&v1::AcquireLeaseRequest]) {
        let live = |request: &&v1::AcquireLeaseRequest| v1::LivePublish {
            publish_id: request.publish_id.clone(),
            counters: Some(v1::StreamCounters {
                bits_per_second: 5,
                video_units: 6,
                audio_units: 7,
                bytes: 8,
            }),
            revision,
        };
        let beat = v1::Heartbeat {
            publishes: publishes.iter().map(live).collect(),
            journal_bytes: 1,
            cpu_milli: 2,
            ..says
        };
        self.up
            .send(v1::WorkerUp {
                message: Some(v1::worker_up::Message::Heartbeat(beat)),
            })
            .await
            .unwrap();
    }
}

impl Session {
    /// The next set of recordings that comes down.
    pub(crate) async fn set(&mut self) -> v1::SetRecordings {
        let next = async {
            loop {
                let down = self.down.message().await.unwrap().unwrap();
                if let Some(v1::coordinator_down::Message::SetRecordings(set)) = down.message {
                    return set;
                }
            }
        };
        tokio::time::timeout(LIMIT, next).await.expect("a set of recordings")
    }
}

/// Status and body of an HTTP request.
pub(crate) async fn http(address: SocketAddr, method: &str, target: &str, body: &str) -> (u16, String) {
    http_with(address, method, target, "", body).await
}

/// The same with further header lines, each with its end.
pub(crate) async fn http_with(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // A request that is too long is answered before it is read, and the rest of it reset.
    let _ = socket.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    let status = answer.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

pub(crate) async fn run(config: &CoordinatorConfig, metrics: &Metrics) -> (Running, Channel) {
    let deps = Deps {
        clock: Arc::new(System::new()),
        ids: Arc::new(Random),
        metrics: metrics.clone(),
    };
    let running = start(config.clone(), StoreConfig::default(), deps).await.unwrap();
    let channel = connect(&running).await;
    (running, channel)
}

/// A connection to a coordinator.
pub(crate) async fn connect(running: &Running) -> Channel {
    let url = format!("http://{}", running.grpc_addr());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

pub(crate) fn spec(name: &str, formats: &[v1::Format]) -> v1::TemplateSpec {
    let settings = |format: &v1::Format| v1::FormatSettings {
        format: (*format).into(),
        ..Default::default()
    };
    v1::TemplateSpec {
        name: name.into(),
        description: String::new(),
        formats: formats.iter().map(settings).collect(),
        place: String::new(),
    }
}

pub(crate) fn named(name: &str) -> Option<v1::TemplateRef> {
    Some(v1::TemplateRef {
        by: Some(v1::template_ref::By::Name(name.into())),
    })
}

/// Asks again and again until the answer is the one that must come.
pub(crate) async fn until<T: PartialEq + std::fmt::Debug>(expected: T, mut ask: impl AsyncFnMut() -> T) {
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

pub(crate) fn deps() -> Deps {
    Deps {
        clock: Arc::new(System::new()),
        ids: Arc::new(Random),
        metrics: Metrics::new(),
    }
}
