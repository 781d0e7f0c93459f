//! What [`CoordinatorActor`] does for recordings that go on across publishes.

use actix::{Context, Handler, Message, ResponseFuture};
use shared::{
    ids::{PublishId, RecordingId, WorkerId},
    lease::{Epoch, GrantedRecording, LeaseOutcome},
    store::{NextOwner, Repo, StoreError},
    time::Timestamp,
    trace::{Past, Place},
};
use tracing::info;

use super::coordinator::CoordinatorActor;
use crate::leases::Leases;

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

/// How long the stream of a recording was away before the owner with `epoch`, for its trace. None: what went away last came after `back`, as where
/// a publish that is over asks for what it fed.
pub(crate) fn interruption(
    leases: &Leases,
    (recording, epoch): (RecordingId, Epoch),
    back: Timestamp,
) -> Option<(Place, Past)> {
    let (since, reason) = leases.away(recording).filter(|(since, _)| *since <= back)?;
    let past = Past::between("interruption", since, back).with("aircheck.reason", reason.to_owned());
    Some((Place::interruption(recording, epoch), past))
}

/// The interruptions that a grant ends.
pub(crate) fn interruptions(leases: &Leases, outcome: &LeaseOutcome, back: Timestamp) -> Vec<(Place, Past)> {
    let LeaseOutcome::Granted(grant) = outcome else {
        return Vec::new();
    };
    let goes_on = |held: &&GrantedRecording| held.stitch.as_ref().is_some_and(|stitch| !stitch.before.is_empty());
    let continued = grant.recordings.iter().filter(goes_on);
    continued
        .filter_map(|held| interruption(leases, (held.id, grant.epoch), back))
        .collect()
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
        let txn = self.planner.settled(recording, epoch);
        // Answered when it is durable: the worker says it once, and then lets go of what it has.
        let durable = txn.map(|txn| self.committer.submit(txn));
        Box::pin(async move { durable?.await })
    }
}

/// Something of a task's recording has arrived.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(crate) struct Begun(pub(crate) RecordingId);

impl Handler<Begun> for CoordinatorActor {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, Begun(recording): Begun, _: &mut Context<Self>) -> Self::Result {
        let txn = self.planner.begun(recording);
        // Answered when it is durable: the worker says it until it is.
        let durable = txn.map(|txn| txn.map(|txn| self.committer.submit(txn)));
        Box::pin(async move {
            match durable? {
                Some(durable) => durable.await,
                None => Ok(()),
            }
        })
    }
}
