//! What the process tests and the load generator share.
//!
//! Nothing here uses the product's own media code: a publisher, a reader or a source that shared a
//! mistake with it would not see it.
//!
//! *Tour*: [`rtmp`] the publishing side of the protocol without I/O, [`source`] numbered frames and
//! where they go in an FLV file, [`flv`] a reader of FLV files.

pub mod flv;
pub mod rtmp;
pub mod source;
