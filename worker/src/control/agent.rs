//! [`Agent`]: speaks gRPC to a coordinator and keeps trying.
//!
//! Every call is idempotent, so a call whose answer was lost is simply made again. Recording does not wait for any of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::line::{Grpc, Line};
use super::load::Journals;
use super::order::{Order, Turn};
use proto::v1::{
    AcquireLeaseRequest, CommitFileRequest, CommitRecordingRequest, Heartbeat, Hello, LivePublish, ObjectPlace,
    ReadRecordingRequest, ReleaseLeaseRequest, StreamCounters, WorkerUp, coordinator_down, worker_up,
};
use shared::auth::Caller;
use shared::composition::{ComposeJob, ComposeStatus};
use shared::ids::{PublishId, PullId, RecordingId, StreamKey, WorkerId};
use shared::lease::{Epoch, FinishJob, Grant, LeaseOutcome, RecordingSet, RefusalKind};
use shared::pull::{Pull, PullStatus};
use shared::recording::{Gap, MediaFile, RecordingDocument, RecordingState};
use shared::servers::{Manner, Servers, ServersError};
use shared::trace::{self, Place};
use shared::wire::{self, FINAL, fenced_from_details};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tracing::{Instrument, Span, debug, info, warn};

/// Time for one call; then it counts as failed and is made again.
const CALL: Duration = Duration::from_secs(10);
/// First wait after a failed call; doubled with each, up to [`LONGEST_WAIT`]. There is no last try: the journal waits as long as it takes.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A stream that is live on another worker is asked for so long: its publisher may have ended there, and that worker's word of it be on its way.
const MAY_HAVE_ENDED: Duration = Duration::from_secs(3);
/// Streams whose epochs are remembered.
const MAX_EPOCHS: usize = 100_000;

/// What the heartbeat says of one live publish.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) publish: PublishId,
    pub(crate) progress: Arc<journal::Progress>,
    /// Revision of its recordings that was applied last; 0: none yet.
    pub(crate) revision: Arc<AtomicU64>,
}

/// What the heartbeat says of the worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) publishes: Vec<Load>,
    pub(crate) journals: Journals,
    /// Thousandths of one core.
    pub(crate) cpu_milli: u32,
    /// Finished files on their way to the library.
    pub(crate) uploads_waiting: u32,
    /// The set of pulled streams that is carried out, and how each fares.
    pub(crate) pulls: (u64, BTreeMap<PullId, PullStatus>),
    pub(crate) draining: bool,
    /// What is being composed.
    pub(crate) compositions: Vec<ComposeStatus>,
    /// Because the set of workers shrinks.
    pub(crate) for_scale_in: bool,
}

/// A directive from the coordinator.
#[derive(Debug)]
pub(crate) enum Directive {
    DropStream {
        publish: String,
        reason: String,
    },
    /// What a live publish is to record from now on.
    SetRecordings(RecordingSet),
    /// Recordings to finish, all of them.
    Finish(Vec<FinishJob>),
    /// What to compose, all of it.
    Compose(Vec<ComposeJob>),
    /// What to fetch from origins, all of it.
    SetPulls {
        revision: u64,
        pulls: Vec<Pull>,
    },
    /// Ask for a publish's lease again, saying what is held.
    AskAgain {
        publish: String,
    },
    /// Take no stream any more, or take streams again.
    SetDraining {
        draining: bool,
        for_scale_in: bool,
    },
}

/// Who this worker is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: WorkerId,
    pub(crate) name: String,
    pub(crate) rtmp: String,
    /// Names where the objects of each place lie, that of `objects.url` under the empty name; empty: where no other worker reads.
    pub(crate) storages: BTreeMap<String, String>,
}

impl Identity {
    fn storage(&self) -> String {
        self.storages.get("").cloned().unwrap_or_default()
    }

    fn places(&self) -> Vec<ObjectPlace> {
        let named = self.storages.iter().filter(|(name, _)| !name.is_empty());
        let place = |(name, storage): (&String, &String)| ObjectPlace {
            name: name.clone(),
            storage: storage.clone(),
        };
        named.map(place).collect()
    }
}

/// A handle that can be cloned; all clones share their connections, and ask the same coordinator until it fails.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    line: Arc<dyn Line>,
    identity: Identity,
    /// Highest epoch that is known of each stream.
    epochs: Arc<Mutex<BTreeMap<StreamKey, Epoch>>>,
    order: Order,
}

