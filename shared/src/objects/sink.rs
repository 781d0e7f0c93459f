//! [`Sink`]: an object that is stored piece by piece and is there when it is whole: a file beside its name in a folder, one request or a
//! multipart upload in a bucket.
//!
//! Nothing here tries again. A piece that was not taken may be given once more.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::archive::{self, Archive};
use super::bucket::{Bucket, ObjectError};

/// Most parts of one upload, by the protocol.
const MAX_PARTS: u64 = 10_000;

/// An object on its way.
#[derive(Debug)]
pub struct Sink {
    key: String,
    len: u64,
    piece: u64,
    at: u64,
    way: Way,
}

#[derive(Debug)]
enum Way {
    File {
        file: Arc<File>,
        temp: PathBuf,
        path: PathBuf,
    },
    Whole(Bucket),
    Parts {
        bucket: Bucket,
        upload: String,
        ids: Vec<String>,
    },
}

impl Archive {
    /// Begins an object of `len` bytes in pieces of at least `piece` bytes, and aborts uploads of this key that somebody began and did not
    /// complete: nobody else may be storing it.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn sink(&self, key: &str, len: u64, piece: u64) -> Result<Sink, ObjectError> {
        // The last few parts are left for what rounding takes.
        let piece = piece.max(len.div_ceil(MAX_PARTS - 8));
        let way = match self {
            Archive::Folder(root) => {
                let (temp, path, file) = archive::create(root, key).await?;
                let file = Arc::new(file);
                Way::File { file, temp, path }
            }
            Archive::Bucket(bucket) => {
                bucket.abandon(key).await?;
                match len <= piece {
                    true => Way::Whole(bucket.clone()),
                    false => Way::Parts {
                        upload: bucket.begin(key).await?,
                        bucket: bucket.clone(),
                        ids: Vec::new(),
                    },
                }
            }
        };
        let key = key.to_owned();
        Ok(Sink {
            key,
            len,
            piece,
            at: 0,
            way,
        })
    }
}

impl Bucket {
    /// Aborts every upload of this very key.
    ///
    /// # Errors
    /// [`ObjectError`]; none where the service does not list uploads.
    pub async fn abandon(&self, key: &str) -> Result<(), ObjectError> {
        let pending = match self.pending(key).await {
            Err(ObjectError::Refused(_)) => return Ok(()),
            pending => pending?,
        };
        for upload in pending.into_iter().filter(|upload| upload.key == key) {
            self.abort(key, &upload.upload_id).await?;
        }
        Ok(())
    }
}

impl Sink {
    /// Where the next piece begins and how long it is; none: all of it is there.
    #[must_use]
    pub fn wants(&self) -> Option<(u64, u64)> {
        let left = self.len - self.at;
        (left > 0).then(|| (self.at, left.min(self.piece)))
    }

