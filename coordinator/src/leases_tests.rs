use std::time::Duration;

use shared::{config::CoordinatorConfig, ids::Seeded, store::Kv, template::Format};

use super::*;
use crate::fleet::{About, SessionId};

struct World {
    catalog: Catalog,
    fleet: Fleet,
    leases: Leases,
    tasks: Tasks,
    doors: Doors,
    vault: Vault,
    ids: Seeded,
    kv: Kv,
    second: i64,
}

impl World {
    fn new() -> Self {
        let config = CoordinatorConfig {
            record: vec![Format::Flv],
            ..Default::default()
        };
        World {
            catalog: Catalog::new(&config, vec![], vec![]),
            fleet: Fleet::new(Duration::from_secs(10)),
            leases: Leases::default(),
            tasks: Tasks::new(
                config.tasks.clone(),
                config.worker_timeout,
                vec![],
                Monotonic::default(),
            ),
            doors: Doors::default(),
            vault: Vault::new(&[1; 32]).unwrap(),
            ids: Seeded::new(1),
            kv: Kv::new(),
            second: 0,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000 + self.second * 1_000)
    }

    fn mono(&self) -> Monotonic {
        Monotonic::from_millis(self.second * 1_000)
    }

    fn worker(&mut self) -> WorkerId {
        let worker = WorkerId::generate(&self.ids, self.now());
        let (now, about) = (
            self.mono(),
            About {
                name: format!("w{}", self.fleet.alive()),
                ..About::default()
            },
        );
        self.fleet.opened(worker, SessionId(1), about, now);
        worker
    }

    fn request(&self, worker: WorkerId) -> Request {
        Request {
            worker,
            publish: PublishId::generate(&self.ids, self.now()),
            stream: "d/a/s".parse().unwrap(),
            params: String::new(),
            client_addr: "127.0.0.1:5".to_owned(),
            started: self.now(),
            adopted: false,
            storage: String::new(),
            places: BTreeMap::new(),
            held: None,
            remembered: Vec::new(),
            known_epoch: Epoch::default(),
            asks_again: false,
        }
    }

    /// What the store has, as the service reads it before it asks.
    fn known(&self, publish: PublishId) -> Option<Known> {
        let entry = self.kv.get(&keys::publish(publish))?;
        let record: PublishRecord = serde_json::from_slice(&entry.value).unwrap();
        let recordings = record.recordings.iter().map(|id| {
            let entry = self.kv.get(&keys::recording(*id)).unwrap();
            let window = record.windows.get(id).copied().unwrap_or_default();
            granted_of(serde_json::from_slice(&entry.value).unwrap(), window)
        });
        Some(Known {
            recordings: recordings.collect(),
            record,
        })
    }

    /// Asks with what was read before from the store; nothing is stored of the answer yet. Its worker names what it asks for.
    fn ask(&mut self, request: &Request, known: Option<Known>) -> Decided {
        self.leases.unknown(&[request.publish], self.mono());
        self.question(request, known).unwrap()
    }

    fn question(&mut self, request: &Request, known: Option<Known>) -> Result<Decided, StoreError> {
        let (now, mono) = (self.now(), self.mono());
        let cx = Context {
            catalog: &self.catalog,
            fleet: &self.fleet,
            tasks: &self.tasks,
            doors: &self.doors,
            vault: &self.vault,
            ids: &self.ids,
            now,
            mono,
        };
        self.leases.acquire(&cx, request.clone(), known)
    }

    fn acquire(&mut self, request: &Request) -> LeaseOutcome {
        let known = self.known(request.publish);
        let decided = self.ask(request, known);
        self.kv.commit(decided.txn).unwrap();
        decided.outcome
    }

    fn grant(&mut self, request: &Request) -> Grant {
        match self.acquire(request) {
            LeaseOutcome::Granted(grant) => grant,
            LeaseOutcome::Refused(refusal) => panic!("{refusal}"),
        }
    }

    fn refusal(&mut self, request: &Request) -> Refusal {
        match self.acquire(request) {
            LeaseOutcome::Refused(refusal) => refusal,
            LeaseOutcome::Granted(grant) => panic!("{grant:?}"),
        }
    }

