//! What [`Planner`] hears from workers and says to them.

use std::collections::BTreeMap;

use shared::{
    composition::ComposeStatus,
    ids::{PublishId, PullId, WorkerId},
    pull::PullStatus,
};
use tracing::info;

use super::{At, Down, Output, Planner};
use crate::{
    fleet::{About, DrainError, Report, SessionId},
    scaler::Shrink,
};

/// A worker says what it is doing.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionId,
    pub(crate) report: Report,
    /// The set of sources that it has carried out.
    pub(crate) pulls_revision: u64,
    pub(crate) pulls: BTreeMap<PullId, PullStatus>,
    /// Revisions of recordings that the worker applied last.
    pub(crate) applied: BTreeMap<PublishId, u64>,
    /// What the worker is composing.
    pub(crate) compositions: Vec<ComposeStatus>,
}

impl Planner {
    /// A worker opens its session, in place of an earlier one.
    pub(crate) fn opened(&mut self, worker: WorkerId, about: About, at: At) -> (SessionId, Vec<Output>) {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        info!(%worker, name = about.name, rtmp = about.rtmp_addr, version = about.version, "worker session opened");
        self.state.fleet.opened(worker, id, about, at.mono);
        self.state.pulls.forget_worker(worker);
        self.sessions.insert(worker, id);
        let welcome = Down::Welcome {
            heartbeat: self.config.heartbeat,
            timeout: self.config.worker_timeout,
        };
        (id, vec![Output::Tell(worker, welcome), self.goes_on(worker)])
    }

    /// A worker says what it is doing: it hears what it should know and does not. Of a session that was replaced nothing is believed.
    pub(crate) fn beat(&mut self, beat: Beat, at: At) -> Vec<Output> {
        let Beat {
            worker,
            session,
            report,
            pulls_revision,
            pulls,
            applied,
            compositions,
        } = beat;
        let mut out = Vec::new();
        let named: Vec<PublishId> = report.counters.keys().copied().collect();
        if self.state.fleet.heartbeat(worker, session, report, at.mono) {
            info!(%worker, "worker is back, its streams go on");
            out.push(self.goes_on(worker));
        }
        if self.sessions.get(&worker) != Some(&session) {
            return out;
        }
        let mut tell = |down| out.push(Output::Tell(worker, down));
        let leases = &mut self.state.leases;
        for (publish, reason) in leases.named(worker, &named, at.mono) {
            info!(%publish, %worker, reason, "worker told to drop a publish");
            tell(Down::Drop { publish, reason });
        }
        leases
            .behind(worker, &applied)
            .into_iter()
            .for_each(|set| tell(Down::Set(set)));
        let jobs = leases.stitches().jobs(worker);
        if !jobs.is_empty() {
            tell(Down::Finish(jobs));
        }
        if self.state.compositions.heard(worker, &compositions, at.mono) {
            tell(Down::Compose(self.state.compositions.jobs(worker)));
        }
        for publish in leases.unknown(&named, at.mono) {
            tell(Down::AskAgain(publish));
        }
        if let Some(set) = self.state.pulls.heard(worker, pulls_revision, pulls) {
            tell(Down::Pulls(set));
        }
        out
    }

    /// A session ended.
    pub(crate) fn closed(&mut self, worker: WorkerId, session: SessionId) {
        if self.sessions.get(&worker) == Some(&session) {
            self.sessions.remove(&worker);
            info!(%worker, "worker session closed");
        }
        self.state.fleet.closed(worker, session);
    }

    /// Somebody wants a worker to take no stream any more, or to take streams again; it is named by its id or its name.
    pub(crate) fn drain(&self, worker: &str, draining: bool) -> Result<(WorkerId, Output), DrainError> {
        let worker = self.state.fleet.find(worker)?;
        if !self.sessions.contains_key(&worker) {
            return Err(DrainError::Silent(self.state.fleet.name(worker)));
        }
        info!(%worker, name = self.state.fleet.name(worker), draining, "worker told whether to take streams");
        let told = Down::Draining {
            draining,
            for_scale_in: false,
        };
        Ok((worker, Output::Tell(worker, told)))
    }

    /// Workers leave because their set shrinks, or stay after all. Said until their heartbeats say so, too.
    pub(crate) fn shrink(&self, shrink: &Shrink) -> Vec<Output> {
        let tell = |draining| {
            move |worker: &WorkerId| {
                let told = Down::Draining {
                    draining,
                    for_scale_in: draining,
                };
                Output::Tell(*worker, told)
            }
        };
        let leave = shrink.leave.iter().map(tell(true));
        leave.chain(shrink.stay.iter().map(tell(false))).collect()
    }

    /// A worker does not read what it is told: it has no session any more.
    pub(crate) fn unread(&mut self, worker: WorkerId) {
        self.sessions.remove(&worker);
    }

    /// A worker is back: its recordings go on.
    fn goes_on(&self, worker: WorkerId) -> Output {
        Output::Mark {
            recordings: self.state.leases.recordings_of(worker),
            interrupted: false,
        }
    }
}
