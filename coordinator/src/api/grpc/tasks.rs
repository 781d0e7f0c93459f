//! Service `Tasks`.

use proto::v1;
use shared::{ids::TaskId, store::TaskRecording, task::Task, wire};
use tonic::{Request, Response, Status};

use super::{Api, status::Failure};
use crate::actors::tasks::{CreateTask, DeleteTask, StopTask};

/// Most recordings that one answer tells of.
const MAX_RECORDINGS: usize = 1_000;

fn recording(of: &TaskRecording) -> v1::Recording {
    v1::Recording {
        file_count: of.files,
        bytes: of.bytes,
        ..(&of.recording).into()
    }
}

impl Api {
    async fn stored(&self, task_id: &str) -> Result<(TaskId, Option<Task>), Failure> {
        let id: TaskId = wire::id("task_id", task_id)?;
        Ok((id, self.tools.repo.task(id).await?))
    }
}

#[tonic::async_trait]
impl v1::tasks_server::Tasks for Api {
    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let mut new = wire::new_task(request.into_inner()).map_err(Failure::from)?;
        // Clients that count templates say 0 for none.
        if new.template_ref == "0" {
            new.template_ref.clear();
        }
        let legal = !new.client_token.is_empty() && new.client_token.len() <= shared::task::MAX_TOKEN_BYTES;
        let known = match legal {
            true => self
                .tools
                .repo
                .task_of_token(&new.client_token)
                .await
                .map_err(Failure::from)?,
            false => None,
        };
        let made = self
            .handle
            .ask(CreateTask {
                new,
                known,
                template: None,
            })
            .await
            .map_err(Failure::from)?;
        let task = made.map_err(Failure::from)?;
        Ok(Response::new(v1::CreateTaskResponse {
            task: Some((&task).into()),
        }))
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Result<Response<v1::StopTaskResponse>, Status> {
        let (id, stored) = self.stored(&request.into_inner().task_id).await?;
        let stopped = self.handle.ask(StopTask { id, stored }).await.map_err(Failure::from)?;
        let task = stopped.map_err(Failure::from)?;
        Ok(Response::new(v1::StopTaskResponse {
            task: Some((&task).into()),
        }))
    }

    async fn delete_task(
        &self,
        request: Request<v1::DeleteTaskRequest>,
    ) -> Result<Response<v1::DeleteTaskResponse>, Status> {
        let v1::DeleteTaskRequest { task_id, let_run } = request.into_inner();
        let (id, stored) = self.stored(&task_id).await?;
        let delete = DeleteTask { id, stored, let_run };
        let deleted = self.handle.ask(delete).await.map_err(Failure::from)?;
        deleted.map_err(Failure::from)?;
        Ok(Response::new(v1::DeleteTaskResponse {}))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let (id, stored) = self.stored(&request.into_inner().task_id).await?;
        let task = stored.ok_or_else(|| Failure::from(crate::tasks::TaskError::NoTask(id)))?;
        let recordings = self.tools.repo.task_recordings(id, MAX_RECORDINGS).await;
        Ok(Response::new(v1::GetTaskResponse {
            task: Some((&task).into()),
            recordings: recordings.map_err(Failure::from)?.iter().map(recording).collect(),
        }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let request = request.into_inner();
        let filter = wire::task_filter(&request).map_err(Failure::from)?;
        let page = wire::page(request.page_size, request.page_token).map_err(Failure::from)?;
        if !page.token.is_empty() {
            let _: TaskId = wire::id("page_token", &page.token).map_err(Failure::from)?;
        }
        let (tasks, next_page_token) = self.tools.repo.tasks(&filter, &page).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListTasksResponse {
            tasks: tasks.iter().map(Into::into).collect(),
            next_page_token,
        }))
    }
}
