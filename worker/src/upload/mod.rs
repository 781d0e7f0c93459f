//! Where rendered bytes go: [`Objects`] holds finished objects under stable keys, [`Staged`] grows one of them.
//!
//! A media file's body is written while the stream runs; its head (`moov`, `onMetaData`) can only be composed at the end
//! and goes in front last. How that is done without writing the body twice is the sink's own affair.

pub mod local;

pub use local::{Objects, Staged};
