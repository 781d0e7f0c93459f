//! MP4: plain files with the head composed last, and the fragments that HLS segments hold.
//!
//! A file's body is the coded data of the units taken, concatenated in the order they arrived, and is written while the
//! stream runs. Its head (`ftyp`, `moov`, `free`, the header of `mdat`) needs sizes and times only, so it is composed at
//! the end from [`UnitInfo`]s and put in front; it is a multiple of [`HEAD_ALIGNMENT`] long so that a file system can
//! insert it without moving the body.
//!
//! # Tour
//!
//! 1. [`Layout`]: one answer for each unit, [`Take`]. What writes the body asks it.
//! 2. [`HeadBuilder`]: asks a `Layout` of its own the same questions, notes each sample in a compact log, composes the head.
//! 3. `sample_log`, `tables`: some seven bytes a sample, and the sample tables made from them.
//! 4. [`Fragmenter`]: the same units as an initialisation segment and fragments, for HLS.
//! 5. [`read_init`], [`read_moof`]: what is in such segments; [`Stitcher`]: one file of those of several pushes.
//!    [`Movie`]: what is in a finished file.
//! 6. `track`, `entry`: what a track says of itself; sample entries `avc1`, `hvc1`, `mp4a`. `boxes`: how a box is written.
//!
//! # Times
//!
//! Movie and media run at 1000 ticks a second, as FLV and RTMP do: each distance between two decode times or two
//! presentation times comes out exactly. A timescale equal to the sampling rate would have to round them. The earliest
//! presentation time of all tracks is the movie's time 0; an edit list takes each track there, with an empty edit in front of
//! the one that starts later (ISO/IEC 14496-12 §8.6.6), or, where a file begins with leading pictures, its composition
//! offsets do. Decode times keep their distance to presentation times, unless that would put the first of them behind the
//! earliest presentation time: then they all come earlier by as much.
//!
//! # Invariants
//!
//! * The same units give the same bytes: the creation time is an argument.
//! * `Layout` and `HeadBuilder` never disagree: the second owns one of the first.
//! * A unit is taken, or refused by name; nothing else happens to it.

mod boxes;
mod entry;
mod fragment;
mod head;
mod layout;
mod movie;
mod sample_log;
mod segment;
mod stitch;
mod tables;
mod track;

pub use fragment::{FRAGMENT_BYTES, Fragmenter, State};
pub use head::HeadBuilder;
pub use layout::Layout;
pub use movie::{Movie, Placed};
pub use segment::{BOX_HEADER, Config, FragmentSample, Unreadable, box_header, read_init, read_moof};
pub use stitch::{Gaps, LONGEST_KEPT_GAP_MS, Segment, Span, Stitcher};

#[cfg(doc)]
use crate::access_unit::UnitInfo;

/// The head's length is a multiple of this: the block size of the usual file systems, so that the head can be inserted.
pub const HEAD_ALIGNMENT: usize = 4096;

/// Ticks a second of the movie and of every track.
pub const TIMESCALE: u32 = 1000;

/// Whether a unit goes into this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Take {
    /// Its coded data is the next bytes of the body.
    Yes,
    /// Not an access unit: a decoder configuration (noted), script data, a marker. Nothing of it is in the body, nothing is lost.
    NotAUnit,
    /// An access unit that this format cannot hold, with the reason by name: a gap.
    Skip(&'static str),
    /// An access unit that cannot be in this file but can be first in the next: cut in front of it. Nothing has changed; the
    /// same question gets the same answer.
    NewFile(&'static str),
}

/// The names in [`Take::Skip`] and [`Take::NewFile`].
pub mod reason {
    /// Skip: no usable decoder configuration for the unit's codec came before it.
    pub const NO_DECODER_CONFIGURATION: &str = "no_decoder_configuration";
    /// Skip: not one of H.264, HEVC, AAC, MP3.
    pub const CODEC_NOT_SUPPORTED: &str = "codec_not_supported_in_mp4";
    /// Skip: a unit without coded data.
    pub const EMPTY_UNIT: &str = "empty_unit";
    /// Skip: decode time beyond ±2^52 ms or composition offset beyond ±2^30 ms (12 days).
    pub const TIME_OUT_OF_RANGE: &str = "time_out_of_range";
    /// New file: the track's earlier units are coded otherwise (H.264 then HEVC, AAC then MP3).
    pub const CODEC_CHANGED: &str = "codec_changed";
    /// New file: the track already has [`super::MAX_SAMPLE_ENTRIES`] different decoder configurations.
    pub const TOO_MANY_CONFIGURATIONS: &str = "too_many_decoder_configurations";
    /// New file: the track already has [`super::MAX_TRACK_UNITS`] units.
    pub const TOO_MANY_UNITS: &str = "too_many_units";
    /// New file: 2^32 ms (49 days) or more since the track's last unit.
    pub const PAUSE_TOO_LONG: &str = "pause_too_long";
    /// New file, for fragments: the decoder configuration is another than the initialisation segment's.
    pub const CONFIGURATION_CHANGED: &str = "configuration_changed";
    /// New file: presentation time 2^30 ms (12 days) or more before the track's last decode time.
    pub const TIME_WENT_BACK: &str = "time_went_back";
}

/// Decoder configurations a track can have in one file. One more opens a new file.
pub const MAX_SAMPLE_ENTRIES: usize = 64;

/// Units a track can have in one file: 93 hours at 100 a second. One more opens a new file. It keeps `moov` below 4 GiB.
pub const MAX_TRACK_UNITS: u32 = 1 << 25;

/// Longest decoder configuration, bytes. A longer one is ignored, as a malformed one is: real ones stay below 4 KiB.
pub const MAX_CONFIGURATION_LEN: usize = 16 << 10;

/// Why no head could be composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mp4Error {
    /// No unit was taken: there is nothing to describe, and no file to make.
    #[error("no unit was taken into the file")]
    Empty,
    /// `moov` would be 4 GiB or more. Kept from happening by [`MAX_TRACK_UNITS`] and [`MAX_SAMPLE_ENTRIES`].
    #[error("the movie box would be {0} bytes long")]
    TooLarge(u64),
}
