//! [`Sabotage`]: rules broken on purpose, to see that somebody notices. What breaks them are the models of what lies between the
//! processes; nothing that decides knows of it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Mutex;

use proto::v1::{CommitFileRequest, CommitRecordingRequest};
use shared::store::{Op, Txn, keys};

use crate::world::{World, lock};

/// How often what can be broken is broken, in thousandths.
const OFTEN: u64 = 200;

/// What one run's models do wrong, all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The store commits whatever the guards say: no write is fenced, and two may lead.
    IgnoresGuards,
    /// Whoever commits is taken for the recording's owner: epochs are set right on the way.
    ForgesEpochs,
    /// The store forgets who had which stream under which epoch.
    ForgetsStreams,
    /// Files are called committed on the way, and no coordinator hears of them: journals go before the library has what is in them.
    SwallowsFiles,
    /// The store writes tasks once more as they were before.
    RewritesTasks,
    /// Gaps are taken out of what recorders say.
    HidesGaps,
    /// Object storage says that it has what it has not.
    LosesObjects,
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(rule: &str) -> Result<Self, String> {
        Ok(match rule {
            "guards" => Sabotage::IgnoresGuards,
            "epochs" => Sabotage::ForgesEpochs,
            "streams" => Sabotage::ForgetsStreams,
            "files" => Sabotage::SwallowsFiles,
            "tasks" => Sabotage::RewritesTasks,
            "gaps" => Sabotage::HidesGaps,
            "objects" => Sabotage::LosesObjects,
            _ => {
                return Err(format!(
                    "no rule {rule}: guards, epochs, streams, files, tasks, gaps or objects"
                ));
            }
        })
    }
}

/// Earlier writes of tasks.
#[derive(Debug, Default)]
pub(crate) struct Earlier(Mutex<BTreeMap<String, Op>>);

impl Earlier {
    /// What is written once more behind this transaction.
    pub(crate) fn again(&self, world: &World, ops: &[Op]) -> Option<Op> {
        if !world.breaks(Sabotage::RewritesTasks) {
            return None;
        }
        let mut earlier = lock(&self.0);
        let put = ops.iter().find(|op| op.key().starts_with(keys::TASKS))?;
        let before = earlier.insert(put.key().to_owned(), put.clone());
        before.filter(|_| world.happens(OFTEN))
    }
}

impl World {
    pub(crate) fn breaks(&self, rule: Sabotage) -> bool {
        self.sabotage == Some(rule)
    }

    /// A transaction on its way to the store.
    pub(crate) fn sabotage_txn(&self, txn: &mut Txn) {
        if self.breaks(Sabotage::IgnoresGuards) {
            txn.guards.clear();
        }
        if self.breaks(Sabotage::ForgetsStreams) {
            txn.ops.retain(|op| !op.key().starts_with(keys::STREAMS));
        }
    }

    /// A file on its way to the library. True: it does not arrive, and its worker is told that it has.
    pub(crate) fn sabotage_file(&self, request: &mut CommitFileRequest, epoch: impl Fn(&str) -> Option<u64>) -> bool {
        if self.breaks(Sabotage::ForgesEpochs) {
            request.epoch = epoch(&request.recording_id).unwrap_or(request.epoch);
        }
        if let Some(file) = request.file.as_mut().filter(|_| self.breaks(Sabotage::HidesGaps)) {
            file.gaps.clear();
        }
        self.breaks(Sabotage::SwallowsFiles) && self.happens(OFTEN)
    }

    /// What a worker says of a recording.
    pub(crate) fn sabotage_recording(&self, request: &mut CommitRecordingRequest, epoch: impl Fn(&str) -> Option<u64>) {
        if self.breaks(Sabotage::ForgesEpochs) {
            request.epoch = epoch(&request.recording_id).unwrap_or(request.epoch);
        }
        if self.breaks(Sabotage::HidesGaps) {
            request.gaps.clear();
        }
    }

    /// True: an object is not stored, and its worker is told that it is.
    pub(crate) fn loses_object(&self) -> bool {
        self.breaks(Sabotage::LosesObjects) && self.happens(OFTEN)
    }
}
