//! [`RecorderActor`]: says when a recorder's next step is due, lends it a render thread, and stores what the step gave back.
//!
//! Where storing takes its time, the actor first waits for its turn, then renders, then waits until that is stored: nothing is
//! rendered that must wait in memory. A storage that does not answer is no failure of the recorder, however long it takes.

use std::mem::{self, Discriminant};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use journal::Progress;
use shared::telemetry::{FormatLabel, Latency, WorkerMetrics};
use shared::trace::{self, Chapters};
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, error, warn};

use super::place::Place;
use super::pool::{Pool, Scratch};
use super::{FinishedFile, Reach, RecordError, Recorder, Setting, Stepped};
use crate::upload::abandoned::Abandoned;
use crate::upload::{HELD, Haste, Objects, Store, StoreError, Stored, Turn, Way};

/// How often a recorder asks whether a step is worth its cost. It bounds how late a segment is, not how much is lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often one that waits for a sync looks whether it has ended.
const SYNC_POLL: Duration = Duration::from_millis(50);
/// After this many failures in a row a recorder gives up; the waits between them add up to about ten minutes.
const FAILURES: u32 = 12;
/// First wait after a failure; doubled with each, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Longest wait after storage did not take something; that may go on for ever.
const LONGEST_STORAGE_WAIT: Duration = Duration::from_secs(30);

/// What a recorder reports to its stream.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Report {
    Stepped { setting: Arc<Setting>, stepped: Stepped },
    GaveUp { setting: Arc<Setting>, reason: String },
}

/// What a recorder is told.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) enum Word {
    /// The journal is complete: go to its end.
    End,
    /// Stop at once, wherever it is: what it writes is another's.
    Stop,
    /// End with the last unit that arrived at or before this moment, milliseconds since the Unix epoch; none: with the journal. A
    /// moment that is past ends it where it has come to.
    MoveEnd(Option<i64>),
    /// End now, without finishing, for this reason.
    GiveUp(&'static str),
}

/// What a recorder is given.
pub(crate) struct Parts {
    pub(crate) setting: Arc<Setting>,
    pub(crate) objects: Objects,
    pub(crate) abandoned: Abandoned,
    pub(crate) sync: Arc<journal::GroupSync>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) progress: Arc<Progress>,
    /// The first end; see [`Word::MoveEnd`].
    pub(crate) until_ms: Option<i64>,
    /// Where its work shows in the recording's trace.
    pub(crate) chapters: Chapters,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) parent: Recipient<Report>,
}

/// One recorder of one recording and format.
pub(crate) struct RecorderActor {
    parts: Parts,
    /// Away while a step runs; none before the first step and after a failure.
    recorder: Option<Recorder>,
    busy: bool,
    /// It waits for its turn to store, and nothing else.
    waits: Option<SpawnHandle>,
    ending: bool,
    until_ms: Option<i64>,
    failures: u32,
    /// How often in a row storage did not take the same kind of thing, and of which kind it was: that something else is taken does not mean
    /// that this will be.
    refusals: u32,
    refused: Option<Discriminant<Store>>,
    /// The open file's upload is no more.
    upload_lost: bool,
    place: Place,
}

type Step = Option<Result<(Recorder, Stepped), RecordError>>;

