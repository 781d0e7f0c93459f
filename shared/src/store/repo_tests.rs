use super::*;
use crate::{
    ids::{IdGen as _, Seeded},
    recording::tests::sample,
    store::{Model, NextOwner},
    time::Manual,
};

fn repo() -> Repo {
    Repo::new(Arc::new(Model::new(Arc::new(Manual::default()))))
}

async fn put(repo: &Repo, recording: &Recording) {
    let txn = Txn::new()
        .put_json(keys::recording(recording.id), recording)
        .unwrap()
        .put(keys::stream_recording(&recording.stream, recording.id), "");
    repo.store().commit(txn).await.unwrap();
}

fn update(state: RecordingState, files: Option<u32>) -> RecordingUpdate {
    RecordingUpdate {
        state,
        reason: "unpublish".to_owned(),
        ended: Some(Timestamp::from_millis(9)),
        gaps: vec![],
        files,
    }
}

#[tokio::test]
async fn a_file_enters_once_and_only_under_the_current_epoch() {
    let repo = repo();
    let (mut recording, file) = sample(&Seeded::new(1));
    recording.state = RecordingState::Recording;
    put(&repo, &recording).await;
    let token = FencingToken {
        recording: recording.id,
        epoch: recording.epoch,
    };
    let now = Timestamp::from_millis(77);
    repo.commit_file(token, file.clone(), now).await.unwrap();
    repo.commit_file(token, file.clone(), Timestamp::from_millis(78))
        .await
        .unwrap();
    let stored = repo.file(file.id).await.unwrap().unwrap();
    assert_eq!((stored.committed, stored.recording), (now, recording.id));
    assert_eq!(repo.file_totals(recording.id).await.unwrap(), (1, file.size));

    let stale = FencingToken {
        epoch: Epoch::new(0),
        ..token
    };
    let mut other = file.clone();
    other.id = FileId::from_uuid(Seeded::new(9).uuid(now));
    let refused = repo.commit_file(stale, other.clone(), now).await;
    assert!(
        matches!(refused, Err(CommitError::Fenced(Fenced { held, current })) if held.get() == 0 && current.get() == 1)
    );
    let unknown = FencingToken {
        recording: RecordingId::from_uuid(Seeded::new(5).uuid(now)),
        ..token
    };
    assert!(matches!(
        repo.commit_file(unknown, other.clone(), now).await,
        Err(CommitError::NoRecording(_))
    ));

    repo.commit_recording(token, &update(RecordingState::Finished, Some(1)))
        .await
        .unwrap();
    repo.commit_file(token, file, now).await.unwrap();
    assert!(matches!(
        repo.commit_file(token, other, now).await,
        Err(CommitError::Final { .. })
    ));
}

#[tokio::test]
async fn a_terminal_state_is_final_and_waits_for_its_files() {
    let repo = repo();
    let (mut recording, file) = sample(&Seeded::new(1));
    recording.state = RecordingState::Recording;
    put(&repo, &recording).await;
    let token = FencingToken {
        recording: recording.id,
        epoch: recording.epoch,
    };
    let early = repo
        .commit_recording(token, &update(RecordingState::Finished, Some(1)))
        .await;
    assert!(matches!(early, Err(CommitError::MissingFiles { said: 1, held: 0, .. })));
    repo.commit_file(token, file, Timestamp::default()).await.unwrap();
    repo.set_interrupted(recording.id, true, Timestamp::from_millis(7))
        .await
        .unwrap();
    assert_eq!(
        repo.recording(recording.id).await.unwrap().unwrap().state,
        RecordingState::Interrupted
    );
    repo.commit_recording(token, &update(RecordingState::Finished, Some(1)))
        .await
        .unwrap();
    repo.commit_recording(token, &update(RecordingState::Finished, Some(1)))
        .await
        .unwrap();
    let other = repo
        .commit_recording(token, &update(RecordingState::Failed, None))
        .await;
    assert!(matches!(
        other,
        Err(CommitError::Final {
            state: RecordingState::Finished,
            ..
        })
    ));
    repo.set_interrupted(recording.id, true, Timestamp::from_millis(7))
        .await
        .unwrap();
    assert_eq!(
        repo.recording(recording.id).await.unwrap().unwrap().state,
        RecordingState::Finished
    );
}

#[tokio::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let repo = repo();
    let ids = Seeded::new(3);
    let (template, _) = sample(&ids);
    let mut made = Vec::new();
    for n in 0..25 {
        let now = Timestamp::from_millis(1_000 + n);
        let stream = StreamKey::new("d", "a", if n % 5 == 0 { "fifth" } else { "other" }).unwrap();
        let recording = Recording {
            id: RecordingId::generate(&ids, now),
            stream,
            started: now,
            ..template.clone()
        };
        put(&repo, &recording).await;
        made.push(recording);
    }
    made.reverse();
    let read = async |filter: RecordingFilter| {
        let (mut all, mut page) = (
            Vec::new(),
            Page {
                size: 4,
                token: String::new(),
            },
        );
        loop {
            let (part, next) = repo.recordings(&filter, &page).await.unwrap();
            assert!(part.len() <= 4);
            all.extend(part);
            page.token = next;
            if page.token.is_empty() {
                return all;
            }
        }
    };
    assert_eq!(read(RecordingFilter::default()).await, made);
    let fifths: Vec<_> = made
        .iter()
        .filter(|recording| recording.stream.stream() == "fifth")
        .cloned()
        .collect();
    let by_name = RecordingFilter {
        stream: Some("fifth".to_owned()),
        ..Default::default()
    };
    assert_eq!(read(by_name.clone()).await, fifths);
    let by_index = RecordingFilter {
        domain: Some("d".to_owned()),
        app: Some("a".to_owned()),
        ..by_name
    };
    assert_eq!(read(by_index).await, fifths);
    let none = RecordingFilter {
        state: Some(RecordingState::Failed),
        ..Default::default()
    };
    assert!(read(none).await.is_empty());
}

