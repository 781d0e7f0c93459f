//! [`Bucket`]: objects under one prefix of an object store, and the multipart uploads that make large ones.
//!
//! One call is one request with one time limit. Nothing here tries again: when and how often is for the caller to say, who
//! knows what else waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
};
use reqwest::Method;
use thiserror::Error;

use super::uploads::Unfinished;
use crate::time::Timestamp;

/// A request that carries media has a second more for each so many bytes: slower links are taken for broken.
const BYTES_PER_SECOND: u64 = 512 << 10;

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// No answer, or one that may be another the next time: the service is away, busy, or refuses these credentials.
    #[error("{0}")]
    Unavailable(String),
    /// The service refuses this object; others may be taken.
    #[error("{0}")]
    Refused(String),
    /// There is no such object, or no such multipart upload (any more).
    #[error("{0}")]
    Missing(String),
}

impl ObjectError {
    /// True if the service answered that these credentials may not do this to this object: there is no use in waiting for the service.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, ObjectError::Unavailable(text) if text.contains("403 Forbidden"))
    }
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Key below the bucket's prefix.
    pub key: String,
    /// What the service calls it.
    pub upload_id: String,
}

/// A part of an upload, as the service has it.
#[derive(Debug)]
pub(super) struct StoredPart {
    /// From 0.
    pub(super) index: u32,
    /// For [`Bucket::complete`].
    pub(super) id: String,
    /// Bytes.
    pub(super) size: u64,
}

/// An object as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Key below the place's prefix.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was stored, by the service's clock.
    pub modified: Timestamp,
}

/// What a link to an object is to be.
#[derive(Debug, Clone, Copy)]
pub struct LinkTo<'a> {
    /// For looking at its head only: signatures are for one method.
    pub head: bool,
    /// What it is sent as.
    pub content_type: &'a str,
    /// What it is called when it is saved: a `Content-Disposition`.
    pub disposition: &'a str,
    /// At most 7 days, as services have it.
    pub good_for: Duration,
}

/// Objects below one prefix. Clones share connections.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn Parts>,
    unfinished: Option<Arc<dyn Unfinished>>,
    prefix: String,
    attributes: Attributes,
    timeout: Duration,
    /// Checksum the service is given with each payload, as the library's part ids spell it.
    checksum: Option<&'static str>,
}

trait Parts: MultipartStore + std::fmt::Debug {}
impl<T: MultipartStore + std::fmt::Debug> Parts for T {}

/// What a bucket is made of beside the store.
#[derive(Debug)]
pub(super) struct Make {
    pub(super) prefix: String,
    pub(super) timeout: Duration,
    pub(super) storage_class: Option<String>,
    pub(super) unfinished: Option<Arc<dyn Unfinished>>,
    pub(super) checksum: Option<&'static str>,
}

impl Bucket {
    pub(super) fn new<S: ObjectStore + MultipartStore + std::fmt::Debug>(store: S, make: Make) -> Self {
        let store = Arc::new(store);
        let mut attributes = Attributes::new();
        if let Some(class) = make.storage_class {
            attributes.insert(Attribute::StorageClass, class.into());
        }
        Self {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            parts: store,
            unfinished: make.unfinished,
            prefix: make.prefix,
            attributes,
            timeout: make.timeout,
            checksum: make.checksum,
        }
    }

