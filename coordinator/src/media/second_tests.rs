use std::{path::Path, pin::pin, task::Poll, time::Duration};

use shared::{
    config::ObjectsConfig,
    ids::Seeded,
    objects::Bucket,
    recording::RecordingDocument,
    store::{COPY_LEASE, CopyJob, CopyOf, Txn, keys},
    time::Clock as _,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    super::sweeper::tests::{DAY, World, objects, world},
    *,
};

fn copy_all(from: &Path, to: &Path) {
    for key in objects(from) {
        let path = to.join(&key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&key), path).unwrap();
    }
}

/// A bucket at an address.
fn bucket(address: &str) -> Archive {
    let config = ObjectsConfig {
        endpoint: Some(format!("http://{address}")),
        request_timeout: Duration::from_secs(5),
        ..Default::default()
    };
    Archive::Bucket(Bucket::s3_with_keys("bucket", "", &config, Some(("a", "b"))).unwrap())
}

/// A world whose second place has everything that the first has, in a folder.
async fn copied() -> (World, tempfile::TempDir) {
    let mut world = world().await;
    let second = tempfile::tempdir().unwrap();
    copy_all(world.root.path(), second.path());
    world.remover.second = Some(Archive::Folder(second.path().to_owned()));
    (world, second)
}

/// What the task of the second place keeps in mind.
#[derive(Default)]
struct Mind {
    turn: Turn,
    after: Option<FileId>,
}

impl World {
    async fn look_second(&self, mind: &mut Mind) {
        self.remover.look_second(&mut mind.turn, &mut mind.after).await.unwrap();
    }

    async fn waiting(&self) -> (usize, usize) {
        let count = async |from| self.remover.repo.removals(from, None, 1_000).await.unwrap().len();
        (count(RemovalFrom::First).await, count(RemovalFrom::Second).await)
    }

    fn failures(&self, reason: &'static str) -> u64 {
        let failures = &self.remover.metrics.second_removal_failures;
        failures.get_or_create(&Reason { reason }).get()
    }
}

#[tokio::test]
async fn a_second_place_that_is_away_holds_nothing_back_and_is_caught_up_with() {
    let (mut world, folder) = copied().await;
    // Nobody listens there.
    let there = world.remover.second.replace(bucket("127.0.0.1:9"));
    let mut mind = Mind::default();
    world.after(DAY);
    world.look().await;
    world.look_second(&mut mind).await;
    assert_eq!(world.keys("v1/file/").await.len(), 1);
    assert_eq!(world.waiting().await, (0, 2), "they wait for the second alone");
    assert_eq!(world.objects().len(), 3, "the first has let them go");
    assert_eq!((world.failures("unavailable"), world.failures("refused")), (1, 0));
    world.look_second(&mut mind).await;
    assert_eq!(world.failures("unavailable"), 1, "not before its turn");

    // It is away for another day, and the last file goes, and its recording.
    world.after(DAY);
    world.look().await;
    assert_eq!(world.objects(), ["d/a/s/other/recording.json"]);
    assert_eq!(world.keys("v1/rec").await, Vec::<String>::new());
    world.look_second(&mut mind).await;
    assert_eq!(world.failures("unavailable"), 2);
    assert_eq!(world.remover.metrics.second_removals.get(), 3);
    let listed = world.remover.repo.removals(RemovalFrom::Second, None, 9).await.unwrap();
    assert!(listed.iter().any(|removal| !removal.problem.is_empty()), "{listed:?}");

    world.remover.second = there;
    world.look_second(&mut mind).await;
    assert_eq!(world.waiting().await, (0, 3), "not before its turn");
    world.after(Duration::from_secs(20));
    world.look_second(&mut mind).await;
    world.look_second(&mut mind).await;
    world.ensure_all_gone().await;
    assert_eq!(objects(folder.path()), ["d/a/s/other/recording.json"]);
    assert_eq!(world.remover.metrics.second_removals.get(), 0);
}

#[tokio::test]
async fn the_document_of_the_second_place_leaves_out_what_is_gone_there() {
    let (world, folder) = copied().await;
    world.after(DAY);
    world.look().await;
    world.look_second(&mut Mind::default()).await;
    assert_eq!(objects(folder.path()), world.objects());
    let key = format!("d/a/s/{}/recording.json", world.recording.id);
    let document = std::fs::read(folder.path().join(key)).unwrap();
    let document = RecordingDocument::from_json(&document).unwrap();
    assert_eq!(document.files.len(), 1);
}

