//! What [`Leases`] ends and forgets because nobody has been heard of for too long.

use shared::{
    ids::{PublishId, StreamKey, WorkerId},
    store::{PublishRecord, StoreError, Txn, keys},
    time::Timestamp,
};

use super::{Leases, Live};
use crate::fleet::Fleet;

impl Leases {
    /// Ends everything that a worker holds: it has been away for too long.
    pub(crate) fn end_all_of(
        &mut self,
        worker: WorkerId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Vec<Txn>, StoreError> {
        let held: Vec<PublishId> = self.live.of(worker).map(|live| live.record.id).collect();
        held.into_iter()
            .map(|id| self.end(id, reason.to_owned(), now, Txn::new()))
            .collect()
    }

    /// Ends publishes that their worker has left out of its heartbeats for longer than the time-out: it has lost its
    /// data and will never release them. Silence is another matter: who says nothing leaves nothing out.
    pub(crate) fn end_unnamed(
        &mut self,
        fleet: &Fleet,
        timeout: std::time::Duration,
        now: Timestamp,
    ) -> Result<Vec<(PublishId, Txn)>, StoreError> {
        let left_out = |live: &&Live| {
            fleet
                .last_beat(live.record.worker)
                .is_some_and(|beat| beat.since(live.named) > timeout)
        };
        let left_out = self.live.iter().filter(left_out);
        let forgotten: Vec<PublishRecord> = left_out.map(|live| live.record.clone()).collect();
        let reason = "its worker no longer knows it";
        forgotten
            .into_iter()
            .map(|record| {
                let txn = self.stitches.unnamed(&record, now, Txn::new())?;
                Ok((record.id, self.end(record.id, reason.to_owned(), now, txn)?))
            })
            .collect()
    }

    /// Streams that were offline since before `until`: what is kept of them may go.
    pub(crate) fn forget_streams(&mut self, until: Timestamp) -> Vec<Txn> {
        let old: Vec<StreamKey> = self
            .streams
            .values()
            .filter(|stream| stream.publish.is_none() && stream.changed < until)
            .map(|stream| stream.stream.clone())
            .collect();
        old.iter().for_each(|stream| drop(self.streams.remove(stream)));
        old.chunks(100)
            .map(|chunk| {
                chunk
                    .iter()
                    .fold(Txn::new(), |txn, stream| txn.delete(keys::stream(stream)))
            })
            .collect()
    }
}
