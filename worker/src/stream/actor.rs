//! [`StreamActor`]: carries out what [`StreamCore`] decides for one publish.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use shared::ids::RecordingId;
use shared::lease::{Grant, GrantedRecording, LeaseOutcome};
use shared::recording::{Gap, RecordingDocument, RecordingState};
use shared::telemetry::WorkerMetrics;
use shared::template::{Format, HlsSegments};
use shared::time::{Clock, Timestamp};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::core::{Effect, Event, Moment, StreamCore};
use super::document::{About, Documents};
use super::fenced;
use super::figures::Figures;
use super::ground::Ground;
use super::needs::Needs;
use super::traced::Shown;
use super::vouch;
use super::writing::Writing;
use crate::control::agent::{Agent, Ask, Verdict};
use crate::control::order::Turn;
use crate::record::actor::{Report, Word};
use crate::record::{FinishedFile, Order, Stitched};
use crate::upload::Shelf;

/// How often a stream looks at what of its journal may go.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How often it is asked whether a window has begun or ended. What is recorded does not depend on it, only how soon that is seen.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// Reports of recorders that may wait; each recorder sends one and then waits for its next step.
const MAILBOX: usize = 64;

/// What all streams of a worker share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) agent: Agent,
    pub(crate) shelf: Arc<dyn Shelf>,
    pub(crate) documents: Documents,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) preroll: Duration,
    pub(crate) hls_target_ms: i64,
    pub(crate) metrics: WorkerMetrics,
}

/// The publish's journal has its last record.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Closed(pub(crate) String);

/// What the publish is to record from now on, as the coordinator says.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Set(pub(crate) Grant);

/// No file can wait any longer for storage: recorders end for this reason.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct GiveUp(pub(crate) &'static str);

/// What a stream tells its worker.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Notice {
    /// End the publisher's connection.
    Drop { publish_id: String, reason: String },
    /// Nothing is left to do.
    Done { publish_id: String },
}

/// One publish.
pub(crate) struct StreamActor {
    core: StreamCore,
    common: Common,
    about: About,
    ground: Arc<dyn Ground>,
    parent: Recipient<Notice>,
    /// Found at the worker's start: its grant and why it ended.
    adopted: Option<(Option<Grant>, String)>,
    /// An earlier life of this worker had it.
    is_adopted: bool,
    recorders: BTreeMap<(RecordingId, Format), Recipient<Word>>,
    /// Revision of the recordings that was applied last, for heartbeats.
    revision: Arc<AtomicU64>,
    needs: Needs,
    /// Versions of `recording.json` on their way.
    writing: Writing<RecordingDocument>,
    /// Recordings that pause when theirs has arrived, and what the library is told then.
    pausing: BTreeMap<RecordingId, (String, Vec<Gap>)>,
    /// The journal goes when they have arrived.
    remove_journal: bool,
    /// The lease is being asked for.
    asks: bool,
    /// To ask the first time, taken when the publish was heard of.
    turn: Option<Turn>,
    /// When the event happened that is being acted upon: documents and the library say the same.
    now: Timestamp,
    shown: Shown,
    figures: Figures,
    /// The publish is over, for whoever asks meanwhile.
    over: Arc<AtomicBool>,
}

impl StreamActor {
    pub(crate) fn live(
        common: Common,
        about: About,
        ground: Arc<dyn Ground>,
        revision: Arc<AtomicU64>,
        parent: Recipient<Notice>,
    ) -> Self {
        let mut stream = Self::new(common, about, ground, parent, None);
        stream.revision = revision;
        stream
    }

    pub(crate) fn adopted(
        common: Common,
        about: About,
        ground: Arc<dyn Ground>,
        parent: Recipient<Notice>,
        grant: Option<Grant>,
        reason: String,
    ) -> Self {
        Self::new(common, about, ground, parent, Some((grant, reason)))
    }

