//! What the process tests and the load generator share.
//!
//! Nothing here uses the product's own media code: a publisher, a reader or a source that shared a
//! mistake with it would not see it.
//!
//! *Tour*: [`rtmp`] the publishing side of the protocol without I/O; [`source`] numbered frames; [`publisher`] sends
//! them over a socket; [`clips`] real encodes by ffmpeg; [`server`] starts the binary and asks it; [`asker`] asks it; [`etcd`] starts
//! members of one; [`cluster`] starts all of it, with a [`proxy`] on each way; [`flv`] reads FLV
//! files; [`window`] says what lies between two moments; [`programs`] and [`wait`] the rest.

pub mod asker;
pub mod browser;
pub mod clips;
pub mod cluster;
pub mod etcd;
pub mod faults;
pub mod flv;
pub mod frames;
pub mod ledger;
pub mod origin;
pub mod otlp;
pub mod pacer;
pub mod programs;
pub mod proxy;
pub mod publisher;
pub mod receiver;
pub mod rtmp;
pub mod s3;
pub mod server;
pub mod source;
pub mod tencent;
pub mod wait;
pub mod window;
