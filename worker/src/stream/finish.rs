//! Finishes a recording whose stream did not come back: its last running index becomes the final playlist, and enters the library.
//!
//! Any worker that can read what is stored may be told to, and may be told again after a crash: every step may be repeated.

mod left;
mod mp4;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::tz::TimeZone;
use media::hls;
use shared::ids::FileId;
use shared::lease::FinishJob;
use shared::recording::{Context, FinishedFile, Gap, MediaFile, RecordingDocument, RecordingState, join_gaps};
use shared::telemetry::{FormatLabel, WorkerMetrics};
use shared::template::Format;
use shared::time::{Clock, Timestamp};
use shared::trace::{Past, Place};
use tracing::{error, info};

use super::core::RECORDER_FAILED;
use super::document::{self, Documents};
use crate::control::agent::Agent;
use crate::record::crc;
use crate::record::index::{self, LOST, Totals};
use crate::upload::Shelf;
use left::Folder;
pub(crate) use mp4::{Composer, Order};

/// The name of a gap: the index of the last publish is not where it should be, or not all of it is there.
const MISSING: &str = "index_missing";

/// What finishing needs.
#[derive(Clone)]
pub(crate) struct Finisher {
    pub(crate) agent: Agent,
    pub(crate) shelf: Arc<dyn Shelf>,
    pub(crate) documents: Documents,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) zone: TimeZone,
    /// Makes MP4 of all pushes; none: there is no media here.
    pub(crate) composer: Option<Composer>,
    pub(crate) metrics: WorkerMetrics,
}

impl Finisher {
    /// Finishes one recording. A failure is logged; the coordinator says it again.
    pub(crate) async fn run(&self, job: FinishJob) {
        let recording = job.recording;
        let begin = self.clock.now();
        let finished = self.finish(&job).await;
        let shown = Past::between("finish", begin, self.clock.now()).with("aircheck.stream", job.stream.to_string());
        Place::publish(recording, job.epoch).show(match &finished {
            Ok(_) => shown,
            Err(error) => shown.failed(error.to_string()),
        });
        match finished {
            Ok(files) => {
                info!(%recording, stream = %job.stream, files, "recording finished, its stream did not come back")
            }
            Err(error) => error!(%recording, %error, "recording not finished yet"),
        }
    }

    async fn finish(&self, job: &FinishJob) -> std::io::Result<usize> {
        let root = job.folder();
        let folder = Folder {
            shelf: self.shelf.as_ref(),
            root: &root,
        };
        let left = folder.list(&job.before, job.lost).await?;
        let stored = document::stored(self.shelf.as_ref(), &format!("{root}/recording.json")).await?;
        let library = self.agent.library(job.recording).await;
        let entered: BTreeSet<FileId> = library.iter().flat_map(|l| &l.files).map(|file| file.id).collect();
        let known = known(stored, library);

        let ended = self.clock.now();
        let mut files = known
            .as_ref()
            .map(|document| document.files.clone())
            .unwrap_or_default();
        let mut gaps = known.as_ref().map(|d| d.recording.gaps.clone()).unwrap_or_default();
        let missing = missing(job, left.is_all, &gaps);
        let mut totals = Totals::default();
        let list = left.index.map(|(epoch, index)| {
            totals = index.totals.clone();
            index.ended(epoch)
        });
        if let Some(reason) = missing {
            totals.gap_at_end(reason);
        }
        join_gaps(&mut gaps, &totals.gaps);
        if let Some(text) = list.filter(|_| totals.segments > 0) {
            let playlist = self.playlist(job, &root, &totals, &text);
            self.shelf.put(&playlist.object_key, text.clone().into_bytes()).await?;
            let mut made = self.stitched(job, &root, &totals, (&text, &files)).await?;
            made.push(playlist);
            files.retain(|known| made.iter().all(|file| file.id != known.id));
            files.append(&mut made);
        }
        let (state, reason) = outcome(job, &gaps);
        if let Some(mut document) = known {
            document.recording.state = state;
            document.recording.reason.clone_from(&reason);
            document.recording.epoch = job.epoch;
            document.recording.ended = Some(ended);
            document.recording.gaps.clone_from(&gaps);
            let document = RecordingDocument::new(document.recording, files.clone());
            self.documents.put(self.shelf.as_ref(), document).await?;
        }
        self.shelf.durable().await;
        // What an earlier finisher entered may lie elsewhere now.
        let is_new = |file: &&MediaFile| file.epoch == job.epoch || !entered.contains(&file.id);
        for file in files.iter().filter(is_new) {
            self.agent.commit_file(job.recording, job.epoch, file).await;
        }
        let end = (state, reason, ended.as_millis());
        self.agent
            .commit_recording(job.recording, job.epoch, end, &gaps, 0)
            .await;
        self.count(&totals);
        Ok(files.len())
    }

