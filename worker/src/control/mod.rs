//! The worker's side of the coordinator: leases, commits, and the session that says it is alive.

pub(crate) mod agent;
