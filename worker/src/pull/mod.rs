//! Streams that this worker fetches from origins: [`Puller`] keeps one task for each, as the coordinator says.
//!
//! *Tour*: `backoff` when to try again (pure); `origin` speaks RTMP or HTTP-FLV; `task` one stream, again and again. What comes
//! goes through [`crate::ingest::feed`] to the ingest thread and is journaled like a push.

mod backoff;
mod origin;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use shared::config::PullConfig;
use shared::ids::{IdGen, PullId};
use shared::pull::{AddressPolicy, Pull, PullStatus};
use shared::time::Clock;
use tokio::sync::watch;
use tracing::info;

use self::task::{Context, Fares};
use crate::ingest::Command;

struct Running {
    pull: Pull,
    fares: Fares,
    /// True ends the task; so does its being dropped.
    stop: watch::Sender<bool>,
}

/// The set of streams that are fetched.
pub(crate) struct Puller {
    context: Context,
    /// Nothing is fetched: the worker is leaving.
    stopped: bool,
    revision: u64,
    running: BTreeMap<PullId, Running>,
}

impl Puller {
    pub(crate) fn new(
        config: &PullConfig,
        limits: media::rtmp::Limits,
        commands: SyncSender<Command>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGen>,
    ) -> Self {
        Puller {
            context: Context {
                commands,
                clock,
                ids,
                policy: AddressPolicy {
                    loopback: config.allow_loopback,
                    link_local: config.allow_link_local,
                },
                limits,
                connect_timeout: config.connect_timeout,
                silence: config.silence,
                longest_wait: config.longest_wait,
            },
            stopped: false,
            revision: 0,
            running: BTreeMap::new(),
        }
    }

    /// Fetches exactly `pulls` from now on. What is in the set as it was goes on undisturbed; what is gone, or comes from
    /// another URL, ends.
    pub(crate) fn set(&mut self, revision: u64, pulls: Vec<Pull>) {
        if self.stopped {
            return;
        }
        let wanted: BTreeMap<PullId, Pull> = pulls.into_iter().map(|pull| (pull.id, pull)).collect();
        self.running.retain(|id, running| {
            let stays = wanted.get(id) == Some(&running.pull);
            if !stays {
                running.stop.send_replace(true);
            }
            stays
        });
        for (id, pull) in wanted {
            if self.running.contains_key(&id) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let fares = Fares::new();
            actix::spawn(task::run(pull.clone(), self.context.clone(), fares.clone(), stopped));
            self.running.insert(id, Running { pull, fares, stop });
        }
        if self.revision != revision {
            info!(
                revision,
                count = self.running.len(),
                "set of pulled streams carried out"
            );
        }
        self.revision = revision;
    }

    /// Fetches nothing from now on: the worker is leaving.
    pub(crate) fn stop(&mut self) {
        self.set(0, Vec::new());
        self.stopped = true;
    }

    /// Fetches again what it is told to from now on.
    pub(crate) fn resume(&mut self) {
        self.stopped = false;
    }

    /// True once the worker is leaving.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The set that is carried out, and how each of it fares.
    pub(crate) fn status(&self) -> (u64, BTreeMap<PullId, PullStatus>) {
        let fares = self.running.iter().map(|(id, running)| (*id, running.fares.get()));
        (self.revision, fares.collect())
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
    }
}
