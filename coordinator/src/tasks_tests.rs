use proptest::prelude::*;
use shared::{
    ids::{IdGen as _, RecordingId, Seeded},
    recording::Cause,
    task::StreamType,
};

use super::*;

const START: i64 = 1_790_000_000;

fn at(s: i64) -> Timestamp {
    Timestamp::from_millis((START + s) * 1_000)
}

fn mono(s: i64) -> Monotonic {
    Monotonic::from_millis(s * 1_000)
}

fn stream(name: &str) -> StreamKey {
    StreamKey::new("d", "a", name).unwrap()
}

fn tasks() -> Tasks {
    Tasks::new(TasksConfig::default(), Duration::from_secs(10), vec![], mono(0))
}

fn new(start: Option<i64>, end: i64) -> NewTask {
    NewTask {
        stream: stream("s"),
        start: start.map(at),
        end: at(end),
        template_ref: String::new(),
        stream_type: StreamType::Push,
        client_token: String::new(),
        require_live: false,
    }
}

/// Asks for a task at second `s`.
fn ask(tasks: &mut Tasks, new: NewTask, s: i64, presence: Presence) -> Result<Made, TaskError> {
    let id = TaskId::from_uuid(Seeded::new(tasks.len() as u64 + 1).uuid(at(s)));
    tasks.create(new, id, (None, None), presence, (at(s), mono(s)))
}

fn make(tasks: &mut Tasks, new: NewTask, s: i64, presence: Presence) -> TaskId {
    match ask(tasks, new, s, presence).unwrap() {
        Made::New(task, _) => task.id,
        Made::Again(task) => panic!("made before: {task:?}"),
    }
}

fn look(tasks: &mut Tasks, s: i64, presence: Presence) -> Plan {
    tasks.plan(|_| presence, (at(s), mono(s))).unwrap()
}

fn state(tasks: &Tasks, id: TaskId) -> TaskState {
    tasks.get(id).unwrap().state
}

/// A recording of the task that stands as said.
fn recording(task: &Task, state: RecordingState, files: u32) -> TaskRecording {
    let ids = Seeded::new(99);
    TaskRecording {
        recording: shared::recording::Recording {
            id: RecordingId::generate(&ids, at(0)),
            stream: task.stream.clone(),
            cause: Cause::Task(task.id),
            state,
            reason: "disk_full".to_owned(),
            epoch: shared::lease::Epoch::new(1),
            template: task.template.clone(),
            template_id: None,
            publishes: vec![],
            worker: shared::ids::WorkerId::generate(&ids, at(0)),
            params: String::new(),
            started: at(0),
            ended: None,
            gaps: vec![],
            locked: false,
        },
        files,
        bytes: 0,
    }
}

#[test]
fn a_task_is_told_of_an_hour_ahead_and_begins_and_ends_by_the_clock() {
    let mut tasks = tasks();
    let id = make(&mut tasks, new(Some(4_000), 5_000), 0, Presence::Offline);
    let plan = look(&mut tasks, 0, Presence::Live);
    assert!(plan.grant.is_empty() && plan.txns.is_empty(), "too early");
    assert_eq!(plan.wake, Some(at(400)));
    let plan = look(&mut tasks, 400, Presence::Live);
    assert_eq!((plan.grant, plan.txns.len(), plan.wake), (vec![id], 0, Some(at(4_000))));
    let plan = look(&mut tasks, 4_000, Presence::Live);
    assert_eq!((plan.txns.len(), plan.wake), (1, Some(at(5_000))));
    assert_eq!(state(&tasks, id), TaskState::Recording);
    assert!(look(&mut tasks, 4_001, Presence::Live).txns.is_empty(), "once");
    for (second, presence, expected) in [
        (4_100, Presence::Interrupted, TaskState::Interrupted),
        (4_200, Presence::Live, TaskState::Recording),
        (4_300, Presence::Offline, TaskState::Waiting),
        (4_400, Presence::Live, TaskState::Recording),
    ] {
        assert_eq!(look(&mut tasks, second, presence).txns.len(), 1);
        assert_eq!(state(&tasks, id), expected);
    }
    let plan = look(&mut tasks, 5_000, Presence::Live);
    assert_eq!(plan.read, [id]);
    assert!(plan.grant.is_empty());
    assert_eq!(state(&tasks, id), TaskState::Finishing);
    assert!(
        look(&mut tasks, 5_001, Presence::Live).read.is_empty(),
        "not at once again"
    );
    tasks.hint(id, mono(5_002));
    assert_eq!(look(&mut tasks, 5_002, Presence::Live).read, [id]);
    assert_eq!(look(&mut tasks, 5_007, Presence::Live).read, [id]);

    let task = tasks.get(id).unwrap().clone();
    let running = [recording(&task, RecordingState::Recording, 1)];
    let now = (at(5_010), mono(5_010));
    assert!(tasks.settle(id, &running, now, true).unwrap().is_none());
    let done = [
        recording(&task, RecordingState::Finished, 0),
        recording(&task, RecordingState::Finished, 1),
    ];
    let (ended, _) = tasks.settle(id, &done, now, true).unwrap().unwrap();
    assert_eq!(
        (ended.state, ended.ended, ended.reason.as_str()),
        (TaskState::Completed, Some(at(5_010)), "")
    );
    assert!(tasks.get(id).is_none() && tasks.streams.is_empty());
}