    fn release(&mut self, request: &Request, epoch: Epoch) -> bool {
        let moment = (self.now(), self.mono());
        let txn = self
            .leases
            .release(request.publish, epoch, "unpublish".to_owned(), moment)
            .unwrap();
        let some = txn.is_some();
        self.kv.commit(txn.unwrap_or_default()).unwrap();
        some
    }

    /// A worker is not heard of for too long; its publishers may be with it still.
    fn falls_silent(&mut self, worker: WorkerId) {
        let now = self.now();
        for txn in self.leases.end_all_of(worker, "silent", now).unwrap() {
            self.kv.commit(txn).unwrap();
        }
    }

    fn lose_silent_workers(&mut self) {
        self.second += 11;
        let now = self.mono();
        self.fleet.tick(now);
    }
}

#[test]
fn the_same_publish_gets_the_same_grant_however_often_it_asks() {
    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    let first = world.grant(&request);
    assert_eq!((first.epoch, first.recordings.len()), (Epoch::new(1), 1));
    assert_eq!(world.grant(&request), first);
    assert!(world.release(&request, first.epoch));
    assert!(
        !world.release(&request, first.epoch),
        "releasing what is not held is no news"
    );
    let adopted = Request {
        adopted: true,
        ..request
    };
    assert_eq!(world.grant(&adopted), first, "also after its end");
    assert_eq!(world.leases.len(), 0, "and it does not hold the stream again");
}

#[test]
fn a_second_publish_on_the_same_worker_takes_over_under_the_next_epoch() {
    let mut world = World::new();
    let worker = world.worker();
    let (one, two) = (world.request(worker), world.request(worker));
    let first = world.grant(&one);
    let second = world.grant(&two);
    assert_eq!(second.epoch, first.epoch.next());
    assert_ne!(second.recordings, first.recordings);
    assert!(!world.release(&one, first.epoch), "the first holds nothing any more");
    assert_eq!(world.leases.holder(&two.stream).unwrap().record.id, two.publish);
    assert!(
        !world.release(&two, first.epoch),
        "under another epoch it is not a release"
    );
    assert!(world.release(&two, second.epoch));
    assert!(world.leases.holder(&two.stream).is_none());
}

#[test]
fn a_live_stream_on_another_worker_is_refused_until_that_worker_is_lost() {
    let mut world = World::new();
    let (a, b) = (world.worker(), world.worker());
    let (on_a, on_b) = (world.request(a), world.request(b));
    world.grant(&on_a);
    let refusal = world.refusal(&on_b);
    assert_eq!(refusal.kind, RefusalKind::AlreadyLive);
    assert_eq!(refusal.reason, "stream d/a/s is live on worker w0");
    world.lose_silent_workers();
    // By then whoever asked has stopped asking, and its publisher comes again.
    assert_eq!(world.refusal(&on_b).kind, RefusalKind::AlreadyLive);
    let on_b = world.request(b);
    assert_eq!(world.grant(&on_b).epoch, Epoch::new(2));
    assert_eq!(world.leases.recordings_of(a), []);

    // The first worker comes back: it is told to drop the publish, does not get the stream, but may finish what it has.
    let (now, about) = (world.mono(), About::default());
    world.fleet.opened(b, SessionId(2), about.clone(), now);
    world.fleet.opened(a, SessionId(2), about, now);
    let drop = world.leases.named(a, &[on_a.publish], now);
    assert_eq!(drop.len(), 1);
    assert!(drop.first().unwrap().1.starts_with("taken over by worker"));
    assert!(world.leases.named(a, &[on_a.publish], now).is_empty(), "told once");
    // Its worker may have been paused before it heard of the grant: what was journaled is not forgotten, only the publisher must go.
    assert_eq!(world.grant(&on_a).epoch, Epoch::new(1));
    assert_eq!(world.leases.named(a, &[on_a.publish], now).len(), 1, "told again");
    let holder = world.leases.holder(&on_b.stream).map(|live| live.record.id);
    assert_eq!(holder, Some(on_b.publish));
    assert_eq!(world.grant(&Request { adopted: true, ..on_a }).epoch, Epoch::new(1));
}

#[test]
fn a_worker_that_comes_back_before_anybody_took_its_stream_keeps_it() {
    let mut world = World::new();
    let (a, b) = (world.worker(), world.worker());
    let request = world.request(a);
    let grant = world.grant(&request);
    world.lose_silent_workers();
    assert_eq!(world.grant(&request), grant);
    let now = world.mono();
    world.fleet.opened(a, SessionId(2), About::default(), now);
    let other = world.request(b);
    assert_eq!(world.refusal(&other).kind, RefusalKind::AlreadyLive);
    let stolen = Request { worker: b, ..request };
    assert_eq!(world.refusal(&stolen).kind, RefusalKind::NotYours);
}

