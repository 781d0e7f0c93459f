//! [`Growing`]: a file that is written from front to back, but for its head, which comes last. What it is composed of is stored already, so a
//! crash costs composing it once more: it then begins anew, and comes out the same.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use super::plan::{HELD, Plan};
use super::remote::{Complete, Object, Remote, Store, StoreError, Stored};
use super::{Haste, Local, Objects, Staged};
use crate::record::crc;

/// First wait after storage did not take something; doubled with each, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A stretch of an object that was read.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// Fewer than asked for at the object's end.
    pub(crate) bytes: Bytes,
    /// Bytes of the whole object.
    pub(crate) of: u64,
}

impl Objects {
    /// Reads up to `len` bytes of an object from `from` on: from a bucket as long as it takes. None: there is no such object.
    ///
    /// # Errors
    /// Where the disk does not give it.
    pub(crate) async fn read(&self, key: &str, from: u64, len: u64) -> io::Result<Option<Stretch>> {
        match self {
            Self::Local(local) => {
                let (local, key) = (local.clone(), key.to_owned());
                blocking(move || local.read(&key, from, len)).await
            }
            Self::Remote(remote) => {
                let key = key.to_owned();
                let read = || Store::Read {
                    key: key.clone(),
                    from,
                    len,
                };
                match insist(remote, &key, 0, read).await? {
                    Stored::Read(stretch) => Ok(stretch),
                    _ => Err(io::Error::other(format!("{key}: reading came to something else"))),
                }
            }
        }
    }

    /// Aborts uploads below `prefix`: nobody will complete them.
    ///
    /// # Errors
    /// Where the uploads' threads have ended.
    pub(crate) async fn abandon(&self, prefix: &str) -> io::Result<()> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Remote(remote) => tidy(remote, prefix).await,
        }
    }

    /// Begins a file under `key`; what an earlier try left of it goes. `name` is for a staged file.
    ///
    /// # Errors
    /// Where the disk refuses it, or the upload is gone.
    pub(crate) async fn grow(&self, name: String, key: String) -> io::Result<Growing> {
        let sink = match self {
            Self::Local(local) => {
                let (opened, name) = (local.clone(), name.clone());
                let staged = blocking(move || {
                    let staged = opened.stage(&name)?;
                    staged.truncate(0)?;
                    Ok(staged)
                });
                Sink::Local(local.clone(), Arc::new(staged.await?))
            }
            Self::Remote(remote) => {
                tidy(remote, &key).await?;
                Sink::Remote(Box::new(Upload {
                    remote: remote.clone(),
                    plan: remote.plan(),
                    held: Vec::new(),
                    open: Vec::new(),
                    open_len: 0,
                    begun: None,
                }))
            }
        };
        Ok(Growing {
            key,
            name,
            len: 0,
            crc: crc::of(&[]),
            sink,
        })
    }
}

/// A file that is being written. Memory: the first [`HELD`] bytes and one part of an upload.
#[derive(Debug)]
pub(crate) struct Growing {
    key: String,
    name: String,
    len: u64,
    crc: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Local(Local, Arc<Staged>),
    Remote(Box<Upload>),
}

#[derive(Debug)]
struct Upload {
    remote: Remote,
    plan: Plan,
    /// The body's first bytes: they go with the head.
    held: Vec<Bytes>,
    /// The part that is not full yet.
    open: Vec<Bytes>,
    open_len: u64,
    /// Id of the upload and of its parts, once there is one.
    begun: Option<(String, Vec<String>)>,
}

