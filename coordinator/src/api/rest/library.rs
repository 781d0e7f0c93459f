//! `/api/v1/recordings`, `/api/v1/files`: what was recorded.

use actix_web::{
    delete, get, post,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, files_server::Files as _, recordings_server::Recordings as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Answer, Deleted, Refusals, Request, Rest, Wanted,
    caller::Caller,
    deleted,
    documents::{Format, MediaFile, Recording, Stream, instant},
    problem::Problem,
    there, unseen,
};
use crate::media::place::depth;

/// A page of recordings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Recordings {
    /// The newest first.
    recordings: Vec<Recording>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// Lists recordings.
#[utoipa::path(tag = "library", responses((status = 200, body = Recordings), Refusals))]
#[get("/recordings")]
pub(super) async fn list_recordings(caller: Caller, rest: Data<Rest>, wanted: Query<Wanted>) -> Answer<Recordings> {
    let wanted = wanted.into_inner();
    let request = v1::ListRecordingsRequest {
        page_size: wanted.page_size,
        page_token: wanted.page_token,
        domain: wanted.domain,
        app: wanted.app,
        stream: wanted.stream,
        ..Default::default()
    };
    let answer = rest.api.list_recordings(Request::new(request)).await?.into_inner();
    let recordings = answer.recordings.into_iter();
    Ok(Json(Recordings {
        recordings: recordings
            .filter(|recording| caller.sees(recording.stream.as_ref()))
            .map(Recording::from)
            .collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// A recording and the way to its HLS.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LinkedRecording {
    /// The recording.
    recording: Recording,
    /// Link to its HLS, while it runs and afterwards, good for `coordinator.media_link_ttl`; null: it has none.
    hls_url: Option<String>,
}

/// The recording, if the caller may see it.
async fn seen_recording(caller: &Caller, rest: &Rest, id: &str) -> Result<LinkedRecording, Problem> {
    let request = v1::GetRecordingRequest {
        recording_id: id.to_owned(),
    };
    let answer = rest.api.get_recording(Request::new(request)).await?.into_inner();
    let recording = there(answer.recording)?;
    match caller.sees(recording.stream.as_ref()) {
        true => Ok(LinkedRecording {
            recording: recording.into(),
            hls_url: (!answer.hls_url.is_empty()).then_some(answer.hls_url),
        }),
        false => Err(unseen(id)),
    }
}

/// Reads a recording.
#[utoipa::path(tag = "library", responses((status = 200, body = LinkedRecording), Refusals))]
#[get("/recordings/{recording_id}")]
pub(super) async fn get_recording(
    caller: Caller,
    rest: Data<Rest>,
    recording_id: Path<String>,
) -> Answer<LinkedRecording> {
    seen_recording(&caller, &rest, &recording_id).await.map(Json)
}

/// Locks a recording: neither its storage time nor anybody removes any of its files.
#[utoipa::path(tag = "library", responses((status = 200, body = Recording), Refusals))]
#[post("/recordings/{recording_id}/lock")]
pub(super) async fn lock_recording(caller: Caller, rest: Data<Rest>, recording_id: Path<String>) -> Answer<Recording> {
    seen_recording(&caller, &rest, &recording_id).await?;
    let request = v1::LockRecordingRequest {
        recording_id: recording_id.into_inner(),
    };
    let answer = rest.api.lock_recording(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.recording)?.into()))
}

/// Takes a recording's lock back. Files that are locked themselves stay.
#[utoipa::path(tag = "library", responses((status = 200, body = Recording), Refusals))]
#[post("/recordings/{recording_id}/unlock")]
pub(super) async fn unlock_recording(
    caller: Caller,
    rest: Data<Rest>,
    recording_id: Path<String>,
) -> Answer<Recording> {
    seen_recording(&caller, &rest, &recording_id).await?;
    let request = v1::UnlockRecordingRequest {
        recording_id: recording_id.into_inner(),
    };
    let answer = rest.api.unlock_recording(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.recording)?.into()))
}

