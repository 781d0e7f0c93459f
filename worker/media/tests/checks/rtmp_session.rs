//! A connection from anyone.

use std::sync::OnceLock;

use media::rtmp::{
    ClientSession, Handler, HandshakeForm, Headers, Limits, MediaTag, PublishRequest, PublishTarget, ServerSession,
    SessionError, Unpublish, Verdict,
};

/// Small enough that inputs of a few hundred bytes reach each of them. Answers are not limited: who takes them
/// between two pieces has more room, so that limit alone depends on the split.
const LIMITS: Limits = Limits {
    message_len: 4000,
    partial_bytes: 6000,
    chunk_streams: 6,
    output_bytes: usize::MAX,
    command_len: 1000,
};

/// The session begins at the first byte, behind the handshake, or within a publish (first byte of the input); and
/// what follows the second byte is the same in one piece and in pieces whose lengths the second byte names.
pub fn rtmp_session(data: &[u8]) {
    let [stage, split, bytes @ ..] = data else { return };
    let opening = opening();
    let prefix = match stage % 3 {
        0 => &opening[..0],
        1 => &opening[..1 + 1536 + 1536],
        _ => opening,
    };
    let whole = run(prefix, &[bytes]);
    let mut lengths = Lengths(u32::from(*split));
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(lengths.next_len().min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    assert!(run(prefix, &pieces) == whole, "another result in pieces");
}

/// All that can be seen of a session's life, but the answers.
#[derive(PartialEq)]
struct Outcome {
    seen: Seen,
    result: Result<(), SessionError>,
    publishing: bool,
    partial_bytes: usize,
    stray_messages: u64,
}

#[derive(Default, PartialEq)]
struct Seen {
    publishing: bool,
    publishes: Vec<PublishRequest>,
    media: Vec<(u8, u32, Vec<u8>)>,
    unpublishes: Vec<Unpublish>,
}

impl Handler for Seen {
    fn on_publish(&mut self, request: &PublishRequest) -> Verdict {
        assert!(!self.publishing, "one publish at a time");
        self.publishes.push(request.clone());
        if request.stream.starts_with("no") {
            return Verdict::Refuse {
                code: "NetStream.Publish.BadName",
                reason: String::new(),
            };
        }
        self.publishing = true;
        Verdict::Accept
    }

    fn on_media(&mut self, tag: MediaTag<'_>) {
        assert!(self.publishing, "media only within a publish");
        assert!(matches!(tag.tag_type, 8 | 9 | 18));
        self.media.push((tag.tag_type, tag.timestamp_ms, tag.body.to_vec()));
    }

    fn on_unpublish(&mut self, why: Unpublish) {
        assert!(self.publishing, "what ends was there");
        self.publishing = false;
        self.unpublishes.push(why);
    }
}

fn run(prefix: &[u8], pieces: &[&[u8]]) -> Outcome {
    let mut session = ServerSession::new(LIMITS, [5; 32]);
    let mut seen = Seen::default();
    let mut result = session.feed(prefix, &mut seen);
    for piece in pieces {
        session.output().clear();
        result = session.feed(piece, &mut seen);
        // Partial messages twice over, one first reserve for each chunk stream, the hello, names.
        let bound = 2 * LIMITS.partial_bytes + LIMITS.chunk_streams * 4000 + 8192 + session.output().capacity();
        assert!(session.memory_bytes() <= bound, "{} bytes held", session.memory_bytes());
        if result.is_err() {
            break;
        }
    }
    Outcome {
        publishing: session.publishing(),
        // What is held of a message at the end of a broken input depends on where it was noticed.
        partial_bytes: if result.is_ok() { session.partial_bytes() } else { 0 },
        stray_messages: session.stray_messages(),
        seen,
        result,
    }
}

/// Lengths of pieces, mostly short.
struct Lengths(u32);

impl Lengths {
    fn next_len(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let random = (self.0 >> 16) as usize;
        if random.is_multiple_of(4) {
            1 + random % 300
        } else {
            1 + random % 5
        }
    }
}

/// What a client sends up to the point where it publishes.
fn opening() -> &'static [u8] {
    static OPENING: OnceLock<Vec<u8>> = OnceLock::new();
    OPENING.get_or_init(|| {
        let target = PublishTarget {
            app: "live".into(),
            tc_url: "rtmp://push.example.com/live".into(),
            stream: "test".into(),
            flash_ver: "test".into(),
            chunk_size: 128,
            headers: Headers::Full,
            handshake: HandshakeForm::Plain,
        };
        let mut client = ClientSession::new(target, [4; 32]);
        let mut server = ServerSession::new(LIMITS, [5; 32]);
        let mut sent = Vec::new();
        while !client.output().is_empty() {
            let question = std::mem::take(client.output());
            let answered = server.feed(&question, &mut Seen::default()).is_ok();
            assert!(answered && client.feed(&std::mem::take(server.output())).is_ok());
            sent.extend_from_slice(&question);
        }
        sent
    })
}
