//! The coordinator's actor and the tasks around it: thin shells over the pure cores.

pub(crate) mod committer;
pub(crate) mod coordinator;
pub(crate) mod load;
pub(crate) mod marker;
mod perform;
pub(crate) mod stitches;
pub(crate) mod supervisor;
pub(crate) mod tasks;
