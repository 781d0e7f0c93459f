//! Logs and traces, set up once; [`metrics`] has every metric's name once, [`kinds`] what they are made of, [`otlp`] sends them where they are not fetched.

pub mod kinds;
pub mod metrics;
pub mod otlp;

pub use kinds::{FormatLabel, Latency, PlaceLabel, Reason, StreamFigures, StreamLabel, TrackLabel};
pub use metrics::{CoordinatorMetrics, Metrics, WorkerMetrics};
pub use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::Targets, fmt as lines, prelude::*};

use crate::{
    config::{LogFormat, TelemetryConfig},
    trace::{self, ExportError, Exporter},
};

/// Why logs cannot be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is not legal.
    #[error("telemetry.log {filter:?} is not a filter such as `info` or `warn,worker=debug`")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Traces cannot be sent.
    #[error("telemetry.otlp {address:?} cannot be used")]
    Otlp {
        /// Where they should go.
        address: String,
        /// Why.
        #[source]
        source: ExportError,
    },
    /// Somebody set them up before.
    #[error("logs are set up already")]
    Again(#[source] tracing_subscriber::util::TryInitError),
}

/// Which process this is, for those who read its traces.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    /// `standalone`, `coordinator` or `worker`.
    pub role: &'static str,
    /// Its name; none: it is called by its role.
    pub name: Option<&'a str>,
}

/// Sends this process's logs to standard error, and its traces to where the settings say. Must be called within a tokio runtime; what is given
/// back is to be stopped when all else has ended.
///
/// # Errors
/// [`TelemetryError`]: a setting that cannot be used, or a second call.
pub fn init(config: &TelemetryConfig, process: Process<'_>) -> Result<Option<Exporter>, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|source| TelemetryError::Filter {
        filter: config.log.clone(),
        source,
    })?;
    let exporter = config
        .otlp
        .as_deref()
        .map(|address| {
            Exporter::start(config, address, process).map_err(|source| TelemetryError::Otlp {
                address: address.to_owned(),
                source,
            })
        })
        .transpose()?;
    let traces = exporter.as_ref().map(|exporter| {
        tracing_opentelemetry::layer()
            .with_tracer(exporter.tracer())
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(trace::TARGET, tracing::Level::TRACE))
    });
    let lines = lines::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(traces).with(lines);
    subscriber.try_init().map_err(TelemetryError::Again)?;
    Ok(exporter)
}
