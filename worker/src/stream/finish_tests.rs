//! Finishers that find less than there is, in virtual time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proto::v1;
use shared::ids::{Random, RecordingId, StreamKey, WorkerId};
use shared::lease::Epoch;
use shared::objects::{Bucket, Fault, Faulty};
use shared::recording::{Cause, Recording};
use shared::template::TemplateSpec;
use shared::time::System;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::*;
use crate::control::agent::Identity;
use crate::control::line::{Directives, Line};
use crate::upload::{Found, Limits, Needs, Objects, Remote};

/// So long a finisher looks for an index that is not there.
const PATIENCE: Duration = Duration::from_secs(40);

/// The library, which takes everything.
#[derive(Debug, Default)]
struct Library {
    /// What it has, in pages; none: nothing.
    pages: Mutex<Vec<RecordingDocument>>,
    /// So often it does not answer first.
    fails: AtomicU32,
    files: Mutex<Vec<v1::MediaFile>>,
    ends: Mutex<Vec<v1::CommitRecordingRequest>>,
}

#[async_trait]
impl Line for Library {
    async fn session(&self, _: mpsc::Receiver<v1::WorkerUp>) -> Result<Directives, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn acquire_lease(&self, _: v1::AcquireLeaseRequest) -> Result<v1::AcquireLeaseResponse, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn release_lease(&self, _: v1::ReleaseLeaseRequest) -> Result<v1::ReleaseLeaseResponse, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn commit_file(&self, request: v1::CommitFileRequest) -> Result<(), Status> {
        let file = request.file.expect("a file");
        let mut files = self.files.lock().expect("no panic");
        files.retain(|known| known.file_id != file.file_id);
        files.push(file);
        Ok(())
    }

    async fn commit_recording(&self, request: v1::CommitRecordingRequest) -> Result<(), Status> {
        self.ends.lock().expect("no panic").push(request);
        Ok(())
    }

    async fn read_recording(&self, request: v1::ReadRecordingRequest) -> Result<v1::ReadRecordingResponse, Status> {
        let fewer = |fails: u32| fails.checked_sub(1);
        if self
            .fails
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
            .is_ok()
        {
            return Err(Status::unavailable("not now"));
        }
        let page = request.page_token.parse().unwrap_or(0);
        let pages = self.pages.lock().expect("no panic");
        let document = pages.get(page).ok_or_else(|| Status::not_found("no such recording"))?;
        assert_eq!(document.recording.id.to_string(), request.recording_id);
        Ok(v1::ReadRecordingResponse {
            document: document.to_json().expect("JSON"),
            next_page_token: match page + 1 < pages.len() {
                true => (page + 1).to_string(),
                false => String::new(),
            },
        })
    }
}

/// Objects alone: nothing of them is on a disk.
pub(in crate::stream) struct Small(pub(in crate::stream) Objects);

