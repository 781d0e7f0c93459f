//! The coordinator role: owns templates, rules, stream leases and the media library. It never sees media.
//!
//! # Tour
//!
//! 1. `catalog`: templates and rules, and what they say about a stream (pure).
//! 2. `doors`, `push_key`: who may publish (pure).
//! 3. `fleet`: what is believed of each worker, and when it is no longer believed (pure).
//! 4. `leases`: which publish holds which stream, and what it records (pure).
//! 5. `tasks`: what is recorded between two moments, when it begins and ends (pure).
//! 6. `compositions`: new files of pieces of stored ones, and which worker makes them (pure).
//! 7. `pulls`: streams that are fetched from origins, and which worker fetches each (pure).
//! 8. [`scaler`]: how many workers there should be for what is carried (pure).
//! 9. `media`: finished files: links to them, where they lie, how they go.
//! 10. `election`: which of several coordinators leads, and the store as a leader may use it.
//! 11. `planner`: what a leader decides, one thing after the other (pure).
//! 12. `actors`: the shell: one actor that asks the planner, a committer that makes decisions durable in order, a supervisor.
//! 13. `api`: gRPC services, the way to the leader for those that do not lead, HTTP for operators, webhooks of origins, media,
//!     the HTTP API that speaks Tencent's protocol.
//! 14. `secrets`: the key that secrets in the store are sealed with.
//! 15. [`start`]: puts them together.
//!
//! # Invariants
//!
//! * A decision is answered only when it is durable, and decisions become durable in the order in which they were made.
//! * Only the leader decides, and the store checks in each transaction that it still leads.
//! * Only the coordinator raises an epoch; every commit to the library shows one and is checked against the store.
//! * No media, no worker code: workers are reached over gRPC alone, also within one process.

mod actors;
mod api;
mod catalog;
mod compositions;
mod doors;
mod election;
mod events;
mod fleet;
#[cfg(feature = "fuzz")]
pub mod fuzz {
    //! What must hold for any bytes that a stranger sends.
    pub use crate::api::tencent::checks::{parameters, request};
}
mod leases;
mod media;
mod planner;
mod pulls;
mod push_key;
pub mod scaler;
mod secrets;
#[cfg(feature = "sim")]
pub mod sim;
mod start;
mod stitches;
mod tasks;

pub use secrets::SecretsError;
pub use start::{Deps, Running, StartError, start, start_among_others, start_over};
