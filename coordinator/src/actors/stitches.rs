//! What [`CoordinatorActor`] does for recordings that go on across publishes: passes them on, and has them finished in the end.

use std::error::Error as StdError;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, WrapFuture as _};
use shared::{
    ids::{PublishId, RecordingId, WorkerId},
    lease::{Epoch, LeaseOutcome},
    store::{NextOwner, Repo, StoreError, Txn},
};
use tracing::{info, warn};

use super::coordinator::{CoordinatorActor, Down};
use crate::stitches::Finish;

/// Makes a publish the owner of what it continues, before its worker hears of it.
pub(crate) async fn pass_on(
    repo: &Repo,
    outcome: &LeaseOutcome,
    publish: PublishId,
    worker: WorkerId,
) -> Result<(), StoreError> {
    let LeaseOutcome::Granted(grant) = outcome else {
        return Ok(());
    };
    let next = NextOwner {
        epoch: grant.epoch,
        worker,
        publish: Some(publish),
    };
    for held in &grant.recordings {
        if held.stitch.as_ref().is_some_and(|stitch| !stitch.before.is_empty()) {
            repo.pass_on(held.id, next).await?;
            info!(recording = %held.id, %publish, epoch = %grant.epoch, "recording goes on with another publish");
        }
    }
    Ok(())
}

impl CoordinatorActor {
    /// Has recordings finished whose streams did not come back.
    pub(super) fn finish_due(&mut self, ctx: &mut Context<Self>) {
        let moment = (self.tools.clock.now(), self.tools.clock.monotonic());
        let gone = self.tools.config.offline_timeout;
        let due = match self.state.leases.finish_due(&self.state.fleet, gone, moment) {
            Ok(due) => due,
            Err(error) => {
                warn!(error = &error as &dyn StdError, "recordings that wait not looked at");
                return;
            }
        };
        for Finish {
            recording,
            worker,
            epoch,
            txn,
        } in due
        {
            let durable = self.committer.submit(txn);
            let repo = self.tools.repo.clone();
            let next = NextOwner {
                epoch,
                worker,
                publish: None,
            };
            let passed = async move {
                durable.await?;
                repo.pass_on(recording, next).await
            };
            ctx.spawn(passed.into_actor(self).map(move |passed, actor, _| match passed {
                Ok(true) => {
                    info!(%recording, %worker, %epoch, "recording waited long enough for its stream, it is finished");
                    actor.state.leases.stitches().fenced(recording, true);
                    actor.tell_finishes(worker);
                }
                Ok(false) => actor.forget_stitch(recording),
                Err(error) => {
                    warn!(%recording, error = &error as &dyn StdError, "recording not passed on yet");
                    actor.state.leases.stitches().fenced(recording, false);
                }
            }));
        }
    }

    /// Tells a worker what it is to finish; told again with each heartbeat until it has.
    pub(super) fn tell_finishes(&mut self, worker: WorkerId) {
        let jobs = self.state.leases.stitches().jobs(worker);
        if !jobs.is_empty() {
            self.tell(worker, Down::Finish(jobs));
        }
    }

    /// A recording has ended, and waits for nothing.
    pub(super) fn forget_stitch(&mut self, recording: RecordingId) {
        if let Some(txn) = self.state.leases.stitches().ended(recording) {
            self.submit_all(Ok(vec![txn]));
        }
    }
}

/// Everything of a publish's part of a recording is in storage and in the library.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(crate) struct Settled {
    pub(crate) recording: RecordingId,
    pub(crate) epoch: Epoch,
}

impl Handler<Settled> for CoordinatorActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, Settled { recording, epoch }: Settled, _: &mut Context<Self>) -> Self::Result {
        let txn = self.state.leases.stitches().settled(recording, epoch);
        // Answered when it is durable: the worker says it once, and then lets go of what it has.
        let durable = txn.map(|txn: Option<Txn>| self.committer.submit(txn.unwrap_or_default()));
        Box::pin(async move { durable?.await })
    }
}
