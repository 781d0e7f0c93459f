//! [`Remote`]: stores what recorders render in object storage, as many at a time as the settings allow.
//!
//! A recorder asks for a [`Turn`] before it renders, so that rendered bytes in memory are bounded by turns, not by streams. It
//! then hands over what is to be stored as a [`Store`], and goes on when that is [`Stored`]. A `Store` may be performed any number of times:
//! after a crash the recorder renders the same bytes and says the same again.
//!
//! Uploads run on threads of their own: signing and encryption are work, and actors must not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use shared::objects::{Bucket, HELD, ObjectError, RESCUE, Rescue};
use shared::recording::FinishedFile;
use shared::telemetry::{Reason, WorkerMetrics};
use shared::trace;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument, info, warn};

use super::backup::Other;
use super::growing::Stretch;
use super::health::{Health, Probe};
use super::join::vouching;
use super::pace::Pace;
use super::plan::Plan;
use super::sites::gauge;
use super::turns::{Haste, Held, Turns};

/// Tries of one request within a turn; then the turn is given back, and the recorder renders anew when it has another.
const TRIES: u32 = 4;
/// First wait between two tries; doubled with each.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Between two looks for uploads of nobody.
const CLEAR_EVERY: Duration = Duration::from_secs(2);
/// An upload to which a part is on its way may outlast its abort, by the protocol: it is looked whether it is gone, and aborted again, so often in all.
/// What is listed then is taken for a stale list.
const ABORTS: u32 = 3;
/// Threads that sign, encrypt and send.
const THREADS: usize = 2;
/// Memory is counted in units of this many bytes.
const UNIT: u64 = 64 << 10;

/// An object to be stored in one request.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) chunks: Vec<Bytes>,
    /// Ask afterwards whether it is there, whole.
    pub(crate) verify: bool,
}

/// What is to be stored before a recorder goes on.
#[derive(Debug)]
pub(crate) enum Store {
    /// Objects one after another: each is there before the next is sent.
    Objects(Vec<Object>),
    /// A part of a growing file; begins its upload if that has no id yet.
    Part {
        key: String,
        upload: Option<String>,
        index: u32,
        chunks: Vec<Bytes>,
    },
    /// The last parts of a growing file, the first among them; then the file is an object.
    Complete(Box<Complete>),
    /// A file of `len` bytes on the local disk, then more objects.
    File {
        key: String,
        path: PathBuf,
        len: u64,
        then: Vec<Object>,
    },
    /// Abort multipart uploads below a prefix, but for one: what a crash between two steps left.
    Tidy { prefix: String, keep: Option<String> },
    /// Remove what may lie beside a file.
    Settle { key: String },
    /// Read the first of these objects that is there. Nothing is stored.
    Fetch { keys: Vec<String> },
    /// Read up to so many bytes of an object. Nothing is stored.
    Read { key: String, from: u64, len: u64 },
}

/// The end of a growing file: what makes it an object of `size` bytes.
#[derive(Debug, Clone)]
pub(crate) struct Complete {
    pub(crate) key: String,
    pub(crate) upload: String,
    /// Ids of parts 1, 2, …: all but the first and the last.
    pub(crate) ids: Vec<String>,
    pub(crate) first: Vec<Bytes>,
    pub(crate) last: Vec<Bytes>,
    pub(crate) size: u64,
    /// It may be an object already: this was asked for before, and the answer was lost.
    pub(crate) may_be_whole: bool,
    /// The file as it is then, and the time zone of its name: stored beside it for as long as nobody else knows of it; none: somebody does.
    pub(crate) vouched: Option<(FinishedFile, Arc<str>)>,
}

/// What storing came to.
#[derive(Debug)]
pub(crate) enum Stored {
    Done,
    /// The part's id, and its upload's.
    Part {
        upload: String,
        id: String,
    },
    /// The object that was found, and which of those asked for it is.
    Fetched(Option<(usize, Bytes)>),
    /// What was read; none: there is no such object.
    Read(Option<Stretch>),
}

/// Why nothing was stored. The recorder's state is as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// It may be otherwise the next time.
    #[error("{0}")]
    Later(String),
    /// The upload that the stored parts belong to is no more, and neither is the object.
    #[error("{0}")]
    UploadLost(String),
}

/// The right to render and to store so many bytes.
#[derive(Debug)]
pub(crate) struct Turn {
    _held: Held,
    probe: Option<Probe>,
}

