//! The publishing side of RTMP, without I/O: what to send until the server lets the media come,
//! and how a message is cut into chunks. RTMP 1.0 §5 and §7.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// Bytes of a chunk that [`Session`] announces and [`append_message`] is to be called with.
pub const CHUNK_LEN: usize = 4096;
/// Chunk stream that carries audio, so that its deltas stand apart from the video's.
pub const AUDIO_CSID: u8 = 4;
/// Chunk stream that carries video and metadata.
pub const VIDEO_CSID: u8 = 6;
/// Message type of audio.
pub const AUDIO: u8 = 8;
/// Message type of video.
pub const VIDEO: u8 = 9;
/// Message type of AMF0 data.
pub const DATA: u8 = 18;

const COMMAND: u8 = 20;
const COMMAND_CSID: u8 = 3;
const HANDSHAKE_LEN: usize = 1536;
/// The message stream that `createStream` gives; every server counts from 1.
const MESSAGE_STREAM: u32 = 1;
/// A server's reply is a few hundred bytes; more than this is not a reply.
const REPLY_LEN_MAX: usize = 1 << 20;

/// How a message's header says its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// A whole header with the timestamp itself (type 0).
    Absolute(u32),
    /// A short header with the distance from the chunk stream's last message (type 1).
    Delta(u32),
}

/// Appends one message in chunks of `chunk_len` bytes. A time of 2^24 - 1 ms or more goes into the extended field
/// of every chunk. RTMP 1.0 §5.3.1.
pub fn append_message(out: &mut Vec<u8>, csid: u8, stamp: Stamp, message_type: u8, body: &[u8], chunk_len: usize) {
    let (format, time) = match stamp {
        Stamp::Absolute(time) => (0_u8, time),
        Stamp::Delta(time) => (1, time),
    };
    let extended = (time >= 0xFF_FFFF).then(|| time.to_be_bytes());
    out.push(format << 6 | csid);
    out.extend_from_slice(&time.min(0xFF_FFFF).to_be_bytes()[1..]);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    out.push(message_type);
    if format == 0 {
        let stream = if message_type == COMMAND && csid == COMMAND_CSID {
            0
        } else {
            MESSAGE_STREAM
        };
        out.extend_from_slice(&stream.to_le_bytes());
    }
    for (index, chunk) in body.chunks(chunk_len).enumerate() {
        if index > 0 {
            out.push(0xC0 | csid);
        }
        out.extend_from_slice(extended.as_ref().map_or(&[], |bytes| bytes.as_slice()));
        out.extend_from_slice(chunk);
    }
}

