//! Where a file's body goes: to a staged file within the step, or part by part to object storage between steps.

use journal::{Position, Reader};
use shared::recording::Gap;
use shared::template::Format;

use super::{FLUSH_BYTES, FileRecorder, Pen, WORTHWHILE_BYTES};
use crate::record::state::OpenFile;
use crate::record::{RecordError, Stepped};
use crate::upload::{HELD, Objects, Spool, Staged, Stored, Upload};

/// Where a body goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// To a staged file, as it is rendered.
    Local(Staged),
    /// Part by part to object storage.
    Remote(Spool),
}

impl Sink {
    /// Rendered bytes to gather before they are handed over.
    pub(super) fn wants(&self, open: &OpenFile) -> usize {
        match self {
            Self::Remote(spool) if open.upload.is_some() || open.body_len >= HELD => {
                usize::try_from(spool.room(open.body_len, open.parts())).unwrap_or(usize::MAX)
            }
            _ => FLUSH_BYTES,
        }
    }
}

/// Local files of a part, or of a whole file, that are in object storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    sequence: u32,
    /// Body parts that were stored then.
    parts: u32,
    whole: bool,
}

impl FileRecorder {
    /// The open file's sink, at the length the state tells of.
    pub(super) fn sink(&self, open: &OpenFile) -> Result<Sink, RecordError> {
        let what = self.stage_name(open.sequence);
        Ok(match &self.objects {
            Objects::Local(local) => {
                let staged = local.stage(&what).map_err(RecordError::store(what.clone()))?;
                staged.truncate(open.body_len).map_err(RecordError::store(what))?;
                Sink::Local(staged)
            }
            Objects::Remote(remote) => {
                let spool = Spool::new(&self.setting.notes, &what, remote.plan());
                spool
                    .resume(open.body_len, open.upload.as_ref())
                    .map_err(RecordError::store(what))?;
                Sink::Remote(spool)
            }
        })
    }

    /// New bytes in the journal that make a step worth its cost: in object storage those of a whole part, where most of the journal
    /// goes into the file.
    pub(super) fn worth(&self) -> u64 {
        let whole = matches!(self.setting.format, Format::Flv | Format::Mp4);
        match (&self.pen, &self.state.open) {
            (Some(pen), Some(open)) if whole => match &pen.sink {
                // Batches and tags have headers of their own.
                Sink::Remote(spool) => spool.room(open.body_len, open.parts()) / 32 * 33,
                Sink::Local(_) => WORTHWHILE_BYTES,
            },
            _ => WORTHWHILE_BYTES,
        }
    }

    /// Bytes that a step may have in memory.
    pub(in crate::record) fn weight(&self) -> u64 {
        let parts = self.state.open.as_ref().map_or(0, OpenFile::parts);
        match &self.objects {
            Objects::Local(_) => 0,
            Objects::Remote(remote) => remote.plan().part_len(parts) + HELD,
        }
    }

    /// Goes on after what the last step gave back is stored.
    pub(in crate::record) fn stored(&mut self, stored: Stored) -> Result<Stepped, RecordError> {
        let mut stepped = Stepped::default();
        match (stored, &self.pen, self.state.open.as_mut()) {
            (
                Stored::Part { upload, id },
                Some(Pen {
                    sink: Sink::Remote(spool),
                    ..
                }),
                Some(open),
            ) => {
                let second = self.objects.is_second();
                let state = open.upload.get_or_insert_with(|| Upload {
                    id: upload,
                    second,
                    ..Upload::default()
                });
                spool
                    .stored(state, &id)
                    .map_err(RecordError::store(open.file_id.clone()))?;
                self.kept.push_back(Kept {
                    sequence: open.sequence,
                    parts: state.parts,
                    whole: false,
                });
            }
            _ => {
                if let Some(file) = self.ending.take() {
                    self.setting.note(&file)?;
                    if let Some(open) = self.state.open.take() {
                        self.kept.push_back(Kept {
                            sequence: open.sequence,
                            parts: open.parts(),
                            whole: true,
                        });
                    }
                    self.pen = None;
                    stepped.files.push(file);
                }
            }
        }
        stepped.retired = self.save()?;
        Ok(stepped)
    }

