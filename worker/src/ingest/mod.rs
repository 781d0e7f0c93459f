//! Ingest: sockets to journals, on one thread of its own.
//!
//! A recorder has the time that a player has not. So sockets are not watched for readiness, packet by packet; the
//! [`poller`] visits each when enough has gathered (`pace`), reads it in one go, lets the pure RTMP session take it apart
//! (`connection`), and writes what came to the stream's journal in one go. Nothing downstream can slow this thread: recorders
//! read the journal when they like. A slow disk does, and then TCP holds the publishers back; nobody is dropped for it.

mod connection;
pub(crate) mod feed;
mod leave;
mod pace;
pub mod poller;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use journal::{Progress, Publish};

pub use feed::Feed;

/// Bounds and times of the ingest thread.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the journals; each publish gets its own below.
    pub journals: PathBuf,
    /// How journals are laid out.
    pub journal: journal::Options,
    /// Connections at once; further ones wait in the listener's backlog.
    pub max_connections: usize,
    /// A client that has not begun to publish by then is closed.
    pub command_timeout: Duration,
    /// A publisher silent for this long gives way to another of the same stream.
    pub silence: Duration,
    /// A publisher silent for this long is closed.
    pub publish_timeout: Duration,
    /// Below this much free space no publish is accepted; below half of it, publishes are ended one by one. Bytes.
    pub min_free: u64,
    /// While true no publish is accepted: the journals have used up their budget.
    pub over_budget: Arc<std::sync::atomic::AtomicBool>,
    /// What RTMP clients may send.
    pub limits: media::rtmp::Limits,
}

/// A publish that has a journal, as the rest of the worker sees it.
#[derive(Debug, Clone)]
pub struct Live {
    /// What the publisher said of itself.
    pub publish: Publish,
    /// The journal's directory.
    pub dir: PathBuf,
    /// How far the journal goes.
    pub progress: Arc<Progress>,
}

/// What the ingest thread tells the worker.
#[derive(Debug)]
pub enum Event {
    /// A publish began and is being journaled.
    Published(Live),
    /// Its journal is closed; nothing more comes.
    Unpublished {
        /// Which publish.
        publish_id: String,
        /// Why it ended, in the words of the journal's last record.
        reason: String,
    },
    /// No publish is live and none will be accepted: the answer to [`Command::Drain`].
    Drained,
}

/// What the worker tells the ingest thread.
#[derive(Debug)]
pub enum Command {
    /// Journal what is fetched from an origin. It begins with its first tag, and counts as a connection.
    Feed(Feed),
    /// End one publish and close its connection.
    Close {
        /// Which publish.
        publish_id: String,
        /// Why; the client is told.
        reason: String,
    },
    /// Accept nothing more and let every publisher go: one whose client can is asked to connect again, another is closed when its next
    /// key picture has come, where it loses least.
    Drain {
        /// Who is still here then is closed.
        within: Duration,
    },
    /// Accept publishes again.
    Resume,
    /// End the thread.
    Stop,
}
