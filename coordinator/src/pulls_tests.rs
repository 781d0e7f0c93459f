use shared::ids::Seeded;

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn key(name: &str) -> StreamKey {
    StreamKey::new("d", "live", name).unwrap()
}

fn new(name: &str) -> NewPull {
    NewPull {
        stream: key(name),
        url: format!("rtmp://origin/live/{name}").parse().unwrap(),
        paused: false,
        from: None,
        until: None,
        made_by: MadeBy::Operator,
    }
}

struct World {
    pulls: Pulls,
    ids: Seeded,
    workers: Vec<WorkerId>,
    dead: BTreeSet<WorkerId>,
}

impl World {
    fn new(workers: usize) -> Self {
        let ids = Seeded::new(3);
        World {
            pulls: Pulls::new(100, vec![]),
            workers: (0..workers).map(|_| WorkerId::generate(&ids, at(1))).collect(),
            ids,
            dead: BTreeSet::new(),
        }
    }

    fn create(&mut self, new: NewPull) -> Result<PullSource, PullError> {
        let id = PullId::generate(&self.ids, at(5));
        self.pulls.create(new, id, at(5)).map(|(made, _)| made.source)
    }

    fn plan(&mut self, now: i64) -> Vec<Moved> {
        let (dead, workers) = (&self.dead, &self.workers);
        let loads = |_: &Pulls| {
            workers
                .iter()
                .filter(|w| !dead.contains(w))
                .map(|w| (*w, Load::default()))
                .collect()
        };
        self.pulls
            .plan(at(now), |worker| !dead.contains(&worker), loads, |_, _| true)
            .unwrap()
    }

    fn placed(&self) -> Vec<usize> {
        let count = |worker: &WorkerId| self.pulls.set_of(*worker).pulls.len();
        let mut placed: Vec<usize> = self.workers.iter().map(count).collect();
        placed.sort_unstable();
        placed
    }
}

#[test]
fn sources_spread_over_the_workers_and_stay_where_they_are() {
    let mut world = World::new(3);
    for n in 0..7 {
        world.create(new(&format!("s{n}"))).unwrap();
    }
    assert_eq!(world.plan(10).len(), 7);
    assert_eq!(world.placed(), [2, 2, 3]);
    assert!(world.plan(11).is_empty(), "nothing moves without need");
    let dead = world.workers[0];
    let had = world.pulls.set_of(dead).pulls.len();
    world.dead.insert(dead);
    let moved = world.plan(12);
    assert_eq!(moved.len(), had);
    assert!(
        moved
            .iter()
            .all(|m| m.from == Some(dead) && m.to.is_some() && m.txn.ops.len() == 1)
    );
    assert_eq!(world.placed(), [0, 3, 4]);
    world.dead.clear();
    assert!(
        world.plan(13).is_empty(),
        "a worker that is back is not given its old ones again"
    );
}

#[test]
fn a_worker_without_the_place_of_its_recordings_is_the_last_to_get_a_stream() {
    let mut world = World::new(2);
    let (with, without) = (world.workers[0], world.workers[1]);
    let load = |streams| Load {
        streams,
        bits_per_second: 0,
    };
    let loads = |_: &Pulls| BTreeMap::from([(with, load(5)), (without, load(0))]);
    let able = |stream: &StreamKey, worker| stream.stream() != "cold" || worker == with;
    for (name, expected) in [("cold", with), ("plain", without)] {
        world.create(new(name)).unwrap();
        let moved = world.pulls.plan(at(9), |_| true, loads, able).unwrap();
        assert_eq!(moved[0].to, Some(expected), "{name}");
    }
    world.create(new("a")).unwrap();
    let moved = world.pulls.plan(at(9), |_| true, loads, |_, _| false).unwrap();
    assert_eq!(moved[0].to, Some(without), "its journal keeps what nobody can store");
}

#[test]
fn the_least_loaded_worker_is_taken() {
    let mut world = World::new(2);
    let (busy, idle) = (world.workers[0], world.workers[1]);
    world.create(new("a")).unwrap();
    let load = |streams, bits_per_second| Load {
        streams,
        bits_per_second,
    };
    let loads = |_: &Pulls| BTreeMap::from([(busy, load(5, 0)), (idle, load(2, 9_000_000))]);
    let moved = world.pulls.plan(at(9), |_| true, loads, |_, _| true).unwrap();
    assert_eq!(moved[0].to, Some(idle));
}

#[test]
fn without_workers_a_source_waits_and_says_so() {
    let mut world = World::new(0);
    let made = world.create(new("a")).unwrap();
    assert!(world.plan(9).is_empty());
    assert_eq!(world.pulls.get(&PullRef::Id(made.id)).unwrap().source.worker, None);
    world.workers.push(WorkerId::generate(&world.ids, at(2)));
    assert_eq!(world.plan(10).len(), 1);
}