    /// A bucket in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        let make = Make {
            prefix: String::new(),
            timeout: Duration::from_secs(10),
            storage_class: None,
            unfinished: None,
            checksum: None,
        };
        Self::new(object_store::memory::InMemory::new(), make)
    }

    /// What the service is told of an object.
    fn attributes(&self, class: Option<&str>) -> Attributes {
        let mut attributes = self.attributes.clone();
        if let Some(class) = class {
            attributes.insert(Attribute::StorageClass, class.to_owned().into());
        }
        attributes
    }

    fn path(&self, key: &str) -> Result<Path, ObjectError> {
        let full = match (self.prefix.as_str(), key) {
            ("", key) => key.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, key) => format!("{prefix}/{key}"),
        };
        Path::parse(&full).map_err(|e| ObjectError::Refused(format!("{key}: {e}")))
    }

    /// A URL of the service under which whoever holds it may read an object for a while. Nothing is asked of the service.
    ///
    /// # Errors
    /// [`ObjectError::Refused`] where the storage makes no links, [`ObjectError::Unavailable`] without credentials.
    pub async fn link(&self, key: &str, to: LinkTo<'_>) -> Result<String, ObjectError> {
        let service = self.unfinished.as_ref();
        let service = service.ok_or_else(|| ObjectError::Refused("this storage makes no links".to_owned()))?;
        let query = vec![
            ("response-content-disposition", to.disposition),
            ("response-content-type", to.content_type),
        ];
        let method = if to.head { Method::HEAD } else { Method::GET };
        service.link(method, &self.path(key)?, query, to.good_for).await
    }

    /// Runs a request within its time, and says what its failure means.
    async fn within<T>(
        &self,
        what: &str,
        key: &str,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, ObjectError> {
        let limit = self.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND);
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(meaning(what, key, &error)),
            Err(_) => Err(ObjectError::Unavailable(format!(
                "{what} {key}: no answer within {limit:?}"
            ))),
        }
    }

    /// Stores an object whole, in place of an older one.
    ///
    /// # Errors
    /// [`ObjectError`]; the older object may or may not be replaced.
    pub async fn put(&self, key: &str, chunks: Vec<Bytes>) -> Result<(), ObjectError> {
        self.put_as(key, chunks, None).await
    }

    /// The same with a storage class in place of the bucket's.
    ///
    /// # Errors
    /// As [`Bucket::put`].
    pub async fn put_as(&self, key: &str, chunks: Vec<Bytes>, class: Option<&str>) -> Result<(), ObjectError> {
        let (path, len) = (self.path(key)?, length(&chunks));
        let options = PutOptions {
            attributes: self.attributes(class),
            ..PutOptions::default()
        };
        let put = self.store.put_opts(&path, PutPayload::from_iter(chunks), options);
        self.within("storing", key, len, put).await.map(drop)
    }

    /// The object, whole. For small ones.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] where there is none.
    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        let path = self.path(key)?;
        let get = async { self.store.get(&path).await?.bytes().await };
        self.within("reading", key, 0, get).await
    }

    /// Up to `len` bytes of an object from `from` on, which is less than its length, and that length.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] where there is none.
    pub async fn range(&self, key: &str, from: u64, len: u64) -> Result<(Bytes, u64), ObjectError> {
        let path = self.path(key)?;
        let options = GetOptions {
            range: Some((from..from.saturating_add(len)).into()),
            ..GetOptions::default()
        };
        let get = async {
            let found = self.store.get_opts(&path, options).await?;
            let of = found.meta.size;
            Ok((found.bytes().await?, of))
        };
        self.within("reading", key, len, get).await
    }

    /// Bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// [`ObjectError`] where that cannot be found out.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        let path = self.path(key)?;
        match self.within("looking for", key, 0, self.store.head(&path)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(ObjectError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keys of all objects below `prefix`, which ends with a slash or is empty, in order. For few objects.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let path = self.path(prefix.trim_end_matches('/'))?;
        let base = if self.prefix.is_empty() {
            0
        } else {
            self.prefix.len() + 1
        };
        let list = self.store.list(Some(&path)).try_collect::<Vec<_>>();
        let found = self.within("listing", prefix, 0, list).await?;
        let mut keys: Vec<String> = found
            .into_iter()
            .filter_map(|meta| meta.location.as_ref().get(base..).map(str::to_owned))
            .collect();
        keys.sort();
        Ok(keys)
    }

    /// Objects below `prefix`, a folder without its slash or empty, in the order of their keys: at most `limit` behind the key `after`.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Listed>, ObjectError> {
        let full = self.path(prefix)?;
        let below = (!full.as_ref().is_empty()).then_some(full);
        let base = if self.prefix.is_empty() {
            0
        } else {
            self.prefix.len() + 1
        };
        let found = match after {
            Some(key) => self.store.list_with_offset(below.as_ref(), &self.path(key)?),
            None => self.store.list(below.as_ref()),
        };
        let found = self
            .within("listing", prefix, 0, found.take(limit).try_collect::<Vec<_>>())
            .await?;
        let listed = found.into_iter().filter_map(|meta| {
            Some(Listed {
                key: meta.location.as_ref().get(base..)?.to_owned(),
                size: meta.size,
                modified: Timestamp::from_millis(meta.last_modified.timestamp_millis()),
            })
        });
        Ok(listed.collect())
    }

    /// Removes an object. One that is not there is removed already.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let path = self.path(key)?;
        match self.within("removing", key, 0, self.store.delete(&path)).await {
            Ok(()) | Err(ObjectError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins a multipart upload.
    ///
    /// # Errors
    /// [`ObjectError`]; one may have been begun all the same, which [`Bucket::pending`] then lists.
    pub async fn begin(&self, key: &str) -> Result<String, ObjectError> {
        self.begin_as(key, None).await
    }

    /// The same with a storage class in place of the bucket's.
    ///
    /// # Errors
    /// As [`Bucket::begin`].
    pub async fn begin_as(&self, key: &str, class: Option<&str>) -> Result<String, ObjectError> {
        let path = self.path(key)?;
        let options = PutMultipartOptions {
            attributes: self.attributes(class),
            ..PutMultipartOptions::default()
        };
        let begin = self.parts.create_multipart_opts(&path, options);
        self.within("beginning", key, 0, begin).await
    }

    /// Uploads part `index`, from 0, in place of an earlier one of that index. What it returns is for [`Bucket::complete`], as it is.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] where the upload is gone.
    pub async fn put_part(
        &self,
        key: &str,
        upload_id: &str,
        index: u32,
        chunks: Vec<Bytes>,
    ) -> Result<String, ObjectError> {
        let (path, len) = (self.path(key)?, length(&chunks));
        let (id, payload) = (upload_id.to_owned(), PutPayload::from_iter(chunks));
        let put = self.parts.put_part(&path, &id, index as usize, payload);
        let part = self.within("storing a part of", key, len, put).await?;
        match self.checksum {
            // A service that was asked for a checksum and names none did not verify what came.
            Some(name) if !part.content_id.contains(name) => Err(ObjectError::Refused(format!(
                "storing a part of {key}: the service does not confirm the checksum; set objects.checksum = \"none\" if it knows none"
            ))),
            _ => Ok(part.content_id),
        }
    }

    /// Makes the parts, in order and at least one, the object.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] where the upload is gone: it may be complete already, which [`Bucket::size`] tells.
    pub async fn complete(&self, key: &str, upload_id: &str, parts: Vec<String>) -> Result<(), ObjectError> {
        if parts.is_empty() {
            return Err(ObjectError::Refused(format!("completing {key}: no parts")));
        }
        let path = self.path(key)?;
        let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
        let id = upload_id.to_owned();
        // Services join the parts of a large object for a while.
        let while_joined = 64 * BYTES_PER_SECOND;
        let complete = self.parts.complete_multipart(&path, &id, parts);
        self.within("completing", key, while_joined, complete).await.map(drop)
    }

    /// Drops a multipart upload and its parts. One that is not there is dropped already.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn abort(&self, key: &str, upload_id: &str) -> Result<(), ObjectError> {
        let (path, id) = (self.path(key)?, upload_id.to_owned());
        match self
            .within("aborting", key, 0, self.parts.abort_multipart(&path, &id))
            .await
        {
            Ok(()) | Err(ObjectError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a multipart upload takes parts still; `true` where there is no way to ask.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`] where that cannot be found out.
    pub async fn has_upload(&self, key: &str, upload_id: &str) -> Result<bool, ObjectError> {
        let Some(service) = &self.unfinished else {
            return Ok(true);
        };
        let asked = tokio::time::timeout(self.timeout, service.has(&self.path(key)?, upload_id)).await;
        asked.map_err(|_| {
            ObjectError::Unavailable(format!(
                "looking for an upload of {key}: no answer within {:?}",
                self.timeout
            ))
        })?
    }

    /// The ids that the first `count` parts of an upload have in the service, for [`Bucket::complete`] where it refuses those that it gave: of a
    /// part that was sent twice, the first time without an answer, it may have kept the first. None: they are not all there, or do not make
    /// `size` bytes.
    ///
    /// # Errors
    /// [`ObjectError::Refused`] where there is no way to ask.
    pub async fn known_ids(
        &self,
        key: &str,
        upload_id: &str,
        (count, size): (usize, u64),
    ) -> Result<Option<Vec<String>>, ObjectError> {
        let what = || format!("listing the parts of {key}");
        let service = self.unfinished.as_ref();
        let service = service.ok_or_else(|| ObjectError::Refused(format!("{}: it is not offered", what())))?;
        let asked = tokio::time::timeout(self.timeout, service.parts(&self.path(key)?, upload_id)).await;
        let asked = asked
            .map_err(|_| ObjectError::Unavailable(format!("{}: no answer within {:?}", what(), self.timeout)))??;
        let parts: Vec<StoredPart> = asked.into_iter().flatten().take(count).collect();
        let follow = (0..).zip(&parts).all(|(index, part)| part.index == index);
        let whole = parts.iter().map(|part| part.size).sum::<u64>() == size;
        let ids = parts.into_iter().map(|part| part.id).collect::<Vec<_>>();
        Ok((follow && whole && ids.len() == count).then_some(ids))
    }

    /// Multipart uploads below `prefix` that were begun and neither completed nor aborted.
    ///
    /// # Errors
    /// [`ObjectError::Refused`] where the service cannot list them.
    pub async fn pending(&self, prefix: &str) -> Result<Vec<Pending>, ObjectError> {
        let Some(service) = &self.unfinished else {
            return Ok(Vec::new());
        };
        let base = if self.prefix.is_empty() {
            String::new()
        } else {
            format!("{}/", self.prefix)
        };
        let found = tokio::time::timeout(self.timeout, service.list(&format!("{base}{prefix}"))).await;
        let found = found
            .map_err(|_| ObjectError::Unavailable(format!("listing uploads: no answer within {:?}", self.timeout)))??;
        let ours = |pending: Pending| {
            let key = pending.key.strip_prefix(&base)?.to_owned();
            Some(Pending { key, ..pending })
        };
        Ok(found.into_iter().filter_map(ours).collect())
    }
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// What a failed request means for the next one.
fn meaning(what: &str, key: &str, error: &object_store::Error) -> ObjectError {
    use object_store::Error as E;
    let text = format!("{what} {key}: {error}");
    match error {
        // A bucket that is not there may be made; its objects are not missing one by one.
        E::NotFound { .. } if !text.contains("NoSuchBucket") => ObjectError::Missing(text),
        E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => ObjectError::Refused(text),
        _ if is_refusal(&text) => ObjectError::Refused(text),
        _ => ObjectError::Unavailable(text),
    }
}

/// Whether the service refuses this request for what it is. Signatures, clocks and damaged bytes are none of its faults.
fn is_refusal(text: &str) -> bool {
    let mends = [
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "ExpiredToken",
        "XAmzContentSHA256Mismatch",
        "BadDigest",
        "IncompleteBody",
    ];
    [
        "status code: 400",
        "status code: 411",
        "status code: 413",
        "status code: 414",
    ]
    .iter()
    .any(|code| text.contains(code))
        && !mends.iter().any(|code| text.contains(code))
}
