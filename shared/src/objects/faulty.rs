//! [`Faulty`]: object storage in memory that has bad days, for tests of whoever must live through them in virtual time.
//!
//! It is as strict as services are: parts have a least length and an ETag of their own each time they are sent, an upload is complete
//! once, and a request takes its time. What its errors say is what the library makes of a service's answers, so that they mean the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use reqwest::Method;

use super::bucket::{Bucket, Make, ObjectError, Pending, StoredPart};
use super::uploads::Unfinished;

/// Least bytes of a part that is not the last, by the protocol.
const LEAST_PART: u64 = 5 << 20;
/// How long a request takes, and how many bytes go in a second.
const LATENCY: Duration = Duration::from_millis(20);
const RATE: u64 = 100 << 20;

/// What happens to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All are answered 503.
    Unavailable,
    /// All are asked to slow down.
    SlowDown,
    /// None is answered.
    Silent,
    /// The connection ends in mid-body; nothing is carried out.
    Cut,
    /// It ends when all was carried out, before the answer.
    AnswerLost,
    /// Completions are answered 200 with an error for a body.
    ErrorBody,
    /// Lists and looks at objects and uploads show what was there when it began.
    Stale,
    /// Bodies are damaged on the way, and refused for it.
    BadDigest,
    /// Parts are stored under another id than the answer says.
    StrangeId,
    /// Aborts of uploads are answered, and the upload is there still: as where a part of it was on its way.
    Unaborted,
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Read,
    Look,
    Put,
    Part,
    Begin,
    Complete,
    Abort,
    Remove,
}

impl Fault {
    fn befalls(self, asks: Asks) -> bool {
        match self {
            Self::Unavailable | Self::SlowDown | Self::Silent | Self::Cut | Self::AnswerLost => true,
            Self::ErrorBody => asks == Asks::Complete,
            Self::Stale => asks == Asks::Look,
            Self::BadDigest => matches!(asks, Asks::Put | Asks::Part),
            Self::StrangeId => asks == Asks::Part,
            Self::Unaborted => asks == Asks::Abort,
        }
    }
}

/// What was seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Those of them that came while something could happen to them.
    pub on_bad_days: u64,
    /// Those to which something was done.
    pub broken: u64,
    /// Most bytes of bodies that were on their way at a time.
    pub most_bytes: u64,
}

/// The storage. Clones share everything.
#[derive(Clone, Default)]
pub struct Faulty {
    objects: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// How many of the requests that the fault befalls are spared, after which one of them is broken; none: all are.
    spared: Option<u64>,
    uploads: BTreeMap<String, Upload>,
    /// Uploads that were begun.
    begun: u64,
    /// Parts that were stored: their ids.
    parts: u64,
    /// What stale answers show.
    old: Option<(Arc<InMemory>, Vec<Pending>)>,
    on_their_way: u64,
    seen: Seen,
}

#[derive(Debug)]
struct Upload {
    key: String,
    parts: BTreeMap<usize, (String, Bytes)>,
}

impl State {
    fn pending(&self) -> Vec<Pending> {
        let pending = |(id, upload): (&String, &Upload)| Pending {
            key: upload.key.clone(),
            upload_id: id.clone(),
        };
        self.uploads.iter().map(pending).collect()
    }

    /// What happens to a request that comes now.
    fn comes(&mut self, asks: Asks) -> Option<Fault> {
        self.seen.requests += 1;
        self.seen.on_bad_days += u64::from(self.fault.is_some());
        let fault = self.fault.filter(|fault| fault.befalls(asks))?;
        match &mut self.spared {
            None => {}
            Some(0) => self.fault = None,
            Some(spared) => {
                *spared -= 1;
                return None;
            }
        }
        self.seen.broken += 1;
        Some(fault)
    }
}

/// A body that is on its way.
struct OnItsWay<'a>(&'a Faulty, u64);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.state().on_their_way -= self.1;
    }
}

