//! Recorders of every format over one journal that grows, while object storage has bad days of every kind and length: in virtual time,
//! on one thread, with the real recorders, actors, uploads and retention.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use journal::GroupSync;
use shared::ids::{RecordingId, Seeded};
use shared::lease::Epoch;
use shared::objects::{Fault, Faulty, Seen};
use shared::telemetry::WorkerMetrics;
use shared::template::Format;
use shared::time::Timestamp;
use shared::trace::{Chapters, Place};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::FinishedFile;
use super::actor::{Parts, RecorderActor, Report, Word};
use super::pool::Pool;
use super::tests::{World, video};
use crate::upload::abandoned::Abandoned;
use crate::upload::{Limits, Objects, Remote};

/// What is recorded, and the longest a file or a segment is, milliseconds.
const FORMATS: [(Format, i64); 4] = [
    (Format::Flv, 26_000),
    (Format::Mp4, 86_400_000),
    (Format::Hls, 2_000),
    (Format::Aac, 30_000),
];
const LIMITS: Limits = Limits {
    max_uploads: 2,
    part_size: 5 << 20,
    max_bandwidth: 0,
};
/// Bytes of a picture are about 650 times this; every fourth can be decoded alone.
const WEIGHT: usize = 190;
/// Pictures behind which all is made safe against power loss. So often that some of the journal can be given up, and no oftener: it takes real
/// time.
const SYNCED: [u32; 3] = [32, 48, 64];
/// Between two pictures before and after the bad days, milliseconds.
const PACE: u32 = 250;

const FAULTS: [Fault; 9] = [
    Fault::Unavailable,
    Fault::SlowDown,
    Fault::Silent,
    Fault::Cut,
    Fault::AnswerLost,
    Fault::ErrorBody,
    Fault::Stale,
    Fault::BadDigest,
    Fault::StrangeId,
];

/// Those that befall every request: nothing goes through while they last.
fn is_total(fault: Fault) -> bool {
    use Fault::{AnswerLost, Cut, Silent, SlowDown, Unavailable};
    matches!(fault, Unavailable | SlowDown | Silent | Cut | AnswerLost)
}

/// How a publish meets the bad days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It ends after them.
    After,
    /// It ends in the midst of them.
    Within,
    /// The same, and the worker is killed then and starts again. Uploads are begun in the bad days.
    Killed,
}

impl Ends {
    /// Pictures before, while and after storage has its bad days.
    fn pictures(self) -> [u32; 3] {
        match self {
            Self::After => [96, 48, 48],
            Self::Within => [96, 24, 0],
            Self::Killed => [48, 64, 0],
        }
    }

    /// When the bad days begin.
    fn begin(self) -> Duration {
        Duration::from_millis(u64::from(self.pictures()[0] * PACE) + 100)
    }
}

#[derive(Debug, Clone, Copy)]
enum Days {
    Good,
    /// One request is broken, after so many that could have been.
    Request(Fault, u64),
    /// All are, for that long.
    Bad(Fault),
}

#[derive(Debug)]
struct Lived {
    objects: BTreeMap<String, Bytes>,
    seen: Seen,
    /// From when nothing was in the way any more until all was stored.
    drained: Duration,
    /// Bytes of the journal that were given up meanwhile.
    dropped: u64,
}

/// What the recorders said.
#[derive(Debug, Default)]
struct Told {
    retired: BTreeMap<&'static str, u64>,
    done: BTreeSet<&'static str>,
    gave_up: Vec<String>,
    /// Bytes of the journal that were given up.
    dropped: u64,
}

/// Stands for the publish's actor: gives up of the journal what no recorder needs.
struct Stream {
    journal: PathBuf,
    abandoned: Abandoned,
    told: Arc<Mutex<Told>>,
}

impl Stream {
    fn settle(&self, files: &[FinishedFile]) {
        for file in files.iter().filter(|file| file.format != Format::Hls) {
            self.abandoned.note_settled(&file.key).expect("noted");
        }
    }
}

impl Actor for Stream {
    type Context = Context<Self>;
}

impl Handler<Report> for Stream {
    type Result = ();

