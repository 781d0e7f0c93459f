//! [`Pulls`]: the streams that are fetched from origins, and which worker fetches each. Pure: each change gives the
//! transaction that makes it durable.
//!
//! A source stays where it is as long as its worker is heard from; one that has no such worker goes to the least loaded
//! of those there are. What a worker is told is always its whole set. That two workers fetch the same stream for a while,
//! because one could not be told, costs nothing but bytes: the stream's lease is granted to one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shared::{
    ids::{PullId, StreamKey, WorkerId},
    pull::{MadeBy, Pull, PullPhase, PullSource, PullState, PullStatus, PullUrl, PullUrlError, revision},
    store::{StoreError, Txn, keys},
    time::{Monotonic, Timestamp},
};
use thiserror::Error;

/// Names a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PullRef {
    Id(PullId),
    Stream(StreamKey),
}

impl std::fmt::Display for PullRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PullRef::Id(id) => id.fmt(f),
            PullRef::Stream(stream) => write!(f, "for {stream}"),
        }
    }
}

/// Why a change of the sources is refused. The message says what to do, and holds no credentials.
#[derive(Debug, Clone, Error)]
pub(crate) enum PullError {
    #[error("{0} is pulled already: update that source (`aircheck pull update`), or delete it first")]
    Exists(StreamKey),
    #[error("no pull source {0}: `aircheck pull list` shows what there is")]
    None(PullRef),
    #[error("there are {0} pull sources, the most that coordinator.max_pulls allows: delete one, or raise the limit")]
    TooMany(usize),
    #[error(transparent)]
    Url(#[from] PullUrlError),
    #[error("until_ms is not after from_ms: a window ends after it begins")]
    Window,
    #[error("until_ms is past: give a moment to come, or 0 for no end")]
    Past,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A source to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewPull {
    pub(crate) stream: StreamKey,
    pub(crate) url: PullUrl,
    pub(crate) paused: bool,
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) made_by: MadeBy,
}

/// What of a source is to change.
#[derive(Debug, Clone, Default)]
pub(crate) struct PullChange {
    pub(crate) url: Option<PullUrl>,
    pub(crate) paused: Option<bool>,
    pub(crate) from: Option<Option<Timestamp>>,
    pub(crate) until: Option<Option<Timestamp>>,
    /// It is fetched anew.
    pub(crate) restart: bool,
}

/// What a worker carries already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    pub(crate) bits_per_second: u64,
}

/// A source got another worker, or none.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) stream: StreamKey,
    pub(crate) from: Option<WorkerId>,
    pub(crate) to: Option<WorkerId>,
    pub(crate) txn: Txn,
}

/// Everything that one worker is to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullSet {
    pub(crate) revision: u64,
    pub(crate) pulls: Vec<Pull>,
}

/// A source and how its worker fares with it.
#[derive(Debug, Clone)]
pub(crate) struct PullView {
    pub(crate) source: PullSource,
    pub(crate) status: Option<PullStatus>,
}

/// The sources.
#[derive(Debug)]
pub(crate) struct Pulls {
    max: usize,
    sources: BTreeMap<PullId, PullSource>,
    by_stream: BTreeMap<StreamKey, PullId>,
    /// What each source's worker last said of it.
    status: BTreeMap<PullId, PullStatus>,
    /// The revision that each worker last said it has carried out.
    applied: BTreeMap<WorkerId, u64>,
    /// When a source of a webhook was last live, or first seen.
    alive: BTreeMap<PullId, Monotonic>,
}

impl Pulls {
    pub(crate) fn new(max: usize, sources: Vec<PullSource>) -> Self {
        Pulls {
            max,
            by_stream: sources
                .iter()
                .map(|source| (source.stream.clone(), source.id))
                .collect(),
            sources: sources.into_iter().map(|source| (source.id, source)).collect(),
            status: BTreeMap::new(),
            applied: BTreeMap::new(),
            alive: BTreeMap::new(),
        }
    }

    fn id(&self, by: &PullRef) -> Result<PullId, PullError> {
        let id = match by {
            PullRef::Id(id) => self.sources.contains_key(id).then_some(*id),
            PullRef::Stream(stream) => self.by_stream.get(stream).copied(),
        };
        id.ok_or_else(|| PullError::None(by.clone()))
    }

    fn view(&self, source: &PullSource) -> PullView {
        PullView {
            source: source.clone(),
            status: self.status.get(&source.id).cloned(),
        }
    }

    pub(crate) fn get(&self, by: &PullRef) -> Result<PullView, PullError> {
        let id = self.id(by)?;
        self.sources
            .get(&id)
            .map(|source| self.view(source))
            .ok_or_else(|| PullError::None(by.clone()))
    }

