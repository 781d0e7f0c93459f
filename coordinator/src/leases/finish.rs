//! How recordings end, and what a publish leaves unfinished.

use shared::{
    ids::{RecordingId, WorkerId},
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
    /// A recording has ended in the library.
    pub(crate) fn ended(&mut self, recording: RecordingId, state: RecordingState) {
        let held = self.live.values_mut().flat_map(|live| &mut live.recordings);
        if let Some(held) = held.into_iter().find(|held| held.id == recording) {
            held.state = state;
        }
    }
}