#[test]
fn an_adopted_publish_that_was_never_asked_about_gets_recordings_but_not_the_stream() {
    let mut world = World::new();
    let worker = world.worker();
    let live = world.request(worker);
    world.grant(&live);
    let adopted = Request {
        adopted: true,
        ..world.request(worker)
    };
    let grant = world.grant(&adopted);
    assert_eq!((grant.epoch, grant.recordings.len()), (Epoch::new(2), 1));
    assert_eq!(world.grant(&adopted), grant);
    assert_eq!(world.leases.holder(&live.stream).unwrap().record.id, live.publish);
    let next = world.request(worker);
    assert_eq!(world.grant(&next).epoch, Epoch::new(3), "epochs only grow");
}

#[test]
fn a_publish_that_its_worker_finds_after_a_restart_is_live_no_more() {
    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    let grant = world.grant(&request);
    let adopted = Request {
        adopted: true,
        ..request.clone()
    };
    assert_eq!(world.grant(&adopted), grant);
    assert!(world.leases.holder(&request.stream).is_none());
    assert_eq!(world.known(request.publish).unwrap().record.reason, ADOPTED);
}

#[test]
fn what_its_worker_no_longer_names_ends_after_the_time_out() {
    let mut world = World::new();
    let worker = world.worker();
    let (kept, lost) = (
        world.request(worker),
        Request {
            stream: "d/a/t".parse().unwrap(),
            ..world.request(worker)
        },
    );
    world.grant(&kept);
    world.grant(&lost);
    world.second = 11;
    let (now, mono, limit) = (world.now(), world.mono(), Duration::from_secs(10));
    assert!(
        world.leases.end_unnamed(&world.fleet, limit, now).unwrap().is_empty(),
        "silence leaves nothing out"
    );
    world
        .fleet
        .heartbeat(worker, SessionId(1), crate::fleet::Report::default(), mono);
    world.leases.named(worker, &[kept.publish], mono);
    let ended = world.leases.end_unnamed(&world.fleet, limit, now).unwrap();
    assert_eq!(ended.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [lost.publish]);
    assert!(world.leases.holder(&kept.stream).is_some());
}

#[test]
fn streams_that_are_long_offline_are_forgotten() {
    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    let grant = world.grant(&request);
    assert!(
        world.leases.forget_streams(Timestamp::from_millis(i64::MAX)).is_empty(),
        "not while it is live"
    );
    world.release(&request, grant.epoch);
    assert!(world.leases.forget_streams(world.now()).is_empty());
    let later = Timestamp::from_millis(world.now().as_millis() + 1);
    for txn in world.leases.forget_streams(later) {
        world.kv.commit(txn).unwrap();
    }
    assert!(world.kv.get(&keys::stream(&request.stream)).is_none());
}

#[test]
fn a_reload_from_the_store_knows_what_was_live() {
    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    let grant = world.grant(&request);
    let stream: StreamRecord =
        serde_json::from_slice(&world.kv.get(&keys::stream(&request.stream)).unwrap().value).unwrap();
    let known = world.known(request.publish).unwrap();
    world.leases = Leases::new(vec![stream], Stitches::default());
    world.leases.read(known, world.mono());
    assert_eq!(world.grant(&request), grant);
}

#[test]
fn a_publish_without_the_right_push_key_is_refused_and_leaves_nothing_also_when_it_is_adopted() {
    use crate::doors::{PushAuth, PushDomain};
    use shared::secret::Secret;

    let mut world = World::new();
    let worker = world.worker();
    let sealed = world
        .vault
        .seal(&PushDomain::purpose("d"), &Secret::new("key"))
        .unwrap();
    let domain = PushDomain {
        name: "d".to_owned(),
        enabled: true,
        auth: PushAuth {
            enabled: true,
            master: Some(sealed),
            backup: None,
            grace_s: 0,
        },
        created: world.now(),
    };
    world.doors.add_domain(domain).unwrap();
    let request = world.request(worker);
    let before = format!("{:?}", world.kv);
    assert_eq!(world.refusal(&request).kind, RefusalKind::Forbidden);
    let adopted = Request {
        adopted: true,
        ..request.clone()
    };
    assert_eq!(world.refusal(&adopted).kind, RefusalKind::Forbidden);
    assert_eq!(format!("{:?}", world.kv), before, "a refusal is not stored");
    // Begun in time, asked about when the coordinator was back: that is not the publisher's fault.
    let until = format!("{:x}", request.started.as_millis() / 1_000);
    let params = format!(
        "txTime={until}&txSecret={}",
        crate::push_key::secret("key", "s", &until)
    );
    world.second += 3_600;
    let late = Request { params, ..request };
    assert_eq!(world.grant(&late).recordings.len(), 1);
}

