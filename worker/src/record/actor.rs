//! [`RecorderActor`]: says when a recorder's next step is due, and lends it a render thread.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use journal::Progress;
use tracing::{error, warn};

use super::pool::{Pool, Scratch};
use super::{Reach, RecordError, Recorder, Setting, Stepped};
use crate::upload::Objects;

/// How often a recorder asks whether a step is worth its cost. It bounds how late a segment is, not how much is lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After this many failures in a row a recorder gives up; the waits between them add up to about ten minutes.
const FAILURES: u32 = 12;
/// First wait after a failure; doubled with each, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// What a recorder reports to its stream.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Report {
    Stepped { setting: Arc<Setting>, stepped: Stepped },
    GaveUp { setting: Arc<Setting>, reason: String },
}

/// The journal is complete: go to its end.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct End;

/// End with the last unit that arrived at or before this moment, milliseconds since the Unix epoch; none: with the journal. A moment
/// that is past ends it where it has come to.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct MoveEnd(pub(crate) Option<i64>);

/// What a recorder is given.
pub(crate) struct Parts {
    pub(crate) setting: Arc<Setting>,
    pub(crate) objects: Objects,
    pub(crate) sync: Arc<journal::GroupSync>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) progress: Arc<Progress>,
    /// The first end; see [`MoveEnd`].
    pub(crate) until_ms: Option<i64>,
    pub(crate) parent: Recipient<Report>,
}

/// One recorder of one recording and format.
pub(crate) struct RecorderActor {
    parts: Parts,
    /// Away while a step runs; none before the first step and after a failure.
    recorder: Option<Recorder>,
    busy: bool,
    ending: bool,
    until_ms: Option<i64>,
    failures: u32,
}

impl RecorderActor {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            until_ms: parts.until_ms,
            parts,
            recorder: None,
            busy: false,
            ending: false,
            failures: 0,
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.parts.progress.snapshot();
        // Units later than the end can only be there once something arrived later.
        let until_ms = self.until_ms.filter(|until| now.wall_ms > *until);
        let due = match &self.recorder {
            _ if self.ending || until_ms.is_some() => true,
            Some(recorder) => recorder.worthwhile(now.end.0, now.last_random_access.map(|(_, at)| at)),
            None => now.end.0 > 0,
        };
        if due && !self.busy {
            self.step(
                Reach {
                    end: now.end.0,
                    last: self.ending,
                    until_ms,
                },
                ctx,
            );
        }
    }

    fn step(&mut self, reach: Reach, ctx: &mut Context<Self>) {
        self.busy = true;
        let recorder = self.recorder.take();
        let setting = Setting::clone(&self.parts.setting);
        let (objects, sync) = (self.parts.objects.clone(), Arc::clone(&self.parts.sync));
        let job = move |scratch: &mut Scratch| -> Result<(Recorder, Stepped), RecordError> {
            let mut recorder = match recorder {
                Some(recorder) => recorder,
                None => Recorder::open(setting, objects, sync)?,
            };
            let stepped = recorder.step(scratch, reach)?;
            Ok((recorder, stepped))
        };
        let result = self.parts.pool.run(job).into_actor(self);
        ctx.spawn(result.map(move |result, actor, ctx| actor.stepped(result.ok(), ctx)));
    }

    fn stepped(&mut self, result: Option<Result<(Recorder, Stepped), RecordError>>, ctx: &mut Context<Self>) {
        self.busy = false;
        match result {
            Some(Ok((recorder, stepped))) => {
                self.failures = 0;
                self.recorder = Some(recorder);
                let done = stepped.done;
                self.report(Report::Stepped {
                    setting: Arc::clone(&self.parts.setting),
                    stepped,
                });
                if done {
                    ctx.stop();
                } else if self.ending {
                    self.look(ctx);
                }
            }
            Some(Err(error)) => self.failed(&error.to_string(), ctx),
            None => self.failed("rendering panicked", ctx),
        }
    }

    /// A fresh recorder starts from the state on disk, after a while.
    fn failed(&mut self, reason: &str, ctx: &mut Context<Self>) {
        self.failures += 1;
        let (recording, format) = (&self.parts.setting.recording_id, self.parts.setting.format.as_str());
        if self.failures >= FAILURES {
            error!(%recording, format, reason, "recorder gave up");
            self.report(Report::GaveUp {
                setting: Arc::clone(&self.parts.setting),
                reason: reason.to_owned(),
            });
            ctx.stop();
            return;
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << (self.failures - 1).min(16))
            .min(LONGEST_WAIT);
        warn!(%recording, format, reason, ?wait, "recorder failed, will try again");
        self.busy = true;
        ctx.run_later(wait, |actor, ctx| {
            actor.busy = false;
            actor.look(ctx);
        });
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

impl Handler<MoveEnd> for RecorderActor {
    type Result = ();

    fn handle(&mut self, MoveEnd(until_ms): MoveEnd, ctx: &mut Self::Context) {
        self.until_ms = until_ms;
        self.look(ctx);
    }
}

impl Handler<End> for RecorderActor {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        self.ending = true;
        self.look(ctx);
    }
}
