use shared::{ids::Seeded, lease::LeaseOutcome, task::NewTask, template::Format};

use super::*;
use crate::fleet::{About, Report};

fn planner() -> Planner {
    let config = CoordinatorConfig {
        record: vec![Format::Flv],
        ..CoordinatorConfig::default()
    };
    let mono = Monotonic::default();
    let state = State {
        compositions: Compositions::default(),
        catalog: Catalog::new(&config, vec![], vec![]),
        leases: Leases::default(),
        fleet: Fleet::new(config.worker_timeout),
        pulls: Pulls::new(config.max_pulls, vec![]),
        tasks: Tasks::new(config.tasks.clone(), config.worker_timeout, vec![], mono),
        doors: Doors::default(),
    };
    let vault = Arc::new(Vault::new(&[1; 32]).unwrap());
    Planner::new(state, Arc::new(config), vault, Arc::new(Seeded::new(1)), mono)
}

fn at(s: i64) -> At {
    At {
        now: Timestamp::from_millis(1_790_000_000_000 + s * 1_000),
        mono: Monotonic::from_millis(s * 1_000),
        is_settled: true,
    }
}

fn beat(worker: WorkerId, session: SessionId, applied: &[(PublishId, u64)]) -> Beat {
    let counters = applied.iter().map(|(id, _)| (*id, Counters::default())).collect();
    Beat {
        worker,
        session,
        report: Report {
            counters,
            ..Report::default()
        },
        pulls_revision: 0,
        pulls: BTreeMap::new(),
        applied: applied.iter().copied().collect(),
        compositions: Vec::new(),
    }
}

fn told(out: &[Output]) -> Vec<&Down> {
    out.iter()
        .filter_map(|output| match output {
            Output::Tell(_, down) => Some(down),
            _ => None,
        })
        .collect()
}

fn publish(planner: &mut Planner, worker: WorkerId) -> PublishId {
    let publish = PublishId::generate(&Seeded::new(7), at(0).now);
    let request = Request {
        worker,
        publish,
        stream: "d/a/s".parse().unwrap(),
        params: String::new(),
        client_addr: String::new(),
        started: at(0).now,
        adopted: false,
        storage: String::new(),
        places: BTreeMap::new(),
        held: None,
        remembered: Vec::new(),
        known_epoch: Epoch::default(),
        asks_again: false,
    };
    let decided = planner.acquire(request, None, at(0)).unwrap();
    assert!(matches!(decided.outcome, LeaseOutcome::Granted(_)));
    publish
}

#[test]
fn a_worker_hears_of_a_task_when_it_is_durable_and_until_it_has_it() {
    let mut planner = planner();
    let worker = WorkerId::generate(&Seeded::new(5), at(0).now);
    let (session, out) = planner.opened(worker, About::default(), at(0));
    assert!(matches!(told(&out)[..], [Down::Welcome { .. }]));
    let id = publish(&mut planner, worker);
    let new = NewTask {
        stream: "d/a/s".parse().unwrap(),
        start: Some(at(60).now),
        end: at(120).now,
        template_ref: String::new(),
        stream_type: shared::task::StreamType::Push,
        client_token: String::new(),
        require_live: false,
    };
    let made = planner.create_task(new, None, None, at(1));
    assert!(made.result.is_ok());
    let announced = made.after.iter().find_map(|output| match output {
        Output::Announce(changed) => Some((changed.publish, changed.revision)),
        _ => None,
    });
    assert_eq!(announced, Some((id, 2)));
    assert!(
        told(&planner.beat(beat(worker, session, &[(id, 1)]), at(2))).is_empty(),
        "not durable"
    );
    let said = planner.announced(id, 2).unwrap();
    assert!(matches!(said, Output::Tell(to, Down::Set(set)) if to == worker && set.grant.revision == 2));
    let again = planner.beat(beat(worker, session, &[(id, 1)]), at(3));
    assert!(matches!(told(&again)[..], [Down::Set(_)]), "the word was lost");
    assert!(told(&planner.beat(beat(worker, session, &[(id, 2)]), at(4))).is_empty());
}

#[test]
fn what_a_replaced_session_says_uses_up_nothing_that_the_worker_must_hear() {
    let mut planner = planner();
    let worker = WorkerId::generate(&Seeded::new(5), at(0).now);
    let (old, _) = planner.opened(worker, About::default(), at(0));
    let id = publish(&mut planner, worker);
    let (new, _) = planner.opened(worker, About::default(), at(1));
    let stream = "d/a/s".parse().unwrap();
    planner.state.leases.evict(&stream, "by hand", at(2).now).unwrap();
    assert!(planner.beat(beat(worker, old, &[(id, 1)]), at(2)).is_empty());
    let out = planner.beat(beat(worker, new, &[(id, 1)]), at(3));
    assert!(
        told(&out)
            .iter()
            .any(|down| matches!(down, Down::Drop { publish, .. } if *publish == id))
    );
    planner.closed(worker, old);
    assert!(
        !told(&planner.beat(beat(worker, new, &[(id, 1)]), at(4))).is_empty(),
        "the older one's end is not its own"
    );
    planner.unread(worker);
    assert!(planner.beat(beat(worker, new, &[(id, 1)]), at(5)).is_empty());
}
