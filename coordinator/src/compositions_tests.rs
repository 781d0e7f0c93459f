use shared::{ids::Seeded, ids::StreamKey};

use super::*;
use crate::fleet::{About, Report, SessionId};

fn at(s: i64) -> (Timestamp, Monotonic) {
    (
        Timestamp::from_millis(1_790_000_000_000 + s * 1_000),
        Monotonic::from_millis(s * 1_000),
    )
}

fn ids() -> Seeded {
    Seeded::new(7)
}

fn new(token: &str) -> NewComposition {
    NewComposition {
        pieces: vec![],
        stream: StreamKey::new("d", "a", "s").unwrap(),
        start: at(0).0,
        writers: vec![],
        name: "joined".to_owned(),
        description: "both".to_owned(),
        video: true,
        audio: true,
        token: token.to_owned(),
        context: String::new(),
        expires: None,
    }
}

struct World {
    all: Compositions,
    fleet: Fleet,
    workers: Vec<WorkerId>,
    ids: Seeded,
}

impl World {
    fn new(storage: &str, workers: usize) -> Self {
        let ids = ids();
        let mut fleet = Fleet::new(Duration::from_secs(10));
        let workers: Vec<_> = (0..workers).map(|_| WorkerId::generate(&ids, at(0).0)).collect();
        for (session, worker) in (1..).zip(&workers) {
            let about = About {
                storage: storage.to_owned(),
                ..About::default()
            };
            fleet.opened(*worker, SessionId(session), about, at(0).1);
        }
        World {
            all: Compositions::default(),
            fleet,
            workers,
            ids,
        }
    }

    fn make(&mut self, token: &str) -> RecordingId {
        let (one, txn) = self.all.create(new(token), at(0).0, &self.ids).unwrap();
        assert_eq!(txn.ops.len(), 1);
        one.id
    }

    /// Workers that begin something, once what came before is fenced.
    fn begun(&mut self, s: i64) -> Vec<(RecordingId, WorkerId, u64)> {
        let due = self.all.due(&self.fleet, at(s)).unwrap();
        assert!(due.give_up.is_empty());
        let begun = due.begin.into_iter().map(|finish| {
            assert!(
                self.all
                    .jobs(finish.worker)
                    .iter()
                    .all(|job| job.recording != finish.recording),
                "not before"
            );
            assert_eq!(self.all.fenced(finish.recording, true), Some(finish.worker));
            (finish.recording, finish.worker, finish.epoch.get())
        });
        begun.collect()
    }
}

#[test]
fn the_least_loaded_worker_that_can_read_the_pieces_has_it() {
    let mut world = World::new("s3://b", 2);
    let all: Vec<_> = ["", "", "", "", ""].map(|token| world.make(token)).to_vec();
    let begun = world.begun(0);
    let of = |worker| begun.iter().filter(|(_, of, _)| *of == worker).count();
    assert_eq!(
        world.workers.iter().map(|worker| of(*worker)).collect::<Vec<_>>(),
        [2, 2]
    );
    assert!(world.begun(1).is_empty(), "the fifth waits");
    let (first, worker, _) = begun[0];
    assert!(
        world
            .all
            .ended(first, RecordingState::Finished, "composed", at(2).0)
            .unwrap()
            .is_some()
    );
    assert_eq!(world.begun(2), [(all[4], worker, 1)]);

    // What lies on one machine only that one reads.
    let mut world = World::new("", 2);
    let mut asked = new("");
    asked.writers = vec![world.workers[1]];
    let (one, _) = world.all.create(asked, at(0).0, &world.ids).unwrap();
    assert_eq!(world.begun(0), [(one.id, world.workers[1], 1)]);
}

#[test]
fn pieces_of_a_place_are_read_by_a_worker_that_has_it() {
    let mut world = World::new("s3://b", 2);
    let with = world.workers[1];
    let mut asked = new("");
    asked.pieces.push(shared::composition::Piece {
        file: FileId::generate(&world.ids, at(0).0),
        key: "@cold/d/a/s/r/e000001/mp4/000000.mp4".to_owned(),
        format: Format::Mp4,
        from_ms: 0,
        for_ms: None,
    });
    let (one, _) = world.all.create(asked, at(0).0, &world.ids).unwrap();
    assert!(world.begun(0).is_empty(), "nobody has that place");
    let about = About {
        storage: "s3://b".to_owned(),
        places: BTreeMap::from([("cold".to_owned(), "s3://cold".to_owned())]),
        ..About::default()
    };
    world.fleet.opened(with, SessionId(9), about, at(1).1);
    assert_eq!(world.begun(1), [(one.id, with, 1)]);
}

