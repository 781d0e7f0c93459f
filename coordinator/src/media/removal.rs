//! Removing files: first their records go and a note of it stands in the store, then their objects, then the note. Whoever
//! is stopped in between, it is gone on with.

use shared::{
    recording::MediaFile,
    store::{Repo, StoreError, Txn, keys},
};
use tracing::warn;

use super::place::{Place, PlaceError};

/// What takes a file out of the library and notes what is left to do.
pub(crate) fn begin(file: &MediaFile) -> Result<Txn, StoreError> {
    Txn::new().put_json(keys::removal(file.id), file).map(|txn| {
        txn.delete(keys::file(file.id))
            .delete(keys::recording_file(file))
            .delete(keys::file_by_time(file))
            .delete(keys::media_note(file.id))
    })
}

/// Removes the objects of one file, and gives what says that it is done.
///
/// # Errors
/// [`PlaceError`].
pub(crate) async fn carry_out(place: &Place, file: MediaFile) -> Result<Txn, PlaceError> {
    let id = file.id;
    let place = place.clone();
    let removed = tokio::task::spawn_blocking(move || place.remove(&file)).await;
    removed.map_err(|error| PlaceError::Io(std::io::Error::other(error)))??;
    Ok(Txn::new().delete(keys::removal(id)))
}

/// Carries out what was begun before, by this process or another.
pub(crate) async fn finish_all(repo: &Repo, place: &Place) {
    let begun: Vec<MediaFile> = match repo.all(keys::REMOVALS).await {
        Ok(begun) => begun,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "removals not gone on with");
            return;
        }
    };
    for file in begun {
        let id = file.id;
        let finished = match carry_out(place, file).await {
            Ok(txn) => repo
                .store()
                .commit(txn)
                .await
                .map(drop)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = finished {
            warn!(file = %id, error, "file not removed yet");
        }
    }
}
