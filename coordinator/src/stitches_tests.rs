//! Recordings that go on across publishes, decided with everything else about leases.

use shared::{
    config::PlaceConfig,
    ids::{TaskId, TemplateId},
    lease::{FinishJob, Stitch},
    rule::{Rule, RuleKey},
    store::StitchRecord,
    task::{NewTask, StreamType},
    template::Template,
};

use super::*;
use crate::tasks::{Made, Presence};

/// Seconds that recordings wait.
const WAIT: i64 = 30;
const GONE: Duration = Duration::from_secs(600);

/// Every stream of `d` is recorded as HLS and waited for.
fn world() -> World {
    let mut world = World::new();
    let mut spec = TemplateSpec::plain("t", &[Format::Hls, Format::Flv]);
    spec.formats.get_mut(&Format::Hls).unwrap().flow_continue_s = u32::try_from(WAIT).unwrap();
    let id = TemplateId::generate(&world.ids, world.now());
    let template = Template {
        id,
        spec,
        created: world.now(),
        updated: world.now(),
    };
    let rule = Rule {
        key: RuleKey::new("d", "", "").unwrap(),
        template: id,
        created: world.now(),
    };
    world.catalog = Catalog::new(&CoordinatorConfig::default(), vec![template], vec![rule]);
    world
}

impl World {
    fn worker_on(&mut self, storage: &str) -> WorkerId {
        self.worker_with(storage, BTreeMap::new())
    }

    fn worker_with(&mut self, storage: &str, places: BTreeMap<String, String>) -> WorkerId {
        let worker = WorkerId::generate(&self.ids, self.now());
        let about = About {
            storage: storage.to_owned(),
            places,
            ..About::default()
        };
        self.fleet.opened(worker, SessionId(1), about, self.mono());
        worker
    }

    /// Publishes once more; gives the recording and what it has behind it.
    fn publish(&mut self, worker: WorkerId) -> (Request, Grant, RecordingId, Stitch) {
        let storage = |place| Some(self.fleet.storage(worker, place)?.to_owned());
        let request = Request {
            storage: storage("").unwrap(),
            places: storage("cold")
                .map(|cold| ("cold".to_owned(), cold))
                .into_iter()
                .collect(),
            ..self.request(worker)
        };
        let grant = self.grant(&request);
        let held = grant.recordings.first().unwrap();
        let (id, stitch) = (held.id, held.stitch.clone().unwrap());
        (request, grant, id, stitch)
    }