    /// Takes the piece that is wanted.
    ///
    /// # Errors
    /// [`ObjectError`]; the same piece is wanted still.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        let len = bytes.len() as u64;
        match &mut self.way {
            Way::File { file, .. } => {
                let (file, at) = (Arc::clone(file), self.at);
                archive::on_disk(&self.key, move || file.write_all_at(&bytes, at)).await?;
            }
            Way::Whole(bucket) => bucket.put(&self.key, vec![bytes]).await?,
            Way::Parts { bucket, upload, ids } => {
                let index = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                ids.push(bucket.put_part(&self.key, upload, index, vec![bytes]).await?);
            }
        }
        self.at += len;
        Ok(())
    }

    /// Makes it an object, and asks whether it is there with all its bytes.
    ///
    /// # Errors
    /// [`ObjectError`]; it may be asked again.
    pub async fn finish(&mut self) -> Result<(), ObjectError> {
        let there = match &self.way {
            Way::File { file, temp, path } => {
                let (file, temp, path) = (Arc::clone(file), temp.clone(), path.clone());
                let len = self.len;
                archive::on_disk(&self.key, move || {
                    file.set_len(len)?;
                    file.sync_all()?;
                    if temp.exists() {
                        fs::rename(&temp, &path)?;
                    }
                    if let Some(folder) = path.parent() {
                        File::open(folder)?.sync_all()?;
                    }
                    Ok(Some(fs::metadata(&path)?.len()))
                })
                .await?
            }
            Way::Whole(bucket) => {
                if self.len == 0 {
                    bucket.put(&self.key, Vec::new()).await?;
                }
                bucket.size(&self.key).await?
            }
            Way::Parts { bucket, upload, ids } => match bucket.complete(&self.key, upload, ids.clone()).await {
                // Completed with an answer that was lost, or dropped by the service: its size tells.
                Ok(()) | Err(ObjectError::Missing(_)) => bucket.size(&self.key).await?,
                Err(error) => return Err(error),
            },
        };
        match there {
            Some(there) if there == self.len => Ok(()),
            there => Err(ObjectError::Unavailable(format!(
                "{}: {} bytes are stored, not {}",
                self.key,
                there.map_or("no".to_owned(), |n| n.to_string()),
                self.len
            ))),
        }
    }

    /// Takes back what was stored of it.
    ///
    /// # Errors
    /// [`ObjectError`]; whoever stores this key next does it then.
    pub async fn abandon(self) -> Result<(), ObjectError> {
        match self.way {
            Way::File { temp, .. } => archive::on_disk(&self.key, move || fs::remove_file(temp)).await,
            Way::Whole(_) => Ok(()),
            Way::Parts { bucket, upload, .. } => bucket.abort(&self.key, &upload).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stores(archive: Archive) {
        for len in [0_u64, 1, 7, 8, 20] {
            let key = format!("d/a/s/{len}");
            let bytes: Bytes = (0..len).map(|n| n as u8).collect::<Vec<_>>().into();
            for _ in 0..2 {
                let mut sink = archive.sink(&key, len, 7).await.unwrap();
                while let Some((from, len)) = sink.wants() {
                    let piece = bytes.slice(from as usize..(from + len) as usize);
                    sink.write(piece).await.unwrap();
                }
                sink.finish().await.unwrap();
                assert_eq!(archive.get(&key).await.unwrap(), bytes);
            }
        }
        let mut half = archive.sink("d/a/s/half", 20, 7).await.unwrap();
        half.write(Bytes::from_static(b"1234567")).await.unwrap();
        assert!(!archive.has("d/a/s/half").await.unwrap());
        half.abandon().await.unwrap();
        assert_eq!(archive.list("", None, 100).await.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn what_two_write_under_one_name_is_never_mixed() {
        let root = tempfile::tempdir().unwrap();
        let archive = Archive::Folder(root.path().to_path_buf());
        let (early, late) = (Bytes::from_static(b"aaaa"), Bytes::from_static(b"bbbb"));
        let mut first = archive.sink("k", 8, 4).await.unwrap();
        first.write(early.clone()).await.unwrap();
        let mut second = archive.sink("k", 8, 4).await.unwrap();
        second.write(late.clone()).await.unwrap();
        first.write(early).await.unwrap();
        assert!(first.finish().await.is_err(), "another has begun it anew");
        assert!(!archive.has("k").await.unwrap());
        second.write(late).await.unwrap();
        second.finish().await.unwrap();
        assert_eq!(archive.get("k").await.unwrap(), Bytes::from_static(b"bbbbbbbb"));
    }

    #[tokio::test]
    async fn an_object_is_there_when_it_is_whole() {
        stores(Archive::Bucket(Bucket::in_memory())).await;
        let root = tempfile::tempdir().unwrap();
        stores(Archive::Folder(root.path().to_path_buf())).await;
        let hidden = std::fs::read_dir(root.path().join("d/a/s")).unwrap();
        assert!(
            hidden
                .flatten()
                .all(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        );
    }

    #[tokio::test]
    async fn a_key_never_leads_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let archive = Archive::Folder(root.path().join("inner"));
        for key in ["../x", "/x", "a/../../x", "", "a//b"] {
            assert!(archive.sink(key, 1, 7).await.is_err(), "{key}");
        }
        assert!(!root.path().join("x").exists());
    }
}
