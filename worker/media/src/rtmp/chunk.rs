//! [`ChunkReader`]: chunks to messages. RTMP 1.0 §5.3.
//!
//! A message that lies whole in one chunk of the input is handed on where it lies. Others are gathered in a buffer
//! that grows with what has come, not with what was announced, and that lives no longer than the message: between
//! two reads a connection holds only the messages that are still incomplete.

use alloc::vec::Vec;
use core::{mem, ops::Range};

use super::{
    Limits,
    chunk_header::{Fields, MAX_HEADER, basic_header, message_header},
    message,
};

/// Chunk size of both directions until `SetChunkSize` says otherwise. RTMP 1.0 §5.4.1.
pub const DEFAULT_CHUNK_SIZE: u32 = 128;

/// Longest message: its length has 24 bits. Larger chunk sizes mean no more than this one does.
pub const MAX_MESSAGE_LEN: u32 = 0xFF_FFFF;

/// Chunk stream ids that a header can say. RTMP 1.0 §5.3.1.1.
pub const CHUNK_STREAM_IDS: core::ops::RangeInclusive<u32> = 2..=65_599;

/// What a new assembly buffer holds at least, if the message is that long. Large enough that most inter pictures
/// need one allocation, small enough that 64 chunk streams of a liar stay within 1 MiB.
const FIRST_RESERVE: usize = 16 << 10;

/// A type-3 chunk that begins a message right after a type-0 chunk repeats that chunk's absolute timestamp as its
/// delta (§5.3.1.2.4). FFmpeg and GStreamer mean it so when both happen to be equal, which takes a timestamp as
/// small as a frame's duration; librtmp means "same time as before" whatever it was. 10 s tells them apart.
const LARGEST_REPEATED_ABSOLUTE_MS: u32 = 10_000;

/// One message. RTMP 1.0 §6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Message type: 8 audio, 9 video, 20 command…
    pub type_id: u8,
    /// Message stream, 0 for the connection itself.
    pub stream_id: u32,
    /// Milliseconds; wraps at 2^32.
    pub timestamp_ms: u32,
    /// The whole payload, at most [`MAX_MESSAGE_LEN`] bytes.
    pub payload: &'a [u8],
}

/// Why bytes are not chunks, or more than we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// `SetChunkSize` said 0 or set the highest bit.
    #[error("chunk size {0} is not between 1 and 2147483647")]
    ChunkSize(u32),
    /// A message is announced longer than [`Limits::message_len`].
    #[error("message of {len} bytes, limit {limit}")]
    MessageLen {
        /// Bytes announced.
        len: u32,
        /// Bytes allowed.
        limit: u32,
    },
    /// More chunk streams than [`Limits::chunk_streams`].
    #[error("more than {limit} chunk streams")]
    ChunkStreams {
        /// Chunk streams allowed.
        limit: usize,
    },
    /// Incomplete messages together longer than [`Limits::partial_bytes`].
    #[error("more than {limit} bytes of incomplete messages")]
    PartialBytes {
        /// Bytes allowed.
        limit: usize,
    },
    /// The first chunk of a chunk stream leaves out the message's length and type.
    #[error("chunk stream {csid} begins with a type {format} header")]
    NoHeader {
        /// Chunk stream id.
        csid: u32,
        /// Header type, 2 or 3.
        format: u8,
    },
    /// A new message begins on a chunk stream whose last one is incomplete.
    #[error("chunk stream {csid} begins a message within another")]
    Interrupted {
        /// Chunk stream id.
        csid: u32,
    },
    /// A protocol control message is too short.
    #[error("control message of type {type_id} is too short")]
    Control {
        /// Message type.
        type_id: u8,
    },
}

impl ChunkError {
    /// A stable short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ChunkSize(_) => "chunk_size",
            Self::MessageLen { .. } => "message_too_long",
            Self::ChunkStreams { .. } => "too_many_chunk_streams",
            Self::PartialBytes { .. } => "too_many_partial_bytes",
            Self::NoHeader { .. } => "chunk_without_header",
            Self::Interrupted { .. } => "message_interrupted",
            Self::Control { .. } => "control_malformed",
        }
    }
}

