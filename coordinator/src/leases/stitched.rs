//! What [`Leases`] decides about recordings that go on across publishes.

use std::sync::Arc;

use shared::{
    lease::{Epoch, GrantedRecording, Window},
    recording::{self, RecordingState},
    store::{PublishRecord, StoreError, Txn},
    time::{Monotonic, Timestamp},
};

use super::{Context, Leases, record_as};
use crate::{
    catalog::Decision,
    fleet::Fleet,
    stitches::{Finish, Stitches},
};

impl Leases {
    /// Recordings that go on across publishes.
    pub(crate) fn stitches(&mut self) -> &mut Stitches {
        &mut self.stitches
    }

    /// Recordings whose streams did not come back in time, each with the worker that finishes it; see [`Stitches::due`].
    pub(crate) fn finish_due(
        &mut self,
        fleet: &Fleet,
        gone: std::time::Duration,
        (now, mono): (Timestamp, Monotonic),
    ) -> Result<Vec<Finish>, StoreError> {
        let mut stitches = std::mem::take(&mut self.stitches);
        let due = stitches.due(fleet, gone, (now, mono), |stream, txn| {
            let held = self.streams.get(stream);
            let epoch = held.map_or(Epoch::default(), |held| held.epoch).next();
            let publish = held.and_then(|held| held.publish);
            self.hold(stream.clone(), epoch, publish, now, txn)
                .map(|txn| (epoch, txn))
        });
        self.stitches = stitches;
        due
    }

    /// What a rule says: the recording that waits for the stream goes on, or a new one begins.
    pub(super) fn record_by_rule(
        &mut self,
        cx: &Context<'_>,
        record: &mut PublishRecord,
        recordings: &mut Vec<GrantedRecording>,
        Decision { cause, template }: Decision,
        txn: Txn,
    ) -> Result<Txn, StoreError> {
        // What a restarted worker found is over: it may be older than what goes on now.
        let waiting = match record.ended {
            None => self.stitches.waiting(record, &cause, cx.now),
            Some(_) => None,
        };
        let frozen = waiting.and_then(|id| Some((id, self.stitches.template(id)?.clone())));
        if let Some((id, template)) = frozen {
            let lost = |worker| !cx.fleet.is_alive(worker);
            let (stitch, txn) = self.stitches.feed(id, record, lost, txn)?;
            record.recordings.push(id);
            recordings.push(GrantedRecording {
                id,
                cause,
                template: Arc::new(template),
                state: RecordingState::Recording,
                window: Window::default(),
                stitch: Some(stitch),
            });
            return Ok(txn);
        }
        let new = (cause.clone(), template.clone(), Window::default());
        let txn = record_as(cx, record, recordings, new, txn)?;
        let granted = recordings
            .last_mut()
            .filter(|_| recording::is_stitched(&cause, &template));
        let Some(granted) = granted else { return Ok(txn) };
        let (stitch, txn) = self.stitches.begin(granted.id, record, (&cause, &template), txn)?;
        granted.stitch = Some(stitch);
        Ok(txn)
    }
}
