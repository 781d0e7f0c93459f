//! What [`CoordinatorActor`] is asked about tasks.

use actix::{Context, Handler, Message, ResponseFuture};
use shared::{
    ids::{PublishId, RecordingId, TaskId},
    recording::RecordingState,
    task::{NewTask, Task},
    template::TemplateSpec,
};

use super::coordinator::CoordinatorActor;
use crate::tasks::TaskError;

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
        let decision = self.planner.create_task(new, known, template, self.tools.at());
        Box::pin(self.decided(decision, ctx))
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
        let decision = self.planner.stop_task(id, stored, self.tools.at());
        Box::pin(self.decided(decision, ctx))
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
        let decision = self.planner.delete_task(id, stored, let_run, self.tools.at());
        let deleted = self.decided(decision, ctx);
        let repo = self.tools.repo.clone();
        Box::pin(async move {
            let task = deleted.await?;
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
    /// The publishes that it holds.
    pub(crate) publishes: Vec<PublishId>,
    pub(crate) state: RecordingState,
    /// Why, in words.
    pub(crate) reason: String,
    pub(crate) task: Option<TaskId>,
}

impl Handler<Ended> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, ended: Ended, ctx: &mut Context<Self>) {
        let at = self.tools.at();
        let out = self.planner.recording_ended(
            ended.recording,
            &ended.publishes,
            (ended.state, &ended.reason),
            ended.task,
            at,
        );
        self.perform_all(out, ctx);
    }
}