/// What a chunk stream remembers for headers that leave things out, and its incomplete message.
#[derive(Debug)]
struct Stream {
    id: u32,
    timestamp: u32,
    delta: u32,
    /// The extended timestamp of the last header that was not of type 3.
    extended: Option<u32>,
    /// The last header that was not of type 3 was of type 0.
    absolute: bool,
    type_id: u8,
    len: u32,
    stream_id: u32,
    /// The message so far; empty between messages.
    buf: Vec<u8>,
}

/// Place within a chunk's payload.
#[derive(Debug, Clone, Copy)]
struct Open {
    index: usize,
    left: usize,
}

/// How far [`ChunkReader::step`] came.
enum Step {
    /// The bytes are used up, or the rest is part of a header.
    More,
    /// A message lies within the bytes.
    Direct { index: usize, at: Range<usize> },
    /// A message is complete in `spare`.
    Assembled { index: usize },
}

/// A whole message: its chunk stream, and where it lies if not in `spare`.
type Whole<'i> = (usize, Option<&'i [u8]>);

/// Reads messages from bytes in any split. `SetChunkSize` and `Abort` are obeyed here and not handed on.
#[derive(Debug)]
pub struct ChunkReader {
    streams: Vec<Stream>,
    chunk_size: usize,
    open: Option<Open>,
    /// Bytes of a header that is still incomplete.
    carry: [u8; MAX_HEADER],
    carry_len: usize,
    /// The message handed on last, and the memory for the next one that has to be gathered.
    spare: Vec<u8>,
    partial: usize,
    max_message: u32,
    max_streams: usize,
    max_partial: usize,
}

