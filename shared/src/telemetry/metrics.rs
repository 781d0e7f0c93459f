//! Every metric of a process, by name and meaning. `docs/operations.md` lists them.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::kinds::{FormatLabel, Latency, Lost, PlaceLabel, Reason, StreamMetrics, TrackLabel};

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
    /// Access units in files that entered the library, by format.
    pub units_recorded: Family<FormatLabel, Counter>,
    /// What recordings lack, by the reason of the gap, counted as they say so: with each file, and at their end.
    pub lost: Lost,
    /// Journal bytes that recorders have still to render: each recorder's counted on its own.
    pub cursor_lag: Gauge,
    /// From a publish's question for its lease to the answer, all tries included.
    pub lease: Latency,
    /// One step of a recorder, by format: a segment, or a stretch of a file.
    pub render: Family<FormatLabel, Latency>,
    /// One object or part, from its turn until storage has it, retries included.
    pub upload: Latency,
    /// From a finished file to its entry in the library.
    pub commit: Latency,
    /// Syncs of the journals' disk that ended well.
    pub syncs: Counter,
    /// Time in them.
    pub sync_time: Counter<f64, AtomicU64>,
    /// Single streams.
    pub streams: StreamMetrics,
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
    /// Bytes that journals may take; 0: as much as the disk has.
    pub journal_budget: Gauge,
    /// Seconds since the oldest journal began; 0: there is none.
    pub journal_age: Gauge,
    /// 1 while object storage answers, 0 while it does not.
    pub storage_up: Gauge,
    /// 1 while a named place of objects answers, 0 while it does not, or where a recording goes to one that the settings do not have.
    pub place_up: Family<PlaceLabel, Gauge>,
    /// 1 while the second place of objects answers, 0 while it does not; 0 too where it is no backup.
    pub backup_up: Gauge,
    /// Recorders that have left the first place of objects for the second.
    pub backup_moves: Counter,
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
    /// From a worker's question to the durable answer.
    pub lease: Latency,
    /// One look of the planner over all of its state, without what follows from it.
    pub plan: Latency,
    /// One durable transaction of the metadata store.
    pub store_commit: Latency,
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
    /// Files that are gone from the first place of objects and not from the second yet, at most 10,000 and a page.
    pub second_removals: Gauge,
    /// Times that the second place of objects did not let files go: `unavailable`, `refused`.
    pub second_removal_failures: Family<Reason, Counter>,
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
    /// Without series of single streams; see [`Metrics::with_streams`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_streams(false)
    }

    /// Registers every name, prefixed `aircheck_`; counters get `_total` when they are written out. With `streams`, single live streams have
    /// series of their own, of 1,000 streams at most.
    #[must_use]
    pub fn with_streams(streams: bool) -> Self {
        let mut registry = Registry::with_prefix("aircheck");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What this process was built from", build);
        let mut worker = WorkerMetrics::default();
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
            "units_recorded",
            "Access units in files that entered the library",
            worker.units_recorded.clone(),
        );
        r.register(
            "units_lost",
            "Access units that recordings lack, by the reason of the gap",
            worker.lost.units.clone(),
        );
        r.register("gaps", "Gaps of recordings, by reason", worker.lost.gaps.clone());
        r.register_with_unit(
            "cursor_lag",
            "Journaled and not rendered yet, of each recorder",
            Unit::Bytes,
            worker.cursor_lag.clone(),
        );
        r.register_with_unit(
            "lease",
            "From a question for a lease to its grant, all tries included",
            Unit::Seconds,
            worker.lease.clone(),
        );
        r.register_with_unit("render", "One step of a recorder", Unit::Seconds, worker.render.clone());
        r.register_with_unit(
            "upload",
            "One object or part, until storage has it",
            Unit::Seconds,
            worker.upload.clone(),
        );
        r.register_with_unit(
            "commit",
            "From a finished file to its entry in the library",
            Unit::Seconds,
            worker.commit.clone(),
        );
        r.register("syncs", "Syncs of the journals' disk", worker.syncs.clone());
        r.register_with_unit(
            "sync",
            "Spent in syncs of the journals' disk",
            Unit::Seconds,
            worker.sync_time.clone(),
        );
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
        r.register_with_unit(
            "journal_budget",
            "What journals may take; 0: as much as the disk has",
            Unit::Bytes,
            worker.journal_budget.clone(),
        );
        r.register_with_unit(
            "journal_age",
            "Since the oldest journal began",
            Unit::Seconds,
            worker.journal_age.clone(),
        );
        r.register(
            "storage_up",
            "1 while object storage answers, 0 while it does not",
            worker.storage_up.clone(),
        );
        r.register(
            "place_up",
            "1 while a named place of objects answers; 0: it does not, or the settings do not have it",
            worker.place_up.clone(),
        );
        r.register(
            "backup_up",
            "1 while the second place of objects answers, as a backup of the first",
            worker.backup_up.clone(),
        );
        r.register(
            "backup_moves",
            "Recorders that went to the second place of objects because the first did not answer",
            worker.backup_moves.clone(),
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
        if streams {
            worker.streams.shown = Some(Arc::default());
            let single = &worker.streams;
            r.register("stream_units", "Access units of a live publish", single.units.clone());
            r.register_with_unit(
                "stream_journaled",
                "Of a live publish",
                Unit::Bytes,
                single.bytes.clone(),
            );
            r.register_with_unit(
                "stream_lag",
                "Of a live publish, journaled and not rendered yet, of each recorder",
                Unit::Bytes,
                single.lag.clone(),
            );
        }
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
        r.register_with_unit(
            "lease",
            "From a worker's question to the durable answer",
            Unit::Seconds,
            coordinator.lease.clone(),
        );
        r.register_with_unit(
            "plan",
            "One look of the planner over all of its state",
            Unit::Seconds,
            coordinator.plan.clone(),
        );
        r.register_with_unit(
            "store_commit",
            "One durable transaction of the metadata store",
            Unit::Seconds,
            coordinator.store_commit.clone(),
        );
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
            "second_removals",
            "Files gone from the first place of objects and not from the second yet",
            coordinator.second_removals.clone(),
        );
        r.register(
            "second_removal_failures",
            "Times that the second place of objects did not let files go",
            coordinator.second_removal_failures.clone(),
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

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
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
        assert!(!text.contains("stream="), "{text}");
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
