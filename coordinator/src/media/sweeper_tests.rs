use std::{
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
};

use async_trait::async_trait;
use shared::{
    composition::{Composition, NewComposition, Piece},
    ids::{Seeded, StreamKey, WorkerId},
    lease::{Epoch, FencingToken},
    recording::{Cause, MediaFile, Recording, RecordingState},
    store::{Entry, LeaseId, MetaStore, Model, RecordingUpdate, Revision, Scan, Scanned, Watch},
    template::TemplateSpec,
    time::Manual,
};

use super::*;
use crate::compositions::Compositions;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A store at each of whose calls a process may die: before it, and after it and before its answer is heard.
#[derive(Debug)]
struct Mortal(Model);

#[async_trait]
impl MetaStore for Mortal {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.0.get(key).await
    }
    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        self.0.scan(scan).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        tokio::task::yield_now().await;
        let done = self.0.commit(txn).await;
        tokio::task::yield_now().await;
        done
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.0.watch(prefix, after).await
    }
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.0.grant_lease(ttl).await
    }
    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.renew_lease(lease).await
    }
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.revoke_lease(lease).await
    }
}

pub(crate) struct World {
    pub(crate) remover: Remover,
    pub(crate) clock: Arc<Manual>,
    pub(crate) root: tempfile::TempDir,
    pub(crate) recording: Recording,
    pub(crate) files: Vec<MediaFile>,
}

/// A finished recording of one HLS playlist over two pushes, an FLV that goes after a day, as HLS does, and an MP4 that goes after two.
pub(crate) async fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let clock = Arc::new(Manual::at(Timestamp::from_millis(1_790_000_000_000)));
    let repo = Repo::new(Arc::new(Mortal(Model::new(Arc::clone(&clock) as Arc<dyn Clock>))));
    let (ids, now) = (Seeded::new(3), clock.now());
    let mut template = TemplateSpec::plain("t", &[Format::Flv, Format::Hls, Format::Mp4]);
    for (format, settings) in &mut template.formats {
        settings.storage_time_s = if *format == Format::Mp4 { 2 * 86_400 } else { 86_400 };
    }
    let mut recording = Recording {
        id: RecordingId::generate(&ids, now),
        stream: StreamKey::new("d", "a", "s").unwrap(),
        cause: Cause::BuiltIn,
        state: RecordingState::Recording,
        reason: String::new(),
        epoch: Epoch::new(2),
        template,
        template_id: None,
        publishes: vec![],
        worker: WorkerId::generate(&ids, now),
        params: String::new(),
        started: now,
        ended: None,
        gaps: vec![],
        locked: false,
    };
    let txn = Txn::new()
        .put_json(keys::recording(recording.id), &recording)
        .unwrap()
        .put(keys::stream_recording(&recording.stream, recording.id), "");
    repo.store().commit(txn).await.unwrap();
    let token = FencingToken {
        recording: recording.id,
        epoch: recording.epoch,
    };
    let folder = format!("d/a/s/{}", recording.id);
    let mut files = Vec::new();
    for (format, name) in [
        (Format::Flv, "e000002/flv/000000.flv"),
        (Format::Hls, "e000002/hls/index.m3u8"),
        (Format::Mp4, "e000002/mp4/000000.mp4"),
    ] {
        let file = MediaFile {
            id: FileId::generate(&ids, now),
            recording: recording.id,
            stream: recording.stream.clone(),
            format,
            sequence: 0,
            name: "n".to_owned(),
            object_key: format!("{folder}/{name}"),
            size: 1,
            duration_ms: 1,
            start: now,
            end: now,
            checksum: String::new(),
            video_units: 0,
            audio_units: 0,
            gaps: vec![],
            epoch: recording.epoch,
            committed: Timestamp::default(),
            expires: None,
            locked: false,
            copied: None,
        };
        repo.commit_file(token, file.clone(), now).await.unwrap();
        files.push(file);
    }
    let ended = RecordingUpdate {
        state: RecordingState::Finished,
        reason: "unpublish".to_owned(),
        ended: Some(now),
        gaps: vec![],
        files: Some(3),
    };
    repo.commit_recording(token, &ended).await.unwrap();
    recording.state = RecordingState::Finished;
    let document = RecordingDocument::new(recording.clone(), files.clone())
        .to_json()
        .unwrap();
    for (name, bytes) in [
        ("e000001/hls/000000.ts", b"x".as_slice()),
        ("e000001/hls/index.m3u8", b"x"),
        ("e000002/hls/000000.ts", b"x"),
        ("e000002/hls/index.m3u8", b"x"),
        ("e000002/flv/000000.flv", b"x"),
        ("e000002/mp4/000000.mp4", b"x"),
        ("recording.json", &document),
        ("../other/recording.json", b"x"),
    ] {
        let path = root.path().join(&folder).join(name);
        std::fs::create_dir_all(root.path().join(&folder)).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let remover = Remover {
        repo,
        archive: Archive::Folder(root.path().to_owned()).into(),
        second: None,
        is_backup: false,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        metrics: CoordinatorMetrics::default(),
        sources: Sources::default(),
    };
    World {
        remover,
        clock,
        root,
        recording,
        files,
    }
}