#[test]
fn a_clock_that_jumps_makes_nothing_happen_twice() {
    let mut tasks = tasks();
    let id = make(&mut tasks, new(Some(100), 200), 0, Presence::Live);
    look(&mut tasks, 100, Presence::Live);
    assert_eq!(state(&tasks, id), TaskState::Recording);
    for back in [0, 50, 99] {
        let plan = look(&mut tasks, back, Presence::Live);
        assert!(plan.txns.is_empty(), "what has begun goes on");
    }
    look(&mut tasks, 10_000, Presence::Live);
    assert_eq!(state(&tasks, id), TaskState::Finishing);
    let plan = look(&mut tasks, 100, Presence::Live);
    assert!(plan.txns.is_empty(), "what is over does not begin again");
    assert_eq!(
        plan.grant,
        [id],
        "and its worker, which goes by its own clock, records what there is"
    );
    let plan = look(&mut tasks, 200, Presence::Live);
    assert!(plan.txns.is_empty() && plan.grant.is_empty(), "it ends once");
}

#[test]
fn outcomes_have_names() {
    let outcome = |presence, stopped: bool, files: &[(RecordingState, u32)]| {
        let mut tasks = tasks();
        let id = make(&mut tasks, new(Some(10), 20), 0, presence);
        look(&mut tasks, 10, presence);
        if stopped {
            tasks.stop(id, None, at(15)).unwrap();
        }
        look(&mut tasks, 20, presence);
        let task = tasks.get(id).unwrap().clone();
        let recordings: Vec<_> = files
            .iter()
            .map(|(state, files)| recording(&task, *state, *files))
            .collect();
        let patient = stopped
            || files
                .iter()
                .any(|(state, files)| *files > 0 || *state == RecordingState::Failed);
        let early = tasks.settle(id, &recordings, (at(25), mono(25)), true).unwrap();
        assert_eq!(early.is_some(), patient, "only what cannot change is settled at once");
        let ended = early.or_else(|| tasks.settle(id, &recordings, (at(31), mono(31)), true).unwrap());
        let (task, _) = ended.unwrap();
        (task.state, task.reason)
    };
    let finished = RecordingState::Finished;
    for (presence, stopped, files, state, reason) in [
        (Presence::Offline, false, &[][..], TaskState::Failed, STREAM_NEVER_LIVE),
        (
            Presence::Offline,
            true,
            &[],
            TaskState::Cancelled,
            STOPPED_BEFORE_RECORDING,
        ),
        (Presence::Live, false, &[(finished, 0)], TaskState::Failed, NO_MEDIA),
        (Presence::Live, false, &[(finished, 2)], TaskState::Completed, ""),
        (Presence::Live, true, &[(finished, 2)], TaskState::Completed, ""),
        (
            Presence::Live,
            false,
            &[(finished, 2), (RecordingState::Failed, 1)],
            TaskState::Failed,
            "disk_full",
        ),
    ] {
        assert_eq!(
            outcome(presence, stopped, files),
            (state, reason.to_owned()),
            "{files:?} {stopped}"
        );
    }
}

