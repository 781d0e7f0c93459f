//! What is asked of a composition, checked and looked up: the same over gRPC and in the API that speaks Tencent's protocol.

use shared::{
    composition::{
        MAX_CONTEXT_CHARS, MAX_DESCRIPTION_CHARS, MAX_NAME_CHARS, MAX_PIECES, MAX_TOKEN_CHARS, NewComposition, Piece,
    },
    ids::FileId,
    recording::MediaFile,
    store::{Repo, StoreError},
    time::Timestamp,
};
use thiserror::Error;

/// Most access units of one composition, as far as its files tell: a day of 60 pictures and 47 frames of sound a second, and a quarter more. What the
/// new file's head says of each is held in memory, up to 27 bytes.
const MAX_UNITS: u64 = 12_000_000;

/// A part of a file, as it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) file: FileId,
    pub(super) from_ms: u64,
    pub(super) for_ms: Option<u64>,
}

/// A composition, as it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) parts: Vec<Part>,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) video: bool,
    pub(super) audio: bool,
    pub(super) token: String,
    pub(super) context: String,
    pub(super) expires: Option<Timestamp>,
}

/// Why it is not made. The message says what to do.
#[derive(Debug, Error)]
pub(super) enum Refused {
    /// A field outside its range.
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String },
    /// A piece that lies outside its file.
    #[error("pieces: {0}")]
    Span(String),
    /// There is no such file, or not for this caller.
    #[error("no file {0}: `aircheck file list` shows what there is")]
    NoFile(FileId),
    /// The store did not say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn limited(field: &'static str, text: &str, most: usize) -> Result<(), Refused> {
    match text.chars().count() > most {
        true => Err(Refused::Field {
            field,
            problem: format!("has more than {most} characters"),
        }),
        false => Ok(()),
    }
}

impl Asked {
    fn check(&self) -> Result<(), Refused> {
        let wrong = |field, problem: &str| Refused::Field {
            field,
            problem: problem.to_owned(),
        };
        if self.parts.is_empty() || self.parts.len() > MAX_PIECES {
            return Err(wrong(
                "pieces",
                &format!("1 to {MAX_PIECES} are needed, there are {}", self.parts.len()),
            ));
        }
        if self.name.is_empty() || self.name.contains('/') || self.name.chars().any(char::is_control) {
            return Err(wrong(
                "name",
                "1 to 64 characters are needed, none of them `/` or a control character",
            ));
        }
        if !self.video && !self.audio {
            return Err(wrong(
                "remove_audio",
                "pictures and sound are both left out: nothing remains",
            ));
        }
        limited("name", &self.name, MAX_NAME_CHARS)?;
        limited("description", &self.description, MAX_DESCRIPTION_CHARS)?;
        limited("token", &self.token, MAX_TOKEN_CHARS)?;
        limited("context", &self.context, MAX_CONTEXT_CHARS)
    }

    /// Looks its files up, as far as the caller may see them.
    pub(super) async fn resolve(
        self,
        repo: &Repo,
        sees: impl Fn(&MediaFile) -> bool,
    ) -> Result<NewComposition, Refused> {
        self.check()?;
        let mut pieces = Vec::with_capacity(self.parts.len());
        let (mut writers, mut first, mut count) = (Vec::new(), None, 0_u64);
        for part in &self.parts {
            let found = repo.file(part.file).await?.filter(&sees);
            let file = found.ok_or(Refused::NoFile(part.file))?;
            let recording = repo.recording(file.recording).await?;
            pieces.push(piece(part, &file)?);
            count = count.saturating_add(units(part, &file));
            if count > MAX_UNITS {
                return Err(Refused::Span(format!(
                    "they have more than {MAX_UNITS} pictures and frames of sound, the most that one file may have: make several"
                )));
            }
            if let Some(writer) = recording
                .map(|recording| recording.worker)
                .filter(|id| !writers.contains(id))
            {
                writers.push(writer);
            }
            first.get_or_insert((file.stream, file.start, part.from_ms));
        }
        let Some((stream, start, from_ms)) = first else {
            return Err(Refused::Span("there are none".to_owned()));
        };
        Ok(NewComposition {
            pieces,
            stream,
            start: start + std::time::Duration::from_millis(from_ms),
            writers,
            name: self.name,
            description: self.description,
            video: self.video,
            audio: self.audio,
            token: self.token,
            context: self.context,
            expires: self.expires,
        })
    }
}

/// How many access units a part has, if they are spread evenly over its file.
fn units(part: &Part, file: &MediaFile) -> u64 {
    let all = u128::from(file.video_units) + u128::from(file.audio_units);
    let rest = file.duration_ms.saturating_sub(part.from_ms);
    let length = part.for_ms.map_or(rest, |length| length.min(rest));
    let share = all * u128::from(length) / u128::from(file.duration_ms.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

fn piece(part: &Part, file: &MediaFile) -> Result<Piece, Refused> {
    let id = file.id;
    if part.from_ms >= file.duration_ms.max(1) {
        let words = format!(
            "file {id} has {} ms, a piece of it cannot begin at {} ms",
            file.duration_ms, part.from_ms
        );
        return Err(Refused::Span(words));
    }
    if part.for_ms == Some(0) {
        return Err(Refused::Span(format!("a piece of file {id} has no length")));
    }
    Ok(Piece {
        file: id,
        key: file.object_key.clone(),
        format: file.format,
        from_ms: part.from_ms,
        // What goes to the file's end ends with it.
        for_ms: part
            .for_ms
            .filter(|length| part.from_ms.saturating_add(*length) < file.duration_ms),
    })
}
