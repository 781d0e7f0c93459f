//! Tasks: what is asked for, what workers are told, and how it ends.

use std::time::Duration;

use proto::v1::{self, TaskState};
use shared::config::CoordinatorConfig;
use tonic::Code;

use crate::world::{World, until};

const HOUR_MS: i64 = 3_600_000;

/// Workers that say nothing for a while are not lost.
fn patient(config: &mut CoordinatorConfig) {
    config.worker_timeout = Duration::from_secs(30);
}

fn create(world: &World, stream: &str, from_now: Option<i64>, length_ms: i64) -> v1::CreateTaskRequest {
    let now = world.now().as_millis();
    v1::CreateTaskRequest {
        stream: Some(v1::StreamKey {
            domain: "d".into(),
            app: "live".into(),
            stream: stream.into(),
        }),
        start_ms: from_now.map_or(0, |ms| now + ms),
        end_ms: now + from_now.unwrap_or(0) + length_ms,
        ..Default::default()
    }
}

async fn make(world: &World, request: v1::CreateTaskRequest) -> v1::Task {
    let made = world.tasks().create_task(request).await.unwrap();
    made.into_inner().task.unwrap()
}

async fn get(world: &World, id: &str) -> v1::GetTaskResponse {
    let request = v1::GetTaskRequest { task_id: id.into() };
    world.tasks().get_task(request).await.unwrap().into_inner()
}

async fn state(world: &World, id: &str) -> TaskState {
    get(world, id).await.task.unwrap().state()
}

async fn stop(world: &World, id: &str) -> Result<v1::Task, tonic::Status> {
    let stopped = world
        .tasks()
        .stop_task(v1::StopTaskRequest { task_id: id.into() })
        .await?;
    Ok(stopped.into_inner().task.unwrap())
}

async fn delete(world: &World, id: &str, let_run: bool) -> Result<(), tonic::Status> {
    let request = v1::DeleteTaskRequest {
        task_id: id.into(),
        let_run,
    };
    world.tasks().delete_task(request).await.map(drop)
}

async fn commit(world: &World, granted: &v1::GrantedRecording, state: v1::RecordingState) {
    let commit = v1::CommitRecordingRequest {
        recording_id: granted.recording_id.clone(),
        epoch: 1,
        state: state.into(),
        reason: "task_ended".into(),
        ended_ms: world.now().as_millis(),
        gaps: vec![],
        files: 0,
    };
    world.workers().commit_recording(commit).await.unwrap();
}

async fn commit_file(world: &World, granted: &v1::GrantedRecording) {
    let commit = v1::CommitFileRequest {
        recording_id: granted.recording_id.clone(),
        epoch: 1,
        file: Some(world.file(v1::Format::Flv, 0)),
    };
    world.workers().commit_file(commit).await.unwrap();
}

