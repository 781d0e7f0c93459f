//! Service `Recordings`.

use proto::v1;
use shared::{
    ids::{RecordingId, StreamKey},
    store::{Page, RecordingFilter},
    wire,
};
use tonic::{Request, Response, Status};

use super::{Api, status::Failure};

/// Recordings that an explanation shows.
const EXPLAINED: u32 = 10;

/// An empty text in a filter means any.
pub(super) fn wanted(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl Api {
    async fn list(&self, filter: &RecordingFilter, page: &Page) -> Result<(Vec<v1::Recording>, String), Failure> {
        let (list, next) = self.tools.repo.recordings(filter, page).await?;
        let mut recordings = Vec::with_capacity(list.len());
        for recording in &list {
            recordings.push(self.written_recording(recording).await?);
        }
        Ok((recordings, next))
    }
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
            domain: wanted(request.domain.to_lowercase()),
            app: wanted(request.app),
            stream: wanted(request.stream),
        };
        let page = Page {
            size: request.page_size,
            token: request.page_token,
        };
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
        let recording = found.ok_or_else(|| {
            Failure::not_found(format!(
                "no recording {id}: `aircheck recording list` shows what there is"
            ))
        })?;
        let recording = Some(self.written_recording(&recording).await?);
        Ok(Response::new(v1::GetRecordingResponse { recording }))
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
}
