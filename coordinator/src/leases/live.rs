//! The publishes that hold their streams, at hand by their own ids and by their workers.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use shared::{
    ids::{PublishId, RecordingId, WorkerId},
    lease::{Grant, GrantedRecording, RecordingSet},
    recording::RecordingState,
    store::{PublishRecord, StoreError, Txn, keys},
    template::TemplateSpec,
    time::Monotonic,
};

use super::Changed;

/// A publish that holds its stream.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) record: PublishRecord,
    pub(crate) recordings: Vec<GrantedRecording>,
    /// The revision of its recordings that the store is known to have: no worker hears of a later one.
    pub(super) durable: u64,
    /// When its worker last named it, or it was granted.
    pub(super) named: Monotonic,
}

/// Settings that are shared; when there are more, those that nobody has are forgotten.
const MOST_TEMPLATES: usize = 10_000;

/// All of them. A worker's are found without looking at those of others: a fleet that comes back to a new leader asks for
/// every worker's in turn.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    all: BTreeMap<PublishId, Live>,
    of: BTreeMap<WorkerId, BTreeSet<PublishId>>,
    /// The settings that their recordings have, each once: most have the same.
    templates: HashSet<Arc<TemplateSpec>>,
}

impl Publishes {
    pub(super) fn insert(&mut self, mut live: Live) {
        let (id, worker) = (live.record.id, live.record.worker);
        self.remove(&id);
        self.share(&mut live.recordings);
        self.of.entry(worker).or_default().insert(id);
        self.all.insert(id, live);
    }

    /// Lets recordings have their settings together with all others that have the same.
    pub(super) fn share(&mut self, recordings: &mut [GrantedRecording]) {
        for held in recordings {
            match self.templates.get(&held.template) {
                Some(template) => held.template = Arc::clone(template),
                None => {
                    if self.templates.len() >= MOST_TEMPLATES {
                        self.templates.retain(|template| Arc::strong_count(template) > 1);
                    }
                    self.templates.insert(Arc::clone(&held.template));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, publish: &PublishId) -> Option<Live> {
        let live = self.all.remove(publish)?;
        if let Some(of) = self.of.get_mut(&live.record.worker) {
            of.remove(publish);
            if of.is_empty() {
                self.of.remove(&live.record.worker);
            }
        }
        Some(live)
    }

    pub(super) fn get(&self, publish: &PublishId) -> Option<&Live> {
        self.all.get(publish)
    }

    /// What may be changed of it is all but its id and its worker.
    pub(super) fn get_mut(&mut self, publish: &PublishId) -> Option<&mut Live> {
        self.all.get_mut(publish)
    }

    pub(super) fn has(&self, publish: &PublishId) -> bool {
        self.all.contains_key(publish)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// In the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Live> {
        self.all.values()
    }

    /// A worker's, in the order of their ids.
    pub(super) fn of(&self, worker: WorkerId) -> impl Iterator<Item = &Live> {
        let of = self.of.get(&worker).into_iter().flatten();
        of.filter_map(|publish| self.all.get(publish))
    }
}

impl Live {
    /// The next revision.
    pub(super) fn changed(&mut self, txn: Txn) -> Result<Changed, StoreError> {
        self.record.revision += 1;
        let txn = txn.put_json(keys::publish(self.record.id), &self.record)?;
        Ok(Changed {
            publish: self.record.id,
            worker: self.record.worker,
            epoch: self.record.epoch,
            revision: self.record.revision,
            goes_on: None,
            txn,
        })
    }

    /// Recordings whose window ended within the publish leave the set once the library has them whole.
    pub(super) fn forget_finished(&mut self) {
        let over = |held: &GrantedRecording| held.state == RecordingState::Finished && held.window.until.is_some();
        self.recordings.retain(|held| !over(held));
        let ids: Vec<RecordingId> = self.recordings.iter().map(|held| held.id).collect();
        self.record.windows.retain(|id, _| ids.contains(id));
        self.record.recordings = ids;
    }

    pub(super) fn set(&self) -> RecordingSet {
        RecordingSet {
            publish: self.record.id,
            grant: Grant {
                epoch: self.record.epoch,
                revision: self.record.revision,
                recordings: self.recordings.clone(),
            },
        }
    }
}
