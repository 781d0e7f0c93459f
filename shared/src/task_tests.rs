use proptest::prelude::*;

use super::*;

fn at(s: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + s * 1_000)
}

fn new(start: Option<i64>, end: i64) -> NewTask {
    NewTask {
        stream: "d/a/s".parse().unwrap(),
        start: start.map(at),
        end: at(end),
        template_ref: String::new(),
        stream_type: StreamType::Push,
        client_token: String::new(),
        require_live: false,
    }
}

fn refusal(new: &NewTask) -> String {
    new.check(at(0), &TasksConfig::default()).unwrap_err().to_string()
}

#[test]
fn every_refusal_names_what_would_do() {
    let limits = TasksConfig::default();
    assert_eq!(new(None, 60).check(at(0), &limits), Ok(at(0)));
    assert_eq!(
        new(Some(-60), 60).check(at(0), &limits),
        Ok(at(-60)),
        "the past is legal"
    );
    assert!(refusal(&new(Some(10), 10)).contains("is not after start"));
    assert!(refusal(&new(Some(-10), -5)).contains("is past"));
    assert!(refusal(&new(Some(-10), 0)).contains("is past"));
    assert!(refusal(&new(Some(0), 86_401)).contains("coordinator.tasks.max_span"));
    assert_eq!(new(Some(0), 86_400).check(at(0), &limits), Ok(at(0)));
    let week = 7 * 86_400;
    assert!(refusal(&new(Some(week - 5), week + 1)).contains("coordinator.tasks.max_ahead"));
    assert_eq!(new(Some(week - 5), week).check(at(0), &limits), Ok(at(week - 5)));
    for token in ["a b", "ä", &"x".repeat(65)] {
        let client_token = token.to_owned();
        assert!(
            refusal(&NewTask {
                client_token,
                ..new(None, 5)
            })
            .contains("client_token"),
            "{token}"
        );
    }
    let template_ref = "x".repeat(256);
    assert!(
        refusal(&NewTask {
            template_ref,
            ..new(None, 5)
        })
        .contains("template has 256 bytes")
    );
    let extreme = NewTask {
        end: Timestamp::from_millis(i64::MAX),
        ..new(Some(0), 0)
    };
    assert!(refusal(&extreme).contains("max_span"));
    let extreme = NewTask {
        start: Some(Timestamp::from_millis(i64::MIN)),
        ..new(None, 5)
    };
    assert!(refusal(&extreme).contains("max_span"));
}

#[test]
fn the_default_is_flv_of_thirty_minutes_for_ever() {
    let spec = default_recording();
    spec.validate().unwrap();
    let [(format, settings)] = spec.formats.iter().collect::<Vec<_>>()[..] else {
        panic!("one format")
    };
    assert_eq!(
        (*format, settings.record_interval_s, settings.storage_time_s),
        (Format::Flv, 1_800, 0)
    );
}

fn event() -> impl Strategy<Value = TaskEvent> {
    prop::sample::select(TaskEvent::ALL.to_vec())
}

proptest! {
    #[test]
    fn whatever_happens_a_task_moves_only_towards_its_end(events in prop::collection::vec(event(), 0..60)) {
        let mut state = TaskState::Scheduled;
        let mut finishing = false;
        for event in events {
            let before = state;
            match state.after(event) {
                Ok(after) => {
                    prop_assert!(!before.is_terminal(), "terminal states are final");
                    prop_assert_ne!(after, before, "each event that is taken changes something");
                    prop_assert_ne!(after, TaskState::Scheduled, "what has begun is not scheduled again");
                    prop_assert!(!finishing || after.is_terminal(), "from finishing it only ends");
                    state = after;
                }
                Err(error) => prop_assert_eq!(error, IllegalTransition { from: before, event }),
            }
            finishing |= state == TaskState::Finishing;
        }
    }

    #[test]
    fn what_is_accepted_is_within_the_limits(start in prop::option::of(-100_000i64..800_000), end in -100_000i64..900_000) {
        let limits = TasksConfig::default();
        if let Ok(begin) = new(start, end).check(at(0), &limits) {
            prop_assert!(begin < at(end) && at(end) > at(0));
            prop_assert!(begin + limits.max_span >= at(end));
            prop_assert!(at(0) + limits.max_ahead >= at(end));
        }
    }
}

#[test]
fn from_every_open_state_a_task_can_end() {
    for state in TaskState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        let over = if state == TaskState::Finishing {
            Ok(state)
        } else {
            state.after(TaskEvent::TimeOver)
        };
        assert_eq!(over, Ok(TaskState::Finishing), "{state}");
    }
}
