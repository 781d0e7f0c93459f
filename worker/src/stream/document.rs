//! Library records of finished files and the `recording.json` beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::tz::TimeZone;
use journal::Publish;
use shared::ids::{FileId, PublishId, RecordingId, StreamKey, WorkerId};
use shared::lease::{Epoch, GrantedRecording};
use shared::recording::{Context, Gap, MediaFile, Recording, RecordingDocument, RecordingState, join_gaps};
use shared::time::Timestamp;

use tracing::warn;

use crate::record::FinishedFile;
use crate::upload::Shelf;

/// What all records of one publish have in common.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) publish: Publish,
    pub(crate) publish_id: PublishId,
    pub(crate) stream: StreamKey,
    pub(crate) worker: WorkerId,
    pub(crate) epoch: Epoch,
    pub(crate) zone: TimeZone,
}

impl About {
    /// The library's record of a finished file.
    pub(crate) fn media_file(&self, recording: &GrantedRecording, file: &FinishedFile) -> MediaFile {
        file.record(Context {
            recording: recording.id,
            stream: &self.stream,
            template: &recording.template,
            epoch: self.epoch,
            zone: &self.zone,
        })
    }

    /// What `recording.json` says now; `left_out` are gaps that no file tells of.
    pub(crate) fn document(
        &self,
        granted: &GrantedRecording,
        files: &[FinishedFile],
        (state, reason, ended): (RecordingState, String, Option<Timestamp>),
        left_out: &[Gap],
    ) -> RecordingDocument {
        let gaps: Vec<Gap> = files
            .iter()
            .flat_map(|f| f.gaps.iter())
            .chain(left_out)
            .cloned()
            .collect();
        let recording = Recording {
            id: granted.id,
            stream: self.stream.clone(),
            cause: granted.cause.clone(),
            state,
            reason,
            epoch: self.epoch,
            template: granted.template.as_ref().clone(),
            template_id: None,
            publishes: vec![self.publish_id],
            worker: self.worker,
            params: self.publish.params.clone(),
            started: granted
                .window
                .from
                .unwrap_or_default()
                .max(Timestamp::from_millis(self.publish.started_ms)),
            ended,
            gaps,
            locked: false,
        };
        let files = files.iter().map(|f| self.media_file(granted, f)).collect();
        RecordingDocument::new(recording, files)
    }
}

/// Two versions of one recording's document, from two of its publishes: the later owner says how it stands, and nothing that either
/// has is left out.
pub(crate) fn merged(stored: RecordingDocument, ours: RecordingDocument) -> RecordingDocument {
    let later = ours.recording.epoch >= stored.recording.epoch;
    let (mut newer, older) = if later { (ours, stored) } else { (stored, ours) };
    let mut publishes = older.recording.publishes;
    publishes.extend(newer.recording.publishes);
    // Their ids sort by time.
    publishes.sort_unstable();
    publishes.dedup();
    newer.recording.publishes = publishes;
    newer.recording.started = newer.recording.started.min(older.recording.started);
    join_gaps(&mut newer.recording.gaps, &older.recording.gaps);
    let known: BTreeSet<FileId> = newer.files.iter().map(|file| file.id).collect();
    newer
        .files
        .extend(older.files.into_iter().filter(|file| !known.contains(&file.id)));
    RecordingDocument::new(newer.recording, newer.files)
}

/// The document that lies under a key, of several places' that of all; none: there is none that can be read.
pub(crate) async fn stored(objects: &dyn Shelf, key: &str) -> std::io::Result<Option<RecordingDocument>> {
    let mut all = None;
    for bytes in objects.each(key).await?.versions {
        match RecordingDocument::from_json(&bytes) {
            Ok(one) => {
                all = Some(match all {
                    Some(other) => merged(other, one),
                    None => one,
                });
            }
            Err(error) => warn!(key, %error, "the stored recording.json cannot be read"),
        }
    }
    Ok(all)
}

/// Writes documents. Those of one recording one after another: two of its publishes on one worker may have something to say at a time, and what
/// each reads must be what the other wrote. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Documents(Arc<Mutex<BTreeMap<RecordingId, Weak<Turn>>>>);

