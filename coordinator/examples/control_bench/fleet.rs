//! Simulated workers: each holds a session with heartbeats that name all its publishes, and speaks for them as a worker does.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use proto::v1::{
    self, acquire_lease_response::Outcome, coordinator_down::Message as Down, worker_up::Message as Up,
    workers_client::WorkersClient,
};
use shared::{
    auth::Caller,
    ids::{FileId, IdGen as _, PublishId, Random},
    servers::{Manner, Servers},
    time::{Clock as _, System},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;

/// Calls under way while everything is leased or renewed.
const AT_A_TIME: usize = 128;
/// Wait before a call or a session is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// For how long a call is made again.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Makes a call until it is answered, as a worker does: none of them happens twice.
macro_rules! told {
    ($worker:ident.$call:ident($request:ident)) => {{
        let begin = Instant::now();
        loop {
            match $worker.client().$call($request.clone()).await {
                Ok(_) => break,
                Err(status) if status.code() == tonic::Code::Unavailable && begin.elapsed() < CALL_LIMIT => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }};
}

/// A stream that is leased.
#[derive(Clone)]
struct Leased {
    request: v1::AcquireLeaseRequest,
    granted: v1::LeaseGranted,
}

struct Worker {
    id: String,
    servers: Servers,
    live: Mutex<Vec<Leased>>,
    /// Sessions that were welcomed.
    welcomed: watch::Sender<usize>,
    /// Publishes that a coordinator did not know.
    strangers: AtomicUsize,
}

/// Many of them.
pub(crate) struct Fleet {
    workers: Vec<Arc<Worker>>,
    /// Welcomes that each had when they were forgotten.
    since: Vec<usize>,
    _sessions: JoinSet<()>,
    next: AtomicUsize,
}

/// What came of asking for everything again.
pub(crate) struct Renewed {
    /// Streams that the leader did not know, or knew under another epoch.
    pub(crate) strangers: usize,
}

impl Worker {
    fn client(&self) -> WorkersClient<Servers> {
        WorkersClient::new(self.servers.clone())
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Vec<Leased>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heartbeat(&self) -> v1::WorkerUp {
        let live = self.live();
        let publishes = live.iter().map(|leased| v1::LivePublish {
            publish_id: leased.request.publish_id.clone(),
            counters: Some(v1::StreamCounters {
                bits_per_second: 2_500_000,
                video_units: 7,
                audio_units: 11,
                bytes: 1_000_000,
            }),
            revision: leased.granted.revision,
        });
        let heartbeat = v1::Heartbeat {
            publishes: publishes.collect(),
            ..Default::default()
        };
        v1::WorkerUp {
            message: Some(Up::Heartbeat(heartbeat)),
        }
    }

    /// One session, until it ends.
    async fn session(&self) -> Result<()> {
        let (up, outbox) = mpsc::channel(4);
        let hello = v1::Hello {
            worker_id: self.id.clone(),
            name: "simulated".into(),
            rtmp_addr: "127.0.0.1:1".into(),
            version: "0".into(),
            storage: String::new(),
            places: Vec::new(),
        };
        up.send(v1::WorkerUp {
            message: Some(Up::Hello(hello)),
        })
        .await?;
        let mut down = self.client().session(ReceiverStream::new(outbox)).await?.into_inner();
        let first = down.message().await?.context("no welcome")?;
        let Some(Down::Welcome(welcome)) = first.message else {
            bail!("another word before the welcome");
        };
        up.send(self.heartbeat()).await?;
        self.welcomed.send_modify(|count| *count += 1);
        let mut beat = tokio::time::interval(Duration::from_millis(welcome.heartbeat_ms.into()));
        loop {
            tokio::select! {
                _ = beat.tick() => up.send(self.heartbeat()).await?,
                said = down.message() => match said?.context("the session ended")?.message {
                    Some(Down::AskAgain(_)) => {
                        self.strangers.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Down::DropStream(dropped)) => bail!("a stream is dropped: {}", dropped.reason),
                    _ => {}
                },
            }
        }
    }

    /// Asks until there is an answer.
    async fn lease(&self, request: &v1::AcquireLeaseRequest) -> Result<v1::LeaseGranted> {
        loop {
            match self.client().acquire_lease(request.clone()).await {
                Ok(answer) => match answer.into_inner().outcome {
                    Some(Outcome::Granted(granted)) => return Ok(granted),
                    other => bail!("not granted: {other:?}"),
                },
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn request(&self, number: usize) -> v1::AcquireLeaseRequest {
        let now = System::new().now();
        v1::AcquireLeaseRequest {
            worker_id: self.id.clone(),
            publish_id: PublishId::generate(&Random, now).to_string(),
            stream: Some(v1::StreamKey {
                domain: "load.example.com".into(),
                app: "live".into(),
                stream: format!("stream-{number:07}"),
            }),
            params: "quality=source".into(),
            client_addr: "203.0.113.7:50000".into(),
            started_ms: now.as_millis(),
            ..Default::default()
        }
    }

    /// Says that the recordings of a publish run.
    async fn recording(&self, granted: &v1::LeaseGranted) -> Result<()> {
        for recording in &granted.recordings {
            let request = v1::CommitRecordingRequest {
                recording_id: recording.recording_id.clone(),
                epoch: granted.epoch,
                state: v1::RecordingState::Recording.into(),
                ..Default::default()
            };
            told!(self.commit_recording(request));
        }
        Ok(())
    }

    /// The rest of a publish's life: its recording runs, has a file, ends, and the stream is free.
    async fn live_and_end(&self, leased: &Leased) -> Result<()> {
        let granted = &leased.granted;
        self.recording(granted).await?;
        for recording in &granted.recordings {
            let now = System::new().now();
            let file = v1::MediaFile {
                file_id: FileId::generate(&Random, now).to_string(),
                format: v1::Format::Flv.into(),
                name: "2026-01-01-00-00-00_2026-01-01-00-30-00.flv".into(),
                object_key: format!("load.example.com/live/x/{}/e1/000001.flv", recording.recording_id),
                size: 500_000_000,
                duration_ms: 1_800_000,
                checksum: "crc64nvme:AAAAAAAAAAA=".into(),
                ..Default::default()
            };
            let commit = v1::CommitFileRequest {
                recording_id: recording.recording_id.clone(),
                epoch: granted.epoch,
                file: Some(file),
            };
            told!(self.commit_file(commit));
            let end = v1::CommitRecordingRequest {
                recording_id: recording.recording_id.clone(),
                epoch: granted.epoch,
                state: v1::RecordingState::Finished.into(),
                ended_ms: now.as_millis(),
                files: 1,
                ..Default::default()
            };
            told!(self.commit_recording(end));
        }
        let release = v1::ReleaseLeaseRequest {
            publish_id: leased.request.publish_id.clone(),
            epoch: granted.epoch,
            reason: "the publisher left".into(),
            ended_ms: System::new().now().as_millis(),
            revision: 0,
        };
        told!(self.release_lease(release));
        Ok(())
    }
}

impl Fleet {
    /// Starts so many workers that know these coordinators.
    pub(crate) fn start(servers: &[String], workers: usize) -> Result<Self> {
        let mut sessions = JoinSet::new();
        let mut fleet = Vec::with_capacity(workers);
        for number in 0..workers {
            let manner = Manner {
                limit: Duration::from_secs(10),
                patience: None,
                first: number,
            };
            let worker = Arc::new(Worker {
                id: Random.uuid(System::new().now()).to_string(),
                servers: Servers::new(servers, &Caller::default(), manner)?,
                live: Mutex::default(),
                welcomed: watch::Sender::new(0),
                strangers: AtomicUsize::new(0),
            });
            let own = Arc::clone(&worker);
            sessions.spawn(async move {
                loop {
                    // Why it ended shows in what is measured; a worker comes back whatever it was.
                    drop(own.session().await);
                    tokio::time::sleep(AGAIN).await;
                }
            });
            fleet.push(worker);
        }
        Ok(Fleet {
            since: vec![0; fleet.len()],
            workers: fleet,
            _sessions: sessions,
            next: AtomicUsize::new(0),
        })
    }

    /// From here on only new welcomes count.
    pub(crate) fn forget_welcomes(&mut self) {
        self.since = self.workers.iter().map(|worker| *worker.welcomed.borrow()).collect();
    }

    /// Waits until every worker has a session.
    pub(crate) async fn all_welcome(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        for (worker, since) in self.workers.iter().zip(&self.since) {
            let mut welcomed = worker.welcomed.subscribe();
            let waited = tokio::time::timeout_at(deadline, welcomed.wait_for(|count| count > since)).await;
            waited.context("a worker has no session")??;
        }
        Ok(())
    }

    fn worker(&self) -> (usize, Arc<Worker>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, Arc::clone(&self.workers[number % self.workers.len()]))
    }

    /// Leases so many streams as fast as that goes.
    pub(crate) async fn fill(&self, streams: usize) -> Result<()> {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut calls = JoinSet::new();
        for _ in 0..streams {
            let place = Arc::clone(&places).acquire_owned().await?;
            let (number, worker) = self.worker();
            calls.spawn(async move {
                let request = worker.request(number);
                let granted = worker.lease(&request).await?;
                worker.recording(&granted).await?;
                worker.live().push(Leased { request, granted });
                drop(place);
                anyhow::Ok(())
            });
            while let Some(done) = calls.try_join_next() {
                done??;
            }
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Publishes begin at this rate, whatever the answers take, each with a whole life; the times from when each was due until
    /// it had its lease.
    pub(crate) async fn publish(&self, rate: u32, stretch: Duration) -> Result<Vec<Duration>> {
        let begin = Instant::now();
        let every = Duration::from_secs(1) / rate;
        let mut lives = JoinSet::new();
        let mut due = begin;
        while due < begin + stretch {
            tokio::time::sleep_until(due).await;
            let (number, worker) = self.worker();
            lives.spawn(async move {
                let request = worker.request(number);
                let granted = worker.lease(&request).await?;
                let took = due.elapsed();
                worker.live_and_end(&Leased { request, granted }).await?;
                anyhow::Ok(took)
            });
            due += every;
        }
        let mut times = Vec::new();
        while let Some(life) = lives.join_next().await {
            times.push(life??);
        }
        Ok(times)
    }

    /// Publishes once, and says when that had its lease.
    pub(crate) async fn publish_until_granted(&self) -> Result<Instant> {
        let (number, worker) = self.worker();
        let request = worker.request(number);
        let granted = worker.lease(&request).await?;
        let at = Instant::now();
        worker.live_and_end(&Leased { request, granted }).await?;
        Ok(at)
    }

    /// Asks again for every tenth stream's lease, and waits for a heartbeat's worth of words about the others: whoever leads must
    /// know all of them as they were.
    pub(crate) async fn renew_all(&self) -> Result<Renewed> {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut calls = JoinSet::new();
        for worker in &self.workers {
            let some: Vec<Leased> = worker.live().iter().step_by(10).cloned().collect();
            for leased in some {
                let (place, worker) = (Arc::clone(&places).acquire_owned().await?, Arc::clone(worker));
                calls.spawn(async move {
                    let again = worker.lease(&leased.request).await?;
                    drop(place);
                    anyhow::Ok(again.epoch != leased.granted.epoch)
                });
            }
        }
        let mut strangers = 0;
        while let Some(call) = calls.join_next().await {
            strangers += usize::from(call??);
        }
        let said = self
            .workers
            .iter()
            .map(|worker| worker.strangers.load(Ordering::Relaxed));
        Ok(Renewed {
            strangers: strangers + said.sum::<usize>(),
        })
    }
}
