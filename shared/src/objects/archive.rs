//! [`Archive`]: finished objects, in a folder or a bucket, for whoever looks after them: reads small ones, lists, removes.
//!
//! One call is one try. A key never leads out of the folder, also not over symbolic links.

use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::ObjectsUrl;
use super::bucket::{Bucket, Listed, ObjectError};
use crate::config::ObjectsConfig;
use crate::ids::{IdGen as _, Random};
use crate::time::Timestamp;

/// Objects of one page of a list.
const PAGE: usize = 1_000;
/// Objects that are removed at a time.
const AT_A_TIME: usize = 8;

/// A place of finished objects. Clones share it.
#[derive(Debug, Clone)]
pub enum Archive {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

/// Where a key lies below a folder; none for a key that would leave it.
fn below(root: &Path, key: &str) -> Option<PathBuf> {
    let legal = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    key.split('/').all(legal).then(|| root.join(key))
}

fn missing(key: &str) -> ObjectError {
    ObjectError::Missing(format!("{key}: there is no such object"))
}

fn failed(key: &str, error: &io::Error) -> ObjectError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(key),
        _ => ObjectError::Unavailable(format!("{key}: {error}")),
    }
}

/// Runs what waits for the disk.
pub(super) async fn on_disk<T: Send + 'static>(
    key: &str,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ObjectError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => done.map_err(|error| failed(key, &error)),
        Err(error) => Err(ObjectError::Unavailable(format!("{key}: {error}"))),
    }
}

/// The path of an object whose folder is there and lies below the root, even after symbolic links.
fn inside(root: &Path, key: &str) -> io::Result<PathBuf> {
    let path = below(root, key).ok_or(io::ErrorKind::NotFound)?;
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?.canonicalize()?;
    let name = path.file_name().ok_or(io::ErrorKind::NotFound)?;
    match folder.starts_with(root.canonicalize()?) {
        true => Ok(folder.join(name)),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

fn remove(root: &Path, key: &str) -> io::Result<()> {
    let path = inside(root, key)?;
    let removed = std::fs::remove_file(&path);
    // Folders that hold nothing any more go with the last object, also where that is gone already: whoever removed it may have died just then.
    let root = root.canonicalize()?;
    let mut folder = path.parent();
    while let Some(at) = folder.filter(|at| *at != root && at.starts_with(&root)) {
        // One that holds something refuses.
        if std::fs::remove_dir(at).is_err() {
            break;
        }
        folder = at.parent();
    }
    removed
}

/// Removes a folder and all below it that hold nothing.
fn remove_empty(root: &Path, folder: &str) -> io::Result<()> {
    fn empty(folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                empty(&entry.path())?;
            }
        }
        match std::fs::remove_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }
    empty(&inside(root, folder)?)
}

fn write(root: &Path, key: &str, bytes: &[u8]) -> io::Result<()> {
    let path = inside(root, key)?;
    let (temp, mut file) = beside(&path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temp, path)
}

