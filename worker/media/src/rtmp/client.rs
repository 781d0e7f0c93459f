//! [`ClientSession`]: the conversation as a publisher or a player has it. RTMP 1.0 §7.3.1, §7.2.2.1.
//!
//! A publisher says `connect`, `releaseStream`, `FCPublish`, `createStream`, `publish`, as FFmpeg does; then media goes out,
//! either through [`ClientSession::send`] or cut beforehand with a [`ChunkWriter`] for [`ClientSession::stream_id`]. A player
//! says `connect`, `createStream`, `play`; then media comes in through [`ClientSession::feed_media`].

use alloc::{format, string::String, vec::Vec};

use super::{
    ChunkError, ChunkReader, ChunkWriter, Headers, Limits, MediaTag, Message,
    handshake::{self, PACKET_LEN, Scheme},
    message::{self, Aggregate, Command},
    session::WINDOW_ACK_SIZE,
};
use crate::amf::{self, AmfError, Value};

/// Transactions by which answers are known.
const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE_STREAM: f64 = 4.0;
const PUBLISH: f64 = 5.0;
const FC_UNPUBLISH: f64 = 6.0;
const DELETE_STREAM: f64 = 7.0;
const PLAY: f64 = 8.0;

/// `play` of what is live, and of nothing recorded. RTMP 1.0 §7.2.2.1.
const LIVE_ONLY: f64 = -1.0;
/// What a player says that it buffers, milliseconds: some servers send so much at once.
const BUFFER_MS: u32 = 3_000;

/// Chunk streams by use, as FFmpeg has them.
const CONTROL_CSID: u32 = 2;
const COMMAND_CSID: u32 = 3;
const AUDIO_CSID: u32 = 4;
const DATA_CSID: u32 = 5;
const VIDEO_CSID: u32 = 6;

/// Form of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeForm {
    /// Random bytes, echoed: RTMP 1.0 §5.2.
    Plain,
    /// HMAC-SHA256 digests, the layout in which bytes 8 to 11 name the place.
    DigestFirst,
    /// HMAC-SHA256 digests, the layout in which bytes 772 to 775 name the place.
    DigestSecond,
}

/// What the session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Publish,
    Play,
}

/// What to publish, or play, where.
#[derive(Debug, Clone)]
pub struct PublishTarget {
    /// Application, with its query if it has one.
    pub app: String,
    /// URL up to and including the application.
    pub tc_url: String,
    /// Stream name, with its query if it has one.
    pub stream: String,
    /// What we call ourselves.
    pub flash_ver: String,
    /// Chunk size to announce and use, 1 to 2^31 − 1.
    pub chunk_size: u32,
    /// Headers of our chunks.
    pub headers: Headers,
    /// How to begin.
    pub handshake: HandshakeForm,
}

