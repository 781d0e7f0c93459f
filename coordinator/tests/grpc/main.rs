//! The coordinator over real gRPC on loopback and an embedded store on disk.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bad_input;
mod catalog;
mod compositions;
mod credentials;
mod events;
mod forwarding;
mod http;
mod leases;
mod library;
mod more_input;
mod operators;
mod pulls;
mod reflect;
mod renewal;
mod scaler;
mod sessions;
mod tasks;
mod world;
