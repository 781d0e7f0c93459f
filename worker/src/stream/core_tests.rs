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
        template,
        state: RecordingState::Recording,
        window: Window::default(),
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
    assert_eq!(on(&mut core, Event::RecordingCommitted(id)), [Effect::RemoveJournal]);
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
    assert_eq!(effects.last(), Some(&Effect::RemoveJournal));
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