impl Faulty {
    /// A bucket that is all of it; each request has this time, and more for what it carries.
    #[must_use]
    pub fn bucket(&self, timeout: Duration) -> Bucket {
        let make = Make {
            prefix: String::new(),
            timeout,
            storage_class: None,
            unfinished: Some(Arc::new(self.clone())),
            checksum: None,
        };
        Bucket::new(self.clone(), make)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this happens to every request that it can happen to; none: nothing does.
    pub fn set(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.old = Some((Arc::new(self.objects.fork()), state.pending()));
        (state.fault, state.spared) = (fault, None);
    }

    /// This happens to one request of those it can happen to, after so many of them.
    pub fn once(&self, fault: Fault, after: u64) {
        self.set(Some(fault));
        self.state().spared = Some(after);
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Uploads that are neither complete nor aborted.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        self.state().pending()
    }

    /// Every object, whole, by its key; no fault befalls this.
    ///
    /// # Errors
    /// None that is known.
    pub async fn objects(&self) -> Result<BTreeMap<String, Bytes>, ObjectError> {
        let other = |error: Error| ObjectError::Unavailable(error.to_string());
        let found: Vec<ObjectMeta> = self.objects.list(None).try_collect().await.map_err(other)?;
        let mut objects = BTreeMap::new();
        for meta in found {
            let bytes = async { self.objects.get(&meta.location).await?.bytes().await };
            objects.insert(meta.location.to_string(), bytes.await.map_err(other)?);
        }
        Ok(objects)
    }

    /// Answers a request that `carries` it out.
    async fn answer<T>(
        &self,
        asks: Asks,
        len: u64,
        carry_out: impl AsyncFnOnce(Option<Fault>) -> Result<T>,
    ) -> Result<T> {
        let fault = {
            let mut state = self.state();
            state.on_their_way += len;
            state.seen.most_bytes = state.seen.most_bytes.max(state.on_their_way);
            state.comes(asks)
        };
        let _body = OnItsWay(self, len);
        tokio::time::sleep(LATENCY + Duration::from_millis(len * 1_000 / RATE)).await;
        let broken = || failed("error sending request: connection closed before message completed");
        match fault {
            Some(Fault::Unavailable) => Err(status("503 Service Unavailable", "ServiceUnavailable")),
            Some(Fault::SlowDown) => Err(status("503 Service Unavailable", "SlowDown")),
            Some(Fault::BadDigest) => Err(status("400 Bad Request", "BadDigest")),
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Cut) => Err(broken()),
            Some(Fault::AnswerLost) => {
                let _ = carry_out(None).await;
                Err(broken())
            }
            Some(Fault::ErrorBody) => Err(failed(
                "Server returned error response: <Error><Code>InternalError</Code></Error>",
            )),
            Some(Fault::Stale | Fault::StrangeId | Fault::Unaborted) | None => carry_out(fault).await,
        }
    }

    /// What a look shows.
    fn shown(&self, fault: Option<Fault>) -> (Arc<InMemory>, Vec<Pending>) {
        let state = self.state();
        match (fault, &state.old) {
            (Some(Fault::Stale), Some((objects, pending))) => (Arc::clone(objects), pending.clone()),
            _ => (Arc::clone(&self.objects), state.pending()),
        }
    }

    fn stored_part(&self, id: &str, index: usize, bytes: Bytes, fault: Option<Fault>) -> Result<PartId> {
        let mut state = self.state();
        state.parts += 1;
        let content_id = format!("\"part-{}\"", state.parts);
        let upload = state.uploads.get_mut(id).ok_or_else(|| no_upload(id))?;
        let under = match fault {
            Some(_) => format!("{content_id}-strange"),
            None => content_id.clone(),
        };
        upload.parts.insert(index, (under, bytes));
        Ok(PartId { content_id })
    }

    /// Takes an upload whose parts are these for complete; gives what it holds.
    fn joined(&self, id: &str, ids: &[PartId]) -> Result<PutPayload> {
        let mut state = self.state();
        let upload = state.uploads.get(id).ok_or_else(|| no_upload(id))?;
        let mut payload = Vec::new();
        for (index, asked) in ids.iter().enumerate() {
            match upload.parts.get(&index) {
                Some((_, bytes)) if (bytes.len() as u64) < LEAST_PART && index + 1 < ids.len() => {
                    return Err(status("400 Bad Request", "EntityTooSmall"));
                }
                Some((known, bytes)) if *known == asked.content_id => payload.push(bytes.clone()),
                _ => return Err(status("400 Bad Request", "InvalidPart")),
            }
        }
        state.uploads.remove(id);
        Ok(payload.into_iter().collect())
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("storage with bad days")
    }
}

fn failed(what: &str) -> Error {
    Error::Generic {
        store: "S3",
        source: what.to_owned().into(),
    }
}

fn status(status: &str, code: &str) -> Error {
    failed(&format!(
        "Server returned non-2xx status code: {status}: <Error><Code>{code}</Code></Error>"
    ))
}

