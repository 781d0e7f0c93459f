use super::*;
use shared::ids::Seeded;
use shared::lease::Epoch;
use shared::recording::Cause;
use shared::template::TemplateSpec;

fn grant(formats: &[Format]) -> (RecordingId, Grant) {
    let id = RecordingId::generate(&Seeded::new(1), Timestamp::from_millis(1));
    let template = TemplateSpec::plain("t", formats);
    let recording = GrantedRecording {
        id,
        cause: Cause::BuiltIn,
        template: template.into(),
        state: RecordingState::Recording,
        window: Window::default(),
        stitch: None,
    };
    (
        id,
        Grant {
            epoch: Epoch::new(1),
            revision: 1,
            recordings: vec![recording],
        },
    )
}

/// Media that arrives as it is sent: nothing waits.
fn on(core: &mut StreamCore, event: Event) -> Vec<Effect> {
    let at = Moment {
        now_ms: 1_000_000,
        arrived_ms: 1_000_000,
    };
    core.on(event, at)
}

fn file(id: &str) -> FinishedFile {
    FinishedFile {
        file_id: id.to_owned(),
        format: Format::Mp4,
        sequence: 0,
        key: "k".to_owned(),
        size: 1,
        checksum: String::new(),
        duration_ms: 1,
        start_ms: 0,
        video_units: 1,
        audio_units: 0,
        gaps: Vec::new(),
    }
}

#[test]
fn the_journal_goes_only_when_the_library_has_everything() {
    let mut core = StreamCore::default();
    let (id, grant) = grant(&[Format::Mp4]);
    let started = on(&mut core, Event::Granted(grant));
    assert!(matches!(
        started.last(),
        Some(Effect::StartRecorder {
            format: Format::Mp4,
            ..
        })
    ));
    let ended = on(&mut core, Event::Closed("peer_closed".to_owned()));
    assert_eq!(
        ended,
        [
            Effect::ReleaseLease {
                reason: "peer_closed".to_owned()
            },
            Effect::EndRecorders(id),
        ]
    );
    let rendered = on(
        &mut core,
        Event::Rendered {
            recording: id,
            format: Format::Mp4,
            files: vec![file("a")],
            left_out: Vec::new(),
            done: true,
        },
    );
    assert_eq!(
        rendered,
        [Effect::CommitFile {
            recording: id,
            file: file("a")
        }]
    );
    let committed = on(
        &mut core,
        Event::FileCommitted {
            recording: id,
            file_id: "a".to_owned(),
        },
    );
    assert!(matches!(
        committed.last(),
        Some(Effect::CommitRecording {
            state: RecordingState::Finished,
            ..
        })
    ));
    assert_eq!(
        on(&mut core, Event::RecordingCommitted(id)),
        [],
        "the coordinator has not heard that it is over"
    );
    assert_eq!(on(&mut core, Event::Released(None)), [Effect::RemoveJournal]);
    assert!(core.removed);
    assert_eq!(on(&mut core, Event::RecordingCommitted(id)), []);
}

#[test]
fn a_publish_that_ends_before_its_lease_comes_is_recorded_all_the_same() {
    let mut core = StreamCore::default();
    assert_eq!(on(&mut core, Event::Closed("deleteStream".to_owned())), []);
    let (id, grant) = grant(&[Format::Flv]);
    let effects = on(&mut core, Event::Granted(grant));
    assert!(effects.contains(&Effect::EndRecorders(id)));
    assert!(!core.removed);
}

#[test]
fn a_refused_publish_is_dropped_and_forgotten() {
    let mut core = StreamCore::default();
    assert_eq!(
        on(&mut core, Event::Refused("live elsewhere".to_owned())),
        [Effect::DropPublisher {
            reason: "live elsewhere".to_owned()
        }]
    );
    assert_eq!(
        on(&mut core, Event::Closed("refused".to_owned())),
        [Effect::RemoveJournal]
    );
}

