//! What must hold for any bytes: called by the fuzz targets of the same names, and by `corpora.rs` for every input
//! that is kept. A new target is a file here, a line in [`ALL`], one in `fuzz/fuzz_targets`, one in `fuzz/Cargo.toml`.
#![allow(dead_code, unreachable_pub, reason = "each fuzz target uses one of them")]

mod amf;
mod codec_config;
mod flv_tag;
mod rtmp_session;
mod ts_segment;

pub use amf::amf;
pub use codec_config::codec_config;
pub use flv_tag::flv_tag;
pub use rtmp_session::rtmp_session;
pub use ts_segment::ts_segment;

/// Panics if what must hold does not.
pub type Check = fn(&[u8]);

/// Each target's name, which is also that of its corpus, and its check.
pub const ALL: &[(&str, Check)] = &[
    ("amf", amf),
    ("codec_config", codec_config),
    ("flv_tag", flv_tag),
    ("rtmp_session", rtmp_session),
    ("ts_segment", ts_segment),
];
