//! [`Scanner`], the whole batches of one segment file, read in large blocks and verified once each.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::format::{
    self, BATCH_HEADER_LEN, BATCH_MAGIC, BatchHeader, BatchKind, FILE_HEAD_LEN, FileHead, MAX_PUBLISH_LEN,
};

/// Bytes asked of the operating system at once, and what a buffer holds unless a batch is longer.
pub(crate) const BLOCK_LEN: usize = 1 << 20;

/// What stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole batch; its bytes are in the buffer.
    Batch(BatchHeader),
    /// The end of the file.
    End,
    /// Bytes that are no whole batch, and none behind them: a batch being written, or a torn tail.
    Torn,
    /// Bytes that are no whole batch; the next one begins at this position.
    Damaged(u64),
}

/// An open segment file and the buffer in front of it.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: File,
    first: u64,
    salt: Option<u32>,
    /// Bytes `start..end` of the buffer are those of the log from `at`.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    at: u64,
}

impl Scanner {
    /// Opens the segment file at `path`; `buf` is taken over as the buffer, its length is what is read at once. An empty one is
    /// replaced by one of [`BLOCK_LEN`].
    pub(crate) fn open(path: &Path, first: u64, salt: Option<u32>, buf: Vec<u8>) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            file,
            first,
            salt,
            buf,
            start: 0,
            end: 0,
            at: first,
        })
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Position of what [`Scanner::find`] looks at.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    pub(crate) fn set_salt(&mut self, salt: u32) {
        self.salt = Some(salt);
    }

    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        (self.start, self.end) = (0, 0);
        core::mem::take(&mut self.buf)
    }

    pub(crate) fn set_buffer(&mut self, buf: Vec<u8>) {
        self.buf = buf;
        (self.start, self.end) = (0, 0);
    }

    /// Position behind the file's last byte at this moment.
    pub(crate) fn file_end(&self) -> io::Result<u64> {
        Ok(self.first.saturating_add(self.file.metadata()?.len()))
    }

    /// Goes to any position of the file; what is buffered is kept if it is still of use.
    pub(crate) fn seek(&mut self, at: u64) {
        let ahead = at.checked_sub(self.at).and_then(|ahead| usize::try_from(ahead).ok());
        match ahead {
            Some(ahead) if ahead <= self.end - self.start => self.start += ahead,
            _ => (self.start, self.end) = (0, 0),
        }
        self.at = at;
    }

    /// The file's head, read apart from the buffer. `None`: not there in full, or damaged.
    pub(crate) fn head(&self) -> io::Result<Option<FileHead>> {
        let mut bytes = vec![0; FILE_HEAD_LEN + 2048];
        let mut len = read_up_to(&self.file, &mut bytes, 0)?;
        // The head's own length field says how much more there is; the checksum says whether to believe it.
        if let Some(&header_len) = bytes[..len].get(12..).and_then(|rest| rest.first_chunk::<4>()) {
            let header_len = u32::from_le_bytes(header_len) as usize;
            if header_len > bytes.len() && header_len <= FILE_HEAD_LEN + MAX_PUBLISH_LEN {
                bytes.resize(header_len, 0);
                len = read_up_to(&self.file, &mut bytes, 0)?;
            }
        }
        Ok(FileHead::decode_segment(&bytes[..len]).filter(|head| head.first == self.first))
    }

    /// The batch header at `at`, read apart from the buffer; its payload is not verified.
    pub(crate) fn header_at(&self, at: u64) -> io::Result<Option<BatchHeader>> {
        let mut bytes = [0; BATCH_HEADER_LEN];
        if read_up_to(&self.file, &mut bytes, at.saturating_sub(self.first))? < bytes.len() {
            return Ok(None);
        }
        Ok(BatchHeader::decode(&bytes).filter(|header| header.belongs(self.salt, at)))
    }

    /// Says what stands at the present position, which stays.
    ///
    /// Nothing at or beyond `limit` is looked at; where there is none, what a writer may be about to change is looked at twice.
    pub(crate) fn find(&mut self, limit: Option<u64>) -> io::Result<Found> {
        if let Some(found) = self.whole_batch(limit)? {
            return Ok(found);
        }
        // What is buffered may be older than what is in the file.
        (self.start, self.end) = (0, 0);
        let next = self.next_whole(self.at.saturating_add(1), limit)?;
        if let Some(found) = self.whole_batch(limit)? {
            return Ok(found);
        }
        (self.start, self.end) = (0, 0);
        Ok(next.map_or(Found::Torn, Found::Damaged))
    }

    /// The batch just found: header and payload.
    pub(crate) fn batch(&mut self, header: &BatchHeader) -> &mut [u8] {
        let end = (self.start + header.len()).min(self.end);
        &mut self.buf[self.start..end]
    }

    /// Goes behind the batch just found, and gives back memory that only a long batch needed.
    pub(crate) fn advance(&mut self, header: &BatchHeader) {
        self.seek(self.at.saturating_add(header.len() as u64));
        let rest = self.end - self.start;
        if self.buf.len() > BLOCK_LEN && rest <= BLOCK_LEN {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, rest);
            self.buf.truncate(BLOCK_LEN);
            self.buf.shrink_to(BLOCK_LEN);
        }
    }

    fn whole_batch(&mut self, limit: Option<u64>) -> io::Result<Option<Found>> {
        if limit.is_some_and(|limit| self.at >= limit) || !self.fill(1, limit)? {
            return Ok(Some(Found::End));
        }
        if !self.fill(BATCH_HEADER_LEN, limit)? {
            return Ok(None);
        }
        let Some(header) =
            BatchHeader::decode(&self.buf[self.start..self.end]).filter(|header| header.belongs(self.salt, self.at))
        else {
            return Ok(None);
        };
        if !self.fill(header.len(), limit)? {
            return Ok(None);
        }
        let whole = is_good(self.batch(&header), &header);
        Ok(whole.then_some(Found::Batch(header)))
    }

    /// Has `need` bytes in the buffer, or says false: the file (or the stretch below `limit`) ends before.
    fn fill(&mut self, need: usize, limit: Option<u64>) -> io::Result<bool> {
        let mut have = self.end - self.start;
        if have >= need {
            return Ok(true);
        }
        if self.buf.len() < need {
            // A new zeroed buffer, not a longer one: the system gives zero pages for nothing, and only when they are touched.
            let mut buf = vec![
                0;
                if self.buf.is_empty() {
                    need.max(BLOCK_LEN)
                } else {
                    need.next_power_of_two()
                }
            ];
            buf[..have].copy_from_slice(&self.buf[self.start..self.end]);
            self.buf = buf;
        } else if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, have);
        while have < need {
            let from = self.at.saturating_add(have as u64);
            let allowed = limit.map_or(u64::MAX, |limit| limit.saturating_sub(from));
            let room = usize::try_from(allowed)
                .unwrap_or(usize::MAX)
                .min(self.buf.len() - have);
            let read = read_some(&self.file, &mut self.buf[have..have + room], from - self.first)?;
            if read == 0 {
                return Ok(false);
            }
            have += read;
            self.end = have;
        }
        Ok(true)
    }

    /// The first whole batch at `from` or later: by its magic, its salt, its own idea of where it stands, its checksum.
    pub(crate) fn next_whole(&self, from: u64, limit: Option<u64>) -> io::Result<Option<u64>> {
        let end = self.file_end()?.min(limit.unwrap_or(u64::MAX));
        let left = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut window = vec![0; left.min(BLOCK_LEN)];
        let mut from = from;
        while from.saturating_add(BATCH_HEADER_LEN as u64) <= end {
            let len = usize::try_from(end - from).unwrap_or(usize::MAX).min(window.len());
            let len = read_up_to(&self.file, &mut window[..len], from - self.first)?;
            let window = &window[..len];
            if len < BATCH_HEADER_LEN {
                return Ok(None);
            }
            for offset in magics(window) {
                let at = from + offset as u64;
                let Some(header) = BatchHeader::decode(&window[offset..]).filter(|h| h.belongs(self.salt, at)) else {
                    continue;
                };
                if at.saturating_add(header.len() as u64) > end {
                    continue;
                }
                let mut batch = vec![0; header.len()];
                if read_up_to(&self.file, &mut batch, at - self.first)? == batch.len() && is_good(&batch, &header) {
                    return Ok(Some(at));
                }
            }
            from += (len - BATCH_HEADER_LEN + 1) as u64;
        }
        Ok(None)
    }
}

/// A batch is good if it is as it was sealed and its payload can be taken apart.
fn is_good(batch: &[u8], header: &BatchHeader) -> bool {
    format::is_whole(batch, header)
        && (header.kind != BatchKind::Media || format::is_tags(&batch[BATCH_HEADER_LEN..], header.units))
}

/// Offsets in `window` where a batch's magic stands.
fn magics(window: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let last = window.len().saturating_sub(BATCH_HEADER_LEN);
    window[..]
        .windows(BATCH_MAGIC.len())
        .take(last + 1)
        .enumerate()
        .filter_map(|(offset, bytes)| (bytes == BATCH_MAGIC).then_some(offset))
}

/// One read, repeated where a signal cut it off.
fn read_some(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(out, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until `out` is full or the file ends; says how much.
fn read_up_to(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < out.len() {
        match read_some(file, &mut out[have..], offset + have as u64)? {
            0 => break,
            read => have += read,
        }
    }
    Ok(have)
}