#[test]
fn a_refused_publish_does_not_ask_again() {
    let mut core = StreamCore::default();
    assert_eq!(on(&mut core, Event::Unknown), [Effect::Ask]);
    let drops = || Effect::DropPublisher {
        reason: "live elsewhere".to_owned(),
    };
    assert_eq!(on(&mut core, Event::Refused("live elsewhere".to_owned())), [drops()]);
    // Its publisher is still connected, so that it is still named in heartbeats; the stream is free by now.
    assert_eq!(on(&mut core, Event::Unknown), [drops()]);
    assert_eq!(
        on(&mut core, Event::Closed("refused".to_owned())),
        [Effect::RemoveJournal]
    );
    assert_eq!(on(&mut core, Event::Unknown), []);
}

#[test]
fn a_stream_without_recordings_leaves_nothing() {
    let mut core = StreamCore::default();
    on(
        &mut core,
        Event::Granted(Grant {
            epoch: Epoch::new(1),
            revision: 1,
            recordings: Vec::new(),
        }),
    );
    let effects = on(&mut core, Event::Closed("deleteStream".to_owned()));
    assert!(matches!(effects.last(), Some(Effect::ReleaseLease { .. })));
    assert_eq!(on(&mut core, Event::Released(None)), [Effect::RemoveJournal]);
}

#[test]
fn a_recorder_that_gives_up_fails_the_recording_by_name() {
    let mut core = StreamCore::default();
    let (id, grant) = grant(&[Format::Mp4, Format::Flv]);
    on(&mut core, Event::Granted(grant));
    on(
        &mut core,
        Event::Failed {
            recording: id,
            format: Format::Mp4,
            reason: "disk".to_owned(),
        },
    );
    on(&mut core, Event::Closed("peer_closed".to_owned()));
    let effects = on(
        &mut core,
        Event::Rendered {
            recording: id,
            format: Format::Flv,
            files: Vec::new(),
            left_out: Vec::new(),
            done: true,
        },
    );
    let failed = Effect::CommitRecording {
        recording: id,
        state: RecordingState::Failed,
        reason: "mp4: disk".to_owned(),
        gaps: Vec::new(),
    };
    assert!(effects.contains(&failed));
}

fn moment(arrived_ms: i64) -> Moment {
    Moment {
        now_ms: arrived_ms,
        arrived_ms,
    }
}

/// A task's recording between two moments, as it is granted ahead of time.
fn windowed(seed: u64, from_ms: i64, until_ms: i64) -> GrantedRecording {
    let (_, grant) = grant(&[Format::Flv]);
    GrantedRecording {
        id: RecordingId::generate(&Seeded::new(seed), Timestamp::from_millis(1)),
        state: RecordingState::Scheduled,
        window: Window {
            from: Some(Timestamp::from_millis(from_ms)),
            until: Some(Timestamp::from_millis(until_ms)),
            cancelled: false,
        },
        ..grant.recordings[0].clone()
    }
}

fn set(revision: u64, recordings: &[&GrantedRecording]) -> Grant {
    Grant {
        epoch: Epoch::new(1),
        revision,
        recordings: recordings.iter().map(|recording| (*recording).clone()).collect(),
    }
}

fn done(recording: &GrantedRecording) -> Event {
    Event::Rendered {
        recording: recording.id,
        format: Format::Flv,
        files: Vec::new(),
        left_out: Vec::new(),
        done: true,
    }
}

fn committed(effects: &[Effect]) -> Option<(RecordingId, RecordingState, &str)> {
    effects.iter().find_map(|effect| match effect {
        Effect::CommitRecording {
            recording,
            state,
            reason,
            ..
        } => Some((*recording, *state, reason.as_str())),
        _ => None,
    })
}

fn starts(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::StartRecorder { .. }))
}

