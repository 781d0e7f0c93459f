//! The wire contract: code generated from `proto/aircheck/v1` and `proto/externalscaler`, and nothing else.
//!
//! Nothing but `shared::wire` and the gRPC services sees these types; the rest of the code speaks in the domain's.

/// Package `aircheck.v1`.
pub mod v1 {
    #![allow(missing_docs, reason = "generated: what is said stands in the .proto")]
    #![allow(unreachable_pub, reason = "generated")]
    #![allow(clippy::all, reason = "generated")]
    #![allow(clippy::pedantic, reason = "generated")]
    #![allow(rustdoc::all, reason = "generated")]

    tonic::include_proto!("aircheck.v1");

    /// The compiled descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/aircheck_descriptor.bin"));
}

/// Package `externalscaler`: what KEDA asks by.
pub mod externalscaler {
    #![allow(missing_docs, reason = "generated: what is said stands in the .proto")]
    #![allow(unreachable_pub, reason = "generated")]
    #![allow(clippy::all, reason = "generated")]
    #![allow(clippy::pedantic, reason = "generated")]
    #![allow(rustdoc::all, reason = "generated")]

    tonic::include_proto!("externalscaler");
}