    fn stitch(&self, id: RecordingId) -> Option<StitchRecord> {
        let entry = self.kv.get(&keys::stitch(id))?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    /// What is to be finished now, with the earlier owners fenced, by worker.
    fn finishes(&mut self, worker: WorkerId) -> Vec<FinishJob> {
        let moment = (self.now(), self.mono());
        for finish in self.leases.finish_due(&self.fleet, GONE, moment).unwrap() {
            self.kv.commit(finish.txn).unwrap();
            self.leases.stitches().fenced(finish.recording, true);
        }
        self.leases.stitches().jobs(worker)
    }

    fn settle(&mut self, id: RecordingId, epoch: Epoch) {
        let txn = self.leases.stitches().settled(id, epoch).unwrap();
        self.kv.commit(txn.unwrap()).unwrap();
    }

    /// Another coordinator takes over: it knows what the store has.
    fn reload(&mut self) {
        let stream = self.kv.get(&keys::stream(&"d/a/s".parse().unwrap())).unwrap();
        let scan = self.kv.scan(&shared::store::Scan::prefix(keys::STITCHES));
        let records = scan.entries.iter().map(|e| serde_json::from_slice(&e.value).unwrap());
        let stitches = Stitches::new(records.collect());
        let stream = serde_json::from_slice(&stream.value).unwrap();
        self.leases = Leases::new(vec![stream], stitches);
    }

    /// The store is as it was at some time before; its coordinator starts from it.
    fn set_back(&mut self, to: &Kv) {
        self.kv = to.clone();
        self.leases = Leases::default();
        if self.kv.get(&keys::stream(&"d/a/s".parse().unwrap())).is_some() {
            self.reload();
        }
    }

    /// A worker names what it has, with what it was granted for it, as it does when it is asked to.
    fn remind(&mut self, request: &Request, grant: &Grant) -> Grant {
        let recordings = grant.recordings.iter();
        let entries = recordings.filter_map(|held| self.kv.get(&keys::recording(held.id)));
        let again = Request {
            remembered: entries.map(|e| serde_json::from_slice(&e.value).unwrap()).collect(),
            held: Some(grant.clone()),
            known_epoch: grant.epoch,
            ..request.clone()
        };
        self.grant(&again)
    }

    fn hear(&mut self, worker: WorkerId) {
        let now = self.mono();
        self.fleet.opened(worker, SessionId(2), About::default(), now);
    }
}

#[test]
fn a_stream_that_comes_back_in_time_goes_on_with_its_recording() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, stitch) = world.publish(worker);
    assert_eq!(stitch, Stitch::default(), "the first has nothing behind it");
    world.release(&first, grant.epoch);
    world.second = WAIT;
    let (second, grant, again, stitch) = world.publish(worker);
    assert_eq!((again, grant.epoch), (id, Epoch::new(2)));
    assert_eq!(stitch.before, [Epoch::new(1)]);
    assert!(!stitch.lost, "it may still be at work");
    assert_eq!(world.grant(&second).recordings[0].stitch, Some(stitch), "asked again");
    world.release(&second, grant.epoch);
    let (third, grant, again, stitch) = world.publish(worker);
    assert_eq!((again, &stitch.before[..]), (id, &[Epoch::new(2), Epoch::new(1)][..]));
    // Its time counts from its last end.
    world.release(&third, grant.epoch);
    world.second += WAIT + 1;
    let (.., next, stitch) = world.publish(worker);
    assert!(next != id && stitch.before.is_empty(), "too late");
}

#[test]
fn what_was_decided_outlives_the_coordinator() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    world.release(&first, grant.epoch);
    world.reload();
    world.second = 5;
    let (.., again, stitch) = world.publish(worker);
    assert_eq!((again, stitch.before), (id, vec![Epoch::new(1)]));
}

#[test]
fn a_recording_is_finished_once_its_time_is_over_and_everything_is_stored() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    world.release(&first, grant.epoch);
    world.second = WAIT;
    assert_eq!(world.finishes(worker), []);
    world.second = WAIT + 1;
    world.hear(worker);
    assert_eq!(world.finishes(worker), [], "not everything is stored");
    world.settle(id, grant.epoch);
    let jobs = world.finishes(worker);
    assert_eq!((jobs[0].recording, jobs[0].epoch), (id, Epoch::new(2)));
    assert_eq!((&jobs[0].before[..], jobs[0].lost), (&[Epoch::new(1)][..], false));
    assert_eq!(world.finishes(worker), jobs, "told again until it has ended");
    // Another coordinator fences once more, under the same epoch, and goes on.
    world.reload();
    assert_eq!(world.finishes(worker), jobs);
    let txn = world.leases.stitches().ended(id).unwrap();
    world.kv.commit(txn).unwrap();
    assert!(world.finishes(worker).is_empty() && world.stitch(id).is_none());
    let (_, grant, next, _) = world.publish(worker);
    assert!(
        next != id && grant.epoch == Epoch::new(3),
        "epochs of a stream only grow"
    );
}

#[test]
fn one_that_is_being_finished_is_not_continued() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    world.release(&first, grant.epoch);
    world.settle(id, grant.epoch);
    world.second = WAIT + 1;
    world.hear(worker);
    assert_eq!(world.finishes(worker).len(), 1);
    world.second = 1;
    let (.., next, _) = world.publish(worker);
    assert_ne!(next, id, "even if the clock went back");
}

