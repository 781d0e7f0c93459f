//! FLV: tags as they stand in a file, what each one is, and the head of a finished file.
//!
//! # Tour
//!
//! 1. `tag`: the 15 bytes around a body: [`append_tag`], [`read_tag`], [`patch_timestamp`].
//! 2. `classify`: what a body is, from its first bytes: [`classify()`].
//! 3. `base`: which publish time is a file's time 0: [`FileBase`], [`file_time_ms`].
//! 4. `head`: header, `onMetaData` with the key frame index, and the codec headers in force: [`HeadBuilder`].
//!
//! Specification: Adobe Flash Video File Format 10.1 (called FLV 10.1 below) and Enhanced RTMP v2.

mod base;
mod classify;
mod head;
mod tag;

pub use base::{FileBase, LOOK_AHEAD_MS, LOOK_AHEAD_UNITS, file_time_ms};
pub use classify::{Class, classify, is_metadata};
pub use head::{FileStart, HEAD_ALIGN, HeadBuilder, MAX_KEY_FRAMES, keeps, keeps_metadata};
pub use tag::{
    FILE_HEADER_LEN, FileHeader, FlvError, MAX_BODY_LEN, TAG_HEADER_LEN, TAG_OVERHEAD, TagRef, append_file_header,
    append_tag, patch_timestamp, read_file_header, read_tag,
};

/// Tag type of sound. FLV 10.1 §E.4.1.
pub const AUDIO: u8 = 8;
/// Tag type of pictures. FLV 10.1 §E.4.1.
pub const VIDEO: u8 = 9;
/// Tag type of script data. FLV 10.1 §E.4.1.
pub const SCRIPT: u8 = 18;