impl ChunkReader {
    /// Starts behind the handshake.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            streams: Vec::new(),
            chunk_size: DEFAULT_CHUNK_SIZE as usize,
            open: None,
            carry: [0; MAX_HEADER],
            carry_len: 0,
            spare: Vec::new(),
            partial: 0,
            max_message: limits.message_len,
            max_streams: limits.chunk_streams,
            max_partial: limits.partial_bytes,
        }
    }

    /// Bytes held of messages that are still incomplete.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.partial
    }

    /// Bytes of memory held besides the reader itself.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let table = self.streams.capacity().saturating_mul(size_of::<Stream>());
        let buffers = self
            .streams
            .iter()
            .map(|stream| stream.buf.capacity())
            .fold(table, usize::saturating_add);
        buffers.saturating_add(self.spare.capacity())
    }

    /// Takes bytes off the front of `input` up to the end of the next message. `None`: all of `input` is taken.
    ///
    /// # Errors
    /// Any [`ChunkError`]; nothing sensible can be read behind it.
    pub fn next_message<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Message<'s>>, ChunkError> {
        while let Some((index, direct)) = self.next_whole(input)? {
            let Some(&Stream {
                type_id,
                stream_id,
                timestamp: timestamp_ms,
                ..
            }) = self.streams.get(index)
            else {
                break;
            };
            if !matches!(type_id, message::SET_CHUNK_SIZE | message::ABORT) {
                let payload = direct.unwrap_or(&self.spare);
                return Ok(Some(Message {
                    type_id,
                    stream_id,
                    timestamp_ms,
                    payload,
                }));
            }
            let value = message::leading_u32(direct.unwrap_or(&self.spare)).ok_or(ChunkError::Control { type_id })?;
            if type_id == message::ABORT {
                self.abort(value);
            } else {
                self.chunk_size = valid_chunk_size(value)?;
            }
        }
        Ok(None)
    }

    /// Gives memory back that the messages still incomplete do not need.
    pub fn trim(&mut self) {
        self.spare = Vec::new();
        for stream in &mut self.streams {
            if stream.buf.capacity() > FIRST_RESERVE.saturating_add(stream.buf.len().saturating_mul(2)) {
                stream.buf.shrink_to_fit();
            }
        }
    }

    /// Forgets the incomplete message of a chunk stream. RTMP 1.0 §5.4.2.
    fn abort(&mut self, csid: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == csid) {
            self.partial = self.partial.saturating_sub(stream.buf.len());
            stream.buf = Vec::new();
        }
    }

    /// As `next_message`, with the header bytes kept from the last input in front.
    fn next_whole<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Whole<'i>>, ChunkError> {
        if self.carry_len > 0 {
            // A header has at most MAX_HEADER bytes, so this many more surely complete it.
            let mut joined = [0; 2 * MAX_HEADER];
            let held = self.carry_len;
            let joined_len = joined
                .iter_mut()
                .zip(self.carry.iter().take(held).chain(input.iter().take(MAX_HEADER)))
                .map(|(to, from)| *to = *from)
                .count();
            let bytes = joined.get(..joined_len).unwrap_or_default();
            let (step, used) = self.step(bytes, false)?;
            let rest = bytes.get(used..).unwrap_or_default();
            match (step, used.checked_sub(held)) {
                (step, Some(taken)) => {
                    self.carry_len = 0;
                    *input = input.get(taken..).unwrap_or_default();
                    if let Step::Assembled { index } = step {
                        return Ok(Some((index, None)));
                    }
                }
                // Bytes kept as a possible extended timestamp turned out to hold a message's end.
                (Step::Assembled { index }, None) => {
                    self.carry.copy_within(used..held, 0);
                    self.carry_len = held.saturating_sub(used);
                    return Ok(Some((index, None)));
                }
                (_, None) => {
                    self.keep_slice(rest);
                    *input = &[];
                    return Ok(None);
                }
            }
        }
        let bytes = *input;
        let (step, used) = self.step(bytes, true)?;
        let rest = bytes.get(used..).unwrap_or_default();
        match step {
            Step::Direct { index, at } => {
                *input = rest;
                Ok(Some((index, bytes.get(at))))
            }
            Step::Assembled { index } => {
                *input = rest;
                Ok(Some((index, None)))
            }
            Step::More => {
                self.keep_slice(rest);
                *input = &[];
                Ok(None)
            }
        }
    }

    /// Keeps the front of a header that is still incomplete, and so shorter than `MAX_HEADER`.
    fn keep_slice(&mut self, bytes: &[u8]) {
        self.carry_len = self.carry.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
    }

    /// Reads headers and gathers payload up to the end of a message or of the bytes; says how many bytes it used.
    /// `direct`: a message may be left where it lies.
    fn step(&mut self, bytes: &[u8], direct: bool) -> Result<(Step, usize), ChunkError> {
        let mut used = 0_usize;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some(Open { index, left }) = self.open else {
                let Some((header_len, open)) = self.header(rest)? else {
                    return Ok((Step::More, used));
                };
                used = used.saturating_add(header_len);
                self.open = Some(open);
                continue;
            };
            let Some(stream) = self.streams.get_mut(index) else {
                return Ok((Step::More, used));
            };
            let message_len = stream.len as usize;
            if direct && left == message_len && stream.buf.is_empty() && rest.len() >= left {
                self.open = None;
                let end = used.saturating_add(left);
                return Ok((Step::Direct { index, at: used..end }, end));
            }
            let taken = rest.get(..left.min(rest.len())).unwrap_or_default();
            if stream.buf.capacity() == 0 {
                stream.buf = mem::take(&mut self.spare);
                stream.buf.clear();
            }
            append(&mut stream.buf, taken, message_len);
            used = used.saturating_add(taken.len());
            self.partial = self.partial.saturating_add(taken.len());
            let left = left.saturating_sub(taken.len());
            if left > 0 {
                self.open = Some(Open { index, left });
                return Ok((Step::More, used));
            }
            self.open = None;
            if stream.buf.len() >= message_len {
                self.partial = self.partial.saturating_sub(message_len);
                self.spare = mem::take(&mut stream.buf);
                return Ok((Step::Assembled { index }, used));
            }
        }
    }

    /// Reads one header, if it is whole: its length and the payload that follows. RTMP 1.0 §5.3.1.
    fn header(&mut self, bytes: &[u8]) -> Result<Option<(usize, Open)>, ChunkError> {
        let Some((format, csid, basic_len)) = basic_header(bytes) else {
            return Ok(None);
        };
        let Some(rest) = bytes.get(basic_len..) else {
            return Ok(None);
        };
        let known = self.streams.iter().position(|stream| stream.id == csid);
        let Some((fields, fields_len)) = message_header(format, rest) else {
            // Type 3: everything is as it was, the extended timestamp included, if the peer repeats it.
            let Some((index, stream)) = known.and_then(|index| self.streams.get_mut(index).map(|it| (index, it)))
            else {
                return Err(ChunkError::NoHeader { csid, format });
            };
            let Some(repeated_len) = stream.repeated_extended_len(rest) else {
                return Ok(None);
            };
            if stream.buf.is_empty() {
                stream.advance();
            }
            let open = self.open(index)?;
            return Ok(Some((basic_len.saturating_add(repeated_len), open)));
        };
        let Some(fields) = fields else { return Ok(None) };
        let index = match known {
            Some(index) => index,
            None if format == 2 => return Err(ChunkError::NoHeader { csid, format }),
            None if self.streams.len() >= self.max_streams => {
                return Err(ChunkError::ChunkStreams {
                    limit: self.max_streams,
                });
            }
            None => {
                self.streams.push(Stream::new(csid));
                self.streams.len().saturating_sub(1)
            }
        };
        if let Some(stream) = self.streams.get_mut(index) {
            if !stream.buf.is_empty() {
                return Err(ChunkError::Interrupted { csid });
            }
            stream.begin(&fields);
            if stream.len > self.max_message {
                return Err(ChunkError::MessageLen {
                    len: stream.len,
                    limit: self.max_message,
                });
            }
        }
        let open = self.open(index)?;
        Ok(Some((basic_len.saturating_add(fields_len), open)))
    }

    /// The payload of the chunk whose header was just read. Counted as if it were held even where it will not be,
    /// so that the limit does not depend on how the input is split.
    fn open(&self, index: usize) -> Result<Open, ChunkError> {
        let left = self
            .streams
            .get(index)
            .map_or(0, |stream| (stream.len as usize).saturating_sub(stream.buf.len()));
        let left = left.min(self.chunk_size);
        if self.partial.saturating_add(left) > self.max_partial {
            return Err(ChunkError::PartialBytes {
                limit: self.max_partial,
            });
        }
        Ok(Open { index, left })
    }
}

