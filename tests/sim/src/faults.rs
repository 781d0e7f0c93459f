//! What goes wrong, and what operators do meanwhile.

use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use proto::v1;
use shared::ids::StreamKey;
use tokio::task::JoinSet;

use crate::STREAMS;
use crate::cluster::{COORDINATORS, Cluster, WORKERS};
use crate::line::Wire;
use crate::world::{Place, Weather};

/// How long a clock is wrong at most that is wrong for a moment: less than what it takes for it to be believed.
const MOMENT: Duration = Duration::from_secs(25);

/// Lets things go wrong until `until_ms`, then sets everything right.
pub(crate) async fn rage(cluster: &Rc<Cluster>, until_ms: i64) {
    let world = &cluster.world;
    // Some runs are calm, so that what goes wrong alone is seen alone.
    let every = world.between(1_500, 12_000);
    let mut healing = JoinSet::new();
    while world.elapsed_ms() < until_ms {
        tokio::time::sleep(Duration::from_millis(world.between(every / 2, every))).await;
        let lasts = Duration::from_millis(match world.below(3) {
            0 => world.between(200, 3_000),
            1 => world.between(2_000, 9_000),
            _ => world.between(6_000, 30_000),
        });
        let cluster = Rc::clone(cluster);
        match world.below(9) {
            0 | 1 => drop(healing.spawn_local(kill_worker(cluster, lasts))),
            2 => drop(healing.spawn_local(kill_coordinator(cluster, lasts))),
            3 => drop(healing.spawn_local(stop_worker(cluster, lasts))),
            4 => drop(healing.spawn_local(stop_coordinator(cluster, lasts))),
            5 | 6 => drop(healing.spawn_local(cut(cluster, lasts))),
            7 => drop(healing.spawn_local(storm(cluster, lasts))),
            _ => drop(healing.spawn_local(jump(cluster, lasts))),
        }
    }
    healing.abort_all();
    while healing.join_next().await.is_some() {}
    set_right(cluster);
}

fn set_right(cluster: &Rc<Cluster>) {
    cluster.world.say("all is well from now on");
    cluster.world.set_weather(Weather::default());
    cluster.world.heal_all();
    for n in 0..COORDINATORS {
        cluster.jump(Place::Coordinator(n), 0);
        let runs = cluster.coordinators.borrow().get(n).is_some_and(Option::is_some);
        match runs {
            true => cluster.stop_coordinator(n, false),
            false => cluster.start_coordinator(n),
        }
    }
    for n in 0..WORKERS {
        cluster.jump(Place::Worker(n), 0);
        let runs = cluster
            .machines
            .borrow()
            .get(n)
            .is_some_and(|machine| machine.process.is_some());
        match runs {
            true => cluster.stop_worker(n, false),
            false => cluster.start_worker(n),
        }
    }
}

async fn kill_worker(cluster: Rc<Cluster>, lasts: Duration) {
    let n = cluster.world.pick(WORKERS);
    if cluster.machines.borrow().get(n).is_none_or(|machine| !machine.runs()) {
        return;
    }
    cluster.kill_worker(n);
    tokio::time::sleep(lasts).await;
    if cluster
        .machines
        .borrow()
        .get(n)
        .is_some_and(|machine| machine.process.is_none())
    {
        cluster.start_worker(n);
    }
}

async fn kill_coordinator(cluster: Rc<Cluster>, lasts: Duration) {
    let n = cluster.world.pick(COORDINATORS);
    if !cluster.coordinators.borrow().get(n).is_some_and(Option::is_some) {
        return;
    }
    cluster.kill_coordinator(n);
    tokio::time::sleep(lasts).await;
    if cluster.coordinators.borrow().get(n).is_some_and(Option::is_none) {
        cluster.start_coordinator(n);
    }
}

async fn stop_worker(cluster: Rc<Cluster>, lasts: Duration) {
    let n = cluster.world.pick(WORKERS);
    cluster.stop_worker(n, true);
    tokio::time::sleep(lasts).await;
    cluster.stop_worker(n, false);
}

async fn stop_coordinator(cluster: Rc<Cluster>, lasts: Duration) {
    let n = cluster.world.pick(COORDINATORS);
    cluster.stop_coordinator(n, true);
    tokio::time::sleep(lasts).await;
    cluster.stop_coordinator(n, false);
}

async fn cut(cluster: Rc<Cluster>, lasts: Duration) {
    let world = &cluster.world;
    let (worker, coordinator) = (
        Place::Worker(world.pick(WORKERS)),
        Place::Coordinator(world.pick(COORDINATORS)),
    );
    let pairs = match world.below(5) {
        0 => vec![(worker, coordinator)],
        1 => (0..COORDINATORS).map(|n| (worker, Place::Coordinator(n))).collect(),
        2 => vec![(coordinator, Place::Store)],
        3 => vec![(worker, Place::Bucket)],
        _ => (0..WORKERS).map(|n| (Place::Worker(n), coordinator)).collect(),
    };
    for (one, other) in &pairs {
        world.say(format_args!("cut {one} from {other}"));
        world.cut(*one, *other);
    }
    tokio::time::sleep(lasts).await;
    for (one, other) in pairs {
        world.say(format_args!("heal {one} and {other}"));
        world.heal(one, other);
    }
}

