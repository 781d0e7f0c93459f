//! What must be true when nothing goes wrong any more.

use std::rc::Rc;
use std::time::Duration;

use shared::recording::RecordingState;
use shared::store::keys;

use crate::cluster::Cluster;
use crate::world::lock;

/// How soon every live publish has the set of recordings that it should have.
const APPLIED_WITHIN_MS: i64 = 30_000;
/// How soon nothing is left to do once nobody publishes: workers away and back, waits of stitched recordings, ends of tasks.
const REST_WITHIN_MS: i64 = 180_000;

/// Takes what workers have let go of, as they do.
pub(crate) async fn watch(cluster: Rc<Cluster>) {
    loop {
        take_settled(&cluster);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn take_settled(cluster: &Cluster) {
    for machine in &*cluster.machines.borrow() {
        let removed = std::mem::take(&mut lock(&machine.disk).removed);
        for journal in removed {
            cluster
                .world
                .say(format_args!("publish {} is settled", journal.publish.id));
            cluster.checks.settled(machine.id, journal);
        }
    }
}

/// Waits for something; tells what is left of it when it does not come.
async fn within(cluster: &Cluster, limit_ms: i64, what: &str, left: impl Fn(&Cluster) -> Vec<String>) {
    let begin = cluster.world.elapsed_ms();
    loop {
        let still = left(cluster);
        if still.is_empty() {
            return;
        }
        if cluster.world.elapsed_ms() - begin > limit_ms {
            cluster
                .world
                .broke(format_args!("{what} within {limit_ms} ms, left: {still:?}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every publish that is live knows what it is to record.
pub(crate) async fn sets_are_applied(cluster: &Cluster) {
    within(cluster, APPLIED_WITHIN_MS, "not every set is applied", |cluster| {
        let mut left = Vec::new();
        let seen = lock(&cluster.checks.seen);
        for machine in &*cluster.machines.borrow() {
            let disk = lock(&machine.disk);
            for (stream, publish) in &*machine.live.borrow() {
                let grant = disk.journals.get(publish).and_then(|journal| journal.grant.as_ref());
                let record = seen.publishes.get(&keys::publish(*publish));
                let behind = match (grant, record) {
                    (Some(grant), Some(record)) => record.ended.is_none() && grant.revision != record.revision,
                    _ => true,
                };
                if behind {
                    let (held, known) = (grant.map(|grant| grant.revision), record.map(|record| record.revision));
                    left.push(format!("publish {publish} of {stream} is at {held:?} of {known:?}"));
                }
            }
        }
        left
    })
    .await;
}

/// Nobody publishes any more: everything ends.
pub(crate) async fn comes_to_rest(cluster: &Cluster) {
    within(cluster, REST_WITHIN_MS, "no rest", |cluster| {
        take_settled(cluster);
        let mut left = Vec::new();
        let seen = lock(&cluster.checks.seen);
        for stream in seen.streams.values().filter(|stream| stream.publish.is_some()) {
            left.push(format!("stream {} is held", stream.stream));
        }
        for recording in seen
            .recordings
            .values()
            .filter(|recording| !recording.state.is_terminal())
        {
            left.push(format!(
                "recording {} of {} is {}",
                recording.id, recording.stream, recording.state
            ));
        }
        for task in seen.tasks.values().filter(|task| !task.state.is_terminal()) {
            left.push(format!("task {} of {} is {}", task.id, task.stream, task.state));
        }
        for stitch in seen.stitches.values() {
            left.push(format!(
                "recording {} waits: open {:?}, live {:?}, finished by {:?}",
                stitch.recording, stitch.open, stitch.live, stitch.finishing
            ));
        }
        for machine in &*cluster.machines.borrow() {
            let disk = lock(&machine.disk);
            left.extend(
                disk.journals
                    .keys()
                    .map(|publish| format!("the journal of {publish} is kept")),
            );
        }
        left
    })
    .await;
    cluster.checks.tasks_are_told();
    cluster.checks.documents_are_whole();
    let seen = lock(&cluster.checks.seen);
    for machine in &*cluster.machines.borrow() {
        for (publish, (journal, reason)) in &lock(&machine.disk).fenced {
            // Put aside is what was lost to another owner, or given up: the library says so.
            let named = journal.grant.as_ref().is_some_and(|grant| {
                grant.recordings.iter().any(|granted| {
                    let known = seen.recordings.get(&keys::recording(granted.id));
                    known.is_none_or(|known| known.state == RecordingState::Failed || known.epoch > grant.epoch)
                })
            });
            if !named {
                cluster
                    .world
                    .broke(format_args!("the journal of {publish} is put aside: {reason}"));
            }
        }
    }
}
