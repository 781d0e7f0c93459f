//! Live pushes that know what they sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::cluster::Cluster;
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::{Log, Pacer};
use support::rtmp::{AUDIO, VIDEO};
use support::source::Shape;

/// Small frames: what counts is their number.
const SHAPE: Shape = Shape {
    frame_rate: 25,
    gop_frames: 25,
    bits_per_second: 250_000,
    audio_bits_per_second: 32_000,
    b_frames: true,
};

/// What a killed worker may lose: what arrived less than this before.
const PROMISE: Duration = Duration::from_millis(250);
/// Between our looking at the clock and the signal's arrival.
const MEASURING: Duration = Duration::from_millis(30);

/// Pushes that are live, by name, each with its worker.
pub(crate) struct Pushes {
    live: BTreeMap<String, (usize, Pacer)>,
}

impl Pushes {
    /// Starts so many, spread over the workers.
    pub(crate) fn start(cluster: &Cluster, count: usize) -> Result<Self> {
        let mut pushes = Self { live: BTreeMap::new() };
        for index in 0..count {
            let worker = index % cluster.workers.len();
            pushes.add(cluster, worker, &format!("w{worker}n{index}"))?;
        }
        Ok(pushes)
    }

    /// Starts one more.
    pub(crate) fn add(&mut self, cluster: &Cluster, worker: usize, name: &str) -> Result<()> {
        let pacer = Pacer::start(cluster.workers[worker].up()?.rtmp(), name, SHAPE)?;
        self.live.insert(name.to_owned(), (worker, pacer));
        Ok(())
    }

    /// How many are live.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Those of a worker that was killed: what each had sent.
    pub(crate) fn broken(&mut self, worker: usize) -> Result<Vec<(String, Log)>> {
        let names: Vec<String> = self
            .live
            .iter()
            .filter(|(_, (own, _))| *own == worker)
            .map(|(name, _)| name.clone())
            .collect();
        let mut logs = Vec::new();
        for name in names {
            let (_, pacer) = self.live.remove(&name).context("a push that was just there")?;
            logs.push((name, pacer.ended()?));
        }
        Ok(logs)
    }

    /// Ends one in good order: what it had sent.
    pub(crate) fn end(&mut self, name: &str) -> Result<Log> {
        let (_, pacer) = self.live.remove(name).context("no such push")?;
        pacer.finish()
    }

    /// Ends all in good order: what each had sent.
    pub(crate) fn finish(self) -> Result<Vec<(String, Log)>> {
        let mut logs = Vec::new();
        // All stop at once; each then waits for its server's last word.
        for (name, (_, pacer)) in self.live {
            logs.push((name, pacer.finish()?));
        }
        Ok(logs)
    }
}

/// That every push went on undisturbed, is one finished recording, and is all there, frame by frame.
pub(crate) fn ensure_whole(cluster: &Cluster, logs: &[(String, Log)]) -> Result<()> {
    for (name, log) in logs {
        ensure!(log.broken.is_none(), "{name} was disturbed: {:?}", log.broken);
        let least = AtLeast {
            video: log.count(VIDEO),
            audio: log.count(AUDIO),
        };
        ensure_held(cluster, name, log, least)?;
    }
    Ok(())
}

/// That of each push of a killed worker all is there that had arrived a quarter of a second before.
pub(crate) fn ensure_kept(cluster: &Cluster, logs: &[(String, Log)], killed: Instant) -> Result<()> {
    for (name, log) in logs {
        let safe = killed - PROMISE - MEASURING - log.lateness;
        let least = AtLeast {
            video: log.sent_by(VIDEO, safe),
            audio: log.sent_by(AUDIO, safe),
        };
        ensure_held(cluster, name, log, least)?;
    }
    Ok(())
}

/// Waits until each push is a finished recording, and fetches what is stored.
pub(crate) fn all_finished<'a>(cluster: &Cluster, logs: impl Iterator<Item = &'a (String, Log)>) -> Result<()> {
    for (name, _) in logs {
        cluster.asker().finished(name, 1)?;
    }
    cluster.fetch_media()
}

fn ensure_held(cluster: &Cluster, name: &str, log: &Log, least: AtLeast) -> Result<()> {
    let recordings = cluster.asker().finished(name, 1)?;
    ensure!(recordings.len() == 1, "{} recordings of {name}", recordings.len());
    let files = cluster.asker().files(name)?;
    ensure_holds(&files, log, least).with_context(|| format!("{name}: sent {} pictures", log.count(VIDEO)))
}