async fn storm(cluster: Rc<Cluster>, lasts: Duration) {
    let world = &cluster.world;
    let some = |most: u64| if world.happens(500) { world.below(most) } else { 0 };
    let weather = Weather {
        lost: some(300),
        repeated: some(300),
        late: some(400),
        store_fails: some(80),
        store_answer_lost: some(60),
        store_slow: some(500),
        bucket_fails: some(400),
    };
    world.say(format_args!("{weather:?}"));
    world.set_weather(weather);
    tokio::time::sleep(lasts).await;
    world.say("the storm is over");
    world.set_weather(Weather::default());
}

/// A clock jumps. It is set right again before that is believed, but for every second one of a worker, which stays wrong.
async fn jump(cluster: Rc<Cluster>, lasts: Duration) {
    let world = &cluster.world;
    let size = match world.below(3) {
        0 => world.between(100, 3_000),
        1 => world.between(3_000, 60_000),
        _ => world.between(60_000, 7_200_000),
    };
    let ahead_ms = i64::try_from(size).unwrap_or(0) * if world.happens(500) { -1 } else { 1 };
    let place = match world.happens(500) {
        true => Place::Worker(world.pick(WORKERS)),
        false => Place::Coordinator(world.pick(COORDINATORS)),
    };
    if matches!(place, Place::Worker(_)) && world.happens(500) {
        world.mislead();
        return cluster.jump(place, ahead_ms);
    }
    cluster.jump(place, ahead_ms);
    tokio::time::sleep(lasts.min(MOMENT)).await;
    cluster.jump(place, 0);
}

/// Makes, stops and deletes tasks.
pub(crate) async fn operate(cluster: Rc<Cluster>, until_ms: i64) {
    let world = &cluster.world;
    let wire = Wire {
        world: std::sync::Arc::clone(world),
        doors: std::sync::Arc::clone(&cluster.doors),
        checks: std::sync::Arc::clone(&cluster.checks),
        // Operators are as far away as a worker that nothing happens to.
        from: Place::Worker(WORKERS),
        current: AtomicUsize::new(0),
        session: AtomicUsize::new(0),
    };
    let mut made: Vec<String> = Vec::new();
    while world.elapsed_ms() < until_ms {
        tokio::time::sleep(Duration::from_millis(world.between(500, 15_000))).await;
        let task_id = made.get(world.pick(made.len())).cloned();
        match (world.below(4), task_id) {
            (0, Some(task_id)) => stop(&wire, task_id).await,
            (1, Some(task_id)) if world.happens(500) => delete(&wire, task_id).await,
            _ => made.extend(create(&wire).await),
        }
    }
}

async fn create(wire: &Wire) -> Option<String> {
    let world = &wire.world;
    let stream: StreamKey = STREAMS.get(world.pick(STREAMS.len()))?.parse().ok()?;
    let now = world.now().as_millis();
    let ms = |from, to| i64::try_from(world.between(from, to)).unwrap_or(0);
    let start_ms = match world.below(4) {
        0 => 0,
        1 => now - ms(0, 20_000),
        _ => now + ms(0, 30_000),
    };
    let end_ms = start_ms.max(now) + ms(1_000, 40_000);
    let request = v1::CreateTaskRequest {
        stream: Some((&stream).into()),
        start_ms,
        end_ms,
        client_token: format!("t{}", world.below(1_000_000)),
        ..v1::CreateTaskRequest::default()
    };
    // Asked again when nothing was heard: the token makes one task of it.
    for _ in 0..3 {
        let answer = wire.call(request.clone(), |node, request| {
            Box::pin(async move { node.create_task(request).await })
        });
        match answer.await {
            Ok(answer) => {
                let id = answer.task.map(|task| task.task_id);
                world.say(format_args!("task {id:?} of {stream} from {start_ms} to {end_ms}"));
                return id;
            }
            Err(status) if status.code() == tonic::Code::Unavailable => {}
            Err(status) => {
                world.say(format_args!("no task of {stream}: {}", status.message()));
                return None;
            }
        }
    }
    None
}

async fn stop(wire: &Wire, task_id: String) {
    wire.world.say(format_args!("stop task {task_id}"));
    let request = v1::StopTaskRequest { task_id };
    drop(
        wire.call(request, |node, request| {
            Box::pin(async move { node.stop_task(request).await })
        })
        .await,
    );
}

async fn delete(wire: &Wire, task_id: String) {
    wire.world.say(format_args!("delete task {task_id}"));
    let let_run = wire.world.happens(500);
    let request = v1::DeleteTaskRequest { task_id, let_run };
    drop(
        wire.call(request, |node, request| {
            Box::pin(async move { node.delete_task(request).await })
        })
        .await,
    );
}
