//! Takes one RTMP push and writes what the encoder sent to a file, byte by byte: how the captures in `tests/data`
//! were made.
//!
//! `cargo run -p media --example rtmp_capture -- 127.0.0.1:1935 capture.bin`, then push there.

use std::{
    env,
    error::Error,
    fs::File,
    io::{Read, Write},
    net::TcpListener,
};

use media::rtmp::{Handler, Limits, MediaTag, PublishRequest, ServerSession, Unpublish, Verdict};

struct Log;

impl Handler for Log {
    fn on_publish(&mut self, request: &PublishRequest) -> Verdict {
        eprintln!("{request:?}");
        Verdict::Accept
    }

    fn on_media(&mut self, tag: MediaTag<'_>) {
        let start = tag.body.get(..tag.body.len().min(16)).unwrap_or_default();
        eprintln!(
            "{} at {} ms, {} bytes: {start:02x?}",
            tag.tag_type,
            tag.timestamp_ms,
            tag.body.len()
        );
    }

    fn on_unpublish(&mut self, why: Unpublish) {
        eprintln!("{}", why.as_str());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().ok_or("which address?")?;
    let mut file = File::create(arguments.next().ok_or("which file?")?)?;
    let listener = TcpListener::bind(address)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let (mut socket, _) = listener.accept()?;
    let mut session = ServerSession::new(Limits::default(), [7; 32]);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let received = buffer.get(..len).unwrap_or_default();
        file.write_all(received)?;
        let result = session.feed(received, &mut Log);
        socket.write_all(session.output())?;
        session.output().clear();
        result?;
    }
}
