//! [`Ways`]: copies the objects of one file, and the `recording.json` after them.
//!
//! Objects of a playlist go in the order of their keys, and the playlist when they are there: a reader of the second place sees it whole or not
//! at all. Objects never change under their key, but for playlists and documents; so what is there with its length is there, and whoever goes on
//! after a crash has little to do again. What was read is held against the checksum in the library before it becomes an object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use shared::objects::{Archive, ObjectError, Places, Sink};
use shared::playlist::named_by;
use shared::recording::{MediaFile, RecordingDocument};
use shared::telemetry::WorkerMetrics;
use shared::template::Format;
use shared::wire::Copy;

use crate::upload::Pace;

/// Tries of one request.
const TRIES: u32 = 3;
/// First wait between two tries, doubled with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Times that a document is copied in a row because it has changed meanwhile.
const VERSIONS: usize = 8;
/// Objects that are listed at a time.
const LIST: usize = 1_000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// It cannot be read.
    #[error("first place: {0}")]
    Source(ObjectError),
    /// It cannot be stored.
    #[error("second place: {0}")]
    Destination(ObjectError),
    /// It is not what the library says.
    #[error("{0}")]
    Damaged(String),
    /// The recording has ended and its document does not say so yet.
    #[error("{0} does not say yet that its recording has ended")]
    NotYet(String),
    /// It was another each time it was copied.
    #[error("{0} changes while it is copied")]
    Changing(String),
}

impl CopyError {
    /// For counting.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            CopyError::Source(_) => "source",
            CopyError::Destination(_) => "destination",
            CopyError::Damaged(_) => "damaged",
            CopyError::NotYet(_) | CopyError::Changing(_) => "not_yet",
        }
    }

    /// True if the second place does not answer: it is the same for all others.
    pub(super) const fn is_away(&self) -> bool {
        matches!(self, CopyError::Destination(ObjectError::Unavailable(_)))
    }
}

/// From where to where. Clones share the limits.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    /// The place of each key.
    pub(super) from: Places<Archive>,
    pub(super) to: Archive,
    /// Bytes that are read and stored at a time.
    pub(super) piece: u64,
    pub(super) pace: Arc<Pace>,
    pub(super) metrics: WorkerMetrics,
}

/// Makes a request up to [`TRIES`] times.
async fn again<T, F>(mut request: impl FnMut() -> F) -> Result<T, ObjectError>
where
    F: Future<Output = Result<T, ObjectError>>,
{
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match request().await {
            Err(ObjectError::Unavailable(_)) => tokio::time::sleep(wait).await,
            other => return other,
        }
        wait *= 2;
    }
    request().await
}

async fn write(sink: &mut Sink, bytes: Bytes) -> Result<(), CopyError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match sink.write(bytes.clone()).await {
            Err(ObjectError::Unavailable(_)) => tokio::time::sleep(wait).await,
            other => return other.map_err(CopyError::Destination),
        }
        wait *= 2;
    }
    sink.write(bytes).await.map_err(CopyError::Destination)
}

async fn finish(sink: &mut Sink) -> Result<(), CopyError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match sink.finish().await {
            Err(ObjectError::Unavailable(_)) => tokio::time::sleep(wait).await,
            other => return other.map_err(CopyError::Destination),
        }
        wait *= 2;
    }
    sink.finish().await.map_err(CopyError::Destination)
}

/// True for what belongs to the HLS of a recording whose folder is `root`.
fn is_hls(root: &str, key: &str) -> bool {
    let mut parts = key.get(root.len() + 1..).unwrap_or_default().split('/');
    let epoch = parts.next().and_then(|folder| folder.strip_prefix('e'));
    epoch.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) && parts.next() == Some("hls")
}

fn is_playlist(key: &str) -> bool {
    key.ends_with(".m3u8")
}

/// The objects of a playlist that are not at the other end as they are here: segments first, then playlists, the file's own last.
fn missing(here: &BTreeMap<String, u64>, there: &BTreeMap<String, u64>, file: &MediaFile) -> Vec<(String, u64)> {
    let mut keys: Vec<(String, u64)> = here
        .iter()
        .filter(|(key, size)| is_playlist(key) || there.get(*key) != Some(size))
        .map(|(key, size)| (key.clone(), *size))
        .collect();
    keys.sort_by_key(|(key, _)| (*key == file.object_key, is_playlist(key)));
    keys
}

impl Ways {
    /// Copies what is asked for.
    pub(super) async fn copy(&self, copy: &Copy) -> Result<(), CopyError> {
        if let Some(file) = &copy.file {
            self.file(&copy.root, file).await?;
        }
        self.document(&copy.root, copy.file.is_none()).await
    }

    /// The place that a key lies in.
    fn from(&self, key: &str) -> Result<&Archive, CopyError> {
        self.from.of(key).map_err(|unknown| CopyError::Source(unknown.into()))
    }