/// A bucket that recorders store to, and the storage class of the media that goes through this handle; none: the bucket's. Clones share
/// everything.
#[derive(Debug, Clone)]
pub struct Remote(pub(super) Arc<Inner>, Option<Arc<str>>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) bucket: Bucket,
    plan: Plan,
    turns: Turns,
    pub(super) health: Health,
    pace: Pace,
    metrics: WorkerMetrics,
    doubts: Mutex<Doubts>,
    /// Where there are two places.
    pub(super) other: OnceLock<Other>,
    pub(super) threads: Arc<Threads>,
}

/// Keys of which it is not sure what storage has: an upload may have been begun that nobody knows the id of, because an answer was lost.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Those that are still being stored, one for each recorder at most: what they upload now must stay.
    pub(super) open: BTreeSet<String>,
    /// Those that are stored: no upload of theirs is of use any more.
    pub(super) stored: BTreeSet<String>,
    /// Those of which storage has completed an upload and does not show the object yet: which upload, and since when. One for each
    /// recorder at most.
    pub(super) joined: BTreeMap<String, (String, Instant)>,
}

/// Where uploads run. Threads that are dropped end without being waited for: what they were at is done again after the next start.
#[derive(Debug)]
pub(super) struct Threads {
    handle: Handle,
    own: Option<Runtime>,
}

impl Threads {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("upload")
            .enable_all()
            .build()?;
        Ok(Self::of(runtime))
    }

    /// None at all: what is given to them is not run.
    fn none() -> std::io::Result<Self> {
        Ok(Self::of(tokio::runtime::Builder::new_current_thread().build()?))
    }

    fn of(runtime: Runtime) -> Self {
        let (handle, own) = (runtime.handle().clone(), Some(runtime));
        Self { handle, own }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.own.take() {
            runtime.shutdown_background();
        }
    }
}

/// What bounds uploads.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Uploads at a time.
    pub max_uploads: usize,
    /// Bytes of the first parts.
    pub part_size: u64,
    /// Bytes a second; 0: no limit.
    pub max_bandwidth: u64,
}

impl Remote {
    /// Stores to `bucket` within `limits`.
    ///
    /// # Errors
    /// Where threads cannot be started.
    pub fn new(bucket: Bucket, limits: Limits, metrics: WorkerMetrics) -> std::io::Result<Self> {
        Ok(Self::first_on(Threads::start()?, bucket, limits, metrics))
    }

    /// The same with uploads where `handle` runs what it is given.
    #[cfg(test)]
    pub(crate) fn on(handle: Handle, bucket: Bucket, limits: Limits, metrics: WorkerMetrics) -> Self {
        Self::first_on(Threads { handle, own: None }, bucket, limits, metrics)
    }

    fn first_on(threads: Threads, bucket: Bucket, limits: Limits, metrics: WorkerMetrics) -> Self {
        let health = Health::new("object storage", metrics.storage_up.clone());
        Self::open(Arc::new(threads), bucket, limits, metrics, health)
    }

    /// As [`Remote::new`], for a place that templates call `name`.
    ///
    /// # Errors
    /// Where threads cannot be started.
    pub fn named(name: &str, bucket: Bucket, limits: Limits, metrics: WorkerMetrics) -> std::io::Result<Self> {
        let health = Health::new(format!("the place of objects {name:?}"), gauge(&metrics, name));
        Ok(Self::open(Arc::new(Threads::start()?), bucket, limits, metrics, health))
    }

    /// A place that takes nothing and never answers: nobody has a turn.
    ///
    /// # Errors
    /// Where nothing can be run at all.
    pub(super) fn nowhere(metrics: WorkerMetrics) -> std::io::Result<Self> {
        let name = "a place that the settings do not have";
        let health = Health::new(name, shared::telemetry::Gauge::default());
        let limits = Limits {
            max_uploads: 0,
            part_size: 0,
            max_bandwidth: 0,
        };
        let threads = Arc::new(Threads::none()?);
        Ok(Self::open(threads, Bucket::in_memory(), limits, metrics, health))
    }

    pub(super) fn open(
        threads: Arc<Threads>,
        bucket: Bucket,
        limits: Limits,
        metrics: WorkerMetrics,
        health: Health,
    ) -> Self {
        let plan = Plan::new(limits.part_size);
        let budget = plan.part_len(0).saturating_mul(limits.max_uploads as u64);
        let units = u32::try_from(budget / UNIT).unwrap_or(u32::MAX).max(1);
        let inner = Arc::new(Inner {
            bucket,
            plan,
            turns: Turns::new(limits.max_uploads, units),
            health,
            pace: Pace::new(limits.max_bandwidth),
            metrics,
            doubts: Mutex::default(),
            other: OnceLock::new(),
            threads,
        });
        inner.threads.handle.spawn(keep_clearing(Arc::downgrade(&inner)));
        Self(inner, None)
    }