#[test]
fn another_worker_takes_over_what_one_leaves_and_the_first_is_fenced() {
    let mut world = World::new("s3://b", 2);
    let id = world.make("");
    let (_, first, _) = world.begun(0)[0];
    let status = |epoch, progress| ComposeStatus {
        recording: id,
        epoch: Epoch::new(epoch),
        progress,
        bytes: 1,
    };
    assert!(world.all.heard(first, &[], at(1).1), "it is told again");
    assert!(!world.all.heard(first, &[status(1, 40)], at(1).1));
    assert_eq!(world.all.get(id).unwrap().1, 40);
    // Heard, and no further: it stalled.
    for s in (10..=600).step_by(10) {
        for (session, worker) in (1..).zip(&world.workers) {
            world
                .fleet
                .heartbeat(*worker, SessionId(session), Report::default(), at(s).1);
        }
        assert!(world.begun(s).is_empty(), "{s}");
    }
    let (_, second, epoch) = world.begun(602)[0];
    assert!(second != first && epoch == 2);
    assert_eq!(world.all.get(id).unwrap().1, 0);
    assert!(
        world.all.heard(first, &[status(1, 90)], at(603).1),
        "it hears that it is not its own"
    );
    assert_eq!(world.all.get(id).unwrap().1, 0);
    // Lost: the other again.
    world.fleet.heartbeat(
        first,
        SessionId(1 + u64::from(first != world.workers[0])),
        Report::default(),
        at(620).1,
    );
    world.fleet.tick(at(620).1);
    assert_eq!(world.begun(620), [(id, first, 3)]);
    let (txn, clear) = world
        .all
        .ended(id, RecordingState::Finished, "composed", at(630).0)
        .unwrap()
        .unwrap();
    for kept in [1, 2, 3] {
        let txn = clear.txn(Some(Epoch::new(kept)), at(630).0).unwrap();
        let removals: Vec<_> = txn.ops.iter().map(|op| format!("{op:?}")).collect();
        assert_eq!(removals.len(), 2, "what two attempts may have left goes");
        let key = format!("/{}/", Epoch::new(kept).path_component());
        assert!(removals.iter().all(|removal| !removal.contains(&key)), "{removals:?}");
    }
    assert!(txn.ops.iter().any(|op| op.key().starts_with("v1/media-note/")));
    assert!(
        world
            .all
            .ended(id, RecordingState::Failed, "late", at(631).0)
            .unwrap()
            .is_none()
    );
    let (one, progress) = world.all.get(id).unwrap();
    assert!(one.file().is_some() && progress == 100 && one.problem.is_empty());
}

#[test]
fn a_long_one_comes_further_by_its_bytes_and_not_when_it_goes_the_same_way_again() {
    let mut world = World::new("s3://b", 2);
    let id = world.make("");
    let (_, worker, _) = world.begun(0)[0];
    let mut begun_after = |s: i64, bytes: u64| {
        for (session, worker) in (1..).zip(&world.workers) {
            world
                .fleet
                .heartbeat(*worker, SessionId(session), Report::default(), at(s).1);
        }
        let status = ComposeStatus {
            recording: id,
            epoch: Epoch::new(1),
            progress: 1,
            bytes,
        };
        world.all.heard(worker, &[status], at(s).1);
        world.begun(s)
    };
    // A hundredth of it takes longer than ten minutes, and it looks at a gigabyte a minute.
    for minute in 1..=60 {
        let begun = begun_after(minute * 60, (minute as u64) << 30);
        assert!(begun.is_empty(), "after {minute} minutes");
    }
    // It begins again, and fails where it failed before, again and again.
    for minute in 61..70 {
        let begun = begun_after(minute * 60, (minute as u64 % 4) << 30);
        assert!(begun.is_empty(), "after {minute} minutes");
    }
    let (_, other, epoch) = begun_after(70 * 60, 60 << 30)[0];
    assert!(other != worker && epoch == 2);
}

#[test]
fn after_five_attempts_it_is_given_up() {
    let mut world = World::new("s3://b", 1);
    let id = world.make("");
    let worker = world.workers[0];
    for attempt in 0..5 {
        let s = attempt * 700;
        world.fleet.heartbeat(worker, SessionId(1), Report::default(), at(s).1);
        assert_eq!(world.begun(s).len(), 1, "{attempt}");
    }
    world
        .fleet
        .heartbeat(worker, SessionId(1), Report::default(), at(3_500).1);
    let due = world.all.due(&world.fleet, at(3_500)).unwrap();
    assert_eq!(due.give_up.len(), 1);
    assert!(due.begin.is_empty());
    world
        .all
        .ended(id, RecordingState::Failed, &due.give_up[0].problem, at(3_500).0)
        .unwrap();
    let (one, _) = world.all.get(id).unwrap();
    assert_eq!((one.state, one.problem_name()), (CompositionState::Failed, "gave_up"));
}

