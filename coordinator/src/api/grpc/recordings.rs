//! Service `Recordings`.

use std::collections::BTreeMap;

use proto::v1;
use shared::{
    ids::{FileId, RecordingId, StreamKey},
    recording::{Recording, RecordingDocument},
    store::{Page, RecordingFilter},
    time::Timestamp,
    wire::{self, WireError},
};
use tonic::{Request, Response, Status};

use super::{Api, status::Failure};
use crate::media::{link::Links, live::has_hls};

/// Recordings that an explanation shows.
const EXPLAINED: u32 = 10;

impl Api {
    async fn list(&self, filter: &RecordingFilter, page: &Page) -> Result<(Vec<v1::Recording>, String), Failure> {
        let (list, next) = self.tools.repo.recordings(filter, page).await?;
        let mut recordings = Vec::with_capacity(list.len());
        for recording in &list {
            recordings.push(self.written_recording(recording).await?);
        }
        Ok((recordings, next))
    }

    async fn locked_recording(&self, id: &str, locked: bool) -> Result<v1::Recording, Failure> {
        let id: RecordingId = wire::id("recording_id", id)?;
        let found = self.tools.repo.lock_recording(id, locked).await?;
        self.written_recording(&found.ok_or_else(|| no_recording(id))?).await
    }
}

impl Api {
    /// Link to a recording's HLS; empty: it has none.
    fn hls_url(&self, recording: &Recording) -> String {
        if !has_hls(recording) {
            return String::new();
        }
        let expires = self.tools.clock.now() + self.tools.config.media_link_ttl;
        let name = format!("{}.m3u8", recording.stream.stream());
        let path = Links::new(self.tools.vault.media_keys()).recording_path(recording.id, &name, expires);
        format!("{}{path}", self.tools.public_url)
    }
}

fn no_recording(id: RecordingId) -> Failure {
    Failure::not_found(format!(
        "no recording {id}: `aircheck recording list` shows what there is"
    ))
}

#[tonic::async_trait]
impl v1::recordings_server::Recordings for Api {
    async fn list_recordings(
        &self,
        request: Request<v1::ListRecordingsRequest>,
    ) -> Result<Response<v1::ListRecordingsResponse>, Status> {
        let request = request.into_inner();
        let filter = RecordingFilter {
            state: wire::recording_state(request.state).map_err(Failure::from)?,
            domain: wire::wanted("domain", request.domain.to_lowercase()).map_err(Failure::from)?,
            app: wire::wanted("app", request.app).map_err(Failure::from)?,
            stream: wire::wanted("stream", request.stream).map_err(Failure::from)?,
        };
        let page = wire::page(request.page_size, request.page_token).map_err(Failure::from)?;
        let (recordings, next_page_token) = self.list(&filter, &page).await?;
        Ok(Response::new(v1::ListRecordingsResponse {
            recordings,
            next_page_token,
        }))
    }

    async fn get_recording(
        &self,
        request: Request<v1::GetRecordingRequest>,
    ) -> Result<Response<v1::GetRecordingResponse>, Status> {
        let id: RecordingId = wire::id("recording_id", &request.into_inner().recording_id).map_err(Failure::from)?;
        let found = self.tools.repo.recording(id).await.map_err(Failure::from)?;
        let recording = found.ok_or_else(|| no_recording(id))?;
        let hls_url = self.hls_url(&recording);
        let recording = Some(self.written_recording(&recording).await?);
        Ok(Response::new(v1::GetRecordingResponse { recording, hls_url }))
    }

    async fn explain_recording(
        &self,
        request: Request<v1::ExplainRecordingRequest>,
    ) -> Result<Response<v1::ExplainRecordingResponse>, Status> {
        let stream = wire::required("stream", request.into_inner().stream).map_err(Failure::from)?;
        let stream = StreamKey::try_from(stream).map_err(Failure::from)?;
        let filter = RecordingFilter {
            state: None,
            domain: Some(stream.domain().to_owned()),
            app: Some(stream.app().to_owned()),
            stream: Some(stream.stream().to_owned()),
        };
        let explanation = Some(self.explain(stream).await?);
        let (recordings, _) = self
            .list(
                &filter,
                &Page {
                    size: EXPLAINED,
                    token: String::new(),
                },
            )
            .await?;
        Ok(Response::new(v1::ExplainRecordingResponse {
            explanation,
            recordings,
        }))
    }

    async fn lock_recording(
        &self,
        request: Request<v1::LockRecordingRequest>,
    ) -> Result<Response<v1::LockRecordingResponse>, Status> {
        let recording = Some(self.locked_recording(&request.into_inner().recording_id, true).await?);
        Ok(Response::new(v1::LockRecordingResponse { recording }))
    }

    async fn unlock_recording(
        &self,
        request: Request<v1::UnlockRecordingRequest>,
    ) -> Result<Response<v1::UnlockRecordingResponse>, Status> {
        let recording = Some(self.locked_recording(&request.into_inner().recording_id, false).await?);
        Ok(Response::new(v1::UnlockRecordingResponse { recording }))
    }

    async fn restore_recording(
        &self,
        request: Request<v1::RestoreRecordingRequest>,
    ) -> Result<Response<v1::RestoreRecordingResponse>, Status> {
        let v1::RestoreRecordingRequest {
            document,
            seen,
            dry_run,
        } = request.into_inner();
        let document =
            RecordingDocument::from_json(&document).map_err(|error| Failure::invalid(format!("document: {error}")))?;
        let seen = seen.iter().map(|file| {
            let id: FileId = wire::id("seen.file_id", &file.file_id)?;
            Ok((id, wire::clock("seen.stored_ms", file.stored_ms)?))
        });
        let seen: BTreeMap<FileId, Timestamp> = seen.collect::<Result<_, WireError>>().map_err(Failure::from)?;
        let now = self.tools.clock.now();
        let restored = self
            .tools
            .repo
            .restore(&document, &seen, now, dry_run)
            .await
            .map_err(Failure::from)?;
        Ok(Response::new(v1::RestoreRecordingResponse {
            recording_restored: restored.made,
            files_restored: restored.files,
            files_known: restored.known,
            files_leaving: restored.leaving,
        }))
    }
}