#[test]
fn a_window_begins_with_the_first_arrival_in_it_and_ends_within_the_publish() {
    let mut core = StreamCore::default();
    let task = windowed(7, 5_000, 9_000);
    assert!(!starts(&core.on(Event::Granted(set(1, &[&task])), moment(1_000))));
    assert!(core.waits_for_time());
    // The clock alone begins nothing: a random access point before the start may still come.
    let silent = Moment {
        now_ms: 6_000,
        arrived_ms: 5_000,
    };
    assert_eq!(core.on(Event::Tick, silent), []);
    let begun = core.on(Event::Tick, moment(5_001));
    assert!(starts(&begun) && begun.contains(&Effect::Begin(task.id)));
    let kept = begun.iter().find_map(|effect| match effect {
        Effect::KeepGrant(grant) => Some(grant.recordings[0].state),
        _ => None,
    });
    assert_eq!(
        kept,
        Some(RecordingState::Recording),
        "a restart takes it up whatever becomes of its window"
    );
    assert_eq!(
        core.on(Event::Tick, moment(9_500)),
        [],
        "its recorder finds its end by itself"
    );
    assert_eq!(
        core.on(done(&task), moment(9_600)),
        [],
        "the library has not heard yet that it began"
    );
    let ended = core.on(Event::Begun(task.id), moment(9_600));
    assert_eq!(committed(&ended), Some((task.id, RecordingState::Finished, TASK_ENDED)));
    assert!(!core.waits_for_time());
    core.on(Event::RecordingCommitted(task.id), moment(9_700));
    core.on(Event::Closed("peer_closed".to_owned()), moment(20_000));
    let released = core.on(Event::Released(None), moment(20_000));
    assert_eq!(released, [Effect::RemoveJournal], "its end was its own");
}

#[test]
fn a_silent_publisher_does_not_keep_a_window_open() {
    let mut core = StreamCore::default();
    let task = windowed(7, 5_000, 9_000);
    core.on(Event::Granted(set(1, &[&task])), moment(6_000));
    let at = |now_ms| Moment {
        now_ms,
        arrived_ms: 6_000,
    };
    assert_eq!(core.on(Event::Tick, at(11_000)), []);
    assert_eq!(core.on(Event::Tick, at(11_001)), [Effect::EndRecorders(task.id)]);
    assert_eq!(core.on(Event::Tick, at(99_000)), [], "once");
}

#[test]
fn what_never_began_is_committed_as_such_and_needs_no_recorder() {
    let publish_ends: fn(&mut StreamCore) -> Vec<Effect> =
        |core| core.on(Event::Closed("peer_closed".to_owned()), moment(4_000));
    let cancelled: fn(&mut StreamCore) -> Vec<Effect> = |core| {
        let mut task = windowed(7, 5_000, 9_000);
        task.window.cancelled = true;
        core.on(Event::Set(set(2, &[&task])), moment(4_000))
    };
    let silent: fn(&mut StreamCore) -> Vec<Effect> = |core| {
        let at = Moment {
            now_ms: 12_000,
            arrived_ms: 4_000,
        };
        core.on(Event::Tick, at)
    };
    for end in [publish_ends, cancelled, silent] {
        let mut core = StreamCore::default();
        let task = windowed(7, 5_000, 9_000);
        core.on(Event::Granted(set(1, &[&task])), moment(1_000));
        let effects = end(&mut core);
        assert!(!starts(&effects));
        assert_eq!(
            committed(&effects),
            Some((task.id, RecordingState::Finished, NEVER_BEGAN))
        );
        assert!(
            !effects
                .iter()
                .any(|effect| matches!(effect, Effect::WriteDocument { .. })),
            "it leaves no trace"
        );
    }
}

#[test]
fn sets_are_taken_by_their_revision() {
    let mut core = StreamCore::default();
    let (rule, _) = grant(&[Format::Flv]);
    let ruled = grant(&[Format::Flv]).1.recordings.remove(0);
    let mut task = windowed(7, 500, 9_000);
    assert_eq!(
        core.on(Event::Set(set(5, &[&task])), moment(1_000)),
        [],
        "without a lease it means nothing"
    );
    core.on(Event::Granted(set(1, &[&ruled])), moment(1_000));
    let added = core.on(Event::Set(set(3, &[&ruled, &task])), moment(1_000));
    assert!(starts(&added));
    for stale in [1, 2, 3] {
        assert_eq!(core.on(Event::Set(set(stale, &[])), moment(1_000)), [], "{stale}");
    }
    let mut other = set(9, &[]);
    other.epoch = Epoch::new(2);
    assert_eq!(core.on(Event::Set(other), moment(1_000)), [], "of another epoch");
    task.window.until = Some(Timestamp::from_millis(2_000));
    let moved = core.on(Event::Set(set(4, &[&task])), moment(1_500));
    let end = Effect::MoveEnd {
        recording: task.id,
        until_ms: Some(2_000),
    };
    assert!(moved.contains(&end));
    let held = core.grant().expect("a grant");
    assert_eq!(
        (held.revision, held.recordings.len()),
        (4, 2),
        "one that is not named is not forgotten while it is open"
    );
    task.window.cancelled = true;
    let cancelled = core.on(Event::Set(set(6, &[&ruled, &task])), moment(1_600));
    assert!(
        cancelled.contains(&Effect::EndRecorders(task.id)),
        "one that runs ends where it has come to"
    );
    let closed = core.on(Event::Closed("x".to_owned()), moment(3_000));
    assert!(
        closed.contains(&Effect::EndRecorders(rule)),
        "the rule's recording went on"
    );
}