#[test]
fn another_worker_goes_on_where_it_can_read_what_is_stored() {
    let mut world = world();
    let (mine, same, other) = (
        world.worker_on("s3://a"),
        world.worker_on("s3://a"),
        world.worker_on("s3://b"),
    );
    let (first, grant, id, _) = world.publish(mine);
    world.release(&first, grant.epoch);
    let (second, grant, elsewhere, _) = world.publish(other);
    assert_ne!(elsewhere, id, "it could not read the index");
    world.release(&second, grant.epoch);
    let (.., again, stitch) = world.publish(same);
    assert_eq!((again, stitch.lost), (id, false));
}

#[test]
fn a_recording_goes_on_where_its_own_place_is_read() {
    let mut world = world();
    let mut spec = world.catalog.templates().next().unwrap().spec.clone();
    spec.place = "cold".to_owned();
    let mut config = CoordinatorConfig::default();
    config.objects.places.insert("cold".to_owned(), PlaceConfig::default());
    let template = world.catalog.templates().next().unwrap().clone();
    let rule = world.catalog.rules().next().unwrap().clone();
    world.catalog = Catalog::new(&config, vec![Template { spec, ..template }], vec![rule]);
    let cold = |storage: &str| BTreeMap::from([("cold".to_owned(), storage.to_owned())]);
    // Each has a folder of its own as the first place.
    let first = world.worker_with("", cold("s3://cold"));
    let (without, other) = (
        world.worker_with("", BTreeMap::new()),
        world.worker_with("", cold("s3://cold")),
    );
    let elsewhere = world.worker_with("", cold("s3://other"));
    let (request, grant, id, _) = world.publish(first);
    assert_eq!(grant.recordings[0].template.place, "cold");
    world.release(&request, grant.epoch);
    world.settle(id, grant.epoch);
    for worker in [without, elsewhere] {
        world.second += 1;
        let (request, grant, new, _) = world.publish(worker);
        assert_ne!(new, id, "what it has stored is not read there");
        world.release(&request, grant.epoch);
    }
    world.second += 1;
    let (request, grant, again, stitch) = world.publish(other);
    assert_eq!((again, stitch.before), (id, vec![Epoch::new(1)]));
    world.release(&request, grant.epoch);

    // Whatever the template says later.
    let mut template = world.catalog.templates().next().unwrap().clone();
    template.spec.place.clear();
    let rule = world.catalog.rules().next().unwrap().clone();
    world.catalog = Catalog::new(&config, vec![template], vec![rule]);
    world.second += 1;
    let (_, grant, again, _) = world.publish(other);
    assert_eq!((again, grant.recordings[0].template.place.as_str()), (id, "cold"));
}

#[test]
fn a_lost_workers_recording_is_taken_over_with_what_it_has_stored() {
    let mut world = world();
    let (lost, other) = (world.worker_on("s3://a"), world.worker_on("s3://a"));
    let (.., id, _) = world.publish(lost);
    world.lose_silent_workers();
    let now = world.mono();
    let about = About {
        storage: "s3://a".to_owned(),
        ..About::default()
    };
    world.fleet.opened(other, SessionId(2), about, now);
    let (request, grant, again, stitch) = world.publish(other);
    assert_eq!((again, stitch.lost), (id, true));
    world.release(&request, grant.epoch);
    world.settle(id, grant.epoch);
    world.second += WAIT + 1;
    let now = world.mono();
    let about = || About {
        storage: "s3://a".to_owned(),
        ..About::default()
    };
    world.fleet.opened(other, SessionId(3), about(), now);
    assert_eq!(world.finishes(other), [], "the lost one may come back with the rest");
    world.second += 601;
    let now = world.mono();
    world.fleet.tick(now);
    world.fleet.opened(other, SessionId(4), about(), now);
    let jobs = world.finishes(other);
    assert!(jobs[0].lost && jobs[0].recording == id);
    // What else the lost one had in storage is completed by whoever leads.
    let ended = world.leases.stitches().ended(id).unwrap();
    world.kv.commit(ended).unwrap();
    assert!(world.kv.get(&keys::salvage(id)).is_some() && world.stitch(id).is_none());
}

