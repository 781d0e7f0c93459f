//! What [`Planner`] does for tasks: asks [`Tasks`](crate::tasks::Tasks) and [`Leases`](crate::leases::Leases) what follows, has it made
//! durable, and only then lets the workers hear of it.

use std::error::Error as StdError;

use shared::{
    ids::{PublishId, StreamKey, TaskId},
    store::{StoreError, TaskRecording, Txn},
    task::{NewTask, Task},
    template::TemplateSpec,
};
use tracing::{debug, info, warn};

use super::{At, Decision, Down, Output, Planner, State};
use crate::{
    catalog::TemplateRef,
    fleet::Fleet,
    leases::{self, Changed, Leases},
    tasks::{Made, Presence, TaskError},
};

/// How a stream stands.
fn presence(leases: &Leases, fleet: &Fleet, stream: &StreamKey) -> Presence {
    match leases.holder(stream) {
        None => Presence::Offline,
        Some(live) if fleet.is_alive(live.record.worker) => Presence::Live,
        Some(_) => Presence::Interrupted,
    }
}

impl State {
    /// How a stream stands.
    pub(crate) fn presence(&self, stream: &StreamKey) -> Presence {
        presence(&self.leases, &self.fleet, stream)
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

impl Planner {
    /// What is due for tasks by now.
    pub(super) fn look_at_tasks(&mut self, at: At) -> Vec<Output> {
        let State {
            leases, fleet, tasks, ..
        } = &mut self.state;
        let plan = match tasks.plan(|stream| presence(leases, fleet, stream), (at.now, at.mono)) {
            Ok(plan) => plan,
            Err(error) => {
                warn!(error = &error as &dyn StdError, "tasks not looked at");
                return Vec::new();
            }
        };
        let mut out: Vec<Output> = plan.txns.into_iter().map(Output::Commit).collect();
        for task in plan.grant {
            let granted = self.grant_task(task, at);
            announce(granted, &mut out);
        }
        out.extend(plan.read.into_iter().map(Output::ReadTask));
        out
    }

    fn grant_task(&mut self, task: TaskId, at: At) -> Result<Option<Changed>, StoreError> {
        let cx = leases::Context {
            catalog: &self.state.catalog,
            fleet: &self.state.fleet,
            doors: &self.state.doors,
            vault: &self.vault,
            tasks: &self.state.tasks,
            ids: self.ids.as_ref(),
            now: at.now,
            mono: at.mono,
        };
        match self.state.tasks.get(task) {
            Some(task) => self.state.leases.grant_task(&cx, task),
            None => Ok(None),
        }
    }

    /// A change of what a publish records is durable: its worker hears of it. Whoever does not hear shows that with its heartbeat.
    pub(crate) fn announced(&mut self, publish: PublishId, revision: u64) -> Option<Output> {
        let (worker, set) = self.state.leases.durable(publish, revision)?;
        debug!(%publish, %worker, revision, "recordings of a publish have changed");
        Some(Output::Tell(worker, Down::Set(set)))
    }

    /// A finishing task's recordings were read.
    pub(crate) fn task_read(
        &mut self,
        id: TaskId,
        read: Result<Vec<TaskRecording>, StoreError>,
        at: At,
    ) -> Option<Output> {
        let settled = match read {
            Ok(recordings) => self
                .state
                .tasks
                .settle(id, &recordings, (at.now, at.mono), at.is_settled),
            Err(error) => Err(error.into()),
        };
        match settled {
            Ok(Some((task, txn))) => {
                info!(task = %id, stream = %task.stream, state = %task.state, reason = task.reason, "task ended");
                Some(Output::Commit(txn))
            }
            Ok(None) => None,
            Err(error) => {
                warn!(task = %id, error = &error as &dyn StdError, "task not looked at");
                None
            }
        }
    }

    /// Makes a task. `known` is what the store has under its token, `template` settings of its own; none: those that it refers to.
    pub(crate) fn create_task(
        &mut self,
        new: NewTask,
        known: Option<Task>,
        template: Option<TemplateSpec>,
        at: At,
    ) -> Decision<Task, TaskError> {
        let id = TaskId::generate(self.ids.as_ref(), at.now);
        let presence = self.state.presence(&new.stream);
        let found = (template.or_else(|| self.state.template(&new.template_ref)), known);
        let made = self.state.tasks.create(new, id, found, presence, (at.now, at.mono));
        let made = made.map(|made| match made {
            Made::New(task, txn) => {
                info!(task = %task.id, stream = %task.stream, start = %task.start, end = %task.end, "task made");
                (task, txn)
            }
            Made::Again(task) => (task, Txn::new()),
        });
        let after = self.look_at_tasks(at);
        let newest = |task: Task| self.state.tasks.get(task.id).cloned().unwrap_or(task);
        Decision {
            before: Vec::new(),
            result: made.map(|(task, txn)| (newest(task), txn)),
            after,
        }
    }

    /// Ends a task early. `stored` is what the store has of it.
    pub(crate) fn stop_task(&mut self, id: TaskId, stored: Option<Task>, at: At) -> Decision<Task, TaskError> {
        // So that one whose start has just come is not taken for one that has not begun.
        let before = self.look_at_tasks(at);
        let mut after = Vec::new();
        let stopped = self.state.tasks.stop(id, stored, at.now);
        let result = stopped.map(|(task, txn)| {
            if txn.is_some() {
                info!(task = %id, stream = %task.stream, state = %task.state, "task stopped");
            }
            self.end_task(&task, false, at, &mut after);
            (task, txn.unwrap_or_default())
        });
        Decision { before, result, after }
    }

    /// What a task has recorded until now ends, whether its stream is there or away.
    fn end_task(&mut self, task: &Task, let_run: bool, at: At, out: &mut Vec<Output>) {
        announce(self.state.leases.end_task(task, let_run, at.now), out);
        match self.state.leases.stitches().end_task(task.id, let_run, at.now) {
            Ok(txn) if txn.ops.is_empty() => {}
            Ok(txn) => out.push(Output::Commit(txn)),
            Err(error) => warn!(task = %task.id, error = &error as &dyn StdError, "decision has no stored form"),
        }
    }

    /// Removes a task. `stored` is what the store has of it.
    pub(crate) fn delete_task(
        &mut self,
        id: TaskId,
        stored: Option<Task>,
        let_run: bool,
        at: At,
    ) -> Decision<Task, TaskError> {
        let before = self.look_at_tasks(at);
        let mut after = Vec::new();
        let deleted = self.state.tasks.delete(id, stored, let_run);
        let result = deleted.map(|(task, txn)| {
            info!(task = %id, stream = %task.stream, state = %task.state, "task deleted");
            self.end_task(&task, let_run, at, &mut after);
            (task, txn)
        });
        Decision { before, result, after }
    }
}

/// Once a change of what a publish records is durable its worker hears of it.
fn announce(changed: Result<Option<Changed>, StoreError>, out: &mut Vec<Output>) {
    match changed {
        Ok(changed) => out.extend(changed.map(Output::Announce)),
        Err(error) => warn!(error = &error as &dyn StdError, "decision has no stored form"),
    }
}