impl RecorderActor {
    pub(crate) fn new(parts: Parts) -> Self {
        let place = Place::new(&parts);
        Self {
            until_ms: parts.until_ms,
            parts,
            recorder: None,
            busy: false,
            waits: None,
            ending: false,
            failures: 0,
            refusals: 0,
            refused: None,
            upload_lost: false,
            place,
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.parts.progress.snapshot();
        // Units later than the end can only be there once something arrived later.
        let until_ms = self.until_ms.filter(|until| now.wall_ms > *until);
        let ends = self.ending || until_ms.is_some();
        let due = match &self.recorder {
            _ if ends => true,
            Some(recorder) => recorder.worthwhile(now.end.0, now.last_random_access.map(|(_, at)| at)),
            None => now.end.0 > 0,
        };
        if !due || self.busy {
            return;
        }
        self.busy = true;
        match self.place.objects(&self.parts) {
            Objects::Local(_) => self.step(None, ctx),
            Objects::Remote(remote) => {
                // One that has to be opened may have a whole part to store.
                let most = || remote.plan().part_len(0) + HELD;
                let weight = self.recorder.as_ref().map_or_else(most, |r| r.weight(now.end.0));
                let haste = if ends { Haste::Ending } else { Haste::GoingOn };
                let (remote, may_leave) = (remote.clone(), self.place.may_leave());
                let way = async move {
                    match may_leave {
                        true => remote.turn_or_leave(weight, haste).await,
                        false => remote.turn(weight, haste).await.map(Way::Go),
                    }
                };
                let way = way.into_actor(self).map(|way, actor, ctx| {
                    actor.waits = None;
                    match way {
                        Some(Way::Go(turn)) => actor.step(Some(turn), ctx),
                        Some(Way::Leave) => actor.leave(ctx),
                        None => actor.failed("uploads have ended", ctx),
                    }
                });
                self.waits = Some(ctx.spawn(way));
            }
        }
    }

    /// What it waits for may be another turn than the one that it asked for.
    fn look_anew(&mut self, ctx: &mut Context<Self>) {
        if let Some(waits) = self.waits.take() {
            ctx.cancel_future(waits);
            self.busy = false;
        }
        self.look(ctx);
    }

    /// Renders as far as the journal goes now; what it gives back to store is stored with `turn`.
    fn step(&mut self, turn: Option<Turn>, ctx: &mut Context<Self>) {
        let now = self.parts.progress.snapshot();
        let reach = Reach {
            end: now.end.0,
            last: self.ending,
            until_ms: self.until_ms.filter(|until| now.wall_ms > *until),
        };
        let recorder = self.recorder.take();
        let setting = Setting::clone(&self.parts.setting);
        let (objects, sync) = (self.place.objects(&self.parts), Arc::clone(&self.parts.sync));
        let upload_lost = mem::take(&mut self.upload_lost);
        let span = self.parts.chapters.place().span("render");
        let job = move |scratch: &mut Scratch| -> Result<(Recorder, Stepped), RecordError> {
            let mut recorder = match recorder {
                Some(recorder) => recorder,
                None => Recorder::open(setting, objects, sync)?,
            };
            if upload_lost {
                recorder.lose_upload()?;
            }
            let stepped = recorder.step(scratch, reach)?;
            trace::say(
                &Span::current(),
                "aircheck.files",
                i64::try_from(stepped.files.len()).unwrap_or(i64::MAX),
            );
            Ok((recorder, stepped))
        };
        let job = move |scratch: &mut Scratch| {
            span.in_scope(|| job(scratch).inspect_err(|error| trace::fail(&Span::current(), error)))
        };
        let (latency, since) = (self.render_latency(), Instant::now());
        let result = self.parts.pool.run(job).into_actor(self);
        ctx.spawn(result.map(move |result, actor, ctx| {
            latency.took(since.elapsed());
            actor.stepped(result.ok(), turn, ctx);
        }));
    }

    fn render_latency(&self) -> Latency {
        let format = self.parts.setting.format.as_str();
        self.parts.metrics.render.get_or_create(&FormatLabel { format }).clone()
    }

    fn stepped(&mut self, result: Step, turn: Option<Turn>, ctx: &mut Context<Self>) {
        let after_storing = turn.is_none() && matches!(self.parts.objects, Objects::Remote(_));
        match result {
            Some(Ok((recorder, mut stepped))) => {
                if let (Some(store), Some(turn)) = (stepped.store.take(), turn) {
                    self.store(recorder, stepped, store, turn, ctx);
                    return;
                }
                self.busy = false;
                self.failures = 0;
                self.recorder = self.place.back(recorder, after_storing, &self.parts);
                let (done, waits, settles) = (stepped.done, stepped.waits, stepped.settles);
                // While it settles there is nothing new to say but what was finished before.
                if !settles || !stepped.files.is_empty() {
                    self.report(Report::Stepped {
                        setting: Arc::clone(&self.parts.setting),
                        stepped,
                    });
                }
                if done {
                    ctx.stop();
                } else if settles {
                    self.again_in(SYNC_POLL, ctx);
                } else if !waits && (self.ending || after_storing) {
                    self.look(ctx);
                }
            }
            Some(Err(error)) => self.failed(&error.to_string(), ctx),
            None => self.failed("rendering panicked", ctx),
        }
    }

    /// Stores what a step gave back, while the recorder waits.
    fn store(&mut self, recorder: Recorder, stepped: Stepped, store: Store, turn: Turn, ctx: &mut Context<Self>) {
        let Objects::Remote(remote) = self.place.objects(&self.parts) else {
            self.failed("a directory stores within the step", ctx);
            return;
        };
        let kind = mem::discriminant(&store);
        let span = self.parts.chapters.place().call("upload");
        let stored = async move {
            let stored = remote.perform(store, turn).await;
            stored.inspect_err(|error| trace::fail(&Span::current(), error))
        };
        let since = Instant::now();
        let stored = stored.instrument(span).into_actor(self);
        ctx.spawn(stored.map(move |stored, actor, ctx| match stored {
            Ok(stored) => {
                if actor.refused == Some(kind) {
                    (actor.refusals, actor.refused) = (0, None);
                }
                actor.parts.metrics.upload.took(since.elapsed());
                actor.stored(recorder, stepped.files, stored, ctx);
            }
            Err(error) => {
                actor.refused = Some(kind);
                actor.refused(&error, ctx);
            }
        }));
    }

    fn stored(&mut self, mut recorder: Recorder, files: Vec<FinishedFile>, stored: Stored, ctx: &mut Context<Self>) {
        let job = move |_: &mut Scratch| -> Result<(Recorder, Stepped), RecordError> {
            let mut stepped = recorder.stored(stored)?;
            stepped.files.extend(files);
            Ok((recorder, stepped))
        };
        let result = self.parts.pool.run(job).into_actor(self);
        ctx.spawn(result.map(move |result, actor, ctx| actor.stepped(result.ok(), None, ctx)));
    }

    /// The recorder goes back to the state on disk, and tries again: the journal has everything.
    fn refused(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        let wait = FIRST_WAIT
            .saturating_mul(1 << self.refusals.min(16))
            .min(LONGEST_STORAGE_WAIT);
        self.refusals += 1;
        let (recording, format) = (&self.parts.setting.recording_id, self.parts.setting.format.as_str());
        if let StoreError::UploadLost(error) = error {
            error!(%recording, format, error, "storage has given up an upload that was not complete; is there a life cycle rule that aborts them too early?");
            self.upload_lost = true;
            // It may go back to where the file began: until it has, all of the journal is kept.
            self.report(Report::Stepped {
                setting: Arc::clone(&self.parts.setting),
                stepped: Stepped::default(),
            });
        }
        debug!(%recording, format, %error, ?wait, "not stored, will try again");
        self.again_in(wait, ctx);
    }

    /// The first place has not answered for long: goes to the second, if nothing is lost with what is in the first.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        let recorder = self.recorder.take();
        let leaving = self.place.leaving(&self.parts);
        let left = self.parts.pool.run(move |_: &mut Scratch| leaving.leave(recorder));
        ctx.spawn(left.into_actor(self).map(|left, actor, ctx| match left {
            Ok(Ok(stays)) => {
                actor.busy = false;
                actor.failures = 0;
                actor.recorder = actor.place.left(stays, &actor.parts);
                // Until it has gone back to where the file began, all of the journal is kept.
                actor.report(Report::Stepped {
                    setting: Arc::clone(&actor.parts.setting),
                    stepped: Stepped::default(),
                });
                actor.look(ctx);
            }
            Ok(Err(error)) => actor.failed(&error.to_string(), ctx),
            Err(_) => actor.failed("going to the second place panicked", ctx),
        }));
    }