    fn new(
        common: Common,
        about: About,
        ground: Arc<dyn Ground>,
        parent: Recipient<Notice>,
        adopted: Option<(Option<Grant>, String)>,
    ) -> Self {
        let before = match &adopted {
            Some(_) => ground.journaled(),
            None => journal::Snapshot::default(),
        };
        let asks = !matches!(adopted, Some((Some(_), _)));
        let turn = asks.then(|| common.agent.turn(&about.stream));
        Self {
            core: StreamCore::default(),
            figures: Figures::new(common.metrics.clone(), about.stream.clone(), &before),
            common,
            about,
            ground,
            parent,
            shown: Shown::before(adopted.as_ref().and_then(|(grant, _)| grant.as_ref())),
            is_adopted: adopted.is_some(),
            adopted,
            recorders: BTreeMap::new(),
            revision: Arc::default(),
            needs: Needs::default(),
            writing: Writing::default(),
            pausing: BTreeMap::new(),
            remove_journal: false,
            asks: false,
            turn,
            now: Timestamp::default(),
            over: Arc::default(),
        }
    }

    fn on(&mut self, event: Event, ctx: &mut Context<Self>) {
        self.now = self.common.clock.now();
        let at = Moment {
            now_ms: self.now.as_millis(),
            arrived_ms: self.ground.journaled().wall_ms,
        };
        let effects = self.core.on(event, at);
        self.over.store(self.core.is_closed(), Ordering::Relaxed);
        for effect in effects {
            self.perform(effect, ctx);
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::KeepGrant(grant) => {
                self.about.epoch = grant.epoch;
                self.shown.granted(&grant, &self.about, self.common.clock.now());
                self.keep(&grant);
                for lost in grant.recordings.iter().filter(|r| r.state == RecordingState::Failed) {
                    lost.template
                        .formats
                        .keys()
                        .for_each(|format| self.needs.lost(lost.id, *format));
                }
                self.revision.store(grant.revision, Ordering::Relaxed);
            }
            Effect::StartRecorder { recording, format } => self.start_recorder(&recording, format, ctx),
            Effect::EndRecorders(recording) => self.tell(recording, &Word::End),
            Effect::MoveEnd { recording, until_ms } => self.tell(recording, &Word::MoveEnd(until_ms)),
            Effect::Begin(recording) => self.begin_recording(recording, ctx),
            Effect::CommitFile { recording, file } => self.commit_file(recording, file, ctx),
            Effect::WriteDocument {
                recording,
                state,
                reason,
                left_out,
            } => self.write_document(recording, state, reason, &left_out, ctx),
            Effect::CommitRecording {
                recording,
                state: RecordingState::Interrupted,
                reason,
                gaps,
            } => {
                self.pausing.insert(recording, (reason, gaps));
                self.pause_when_told(recording, ctx);
            }
            Effect::CommitRecording {
                recording,
                state,
                reason,
                gaps,
            } => {
                self.commit_recording(recording, state, reason, gaps, ctx);
            }
            Effect::ReleaseLease { reason } => {
                let (agent, about) = (self.common.agent.clone(), self.about.clone());
                let ended = self.common.clock.now().as_millis();
                let held = (about.epoch, self.core.grant().map_or(0, |grant| grant.revision));
                let release = async move { agent.release(about.publish_id, held, reason, ended).await };
                let released = |last, actor: &mut Self, ctx: &mut Context<Self>| actor.on(Event::Released(last), ctx);
                ctx.spawn(release.into_actor(self).map(released));
            }
            // Before the first answer it is being asked anyway.
            Effect::Ask if self.asks => {}
            Effect::Ask => self.ask(ctx),
            Effect::DropPublisher { reason } => {
                self.notify(Notice::Drop {
                    publish_id: self.about.publish.id.clone(),
                    reason,
                });
            }
            Effect::StopRecorders(recording) => {
                self.tell(recording, &Word::Stop);
                self.forget_recorders(recording);
            }
            Effect::RemoveJournal => {
                self.remove_journal = true;
                self.remove_journal_when_told(ctx);
            }
            Effect::KeepJournal { reason } => self.keep_journal(&reason, ctx),
        }
    }

