//! MP4 heads read back by an independent reader and by players.

mod limits;
mod reader;
mod roundtrip;
mod source;
mod tables;
