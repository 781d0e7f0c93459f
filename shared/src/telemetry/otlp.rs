//! [`Sender`]: all metrics, sent to a receiver of OTLP every so often, under the names that `/metrics` has.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prometheus_client::encoding::prometheus_protobuf::{
    encode,
    prometheus_data_model::{Histogram as Counted, LabelPair, MetricFamily},
};
use prost::Message as _;
use thiserror::Error;
use tokio::{sync::oneshot, task::JoinHandle, time::MissedTickBehavior};
use tonic::{
    Request,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tracing::{info, warn};

use super::{Metrics, Process};
use crate::{
    config::{OtlpProtocol, TelemetryConfig},
    time::{Clock, Timestamp},
};

/// Time for the receiver to take one message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the last message: the process ends, and nothing but figures waits for it.
const LAST: Duration = Duration::from_secs(3);
/// Headers for the receiver, as `name=value,name=value` (OpenTelemetry's specification of its exporters).
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"];

/// Why metrics cannot be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The file of the authority cannot be read.
    #[error("cannot read telemetry.otlp_ca_file {path}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address is none, or TLS cannot be used.
    #[error("telemetry.otlp {address:?} cannot be used")]
    Address {
        /// What it is.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// There is no HTTP client.
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
    /// A header is none.
    #[error("{variable} has {pair:?}, which is not a header: write name=value,name=value")]
    Header {
        /// The variable of the environment.
        variable: &'static str,
        /// The header's name; its value may be a secret.
        pair: String,
    },
}

/// Sends metrics until it is stopped.
#[derive(Debug)]
pub struct Sender {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sender {
    /// Begins sending, if the settings say so. Needs a tokio runtime.
    ///
    /// # Errors
    /// The receiver's address, authority or headers cannot be used.
    pub fn start(
        config: &TelemetryConfig,
        metrics: Metrics,
        process: Process<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>, SendError> {
        let (Some(address), true) = (&config.otlp, !config.otlp_metrics_interval.is_zero()) else {
            return Ok(None);
        };
        let way = Way::new(config, address)?;
        let (stop, mut stopped) = oneshot::channel();
        let resource = resource(process);
        let began = clock.now();
        let mut every = tokio::time::interval(config.otlp_metrics_interval);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let task = tokio::spawn(async move {
            let mut down = false;
            loop {
                let last = tokio::select! {
                    _ = every.tick() => false,
                    _ = &mut stopped => true,
                };
                let Ok(families) = encode(metrics.registry()) else {
                    warn!("metrics cannot be written down");
                    return;
                };
                let sent = way.send(request(families, resource.clone(), began, clock.now())).await;
                match (&sent, std::mem::replace(&mut down, sent.is_err())) {
                    (Err(error), false) => warn!(error, "telemetry.otlp does not take metrics; it is tried again"),
                    (Ok(()), true) => info!("telemetry.otlp takes metrics again"),
                    _ => {}
                }
                if last {
                    return;
                }
            }
        });
        Ok(Some(Self { stop, task }))
    }

    /// Sends the figures once more, and ends; within 3 s.
    pub async fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        if tokio::time::timeout(LAST, self.task).await.is_err() {
            warn!("the last metrics were not sent");
        }
    }
}

fn resource(process: Process<'_>) -> Resource {
    Resource {
        attributes: vec![
            attribute("service.name", "aircheck"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", process.name.unwrap_or(process.role)),
            attribute("aircheck.role", process.role),
        ],
        ..Resource::default()
    }
}

/// How the receiver is spoken to.
#[derive(Debug)]
enum Way {
    Grpc(MetricsServiceClient<Channel>, MetadataMap),
    Http(reqwest::Client, String, http::HeaderMap),
}

impl Way {
    fn new(config: &TelemetryConfig, address: &str) -> Result<Self, SendError> {
        let bad = |source| SendError::Address {
            address: address.to_owned(),
            source,
        };
        match config.otlp_protocol {
            OtlpProtocol::Grpc => {
                let mut endpoint = Endpoint::from_shared(address.to_owned())
                    .map_err(bad)?
                    .timeout(TIMEOUT)
                    .connect_timeout(TIMEOUT);
                if let Some(path) = &config.otlp_ca_file {
                    let pem = std::fs::read(path).map_err(|source| SendError::Authority {
                        path: path.clone(),
                        source,
                    })?;
                    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                    endpoint = endpoint.tls_config(tls).map_err(bad)?;
                }
                let client = MetricsServiceClient::new(endpoint.connect_lazy());
                Ok(Self::Grpc(client, MetadataMap::from_headers(headers()?)))
            }
            OtlpProtocol::Http => {
                crate::objects::install_tls();
                let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
                let url = format!("{}/v1/metrics", address.trim_end_matches('/'));
                Ok(Self::Http(client, url, headers()?))
            }
        }
    }

    async fn send(&self, message: ExportMetricsServiceRequest) -> Result<(), String> {
        match self {
            Self::Grpc(client, headers) => {
                let mut request = Request::new(message);
                *request.metadata_mut() = headers.clone();
                let answer = client.clone().export(request).await;
                answer.map(drop).map_err(|status| status.to_string())
            }
            Self::Http(client, url, headers) => {
                let request = client
                    .post(url)
                    .headers(headers.clone())
                    .header(http::header::CONTENT_TYPE, "application/x-protobuf")
                    .body(message.encode_to_vec());
                let answer = request.send().await.and_then(reqwest::Response::error_for_status);
                answer.map(drop).map_err(|error| error.to_string())
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "OpenTelemetry names the variable; it may hold a secret, which settings may not"
)]
fn headers() -> Result<http::HeaderMap, SendError> {
    let mut headers = http::HeaderMap::new();
    for variable in HEADERS {
        let Ok(text) = std::env::var(variable) else { continue };
        parse_headers(variable, &text, &mut headers)?;
    }
    Ok(headers)
}

fn parse_headers(variable: &'static str, text: &str, headers: &mut http::HeaderMap) -> Result<(), SendError> {
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = || SendError::Header {
            variable,
            pair: name.to_owned(),
        };
        let value = percent(value.trim()).ok_or_else(bad)?;
        let name = name.trim().to_ascii_lowercase();
        // Both transports must take it: gRPC keeps names with `-bin` for bytes.
        MetadataKey::<tonic::metadata::Ascii>::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value: MetadataValue<_> = value.parse().map_err(|_| bad())?;
        let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = http::HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?;
        headers.insert(name, value);
    }
    Ok(())
}

/// Undoes percent-encoding (RFC 3986 §2.1).
fn percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = behind;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What the registry holds as a message to the receiver. Sums count since `began`.
fn request(
    families: Vec<MetricFamily>,
    resource: Resource,
    began: Timestamp,
    now: Timestamp,
) -> ExportMetricsServiceRequest {
    let times = Times {
        began: nanos(began),
        now: nanos(now),
    };
    let metrics = families.into_iter().filter_map(|family| metric(family, times));
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "aircheck".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics: metrics.collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

#[derive(Debug, Clone, Copy)]
struct Times {
    began: u64,
    now: u64,
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(0).saturating_mul(1_000_000)
}

/// None: it has no values yet, or is of a kind that we have not.
fn metric(family: MetricFamily, times: Times) -> Option<Metric> {
    let (mut sums, mut gauges, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
    for series in family.metric {
        let attributes: Vec<KeyValue> = series.label.into_iter().map(label).collect();
        if let Some(histogram) = series.histogram {
            histograms.push(distribution(&histogram, attributes, times));
        } else if let Some(counter) = series.counter {
            sums.push(number(counter.value, attributes, times));
        } else if let Some(gauge) = series.gauge {
            gauges.push(NumberDataPoint {
                // What is now has no beginning.
                start_time_unix_nano: 0,
                ..number(gauge.value, attributes, times)
            });
        }
    }
    let data = if !sums.is_empty() {
        Data::Sum(Sum {
            data_points: sums,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })
    } else if !gauges.is_empty() {
        Data::Gauge(Gauge { data_points: gauges })
    } else if !histograms.is_empty() {
        Data::Histogram(Histogram {
            data_points: histograms,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        })
    } else {
        return None;
    };
    Some(Metric {
        name: family.name,
        description: family.help,
        unit: unit(&family.unit).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// Units as UCUM writes them.
fn unit(name: &str) -> &str {
    match name {
        "bytes" => "By",
        "seconds" => "s",
        other => other,
    }
}

fn number(value: f64, attributes: Vec<KeyValue>, times: Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: times.began,
        time_unix_nano: times.now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Prometheus' buckets count all up to their bound, the last up to infinity; those of OTLP what lies between their bound and the one before, and
/// the last has no bound.
fn distribution(histogram: &Counted, attributes: Vec<KeyValue>, times: Times) -> HistogramDataPoint {
    let mut below = 0;
    let between = histogram.bucket.iter().map(|bucket| {
        let count = bucket.cumulative_count - below;
        below = bucket.cumulative_count;
        count
    });
    let bounds = histogram.bucket.iter().map(|bucket| bucket.upper_bound);
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: times.began,
        time_unix_nano: times.now,
        count: histogram.sample_count,
        sum: Some(histogram.sample_sum),
        bucket_counts: between.collect(),
        explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
        ..HistogramDataPoint::default()
    }
}

fn label(label: LabelPair) -> KeyValue {
    attribute(&label.name, &label.value)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{FormatLabel, Reason};

    fn sent(metrics: &Metrics) -> Vec<Metric> {
        let process = Process {
            role: "worker",
            name: Some("w1"),
        };
        let families = encode(metrics.registry()).unwrap();
        let message = request(
            families,
            resource(process),
            Timestamp::from_millis(1_000),
            Timestamp::from_millis(3_000),
        );
        let all = message.resource_metrics.into_iter().next().unwrap();
        let name = attribute("service.instance.id", "w1");
        assert!(all.resource.unwrap().attributes.contains(&name));
        all.scope_metrics.into_iter().next().unwrap().metrics
    }

    fn named(all: &[Metric], name: &str) -> Metric {
        all.iter().find(|metric| metric.name == name).unwrap().clone()
    }

    #[test]
    fn counters_are_sums_since_the_start_and_gauges_are_now() {
        let metrics = Metrics::new();
        metrics.worker.ingest_bytes.inc_by(700);
        metrics.worker.publishes.set(3);
        let reason = Reason { reason: "unavailable" };
        metrics.worker.upload_errors.get_or_create(&reason).inc_by(2);
        let all = sent(&metrics);

        let bytes = named(&all, "aircheck_worker_ingest_bytes_total");
        assert_eq!(bytes.unit, "By");
        let Some(Data::Sum(sum)) = bytes.data else { panic!() };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(700.0)));
        assert_eq!(
            (point.start_time_unix_nano, point.time_unix_nano),
            (1_000_000_000, 3_000_000_000)
        );

        let Some(Data::Gauge(gauge)) = named(&all, "aircheck_worker_publishes").data else {
            panic!()
        };
        assert_eq!(
            gauge.data_points[0].value,
            Some(number_data_point::Value::AsDouble(3.0))
        );

        let Some(Data::Sum(sum)) = named(&all, "aircheck_worker_upload_errors_total").data else {
            panic!()
        };
        assert_eq!(sum.data_points[0].attributes, [attribute("reason", "unavailable")]);

        let Some(Data::Gauge(build)) = named(&all, "aircheck_build_info").data else {
            panic!()
        };
        assert_eq!(build.data_points[0].attributes[0].key, "version");
    }

    #[test]
    fn a_latency_keeps_its_buckets() {
        let metrics = Metrics::new();
        let format = FormatLabel { format: "hls" };
        let render = metrics.worker.render.get_or_create(&format).clone();
        for ms in [2, 3, 70_000] {
            render.took(Duration::from_millis(ms));
        }
        let all = sent(&metrics);
        let Some(Data::Histogram(histogram)) = named(&all, "aircheck_worker_render_seconds").data else {
            panic!()
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (3, Some(70.005)));
        assert_eq!(
            point.bucket_counts.len(),
            point.explicit_bounds.len() + 1,
            "one is above all bounds"
        );
        assert_eq!(point.explicit_bounds[..3], [0.001, 0.0025, 0.005]);
        assert_eq!(point.bucket_counts[..3], [0, 1, 1]);
        assert_eq!(point.bucket_counts.last(), Some(&1));
        assert_eq!(named(&all, "aircheck_worker_render_seconds").unit, "s");
    }

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let mut headers = http::HeaderMap::new();
        parse_headers("X", "Authorization=Bearer%20abc, x-scope=a,", &mut headers).unwrap();
        assert_eq!(headers["authorization"], "Bearer abc");
        assert_eq!(headers["x-scope"], "a");
        for bad in ["a b=c", "x=%4", "=v", "x=%zz"] {
            let error = parse_headers("X", bad, &mut http::HeaderMap::new()).unwrap_err();
            assert!(error.to_string().contains("write name=value"), "{error}");
        }
        let error = parse_headers("X", "key=secret%0a", &mut http::HeaderMap::new()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