#[tokio::test]
async fn files_of_a_recording_come_by_format_and_sequence() {
    let repo = repo();
    let (mut recording, file) = sample(&Seeded::new(1));
    recording.state = RecordingState::Recording;
    put(&repo, &recording).await;
    let token = FencingToken {
        recording: recording.id,
        epoch: recording.epoch,
    };
    let ids = Seeded::new(8);
    let mut second = 0;
    for (format, sequence) in [(Format::Mp4, 10), (Format::Flv, 1), (Format::Mp4, 2), (Format::Flv, 0)] {
        second += 1;
        // Ids that say nothing of the time.
        let id = FileId::generate(&ids, Timestamp::from_millis(9_000 - second));
        let file = MediaFile {
            id,
            format,
            sequence,
            ..file.clone()
        };
        repo.commit_file(token, file, Timestamp::from_millis(second * 1_000))
            .await
            .unwrap();
    }
    let filter = FileFilter {
        recording: Some(recording.id),
        ..Default::default()
    };
    let (files, next) = repo.files(&filter, &Page::default()).await.unwrap();
    let order: Vec<_> = files.iter().map(|file| (file.format, file.sequence)).collect();
    assert_eq!(
        order,
        [(Format::Flv, 0), (Format::Flv, 1), (Format::Mp4, 2), (Format::Mp4, 10)]
    );
    assert!(next.is_empty());
    let flv = FileFilter {
        format: Some(Format::Flv),
        ..Default::default()
    };
    assert_eq!(repo.files(&flv, &Page::default()).await.unwrap().0.len(), 2);
    let (newest_first, _) = repo.files(&FileFilter::default(), &Page::default()).await.unwrap();
    let order: Vec<_> = newest_first.iter().map(|file| file.committed.as_millis()).collect();
    assert_eq!(order, [4_000, 3_000, 2_000, 1_000]);
}

/// A recording that goes on across publishes, at epoch 2 after two of them.
async fn stitched(repo: &Repo) -> (Recording, MediaFile) {
    let (mut recording, file) = sample(&Seeded::new(1));
    recording.state = RecordingState::Recording;
    recording.gaps.clear();
    let hls = recording.template.formats.get_mut(&Format::Hls).unwrap();
    hls.flow_continue_s = 30;
    put(repo, &recording).await;
    let next = NextOwner {
        epoch: Epoch::new(2),
        worker: recording.worker,
        publish: Some(PublishId::generate(&Seeded::new(5), recording.started)),
    };
    for _ in 0..2 {
        assert!(
            repo.pass_on(recording.id, next).await.unwrap(),
            "repeating changes nothing"
        );
    }
    let recording = repo.recording(recording.id).await.unwrap().unwrap();
    assert_eq!((recording.epoch, recording.publishes.len()), (Epoch::new(2), 2));
    (recording, file)
}

#[tokio::test]
async fn earlier_owners_of_a_stitched_recording_enter_their_own_files_but_not_its_playlist() {
    let repo = repo();
    let (recording, file) = stitched(&repo).await;
    let token = |epoch| FencingToken {
        recording: recording.id,
        epoch: Epoch::new(epoch),
    };
    let now = Timestamp::from_millis(77);
    repo.commit_file(token(1), file.clone(), now).await.unwrap();
    assert_eq!(repo.file(file.id).await.unwrap().unwrap().epoch, Epoch::new(1));
    let playlist = MediaFile {
        id: FileId::from_uuid(Seeded::new(9).uuid(now)),
        format: Format::Hls,
        ..file.clone()
    };
    let refused = repo.commit_file(token(1), playlist.clone(), now).await;
    assert!(matches!(refused, Err(CommitError::Fenced(_))), "{refused:?}");
    let later = repo.commit_file(token(3), file.clone(), now).await;
    assert!(matches!(later, Err(CommitError::Fenced(_))), "never granted: {later:?}");
    repo.commit_file(token(2), playlist, now).await.unwrap();
}

#[tokio::test]
async fn a_publish_says_that_it_is_complete_however_late_but_not_after_the_end() {
    let repo = repo();
    let (recording, _) = stitched(&repo).await;
    let token = |epoch| FencingToken {
        recording: recording.id,
        epoch: Epoch::new(epoch),
    };
    let paused = |reason: &str| RecordingUpdate {
        ended: None,
        gaps: vec![Gap {
            reason: reason.to_owned(),
            from_ms: 0,
            to_ms: 0,
            units: 0,
        }],
        ..update(RecordingState::Interrupted, None)
    };
    repo.commit_recording(token(1), &paused("a")).await.unwrap();
    let state = async || repo.recording(recording.id).await.unwrap().unwrap();
    assert_eq!(state().await.state, RecordingState::Recording, "the second goes on");
    let old = repo
        .commit_recording(token(1), &update(RecordingState::Finished, None))
        .await;
    assert!(matches!(old, Err(CommitError::Fenced(_))), "{old:?}");
    repo.commit_recording(token(2), &paused("b")).await.unwrap();
    assert_eq!(state().await.state, RecordingState::Interrupted);
    assert_eq!(state().await.gaps.len(), 2, "gaps of both");
    repo.commit_recording(token(2), &update(RecordingState::Finished, None))
        .await
        .unwrap();
    let late = repo.commit_recording(token(1), &paused("c")).await;
    assert!(matches!(late, Err(CommitError::Final { .. })), "{late:?}");
}