    /// Removes the journal, if that is due and the last word on its recordings is stored.
    fn remove_journal_when_told(&mut self, ctx: &mut Context<Self>) {
        if !self.remove_journal || !self.writing.is_idle() {
            return;
        }
        if let Err(error) = self.ground.remove() {
            error!(publish = %self.about.publish.id, %error, "journal cannot be removed");
        }
        info!(publish = %self.about.publish.id, stream = %self.about.stream, "publish settled");
        self.notify(Notice::Done {
            publish_id: self.about.publish.id.clone(),
        });
        ctx.stop();
    }

    /// Tells the library that all of this publish is stored, once its last word on the recording is: nothing is written behind who finishes it.
    fn pause_when_told(&mut self, recording: RecordingId, ctx: &mut Context<Self>) {
        if self.writing.is_writing(recording) {
            return;
        }
        if let Some((reason, gaps)) = self.pausing.remove(&recording) {
            self.commit_recording(recording, RecordingState::Interrupted, reason, gaps, ctx);
        }
    }

    /// Puts the journal aside, where nothing takes it up again.
    fn keep_journal(&self, reason: &str, ctx: &mut Context<Self>) {
        match self.ground.put_aside(reason) {
            Ok(kept) => {
                error!(publish = %self.about.publish.id, stream = %self.about.stream, reason, kept = %kept.display(), "recordings lost to another owner; the journal is kept");
            }
            Err(error) => {
                error!(publish = %self.about.publish.id, reason, %error, "the journal of lost recordings cannot be put aside; it stays where it is");
            }
        }
        self.notify(Notice::Done {
            publish_id: self.about.publish.id.clone(),
        });
        ctx.stop();
    }

    fn forget_recorders(&mut self, recording: RecordingId) {
        if self.recorders.keys().any(|(id, _)| *id == recording) {
            self.common.metrics.recordings.dec();
        }
        self.recorders.retain(|(id, _), _| *id != recording);
    }

    fn notify(&self, notice: Notice) {
        if let Err(error) = self.parent.try_send(notice) {
            error!(%error, "the worker does not take a stream's notice");
        }
    }

    /// The grant lies beside the journal, so that a restart goes on without the coordinator.
    fn keep(&self, grant: &Grant) {
        if let Err(error) = self.ground.keep(grant) {
            warn!(publish = %self.about.publish.id, %error, "grant not kept; after a restart it is asked for again");
        }
    }

    fn start_recorder(&mut self, recording: &GrantedRecording, format: Format, ctx: &Context<Self>) {
        let interval_ms = match (format, recording.template.formats.get(&format)) {
            (Format::Hls, _) => self.common.hls_target_ms,
            (_, Some(settings)) => i64::from(settings.record_interval_s) * 1000,
            (_, None) => 1_800_000,
        };
        let root = recording.template.folder(&self.about.stream, recording.id);
        let order = Order {
            recording: recording.id,
            epoch: self.about.epoch,
            format,
            interval_ms,
            prefix: format!("{root}/{}/{}", self.about.epoch.path_component(), format.as_str()),
            from_ms: recording.window.from.map(Timestamp::as_millis),
            fragments: recording.template.hls_segments() == HlsSegments::Fmp4,
            storage_class: recording.template.storage_class(format).map(str::to_owned),
            stitch: recording.stitch.clone().map(|behind| Stitched {
                root,
                epoch: self.about.epoch,
                behind,
            }),
        };
        if !self.recorders.keys().any(|(other, _)| *other == recording.id) {
            self.common.metrics.recordings.inc();
        }
        self.needs.came_to(recording.id, format, 0);
        let until_ms = recording.window.until.map(Timestamp::as_millis);
        let recorder = self.ground.start_recorder(order, until_ms, ctx.address().recipient());
        self.recorders.insert((recording.id, format), recorder);
    }

