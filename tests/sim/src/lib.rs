//! A cluster in virtual time. What decides is the code that decides everywhere: coordinators from election to library, workers' streams,
//! recorders and agents. The metadata store, the network, disks, object storage and publishers are models, and one number decides about
//! everything that may go wrong. See `docs/simulation.md`.

mod bucket;
mod checks;
mod cluster;
mod faults;
mod line;
mod process;
mod publishers;
mod rest;
mod sabotage;
mod store;
mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use shared::ids::StreamKey;

use cluster::{COORDINATORS, Cluster, Shape, WORKERS};
pub use sabotage::Sabotage;
use world::World;

/// How long faults happen, milliseconds of virtual time: at least, and so much more at most.
const FAULTS_MS: (u64, u64) = (40_000, 80_000);
/// Streams that are published.
const STREAMS: [&str; 3] = ["files/a/one", "lists/a/two", "tasks/a/three"];

/// What became of one run.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that did not hold. Empty: all held.
    pub broken: Vec<String>,
    /// What happened, one line each, with milliseconds of virtual time.
    pub trace: Vec<String>,
}

thread_local! {
    /// What panicked on this thread. A task's panic ends the task and nothing else.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Has panics of tasks counted against the run they happen in.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(format!("BROKEN: panic: {info}")));
            before(info);
        }));
    });
}

/// Runs one seed to its end. The same seed gives the same run.
///
/// # Panics
/// Where no runtime can be made.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_with(seed, None)
}

/// [`run`], with a rule broken on purpose or none.
///
/// # Panics
/// Where no runtime can be made.
#[must_use]
pub fn run_with(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    watch_panics();
    PANICS.with_borrow_mut(Vec::clear);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    let world = runtime.block_on(tasks.run_until(async move {
        let world = World::new(seed, sabotage);
        live(&world, seed).await;
        world
    }));
    drop(tasks);
    let mut broken = world.broken();
    broken.extend(PANICS.take());
    Outcome {
        broken,
        trace: world.trace(),
    }
}

async fn live(world: &std::sync::Arc<World>, seed: u64) {
    let shape = Shape {
        shared_storage: world.happens(600),
        lost_timeout: Duration::from_secs(if world.happens(200) { 25 } else { 86_400 }),
        preroll: Duration::from_secs(if world.happens(500) { 5 } else { 30 }),
    };
    world.say(format_args!("seed {seed}: {shape:?}"));
    let cluster = Cluster::new(world, seed, shape);
    if let Err(error) = cluster.furnish().await {
        world.broke(format_args!("the store takes no rules: {error}"));
        return;
    }
    (0..COORDINATORS).for_each(|n| cluster.start_coordinator(n));
    (0..WORKERS).for_each(|n| cluster.start_worker(n));
    let faults_ms = i64::try_from(world.between(FAULTS_MS.0, FAULTS_MS.0 + FAULTS_MS.1)).unwrap_or(0);
    // Publishers go on for a while when all is well again.
    let publish_ms = faults_ms + 20_000;
    let mut publishers = Vec::new();
    for stream in STREAMS {
        let Ok(stream) = stream.parse::<StreamKey>() else {
            continue;
        };
        let twice = world.happens(500);
        for _ in 0..=usize::from(twice) {
            let publisher = publishers::publish(Rc::clone(&cluster), stream.clone(), publish_ms);
            publishers.push(tokio::task::spawn_local(publisher));
        }
    }
    let watching = tokio::task::spawn_local(rest::watch(Rc::clone(&cluster)));
    let operating = tokio::task::spawn_local(faults::operate(Rc::clone(&cluster), faults_ms));
    faults::rage(&cluster, faults_ms).await;
    drop(operating.await);
    rest::sets_are_applied(&cluster).await;
    for publisher in publishers {
        if let Err(error) = publisher.await {
            world.broke(format_args!("a publisher failed: {error}"));
        }
    }
    rest::comes_to_rest(&cluster).await;
    watching.abort();
}
