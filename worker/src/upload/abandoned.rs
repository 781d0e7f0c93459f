//! Multipart uploads that this worker began and that nobody will complete: noted on disk, aborted when storage lets it.
//!
//! A recorder's upload is in its state, and whoever opens that state completes or aborts it. Where the state goes for good, with an upload
//! in it, the prefix it lies under is noted here first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::warn;

use super::remote::Remote;
use super::spool::write_whole;

/// How often what is noted is tried again; while storage does not answer, rarer.
const AGAIN: Duration = Duration::from_secs(5);

/// The notes.
#[derive(Debug, Clone)]
pub(crate) struct Abandoned {
    dir: PathBuf,
    noted: Arc<Notify>,
}

impl Abandoned {
    /// Opens the directory of notes, making it if need be.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            noted: Arc::default(),
        })
    }

    /// Notes that no upload below `prefix` will be completed.
    pub(crate) fn note(&self, prefix: &str) -> io::Result<()> {
        let name = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, prefix.as_bytes());
        write_whole(&self.dir.join(format!("{name:016x}.prefix")), prefix.as_bytes())?;
        self.noted.notify_one();
        Ok(())
    }

    /// Notes that the first of two places is left: what was begun there under this key or below it, of which the id of one may be known, and
    /// what lies beside a file.
    pub(crate) fn note_left(&self, key: &str, upload: Option<&str>) -> io::Result<()> {
        let text = format!("{key}\n{}", upload.unwrap_or_default());
        let name = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.as_bytes());
        write_whole(&self.dir.join(format!("{name:016x}.left")), text.as_bytes())?;
        self.noted.notify_one();
        Ok(())
    }

    fn noted(&self, kind: &str) -> io::Result<Vec<(PathBuf, String)>> {
        let mut noted = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == kind) {
                let prefix = fs::read_to_string(&path)?;
                noted.push((path, prefix));
            }
        }
        Ok(noted)
    }

    /// False where that is not known.
    fn is_empty(&self) -> bool {
        let none = |kind| self.noted(kind).is_ok_and(|noted| noted.is_empty());
        none("left") && none("prefix")
    }

    /// Aborts what is noted; gives the number of notes that are settled.
    pub(crate) async fn sweep(&self, remote: &Remote) -> io::Result<usize> {
        let mut settled = 0;
        for (path, text) in self.noted("left")? {
            let (key, upload) = text.split_once('\n').unwrap_or_default();
            if remote.drop_left(key, upload).await {
                fs::remove_file(path)?;
                settled += 1;
            }
        }
        for (path, prefix) in self.noted("prefix")? {
            if remote.clear(&prefix).await {
                fs::remove_file(path)?;
                settled += 1;
            }
        }
        Ok(settled)
    }

    /// Sweeps for ever, while there is something noted.
    pub(crate) async fn keep_sweeping(self, remote: Remote) {
        loop {
            if let Err(error) = self.sweep(&remote).await {
                warn!(dir = %self.dir.display(), %error, "abandoned uploads cannot be looked through");
            }
            // Whichever it is, the answer is to sweep.
            match self.is_empty() {
                true => self.noted.notified().await,
                false => drop(tokio::time::timeout(AGAIN, self.noted.notified()).await),
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
        assert_eq!(notes.sweep(&remote).await.expect("swept"), 2);
        assert_eq!(notes.sweep(&remote).await.expect("swept"), 0);
    }
}
