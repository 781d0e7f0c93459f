//! What a message costs: `cargo bench -p media --bench rtmp`. Prints nanoseconds a message, the best of several runs,
//! for media as streams have it: one audio message of 200 bytes after each video message.

use std::{hint::black_box, time::Instant};

use media::rtmp::{
    ChunkWriter, ClientSession, Handler, HandshakeForm, Headers, Limits, MediaTag, Message, PublishRequest,
    PublishTarget, ServerSession, Unpublish, Verdict,
};

/// Counts bytes; copying them is the journal's.
#[derive(Default)]
struct Sink {
    messages: u64,
    bytes: usize,
}

impl Handler for Sink {
    fn on_publish(&mut self, _: &PublishRequest) -> Verdict {
        Verdict::Accept
    }

    fn on_media(&mut self, tag: MediaTag<'_>) {
        self.messages += 1;
        self.bytes += black_box(tag.body).len();
    }

    fn on_unpublish(&mut self, _: Unpublish) {}
}

/// A session that is publishing with this chunk size.
fn publishing(chunk_size: u32) -> (ServerSession, Sink) {
    let target = PublishTarget {
        app: "live".into(),
        tc_url: "rtmp://localhost/live".into(),
        stream: "bench".into(),
        flash_ver: "bench".into(),
        chunk_size,
        headers: Headers::Compact,
        handshake: HandshakeForm::Plain,
    };
    let mut client = ClientSession::new(target, [1; 32]);
    let (mut server, mut sink) = (ServerSession::new(Limits::default(), [2; 32]), Sink::default());
    while !client.output().is_empty() {
        let question = std::mem::take(client.output());
        let answered = server.feed(&question, &mut sink).is_ok();
        assert!(answered && client.feed(&std::mem::take(server.output())).is_ok());
    }
    (server, sink)
}

/// Nanoseconds a message.
fn measure(payload_len: usize, chunk_size: u32, read_len: usize) -> f64 {
    let (mut server, mut sink) = publishing(chunk_size);
    let mut writer = ChunkWriter::new(Headers::Compact);
    assert!(writer.set_chunk_size(chunk_size).is_ok());
    let (video, audio) = (vec![7; payload_len], vec![8; 200]);
    let mut bytes = Vec::new();
    let pairs = (32 << 20) / (payload_len + 200);
    for (index, timestamp_ms) in (0..u32::try_from(pairs).unwrap_or(u32::MAX)).map(|index| (index, index * 40)) {
        // Bodies differ in length a little, so headers are of type 1 as in real streams.
        let payload = &video[..payload_len - (index % 16) as usize];
        let messages = [
            (
                6,
                Message {
                    type_id: 9,
                    stream_id: 1,
                    timestamp_ms,
                    payload,
                },
            ),
            (
                4,
                Message {
                    type_id: 8,
                    stream_id: 1,
                    timestamp_ms,
                    payload: &audio,
                },
            ),
        ];
        for (csid, message) in messages {
            assert!(writer.write(&mut bytes, csid, message).is_ok());
        }
    }
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let before = sink.messages;
        let start = Instant::now();
        for piece in bytes.chunks(read_len) {
            assert!(server.feed(piece, &mut sink).is_ok());
            server.output().clear();
        }
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9;
        best = best.min(nanoseconds / (sink.messages - before) as f64);
    }
    best
}

fn main() {
    eprintln!("{:>10} {:>10} {:>10} {:>12}", "video", "chunk", "read", "ns/message");
    for (payload_len, chunk_size) in [
        (8000, 65_536),
        (8000, 4096),
        (8000, 128),
        (100_000, 4096),
        (100_000, 128),
    ] {
        for read_len in [4096, 65_536, 1 << 20] {
            let nanoseconds = measure(payload_len, chunk_size, read_len);
            eprintln!("{payload_len:>10} {chunk_size:>10} {read_len:>10} {nanoseconds:>12.0}");
        }
    }
}