#[test]
fn an_evicted_publish_frees_its_stream_and_its_worker_is_told_once() {
    use crate::doors::Ban;

    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    world.grant(&request);
    let (now, mono) = (world.now(), world.mono());
    let txn = world.leases.evict(&request.stream, "dropped", now).unwrap();
    world.kv.commit(txn).unwrap();
    assert!(world.leases.holder(&request.stream).is_none());
    assert!(
        world
            .leases
            .evict(&request.stream, "dropped", now)
            .unwrap()
            .ops
            .is_empty()
    );
    let told = world.leases.named(worker, &[request.publish], mono);
    assert_eq!(told, [(request.publish, "dropped".to_owned())]);
    assert!(world.leases.named(worker, &[request.publish], mono).is_empty());
    let ban = Ban {
        stream: request.stream.clone(),
        created: now,
        until: now + Duration::from_secs(60),
        reason: String::new(),
    };
    world.doors.forbid(ban).unwrap();
    let (again, next) = (request.clone(), world.request(worker));
    assert_eq!(
        world.refusal(&again).kind,
        RefusalKind::Forbidden,
        "nor comes it back by asking again"
    );
    assert_eq!(world.refusal(&next).kind, RefusalKind::Forbidden);
    let adopted = Request {
        adopted: true,
        ..request
    };
    assert_eq!(
        world.grant(&adopted).recordings.len(),
        1,
        "what was taken before is finished"
    );
    world.second += 60;
    let next = world.request(worker);
    world.grant(&next);
}

#[test]
fn a_store_that_was_set_back_learns_from_the_workers() {
    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    let held = world.grant(&request);
    // Another world has the same rules and none of the past.
    let mut old = World::new();
    old.ids = Seeded::new(9);
    let held = Grant {
        epoch: Epoch::new(7),
        ..held
    };
    let again = Request {
        held: Some(held.clone()),
        known_epoch: Epoch::new(7),
        ..request.clone()
    };
    assert_eq!(
        old.leases.unknown(&[request.publish], Monotonic::from_millis(0)),
        [request.publish]
    );
    assert_eq!(old.grant(&again), held, "what was granted stands");
    assert_eq!(old.grant(&again), held);
    assert!(
        old.leases
            .unknown(&[request.publish], Monotonic::from_millis(0))
            .is_empty()
    );
    let next = old.request(worker);
    assert_eq!(old.grant(&next).epoch, Epoch::new(8), "and no epoch comes twice");
}

#[test]
fn no_epoch_is_granted_that_a_worker_has_seen() {
    let mut world = World::new();
    let worker = world.worker();
    let request = Request {
        known_epoch: Epoch::new(41),
        ..world.request(worker)
    };
    assert_eq!(world.grant(&request).epoch, Epoch::new(42));
}

#[test]
fn what_only_an_adopted_journal_remembers_is_restored_without_the_stream() {
    let mut world = World::new();
    let (a, b) = (world.worker(), world.worker());
    let mut other = World::new();
    other.ids = Seeded::new(9);
    let lost = other.request(a);
    let held = other.grant(&lost);
    let live = world.request(b);
    world.grant(&live);
    let adopted = Request {
        adopted: true,
        held: Some(held.clone()),
        ..lost
    };
    assert_eq!(world.grant(&adopted), held);
    let id = held.recordings[0].id;
    assert!(world.kv.get(&keys::recording(id)).is_some(), "its files can be entered");
    assert_eq!(
        world.leases.holder(&live.stream).map(|live| live.record.id),
        Some(live.publish)
    );
}

#[path = "stitches_tests.rs"]
mod stitches;

