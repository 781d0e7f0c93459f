//! What the coordinator serves: gRPC, and over HTTP pages for operators, webhooks of origins, media, the same resources as
//! over gRPC as JSON, and the API that speaks Tencent's protocol.

mod compose;
pub(crate) mod forward;
pub(crate) mod grpc;
pub(crate) mod hooks;
pub(crate) mod media;
pub(crate) mod ops;
pub(crate) mod rest;
pub(crate) mod tencent;
