//! The media core: RTMP, FLV, MP4, MPEG-TS, HLS, without any input or output of its own.
//!
//! # Tour
//!
//! 1. [`rtmp`]: bytes of a connection in, messages and answers out.
//! 2. [`flv`]: what a tag's body is: headers, access units, script data.
//! 3. [`timeline`]: 32-bit timestamps to one continuous time for each publish.
//! 4. [`access_unit`]: what every muxer eats.
//! 5. [`segmenter`]: where files may be cut.
//! 6. [`mp4`], [`ts`], [`hls`], [`codec`]: access units to bytes.
//!
//! # Invariants
//!
//! * No I/O, no clock, no thread, no randomness: `no_std` keeps the promise.
//! * Any bytes in any split: no panic, and the same result as unsplit.
#![no_std]
extern crate alloc;

pub mod access_unit;
pub mod amf;
pub mod codec;
pub mod flv;
pub mod hls;
pub mod mp4;
pub mod rtmp;
pub mod segmenter;
pub mod timeline;
pub mod ts;
