//! Takes over what only a worker remembers.

use shared::{
    lease::Grant,
    recording::Recording,
    store::{PublishRecord, StoreError, Txn, keys},
};

use super::{ADOPTED, Context, Decided, Leases, Live, Request, granted};

/// Recordings of a publish that are entered again at once, so that the transaction stays within the store's bounds.
const AT_ONCE: usize = 31;

impl Leases {
    /// A publish that only its worker remembers: it was granted by a coordinator whose store has been set back since. What it
    /// was granted stands, under the epoch of then.
    pub(super) fn restore(
        &mut self,
        cx: &Context<'_>,
        request: Request,
        held: Grant,
        txn: Txn,
    ) -> Result<Decided, StoreError> {
        let before = self.streams.get(&request.stream);
        let epoch = before.map_or(held.epoch, |stream| stream.epoch.max(held.epoch));
        let holder = match request.adopted {
            true => before.and_then(|stream| stream.publish),
            false => Some(request.publish),
        };
        let mut txn = self.hold(
            request.stream.clone(),
            epoch.max(request.known_epoch),
            holder,
            cx.now,
            txn,
        )?;
        let unfinished = held
            .recordings
            .iter()
            .filter(|recording| !recording.state.is_terminal());
        for granted in unfinished.take(AT_ONCE) {
            let recording = Recording {
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
            };
            txn = txn
                .put_json(keys::recording(recording.id), &recording)?
                .put(keys::stream_recording(&recording.stream, recording.id), "");
        }
        let record = PublishRecord {
            id: request.publish,
            stream: request.stream,
            worker: request.worker,
            epoch: held.epoch,
            params: request.params,
            client_addr: request.client_addr,
            started: request.started,
            ended: request.adopted.then_some(cx.now),
            reason: if request.adopted {
                ADOPTED.to_owned()
            } else {
                String::new()
            },
            recordings: held.recordings.iter().map(|recording| recording.id).collect(),
            storage: request.storage,
            revision: held.revision,
            windows: held
                .recordings
                .iter()
                .map(|recording| (recording.id, recording.window))
                .collect(),
        };
        txn = txn.put_json(keys::publish(record.id), &record)?;
        if !request.adopted {
            self.live.insert(Live {
                durable: record.revision,
                record,
                recordings: held.recordings.clone(),
                named: cx.mono,
            });
        }
        Ok(granted(held, txn))
    }
}
