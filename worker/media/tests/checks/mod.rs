//! What must hold for any bytes: called by the fuzz targets of the same names, and by `corpora.rs` for every input
//! that is kept. A new target is a file here, a line in [`ALL`], one in `fuzz/fuzz_targets`, one in `fuzz/Cargo.toml`.
#![allow(dead_code, unreachable_pub, reason = "each fuzz target uses one of them")]

mod amf;
mod rtmp_session;

pub use amf::amf;
pub use rtmp_session::rtmp_session;

/// Panics if what must hold does not.
pub type Check = fn(&[u8]);

/// Each target's name, which is also that of its corpus, and its check.
pub const ALL: &[(&str, Check)] = &[("amf", amf), ("rtmp_session", rtmp_session)];
