//! Looks after the [`CoordinatorActor`]: when it fails, a fresh one is loaded from the store.

use std::{error::Error as StdError, time::Duration};

use actix::{Actor as _, Addr};
use shared::{
    store::StoreError,
    supervise::{Backoff, ExitGuard, ExitReason, Next},
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use super::{
    committer::Committer,
    coordinator::{CoordinatorActor, Leave, State, Tools},
};

/// The way to the actor, whichever incarnation runs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    current: watch::Receiver<Option<Addr<CoordinatorActor>>>,
}

/// There is no actor just now. Asking again in a moment may help.
#[derive(Debug, Clone, Copy, Error)]
#[error("the coordinator is starting anew: try again in a moment")]
pub(crate) struct Restarting;

impl Handle {
    /// Asks the actor. Nothing is known about the request's effect when it goes away meanwhile.
    pub(crate) async fn ask<M>(&self, message: M) -> Result<M::Result, Restarting>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        CoordinatorActor: actix::Handler<M>,
        <CoordinatorActor as actix::Actor>::Context: actix::dev::ToEnvelope<CoordinatorActor, M>,
    {
        let addr = self.current.borrow().clone().ok_or(Restarting)?;
        addr.send(message).await.map_err(|_| Restarting)
    }

    /// True if there is an actor.
    pub(crate) fn is_ready(&self) -> bool {
        self.current.borrow().as_ref().is_some_and(Addr::connected)
    }
}

/// Starts the actor over `state` and keeps one running until the process leaves. Must be called on an actix system's
/// thread.
pub(crate) fn start(state: State, tools: Tools) -> (Handle, Supervisor) {
    let (publish, current) = watch::channel(None);
    let task = actix_rt::spawn(run(state, tools, publish));
    (Handle { current }, Supervisor { task })
}

/// Keeps the actor running until it is stopped.
pub(crate) struct Supervisor {
    task: actix_rt::task::JoinHandle<()>,
}

impl Supervisor {
    /// Lets the actor go. It ends when nobody holds a way to it any more.
    pub(crate) async fn stop(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

async fn run(first: State, tools: Tools, publish: watch::Sender<Option<Addr<CoordinatorActor>>>) {
    let mut backoff = Backoff::endless(Duration::from_millis(100), Duration::from_secs(5));
    let mut state = Some(first);
    loop {
        let failure = match state.take() {
            Some(state) => {
                let (exits, mut exit) = mpsc::channel(2);
                let committer = committer(&tools, exits.clone());
                let guard = ExitGuard::new(move |reason| drop(exits.try_send(reason)));
                let actor = CoordinatorActor::new(state, tools.clone(), committer, guard);
                let addr = actor.start();
                publish.send_replace(Some(addr.clone()));
                let reason = exit.recv().await.unwrap_or(ExitReason::Panicked);
                publish.send_replace(None);
                // One that failed but lives must not go on deciding. One that panicked does not hear it.
                drop(addr.try_send(Leave));
                reason
            }
            None => match State::load(&tools.repo, &tools.config, tools.clock.as_ref()).await {
                Ok(loaded) => {
                    info!("coordinator state loaded anew");
                    state = Some(loaded);
                    continue;
                }
                Err(failure) => ExitReason::Failed(failure.to_string()),
            },
        };
        error!(reason = %failure, "coordinator failed, starting anew");
        if let Next::RetryAfter(wait) = backoff.failed(tools.clock.monotonic()) {
            tokio::time::sleep(wait).await;
        }
    }
}

fn committer(tools: &Tools, exits: mpsc::Sender<ExitReason>) -> Committer {
    let failed = move |failure: StoreError| {
        error!(error = &failure as &dyn StdError, "the metadata store refused a change");
        drop(exits.try_send(ExitReason::Failed(failure.to_string())));
    };
    Committer::start(
        std::sync::Arc::clone(tools.repo.store()),
        tools.metrics.clone(),
        &tools.tasks,
        failed,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::{
        config::CoordinatorConfig,
        ids::Random,
        store::{Model, Repo},
        telemetry::Metrics,
        time::System,
    };
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::actors::coordinator::Look;

    #[actix_rt::test]
    async fn a_panic_costs_one_answer_and_not_the_coordinator() {
        let tools = Tools {
            config: Arc::new(CoordinatorConfig::default()),
            repo: Repo::new(Arc::new(Model::new(Arc::new(System::new())))),
            clock: Arc::new(System::new()),
            ids: Arc::new(Random),
            metrics: Metrics::new().coordinator,
            tasks: TaskTracker::new(),
        };
        let state = State::load(&tools.repo, &tools.config, tools.clock.as_ref())
            .await
            .unwrap();
        let (handle, supervisor) = start(state, tools);
        let ask = |handle: Handle, fall: bool| async move {
            handle.ask(Look(Box::new(move |_| assert!(!fall, "on purpose")))).await
        };
        let up = async |handle: &Handle| {
            let mut current = handle.current.clone();
            tokio::time::timeout(Duration::from_secs(10), current.wait_for(Option::is_some))
                .await
                .unwrap()
                .unwrap();
        };
        up(&handle).await;
        assert!(ask(handle.clone(), false).await.is_ok());
        assert!(ask(handle.clone(), true).await.is_err());
        tokio::time::timeout(Duration::from_secs(10), async {
            while ask(handle.clone(), false).await.is_err() {
                up(&handle).await;
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        supervisor.stop().await;
    }
}