    /// Tells every recorder of a recording; one that has ended needs no telling.
    fn tell(&self, recording: RecordingId, word: &Word) {
        for ((_, format), recorder) in self.recorders.iter().filter(|((id, _), _)| *id == recording) {
            if let Err(SendError::Full(_)) = recorder.try_send(word.clone()) {
                error!(%recording, %format, "a recorder does not take messages");
            }
        }
    }

    /// Tells the library that a recording granted ahead of time has begun.
    fn begin_recording(&mut self, recording: RecordingId, ctx: &mut Context<Self>) {
        let (agent, epoch) = (self.common.agent.clone(), self.about.epoch);
        let begin = async move {
            let state = (RecordingState::Recording, String::new(), 0);
            // If it is lost, its first file or its end says so.
            agent.commit_recording(recording, epoch, state, &[], 0).await;
        };
        let done = move |(), actor: &mut Self, ctx: &mut Context<Self>| actor.on(Event::Begun(recording), ctx);
        ctx.spawn(begin.into_actor(self).map(done));
    }

    /// Commits once the file is safe against power loss: what is in the library is there.
    fn commit_file(&mut self, recording: RecordingId, file: FinishedFile, ctx: &mut Context<Self>) {
        let Some(granted) = self.granted(recording) else { return };
        let media_file = self.about.media_file(&granted, &file);
        info!(recording = %recording, file = %media_file.name, format = %file.format, bytes = file.size, duration_ms = file.duration_ms, "file finished");
        let (agent, shelf) = (self.common.agent.clone(), Arc::clone(&self.common.shelf));
        let epoch = self.about.epoch;
        let (remind, is_old) = (self.remind(), self.is_adopted);
        let zone = self.about.zone.iana_name().unwrap_or_default().to_owned();
        self.common.metrics.commits_waiting.inc();
        let commit = async move {
            shelf.durable().await;
            let commit = async {
                let verdict = agent.commit_file(recording, epoch, &media_file).await;
                if verdict != Verdict::Unknown {
                    return verdict;
                }
                agent.acquire(remind).await;
                agent.commit_file(recording, epoch, &media_file).await
            };
            let verdict = vouch::until_entered(commit, shelf.as_ref(), (&file, &zone), is_old).await;
            (verdict, file)
        };
        let since = Instant::now();
        let done = move |(verdict, file): (Verdict, FinishedFile), actor: &mut Self, ctx: &mut Context<Self>| {
            actor.common.metrics.commits_waiting.dec();
            if let Some(reason) = fenced::reason(verdict) {
                return actor.on(Event::Lost { recording, reason }, ctx);
            }
            actor.common.metrics.commit.took(since.elapsed());
            actor.figures.entered(&file);
            let file_id = file.file_id;
            actor.on(Event::FileCommitted { recording, file_id }, ctx);
        };
        ctx.spawn(commit.into_actor(self).map(done));
    }

    fn write_document(
        &mut self,
        recording: RecordingId,
        state: RecordingState,
        reason: String,
        left_out: &[Gap],
        ctx: &mut Context<Self>,
    ) {
        let Some(granted) = self.granted(recording) else { return };
        let ended = state.is_terminal().then_some(self.now);
        match self.ground.noted(recording) {
            Ok(files) => {
                let document = self.about.document(&granted, &files, (state, reason, ended), left_out);
                if let Some(document) = self.writing.offer(recording, document) {
                    self.put_document(recording, document, ctx);
                }
            }
            Err(error) => error!(%recording, %error, "recording.json cannot be written"),
        }
    }

    /// Stores one version of `recording.json`, then the next.
    fn put_document(&self, recording: RecordingId, document: RecordingDocument, ctx: &mut Context<Self>) {
        let (shelf, documents) = (Arc::clone(&self.common.shelf), self.common.documents.clone());
        let put = async move { documents.put(shelf.as_ref(), document).await };
        ctx.spawn(put.into_actor(self).map(move |written, actor, ctx| {
            if let Err(error) = written {
                error!(%recording, %error, "recording.json cannot be written");
            }
            if let Some(document) = actor.writing.written(recording) {
                actor.put_document(recording, document, ctx);
            }
            actor.pause_when_told(recording, ctx);
            actor.remove_journal_when_told(ctx);
        }));
    }

