//! [`Place`]: in which of two places of objects a recorder is, when it leaves the first, and when it comes back.

use std::sync::Arc;

use journal::GroupSync;
use tracing::{info, warn};

use super::actor::Parts;
use super::{RecordError, Recorder, Setting};
use crate::upload::abandoned::Abandoned;
use crate::upload::{Mark, Objects};

/// Where a recorder is.
#[derive(Debug)]
pub(super) struct Place {
    mark: Mark,
    in_second: bool,
    /// It asked to leave, and would lose something: it does not ask again before its next file.
    stays: bool,
}

/// What leaving needs; it reads and writes the disk.
pub(super) struct Leaving {
    setting: Setting,
    objects: Objects,
    sync: Arc<GroupSync>,
    abandoned: Abandoned,
    mark: Mark,
}

impl Place {
    pub(super) fn new(parts: &Parts) -> Self {
        let mark = parts.setting.mark();
        Self {
            in_second: second(&parts.objects).is_some() && mark.is_set(),
            mark,
            stays: false,
        }
    }

    pub(super) fn objects(&self, parts: &Parts) -> Objects {
        match self.in_second {
            true => second(&parts.objects).unwrap_or_else(|| parts.objects.clone()),
            false => parts.objects.clone(),
        }
    }

    pub(super) fn may_leave(&self) -> bool {
        !self.in_second && !self.stays
    }

    pub(super) fn leaving(&self, parts: &Parts) -> Leaving {
        Leaving {
            setting: Setting::clone(&parts.setting),
            objects: parts.objects.clone(),
            sync: Arc::clone(&parts.sync),
            abandoned: parts.abandoned.clone(),
            mark: self.mark.clone(),
        }
    }

    /// Goes to the second place, or stays with the recorder that cannot leave.
    pub(super) fn left(&mut self, stays: Option<Recorder>, parts: &Parts) -> Option<Recorder> {
        let (recording, format) = (&parts.setting.recording_id, parts.setting.format.as_str());
        self.stays = stays.is_some();
        self.in_second = !self.stays;
        if self.in_second {
            info!(%recording, format, "goes to the second place of objects, the first does not answer");
            parts.metrics.backup_moves.inc();
            if let Objects::Remote(first) = &parts.objects {
                first.left(&format!("{}/", parts.setting.prefix));
            }
        } else {
            warn!(%recording, format, "waits for the first place: parts of its file are there, and the journal has no longer what is in them");
        }
        stays
    }

    /// What a recorder that has done a step goes on as: between two files one in the second place goes back to a first that answers.
    pub(super) fn back(&mut self, recorder: Recorder, stored: bool, parts: &Parts) -> Option<Recorder> {
        let between = stored && recorder.can_return();
        self.stays &= !between;
        let answers = matches!(&parts.objects, Objects::Remote(first) if !first.is_away());
        if !(self.in_second && between && answers) {
            return Some(recorder);
        }
        if let Err(error) = self.mark.clear() {
            warn!(recording = %parts.setting.recording_id, %error, "stays in the second place of objects");
            return Some(recorder);
        }
        self.in_second = false;
        None
    }
}

fn second(objects: &Objects) -> Option<Objects> {
    match objects {
        Objects::Remote(remote) => remote.second().map(Objects::Remote),
        Objects::Local(_) => None,
    }
}

impl Leaving {
    /// Leaves what is in the first place, and notes that; gives the recorder back if it cannot leave.
    ///
    /// Whatever of it was done when the process died: an upload that is noted and still in the state is missing when the next part is sent, and the
    /// journal has what was in it; an upload that is in the state behind the mark is begun anew.
    pub(super) fn leave(self, recorder: Option<Recorder>) -> Result<Option<Recorder>, RecordError> {
        let mut recorder = match recorder {
            Some(recorder) => recorder,
            None => Recorder::open(self.setting, self.objects, self.sync)?,
        };
        if !recorder.can_leave() {
            return Ok(Some(recorder));
        }
        let (key, upload) = recorder.upload();
        let noted = self.abandoned.note_left(&key, upload.as_deref());
        noted.map_err(RecordError::store("the note of an upload that is left"))?;
        recorder.lose_upload()?;
        self.mark.set().map_err(RecordError::store("the note of a place"))?;
        Ok(None)
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
