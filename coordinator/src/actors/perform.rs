//! Does what the [`Planner`](crate::planner::Planner) says.

use std::{collections::BTreeSet, error::Error as StdError};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use shared::{
    ids::{FileId, TaskId, WorkerId},
    lease::FencingToken,
    recording::RecordingState,
    store::{CommitError, NextOwner, RecordingUpdate, Repo, StoreError},
    time::Timestamp,
};
use tracing::{debug, warn};

use super::coordinator::CoordinatorActor;
use crate::{
    compositions::{Clear, GivenUp},
    leases::Changed,
    planner::Output,
    stitches::Finish,
};

/// Recordings of one task that are looked at to tell whether it has ended.
const LOOK_AT: usize = 10_000;
/// Why the recording of a composition is finished.
const COMPOSED: &str = "composed";

impl CoordinatorActor {
    pub(super) fn perform_all(&mut self, out: impl IntoIterator<Item = Output>, ctx: &mut Context<Self>) {
        for output in out {
            self.perform(output, ctx);
        }
    }

    pub(super) fn perform(&mut self, output: Output, ctx: &mut Context<Self>) {
        match output {
            // A failure is the committer's to report.
            Output::Commit(txn) => drop(self.committer.submit(txn)),
            Output::Announce(changed) => self.announce(changed, ctx),
            Output::PassOn(finish) => self.pass_on(finish, ctx),
            Output::Tell(worker, down) => self.tell(worker, down),
            Output::Mark {
                recordings,
                interrupted,
            } => self.marker.mark(recordings, interrupted, self.tools.clock.now()),
            Output::Clear(clear) => self.clear(*clear, ctx),
            Output::GiveUp(given_up) => self.give_up(given_up, ctx),
            Output::ReadTask(task) => self.read_task(task, ctx),
            Output::FailLost { until, back } => self.fail_lost(until, back),
            Output::Forget { publishes, tasks } => self.forget(publishes, tasks),
        }
    }

    fn announce(&self, changed: Changed, ctx: &mut Context<Self>) {
        let (publish, revision) = (changed.publish, changed.revision);
        let next = NextOwner {
            epoch: changed.epoch,
            worker: changed.worker,
            publish: Some(publish),
        };
        let durable = self.committer.submit(changed.txn);
        let repo = self.tools.repo.clone();
        let announced = async move {
            durable.await?;
            match changed.goes_on {
                Some(recording) => repo.pass_on(recording, next).await.map(drop),
                None => Ok(()),
            }
        };
        ctx.spawn(announced.into_actor(self).map(move |result, actor, ctx| {
            let said = result.ok().and_then(|()| actor.planner.announced(publish, revision));
            actor.perform_all(said, ctx);
        }));
    }

    fn pass_on(&self, finish: Finish, ctx: &mut Context<Self>) {
        let Finish {
            recording,
            worker,
            epoch,
            txn,
        } = finish;
        let durable = self.committer.submit(txn);
        let repo = self.tools.repo.clone();
        let next = NextOwner {
            epoch,
            worker,
            publish: None,
        };
        let over = self.tools.clock.now();
        // A task may be over while its stream goes on.
        let leases = &self.planner.state.leases;
        let away = leases
            .is_away(recording)
            .then(|| super::stitches::interruption(leases, (recording, epoch), over));
        let away = away.flatten();
        let composition = self.planner.state.compositions.get(recording);
        let file = composition.map(|(one, _)| one.file_id());
        let passed = async move {
            durable.await?;
            away.into_iter().for_each(|(place, past)| place.show(past));
            let passed = repo.pass_on(recording, next).await?;
            let made = match file.filter(|_| passed) {
                Some(file) => end_made(&repo, FencingToken { recording, epoch }, file, over).await?,
                None => false,
            };
            Ok((passed, made))
        };
        ctx.spawn(passed.into_actor(self).map(move |passed, actor, ctx| {
            let out = match passed {
                Ok((_, true)) => {
                    let ended = (RecordingState::Finished, COMPOSED);
                    actor
                        .planner
                        .recording_ended(recording, &[], ended, None, actor.tools.at())
                }
                Ok((passed, false)) => actor.planner.passed_on(recording, worker, Ok(passed)),
                Err(error) => actor.planner.passed_on(recording, worker, Err(error)),
            };
            actor.perform_all(out, ctx);
        }));
    }

