//! [`ServerSession`]: the conversation as a server has it.
//!
//! Three stages: the client's hello, its C2 (whatever it says), messages. Messages are media, which go straight to the
//! [`Handler`]; control, answered here; and commands, answered in `command`.

use alloc::vec::Vec;

use super::{
    ChunkReader, ChunkWriter, Handler, Headers, Limits, MediaTag, Message, SessionError,
    address::Connect,
    handshake::{self, PACKET_LEN},
    message::{self, Aggregate, Command},
};

/// Bytes after which each side is to acknowledge, as most servers have it: seconds of media.
pub(super) const WINDOW_ACK_SIZE: u32 = 2_500_000;

/// Chunk stream of control messages. RTMP 1.0 §5.4.
pub(super) const CONTROL_CSID: u32 = 2;

/// One connection of a client to us.
#[derive(Debug)]
pub struct ServerSession {
    stage: Stage,
    reader: ChunkReader,
    talk: Talk,
    received: u64,
    acknowledged: u64,
    failure: Option<SessionError>,
}

#[derive(Debug)]
enum Stage {
    /// Gathers C0 and C1.
    Hello { gathered: Vec<u8>, random: [u8; 32] },
    /// Skips what is left of C2.
    Echo { left: usize },
    /// Messages.
    Open,
}

/// Everything but the reading: what messages change.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) limits: Limits,
    pub(super) writer: ChunkWriter,
    pub(super) output: Vec<u8>,
    /// Bytes after which the client wants to hear from us.
    window: u32,
    pub(super) connect: Option<Connect>,
    pub(super) publish: Option<Publish>,
    pub(super) last_stream_id: u32,
    stray: u64,
}

/// The publish under way.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) stream_id: u32,
    /// As `publish` named it, with its query.
    pub(super) name: alloc::string::String,
}

impl ServerSession {
    /// Starts a session. `random` seeds the bytes of the handshake; it protects nothing.
    #[must_use]
    pub fn new(limits: Limits, random: [u8; 32]) -> Self {
        Self {
            stage: Stage::Hello {
                gathered: Vec::new(),
                random,
            },
            reader: ChunkReader::new(&limits),
            talk: Talk {
                limits,
                writer: ChunkWriter::new(Headers::Full),
                output: Vec::new(),
                window: WINDOW_ACK_SIZE,
                connect: None,
                publish: None,
                last_stream_id: 0,
                stray: 0,
            },
            received: 0,
            acknowledged: 0,
            failure: None,
        }
    }

