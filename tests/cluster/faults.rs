//! Everything dies in turn while dozens of streams are live.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::cluster::{Cluster, Node, Shape};
use support::pacer::Log;
use support::wait::{Seen, until};

use crate::pushes::{Pushes, all_finished, ensure_kept, ensure_whole};
use crate::shape;

/// Live pushes, unless `AIRCHECK_CLUSTER_PUSHES` says otherwise.
const PUSHES: usize = 60;
/// From a death to an answer.
const FAILOVER: Duration = Duration::from_secs(5);
/// Longer than the silence after which a worker counts as lost, and than any lease.
const LONG: Duration = Duration::from_secs(5);
/// For whatever comes by itself.
const LIMIT: Duration = Duration::from_secs(30);

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no setting of the product"
)]
fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// A cluster with pushes, and what they have shown so far.
struct World {
    cluster: Cluster,
    pushes: Pushes,
    /// Publishes that a killed worker took along: what was sent, and when it was killed.
    cut_short: Vec<(Vec<(String, Log)>, Instant)>,
    /// Publishes that ended while their worker was cut off from storage.
    ended: Vec<(String, Log)>,
    /// Coordinators that answered after a fault, and how soon.
    times: Vec<(String, Duration)>,
}

impl World {
    fn answered(&mut self, what: &str, begin: Instant) -> Result<()> {
        let took = self.cluster.answered_since(begin)?;
        self.times.push((what.to_owned(), took));
        ensure!(took < FAILOVER, "an answer {took:?} after {what}");
        Ok(())
    }

    /// Waits until the coordinators know every push as live.
    fn all_live(&self) -> Result<()> {
        let pushes = self.pushes.len();
        until(LIMIT, "all streams live", || {
            let streams = match self.cluster.asker().streams() {
                Ok(streams) => streams,
                Err(error) => return Ok(Seen::Not(format!("{error:#}"))),
            };
            let live = streams.iter().filter(|stream| stream["state"] == "live").count();
            let said = format!("{live} of {} live, {pushes} pushed", streams.len());
            Ok(Seen::when(live == pushes && streams.len() == pushes, said))
        })
        .with_context(|| format!("after {:?}", self.times.last()))
    }

    /// A publish that begins while nobody leads is taken, journaled, and settled when somebody does.
    fn coordinators_die(&mut self, round: usize) -> Result<()> {
        let leader = self.cluster.leader(None)?;
        let begin = Instant::now();
        self.cluster.coordinators[leader].kill()?;
        self.pushes
            .add(&self.cluster, 0, &format!("r{round}-while-nobody-leads"))?;
        self.answered("kill -9 of the leading coordinator", begin)?;
        self.all_live()?;
        self.cluster.coordinators[leader].start()?;

        let leader = self.cluster.leader(None)?;
        let begin = Instant::now();
        self.cluster.coordinators[leader].up()?.signal("STOP")?;
        self.answered("SIGSTOP of the leading coordinator", begin)?;
        self.all_live()?;
        self.cluster.coordinators[leader].up()?.signal("CONT")?;

        let other = (self.cluster.leader(None)? + 1) % self.cluster.coordinators.len();
        let begin = Instant::now();
        self.cluster.coordinators[other].kill()?;
        self.answered("kill -9 of a following coordinator", begin)?;
        self.cluster.coordinators[other].start()?;
        self.all_live()
    }

    fn etcd_dies(&mut self) -> Result<()> {
        let leader = self.cluster.etcd.leader()?;
        let begin = Instant::now();
        self.cluster.etcd.kill(leader)?;
        self.answered("kill -9 of etcd's leader", begin)?;
        self.all_live()?;
        self.cluster.etcd.restart(leader)?;
        self.cluster.etcd.healthy()?;

        let leader = self.cluster.etcd.leader()?;
        let begin = Instant::now();
        self.cluster.etcd.signal(leader, "STOP")?;
        self.answered("SIGSTOP of etcd's leader", begin)?;
        self.all_live()?;
        self.cluster.etcd.signal(leader, "CONT")?;
        self.cluster.etcd.healthy()?;

        // A member that leads and hears of nobody: its clients reach it, and it can decide nothing any more.
        let leader = self.cluster.etcd.leader()?;
        let begin = Instant::now();
        self.cluster.etcd.isolate(leader, true)?;
        until(LIMIT, "another leader among etcd's members", || {
            let now = self.cluster.etcd.leader_besides(leader)?;
            Ok(Seen::some(now, "none"))
        })?;
        self.answered("a cut between etcd's leader and its peers", begin)?;
        self.all_live()?;
        self.cluster.etcd.isolate(leader, false)?;
        self.cluster.etcd.healthy()?;

        let follower = (self.cluster.etcd.leader()? + 1) % self.cluster.etcd.len();
        let begin = Instant::now();
        self.cluster.etcd.signal(follower, "STOP")?;
        self.answered("SIGSTOP of a following etcd member", begin)?;
        self.all_live()?;
        self.cluster.etcd.signal(follower, "CONT")?;
        self.cluster.etcd.healthy()
    }

