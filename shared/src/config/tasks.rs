//! Settings of tasks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[coordinator.tasks]`: recordings between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// Longest time from a task's start to its end, 1 s to 31 days.
    #[serde(with = "humantime_serde")]
    pub max_span: Duration,
    /// Longest time from now to a task's end, 1 s to 366 days; at least `max_span`.
    #[serde(with = "humantime_serde")]
    pub max_ahead: Duration,
    /// Time for which a task is kept after its end; its recordings stay. 1 h to 10 years.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// Most tasks that have not ended, 1 to 100000.
    pub max_open: usize,
    /// Most tasks of one stream that have not ended, 1 to 1000. Each that records costs its stream's worker recorders of its own.
    pub max_per_stream: usize,
}

impl Default for TasksConfig {
    fn default() -> Self {
        TasksConfig {
            max_span: Duration::from_secs(86_400),
            max_ahead: Duration::from_secs(7 * 86_400),
            retention: Duration::from_secs(92 * 86_400),
            max_open: 10_000,
            max_per_stream: 100,
        }
    }
}
