//! Which coordinator leads: the one whose record lies under `v1/leader`, for as long as it keeps that key's lease alive.
//!
//! # Tour
//!
//! 1. `core`: what a look at the key means, and when to renew and to stop (pure).
//! 2. `term`: a time of leading, and the store as its holder may use it: every transaction is guarded by the term.
//! 3. This file: stands, renews, follows, resigns.
//!
//! # Invariants
//!
//! * A leader believes in its term only until [`core::believed_until`], which is before its lease can end.
//! * What believes wrongly, because its process was paused, changes nothing: the store checks the term in the same
//!   transaction.

mod core;
mod term;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use shared::{
    store::{Entry, Guard, LeaseId, MetaStore, Revision, StoreError, Txn, keys},
    telemetry::CoordinatorMetrics,
    time::Clock,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::core::{DecisionRecord, Seen, believed_until, renew_every, seen};
pub(crate) use self::{
    core::LeaderRecord,
    term::{Led, Term, TermStore},
};

/// Longest time between two looks at the leader's key, also when no watch tells of a change.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wait after the store failed.
const AGAIN: Duration = Duration::from_millis(200);

/// What this coordinator is just now.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// It decides.
    Leading(Arc<Term>),
    /// Another decides.
    Following(LeaderRecord),
    /// Nobody is known to decide.
    Waiting,
}

impl Role {
    /// The term, if this one leads and may still believe so.
    pub(crate) fn term(&self) -> Option<&Arc<Term>> {
        match self {
            Role::Leading(term) if term.holds() => Some(term),
            _ => None,
        }
    }
}

/// Who stands.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// This process.
    pub(crate) instance: Uuid,
    /// For people.
    pub(crate) name: String,
    /// Where it serves gRPC.
    pub(crate) address: String,
    /// Where it serves HTTP.
    pub(crate) http: Option<String>,
    /// Silence after which another takes over.
    pub(crate) ttl: Duration,
}