#[actix_rt::test]
async fn what_cannot_be_is_refused_with_a_word_on_what_would_do() {
    let world = World::new(|config| {
        config.tasks.max_open = 2;
        config.tasks.max_per_stream = 1;
    })
    .await;
    world.create_template("never", &[]).await.unwrap();
    let good = create(&world, "s", Some(1_000), 60_000);
    let stream = |domain: &str, app: &str, stream: &str| {
        Some(v1::StreamKey {
            domain: domain.into(),
            app: app.into(),
            stream: stream.into(),
        })
    };
    let invalid = Code::InvalidArgument;
    let cases: Vec<(v1::CreateTaskRequest, Code, &str)> = vec![
        (
            v1::CreateTaskRequest {
                stream: None,
                ..good.clone()
            },
            invalid,
            "stream: is missing",
        ),
        (
            v1::CreateTaskRequest {
                stream: stream("", "live", "s"),
                ..good.clone()
            },
            invalid,
            "stream",
        ),
        (
            v1::CreateTaskRequest {
                stream: stream("d", "", "s"),
                ..good.clone()
            },
            invalid,
            "stream",
        ),
        (
            v1::CreateTaskRequest {
                stream: stream("d", "live", ""),
                ..good.clone()
            },
            invalid,
            "stream",
        ),
        (
            v1::CreateTaskRequest {
                stream: stream("d", "live", "nul\0"),
                ..good.clone()
            },
            invalid,
            "U+0000",
        ),
        (
            v1::CreateTaskRequest {
                stream: stream("d", "live", &"x".repeat(1 << 20)),
                ..good.clone()
            },
            invalid,
            "256",
        ),
        (
            v1::CreateTaskRequest {
                end_ms: 0,
                ..good.clone()
            },
            invalid,
            "end_ms: is missing",
        ),
        (
            v1::CreateTaskRequest {
                end_ms: -5,
                ..good.clone()
            },
            invalid,
            "end_ms: is -5: give milliseconds since 1970",
        ),
        (
            v1::CreateTaskRequest {
                start_ms: i64::MIN,
                ..good.clone()
            },
            invalid,
            "start_ms",
        ),
        (
            v1::CreateTaskRequest {
                end_ms: i64::MAX,
                ..good.clone()
            },
            invalid,
            "end_ms",
        ),
        (
            v1::CreateTaskRequest {
                end_ms: good.start_ms,
                ..good.clone()
            },
            invalid,
            "is not after start",
        ),
        (create(&world, "s", Some(-60_000), 30_000), invalid, "is past"),
        (
            create(&world, "s", Some(0), 24 * HOUR_MS + 1),
            invalid,
            "coordinator.tasks.max_span",
        ),
        (
            create(&world, "s", Some(167 * HOUR_MS), 2 * HOUR_MS),
            invalid,
            "coordinator.tasks.max_ahead",
        ),
        (
            v1::CreateTaskRequest {
                stream_type: 3,
                ..good.clone()
            },
            invalid,
            "stream_type: 3 is unknown",
        ),
        (
            v1::CreateTaskRequest {
                client_token: "a b".into(),
                ..good.clone()
            },
            invalid,
            "client_token",
        ),
        (
            v1::CreateTaskRequest {
                client_token: "t".repeat(1 << 20),
                ..good.clone()
            },
            invalid,
            "client_token",
        ),
        (
            v1::CreateTaskRequest {
                template: "t".repeat(1 << 20),
                ..good.clone()
            },
            invalid,
            "template has",
        ),
        (
            v1::CreateTaskRequest {
                template: "never".into(),
                ..good.clone()
            },
            Code::FailedPrecondition,
            "no format on",
        ),
        (
            create(&world, "s", None, 60_000),
            Code::FailedPrecondition,
            "d/live/s is not live",
        ),
        (
            v1::CreateTaskRequest {
                require_live: true,
                ..good.clone()
            },
            Code::FailedPrecondition,
            "is not live",
        ),
    ];
    for (request, code, word) in cases {
        let status = world.tasks().create_task(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{word}: {}", status.message());
        assert!(status.message().contains(word), "{word}: {}", status.message());
    }
    let task = make(&world, good.clone()).await;
    let full = world.tasks().create_task(good.clone()).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("max_per_stream"), "{}", full.message());
    make(&world, create(&world, "t", Some(1_000), 60_000)).await;
    let full = world
        .tasks()
        .create_task(create(&world, "u", Some(1_000), 60_000))
        .await
        .unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("max_open"), "{}", full.message());

    let unknown = world.worker().to_string();
    for (id, code) in [("", invalid), ("x", invalid), (unknown.as_str(), Code::NotFound)] {
        let said = world
            .tasks()
            .get_task(v1::GetTaskRequest { task_id: id.into() })
            .await
            .unwrap_err();
        assert_eq!(said.code(), code, "{}", said.message());
        let said = stop(&world, id).await.unwrap_err();
        assert_eq!(said.code(), code, "{}", said.message());
        let said = delete(&world, id, false).await.unwrap_err();
        assert_eq!(said.code(), code, "{}", said.message());
    }
    let list = v1::ListTasksRequest::default();
    for (request, word) in [
        (
            v1::ListTasksRequest {
                state: 9,
                ..list.clone()
            },
            "state: 9",
        ),
        (
            v1::ListTasksRequest {
                page_token: "x".into(),
                ..list.clone()
            },
            "page_token",
        ),
        (
            v1::ListTasksRequest {
                from_ms: -1,
                ..list.clone()
            },
            "from_ms",
        ),
        (
            v1::ListTasksRequest {
                from_ms: 5,
                to_ms: 5,
                ..list.clone()
            },
            "to_ms: is not after from_ms",
        ),
        (
            v1::ListTasksRequest {
                within: true,
                to_ms: 5,
                ..list.clone()
            },
            "within",
        ),
    ] {
        let status = world.tasks().list_tasks(request).await.unwrap_err();
        assert_eq!(status.code(), invalid);
        assert!(status.message().contains(word), "{}", status.message());
    }
    let kept = get(&world, &task.task_id).await.task.unwrap();
    assert_eq!(
        kept.state(),
        TaskState::Scheduled,
        "nothing of it harmed the one that is there"
    );
}

