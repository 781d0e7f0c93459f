//! What an index is made of: a [`Group`] for each batch, an [`IndexEntry`] for each tag.

use media::access_unit::{Codec, UnitInfo, UnitKind};
use media::flv;

use super::{BatchKind, Fields};

/// Longest script or configuration body that an index keeps: longer ones are not what a file's head needs.
pub const MAX_INLINE_LEN: usize = 64 << 10;
/// Bytes of an index group's header.
pub const GROUP_HEADER_LEN: usize = 32;
/// Bytes of an index entry.
pub const ENTRY_LEN: usize = 16;

/// One batch in an index: what its header said; entries and inline bodies follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Where the batch begins, bytes behind the segment's first byte.
    pub offset: u32,
    /// Bytes of the batch's payload.
    pub payload_len: u32,
    /// As in the batch.
    pub base_ms: i64,
    /// As in the batch.
    pub wall_ms: i64,
    /// Entries that follow; 0 for a control batch, whose JSON of `payload_len` bytes follows instead.
    pub units: u32,
    /// As in the batch.
    pub kind: BatchKind,
}

impl Group {
    /// The group header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; GROUP_HEADER_LEN] {
        let mut out = [0; GROUP_HEADER_LEN];
        out[0..4].copy_from_slice(&self.offset.to_le_bytes());
        out[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.base_ms.to_le_bytes());
        out[16..24].copy_from_slice(&self.wall_ms.to_le_bytes());
        out[24..28].copy_from_slice(&self.units.to_le_bytes());
        out[28] = self.kind.code();
        out
    }

    /// Reads a group header off the front of `bytes`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let offset = fields.u32()?;
        let payload_len = fields.u32()?;
        let base_ms = fields.i64()?;
        let wall_ms = fields.i64()?;
        let units = fields.u32()?;
        let [kind, _, _, _] = fields.bytes::<4>()?;
        Some(Self {
            offset,
            payload_len,
            base_ms,
            wall_ms,
            units,
            kind: BatchKind::from_code(kind),
        })
    }
}

const KEY: u8 = 1;
const INLINE: u8 = 1 << 1;

/// One tag in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Timestamp as received, milliseconds.
    pub raw_ms: u32,
    /// Bytes of the tag's body, below 2²⁴.
    pub body_len: u32,
    /// See [`UnitInfo::header_len`].
    pub header_len: u8,
    /// See [`UnitInfo::cto_ms`].
    pub cto_ms: i32,
    /// See [`UnitInfo::kind`].
    pub kind: UnitKind,
    /// See [`UnitInfo::codec`].
    pub codec: Codec,
    /// See [`UnitInfo::key`].
    pub key: bool,
    /// True if the body follows the group's entries.
    pub inline: bool,
    /// FLV tag type.
    pub tag_type: u8,
}

impl IndexEntry {
    /// The entry for a tag just classified.
    #[must_use]
    pub fn new(tag_type: u8, raw_ms: u32, body_len: u32, class: &flv::Class) -> Self {
        let kept = !matches!(class.kind, UnitKind::Video | UnitKind::Audio | UnitKind::Other);
        Self {
            raw_ms,
            body_len,
            header_len: class.header_len,
            cto_ms: class.cto_ms,
            kind: class.kind,
            codec: class.codec,
            key: class.key,
            inline: kept && body_len as usize <= MAX_INLINE_LEN,
            tag_type,
        }
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let [l0, l1, l2, _] = self.body_len.to_le_bytes();
        let [r0, r1, r2, r3] = self.raw_ms.to_le_bytes();
        let [c0, c1, c2, c3] = self.cto_ms.to_le_bytes();
        let flags = if self.key { KEY } else { 0 } | if self.inline { INLINE } else { 0 };
        let (kind, codec) = (self.kind as u8, self.codec as u8);
        [
            r0,
            r1,
            r2,
            r3,
            l0,
            l1,
            l2,
            self.header_len,
            c0,
            c1,
            c2,
            c3,
            kind,
            codec,
            flags,
            self.tag_type,
        ]
    }

    /// Reads an entry off the front of `bytes`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let raw_ms = fields.u32()?;
        let [l0, l1, l2, header_len] = fields.bytes::<4>()?;
        let cto_ms = fields.bytes().map(i32::from_le_bytes)?;
        let kind = kind_from_code(fields.u8()?)?;
        let codec = codec_from_code(fields.u8()?)?;
        let flags = fields.u8()?;
        Some(Self {
            raw_ms,
            body_len: u32::from_le_bytes([l0, l1, l2, 0]),
            header_len,
            cto_ms,
            kind,
            codec,
            key: flags & KEY != 0,
            inline: flags & INLINE != 0,
            tag_type: fields.u8()?,
        })
    }

    /// The unit, given its batch's times.
    #[must_use]
    pub fn info(&self, base_ms: i64, wall_ms: i64) -> UnitInfo {
        UnitInfo {
            kind: self.kind,
            codec: self.codec,
            key: self.key,
            dts_ms: base_ms.wrapping_add(i64::from(self.raw_ms)),
            cto_ms: self.cto_ms,
            body_len: self.body_len,
            header_len: self.header_len,
            arrival_ms: wall_ms,
        }
    }

    /// Bytes of the whole tag.
    #[must_use]
    pub fn tag_len(&self) -> usize {
        self.body_len as usize + flv::TAG_OVERHEAD
    }
}

const fn kind_from_code(code: u8) -> Option<UnitKind> {
    Some(match code {
        1 => UnitKind::Video,
        2 => UnitKind::Audio,
        3 => UnitKind::VideoConfig,
        4 => UnitKind::AudioConfig,
        5 => UnitKind::Metadata,
        6 => UnitKind::Text,
        7 => UnitKind::Other,
        _ => return None,
    })
}

const fn codec_from_code(code: u8) -> Option<Codec> {
    Some(match code {
        0 => Codec::Other,
        1 => Codec::Avc,
        2 => Codec::Hevc,
        3 => Codec::Aac,
        4 => Codec::Mp3,
        _ => return None,
    })
}

/// Reads the tag at the front of a verified payload; `None`: it is malformed.
#[must_use]
pub fn read_entry(payload: &[u8]) -> Option<IndexEntry> {
    let tag = flv::read_tag(payload).ok()??;
    let class = flv::classify(tag.tag_type, tag.body)?;
    let body_len = u32::try_from(tag.body.len()).ok()?;
    Some(IndexEntry::new(tag.tag_type, tag.timestamp_ms, body_len, &class))
}
