//! The processes that are measured, and what they and etcd say of themselves.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proto::v1;
use support::{
    etcd::Etcd,
    server::{Server, Setup},
    wait::{Seen, until},
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
/// Jiffies a second, as `/proc` counts CPU time on every Linux of today.
const JIFFIES: f64 = 100.0;

/// etcd and two coordinators.
pub(crate) struct Plane {
    etcd: Etcd,
    coordinators: Vec<Server>,
    leader: usize,
    client: reqwest::Client,
    _folder: TempDir,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Seconds of CPU.
    cpu: f64,
    /// Resident, bytes.
    pub(crate) rss: u64,
}

impl Usage {
    /// Cores in use since then.
    pub(crate) fn since(&self, before: &Usage, took: Duration) -> f64 {
        (self.cpu - before.cpu) / took.as_secs_f64()
    }
}

/// What etcd has written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writes {
    /// Entries of its log that came to be: transactions that change something, and leases.
    pub(crate) proposals: f64,
    /// Keys put.
    pub(crate) puts: f64,
    /// Syncs of its log.
    pub(crate) syncs: f64,
}

impl Writes {
    pub(crate) fn since(&self, before: &Writes) -> Writes {
        Writes {
            proposals: self.proposals - before.proposals,
            puts: self.puts - before.puts,
            syncs: self.syncs - before.syncs,
        }
    }
}

fn leads(server: &Server) -> Result<Seen<()>> {
    let (_, text) = server.get("/readyz")?;
    Ok(Seen::when(text.contains("ready, leads"), text))
}

/// The value of a metric without labels, or the sum over its labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with(' ') || rest.starts_with('{'));
    let read = |rest: &str| rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    values
        .map(read)
        .try_fold(None, |sum: Option<f64>, value| Some(Some(sum.unwrap_or(0.0) + value?)))?
}

impl Plane {
    /// Starts them, the first coordinator as leader.
    pub(crate) fn start(binary: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("aircheck-control-").tempdir()?;
        let etcd = Etcd::start(1)?;
        let url = etcd.url("bench");
        let mut coordinators = Vec::new();
        for name in ["c0", "c1"] {
            let setup = Setup::coordinator(binary, &folder.path().join(name), &url)
                .record("flv")
                .args(&["--name", name]);
            coordinators.push(setup.start()?);
            if coordinators.len() == 1 {
                until(LIMIT, "a leader", || leads(&coordinators[0]))?;
            }
        }
        Ok(Plane {
            etcd,
            coordinators,
            leader: 0,
            client: reqwest::Client::builder().no_proxy().build()?,
            _folder: folder,
        })
    }

    /// All coordinators, as workers know them.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.coordinators.iter().map(|server| server.grpc_url()).collect()
    }

    /// What the leader has used.
    pub(crate) fn leader_usage(&self) -> Result<Usage> {
        let pid = self.coordinators[self.leader].pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let jiffies = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()).context("VmRSS")?;
        Ok(Usage {
            cpu: jiffies / JIFFIES,
            rss: rss.parse::<u64>()? * 1_024,
        })
    }

    /// What etcd has written.
    pub(crate) async fn etcd(&self) -> Result<Writes> {
        let url = format!("http://{}/metrics", self.etcd.endpoint(0));
        let text = self.client.get(url).send().await?.text().await?;
        let read = |name: &str| metric(&text, name).with_context(|| format!("etcd says nothing of {name}"));
        Ok(Writes {
            proposals: read("etcd_server_proposals_committed_total")?,
            puts: read("etcd_mvcc_put_total").or_else(|_| read("etcd_debugging_mvcc_put_total"))?,
            syncs: read("etcd_disk_wal_fsync_duration_seconds_count")?,
        })
    }

    /// Streams that the leader has as live.
    pub(crate) async fn count_streams(&self) -> Result<usize> {
        let (_, text) = self.coordinators[self.leader].get("/metrics")?;
        let streams = metric(&text, "aircheck_coordinator_streams").context("no count of streams")?;
        Ok(format!("{streams:.0}").parse()?)
    }

    /// Waits until the leader has exactly so many streams.
    pub(crate) async fn knows(&self, streams: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let known = self.count_streams().await?;
            if known == streams {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the leader has {known} streams, not {streams}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Time for the newest hundred recordings.
    pub(crate) async fn newest_page(&self) -> Result<Duration> {
        let mut client =
            v1::recordings_client::RecordingsClient::connect(self.coordinators[self.leader].grpc_url()).await?;
        let begin = Instant::now();
        let page = client.list_recordings(v1::ListRecordingsRequest::default()).await?;
        let took = begin.elapsed();
        ensure!(page.into_inner().recordings.len() == 100, "a page of a hundred");
        Ok(took)
    }

    /// Kills the leader: SIGKILL. The other one is asked from here on.
    pub(crate) fn kill_leader(&mut self) -> Result<()> {
        let dead = self.coordinators.remove(self.leader);
        dead.kill()?;
        self.leader = 0;
        Ok(())
    }
}

/// How busy the machine is: processes that wanted to run, over the last minute.
pub(crate) fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().context("/proc/loadavg")?.parse()?)
}