#[test]
fn a_restart_takes_up_what_had_begun_and_lets_go_what_had_not() {
    let mut core = StreamCore::default();
    let mut begun = windowed(7, 500, 9_000);
    begun.state = RecordingState::Recording;
    begun.window.cancelled = true;
    let ahead = windowed(8, 50_000, 90_000);
    let effects = core.on(Event::Granted(set(4, &[&begun, &ahead])), moment(2_000));
    assert!(
        starts(&effects),
        "also where it was stopped meanwhile: its files are finished"
    );
    let closed = core.on(Event::Closed("worker_killed".to_owned()), moment(2_000));
    assert_eq!(
        committed(&closed),
        Some((ahead.id, RecordingState::Finished, NEVER_BEGAN))
    );
    core.on(Event::Begun(begun.id), moment(2_000));
    let ended = core.on(done(&begun), moment(2_000));
    assert_eq!(
        committed(&ended),
        Some((begun.id, RecordingState::Finished, "worker_killed"))
    );
}

#[test]
fn a_stitched_recording_pauses_with_the_end_of_the_publish() {
    let mut core = StreamCore::default();
    let (id, mut grant) = grant(&[Format::Mp4, Format::Hls]);
    grant.recordings[0].stitch = Some(shared::lease::Stitch::default());
    on(&mut core, Event::Granted(grant));
    let ended = on(&mut core, Event::Closed("peer_closed".to_owned()));
    assert!(ended.contains(&Effect::EndRecorders(id)));
    for (format, files) in [(Format::Hls, Vec::new()), (Format::Mp4, vec![file("a")])] {
        on(
            &mut core,
            Event::Rendered {
                recording: id,
                format,
                files,
                left_out: Vec::new(),
                done: true,
            },
        );
    }
    let effects = on(
        &mut core,
        Event::FileCommitted {
            recording: id,
            file_id: "a".to_owned(),
        },
    );
    let paused = Effect::CommitRecording {
        recording: id,
        state: RecordingState::Interrupted,
        reason: "peer_closed".to_owned(),
        gaps: Vec::new(),
    };
    assert_eq!(effects.last(), Some(&paused), "once the library has its other files");
    assert_eq!(on(&mut core, Event::Released(None)), []);
    assert_eq!(on(&mut core, Event::RecordingCommitted(id)), [Effect::RemoveJournal]);
}

#[test]
fn a_stitched_recording_whose_time_is_over_leaves_its_end_to_whoever_finishes_it() {
    let mut core = StreamCore::default();
    let (id, mut grant) = grant(&[Format::Hls]);
    grant.recordings[0].stitch = Some(shared::lease::Stitch::default());
    grant.recordings[0].window.until = Some(Timestamp::from_millis(2_000));
    let at = |now_ms| Moment {
        now_ms,
        arrived_ms: now_ms,
    };
    core.on(Event::Granted(grant), at(1_000));
    let over = core.on(Event::Tick, at(4_001));
    assert!(over.contains(&Effect::EndRecorders(id)), "{over:?}");
    let done = Event::Rendered {
        recording: id,
        format: Format::Hls,
        files: Vec::new(),
        left_out: Vec::new(),
        done: true,
    };
    let paused = Effect::CommitRecording {
        recording: id,
        state: RecordingState::Interrupted,
        reason: TASK_ENDED.to_owned(),
        gaps: Vec::new(),
    };
    assert_eq!(
        core.on(done, at(4_100)).last(),
        Some(&paused),
        "while the publish goes on"
    );
    core.on(Event::RecordingCommitted(id), at(4_200));
    core.on(Event::Closed("peer_closed".to_owned()), at(5_000));
    assert_eq!(core.on(Event::Released(None), at(5_100)), [Effect::RemoveJournal]);
}

