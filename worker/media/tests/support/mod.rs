//! What the RTMP tests share: a handler that writes down, sessions that are publishing already, chunks by hand.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use media::{
    amf::{Decoder, Value},
    rtmp::{
        ChunkReader, ClientSession, Handler, HandshakeForm, Headers, Limits, MediaTag, PublishRequest, PublishTarget,
        ServerSession, SessionError, Unpublish, Verdict,
    },
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Publish(PublishRequest),
    Media {
        tag_type: u8,
        timestamp_ms: u32,
        body: Vec<u8>,
    },
    Unpublish(Unpublish),
}

/// Accepts every publish, unless told what to say.
#[derive(Debug, Default)]
pub struct Recorder {
    pub events: Vec<Event>,
    pub refuse: Option<(&'static str, &'static str)>,
}

impl Handler for Recorder {
    fn on_publish(&mut self, request: &PublishRequest) -> Verdict {
        self.events.push(Event::Publish(request.clone()));
        match self.refuse {
            None => Verdict::Accept,
            Some((code, reason)) => Verdict::Refuse {
                code,
                reason: reason.into(),
            },
        }
    }

    fn on_media(
        &mut self,
        MediaTag {
            tag_type,
            timestamp_ms,
            body,
        }: MediaTag<'_>,
    ) {
        self.events.push(Event::Media {
            tag_type,
            timestamp_ms,
            body: body.to_vec(),
        });
    }

    fn on_unpublish(&mut self, why: Unpublish) {
        self.events.push(Event::Unpublish(why));
    }
}

impl Recorder {
    /// Type, time and body of the tags so far.
    pub fn media(&self) -> Vec<(u8, u32, &[u8])> {
        let media = self.events.iter().filter_map(|event| match event {
            Event::Media {
                tag_type,
                timestamp_ms,
                body,
            } => Some((*tag_type, *timestamp_ms, body.as_slice())),
            _ => None,
        });
        media.collect()
    }

    pub fn times(&self) -> Vec<u32> {
        self.media().iter().map(|tag| tag.1).collect()
    }
}

pub fn target() -> PublishTarget {
    PublishTarget {
        app: "live".into(),
        tc_url: "rtmp://push.example.com:1935/live".into(),
        stream: "test?token=1".into(),
        flash_ver: "test/1.0".into(),
        chunk_size: 128,
        headers: Headers::Full,
        handshake: HandshakeForm::Plain,
    }
}

/// Talks until neither side has anything to say. Returns what the client sent.
pub fn converse(
    client: &mut ClientSession,
    server: &mut ServerSession,
    recorder: &mut Recorder,
) -> Result<Vec<u8>, SessionError> {
    let mut sent = Vec::new();
    loop {
        let question = std::mem::take(client.output());
        let result = server.feed(&question, recorder);
        let answer = std::mem::take(server.output());
        client
            .feed(&answer)
            .unwrap_or_else(|error| assert!(result.is_err(), "{error}"));
        sent.extend_from_slice(&question);
        result?;
        if answer.is_empty() && client.output().is_empty() {
            return Ok(sent);
        }
    }
}

/// A server session that is publishing, chunk size 128, nothing sent yet on chunk streams above 3.
pub fn publishing_with(limits: Limits) -> (ServerSession, Recorder) {
    let mut server = ServerSession::new(limits, [3; 32]);
    let mut recorder = Recorder::default();
    let mut client = ClientSession::new(target(), [4; 32]);
    assert!(converse(&mut client, &mut server, &mut recorder).is_ok() && client.ready() && server.publishing());
    recorder.events.clear();
    (server, recorder)
}

pub fn publishing() -> (ServerSession, Recorder) {
    publishing_with(Limits::default())
}

/// What a client sends up to the point where it publishes.
pub fn opening_bytes() -> Vec<u8> {
    let (mut server, mut recorder) = (ServerSession::new(Limits::default(), [3; 32]), Recorder::default());
    let mut client = ClientSession::new(target(), [4; 32]);
    converse(&mut client, &mut server, &mut recorder).unwrap_or_default()
}

