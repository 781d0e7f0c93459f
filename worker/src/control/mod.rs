//! The worker's side of the coordinator: leases, commits, and the session that says it is alive and what it carries.

pub(crate) mod agent;
pub(crate) mod line;
pub(crate) mod load;
pub(crate) mod order;
