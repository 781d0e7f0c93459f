use std::sync::Arc;

use super::*;
use crate::{
    ids::Seeded,
    lease::{Epoch, FencingToken},
    recording::{Cause, RecordingState, tests::sample},
    store::{Model, RecordingUpdate},
    task::{StreamType, default_recording},
    time::Manual,
};

fn repo() -> Repo {
    Repo::new(Arc::new(Model::new(Arc::new(Manual::default()))))
}

fn task(n: i64) -> Task {
    let now = Timestamp::from_millis(1_000_000 + n * 1_000);
    Task {
        id: TaskId::generate(&Seeded::new(n.unsigned_abs()), now),
        stream: crate::ids::StreamKey::new("d", "a", if n % 3 == 0 { "third" } else { "other" }).unwrap(),
        start: now,
        end: Timestamp::from_millis(now.as_millis() + 10_000),
        template_ref: String::new(),
        template: default_recording(),
        stream_type: StreamType::Push,
        state: TaskState::Completed,
        reason: String::new(),
        created: now,
        stopped: None,
        ended: Some(now),
        client_token: format!("token-{n}"),
    }
}

async fn put(repo: &Repo, task: &Task) {
    repo.store()
        .commit(Txn::new().create_task(task).unwrap())
        .await
        .unwrap();
}

async fn keys_left(repo: &Repo) -> Vec<String> {
    let scanned = repo.store().scan(Scan::prefix("v1/")).await.unwrap();
    scanned.entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let repo = repo();
    let made: Vec<Task> = (0..9).map(task).collect();
    for task in &made {
        put(&repo, task).await;
    }
    let list = async |filter: TaskFilter, size: u32| {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = Page { size, token };
            let (found, next) = repo.tasks(&filter, &page).await.unwrap();
            assert!(found.len() <= page.entries());
            all.extend(found);
            token = next;
            if token.is_empty() {
                return all;
            }
        }
    };
    let newest_first: Vec<Task> = made.iter().rev().cloned().collect();
    assert_eq!(list(TaskFilter::default(), 2).await, newest_first);
    let third = TaskFilter {
        domain: Some("d".to_owned()),
        app: Some("a".to_owned()),
        stream: Some("third".to_owned()),
        ..TaskFilter::default()
    };
    let expected = [&made[6], &made[3], &made[0]].map(Clone::clone);
    assert_eq!(list(third.clone(), 2).await, expected);
    let by_name = TaskFilter { domain: None, ..third };
    assert_eq!(list(by_name, 2).await, expected, "also without the index");
    let none = TaskFilter {
        state: Some(TaskState::Recording),
        ..TaskFilter::default()
    };
    assert!(list(none, 2).await.is_empty());
    // Their times are n..n + 10 s.
    let between = |from: i64, to: i64, within| TaskFilter {
        from: Some(Timestamp::from_millis(1_000_000 + from * 1_000)),
        to: Some(Timestamp::from_millis(1_000_000 + to * 1_000)),
        within,
        ..TaskFilter::default()
    };
    assert_eq!(list(between(2, 13, true), 1).await, [made[3].clone(), made[2].clone()]);
    assert_eq!(list(between(17, 20, false), 9).await, [made[8].clone()]);
    assert_eq!(
        list(between(-5, 1, false), 9).await,
        [made[0].clone()],
        "its end is not in it"
    );
}

#[tokio::test]
async fn old_tasks_go_with_all_that_belongs_to_them() {
    let repo = repo();
    for n in 0..5 {
        put(&repo, &task(n)).await;
    }
    let mut open = task(0);
    (open.state, open.ended) = (TaskState::Finishing, None);
    put(&repo, &open).await;
    let many = (0..250).map(|n| keys::task_recording(task(1).id, RecordingId::generate(&Seeded::new(n), open.created)));
    for keys in many.collect::<Vec<_>>().chunks(100) {
        let txn = keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), ""));
        repo.store().commit(txn).await.unwrap();
    }
    // Killed in the middle of a deletion: what is left is found by its end.
    let half = Txn::new().delete_task(&task(2));
    repo.store().commit(half).await.unwrap();
    let until = Timestamp::from_millis(task(3).end.as_millis());
    assert_eq!(repo.forget_tasks(until).await.unwrap(), 2);
    for n in [1, 2] {
        assert_eq!(repo.task(task(n).id).await.unwrap(), None);
        let id = task(n).id.to_string();
        assert!(keys_left(&repo).await.iter().all(|key| !key.contains(&id)), "{n}");
    }
    assert!(repo.task_of_token("token-1").await.unwrap().is_none());
    for kept in [open, task(3), task(4)] {
        assert_eq!(repo.task(kept.id).await.unwrap(), Some(kept));
    }
    assert_eq!(repo.forget_tasks(until).await.unwrap(), 0);
}

#[tokio::test]
async fn a_scheduled_recording_that_never_began_leaves_the_library() {
    let repo = repo();
    let (mut recording, file) = sample(&Seeded::new(7));
    let owner = task(1);
    recording.cause = Cause::Task(owner.id);
    recording.state = RecordingState::Scheduled;
    let enter = || {
        Txn::new()
            .put_json(keys::recording(recording.id), &recording)
            .unwrap()
            .put(keys::stream_recording(&recording.stream, recording.id), "")
            .put(keys::task_recording(owner.id, recording.id), "")
    };
    let token = FencingToken {
        recording: recording.id,
        epoch: Epoch::new(1),
    };
    let said = |state| RecordingUpdate {
        state,
        reason: String::new(),
        ended: None,
        gaps: vec![],
        files: None,
    };
    let (running, finished) = (said(RecordingState::Recording), said(RecordingState::Finished));
    repo.store().commit(enter()).await.unwrap();
    assert_eq!(repo.task_recordings(owner.id, 9).await.unwrap().len(), 1);
    repo.commit_recording(token, &finished).await.unwrap();
    assert!(keys_left(&repo).await.is_empty());

    repo.store().commit(enter()).await.unwrap();
    repo.commit_recording(token, &running).await.unwrap();
    repo.commit_recording(token, &finished).await.unwrap();
    repo.commit_recording(token, &running).await.unwrap();
    let stored = repo.recording(recording.id).await.unwrap().unwrap();
    assert_eq!(
        stored.state,
        RecordingState::Finished,
        "one that had begun stays, and a late word changes nothing"
    );

    repo.store().commit(enter()).await.unwrap();
    repo.commit_file(token, file, owner.created).await.unwrap();
    repo.commit_recording(token, &finished).await.unwrap();
    let listed = repo.task_recordings(owner.id, 9).await.unwrap();
    assert_eq!((listed.len(), listed[0].files), (1, 1), "nor does one with a file go");
}
