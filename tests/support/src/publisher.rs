//! A publisher over a real socket that knows when each frame was handed to the system.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::flv::Tag;
use crate::rtmp::{AUDIO, AUDIO_CSID, CHUNK_LEN, DATA, Session, Stamp, Target, VIDEO_CSID, amf_string, append_message};

/// A server that polls its sockets answers within tens of milliseconds; a busy machine takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A publishing connection.
#[derive(Debug)]
pub struct Publisher {
    socket: TcpStream,
    session: Session,
    scratch: Vec<u8>,
}

impl Publisher {
    /// Connects and publishes `live/<stream>`.
    ///
    /// # Errors
    /// The server refuses, with its words.
    pub fn start(server: SocketAddr, stream: &str) -> Result<Self> {
        Self::start_at(server, "live", stream)
    }

    /// Connects and publishes `<app>/<stream>`; either may carry a query.
    ///
    /// # Errors
    /// The server refuses, with its words.
    pub fn start_at(server: SocketAddr, app: &str, stream: &str) -> Result<Self> {
        Self::converse(server, Session::new(target(server, app, stream), 0x5A))
    }

    /// As [`Self::start`], and says that it connects again when asked to.
    ///
    /// # Errors
    /// The server refuses, with its words.
    pub fn start_reconnecting(server: SocketAddr, stream: &str) -> Result<Self> {
        Self::converse(
            server,
            Session::new(target(server, "live", stream), 0x5A).reconnecting(),
        )
    }

    fn converse(server: SocketAddr, mut session: Session) -> Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut scratch = vec![0; 1 << 14];
        loop {
            let output = session.take_output();
            (&socket).write_all(&output)?;
            if session.publishing() {
                return Ok(Self {
                    socket,
                    session,
                    scratch,
                });
            }
            let len = (&socket)
                .read(&mut scratch)
                .context("waiting for the server's answer")?;
            ensure!(len > 0, "the server closed the connection without a word");
            session.feed(&scratch[..len])?;
        }
    }

    /// Sends one message and returns when the system had taken all of it.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, message_type: u8, timestamp_ms: u32, body: &[u8]) -> Result<Instant> {
        let mut out = Vec::with_capacity(body.len() + 64);
        let csid = if message_type == AUDIO { AUDIO_CSID } else { VIDEO_CSID };
        append_message(
            &mut out,
            csid,
            Stamp::Absolute(timestamp_ms),
            message_type,
            body,
            CHUNK_LEN,
        );
        self.socket.write_all(&out)?;
        Ok(Instant::now())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// True once the server has asked it to connect again. Reads what the server has said by now.
    ///
    /// # Errors
    /// The server refuses what it does, with its words.
    pub fn asked(&mut self) -> Result<bool> {
        self.socket.set_nonblocking(true)?;
        // An end is noticed by whoever sends next.
        while let Ok(len @ 1..) = self.socket.read(&mut self.scratch) {
            self.session.feed(&self.scratch[..len])?;
        }
        self.socket.set_nonblocking(false)?;
        Ok(self.session.asked_to_reconnect())
    }

    /// Waits until the server asks it to connect again.
    ///
    /// # Errors
    /// It does not within `limit`, or closes instead.
    pub fn asked_to_reconnect(&mut self, limit: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(limit))?;
        while !self.session.asked_to_reconnect() {
            let len = self.socket.read(&mut self.scratch).context("waiting for a word")?;
            ensure!(len > 0, "the server closed the connection");
            self.session.feed(&self.scratch[..len])?;
        }
        Ok(())
    }

    /// Waits for the server to close, and returns what it said before, if that was a refusal.
    ///
    /// # Errors
    /// It does not close within `limit`.
    pub fn closed(&mut self, limit: Duration) -> Result<Option<String>> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut refusal = None;
        loop {
            match self.socket.read(&mut self.scratch) {
                Ok(0) => return Ok(refusal),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(refusal),
                Ok(len) => {
                    if let Err(error) = self.session.feed(&self.scratch[..len]) {
                        refusal.get_or_insert_with(|| format!("{error:#}"));
                    }
                }
                Err(error) => return Err(error).context("the server did not close the connection"),
            }
        }
    }

    /// Ends the publish in good order and waits until the server has closed.
    ///
    /// # Errors
    /// The server does not close.
    pub fn finish(mut self) -> Result<()> {
        let goodbye = self.session.goodbye();
        self.socket.write_all(&goodbye)?;
        self.socket.shutdown(Shutdown::Write)?;
        self.closed(Duration::from_secs(20))?;
        Ok(())
    }

    /// Ends the connection without a word, as a lost network does.
    ///
    /// # Errors
    /// It was gone already.
    pub fn vanish(self) -> Result<()> {
        Ok(self.socket.shutdown(Shutdown::Both)?)
    }
}

fn target(server: SocketAddr, app: &str, stream: &str) -> Target {
    Target {
        tc_url: format!("rtmp://{server}/{app}"),
        app: app.to_owned(),
        stream: stream.to_owned(),
    }
}

/// Publishes tags as they are, as fast as the server takes them, and ends in good order.
///
/// # Errors
/// The server refuses or closes.
pub fn publish_tags(server: SocketAddr, stream: &str, tags: &[Tag]) -> Result<()> {
    let mut publisher = Publisher::start(server, stream)?;
    for tag in tags {
        if tag.tag_type == DATA {
            let mut body = Vec::new();
            amf_string(&mut body, "@setDataFrame");
            body.extend_from_slice(&tag.body);
            publisher.send(DATA, tag.timestamp_ms, &body)?;
        } else {
            publisher.send(tag.tag_type, tag.timestamp_ms, &tag.body)?;
        }
    }
    publisher.finish()
}