    fn handle(&mut self, report: Report, _: &mut Self::Context) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (setting, retired) = match report {
            Report::Stepped { setting, stepped } => {
                // The library takes everything at once.
                self.settle(&stepped.files);
                (setting, if stepped.done { u64::MAX } else { stepped.retired })
            }
            Report::GaveUp { setting, reason } => {
                told.gave_up.push(reason);
                // As the publish's actor does.
                self.abandoned.note(&format!("{}/", setting.prefix)).expect("noted");
                (setting, u64::MAX)
            }
        };
        let format = setting.format.as_str();
        told.retired.insert(format, retired);
        if retired == u64::MAX {
            told.done.insert(format);
        }
        let needed = told.retired.values().copied().min().unwrap_or(0);
        told.dropped +=
            journal::retention::drop_bodies_before(&self.journal, journal::Position(needed)).expect("dropped");
    }
}

/// One publish, its journal and its storage.
struct Day {
    world: World,
    storage: Faulty,
    progress: Arc<journal::Progress>,
    told: Arc<Mutex<Told>>,
    metrics: WorkerMetrics,
}

impl Day {
    fn new() -> Self {
        let mut world = World::with_segments_of(1 << 20);
        world.weight = WEIGHT;
        let sync = GroupSync::start(&[world.dir.path().to_path_buf()], Duration::from_secs(3_600));
        world.sync = Arc::new(sync.expect("sync"));
        world.configure();
        let progress = world.writer.as_ref().expect("open").progress();
        Self {
            world,
            storage: Faulty::default(),
            progress,
            told: Arc::default(),
            metrics: WorkerMetrics::default(),
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files that were finished before this start.
    fn noted(&self) -> Vec<FinishedFile> {
        let Ok(notes) = std::fs::read_dir(self.world.dir.path().join("notes")) else {
            return Vec::new();
        };
        let files = notes.map(|entry| entry.expect("read").path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        files
            .map(|path| serde_json::from_slice(&std::fs::read(path).expect("read")).expect("a record"))
            .collect()
    }

    /// Starts every recorder that is not done, as a start of the worker does.
    fn start(&self) -> Vec<Addr<RecorderActor>> {
        let bucket = self.storage.bucket(Duration::from_secs(30));
        let remote = Remote::on(Handle::current(), bucket, LIMITS, self.metrics.clone());
        let abandoned = Abandoned::open(&self.world.dir.path().join("abandoned")).expect("notes");
        actix::spawn(abandoned.clone().keep_sweeping(String::new(), remote.clone()));
        let parent = Stream {
            journal: self.world.dir.path().join("journal"),
            abandoned: abandoned.clone(),
            told: Arc::clone(&self.told),
        };
        parent.settle(&self.noted());
        let parent = parent.start();
        let pool = Arc::new(Pool::without_threads());
        let recording = RecordingId::generate(&Seeded::new(1), Timestamp::from_millis(1));
        let done = self.told().done.clone();
        let recorders = FORMATS
            .into_iter()
            .filter(|(format, _)| !done.contains(format.as_str()));
        let started = recorders.map(|(format, interval_ms)| {
            let publish = Place::publish(recording, Epoch::new(1));
            let parts = Parts {
                setting: Arc::new(self.world.setting("r", format, interval_ms)),
                objects: Objects::Remote(remote.clone()),
                abandoned: abandoned.clone(),
                sync: Arc::clone(&self.world.sync),
                pool: Arc::clone(&pool),
                progress: Arc::clone(&self.progress),
                until_ms: None,
                chapters: Chapters::new(publish, "record", ("aircheck.format", format.as_str())),
                metrics: self.metrics.clone(),
                parent: parent.clone().recipient(),
            };
            RecorderActor::new(parts).start()
        });
        started.collect()
    }

    fn picture(&mut self, n: u32, at_ms: u32) {
        self.world
            .append(8, at_ms, &[&[0xaf, 1][..], &[n.to_le_bytes()[0]; 150]].concat());
        self.world.append(9, at_ms, &video(n.is_multiple_of(4), n, WEIGHT));
        self.world.commit();
        if SYNCED.contains(&n) {
            self.world.sync.sync_now().expect("synced");
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(
                begin.elapsed() < Duration::from_secs(600),
                "{what}: not within ten minutes"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Appends what is pushed, as time goes by.
    async fn push(&mut self, length: Duration, ends: Ends) {
        let begin = Instant::now();
        let within = u32::try_from(length.as_millis()).expect("short");
        let paces = [PACE, (within / 2 / ends.pictures()[1]).max(PACE), PACE];
        let paces = match ends {
            Ends::After => [PACE, (within / ends.pictures()[1]).max(PACE), PACE],
            Ends::Within | Ends::Killed => paces,
        };
        let (mut n, mut at_ms) = (0, 0);
        for (pictures, pace) in ends.pictures().into_iter().zip(paces) {
            for _ in 0..pictures {
                tokio::time::sleep_until(begin + Duration::from_millis(u64::from(at_ms))).await;
                self.picture(n, at_ms);
                n += 1;
                at_ms += pace;
            }
        }
        self.world.close();
    }

    /// Ends the publish for its recorders. Gives the time until all is stored, from now or from when storage is well again.
    async fn end(&self, recorders: &[Addr<RecorderActor>], well_again: Instant) -> Duration {
        for recorder in recorders {
            recorder.send(Word::End).await.expect("heard");
        }
        let begin = well_again.max(Instant::now());
        tokio::time::sleep_until(begin).await;
        self.until("stored", |day| day.told().done.len() == FORMATS.len()).await;
        let drained = begin.elapsed();
        let abandoned = Abandoned::open(&self.world.dir.path().join("abandoned")).expect("notes");
        self.until("nothing is left", |day| {
            day.storage.pending().is_empty() && abandoned.is_empty("")
        })
        .await;
        drained
    }
}

/// On one thread, where working takes no time. What was begun ends with it, as by a kill.
fn in_virtual_time<T>(life: impl Future<Output = T>) -> T {
    let runner = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    runner.block_on(life)
}

async fn bad_days(storage: Faulty, days: Days, begin: Duration, length: Duration) {
    tokio::time::sleep(begin).await;
    match days {
        Days::Good => {}
        Days::Request(fault, after) => storage.once(fault, after),
        Days::Bad(fault) => {
            storage.set(Some(fault));
            tokio::time::sleep(length).await;
            storage.set(None);
        }
    }
}

fn live(days: Days, length: Duration, ends: Ends) -> Lived {
    let mut day = Day::new();
    let storage = day.storage.clone();
    let drained = in_virtual_time(async {
        let well_again = Instant::now() + ends.begin() + length;
        tokio::spawn(bad_days(storage.clone(), days, ends.begin(), length));
        let recorders = day.start();
        day.push(length, ends).await;
        match ends {
            Ends::Killed => None,
            Ends::After | Ends::Within => Some(day.end(&recorders, well_again).await),
        }
    });
    let again = || {
        in_virtual_time(async {
            let rest = length / 2;
            tokio::spawn(bad_days(storage.clone(), days, Duration::ZERO, rest));
            let well_again = Instant::now() + rest;
            day.end(&day.start(), well_again).await
        })
    };
    let drained = drained.unwrap_or_else(again);
    assert_eq!(day.told().gave_up, Vec::<String>::new());
    Lived {
        objects: day.world.runtime.block_on(storage.objects()).expect("listed"),
        seen: storage.seen(),
        drained,
        dropped: day.told().dropped,
    }
}

/// Lives through every kind of bad days of that length, and compares with good ones.
fn survives(length: Duration, meetings: &[Ends]) {
    for ends in meetings {
        let good = live(Days::Good, length, *ends);
        assert!(good.dropped > 0, "the journal is never given up");
        for fault in FAULTS {
            let bad = live(Days::Bad(fault), length, *ends);
            check(&format!("{fault:?} for {length:?}, {ends:?}"), &bad, &good);
            assert!(bad.seen.broken > 0, "{fault:?}");
            let (lives, asked) = (if *ends == Ends::Killed { 2 } else { 1 }, bad.seen.on_bad_days);
            let most = if is_total(fault) {
                // One asks for all, every 15 s; before that, all find out for themselves.
                length.as_secs() / 15 + lives * 12
            } else {
                // Each tries a few requests every 30 s, beside what goes through.
                good.seen.requests + FORMATS.len() as u64 * (length.as_secs() / 30 + lives * 8) * 8
            };
            assert!(
                asked <= most,
                "{fault:?} for {length:?}, {ends:?}: {asked} requests, {most} at most"
            );
        }
    }
}

fn check(what: &str, bad: &Lived, good: &Lived) {
    let keys = |lived: &Lived| lived.objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(bad), keys(good), "{what}");
    for (key, bytes) in &good.objects {
        assert!(bad.objects[key] == *bytes, "{what}: {key} is another");
    }
    let memory = LIMITS.part_size * LIMITS.max_uploads as u64;
    assert!(
        bad.seen.most_bytes <= memory,
        "{what}: {} bytes on their way",
        bad.seen.most_bytes
    );
    // A request that is never answered has 30 s and one more for each half megabyte; then comes the longest wait of a recorder, and of storage.
    let longest = Duration::from_secs(if what.starts_with("Silent") { 90 } else { 45 });
    assert!(bad.drained <= longest, "{what}: stored only {:?} later", bad.drained);
}

#[test]
fn a_single_broken_request_costs_nothing() {
    let good = live(Days::Good, Duration::ZERO, Ends::After);
    for fault in FAULTS {
        let many: &[u64] = match fault {
            Fault::ErrorBody | Fault::StrangeId => &[0, 1],
            Fault::Stale => &[0, 2, 4],
            _ => &[0, 8, 17],
        };
        for after in many {
            let bad = live(Days::Request(fault, *after), Duration::ZERO, Ends::After);
            let what = format!("{fault:?} of request {after}");
            assert_eq!(bad.seen.broken, 1, "{what}");
            check(&what, &bad, &good);
        }
    }
}

#[test]
fn half_a_minute_of_bad_days_costs_nothing() {
    survives(Duration::from_secs(30), &[Ends::After, Ends::Within]);
}

#[test]
fn five_minutes_of_bad_days_cost_nothing() {
    survives(Duration::from_secs(300), &[Ends::Within, Ends::Killed]);
}

#[test]
fn half_an_hour_of_bad_days_costs_nothing() {
    survives(Duration::from_secs(1_800), &[Ends::After, Ends::Killed]);
}

/// While they last, recordings are held and it shows; those that must end for it end by name, and leave nothing behind.
#[test]
fn what_ends_in_bad_days_ends_by_name_and_leaves_nothing() {
    for fault in FAULTS.into_iter().filter(|fault| is_total(*fault)) {
        let mut day = Day::new();
        let storage = day.storage.clone();
        in_virtual_time(async {
            let begin = Ends::Within.begin();
            let length = Duration::from_secs(1_800);
            tokio::spawn(bad_days(storage.clone(), Days::Bad(fault), begin, length));
            let recorders = day.start();
            day.push(length, Ends::Within).await;
            for recorder in &recorders {
                recorder.send(Word::End).await.expect("heard");
            }
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(
                (day.told().done.len(), day.metrics.storage_up.get()),
                (0, 0),
                "{fault:?}"
            );
            assert!(!storage.pending().is_empty(), "{fault:?}");
            let dropped = day.told().dropped;
            for recorder in &recorders {
                recorder.send(Word::GiveUp("journal_budget")).await.expect("heard");
            }
            day.until("ended", |day| day.told().done.len() == FORMATS.len()).await;
            assert_eq!(day.told().gave_up, ["journal_budget"; FORMATS.len()]);
            assert!(day.told().dropped > dropped, "{fault:?}: the journal is still held");
            day.until("nothing is left", |day| day.storage.pending().is_empty())
                .await;
        });
    }
}

#[test]
fn what_breaks_behind_the_begin_of_the_very_first_upload_leaves_nothing() {
    for killed in [false, true] {
        let mut day = Day::new();
        let storage = day.storage.clone();
        // Uploads are begun, and no part of one is taken: so nobody notes its id.
        storage.set(Some(Fault::BadDigest));
        in_virtual_time(async {
            // All is there before anything is rendered: the first step has a whole part.
            day.push(Duration::ZERO, Ends::After).await;
            let recorders = day.start();
            day.until("uploads are begun", |_| storage.pending().len() > 1).await;
            if killed {
                return;
            }
            storage.set(None);
            day.end(&recorders, Instant::now()).await;
        });
        if killed {
            storage.set(None);
            in_virtual_time(async { day.end(&day.start(), Instant::now()).await });
        }
        assert_eq!(day.told().gave_up, Vec::<String>::new());
    }
}
