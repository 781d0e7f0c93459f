//! RTMP 1.0 without sockets: bytes of a connection in, publishes, media and answers out.
//!
//! # Tour
//!
//! 1. `handshake`: the first 1537 + 1536 bytes, plain or with digests.
//! 2. [`ChunkReader`], [`ChunkWriter`]: chunks to messages and back.
//! 3. `message`: message types, control messages, aggregates, commands.
//! 4. `address`: which domain, app and stream a publish means.
//! 5. [`ServerSession`]: the conversation as a server has it.
//! 6. [`ClientSession`]: the conversation as a publisher or a player has it.
//!
//! # Invariants
//!
//! * Any bytes in any split give the same calls of the [`Handler`] and the same result.
//! * No input panics; memory is bounded by [`Limits`].
//! * Timestamps are handed on as received, 32 bits that wrap. Unwrapping is `timeline`'s.

#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::indexing_slicing
    )
)]

mod address;
mod chunk;
mod chunk_header;
mod chunk_writer;
mod client;
mod command;
mod handshake;
mod message;
mod session;

use alloc::string::String;

pub use chunk::{CHUNK_STREAM_IDS, ChunkError, ChunkReader, DEFAULT_CHUNK_SIZE, MAX_MESSAGE_LEN, Message};
pub use chunk_writer::{ChunkWriter, Headers};
pub use client::{ClientError, ClientSession, HandshakeForm, PublishTarget};
pub use session::ServerSession;

use crate::amf::AmfError;

/// Bounds of one session. What happens at each: the session ends with the named [`SessionError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, aggregates included. Default 16 MiB; RTMP itself cannot say more than 16 MiB − 1.
    pub message_len: u32,
    /// Bytes of all messages together of which some chunks are still to come. Default 32 MiB.
    pub partial_bytes: usize,
    /// Chunk streams that a peer may open. Default 64; real encoders use at most 8.
    pub chunk_streams: usize,
    /// Bytes of answers that the caller has not yet taken from [`ServerSession::output`]. Default 256 KiB.
    pub output_bytes: usize,
    /// Bytes of one command message. Default 64 KiB; real ones stay below 5 KiB.
    pub command_len: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_len: 16 << 20,
            partial_bytes: 32 << 20,
            chunk_streams: 64,
            output_bytes: 256 << 10,
            command_len: 64 << 10,
        }
    }
}

/// What a client asks for when it publishes. Text is as sent, invalid UTF-8 replaced; nothing is percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishRequest {
    /// Application: `app` of `connect` without its query and without slashes around it.
    pub app: String,
    /// Stream name without its query. May be empty or hold any character: judging it is the caller's.
    pub stream: String,
    /// `tcUrl` of `connect`; empty if the client sent none.
    pub tc_url: String,
    /// Query of the app, then that of the stream, joined with `&`; without `?`.
    pub params: String,
    /// Value of `domain=` in the stream's query, else in the app's, else the host of `tc_url` without its port; lower case.
    pub domain: Option<String>,
    /// `flashVer` of `connect`: which program publishes. Empty if the client sent none.
    pub flash_ver: String,
    /// `live`, `record` or `append`; `live` if the client sent none.
    pub publish_type: String,
}

/// What the caller says to a [`PublishRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The publish starts.
    Accept,
    /// The client is told, and the session ends with [`SessionError::Refused`].
    Refuse {
        /// Status code for the client, such as `NetStream.Publish.BadName` or `NetStream.Publish.Denied`.
        code: &'static str,
        /// Why, in words for the client's user.
        reason: String,
    },
}

/// How a publish ended within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpublish {
    /// The client sent `deleteStream`.
    DeleteStream,
    /// The client sent `FCUnpublish`.
    FcUnpublish,
    /// The client sent `closeStream`.
    CloseStream,
}

impl Unpublish {
    /// The command's name, a stable string for logs and journals.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeleteStream => "deleteStream",
            Self::FcUnpublish => "FCUnpublish",
            Self::CloseStream => "closeStream",
        }
    }
}