impl Growing {
    /// Bytes of the body so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Writes the body's next bytes.
    ///
    /// # Errors
    /// Where the disk refuses them, or the upload is gone: then the file begins anew.
    pub(crate) async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        let at = self.len;
        self.len += bytes.len() as u64;
        self.crc = crc::extend(self.crc, &bytes);
        match &mut self.sink {
            Sink::Local(_, staged) => {
                let staged = Arc::clone(staged);
                blocking(move || staged.write_at(at, &bytes)).await
            }
            Sink::Remote(upload) => upload.append(&self.key, at, bytes).await,
        }
    }

    /// Puts the head in front; then the file is whole. Gives its length and its checksum.
    ///
    /// # Errors
    /// As of [`Self::append`].
    pub(crate) async fn finish(self, head: Vec<u8>) -> io::Result<(u64, u64)> {
        let size = head.len() as u64 + self.len;
        let whole = crc::join(crc::of(&head), self.crc, self.len);
        match self.sink {
            Sink::Local(local, staged) => {
                let (key, name, len) = (self.key, self.name, self.len);
                // Nobody else holds it between two calls.
                drop(staged);
                blocking(move || {
                    let mut staged = local.stage(&name)?;
                    staged.insert_head(&head, len)?;
                    staged.publish(&local, &key)
                })
                .await?;
            }
            Sink::Remote(upload) => upload.finish(self.key, head, size).await?,
        }
        Ok((size, whole))
    }
}