    /// Takes what the connection received, in any split.
    ///
    /// # Errors
    /// Says why the connection must be closed once [`Self::output`] is sent; every later call says so again.
    pub fn feed<H: Handler + ?Sized>(&mut self, input: &[u8], handler: &mut H) -> Result<(), SessionError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.received = self.received.wrapping_add(input.len() as u64);
        let result = self.advance(input, handler).and_then(|()| self.acknowledge());
        self.reader.trim();
        if self.talk.output.is_empty() {
            self.talk.output = Vec::new();
        }
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    /// Bytes to send; the caller takes them away.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.talk.output
    }

    /// True between an accepted publish and its end.
    #[must_use]
    pub fn publishing(&self) -> bool {
        self.talk.publish.is_some()
    }

    /// Tells the client that its running publish ends, `code` being a status code such as `NetStream.Publish.Denied`.
    /// The caller then sends [`Self::output`] and closes. Media that still comes is not handed on.
    pub fn refuse(&mut self, code: &str, reason: &str) {
        let stream_id = self
            .talk
            .publish
            .take()
            .map_or(self.talk.last_stream_id, |publish| publish.stream_id);
        // A status is far below the longest message: this cannot fail.
        self.talk.status(stream_id, "error", code, reason).unwrap_or_default();
    }

    /// Asks the client to connect again, to the address it used, and to leave this connection when it has: what still comes
    /// here until then is handed on. Enhanced RTMP v2, "NetConnection.Connect.ReconnectRequest". False, and nothing is said, where the
    /// client did not say in `connect` that it understands.
    pub fn ask_to_reconnect(&mut self, reason: &str) -> bool {
        if !self.talk.connect.as_ref().is_some_and(|connect| connect.reconnects) {
            return false;
        }
        // On the connection's own message stream. A status is far below the longest message: this cannot fail.
        self.talk
            .status(0, "status", "NetConnection.Connect.ReconnectRequest", reason)
            .is_ok()
    }

    /// Bytes held of messages of which some chunks are still to come.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.reader.partial_bytes()
    }

    /// Bytes of memory held besides the session itself: incomplete messages, unsent answers, names.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let gathered = match &self.stage {
            Stage::Hello { gathered, .. } => gathered.capacity(),
            _ => 0,
        };
        [self.reader.memory_bytes(), self.talk.memory_bytes(), gathered]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Bytes fed so far.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.received
    }

    /// Media messages that came outside a publish and were therefore not handed on.
    #[must_use]
    pub fn stray_messages(&self) -> u64 {
        self.talk.stray
    }

    fn advance<H: Handler + ?Sized>(&mut self, mut input: &[u8], handler: &mut H) -> Result<(), SessionError> {
        if !matches!(self.stage, Stage::Open) {
            input = self.shake_hands(input)?;
        }
        while let Some(message) = self.reader.next_message(&mut input)? {
            self.talk.on_message(message, handler)?;
        }
        Ok(())
    }

    /// Reads C0, C1 and C2, answers the first two, and returns what lies behind.
    fn shake_hands<'a>(&mut self, mut input: &'a [u8]) -> Result<&'a [u8], SessionError> {
        if let Stage::Hello { gathered, random } = &mut self.stage {
            let wanted = PACKET_LEN.saturating_add(1).saturating_sub(gathered.len());
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            gathered.extend_from_slice(taken);
            input = rest;
            let Some((version, c1)) = gathered.split_first() else {
                return Ok(input);
            };
            check_version(*version)?;
            let Some(c1) = c1.first_chunk() else { return Ok(input) };
            handshake::answer(c1, *random, &mut self.talk.output);
            self.stage = Stage::Echo { left: PACKET_LEN };
        }
        if let Stage::Echo { left } = &mut self.stage {
            let (skipped, rest) = input.split_at((*left).min(input.len()));
            input = rest;
            *left = left.saturating_sub(skipped.len());
            if *left == 0 {
                self.stage = Stage::Open;
            }
        }
        Ok(input)
    }

    /// Acknowledges at most once a call: who reads in large pieces answers seldom. RTMP 1.0 §5.4.3.
    fn acknowledge(&mut self) -> Result<(), SessionError> {
        if self.received.wrapping_sub(self.acknowledged) < u64::from(self.talk.window) {
            return Ok(());
        }
        self.acknowledged = self.received;
        // The total modulo 2^32.
        let total = self.received & u64::from(u32::MAX);
        self.talk.control(
            message::ACKNOWLEDGEMENT,
            &u32::try_from(total).unwrap_or(0).to_be_bytes(),
        )
    }
}

/// Refuses what is not RTMP 3, by the name of what it rather is.
fn check_version(version: u8) -> Result<(), SessionError> {
    match version {
        handshake::VERSION => Ok(()),
        6 | 8 | 9 => Err(SessionError::Encrypted { version }),
        0..=31 if version != 0x16 => Err(SessionError::Version { version }),
        first => Err(SessionError::NotRtmp { first }),
    }
}