#[test]
fn a_leader_that_takes_over_late_waits_for_what_workers_know() {
    let mut before = tasks();
    let id = make(&mut before, new(Some(10), 20), 0, Presence::Live);
    let task = before.get(id).unwrap().clone();
    let mut after = Tasks::new(TasksConfig::default(), Duration::from_secs(10), vec![task], mono(1_000));
    let plan = look(&mut after, 1_000, Presence::Offline);
    assert_eq!((plan.txns.len(), plan.read), (1, vec![id]), "start and end have passed");
    assert!(after.settle(id, &[], (at(1_005), mono(1_005)), true).unwrap().is_none());
    let wanted = after.wanted(&stream("s"), at(5), at(1_006));
    assert_eq!(wanted.len(), 1, "a publish of its time that asks only now is recorded");
    assert!(after.wanted(&stream("s"), at(20), at(1_006)).is_empty());
    let (task, _) = after.settle(id, &[], (at(1_010), mono(1_010)), true).unwrap().unwrap();
    assert_eq!(task.reason, STREAM_NEVER_LIVE);
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_ends_no_task_for_good() {
    let mut tasks = tasks();
    let id = make(&mut tasks, new(Some(4_000), 5_000), 0, Presence::Offline);
    // A clock that is an hour and a half ahead, of a coordinator that has just come up.
    let seen = |tasks: &mut Tasks, wall, elapsed| tasks.plan(|_| Presence::Live, (at(wall), mono(elapsed))).unwrap();
    let plan = seen(&mut tasks, 5_500, 100);
    assert_eq!((plan.read, state(&tasks, id)), (vec![id], TaskState::Finishing));
    let doubtful = tasks.settle(id, &[], (at(5_500), mono(100)), false).unwrap();
    assert!(doubtful.is_none(), "nobody else said that its time is over");
    // The clock is right again.
    assert!(tasks.settle(id, &[], (at(1_000), mono(200)), true).unwrap().is_none());
    let plan = seen(&mut tasks, 1_000, 1_000);
    assert_eq!(plan.grant, [id], "its stream's worker is told as ever");
    assert_eq!(tasks.wanted(&stream("s"), at(900), at(1_000)).len(), 1);
    let task = tasks.get(id).unwrap().clone();
    let part = [recording(&task, RecordingState::Finished, 1)];
    let early = tasks.settle(id, &part, (at(4_500), mono(4_500)), true).unwrap();
    assert!(early.is_none(), "the stream may come back");
    let (task, _) = tasks
        .settle(id, &part, (at(5_000), mono(5_000)), true)
        .unwrap()
        .unwrap();
    assert_eq!(task.state, TaskState::Completed);
}

#[test]
fn a_worker_that_ended_the_recording_by_its_own_clock_vouches_for_the_end() {
    let mut tasks = tasks();
    let id = make(&mut tasks, new(Some(10), 20), 0, Presence::Live);
    look(&mut tasks, 20, Presence::Live);
    let task = tasks.get(id).unwrap().clone();
    let mut ended = [recording(&task, RecordingState::Finished, 1)];
    let doubtful = tasks.settle(id, &ended, (at(20), mono(20)), false).unwrap();
    assert!(doubtful.is_none(), "its publisher may have left and come back");
    ended[0].recording.reason = TASK_ENDED.to_owned();
    let (task, _) = tasks.settle(id, &ended, (at(20), mono(20)), false).unwrap().unwrap();
    assert_eq!(task.state, TaskState::Completed);
}

#[test]
fn stopping_and_deleting_say_what_they_cannot_do() {
    let mut tasks = tasks();
    let id = make(&mut tasks, new(Some(10), 20), 0, Presence::Live);
    let (stopped, txn) = tasks.stop(id, None, at(5)).unwrap();
    assert_eq!((stopped.state, txn.is_some()), (TaskState::Cancelled, true));
    let (_, again) = tasks.stop(id, Some(stopped), at(6)).unwrap();
    assert!(again.is_none(), "a stop may be repeated");
    assert!(matches!(tasks.stop(id, None, at(6)), Err(TaskError::NoTask(_))));

    let id = make(&mut tasks, new(Some(10), 20), 6, Presence::Live);
    look(&mut tasks, 10, Presence::Live);
    assert!(matches!(tasks.delete(id, None, false), Err(TaskError::Running { .. })));
    let (stopped, _) = tasks.stop(id, None, at(12)).unwrap();
    assert_eq!((stopped.state, stopped.over()), (TaskState::Finishing, at(12)));
    assert!(tasks.stop(id, None, at(13)).unwrap().1.is_none());
    assert!(
        tasks.wanted(&stream("s"), at(0), at(13)).is_empty(),
        "a stopped task records no further publish"
    );

    let id = make(&mut tasks, new(Some(10), 20), 6, Presence::Live);
    look(&mut tasks, 20, Presence::Live);
    let over = tasks.stop(id, None, at(21)).unwrap_err();
    assert!(over.to_string().contains("nothing to stop"), "{over}");
    assert!(matches!(tasks.delete(id, None, false), Err(TaskError::Running { .. })));
    tasks.delete(id, None, true).unwrap();
    assert!(matches!(tasks.delete(id, None, true), Err(TaskError::NoTask(_))));
}

#[test]
fn limits_tokens_and_templates_are_kept() {
    let limits = TasksConfig {
        max_open: 3,
        max_per_stream: 2,
        ..TasksConfig::default()
    };
    let mut tasks = Tasks::new(limits, Duration::from_secs(10), vec![], mono(0));
    let with = |token: &str, end| NewTask {
        client_token: token.to_owned(),
        ..new(None, end)
    };
    assert!(matches!(
        ask(&mut tasks, new(None, 60), 0, Presence::Offline),
        Err(TaskError::NotLive(_))
    ));
    assert!(matches!(
        ask(&mut tasks, new(None, 60), 0, Presence::Interrupted),
        Err(TaskError::NotLive(_))
    ));
    let live = NewTask {
        require_live: true,
        ..new(Some(5), 60)
    };
    assert!(matches!(
        ask(&mut tasks, live, 0, Presence::Offline),
        Err(TaskError::NotLive(_))
    ));
    let id = make(&mut tasks, with("t", 60), 0, Presence::Live);
    let Made::Again(again) = ask(&mut tasks, with("t", 60), 9, Presence::Offline).unwrap() else {
        panic!("made twice")
    };
    assert_eq!(again.id, id, "also when it could not be made any more");
    let other = ask(&mut tasks, with("t", 61), 9, Presence::Live).unwrap_err();
    assert!(matches!(other, TaskError::TokenTaken { task, .. } if task == id));
    let stored = tasks.remove(id);
    let made = tasks.create(with("t", 60), id, (None, stored), Presence::Live, (at(9), mono(9)));
    assert!(matches!(made, Ok(Made::Again(_))), "ended tasks keep their tokens");

    let nothing = Some(TemplateSpec::plain("never", &[]));
    let refused = tasks.create(new(None, 60), id, (nothing, None), Presence::Live, (at(0), mono(0)));
    assert!(matches!(refused, Err(TaskError::RecordsNothing(_))));
    make(&mut tasks, new(None, 60), 0, Presence::Live);
    make(&mut tasks, new(None, 60), 1, Presence::Live);
    let full = ask(&mut tasks, new(None, 60), 2, Presence::Live).unwrap_err();
    assert!(full.to_string().contains("coordinator.tasks.max_per_stream"), "{full}");
    let elsewhere = |name: &str| NewTask {
        stream: stream(name),
        ..new(None, 60)
    };
    make(&mut tasks, elsewhere("t"), 3, Presence::Live);
    let full = ask(&mut tasks, elsewhere("u"), 4, Presence::Live).unwrap_err();
    assert!(full.to_string().contains("coordinator.tasks.max_open"), "{full}");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Pass(i64),
    Jump(i64),
    See(Presence),
    Stop,
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1i64..400).prop_map(Step::Pass),
        1 => (-500i64..500).prop_map(Step::Jump),
        3 => prop::sample::select(vec![Presence::Offline, Presence::Live, Presence::Interrupted]).prop_map(Step::See),
        1 => Just(Step::Stop),
        1 => Just(Step::TakeOver),
    ]
}

