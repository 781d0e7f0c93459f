//! [`Disk`]: what a worker's data directory holds, in memory. It outlives the worker.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor as _, Recipient};
use journal::{Indexed, Position, Publish, Snapshot};
use media::access_unit::{Codec, UnitInfo, UnitKind};
use shared::ids::{PublishId, RecordingId};
use shared::lease::Grant;
use shared::template::Format;

use super::recorder::{ModelRecorder, Notes};
use super::{Bucket, Kept};
use crate::record::actor::{Report, Word};
use crate::record::window::{Log, Units};
use crate::record::{FinishedFile, Order, RecordError};
use crate::stream::ground::Ground;

/// An access unit; its place in the journal is its position.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Wall clock of its arrival, milliseconds since the Unix epoch.
    pub arrival_ms: i64,
    /// The true time of that, whatever the worker's clock said, for whoever checks; milliseconds since the Unix epoch.
    pub sent_ms: i64,
    /// Decode time, milliseconds.
    pub dts_ms: i64,
    /// Decoding may begin here.
    pub key: bool,
}

impl Unit {
    pub(super) fn info(&self) -> UnitInfo {
        UnitInfo {
            kind: UnitKind::Video,
            codec: Codec::Avc,
            key: self.key,
            dts_ms: self.dts_ms,
            cto_ms: 0,
            body_len: 1_000,
            header_len: 5,
            arrival_ms: self.arrival_ms,
        }
    }
}

/// One publish's journal and what lies beside it.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Who publishes what.
    pub publish: Publish,
    /// What arrived.
    pub units: Vec<Unit>,
    /// Bodies before this place are gone.
    pub dropped: u64,
    /// Why the publish ended.
    pub closed: Option<String>,
    /// What the coordinator granted.
    pub grant: Option<Grant>,
    pub(super) notes: BTreeMap<(RecordingId, Format), Notes>,
    pub(super) files: Vec<(RecordingId, FinishedFile)>,
    /// Units that recorders left out by name, each with its recording and format.
    pub left_out: Vec<(RecordingId, Format, u64, String)>,
}

impl Journal {
    /// An empty one.
    #[must_use]
    pub fn of(publish: Publish) -> Self {
        Self {
            publish,
            ..Self::default()
        }
    }

    fn snapshot(&self) -> Snapshot {
        let last_key = self.units.iter().rposition(|unit| unit.key);
        let last_key = last_key.and_then(|at| Some((Position(at as u64), self.units.get(at)?.dts_ms)));
        Snapshot {
            end: Position(self.units.len() as u64),
            first_dts_ms: self.units.first().map(|unit| unit.dts_ms),
            end_dts_ms: self.units.last().map(|unit| unit.dts_ms),
            last_random_access: last_key,
            video_dts_ms: self.units.last().map(|unit| unit.dts_ms),
            video_units: self.units.len() as u64,
            audio_units: 0,
            bytes: self.units.len() as u64 * 1_000,
            wall_ms: self.units.last().map_or(0, |unit| unit.arrival_ms),
            closed: self.closed.is_some(),
        }
    }
}

impl Log for Journal {
    fn kept_from(&self) -> Result<u64, RecordError> {
        Ok(self.dropped)
    }

    fn units(&self, from: u64, limit: u64) -> Result<Units<'_>, RecordError> {
        let mut at = from;
        Ok(Box::new(move || {
            let unit = usize::try_from(at).ok().and_then(|place| self.units.get(place));
            let Some(unit) = unit.filter(|_| at < limit) else {
                return Ok(None);
            };
            at += 1;
            Ok(Some(Indexed {
                at: Position(at - 1),
                next: Position(at),
                info: unit.info(),
                tag_type: 9,
                body: None,
            }))
        }))
    }
}

/// A worker's data directory.
#[derive(Debug, Default)]
pub struct Disk {
    /// Journals of publishes that are not settled.
    pub journals: BTreeMap<PublishId, Journal>,
    /// Journals put aside, with the reason.
    pub fenced: BTreeMap<PublishId, (Journal, String)>,
    /// Journals that were removed since somebody took them from here.
    pub removed: Vec<Journal>,
}

/// A disk that survives its worker.
pub type SharedDisk = Arc<Mutex<Disk>>;

pub(super) fn open(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One journal's directory.
pub(super) struct Directory {
    pub(super) disk: SharedDisk,
    pub(super) publish: PublishId,
    pub(super) bucket: Arc<dyn Bucket>,
}

impl Directory {
    fn with<T>(&self, read: impl FnOnce(&mut Journal) -> T) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the journal is gone");
        open(&self.disk)
            .journals
            .get_mut(&self.publish)
            .map(read)
            .ok_or_else(gone)
    }
}

impl Ground for Directory {
    fn journaled(&self) -> Snapshot {
        self.with(|journal| journal.snapshot()).unwrap_or_default()
    }

    fn keep(&self, grant: &Grant) -> io::Result<()> {
        self.with(|journal| journal.grant = Some(grant.clone()))
    }

    fn noted(&self, recording: RecordingId) -> io::Result<Vec<FinishedFile>> {
        let of = |(id, file): &(RecordingId, FinishedFile)| (*id == recording).then(|| file.clone());
        self.with(|journal| journal.files.iter().filter_map(of).collect())
    }

    fn drop_bodies_before(&self, position: u64) -> io::Result<()> {
        self.with(|journal| journal.dropped = journal.dropped.max(position))
    }

    fn remove(&self) -> io::Result<()> {
        let mut disk = open(&self.disk);
        let journal = disk.journals.remove(&self.publish);
        disk.removed.extend(journal);
        Ok(())
    }

    fn put_aside(&self, reason: &str) -> io::Result<PathBuf> {
        let mut disk = open(&self.disk);
        if let Some(journal) = disk.journals.remove(&self.publish) {
            disk.fenced.insert(self.publish, (journal, reason.to_owned()));
        }
        Ok(PathBuf::from("fenced"))
    }

    fn start_recorder(&self, order: Order, until_ms: Option<i64>, parent: Recipient<Report>) -> Recipient<Word> {
        let kept = Kept {
            disk: Arc::clone(&self.disk),
            publish: self.publish,
            bucket: Arc::clone(&self.bucket),
        };
        ModelRecorder::new(order, until_ms, kept, parent).start().recipient()
    }

    fn abandon(&self, _: &str) {}
}
