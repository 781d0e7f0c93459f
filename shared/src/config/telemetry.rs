//! `[telemetry]`: what a process says of itself.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[telemetry]`: logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Filter in the syntax of `tracing`, such as `info` or `warn,worker=debug`.
    pub log: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// Where traces go: `http://HOST:4317` or `https://…`, a receiver of OTLP. None: there are no traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// The authority that signed the receiver's certificate, PEM; needed for `https://` over gRPC. Over HTTP the system's are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_ca_file: Option<PathBuf>,
    /// How that receiver is spoken to.
    pub otlp_protocol: OtlpProtocol,
    /// Time between two messages with all metrics to that receiver; 0: they are only fetched from `/metrics`. 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub otlp_metrics_interval: Duration,
    /// Single live streams have series of their own, labelled with their names, of 1,000 streams at most in each worker.
    pub stream_metrics: bool,
    /// Share of the recordings that are traced, 0 to 1. Which ones is decided by their ids, so that all processes agree; spans that failed are
    /// kept of all.
    pub trace_share: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig {
            // The HTTP server tells of each socket and thread; what matters of it is said by the coordinator.
            log: "info,actix_server=warn".to_owned(),
            format: LogFormat::Text,
            otlp: None,
            otlp_ca_file: None,
            otlp_protocol: OtlpProtocol::Grpc,
            otlp_metrics_interval: Duration::ZERO,
            stream_metrics: false,
            trace_share: 1.0,
        }
    }
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a receiver of traces is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// gRPC, commonly on port 4317.
    Grpc,
    /// Protobuf over HTTP, commonly on port 4318; `/v1/traces` is added to the address.
    Http,
}
