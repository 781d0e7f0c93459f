//! [`Slot`], a small state file that a torn write cannot spoil: two places written in turn.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::JournalError;
use crate::format::checksum;

/// First bytes of each place; the last two are the version.
pub(crate) const MAGIC: [u8; 8] = *b"ACSLOT01";
/// Bytes in front of a payload.
pub(crate) const HEADER_LEN: usize = 32;
/// Places begin and end on this boundary, so that two of them never share a block of the disk.
const ALIGN: usize = 4096;
/// Longest payload: what a place's header can say. What a state holds has its own bounds, far below: none that could not be saved may come up,
/// for whoever cannot save cannot go on.
pub(crate) const MAX_LEN: usize = (u32::MAX as usize >> 1) - HEADER_LEN - ALIGN;

/// A state file: what was last written to it is what is read from it, whenever the process dies.
///
/// The file has two places of equal length, 4 KiB or a multiple; writes go to them in turn, each with the next
/// sequence number and a checksum, and the whole one with the greater number counts. A payload that is too long for the
/// places is written, with longer ones, to a temporary file that replaces the old one.
///
/// A power loss may spoil a place that was written since the last [`GroupSync`](crate::GroupSync). Both are
/// spoiled only if both were written since then and the disk tore both: then the file reads as never written.
///
/// No file is held open.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    place_len: usize,
    /// Number of the last whole write; 0: none.
    sequence: u64,
    /// The place it is in, 0 or 1; none: the file has to be made.
    newest: Option<u64>,
}

/// One place's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) payload: Vec<u8>,
}

impl Slot {
    /// Opens the state file at `path`; it is made by the first write if it is not there.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let mut slot = Self {
            path: path.to_path_buf(),
            place_len: 0,
            sequence: 0,
            newest: None,
        };
        slot.look()?;
        Ok(slot)
    }

    /// The last payload written; `None`: none was ever written (or see the type's words on power loss).
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        self.look()
    }

    /// Writes `payload`: one write, as a rule.
    ///
    /// # Errors
    ///
    /// [`JournalError::TooLong`] from 2 GiB on; [`JournalError::Io`]: what was there before can still be read.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        if payload.len() > MAX_LEN {
            return Err(JournalError::TooLong {
                what: "state",
                len: payload.len(),
                limit: MAX_LEN,
            });
        }
        let sequence = self.sequence + 1;
        let Some(newest) = self.newest.filter(|_| HEADER_LEN + payload.len() <= self.place_len) else {
            return self.replace(sequence, payload);
        };
        let place = 1 - newest;
        let file = OpenOptions::new()
            .write(true)
            .open(&self.path)
            .map_err(JournalError::io("open", &self.path))?;
        file.write_all_at(
            &encode(sequence, self.place_len, payload),
            place * self.place_len as u64,
        )
        .map_err(JournalError::io("write", &self.path))?;
        (self.sequence, self.newest) = (sequence, Some(place));
        Ok(())
    }

    /// Makes the file, or makes it anew with longer places.
    fn replace(&mut self, sequence: u64, payload: &[u8]) -> Result<(), JournalError> {
        let place_len = (HEADER_LEN + payload.len()).next_multiple_of(ALIGN);
        let mut path = self.path.as_os_str().to_owned();
        path.push(".tmp");
        let path = PathBuf::from(path);
        let written = (|| {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
            file.set_len(2 * place_len as u64)?;
            file.write_all_at(&encode(sequence, place_len, payload), 0)?;
            if self.newest.is_some() {
                // The old state goes with the old file: the new one must be durable before.
                file.sync_data()?;
            }
            fs::rename(&path, &self.path)
        })();
        written.map_err(|error| {
            // Best effort: recovery removes what stays.
            fs::remove_file(&path).ok();
            JournalError::io("write", &self.path)(error)
        })?;
        (self.place_len, self.sequence, self.newest) = (place_len, sequence, Some(0));
        Ok(())
    }

    /// Reads the file and finds the newest place.
    fn look(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(JournalError::io("read", &self.path)(error)),
        };
        let (place_len, places) = decode(&bytes);
        let newest = places
            .into_iter()
            .zip([0, 1])
            .filter_map(|(place, number)| Some((place?, number)))
            .max_by_key(|(place, _)| place.sequence);
        self.place_len = place_len;
        self.sequence = newest.as_ref().map_or(0, |(place, _)| place.sequence);
        self.newest = newest.as_ref().map(|&(_, number)| number);
        Ok(newest.map(|(place, _)| place.payload))
    }
}

fn encode(sequence: u64, place_len: usize, payload: &[u8]) -> Vec<u8> {
    let len32 = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&len32(payload.len()));
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&len32(place_len));
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    let sum = checksum(&out[12..]);
    out[8..12].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Length of a place, and both places as far as they are whole.
pub(crate) fn decode(file: &[u8]) -> (usize, [Option<Place>; 2]) {
    let place_len = file.len() / 2;
    if place_len == 0 || !place_len.is_multiple_of(ALIGN) || !file.len().is_multiple_of(2) {
        return (0, [None, None]);
    }
    let (first, second) = file.split_at(place_len);
    (place_len, [decode_place(first), decode_place(second)])
}

fn decode_place(place: &[u8]) -> Option<Place> {
    let (head, rest) = place.split_first_chunk::<HEADER_LEN>()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..8] != MAGIC || word(24) as usize != place.len() {
        return None;
    }
    let payload = rest.get(..word(12) as usize)?;
    let sum = checksum(&place[12..HEADER_LEN + payload.len()]);
    let sequence = u64::from(word(16)) | u64::from(word(20)) << 32;
    (sum == word(8)).then(|| Place {
        sequence,
        payload: payload.to_vec(),
    })
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
