//! MP4 heads read back by an independent reader and by players.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod fragments;
mod limits;
mod players;
mod reader;
mod roundtrip;
mod source;
mod stitch;
mod tables;
