//! Publishers: they come, drop, and come back on the same or another worker, and sometimes two come at once.

use std::rc::Rc;
use std::time::Duration;

use journal::Publish;
use shared::ids::{PublishId, StreamKey};
use worker::sim::{Journal, Unit};

use crate::cluster::{Cluster, WORKERS};
use crate::world::lock;

/// A worker whose time of day is wrong by so much, milliseconds, has followed its clock: several small jumps in a row may look like one that
/// lasts.
const WRONG_MS: u64 = 4_000;
/// Time between two units of a publish.
const EVERY: Duration = Duration::from_millis(500);

/// Publishes a stream again and again until `until_ms`.
pub(crate) async fn publish(cluster: Rc<Cluster>, stream: StreamKey, until_ms: i64) {
    let world = Rc::clone(&cluster).world.clone();
    let mut at = world.pick(WORKERS);
    while world.elapsed_ms() < until_ms {
        if world.happens(300) {
            at = world.pick(WORKERS);
        }
        let length = match world.below(10) {
            0..2 => world.between(200, 2_000),
            2..7 => world.between(4_000, 25_000),
            _ => world.between(20_000, 90_000),
        };
        if !one(&cluster, &stream, at, i64::try_from(length).unwrap_or(0), until_ms).await {
            at = world.pick(WORKERS);
        }
        let pause = match world.below(10) {
            0..4 => world.between(50, 1_500),
            4..8 => world.between(1_000, 9_000),
            _ => world.between(8_000, 30_000),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// One connection. False: it was refused, or the worker was gone.
async fn one(cluster: &Rc<Cluster>, stream: &StreamKey, at: usize, length_ms: i64, until_ms: i64) -> bool {
    let Some(id) = begin(cluster, stream, at) else {
        return false;
    };
    let world = &cluster.world;
    let begun = world.elapsed_ms();
    let mut count = 0;
    // An encoder does not begin with a key frame that we saw whole, always.
    let first_key = if world.happens(200) { 2 } else { 0 };
    loop {
        let sent = send(cluster, id, at, count, first_key);
        match sent {
            Some(true) => count += 1,
            Some(false) => {}
            None => return false,
        }
        tokio::time::sleep(EVERY).await;
        let elapsed = world.elapsed_ms();
        let over = elapsed - begun > length_ms || elapsed > until_ms;
        let mut machines = cluster.machines.borrow_mut();
        let Some(machine) = machines.get_mut(at) else {
            return false;
        };
        let hung_up = machine.runs() && machine.is_hung_up(id);
        if !(over || hung_up) || !machine.runs() {
            continue;
        }
        let reason = if hung_up { "dropped" } else { "closed by the publisher" };
        machine.live.borrow_mut().retain(|_, live| *live != id);
        if let Some(journal) = lock(&machine.disk).journals.get_mut(&id) {
            journal.closed = Some(reason.to_owned());
        }
        world.say(format_args!(
            "publish {id} of {stream} ends on w{at} after {count} units: {reason}"
        ));
        if let Some(process) = &machine.process {
            let reason = reason.to_owned();
            drop(process.calls().send(Box::new(move |running| {
                Box::pin(async move { running.unpublished(id, reason) })
            })));
        }
        return !hung_up;
    }
}

fn begin(cluster: &Rc<Cluster>, stream: &StreamKey, at: usize) -> Option<PublishId> {
    let machines = cluster.machines.borrow();
    let machine = machines.get(at)?;
    if !machine.runs() || machine.live.borrow().contains_key(stream) {
        return None;
    }
    let started = cluster.wall_of_machine(machine);
    let id = PublishId::generate(cluster.ids.as_ref(), cluster.world.now());
    cluster
        .world
        .say(format_args!("publish {id} of {stream} begins on w{at}"));
    machine.live.borrow_mut().insert(stream.clone(), id);
    let journal = Journal::of(Publish {
        id: id.to_string(),
        domain: stream.domain().to_owned(),
        app: stream.app().to_owned(),
        stream: stream.stream().to_owned(),
        started_ms: started,
        ..Publish::default()
    });
    lock(&machine.disk).journals.insert(id, journal);
    let process = machine.process.as_ref()?;
    drop(
        process
            .calls()
            .send(Box::new(move |running| Box::pin(async move { running.published(id) }))),
    );
    Some(id)
}

/// One unit. None: the connection is gone; false: nobody reads it just now.
fn send(cluster: &Rc<Cluster>, id: PublishId, at: usize, count: i64, first_key: i64) -> Option<bool> {
    let arrival_ms = cluster.wall_of(at);
    let machines = cluster.machines.borrow();
    let machine = machines.get(at)?;
    machine.process.as_ref()?;
    if !machine.runs() {
        return Some(false);
    }
    if !machine.live.borrow().values().any(|live| *live == id) {
        return None;
    }
    let mut disk = lock(&machine.disk);
    let journal = disk.journals.get_mut(&id)?;
    let sent_ms = cluster.world.now().as_millis();
    if arrival_ms.abs_diff(sent_ms) > WRONG_MS && !cluster.world.is_misled() {
        cluster.world.broke(format_args!(
            "w{at} believes a clock that is {} ms ahead for a moment",
            arrival_ms - sent_ms
        ));
    }
    journal.units.push(Unit {
        arrival_ms,
        sent_ms,
        dts_ms: count * 500,
        key: count % 4 == first_key % 4,
    });
    Some(true)
}
