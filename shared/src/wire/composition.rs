//! Compositions, as messages.

use proto::v1;

use super::{WireError, bounds::MAX_KEY_BYTES, clock, format, id, required, text};
use crate::{
    composition::{
        ComposeJob, ComposeStatus, Composition, CompositionState, MAX_MADE, MAX_NAME_CHARS, MAX_PIECES, Piece,
    },
    lease::Epoch,
    time::Timestamp,
};

fn millis(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_millis)
}

impl From<&Piece> for v1::ComposePiece {
    fn from(piece: &Piece) -> Self {
        v1::ComposePiece {
            object_key: piece.key.clone(),
            format: v1::Format::from(piece.format).into(),
            piece: Some(piece.into()),
        }
    }
}

impl From<&Piece> for v1::Piece {
    fn from(piece: &Piece) -> Self {
        v1::Piece {
            file_id: piece.file.to_string(),
            from_ms: piece.from_ms,
            for_ms: piece.for_ms,
        }
    }
}

impl TryFrom<v1::ComposePiece> for Piece {
    type Error = WireError;
    fn try_from(said: v1::ComposePiece) -> Result<Self, WireError> {
        let piece = required("piece", said.piece)?;
        Ok(Piece {
            file: id("file_id", &piece.file_id)?,
            key: text("object_key", said.object_key, MAX_KEY_BYTES)?,
            format: format(said.format)?,
            from_ms: piece.from_ms,
            for_ms: piece.for_ms,
        })
    }
}

impl From<&ComposeJob> for v1::ComposeJob {
    fn from(job: &ComposeJob) -> Self {
        v1::ComposeJob {
            recording_id: job.recording.to_string(),
            epoch: job.epoch.get(),
            stream: Some((&job.stream).into()),
            start_ms: job.start.as_millis(),
            created_ms: job.created.as_millis(),
            name: job.name.clone(),
            remove_video: !job.video,
            remove_audio: !job.audio,
            pieces: job.pieces.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::ComposeJob> for ComposeJob {
    type Error = WireError;
    fn try_from(job: v1::ComposeJob) -> Result<Self, WireError> {
        if job.pieces.len() > MAX_PIECES {
            return Err(WireError::new("pieces", format!("has more than {MAX_PIECES} entries")));
        }
        let pieces: Result<_, WireError> = job.pieces.into_iter().map(Piece::try_from).collect();
        Ok(ComposeJob {
            recording: id("recording_id", &job.recording_id)?,
            epoch: Epoch::new(job.epoch),
            stream: required("stream", job.stream)?.try_into()?,
            start: clock("start_ms", job.start_ms)?,
            created: clock("created_ms", job.created_ms)?,
            name: text("name", job.name, MAX_NAME_CHARS * 4)?,
            video: !job.remove_video,
            audio: !job.remove_audio,
            pieces: pieces.map_err(|error| error.within("pieces"))?,
        })
    }
}

impl From<&ComposeStatus> for v1::ComposeStatus {
    fn from(status: &ComposeStatus) -> Self {
        v1::ComposeStatus {
            recording_id: status.recording.to_string(),
            epoch: status.epoch.get(),
            progress: status.progress.into(),
            bytes: status.bytes,
        }
    }
}

impl TryFrom<v1::ComposeStatus> for ComposeStatus {
    type Error = WireError;
    fn try_from(status: v1::ComposeStatus) -> Result<Self, WireError> {
        if status.bytes >= MAX_MADE {
            return Err(WireError::new("bytes", "is 2^50 or more"));
        }
        Ok(ComposeStatus {
            recording: id("recording_id", &status.recording_id)?,
            epoch: Epoch::new(status.epoch),
            progress: u8::try_from(status.progress.min(100)).unwrap_or(100),
            bytes: status.bytes,
        })
    }
}

impl From<CompositionState> for v1::CompositionState {
    fn from(state: CompositionState) -> Self {
        match state {
            CompositionState::Waiting => v1::CompositionState::Waiting,
            CompositionState::Running => v1::CompositionState::Running,
            CompositionState::Finished => v1::CompositionState::Finished,
            CompositionState::Failed => v1::CompositionState::Failed,
        }
    }
}

/// A composition with how far it is, hundredths.
#[must_use]
pub fn composition(composition: &Composition, progress: u8) -> v1::Composition {
    let new = &composition.new;
    v1::Composition {
        composition_id: composition.id.to_string(),
        state: v1::CompositionState::from(composition.state).into(),
        progress: progress.into(),
        problem: composition.problem.clone(),
        file_id: composition.file().map(|id| id.to_string()).unwrap_or_default(),
        stream: Some((&new.stream).into()),
        pieces: new.pieces.iter().map(Into::into).collect(),
        name: new.name.clone(),
        description: new.description.clone(),
        remove_video: !new.video,
        remove_audio: !new.audio,
        token: new.token.clone(),
        context: new.context.clone(),
        attempts: composition.attempt.get(),
        worker_id: composition.worker.map(|id| id.to_string()).unwrap_or_default(),
        created_ms: composition.created.as_millis(),
        begun_ms: millis(composition.begun),
        ended_ms: millis(composition.ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RecordingId, Seeded};

    #[test]
    fn how_far_one_is_survives_the_wire_and_no_counter_runs_away() {
        let status = ComposeStatus {
            recording: RecordingId::generate(&Seeded::new(1), Timestamp::default()),
            epoch: Epoch::new(3),
            progress: 7,
            bytes: MAX_MADE - 1,
        };
        let mut said = v1::ComposeStatus::from(&status);
        assert_eq!(ComposeStatus::try_from(said.clone()), Ok(status));
        said.bytes += 1;
        let refused = ComposeStatus::try_from(said).unwrap_err().to_string();
        assert!(refused.contains("bytes") && refused.contains("2^50"), "{refused}");
    }
}
