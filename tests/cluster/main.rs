//! Three etcd members, three coordinators, three workers as real processes on loopback, dozens of live pushes, and
//! whatever may die.
//!
//! `AIRCHECK_CLUSTER_PUSHES` and `AIRCHECK_CLUSTER_ROUNDS` make it longer (`tests/README.md`). What was pushed is compared with what was recorded, frame by frame.

mod events;
mod faults;
mod http;
mod leaders;
mod pushes;
mod tasks;

use support::cluster::Shape;

/// A cluster as the tests want it: quick to notice what is gone.
const fn shape(members: usize, coordinators: usize, workers: usize) -> Shape<'static> {
    Shape {
        binary: env!("CARGO_BIN_EXE_aircheck"),
        members,
        coordinators,
        workers,
        bucket: false,
        record: "flv",
        coordinator_settings: &["coordinator.heartbeat=500ms", "coordinator.worker_timeout=3s"],
        worker_settings: &["worker.journal.min_free=64MiB"],
    }
}