/// One audio, video or script message, as it would stand in an FLV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaTag<'a> {
    /// 8 audio, 9 video, 18 script data. FLV 10.1 §E.4.1.
    pub tag_type: u8,
    /// Milliseconds as the encoder counts them; wraps at 2^32.
    pub timestamp_ms: u32,
    /// Whole tag body; may be empty. Script data is AMF0 and starts with its name, `@setDataFrame` stripped.
    pub body: &'a [u8],
}

/// Receives what a [`ServerSession`] reads.
pub trait Handler {
    /// Judges a publish. Called at most once between two unpublishes.
    fn on_publish(&mut self, request: &PublishRequest) -> Verdict;
    /// Takes one tag, only between an accepted publish and its end. The body must be copied if it is to be kept.
    fn on_media(&mut self, tag: MediaTag<'_>);
    /// Learns that the client ended the publish. Not called when the connection or the session just ends.
    fn on_unpublish(&mut self, why: Unpublish);
}

/// Why a session ended. After it the connection is to be closed, [`ServerSession::output`] sent first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The first byte is no RTMP version: text, TLS, anything.
    #[error("not RTMP: {}", guess(*first))]
    NotRtmp {
        /// The first byte.
        first: u8,
    },
    /// An RTMP version that nobody speaks.
    #[error("RTMP version {version}, only 3 is spoken")]
    Version {
        /// The version asked for.
        version: u8,
    },
    /// RTMPE, whose encryption protects nothing.
    #[error("encrypted RTMP (version {version}) is not spoken: use RTMPS")]
    Encrypted {
        /// The version asked for: 6, 8 or 9.
        version: u8,
    },
    /// Bytes that are not chunks, or more than the limits allow.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A command that is not AMF, or nests too deep, or says too much.
    #[error("command: {0}")]
    Amf(#[from] AmfError),
    /// A command longer than [`Limits::command_len`].
    #[error("command of {len} bytes, limit {limit}")]
    CommandLen {
        /// Bytes it has.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A command that does not begin with a name.
    #[error("command without a name")]
    CommandName,
    /// A control message that is too short.
    #[error("control message of type {type_id} is too short")]
    Control {
        /// Message type.
        type_id: u8,
    },
    /// An aggregate that ends within a message.
    #[error("aggregate cut short")]
    Aggregate,
    /// `publish` without a stream name.
    #[error("publish without a stream name")]
    PublishName,
    /// `publish` before `connect`.
    #[error("publish before connect")]
    NotConnected,
    /// The caller refused the publish.
    #[error("publish refused with {code}")]
    Refused {
        /// The code of [`Verdict::Refuse`].
        code: &'static str,
    },
    /// The client wants to play.
    #[error("client wants to play, which is not offered")]
    Play,
    /// The client makes us answer and does not read the answers.
    #[error("more than {limit} bytes of answers not taken")]
    OutputFull {
        /// [`Limits::output_bytes`].
        limit: usize,
    },
}

impl SessionError {
    /// A stable short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotRtmp { .. } => "not_rtmp",
            Self::Version { .. } => "version",
            Self::Encrypted { .. } => "encrypted",
            Self::Chunk(error) => error.kind(),
            Self::Amf(_) => "amf",
            Self::CommandLen { .. } => "command_too_long",
            Self::CommandName => "command_malformed",
            Self::Control { .. } => "control_malformed",
            Self::Aggregate => "aggregate_malformed",
            Self::PublishName => "publish_malformed",
            Self::NotConnected => "not_connected",
            Self::Refused { .. } => "publish_refused",
            Self::Play => "play",
            Self::OutputFull { .. } => "output_full",
        }
    }
}

/// What speaks with this first byte.
fn guess(first: u8) -> &'static str {
    match first {
        0x16 => "looks like TLS",
        b'A'..=b'Z' | b'a'..=b'z' => "looks like HTTP or other text",
        _ => "unknown first byte",
    }
}