proptest! {
    /// Whatever streams, clocks and leaders do, a task ends once and never waits for ever.
    #[test]
    fn every_task_ends(start in 0i64..2_000, span in 1i64..2_000, steps in prop::collection::vec(step(), 0..40)) {
        let mut tasks = tasks();
        let id = make(&mut tasks, new(Some(start), start + span), 0, Presence::Live);
        let (mut wall, mut elapsed, mut presence, mut recorded) = (0, 0, Presence::Offline, false);
        let mut states = vec![TaskState::Scheduled];
        for step in steps.into_iter().chain([Step::See(Presence::Offline), Step::Pass(10_000), Step::Pass(100)]) {
            match step {
                Step::Pass(s) => (wall, elapsed) = (wall + s, elapsed + s),
                Step::Jump(s) => wall += s,
                Step::See(seen) => presence = seen,
                Step::Stop => drop(tasks.stop(id, None, at(wall))),
                Step::TakeOver => {
                    let open = tasks.get(id).cloned().into_iter().collect();
                    tasks = Tasks::new(TasksConfig::default(), Duration::from_secs(10), open, mono(elapsed));
                }
            }
            let plan = tasks.plan(|_| presence, (at(wall), mono(elapsed))).unwrap();
            recorded |= plan.grant.contains(&id);
            if plan.read.contains(&id) {
                let task = tasks.get(id).unwrap().clone();
                let made = [recording(&task, RecordingState::Finished, 1)];
                tasks.settle(id, if recorded { &made } else { &[] }, (at(wall), mono(elapsed)), true).unwrap();
            }
            match tasks.get(id) {
                Some(task) if states.last() != Some(&task.state) => states.push(task.state),
                _ => {}
            }
        }
        prop_assert!(tasks.get(id).is_none(), "{states:?}");
        prop_assert!(states.iter().filter(|state| **state == TaskState::Finishing).count() <= 1, "{states:?}");
        prop_assert!(states.iter().filter(|state| **state == TaskState::Scheduled).count() == 1, "{states:?}");
    }
}