/// A service that has nothing, and whose keys may not remove FLV.
async fn without_rights() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let line = String::from_utf8_lossy(&request);
            let line = line.lines().next().unwrap_or_default();
            let (status, body) = match line {
                line if line.starts_with("DELETE ") && line.contains(".flv") => {
                    ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")
                }
                line if line.starts_with("DELETE ") => ("204 No Content", ""),
                line if line.contains("uploads") => (
                    "200 OK",
                    "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
                ),
                line if line.contains("list-type=2") => (
                    "200 OK",
                    "<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>",
                ),
                _ => ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn keys_that_may_not_remove_one_file_from_the_second_place_hold_no_other_back() {
    let mut world = world().await;
    world.remover.second = Some(bucket(&without_rights().await));
    // Of recordings of their own, so that none shares the fate of another; refused ones before and behind.
    let ids = Seeded::new(7);
    for n in 0..12 {
        let mut file = world.files[if n % 6 == 5 { 2 } else { 0 }].clone();
        file.id = FileId::generate(&ids, world.clock.now());
        file.recording = RecordingId::generate(&ids, world.clock.now());
        let removal = Removal::asked(&file, world.clock.now());
        let repo = &world.remover.repo;
        repo.end_removals(file.recording, &[removal], (true, true))
            .await
            .unwrap();
    }
    let mut mind = Mind::default();
    world.look_second(&mut mind).await;
    let left = world
        .remover
        .repo
        .removals(RemovalFrom::Second, None, 99)
        .await
        .unwrap();
    assert_eq!(left.len(), 10, "both MP4 are gone");
    assert!(left.iter().all(|removal| removal.problem.contains("403")), "{left:?}");
    assert_eq!((world.failures("unavailable"), world.failures("refused")), (0, 10));
    assert!(!mind.turn.is_waiting(), "the place itself does let go");
    // The first goes on meanwhile.
    world.after(2 * DAY);
    world.look().await;
    assert_eq!(world.objects(), ["d/a/s/other/recording.json"]);
    // Where nothing goes any more the place waits, not each of them.
    world.look_second(&mut mind).await;
    world.look_second(&mut mind).await;
    let tried = world.failures("refused");
    world.after(DAY);
    world.look_second(&mut mind).await;
    assert!(mind.turn.is_waiting() && world.failures("refused") > tried);
}

#[tokio::test]
async fn whoever_dies_at_any_step_in_either_place_is_gone_on_with() {
    for polls in 1.. {
        let (world, folder) = copied().await;
        world.after(2 * DAY);
        let ended = {
            let mut both = pin!(async {
                world.look().await;
                world.look_second(&mut Mind::default()).await;
            });
            let mut count = 0;
            std::future::poll_fn(|cx| {
                count += 1;
                match both.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending if count >= polls => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        // Another takes over, with nothing but the store.
        world.look().await;
        world.look_second(&mut Mind::default()).await;
        world.ensure_all_gone().await;
        assert_eq!(objects(folder.path()), ["d/a/s/other/recording.json"]);
        assert!(polls < 1_000);
        if ended {
            assert!(polls > 8, "{polls} steps were seen");
            return;
        }
    }
}

#[tokio::test]
async fn a_worker_that_still_copies_is_waited_for_by_the_second_place_alone() {
    let (world, folder) = copied().await;
    let repo = &world.remover.repo;
    world.after(2 * DAY);
    let now = world.clock.now();
    let flv = &world.files[0];
    let job = CopyJob::new(CopyOf::File(flv.id), (flv.recording, flv.stream.clone(), ""), now);
    let noted = Txn::new().put_json(keys::copy(job.of.id()), &job).unwrap();
    repo.store().commit(noted).await.unwrap();
    let worker = WorkerId::generate(&Seeded::new(5), now);
    let (orders, _) = repo.take_copies((worker, &[]), 1, now, None).await.unwrap();
    assert_eq!(orders.len(), 1);

    let mut mind = Mind::default();
    world.look().await;
    world.look_second(&mut mind).await;
    assert_eq!(
        world.objects(),
        ["d/a/s/other/recording.json"],
        "the first does not wait"
    );
    assert_eq!(world.waiting().await, (0, 3));
    let waits = repo.removals(RemovalFrom::Second, None, 9).await.unwrap();
    assert!(waits[0].problem.contains("still copying"), "{waits:?}");
    assert!(!mind.turn.is_waiting(), "the place is not to blame");
    // It has fallen silent.
    world.after(COPY_LEASE);
    world.look_second(&mut mind).await;
    world.ensure_all_gone().await;
    assert_eq!(world.keys(keys::COPIES).await, Vec::<String>::new());
    assert_eq!(objects(folder.path()), ["d/a/s/other/recording.json"]);
}

#[tokio::test]
async fn what_lies_in_a_backup_alone_goes_as_well_and_waits_for_it_alone() {
    let (mut world, folder) = copied().await;
    world.remover.is_backup = true;
    // Neither the document nor the FLV ever came to the first.
    let key = format!("d/a/s/{}", world.recording.id);
    std::fs::remove_file(world.root.path().join(&key).join("recording.json")).unwrap();
    std::fs::remove_file(world.root.path().join(&world.files[0].object_key)).unwrap();
    world.after(DAY);
    let there = world.remover.second.replace(bucket("127.0.0.1:9"));
    world.look().await;
    assert_eq!(
        world.keys("v1/file/").await.len(),
        3,
        "what is not seen is not forgotten"
    );
    assert_eq!(world.remover.metrics.retention_unseen.get(), 1);
    // What the first has seen goes on meanwhile: asked for, it is not looked for.
    let mp4 = world.files[2].id;
    let removal = world.remover.repo.remove_file(mp4, world.clock.now()).await.unwrap();
    let came = world.remover.carry_out(vec![removal]).await.unwrap();
    assert_eq!((came, world.waiting().await), (Outcome::Gone, (0, 1)));

    world.remover.second = there;
    world.look().await;
    assert_eq!(world.remover.metrics.retention_unseen.get(), 0);
    assert_eq!(world.objects(), ["d/a/s/other/recording.json"]);
    world.look_second(&mut Mind::default()).await;
    world.ensure_all_gone().await;
    assert_eq!(objects(folder.path()), ["d/a/s/other/recording.json"]);
}
