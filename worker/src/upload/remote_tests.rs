//! Tests of [`Remote`].

use shared::objects::{Fault, Faulty};

use super::*;

fn remote(max_uploads: usize) -> Remote {
    let limits = Limits {
        max_uploads,
        part_size: 5 << 20,
        max_bandwidth: 0,
    };
    Remote::new(Bucket::in_memory(), limits, WorkerMetrics::default()).expect("threads")
}

#[tokio::test]
async fn five_hundred_streams_that_end_together_all_arrive_a_few_at_a_time() {
    let remote = remote(4);
    let key = |n: u32| format!("live/s{n}/000000.mp4");
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let ends: Vec<_> = (0..500)
        .map(|n| {
            let (remote, bytes) = (remote.clone(), bytes.clone());
            tokio::spawn(async move {
                let turn = remote.turn(1 << 20, Haste::GoingOn).await.expect("a turn");
                let free = remote.0.turns.free();
                let object = Object {
                    key: key(n),
                    chunks: vec![bytes],
                    verify: true,
                };
                remote
                    .perform(Store::Objects(vec![object]), turn)
                    .await
                    .expect("stored");
                free
            })
        })
        .collect();
    for end in ends {
        assert!(end.await.expect("no panic") < 4);
    }
    assert_eq!(remote.bucket().keys("live/").await.expect("listed").len(), 500);
}

#[tokio::test]
async fn turns_are_bounded_by_their_bytes_too() {
    let remote = remote(4);
    // All the memory there is: the next one waits although slots are free.
    let all = remote.turn(u64::MAX, Haste::GoingOn).await.expect("a turn");
    let next = remote.clone();
    let next = tokio::spawn(async move { next.turn(1, Haste::GoingOn).await.is_some() });
    tokio::task::yield_now().await;
    assert!(!next.is_finished());
    drop(all);
    assert!(next.await.expect("no panic"));
}

fn of_bytes(key: String, len: usize) -> Object {
    Object {
        key,
        chunks: vec![Bytes::from(vec![7; len])],
        verify: false,
    }
}