/// Appends an AMF0 string.
pub fn amf_string(out: &mut Vec<u8>, text: &str) {
    if text.len() > usize::from(u16::MAX) {
        out.push(12);
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    } else {
        out.push(2);
        out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends an AMF0 number.
pub fn amf_number(out: &mut Vec<u8>, number: f64) {
    out.push(0);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends the key of an AMF0 object's property; its value comes next.
pub fn amf_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
}

/// Where and as what to publish.
#[derive(Debug, Clone)]
pub struct Target {
    /// `tcUrl`, such as `rtmp://127.0.0.1:1935/live`.
    pub tc_url: String,
    /// Application name, with its query if there is one.
    pub app: String,
    /// Stream name, with its query if there is one.
    pub stream: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Connecting,
    Creating,
    Asking,
    Publishing,
}

#[derive(Debug, Default)]
struct Partial {
    len: usize,
    message_type: u8,
    extended: bool,
    body: Vec<u8>,
}

/// One publishing connection: feed what the server says, send what [`Session::take_output`] gives.
#[derive(Debug)]
pub struct Session {
    target: Target,
    phase: Phase,
    input: Vec<u8>,
    output: Vec<u8>,
    partial: BTreeMap<u8, Partial>,
    chunk_len: usize,
    reconnects: bool,
    asked_to_reconnect: bool,
}

impl Session {
    /// Starts with the first two handshake packets as output. `fill` is the handshake's filler.
    #[must_use]
    pub fn new(target: Target, fill: u8) -> Self {
        let mut output = vec![3];
        output.extend_from_slice(&[0; 8]);
        output.resize(1 + HANDSHAKE_LEN, fill);
        Self {
            target,
            phase: Phase::Handshake,
            input: Vec::new(),
            output,
            partial: BTreeMap::new(),
            chunk_len: 128,
            reconnects: false,
            asked_to_reconnect: false,
        }
    }

    /// Says in `connect` that it connects again when asked to. Enhanced RTMP v2, `capsEx`.
    #[must_use]
    pub fn reconnecting(mut self) -> Self {
        self.reconnects = true;
        self
    }

    /// True once the server has asked it to connect again.
    #[must_use]
    pub fn asked_to_reconnect(&self) -> bool {
        self.asked_to_reconnect
    }

    /// Bytes to send now.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// True once the server has said `NetStream.Publish.Start`.
    #[must_use]
    pub fn publishing(&self) -> bool {
        self.phase == Phase::Publishing
    }

    /// Takes what the server sent.
    ///
    /// # Errors
    /// The server refuses, with its words, or says what is not RTMP.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.input.extend_from_slice(bytes);
        if self.phase == Phase::Handshake {
            if self.input.len() < 1 + 2 * HANDSHAKE_LEN {
                return Ok(());
            }
            ensure!(
                self.input[0] == 3,
                "the server's handshake has version {}",
                self.input[0]
            );
            self.output.extend_from_slice(&self.input[1..=HANDSHAKE_LEN]);
            self.input.drain(..=2 * HANDSHAKE_LEN);
            self.phase = Phase::Connecting;
            self.connect();
        }
        while self.take_chunk()? {}
        Ok(())
    }

    /// What to send to end the publish in good order.
    #[must_use]
    pub fn goodbye(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.command(&mut out, "FCUnpublish", 6.0, COMMAND_CSID, |body| {
            amf_string(body, &self.target.stream)
        });
        self.command(&mut out, "deleteStream", 7.0, COMMAND_CSID, |body| {
            amf_number(body, f64::from(MESSAGE_STREAM))
        });
        out
    }

    fn command(&self, out: &mut Vec<u8>, name: &str, transaction: f64, csid: u8, rest: impl FnOnce(&mut Vec<u8>)) {
        let mut body = Vec::new();
        amf_string(&mut body, name);
        amf_number(&mut body, transaction);
        if name != "connect" {
            body.push(5);
        }
        rest(&mut body);
        append_message(out, csid, Stamp::Absolute(0), COMMAND, &body, CHUNK_LEN);
    }

    fn connect(&mut self) {
        let mut out = Vec::new();
        append_message(&mut out, 2, Stamp::Absolute(0), 1, &[0, 0, 0x10, 0], 128);
        // Protocol control messages belong to message stream 0.
        let stream_id = out.len() - 8;
        out[stream_id..stream_id + 4].fill(0);
        self.command(&mut out, "connect", 1.0, COMMAND_CSID, |body| {
            body.push(3);
            for (key, value) in [
                ("app", self.target.app.as_str()),
                ("type", "nonprivate"),
                ("flashVer", "FMLE/3.0 (compatible; support)"),
                ("tcUrl", self.target.tc_url.as_str()),
            ] {
                amf_key(body, key);
                amf_string(body, value);
            }
            if self.reconnects {
                amf_key(body, "capsEx");
                amf_number(body, 1.0);
            }
            body.extend_from_slice(&[0, 0, 9]);
        });
        self.output.extend_from_slice(&out);
    }

    fn create(&mut self) {
        let mut out = Vec::new();
        self.command(&mut out, "releaseStream", 2.0, COMMAND_CSID, |body| {
            amf_string(body, &self.target.stream)
        });
        self.command(&mut out, "FCPublish", 3.0, COMMAND_CSID, |body| {
            amf_string(body, &self.target.stream)
        });
        self.command(&mut out, "createStream", 4.0, COMMAND_CSID, |_| {});
        self.output.extend_from_slice(&out);
    }

    fn publish(&mut self) {
        let mut out = Vec::new();
        // On a chunk stream of its own: the message stream differs from the commands before it.
        self.command(&mut out, "publish", 5.0, 8, |body| {
            amf_string(body, &self.target.stream);
            amf_string(body, "live");
        });
        self.output.extend_from_slice(&out);
    }

    /// Takes one chunk off the input; false when there is no whole one.
    fn take_chunk(&mut self) -> Result<bool> {
        let Some(&first) = self.input.first() else {
            return Ok(false);
        };
        let (format, csid) = (first >> 6, first & 0x3F);
        ensure!(csid >= 2, "the server uses chunk stream ids above 63");
        let header_len = [11, 7, 3, 0][usize::from(format)];
        if self.input.len() < 1 + header_len {
            return Ok(false);
        }
        let header = &self.input[1..=header_len];
        let known = self.partial.entry(csid).or_default();
        let begins = known.body.is_empty();
        let (len, message_type) = if header_len >= 7 {
            (
                usize::from(header[3]) << 16 | usize::from(header[4]) << 8 | usize::from(header[5]),
                header[6],
            )
        } else {
            (known.len, known.message_type)
        };
        let extended = if header_len >= 3 {
            header[..3] == [0xFF; 3]
        } else {
            known.extended
        };
        ensure!(len <= REPLY_LEN_MAX, "the server announces a message of {len} bytes");
        let from = 1 + header_len + if extended { 4 } else { 0 };
        let take = (len - known.body.len().min(len)).min(self.chunk_len);
        if self.input.len() < from + take {
            return Ok(false);
        }
        ensure!(begins || format == 3, "the server begins a message inside another");
        known.len = len;
        known.message_type = message_type;
        known.extended = extended;
        known.body.extend_from_slice(&self.input[from..from + take]);
        let whole = known.body.len() == len;
        let body = if whole {
            std::mem::take(&mut known.body)
        } else {
            Vec::new()
        };
        self.input.drain(..from + take);
        if whole {
            self.on_message(message_type, &body)?;
        }
        Ok(true)
    }

    fn on_message(&mut self, message_type: u8, body: &[u8]) -> Result<()> {
        match message_type {
            1 => {
                let len = u32::from_be_bytes(body.try_into().context("a chunk size of other than 4 bytes")?);
                self.chunk_len = usize::try_from(len)?;
                ensure!(self.chunk_len > 0, "the server set a chunk size of 0");
            }
            // A ping wants its pong with the same 4 bytes of time.
            4 if body.len() >= 6 && body[..2] == [0, 6] => {
                let mut out = Vec::new();
                append_message(
                    &mut out,
                    2,
                    Stamp::Absolute(0),
                    4,
                    &[&[0, 7], &body[2..6]].concat(),
                    CHUNK_LEN,
                );
                self.output.extend_from_slice(&out);
            }
            COMMAND => self.on_command(body)?,
            _ => {}
        }
        Ok(())
    }

    fn on_command(&mut self, body: &[u8]) -> Result<()> {
        let words = strings(body);
        let name = words.first().map_or("", String::as_str);
        let transaction = body
            .get(name.len() + 4..name.len() + 12)
            .and_then(|bytes| bytes.try_into().ok());
        let transaction = transaction.map_or(0.0, f64::from_be_bytes);
        match (self.phase, name) {
            (Phase::Connecting, "_result") => {
                self.phase = Phase::Creating;
                self.create();
            }
            // Answers to releaseStream and FCPublish may come first.
            (Phase::Creating, "_result") if (transaction - 4.0).abs() < 0.5 => {
                self.phase = Phase::Asking;
                self.publish();
            }
            (_, "onStatus") => {
                if words.iter().any(|word| word == "NetStream.Publish.Start") {
                    self.phase = Phase::Publishing;
                } else if words
                    .iter()
                    .any(|word| word == "NetConnection.Connect.ReconnectRequest")
                {
                    self.asked_to_reconnect = true;
                } else if words.iter().any(|word| word == "error") {
                    bail!("refused: {}", words.join(" "));
                }
            }
            (Phase::Creating, "_error") if (transaction - 4.0).abs() > 0.5 => {}
            (_, "_error") => bail!("refused: {}", words.join(" ")),
            _ => {}
        }
        Ok(())
    }
}

/// Every string in an AMF0 command, keys left out: enough to read a status without a whole decoder.
fn strings(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 3 <= body.len() {
        let len = usize::from(body[at + 1]) << 8 | usize::from(body[at + 2]);
        let text = body.get(at + 3..at + 3 + len);
        match (body[at], text.map(std::str::from_utf8)) {
            (2, Some(Ok(text))) if len > 0 => {
                found.push(text.to_owned());
                // The transaction number after the name could look like anything.
                at += 3 + len + if found.len() == 1 { 9 } else { 0 };
            }
            _ => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_and_its_extended_time_repeated() {
        let mut out = Vec::new();
        append_message(&mut out, 6, Stamp::Absolute(0x0100_0000), VIDEO, &[7; 10], 4);
        assert_eq!(out[..4], [6, 0xFF, 0xFF, 0xFF]);
        assert_eq!(out[12..20], [1, 0, 0, 0, 7, 7, 7, 7]);
        assert_eq!(out[20..29], [0xC6, 1, 0, 0, 0, 7, 7, 7, 7]);
        assert_eq!(out[29..], [0xC6, 1, 0, 0, 0, 7, 7]);
    }

    #[test]
    fn a_status_is_read_from_its_strings() {
        let mut body = Vec::new();
        amf_string(&mut body, "onStatus");
        amf_number(&mut body, 0.0);
        body.extend_from_slice(&[5, 3]);
        amf_key(&mut body, "level");
        amf_string(&mut body, "error");
        amf_key(&mut body, "code");
        amf_string(&mut body, "NetStream.Publish.BadName");
        body.extend_from_slice(&[0, 0, 9]);
        assert_eq!(strings(&body), ["onStatus", "error", "NetStream.Publish.BadName"]);
    }
}