    /// The key of the file that is open or comes next, and the id of its upload where that is known.
    pub(in crate::record) fn upload(&self) -> (String, Option<String>) {
        let open = self.state.open.as_ref();
        let sequence = open.map_or(self.state.next_sequence, |open| open.sequence);
        let upload = open.and_then(|open| open.upload.as_ref());
        (self.setting.file_key(sequence), upload.map(|upload| upload.id.clone()))
    }

    /// True where nothing of the open file would be lost if it went to another place.
    pub(in crate::record) fn can_leave(&self) -> bool {
        let open = self.state.open.as_ref().filter(|open| open.upload.is_some());
        open.is_none_or(|open| Reader::open(&self.setting.journal, Position(open.from), Vec::new()).is_ok())
    }

    /// True between two files.
    pub(in crate::record) fn is_between(&self) -> bool {
        self.state.open.is_none() && self.store.is_none()
    }

    /// Goes on without an upload that is in the other place: the note of where this recorder is was safe before its state was.
    pub(super) fn forget_elsewhere(&mut self) -> Result<(), RecordError> {
        let second = self.objects.is_second();
        let upload = self.state.open.as_ref().and_then(|open| open.upload.as_ref());
        match upload.is_some_and(|upload| upload.second != second) {
            true => self.lose_upload(),
            false => Ok(()),
        }
    }

    /// Goes on without the parts that were stored.
    pub(in crate::record) fn lose_upload(&mut self) -> Result<(), RecordError> {
        let Some(open) = self.state.open.take_if(|open| open.upload.is_some()) else {
            return Ok(());
        };
        self.pen = None;
        if Reader::open(&self.setting.journal, Position(open.from), Vec::new()).is_ok() {
            // What was left out since is left out again.
            self.state.gaps.retain(|gap| gap.to_ms < open.counts.start_ms());
            self.state.cursor = open.from;
            self.state.next_sequence = open.sequence;
            self.state.seen_key = open.seen_key_before;
            self.state.video_config = open.video_config;
            self.state.audio_config = open.audio_config;
            self.state.metadata = open.metadata;
            self.keeper.rewind(&self.state);
        } else {
            self.kept.push_back(Kept {
                sequence: open.sequence,
                parts: open.parts(),
                whole: true,
            });
            self.state.push_gap(Gap {
                reason: "upload_lost".to_owned(),
                from_ms: open.counts.start_ms(),
                to_ms: open.counts.end_ms(),
                units: open.counts.video + open.counts.audio,
            });
            // The next file begins in the middle of what the lost one showed: at the next picture that can be decoded alone.
            self.state.seen_key = false;
        }
        self.save().map(drop)
    }

    /// Saves the state, and removes local files that no state on disk needs any more.
    pub(super) fn save(&mut self) -> Result<u64, RecordError> {
        let mut retired = self.keeper.save(&self.state)?;
        let Objects::Remote(remote) = &self.objects else {
            return Ok(retired);
        };
        let safe = self.keeper.safe();
        // Until a file is whole it may have to be begun anew in the second place.
        if remote.keeps_journal() {
            let begun = [&self.state, safe].into_iter().filter_map(|state| state.open.as_ref());
            retired = begun.map(|open| open.from).fold(retired, u64::min);
        }
        let reached = match &safe.open {
            Some(open) => (open.sequence, open.parts()),
            None => (safe.next_sequence, 0),
        };
        let unneeded =
            |kept: &mut Kept| kept.sequence < reached.0 || !kept.whole && (kept.sequence, kept.parts) <= reached;
        while let Some(kept) = self.kept.pop_front_if(unneeded) {
            let what = self.stage_name(kept.sequence);
            let spool = Spool::new(&self.setting.notes, &what, remote.plan());
            let gone = if kept.whole {
                spool.forget(kept.parts)
            } else {
                spool.forget_part(kept.parts - 1)
            };
            gone.map_err(RecordError::store(what))?;
        }
        Ok(retired)
    }
}