fn no_upload(id: &str) -> Error {
    Error::NotFound {
        path: id.to_owned(),
        source: "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchUpload</Code></Error>".into(),
    }
}

fn not_offered<T>() -> Result<T> {
    Err(Error::NotSupported {
        source: "nobody asks for it".into(),
    })
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let len = payload.content_length() as u64;
        let put = async |_| self.objects.put_opts(location, payload, options).await;
        self.answer(Asks::Put, len, put).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        not_offered()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let asks = if options.head { Asks::Look } else { Asks::Read };
        let get = async |fault| self.shown(fault).0.get_opts(location, options).await;
        self.answer(asks, 0, get).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let storage = self.clone();
        let remove = move |location: Result<Path>| {
            let storage = storage.clone();
            async move {
                let location = location?;
                let remove = async |_| storage.objects.delete(&location).await;
                storage.answer(Asks::Remove, 0, remove).await?;
                Ok(location)
            }
        };
        locations.then(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (storage, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            let list = async |fault| Ok(storage.shown(fault).0.list(prefix.as_ref()));
            storage.answer(Asks::Look, 0, list).await
        };
        futures_util::stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        not_offered()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        not_offered()
    }
}

#[async_trait]
impl MultipartStore for Faulty {
    async fn create_multipart(&self, path: &Path) -> Result<String> {
        let begin = async |_| {
            let mut state = self.state();
            state.begun += 1;
            let (id, key) = (format!("upload-{}", state.begun), path.to_string());
            let parts = BTreeMap::new();
            state.uploads.insert(id.clone(), Upload { key, parts });
            Ok(id)
        };
        self.answer(Asks::Begin, 0, begin).await
    }

    async fn put_part(&self, _: &Path, id: &String, index: usize, data: PutPayload) -> Result<PartId> {
        let len = data.content_length() as u64;
        let put = async |fault| self.stored_part(id, index, data.into(), fault);
        self.answer(Asks::Part, len, put).await
    }

    async fn complete_multipart(&self, path: &Path, id: &String, parts: Vec<PartId>) -> Result<PutResult> {
        let complete = async |_| {
            let whole = self.joined(id, &parts)?;
            self.objects.put(path, whole).await
        };
        self.answer(Asks::Complete, 0, complete).await
    }

    async fn abort_multipart(&self, _: &Path, id: &String) -> Result<()> {
        let abort = async |fault| match fault {
            Some(_) => Ok(()),
            None => self.state().uploads.remove(id).map(drop).ok_or_else(|| no_upload(id)),
        };
        self.answer(Asks::Abort, 0, abort).await
    }
}

#[async_trait]
impl Unfinished for Faulty {
    async fn link(&self, _: Method, _: &Path, _: Vec<(&str, &str)>, _: Duration) -> Result<String, ObjectError> {
        Err(ObjectError::Refused("this storage makes no links".to_owned()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Pending>, ObjectError> {
        let list = async |fault| Ok(self.shown(fault).1);
        let listed = self.answer(Asks::Look, 0, list).await;
        let mut listed = listed.map_err(|error| ObjectError::Unavailable(format!("listing uploads: {error}")))?;
        listed.retain(|pending| pending.key.starts_with(prefix));
        Ok(listed)
    }

    async fn has(&self, path: &Path, upload_id: &str) -> Result<bool, ObjectError> {
        let look = async |fault| {
            let (_, pending) = self.shown(fault);
            Ok(pending.iter().any(|pending| pending.upload_id == upload_id))
        };
        let found = self.answer(Asks::Look, 0, look).await;
        found.map_err(|error| ObjectError::Unavailable(format!("looking for an upload of {path}: {error}")))
    }

    async fn parts(&self, path: &Path, upload_id: &str) -> Result<Option<Vec<StoredPart>>, ObjectError> {
        let list = async |_| {
            let state = self.state();
            let part = |(index, (id, bytes)): (&usize, &(String, Bytes))| StoredPart {
                index: u32::try_from(*index).unwrap_or(u32::MAX),
                id: id.clone(),
                size: bytes.len() as u64,
            };
            let upload = state.uploads.get(upload_id);
            Ok(upload.map(|upload| upload.parts.iter().map(part).collect()))
        };
        let listed = self.answer(Asks::Look, 0, list).await;
        listed.map_err(|error| ObjectError::Unavailable(format!("listing the parts of {path}: {error}")))
    }
}