/// Which files are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedFiles {
    /// Most entries wanted: 1 to 1000; 0: 100.
    #[param(maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before.
    page_token: String,
    /// Only of this recording, a UUID.
    recording_id: String,
    /// Only of this domain.
    domain: String,
    /// Only of this application.
    app: String,
    /// Only of this stream name.
    stream: String,
    /// Only of this format.
    format: Option<Format>,
}

/// A page of files.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Files {
    /// The newest first; of one recording by format and sequence.
    files: Vec<MediaFile>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// A file with its link.
fn linked(rest: &Rest, file: v1::MediaFile) -> Result<MediaFile, Problem> {
    let tools = &rest.api.tools;
    let known = shared::recording::MediaFile::try_from(file.clone()).map_err(|_| Problem::internal())?;
    let expires = tools.clock.now() + tools.config.media_link_ttl;
    let path = rest.links.path(known.id, &depth(&known), &known.name, expires);
    Ok(MediaFile::new(file, format!("{}{path}", tools.public_url)))
}

/// Lists files.
#[utoipa::path(tag = "library", responses((status = 200, body = Files), Refusals))]
#[get("/files")]
pub(super) async fn list_files(caller: Caller, rest: Data<Rest>, wanted: Query<WantedFiles>) -> Answer<Files> {
    let wanted = wanted.into_inner();
    let request = v1::ListFilesRequest {
        page_size: wanted.page_size,
        page_token: wanted.page_token,
        recording_id: wanted.recording_id,
        domain: wanted.domain,
        app: wanted.app,
        stream: wanted.stream,
        format: wanted.format.map_or(0, i32::from),
    };
    let answer = rest.api.list_files(Request::new(request)).await?.into_inner();
    let files = answer.files.into_iter();
    let files = files
        .filter(|file| caller.sees(file.stream.as_ref()))
        .map(|file| linked(&rest, file));
    Ok(Json(Files {
        files: files.collect::<Result<_, _>>()?,
        next_page_token: answer.next_page_token,
    }))
}

/// The file, if the caller may see it.
async fn seen_file(caller: &Caller, rest: &Rest, id: &str) -> Result<v1::MediaFile, Problem> {
    let request = v1::GetFileRequest { file_id: id.to_owned() };
    let answer = rest.api.get_file(Request::new(request)).await?.into_inner();
    let file = there(answer.file)?;
    match caller.sees(file.stream.as_ref()) {
        true => Ok(file),
        false => Err(unseen(id)),
    }
}

/// Reads a file's record.
#[utoipa::path(tag = "library", responses((status = 200, body = MediaFile), Refusals))]
#[get("/files/{file_id}")]
pub(super) async fn get_file(caller: Caller, rest: Data<Rest>, file_id: Path<String>) -> Answer<MediaFile> {
    Ok(Json(linked(&rest, seen_file(&caller, &rest, &file_id).await?)?))
}

/// Removes a file: it leaves the library at once, and its objects as soon as storage lets them go.
#[utoipa::path(tag = "library", responses((status = 200, body = Deleted), Refusals))]
#[delete("/files/{file_id}")]
pub(super) async fn delete_file(caller: Caller, rest: Data<Rest>, file_id: Path<String>) -> Answer<Deleted> {
    seen_file(&caller, &rest, &file_id).await?;
    let request = v1::DeleteFileRequest {
        file_id: file_id.clone(),
    };
    rest.api.delete_file(Request::new(request)).await?;
    Ok(deleted(file_id.into_inner()))
}

/// Locks a file: neither its storage time nor anybody removes it.
#[utoipa::path(tag = "library", responses((status = 200, body = MediaFile), Refusals))]
#[post("/files/{file_id}/lock")]
pub(super) async fn lock_file(caller: Caller, rest: Data<Rest>, file_id: Path<String>) -> Answer<MediaFile> {
    seen_file(&caller, &rest, &file_id).await?;
    let request = v1::LockFileRequest {
        file_id: file_id.into_inner(),
    };
    let answer = rest.api.lock_file(Request::new(request)).await?.into_inner();
    Ok(Json(linked(&rest, there(answer.file)?)?))
}