impl Talk {
    fn on_message<H: Handler + ?Sized>(&mut self, message: Message<'_>, handler: &mut H) -> Result<(), SessionError> {
        let Message { type_id, payload, .. } = message;
        match type_id {
            message::AUDIO | message::VIDEO | message::DATA_AMF0 | message::DATA_AMF3 => {
                self.on_media(type_id, message.timestamp_ms, payload, handler);
            }
            message::AGGREGATE => {
                let mut aggregate = Aggregate::new(message.timestamp_ms, payload);
                while let Some(tag) = aggregate.next_tag().map_err(|_| SessionError::Aggregate)? {
                    self.on_media(tag.tag_type, tag.timestamp_ms, tag.body, handler);
                }
            }
            message::COMMAND_AMF0 => self.on_command(message.stream_id, payload, handler)?,
            message::COMMAND_AMF3 => {
                self.on_command(message.stream_id, message::without_selector(payload), handler)?;
            }
            message::USER_CONTROL => self.on_user_control(payload)?,
            message::WINDOW_ACK_SIZE => {
                let window = message::leading_u32(payload).ok_or(SessionError::Control { type_id })?;
                // 0 would mean to acknowledge without end; who says it means nothing by it.
                self.window = if window == 0 { WINDOW_ACK_SIZE } else { window };
            }
            // The client's acknowledgements and bandwidth wishes are about our few answers; shared objects and
            // whatever else there may be have no place in a recording.
            _ => {}
        }
        if self.output.len() > self.limits.output_bytes {
            return Err(SessionError::OutputFull {
                limit: self.limits.output_bytes,
            });
        }
        Ok(())
    }

    /// Hands on one audio, video or data message; what an aggregate holds besides is ignored.
    fn on_media<H: Handler + ?Sized>(&mut self, type_id: u8, timestamp_ms: u32, payload: &[u8], handler: &mut H) {
        if self.publish.is_none() {
            self.stray = self.stray.saturating_add(1);
            return;
        }
        match type_id {
            message::AUDIO | message::VIDEO => {
                handler.on_media(MediaTag {
                    tag_type: type_id,
                    timestamp_ms,
                    body: payload,
                });
            }
            message::DATA_AMF0 | message::DATA_AMF3 => {
                message::with_stored_data(type_id, payload, &mut |body| {
                    handler.on_media(MediaTag {
                        tag_type: message::DATA_AMF0,
                        timestamp_ms,
                        body,
                    });
                });
            }
            _ => {}
        }
    }

    fn on_command<H: Handler + ?Sized>(
        &mut self,
        stream_id: u32,
        payload: &[u8],
        handler: &mut H,
    ) -> Result<(), SessionError> {
        if payload.len() > self.limits.command_len {
            return Err(SessionError::CommandLen {
                len: payload.len(),
                limit: self.limits.command_len,
            });
        }
        let command = Command::read(payload)?.ok_or(SessionError::CommandName)?;
        self.answer(stream_id, &command, handler)
    }

    fn on_user_control(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let malformed = SessionError::Control {
            type_id: message::USER_CONTROL,
        };
        let (event, data) = message::user_control(payload).ok_or(malformed.clone())?;
        if event == message::PING_REQUEST {
            let time = data.first_chunk::<4>().ok_or(malformed)?;
            self.user_control(message::PING_RESPONSE, *time)?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let names = [
            self.connect.as_ref().map_or(0, Connect::memory_bytes),
            self.publish.as_ref().map_or(0, |publish| publish.name.capacity()),
        ];
        names.into_iter().fold(self.output.capacity(), usize::saturating_add)
    }

    /// Writes a user control event.
    pub(super) fn user_control(&mut self, event: u16, data: [u8; 4]) -> Result<(), SessionError> {
        let [e0, e1] = event.to_be_bytes();
        let [d0, d1, d2, d3] = data;
        self.control(message::USER_CONTROL, &[e0, e1, d0, d1, d2, d3])
    }

    /// Writes a control message.
    pub(super) fn control(&mut self, type_id: u8, payload: &[u8]) -> Result<(), SessionError> {
        self.send(CONTROL_CSID, type_id, 0, payload)
    }

    /// Writes a message.
    pub(super) fn send(&mut self, csid: u32, type_id: u8, stream_id: u32, payload: &[u8]) -> Result<(), SessionError> {
        let message = Message {
            type_id,
            stream_id,
            timestamp_ms: 0,
            payload,
        };
        Ok(self.writer.write(&mut self.output, csid, message)?)
    }
}
