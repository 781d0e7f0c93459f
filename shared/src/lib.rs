//! What coordinator and worker must agree on.
//!
//! # Tour
//!
//! 1. [`ids`] and [`time`]: names, identities, and the clocks as arguments.
//! 2. [`template`], [`rule`] and [`task`]: how to record, which streams, and when.
//! 3. [`recording`] and [`lease`]: what a recording is, and who may write to it. [`pull`]: streams fetched from an origin.
//! 4. [`wire`]: between these types and those of gRPC.
//! 5. [`config`] and [`auth`]: every setting, read once; credentials.
//! 6. [`store`] and [`objects`]: where metadata and media lie.
//! 7. [`servers`]: several coordinators as one, for workers and commands. [`access`] and [`secret`]: keys of the HTTP API, and how secrets are kept.
//! 8. [`supervise`], [`shutdown`], [`telemetry`]: how parts end, how the process ends, what it tells.
//!
//! # Invariants
//!
//! * No actor, no media, no role: two users or it does not belong here.
//! * Time, ids and randomness are arguments.

pub mod access;
pub mod auth;
pub mod composition;
pub mod config;
pub mod ids;
pub mod lease;
pub mod objects;
pub mod playlist;
pub mod pull;
pub mod recording;
pub mod rule;
pub mod secret;
pub mod servers;
pub mod shutdown;
pub mod store;
pub mod supervise;
pub mod task;
pub mod telemetry;
pub mod template;
pub mod time;
pub mod trace;
pub mod wire;