    /// The same bucket, for media of this storage class.
    pub(crate) fn with_class(&self, class: Option<&str>) -> Self {
        Self(Arc::clone(&self.0), class.map(Into::into))
    }

    pub(crate) fn plan(&self) -> Plan {
        self.0.plan
    }

    pub(super) fn beside(inner: Arc<Inner>) -> Self {
        Self(inner, None)
    }

    /// The bucket itself.
    #[cfg(test)]
    pub(crate) fn bucket(&self) -> &Bucket {
        &self.0.bucket
    }

    /// Waits for the right to have `bytes` in memory and to store them. While storage does not answer, one waits for all.
    pub(crate) async fn turn(&self, bytes: u64, haste: Haste) -> Option<Turn> {
        let waiting = Waiting::new(&self.0.metrics);
        let probe = self.0.health.wait().await;
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        let held = self.0.turns.take(units, haste).await?;
        drop(waiting);
        Some(Turn { _held: held, probe })
    }

    /// Stores, on the uploads' threads.
    pub(crate) async fn perform(&self, store: Store, turn: Turn) -> Result<Stored, StoreError> {
        let (done, result) = oneshot::channel();
        let (inner, class) = (Arc::clone(&self.0), self.1.clone());
        let work = async move {
            let result = inner.perform(store, class.as_deref(), turn).await;
            // Whoever asked may be gone; then the next start asks again.
            let _ = done.send(result);
        };
        self.0.threads.handle.spawn(work.in_current_span());
        result
            .await
            .unwrap_or_else(|_| Err(StoreError::Later("the uploads' threads have ended".to_owned())))
    }

    /// Stores beside a file that it is whole, as long as it takes: in the place, or the places, where whoever completes the recording looks.
    pub(crate) async fn vouch(&self, file: &FinishedFile, zone: &str) -> Result<(), ObjectError> {
        let whole = Rescue::whole(String::new(), Vec::new(), (file.clone(), zone));
        self.insist(vouching(&whole)?).await;
        Ok(())
    }

    /// Removes what may lie beside a file that the library has, wherever there are two places in both. False: it is to be tried again.
    pub(crate) async fn settle(&self, key: &str) -> bool {
        self.everywhere(|| Store::Settle { key: key.to_owned() }).await
    }

    /// Asks for a turn and performs, again and again until it is done.
    pub(super) async fn until_done(&self, key: &str, len: u64, store: impl Fn() -> Store) -> Option<Stored> {
        let mut wait = FIRST_WAIT;
        while let Some(turn) = self.turn(len, Haste::GoingOn).await {
            match self.perform(store(), turn).await {
                Ok(stored) => return Some(stored),
                Err(error) => {
                    warn!(key, %error, ?wait, "storage did not do it, will try again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(60));
                }
            }
        }
        None
    }
}

impl Object {
    pub(crate) fn len(&self) -> u64 {
        length(&self.chunks)
    }
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// Counts who waits for a turn.
struct Waiting<'a>(&'a WorkerMetrics);

impl<'a> Waiting<'a> {
    fn new(metrics: &'a WorkerMetrics) -> Self {
        metrics.uploads_waiting.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.uploads_waiting.dec();
    }
}

impl Inner {
    async fn perform(&self, store: Store, class: Option<&str>, mut turn: Turn) -> Result<Stored, StoreError> {
        self.metrics.uploads.inc();
        let result = self.stored(store, class).await;
        self.metrics.uploads.dec();
        match &result {
            Ok(_) | Err(ObjectError::Missing(_) | ObjectError::Refused(_)) => self.health.answered(),
            Err(ObjectError::Unavailable(error)) => self.health.failed(turn.probe.take(), error),
        }
        result.map_err(|error| match error {
            ObjectError::Missing(text) => StoreError::UploadLost(text),
            ObjectError::Unavailable(text) | ObjectError::Refused(text) => StoreError::Later(text),
        })
    }

