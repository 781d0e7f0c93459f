//! Service `ExternalScaler`: KEDA asks how many workers there should be.
//!
//! The metric is the number of workers wanted, of which one replica is for one: what KEDA's autoscaler makes of it is
//! that number.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use proto::externalscaler::{
    self as keda, GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use shared::shutdown::Phase;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Api, status::Failure};
use crate::{
    actors::coordinator::Scaled,
    scaler::{Load, ScaleIn, TargetError, Targets},
};

/// The one metric there is.
const METRIC: &str = "aircheck_workers_wanted";
/// Most who are told of activity at a time; anybody may ask for it.
pub(crate) const MAX_LISTENERS: usize = 64;
/// How often somebody who watches is told news.
const LOOK: Duration = Duration::from_secs(1);

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Failure::invalid(error)
    }
}

/// A reference without what it refers to means the defaults.
fn read(scaled: Option<ScaledObjectRef>) -> Result<Targets, Failure> {
    let metadata: HashMap<String, String> = scaled.unwrap_or_default().scaler_metadata;
    Ok(Targets::read(&metadata.into_iter().collect())?)
}

impl Api {
    async fn load(&self) -> Result<Load, Failure> {
        self.look(|state| Load {
            streams: state.leases.len() as u64,
            bits_per_second: state.fleet.bits_per_second(),
        })
        .await
    }

    /// How many workers there should be. Where they are scaled in, those that are not wanted are told to leave, and counted until they have left.
    ///
    /// Anybody may ask, so that who leaves follows from the settings alone: what `asked` says is then left aside.
    async fn size(&self, asked: Targets) -> Result<u64, Failure> {
        let load = self.load().await?;
        let Some((scale_in, targets)) = ScaleIn::of(&self.tools.config.scale_in) else {
            return Ok(asked.wanted(load));
        };
        let wanted = targets.wanted(load);
        let now = self.tools.clock.monotonic();
        let calm = {
            let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            lately.note(now, wanted, scale_in.after)
        };
        let set = scale_in.set.clone();
        let members = self.look(move |state| state.fleet.members(&set)).await?;
        let shrink = scale_in.decide(&members, wanted, calm);
        let size = shrink.size;
        if !shrink.leave.is_empty() || !shrink.stay.is_empty() {
            self.handle.ask(Scaled(shrink)).await.map_err(Failure::from)?;
        }
        Ok(size)
    }

    /// Told at once, and when it changes; ends with the coordinator, or when nobody listens any more.
    async fn tell_activity(self, told: mpsc::Sender<Result<IsActiveResponse, Status>>) {
        let mut last = None;
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.reached(Phase::Draining) => return,
                () = told.closed() => return,
                _ = ticks.tick() => {}
            }
            let now = match self.load().await {
                Ok(load) => Ok(load.streams > 0),
                Err(failure) => Err(Status::from(failure)),
            };
            let over = now.is_err();
            if now.as_ref().ok() != last.as_ref() || over {
                last = now.as_ref().ok().copied();
                let sent = told.send(now.map(|result| IsActiveResponse { result })).await;
                if over || sent.is_err() {
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl keda::external_scaler_server::ExternalScaler for Api {
    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        read(Some(request.into_inner()))?;
        let result = self.load().await?.streams > 0;
        Ok(Response::new(IsActiveResponse { result }))
    }

    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        read(Some(request.into_inner()))?;
        let Ok(place) = Arc::clone(&self.listeners).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{MAX_LISTENERS} listen already, which is more than autoscalers: end some, or ask with GetMetrics"
            )));
        };
        let (told, listening) = mpsc::channel(1);
        let api = self.clone();
        self.tools.tasks.spawn(async move {
            api.tell_activity(told).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(listening))))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        read(Some(request.into_inner()))?;
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: 1,
            target_size_float: 1.0,
        };
        Ok(Response::new(GetMetricSpecResponse {
            metric_specs: vec![spec],
        }))
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        let request = request.into_inner();
        let targets = read(request.scaled_object_ref)?;
        if request.metric_name != METRIC {
            let error = format!("there is no metric {:?}: ask for {METRIC}", request.metric_name);
            return Err(Failure::invalid(error).into());
        }
        // Workers are few; both forms hold them exactly.
        let wanted = u32::try_from(self.size(targets).await?).unwrap_or(u32::MAX);
        let value = MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: wanted.into(),
            metric_value_float: wanted.into(),
        };
        Ok(Response::new(GetMetricsResponse {
            metric_values: vec![value],
        }))
    }
}
