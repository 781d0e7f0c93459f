//! Pushes an FLV file to an RTMP server as fast as it takes it, and ends the publish tidily.
//!
//! `cargo run -p media --example rtmp_push -- clip.flv 127.0.0.1:1935 live test [plain|first|second]`

use std::{
    env,
    error::Error,
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use media::{
    flv,
    rtmp::{ClientSession, HandshakeForm, Headers, MediaTag, PublishTarget},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = fs::read(arguments.next().ok_or("which file?")?)?;
    let address = arguments.next().ok_or("which address?")?;
    let app = arguments.next().ok_or("which application?")?;
    let stream = arguments.next().ok_or("which stream?")?;
    let handshake = match arguments.next().as_deref() {
        None | Some("plain") => HandshakeForm::Plain,
        Some("first") => HandshakeForm::DigestFirst,
        Some(_) => HandshakeForm::DigestSecond,
    };
    let target = PublishTarget {
        tc_url: format!("rtmp://{address}/{app}"),
        app,
        stream,
        flash_ver: "FMLE/3.0 (compatible; aircheck)".into(),
        chunk_size: 4096,
        headers: Headers::Compact,
        handshake,
    };
    let mut socket = TcpStream::connect(&address)?;
    let mut client = ClientSession::new(target, [42; 32]);
    let mut buffer = vec![0; 1 << 16];
    while !client.ready() {
        socket.write_all(client.output())?;
        client.output().clear();
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Err("the server hung up".into());
        }
        client.feed(buffer.get(..len).unwrap_or_default())?;
    }
    eprintln!("publishing on message stream {:?}", client.stream_id());
    // Behind the file header and the first back pointer.
    let mut rest = file.get(13..).ok_or("not an FLV file")?;
    while let Some(tag) = flv::read_tag(rest)? {
        let (tag_type, timestamp_ms) = (tag.tag_type, tag.timestamp_ms);
        client.send(MediaTag {
            tag_type,
            timestamp_ms,
            body: tag.body,
        })?;
        rest = rest.get(tag.len..).unwrap_or_default();
    }
    client.unpublish()?;
    socket.write_all(client.output())?;
    Ok(())
}