#[async_trait]
impl Shelf for Small {
    async fn each(&self, key: &str) -> std::io::Result<Found> {
        self.0.each(key).await
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> std::io::Result<()> {
        self.0.put(key, bytes).await
    }

    async fn durable(&self) {}
}

/// A recording whose stream does not come back, and two places where something of it lies.
struct World {
    first: Faulty,
    second: Faulty,
    job: FinishJob,
    library: Arc<Library>,
    finisher: Finisher,
}

fn stream() -> StreamKey {
    StreamKey::new("d", "a", "s").expect("a stream")
}

/// HLS that waits for its stream, and FLV.
fn template() -> TemplateSpec {
    let mut template = TemplateSpec::plain("evening", &[Format::Hls, Format::Flv]);
    template.formats.get_mut(&Format::Hls).expect("HLS").flow_continue_s = 60;
    template
}

impl World {
    /// Of publishes under epochs 1 to `publishes`.
    fn new(publishes: u64) -> Self {
        let (first, second) = (Faulty::default(), Faulty::default());
        let limits = Limits {
            max_uploads: 2,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let (timeout, metrics) = (Duration::from_secs(30), WorkerMetrics::default());
        let remote = Remote::on(Handle::current(), first.bucket(timeout), limits, metrics.clone());
        let behind = (Duration::from_secs(600), Needs::default());
        let remote = remote.with_backup((second.bucket(timeout), limits), behind, metrics.clone());
        let library = Arc::new(Library::default());
        let identity = Identity {
            id: WorkerId::generate(&Random, Timestamp::default()),
            name: "w".to_owned(),
            rtmp: String::new(),
            storages: BTreeMap::new(),
        };
        let finisher = Finisher {
            agent: Agent::over(Arc::<Library>::clone(&library), identity),
            shelf: Arc::new(Small(Objects::Remote(remote))),
            documents: Documents::default(),
            clock: Arc::new(System::new()),
            zone: TimeZone::UTC,
            composer: None,
            metrics,
        };
        let job = FinishJob {
            recording: RecordingId::generate(&Random, Timestamp::default()),
            stream: stream(),
            epoch: Epoch::new(publishes + 1),
            before: (1..=publishes).rev().map(Epoch::new).collect(),
            template: template(),
            reason: "unpublished".to_owned(),
            lost: false,
        };
        Self {
            first,
            second,
            job,
            library,
            finisher,
        }
    }

    /// Stores an index of so many segments in one of the places, without its faults.
    async fn index(&self, place: &Faulty, epoch: u64, segments: u64, paused: bool) {
        let key = index::key(&self.job.folder(), Epoch::new(epoch));
        put(place, &key, index_of(segments, paused)).await;
    }

    /// `recording.json` as a publish of this epoch wrote it.
    async fn document(&self, epoch: u64, gap: &str, files: &[&str]) {
        let json = self.of(epoch, gap, files).to_json().expect("JSON");
        put(&self.first, &self.document_key(), json).await;
    }

    fn of(&self, epoch: u64, gap: &str, files: &[&str]) -> RecordingDocument {
        document_of(self.job.recording, epoch, gap, files)
    }

    fn document_key(&self) -> String {
        format!("{}/recording.json", self.job.folder())
    }

    /// What `recording.json` says in the end.
    async fn told(&self) -> RecordingDocument {
        let objects = self.first.objects().await.expect("a list");
        RecordingDocument::from_json(&objects[&self.document_key()]).expect("a document")
    }

    /// Finishes it; gives how many segments the final playlist has, what is said to be missing, and how long it took.
    async fn finish(&self) -> (usize, Vec<String>, Duration) {
        let begin = Instant::now();
        self.finisher.run(self.job.clone()).await;
        let took = begin.elapsed();
        let key = index::key(&self.job.folder(), self.job.epoch);
        let objects = self.first.objects().await.expect("a list");
        let segments = objects.get(&key).map_or(0, |list| {
            let list = hls::MediaPlaylist::parse(std::str::from_utf8(list).expect("text")).expect("a playlist");
            assert!(list.ended);
            list.segments.len()
        });
        let ends = self.library.ends.lock().expect("no panic");
        let [end] = ends.as_slice() else {
            panic!("it ends once: {ends:?}")
        };
        let gaps = end.gaps.iter().map(|gap| gap.reason.clone()).collect();
        (segments, gaps, took)
    }
}

/// A document with a gap that no list tells of, and files of these names.
pub(in crate::stream) fn document_of(
    recording: RecordingId,
    epoch: u64,
    gap: &str,
    files: &[&str],
) -> RecordingDocument {
    let epoch = Epoch::new(epoch);
    let of = Context {
        recording,
        stream: &stream(),
        template: &template(),
        epoch,
        zone: &TimeZone::UTC,
    };
    let file = |name: &&str| {
        let file = FinishedFile {
            file_id: (*name).to_owned(),
            format: Format::Flv,
            sequence: 0,
            key: (*name).to_owned(),
            size: 1,
            checksum: String::new(),
            duration_ms: 1,
            start_ms: 1,
            video_units: 1,
            audio_units: 0,
            gaps: Vec::new(),
        };
        file.record(of)
    };
    let files = files.iter().map(file).collect();
    let recording = Recording {
        id: recording,
        stream: stream(),
        cause: Cause::BuiltIn,
        state: RecordingState::Interrupted,
        reason: String::new(),
        epoch,
        template: template(),
        template_id: None,
        publishes: Vec::new(),
        worker: WorkerId::generate(&Random, Timestamp::default()),
        params: String::new(),
        started: Timestamp::from_millis(1),
        ended: None,
        gaps: vec![Gap {
            reason: gap.to_owned(),
            from_ms: 0,
            to_ms: 0,
            units: 0,
        }],
        locked: false,
    };
    RecordingDocument::new(recording, files)
}

/// Stores what lay there before anything went wrong.
async fn put(place: &Faulty, key: &str, bytes: Vec<u8>) {
    let bucket: Bucket = place.bucket(Duration::from_secs(30));
    bucket.put(key, vec![bytes.into()]).await.expect("stored");
}

fn index_of(segments: u64, paused: bool) -> Vec<u8> {
    let mut totals = Totals::default();
    totals.paused = paused;
    totals.segments = segments;
    totals.duration_ms = i64::try_from(segments).expect("few") * 1_000;
    totals.longest_ms = 1_000;
    totals.start_ms = Some(1);
    let mut text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n".to_owned();
    totals.append(&mut text);
    for number in 0..segments {
        text.push_str(&format!("#EXTINF:1.000,\n{number:06}.ts\n"));
    }
    text.into_bytes()
}

const NO_GAPS: [String; 0] = [];

#[tokio::test(start_paused = true)]
async fn what_moved_on_to_the_second_place_is_whole_though_that_one_stumbles() {
    for fault in [Fault::Unavailable, Fault::Silent, Fault::Cut, Fault::SlowDown] {
        let world = World::new(1);
        world.index(&world.first, 1, 1, false).await;
        world.index(&world.second, 1, 9, true).await;
        world.second.once(fault, 0);
        let (segments, gaps, _) = world.finish().await;
        assert_eq!((segments, gaps), (9, NO_GAPS.to_vec()), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_may_have_more_is_waited_for_while_it_is_away() {
    for lost in [false, true] {
        let mut world = World::new(2);
        world.job.lost = lost;
        world.index(&world.first, 1, 1, true).await;
        world.index(&world.first, 2, 2, false).await;
        world.index(&world.second, 2, 9, true).await;
        world.second.set(Some(Fault::Unavailable));
        let second = world.second.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            second.set(None);
        });
        let (segments, gaps, took) = world.finish().await;
        let expected = if lost { vec![LOST.to_owned()] } else { vec![] };
        assert_eq!((segments, gaps), (9, expected));
        let back = Duration::from_secs(3_600);
        assert!((back..back + PATIENCE).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_away_is_not_waited_for_by_what_is_complete() {
    let world = World::new(2);
    world.index(&world.first, 2, 9, true).await;
    world.second.set(Some(Fault::Unavailable));
    let (segments, gaps, took) = world.finish().await;
    assert_eq!((segments, gaps), (9, NO_GAPS.to_vec()));
    assert!(took < PATIENCE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_index_that_storage_shows_late_is_looked_for_again() {
    let world = World::new(2);
    world.index(&world.first, 1, 1, true).await;
    let (first, folder) = (world.first.clone(), world.job.folder());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        put(&first, &index::key(&folder, Epoch::new(2)), index_of(9, true)).await;
    });
    let (segments, gaps, _) = world.finish().await;
    assert_eq!((segments, gaps), (9, NO_GAPS.to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_all_says_so() {
    // Nothing, an earlier publish's, and the last one's that never said that it is all.
    for stored in [None, Some((1, true)), Some((2, false))] {
        let world = World::new(2);
        if let Some((epoch, paused)) = stored {
            world.index(&world.first, epoch, 3, paused).await;
        }
        let (segments, gaps, took) = world.finish().await;
        let expected = if stored.is_some() { 3 } else { 0 };
        assert_eq!((segments, gaps), (expected, vec![MISSING.to_owned()]), "{stored:?}");
        assert!(took < PATIENCE, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_its_recorder_gave_up_is_said_once() {
    let world = World::new(2);
    world.index(&world.first, 1, 3, true).await;
    world.document(1, "hls_recorder_failed", &[]).await;
    let (segments, gaps, _) = world.finish().await;
    assert_eq!((segments, gaps), (3, vec!["hls_recorder_failed".to_owned()]));
    let world = World::new(2);
    world.index(&world.first, 1, 3, true).await;
    world.document(1, "flv_recorder_failed", &[]).await;
    let (_, gaps, _) = world.finish().await;
    assert!(
        gaps.contains(&MISSING.to_owned()),
        "another format's says nothing of the list: {gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_with_its_worker_is_not_waited_for() {
    let mut world = World::new(2);
    world.job.lost = true;
    world.index(&world.first, 2, 3, false).await;
    let (segments, gaps, took) = world.finish().await;
    assert_eq!((segments, gaps), (3, vec![LOST.to_owned()]));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn keys_of(document: &RecordingDocument) -> Vec<&str> {
    let mut keys: Vec<&str> = document.files.iter().map(|file| file.object_key.as_str()).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(start_paused = true)]
async fn what_one_worker_wrote_over_another_is_in_the_document_again() {
    let world = World::new(2);
    world.index(&world.first, 2, 3, true).await;
    // The second publish had read the document before the first wrote its last file and gap there, and wrote behind that.
    world.document(2, "b", &["flv-2"]).await;
    let mut entered = world.of(1, "a", &["flv-1", "flv-2"]);
    entered.files[0].committed = Timestamp::from_millis(5);
    let more = entered.files.split_off(1);
    let rest = RecordingDocument::new(entered.recording.clone(), more);
    *world.library.pages.lock().expect("no panic") = vec![entered, rest];
    world.library.fails.store(3, Ordering::Relaxed);
    let (segments, gaps, _) = world.finish().await;
    assert_eq!((segments, gaps), (3, vec!["b".to_owned(), "a".to_owned()]));
    let told = world.told().await;
    let list = index::key(&world.job.folder(), world.job.epoch);
    assert_eq!(keys_of(&told), [list.as_str(), "flv-1", "flv-2"]);
    assert_eq!(
        (told.recording.state, told.recording.gaps.len()),
        (RecordingState::Finished, 2)
    );
    let fresh = |file: &MediaFile| file.committed == Timestamp::default();
    assert!(told.files.iter().all(fresh), "as their publishes would have written it");
    let committed = world.library.files.lock().expect("no panic").len();
    assert_eq!(committed, 1, "the list: the library has the others");
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_gone_is_written_anew() {
    let world = World::new(1);
    world.index(&world.first, 1, 3, true).await;
    *world.library.pages.lock().expect("no panic") = vec![world.of(2, "a", &["flv-1"])];
    world.finish().await;
    let told = world.told().await;
    assert_eq!((told.files.len(), told.recording.epoch), (2, world.job.epoch));
    assert_eq!(told.recording.state, RecordingState::Finished);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_document_names_enters_the_library() {
    // The library knows nothing of it, or the coordinator is older than the question.
    let world = World::new(1);
    world.index(&world.first, 1, 3, true).await;
    world.document(1, "a", &["flv-1"]).await;
    world.finish().await;
    assert_eq!(world.told().await.files.len(), 2);
    assert_eq!(world.library.files.lock().expect("no panic").len(), 2);
}