#[test]
fn a_publish_that_comes_back_goes_on_with_its_recording_unless_another_has_it() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    world.falls_silent(worker);
    let back = world.grant(&first);
    assert_eq!(
        (back.recordings[0].id, back.epoch),
        (id, grant.epoch),
        "nobody else had it"
    );
    world.falls_silent(worker);
    let (second, grant, ..) = world.publish(worker);
    world.release(&second, grant.epoch);
    world.second = WAIT + 1;
    let back = world.grant(&first);
    assert_eq!(back.recordings[0].id, id, "its worker finishes what it has of it");
    assert!(back.epoch < grant.epoch, "under its own epoch");
    let dropped = world.leases.named(worker, &[first.publish], world.mono());
    assert_eq!(dropped.len(), 1, "its publisher comes back with a publish of its own");
}

#[test]
fn a_clock_that_was_ahead_keeps_no_recording_waiting() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    let ahead = Timestamp::from_millis(world.now().as_millis() + 7_200_000);
    let release = world
        .leases
        .release(first.publish, grant.epoch, "x".to_owned(), (ahead, world.mono()));
    world.kv.commit(release.unwrap().unwrap()).unwrap();
    world.settle(id, grant.epoch);
    assert_eq!(world.finishes(worker), []);
    world.second = WAIT + 1;
    assert_eq!(world.finishes(worker).len(), 1);
}

#[test]
fn a_publish_whose_recording_went_on_without_it_keeps_what_it_was_granted_and_is_dropped() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    // An older publish's question comes late, and takes the stream.
    let (.., again, _) = world.publish(worker);
    assert_eq!(again, id);
    let asked = world.grant(&first);
    assert_eq!(asked.epoch, grant.epoch, "its worker works under this one");
    let named = world.leases.named(worker, &[first.publish], world.mono());
    assert_eq!(named.len(), 1, "{named:?}");
    let stitch = world.stitch(id).unwrap();
    assert_eq!(stitch.epochs.len(), 2, "nobody waits for a third: {stitch:?}");
}

impl World {
    /// A task of the stream between two seconds, under the template that waits for it.
    fn task(&mut self, start: i64, end: i64) -> TaskId {
        let at = |second: i64| Timestamp::from_millis(1_000_000 + second * 1_000);
        let new = NewTask {
            stream: "d/a/s".parse().unwrap(),
            start: Some(at(start)),
            end: at(end),
            template_ref: String::new(),
            stream_type: StreamType::Push,
            client_token: String::new(),
            require_live: false,
        };
        let mut template = TemplateSpec::plain("t", &[Format::Hls]);
        template.formats.get_mut(&Format::Hls).unwrap().flow_continue_s = u32::try_from(WAIT).unwrap();
        let id = TaskId::generate(&self.ids, self.now());
        let moment = (self.now(), self.mono());
        let made = self
            .tasks
            .create(new, id, (Some(template), None), Presence::Offline, moment);
        match made.unwrap() {
            Made::New(task, _) => task.id,
            Made::Again(_) => panic!("made twice"),
        }
    }

    /// What a publish is to record for a task.
    fn granted_for(grant: &Grant, task: TaskId) -> GrantedRecording {
        let held = grant.recordings.iter().find(|held| held.cause == Cause::Task(task));
        held.expect("it is recorded for the task").clone()
    }

    fn begun(&mut self, id: RecordingId) {
        let txn = self.leases.stitches().begun(id).unwrap();
        self.kv.commit(txn.expect("it was ahead")).unwrap();
        assert!(self.leases.stitches().begun(id).unwrap().is_none(), "once");
    }
}