impl Stream {
    fn new(id: u32) -> Self {
        Self {
            id,
            timestamp: 0,
            delta: 0,
            extended: None,
            absolute: false,
            type_id: 0,
            len: 0,
            stream_id: 0,
            buf: Vec::new(),
        }
    }

    /// Begins a message with a header of type 0, 1 or 2.
    fn begin(&mut self, fields: &Fields) {
        self.extended = fields.extended.then_some(fields.time);
        self.absolute = fields.absolute;
        self.delta = fields.time;
        self.timestamp = if fields.absolute {
            fields.time
        } else {
            self.timestamp.wrapping_add(fields.time)
        };
        if let Some((len, type_id)) = fields.len_and_type {
            (self.len, self.type_id) = (len, type_id);
        }
        if let Some(stream_id) = fields.stream_id {
            self.stream_id = stream_id;
        }
    }

    /// Begins a message with a header of type 3.
    fn advance(&mut self) {
        if !self.absolute || self.delta < LARGEST_REPEATED_ABSOLUTE_MS {
            self.timestamp = self.timestamp.wrapping_add(self.delta);
        }
    }

    /// How many bytes behind a type-3 basic header repeat the extended timestamp: 0 or 4; `None` if that needs more
    /// bytes to tell. Some encoders do not repeat it, against §5.3.1.3; that a payload begins with the very same
    /// four bytes has odds of one in four thousand million.
    fn repeated_extended_len(&self, rest: &[u8]) -> Option<usize> {
        let Some(extended) = self.extended else { return Some(0) };
        let expected = extended.to_be_bytes();
        let same = expected.iter().zip(rest).all(|(expected, byte)| expected == byte);
        match (same, rest.len() >= expected.len()) {
            (true, true) => Some(expected.len()),
            (true, false) => None,
            (false, _) => Some(0),
        }
    }
}

/// Appends to a message of `whole` bytes, doubling its memory as it really grows.
fn append(buf: &mut Vec<u8>, bytes: &[u8], whole: usize) {
    let needed = buf.len().saturating_add(bytes.len());
    if needed > buf.capacity() {
        let capacity = needed
            .max(buf.capacity().saturating_mul(2))
            .max(FIRST_RESERVE)
            .min(whole.max(needed));
        buf.reserve_exact(capacity.saturating_sub(buf.len()));
    }
    buf.extend_from_slice(bytes);
}

/// Any size the specification allows; those beyond the longest message mean no more than that. RTMP 1.0 §5.4.1.
pub(super) fn valid_chunk_size(size: u32) -> Result<usize, ChunkError> {
    match size {
        1..=0x7FFF_FFFF => Ok(size.min(MAX_MESSAGE_LEN) as usize),
        _ => Err(ChunkError::ChunkSize(size)),
    }
}
