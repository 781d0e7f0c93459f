//! Bytes of segment, index and batch, without any I/O. Tables of the layout: `docs/journal.md`.
//!
//! All numbers are little-endian (the FLV tags inside a payload keep FLV's big-endian). Nothing here panics
//! on any input: what is not well formed decodes to `None`.

use media::flv;

use crate::{Position, Publish, Snapshot};

mod entry;

pub use entry::{ENTRY_LEN, GROUP_HEADER_LEN, Group, IndexEntry, MAX_INLINE_LEN, read_entry};

/// First bytes of a segment file; the last two are the version.
pub const SEGMENT_MAGIC: [u8; 8] = *b"ACJSEG01";
/// First bytes of an index file; the last two are the version.
pub const INDEX_MAGIC: [u8; 8] = *b"ACJIDX01";
/// First bytes of a batch; the last one is the version.
pub const BATCH_MAGIC: [u8; 4] = *b"ACB1";
/// Bytes of a batch header.
pub const BATCH_HEADER_LEN: usize = 48;
/// Bytes of a file head before the publish's JSON.
pub const FILE_HEAD_LEN: usize = 128;
/// Longest JSON of a [`Publish`].
pub const MAX_PUBLISH_LEN: usize = 64 << 10;
/// Longest payload of a batch: one tag of the longest body FLV can express, or many small ones.
pub const MAX_PAYLOAD_LEN: usize = flv::MAX_BODY_LEN + flv::TAG_OVERHEAD;
/// No position is beyond: a thousand years at a gigabyte a second end far below, and sums do not overflow.
pub const MAX_POSITION: u64 = 1 << 62;

/// CRC-32C (Castagnoli; RFC 3720 §12.1), by the processor's own instructions.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Takes fixed-size numbers off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }
    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
    fn i64(&mut self) -> Option<i64> {
        self.bytes().map(i64::from_le_bytes)
    }
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// FLV tags, as in a file.
    Media,
    /// One [`Control`](crate::Control) as JSON.
    Control,
    /// A later version's batch: passed over.
    Unknown(u8),
}

impl BatchKind {
    const fn code(self) -> u8 {
        match self {
            Self::Media => 1,
            Self::Control => 2,
            Self::Unknown(code) => code,
        }
    }
    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Media,
            2 => Self::Control,
            code => Self::Unknown(code),
        }
    }
}

/// The 48 bytes in front of each batch's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// CRC-32C of everything behind this field, payload included.
    pub checksum: u32,
    /// The journal's own number: bytes that a publisher chose cannot pass for a batch.
    pub salt: u32,
    /// What the payload is.
    pub kind: BatchKind,
    /// Bytes of the payload, at most [`MAX_PAYLOAD_LEN`].
    pub payload_len: u32,
    /// Tags in the payload; 0 in a control batch.
    pub units: u32,
    /// Position of this header's first byte in the log.
    pub at: u64,
    /// Decode time less raw timestamp, milliseconds, for every tag of the batch.
    pub base_ms: i64,
    /// Wall clock at arrival, milliseconds since the Unix epoch, for every tag of the batch.
    pub wall_ms: i64,
}

impl BatchHeader {
    /// The header's bytes, with whatever checksum it carries.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut out = [0; BATCH_HEADER_LEN];
        out[0..4].copy_from_slice(&BATCH_MAGIC);
        out[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        out[8..12].copy_from_slice(&self.salt.to_le_bytes());
        out[12] = self.kind.code();
        out[16..20].copy_from_slice(&self.payload_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.units.to_le_bytes());
        out[24..32].copy_from_slice(&self.at.to_le_bytes());
        out[32..40].copy_from_slice(&self.base_ms.to_le_bytes());
        out[40..48].copy_from_slice(&self.wall_ms.to_le_bytes());
        out
    }

