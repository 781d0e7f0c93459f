//! Recordings and files.

use proto::v1;
use shared::wire;
use tonic::Code;

use crate::world::World;

#[actix_rt::test]
async fn finished_files_enter_the_library_once_and_only_under_the_current_epoch() {
    let mut world = World::new(|config| config.record = vec![shared::template::Format::Flv]).await;
    let ask = world.ask(world.worker(), "cam");
    let granted = world.grant(&ask).await;
    let recording = granted.recordings[0].recording_id.clone();
    let first = world.file(v1::Format::Flv, 0);
    let commit = v1::CommitFileRequest {
        recording_id: recording.clone(),
        epoch: 1,
        file: Some(first.clone()),
    };
    world.workers().commit_file(commit.clone()).await.unwrap();
    world.workers().commit_file(commit.clone()).await.unwrap();

    let stale = v1::CommitFileRequest {
        epoch: 0,
        file: Some(world.file(v1::Format::Flv, 1)),
        ..commit.clone()
    };
    let fenced = world.workers().commit_file(stale).await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
    let detail = wire::fenced_from_details(fenced.details()).unwrap();
    assert_eq!((detail.held.get(), detail.current.get()), (0, 1));
    assert_eq!(world.metrics.coordinator.fenced.get(), 1);
    let nowhere = v1::CommitFileRequest {
        recording_id: world.ask(world.worker(), "x").publish_id,
        ..commit.clone()
    };
    assert_eq!(
        world.workers().commit_file(nowhere).await.unwrap_err().code(),
        Code::NotFound
    );

    let end = |files| v1::CommitRecordingRequest {
        recording_id: recording.clone(),
        epoch: 1,
        state: v1::RecordingState::Finished.into(),
        reason: "unpublish".into(),
        ended_ms: 99,
        gaps: vec![v1::Gap {
            reason: "torn_tail".into(),
            from_ms: 1,
            to_ms: 2,
            units: 0,
        }],
        files,
    };
    let early = world.workers().commit_recording(end(2)).await.unwrap_err();
    assert_eq!(
        (early.code(), early.message().contains("commit the files first")),
        (Code::FailedPrecondition, true)
    );
    let second = v1::CommitFileRequest {
        file: Some(world.file(v1::Format::Flv, 1)),
        ..commit.clone()
    };
    world.workers().commit_file(second).await.unwrap();
    world.restart().await;
    world.workers().commit_recording(end(2)).await.unwrap();
    world.workers().commit_recording(end(2)).await.unwrap();
    let failed = v1::CommitRecordingRequest {
        state: v1::RecordingState::Failed.into(),
        ..end(0)
    };
    assert_eq!(
        world.workers().commit_recording(failed).await.unwrap_err().code(),
        Code::FailedPrecondition
    );

    let stored = world.recording(&recording).await;
    assert_eq!(
        (stored.state(), stored.file_count, stored.bytes),
        (v1::RecordingState::Finished, 2, 2_000)
    );
    assert_eq!(
        (stored.ended_ms, stored.gaps.len(), stored.reason.as_str()),
        (99, 1, "unpublish")
    );
    let request = v1::ListFilesRequest {
        recording_id: recording.clone(),
        ..Default::default()
    };
    let files = world.files().list_files(request).await.unwrap().into_inner().files;
    assert_eq!(files.iter().map(|file| file.sequence).collect::<Vec<_>>(), [0, 1]);
    let get = v1::GetFileRequest { file_id: first.file_id };
    let file = world.files().get_file(get).await.unwrap().into_inner().file.unwrap();
    assert_eq!((file.epoch, file.stream.unwrap().stream.as_str()), (1, "cam"));
    assert!(file.committed_ms > 0);

    // Asked about again after a restart of its worker, the publish has nothing left to do.
    let adopted = world.grant(&v1::AcquireLeaseRequest { adopted: true, ..ask }).await;
    assert_eq!(adopted.recordings[0].state(), v1::RecordingState::Finished);
    let filter = v1::ListRecordingsRequest {
        state: v1::RecordingState::Finished.into(),
        domain: "D".into(),
        ..Default::default()
    };
    let list = world
        .recordings()
        .list_recordings(filter)
        .await
        .unwrap()
        .into_inner()
        .recordings;
    assert_eq!(
        list.into_iter().map(|r| r.recording_id).collect::<Vec<_>>(),
        [recording]
    );
}
