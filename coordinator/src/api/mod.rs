//! What the coordinator serves: gRPC, and HTTP for operators and origins.

pub(crate) mod grpc;
pub(crate) mod hooks;
pub(crate) mod ops;
