//! A file that is whole in storage while the library does not answer: it is vouched for there, so that it is in the library in the end though
//! this machine be lost meanwhile.

use std::time::Duration;

use tracing::warn;

use super::fenced;
use crate::control::agent::Verdict;
use crate::record::FinishedFile;
use crate::upload::Shelf;

/// The library has so long; then the file is vouched for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until the library has the file, and vouches for it when that takes its time. `is_old`: an earlier life of this worker may have.
pub(super) async fn until_entered(
    commit: impl Future<Output = Verdict>,
    shelf: &dyn Shelf,
    (file, zone): (&FinishedFile, &str),
    is_old: bool,
) -> Verdict {
    let mut vouched = is_old;
    let vouch = async {
        tokio::time::sleep(PATIENCE).await;
        vouched = true;
        if let Err(error) = shelf.vouch(file, zone).await {
            warn!(key = file.key, %error, "a whole file that the library does not have cannot be vouched for");
        }
        std::future::pending().await
    };
    let verdict = tokio::select! {
        biased;
        verdict = commit => verdict,
        never = vouch => never,
    };
    // What lies beside the files of recordings that were given up is of use to whoever completes them.
    if fenced::reason(verdict.clone()).is_none() {
        shelf.settle(file, vouched);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use shared::objects::ObjectError;
    use shared::template::Format;

    use super::*;
    use crate::upload::Found;

    #[derive(Default)]
    struct Noting(Mutex<Vec<String>>);

    impl Noting {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }
    }

    #[async_trait]
    impl Shelf for Noting {
        async fn each(&self, _: &str) -> io::Result<Found> {
            Ok(Found::default())
        }

        async fn put(&self, _: &str, _: Vec<u8>) -> io::Result<()> {
            Ok(())
        }

        async fn vouch(&self, file: &FinishedFile, zone: &str) -> Result<(), ObjectError> {
            self.note(format!("vouched for {} of {zone}", file.key));
            Ok(())
        }

        fn settle(&self, file: &FinishedFile, vouched: bool) {
            self.note(format!("settled {}, {vouched}", file.key));
        }

        async fn durable(&self) {}
    }

    async fn noted(after_ms: u64, verdict: Verdict, is_old: bool) -> Vec<String> {
        let file = FinishedFile {
            file_id: "f".to_owned(),
            format: Format::Flv,
            sequence: 0,
            key: "k".to_owned(),
            size: 1,
            checksum: String::new(),
            duration_ms: 1,
            start_ms: 1,
            video_units: 1,
            audio_units: 1,
            gaps: vec![],
        };
        let shelf = Noting::default();
        let commit = async {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            verdict
        };
        until_entered(commit, &shelf, (&file, "UTC"), is_old).await;
        shelf.0.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_vouched_for_while_the_library_does_not_answer() {
        assert_eq!(noted(1_900, Verdict::Done, false).await, ["settled k, false"]);
        assert_eq!(
            noted(60_000, Verdict::Done, false).await,
            ["vouched for k of UTC", "settled k, true"]
        );
        assert_eq!(
            noted(10, Verdict::Done, true).await,
            ["settled k, true"],
            "by an earlier life"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_beside_files_of_others_is_left_to_them() {
        let lost = || Verdict::Lost("fenced".to_owned());
        assert_eq!(noted(60_000, lost(), false).await, ["vouched for k of UTC"]);
        assert!(noted(10, lost(), true).await.is_empty());
    }
}
