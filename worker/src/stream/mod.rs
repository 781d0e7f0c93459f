//! One publish from its first byte to its last commit: [`core`] decides, [`actor`] acts, [`adopt`] takes up what a crash left.
//! [`ground`] is where its journal lies and its recorders run, `needs` knows what of it is still needed, `fenced` puts journals of lost recordings
//! aside, `writing` keeps documents in order on their way to storage, `figures` counts it, `traced` shows the publish in the traces of its recordings,
//! `vouch` sees to files that the library does not take yet.

pub(crate) mod actor;
pub(crate) mod adopt;
pub(crate) mod core;
pub(crate) mod document;
mod fenced;
mod figures;
pub(crate) mod finish;
pub(crate) mod ground;
mod needs;
mod traced;
mod vouch;
mod writing;
