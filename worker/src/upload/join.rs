//! How parts become an object, whatever storage says of it meanwhile: an answer may be lost, an object be shown late, and a part be known by
//! another id than was given for it.

use std::iter;
use std::time::Duration;

use shared::objects::{ObjectError, RESCUE, Rescue};
use tokio::time::Instant;
use tracing::info;

use super::remote::{Complete, FIRST_WAIT, Inner, Object};

/// Longest wait for an object that is being joined; all waits together take twice that.
const LONGEST_JOIN: Duration = Duration::from_millis(6_400);
/// An object that storage said is complete, and has not shown for so long, is taken for lost.
const LONGEST_UNSEEN: Duration = Duration::from_secs(3_600);

impl Inner {
    /// That the object is there with so many bytes. An answer that says otherwise is taken for a stale one, and asked for again.
    pub(super) async fn verify(&self, key: &str, size: u64) -> Result<(), ObjectError> {
        match self.bucket.size(key).await? {
            Some(there) if there == size => Ok(()),
            there => Err(ObjectError::Unavailable(format!(
                "{key}: {} bytes are stored, not {size}",
                there.map_or("no".to_owned(), |n| n.to_string())
            ))),
        }
    }

    /// Whether the object is there, whole.
    pub(super) async fn is_whole(&self, key: &str, size: u64) -> Result<bool, ObjectError> {
        let is_whole = self.again(key, || self.bucket.size(key)).await? == Some(size);
        if is_whole {
            self.doubts().joined.remove(key);
        }
        Ok(is_whole)
    }

    /// Makes an object of the parts, and sees that it is there.
    pub(super) async fn complete(&self, file: &Complete) -> Result<(), ObjectError> {
        let (key, size) = (&file.key, file.size);
        let joined = self.doubts().joined.get(key).cloned();
        let joined = match joined {
            // Storage shows late what it has.
            Some((of, at)) if of == file.upload && at.elapsed() < LONGEST_UNSEEN => Ok(()),
            _ => {
                let joined = self.join(file).await;
                if joined.is_ok() {
                    let now = (file.upload.clone(), Instant::now());
                    self.doubts().joined.insert(key.clone(), now);
                }
                joined
            }
        };
        match joined {
            Ok(()) => {
                self.again(key, || self.verify(key, size)).await?;
                self.doubts().joined.remove(key);
                Ok(())
            }
            // Completed with an answer that was lost?
            Err(ObjectError::Missing(gone)) => match self.appears(key, size).await? {
                true => Ok(()),
                false => Err(ObjectError::Missing(gone)),
            },
            Err(error) => Err(error),
        }
    }

    /// Stores the first and the last part, and makes all of them the object.
    async fn join(&self, file: &Complete) -> Result<(), ObjectError> {
        let (key, upload) = (&file.key, &file.upload);
        let last_index = u32::try_from(file.ids.len()).unwrap_or(u32::MAX) + 1;
        let first = self.part(key, upload, 0, file.first.clone());
        let last = async {
            match file.last.is_empty() {
                true => Ok(None),
                false => {
                    let sent = self.part(key, upload, last_index, file.last.clone());
                    sent.await.map(Some)
                }
            }
        };
        let (first, last) = tokio::try_join!(first, last)?;
        let ids = file.ids.iter().cloned();
        let all: Vec<String> = iter::once(first).chain(ids).chain(last).collect();
        if let Some((finished, zone)) = &file.vouched {
            // Until the library has it, this is all that knows of it, should this machine be lost.
            let whole = Rescue::whole(upload.clone(), all.clone(), (finished.clone(), zone));
            self.objects(vec![vouching(&whole)?], None).await?;
        }
        match self.again(key, || self.bucket.complete(key, upload, all.clone())).await {
            Err(ObjectError::Refused(refused)) => {
                let known = self.known_ids((key, upload), &all, file.size, refused).await?;
                self.again(key, || self.bucket.complete(key, upload, known.clone()))
                    .await
            }
            other => other,
        }
    }

    /// The id of a part whose upload is gone because its file is whole: none, which nothing asks for. Behind a power loss a recorder may be
    /// behind what it stored; nothing else makes an object of its key, and whether that is its file is seen when it comes to its end.
    pub(super) async fn id_within_whole(&self, key: &str, gone: String) -> Result<String, ObjectError> {
        match self.again(key, || self.bucket.size(key)).await? {
            Some(_) => Ok(String::new()),
            None => Err(ObjectError::Missing(gone)),
        }
    }

    /// The ids that an upload's parts have in storage, which refused those it had given. Parts of the right length are the right ones:
    /// under its number nothing else is ever sent, and what was damaged on the way is not taken.
    async fn known_ids(
        &self,
        (key, upload): (&str, &str),
        given: &[String],
        size: u64,
        refused: String,
    ) -> Result<Vec<String>, ObjectError> {
        let asked = self.again(key, || self.bucket.known_ids(key, upload, (given.len(), size)));
        match asked.await {
            Ok(Some(ids)) if ids != given => {
                info!(
                    key,
                    refused, "storage knows parts of an upload by other ids than it gave"
                );
                Ok(ids)
            }
            // There is nothing to mend, or no way to ask.
            Ok(Some(_)) | Err(ObjectError::Refused(_)) => Err(ObjectError::Refused(refused)),
            Ok(None) => Err(ObjectError::Missing(format!("{refused}; not all parts are there"))),
            Err(error) => Err(error),
        }
    }

    /// Whether an object of that size is there, or is within some seconds: while storage joins the parts, which may take longer
    /// than the request had time, it knows the upload no more and shows no object yet.
    pub(super) async fn appears(&self, key: &str, size: u64) -> Result<bool, ObjectError> {
        let mut wait = FIRST_WAIT;
        loop {
            if self.again(key, || self.bucket.size(key)).await? == Some(size) {
                return Ok(true);
            }
            if wait > LONGEST_JOIN {
                return Ok(false);
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

/// What lies beside a whole file that the library does not have yet.
pub(super) fn vouching(whole: &Rescue) -> Result<Object, ObjectError> {
    let chunks = whole.to_object(Vec::new(), Vec::new());
    Ok(Object {
        key: format!("{}{RESCUE}", whole.file.key),
        chunks: chunks.map_err(|error| ObjectError::Refused(error.to_string()))?,
        verify: false,
    })
}
