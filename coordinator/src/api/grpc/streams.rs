//! Service `Streams`.

use proto::v1;
use shared::{ids::StreamKey, recording::Recording, wire};
use tonic::{Request, Response, Status};

use super::{Api, cut, status::Failure};
use crate::{catalog::Explanation, planner::StreamView};

fn written(view: &StreamView) -> v1::LiveStream {
    let record = &view.record;
    let state = if view.interrupted {
        v1::StreamState::Interrupted
    } else {
        v1::StreamState::Live
    };
    v1::LiveStream {
        stream: Some((&record.stream).into()),
        state: state.into(),
        publish_id: record.id.to_string(),
        worker_id: record.worker.to_string(),
        worker_name: view.worker_name.clone(),
        epoch: record.epoch.get(),
        client_addr: record.client_addr.clone(),
        params: record.params.clone(),
        started_ms: record.started.as_millis(),
        recording_ids: record.recordings.iter().map(ToString::to_string).collect(),
        counters: Some(v1::StreamCounters {
            bits_per_second: view.counters.bits_per_second,
            video_units: view.counters.video_units,
            audio_units: view.counters.audio_units,
            bytes: view.counters.bytes,
        }),
    }
}

fn explained(explanation: Explanation, live: bool) -> v1::ExplainStreamResponse {
    let candidates = explanation.candidates.into_iter().map(|line| v1::RuleCandidate {
        rule: line.rule,
        specificity: line.specificity.to_owned(),
        exists: line.exists,
        wins: line.wins,
        reason: line.reason,
        template_name: line.template,
    });
    v1::ExplainStreamResponse {
        candidates: candidates.collect(),
        formats: explanation
            .formats
            .into_iter()
            .map(|format| v1::Format::from(format).into())
            .collect(),
        summary: explanation.summary,
        live,
    }
}

impl Api {
    /// Which rule would win for a stream, and why.
    pub(super) async fn explain(&self, stream: StreamKey) -> Result<v1::ExplainStreamResponse, Failure> {
        self.look(move |state| explained(state.catalog.explain(&stream), state.leases.holder(&stream).is_some()))
            .await
    }

    /// A recording as lists show it, with its totals.
    pub(super) async fn written_recording(&self, recording: &Recording) -> Result<v1::Recording, Failure> {
        let mut out = v1::Recording::from(recording);
        (out.file_count, out.bytes) = self.tools.repo.file_totals(recording.id).await?;
        Ok(out)
    }
}

#[tonic::async_trait]
impl v1::streams_server::Streams for Api {
    async fn list_streams(
        &self,
        request: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        let scope = super::scope(&request);
        let v1::ListStreamsRequest {
            page_size,
            page_token,
            domain,
            app,
        } = request.into_inner();
        let page = wire::page(page_size, page_token).map_err(Failure::from)?;
        let after: Option<StreamKey> = match page.token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse()
                    .map_err(|_| Failure::invalid("page_token is not one of this list's"))?,
            ),
        };
        let domain = wire::wanted("domain", domain.to_lowercase()).map_err(Failure::from)?;
        let app = wire::wanted("app", app).map_err(Failure::from)?;
        let wanted = page.entries();
        let list = self
            .look(move |state| {
                state.streams(after.as_ref(), wanted, |stream| {
                    scope.covers(stream.domain())
                        && domain.as_ref().is_none_or(|domain| stream.domain() == domain)
                        && app.as_ref().is_none_or(|app| stream.app() == app)
                })
            })
            .await?;
        let (list, next_page_token) = cut(list, &page, |view| view.record.stream.to_string());
        Ok(Response::new(v1::ListStreamsResponse {
            streams: list.iter().map(written).collect(),
            next_page_token,
        }))
    }

    async fn explain_stream(
        &self,
        request: Request<v1::ExplainStreamRequest>,
    ) -> Result<Response<v1::ExplainStreamResponse>, Status> {
        let stream = wire::required("stream", request.into_inner().stream).map_err(Failure::from)?;
        let stream = StreamKey::try_from(stream).map_err(Failure::from)?;
        Ok(Response::new(self.explain(stream).await?))
    }
}