#[test]
fn a_tasks_recording_goes_on_with_the_next_publish_until_the_task_is_over() {
    let mut world = World::new();
    let worker = world.worker_on("");
    let task = world.task(-1, 100);
    let first = world.request(worker);
    let grant = world.grant(&first);
    let held = World::granted_for(&grant, task);
    assert_eq!(
        (held.stitch.clone(), held.state),
        (Some(Stitch::default()), RecordingState::Scheduled)
    );
    world.begun(held.id);
    world.second = 80;
    world.hear(worker);
    world.release(&first, grant.epoch);
    world.second = 95;
    let second = world.request(worker);
    let grant = world.grant(&second);
    let again = World::granted_for(&grant, task);
    assert_eq!(
        (again.id, again.window, again.state),
        (held.id, held.window, RecordingState::Recording)
    );
    assert_eq!(again.stitch.unwrap().before, [Epoch::new(1)]);
    let asked_again = World::granted_for(&world.grant(&second), task);
    assert_eq!(
        (asked_again.id, asked_again.stitch.unwrap().before),
        (held.id, vec![Epoch::new(1)])
    );
    world.settle(held.id, Epoch::new(1));
    // Its time is over while the stream goes on: what its worker says is stored is finished.
    world.second = 101;
    world.hear(worker);
    assert_eq!(world.finishes(worker), [], "not everything is stored");
    world.settle(held.id, grant.epoch);
    let jobs = world.finishes(worker);
    assert_eq!(
        (jobs[0].recording, &jobs[0].before[..]),
        (held.id, &[Epoch::new(2), Epoch::new(1)][..])
    );
    assert!(world.leases.holder(&second.stream).is_some(), "the publish goes on");
    let ended = world.leases.stitches().ended(held.id).unwrap();
    let entry = world.kv.get(&keys::recording(held.id)).unwrap();
    let mut recording: Recording = serde_json::from_slice(&entry.value).unwrap();
    recording.state = RecordingState::Finished;
    let ended = ended.put_json(keys::recording(held.id), &recording).unwrap();
    world.kv.commit(ended).unwrap();
    world.leases.ended(held.id, &[second.publish], RecordingState::Finished);
    world.falls_silent(worker);
    let back = world.grant(&second);
    assert!(
        world.leases.holder(&second.stream).is_some(),
        "what has ended holds nobody up: {back:?}"
    );
}

#[test]
fn a_task_that_is_over_while_its_stream_is_away_is_finished_then() {
    for stopped in [false, true] {
        let mut world = World::new();
        let worker = world.worker_on("");
        let task = world.task(-1, 20);
        let first = world.request(worker);
        let grant = world.grant(&first);
        let held = World::granted_for(&grant, task);
        world.begun(held.id);
        world.second = 5;
        world.release(&first, grant.epoch);
        world.settle(held.id, grant.epoch);
        world.second = 10;
        assert_eq!(world.finishes(worker), [], "it waits");
        if stopped {
            let now = world.now();
            let txn = world.leases.stitches().end_task(task, false, now).unwrap();
            world.kv.commit(txn).unwrap();
            world.reload();
        }
        world.second = if stopped { 11 } else { 21 };
        world.hear(worker);
        let jobs = world.finishes(worker);
        assert_eq!((jobs[0].recording, jobs[0].reason.as_str()), (held.id, "unpublish"));
    }
}

