//! How recordings end, and what a publish leaves unfinished.

use shared::{
    ids::{PublishId, RecordingId, WorkerId},
    lease::GrantedRecording,
    recording::RecordingState,
    store::{Interruption, StoreError, Txn, keys},
    time::Timestamp,
};

use super::Leases;

/// Notes recordings that their worker is finishing from now on, so that they are given up if it does not come to that. How those stand that
/// go on with another publish is in a record of their own.
pub(super) fn noted(
    recordings: &[GrantedRecording],
    worker: WorkerId,
    since: Timestamp,
    mut txn: Txn,
) -> Result<Txn, StoreError> {
    let open = |held: &&GrantedRecording| !held.state.is_terminal() && held.stitch.is_none();
    for held in recordings.iter().filter(open) {
        let finishing = Interruption {
            recording: held.id,
            worker,
            since,
        };
        txn = txn.put_json(keys::finishing(held.id), &finishing)?;
    }
    Ok(txn)
}

impl Leases {
    /// A recording, which holds `publishes`, has ended in the library.
    pub(crate) fn ended(&mut self, recording: RecordingId, publishes: &[PublishId], state: RecordingState) {
        for publish in publishes {
            let live = self.live.get_mut(publish);
            let held = live.into_iter().flat_map(|live| &mut live.recordings);
            for held in held.filter(|held| held.id == recording) {
                held.state = state;
            }
        }
    }
}
