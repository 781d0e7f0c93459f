//! What the worker counts. Names and meanings stand here, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of one worker. Kinds of endings and refusals come from fixed lists in the code, so their number is bounded.
#[derive(Debug, Default)]
pub struct Metrics {
    connections: AtomicU64,
    live: AtomicU64,
    bytes: AtomicU64,
    endings: Mutex<BTreeMap<String, u64>>,
    refusals: Mutex<BTreeMap<String, u64>>,
    unpublishes: Mutex<BTreeMap<String, u64>>,
}

fn count(map: &Mutex<BTreeMap<String, u64>>, kind: &str) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    match map.get_mut(kind) {
        Some(n) => *n += 1,
        None => drop(map.insert(kind.to_owned(), 1)),
    }
}

impl Metrics {
    pub(crate) fn connection_began(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_ended(&self, kind: &str) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        count(&self.endings, kind);
    }

    pub(crate) fn publish_began(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn publish_ended(&self, reason: &str) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        count(&self.unpublishes, reason);
    }

    pub(crate) fn refused(&self, kind: &str) {
        count(&self.refusals, kind);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The Prometheus text form, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let plain = [
            (
                "aircheck_rtmp_connections",
                "gauge",
                "RTMP connections now.",
                &self.connections,
            ),
            (
                "aircheck_live_publishes",
                "gauge",
                "Publishes being journaled now.",
                &self.live,
            ),
            (
                "aircheck_rtmp_received_bytes_total",
                "counter",
                "Bytes read from RTMP connections.",
                &self.bytes,
            ),
        ];
        for (name, kind, help, value) in plain {
            text += &format!(
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}\n",
                value.load(Ordering::Relaxed)
            );
        }
        let by_kind = [
            (
                "aircheck_rtmp_connection_ends_total",
                "RTMP connections ended, by kind.",
                &self.endings,
            ),
            (
                "aircheck_publish_refusals_total",
                "Publishes refused or cut short by the worker, by kind.",
                &self.refusals,
            ),
            (
                "aircheck_publish_ends_total",
                "Publishes ended, by reason.",
                &self.unpublishes,
            ),
        ];
        for (name, help, map) in by_kind {
            text += &format!("# HELP {name} {help}\n# TYPE {name} counter\n");
            for (kind, n) in map.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                text += &format!("{name}{{kind=\"{kind}\"}} {n}\n");
            }
        }
        text
    }
}
