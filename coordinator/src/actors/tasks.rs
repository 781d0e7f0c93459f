//! What [`CoordinatorActor`] does for tasks: asks [`Tasks`](crate::tasks::Tasks) and [`Leases`](crate::leases::Leases) what follows, makes
//! it durable, and only then tells the workers.

use std::error::Error as StdError;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, WrapFuture as _};
use shared::{
    ids::{RecordingId, StreamKey, TaskId},
    recording::RecordingState,
    store::{StoreError, TaskRecording},
    task::{NewTask, Task},
    template::TemplateSpec,
};
use tracing::{debug, info, warn};

use super::coordinator::{CoordinatorActor, Down, State};
use crate::{
    catalog::TemplateRef,
    leases::{self, Changed},
    tasks::{Made, Presence, TaskError},
};

/// Recordings of one task that are looked at to tell whether it has ended.
const LOOK_AT: usize = 10_000;

impl State {
    /// How a stream stands.
    pub(crate) fn presence(&self, stream: &StreamKey) -> Presence {
        match self.leases.holder(stream) {
            None => Presence::Offline,
            Some(live) if self.fleet.is_alive(live.record.worker) => Presence::Live,
            Some(_) => Presence::Interrupted,
        }
    }

    /// The settings that a task's reference leads to. None: the default recording.
    fn template(&self, reference: &str) -> Option<TemplateSpec> {
        let by = match reference.parse() {
            Ok(id) => TemplateRef::Id(id),
            Err(_) => TemplateRef::Name(reference.to_owned()),
        };
        let found = self.catalog.template(&by).ok();
        found.map(|template| template.spec.clone())
    }
}

impl CoordinatorActor {
    /// What is due for tasks by now.
    pub(super) fn look_at_tasks(&mut self, ctx: &mut Context<Self>) {
        let moment = (self.tools.clock.now(), self.tools.clock.monotonic());
        let (leases, fleet) = (&self.state.leases, &self.state.fleet);
        let presence = |stream: &StreamKey| match leases.holder(stream) {
            None => Presence::Offline,
            Some(live) if fleet.is_alive(live.record.worker) => Presence::Live,
            Some(_) => Presence::Interrupted,
        };
        let plan = match self.state.tasks.plan(presence, moment) {
            Ok(plan) => plan,
            Err(error) => {
                warn!(error = &error as &dyn StdError, "tasks not looked at");
                return;
            }
        };
        let open = i64::try_from(self.state.tasks.len()).unwrap_or(i64::MAX);
        self.tools.metrics.tasks.set(open);
        self.submit_all(Ok(plan.txns));
        for task in plan.grant {
            self.grant_task(task, ctx);
        }
        for task in plan.read {
            let repo = self.tools.repo.clone();
            let read = async move { repo.task_recordings(task, LOOK_AT).await };
            ctx.spawn(
                read.into_actor(self)
                    .map(move |read, actor, _| actor.settle_task(task, read)),
            );
        }
    }

    fn grant_task(&mut self, task: TaskId, ctx: &mut Context<Self>) {
        let cx = leases::Context {
            catalog: &self.state.catalog,
            fleet: &self.state.fleet,
            doors: &self.state.doors,
            vault: &self.tools.vault,
            tasks: &self.state.tasks,
            ids: self.tools.ids.as_ref(),
            now: self.tools.clock.now(),
            mono: self.tools.clock.monotonic(),
        };
        let Some(task) = self.state.tasks.get(task) else { return };
        let changed = self.state.leases.grant_task(&cx, task);
        self.announce(changed, ctx);
    }

    /// Once a change of what a publish records is durable its worker hears of it. Whoever does not hear shows that with its heartbeat.
    fn announce(&mut self, changed: Result<Option<Changed>, StoreError>, ctx: &mut Context<Self>) {
        let Changed { publish, revision, txn } = match changed {
            Ok(Some(changed)) => changed,
            Ok(None) => return,
            Err(error) => {
                warn!(error = &error as &dyn StdError, "decision has no stored form");
                return;
            }
        };
        let durable = self.committer.submit(txn).into_actor(self);
        ctx.spawn(durable.map(move |result, actor, _| {
            // A failure is the committer's to report.
            let told = result.ok().and_then(|()| actor.state.leases.durable(publish, revision));
            let Some((worker, set)) = told else { return };
            debug!(%publish, %worker, revision, "recordings of a publish have changed");
            actor.tell(worker, Down::Set(set));
        }));
    }

    fn settle_task(&mut self, id: TaskId, read: Result<Vec<TaskRecording>, StoreError>) {
        let moment = (self.tools.clock.now(), self.tools.clock.monotonic());
        let settled = match read {
            Ok(recordings) => self.state.tasks.settle(id, &recordings, moment),
            Err(error) => Err(error.into()),
        };
        match settled {
            Ok(Some((task, txn))) => {
                info!(task = %id, stream = %task.stream, state = %task.state, reason = task.reason, "task ended");
                self.submit_all(Ok(vec![txn]));
            }
            Ok(None) => {}
            Err(error) => warn!(task = %id, error = &error as &dyn StdError, "task not looked at"),
        }
    }
}

