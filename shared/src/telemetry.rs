//! Logs, traces and metrics: set up once, and every metric name stands here once.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
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

/// Label of counters that tell causes apart. Values are stable short names, few of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Short name of the cause.
    pub reason: &'static str,
}

/// Label of counters by track.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrackLabel {
    /// `video` or `audio`.
    pub track: &'static str,
}

/// Label of counters by format.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FormatLabel {
    /// `flv`, `hls`, `mp4`, `aac` or `mp3`.
    pub format: &'static str,
}

/// Every metric of the process. Clones share the same counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// What the worker role counts.
    pub worker: WorkerMetrics,
    /// What the coordinator role counts.
    pub coordinator: CoordinatorMetrics,
}

/// What the worker role counts.
#[derive(Debug, Clone, Default)]
pub struct WorkerMetrics {
    /// RTMP connections open now.
    pub connections: Gauge,
    /// RTMP connections accepted.
    pub accepted: Counter,
    /// RTMP connections ended for a fault of the peer, by the session's kind of error.
    pub connection_errors: Family<Reason, Counter>,
    /// Publishes refused, by cause.
    pub publish_refused: Family<Reason, Counter>,
    /// Publishes live now.
    pub publishes: Gauge,
    /// Bytes read from publishers.
    pub ingest_bytes: Counter,
    /// Access units journaled, by track.
    pub units: Family<TrackLabel, Counter>,
    /// Failed journal writes and syncs, by cause.
    pub journal_errors: Family<Reason, Counter>,
    /// Seconds for which the oldest write that is not safe against power loss has been waiting; 0: all is safe.
    pub unsynced: Gauge<f64, AtomicU64>,
    /// Free bytes of the disk with the journals.
    pub disk_free: Gauge,
    /// Free bytes below which no stream is taken.
    pub disk_min_free: Gauge,
    /// 1 while publishes are taken; 0 while the worker leaves, its disk is nearly full, or its journals have used up their budget.
    pub accepting: Gauge,
    /// Recordings that are running or being finished.
    pub recordings: Gauge,
    /// Finished files on their way to the library.
    pub commits_waiting: Gauge,
    /// Files that entered the library, by format.
    pub files: Family<FormatLabel, Counter>,
    /// Bytes written to the object sink.
    pub object_bytes: Counter,
    /// Uploads to object storage under way.
    pub uploads: Gauge,
    /// Recorders that wait for their turn to upload.
    pub uploads_waiting: Gauge,
    /// Bytes that object storage took, repeated ones too.
    pub upload_bytes: Counter,
    /// Failed requests to object storage: `unavailable`, `refused`, `missing`.
    pub upload_errors: Family<Reason, Counter>,
    /// Bytes of all journals.
    pub journal_bytes: Gauge,
    /// 1 while object storage answers, 0 while it does not.
    pub storage_up: Gauge,
    /// Bytes copied to the second place of objects.
    pub copied_bytes: Counter,
    /// Copies that came to nothing and are tried again: `source`, `destination`, `damaged`.
    pub copy_errors: Family<Reason, Counter>,
}