/// Why a client session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server answers with another version.
    #[error("server speaks RTMP version {0}")]
    Version(u8),
    /// Bytes that are not chunks, or a payload that is too long to be sent.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// An answer that is not AMF.
    #[error("answer: {0}")]
    Amf(#[from] AmfError),
    /// The server said no.
    #[error("refused with {code}: {description}")]
    Refused {
        /// Its status code.
        code: String,
        /// Its words.
        description: String,
    },
    /// An aggregate message that ends within a message.
    #[error("aggregate cut short")]
    Aggregate,
    /// A command longer than [`Limits::command_len`].
    #[error("a command of {len} bytes, at most {limit} are taken")]
    CommandLen {
        /// Its length, bytes.
        len: usize,
        /// The bound, bytes.
        limit: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    Hello,
    Echo { left: usize },
    Open,
}

/// One connection of ours to a server.
#[derive(Debug)]
pub struct ClientSession {
    purpose: Purpose,
    limits: Limits,
    target: PublishTarget,
    random: [u8; 32],
    stage: Stage,
    hello: Vec<u8>,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: Vec<u8>,
    stream_id: Option<u32>,
    ready: bool,
    ended: bool,
    /// Bytes after which the server wants to hear from us.
    window: u32,
    received: u64,
    acknowledged: u64,
}

impl ClientSession {
    /// Starts a session; [`Self::output`] holds the first bytes at once. `random` seeds the handshake's bytes.
    #[must_use]
    pub fn new(target: PublishTarget, random: [u8; 32]) -> Self {
        Self::begin(Purpose::Publish, target, random, Limits::default())
    }

    /// Starts a session that plays the live stream at `target`. `limits` bound what the server may send; the bound on
    /// [`Self::output`] is the caller's, who sends it.
    #[must_use]
    pub fn player(target: PublishTarget, random: [u8; 32], limits: Limits) -> Self {
        Self::begin(Purpose::Play, target, random, limits)
    }

    fn begin(purpose: Purpose, target: PublishTarget, random: [u8; 32], limits: Limits) -> Self {
        let mut output = Vec::new();
        let scheme = match target.handshake {
            HandshakeForm::Plain => None,
            HandshakeForm::DigestFirst => Some(Scheme::Zero),
            HandshakeForm::DigestSecond => Some(Scheme::One),
        };
        handshake::hello(scheme, random, &mut output);
        Self {
            purpose,
            limits,
            writer: ChunkWriter::new(target.headers),
            target,
            random,
            stage: Stage::Version,
            hello: Vec::new(),
            reader: ChunkReader::new(&limits),
            output,
            stream_id: None,
            ready: false,
            ended: false,
            window: WINDOW_ACK_SIZE,
            received: 0,
            acknowledged: 0,
        }
    }

    /// Takes what the connection received, in any split. Media that comes is left out.
    ///
    /// # Errors
    /// Says why there is nothing to be had from this server; the connection is to be closed.
    pub fn feed(&mut self, input: &[u8]) -> Result<(), ClientError> {
        self.feed_media(input, &mut |_| {})
    }

    /// Takes what the connection received, in any split, and hands on the media in it: timestamps as received, data
    /// messages as they stand in a file.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn feed_media(&mut self, mut input: &[u8], media: &mut dyn FnMut(MediaTag<'_>)) -> Result<(), ClientError> {
        self.received = self.received.wrapping_add(input.len() as u64);
        if self.stage != Stage::Open {
            input = self.shake_hands(input)?;
        }
        while let Some(message) = self.reader.next_message(&mut input)? {
            let Message { type_id, payload, .. } = message;
            if matches!(type_id, message::COMMAND_AMF0 | message::COMMAND_AMF3)
                && payload.len() > self.limits.command_len
            {
                return Err(ClientError::CommandLen {
                    len: payload.len(),
                    limit: self.limits.command_len,
                });
            }
            let command = match type_id {
                message::AUDIO | message::VIDEO | message::DATA_AMF0 | message::DATA_AMF3 => {
                    hand_on(type_id, message.timestamp_ms, payload, media);
                    None
                }
                message::AGGREGATE => {
                    let mut aggregate = Aggregate::new(message.timestamp_ms, payload);
                    while let Some(tag) = aggregate.next_tag().map_err(|_| ClientError::Aggregate)? {
                        hand_on(tag.tag_type, tag.timestamp_ms, tag.body, media);
                    }
                    None
                }
                message::WINDOW_ACK_SIZE => {
                    let window = message::leading_u32(payload).unwrap_or(0);
                    self.window = if window == 0 { WINDOW_ACK_SIZE } else { window };
                    None
                }
                message::COMMAND_AMF0 => Command::read(payload)?,
                message::COMMAND_AMF3 => Command::read(message::without_selector(payload))?,
                message::USER_CONTROL => {
                    match message::user_control(payload) {
                        Some((message::PING_REQUEST, &[t0, t1, t2, t3, ..])) => {
                            let [e0, e1] = message::PING_RESPONSE.to_be_bytes();
                            self.write(CONTROL_CSID, message::USER_CONTROL, 0, 0, &[e0, e1, t0, t1, t2, t3])?;
                        }
                        Some((message::STREAM_EOF, _)) => self.ended = true,
                        _ => {}
                    }
                    None
                }
                _ => None,
            };
            if let Some(command) = command {
                self.on_answer(&command)?;
            }
        }
        self.reader.trim();
        self.acknowledge()
    }

    /// A player acknowledges what it received, at most once a call. RTMP 1.0 §5.4.3.
    fn acknowledge(&mut self) -> Result<(), ClientError> {
        let unacknowledged = self.received.wrapping_sub(self.acknowledged);
        if self.purpose != Purpose::Play || self.stage != Stage::Open || unacknowledged < u64::from(self.window) {
            return Ok(());
        }
        self.acknowledged = self.received;
        // The total modulo 2^32.
        let total = u32::try_from(self.received & u64::from(u32::MAX)).unwrap_or(0);
        self.write(CONTROL_CSID, message::ACKNOWLEDGEMENT, 0, 0, &total.to_be_bytes())
    }

    /// Bytes to send; the caller takes them away.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// True once the server takes media, or has agreed to send it.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// True once the server has said that the stream that is played ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The message stream to publish on, known once [`Self::ready`].
    #[must_use]
    pub fn stream_id(&self) -> Option<u32> {
        self.stream_id
    }

    /// Appends one tag to the output. Script data goes as it is, so `@setDataFrame` is the caller's.
    ///
    /// # Errors
    /// [`ChunkError::MessageLen`] if the body is longer than [`super::MAX_MESSAGE_LEN`]; nothing is appended.
    pub fn send(&mut self, tag: MediaTag<'_>) -> Result<(), ClientError> {
        let stream_id = self.stream_id.unwrap_or(1);
        self.write(
            media_csid(tag.tag_type),
            tag.tag_type,
            stream_id,
            tag.timestamp_ms,
            tag.body,
        )
    }

    /// Appends `FCUnpublish` and `deleteStream`: the publish ends.
    ///
    /// # Errors
    /// [`ChunkError::MessageLen`] if the stream name is longer than a message can be.
    pub fn unpublish(&mut self) -> Result<(), ClientError> {
        let name = Value::String(self.target.stream.clone());
        let stream_id = Value::Number(f64::from(self.stream_id.unwrap_or(1)));
        self.command("FCUnpublish", FC_UNPUBLISH, 0, &[Value::Null, name])?;
        self.command("deleteStream", DELETE_STREAM, 0, &[Value::Null, stream_id])?;
        self.ready = false;
        Ok(())
    }

    /// Reads S0, S1 and S2, answers S1, asks to connect, and returns what lies behind.
    fn shake_hands<'a>(&mut self, mut input: &'a [u8]) -> Result<&'a [u8], ClientError> {
        if let (Stage::Version, Some((version, rest))) = (self.stage, input.split_first()) {
            if *version != handshake::VERSION {
                return Err(ClientError::Version(*version));
            }
            input = rest;
            self.stage = Stage::Hello;
        }
        if self.stage == Stage::Hello {
            let wanted = PACKET_LEN.saturating_sub(self.hello.len());
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            self.hello.extend_from_slice(taken);
            input = rest;
            let Some(s1) = self.hello.first_chunk() else {
                return Ok(input);
            };
            handshake::reply(s1, self.random, &mut self.output);
            self.hello = Vec::new();
            self.stage = Stage::Echo { left: PACKET_LEN };
        }
        if let Stage::Echo { left } = &mut self.stage {
            let (skipped, rest) = input.split_at((*left).min(input.len()));
            input = rest;
            *left = left.saturating_sub(skipped.len());
            if *left == 0 {
                self.stage = Stage::Open;
                self.connect()?;
            }
        }
        Ok(input)
    }

    fn connect(&mut self) -> Result<(), ClientError> {
        let size = self.target.chunk_size;
        self.write(CONTROL_CSID, message::SET_CHUNK_SIZE, 0, 0, &size.to_be_bytes())?;
        self.writer.set_chunk_size(size)?;
        let text = |name: &str, text: &str| (String::from(name), Value::String(String::from(text)));
        let number = |name: &str, number| (String::from(name), Value::Number(number));
        let mut object: Vec<_> = [
            text("app", &self.target.app),
            text("flashVer", &self.target.flash_ver),
            text("tcUrl", &self.target.tc_url),
        ]
        .into();
        match self.purpose {
            Purpose::Publish => object.push(text("type", "nonprivate")),
            // Every codec that there is a bit for: a recorder refuses none. RTMP 1.0 §7.2.1.1.
            Purpose::Play => object.extend([
                number("audioCodecs", 4095.0),
                number("videoCodecs", 255.0),
                number("videoFunction", 1.0),
            ]),
        }
        self.command("connect", CONNECT, 0, &[Value::Object(object)])
    }

    fn on_answer(&mut self, answer: &Command) -> Result<(), ClientError> {
        let name = Value::String(self.target.stream.clone());
        match answer.name.as_str() {
            "_result" if answer.transaction == CONNECT && self.purpose == Purpose::Play => {
                let window = WINDOW_ACK_SIZE.to_be_bytes();
                self.write(CONTROL_CSID, message::WINDOW_ACK_SIZE, 0, 0, &window)?;
                self.command("createStream", CREATE_STREAM, 0, &[Value::Null])
            }
            "_result" if answer.transaction == CONNECT => {
                self.command("releaseStream", RELEASE_STREAM, 0, &[Value::Null, name.clone()])?;
                self.command("FCPublish", FC_PUBLISH, 0, &[Value::Null, name])?;
                self.command("createStream", CREATE_STREAM, 0, &[Value::Null])
            }
            "_result" if answer.transaction == CREATE_STREAM => {
                let stream_id = answer
                    .argument(0)
                    .and_then(Value::as_number)
                    .and_then(small_id)
                    .unwrap_or(1);
                self.stream_id = Some(stream_id);
                if self.purpose == Purpose::Play {
                    let mut buffer = Vec::from(message::SET_BUFFER_LENGTH.to_be_bytes());
                    buffer.extend_from_slice(&stream_id.to_be_bytes());
                    buffer.extend_from_slice(&BUFFER_MS.to_be_bytes());
                    self.write(CONTROL_CSID, message::USER_CONTROL, 0, 0, &buffer)?;
                    return self.command("play", PLAY, stream_id, &[Value::Null, name, Value::Number(LIVE_ONLY)]);
                }
                let live = Value::String(String::from("live"));
                self.command("publish", PUBLISH, stream_id, &[Value::Null, name, live])
            }
            // Servers need not know releaseStream and FCPublish.
            "_error" if answer.transaction == CONNECT || answer.transaction == CREATE_STREAM => Err(refusal(answer)),
            "onStatus" => match status_code(answer) {
                Some("NetStream.Publish.Start" | "NetStream.Play.Start") => {
                    self.ready = true;
                    Ok(())
                }
                Some("NetStream.Play.Stop" | "NetStream.Play.Complete" | "NetStream.Play.UnpublishNotify") => {
                    self.ended = true;
                    Ok(())
                }
                _ if is_error(answer) => Err(refusal(answer)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn command(
        &mut self,
        name: &str,
        transaction: f64,
        stream_id: u32,
        arguments: &[Value],
    ) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        amf::write_string(&mut payload, name);
        amf::write_number(&mut payload, transaction);
        for argument in arguments {
            argument.encode(&mut payload);
        }
        self.write(COMMAND_CSID, message::COMMAND_AMF0, stream_id, 0, &payload)
    }

    fn write(
        &mut self,
        csid: u32,
        type_id: u8,
        stream_id: u32,
        timestamp_ms: u32,
        payload: &[u8],
    ) -> Result<(), ClientError> {
        let message = Message {
            type_id,
            stream_id,
            timestamp_ms,
            payload,
        };
        Ok(self.writer.write(&mut self.output, csid, message)?)
    }
}

/// Hands on one audio, video or data message; what an aggregate holds besides is ignored.
fn hand_on(type_id: u8, timestamp_ms: u32, payload: &[u8], media: &mut dyn FnMut(MediaTag<'_>)) {
    match type_id {
        message::AUDIO | message::VIDEO => media(MediaTag {
            tag_type: type_id,
            timestamp_ms,
            body: payload,
        }),
        message::DATA_AMF0 | message::DATA_AMF3 => {
            message::with_stored_data(type_id, payload, &mut |body| {
                media(MediaTag {
                    tag_type: message::DATA_AMF0,
                    timestamp_ms,
                    body,
                });
            });
        }
        _ => {}
    }
}

/// The chunk stream that a tag of this type goes on.
fn media_csid(tag_type: u8) -> u32 {
    match tag_type {
        message::AUDIO => AUDIO_CSID,
        message::VIDEO => VIDEO_CSID,
        _ => DATA_CSID,
    }
}

/// A stream id as servers give them: they count from 1.
fn small_id(id: f64) -> Option<u32> {
    (1..=u32::from(u16::MAX)).find(|candidate| f64::from(*candidate) == id)
}

fn status_code(answer: &Command) -> Option<&str> {
    answer.argument(0)?.get("code")?.as_str()
}

fn is_error(answer: &Command) -> bool {
    answer
        .argument(0)
        .and_then(|info| info.get("level"))
        .and_then(Value::as_str)
        == Some("error")
}

fn refusal(answer: &Command) -> ClientError {
    let text = |name| {
        let info = answer.argument(0)?;
        info.get(name)?.as_str().map(String::from)
    };
    ClientError::Refused {
        code: text("code").unwrap_or_else(|| format!("{} without a code", answer.name)),
        description: text("description").unwrap_or_default(),
    }
}
