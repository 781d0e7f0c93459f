//! Where rendered bytes go: [`Objects`], a local directory or object storage, by the URL alone.
//!
//! A media file's body is stored while the stream runs; its head (`moov`, `onMetaData`) can only be composed at the end and goes in
//! front last. How that is done without writing the body twice is the sink's own affair:
//!
//! * [`local`]: a staged file; the head is inserted in front of it, and a rename publishes it. All within the step that rendered it.
//! * [`remote`]: a multipart upload. A step gives back what is to be stored, and the recorder goes on when it is; `plan` says which
//!   bytes go to which part, `spool` keeps on the local disk what cannot go yet, `join` makes the parts an object, `health` and `pace` hold
//!   uploads back.
//! * `backup`: a second place, for when the first does not answer for long.
//! * `sites`: several places, and which of them a key lies in.
//! * `growing`: a file composed of what is stored already.
//! * `turns`: who may store now, and who waits.
//! * `shelf`: small objects, and when everything that was written is safe.
//! * [`abandoned`]: multipart uploads that nobody will complete are aborted, if not today then later.

pub(crate) mod abandoned;
mod backup;
mod growing;
mod health;
mod join;
pub mod local;
mod pace;
mod plan;
pub mod remote;
mod shelf;
mod sites;
mod spool;
mod turns;

use std::io;

pub use backup::Needs;
pub(crate) use backup::{Mark, Way};
pub(crate) use growing::{Growing, Stretch};
pub use local::{Local, Staged};
pub(crate) use pace::Pace;
pub(crate) use plan::{HELD, Plan};
pub(crate) use remote::{Complete, Object, Store, StoreError, Stored, Turn};
pub use remote::{Limits, Remote};
pub(crate) use shelf::{Found, Shelf, Synced};
pub use sites::Sites;
pub(crate) use spool::{Rest, Spool, Upload, spill};
pub(crate) use turns::Haste;

/// Where objects go. Clones share everything.
#[derive(Debug, Clone)]
pub enum Objects {
    /// A directory of this machine.
    Local(Local),
    /// A bucket.
    Remote(Remote),
}

impl Objects {
    /// The same place, for media of this storage class: a word for services, which a directory has no use for.
    pub(crate) fn with_class(&self, class: Option<&str>) -> Self {
        match self {
            Self::Local(local) => Self::Local(local.clone()),
            Self::Remote(remote) => Self::Remote(remote.with_class(class)),
        }
    }

    /// True for the second of two places.
    pub(crate) fn is_second(&self) -> bool {
        matches!(self, Self::Remote(remote) if remote.is_second())
    }

    /// What lies under the key of a small object, in each place that answers: at once from a directory, as long as it takes from a bucket.
    ///
    /// # Errors
    /// Where the disk does not give it.
    pub(crate) async fn each(&self, key: &str) -> io::Result<Found> {
        match self {
            Self::Local(local) => Ok(Found::alone(local.first(&[key.to_owned()])?.map(|(_, bytes)| bytes))),
            Self::Remote(remote) => Ok(remote.each(key).await),
        }
    }

    /// Stores a small object, in place of an older one: at once in a directory, as long as it takes in a bucket.
    ///
    /// # Errors
    /// Where the disk refuses it.
    pub(crate) async fn put(&self, key: &str, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Local(local) => local.put(key, &bytes),
            Self::Remote(remote) => {
                let object = Object {
                    key: key.to_owned(),
                    chunks: vec![bytes.into()],
                    verify: false,
                };
                remote.insist(object).await;
                Ok(())
            }
        }
    }
}