#[test]
fn what_was_lost_is_not_written_any_more_and_its_journal_is_kept() {
    let mut core = StreamCore::default();
    let (id, grant) = grant(&[Format::Mp4, Format::Flv]);
    on(&mut core, Event::Granted(grant.clone()));
    let rendered = |done| Event::Rendered {
        recording: id,
        format: Format::Mp4,
        files: vec![file("a")],
        left_out: Vec::new(),
        done,
    };
    on(&mut core, rendered(false));
    let lost = || Event::Lost {
        recording: id,
        reason: "fenced".to_owned(),
    };
    let mut failed = grant.clone();
    failed.recordings[0].state = RecordingState::Failed;
    assert_eq!(
        on(&mut core, lost()),
        [Effect::StopRecorders(id), Effect::KeepGrant(failed)]
    );
    assert_eq!(on(&mut core, lost()), [], "once");
    let late = Event::Rendered {
        recording: id,
        format: Format::Flv,
        files: vec![file("b")],
        left_out: Vec::new(),
        done: true,
    };
    assert_eq!(on(&mut core, late), [], "nothing of it is committed or written down");
    let committed = Event::FileCommitted {
        recording: id,
        file_id: "a".to_owned(),
    };
    assert_eq!(on(&mut core, committed), []);
    let ended = on(&mut core, Event::Closed("peer_closed".to_owned()));
    let release = Effect::ReleaseLease {
        reason: "peer_closed".to_owned(),
    };
    let kept = Effect::KeepJournal {
        reason: format!("{id}: fenced"),
    };
    assert_eq!(ended, [release]);
    assert_eq!(on(&mut core, Event::Released(None)), [kept]);
}

#[test]
fn what_was_added_while_nobody_heard_of_it_ends_with_the_publish() {
    let mut core = StreamCore::default();
    let (begun, ahead) = (windowed(7, 5_000, 9_000), windowed(8, 90_000, 99_000));
    core.on(Event::Granted(set(1, &[])), moment(6_000));
    let closed = core.on(Event::Closed("worker_killed".to_owned()), moment(7_000));
    assert!(!closed.contains(&Effect::RemoveJournal), "there may be more");
    let last = core.on(Event::Released(Some(set(2, &[&begun, &ahead]))), moment(7_000));
    let starts =
        |effect: &Effect| matches!(effect, Effect::StartRecorder { recording, .. } if recording.id == begun.id);
    assert!(last.iter().any(starts), "what arrived in its time is in the journal");
    assert_eq!(
        committed(&last),
        Some((ahead.id, RecordingState::Finished, NEVER_BEGAN))
    );
    assert!(!core.removed);
}

#[test]
fn what_was_lost_is_not_taken_up_again_by_a_restarted_worker() {
    let mut core = StreamCore::default();
    let lost = windowed(7, 5_000, 9_000);
    let goes_on = windowed(8, 5_000, 9_000);
    core.on(Event::Granted(set(1, &[&lost, &goes_on])), moment(6_000));
    let reason = "worker_lost".to_owned();
    let effects = core.on(
        Event::Lost {
            recording: lost.id,
            reason,
        },
        moment(7_000),
    );
    let kept = effects.into_iter().find_map(|effect| match effect {
        Effect::KeepGrant(grant) => Some(grant),
        _ => None,
    });
    // Killed, and started again: all it has is the journal and what lies beside it.
    let mut core = StreamCore::default();
    let taken_up = core.on(Event::Granted(kept.unwrap()), moment(8_000));
    let started: Vec<RecordingId> = taken_up
        .iter()
        .filter_map(|effect| match effect {
            Effect::StartRecorder { recording, .. } => Some(recording.id),
            _ => None,
        })
        .collect();
    assert_eq!(started, [goes_on.id]);
    core.on(Event::Closed("worker_killed".to_owned()), moment(8_000));
    core.on(Event::Released(None), moment(8_000));
    let done = Event::Rendered {
        recording: goes_on.id,
        format: Format::Flv,
        files: Vec::new(),
        left_out: Vec::new(),
        done: true,
    };
    core.on(done, moment(8_000));
    core.on(Event::Begun(goes_on.id), moment(8_000));
    let last = core.on(Event::RecordingCommitted(goes_on.id), moment(8_000));
    assert_eq!(
        last,
        [Effect::KeepJournal {
            reason: format!("{}: {LOST_BEFORE}", lost.id)
        }],
        "it may hold what nobody else has"
    );
}