    async fn stored(&self, store: Store, class: Option<&str>) -> Result<Stored, ObjectError> {
        match store {
            Store::Objects(objects) => self.objects(objects, class).await?,
            Store::Part {
                key,
                upload,
                index,
                chunks,
            } => {
                let upload = match upload {
                    Some(id) => id,
                    None => self.begin(&key, class).await?,
                };
                let id = match self.part(&key, &upload, index, chunks).await {
                    Err(ObjectError::Missing(gone)) => self.id_within_whole(&key, gone).await?,
                    sent => sent?,
                };
                return Ok(Stored::Part { upload, id });
            }
            Store::Complete(file) => {
                // Nothing else makes an object of this key.
                if !(file.may_be_whole && self.is_whole(&file.key, file.size).await?) {
                    self.complete(&file).await?;
                }
                self.clear_doubt(&file.key, None).await;
            }
            Store::Settle { key } => {
                let beside = [RESCUE, HELD].map(|end| format!("{key}{end}"));
                let [rescue, held] = &beside;
                tokio::try_join!(
                    self.again(rescue, || self.bucket.delete(rescue)),
                    self.again(held, || self.bucket.delete(held)),
                )?;
            }
            Store::File { key, path, len, then } => {
                let stored = self.file(&key, class, &path, len).await;
                if stored.is_err() {
                    // The next try begins another upload.
                    self.doubt(&key);
                }
                stored?;
                self.clear_doubt(&key, None).await;
                self.objects(then, class).await?;
            }
            Store::Fetch { keys } => return self.fetch(&keys).await.map(Stored::Fetched),
            Store::Read { key, from, len } => return self.read(&key, from, len).await.map(Stored::Read),
            Store::Tidy { prefix, keep } => self.tidy(&prefix, keep.as_deref()).await?,
        }
        Ok(Stored::Done)
    }

    /// Makes a request until it is answered for good, or [`TRIES`] are spent.
    pub(super) async fn again<T, F>(&self, key: &str, mut request: impl FnMut() -> F) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, ObjectError>>,
    {
        let mut wait = FIRST_WAIT;
        let mut tries = 1;
        loop {
            let span = trace::request("storage request");
            let answer = request().instrument(span.clone()).await;
            match answer.inspect_err(|error| trace::fail(&span, error)) {
                Err(ObjectError::Unavailable(error)) => {
                    let reason = "unavailable";
                    self.metrics.upload_errors.get_or_create(&Reason { reason }).inc();
                    if tries >= TRIES || self.health.is_away() {
                        return Err(ObjectError::Unavailable(error));
                    }
                    tracing::debug!(key, error, tries, "a request to storage failed");
                    tokio::time::sleep(wait + jitter(key, tries, wait)).await;
                    wait *= 2;
                    tries += 1;
                }
                Err(error) => {
                    let reason = if matches!(error, ObjectError::Missing(_)) {
                        "missing"
                    } else {
                        "refused"
                    };
                    self.metrics.upload_errors.get_or_create(&Reason { reason }).inc();
                    return Err(error);
                }
                Ok(value) => return Ok(value),
            }
        }
    }

    /// Begins an upload, and aborts those of its key that were begun without our hearing of it.
    async fn begin(&self, key: &str, class: Option<&str>) -> Result<String, ObjectError> {
        // What is stored once more has an upload again, which those who clear up must leave.
        let cleared_later = self.doubts().stored.remove(key);
        if cleared_later {
            self.doubt(key);
        }
        let begun = self.again(key, || async {
            let begun = self.bucket.begin_as(key, class).await;
            if matches!(begun, Err(ObjectError::Unavailable(_))) {
                self.doubt(key);
            }
            begun
        });
        let id = begun.await?;
        self.clear_doubt(key, Some(&id)).await;
        Ok(id)
    }

    pub(super) fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self, key: &str) {
        self.doubts().open.insert(key.to_owned());
    }

    /// Where there is doubt, leaves a key no upload but `keep`; none: the key is stored. What cannot be cleared now is later.
    async fn clear_doubt(&self, key: &str, keep: Option<&str>) {
        let doubted = self.doubts().open.remove(key);
        if doubted && let Err(error) = self.tidy(key, keep).await {
            tracing::debug!(key, %error, "uploads of nobody are looked for later");
            match keep {
                Some(_) => self.doubt(key),
                None => drop(self.doubts().stored.insert(key.to_owned())),
            }
        }
    }

    /// Looks again for uploads of nobody, where storage did not answer before.
    async fn clear_stored(&self) {
        let keys = mem::take(&mut self.doubts().stored);
        for key in keys {
            if self.health.is_away() || self.tidy(&key, None).await.is_err() {
                self.doubts().stored.insert(key);
            }
        }
    }

