//! What the coordinator serves: gRPC, and HTTP for operators.

pub(crate) mod grpc;
pub(crate) mod ops;