/// Basic header with a chunk stream id below 64.
pub fn basic(format: u8, csid: u8) -> Vec<u8> {
    vec![format << 6 | csid]
}

fn u24(value: u32) -> [u8; 3] {
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}

/// Header of type 0 on message stream 1.
pub fn type_0(csid: u8, time: u32, len: u32, type_id: u8) -> Vec<u8> {
    let mut header = basic(0, csid);
    header.extend_from_slice(&u24(time.min(0xFF_FFFF)));
    header.extend_from_slice(&u24(len));
    header.push(type_id);
    header.extend_from_slice(&1_u32.to_le_bytes());
    if time >= 0xFF_FFFF {
        header.extend_from_slice(&time.to_be_bytes());
    }
    header
}

pub fn type_1(csid: u8, delta: u32, len: u32, type_id: u8) -> Vec<u8> {
    let mut header = basic(1, csid);
    header.extend_from_slice(&u24(delta.min(0xFF_FFFF)));
    header.extend_from_slice(&u24(len));
    header.push(type_id);
    if delta >= 0xFF_FFFF {
        header.extend_from_slice(&delta.to_be_bytes());
    }
    header
}

pub fn type_2(csid: u8, delta: u32) -> Vec<u8> {
    let mut header = basic(2, csid);
    header.extend_from_slice(&u24(delta.min(0xFF_FFFF)));
    if delta >= 0xFF_FFFF {
        header.extend_from_slice(&delta.to_be_bytes());
    }
    header
}

/// A whole message in one chunk, as type 0.
pub fn message(csid: u8, time: u32, type_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = type_0(csid, time, u32::try_from(payload.len()).unwrap_or(u32::MAX), type_id);
    bytes.extend_from_slice(payload);
    bytes
}

/// A whole message in one chunk, as type 0, on this message stream.
pub fn message_on(stream_id: u8, csid: u8, type_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = message(csid, 0, type_id, payload);
    bytes[8] = stream_id;
    bytes
}

/// An AMF0 command on message stream 1; at most 128 bytes.
pub fn command(name: &str, transaction: f64, arguments: &[Value]) -> Vec<u8> {
    message(8, 0, 20, &command_payload(name, transaction, arguments))
}

pub fn command_payload(name: &str, transaction: f64, arguments: &[Value]) -> Vec<u8> {
    let mut payload = Vec::new();
    Value::String(name.into()).encode(&mut payload);
    Value::Number(transaction).encode(&mut payload);
    arguments.iter().for_each(|argument| argument.encode(&mut payload));
    payload
}

/// Type, message stream and payload of what the session wants to send, which is taken away. Reads with the chunk
/// size that `connect` was answered with.
pub fn answers(session: &mut ServerSession) -> Vec<(u8, u32, Vec<u8>)> {
    let output = std::mem::take(session.output());
    let mut with_size = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 16, 0];
    with_size.extend_from_slice(&output);
    let mut reader = ChunkReader::new(&Limits::default());
    let mut rest = with_size.as_slice();
    let mut messages = Vec::new();
    while let Ok(Some(message)) = reader.next_message(&mut rest) {
        messages.push((message.type_id, message.stream_id, message.payload.to_vec()));
    }
    messages
}

/// Values of the commands among the answers.
pub fn command_answers(session: &mut ServerSession) -> Vec<Vec<Value>> {
    let commands = answers(session).into_iter().filter(|message| message.0 == 20);
    commands.map(|message| values(&message.2)).collect()
}

pub fn values(payload: &[u8]) -> Vec<Value> {
    let mut decoder = Decoder::new(payload);
    std::iter::from_fn(|| decoder.next_value().ok().flatten()).collect()
}

/// `code` of the info object in an answer.
pub fn code(answer: &[Value]) -> Option<&str> {
    answer.last()?.get("code")?.as_str()
}
