//! [`Exporter`]: finished spans on their way to a receiver, and which of them go.

use std::{
    cell::Cell,
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, IdGenerator, RandomIdGenerator, SamplingDecision, SamplingResult,
        SdkTracerProvider, ShouldSample, SpanData, SpanExporter as Export, SpanProcessor, TracerProviderBuilder,
    },
};
use thiserror::Error;
use tokio::runtime::Handle;
use tonic::transport::ClientTlsConfig;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    config::{OtlpProtocol, TelemetryConfig},
    telemetry::Process,
};

/// Finished spans that may wait for the receiver; more are dropped, and their number is logged at the end.
const QUEUE: usize = 8_192;
/// Spans in one message to the receiver.
const BATCH: usize = 512;
/// Longest a finished span waits for others to be sent with it.
const DELAY: Duration = Duration::from_secs(1);
/// Time for the receiver to take one message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the last spans when the process ends.
const LAST: Duration = Duration::from_secs(3);
/// Random bits at the end of a UUID of version 7 (RFC 9562 §5.7).
const RANDOM_BITS: u32 = 62;

/// Why traces cannot be sent.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The file of the authority cannot be read.
    #[error("cannot read telemetry.otlp_ca_file {path}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no HTTP client.
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
    /// The address or the authority is none.
    #[error("{0}")]
    Build(#[from] ExporterBuildError),
}

/// Sends spans to a receiver until it is dropped.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Prepares sending; connects when there is something to send. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is none, or its authority cannot be used.
    pub fn start(config: &TelemetryConfig, address: &str, process: Process<'_>) -> Result<Self, ExportError> {
        let exporter = match config.otlp_protocol {
            OtlpProtocol::Grpc => {
                let builder = SpanExporter::builder()
                    .with_tonic()
                    .with_endpoint(address)
                    .with_timeout(TIMEOUT);
                let builder = match &config.otlp_ca_file {
                    Some(path) => {
                        let pem = std::fs::read(path).map_err(|source| ExportError::Authority {
                            path: path.clone(),
                            source,
                        })?;
                        let authority = tonic::transport::Certificate::from_pem(pem);
                        builder.with_tls_config(ClientTlsConfig::new().ca_certificate(authority))
                    }
                    None => builder,
                };
                builder.build()?
            }
            OtlpProtocol::Http => {
                // The HTTP client takes the process's provider; a second attempt to set it changes nothing.
                crate::objects::install_tls();
                let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
                SpanExporter::builder()
                    .with_http()
                    .with_http_client(OnRuntime {
                        runtime: Handle::current(),
                        client,
                    })
                    .with_endpoint(format!("{}/v1/traces", address.trim_end_matches('/')))
                    .with_timeout(TIMEOUT)
                    .build()?
            }
        };
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let batch = BatchSpanProcessor::builder(Telling {
            exporter,
            down: AtomicBool::new(false),
        })
        .with_batch_config(batch)
        .build();
        let resource = Resource::builder()
            .with_service_name("aircheck")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", process.name.unwrap_or(process.role).to_owned()),
                KeyValue::new("aircheck.role", process.role),
            ])
            .build();
        let provider = provider(batch, config.trace_share).with_resource(resource).build();
        Ok(Exporter(provider))
    }

    /// What the subscriber's layer sends spans through; from here on [`Place`](super::Place)s do, too.
    #[must_use]
    pub fn tracer(&self) -> opentelemetry_sdk::trace::SdkTracer {
        global::set_tracer_provider(self.0.clone());
        self.0.tracer("aircheck")
    }

    /// Sends what waits, and ends within 3 s. Blocks: not for a runtime's thread.
    pub fn stop(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            warn!(%error, "the last traces were not sent");
        }
    }
}

pub(super) fn provider(processor: impl SpanProcessor + 'static, share: f64) -> TracerProviderBuilder {
    SdkTracerProvider::builder()
        .with_span_processor(KeepFailed(processor))
        .with_sampler(Share(share))
        .with_id_generator(Given(RandomIdGenerator::default()))
}

thread_local! {
    /// The ids of the next span that this thread begins.
    pub(super) static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Ids that were given, else random ones.
#[derive(Debug)]
struct Given(RandomIdGenerator);

impl IdGenerator for Given {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Decides by the random bits of the recording's id. What is not exported is recorded all the same, since it may fail.
#[derive(Debug, Clone)]
struct Share(f64);

impl Share {
    fn takes(&self, trace: TraceId) -> bool {
        let (_, low) = Uuid::from_bytes(trace.to_bytes()).as_u64_pair();
        let random = low & ((1 << RANDOM_BITS) - 1);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let place = random as f64 / (1_u64 << RANDOM_BITS) as f64;
        place < self.0
    }
}

impl ShouldSample for Share {
    fn should_sample(
        &self,
        _: Option<&Context>,
        trace: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: if self.takes(trace) {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::RecordOnly
            },
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

/// Hands on what is sampled, and of the rest what failed.
#[derive(Debug)]
struct KeepFailed<P>(P);

impl<P: SpanProcessor> SpanProcessor for KeepFailed<P> {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            if !matches!(span.status, Status::Error { .. }) {
                return;
            }
            let known = &span.span_context;
            span.span_context = SpanContext::new(
                known.trace_id(),
                known.span_id(),
                known.trace_flags().with_sampled(true),
                known.is_remote(),
                known.trace_state().clone(),
            );
        }
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// An HTTP client for the thread that sends, which is none of the runtime's.
#[derive(Debug, Clone)]
struct OnRuntime {
    runtime: Handle,
    client: reqwest::Client,
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = sent.await??;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}

/// Says when the receiver goes away and when it is back, once each: spans are lost meanwhile, recordings are not.
#[derive(Debug)]
struct Telling<E> {
    exporter: E,
    down: AtomicBool,
}

impl<E: Export> Export for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        match (&result, self.down.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => warn!(%error, "telemetry.otlp does not take traces; they are dropped until it does"),
            (Ok(()), true) => info!("telemetry.otlp takes traces again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
