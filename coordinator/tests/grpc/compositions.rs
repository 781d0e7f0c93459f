//! Compositions whose workers die at an unlucky moment.

use proto::v1::{self, compositions_client::CompositionsClient};
use shared::{composition::FILE_ID, recording::MediaFile, template::Format};

use crate::world::{LIMIT, Session, World, until};

const STORAGE: &str = "s3://bucket";

/// The next composition that a worker is told to make.
async fn job(session: &mut Session) -> v1::ComposeJob {
    let next = async {
        loop {
            let down = session.down.message().await.unwrap().unwrap();
            if let Some(v1::coordinator_down::Message::SetCompositions(set)) = down.message
                && let Some(job) = set.jobs.into_iter().next()
            {
                return job;
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.expect("a composition")
}

fn commit(job: &v1::ComposeJob, file: &v1::MediaFile) -> v1::CommitFileRequest {
    v1::CommitFileRequest {
        recording_id: job.recording_id.clone(),
        epoch: job.epoch,
        file: Some(v1::MediaFile {
            file_id: MediaFile::id_of(job.recording_id.parse().unwrap(), FILE_ID).to_string(),
            object_key: format!("d/a/s/{}/e{:06}/mp4/000000.mp4", job.recording_id, job.epoch),
            ..file.clone()
        }),
    }
}

#[actix_rt::test]
async fn a_file_that_is_in_the_library_is_what_a_composition_made_whoever_dies() {
    let world = World::new(|config| config.record = vec![Format::Mp4]).await;
    let (first, second) = (world.worker(), world.worker());
    let mut dies = world.session_at(first, "a", STORAGE).await;
    let source = world.ask(first, "cam");
    let granted = world.grant(&source).await;
    let media = world.file(v1::Format::Mp4, 0);
    let entered = v1::CommitFileRequest {
        recording_id: granted.recordings[0].recording_id.clone(),
        epoch: granted.epoch,
        file: Some(media.clone()),
    };
    world.workers().commit_file(entered).await.unwrap();
    let asked = v1::CreateCompositionRequest {
        pieces: vec![v1::Piece {
            file_id: media.file_id.clone(),
            ..Default::default()
        }],
        name: "joined".into(),
        ..Default::default()
    };
    let mut compositions = CompositionsClient::new(world.channel.clone());
    let made = compositions.create_composition(asked).await.unwrap().into_inner();
    let id = made.composition.unwrap().composition_id;
    let begun = job(&mut dies).await;
    assert_eq!((begun.recording_id.as_str(), begun.epoch), (id.as_str(), 1));
    world.workers().commit_file(commit(&begun, &media)).await.unwrap();
    // It dies before it says that the recording is finished; another that reads the same is there.
    drop(dies);
    let _lives = world.session_at(second, "b", STORAGE).await;
    until(v1::CompositionState::Finished, async || {
        let get = v1::GetCompositionRequest {
            composition_id: id.clone(),
        };
        let one = compositions.get_composition(get).await.unwrap().into_inner();
        one.composition.unwrap().state()
    })
    .await;
    let get = v1::GetFileRequest {
        file_id: commit(&begun, &media).file.unwrap().file_id,
    };
    let file = world.files().get_file(get).await.unwrap().into_inner().file.unwrap();
    assert!(file.object_key.contains("/e000001/"), "{}", file.object_key);
    assert_eq!(world.recording(&id).await.state(), v1::RecordingState::Finished);
    let list = v1::ListRemovalsRequest::default();
    let removals = world.files().list_removals(list).await.unwrap().into_inner().removals;
    assert!(
        removals.iter().all(|removal| removal
            .file
            .as_ref()
            .is_none_or(|left| left.object_key != file.object_key)),
        "what the library has stays: {removals:?}"
    );
}