pub(crate) fn objects(root: &Path) -> Vec<String> {
    fn walk(folder: PathBuf, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(path, out),
                false => out.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(root.to_owned(), &mut found);
    found.sort();
    let name = |path: PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    found.into_iter().map(name).collect()
}

impl World {
    pub(crate) async fn look(&self) {
        self.remover.look(&mut None).await.unwrap();
    }

    /// Time goes on, and nobody looked meanwhile for less than what is doubted.
    pub(crate) fn after(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub(crate) fn objects(&self) -> Vec<String> {
        objects(self.root.path())
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let scanned = self.remover.repo.store().scan(Scan::prefix(prefix)).await.unwrap();
        scanned.entries.into_iter().map(|entry| entry.key).collect()
    }

    pub(crate) async fn ensure_all_gone(&self) {
        assert_eq!(self.objects(), ["d/a/s/other/recording.json"]);
        for prefix in [
            "v1/file",
            "v1/rec",
            "v1/removal",
            "v1/second",
            "v1/expiry",
            "v1/stream-recording",
        ] {
            assert_eq!(self.keys(prefix).await, Vec::<String>::new());
        }
    }

    fn removed(&self) -> u64 {
        let reason = "expired";
        self.remover
            .metrics
            .files_removed
            .get_or_create(&Reason { reason })
            .get()
    }
}

#[tokio::test]
async fn each_format_goes_in_its_own_time_and_the_recording_with_the_last() {
    let world = world().await;
    world.after(DAY - Duration::from_millis(1));
    world.look().await;
    assert_eq!((world.keys("v1/file/").await.len(), world.objects().len()), (3, 8));

    world.after(Duration::from_millis(1));
    world.look().await;
    let folder = format!("d/a/s/{}", world.recording.id);
    let left = [
        format!("{folder}/e000002/mp4/000000.mp4"),
        format!("{folder}/recording.json"),
        "d/a/s/other/recording.json".to_owned(),
    ];
    assert_eq!(world.objects(), left, "empty folders and earlier epochs go as well");
    assert!(!world.root.path().join(&folder).join("e000001").exists());
    let document = std::fs::read(world.root.path().join(&folder).join("recording.json")).unwrap();
    let document = RecordingDocument::from_json(&document).unwrap();
    assert_eq!(document.files.len(), 1, "what is gone is not in the document");
    assert_eq!(world.keys("v1/file/").await.len(), 1);
    assert_eq!(world.removed(), 2);

    world.after(DAY);
    world.look().await;
    world.ensure_all_gone().await;
    world.look().await;
    assert_eq!(world.removed(), 3);
}

#[tokio::test]
async fn whoever_dies_at_any_step_is_gone_on_with() {
    for polls in 1.. {
        let world = world().await;
        world.after(2 * DAY);
        let ended = {
            let mut belief = None;
            let mut look = pin!(world.remover.look(&mut belief));
            let mut count = 0;
            std::future::poll_fn(|cx| {
                count += 1;
                match look.as_mut().poll(cx) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending if count >= polls => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        // Another takes over, with nothing but the store.
        world.look().await;
        world.ensure_all_gone().await;
        assert!(polls < 1_000);
        if let Some(done) = ended {
            done.unwrap();
            assert!(polls > 5, "{polls} steps were seen");
            return;
        }
    }
}

#[tokio::test]
async fn what_storage_does_not_let_go_waits_longer_each_time_and_says_why() {
    let mut world = world().await;
    world.after(2 * DAY);
    // A file stands where a folder of the recording was expected to be: listing it fails.
    let elsewhere = world.root.path().join("elsewhere");
    std::fs::rename(world.root.path().join("d"), &elsewhere).unwrap();
    std::fs::write(world.root.path().join("d"), "no folder").unwrap();
    world.look().await;
    assert_eq!(
        world.remover.metrics.retention_unseen.get(),
        1,
        "what is not seen is not forgotten"
    );
    assert_eq!(world.keys("v1/file/").await.len(), 3);
    std::fs::remove_file(world.root.path().join("d")).unwrap();
    std::fs::rename(&elsewhere, world.root.path().join("d")).unwrap();

    // A bucket that is not there.
    let whole = world.remover.archive.clone();
    let config = shared::config::ObjectsConfig {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        request_timeout: Duration::from_secs(5),
        ..Default::default()
    };
    let bucket = shared::objects::Bucket::s3_with_keys("bucket", "", &config, Some(("a", "b"))).unwrap();
    let flv = world.files[0].id;
    let begun = world.remover.repo.remove_file(flv, world.clock.now()).await.unwrap();
    world.remover.archive = Archive::Bucket(bucket).into();
    assert_eq!(world.remover.carry_out(vec![begun]).await.unwrap(), Outcome::Away);
    let noted = world.remover.repo.removals(RemovalFrom::First, None, 9).await.unwrap();
    assert_eq!((noted.len(), noted[0].failures), (1, 1));
    assert!(!noted[0].problem.is_empty() && noted[0].retry_at > world.clock.now());
    // Not before its time.
    world.look().await;
    assert_eq!(
        world.remover.repo.removals(RemovalFrom::First, None, 9).await.unwrap(),
        noted
    );
    assert_eq!(world.remover.metrics.removals.get(), 1);
    world.after(Duration::from_secs(10));
    world.look().await;
    assert_eq!(
        world.remover.repo.removals(RemovalFrom::First, None, 9).await.unwrap()[0].failures,
        2
    );
    assert_eq!(
        world.keys("v1/file/").await.len(),
        2,
        "no more are begun while storage is away"
    );

    world.remover.archive = whole;
    world.after(Duration::from_secs(20));
    world.look().await;
    world.ensure_all_gone().await;
    assert_eq!(world.remover.metrics.removals.get(), 0);
}

#[tokio::test]
async fn what_lies_in_a_place_that_the_settings_do_not_have_is_left_and_not_forgotten() {
    let world = world().await;
    let mut placed = world.recording.clone();
    placed.template.place = "cold".to_owned();
    let noted = Txn::new()
        .put_json(keys::recording(placed.id), &placed)
        .and_then(|txn| txn.put_json(keys::salvage(placed.id), &placed.id));
    world.remover.repo.store().commit(noted.unwrap()).await.unwrap();
    let before = world.objects();
    world.after(2 * DAY);
    world.look().await;
    assert_eq!((world.keys("v1/file/").await.len(), world.objects()), (3, before));
    assert_eq!(world.remover.repo.salvages(9).await.unwrap(), [placed.id]);

    let mut file = world.files[0].clone();
    file.object_key = format!("@cold/{}", file.object_key);
    let removal = Removal {
        file,
        ..world
            .remover
            .repo
            .remove_file(world.files[0].id, world.clock.now())
            .await
            .unwrap()
    };
    assert_eq!(world.remover.carry_out(vec![removal]).await.unwrap(), Outcome::Refused);
    let waits = world.remover.repo.removals(RemovalFrom::First, None, 9).await.unwrap();
    assert!(
        waits[0].problem.contains("objects.places.cold.url"),
        "{}",
        waits[0].problem
    );
}

#[tokio::test]
async fn nothing_goes_of_a_recording_whose_worker_was_lost_before_it_is_completed() {
    let world = world().await;
    let id = world.recording.id;
    let noted = Txn::new().put_json(keys::salvage(id), &id).unwrap();
    world.remover.repo.store().commit(noted).await.unwrap();
    // All its files are due, and what is not in the library yet has just been given up.
    let list = "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXTINF:2.000,\n000000.ts\n";
    let before = world.objects().len();
    let folder = world.root.path().join(world.recording.folder()).join("e000003/hls");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in [("000000.ts", "x"), ("index.m3u8", list)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    world.after(2 * DAY);
    world.look().await;
    assert_eq!(world.remover.repo.salvages(9).await.unwrap(), []);
    assert_eq!(world.keys("v1/file/").await.len(), 4);
    assert_eq!(world.objects().len(), before + 2);
    world.look().await;
    assert_eq!(
        world.keys("v1/file/").await.len(),
        1,
        "what was completed has its own time"
    );
    world.after(2 * DAY);
    world.look().await;
    world.ensure_all_gone().await;
}

#[tokio::test]
async fn locks_hold_and_nothing_goes_while_the_clock_is_doubted() {
    let world = world().await;
    world
        .remover
        .repo
        .lock_recording(world.recording.id, true)
        .await
        .unwrap();
    world.after(5 * DAY);
    world.look().await;
    assert_eq!(world.keys("v1/file/").await.len(), 3);
    world
        .remover
        .repo
        .lock_recording(world.recording.id, false)
        .await
        .unwrap();
    let mp4 = world.files[2].id;
    world
        .remover
        .repo
        .change_file(mp4, |file| file.locked = true)
        .await
        .unwrap();

    // It was looked five days ago by the store, and now the clock says twenty.
    world.after(15 * DAY);
    world.look().await;
    assert_eq!(world.keys("v1/file/").await.len(), 3);
    assert_eq!(world.remover.metrics.retention_held.get(), 1);
    let mut belief = None;
    world.remover.look(&mut belief).await.unwrap();
    world.after(DAY);
    world.remover.look(&mut belief).await.unwrap();
    assert_eq!(world.remover.metrics.retention_held.get(), 0);
    assert_eq!(world.keys("v1/file/").await, [keys::file(mp4)], "the locked one stays");
    assert!(world.objects().iter().any(|key| key.ends_with(".mp4")));
}

/// A composition of one file.
fn composition(world: &World, file: FileId) -> Composition {
    let piece = Piece {
        file,
        key: "k".to_owned(),
        format: Format::Flv,
        from_ms: 0,
        for_ms: None,
    };
    let new = NewComposition {
        pieces: vec![piece],
        stream: world.recording.stream.clone(),
        start: world.clock.now(),
        writers: vec![],
        name: "joined".to_owned(),
        description: String::new(),
        video: true,
        audio: true,
        token: String::new(),
        context: String::new(),
        expires: None,
    };
    Compositions::default()
        .create(new, world.clock.now(), &Seeded::new(9))
        .unwrap()
        .0
}

#[tokio::test]
async fn what_an_open_composition_reads_stays_until_it_has_ended() {
    let world = world().await;
    let flv = world.files[0].id;
    let one = composition(&world, flv);
    let mut leader = Compositions::new(vec![one.clone()]);
    leader.tell(world.remover.sources.clone());
    world.after(3 * DAY);
    world.look().await;
    assert_eq!(world.keys("v1/file/").await, [keys::file(flv)], "the others are gone");
    assert!(world.objects().iter().any(|key| key.ends_with(".flv")));

    let at = world.clock.now();
    leader
        .ended(one.id, RecordingState::Finished, "composed", at)
        .unwrap()
        .unwrap();
    world.look().await;
    world.ensure_all_gone().await;
}
