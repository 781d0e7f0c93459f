//! [`Sites`]: the places that this worker knows, and the one that a key lies in.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use shared::objects::Places;
use shared::telemetry::{PlaceLabel, WorkerMetrics};
use tracing::error;

use super::{Growing, Objects, Remote, Stretch};

/// Where objects go, by their keys. Clones share everything.
///
/// A place that the settings do not have is one that never answers: recordings wait for it in their journals, as they would for one that is away,
/// and the next start with that place in its settings stores them.
#[derive(Debug, Clone)]
pub struct Sites {
    places: Places<Objects>,
    nowhere: Remote,
    /// Places that were asked for and are not there.
    missed: Arc<Mutex<BTreeSet<String>>>,
    metrics: WorkerMetrics,
}

impl Sites {
    /// Of these places.
    ///
    /// # Errors
    /// Where nothing can be run at all.
    pub(crate) fn new(places: Places<Objects>, metrics: WorkerMetrics) -> io::Result<Self> {
        Ok(Self {
            places,
            nowhere: Remote::nowhere(metrics.clone())?,
            missed: Arc::default(),
            metrics,
        })
    }

    /// The place that a key lies in.
    pub(crate) fn of(&self, key: &str) -> Objects {
        self.places.of(key).cloned().unwrap_or_else(|unknown| {
            let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            // Once: nothing takes it back but a start.
            if missed.insert(unknown.0.clone()) {
                gauge(&self.metrics, &unknown.0).set(0);
                error!(key, "recordings wait in their journals: {unknown}");
            }
            Objects::Remote(self.nowhere.clone())
        })
    }

    /// Buckets by the names of their places.
    pub(crate) fn buckets(&self) -> Vec<(String, Remote)> {
        let bucket = |(name, objects): (&str, &Objects)| match objects {
            Objects::Remote(remote) => Some((name.to_owned(), remote.clone())),
            Objects::Local(_) => None,
        };
        self.places.iter().filter_map(bucket).collect()
    }

    /// As of [`Objects::read`].
    ///
    /// # Errors
    /// Where the disk does not give it.
    pub(crate) async fn read(&self, key: &str, from: u64, len: u64) -> io::Result<Option<Stretch>> {
        self.of(key).read(key, from, len).await
    }

    /// As of [`Objects::abandon`].
    ///
    /// # Errors
    /// Where the uploads' threads have ended.
    pub(crate) async fn abandon(&self, prefix: &str) -> io::Result<()> {
        self.of(prefix).abandon(prefix).await
    }

    /// As of [`Objects::grow`], for media of this storage class.
    ///
    /// # Errors
    /// Where the disk refuses it, or the upload is gone.
    pub(crate) async fn grow(&self, name: String, key: String, class: Option<&str>) -> io::Result<Growing> {
        self.of(&key).with_class(class).grow(name, key).await
    }
}

/// Names a place for those who ask whether it answers.
pub(crate) fn gauge(metrics: &WorkerMetrics, name: &str) -> shared::telemetry::Gauge {
    let label = PlaceLabel { place: name.to_owned() };
    metrics.place_up.get_or_create(&label).clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::upload::Local;

    #[tokio::test]
    async fn each_key_goes_to_its_place_and_one_of_no_place_waits() {
        let dir = tempfile::tempdir().expect("a directory");
        let local = |name: &str| Objects::Local(Local::open(&dir.path().join(name)).expect("opened"));
        let named = BTreeMap::from([("cold".to_owned(), local("second"))]);
        let metrics = WorkerMetrics::default();
        let sites = Sites::new(Places::new(local("first"), named), metrics.clone()).expect("opened");
        for key in ["d/a/s/r/recording.json", "@cold/d/a/s/r/recording.json"] {
            sites.of(key).put(key, key.into()).await.expect("stored");
            let read = sites.read(key, 0, 99).await.expect("read").expect("there");
            assert_eq!(read.bytes, key.as_bytes());
        }
        assert!(dir.path().join("first/d/a/s/r/recording.json").exists());
        assert!(dir.path().join("second/@cold/d/a/s/r/recording.json").exists());
        assert!(!dir.path().join("first/@cold").exists());

        let key = "@warm/d/a/s/r/recording.json";
        let nowhere = sites.of(key);
        let waits = tokio::time::timeout(Duration::from_millis(50), nowhere.put(key, Vec::new()));
        waits.await.expect_err("nobody takes it");
        assert_eq!(gauge(&metrics, "warm").get(), 0);
        assert!(!dir.path().join("first/@warm").exists());
    }
}