/// Asks for a stream.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) publish: PublishId,
    pub(crate) stream: StreamKey,
    pub(crate) params: String,
    pub(crate) client: String,
    pub(crate) started_ms: i64,
    /// Set once the publish is over. Whoever asks for one that is over does not ask for the stream.
    pub(crate) over: Arc<AtomicBool>,
    /// What it was granted before.
    pub(crate) held: Option<Grant>,
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The library has it.
    Done,
    /// The library does not know the recording.
    Unknown,
    /// The recording is another's by now, or has ended otherwise: whoever writes it must stop.
    Lost(String),
}

impl Agent {
    /// Makes an agent; connects when first needed.
    ///
    /// # Errors
    /// Where one of the addresses is no URL.
    pub(crate) fn new(coordinators: &[String], caller: Caller, identity: Identity) -> Result<Self, ServersError> {
        // Workers do not all begin with the same coordinator.
        let first = identity.id.as_uuid().as_u128() % u128::from(u16::MAX);
        let manner = Manner {
            limit: CALL,
            patience: None,
            first: usize::try_from(first).unwrap_or(0),
        };
        let servers = Servers::new(coordinators, &caller, manner)?;
        Ok(Self::over(Arc::new(Grpc::new(servers, caller)), identity))
    }

    /// Makes an agent that speaks over `line`.
    pub(crate) fn over(line: Arc<dyn Line>, identity: Identity) -> Self {
        Self {
            line,
            identity,
            epochs: Arc::default(),
            order: Order::default(),
        }
    }