impl Upload {
    async fn append(&mut self, key: &str, mut at: u64, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = match HELD.checked_sub(at).filter(|room| *room > 0) {
                Some(room) => room,
                None => self.plan.part_len(self.parts()) - self.open_len,
            };
            let now = bytes.split_to(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            let len = now.len() as u64;
            if at < HELD {
                self.held.push(now);
            } else {
                self.open.push(now);
                self.open_len += len;
                if len == room {
                    self.store_part(key).await?;
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Parts of the body that are stored.
    fn parts(&self) -> u32 {
        let stored = self.begun.as_ref().map_or(0, |(_, ids)| ids.len());
        u32::try_from(stored).unwrap_or(u32::MAX)
    }

    async fn store_part(&mut self, key: &str) -> io::Result<()> {
        let index = Plan::upload_index(self.parts());
        let chunks = mem::take(&mut self.open);
        let len = mem::take(&mut self.open_len);
        let upload = self.begun.as_ref().map(|(upload, _)| upload.clone());
        let part = || Store::Part {
            key: key.to_owned(),
            upload: upload.clone(),
            index,
            chunks: chunks.clone(),
        };
        let Stored::Part { upload, id } = insist(&self.remote, key, len, part).await? else {
            return Err(io::Error::other(format!("{key}: a part came to something else")));
        };
        self.begun.get_or_insert_with(|| (upload, Vec::new())).1.push(id);
        Ok(())
    }

    async fn finish(self, key: String, head: Vec<u8>, size: u64) -> io::Result<()> {
        let head = [Bytes::from(head)];
        let first: Vec<Bytes> = head
            .into_iter()
            .chain(self.held)
            .filter(|bytes| !bytes.is_empty())
            .collect();
        let len = size.min(first.iter().map(|bytes| bytes.len() as u64).sum::<u64>() + self.open_len);
        let store = || match &self.begun {
            None => Store::Objects(vec![Object {
                key: key.clone(),
                chunks: first.iter().chain(&self.open).cloned().collect(),
                verify: true,
            }]),
            Some((upload, ids)) => Store::Complete(Box::new(Complete {
                key: key.clone(),
                upload: upload.clone(),
                ids: ids.clone(),
                first: first.clone(),
                last: self.open.clone(),
                size,
                may_be_whole: true,
                vouched: None,
            })),
        };
        insist(&self.remote, &key, len, store).await?;
        // One that was whole before a crash needs no second upload.
        if self.begun.is_some() {
            tidy(&self.remote, &key).await?;
        }
        Ok(())
    }
}

/// Aborts uploads of a key, or of all below a prefix.
async fn tidy(remote: &Remote, key: &str) -> io::Result<()> {
    let tidy = || Store::Tidy {
        prefix: key.to_owned(),
        keep: None,
    };
    insist(remote, key, 0, tidy).await.map(drop)
}

/// Does it until storage has done it; an upload that is gone is an error.
async fn insist(remote: &Remote, key: &str, len: u64, store: impl Fn() -> Store) -> io::Result<Stored> {
    let mut wait = FIRST_WAIT;
    loop {
        let turn = remote.turn(len, Haste::GoingOn).await;
        let turn = turn.ok_or_else(|| io::Error::other("the uploads' threads have ended"))?;
        match remote.perform(store(), turn).await {
            Ok(stored) => return Ok(stored),
            Err(StoreError::UploadLost(error)) => return Err(io::Error::other(error)),
            Err(error) => {
                warn!(key, %error, ?wait, "storage did not do it, will try again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Runs what waits for the disk where nobody waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Limits;
    use shared::objects::Bucket;
    use shared::telemetry::WorkerMetrics;

    fn remote() -> Remote {
        let limits = Limits {
            max_uploads: 2,
            part_size: HELD,
            max_bandwidth: 0,
        };
        Remote::new(Bucket::in_memory(), limits, WorkerMetrics::default()).expect("threads")
    }

    /// Bytes that differ from place to place.
    fn body(len: usize) -> Bytes {
        (0..len)
            .map(|at| (at * 31 + at / 997).to_le_bytes()[0])
            .collect::<Vec<u8>>()
            .into()
    }

    async fn written(objects: &Objects, key: &str, body: &Bytes, step: usize) -> (u64, u64) {
        let head = vec![7; 8192];
        let mut file = objects
            .grow("stitched".to_owned(), key.to_owned())
            .await
            .expect("begun");
        for at in (0..body.len()).step_by(step) {
            file.append(body.slice(at..(at + step).min(body.len())))
                .await
                .expect("written");
        }
        assert_eq!(file.len(), body.len() as u64);
        file.finish(head).await.expect("finished")
    }

    async fn read(objects: &Objects, key: &str) -> Vec<u8> {
        let (mut whole, mut of) = (Vec::new(), 1);
        while (whole.len() as u64) < of {
            let read = objects.read(key, whole.len() as u64, 1 << 20).await.expect("read");
            let stretch = read.expect("it is there");
            of = stretch.of;
            whole.extend_from_slice(&stretch.bytes);
        }
        whole
    }

    #[tokio::test]
    async fn a_directory_and_a_bucket_hold_the_same_file_however_it_is_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let places = [
            Objects::Local(Local::open(dir.path()).expect("opened")),
            Objects::Remote(remote()),
        ];
        for len in [100, 5 << 20, (5 << 20) + 1, 23_000_001] {
            let body = body(len);
            let whole = [vec![7; 8192], body.to_vec()].concat();
            let expected = (whole.len() as u64, crc::of(&whole));
            for objects in &places {
                // Twice: a crash may have been behind the last step of the first.
                for step in [1 << 20, 7_777_777] {
                    assert_eq!(
                        written(objects, "r/e000003/mp4/000000.mp4", &body, step).await,
                        expected
                    );
                    assert!(read(objects, "r/e000003/mp4/000000.mp4").await == whole, "{len}");
                }
            }
        }
        let gone = places[1].read("r/none", 0, 10).await.expect("asked");
        assert!(gone.is_none());
        assert!(places[0].read("r/none", 0, 10).await.expect("asked").is_none());
        let staged = Local::open(dir.path()).expect("opened").staged_names().expect("names");
        assert!(staged.is_empty(), "{staged:?}");
    }

    #[tokio::test]
    async fn one_that_was_left_half_made_begins_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        for objects in [
            Objects::Local(Local::open(dir.path()).expect("opened")),
            Objects::Remote(remote()),
        ] {
            let mut file = objects
                .grow("stitched".to_owned(), "k".to_owned())
                .await
                .expect("begun");
            file.append(body(12 << 20)).await.expect("written");
            drop(file);
            let body = body(11 << 20);
            let (size, _) = written(&objects, "k", &body, 1 << 20).await;
            assert_eq!(read(&objects, "k").await.len() as u64, size);
        }
    }
}