    /// Reads a header; says nothing about the checksum. `None`: too short, another magic, or a payload beyond the bound.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.bytes::<4>()? != BATCH_MAGIC {
            return None;
        }
        let checksum = fields.u32()?;
        let salt = fields.u32()?;
        let [kind, _, _, _] = fields.bytes::<4>()?;
        let header = Self {
            checksum,
            salt,
            kind: BatchKind::from_code(kind),
            payload_len: fields.u32()?,
            units: fields.u32()?,
            at: fields.u64()?,
            base_ms: fields.i64()?,
            wall_ms: fields.i64()?,
        };
        (header.payload_len as usize <= MAX_PAYLOAD_LEN).then_some(header)
    }

    /// Bytes of header and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        BATCH_HEADER_LEN + self.payload_len as usize
    }

    /// Never: a header alone has bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// True if this is a batch of the journal `salt` (any, if unknown) at `at`; the payload is not looked at.
    #[must_use]
    pub fn belongs(&self, salt: Option<u32>, at: u64) -> bool {
        self.at == at && salt.is_none_or(|salt| salt == self.salt)
    }
}

/// Fills in the header of a whole batch whose payload is in place, checksum last.
///
/// `batch` is header and payload; anything shorter than a header stays as it is.
pub fn seal(batch: &mut [u8], header: &BatchHeader) {
    let Some(head) = batch.first_chunk_mut::<BATCH_HEADER_LEN>() else {
        return;
    };
    *head = header.encode();
    let sum = checksum(&batch[8..]);
    batch[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// True if `batch`, exactly header and payload, is as it was sealed.
#[must_use]
pub fn is_whole(batch: &[u8], header: &BatchHeader) -> bool {
    batch.len() == header.len() && checksum(&batch[8..]) == header.checksum
}

/// What segment and index files begin with: 128 bytes and the publish's JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHead {
    /// Position of the segment's first byte.
    pub first: u64,
    /// Wall clock when the segment was opened, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// See [`BatchHeader::salt`].
    pub salt: u32,
    /// Totals of the log: in a segment up to its beginning, in an index up to the segment's end.
    pub totals: Snapshot,
    /// [`Publish`] as JSON.
    pub publish: Vec<u8>,
}

impl FileHead {
    /// Bytes of the head.
    #[must_use]
    pub fn len(&self) -> usize {
        FILE_HEAD_LEN + self.publish.len()
    }

    /// Never: a head alone has bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The publish, if its JSON is well formed.
    #[must_use]
    pub fn publish(&self) -> Option<Publish> {
        serde_json::from_slice(&self.publish).ok()
    }

    /// A segment's head, checksummed.
    #[must_use]
    pub fn encode_segment(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        self.encode(SEGMENT_MAGIC, &mut out);
        set_file_checksum(&mut out);
        out
    }

    /// A whole index file: head and groups, checksummed.
    #[must_use]
    pub fn encode_index(&self, groups: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + groups.len());
        self.encode(INDEX_MAGIC, &mut out);
        out.extend_from_slice(groups);
        set_file_checksum(&mut out);
        out
    }

    fn encode(&self, magic: [u8; 8], out: &mut Vec<u8>) {
        let publish_len = u32::try_from(self.publish.len()).unwrap_or(u32::MAX);
        let header_len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&magic);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&header_len.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&publish_len.to_le_bytes());
        encode_totals(&self.totals, out);
        out.extend_from_slice(&self.publish);
    }

    /// Reads a segment's head from the front of `bytes`; `None`: too short or damaged.
    #[must_use]
    pub fn decode_segment(bytes: &[u8]) -> Option<Self> {
        let (head, sum) = Self::decode(SEGMENT_MAGIC, bytes)?;
        let covered = bytes.get(12..head.len())?;
        (checksum(covered) == sum).then_some(head)
    }

    /// Reads a whole index file into its head and its groups; `None`: cut short or damaged.
    #[must_use]
    pub fn decode_index(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, sum) = Self::decode(INDEX_MAGIC, bytes)?;
        (checksum(bytes.get(12..)?) == sum).then_some(())?;
        let groups = bytes.get(head.len()..)?;
        Some((head, groups))
    }

    fn decode(magic: [u8; 8], bytes: &[u8]) -> Option<(Self, u32)> {
        let mut fields = Fields(bytes);
        if fields.bytes::<8>()? != magic {
            return None;
        }
        let sum = fields.u32()?;
        let header_len = fields.u32()? as usize;
        let first = fields.u64()?;
        let created_ms = fields.i64()?;
        let salt = fields.u32()?;
        let publish_len = fields.u32()? as usize;
        let totals = decode_totals(&mut fields)?;
        if publish_len > MAX_PUBLISH_LEN || header_len != FILE_HEAD_LEN + publish_len {
            return None;
        }
        if first > MAX_POSITION || totals.end.0 > MAX_POSITION {
            return None;
        }
        let publish = bytes.get(FILE_HEAD_LEN..header_len)?.to_vec();
        let head = Self {
            first,
            created_ms,
            salt,
            totals,
            publish,
        };
        Some((head, sum))
    }
}

