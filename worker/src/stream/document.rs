//! Library records of finished files and the `recording.json` beside them.

use std::path::Path;

use jiff::tz::TimeZone;
use journal::Publish;
use shared::ids::{FileId, PublishId, RecordingId, StreamKey, WorkerId};
use shared::lease::{Epoch, GrantedRecording};
use shared::recording::{Gap, MediaFile, Recording, RecordingDocument, RecordingState};
use shared::template::FileNameFields;
use shared::time::Timestamp;

use crate::record::FinishedFile;

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
        let start = Timestamp::from_millis(file.start_ms);
        let end = Timestamp::from_millis(file.start_ms + file.duration_ms);
        let fields = FileNameFields {
            stream: self.stream.stream(),
            start,
            end,
        };
        let settings = recording.template.formats.get(&file.format);
        let stem = settings.map_or_else(|| file.file_id.clone(), |s| s.file_name.render(&fields, &self.zone));
        MediaFile {
            id: FileId::from_uuid(uuid::Uuid::new_v5(&recording.id.as_uuid(), file.file_id.as_bytes())),
            recording: recording.id,
            stream: self.stream.clone(),
            format: file.format,
            sequence: file.sequence,
            name: format!("{stem}.{}", file.format.extension()),
            object_key: file.key.clone(),
            size: file.size,
            duration_ms: u64::try_from(file.duration_ms).unwrap_or(0),
            start,
            end,
            checksum: file.checksum.clone(),
            video_units: file.video_units,
            audio_units: file.audio_units,
            gaps: file.gaps.clone(),
            epoch: self.epoch,
            committed: Timestamp::default(),
        }
    }

    /// What `recording.json` says now; `left_out` are gaps that no file tells of.
    pub(crate) fn document(
        &self,
        granted: &GrantedRecording,
        notes: &Path,
        (state, reason, ended): (RecordingState, String, Option<Timestamp>),
        left_out: &[Gap],
    ) -> std::io::Result<RecordingDocument> {
        let files = noted_files(notes, granted.id)?;
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
            template: granted.template.clone(),
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
        };
        let files = files.iter().map(|f| self.media_file(granted, f)).collect();
        Ok(RecordingDocument::new(recording, files))
    }
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
            files.push(serde_json::from_slice::<FinishedFile>(&std::fs::read(&path)?)?);
        }
    }
    files.sort_by_key(|f: &FinishedFile| (f.format, f.sequence));
    Ok(files)
}