/// Makes a task. `known` is what the store has under its token.
#[derive(Message)]
#[rtype(result = "Result<Task, TaskError>")]
pub(crate) struct CreateTask {
    pub(crate) new: NewTask,
    pub(crate) known: Option<Task>,
    /// Settings of its own; none: those that it refers to.
    pub(crate) template: Option<TemplateSpec>,
}

impl Handler<CreateTask> for CoordinatorActor {
    type Result = ResponseFuture<Result<Task, TaskError>>;

    fn handle(&mut self, CreateTask { new, known, template }: CreateTask, ctx: &mut Context<Self>) -> Self::Result {
        let moment = (self.tools.clock.now(), self.tools.clock.monotonic());
        let id = TaskId::generate(self.tools.ids.as_ref(), moment.0);
        let presence = self.state.presence(&new.stream);
        let found = (template.or_else(|| self.state.template(&new.template_ref)), known);
        let made = self.state.tasks.create(new, id, found, presence, moment);
        let durable = made.map(|made| match made {
            Made::New(task, txn) => {
                info!(task = %task.id, stream = %task.stream, start = %task.start, end = %task.end, "task made");
                (task, self.committer.submit(txn))
            }
            Made::Again(task) => (task, self.committer.submit(shared::store::Txn::new())),
        });
        self.look_at_tasks(ctx);
        let now = durable.map(|(task, durable)| (self.state.tasks.get(task.id).cloned().unwrap_or(task), durable));
        Box::pin(async move {
            let (task, durable) = now?;
            durable.await?;
            Ok(task)
        })
    }
}

/// Ends a task early. `stored` is what the store has of it.
#[derive(Message)]
#[rtype(result = "Result<Task, TaskError>")]
pub(crate) struct StopTask {
    pub(crate) id: TaskId,
    pub(crate) stored: Option<Task>,
}

impl Handler<StopTask> for CoordinatorActor {
    type Result = ResponseFuture<Result<Task, TaskError>>;

    fn handle(&mut self, StopTask { id, stored }: StopTask, ctx: &mut Context<Self>) -> Self::Result {
        // So that one whose start has just come is not taken for one that has not begun.
        self.look_at_tasks(ctx);
        let now = self.tools.clock.now();
        let stopped = self.state.tasks.stop(id, stored, now);
        let durable = stopped.map(|(task, txn)| {
            if txn.is_some() {
                info!(task = %id, stream = %task.stream, state = %task.state, "task stopped");
            }
            let durable = self.committer.submit(txn.unwrap_or_default());
            let changed = self.state.leases.end_task(&task, false, now);
            self.announce(changed, ctx);
            (task, durable)
        });
        Box::pin(async move {
            let (task, durable) = durable?;
            durable.await?;
            Ok(task)
        })
    }
}

/// Removes a task. `stored` is what the store has of it.
#[derive(Message)]
#[rtype(result = "Result<Task, TaskError>")]
pub(crate) struct DeleteTask {
    pub(crate) id: TaskId,
    pub(crate) stored: Option<Task>,
    pub(crate) let_run: bool,
}

impl Handler<DeleteTask> for CoordinatorActor {
    type Result = ResponseFuture<Result<Task, TaskError>>;

    fn handle(&mut self, DeleteTask { id, stored, let_run }: DeleteTask, ctx: &mut Context<Self>) -> Self::Result {
        self.look_at_tasks(ctx);
        let now = self.tools.clock.now();
        let deleted = self.state.tasks.delete(id, stored, let_run);
        let durable = deleted.map(|(task, txn)| {
            info!(task = %id, stream = %task.stream, state = %task.state, "task deleted");
            let durable = self.committer.submit(txn);
            let changed = self.state.leases.end_task(&task, let_run, now);
            self.announce(changed, ctx);
            (task, durable)
        });
        let repo = self.tools.repo.clone();
        Box::pin(async move {
            let (task, durable) = durable?;
            durable.await?;
            repo.clear_task(&task).await?;
            Ok(task)
        })
    }
}

/// A recording has ended in the library.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ended {
    pub(crate) recording: RecordingId,
    pub(crate) state: RecordingState,
    pub(crate) task: Option<TaskId>,
}

impl Handler<Ended> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, ended: Ended, ctx: &mut Context<Self>) {
        self.state.leases.ended(ended.recording, ended.state);
        self.forget_stitch(ended.recording);
        if let Some(task) = ended.task {
            self.state.tasks.hint(task, self.tools.clock.monotonic());
            self.look_at_tasks(ctx);
        }
    }
}
