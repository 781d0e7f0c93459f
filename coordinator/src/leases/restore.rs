//! Takes over what only a worker remembers.

use shared::{
    lease::{Grant, GrantedRecording},
    recording::Recording,
    store::{PublishRecord, StoreError, Txn, keys},
    time::Timestamp,
};

use super::{ADOPTED, Context, Decided, Leases, Live, Request, granted};

/// Recordings of a publish that are entered again at once, so that the transaction stays within the store's bounds: each takes three operations at
/// most.
const AT_ONCE: usize = 31;
/// Why a publish is over that was granted before the store was set back.
const GONE_ON: &str = "its recording has ended or gone on without it";

impl Leases {
    /// A publish that only its worker remembers: it was granted by a coordinator whose store has been set back since. What it
    /// was granted stands, under the epoch of then, but for recordings that have ended or gone on without it.
    pub(super) fn restore(
        &mut self,
        cx: &Context<'_>,
        request: Request,
        mut held: Grant,
        txn: Txn,
    ) -> Result<Decided, StoreError> {
        let mut gone_on = false;
        for granted in &mut held.recordings {
            let known = request.remembered.iter().find(|known| known.id == granted.id);
            if let Some(ended) = known.filter(|known| known.state.is_terminal()) {
                gone_on |= !granted.state.is_terminal();
                granted.state = ended.state;
            }
            gone_on |= self.stitches.has_left(granted.id, request.publish, held.epoch);
        }
        let reason = match (request.adopted, gone_on) {
            (true, _) => Some(ADOPTED),
            (false, true) => Some(GONE_ON),
            (false, false) => None,
        };
        let before = self.streams.get(&request.stream);
        let epoch = before.map_or(held.epoch, |stream| stream.epoch.max(held.epoch));
        let holder = match reason {
            Some(_) => before.and_then(|stream| stream.publish),
            None => Some(request.publish),
        };
        let mut txn = self.hold(
            request.stream.clone(),
            epoch.max(request.known_epoch),
            holder,
            cx.now,
            txn,
        )?;
        let record = record_of(&request, &held, reason.map(|reason| (cx.now, reason)));
        let unfinished = held
            .recordings
            .iter()
            .filter(|recording| !recording.state.is_terminal());
        for granted in unfinished.take(AT_ONCE) {
            // What the library knows it knows better: the publishes of before, and what became of them.
            if !request.remembered.iter().any(|known| known.id == granted.id) {
                let recording = recording_of(&request, &held, granted);
                txn = txn
                    .put_json(keys::recording(recording.id), &recording)?
                    .put(keys::stream_recording(&recording.stream, recording.id), "");
            }
            if granted.stitch.is_some() {
                txn = self.stitches.restore(granted, &record, txn)?;
            }
        }
        if let Some(reason) = reason {
            txn = self.stitches.pause(record.id, reason, cx.now, txn)?;
        }
        txn = txn.put_json(keys::publish(record.id), &record)?;
        match reason {
            Some(GONE_ON) => self.evict_late(&record, GONE_ON.to_owned()),
            Some(_) => {}
            None => self.live.insert(Live {
                durable: record.revision,
                record,
                recordings: held.recordings.clone(),
                named: cx.mono,
            }),
        }
        Ok(granted(held, txn))
    }
}

/// A recording as the publish's grant tells of it.
fn recording_of(request: &Request, held: &Grant, granted: &GrantedRecording) -> Recording {
    Recording {
        id: granted.id,
        stream: request.stream.clone(),
        cause: granted.cause.clone(),
        state: granted.state,
        reason: String::new(),
        epoch: held.epoch,
        template: granted.template.as_ref().clone(),
        template_id: None,
        publishes: vec![request.publish],
        worker: request.worker,
        params: request.params.clone(),
        started: request.started,
        ended: None,
        gaps: Vec::new(),
        locked: false,
    }
}

/// The publish as its worker tells of it; `ended`: when and why it is over.
fn record_of(request: &Request, held: &Grant, ended: Option<(Timestamp, &str)>) -> PublishRecord {
    PublishRecord {
        id: request.publish,
        stream: request.stream.clone(),
        worker: request.worker,
        epoch: held.epoch,
        params: request.params.clone(),
        client_addr: request.client_addr.clone(),
        started: request.started,
        ended: ended.map(|(at, _)| at),
        reason: ended.map_or_else(String::new, |(_, reason)| reason.to_owned()),
        recordings: held.recordings.iter().map(|recording| recording.id).collect(),
        storage: request.storage.clone(),
        places: request.places.clone(),
        revision: held.revision,
        windows: held
            .recordings
            .iter()
            .map(|recording| (recording.id, recording.window))
            .collect(),
    }
}
