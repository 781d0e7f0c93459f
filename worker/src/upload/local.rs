//! Objects on a local directory.
//!
//! A staged object is a plain file under `.staging/`. Its head is put in front with `fallocate(INSERT_RANGE)` where the file
//! system can (ext4, XFS), which moves extents and not bytes; elsewhere the file is written once more. Publishing is a rename,
//! so an object is whole or absent, never half there.
//!
//! The node's group sync covers this directory, and whoever needs durability waits for it. Only where a file is written once more is the copy
//! synced by itself, since it takes the place of what a sync has covered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::Stretch;

/// Every head is a multiple of this many bytes, so that it can be inserted in front of a body block by block.
pub const HEAD_ALIGN: usize = 4096;

/// A directory that holds objects under keys such as `domain/app/stream/recording/…`.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
    staging: PathBuf,
}

impl Local {
    /// Opens the directory, making it and its `.staging` where they are missing.
    ///
    /// # Errors
    /// Where a directory cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        let staging = root.join(".staging");
        fs::create_dir_all(&staging)?;
        Ok(Self {
            root: root.to_path_buf(),
            staging,
        })
    }

    /// The directory objects lie in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the staged object `name`, as it was left if it was there.
    ///
    /// # Errors
    /// Where the file cannot be opened or made.
    pub fn stage(&self, name: &str) -> io::Result<Staged> {
        let path = self.staging.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        Ok(Staged { file, path })
    }

    /// Removes the staged object `name`, if there is one.
    ///
    /// # Errors
    /// Where it is there and cannot be removed.
    pub fn unstage(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.staging.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Names of everything staged: what a crash may have left behind.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn staged_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.staging)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Stores a small object, whole or not at all, in place of an older one under the same key.
    ///
    /// # Errors
    /// Where it cannot be written; the older object is then untouched.
    pub fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let name = format!(
            "put-{}",
            key.replace('/', "%2f").chars().rev().take(200).collect::<String>()
        );
        let temp = self.staging.join(&name);
        let target = self.root.join(key);
        let written = File::create(&temp)
            .and_then(|mut f| f.write_all(bytes))
            .and_then(|()| rename_into(&temp, &target));
        if written.is_err() {
            let _ = fs::remove_file(&temp);
        }
        written
    }

    /// Bytes of the object under `key`; `None` where there is none.
    ///
    /// # Errors
    /// Where that cannot be found out.
    pub fn size(&self, key: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.root.join(key)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes the head of an object that was published with it: after power loss the room for it may be there, and its bytes not.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn write_head(&self, key: &str, head: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.root.join(key))?;
        file.write_all_at(head, 0)
    }

    /// The first of these objects that is there, and which of them it is.
    ///
    /// # Errors
    /// Where one is there and cannot be read.
    pub fn first(&self, keys: &[String]) -> io::Result<Option<(usize, Vec<u8>)>> {
        for (which, key) in keys.iter().enumerate() {
            match self.get(key) {
                Ok(bytes) => return Ok(Some((which, bytes))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Up to `len` bytes of the object under `key` from `from` on, and its length; `None` where there is none.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub(crate) fn read(&self, key: &str, from: u64, len: u64) -> io::Result<Option<Stretch>> {
        let file = match File::open(self.root.join(key)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let of = file.metadata()?.len();
        let len = len.min(of.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, from)?;
        Ok(Some(Stretch {
            bytes: bytes.into(),
            of,
        }))
    }

    /// The object under `key`, whole. For small objects: playlists, `recording.json`.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn get(&self, key: &str) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(key))
    }
}

/// Renames, making the target's directory if that is what was missing.
fn rename_into(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(from, to)
        }
        done => done,
    }
}

/// An object that is being written: a body that grows, and a head that comes last.
#[derive(Debug)]
pub struct Staged {
    file: File,
    path: PathBuf,
}

impl Staged {
    /// Writes body bytes at `offset`. Writing the same stretch again is harmless: rendering is a pure function.
    ///
    /// # Errors
    /// As the disk gives them; `StorageFull` among them.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Puts `head` in front of the body's `body_len` bytes.
    ///
    /// May be called again after a crash at any point of an earlier call: the file's length tells how far that came. So
    /// the caller has cut the body to `body_len` before the first call, and says the same `head` each time, a multiple of
    /// [`HEAD_ALIGN`] bytes.
    ///
    /// # Errors
    /// As the disk gives them; `InvalidData` where the file is neither the body alone nor the body with its head.
    pub fn insert_head(&mut self, head: &[u8], body_len: u64) -> io::Result<()> {
        let head_len = head.len() as u64;
        if head_len == 0 {
            return self.file.set_len(body_len);
        }
        let len = self.file.metadata()?.len();
        if len == body_len + head_len {
            return self.file.write_all_at(head, 0);
        }
        if len != body_len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("staged body is {len} bytes, its recorder wrote {body_len}"),
            ));
        }
        if body_len == 0 {
            return self.file.write_all_at(head, 0);
        }
        match fallocate(&self.file, FallocateFlags::INSERT_RANGE, 0, head_len) {
            Ok(()) => self.file.write_all_at(head, 0),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                self.rewrite(head)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The slow way for file systems that cannot insert: one more file, head first.
    fn rewrite(&mut self, head: &[u8]) -> io::Result<()> {
        let temp = self.path.with_extension("whole");
        let mut whole = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temp)?;
        whole.write_all(head)?;
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(&mut self.file, &mut whole)?;
        whole.sync_data()?;
        fs::rename(&temp, &self.path)?;
        self.file = whole;
        Ok(())
    }

    /// Drops what lies behind the first `len` bytes: a stretch a crashed worker wrote but did not account for.
    ///
    /// # Errors
    /// As the disk gives them; `InvalidData` where fewer bytes are there.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        let there = self.size()?;
        if there < len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("staged body is {there} bytes, its recorder wrote {len}"),
            ));
        }
        self.file.set_len(len)
    }

    /// Bytes in the file now.
    ///
    /// # Errors
    /// Where that cannot be found out.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Makes this the object under `key`.
    ///
    /// # Errors
    /// Where the rename fails; the staged file is then still there.
    pub fn publish(self, objects: &Local, key: &str) -> io::Result<()> {
        rename_into(&self.path, &objects.root.join(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (tempfile::TempDir, Local) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let objects = Local::open(dir.path()).expect("an object directory");
        (dir, objects)
    }

    #[test]
    fn a_head_goes_in_front_of_its_body() {
        let (_dir, objects) = objects();
        let body: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut staged = objects.stage("a").expect("stage");
        staged.write_at(0, &body).expect("write");
        staged.write_at(body.len() as u64, b"unaccounted").expect("write");
        staged.truncate(body.len() as u64).expect("truncate");
        let head = vec![7u8; 2 * HEAD_ALIGN];
        staged.insert_head(&head, body.len() as u64).expect("insert");
        staged.publish(&objects, "d/e/f.bin").expect("publish");
        assert_eq!(objects.get("d/e/f.bin").expect("get"), [head, body].concat());
        assert!(objects.staged_names().expect("names").is_empty());
    }

    #[test]
    fn inserting_again_after_a_crash_changes_nothing() {
        let (_dir, objects) = objects();
        let mut staged = objects.stage("a").expect("stage");
        staged.write_at(0, &[1u8; 10_000]).expect("write");
        let head = vec![7u8; HEAD_ALIGN];
        staged.insert_head(&head, 10_000).expect("first");
        drop(staged);
        let mut staged = objects.stage("a").expect("stage again");
        staged.insert_head(&head, 10_000).expect("second");
        staged.publish(&objects, "f").expect("publish");
        assert_eq!(objects.get("f").expect("get"), [head, vec![1u8; 10_000]].concat());
    }

    #[test]
    fn rewriting_gives_what_inserting_gives() {
        let (_dir, objects) = objects();
        let mut staged = objects.stage("a").expect("stage");
        staged.write_at(0, &[1u8; 10_000]).expect("write");
        staged.rewrite(&[7u8; HEAD_ALIGN]).expect("rewrite");
        staged.publish(&objects, "f").expect("publish");
        assert_eq!(
            objects.get("f").expect("get"),
            [vec![7u8; HEAD_ALIGN], vec![1u8; 10_000]].concat()
        );
    }

    #[test]
    fn put_replaces_whole_objects() {
        let (_dir, objects) = objects();
        objects.put("x/y", b"one").expect("put");
        objects.put("x/y", b"second").expect("put");
        assert_eq!(objects.get("x/y").expect("get"), b"second");
        assert_eq!(objects.size("x/y").expect("size"), Some(6));
        assert_eq!(objects.size("x/z").expect("size"), None);
    }
}
