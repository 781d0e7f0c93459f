use shared::{
    ids::{IdGen as _, Random},
    store::{Model, Unreliable},
    telemetry::Metrics,
    time::{Manual, System},
};

use super::*;

/// Somebody who may stand.
fn standing(store: Arc<dyn MetaStore>, clock: Arc<dyn Clock>, name: &str, ttl: Duration) -> Standing {
    Standing {
        candidate: Candidate {
            instance: Random.uuid(System::new().now()),
            name: name.to_owned(),
            address: format!("http://{name}"),
            http: None,
            ttl,
        },
        store,
        clock,
        metrics: Metrics::new().coordinator,
        tell: watch::channel(Role::Waiting).0,
        resign: CancellationToken::new(),
    }
}

const TTL: Duration = Duration::from_secs(3);

/// A store on a clock that stands still.
fn quiet() -> (Arc<Unreliable>, Arc<Manual>) {
    let clock = Arc::new(Manual::default());
    let model = Model::new(Arc::clone(&clock) as Arc<dyn Clock>);
    (Arc::new(Unreliable::new(Arc::new(model))), clock)
}

/// Wins an election in which nobody else stands.
async fn win(store: &Arc<Unreliable>, clock: &Arc<Manual>, name: &str) -> (Arc<Term>, TermStore, LeaseId) {
    let store: Arc<dyn MetaStore> = Arc::clone(store) as _;
    let standing = standing(Arc::clone(&store), Arc::clone(clock) as _, name, TTL);
    let (term, lease) = standing.stand().await.unwrap().expect("nobody else stands");
    (Arc::clone(&term), TermStore::new(store, term), lease)
}

async fn value(store: &Unreliable, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap()?;
    Some(String::from_utf8_lossy(&entry.value).into_owned())
}

#[tokio::test]
async fn a_deposed_leader_changes_nothing() {
    let (store, clock) = quiet();
    let (first, old, _) = win(&store, &clock, "a").await;
    old.commit(Txn::new().put("k", "a1")).await.unwrap();
    // Its process is paused until the lease has ended, and it still believes: only the store can tell.
    clock.advance(TTL * 2);
    first.believe_until(clock.monotonic() + TTL);
    let (second, new, _) = win(&store, &clock, "b").await;
    assert!(second.number() > first.number());
    let guarded = Txn::new().guard(Guard::Absent("fresh".into())).put("fresh", "a");
    for txn in [Txn::new().put("k", "a2"), guarded] {
        let refused = old.commit(txn).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        first.believe_until(clock.monotonic() + TTL);
    }
    assert!(!first.holds(), "it has heard of it");
    new.commit(Txn::new().put("k", "b1")).await.unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some("b1"));
    assert_eq!(value(&store, "fresh").await, None);
}

#[tokio::test]
async fn belief_lapses_by_itself() {
    let (store, clock) = quiet();
    let (term, own, _) = win(&store, &clock, "a").await;
    assert!(term.holds());
    clock.advance(TTL - Duration::from_millis(400));
    assert!(!term.holds(), "before the lease can have ended");
    let sent = store.sent().len();
    assert!(own.commit(Txn::new().put("k", "1")).await.is_err());
    assert_eq!(store.sent().len(), sent, "nothing is even sent");
}

#[tokio::test]
async fn decisions_happen_once_and_in_order_whatever_is_lost_on_the_way() {
    let (store, clock) = quiet();
    let (_, own, _) = win(&store, &clock, "a").await;
    store.send_twice(true);
    for n in 1..=3 {
        own.commit(Txn::new().put("k", n.to_string())).await.unwrap();
    }
    store.send_twice(false);
    store.lose_answers(true);
    let unknown = own.commit(Txn::new().put("k", "4")).await;
    assert!(matches!(unknown, Err(StoreError::Unavailable(_))));
    store.lose_answers(false);
    store.fail_commits(true);
    assert!(own.commit(Txn::new().put("k", "never")).await.is_err());
    store.fail_commits(false);
    own.commit(Txn::new().put("k", "5").put("last", "1")).await.unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some("5"));
    // What comes again much later, from some queue on the way, finds everything changed.
    for late in store.sent() {
        assert!(matches!(store.commit(late).await, Err(StoreError::Stale { .. })));
    }
    assert_eq!(value(&store, "k").await.as_deref(), Some("5"));
    let decision = store.get(keys::DECISION).await.unwrap().unwrap();
    assert_eq!(
        DecisionRecord::read(&decision).unwrap(),
        DecisionRecord { term: 1, number: 6 }
    );
}

#[tokio::test]
async fn of_two_that_stand_one_wins() {
    let (store, clock) = quiet();
    let a = standing(Arc::clone(&store) as _, Arc::clone(&clock) as _, "a", TTL);
    let b = standing(Arc::clone(&store) as _, Arc::clone(&clock) as _, "b", TTL);
    let (a, b) = futures_util::future::join(a.stand(), b.stand()).await;
    let won = [a.unwrap().is_some(), b.unwrap().is_some()];
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
}

#[tokio::test]
async fn a_won_election_whose_answer_was_lost_is_given_up_and_won_again() {
    let (store, clock) = quiet();
    let standing = standing(Arc::clone(&store) as _, clock, "a", TTL);
    store.lose_answers(true);
    assert!(standing.stand().await.is_err());
    store.lose_answers(false);
    let (term, _) = standing.stand().await.unwrap().expect("its own record is gone");
    assert_eq!(term.number(), 2);
}

/// Waits for a role.
async fn until(roles: &mut watch::Receiver<Role>, what: impl Fn(&Role) -> bool) -> Role {
    let waiting = roles.wait_for(|role| what(role));
    let role = timeout(Duration::from_secs(20), waiting).await.expect("in time");
    role.unwrap().clone()
}

fn leads(role: &Role) -> bool {
    role.term().is_some()
}

#[tokio::test]
async fn leadership_passes_on_at_once_when_handed_over_and_after_the_lease_when_not() {
    let clock: Arc<dyn Clock> = Arc::new(System::new());
    let store: Arc<dyn MetaStore> = Arc::new(Model::new(Arc::clone(&clock)));
    let tasks = TaskTracker::new();
    let start = |name: &str| {
        let one = standing(Arc::clone(&store), Arc::clone(&clock), name, Duration::from_secs(2));
        let (roles, resign) = (one.tell.subscribe(), one.resign.clone());
        (roles, resign, tasks.spawn(one.run()))
    };
    let (mut a, resign_a, _a) = start("a");
    until(&mut a, leads).await;
    let (mut b, _resign_b, task_b) = start("b");
    let (mut c, _resign_c, task_c) = start("c");
    for other in [&mut b, &mut c] {
        until(
            other,
            |role| matches!(role, Role::Following(leader) if leader.name == "a"),
        )
        .await;
    }
    let begin = std::time::Instant::now();
    resign_a.cancel();
    let winner = tokio::select! {
        role = until(&mut b, leads) => role,
        role = until(&mut c, leads) => role,
    };
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(winner.term().unwrap().number(), 2);
    assert!(!leads(&a.borrow()));
    // The next one dies without a word.
    let begin = std::time::Instant::now();
    let mut heir = if leads(&b.borrow()) {
        task_b.abort();
        c
    } else {
        task_c.abort();
        b
    };
    let role = until(&mut heir, leads).await;
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    assert_eq!(role.term().unwrap().number(), 3);
}