    fn clear(&self, clear: Clear, ctx: &mut Context<Self>) {
        let (repo, committer, now) = (self.tools.repo.clone(), self.committer.clone(), self.tools.clock.now());
        let cleared = async move {
            let kept = repo.file(clear.file()).await?;
            let txn = clear.txn(kept.map(|file| file.epoch), now)?;
            committer.submit(txn).await
        };
        ctx.spawn(cleared.into_actor(self).map(|cleared: Result<(), StoreError>, _, _| {
            if let Err(error) = cleared {
                // It is done when the composition is forgotten.
                warn!(
                    error = &error as &dyn StdError,
                    "what attempts at a composition left is not cleared yet"
                );
            }
        }));
    }

    fn give_up(&self, given_up: GivenUp, ctx: &mut Context<Self>) {
        let GivenUp {
            recording,
            epoch,
            problem,
        } = given_up;
        let repo = self.tools.repo.clone();
        let update = RecordingUpdate {
            state: RecordingState::Failed,
            reason: problem.clone(),
            ended: Some(self.tools.clock.now()),
            gaps: Vec::new(),
            files: None,
        };
        let (token, now) = (FencingToken { recording, epoch }, self.tools.clock.now());
        let composition = self.planner.state.compositions.get(recording);
        let file = composition.map(|(one, _)| one.file_id());
        let done = async move {
            if let Some(file) = file
                && end_made(&repo, token, file, now).await?
            {
                return Ok(true);
            }
            match repo.commit_recording(token, &update).await {
                // It never had a worker, and so no recording.
                Ok(()) | Err(CommitError::NoRecording(_)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        ctx.spawn(
            done.into_actor(self)
                .map(move |done: Result<bool, CommitError>, actor, ctx| match done {
                    Ok(made) => {
                        let ended = match made {
                            true => (RecordingState::Finished, COMPOSED),
                            false => (RecordingState::Failed, problem.as_str()),
                        };
                        let out = actor
                            .planner
                            .recording_ended(recording, &[], ended, None, actor.tools.at());
                        actor.perform_all(out, ctx);
                    }
                    // It is tried again with the next look.
                    Err(error) => warn!(%recording, error = &error as &dyn StdError, "composition not given up yet"),
                }),
        );
    }

    fn read_task(&self, task: TaskId, ctx: &mut Context<Self>) {
        let repo = self.tools.repo.clone();
        let read = async move { repo.task_recordings(task, LOOK_AT).await };
        ctx.spawn(read.into_actor(self).map(move |read, actor, ctx| {
            let out = actor.planner.task_read(task, read, actor.tools.at());
            actor.perform_all(out, ctx);
        }));
    }

    fn fail_lost(&self, until: Timestamp, back: BTreeSet<WorkerId>) {
        let (repo, now) = (self.tools.repo.clone(), self.tools.clock.now());
        self.tools.tasks.spawn_local(async move {
            match repo.fail_lost(until, now, |worker| back.contains(&worker)).await {
                Ok(failed) if failed.is_empty() => {}
                Ok(failed) => warn!(
                    recordings = failed.len(),
                    "recordings given up: their worker was away for too long"
                ),
                Err(error) => warn!(error = &error as &dyn StdError, "lost recordings not looked for"),
            }
        });
    }

    fn forget(&self, publishes: Timestamp, tasks: Timestamp) {
        let repo = self.tools.repo.clone();
        self.tools.tasks.spawn_local(async move {
            match repo.forget_tasks(tasks).await {
                Ok(count) => debug!(count, "tasks forgotten"),
                Err(error) => warn!(error = &error as &dyn StdError, "tasks not forgotten"),
            }
            match repo.forget_publishes(publishes).await {
                Ok(count) => debug!(count, "publishes forgotten"),
                Err(error) => warn!(error = &error as &dyn StdError, "publishes not forgotten"),
            }
        });
    }
}

/// Ends a composition whose file is in the library: whoever entered it died before it said so, and is fenced by now. False: there is no file.
async fn end_made(repo: &Repo, token: FencingToken, file: FileId, now: Timestamp) -> Result<bool, StoreError> {
    if repo.file(file).await?.is_none() {
        return Ok(false);
    }
    let update = RecordingUpdate {
        state: RecordingState::Finished,
        reason: COMPOSED.to_owned(),
        ended: Some(now),
        gaps: Vec::new(),
        files: Some(1),
    };
    match repo.commit_recording(token, &update).await {
        Ok(()) => Ok(true),
        Err(CommitError::Store(error)) => Err(error),
        // It has ended otherwise, or is another's by now.
        Err(_) => Ok(false),
    }
}
