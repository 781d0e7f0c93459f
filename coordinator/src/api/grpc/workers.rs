//! Service `Workers`: sessions, leases, commits.

use std::{collections::BTreeMap, net::SocketAddr, pin::Pin};

use futures_util::{Stream, StreamExt as _, stream};
use proto::v1;
use shared::{
    composition::ComposeStatus,
    ids::{PublishId, PullId, RecordingId, StreamKey, WorkerId},
    lease::{Epoch, FencingToken, Grant, LeaseOutcome},
    objects::{MAX_PLACES, is_place_name},
    pull::PullStatus,
    recording::{Cause, MediaFile, RecordingDocument, RecordingState},
    shutdown::Phase,
    store::{CommitError, FileFilter, RecordingUpdate},
    trace::{Past, Place},
    wire::{self, WireError},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::{Api, peer, status::Failure};
use crate::{
    actors::coordinator::{Acquire, Closed, Open, Release, Session},
    actors::load::{load_known, load_remembered},
    actors::stitches::{Begun, Settled},
    actors::tasks::Ended,
    compositions::MAX_OPEN,
    fleet::{About, Counters, Report, SessionId},
    leases::Request as LeaseRequest,
    planner::{Beat, Down},
};

/// Most publishes in one heartbeat.
const MAX_PUBLISHES: usize = 100_000;
/// Longest text that a worker says of itself or of a publish, bytes.
const MAX_TEXT: usize = 4_096;

fn short(field: &str, text: String) -> Result<String, WireError> {
    wire::text(field, text, MAX_TEXT)
}

fn down(message: Down) -> v1::CoordinatorDown {
    use v1::coordinator_down::Message;
    let millis = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let message = match message {
        Down::Welcome { heartbeat, timeout } => Message::Welcome(v1::Welcome {
            heartbeat_ms: millis(heartbeat),
            timeout_ms: millis(timeout),
        }),
        Down::Drop { publish, reason } => Message::DropStream(v1::DropStream {
            publish_id: publish.to_string(),
            reason,
        }),
        Down::AskAgain(publish) => Message::AskAgain(v1::AskAgain {
            publish_id: publish.to_string(),
        }),
        Down::Pulls(set) => Message::SetPulls(v1::SetPulls {
            revision: set.revision,
            pulls: set.pulls.iter().map(Into::into).collect(),
        }),
        Down::Set(set) => Message::SetRecordings((&set).into()),
        Down::Draining { draining, for_scale_in } => Message::SetDraining(v1::SetDraining { draining, for_scale_in }),
        Down::Compose(jobs) => Message::SetCompositions(v1::SetCompositions {
            jobs: jobs.iter().map(Into::into).collect(),
        }),
        Down::Finish(jobs) => Message::FinishRecordings(v1::FinishRecordings {
            recordings: jobs.iter().map(Into::into).collect(),
        }),
    };
    v1::CoordinatorDown { message: Some(message) }
}

/// What a heartbeat counts for each publish, and which revision of its recordings is applied.
type Counted = (BTreeMap<PublishId, Counters>, BTreeMap<PublishId, u64>);

fn counters(publishes: Vec<v1::LivePublish>) -> Result<Counted, WireError> {
    if publishes.len() > MAX_PUBLISHES {
        return Err(WireError::new(
            "publishes",
            format!("has more than {MAX_PUBLISHES} entries"),
        ));
    }
    let read = |publish: v1::LivePublish| {
        let said = publish.counters.unwrap_or_default();
        let counted = Counters {
            bits_per_second: said.bits_per_second,
            video_units: said.video_units,
            audio_units: said.audio_units,
            bytes: said.bytes,
        };
        let id: PublishId = wire::id("publishes.publish_id", &publish.publish_id)?;
        Ok(((id, counted), (id, publish.revision)))
    };
    publishes.into_iter().map(read).collect()
}

fn pull_statuses(pulls: Vec<v1::PullStatus>) -> Result<BTreeMap<PullId, PullStatus>, WireError> {
    if pulls.len() > MAX_PUBLISHES {
        return Err(WireError::new(
            "pulls",
            format!("has more than {MAX_PUBLISHES} entries"),
        ));
    }
    let read = |pull: v1::PullStatus| Ok((wire::id("pull_id", &pull.pull_id)?, PullStatus::try_from(pull)?));
    pulls
        .into_iter()
        .map(|pull| read(pull).map_err(|error: WireError| error.within("pulls")))
        .collect()
}

fn compositions(said: Vec<v1::ComposeStatus>) -> Result<Vec<ComposeStatus>, WireError> {
    if said.len() > MAX_OPEN {
        return Err(WireError::new(
            "compositions",
            format!("has more than {MAX_OPEN} entries"),
        ));
    }
    said.into_iter()
        .map(|status| ComposeStatus::try_from(status).map_err(|error| error.within("compositions")))
        .collect()
}

fn beat_of(worker: WorkerId, session: SessionId, beat: v1::Heartbeat) -> Result<Beat, WireError> {
    let (counters, applied) = counters(beat.publishes)?;
    Ok(Beat {
        worker,
        session,
        report: Report {
            counters,
            draining: beat.draining,
            for_scale_in: beat.draining_for_scale_in,
            cpu_milli: beat.cpu_milli,
            journal_bytes: beat.journal_bytes,
            journal_age_ms: beat.journal_age_ms,
            uploads_waiting: beat.uploads_waiting,
        },
        pulls_revision: beat.pulls_revision,
        pulls: pull_statuses(beat.pulls)?,
        applied,
        compositions: compositions(beat.compositions)?,
    })
}

/// What a worker says of places of objects, by their names.
fn places(named: Vec<v1::ObjectPlace>) -> Result<BTreeMap<String, String>, WireError> {
    if named.len() > MAX_PLACES {
        return Err(WireError::new("places", format!("has more than {MAX_PLACES}")));
    }
    let place = |place: v1::ObjectPlace| match is_place_name(&place.name) {
        true => Ok((place.name, short("places.storage", place.storage)?)),
        false => Err(WireError::new(
            "places.name",
            "has 1 to 32 lower-case letters, digits and hyphens",
        )),
    };
    named.into_iter().map(place).collect()
}

/// The first message of a session.
fn hello(up: v1::WorkerUp) -> Result<(WorkerId, About), WireError> {
    let Some(v1::worker_up::Message::Hello(hello)) = up.message else {
        return Err(WireError::new("message", "must be hello in a session's first message"));
    };
    let about = About {
        name: short("name", hello.name)?,
        rtmp_addr: short("rtmp_addr", hello.rtmp_addr)?,
        version: short("version", hello.version)?,
        storage: short("storage", hello.storage)?,
        places: places(hello.places)?,
    };
    Ok((wire::id("worker_id", &hello.worker_id)?, about))
}

/// What belongs to one session's listening.
struct Listening {
    worker: WorkerId,
    session: SessionId,
    /// Where a refusal goes.
    refuse: mpsc::Sender<Status>,
    /// Cancelled when the answering side has ended.
    over: CancellationToken,
}

/// Reads what a worker says until it stops or its session is over, and tells the actor.
async fn listen(api: Api, mut up: impl Said, listening: Listening) {
    let Listening {
        worker,
        session,
        refuse,
        over,
    } = listening;
    let refused = loop {
        let said = tokio::select! {
            biased;
            () = over.cancelled() => break None,
            said = up.next() => said,
        };
        let beat = match said {
            None => break None,
            Some(Err(status)) => {
                debug!(%worker, %status, "worker session broken");
                break None;
            }
            Some(Ok(v1::WorkerUp {
                message: Some(v1::worker_up::Message::Heartbeat(beat)),
            })) => beat,
            Some(Ok(_)) => break Some(Failure::invalid("after hello a worker sends heartbeats").into()),
        };
        match beat_of(worker, session, beat) {
            Err(error) => break Some(Failure::from(error).into()),
            Ok(beat) => {
                if let Err(error) = api.handle.ask(beat).await {
                    break Some(Failure::from(error).into());
                }
            }
        }
    };
    if let Some(status) = refused {
        drop(refuse.send(status).await);
    }
    // Without an actor there is no session to close.
    let _ = api.handle.ask(Closed { worker, session }).await;
}

/// What goes down a session.
pub(crate) type Directives = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorDown, Status>> + Send>>;

/// What comes up a session.
pub(crate) trait Said: Stream<Item = Result<v1::WorkerUp, Status>> + Unpin + Send + 'static {}

impl<S: Stream<Item = Result<v1::WorkerUp, Status>> + Unpin + Send + 'static> Said for S {}

#[tonic::async_trait]
impl v1::workers_server::Workers for Api {
    type SessionStream = Directives;

    async fn session(&self, request: Request<Streaming<v1::WorkerUp>>) -> Result<Response<Directives>, Status> {
        let from = peer(&request);
        let directives = self.converse(request.into_inner(), from).await?;
        Ok(Response::new(directives))
    }

    async fn acquire_lease(
        &self,
        request: Request<v1::AcquireLeaseRequest>,
    ) -> Result<Response<v1::AcquireLeaseResponse>, Status> {
        let begin = self.tools.clock.now();
        let mut request = lease_request(request.into_inner()).map_err(Failure::from)?;
        let repo = &self.tools.repo;
        let known = load_known(repo, request.publish).await.map_err(Failure::from)?;
        if let (None, Some(held)) = (&known, &request.held) {
            request.remembered = load_remembered(repo, held).await.map_err(Failure::from)?;
        }
        let asked = self
            .handle
            .ask(Acquire { request, known })
            .await
            .map_err(Failure::from)?;
        let outcome = asked.map_err(Failure::from)?;
        if let LeaseOutcome::Granted(grant) = &outcome {
            for recording in &grant.recordings {
                let lease = Past::between("lease", begin, self.tools.clock.now());
                Place::publish(recording.id, grant.epoch).past(lease);
            }
        }
        Ok(Response::new(outcome.into()))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let request = request.into_inner();
        let release = Release {
            publish: wire::id("publish_id", &request.publish_id).map_err(Failure::from)?,
            epoch: Epoch::new(request.epoch),
            revision: request.revision,
            reason: short("reason", request.reason).map_err(Failure::from)?,
            ended: wire::clock("ended_ms", request.ended_ms).map_err(Failure::from)?,
        };
        let publish = release.publish;
        let asked = self.handle.ask(release).await.map_err(Failure::from)?;
        let last = match asked.map_err(Failure::from)? {
            true => None,
            false => load_known(&self.tools.repo, publish).await.map_err(Failure::from)?,
        };
        // While it is live, under another ownership than was released, it may be added to.
        let over = last.filter(|known| known.record.ended.is_some());
        let last = over.map(|known| Grant {
            epoch: known.record.epoch,
            revision: known.record.revision,
            recordings: known.recordings,
        });
        Ok(Response::new(v1::ReleaseLeaseResponse {
            last: last.as_ref().map(Into::into),
        }))
    }

    async fn commit_file(
        &self,
        request: Request<v1::CommitFileRequest>,
    ) -> Result<Response<v1::CommitFileResponse>, Status> {
        let request = request.into_inner();
        let recording: RecordingId = wire::id("recording_id", &request.recording_id).map_err(Failure::from)?;
        let token = FencingToken {
            recording,
            epoch: Epoch::new(request.epoch),
        };
        let mut file = wire::required("file", request.file).map_err(Failure::from)?;
        // What the coordinator fills in need not be sent.
        file.recording_id.clone_from(&request.recording_id);
        if file.stream.is_none() {
            let known = self.tools.repo.recording(recording).await.map_err(Failure::from)?;
            file.stream = known.as_ref().map(|known| (&known.stream).into());
        }
        if file.stream.is_none() {
            return Err(Failure::from(CommitError::NoRecording(recording)).into());
        }
        let file: MediaFile = file
            .try_into()
            .map_err(|error: WireError| Failure::from(error.within("file")))?;
        let now = self.tools.clock.now();
        self.committed(self.tools.repo.commit_file(token, file, now).await)?;
        Ok(Response::new(v1::CommitFileResponse {}))
    }

    async fn commit_recording(
        &self,
        request: Request<v1::CommitRecordingRequest>,
    ) -> Result<Response<v1::CommitRecordingResponse>, Status> {
        let request = request.into_inner();
        let recording: RecordingId = wire::id("recording_id", &request.recording_id).map_err(Failure::from)?;
        let token = FencingToken {
            recording,
            epoch: Epoch::new(request.epoch),
        };
        let state = wire::recording_state(request.state).map_err(Failure::from)?;
        let update = RecordingUpdate {
            state: wire::required("state", state).map_err(Failure::from)?,
            reason: short("reason", request.reason).map_err(Failure::from)?,
            ended: wire::clock_if_any("ended_ms", request.ended_ms).map_err(Failure::from)?,
            gaps: wire::gaps(request.gaps).map_err(Failure::from)?,
            files: (request.files != 0).then_some(request.files),
        };
        let known = self.tools.repo.recording(recording).await.map_err(Failure::from)?;
        self.committed(self.tools.repo.commit_recording(token, &update).await)?;
        if update.state == RecordingState::Recording {
            let asked = self.handle.ask(Begun(recording)).await.map_err(Failure::from)?;
            asked.map_err(Failure::from)?;
        }
        if update.state == RecordingState::Interrupted {
            let settled = Settled {
                recording,
                epoch: token.epoch,
            };
            let asked = self.handle.ask(settled).await.map_err(Failure::from)?;
            asked.map_err(Failure::from)?;
        }
        if update.state.is_terminal() {
            let (publishes, cause) = known.map(|known| (known.publishes, known.cause)).unzip();
            let task = match cause {
                Some(Cause::Task(task)) => Some(task),
                _ => None,
            };
            let ended = Ended {
                recording,
                publishes: publishes.unwrap_or_default(),
                state: update.state,
                reason: update.reason,
                task,
            };
            // Without an actor the next one finds it out.
            let _ = self.handle.ask(ended).await;
        }
        Ok(Response::new(v1::CommitRecordingResponse {}))
    }

    async fn read_recording(
        &self,
        request: Request<v1::ReadRecordingRequest>,
    ) -> Result<Response<v1::ReadRecordingResponse>, Status> {
        let request = request.into_inner();
        let id: RecordingId = wire::id("recording_id", &request.recording_id).map_err(Failure::from)?;
        let page = wire::page(0, request.page_token).map_err(Failure::from)?;
        let found = self.tools.repo.recording(id).await.map_err(Failure::from)?;
        let recording = found.ok_or_else(|| Failure::from(CommitError::NoRecording(id)))?;
        let filter = FileFilter {
            recording: Some(id),
            ..FileFilter::default()
        };
        let (files, next_page_token) = self.tools.repo.files(&filter, &page).await.map_err(Failure::from)?;
        let document = RecordingDocument::new(recording, files).to_json();
        Ok(Response::new(v1::ReadRecordingResponse {
            document: document.map_err(Failure::internal)?,
            next_page_token,
        }))
    }

    async fn trade_copies(
        &self,
        request: Request<v1::TradeCopiesRequest>,
    ) -> Result<Response<v1::TradeCopiesResponse>, Status> {
        Ok(Response::new(self.trade(request.into_inner()).await?))
    }
}

impl Api {
    /// A session with a worker, from its hello on.
    pub(crate) async fn converse(&self, mut up: impl Said, from: Option<SocketAddr>) -> Result<Directives, Status> {
        let first = up
            .next()
            .await
            .transpose()?
            .ok_or_else(|| Status::invalid_argument("a session begins with hello"))?;
        let (worker, about) = hello(first).map_err(Failure::from)?;
        debug!(%worker, ?from, "worker says hello");
        if self.shutdown.phase() >= Phase::Draining {
            return Err(Status::unavailable(
                "this coordinator is leaving: try another, or again in a moment",
            ));
        }
        let Session { id, down: directives } = self.handle.ask(Open { worker, about }).await.map_err(Failure::from)?;
        let (refuse, refused) = mpsc::channel(1);
        let over = CancellationToken::new();
        let end = over.clone().drop_guard();
        self.tools.tasks.spawn(listen(
            self.clone(),
            up,
            Listening {
                worker,
                session: id,
                refuse,
                over,
            },
        ));
        // Ends when the actor drops its end of the queue, or with the status that the reader found. With it ends the
        // reading: a stream that is open one way would hold up the server's stop.
        let directives = ReceiverStream::new(directives).map(|message| Some(Ok(down(message))));
        let ends = directives.chain(stream::once(async { None }));
        let refusals = ReceiverStream::new(refused).map(|status| Some(Err(status)));
        let both = stream::select(ends, refusals).take_while(|item| std::future::ready(item.is_some()));
        let answer = both.filter_map(move |item| {
            let _held = &end;
            std::future::ready(item)
        });
        Ok(Box::pin(answer))
    }

    fn committed(&self, result: Result<(), CommitError>) -> Result<(), Failure> {
        if matches!(result, Err(CommitError::Fenced(_))) {
            self.tools.metrics.fenced.inc();
        }
        Ok(result?)
    }
}

fn lease_request(request: v1::AcquireLeaseRequest) -> Result<LeaseRequest, WireError> {
    Ok(LeaseRequest {
        worker: wire::id("worker_id", &request.worker_id)?,
        publish: wire::id("publish_id", &request.publish_id)?,
        stream: StreamKey::try_from(wire::required("stream", request.stream)?)?,
        params: short("params", request.params)?,
        client_addr: short("client_addr", request.client_addr)?,
        started: wire::clock("started_ms", request.started_ms)?,
        adopted: request.adopted,
        storage: short("storage", request.storage)?,
        places: places(request.places)?,
        held: request.held.map(wire::held).transpose()?,
        remembered: Vec::new(),
        known_epoch: Epoch::new(request.known_epoch),
        asks_again: request.asks_again,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_of_places_is_bounded_and_named() {
        let place = |name: &str, storage: &str| v1::ObjectPlace {
            name: name.to_owned(),
            storage: storage.to_owned(),
        };
        let read = places(vec![place("cold", "s3://cold "), place("disk", "")]).unwrap();
        assert_eq!(read.get("cold").map(String::as_str), Some("s3://cold "));
        assert_eq!(read.get("disk").map(String::as_str), Some(""));
        assert!(places(vec![place("../x", "")]).is_err());
        assert!(places(vec![place("cold", &"x".repeat(MAX_TEXT + 1))]).is_err());
        let many = (0..=MAX_PLACES).map(|n| place(&format!("p{n}"), ""));
        assert!(places(many.collect()).unwrap_err().to_string().contains("more than 16"));
    }
}