#[test]
fn paused_scheduled_and_ended_sources_are_on_no_worker() {
    let mut world = World::new(1);
    let worker = world.workers[0];
    let window = NewPull {
        from: Some(at(100)),
        until: Some(at(200)),
        ..new("window")
    };
    world.create(window).unwrap();
    let plain = world.create(new("plain")).unwrap();
    world.plan(50);
    assert_eq!(world.placed(), [1]);
    world.plan(100);
    assert_eq!(world.placed(), [2]);
    let pause = PullChange {
        paused: Some(true),
        ..Default::default()
    };
    world.pulls.update(&PullRef::Id(plain.id), pause, at(101)).unwrap();
    let moved = world.plan(102);
    assert_eq!((moved[0].from, moved[0].to), (Some(worker), None));
    world.plan(200);
    assert_eq!(world.placed(), [0]);
    let late = world.create(NewPull {
        until: Some(at(4)),
        ..new("late")
    });
    assert!(matches!(late, Err(PullError::Past)));
    let backwards = PullChange {
        from: Some(Some(at(900))),
        until: Some(Some(at(800))),
        ..Default::default()
    };
    let refused = world.pulls.update(&PullRef::Stream(key("plain")), backwards, at(300));
    assert!(matches!(refused, Err(PullError::Window)));
}

#[test]
fn a_worker_is_told_until_it_has_carried_out_its_set() {
    let mut world = World::new(1);
    let worker = world.workers[0];
    let made = world.create(new("a")).unwrap();
    world.plan(9);
    let set = world.pulls.behind(worker).unwrap();
    assert_eq!(set.pulls.len(), 1);
    assert_eq!(
        world.pulls.heard(worker, 0, BTreeMap::new()).as_ref(),
        Some(&set),
        "the first word was lost"
    );
    let live = PullStatus {
        state: PullState::Live,
        error: String::new(),
        failures: 0,
    };
    let statuses = BTreeMap::from([(made.id, live.clone())]);
    assert_eq!(world.pulls.heard(worker, set.revision, statuses), None);
    assert_eq!(world.pulls.get(&PullRef::Id(made.id)).unwrap().status, Some(live));
    let url = PullChange {
        url: Some("rtmp://other/live/a".parse().unwrap()),
        ..Default::default()
    };
    world.pulls.update(&PullRef::Id(made.id), url, at(10)).unwrap();
    assert_ne!(
        world.pulls.behind(worker).unwrap().revision,
        set.revision,
        "another URL is another set"
    );
    // A coordinator that knows nothing of what was said gives the same set the same name.
    let sources = world.pulls.list(None).map(|view| view.source).collect();
    let other = Pulls::new(100, sources);
    assert_eq!(other.set_of(worker), world.pulls.set_of(worker));
    world.pulls.delete(&PullRef::Id(made.id)).unwrap();
    assert_eq!(
        world.pulls.behind(worker).unwrap(),
        PullSet {
            revision: 0,
            pulls: vec![]
        }
    );
}

#[test]
fn one_source_for_each_stream_and_a_limit() {
    let mut world = World::new(0);
    world.pulls.max = 2;
    world.create(new("a")).unwrap();
    assert!(matches!(world.create(new("a")), Err(PullError::Exists(_))));
    world.create(new("b")).unwrap();
    let full = world.create(new("c")).unwrap_err().to_string();
    assert!(full.contains("coordinator.max_pulls"), "{full}");
    let none = world.pulls.delete(&PullRef::Stream(key("x"))).unwrap_err().to_string();
    assert!(none.contains("for d/live/x"), "{none}");
}

fn hooked(name: &str, client: &str) -> NewPull {
    NewPull {
        made_by: MadeBy::Hook { client: client.into() },
        ..new(name)
    }
}

#[test]
fn webhooks_come_twice_late_and_never() {
    let mut world = World::new(1);
    let id = PullId::generate(&world.ids, at(5));
    let began = |world: &mut World, client: &str| world.pulls.hook_began(hooked("a", client), id, at(6)).unwrap();
    assert_eq!(began(&mut world, "1").ops.len(), 1);
    began(&mut world, "1");
    // The encoder came back, and the end of its first connection is told after the begin of its second.
    began(&mut world, "2");
    assert_eq!(world.pulls.hook_ended(&key("a"), "1").1.ops.len(), 0);
    assert!(world.pulls.has(&key("a")));
    assert_eq!(world.pulls.hook_ended(&key("a"), "2").1.ops.len(), 1);
    assert_eq!(world.pulls.hook_ended(&key("a"), "2").1.ops.len(), 0);
    assert!(!world.pulls.has(&key("a")));

    let made = world.create(new("mine")).unwrap();
    assert_eq!(
        world
            .pulls
            .hook_began(hooked("mine", "1"), id, at(7))
            .unwrap()
            .ops
            .len(),
        0
    );
    world.pulls.hook_ended(&key("mine"), "1");
    assert_eq!(
        world.pulls.get(&PullRef::Id(made.id)).unwrap().source.made_by,
        MadeBy::Operator
    );

    began(&mut world, "3");
    let mono = |s: i64| Monotonic::from_millis(s * 1_000);
    let limit = Duration::from_secs(600);
    assert!(world.pulls.forget_stale(limit, mono(0)).is_empty());
    assert!(world.pulls.forget_stale(limit, mono(600)).is_empty());
    let gone = world.pulls.forget_stale(limit, mono(601));
    assert_eq!(gone.len(), 1, "the news of its end was lost; an operator's stays");
    assert_eq!(gone[0].0, key("a"));
}