    /// Sources behind `after`, in the order of their making.
    pub(crate) fn list(&self, after: Option<PullId>) -> impl Iterator<Item = PullView> {
        self.sources
            .values()
            .filter(move |source| after.is_none_or(|after| source.id > after))
            .map(|source| self.view(source))
    }

    /// The streams that have a source.
    pub(crate) fn has(&self, stream: &StreamKey) -> bool {
        self.by_stream.contains_key(stream)
    }

    pub(crate) fn create(&mut self, new: NewPull, id: PullId, now: Timestamp) -> Result<(PullView, Txn), PullError> {
        check_window(new.from, new.until, now)?;
        if self.has(&new.stream) {
            return Err(PullError::Exists(new.stream));
        }
        if self.sources.len() >= self.max {
            return Err(PullError::TooMany(self.sources.len()));
        }
        self.put(PullSource {
            id,
            stream: new.stream,
            url: new.url,
            paused: new.paused,
            from: new.from,
            until: new.until,
            made_by: new.made_by,
            created: now,
            updated: now,
            worker: None,
            restarts: 0,
        })
    }

    pub(crate) fn update(
        &mut self,
        by: &PullRef,
        change: PullChange,
        now: Timestamp,
    ) -> Result<(PullView, Txn), PullError> {
        let mut source = self.get(by)?.source;
        if change.from.is_some() || change.until.is_some() {
            source.from = change.from.unwrap_or(source.from);
            source.until = change.until.unwrap_or(source.until);
            check_window(source.from, source.until, now)?;
        }
        source.url = change.url.unwrap_or(source.url);
        source.paused = change.paused.unwrap_or(source.paused);
        source.restarts = source.restarts.wrapping_add(change.restart.into());
        source.updated = now;
        self.put(source)
    }

    fn put(&mut self, source: PullSource) -> Result<(PullView, Txn), PullError> {
        let txn = Txn::new().put_json(keys::pull(source.id), &source)?;
        let view = self.view(&source);
        self.by_stream.insert(source.stream.clone(), source.id);
        self.sources.insert(source.id, source);
        Ok((view, txn))
    }

    /// Removes a source. Gives the worker that fetched it.
    pub(crate) fn delete(&mut self, by: &PullRef) -> Result<(Option<WorkerId>, Txn), PullError> {
        let id = self.id(by)?;
        Ok(self.remove(id))
    }

    fn remove(&mut self, id: PullId) -> (Option<WorkerId>, Txn) {
        let source = self.sources.remove(&id);
        if let Some(source) = &source {
            self.by_stream.remove(&source.stream);
        }
        self.status.remove(&id);
        self.alive.remove(&id);
        (
            source.and_then(|source| source.worker),
            Txn::new().delete(keys::pull(id)),
        )
    }

    /// An origin says that a stream began. What an operator made for it stays as it is.
    pub(crate) fn hook_began(&mut self, new: NewPull, id: PullId, now: Timestamp) -> Result<Txn, PullError> {
        match self.get(&PullRef::Stream(new.stream.clone())) {
            Err(_) => self.create(new, id, now).map(|(_, txn)| txn),
            Ok(PullView { source, .. }) if source.made_by == MadeBy::Operator => Ok(Txn::new()),
            Ok(PullView { mut source, .. }) => {
                source.url = new.url;
                source.made_by = new.made_by;
                source.updated = now;
                self.alive.remove(&source.id);
                self.put(source).map(|(_, txn)| txn)
            }
        }
    }

    /// An origin says that a stream ended. Without effect where an operator made the source, or another client of the
    /// origin publishes it by now: news may come out of order.
    pub(crate) fn hook_ended(&mut self, stream: &StreamKey, client: &str) -> (Option<WorkerId>, Txn) {
        let ended = self.by_stream.get(stream).copied().filter(|id| {
            let made_by = self.sources.get(id).map(|source| &source.made_by);
            matches!(made_by, Some(MadeBy::Hook { client: known }) if known == client || known.is_empty() || client.is_empty())
        });
        match ended {
            Some(id) => self.remove(id),
            None => (None, Txn::new()),
        }
    }