#[actix_rt::test]
async fn a_live_streams_worker_is_told_and_told_again_until_it_has_heard() {
    let world = World::new(patient).await;
    world.create_template("day", &[v1::Format::Hls]).await.unwrap();
    let worker = world.worker();
    let mut session = world.session(worker).await;
    let ask = world.ask(worker, "s");
    let granted = world.grant(&ask).await;
    assert_eq!((granted.revision, granted.recordings.len()), (1, 0));
    session.beat(&[&ask]).await;

    let mut request = create(&world, "s", None, 60_000);
    request.template = "day".into();
    request.stream_type = v1::StreamType::Mixed.into();
    let task = make(&world, request).await;
    assert_eq!(
        (task.state(), task.stream_type()),
        (TaskState::Recording, v1::StreamType::Mixed)
    );
    let set = session.set().await;
    assert_eq!(
        (set.publish_id.as_str(), set.epoch, set.revision),
        (ask.publish_id.as_str(), 1, 2)
    );
    let [recording] = set.recordings.as_slice() else {
        panic!("{set:?}")
    };
    assert_eq!((recording.from_ms, recording.until_ms), (task.start_ms, task.end_ms));
    assert_eq!(recording.template.as_ref().unwrap().name, "day");
    assert_eq!(recording.state(), v1::RecordingState::Scheduled);
    // A second one, by the default; the first message may be lost: a heartbeat of an old revision brings it again.
    let ahead = make(&world, create(&world, "s", Some(600_000), 60_000)).await;
    assert_eq!(session.set().await.revision, 3);
    session.beat_at(2, &[&ask]).await;
    let again = session.set().await;
    assert_eq!((again.revision, again.recordings.len()), (3, 2));
    let formats = &again.recordings[1].template.as_ref().unwrap().formats;
    let flv = (
        formats.len(),
        formats[0].format(),
        formats[0].record_interval_s,
        formats[0].storage_time_s,
    );
    assert_eq!(flv, (1, v1::Format::Flv, 1_800, 0));
    session.beat_at(3, &[&ask]).await;
    // A publish of the same stream that comes after is granted the task at once.
    assert_eq!(world.grant(&ask).await.revision, 3);
    commit(&world, &again.recordings[0], v1::RecordingState::Recording).await;

    // A stop moves the end; what has not begun never does.
    let stopped = stop(&world, &task.task_id).await.unwrap();
    assert_eq!(stopped.state(), TaskState::Finishing);
    let set = session.set().await;
    assert_eq!((set.revision, set.recordings[0].until_ms), (4, stopped.stopped_ms));
    assert_eq!(
        stop(&world, &task.task_id).await.unwrap(),
        stopped,
        "a stop may be repeated"
    );
    let cancelled = stop(&world, &ahead.task_id).await.unwrap();
    assert_eq!(
        (cancelled.state(), cancelled.reason.as_str()),
        (TaskState::Cancelled, "stopped_before_recording")
    );
    let set = session.set().await;
    assert!(set.recordings[1].cancelled, "{set:?}");
    commit(&world, &again.recordings[1], v1::RecordingState::Finished).await;
    assert!(get(&world, &ahead.task_id).await.recordings.is_empty(), "it never was");

    commit_file(&world, &again.recordings[0]).await;
    commit(&world, &again.recordings[0], v1::RecordingState::Finished).await;
    until(TaskState::Completed, async || state(&world, &task.task_id).await).await;
    let done = get(&world, &task.task_id).await;
    assert_eq!((done.recordings.len(), done.recordings[0].file_count), (1, 1));
    let again = stop(&world, &task.task_id).await.unwrap();
    assert_eq!(again.state(), TaskState::Completed, "also when it has ended since");
}

