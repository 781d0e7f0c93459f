//! `/media/LINK/r-RECORDING/…`: the HLS of a recording while it runs and afterwards, by one link.

use std::path::Path;

use actix_web::{HttpRequest, HttpResponse, http::header};
use shared::{
    ids::RecordingId,
    objects::{Archive, ObjectError},
    recording::Recording,
    store::{FileFilter, Page, StoreError},
    template::Format,
};

use super::{Media, PLAYLIST, content_type, disposition, from_disk, gone, redirect};
use crate::media::{
    live::{folders, from_the_root, has_hls, is_segment},
    place::{PlaceError, recording_folder},
};

/// Longest page of a recording's files: a recording has one HLS file, and others only where it was made without stitching.
const FILES: u32 = 100;

pub(super) async fn serve(
    media: &Media,
    id: RecordingId,
    (link, tail): (&str, &str),
    request: &HttpRequest,
) -> Result<HttpResponse, PlaceError> {
    let found = media.tools.repo.recording(id).await.map_err(unreadable)?;
    let recording = found.filter(has_hls).ok_or(PlaceError::NotFound)?;
    if Path::new(tail).extension().is_some_and(|extension| extension == "m3u8") {
        let text = current(media, &recording).await?;
        return Ok(HttpResponse::Ok()
            .content_type(PLAYLIST)
            // It grows.
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header(disposition(tail, false))
            .body(text));
    }
    if !is_segment(tail) {
        return Err(PlaceError::NotFound);
    }
    let (key, kind) = (format!("{}/{tail}", recording.folder()), content_type(Path::new(tail)));
    match media.holder(&key).await.map_err(gone)? {
        (None, _) => Err(PlaceError::NotFound),
        (Some(Archive::Bucket(bucket)), _) => {
            let disposition = disposition(tail, false);
            redirect(media, bucket, &key, (link, kind, &disposition), request).await
        }
        (Some(Archive::Folder(_)), place) => {
            let open = from_disk(place, key).await?;
            Ok(open
                .set_content_type(kind.parse().unwrap_or(super::mime()))
                .into_response(request))
        }
    }
}

/// The playlist as it is now.
async fn current(media: &Media, recording: &Recording) -> Result<String, PlaceError> {
    let read = async |folder: &str, name: &str| {
        let key = format!("{}/{folder}/{name}", recording.folder());
        let (archive, _) = media.holder(&key).await?;
        let archive = archive.ok_or_else(|| ObjectError::Missing(format!("{key}: no place of objects is known")))?;
        let bytes = archive.get(&key).await?;
        Ok::<_, ObjectError>(from_the_root(&String::from_utf8_lossy(&bytes), folder))
    };
    let filter = FileFilter {
        recording: Some(recording.id),
        format: Some(Format::Hls),
        ..FileFilter::default()
    };
    let page = Page {
        size: FILES,
        token: String::new(),
    };
    let (files, _) = media.tools.repo.files(&filter, &page).await.map_err(unreadable)?;
    if let Some(file) = files.into_iter().max_by_key(|file| (file.epoch.get(), file.sequence)) {
        let (_, folder) = recording_folder(&file.object_key).ok_or(PlaceError::NotFound)?;
        let (_, name) = file.object_key.rsplit_once('/').ok_or(PlaceError::NotFound)?;
        return read(folder, name).await.map_err(gone);
    }
    // Its file was removed.
    if recording.state.is_terminal() {
        return Err(PlaceError::NotFound);
    }
    for folder in folders(recording) {
        match read(&folder, "index.m3u8").await {
            Err(ObjectError::Missing(_)) => {}
            other => return other.map_err(gone),
        }
    }
    // No segment is stored yet.
    Err(PlaceError::NotFound)
}

fn unreadable(error: StoreError) -> PlaceError {
    PlaceError::Io(std::io::Error::other(error))
}