    pub(super) async fn objects(&self, objects: Vec<Object>, class: Option<&str>) -> Result<(), ObjectError> {
        for object in objects {
            let (key, len) = (&object.key, object.len());
            let class = class.filter(|_| is_media(key));
            self.again(key, || async {
                self.pace.wait(len).await;
                self.bucket.put_as(key, object.chunks.clone(), class).await?;
                if object.verify {
                    self.verify(key, len).await?;
                }
                Ok(())
            })
            .await?;
            self.metrics.upload_bytes.inc_by(len);
        }
        Ok(())
    }

    pub(super) async fn part(
        &self,
        key: &str,
        upload: &str,
        index: u32,
        chunks: Vec<Bytes>,
    ) -> Result<String, ObjectError> {
        let len = length(&chunks);
        let sent = self.again(key, || async {
            self.pace.wait(len).await;
            self.bucket.put_part(key, upload, index, chunks.clone()).await
        });
        let id = match sent.await {
            Err(ObjectError::Unavailable(broken)) => return Err(self.broken(key, upload, broken).await),
            sent => sent?,
        };
        self.metrics.upload_bytes.inc_by(len);
        Ok(id)
    }

    /// What a part that broke means. A service that knows the upload no more says so before it has read the part, and closes: whoever is
    /// still sending may see the connection break and never the answer. So it is asked.
    async fn broken(&self, key: &str, upload: &str, broken: String) -> ObjectError {
        match self.bucket.has_upload(key, upload).await {
            Ok(false) => ObjectError::Missing(format!("{broken}; there is no such upload any more")),
            Ok(true) | Err(_) => ObjectError::Unavailable(broken),
        }
    }

    /// Stores a local file: in one request, or in parts with one of them in memory at a time.
    async fn file(&self, key: &str, class: Option<&str>, path: &std::path::Path, len: u64) -> Result<(), ObjectError> {
        let unreadable = |e: std::io::Error| ObjectError::Unavailable(format!("{}: {e}", path.display()));
        let file = Arc::new(std::fs::File::open(path).map_err(unreadable)?);
        let upload = self.begin(key, class).await?;
        let mut ids = Vec::new();
        let (mut at, mut index) = (0, 0);
        while at < len {
            let part = self.plan.part_len(index).min(len - at);
            let source = Arc::clone(&file);
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; usize::try_from(part).unwrap_or(usize::MAX)];
                std::os::unix::fs::FileExt::read_exact_at(&*source, &mut bytes, at).map(|()| bytes)
            });
            let read = read.await.map_err(std::io::Error::other).and_then(|bytes| bytes);
            let bytes = read.map_err(unreadable)?;
            ids.push(self.part(key, &upload, index, vec![bytes.into()]).await?);
            at += part;
            index += 1;
        }
        match self
            .again(key, || self.bucket.complete(key, &upload, ids.clone()))
            .await
        {
            Ok(()) | Err(ObjectError::Missing(_)) => self.again(key, || self.verify(key, len)).await,
            Err(error) => Err(error),
        }
    }

    async fn tidy(&self, prefix: &str, keep: Option<&str>) -> Result<(), ObjectError> {
        for _ in 0..ABORTS {
            let mut pending = match self.again(prefix, || self.bucket.pending(prefix)).await {
                Err(ObjectError::Refused(error)) => {
                    warn!(
                        error,
                        "storage does not list multipart uploads: set a life cycle rule that aborts old ones"
                    );
                    return Ok(());
                }
                pending => pending?,
            };
            pending.retain(|upload| keep != Some(upload.upload_id.as_str()));
            if pending.is_empty() {
                return Ok(());
            }
            for upload in pending {
                self.again(&upload.key, || self.bucket.abort(&upload.key, &upload.upload_id))
                    .await?;
                info!(key = upload.key, "multipart upload of nobody aborted");
            }
        }
        Ok(())
    }
}

/// False for what is small and replaced or removed before long: classes that cost little for storing cost much for that.
fn is_media(key: &str) -> bool {
    ![".m3u8", ".json", HELD, RESCUE].iter().any(|end| key.ends_with(end))
}

/// Until nobody stores any more.
async fn keep_clearing(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(CLEAR_EVERY).await;
        match inner.upgrade() {
            Some(inner) => inner.clear_stored().await,
            None => return,
        }
    }
}

/// Up to half of `wait`, spread by key and try, so that those who failed together do not come back together.
fn jitter(key: &str, tries: u32, wait: Duration) -> Duration {
    let seed = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, key.as_bytes()).rotate_left(tries * 7);
    wait.mul_f64((seed % 512) as f64 / 1024.0)
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