    /// Takes note of an epoch, so that no coordinator grants a lower one. At most [`MAX_EPOCHS`] streams are remembered; then
    /// all but this one are forgotten, whose journals still name theirs.
    pub(crate) fn note_epoch(&self, stream: &StreamKey, epoch: Epoch) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if epochs.len() >= MAX_EPOCHS && !epochs.contains_key(stream) {
            epochs.clear();
        }
        let known = epochs.entry(stream.clone()).or_insert(epoch);
        *known = (*known).max(epoch);
    }

    fn epoch_of(&self, stream: &StreamKey) -> u64 {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.get(stream).map_or(0, |epoch| epoch.get())
    }

    /// A turn to ask about that stream, behind all who have one already.
    pub(crate) fn turn(&self, stream: &StreamKey) -> Turn {
        self.order.turn(stream)
    }

    /// Asks for a stream's lease until there is an answer, behind all who ask about that stream already.
    pub(crate) async fn acquire(&self, ask: Ask) -> LeaseOutcome {
        let turn = self.turn(&ask.stream);
        self.acquire_in(turn, ask).await
    }

    /// The same in a turn that was taken before. Who comes later waits for the answer, also while no coordinator is there; an error that is this
    /// question's own holds nobody else back.
    pub(crate) async fn acquire_in(&self, mut turn: Turn, ask: Ask) -> LeaseOutcome {
        turn.comes().await;
        let mut turn = Some(turn);
        let mut request = AcquireLeaseRequest {
            worker_id: self.identity.id.to_string(),
            publish_id: ask.publish.to_string(),
            stream: Some((&ask.stream).into()),
            params: ask.params,
            client_addr: ask.client,
            started_ms: ask.started_ms,
            adopted: false,
            storage: self.identity.storage(),
            places: self.identity.places(),
            held: ask.held.as_ref().map(Into::into),
            known_epoch: ask
                .held
                .as_ref()
                .map_or(0, |held| held.epoch.get())
                .max(self.epoch_of(&ask.stream)),
            asks_again: false,
        };
        let mut wait = FIRST_WAIT;
        let asked = tokio::time::Instant::now();
        loop {
            request.adopted = ask.over.load(Ordering::Relaxed);
            request.asks_again = asked.elapsed() < MAY_HAVE_ENDED;
            let answer = self.line.acquire_lease(request.clone()).await;
            let unheard = answer.as_ref().is_err_and(is_of_the_way);
            match answer
                .map_err(|e| e.to_string())
                .and_then(|a| LeaseOutcome::try_from(a).map_err(|e| e.to_string()))
            {
                Ok(LeaseOutcome::Refused(refusal))
                    if refusal.kind == RefusalKind::AlreadyLive && request.asks_again =>
                {
                    tokio::time::sleep(FIRST_WAIT).await;
                    continue;
                }
                Ok(outcome) => {
                    if let LeaseOutcome::Granted(grant) = &outcome {
                        self.note_epoch(&ask.stream, grant.epoch);
                    }
                    return outcome;
                }
                Err(error) => {
                    turn = turn.filter(|_| unheard);
                    warn!(stream = %ask.stream, error, ?wait, "no answer about a lease yet; the stream is journaled meanwhile");
                }
            }
            pause(&mut wait).await;
        }
    }

    /// Says that a stream is free, until it is heard. Gives what the publish was to record in the end, where that is not the
    /// `revision` that is known here.
    pub(crate) async fn release(
        &self,
        publish: PublishId,
        (epoch, revision): (Epoch, u64),
        reason: String,
        ended_ms: i64,
    ) -> Option<Grant> {
        let request = ReleaseLeaseRequest {
            publish_id: publish.to_string(),
            epoch: epoch.get(),
            reason,
            ended_ms,
            revision,
        };
        let mut wait = FIRST_WAIT;
        loop {
            let answer = self.line.release_lease(request.clone()).await;
            match answer.map(|answer| answer.last.map(wire::held).transpose()) {
                Ok(Ok(last)) => return last,
                Ok(Err(error)) => {
                    warn!(%publish, %error, "what a publish was to record in the end cannot be read");
                    return None;
                }
                Err(status) if is_final(&status) => {
                    tracing::error!(%publish, error = status.message(), "release of a lease refused by the coordinator");
                    return None;
                }
                Err(status) => {
                    warn!(code = ?status.code(), error = status.message(), ?wait, "release of a lease failed, will try again");
                }
            }
            pause(&mut wait).await;
        }
    }

    /// Enters a file into the library, until it is there or another owner has the recording.
    pub(crate) async fn commit_file(&self, recording: RecordingId, epoch: Epoch, file: &MediaFile) -> Verdict {
        let request = CommitFileRequest {
            recording_id: recording.to_string(),
            epoch: epoch.get(),
            file: Some(file.into()),
        };
        let span = Place::publish(recording, epoch).call("commit file");
        trace::say(&span, "aircheck.file.id", file.id.to_string());
        insist("commit of a file", || self.line.commit_file(request.clone()))
            .instrument(span)
            .await
    }

    /// Closes a recording, until that is known or another owner has it.
    pub(crate) async fn commit_recording(
        &self,
        recording: RecordingId,
        epoch: Epoch,
        end: (RecordingState, String, i64),
        gaps: &[Gap],
        files: u32,
    ) -> Verdict {
        let (state, reason, ended_ms) = end;
        let request = CommitRecordingRequest {
            recording_id: recording.to_string(),
            epoch: epoch.get(),
            state: proto::v1::RecordingState::from(state).into(),
            reason,
            ended_ms,
            gaps: gaps.iter().map(Into::into).collect(),
            files,
        };
        let span = Place::publish(recording, epoch).call("commit recording");
        trace::say(&span, "aircheck.recording.state", state.as_str());
        insist("commit of a recording", || self.line.commit_recording(request.clone()))
            .instrument(span)
            .await
    }

    /// What the library has of a recording, as long as it takes to know. None: it does not know it, or the coordinator is of a version that does
    /// not say.
    pub(crate) async fn library(&self, recording: RecordingId) -> Option<RecordingDocument> {
        let mut request = ReadRecordingRequest {
            recording_id: recording.to_string(),
            page_token: String::new(),
        };
        let mut all: Option<RecordingDocument> = None;
        let mut wait = FIRST_WAIT;
        loop {
            match self.line.read_recording(request.clone()).await {
                Ok(page) => match RecordingDocument::from_json(&page.document) {
                    Ok(document) => {
                        match &mut all {
                            Some(all) => all.files.extend(document.files),
                            None => all = Some(document),
                        }
                        if page.next_page_token.is_empty() {
                            return all;
                        }
                        request.page_token = page.next_page_token;
                        continue;
                    }
                    Err(error) => {
                        warn!(%recording, %error, "what the library has of a recording cannot be read");
                        return None;
                    }
                },
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) || is_final(&status) => {
                    warn!(%recording, code = ?status.code(), error = status.message(), "the library does not say what it has of a recording");
                    return None;
                }
                Err(status) => {
                    warn!(%recording, code = ?status.code(), error = status.message(), ?wait, "no answer yet on what the library has");
                }
            }
            pause(&mut wait).await;
        }
    }

    /// Keeps the session: heartbeats up, directives down. Runs until the directives' receiver is gone.
    pub(crate) async fn session(self, mut said: impl FnMut() -> Said + Send, directives: mpsc::Sender<Directive>) {
        let mut wait = FIRST_WAIT;
        while !directives.is_closed() {
            let begin = tokio::time::Instant::now();
            let ended = self.one_session(&mut said, &directives).await;
            if let Err(status) = &ended {
                debug!(error = %status.message(), code = ?status.code(), "coordinator session ended");
            }
            // One that stood for a while ended because its coordinator did: another is waiting.
            if ended.is_ok() || begin.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            pause(&mut wait).await;
        }
    }

    async fn one_session(
        &self,
        said: &mut (impl FnMut() -> Said + Send),
        directives: &mpsc::Sender<Directive>,
    ) -> Result<(), Status> {
        let (up, outbox) = mpsc::channel::<WorkerUp>(16);
        let hello = Hello {
            worker_id: self.identity.id.to_string(),
            name: self.identity.name.clone(),
            rtmp_addr: self.identity.rtmp.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage: self.identity.storage(),
            places: self.identity.places(),
        };
        let gone = |_| Status::unavailable("session closed");
        up.send(WorkerUp {
            message: Some(worker_up::Message::Hello(hello)),
        })
        .await
        .map_err(gone)?;
        let mut down = self.line.session(outbox).await?;
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        let mut before = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                message = down.next() => match message.transpose()?.and_then(|m| m.message) {
                    Some(coordinator_down::Message::Welcome(welcome)) => {
                        info!("registered with the coordinator");
                        let every = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100)));
                        beat = tokio::time::interval(every);
                    }
                    Some(coordinator_down::Message::DropStream(drop)) => {
                        let directive = Directive::DropStream { publish: drop.publish_id, reason: drop.reason };
                        directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                    }
                    Some(coordinator_down::Message::SetRecordings(set)) => match RecordingSet::try_from(set) {
                        Ok(set) => {
                            let directive = Directive::SetRecordings(set);
                            directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                        }
                        Err(error) => warn!(%error, "the coordinator sent a set of recordings that cannot be read"),
                    },
                    Some(coordinator_down::Message::FinishRecordings(jobs)) => {
                        let directive = Directive::Finish(legible(jobs.recordings));
                        directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                    }
                    Some(coordinator_down::Message::SetCompositions(set)) => {
                        let directive = Directive::Compose(composable(set.jobs));
                        directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                        // Said at once, so that the coordinator need not say it again.
                        beat.reset_immediately();
                    }
                    Some(coordinator_down::Message::AskAgain(again)) => {
                        let directive = Directive::AskAgain { publish: again.publish_id };
                        directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                    }
                    Some(coordinator_down::Message::SetPulls(set)) => {
                        let directive = Directive::SetPulls { revision: set.revision, pulls: readable(set.pulls) };
                        directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                        // Said at once, so that the coordinator need not say it again.
                        beat.reset_immediately();
                    }
                    Some(coordinator_down::Message::SetDraining(set)) => {
                        let directive = Directive::SetDraining {
                            draining: set.draining,
                            for_scale_in: set.for_scale_in,
                        };
                        directives.send(directive).await.map_err(|_| Status::cancelled("worker stopped"))?;
                    }
                    None => return Ok(()),
                },
                now = beat.tick() => {
                    let said = said();
                    let live = said.publishes;
                    let publishes = live.iter().map(|l| counters(l, now, &mut before)).collect();
                    before.retain(|id, _| live.iter().any(|l| l.publish == *id));
                    let (pulls_revision, pulls) = said.pulls;
                    let heartbeat = Heartbeat {
                        publishes,
                        journal_bytes: said.journals.bytes,
                        journal_age_ms: said.journals.age_ms,
                        uploads_waiting: said.uploads_waiting,
                        cpu_milli: said.cpu_milli,
                        pulls_revision,
                        pulls: pulls.iter().map(pull_status).collect(),
                        draining: said.draining,
                        compositions: said.compositions.iter().map(Into::into).collect(),
                        draining_for_scale_in: said.draining && said.for_scale_in,
                    };
                    up.send(WorkerUp { message: Some(worker_up::Message::Heartbeat(heartbeat)) }).await.map_err(gone)?;
                }
                () = directives.closed() => return Ok(()),
            }
        }
    }
}