    /// Webhook sources that have not been live for `limit`: the news of their end was lost. Gives those that go.
    pub(crate) fn forget_stale(&mut self, limit: Duration, now: Monotonic) -> Vec<(StreamKey, Txn)> {
        let mut stale = Vec::new();
        for source in self.sources.values() {
            if !matches!(source.made_by, MadeBy::Hook { .. }) {
                continue;
            }
            let live = self
                .status
                .get(&source.id)
                .is_some_and(|status| status.state == PullState::Live);
            let seen = self.alive.entry(source.id).or_insert(now);
            if live {
                *seen = now;
            } else if now.since(*seen) > limit {
                stale.push((source.id, source.stream.clone()));
            }
        }
        stale
            .into_iter()
            .map(|(id, stream)| (stream, self.remove(id).1))
            .collect()
    }

    /// Takes sources from workers that shall not have them, and gives those that nobody has to the least loaded worker.
    /// `keeps` says of a worker whether what it has may stay there; `loads` says what each worker that can be given
    /// something carries, the streams of sources left out. It is only asked when something is to be given. `able` says whether a worker has the
    /// place where a stream's recordings go: one that has not is only taken where none has.
    pub(crate) fn plan(
        &mut self,
        now: Timestamp,
        keeps: impl Fn(WorkerId) -> bool,
        loads: impl FnOnce(&Self) -> BTreeMap<WorkerId, Load>,
        able: impl Fn(&StreamKey, WorkerId) -> bool,
    ) -> Result<Vec<Moved>, StoreError> {
        let active = |source: &PullSource| source.phase(now) == PullPhase::Active;
        let settled = |source: &PullSource| match source.worker {
            Some(worker) => active(source) && keeps(worker),
            None => !active(source),
        };
        let open: Vec<PullId> = self
            .sources
            .values()
            .filter(|source| !settled(source))
            .map(|source| source.id)
            .collect();
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let mut loads = loads(self);
        for worker in self
            .sources
            .values()
            .filter(|source| settled(source))
            .filter_map(|source| source.worker)
        {
            if let Some(load) = loads.get_mut(&worker) {
                load.streams += 1;
            }
        }
        let mut moved = Vec::new();
        for id in open {
            let Some(source) = self.sources.get_mut(&id) else {
                continue;
            };
            let to = if active(source) {
                loads
                    .iter()
                    .min_by_key(|(worker, load)| (!able(&source.stream, **worker), **load, **worker))
                    .map(|(worker, _)| *worker)
            } else {
                None
            };
            let from = std::mem::replace(&mut source.worker, to);
            if from == to {
                continue;
            }
            if let Some(load) = to.and_then(|worker| loads.get_mut(&worker)) {
                load.streams += 1;
            }
            self.status.remove(&id);
            let txn = Txn::new().put_json(keys::pull(id), source)?;
            let stream = source.stream.clone();
            moved.push(Moved { stream, from, to, txn });
        }
        Ok(moved)
    }

    /// What a worker is to fetch, all of it.
    pub(crate) fn set_of(&self, worker: WorkerId) -> PullSet {
        let pulls: Vec<Pull> = self
            .sources
            .values()
            .filter(|source| source.worker == Some(worker))
            .map(|source| Pull {
                id: source.id,
                stream: source.stream.clone(),
                url: source.url.clone(),
                restarts: source.restarts,
            })
            .collect();
        PullSet {
            revision: revision(&pulls),
            pulls,
        }
    }

    /// A worker says which set it has carried out and how each source fares. Gives the set it should have, if that is
    /// another.
    pub(crate) fn heard(
        &mut self,
        worker: WorkerId,
        applied: u64,
        statuses: BTreeMap<PullId, PullStatus>,
    ) -> Option<PullSet> {
        for (id, status) in statuses {
            if self
                .sources
                .get(&id)
                .is_some_and(|source| source.worker == Some(worker))
            {
                self.status.insert(id, status);
            }
        }
        self.applied.insert(worker, applied);
        self.behind(worker)
    }

    /// The set that a worker should have, if it last said that it has another, or never said anything.
    pub(crate) fn behind(&self, worker: WorkerId) -> Option<PullSet> {
        let set = self.set_of(worker);
        (self.applied.get(&worker).copied().unwrap_or(0) != set.revision).then_some(set)
    }

    /// A worker begins anew: what it said before no longer counts.
    pub(crate) fn forget_worker(&mut self, worker: WorkerId) {
        self.applied.remove(&worker);
    }

    /// The workers that sources are placed on.
    pub(crate) fn workers(&self) -> BTreeSet<WorkerId> {
        self.sources.values().filter_map(|source| source.worker).collect()
    }
}

fn check_window(from: Option<Timestamp>, until: Option<Timestamp>, now: Timestamp) -> Result<(), PullError> {
    match (from, until) {
        (Some(from), Some(until)) if until <= from => Err(PullError::Window),
        (_, Some(until)) if until <= now => Err(PullError::Past),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "pulls_tests.rs"]
mod tests;
