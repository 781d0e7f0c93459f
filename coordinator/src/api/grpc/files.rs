//! Service `Files`.

use proto::v1;
use shared::{
    ids::FileId,
    store::{FileFilter, RemovalFrom},
    wire,
};
use tonic::{Request, Response, Status};

use super::{Api, status::Failure};

/// Most removals that are listed. No more are begun while so many wait for the first place.
const MAX_REMOVALS: usize = 1_000;
/// Most copies that are listed.
const MAX_COPIES: usize = 1_000;

impl Api {
    async fn locked(&self, id: &str, locked: bool) -> Result<v1::MediaFile, Failure> {
        let id: FileId = wire::id("file_id", id)?;
        let file = self.tools.repo.change_file(id, |file| file.locked = locked).await?;
        Ok((&file).into())
    }
}

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
            domain: wire::wanted("domain", request.domain.to_lowercase()).map_err(Failure::from)?,
            app: wire::wanted("app", request.app).map_err(Failure::from)?,
            stream: wire::wanted("stream", request.stream).map_err(Failure::from)?,
        };
        let page = wire::page(request.page_size, request.page_token).map_err(Failure::from)?;
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

    async fn lock_file(&self, request: Request<v1::LockFileRequest>) -> Result<Response<v1::LockFileResponse>, Status> {
        let file = Some(self.locked(&request.into_inner().file_id, true).await?);
        Ok(Response::new(v1::LockFileResponse { file }))
    }

    async fn unlock_file(
        &self,
        request: Request<v1::UnlockFileRequest>,
    ) -> Result<Response<v1::UnlockFileResponse>, Status> {
        let file = Some(self.locked(&request.into_inner().file_id, false).await?);
        Ok(Response::new(v1::UnlockFileResponse { file }))
    }

    async fn delete_file(
        &self,
        request: Request<v1::DeleteFileRequest>,
    ) -> Result<Response<v1::DeleteFileResponse>, Status> {
        let id: FileId = wire::id("file_id", &request.into_inner().file_id).map_err(Failure::from)?;
        self.tools.remove(id).await.map_err(Failure::from)?;
        Ok(Response::new(v1::DeleteFileResponse {}))
    }

    async fn list_removals(
        &self,
        _: Request<v1::ListRemovalsRequest>,
    ) -> Result<Response<v1::ListRemovalsResponse>, Status> {
        let mut removals = Vec::new();
        for from in [RemovalFrom::First, RemovalFrom::Second] {
            let room = MAX_REMOVALS - removals.len();
            if room > 0 {
                let waiting = self.tools.repo.removals(from, None, room).await;
                let waiting = waiting.map_err(Failure::from)?;
                removals.extend(waiting.iter().map(|removal| wire::removal(from, removal)));
            }
        }
        Ok(Response::new(v1::ListRemovalsResponse { removals }))
    }

    async fn list_copies(&self, _: Request<v1::ListCopiesRequest>) -> Result<Response<v1::ListCopiesResponse>, Status> {
        let copies = self.tools.repo.copies(MAX_COPIES).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListCopiesResponse {
            copies: copies.iter().map(Into::into).collect(),
        }))
    }
}
