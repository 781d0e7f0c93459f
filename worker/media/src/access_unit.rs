//! [`AccessUnit`], what every muxer eats, and [`UnitInfo`], what an index keeps of it.
//!
//! Times are milliseconds on the publish's own continuous timeline (see `timeline`): signed,
//! never wrapping, starting wherever the encoder's first timestamp stood.

/// Which of a stream's two elementary streams a unit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// The coding of a unit, as far as muxers must know it. The discriminants are part of the journal's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// H.264 in length-prefixed NAL units (ISO/IEC 14496-15).
    Avc = 1,
    /// H.265 in length-prefixed NAL units (ISO/IEC 14496-15).
    Hevc = 2,
    /// MPEG-4 AAC, one raw data block a unit, no ADTS header.
    Aac = 3,
    /// MPEG-1/2 layer 3, one or more whole frames a unit.
    Mp3 = 4,
    /// Any other: kept in FLV as it came, refused by name elsewhere.
    Other = 0,
}

/// What a journaled tag is. The discriminants are part of the journal's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum UnitKind {
    /// One coded picture.
    Video = 1,
    /// One audio frame.
    Audio = 2,
    /// Video decoder configuration (`avcC` or `hvcC` record).
    VideoConfig = 3,
    /// Audio decoder configuration (`AudioSpecificConfig`).
    AudioConfig = 4,
    /// `onMetaData`.
    Metadata = 5,
    /// Other script data: `onTextData`, `onCaption`, cue points.
    Text = 6,
    /// A tag without an access unit that only FLV keeps: end of sequence, command frames, HDR metadata.
    Other = 7,
}

/// One coded picture or audio frame, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// Which elementary stream.
    pub track: Track,
    /// How it is coded.
    pub codec: Codec,
    /// Decode time, milliseconds on the publish's timeline.
    pub dts_ms: i64,
    /// Presentation time less decode time, milliseconds; negative where the encoder says so. 0 for audio.
    pub cto_ms: i32,
    /// True where decoding can start here: a key picture; always for audio.
    pub key: bool,
    /// The coded bytes, untouched: length-prefixed NAL units, a raw AAC block, MP3 frames.
    pub data: &'a [u8],
}

/// What the index keeps of each journaled tag after its body is gone: enough for `moov` and for FLV's key frame list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitInfo {
    /// What the tag is.
    pub kind: UnitKind,
    /// How it is coded.
    pub codec: Codec,
    /// True for a picture where decoding can start and for every audio frame.
    pub key: bool,
    /// Decode time, milliseconds on the publish's timeline.
    pub dts_ms: i64,
    /// Presentation time less decode time, milliseconds.
    pub cto_ms: i32,
    /// Bytes of the whole FLV tag body, codec header included. At most 16 MiB.
    pub body_len: u32,
    /// Bytes of the codec header in front of the coded data within the body.
    pub header_len: u8,
    /// Wall clock at arrival, milliseconds since the Unix epoch.
    pub arrival_ms: i64,
}

impl UnitInfo {
    /// Bytes of coded data: what an MP4 sample holds.
    #[must_use]
    pub fn data_len(&self) -> u32 {
        self.body_len.saturating_sub(u32::from(self.header_len))
    }

    /// Bytes of the whole FLV tag: 11 of header, the body, 4 of back pointer. FLV 10.1 §E.4.1.
    #[must_use]
    pub fn tag_len(&self) -> u64 {
        u64::from(self.body_len) + 15
    }
}