/// Takes a file's lock back. A file whose time is over goes with the next look.
#[utoipa::path(tag = "library", responses((status = 200, body = MediaFile), Refusals))]
#[post("/files/{file_id}/unlock")]
pub(super) async fn unlock_file(caller: Caller, rest: Data<Rest>, file_id: Path<String>) -> Answer<MediaFile> {
    seen_file(&caller, &rest, &file_id).await?;
    let request = v1::UnlockFileRequest {
        file_id: file_id.into_inner(),
    };
    let answer = rest.api.unlock_file(Request::new(request)).await?.into_inner();
    Ok(Json(linked(&rest, there(answer.file)?)?))
}

/// A file that has left the library and whose objects are being removed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Removal {
    /// UUID of the file.
    file_id: String,
    /// Key below the objects URL.
    object_key: String,
    /// `expired` or `asked`.
    cause: String,
    /// When it left the library.
    begun: Option<String>,
    /// Times that storage did not let it go.
    failures: u32,
    /// When it is tried again; null: with the next look.
    retry: Option<String>,
    /// What storage said last.
    problem: String,
    /// From which place of objects it is removed next: `first`, or `second`, where nothing of it is left in the first.
    place: String,
}

/// Removals that are under way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Removals {
    /// At most 1000.
    removals: Vec<Removal>,
}

/// Lists files that have left the library and whose objects are being removed.
#[utoipa::path(tag = "library", responses((status = 200, body = Removals), Refusals))]
#[get("/removals")]
pub(super) async fn list_removals(caller: Caller, rest: Data<Rest>) -> Answer<Removals> {
    let request = Request::new(v1::ListRemovalsRequest {});
    let answer = rest.api.list_removals(request).await?.into_inner();
    let written = |removal: v1::Removal| {
        let file = removal.file.unwrap_or_default();
        caller.sees(file.stream.as_ref()).then(|| Removal {
            file_id: file.file_id,
            object_key: file.object_key,
            cause: removal.cause,
            begun: instant(removal.begun_ms),
            failures: removal.failures,
            retry: instant(removal.retry_ms),
            problem: removal.problem,
            place: removal.place,
        })
    };
    Ok(Json(Removals {
        removals: answer.removals.into_iter().filter_map(written).collect(),
    }))
}

/// Something that is still to be copied to the second place of objects.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CopyJob {
    /// UUID of the file; null: it is about the recording's `recording.json`.
    file_id: Option<String>,
    /// UUID of the recording.
    recording_id: String,
    /// What was recorded.
    stream: Stream,
    /// When there came to be cause for it.
    since: Option<String>,
    /// UUID of the worker that is at it; null: none.
    worker_id: Option<String>,
    /// Times that it failed.
    failures: u32,
    /// When it is tried again; null: as soon as a worker is free.
    retry: Option<String>,
    /// What went wrong last.
    problem: String,
}

/// What is still to be copied.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Copies {
    /// At most 1000.
    copies: Vec<CopyJob>,
}

/// Lists what is still to be copied to the second place of objects.
#[utoipa::path(tag = "library", responses((status = 200, body = Copies), Refusals))]
#[get("/copies")]
pub(super) async fn list_copies(caller: Caller, rest: Data<Rest>) -> Answer<Copies> {
    let request = Request::new(v1::ListCopiesRequest {});
    let answer = rest.api.list_copies(request).await?.into_inner();
    let some = |text: String| (!text.is_empty()).then_some(text);
    let written = |copy: v1::CopyJob| {
        caller.sees(copy.stream.as_ref()).then(|| CopyJob {
            file_id: some(copy.file_id),
            recording_id: copy.recording_id,
            stream: copy.stream.into(),
            since: instant(copy.since_ms),
            worker_id: some(copy.worker_id),
            failures: copy.failures,
            retry: instant(copy.retry_ms),
            problem: copy.problem,
        })
    };
    Ok(Json(Copies {
        copies: answer.copies.into_iter().filter_map(written).collect(),
    }))
}
