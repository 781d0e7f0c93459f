//! Service `Files`.

use proto::v1;
use shared::{
    ids::FileId,
    store::{FileFilter, Page},
    wire,
};
use tonic::{Request, Response, Status};

use super::{Api, recordings::wanted, status::Failure};

#[tonic::async_trait]
impl v1::files_server::Files for Api {
    async fn list_files(
        &self,
        request: Request<v1::ListFilesRequest>,
    ) -> Result<Response<v1::ListFilesResponse>, Status> {
        let request = request.into_inner();
        let recording = match request.recording_id.as_str() {
            "" => None,
            text => Some(wire::id("recording_id", text).map_err(Failure::from)?),
        };
        let format = match request.format {
            0 => None,
            number => Some(wire::format(number).map_err(Failure::from)?),
        };
        let filter = FileFilter {
            recording,
            format,
            domain: wanted(request.domain.to_lowercase()),
            app: wanted(request.app),
            stream: wanted(request.stream),
        };
        let page = Page {
            size: request.page_size,
            token: request.page_token,
        };
        let (list, next_page_token) = self.tools.repo.files(&filter, &page).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListFilesResponse {
            files: list.iter().map(Into::into).collect(),
            next_page_token,
        }))
    }

    async fn get_file(&self, request: Request<v1::GetFileRequest>) -> Result<Response<v1::GetFileResponse>, Status> {
        let id: FileId = wire::id("file_id", &request.into_inner().file_id).map_err(Failure::from)?;
        let found = self.tools.repo.file(id).await.map_err(Failure::from)?;
        let file = found
            .ok_or_else(|| Failure::not_found(format!("no file {id}: `aircheck file list` shows what there is")))?;
        Ok(Response::new(v1::GetFileResponse {
            file: Some((&file).into()),
        }))
    }
}
