//! The result as a table.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use crate::plane::Writes;

/// Latencies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: usize| {
            let index = times.len().saturating_sub(1) * share / 100;
            times.get(index).copied().unwrap_or_default()
        };
        Spread {
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1?}, p99 {:.1?}, max {:.1?}", self.p50, self.p99, self.max)
    }
}

/// One number of streams.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) streams: usize,
    pub(crate) workers: usize,
    pub(crate) fill: Duration,
    pub(crate) lease: Spread,
    pub(crate) lives: usize,
    /// Cores of the leader while publishes come and go.
    pub(crate) busy: f64,
    /// Cores of the leader with heartbeats alone.
    pub(crate) idle: f64,
    pub(crate) rss_empty: u64,
    pub(crate) rss_filled: u64,
    pub(crate) writes_fill: Writes,
    pub(crate) writes_life: Writes,
    pub(crate) writes_idle: Writes,
    pub(crate) idle_for: Duration,
    /// The newest page of the library.
    pub(crate) list: Duration,
    /// From the kill until every worker had a session with the new leader, and a new publish its lease.
    pub(crate) sessions: Duration,
    /// From the kill until the streams were answered for.
    pub(crate) failover: Duration,
    /// Resident memory of the new leader, bytes.
    pub(crate) rss_heir: u64,
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

impl Row {
    /// Resident bytes of the leader for each stream.
    pub(crate) fn bytes_per_stream(&self) -> f64 {
        self.rss_filled.saturating_sub(self.rss_empty) as f64 / self.streams as f64
    }
}

/// The table, as it stands in the documents.
pub(crate) fn text(rows: &[Row], before: f64, after: f64) -> String {
    let mut out = String::from("| |");
    for row in rows {
        let _ = write!(out, " {} |", row.streams);
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(rows.len()));
    out.push('\n');
    let mut line = |name: &str, value: &dyn Fn(&Row) -> String| {
        let _ = write!(out, "| {name} |");
        for row in rows {
            let _ = write!(out, " {} |", value(row));
        }
        out.push('\n');
    };
    line("workers", &|row| row.workers.to_string());
    line("all leased, streams a second", &|row| {
        format!("{:.0}", row.streams as f64 / row.fill.as_secs_f64())
    });
    line("lease p50, ms", &|row| ms(row.lease.p50));
    line("lease p99, ms", &|row| ms(row.lease.p99));
    line("lease max, ms", &|row| ms(row.lease.max));
    line("leader's CPU with 100 publishes a second, cores", &|row| {
        format!("{:.2}", row.busy)
    });
    line("leader's CPU with heartbeats alone, cores", &|row| {
        format!("{:.2}", row.idle)
    });
    line("leader's memory, MB", &|row| {
        format!("{:.0}", row.rss_filled as f64 / 1e6)
    });
    line("of it for each stream, bytes", &|row| {
        format!("{:.0}", row.bytes_per_stream())
    });
    line("etcd's log entries to lease a stream", &|row| {
        format!("{:.2}", row.writes_fill.proposals / row.streams as f64)
    });
    line("keys put to lease a stream", &|row| {
        format!("{:.2}", row.writes_fill.puts / row.streams as f64)
    });
    line("log entries for a whole life with one file", &|row| {
        format!("{:.2}", row.writes_life.proposals / row.lives as f64)
    });
    line("log entries for an idle stream-hour", &|row| {
        let hours = row.idle_for.as_secs_f64() / 3_600.0;
        format!("{:.3}", row.writes_idle.proposals / row.streams as f64 / hours)
    });
    line("the newest page of the library, ms", &|row| ms(row.list));
    line("leader killed: every worker's session, a publish granted, s", &|row| {
        format!("{:.2}", row.sessions.as_secs_f64())
    });
    line("leader killed: leases asked for again and answered, s", &|row| {
        format!("{:.2}", row.failover.as_secs_f64())
    });
    line("the new leader's memory, MB", &|row| {
        format!("{:.0}", row.rss_heir as f64 / 1e6)
    });
    let _ = writeln!(
        out,
        "\nLoad average of the machine {before:.1} before and {after:.1} after. etcd's syncs in the idle time: {}.",
        rows.iter()
            .map(|row| format!("{:.0}", row.writes_idle.syncs))
            .collect::<Vec<_>>()
            .join(", ")
    );
    out
}