#[actix_rt::test]
async fn a_leader_that_is_away_at_start_and_end_misses_neither() {
    let mut world = World::new(|config| config.worker_timeout = Duration::from_secs(2)).await;
    let worker = world.worker();
    let ask = world.ask(worker, "s");
    world.grant(&ask).await;
    let task = make(&world, create(&world, "s", Some(1_500), 1_000)).await;
    let never = make(&world, create(&world, "nobody", Some(200), 500)).await;
    // Another leader takes over at the very second, another one at the end.
    for at in [task.start_ms, task.end_ms] {
        let ahead = Duration::from_millis(u64::try_from((at - world.now().as_millis()).max(0)).unwrap());
        tokio::time::sleep(ahead).await;
        world.restart().await;
        let mut session = world.session(worker).await;
        // It has not heard of anything yet.
        session.beat_at(1, &[&ask]).await;
        let set = session.set().await;
        let [recording] = set.recordings.as_slice() else {
            panic!("{set:?}")
        };
        assert_eq!(
            (recording.from_ms, recording.until_ms),
            (task.start_ms, task.end_ms),
            "granted once, ahead of time"
        );
        if at == task.start_ms {
            until(TaskState::Recording, async || state(&world, &task.task_id).await).await;
        } else {
            until(TaskState::Finishing, async || state(&world, &task.task_id).await).await;
            commit_file(&world, recording).await;
            commit(&world, recording, v1::RecordingState::Finished).await;
        }
    }
    until(TaskState::Completed, async || state(&world, &task.task_id).await).await;
    until(TaskState::Failed, async || state(&world, &never.task_id).await).await;
    assert_eq!(
        get(&world, &never.task_id).await.task.unwrap().reason,
        "stream_never_live"
    );
    let late = stop(&world, &never.task_id).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
}

#[actix_rt::test]
async fn every_publish_within_its_time_is_a_recording_of_the_task() {
    let world = World::new(patient).await;
    let task = make(&world, create(&world, "s", Some(-1_000), 61_000)).await;
    until(TaskState::Waiting, async || state(&world, &task.task_id).await).await;
    let worker = world.worker();
    let _session = world.session(worker).await;
    for epoch in 1..=2 {
        let ask = world.ask(worker, "s");
        let granted = world.grant(&ask).await;
        assert_eq!((granted.epoch, granted.recordings.len()), (epoch, 1));
        until(TaskState::Recording, async || state(&world, &task.task_id).await).await;
        let release = v1::ReleaseLeaseRequest {
            publish_id: ask.publish_id.clone(),
            epoch,
            reason: "peer_closed".into(),
            ended_ms: world.now().as_millis(),
            revision: 0,
        };
        world.workers().release_lease(release).await.unwrap();
        until(TaskState::Waiting, async || state(&world, &task.task_id).await).await;
    }
    assert_eq!(get(&world, &task.task_id).await.recordings.len(), 2);
    let elsewhere = world.grant(&world.ask(worker, "other")).await;
    assert!(elsewhere.recordings.is_empty());
}

