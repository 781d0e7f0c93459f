//! What this worker began in storage and nobody goes on with: multipart uploads that will not be completed, and what lies beside files that
//! the library has. Noted on disk, and gone when storage lets it.
//!
//! A recorder's upload is in its state, and whoever opens that state completes or aborts it. Where the state goes for good, with an upload
//! in it, the prefix it lies under is noted here first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared::objects::place_of;
use tokio::sync::watch;
use tracing::warn;

use super::remote::Remote;
use super::spool::write_whole;

/// How often what is noted is tried again; while storage does not answer, rarer.
const AGAIN: Duration = Duration::from_secs(5);

/// The notes.
#[derive(Debug, Clone)]
pub(crate) struct Abandoned {
    dir: PathBuf,
    noted: Arc<watch::Sender<()>>,
}

impl Abandoned {
    /// Opens the directory of notes, making it if need be.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            noted: Arc::new(watch::Sender::new(())),
        })
    }

    /// Notes that no upload below `prefix` will be completed.
    pub(crate) fn note(&self, prefix: &str) -> io::Result<()> {
        let name = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, prefix.as_bytes());
        write_whole(&self.dir.join(format!("{name:016x}.prefix")), prefix.as_bytes())?;
        self.noted.send_replace(());
        Ok(())
    }

    /// Notes that the first of two places is left: what was begun there under this key or below it, of which the id of one may be known, and
    /// what lies beside a file.
    pub(crate) fn note_left(&self, key: &str, upload: Option<&str>) -> io::Result<()> {
        let text = format!("{key}\n{}", upload.unwrap_or_default());
        let name = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.as_bytes());
        write_whole(&self.dir.join(format!("{name:016x}.left")), text.as_bytes())?;
        self.noted.send_replace(());
        Ok(())
    }

    /// Notes that the library has a file: what lies beside it is of no use any more.
    pub(crate) fn note_settled(&self, key: &str) -> io::Result<()> {
        let name = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, key.as_bytes());
        write_whole(&self.dir.join(format!("{name:016x}.beside")), key.as_bytes())?;
        self.noted.send_replace(());
        Ok(())
    }

    /// What is noted of a place.
    fn noted(&self, kind: &str, place: &str) -> io::Result<Vec<(PathBuf, String)>> {
        let mut noted = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == kind) {
                let prefix = fs::read_to_string(&path)?;
                if place_of(&prefix) == place {
                    noted.push((path, prefix));
                }
            }
        }
        Ok(noted)
    }

    /// False where that is not known.
    pub(crate) fn is_empty(&self, place: &str) -> bool {
        let none = |kind| self.noted(kind, place).is_ok_and(|noted| noted.is_empty());
        none("left") && none("prefix") && none("beside")
    }

    /// Clears away what is noted of a place; gives the number of notes that are settled.
    pub(crate) async fn sweep(&self, place: &str, remote: &Remote) -> io::Result<usize> {
        let mut settled = 0;
        for (path, text) in self.noted("left", place)? {
            let (key, upload) = text.split_once('\n').unwrap_or_default();
            if remote.drop_left(key, upload).await {
                fs::remove_file(path)?;
                settled += 1;
            }
        }
        for (path, key) in self.noted("beside", place)? {
            if remote.settle(&key).await {
                fs::remove_file(path)?;
                settled += 1;
            }
        }
        for (path, prefix) in self.noted("prefix", place)? {
            if remote.clear(&prefix).await {
                fs::remove_file(path)?;
                settled += 1;
            }
        }
        Ok(settled)
    }

    /// Sweeps a place for ever, while there is something noted of it.
    pub(crate) async fn keep_sweeping(self, place: String, remote: Remote) {
        let mut news = self.noted.subscribe();
        loop {
            if let Err(error) = self.sweep(&place, &remote).await {
                warn!(dir = %self.dir.display(), %error, "abandoned uploads cannot be looked through");
            }
            // Whichever it is, the answer is to sweep.
            match self.is_empty(&place) {
                true => drop(news.changed().await),
                false => drop(tokio::time::timeout(AGAIN, news.changed()).await),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Limits;
    use shared::objects::Bucket;
    use shared::telemetry::WorkerMetrics;

    #[tokio::test]
    async fn what_is_noted_is_settled_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let notes = Abandoned::open(&dir.path().join("notes")).expect("opened");
        notes.note("d/a/s/r/e000001/mp4/").expect("noted");
        notes.note("d/a/s/r/e000001/mp4/").expect("noted again");
        notes.note("d/a/s/r/e000001/flv/").expect("noted");
        let limits = Limits {
            max_uploads: 1,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let remote = Remote::new(Bucket::in_memory(), limits, WorkerMetrics::default()).expect("threads");
        notes.note("@cold/d/a/s/r/e000001/flv/").expect("noted");
        assert_eq!(notes.sweep("", &remote).await.expect("swept"), 2);
        assert_eq!(notes.sweep("", &remote).await.expect("swept"), 0);
        assert_eq!(notes.sweep("cold", &remote).await.expect("swept"), 1);
    }
}