fn set_file_checksum(file: &mut [u8]) {
    let sum = checksum(&file[12..]);
    file[8..12].copy_from_slice(&sum.to_le_bytes());
}

const HAS_FIRST: u32 = 1;
const HAS_END: u32 = 1 << 1;
const HAS_RANDOM_ACCESS: u32 = 1 << 2;
const HAS_VIDEO: u32 = 1 << 3;
const CLOSED: u32 = 1 << 4;

/// 88 bytes; see `docs/journal.md`.
fn encode_totals(totals: &Snapshot, out: &mut Vec<u8>) {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(totals.first_dts_ms.is_some(), HAS_FIRST)
        | flag(totals.end_dts_ms.is_some(), HAS_END)
        | flag(totals.last_random_access.is_some(), HAS_RANDOM_ACCESS)
        | flag(totals.video_dts_ms.is_some(), HAS_VIDEO)
        | flag(totals.closed, CLOSED);
    let (random_access, random_access_ms) = totals.last_random_access.unwrap_or_default();
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&totals.end.0.to_le_bytes());
    out.extend_from_slice(&totals.first_dts_ms.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&totals.end_dts_ms.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&random_access.0.to_le_bytes());
    out.extend_from_slice(&random_access_ms.to_le_bytes());
    out.extend_from_slice(&totals.video_dts_ms.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&totals.video_units.to_le_bytes());
    out.extend_from_slice(&totals.audio_units.to_le_bytes());
    out.extend_from_slice(&totals.bytes.to_le_bytes());
    out.extend_from_slice(&totals.wall_ms.to_le_bytes());
}

fn decode_totals(fields: &mut Fields<'_>) -> Option<Snapshot> {
    let flags = fields.u32()?;
    fields.u32()?;
    let end = Position(fields.u64()?);
    let first = fields.i64()?;
    let last = fields.i64()?;
    let random_access = Position(fields.u64()?);
    let random_access_ms = fields.i64()?;
    let video_dts_ms = fields.i64()?;
    Some(Snapshot {
        end,
        first_dts_ms: (flags & HAS_FIRST != 0).then_some(first),
        end_dts_ms: (flags & HAS_END != 0).then_some(last),
        last_random_access: (flags & HAS_RANDOM_ACCESS != 0).then_some((random_access, random_access_ms)),
        video_dts_ms: (flags & HAS_VIDEO != 0).then_some(video_dts_ms),
        video_units: fields.u64()?,
        audio_units: fields.u64()?,
        bytes: fields.u64()?,
        wall_ms: fields.i64()?,
        closed: flags & CLOSED != 0,
    })
}

/// True if `payload` is exactly `units` well-formed tags.
#[must_use]
pub fn is_tags(payload: &[u8], units: u32) -> bool {
    let mut rest = payload;
    for _ in 0..units {
        match flv::read_tag(rest) {
            Ok(Some(tag)) if !tag.body.is_empty() => rest = &rest[tag.len..],
            _ => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