    fn again_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        self.busy = true;
        ctx.run_later(wait, |actor, ctx| {
            actor.busy = false;
            actor.look(ctx);
        });
    }

    /// A fresh recorder starts from the state on disk, after a while.
    fn failed(&mut self, reason: &str, ctx: &mut Context<Self>) {
        self.failures += 1;
        let (recording, format) = (&self.parts.setting.recording_id, self.parts.setting.format.as_str());
        if self.failures >= FAILURES {
            self.give_up(reason, ctx);
            return;
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << (self.failures - 1).min(16))
            .min(LONGEST_WAIT);
        warn!(%recording, format, reason, ?wait, "recorder failed, will try again");
        self.again_in(wait, ctx);
    }

    fn give_up(&mut self, reason: &str, ctx: &mut Context<Self>) {
        let (recording, format) = (&self.parts.setting.recording_id, self.parts.setting.format.as_str());
        error!(%recording, format, reason, "recorder gave up");
        self.report(Report::GaveUp {
            setting: Arc::clone(&self.parts.setting),
            reason: reason.to_owned(),
        });
        ctx.stop();
    }

    fn report(&self, report: Report) {
        // The parent's mailbox holds one report of each recorder at most, since a step waits for none before it.
        if let Err(error) = self.parts.parent.try_send(report) {
            error!(%error, "a recorder's stream is gone");
        }
    }
}

impl Actor for RecorderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, Self::look);
        self.look(ctx);
    }
}

impl Handler<Word> for RecorderActor {
    type Result = ();

    fn handle(&mut self, word: Word, ctx: &mut Self::Context) {
        match word {
            Word::End => {
                self.ending = true;
                self.look_anew(ctx);
            }
            Word::Stop => ctx.stop(),
            Word::MoveEnd(until_ms) => {
                self.until_ms = until_ms;
                self.look_anew(ctx);
            }
            Word::GiveUp(reason) => self.give_up(reason, ctx),
        }
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
