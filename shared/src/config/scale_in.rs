//! Settings of scaling in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[coordinator.scale_in]`: which workers the coordinators drain by themselves when fewer are wanted, and what a worker is for.
///
/// Settings and no words of KEDA's question: that comes without credentials, and must not decide who loses its streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScaleInConfig {
    /// What the workers are called, without the number behind it: `aircheck-worker` for `aircheck-worker-3`; absent: nobody is drained.
    pub workers: Option<String>,
    /// For how long fewer must have been wanted all the time, 0 s to 1 d.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
    /// Workers that are never drained for it, 0 to 100000.
    pub least: u64,
    /// Streams that a worker is for, 1 to 100000.
    pub streams_per_worker: u64,
    /// Media bits a second that a worker is for, 1000000 to 1000000000000.
    pub bits_per_worker: u64,
    /// Streams that there is always room for, beside those that are live, 0 to 1000000.
    pub reserve_streams: u64,
    /// The same as a share of those that are live, percent, 0 to 1000. The larger of the two counts.
    pub reserve_percent: u64,
}

impl Default for ScaleInConfig {
    /// A worker as the Helm chart requests it: 200 streams of 2.5 Mbit/s.
    fn default() -> Self {
        ScaleInConfig {
            workers: None,
            after: Duration::from_secs(600),
            least: 1,
            streams_per_worker: 200,
            bits_per_worker: 500_000_000,
            reserve_streams: 50,
            reserve_percent: 10,
        }
    }
}
