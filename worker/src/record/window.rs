//! Which part of a journal a recording is of: moments of the wall clock to positions, by the arrival times in the index.
//!
//! Media is cut where it can be decoded: a recording begins at the last random access point that arrived at or before its start. What
//! arrived after its start and is no longer kept is a gap by name. It ends with the last unit that arrived at or before its end.

use std::path::Path;

use journal::{IndexReader, Indexed, JournalError, Position, Reader};
use media::access_unit::{UnitInfo, UnitKind};
use media::segmenter::Segmenter;
use shared::recording::Gap;

use super::file::MAX_METADATA;
use super::packed::Packed;
use super::state::{Config, State};
use super::{Reach, RecordError};

/// What a journal tells of its units, in order, until there are no more.
pub(crate) type Units<'a> = Box<dyn FnMut() -> Result<Option<Indexed>, JournalError> + 'a>;

/// Where a window is looked for.
pub(crate) trait Log {
    /// Bodies before this position are gone.
    fn kept_from(&self) -> Result<u64, RecordError>;

    /// The index from a position up to another.
    fn units(&self, from: u64, limit: u64) -> Result<Units<'_>, RecordError>;
}

impl Log for Path {
    fn kept_from(&self) -> Result<u64, RecordError> {
        match Reader::open(self, Position(0), Vec::new()) {
            Ok(_) => Ok(0),
            Err(JournalError::Purged {
                first: Some(Position(first)),
                ..
            }) => Ok(first),
            Err(JournalError::Purged { first: None, .. }) => Ok(u64::MAX),
            Err(error) => Err(error.into()),
        }
    }

    fn units(&self, from: u64, limit: u64) -> Result<Units<'_>, RecordError> {
        let mut index = IndexReader::open(self, Position(from))?;
        index.set_limit(Position(limit));
        Ok(Box::new(move || index.next()))
    }
}

/// The name of a gap: units that arrived after the start and whose bodies the journal had given up when the recording was asked for.
const NOT_KEPT: &str = "preroll_expired";

/// Finds the recording's place in the journal if it has none yet, and its end if that is near. `None`: its start is not there yet.
pub(crate) fn enter(
    log: &(impl Log + ?Sized),
    from_ms: Option<i64>,
    state: &mut State,
    reach: Reach,
) -> Result<Option<Reach>, RecordError> {
    if state.done {
        return Ok(Some(reach));
    }
    if let (Some(from_ms), 0) = (from_ms, state.cursor) {
        match locate(log, from_ms, reach.end)? {
            Some(start) => *state = start.into_state(state.hls.take()),
            // Nothing arrived in the window, and nothing will.
            None if reach.last => state.cursor = reach.end,
            None => return Ok(None),
        }
    }
    let Some(until_ms) = reach.until_ms else {
        return Ok(Some(reach));
    };
    Ok(Some(match end(log, state.cursor, until_ms, reach.end)? {
        Some(end) => Reach {
            end,
            last: true,
            ..reach
        },
        None => reach,
    }))
}

/// Where a recording begins, and what was in force there.
#[derive(Debug, Clone, Default)]
struct Start {
    at: u64,
    video_config: Option<Config>,
    audio_config: Option<Config>,
    metadata: Option<Packed>,
    gap: Option<Gap>,
}

impl Start {
    fn into_state(self, hls: Option<super::state::HlsState>) -> State {
        State {
            cursor: self.at,
            video_config: self.video_config,
            audio_config: self.audio_config,
            metadata: self.metadata,
            gaps: self.gap.into_iter().collect(),
            hls,
            ..State::default()
        }
    }

    /// Takes note of a header that is in force from here on.
    fn note(&mut self, info: &UnitInfo, body: Option<&Vec<u8>>) {
        let config = || body.and_then(|body| Config::of(info, body));
        match info.kind {
            UnitKind::VideoConfig => self.video_config = config(),
            UnitKind::AudioConfig => self.audio_config = config(),
            UnitKind::Metadata if info.body_len <= MAX_METADATA => {
                self.metadata = body.map(|body| body.as_slice().into()).or(self.metadata.take());
            }
            _ => {}
        }
    }
}

/// The place of the last random access point at or before `from_ms`. If there is none, or it is no longer kept, the first unit
/// after `from_ms` that is. `None` while nothing has arrived after `from_ms`.
fn locate(log: &(impl Log + ?Sized), from_ms: i64, limit: u64) -> Result<Option<Start>, RecordError> {
    let kept = log.kept_from()?;
    let mut units = log.units(0, limit)?;
    let mut rule = Segmenter::new(0);
    let mut now = Start::default();
    let mut before: Option<Start> = None;
    let mut inside: Option<Start> = None;
    while let Some(indexed) = units()? {
        let (at, info) = (indexed.at.0, &indexed.info);
        if !matches!(info.kind, UnitKind::Video | UnitKind::Audio) {
            now.note(info, indexed.body.as_ref());
            continue;
        }
        now.at = at;
        let random_access = rule.is_random_access(info);
        rule.push(info);
        if info.arrival_ms <= from_ms && inside.is_none() {
            if random_access && at >= kept {
                before = Some(now.clone());
            }
            continue;
        }
        if let Some(before) = before {
            return Ok(Some(before));
        }
        if at >= kept {
            let gap = inside.and_then(|start| start.gap);
            return Ok(Some(Start { gap, ..now }));
        }
        let lost = inside.get_or_insert_with(|| now.clone());
        let gap = lost.gap.get_or_insert_with(|| Gap {
            reason: NOT_KEPT.to_owned(),
            from_ms: info.dts_ms,
            to_ms: info.dts_ms,
            units: 0,
        });
        gap.from_ms = gap.from_ms.min(info.dts_ms);
        gap.to_ms = gap.to_ms.max(info.dts_ms);
        gap.units += 1;
    }
    // Everything of the window is gone, and what comes next will be its beginning.
    Ok(inside.map(|start| Start {
        at: limit,
        gap: start.gap,
        ..now
    }))
}

/// The place of the first unit at or behind `cursor` that arrived after `until_ms`; `None`: there is none.
fn end(log: &(impl Log + ?Sized), cursor: u64, until_ms: i64, limit: u64) -> Result<Option<u64>, RecordError> {
    let mut units = log.units(cursor, limit)?;
    while let Some(indexed) = units()? {
        let unit = matches!(indexed.info.kind, UnitKind::Video | UnitKind::Audio);
        if unit && indexed.info.arrival_ms > until_ms {
            return Ok(Some(indexed.at.0));
        }
    }
    Ok(None)
}