    fn commit_recording(
        &mut self,
        recording: RecordingId,
        state: RecordingState,
        reason: String,
        gaps: Vec<Gap>,
        ctx: &mut Context<Self>,
    ) {
        let remind = self.remind();
        let files = self
            .ground
            .noted(recording)
            .map(|f| u32::try_from(f.len()).unwrap_or(u32::MAX));
        let (agent, epoch, ended) = (
            self.common.agent.clone(),
            self.about.epoch,
            if state.is_terminal() { self.now.as_millis() } else { 0 },
        );
        let commit = async move {
            let files = files.unwrap_or(0);
            let end = (state, reason, ended);
            let mut verdict = agent
                .commit_recording(recording, epoch, end.clone(), &gaps, files)
                .await;
            if verdict == Verdict::Unknown {
                agent.acquire(remind).await;
                verdict = agent.commit_recording(recording, epoch, end, &gaps, files).await;
            }
            // One that never began leaves the library when it ends: that it is not there is what was wanted.
            if verdict == Verdict::Unknown && files == 0 {
                Verdict::Done
            } else {
                verdict
            }
        };
        let done = move |verdict, actor: &mut Self, ctx: &mut Context<Self>| {
            actor.forget_recorders(recording);
            actor.needs.ended(recording);
            match fenced::reason(verdict) {
                Some(reason) => actor.on(Event::Lost { recording, reason }, ctx),
                None => actor.on(Event::RecordingCommitted(recording), ctx),
            }
        };
        ctx.spawn(commit.into_actor(self).map(done));
    }

    fn granted(&self, recording: RecordingId) -> Option<GrantedRecording> {
        self.core
            .grant()
            .and_then(|g| g.recordings.iter().find(|r| r.id == recording))
            .cloned()
    }

    /// Gives up the journal's bodies that nobody needs any more.
    fn tidy(&mut self, _: &mut Context<Self>) {
        self.figures.look(&self.ground.journaled(), self.needs.cursors());
        if self.core.grant().is_none() {
            return;
        }
        let now = self.common.clock.monotonic();
        let keep_from = self.needs.from(&self.ground.journaled(), self.common.preroll, now);
        if keep_from > 0
            && let Err(error) = self.ground.drop_bodies_before(keep_from)
        {
            warn!(publish = %self.about.publish.id, %error, "old journal segments cannot be removed");
        }
    }

    /// What tells a coordinator that has forgotten this publish what it was granted.
    fn remind(&self) -> Ask {
        Ask {
            publish: self.about.publish_id,
            stream: self.about.stream.clone(),
            params: self.about.publish.params.clone(),
            client: self.about.publish.client.clone(),
            started_ms: self.about.publish.started_ms,
            over: Arc::clone(&self.over),
            held: self.core.grant().cloned(),
        }
    }

    fn ask(&mut self, ctx: &mut Context<Self>) {
        let ask = self.remind();
        self.asks = true;
        let agent = self.common.agent.clone();
        let since = Instant::now();
        let turn = self.turn.take().unwrap_or_else(|| agent.turn(&ask.stream));
        let answer = async move { agent.acquire_in(turn, ask).await };
        ctx.spawn(answer.into_actor(self).map(move |outcome, actor, ctx| {
            actor.asks = false;
            match outcome {
                LeaseOutcome::Granted(grant) => {
                    actor.common.metrics.lease.took(since.elapsed());
                    actor.on(Event::Granted(grant), ctx);
                }
                LeaseOutcome::Refused(refusal) => {
                    warn!(stream = %actor.about.stream, reason = %refusal, "lease refused");
                    actor.on(Event::Refused(refusal.reason), ctx);
                }
            }
        }));
    }