#[test]
fn a_question_that_comes_twice_is_answered_the_same_whatever_was_read_for_it() {
    let mut world = World::new();
    let worker = world.worker();
    let adopted = Request {
        adopted: true,
        ..world.request(worker)
    };
    // Nothing was in the store yet when it was read.
    let ask = |world: &mut World, request: &Request| world.ask(request, None).outcome;
    let first = ask(&mut world, &adopted);
    assert_eq!(ask(&mut world, &adopted), first, "one recording, not two");

    let (live, other) = (world.request(worker), world.worker());
    assert!(matches!(ask(&mut world, &live), LeaseOutcome::Granted(_)));
    let second = world.request(other);
    let first = Request {
        asks_again: true,
        ..second.clone()
    };
    assert!(matches!(ask(&mut world, &first), LeaseOutcome::Refused(_)));
    assert!(matches!(ask(&mut world, &second), LeaseOutcome::Refused(_)));
    let epoch = world.leases.streams[&second.stream].epoch;
    world
        .leases
        .release(live.publish, epoch, String::new(), (world.now(), world.mono()))
        .unwrap();
    for late in [&first, &second] {
        assert!(
            matches!(ask(&mut world, late), LeaseOutcome::Refused(_)),
            "its worker has forgotten it"
        );
    }

    world.second = 120;
    let next = world.request(other);
    assert!(matches!(ask(&mut world, &next), LeaseOutcome::Granted(_)));
}

#[test]
fn a_question_from_before_a_release_takes_no_stream_again() {
    for reads_late in [false, true] {
        let mut world = World::new();
        let worker = world.worker();
        let request = world.request(worker);
        let grant = world.grant(&request);
        // The first question comes once more: it was late, and what is read for it is as it was before the release, or behind it.
        let before = world.known(request.publish);
        assert!(world.release(&request, grant.epoch));
        let known = if reads_late {
            world.known(request.publish)
        } else {
            before
        };
        let late = world.ask(&request, known);
        assert_eq!(
            late.outcome,
            LeaseOutcome::Granted(grant),
            "what it was granted is what it is to finish"
        );
        assert!(late.txn.ops.is_empty());
        assert!(world.leases.holder(&request.stream).is_none(), "the stream is free");
        let next = world.request(worker);
        world.grant(&next);
    }
}

#[test]
fn a_late_question_takes_no_stream_again_when_another_coordinator_heard_the_release() {
    let mut world = World::new();
    let worker = world.worker();
    let request = world.request(worker);
    let grant = world.grant(&request);
    world.release(&request, grant.epoch);
    let stream = world.leases.streams[&request.stream].clone();
    world.leases = Leases::new(vec![stream], Stitches::default());
    let known = world.known(request.publish);
    let late = world.question(&request, known.clone()).unwrap_err();
    assert!(
        matches!(late, StoreError::Unavailable(_)) && late.to_string().contains("ask again"),
        "{late}"
    );
    let set_back = Request {
        held: Some(grant.clone()),
        ..request.clone()
    };
    assert!(world.question(&set_back, None).is_err());
    assert!(world.leases.holder(&request.stream).is_none(), "the stream is free");
    // One that its worker has gets its stream back: a heartbeat says so.
    world.leases.unknown(&[request.publish], world.mono());
    let back = world.question(&request, known).unwrap().outcome;
    assert_eq!(back, LeaseOutcome::Granted(grant));
    assert!(world.leases.holder(&request.stream).is_some());
}

#[test]
fn a_late_question_of_an_earlier_publish_takes_no_stream_from_a_later_one_of_the_same_worker() {
    let mut world = World::new();
    let worker = world.worker();
    // It was refused, and its worker has forgotten it; so has the coordinator that leads now.
    let earlier = world.request(worker);
    world.second = 3;
    let later = world.request(worker);
    world.grant(&later);
    assert_eq!(world.refusal(&earlier).kind, RefusalKind::AlreadyLive);
    let holder = world.leases.holder(&later.stream).map(|live| live.record.id);
    assert_eq!(holder, Some(later.publish));
    world.second = 5;
    let latest = world.request(worker);
    world.grant(&latest);
    let holder = world.leases.holder(&latest.stream).map(|live| live.record.id);
    assert_eq!(holder, Some(latest.publish), "what begins later takes its place");
}
