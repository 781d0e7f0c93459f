//! [`ChunkWriter`]: messages to chunks.

use alloc::vec::Vec;

use super::chunk::{CHUNK_STREAM_IDS, ChunkError, MAX_MESSAGE_LEN, Message, valid_chunk_size};

/// Which headers a writer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// Type 0 before each message: every message stands on its own, 12 bytes or 16.
    Full,
    /// The shortest that says it, as encoders do: types 1, 2 and 3 where the chunk stream's last message allows.
    Compact,
}

/// What the last message of a chunk stream was.
#[derive(Debug, Clone, Copy)]
struct Sent {
    csid: u32,
    timestamp_ms: u32,
    /// `None` after a type-0 header, whose repetition by type 3 peers read differently.
    delta: Option<u32>,
    len: u32,
    type_id: u8,
    stream_id: u32,
}

/// Cuts messages into chunks. RTMP 1.0 §5.3.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
    headers: Headers,
    sent: Vec<Sent>,
}

impl ChunkWriter {
    /// Starts behind the handshake, with chunks of [`super::DEFAULT_CHUNK_SIZE`] bytes.
    #[must_use]
    pub fn new(headers: Headers) -> Self {
        Self {
            chunk_size: super::DEFAULT_CHUNK_SIZE as usize,
            headers,
            sent: Vec::new(),
        }
    }

    /// Cuts from the next message on into chunks of `size` bytes. Telling the peer is the caller's: `SetChunkSize`.
    ///
    /// # Errors
    /// [`ChunkError::ChunkSize`] if it is 0 or has its highest bit set.
    pub fn set_chunk_size(&mut self, size: u32) -> Result<(), ChunkError> {
        self.chunk_size = valid_chunk_size(size)?;
        Ok(())
    }

    /// Appends one message. `csid` is taken as the nearest of [`CHUNK_STREAM_IDS`].
    ///
    /// # Errors
    /// [`ChunkError::MessageLen`] if the payload is longer than [`MAX_MESSAGE_LEN`]; nothing is appended.
    pub fn write(&mut self, out: &mut Vec<u8>, csid: u32, message: Message<'_>) -> Result<(), ChunkError> {
        let csid = csid.clamp(*CHUNK_STREAM_IDS.start(), *CHUNK_STREAM_IDS.end());
        let len = u32::try_from(message.payload.len()).unwrap_or(u32::MAX);
        if len > MAX_MESSAGE_LEN {
            return Err(ChunkError::MessageLen {
                len,
                limit: MAX_MESSAGE_LEN,
            });
        }
        let now = Sent {
            csid,
            timestamp_ms: message.timestamp_ms,
            delta: None,
            len,
            type_id: message.type_id,
            stream_id: message.stream_id,
        };
        let (format, time) = self.choose(now);
        let extended = (time >= MAX_MESSAGE_LEN).then_some(time);
        write_basic(out, format, csid);
        if format < 3 {
            write_u24(out, time.min(MAX_MESSAGE_LEN));
        }
        if format < 2 {
            write_u24(out, len);
            out.push(message.type_id);
        }
        if format < 1 {
            out.extend_from_slice(&message.stream_id.to_le_bytes());
        }
        write_extended(out, extended);
        for (index, chunk) in message.payload.chunks(self.chunk_size.max(1)).enumerate() {
            if index > 0 {
                write_basic(out, 3, csid);
                write_extended(out, extended);
            }
            out.extend_from_slice(chunk);
        }
        Ok(())
    }

    /// Header type and the time it says; remembers the message.
    fn choose(&mut self, now: Sent) -> (u8, u32) {
        if self.headers == Headers::Full {
            return (0, now.timestamp_ms);
        }
        let Some(last) = self.sent.iter_mut().find(|sent| sent.csid == now.csid) else {
            self.sent.push(now);
            return (0, now.timestamp_ms);
        };
        let before = core::mem::replace(last, now);
        let Some(delta) = now.timestamp_ms.checked_sub(before.timestamp_ms) else {
            return (0, now.timestamp_ms);
        };
        if before.stream_id != now.stream_id {
            return (0, now.timestamp_ms);
        }
        last.delta = Some(delta);
        let same_shape = before.len == now.len && before.type_id == now.type_id;
        match (same_shape, before.delta == Some(delta)) {
            (false, _) => (1, delta),
            (true, false) => (2, delta),
            (true, true) => (3, delta),
        }
    }
}

fn write_basic(out: &mut Vec<u8>, format: u8, csid: u32) {
    let top = format << 6;
    let [_, _, high, low] = csid.saturating_sub(64).to_be_bytes();
    match csid {
        0..=63 => out.push(top | u8::try_from(csid).unwrap_or(2)),
        64..=319 => out.extend_from_slice(&[top, low]),
        _ => out.extend_from_slice(&[top | 1, low, high]),
    }
}

fn write_u24(out: &mut Vec<u8>, value: u32) {
    let [_, a, b, c] = value.to_be_bytes();
    out.extend_from_slice(&[a, b, c]);
}

fn write_extended(out: &mut Vec<u8>, extended: Option<u32>) {
    if let Some(value) = extended {
        out.extend_from_slice(&value.to_be_bytes());
    }
}