/// A coordinator's part in the election.
#[derive(Debug)]
pub(crate) struct Election {
    roles: watch::Receiver<Role>,
    resign: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Election {
    /// Leads always: nobody else uses the store.
    pub(crate) fn sole(metrics: &CoordinatorMetrics) -> Self {
        metrics.leading.set(1);
        let (_, roles) = watch::channel(Role::Leading(Arc::new(Term::sole())));
        Election {
            roles,
            resign: CancellationToken::new(),
            task: None,
        }
    }

    /// Stands among others that share the store.
    pub(crate) fn among_others(
        candidate: Candidate,
        store: Arc<dyn MetaStore>,
        clock: Arc<dyn Clock>,
        metrics: CoordinatorMetrics,
        tasks: &TaskTracker,
    ) -> Self {
        let (tell, roles) = watch::channel(Role::Waiting);
        let resign = CancellationToken::new();
        let standing = Standing {
            candidate,
            store,
            clock,
            metrics,
            tell,
            resign: resign.clone(),
        };
        let task = tasks.spawn_local(standing.run());
        Election {
            roles,
            resign,
            task: Some(task),
        }
    }

    /// What this coordinator is, as it changes.
    pub(crate) fn roles(&self) -> watch::Receiver<Role> {
        self.roles.clone()
    }

    /// Leaves the election. A leader's key is gone when this returns, if the store can be reached: another takes over at
    /// once.
    pub(crate) async fn resign(self) {
        self.resign.cancel();
        if let Some(task) = self.task {
            drop(task.await);
        }
    }
}

struct Standing {
    candidate: Candidate,
    store: Arc<dyn MetaStore>,
    clock: Arc<dyn Clock>,
    metrics: CoordinatorMetrics,
    tell: watch::Sender<Role>,
    resign: CancellationToken,
}

impl Standing {
    async fn run(self) {
        while !self.resign.is_cancelled() {
            if let Err(error) = self.once().await {
                // Who cannot see the key does not know who leads.
                self.tell.send_replace(Role::Waiting);
                warn!(
                    error = &error as &dyn StdError,
                    "the metadata store does not say who leads"
                );
                tokio::select! {
                    biased;
                    () = self.resign.cancelled() => {}
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
        self.tell.send_replace(Role::Waiting);
    }

    /// One look, and what follows from it: a time of leading, or one of following until something changes.
    async fn once(&self) -> Result<(), StoreError> {
        let leader = self.store.get(keys::LEADER).await?;
        match seen(self.candidate.instance, leader.as_ref())? {
            Seen::Nobody => match self.stand().await? {
                Some((term, lease)) => {
                    self.lead(term, lease).await;
                    Ok(())
                }
                None => Ok(()),
            },
            // A term that this process has given up, or won without hearing of it.
            Seen::Oneself(lease) => {
                self.tell.send_replace(Role::Waiting);
                self.end(lease, leader.map(|entry| entry.revision)).await
            }
            Seen::Other(record) => {
                let since = leader.map_or(Revision(0), |entry| entry.revision);
                self.follow(record, since).await
            }
        }
    }

    /// Tries to become leader. None: another was quicker.
    async fn stand(&self) -> Result<Option<(Arc<Term>, LeaseId)>, StoreError> {
        let last = self.store.get(keys::DECISION).await?;
        let before = last.as_ref().map(DecisionRecord::read).transpose()?;
        let number = before.map_or(0, |record| record.term) + 1;
        // Before the lease can begin.
        let asked = self.clock.monotonic();
        let lease = self.store.grant_lease(self.candidate.ttl).await?;
        let record = LeaderRecord {
            instance: self.candidate.instance,
            name: self.candidate.name.clone(),
            address: self.candidate.address.clone(),
            http: self.candidate.http.clone(),
            term: number,
            since: self.clock.now(),
        };
        let unchanged = match &last {
            None => Guard::Absent(keys::DECISION.to_owned()),
            Some(entry) => Guard::AtRevision(keys::DECISION.to_owned(), entry.revision),
        };
        let txn = Txn::new()
            .guard(Guard::Absent(keys::LEADER.to_owned()))
            .guard(unchanged)
            .put_leased(keys::LEADER, record.to_json()?, lease)
            .put(
                keys::DECISION,
                DecisionRecord {
                    term: number,
                    number: 0,
                }
                .to_json()?,
            );
        let revision = match self.store.commit(txn).await {
            Ok(revision) => revision,
            Err(error) => {
                // It may have happened all the same; then the next look finds this process's own record, under this
                // lease, and ends it.
                drop(self.store.revoke_lease(lease).await);
                return match error {
                    StoreError::Stale { .. } | StoreError::LeaseEnded(_) => Ok(None),
                    other => Err(other),
                };
            }
        };
        let until = believed_until(asked, self.candidate.ttl);
        let term = Term::elected(record, revision, until, Arc::clone(&self.clock));
        Ok(Some((Arc::new(term), lease)))
    }

    /// Leads until the term ends, one way or the other.
    async fn lead(&self, term: Arc<Term>, lease: LeaseId) {
        info!(
            term = term.number(),
            name = self.candidate.name,
            "this coordinator leads"
        );
        self.metrics.leading.set(1);
        self.tell.send_replace(Role::Leading(Arc::clone(&term)));
        let why = self.keep(&term, lease).await;
        term.end();
        self.metrics.leading.set(0);
        self.tell.send_replace(Role::Waiting);
        info!(term = term.number(), why, "this coordinator leads no more");
        // Others need not wait for the lease to end.
        if let Err(error) = self.end(Some(lease), term.revision()).await {
            debug!(
                error = &error as &dyn StdError,
                "the lease of an ended term is left to end by itself"
            );
        }
    }

    /// Keeps the lease alive; tells why that ended.
    async fn keep(&self, term: &Term, lease: LeaseId) -> &'static str {
        let every = renew_every(self.candidate.ttl);
        let mut wait = every;
        loop {
            tokio::select! {
                biased;
                () = self.resign.cancelled() => return "it resigned",
                () = term.ended() => return "the store has another leader",
                () = tokio::time::sleep(wait) => {}
            }
            let asked = self.clock.monotonic();
            let renewed = timeout(term.left(), async {
                self.store.renew_lease(lease).await?;
                // Somebody may have removed the key by hand.
                self.store.get(keys::LEADER).await
            })
            .await;
            if !term.holds() {
                // Also with good news: whoever stopped to believe does not begin again.
                return "the lease could not be renewed in time";
            }
            match renewed {
                Ok(Ok(found)) if found.as_ref().map(|entry| entry.revision) == term.revision() => {
                    term.believe_until(believed_until(asked, self.candidate.ttl));
                    wait = every;
                }
                Ok(Ok(_)) => return "its record is gone",
                Ok(Err(StoreError::LeaseEnded(_))) => return "its lease has ended",
                Ok(Err(error)) => {
                    warn!(error = &error as &dyn StdError, left = ?term.left(), "the leader's lease is not renewed yet");
                    wait = AGAIN.min(every);
                }
                Err(_) => wait = Duration::ZERO,
            }
        }
    }

    /// Removes this process's own record and lease.
    async fn end(&self, lease: Option<LeaseId>, revision: Option<Revision>) -> Result<(), StoreError> {
        if let Some(lease) = lease {
            return self.store.revoke_lease(lease).await;
        }
        let Some(revision) = revision else { return Ok(()) };
        let txn = Txn::new()
            .guard(Guard::AtRevision(keys::LEADER.to_owned(), revision))
            .delete(keys::LEADER);
        match self.store.commit(txn).await {
            Ok(_) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Follows until the key changes, or for a while.
    async fn follow(&self, record: LeaderRecord, since: Revision) -> Result<(), StoreError> {
        if !matches!(&*self.tell.borrow(), Role::Following(known) if *known == record) {
            info!(
                leader = record.name,
                address = record.address,
                term = record.term,
                "following"
            );
            self.tell.send_replace(Role::Following(record));
        }
        let mut watch = self.store.watch(keys::LEADER, since).await?;
        loop {
            tokio::select! {
                biased;
                () = self.resign.cancelled() => return Ok(()),
                // A change, or a watch that knows no more: look.
                _ = watch.next() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let now = self.store.get(keys::LEADER).await?;
                    if now.map(|entry: Entry| entry.revision) != Some(since) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