#[test]
fn one_that_nobody_can_read_is_given_up_after_three_days() {
    let mut world = World::new("", 1);
    let lost = WorkerId::generate(&world.ids, at(0).0);
    let writers = vec![lost];
    let (one, _) = world
        .all
        .create(NewComposition { writers, ..new("") }, at(0).0, &world.ids)
        .unwrap();
    let days = |n: i64| at(n * 86_400 + 1);
    for day in [0, 2, 3] {
        let (now, mono) = days(day);
        world
            .fleet
            .heartbeat(world.workers[0], SessionId(1), Report::default(), mono);
        let due = world.all.due(&world.fleet, (now, mono)).unwrap();
        let given_up: Vec<_> = due.give_up.iter().map(|given| (given.recording, given.epoch)).collect();
        assert!(due.begin.is_empty());
        let expected = if day < 3 {
            vec![]
        } else {
            vec![(one.id, Epoch::default())]
        };
        assert_eq!(given_up, expected, "after {day} days");
    }
}

#[test]
fn a_new_leader_goes_on_and_fences_again() {
    let mut world = World::new("s3://b", 1);
    let id = world.make("");
    world.begun(0);
    let stored = world.all.get(id).unwrap().0.clone();
    world.all = Compositions::new(vec![stored]);
    assert_eq!(world.all.workers().len(), 1);
    assert!(
        world.all.jobs(world.workers[0]).is_empty(),
        "not before the earlier owners are fenced"
    );
    let making = [ComposeStatus {
        recording: id,
        epoch: Epoch::new(1),
        progress: 40,
        bytes: 1,
    }];
    assert!(
        !world.all.heard(world.workers[0], &making, at(1).1),
        "nobody is told to stop what is to be made"
    );
    assert_eq!(world.begun(5), [(id, world.workers[0], 1)], "the same attempt");
    assert_eq!(world.all.jobs(world.workers[0]).len(), 1);
    // Where the library could not be asked it is tried again.
    world.all.fenced(id, false);
    assert_eq!(world.begun(6).len(), 1);
}

#[test]
fn a_token_counts_for_three_days_and_what_is_kept_is_bounded() {
    let mut world = World::new("s3://b", 1);
    let id = world.make("t");
    let taken = world.all.create(new("t"), at(1).0, &world.ids);
    assert!(matches!(taken, Err(CompositionError::TokenTaken(of)) if of == id));
    world.begun(0);
    world
        .all
        .ended(id, RecordingState::Failed, "empty: nothing", at(10).0)
        .unwrap();
    assert!(world.all.forget(at(10 + 3 * 86_400).0).is_empty());
    let forgotten = world.all.forget(at(11 + 3 * 86_400).0);
    assert_eq!(forgotten.len(), 1);
    for (kept, gone) in [(None, true), (Some(Epoch::new(1)), false)] {
        let txn = forgotten[0].txn(kept, at(11 + 3 * 86_400).0).unwrap();
        let has = |prefix: &str| txn.ops.iter().any(|op| op.key().starts_with(prefix));
        assert!(has("v1/composition/"));
        assert_eq!((has("v1/recording/"), has("v1/stream-recording/")), (gone, gone));
    }
    world.make("t");
    for _ in 1..MAX_OPEN {
        world.make("");
    }
    let full = world.all.create(new(""), at(1).0, &world.ids);
    assert!(matches!(full, Err(CompositionError::TooManyOpen)));
    let newest: Vec<_> = world.all.list(None).take(3).map(|(one, _)| one.id).collect();
    assert!(newest.is_sorted_by(|a, b| a > b));
    assert_eq!(world.all.list(Some(newest[0])).next().unwrap().0.id, newest[1]);
}

#[test]
fn what_open_ones_read_follows_from_them_also_for_the_next_leader() {
    let (mut all, ids, sources) = (Compositions::default(), ids(), Sources::default());
    all.tell(sources.clone());
    let [shared, other] = [(); 2].map(|()| FileId::generate(&ids, at(0).0));
    let mut of = |files: &[FileId]| {
        let mut asked = new("");
        let piece = |file: &FileId| shared::composition::Piece {
            file: *file,
            key: "k".to_owned(),
            format: Format::Flv,
            from_ms: 0,
            for_ms: None,
        };
        asked.pieces = files.iter().map(piece).collect();
        all.create(asked, at(0).0, &ids).unwrap().0
    };
    let (first, second) = (of(&[shared, other, shared]), of(&[shared]));
    assert_eq!(
        (sources.reader(shared), sources.reader(other)),
        (Some(first.id), Some(first.id))
    );
    // The next leader reads what is stored, and nothing else is left of what it knew before.
    let next = Sources::default();
    next.begin(&Composition {
        id: RecordingId::generate(&ids, at(9).0),
        ..first.clone()
    });
    Compositions::new(vec![second.clone()]).tell(next.clone());
    assert_eq!((next.reader(shared), next.reader(other)), (Some(second.id), None));

    all.ended(first.id, RecordingState::Failed, "empty: nothing", at(1).0)
        .unwrap()
        .unwrap();
    assert_eq!((sources.reader(shared), sources.reader(other)), (Some(second.id), None));
    all.ended(second.id, RecordingState::Finished, "composed", at(2).0)
        .unwrap()
        .unwrap();
    assert_eq!(sources.reader(shared), None);
}