    /// Publishes count what enters the library with each of them; the list of all is counted once it is final.
    fn count(&self, totals: &Totals) {
        self.metrics.lost.count(&totals.gaps);
        let hls = FormatLabel {
            format: Format::Hls.as_str(),
        };
        let units = totals.video_units + totals.audio_units;
        self.metrics.units_recorded.get_or_create(&hls).inc_by(units);
    }

    /// The MP4 of all pushes, where the template has one. One that an earlier finisher wrote down is in the library, or may be: it stays.
    async fn stitched(
        &self,
        job: &FinishJob,
        root: &str,
        totals: &Totals,
        (text, written): (&str, &[MediaFile]),
    ) -> std::io::Result<Vec<MediaFile>> {
        let Some(stitch) = job.template.mp4_stitch() else {
            return Ok(Vec::new());
        };
        let composer = self.composer.as_ref();
        let composer = composer.ok_or_else(|| std::io::Error::other("there is nothing here to compose an MP4 of"))?;
        let list = hls::MediaPlaylist::parse(text).map_err(std::io::Error::other)?;
        let order = Order {
            recording: job.recording,
            root,
            epoch: job.epoch,
            behind: job.before.first().copied().unwrap_or_default(),
            stitch,
            storage_class: job.template.storage_class(Format::Mp4),
            segments: &list.segments,
            gaps: &totals.gaps,
            start_ms: totals.start_ms.unwrap_or_default(),
        };
        let known = composer.written(&order, written).await?;
        if !known.is_empty() {
            return Ok(known);
        }
        let files = composer.compose(&order).await?;
        Ok(files.iter().map(|file| file.record(self.about(job))).collect())
    }

    fn about<'a>(&'a self, job: &'a FinishJob) -> Context<'a> {
        Context {
            recording: job.recording,
            stream: &job.stream,
            template: &job.template,
            epoch: job.epoch,
            zone: &self.zone,
        }
    }

    /// The library's record of the final playlist.
    fn playlist(&self, job: &FinishJob, root: &str, totals: &Totals, text: &str) -> MediaFile {
        let file = FinishedFile {
            file_id: "stitched-hls".to_owned(),
            format: Format::Hls,
            sequence: 0,
            key: index::key(root, job.epoch),
            size: totals.bytes.saturating_add(text.len() as u64),
            checksum: crc::text(crc::of(text.as_bytes())),
            duration_ms: totals.duration_ms,
            start_ms: totals.start_ms.unwrap_or_default(),
            video_units: totals.video_units,
            audio_units: totals.audio_units,
            gaps: totals.gaps.clone(),
        };
        file.record(self.about(job))
    }
}

/// What is known of a recording: the document in storage, and from the library what that lacks. Publishes wrote it, perhaps two of them at a
/// time from two workers, so that one left out what the other had written; what is in the library is there whoever came last.
fn known(stored: Option<RecordingDocument>, library: Option<RecordingDocument>) -> Option<RecordingDocument> {
    let library = library.map(|mut library| {
        for file in &mut library.files {
            // As a publish writes it: when it is removed, and what is copied, is the library's alone to say.
            (file.committed, file.expires, file.copied) = (Timestamp::default(), None, None);
            file.locked = false;
        }
        library.recording.locked = false;
        library
    });
    match (stored, library) {
        (Some(stored), Some(mut library)) => {
            library.recording.epoch = stored.recording.epoch;
            Some(document::merged(library, stored))
        }
        (stored, library) => stored.or(library),
    }
}

/// The name of the gap at the list's end, where it is not known to hold everything. What a recorder gave up its recording says already.
fn missing(job: &FinishJob, is_all: bool, said: &[Gap]) -> Option<&'static str> {
    let gave_up = format!("{}_{RECORDER_FAILED}", Format::Hls.as_str());
    match is_all {
        _ if job.lost => Some(LOST),
        false if said.iter().all(|gap| gap.reason != gave_up) => Some(MISSING),
        _ => None,
    }
}

/// How the recording ends.
fn outcome(job: &FinishJob, gaps: &[Gap]) -> (RecordingState, String) {
    let failed = |gap: &&Gap| gap.reason.ends_with(RECORDER_FAILED);
    match gaps.iter().find(failed) {
        Some(gap) => (
            RecordingState::Failed,
            format!("{} in one of its publishes", gap.reason),
        ),
        None => (RecordingState::Finished, job.reason.clone()),
    }
}

#[cfg(test)]
#[path = "finish_tests.rs"]
pub(super) mod tests;
