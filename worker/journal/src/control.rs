//! What a log says beside media: who published, what is missing and why, how it ended. Stored as JSON in control batches.

use serde::{Deserialize, Serialize};

/// Who publishes what: the first record of every journal, repeated in the header of each segment and index file.
///
/// Its JSON may take up to 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Publish {
    /// The publish's id, also the name of its directory.
    pub id: String,
    /// Push domain.
    pub domain: String,
    /// Application name.
    pub app: String,
    /// Stream name, without its query.
    pub stream: String,
    /// Raw query of application and stream, joined with `&`.
    #[serde(default)]
    pub params: String,
    /// Address of the publisher, `IP:PORT`.
    #[serde(default)]
    pub client: String,
    /// What the encoder calls itself.
    #[serde(default)]
    pub flash_ver: String,
    /// Wall clock when the publish was accepted, milliseconds since the Unix epoch.
    #[serde(default)]
    pub started_ms: i64,
}

/// A record of the log that is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Control {
    /// The publish began.
    Publish(Publish),
    /// Something is missing here. Written by the worker (disk full, torn tail), or made up by the
    /// [`Reader`](crate::Reader) where the log itself is damaged.
    Gap {
        /// Why, in the fixed words of the one who found it: `torn tail`, `damaged`, `disk full`, …
        reason: String,
        /// Media time of the last unit before, milliseconds on the publish's timeline, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_ms: Option<i64>,
        /// Media time of the first unit after, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to_ms: Option<i64>,
        /// Bytes of the log that cannot be read, 0 if the loss happened before the log.
        #[serde(default)]
        lost_bytes: u64,
        /// Audio and video units lost, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_units: Option<u64>,
    },
    /// The publisher's timestamps jumped and were rebased so that media time goes on.
    Jump {
        /// Media time the raw timestamp would have meant, milliseconds.
        from_ms: i64,
        /// Media time it was given.
        to_ms: i64,
    },
    /// Tags that were received and not kept.
    Refused {
        /// What was wrong with them, a fixed word: `empty`, `too long`, ….
        kind: String,
        /// How many.
        count: u64,
    },
    /// The publish ended: the last record of a complete journal.
    Unpublish {
        /// Why it ended.
        reason: String,
        /// Wall clock of the end, milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// A record that a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}