#[test]
fn what_never_began_does_not_begin_when_its_worker_is_started_again() {
    let mut core = StreamCore::default();
    let recording = windowed(7, 5_000, 9_000);
    core.on(Event::Granted(set(1, &[&recording])), moment(1_000));
    // The clock is ahead, and nothing has arrived since.
    let ahead = Moment {
        now_ms: 500_000,
        arrived_ms: 1_000,
    };
    let effects = core.on(Event::Tick, ahead);
    let ended = Some((recording.id, RecordingState::Finished, NEVER_BEGAN));
    assert_eq!(committed(&effects), ended);
    assert!(
        matches!(effects.first(), Some(Effect::KeepGrant(_))),
        "before it is said"
    );
    // A coordinator that has not heard of it changes something else.
    let other = windowed(8, 5_000, 9_000);
    let effects = core.on(Event::Set(set(2, &[&recording, &other])), ahead);
    let kept = effects.into_iter().rev().find_map(|effect| match effect {
        Effect::KeepGrant(grant) => Some(grant),
        _ => None,
    });
    // Killed before it was heard; more has arrived meanwhile.
    let mut core = StreamCore::default();
    let again = core.on(Event::Granted(kept.unwrap()), moment(501_000));
    assert_eq!(committed(&again), ended, "it is said again");
    assert!(
        !again
            .iter()
            .any(|effect| matches!(effect, Effect::StartRecorder { .. }))
    );
}

#[test]
fn what_ended_before_its_worker_heard_of_it_is_not_recorded_and_its_journal_is_kept() {
    for state in [RecordingState::Failed, RecordingState::Finished] {
        let mut core = StreamCore::default();
        on(&mut core, Event::Closed("worker_killed".to_owned()));
        let (id, mut grant) = grant(&[Format::Flv]);
        grant.recordings[0].state = state;
        let effects = on(&mut core, Event::Granted(grant));
        assert!(!starts(&effects), "{state}");
        let kept = Effect::KeepJournal {
            reason: format!("{id}: {LOST_BEFORE}"),
        };
        assert_eq!(on(&mut core, Event::Released(None)), [kept], "{state}");
    }
}

#[test]
fn what_ended_while_it_waits_for_an_index_that_nobody_writes_is_put_aside_at_once() {
    let mut core = StreamCore::default();
    let (id, mut grant) = grant(&[Format::Hls]);
    grant.recordings[0].stitch = Some(shared::lease::Stitch {
        before: vec![Epoch::new(0)],
        lost: false,
    });
    on(&mut core, Event::Granted(grant.clone()));
    on(&mut core, Event::Closed("worker_killed".to_owned()));
    on(&mut core, Event::Released(None));
    let mut asked = Vec::new();
    for look in 1..=40 {
        if on(&mut core, Event::Waits(id)) == [Effect::Ask] {
            asked.push(look);
        }
    }
    assert_eq!(asked, [5, 20, 35], "it is asked for soon, and not too often");
    assert_eq!(on(&mut core, Event::Granted(grant.clone())), [], "it goes on");
    grant.recordings[0].state = RecordingState::Finished;
    let ended = on(&mut core, Event::Granted(grant.clone()));
    let [
        Effect::StopRecorders(stopped),
        Effect::KeepGrant(kept),
        Effect::KeepJournal { reason },
    ] = &ended[..]
    else {
        panic!("{ended:?}")
    };
    assert_eq!((*stopped, kept.recordings[0].state), (id, RecordingState::Failed));
    assert!(reason.contains(ENDED_MEANWHILE), "{reason}");
    assert_eq!(on(&mut core, Event::Granted(grant)), [], "once");
}