type Before = BTreeMap<PublishId, (tokio::time::Instant, u64)>;

fn counters(load: &Load, now: tokio::time::Instant, before: &mut Before) -> LivePublish {
    let snapshot = load.progress.snapshot();
    let since = before.insert(load.publish, (now, snapshot.bytes));
    let bits_per_second = since.map_or(0, |(then, bytes)| {
        let ms = u64::try_from(now.duration_since(then).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        snapshot.bytes.saturating_sub(bytes).saturating_mul(8000) / ms
    });
    let counters = StreamCounters {
        bits_per_second,
        video_units: snapshot.video_units,
        audio_units: snapshot.audio_units,
        bytes: snapshot.bytes,
    };
    LivePublish {
        publish_id: load.publish.to_string(),
        counters: Some(counters),
        revision: load.revision.load(Ordering::Relaxed),
    }
}

/// The sources of a set that can be read. What cannot, from a later coordinator perhaps, is named and left out.
fn readable(pulls: Vec<proto::v1::Pull>) -> Vec<Pull> {
    let read = |pull: proto::v1::Pull| {
        let id = pull.pull_id.clone();
        Pull::try_from(pull)
            .inspect_err(|error| warn!(pull = id, %error, "a stream cannot be pulled"))
            .ok()
    };
    pulls.into_iter().filter_map(read).collect()
}

/// The recordings to finish that can be read.
fn legible(jobs: Vec<proto::v1::FinishRecording>) -> Vec<FinishJob> {
    let read = |job: proto::v1::FinishRecording| {
        let id = job.recording_id.clone();
        FinishJob::try_from(job)
            .inspect_err(|error| warn!(recording = id, %error, "a recording cannot be finished"))
            .ok()
    };
    jobs.into_iter().filter_map(read).collect()
}

/// The compositions that can be read.
fn composable(jobs: Vec<proto::v1::ComposeJob>) -> Vec<ComposeJob> {
    let read = |job: proto::v1::ComposeJob| {
        let id = job.recording_id.clone();
        ComposeJob::try_from(job)
            .inspect_err(|error| warn!(recording = id, %error, "a composition cannot be made"))
            .ok()
    };
    jobs.into_iter().filter_map(read).collect()
}

fn pull_status((id, status): (&PullId, &PullStatus)) -> proto::v1::PullStatus {
    proto::v1::PullStatus {
        pull_id: id.to_string(),
        state: proto::v1::PullSourceState::from(status.state).into(),
        error: status.error.clone(),
        failures: status.failures,
    }
}

/// Makes a call until it succeeds, or is refused in a way that no repetition mends.
async fn insist<F: Future<Output = Result<(), Status>>>(what: &str, mut call: impl FnMut() -> F) -> Verdict {
    let mut wait = FIRST_WAIT;
    loop {
        match call().await {
            Ok(()) => return Verdict::Done,
            Err(status) if status.code() == Code::NotFound => return Verdict::Unknown,
            Err(status) if is_final(&status) => {
                tracing::error!(code = ?status.code(), error = status.message(), "{what} refused by the coordinator");
                trace::fail(&Span::current(), status.message());
                return Verdict::Lost(status.message().to_owned());
            }
            Err(status) => {
                warn!(code = ?status.code(), error = status.message(), ?wait, "{what} failed, will try again")
            }
        }
        pause(&mut wait).await;
    }
}

/// Fenced, or a request that no repetition mends. Anything else may be true later: a commit that found the library behind, say.
fn is_final(status: &Status) -> bool {
    status.code() == Code::InvalidArgument
        || fenced_from_details(status.details()).is_some()
        || status.metadata().contains_key(FINAL)
}

/// Nobody was reached who could answer, or the answer was lost: anybody may have met that.
fn is_of_the_way(status: &Status) -> bool {
    use Code::{Aborted, Cancelled, DeadlineExceeded, Unavailable, Unknown};
    matches!(
        status.code(),
        Unavailable | DeadlineExceeded | Cancelled | Aborted | Unknown
    )
}

async fn pause(wait: &mut Duration) {
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(LONGEST_WAIT);
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