    async fn file(&self, root: &str, file: &MediaFile) -> Result<(), CopyError> {
        if file.format != Format::Hls {
            let there = again(|| self.to.size(&file.object_key)).await;
            return match there.map_err(CopyError::Destination)? {
                Some(size) if size == file.size => Ok(()),
                _ => self.object(&file.object_key, file.size, &file.checksum).await,
            };
        }
        let from = self.from(root)?;
        let here = list(from, root).await.map_err(CopyError::Source)?;
        let there = list(&self.to, root).await.map_err(CopyError::Destination)?;
        let playlist = again(|| from.get(&file.object_key)).await.map_err(CopyError::Source)?;
        // A list that is behind must not pass for the whole.
        let named = named_by(&String::from_utf8_lossy(&playlist), &file.object_key);
        if let Some(key) = named
            .iter()
            .chain([&file.object_key])
            .find(|key| !here.contains_key(*key))
        {
            let missing = ObjectError::Missing(format!("{key}: the first place does not list it"));
            return Err(CopyError::Source(missing));
        }
        for (key, size) in missing(&here, &there, file) {
            let checksum = if key == file.object_key { &file.checksum } else { "" };
            self.object(&key, size, checksum).await?;
        }
        Ok(())
    }

    /// Copies one object of `size` bytes. What came to nothing is taken back, if the second place lets it; else whoever tries it again or removes
    /// it does that.
    async fn object(&self, key: &str, size: u64, checksum: &str) -> Result<(), CopyError> {
        let sink = again(|| self.to.sink(key, size, self.piece)).await;
        let mut sink = sink.map_err(CopyError::Destination)?;
        let copied = self.through(&mut sink, key, size, checksum).await;
        if copied.is_err() {
            let _ = sink.abandon().await;
        }
        copied
    }

    async fn through(&self, sink: &mut Sink, key: &str, size: u64, checksum: &str) -> Result<(), CopyError> {
        let mut sum = Digest::new(CrcAlgorithm::Crc64Nvme);
        let place = self.from(key)?;
        while let Some((from, len)) = sink.wants() {
            let read = again(|| place.range(key, from, len)).await;
            let (bytes, of) = read.map_err(CopyError::Source)?;
            if of != size || bytes.len() as u64 != len {
                return Err(CopyError::Damaged(format!("{key} has {of} bytes, not {size}")));
            }
            sum.update(&bytes);
            let is_last = from + len == size;
            let found = format!("crc64nvme:{:016x}", sum.finalize());
            if is_last && checksum.starts_with("crc64nvme:") && checksum != found {
                return Err(CopyError::Damaged(format!(
                    "{key} is {found}, the library says {checksum}"
                )));
            }
            self.pace.wait(len).await;
            write(sink, bytes).await?;
            self.metrics.copied_bytes.inc_by(len);
        }
        finish(sink).await
    }

    /// Copies the document; with `ended` only one that says that its recording has ended. None is there where its machine was lost.
    ///
    /// Others may be copying another version of it at this moment, and whoever stores last must not leave an older one. So it is done only when
    /// the first place has, after the copy, what was copied: whoever stores last looks last.
    async fn document(&self, root: &str, ended: bool) -> Result<(), CopyError> {
        let key = format!("{root}/recording.json");
        let place = self.from(&key)?;
        let mut copied = None;
        for _ in 0..=VERSIONS {
            let bytes = match again(|| place.get(&key)).await {
                Ok(bytes) => bytes,
                // Whoever removes it from the first removes it from the second as well.
                Err(ObjectError::Missing(_)) => return Ok(()),
                Err(error) => return Err(CopyError::Source(error)),
            };
            if copied.as_ref() == Some(&bytes) {
                return Ok(());
            }
            let says_so = |document: RecordingDocument| document.recording.state.is_terminal();
            if ended && !RecordingDocument::from_json(&bytes).is_ok_and(says_so) {
                return Err(CopyError::NotYet(key));
            }
            self.store_document(&key, bytes.clone()).await?;
            copied = Some(bytes);
        }
        Err(CopyError::Changing(key))
    }

    async fn store_document(&self, key: &str, bytes: Bytes) -> Result<(), CopyError> {
        let size = bytes.len() as u64;
        let sink = again(|| self.to.sink(key, size, u64::MAX)).await;
        let mut sink = sink.map_err(CopyError::Destination)?;
        self.pace.wait(size).await;
        write(&mut sink, bytes).await?;
        self.metrics.copied_bytes.inc_by(size);
        finish(&mut sink).await
    }
}

/// Length of everything of HLS in a recording's folder.
async fn list(archive: &Archive, root: &str) -> Result<BTreeMap<String, u64>, ObjectError> {
    let (mut all, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let page = again(|| archive.list(root, after.as_deref(), LIST)).await?;
        let is_last = page.len() < LIST;
        after = page.last().map(|object| object.key.clone());
        let of_hls = page.into_iter().filter(|object| is_hls(root, &object.key));
        all.extend(of_hls.map(|object| (object.key, object.size)));
        if is_last {
            return Ok(all);
        }
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