    /// Without a majority nobody leads: what is recorded goes on, and a publish that begins meanwhile is taken, and settled behind that.
    fn etcd_loses_its_majority(&mut self, round: usize) -> Result<()> {
        let lost = [0, 1];
        for member in lost {
            self.cluster.etcd.kill(member)?;
        }
        until(LIMIT, "nobody to lead", || {
            let leads = |node: &Node| {
                node.up()
                    .and_then(|up| up.get("/readyz"))
                    .map(|(status, _)| status == 200)
            };
            let ready: Result<Vec<bool>> = self.cluster.coordinators.iter().map(leads).collect();
            let ready = ready?;
            Ok(Seen::when(!ready.contains(&true), format!("{ready:?}")))
        })?;
        self.pushes
            .add(&self.cluster, 0, &format!("r{round}-without-a-majority"))?;
        std::thread::sleep(LONG); // the length of the outage
        for member in lost {
            self.cluster.etcd.restart(member)?;
        }
        self.cluster.etcd.healthy()?;
        let took = self.cluster.answered_since(Instant::now())?;
        self.times.push(("etcd had a majority again".to_owned(), took));
        self.all_live()
    }

    /// Cuts each way in turn, longer than anybody waits.
    fn the_network_is_cut(&mut self) -> Result<()> {
        let leader = self.cluster.leader(None)?;
        let begin = Instant::now();
        for wire in &self.cluster.to_etcd[leader] {
            wire.cut(true);
        }
        let heir = self.cluster.leader(Some(leader))?;
        ensure!(begin.elapsed() < FAILOVER, "another leads after {:?}", begin.elapsed());
        self.answered("a cut between the leader and etcd", begin)?;
        for wire in &self.cluster.to_etcd[leader] {
            wire.cut(false);
        }
        self.all_live()?;

        self.cluster.to_coordinator[heir].cut(true);
        std::thread::sleep(LONG); // the length of the cut
        self.cluster.to_coordinator[heir].cut(false);
        self.all_live()?;

        for wire in &self.cluster.worker_to[0] {
            wire.cut(true);
        }
        until(LIMIT, "a worker's streams interrupted", || {
            let streams = self.cluster.asker().streams()?;
            let interrupted = streams.iter().filter(|s| s["state"] == "interrupted").count();
            Ok(Seen::when(interrupted > 0, "none"))
        })?;
        for wire in &self.cluster.worker_to[0] {
            wire.cut(false);
        }
        self.all_live()
    }

    /// A worker without its storage goes on, and what ends meanwhile is stored when that is back.
    fn storage_is_cut(&mut self, round: usize) -> Result<()> {
        let name = format!("r{round}-without-storage");
        self.pushes.add(&self.cluster, 1, &name)?;
        self.all_live()?;
        self.cluster.to_bucket[1].cut(true);
        self.ended.push((name.clone(), self.pushes.end(&name)?));
        std::thread::sleep(LONG); // the length of the cut
        let recordings = self.cluster.asker().recordings(&name)?;
        let waits = recordings.iter().all(|recording| recording["state"] == "recording");
        ensure!(recordings.len() == 1 && waits, "{recordings:?}");
        self.all_live()?;
        self.cluster.to_bucket[1].cut(false);
        self.cluster.asker().finished(&name, 1).map(drop)
    }

    fn workers_die(&mut self, round: usize) -> Result<()> {
        self.cluster.workers[1].up()?.signal("STOP")?;
        std::thread::sleep(LONG); // the length of the pause
        self.cluster.workers[1].up()?.signal("CONT")?;
        self.all_live()?;

        let killed = Instant::now();
        self.cluster.workers[2].kill()?;
        self.cut_short.push((self.pushes.broken(2)?, killed));
        self.cluster.workers[2].start()?;
        self.pushes.add(&self.cluster, 2, &format!("r{round}-after-the-kill"))?;
        self.all_live()
    }
}

#[test]
fn whatever_dies_every_recording_is_whole() -> Result<()> {
    let cluster = Cluster::start(&Shape {
        bucket: true,
        ..shape(3, 3, 3)
    })?;
    let pushes = Pushes::start(&cluster, number("AIRCHECK_CLUSTER_PUSHES", PUSHES)?)?;
    let mut world = World {
        cluster,
        pushes,
        cut_short: Vec::new(),
        ended: Vec::new(),
        times: Vec::new(),
    };
    world.all_live()?;
    for round in 0..number("AIRCHECK_CLUSTER_ROUNDS", 1)? {
        world.coordinators_die(round)?;
        world.etcd_dies()?;
        world.etcd_loses_its_majority(round)?;
        world.the_network_is_cut()?;
        world.storage_is_cut(round)?;
        world.workers_die(round)?;
    }
    let World {
        cluster,
        pushes,
        cut_short,
        ended,
        times,
    } = world;
    for (what, took) in times {
        eprintln!("answered {took:?} after {what}");
    }
    let mut logs = pushes.finish()?;
    logs.extend(ended);
    all_finished(&cluster, logs.iter().chain(cut_short.iter().flat_map(|(logs, _)| logs)))?;
    ensure_whole(&cluster, &logs)?;
    for (logs, killed) in cut_short {
        ensure_kept(&cluster, &logs, killed)?;
    }
    let left = cluster.asker().streams()?;
    ensure!(left.is_empty(), "{left:?} are still live");
    Ok(())
}