#[test]
fn what_a_task_was_granted_ahead_and_never_began_is_not_gone_on_with() {
    let mut world = World::new();
    let worker = world.worker_on("");
    let task = world.task(60, 120);
    let first = world.request(worker);
    let grant = world.grant(&first);
    let held = World::granted_for(&grant, task);
    assert_eq!(held.state, RecordingState::Scheduled);
    world.second = 30;
    world.hear(worker);
    world.release(&first, grant.epoch);
    world.second = 40;
    let second = world.request(worker);
    let grant = world.grant(&second);
    let other = World::granted_for(&grant, task);
    assert!(other.id != held.id && other.stitch == Some(Stitch::default()));
    // Its worker does not come back to say that it never began.
    world.release(&second, grant.epoch);
    world.second += 601;
    let (now, another) = (world.mono(), world.worker_on(""));
    world.fleet.tick(now);
    assert!(world.finishes(another).is_empty(), "it could not read what is stored");
    world.hear(worker);
    assert_eq!(world.finishes(worker).len(), 0, "it is heard from, and will say it");
}

#[test]
fn a_task_that_is_given_to_a_live_publish_goes_on_with_what_waits() {
    let mut world = World::new();
    let worker = world.worker_on("");
    let task = world.task(-1, 100);
    let first = world.request(worker);
    let grant = world.grant(&first);
    let held = World::granted_for(&grant, task);
    world.begun(held.id);
    world.release(&first, grant.epoch);
    // A publish that was granted before the task was known to this coordinator.
    let tasks = std::mem::replace(
        &mut world.tasks,
        Tasks::new(
            shared::config::TasksConfig::default(),
            Duration::from_secs(1),
            vec![],
            Monotonic::default(),
        ),
    );
    let second = world.request(worker);
    let grant = world.grant(&second);
    assert!(grant.recordings.iter().all(|held| held.cause != Cause::Task(task)));
    world.tasks = tasks;
    let cx = Context {
        catalog: &world.catalog,
        fleet: &world.fleet,
        tasks: &world.tasks,
        doors: &world.doors,
        vault: &world.vault,
        ids: &world.ids,
        now: world.now(),
        mono: world.mono(),
    };
    let given = world.tasks.get(task).unwrap().clone();
    let changed = world.leases.grant_task(&cx, &given).unwrap().unwrap();
    assert_eq!((changed.goes_on, changed.epoch), (Some(held.id), grant.epoch));
    assert!(world.leases.grant_task(&cx, &given).unwrap().is_none(), "once");
    world.kv.commit(changed.txn).unwrap();
    let (_, set) = world.leases.durable(second.publish, changed.revision).unwrap();
    let added = World::granted_for(&set.grant, task);
    assert_eq!((added.id, added.stitch.unwrap().before), (held.id, vec![Epoch::new(1)]));
}

#[test]
fn a_stream_that_only_its_worker_remembers_breaks_off_and_goes_on_with_its_recording() {
    let mut world = world();
    let worker = world.worker_on("");
    let before = world.kv.clone();
    let (first, grant, id, _) = world.publish(worker);
    world.set_back(&before);
    assert_eq!(world.remind(&first, &grant), grant, "what was granted stands");
    let stitch = world.stitch(id).unwrap();
    assert_eq!(
        (stitch.live, &stitch.epochs[..]),
        (Some(first.publish), &[grant.epoch][..])
    );
    assert_eq!(stitch.open, [(grant.epoch, worker)]);
    // It breaks off, and the next coordinator goes on from what the store has.
    world.release(&first, grant.epoch);
    world.reload();
    world.second = WAIT;
    let (second, next, again, stitch) = world.publish(worker);
    assert_eq!(
        (again, &stitch.before[..]),
        (id, &[grant.epoch][..]),
        "one recording, one list"
    );
    // Nobody comes any more: it is finished, of both.
    world.release(&second, next.epoch);
    world.settle(id, grant.epoch);
    world.settle(id, next.epoch);
    world.second += WAIT + 1;
    let jobs = world.finishes(worker);
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].recording, jobs[0].before.len()), (id, 2));
}