type Turn = tokio::sync::Mutex<()>;

impl Documents {
    /// Puts a recording's document in storage; one that goes on across publishes is merged with what is there.
    pub(crate) async fn put(&self, objects: &dyn Shelf, document: RecordingDocument) -> std::io::Result<()> {
        let mut document = document;
        let key = key(&document.recording);
        let turn = self.turn(document.recording.id);
        let _turn = turn.lock().await;
        if document.recording.is_stitched()
            && let Some(stored) = stored(objects, &key).await?
        {
            document = merged(stored, document);
        }
        let json = document.to_json().map_err(std::io::Error::other)?;
        objects.put(&key, json).await
    }

    /// As many are remembered as are being written, and no more than were when one began last.
    fn turn(&self, recording: RecordingId) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(&recording).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(recording, Arc::downgrade(&turn));
            turn
        })
    }
}

/// Where a recording's document lies.
fn key(recording: &Recording) -> String {
    format!("{}/recording.json", recording.folder())
}

/// Records of finished files that recorders left beside their state.
pub(crate) fn noted_files(notes: &Path, recording: RecordingId) -> std::io::Result<Vec<FinishedFile>> {
    let prefix = format!("{recording}-");
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(notes) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let path = entry?.path();
        let ours = path
            .file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|n| n.starts_with(&prefix) && n.ends_with(".json"));
        if ours {
            match serde_json::from_slice::<FinishedFile>(&std::fs::read(&path)?) {
                Ok(file) => files.push(file),
                // Power was lost before its bytes were safe, and so before its recorder's state said that the file is finished.
                Err(error) => {
                    warn!(path = %path.display(), %error, "not a record of a finished file; its recorder writes it again")
                }
            }
        }
    }
    files.sort_by_key(|f: &FinishedFile| (f.format, f.sequence));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::ids::Random;
    use shared::objects::Faulty;
    use shared::telemetry::WorkerMetrics;
    use tokio::runtime::Handle;

    use super::*;
    use crate::stream::finish::tests::{Small, document_of};
    use crate::upload::{Limits, Objects, Remote};

    #[tokio::test(start_paused = true)]
    async fn two_publishes_that_write_at_a_time_leave_nothing_of_each_other_out() {
        let limits = Limits {
            max_uploads: 4,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let storage = Faulty::default();
        let bucket = storage.bucket(Duration::from_secs(30));
        let shelf = Small(Objects::Remote(Remote::on(
            Handle::current(),
            bucket,
            limits,
            WorkerMetrics::default(),
        )));
        let documents = Documents::default();
        let recording = RecordingId::generate(&Random, Timestamp::default());
        let of = |epoch, gap| document_of(recording, epoch, gap, &[&format!("flv-{epoch}")]);
        for _ in 0..3 {
            let (one, other, third) = tokio::join!(
                documents.put(&shelf, of(1, "a")),
                documents.put(&shelf, of(2, "b")),
                documents.put(&shelf, of(3, "c")),
            );
            one.and(other).and(third).expect("written");
            let found = stored(&shelf, &key(&of(1, "a").recording))
                .await
                .expect("read")
                .expect("there");
            let epochs: Vec<u64> = found.files.iter().map(|file| file.epoch.get()).collect();
            assert_eq!(epochs, [1, 2, 3]);
            assert_eq!((found.recording.gaps.len(), found.recording.epoch), (3, Epoch::new(3)));
            storage
                .bucket(Duration::from_secs(30))
                .delete(&key(&found.recording))
                .await
                .expect("removed");
        }
    }

    #[tokio::test]
    async fn recordings_that_are_written_no_more_are_forgotten() {
        let documents = Documents::default();
        let ids: Vec<_> = (0..100)
            .map(|_| RecordingId::generate(&Random, Timestamp::default()))
            .collect();
        let held: Vec<_> = ids.iter().map(|id| documents.turn(*id)).collect();
        assert!(Arc::ptr_eq(&held[7], &documents.turn(ids[7])));
        drop(held);
        documents.turn(ids[0]);
        assert_eq!(documents.0.lock().expect("no panic").len(), 1);
    }
}