#[actix_rt::test]
async fn a_deleted_task_is_gone_and_its_recordings_stay() {
    let world = World::new(patient).await;
    let worker = world.worker();
    let mut session = world.session(worker).await;
    let ask = world.ask(worker, "s");
    world.grant(&ask).await;
    let task = make(&world, create(&world, "s", None, 60_000)).await;
    let set = session.set().await;
    let refused = delete(&world, &task.task_id, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("stop it first"), "{}", refused.message());
    delete(&world, &task.task_id, true).await.unwrap();
    let gone = world
        .tasks()
        .get_task(v1::GetTaskRequest {
            task_id: task.task_id.clone(),
        })
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let recording = world.recording(&set.recordings[0].recording_id).await;
    assert_eq!(
        recording.cause.unwrap().kind,
        Some(v1::cause::Kind::TaskId(task.task_id.clone()))
    );
    let same = world.grant(&ask).await;
    assert_eq!(
        (same.revision, same.recordings[0].until_ms),
        (2, task.end_ms),
        "what runs goes on"
    );
    assert_eq!(
        delete(&world, &task.task_id, true).await.unwrap_err().code(),
        Code::NotFound
    );

    let ahead = make(&world, create(&world, "s", Some(60_000), 60_000)).await;
    assert_eq!(session.set().await.recordings.len(), 2);
    delete(&world, &ahead.task_id, false).await.unwrap();
    assert!(
        session.set().await.recordings[1].cancelled,
        "what has not begun never does"
    );
}

#[actix_rt::test]
async fn a_token_makes_one_task_and_lists_are_paged_and_filtered() {
    let mut world = World::new(patient).await;
    let request = |n: i64| v1::CreateTaskRequest {
        client_token: format!("n-{n}"),
        ..create(
            &world,
            if n % 2 == 0 { "even" } else { "odd" },
            Some(n * HOUR_MS),
            HOUR_MS,
        )
    };
    let requests: Vec<_> = (1..=5).map(request).collect();
    let mut made = Vec::new();
    for request in &requests {
        made.push(make(&world, request.clone()).await);
    }
    world.restart().await;
    for (request, task) in requests.iter().zip(&made) {
        assert_eq!(make(&world, request.clone()).await, *task);
    }
    stop(&world, &made[0].task_id).await.unwrap();
    assert_eq!(
        make(&world, requests[0].clone()).await.state(),
        TaskState::Cancelled,
        "also of one that has ended"
    );
    let other = v1::CreateTaskRequest {
        end_ms: requests[0].end_ms + 1,
        ..requests[0].clone()
    };
    let taken = world.tasks().create_task(other).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert!(taken.message().contains(&made[0].task_id), "{}", taken.message());

    let list = async |mut request: v1::ListTasksRequest| {
        let mut all = Vec::new();
        loop {
            let page = world.tasks().list_tasks(request.clone()).await.unwrap().into_inner();
            all.extend(page.tasks.into_iter().map(|task| task.task_id));
            if page.next_page_token.is_empty() {
                return all;
            }
            request.page_token = page.next_page_token;
        }
    };
    let ids = |numbers: &[usize]| numbers.iter().map(|n| made[n - 1].task_id.clone()).collect::<Vec<_>>();
    let two = v1::ListTasksRequest {
        page_size: 2,
        ..Default::default()
    };
    assert_eq!(list(two.clone()).await, ids(&[5, 4, 3, 2, 1]));
    let odd = v1::ListTasksRequest {
        stream: "odd".into(),
        ..two.clone()
    };
    assert_eq!(list(odd).await, ids(&[5, 3, 1]));
    let scheduled = v1::ListTasksRequest {
        state: TaskState::Scheduled.into(),
        domain: "d".into(),
        app: "live".into(),
        stream: "odd".into(),
        ..two.clone()
    };
    assert_eq!(list(scheduled).await, ids(&[5, 3]));
    let time = v1::ListTasksRequest {
        from_ms: made[2].start_ms,
        to_ms: made[3].end_ms,
        ..two
    };
    assert!(list(time.clone()).await.contains(&made[3].task_id));
    let within = v1::ListTasksRequest { within: true, ..time };
    assert_eq!(list(within).await, ids(&[4, 3]));
}