#[test]
fn the_second_publish_of_a_recording_that_the_store_remembers_goes_on_in_it() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    world.release(&first, grant.epoch);
    let before = world.kv.clone();
    let (second, grant, again, _) = world.publish(worker);
    assert_eq!(again, id);
    world.set_back(&before);
    world.remind(&second, &grant);
    let stitch = world.stitch(id).unwrap();
    assert_eq!(stitch.live, Some(second.publish));
    assert_eq!(stitch.epochs, [Epoch::new(1), Epoch::new(2)]);
    assert_eq!(stitch.open.len(), 2, "of neither is everything in storage");
    let entry = world.kv.get(&keys::recording(id)).unwrap();
    let recording: Recording = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(recording.publishes, [first.publish], "the first is not forgotten");
    world.release(&second, grant.epoch);
    let (.., third, stitch) = world.publish(worker);
    assert_eq!((third, &stitch.before[..]), (id, &[Epoch::new(2), Epoch::new(1)][..]));
}

#[test]
fn what_an_adopted_journal_remembers_of_a_stitched_recording_waits_and_is_finished() {
    let mut world = world();
    let worker = world.worker_on("");
    let before = world.kv.clone();
    let (first, grant, id, _) = world.publish(worker);
    world.set_back(&before);
    let adopted = Request { adopted: true, ..first };
    world.remind(&adopted, &grant);
    let stitch = world.stitch(id).unwrap();
    assert_eq!((stitch.live, stitch.open), (None, vec![(grant.epoch, worker)]));
    world.settle(id, grant.epoch);
    world.second += WAIT + 1;
    assert_eq!(world.finishes(worker).len(), 1);
}

#[test]
fn a_recording_that_ended_meanwhile_is_not_begun_again_by_who_remembers_it() {
    let mut world = world();
    let worker = world.worker_on("");
    let (first, grant, id, _) = world.publish(worker);
    let entry = world.kv.get(&keys::recording(id)).unwrap();
    let mut recording: Recording = serde_json::from_slice(&entry.value).unwrap();
    recording.state = RecordingState::Failed;
    let old = Txn::new().put_json(keys::recording(id), &recording).unwrap();
    let old = old.delete(keys::publish(first.publish)).delete(keys::stitch(id));
    world.kv.commit(old).unwrap();
    world.reload();
    let told = world.remind(&first, &grant);
    assert_eq!(told.recordings[0].state, RecordingState::Failed);
    assert_eq!(world.stitch(id), None);
    let entry = world.kv.get(&keys::recording(id)).unwrap();
    let after: Recording = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(after.state, RecordingState::Failed, "what has ended stays so");
    assert!(world.leases.holder(&first.stream).is_none());
    let now = world.mono();
    let drops = world.leases.named(worker, &[first.publish], now);
    assert_eq!(drops.len(), 1, "its publisher begins anew");
}

#[test]
fn a_publish_that_its_worker_never_had_keeps_no_recording_waiting() {
    let mut world = world();
    let worker = world.worker_on("");
    let (_, grant, id, _) = world.publish(worker);
    world.second = 20;
    let (now, mono, limit) = (world.now(), world.mono(), Duration::from_secs(10));
    let report = crate::fleet::Report::default();
    world.fleet.heartbeat(worker, SessionId(1), report, mono);
    for (_, txn) in world.leases.end_unnamed(&world.fleet, limit, now).unwrap() {
        world.kv.commit(txn).unwrap();
    }
    world.reload();
    // Whoever goes on does not wait for what that one stores.
    let (second, next, again, stitch) = world.publish(worker);
    assert_eq!(
        (again, stitch.before.as_slice(), stitch.lost),
        (id, &[grant.epoch][..], true)
    );
    world.release(&second, next.epoch);
    world.settle(id, next.epoch);
    // It may store something all the same; so long the recording is not finished.
    world.second = 20 + WAIT + 1;
    world.hear(worker);
    assert!(world.finishes(worker).is_empty());
    world.second = 21 + i64::try_from(GONE.as_secs()).unwrap();
    world.hear(worker);
    assert_eq!(world.finishes(worker).len(), 1);
}

#[path = "found_tests.rs"]
mod found;
