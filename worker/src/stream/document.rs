//! Library records of finished files and the `recording.json` beside them.

use std::collections::BTreeSet;
use std::path::Path;

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

/// Puts a recording's document in storage; one that goes on across publishes is merged with what is there.
pub(crate) async fn put(objects: &dyn Shelf, key: &str, document: RecordingDocument) -> std::io::Result<()> {
    let mut document = document;
    if document.recording.is_stitched()
        && let Some(stored) = stored(objects, key).await?
    {
        document = merged(stored, document);
    }
    let json = document.to_json().map_err(std::io::Error::other)?;
    objects.put(key, json).await
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
