//! The coordinator role: owns templates, rules, stream leases and the media library. It never sees media.
//!
//! # Tour
//!
//! 1. `catalog`: templates and rules, and what they say about a stream (pure).
//! 2. `fleet`: what is believed of each worker, and when it is no longer believed (pure).
//! 3. `leases`: which publish holds which stream, and what it records (pure).
//! 4. `tasks`: what is recorded between two moments, when it begins and ends (pure).
//! 5. `pulls`: streams that are fetched from origins, and which worker fetches each (pure).
//! 6. [`scaler`]: how many workers there should be for what is carried (pure).
//! 7. `actors`: the shell: one actor that decides, a committer that makes decisions durable in order, a supervisor.
//! 8. `api`: gRPC services, HTTP for operators, webhooks of origins.
//! 9. [`start`]: puts them together.
//!
//! # Invariants
//!
//! * A decision is answered only when it is durable, and decisions become durable in the order in which they were made.
//! * Only the coordinator raises an epoch; every commit to the library shows one and is checked against the store.
//! * No media, no worker code: workers are reached over gRPC alone, also within one process.

mod actors;
mod api;
mod catalog;
mod fleet;
mod leases;
mod pulls;
pub mod scaler;
mod start;
mod tasks;

pub use start::{Deps, Running, StartError, start, start_over};