/// A new file beside the one that it is to become, under a name that nobody else has: another process may be at the same object, and what both write
/// must not end up in one file. What was begun before goes; whoever is still at that has nothing to put in place any more.
fn beside(path: &Path) -> io::Result<(PathBuf, std::fs::File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (begin, end) = (format!(".{name}."), ".new");
    for entry in std::fs::read_dir(path.parent().ok_or(io::ErrorKind::NotFound)?)? {
        let entry = entry?;
        let left = entry.file_name();
        let left = left.to_string_lossy();
        if left.starts_with(&begin)
            && left.ends_with(end)
            && let Err(error) = std::fs::remove_file(entry.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    let temp = path.with_file_name(format!("{begin}{}{end}", Random.uuid(Timestamp::default())));
    let file = std::fs::File::create_new(&temp)?;
    Ok((temp, file))
}

/// A new file beside the one that it is to become, in a folder that is made if need be, and that one's path.
pub(super) async fn create(root: &Path, key: &str) -> Result<(PathBuf, PathBuf, std::fs::File), ObjectError> {
    let (root, name) = (root.to_path_buf(), key.to_owned());
    on_disk(key, move || {
        let folder = below(&root, &name).ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::create_dir_all(folder.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let path = inside(&root, &name)?;
        let (temp, file) = beside(&path)?;
        Ok((temp, path, file))
    })
    .await
}

/// Parts of a key behind which a list goes on.
fn is_behind(key: &str, after: Option<&str>) -> bool {
    after.is_none_or(|after| key.split('/').gt(after.split('/')))
}

/// Lists what lies below `folder`, whose own key is `at`, in the order of the parts of their keys. Hidden files are nobody's objects.
fn walk(folder: &Path, at: &str, after: Option<&str>, limit: usize, out: &mut Vec<Listed>) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            entries.push((name, entry));
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, entry) in entries {
        if out.len() >= limit {
            return Ok(());
        }
        let key = if at.is_empty() { name } else { format!("{at}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // Whole folders that lie before are not opened.
            let may_hold = after.is_none_or(|after| {
                let depth = key.split('/').count();
                key.split('/').ge(after.split('/').take(depth))
            });
            if may_hold {
                match walk(&entry.path(), &key, after, limit, out) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        } else if kind.is_file() && is_behind(&key, after) {
            let Ok(meta) = entry.metadata() else { continue };
            let modified = meta
                .modified()?
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            out.push(Listed {
                key,
                size: meta.len(),
                modified: Timestamp::from_millis(i64::try_from(modified.as_millis()).unwrap_or(i64::MAX)),
            });
        }
    }
    Ok(())
}

impl Archive {
    /// Opens what the URL names. Nothing is sent or read yet.
    ///
    /// # Errors
    /// [`ObjectError::Refused`] where settings and environment do not make a client.
    pub fn open(url: &ObjectsUrl, config: &ObjectsConfig) -> Result<Self, ObjectError> {
        Ok(match url {
            ObjectsUrl::File(root) => Archive::Folder(root.clone()),
            ObjectsUrl::S3 { bucket, prefix } => Archive::Bucket(Bucket::s3(bucket, prefix, config)?),
        })
    }

    /// The object, whole. For small ones.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] where there is none.
    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        match self {
            Archive::Bucket(bucket) => bucket.get(key).await,
            Archive::Folder(root) => {
                let (root, name) = (root.clone(), key.to_owned());
                on_disk(key, move || Ok(std::fs::read(inside(&root, &name)?)?.into())).await
            }
        }
    }

    /// Up to `len` bytes of an object from `from` on, which is less than its length, and that length.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] where there is none.
    pub async fn range(&self, key: &str, from: u64, len: u64) -> Result<(Bytes, u64), ObjectError> {
        match self {
            Archive::Bucket(bucket) => bucket.range(key, from, len).await,
            Archive::Folder(root) => {
                let (root, name) = (root.clone(), key.to_owned());
                on_disk(key, move || {
                    let file = std::fs::File::open(inside(&root, &name)?)?;
                    let of = file.metadata()?.len();
                    let len = usize::try_from(of.saturating_sub(from).min(len)).unwrap_or(usize::MAX);
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, from)?;
                    Ok((bytes.into(), of))
                })
                .await
            }
        }
    }

    /// Bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// [`ObjectError`] where that cannot be found out.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        match self {
            Archive::Bucket(bucket) => bucket.size(key).await,
            Archive::Folder(root) => {
                let (root, name) = (root.clone(), key.to_owned());
                match on_disk(key, move || std::fs::metadata(inside(&root, &name)?)).await {
                    Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
                    Err(ObjectError::Missing(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// True if there is such an object.
    ///
    /// # Errors
    /// [`ObjectError`] where that cannot be found out.
    pub async fn has(&self, key: &str) -> Result<bool, ObjectError> {
        Ok(self.size(key).await?.is_some())
    }

    /// Replaces a small object that is there, in a folder that is there.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        match self {
            Archive::Bucket(bucket) => bucket.put(key, vec![bytes]).await,
            Archive::Folder(root) => {
                let (root, name) = (root.clone(), key.to_owned());
                on_disk(key, move || write(&root, &name, &bytes)).await
            }
        }
    }

    /// Removes an object, and folders that are empty then. One that is not there is removed already.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn remove(&self, key: &str) -> Result<(), ObjectError> {
        let removed = match self {
            Archive::Bucket(bucket) => bucket.delete(key).await,
            Archive::Folder(root) => {
                let (root, name) = (root.clone(), key.to_owned());
                on_disk(key, move || remove(&root, &name)).await
            }
        };
        match removed {
            Err(ObjectError::Missing(_)) => Ok(()),
            other => other,
        }
    }

    /// Removes every object below a folder that `goes` names, and folders that are empty then.
    ///
    /// # Errors
    /// [`ObjectError`]; some may be gone then.
    pub async fn remove_below(&self, folder: &str, goes: impl Fn(&str) -> bool) -> Result<(), ObjectError> {
        let mut after = None;
        loop {
            let page = self.list(folder, after.as_deref(), PAGE).await?;
            after = page.last().map(|last| last.key.clone());
            let named = page.iter().filter(|object| goes(&object.key)).map(Ok);
            stream::iter(named)
                .try_for_each_concurrent(AT_A_TIME, |object| self.remove(&object.key))
                .await?;
            if page.len() < PAGE {
                break;
            }
        }
        let Archive::Folder(root) = self else { return Ok(()) };
        // Where whoever removed the last object of one died just then, no object leads to it.
        let (root, at) = (root.clone(), folder.to_owned());
        match on_disk(folder, move || remove_empty(&root, &at)).await {
            Err(ObjectError::Missing(_)) => Ok(()),
            other => other,
        }
    }

    /// Objects below a folder, which may be empty for all, at most `limit` behind the key `after`. What lies in one folder comes together.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn list(&self, folder: &str, after: Option<&str>, limit: usize) -> Result<Vec<Listed>, ObjectError> {
        match self {
            Archive::Bucket(bucket) => bucket.list(folder, after, limit).await,
            Archive::Folder(root) => {
                let path = match folder {
                    "" => Some(root.clone()),
                    folder => below(root, folder),
                };
                let path = path.ok_or_else(|| missing(folder))?;
                let (at, after) = (folder.to_owned(), after.map(str::to_owned));
                let listed = on_disk(folder, move || {
                    let mut out = Vec::new();
                    walk(&path, &at, after.as_deref(), limit, &mut out).map(|()| out)
                });
                match listed.await {
                    Err(ObjectError::Missing(_)) => Ok(Vec::new()),
                    other => other,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn filled(archive: &Archive, root: Option<&Path>) {
        for key in [
            "d/a/s-1/r/e000001/hls/000000.ts",
            "d/a/s-1/r/e000001/hls/index.m3u8",
            "d/a/s-1/r/recording.json",
            "d/a/s/r/e000001/flv/0.flv",
            "d/a/s/r/recording.json",
        ] {
            match (archive, root) {
                (Archive::Bucket(bucket), _) => bucket.put(key, vec![Bytes::from(key)]).await.unwrap(),
                (_, Some(root)) => {
                    let path = root.join(key);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, key).unwrap();
                }
                _ => unreachable!(),
            }
        }
    }

    async fn keeps_house(archive: Archive, root: Option<&Path>) {
        filled(&archive, root).await;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = archive.list("", after.as_deref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            all.extend(page.into_iter().map(|object| (object.key, object.size)));
        }
        assert_eq!(all.len(), 5, "{all:?}");
        let folder = |key: &str| {
            key.rsplit_once('/')
                .unwrap()
                .0
                .split('/')
                .take(4)
                .collect::<Vec<_>>()
                .join("/")
        };
        let mut folders: Vec<_> = all.iter().map(|(key, _)| folder(key)).collect();
        folders.dedup();
        assert_eq!(folders.len(), 2, "what lies in one folder comes together: {all:?}");
        assert!(all.iter().all(|(key, size)| *size == key.len() as u64));

        assert_eq!(
            archive.get("d/a/s/r/recording.json").await.unwrap(),
            "d/a/s/r/recording.json"
        );
        archive.put("d/a/s/r/recording.json", "new".into()).await.unwrap();
        assert_eq!(archive.get("d/a/s/r/recording.json").await.unwrap(), "new");
        assert!(matches!(archive.get("d/x").await, Err(ObjectError::Missing(_))));
        assert!(archive.has("d/a/s/r/recording.json").await.unwrap() && !archive.has("d/a/s/r").await.unwrap());

        archive
            .remove_below("d/a/s-1/r", |key| key.contains("/hls/"))
            .await
            .unwrap();
        archive.remove("d/a/s/r/recording.json").await.unwrap();
        archive.remove("d/a/s/r/recording.json").await.unwrap();
        archive.remove_below("d/none", |_| true).await.unwrap();
        let mut left: Vec<_> = archive
            .list("", None, 9)
            .await
            .unwrap()
            .into_iter()
            .map(|o| o.key)
            .collect();
        left.sort();
        assert_eq!(left, ["d/a/s-1/r/recording.json", "d/a/s/r/e000001/flv/0.flv"]);
    }

    #[tokio::test]
    async fn a_folder_and_a_bucket_are_looked_after_alike() {
        keeps_house(Archive::Bucket(Bucket::in_memory()), None).await;
        let dir = tempfile::tempdir().unwrap();
        keeps_house(Archive::Folder(dir.path().to_owned()), Some(dir.path())).await;
        assert!(!dir.path().join("d/a/s-1/r/e000001").exists(), "an empty folder stays");
    }

    #[tokio::test]
    async fn empty_folders_go_and_the_root_stays() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::Folder(dir.path().to_owned());
        filled(&archive, Some(dir.path())).await;
        archive.remove_below("d", |_| true).await.unwrap();
        assert!(dir.path().exists() && !dir.path().join("d").exists());
    }

    #[tokio::test]
    async fn folders_go_too_whose_last_object_went_before_a_death() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::Folder(dir.path().to_owned());
        filled(&archive, Some(dir.path())).await;
        for key in ["hls/000000.ts", "hls/index.m3u8"] {
            std::fs::remove_file(dir.path().join("d/a/s-1/r/e000001").join(key)).unwrap();
        }
        let document = "d/a/s-1/r/recording.json";
        archive.remove_below("d/a/s-1/r", |key| key != document).await.unwrap();
        assert!(!dir.path().join("d/a/s-1/r/e000001").exists());
        assert!(archive.has(document).await.unwrap());
        std::fs::remove_file(dir.path().join(document)).unwrap();
        archive.remove(document).await.unwrap();
        assert!(!dir.path().join("d/a/s-1").exists() && dir.path().join("d/a/s/r").exists());
    }

    #[tokio::test]
    async fn no_key_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("objects");
        let other = dir.path().join("other");
        for folder in [&root, &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(other.join("x"), "x").unwrap();
        std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
        let archive = Archive::Folder(root);
        for key in ["../other/x", "link/x", "/etc/passwd", "", "a//b", "."] {
            archive.remove(key).await.unwrap();
            assert!(archive.get(key).await.is_err(), "{key}");
        }
        assert!(other.join("x").exists());
        assert_eq!(archive.list("", None, 9).await.unwrap(), []);
        assert_eq!(
            archive.list("../other", None, 9).await.map_err(|e| e.to_string()),
            Err("../other: there is no such object".into())
        );
    }
}