/// Performs all of them at a time; gives how long that takes, seconds.
async fn performed(remote: &Remote, stores: Vec<Store>) -> f64 {
    let begin = Instant::now();
    let all: Vec<_> = stores
        .into_iter()
        .map(|store| {
            let remote = remote.clone();
            tokio::spawn(async move {
                let turn = remote.turn(0, Haste::GoingOn).await.expect("a turn");
                remote.perform(store, turn).await.map(drop)
            })
        })
        .collect();
    for one in all {
        // What becomes of it is another test's.
        let _ = one.await.expect("no panic");
    }
    begin.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn uploads_go_at_the_bandwidth_that_the_settings_allow_all_together() {
    const MIB: usize = 1 << 20;
    for (max_bandwidth, least) in [(MIB as u64, 1.0), (0, 0.0)] {
        let limits = Limits {
            max_uploads: 8,
            part_size: 5 << 20,
            max_bandwidth,
        };
        let remote = || {
            let bucket = Faulty::default().bucket(Duration::from_secs(60));
            Remote::on(Handle::current(), bucket, limits, WorkerMetrics::default())
        };
        let objects = (0..4)
            .map(|n| Store::Objects(vec![of_bytes(format!("o{n}"), MIB)]))
            .collect();
        let parts = (0..3).map(|n| Store::Part {
            key: format!("p{n}"),
            upload: None,
            index: 1,
            chunks: vec![Bytes::from(vec![7; 5 * MIB])],
        });
        let folder = tempfile::tempdir().expect("a folder");
        let files = (0..3).map(|n| {
            let path = folder.path().join(format!("f{n}"));
            std::fs::write(&path, vec![7; 2 * MIB]).expect("written");
            let then = Vec::new();
            let (key, len) = (format!("f{n}"), 2 * MIB as u64);
            Store::File { key, path, len, then }
        });
        // The last of them may go when those before it would be through.
        for (stores, before) in [
            (objects, 3.0),
            (parts.collect(), 10.0),
            (files.collect::<Vec<_>>(), 4.0),
        ] {
            let took = performed(&remote(), stores).await;
            let expected = least * before;
            assert!((expected..expected + 0.9).contains(&took), "{took} s, not {expected}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_failed_together_are_not_made_again_together() {
    let mut took = Vec::new();
    for n in 0..8 {
        let storage = Faulty::default();
        storage.set(Some(Fault::Unavailable));
        let limits = Limits {
            max_uploads: 1,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let bucket = storage.bucket(Duration::from_secs(60));
        let remote = Remote::on(Handle::current(), bucket, limits, WorkerMetrics::default());
        let store = Store::Objects(vec![of_bytes(format!("live/s{n}/000000.ts"), 1)]);
        took.push(performed(&remote, vec![store]).await);
        assert_eq!(storage.seen().requests, u64::from(TRIES));
    }
    // 0.2, 0.4 and 0.8 s between four tries, and up to half as much again.
    assert!(took.iter().all(|took| (1.4..2.3).contains(took)), "{took:?}");
    took.sort_by(f64::total_cmp);
    assert!(took.windows(2).all(|two| two[1] - two[0] > 0.000_5), "{took:?}");
}

#[test]
fn jitter_is_spread_over_keys_and_tries_and_at_most_half_of_the_wait() {
    let wait = Duration::from_millis(200);
    let spread = |keys: u32, tries: u32| {
        let jitter = |n| jitter(&format!("live/s{n}/000000.ts"), tries, wait);
        (0..keys).map(jitter).collect::<BTreeSet<Duration>>()
    };
    for tries in 1..TRIES {
        let of_keys = spread(1_000, tries);
        assert!(of_keys.iter().all(|jitter| *jitter <= wait / 2));
        assert!(of_keys.len() > 300, "{} different ones", of_keys.len());
        let (low, high) = (of_keys.first().expect("one"), of_keys.last().expect("one"));
        assert!(*low < wait / 20 && *high > wait * 9 / 20, "{low:?} to {high:?}");
    }
    let of_tries: BTreeSet<Duration> = (1..TRIES).map(|tries| jitter("k", tries, wait)).collect();
    assert_eq!(of_tries.len(), 3);
}

/// A completion that took longer than its time: storage has let go of the upload and is still writing the object.
#[tokio::test(start_paused = true)]
async fn an_object_that_is_still_being_joined_is_waited_for() {
    let remote = remote(1);
    let late = remote.clone();
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        late.bucket().put("k", vec![Bytes::from_static(b"whole")]).await
    });
    assert!(remote.0.appears("k", 5).await.expect("answered"));
    late.await.expect("no panic").expect("stored");
    assert!(!remote.0.appears("k", 6).await.expect("answered"));
    assert!(!remote.0.appears("lost", 5).await.expect("answered"));
}

/// Keys whose uploads of nobody are looked for later may be stored once more meanwhile.
#[tokio::test]
async fn clearing_up_leaves_what_is_uploaded_once_more() {
    let remote = remote(1);
    remote.0.doubts().stored.insert("k".to_owned());
    let part = Store::Part {
        key: "k".to_owned(),
        upload: None,
        index: 1,
        chunks: vec![Bytes::from_static(b"body")],
    };
    let turn = remote.turn(1, Haste::GoingOn).await.expect("a turn");
    let Stored::Part { upload, id } = remote.perform(part, turn).await.expect("stored") else {
        panic!("a part")
    };
    remote.0.clear_stored().await;
    let complete = Store::Complete(Box::new(Complete {
        key: "k".to_owned(),
        upload,
        ids: vec![id],
        first: vec![Bytes::from_static(b"head")],
        last: Vec::new(),
        size: 8,
        may_be_whole: false,
        vouched: None,
    }));
    let turn = remote.turn(1, Haste::GoingOn).await.expect("a turn");
    remote.perform(complete, turn).await.expect("completed");
}

#[tokio::test]
async fn a_file_that_was_completed_before_a_crash_is_not_stored_again() {
    let remote = remote(1);
    let complete = |upload: String, id: String| {
        Store::Complete(Box::new(Complete {
            key: "k".to_owned(),
            upload,
            ids: vec![id],
            first: vec![Bytes::from_static(b"head")],
            last: vec![Bytes::from_static(b"tail")],
            size: 12,
            may_be_whole: true,
            vouched: None,
        }))
    };
    let part = Store::Part {
        key: "k".to_owned(),
        upload: None,
        index: 1,
        chunks: vec![Bytes::from_static(b"body")],
    };
    let turn = || async { remote.turn(1, Haste::GoingOn).await.expect("a turn") };
    let Stored::Part { upload, id } = remote.perform(part, turn().await).await.expect("stored") else {
        panic!("a part")
    };
    for _ in 0..2 {
        let store = complete(upload.clone(), id.clone());
        remote
            .perform(store, turn().await)
            .await
            .expect("completed, now or before");
    }
    assert_eq!(remote.bucket().get("k").await.expect("whole"), "headbodytail");
}

fn finished() -> FinishedFile {
    FinishedFile {
        file_id: "f".to_owned(),
        format: shared::template::Format::Mp4,
        sequence: 0,
        key: "k".to_owned(),
        size: (10 << 20) + 4,
        checksum: String::new(),
        duration_ms: 1,
        start_ms: 1,
        video_units: 1,
        audio_units: 1,
        gaps: vec![],
    }
}

/// Of a part that was sent twice storage may have kept the first, under an id that nobody was told.
#[tokio::test(start_paused = true)]
async fn parts_that_storage_knows_by_another_id_are_completed_by_that() {
    for (there, is_strange) in [(true, true), (false, true), (true, false)] {
        let storage = Faulty::default();
        let limits = Limits {
            max_uploads: 1,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let bucket = storage.bucket(Duration::from_secs(30));
        let remote = Remote::on(Handle::current(), bucket, limits, WorkerMetrics::default());
        let turn = async || remote.turn(1, Haste::GoingOn).await.expect("a turn");
        storage.set(is_strange.then_some(Fault::StrangeId));
        let part = Store::Part {
            key: "k".to_owned(),
            upload: None,
            // Where it is not at its place, it is none of the parts.
            index: if there { 1 } else { 7 },
            chunks: vec![Bytes::from(vec![2; 5 << 20])],
        };
        let Stored::Part { upload, id } = remote.perform(part, turn().await).await.expect("stored") else {
            panic!("a part")
        };
        storage.set(None);
        let complete = Store::Complete(Box::new(Complete {
            key: "k".to_owned(),
            upload,
            ids: vec![id],
            first: vec![Bytes::from(vec![1; 5 << 20])],
            last: vec![Bytes::from_static(b"tail")],
            size: (10 << 20) + 4,
            may_be_whole: false,
            vouched: Some((finished(), "UTC".into())),
        }));
        let completed = remote.perform(complete, turn().await).await;
        // From before it is completed: should this machine be lost between the two, this alone tells of the file.
        let beside = remote.bucket().get("k.rescue").await.expect("vouched for");
        let (whole, ..) = Rescue::parse(&beside).expect("a rescue");
        assert!(whole.whole && whole.file == finished() && whole.ids.len() == 3);
        match completed {
            Ok(_) => {
                assert!(there);
                let whole = [vec![1; 5 << 20], vec![2; 5 << 20], b"tail".to_vec()].concat();
                assert!(remote.bucket().get("k").await.expect("whole") == whole);
            }
            Err(StoreError::UploadLost(error)) => assert!(!there, "{error}"),
            Err(StoreError::Later(error)) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_outlasts_its_abort_is_aborted_again() {
    let storage = Faulty::default();
    let limits = Limits {
        max_uploads: 1,
        part_size: 5 << 20,
        max_bandwidth: 0,
    };
    let bucket = storage.bucket(Duration::from_secs(5));
    let remote = Remote::on(Handle::current(), bucket, limits, WorkerMetrics::default());
    for _ in 0..2 {
        remote.bucket().begin("k").await.expect("begun");
    }
    let kept = storage.pending()[0].upload_id.clone();
    storage.once(Fault::Unaborted, 0);
    let tidy = Store::Tidy {
        prefix: "k".to_owned(),
        keep: Some(kept.clone()),
    };
    let turn = remote.turn(1, Haste::GoingOn).await.expect("a turn");
    remote.perform(tidy, turn).await.expect("tidied");
    let left: Vec<String> = storage.pending().into_iter().map(|upload| upload.upload_id).collect();
    assert_eq!(left, [kept]);
}
