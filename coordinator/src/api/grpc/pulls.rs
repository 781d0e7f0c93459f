//! Service `PullSources`.

use proto::v1;
use shared::{
    ids::{PullId, StreamKey},
    pull::{MadeBy, PullPhase},
    time::Timestamp,
    wire::{self, WireError},
};
use tonic::{Request, Response, Status};

use super::{Api, cut, status::Failure};
use crate::{
    actors::coordinator::Arrange,
    planner::State,
    pulls::{NewPull, PullChange, PullRef, PullView},
};

fn reference(pull: Option<v1::PullRef>) -> Result<PullRef, WireError> {
    match wire::required("pull", pull)?.by {
        Some(v1::pull_ref::By::PullId(text)) => Ok(PullRef::Id(wire::id("pull.pull_id", &text)?)),
        Some(v1::pull_ref::By::Stream(key)) => Ok(PullRef::Stream(StreamKey::try_from(key)?)),
        None => Err(WireError::new("pull", "is empty: give its id or its stream")),
    }
}

fn written(view: &PullView, state: &State, now: Timestamp) -> v1::PullSource {
    let source = &view.source;
    let phase = match (source.phase(now), source.worker, &view.status) {
        (PullPhase::Paused, ..) => v1::PullSourceState::Paused,
        (PullPhase::Scheduled, ..) => v1::PullSourceState::Scheduled,
        (PullPhase::Ended, ..) => v1::PullSourceState::Ended,
        (PullPhase::Active, None, _) => v1::PullSourceState::Unplaced,
        (PullPhase::Active, Some(_), None) => v1::PullSourceState::Connecting,
        (PullPhase::Active, Some(_), Some(status)) => status.state.into(),
    };
    let status = view.status.clone();
    v1::PullSource {
        pull_id: source.id.to_string(),
        stream: Some((&source.stream).into()),
        url: source.url.to_string(),
        paused: source.paused,
        from_ms: source.from.map_or(0, Timestamp::as_millis),
        until_ms: source.until.map_or(0, Timestamp::as_millis),
        by_hook: matches!(source.made_by, MadeBy::Hook { .. }),
        created_ms: source.created.as_millis(),
        updated_ms: source.updated.as_millis(),
        state: phase.into(),
        worker_id: source.worker.map(|worker| worker.to_string()).unwrap_or_default(),
        worker_name: source.worker.map(|worker| state.fleet.name(worker)).unwrap_or_default(),
        last_error: status.as_ref().map(|status| status.error.clone()).unwrap_or_default(),
        failures: status.map_or(0, |status| status.failures),
    }
}

impl Api {
    /// The source as it stands once a change of it is in force.
    async fn shown(&self, id: PullId) -> Result<v1::PullSource, Failure> {
        let now = self.tools.clock.now();
        let shown = self
            .look(move |state| state.pulls.get(&PullRef::Id(id)).map(|view| written(&view, state, now)))
            .await?;
        Ok(shown?)
    }
}

#[tonic::async_trait]
impl v1::pull_sources_server::PullSources for Api {
    async fn create_pull_source(
        &self,
        request: Request<v1::CreatePullSourceRequest>,
    ) -> Result<Response<v1::CreatePullSourceResponse>, Status> {
        let request = request.into_inner();
        let stream = wire::required("stream", request.stream).map_err(Failure::from)?;
        let new = NewPull {
            stream: stream.try_into().map_err(Failure::from)?,
            url: request.url.parse().map_err(Failure::invalid)?,
            paused: request.paused,
            from: wire::clock_if_any("from_ms", request.from_ms).map_err(Failure::from)?,
            until: wire::clock_if_any("until_ms", request.until_ms).map_err(Failure::from)?,
            made_by: MadeBy::Operator,
        };
        let create = Arrange(Box::new(move |pulls, moment| {
            let id = PullId::generate(moment.ids, moment.now);
            let (_, txn) = pulls.create(new, id, moment.now)?;
            Ok((id, None, txn))
        }));
        let id = self
            .handle
            .ask(create)
            .await
            .map_err(Failure::from)?
            .map_err(Failure::from)?;
        let pull_source = Some(self.shown(id).await?);
        Ok(Response::new(v1::CreatePullSourceResponse { pull_source }))
    }

    async fn get_pull_source(
        &self,
        request: Request<v1::GetPullSourceRequest>,
    ) -> Result<Response<v1::GetPullSourceResponse>, Status> {
        let by = reference(request.into_inner().pull).map_err(Failure::from)?;
        let now = self.tools.clock.now();
        let found = self
            .look(move |state| state.pulls.get(&by).map(|view| written(&view, state, now)))
            .await?
            .map_err(Failure::from)?;
        Ok(Response::new(v1::GetPullSourceResponse {
            pull_source: Some(found),
        }))
    }

    async fn list_pull_sources(
        &self,
        request: Request<v1::ListPullSourcesRequest>,
    ) -> Result<Response<v1::ListPullSourcesResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page(request.page_size, request.page_token).map_err(Failure::from)?;
        let after: Option<PullId> = match page.token.as_str() {
            "" => None,
            token => Some(wire::id("page_token", token).map_err(Failure::from)?),
        };
        let (wanted, now) = (page.entries() + 1, self.tools.clock.now());
        let list: Vec<v1::PullSource> = self
            .look(move |state| {
                let rest = state.pulls.list(after).take(wanted);
                rest.map(|view| written(&view, state, now)).collect()
            })
            .await?;
        let (pull_sources, next_page_token) = cut(list, &page, |source| source.pull_id.clone());
        Ok(Response::new(v1::ListPullSourcesResponse {
            pull_sources,
            next_page_token,
        }))
    }

    async fn update_pull_source(
        &self,
        request: Request<v1::UpdatePullSourceRequest>,
    ) -> Result<Response<v1::UpdatePullSourceResponse>, Status> {
        let request = request.into_inner();
        let by = reference(request.pull).map_err(Failure::from)?;
        let bound = |field: &str, ms: Option<i64>| {
            ms.map(|ms| wire::clock_if_any(field, ms))
                .transpose()
                .map_err(Failure::from)
        };
        let change = PullChange {
            url: request
                .url
                .map(|url| url.parse().map_err(Failure::invalid))
                .transpose()?,
            paused: request.paused,
            from: bound("from_ms", request.from_ms)?,
            until: bound("until_ms", request.until_ms)?,
            restart: request.restart,
        };
        let update = Arrange(Box::new(move |pulls, moment| {
            let (view, txn) = pulls.update(&by, change, moment.now)?;
            Ok((view.source.id, view.source.worker, txn))
        }));
        let id = self
            .handle
            .ask(update)
            .await
            .map_err(Failure::from)?
            .map_err(Failure::from)?;
        let pull_source = Some(self.shown(id).await?);
        Ok(Response::new(v1::UpdatePullSourceResponse { pull_source }))
    }

    async fn delete_pull_source(
        &self,
        request: Request<v1::DeletePullSourceRequest>,
    ) -> Result<Response<v1::DeletePullSourceResponse>, Status> {
        let by = reference(request.into_inner().pull).map_err(Failure::from)?;
        let delete = Arrange(Box::new(move |pulls, _| {
            let (worker, txn) = pulls.delete(&by)?;
            Ok(((), worker, txn))
        }));
        self.handle
            .ask(delete)
            .await
            .map_err(Failure::from)?
            .map_err(Failure::from)?;
        Ok(Response::new(v1::DeletePullSourceResponse {}))
    }
}