    /// Files that were finished before the crash may not have reached the library: they are committed again.
    fn commit_noted(&mut self, ctx: &mut Context<Self>) {
        let recordings: Vec<RecordingId> = self
            .core
            .grant()
            .map(|g| g.recordings.iter().map(|r| r.id).collect())
            .unwrap_or_default();
        for recording in recordings {
            match self.ground.noted(recording) {
                Ok(files) => {
                    for file in files {
                        let format = file.format;
                        self.on(
                            Event::Rendered {
                                recording,
                                format,
                                files: vec![file],
                                left_out: Vec::new(),
                                done: false,
                            },
                            ctx,
                        );
                    }
                }
                Err(error) => error!(%recording, %error, "records of finished files cannot be read"),
            }
        }
    }
}

/// The coordinator does not know this publish: it is to be asked again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AskAgain;

impl Handler<AskAgain> for StreamActor {
    type Result = ();

    fn handle(&mut self, AskAgain: AskAgain, ctx: &mut Self::Context) {
        self.on(Event::Unknown, ctx);
    }
}

impl Actor for StreamActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TIDY_EVERY, Self::tidy);
        ctx.run_interval(TICK_EVERY, |actor, ctx| {
            if actor.core.waits_for_time() {
                actor.on(Event::Tick, ctx);
            }
        });
        match self.adopted.take() {
            None => self.ask(ctx),
            Some((Some(grant), reason)) => {
                self.common.agent.note_epoch(&self.about.stream, grant.epoch);
                self.on(Event::Granted(grant), ctx);
                self.commit_noted(ctx);
                self.on(Event::Closed(reason), ctx);
            }
            Some((None, reason)) => {
                self.on(Event::Closed(reason), ctx);
                self.ask(ctx);
            }
        }
    }
}

impl Handler<Closed> for StreamActor {
    type Result = ();

    fn handle(&mut self, Closed(reason): Closed, ctx: &mut Self::Context) {
        let all = self.ground.journaled();
        self.figures.look(&all, self.needs.cursors());
        self.shown.closed(self.about.epoch, &reason, &all);
        self.on(Event::Closed(reason), ctx);
    }
}

impl Handler<Set> for StreamActor {
    type Result = ();

    fn handle(&mut self, Set(grant): Set, ctx: &mut Self::Context) {
        info!(stream = %self.about.stream, revision = grant.revision, recordings = grant.recordings.len(), "recordings set");
        self.on(Event::Set(grant), ctx);
    }
}

impl Handler<GiveUp> for StreamActor {
    type Result = ();

    fn handle(&mut self, GiveUp(reason): GiveUp, _: &mut Self::Context) {
        let running = &self.recorders;
        self.needs.give_up(|recorder| running.contains_key(recorder));
        for recorder in self.recorders.values() {
            // One that has ended has nothing to give up.
            let _ = recorder.try_send(Word::GiveUp(reason));
        }
    }
}

impl Handler<Report> for StreamActor {
    type Result = ();

    fn handle(&mut self, report: Report, ctx: &mut Self::Context) {
        let event = match report {
            Report::Stepped { setting, stepped } => {
                let Ok(recording) = setting.recording_id.parse() else {
                    return;
                };
                if self.recorders.contains_key(&(recording, setting.format)) {
                    match stepped.done {
                        true => self.needs.done(recording, setting.format),
                        false => self.needs.came_to(recording, setting.format, stepped.retired),
                    }
                }
                if stepped.waits {
                    return self.on(Event::Waits(recording), ctx);
                }
                self.figures.lacks(&stepped.left_out);
                let (format, files, done) = (setting.format, stepped.files, stepped.done);
                Event::Rendered {
                    recording,
                    format,
                    files,
                    left_out: stepped.left_out,
                    done,
                }
            }
            Report::GaveUp { setting, reason } => {
                self.ground.abandon(&format!("{}/", setting.prefix));
                let Ok(recording) = setting.recording_id.parse() else {
                    return;
                };
                // Nothing of the journal is kept for it any more.
                self.needs.done(recording, setting.format);
                Event::Failed {
                    recording,
                    format: setting.format,
                    reason,
                }
            }
        };
        self.on(event, ctx);
    }
}