/// What the coordinator role counts.
#[derive(Debug, Clone, Default)]
pub struct CoordinatorMetrics {
    /// 1 while this coordinator leads.
    pub leading: Gauge,
    /// Calls passed on to the leader.
    pub forwarded: Counter,
    /// Workers heard from within the time-out.
    pub workers: Gauge,
    /// Streams that are live.
    pub streams: Gauge,
    /// Leases granted.
    pub leases_granted: Counter,
    /// Leases refused, by cause.
    pub leases_refused: Family<Reason, Counter>,
    /// Tasks that have not ended.
    pub tasks: Gauge,
    /// Commits of workers that were fenced.
    pub fenced: Counter,
    /// Events on their way to receivers.
    pub events_pending: Gauge,
    /// Seconds since the oldest of them came to be; 0: there is none.
    pub events_age: Gauge,
    /// Attempts to deliver an event, by outcome: `delivered`, `failed`, `given_up`.
    pub callbacks: Family<Reason, Counter>,
    /// Events that were not written down because too many were waiting.
    pub events_dropped: Counter,
    /// Durable transactions of the metadata store.
    pub store_commits: Counter,
    /// Failed transactions of the metadata store, by cause.
    pub store_errors: Family<Reason, Counter>,
    /// Files that were removed from storage, by cause: `expired`, `asked`.
    pub files_removed: Family<Reason, Counter>,
    /// Files that have left the library and are not removed from storage yet.
    pub removals: Gauge,
    /// Times that storage did not let files go: `unavailable`, `refused`.
    pub removal_failures: Family<Reason, Counter>,
    /// 1 while nothing is removed by itself because the clock has jumped ahead.
    pub retention_held: Gauge,
    /// Recordings with files that are due whose `recording.json` this coordinator does not see.
    pub retention_unseen: Gauge,
    /// What is still to be copied to the second place of objects, at most 100,000.
    pub copies: Gauge,
    /// Seconds since there came to be cause for the oldest of them; 0: there is none.
    pub copies_age: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every name, prefixed `aircheck_`; counters get `_total` when they are written out.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("aircheck");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What this process was built from", build);
        let worker = WorkerMetrics::default();
        let r = registry.sub_registry_with_prefix("worker");
        r.register("connections", "RTMP connections open now", worker.connections.clone());
        r.register(
            "connections_accepted",
            "RTMP connections accepted",
            worker.accepted.clone(),
        );
        r.register(
            "connection_errors",
            "RTMP connections ended for a fault of the peer",
            worker.connection_errors.clone(),
        );
        r.register("publish_refused", "Publishes refused", worker.publish_refused.clone());
        r.register("publishes", "Publishes live now", worker.publishes.clone());
        r.register_with_unit(
            "ingest",
            "Read from publishers",
            Unit::Bytes,
            worker.ingest_bytes.clone(),
        );
        r.register("units", "Access units journaled", worker.units.clone());
        r.register(
            "journal_errors",
            "Failed journal writes and syncs",
            worker.journal_errors.clone(),
        );
        r.register_with_unit(
            "unsynced",
            "Age of the oldest write that is not safe against power loss",
            Unit::Seconds,
            worker.unsynced.clone(),
        );
        r.register_with_unit(
            "disk_free",
            "Free on the disk with the journals",
            Unit::Bytes,
            worker.disk_free.clone(),
        );
        r.register_with_unit(
            "disk_min_free",
            "Free space below which no stream is taken",
            Unit::Bytes,
            worker.disk_min_free.clone(),
        );
        r.register("accepting", "1 while publishes are taken", worker.accepting.clone());
        r.register(
            "recordings",
            "Recordings running or being finished",
            worker.recordings.clone(),
        );
        r.register(
            "commits_waiting",
            "Finished files on their way to the library",
            worker.commits_waiting.clone(),
        );
        r.register("files", "Files that entered the library", worker.files.clone());
        r.register_with_unit(
            "objects",
            "Written to the object sink",
            Unit::Bytes,
            worker.object_bytes.clone(),
        );
        r.register("uploads", "Uploads under way", worker.uploads.clone());
        r.register(
            "uploads_waiting",
            "Recorders waiting for their turn to upload",
            worker.uploads_waiting.clone(),
        );
        r.register_with_unit(
            "uploaded",
            "Taken by object storage, repeated ones too",
            Unit::Bytes,
            worker.upload_bytes.clone(),
        );
        r.register(
            "upload_errors",
            "Failed requests to object storage",
            worker.upload_errors.clone(),
        );
        r.register_with_unit(
            "journal",
            "Taken by all journals",
            Unit::Bytes,
            worker.journal_bytes.clone(),
        );
        r.register(
            "storage_up",
            "1 while object storage answers, 0 while it does not",
            worker.storage_up.clone(),
        );
        r.register_with_unit(
            "copied",
            "Copied to the second place of objects",
            Unit::Bytes,
            worker.copied_bytes.clone(),
        );
        r.register(
            "copy_errors",
            "Copies that came to nothing and are tried again",
            worker.copy_errors.clone(),
        );
        let coordinator = CoordinatorMetrics::default();
        let r = registry.sub_registry_with_prefix("coordinator");
        r.register("leading", "1 while this coordinator leads", coordinator.leading.clone());
        r.register(
            "forwarded",
            "Calls passed on to the leader",
            coordinator.forwarded.clone(),
        );
        r.register(
            "workers",
            "Workers heard from within the time-out",
            coordinator.workers.clone(),
        );
        r.register("streams", "Streams that are live", coordinator.streams.clone());
        r.register("leases_granted", "Leases granted", coordinator.leases_granted.clone());
        r.register("leases_refused", "Leases refused", coordinator.leases_refused.clone());
        r.register("tasks", "Tasks that have not ended", coordinator.tasks.clone());
        r.register(
            "fenced",
            "Commits refused for a stale epoch",
            coordinator.fenced.clone(),
        );
        r.register(
            "events_pending",
            "Events on their way to receivers",
            coordinator.events_pending.clone(),
        );
        r.register_with_unit(
            "events_age",
            "Age of the oldest event on its way",
            Unit::Seconds,
            coordinator.events_age.clone(),
        );
        r.register(
            "callbacks",
            "Attempts to deliver events, by outcome",
            coordinator.callbacks.clone(),
        );
        r.register(
            "events_dropped",
            "Events not written down because too many were waiting",
            coordinator.events_dropped.clone(),
        );
        r.register(
            "store_commits",
            "Durable transactions of the metadata store",
            coordinator.store_commits.clone(),
        );
        r.register(
            "store_errors",
            "Failed transactions of the metadata store",
            coordinator.store_errors.clone(),
        );
        r.register(
            "files_removed",
            "Files removed from storage",
            coordinator.files_removed.clone(),
        );
        r.register(
            "removals",
            "Files out of the library and not removed from storage yet",
            coordinator.removals.clone(),
        );
        r.register(
            "removal_failures",
            "Times that storage did not let files go",
            coordinator.removal_failures.clone(),
        );
        r.register(
            "retention_held",
            "1 while nothing is removed by itself because the clock has jumped ahead",
            coordinator.retention_held.clone(),
        );
        r.register(
            "retention_unseen",
            "Recordings with files that are due whose recording.json is not seen from here",
            coordinator.retention_unseen.clone(),
        );
        r.register(
            "copies",
            "Files and documents still to be copied to the second place of objects",
            coordinator.copies.clone(),
        );
        r.register_with_unit(
            "copies_age",
            "Since when the oldest of them waits",
            Unit::Seconds,
            coordinator.copies_age.clone(),
        );
        Metrics {
            registry: Arc::new(registry),
            worker,
            coordinator,
        }
    }

    /// All metrics in the Prometheus text format (OpenMetrics 1.0).
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_with_their_prefix_and_shared_by_clones() {
        let metrics = Metrics::new();
        metrics
            .clone()
            .worker
            .connection_errors
            .get_or_create(&Reason { reason: "handshake" })
            .inc();
        metrics.coordinator.leases_granted.inc_by(2);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("aircheck_worker_connection_errors_total{reason=\"handshake\"} 1"),
            "{text}"
        );
        assert!(text.contains("aircheck_coordinator_leases_granted_total 2"), "{text}");
        assert!(text.contains("aircheck_worker_publishes 0"), "{text}");
        assert!(
            text.contains(concat!(
                "aircheck_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            )),
            "{text}"
        );
    }
}
