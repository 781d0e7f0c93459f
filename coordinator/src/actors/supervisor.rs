//! Looks after the [`CoordinatorActor`]: there is one while this coordinator leads, and when it fails, a fresh one is
//! loaded from the store.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use actix::{Actor as _, Addr};
use shared::{
    store::{Repo, StoreError},
    supervise::{Backoff, ExitGuard, ExitReason, Next},
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use super::{
    committer::Committer,
    coordinator::{CoordinatorActor, Leave, Tools},
};
use crate::{
    election::{Role, Term, TermStore},
    events::Courier,
    planner::State,
};

/// Time for an actor to leave when its term has ended.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// The way to the actor, whichever incarnation runs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    current: watch::Receiver<Option<Current>>,
}

/// The actor of a term.
#[derive(Clone)]
struct Current {
    addr: Addr<CoordinatorActor>,
    term: Arc<Term>,
}

/// There is no actor just now. Asking again in a moment may help.
#[derive(Debug, Clone, Copy, Error)]
#[error("the coordinator is starting anew: try again in a moment")]
pub(crate) struct Restarting {
    /// False if nothing was asked of anybody, so that nothing can have happened.
    pub(crate) asked: bool,
}

impl Handle {
    /// Asks the actor. Nothing is known about the request's effect when it goes away meanwhile.
    pub(crate) async fn ask<M>(&self, message: M) -> Result<M::Result, Restarting>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        CoordinatorActor: actix::Handler<M>,
        <CoordinatorActor as actix::Actor>::Context: actix::dev::ToEnvelope<CoordinatorActor, M>,
    {
        let current = self.current.borrow().clone();
        // A process that was paused must not answer from what it knew before.
        let current = current.filter(|current| current.term.holds());
        let Some(Current { addr, .. }) = current else {
            return Err(Restarting { asked: false });
        };
        addr.send(message).await.map_err(|_| Restarting { asked: true })
    }

    /// True if there is an actor.
    pub(crate) fn is_ready(&self) -> bool {
        let current = self.current.borrow();
        current
            .as_ref()
            .is_some_and(|current| current.addr.connected() && current.term.holds())
    }
}

/// Keeps an actor running for as long as this coordinator leads, until the process leaves. `first` is the state of the
/// first term, where it is loaded already. Must be called on an actix system's thread.
pub(crate) fn start(first: Option<State>, tools: Tools, roles: watch::Receiver<Role>) -> (Handle, Supervisor) {
    let (publish, current) = watch::channel(None);
    let task = actix_rt::spawn(follow_terms(first, tools, roles, publish));
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

/// One actor after the other, each within its term.
async fn follow_terms(
    mut first: Option<State>,
    tools: Tools,
    mut roles: watch::Receiver<Role>,
    publish: watch::Sender<Option<Current>>,
) {
    loop {
        let Ok(term) = roles
            .wait_for(|role| role.term().is_some())
            .await
            .map(|role| role.term().cloned())
        else {
            // The election is over; what leads now leads until it is stopped.
            return std::future::pending().await;
        };
        let Some(term) = term else { continue };
        let within = Tools {
            repo: Repo::new(Arc::new(TermStore::new(
                Arc::clone(tools.repo.store()),
                Arc::clone(&term),
            ))),
            ..tools.clone()
        };
        // Events go out for as long as the term lasts, whatever becomes of the actor.
        let _courier = Courier::start(&within);
        tokio::select! {
            biased;
            () = term.ended() => {}
            () = run(first.take(), within, Arc::clone(&term), &publish) => {}
        }
        let current = publish.send_replace(None);
        if let Some(Current { addr, .. }) = current {
            // Its sessions end, so that workers go to whoever leads now. What it has not made durable is refused.
            drop(tokio::time::timeout(LEAVE_LIMIT, addr.send(Leave)).await);
        }
    }
}

/// Runs an actor, and a fresh one whenever it fails.
async fn run(first: Option<State>, tools: Tools, term: Arc<Term>, publish: &watch::Sender<Option<Current>>) {
    let mut backoff = Backoff::endless(Duration::from_millis(100), Duration::from_secs(5));
    let mut state = first;
    loop {
        let failure = match state.take() {
            Some(state) => {
                let (exits, mut exit) = mpsc::channel(2);
                let committer = committer(&tools, exits.clone());
                let guard = ExitGuard::new(move |reason| drop(exits.try_send(reason)));
                let actor = CoordinatorActor::new(state, tools.clone(), committer, guard);
                let addr = actor.start();
                publish.send_replace(Some(Current {
                    addr: addr.clone(),
                    term: Arc::clone(&term),
                }));
                let reason = exit.recv().await.unwrap_or(ExitReason::Panicked);
                publish.send_replace(None);
                // One that failed but lives must not go on deciding. One that panicked does not hear it.
                drop(addr.try_send(Leave));
                reason
            }
            None => match State::load(&tools.repo, &tools.config, tools.clock.as_ref()).await {
                Ok(loaded) => {
                    info!(term = term.number(), "coordinator state loaded");
                    state = Some(loaded);
                    continue;
                }
                Err(failure) => ExitReason::Failed(failure.to_string()),
            },
        };
        if !term.holds() {
            return;
        }
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
        secret::Vault,
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
            vault: Arc::new(Vault::new(&[0; 32]).unwrap()),
            public_url: "http://127.0.0.1:1".into(),
            tasks: TaskTracker::new(),
            archive: None,
            second: None,
            copies_at: Arc::default(),
            sources: crate::compositions::Sources::default(),
        };
        let election = crate::election::Election::sole(&tools.metrics);
        let (handle, supervisor) = start(None, tools, election.roles());
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
