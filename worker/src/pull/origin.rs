//! [`Origin`]: a connection to an origin, over RTMP as a player or over HTTP as FLV. Bytes in, tags out; timestamps as sent.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use media::flv;
use media::rtmp::{ClientSession, HandshakeForm, Headers, Limits, MediaTag, PublishTarget};
use shared::pull::{AddressPolicy, PullScheme, PullUrl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Time for the system to take an answer of ours: they are a few bytes.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Chunk size that we announce; we send commands only.
const CHUNK_BYTES: u32 = 4_096;
/// What we call ourselves. Some servers let only clients that call themselves so play.
const FLASH_VER: &str = "LNX 9,0,124,2 aircheck";

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Origin {
    address: SocketAddr,
    line: Line,
}

#[derive(Debug)]
enum Line {
    Rtmp {
        socket: TcpStream,
        session: Box<ClientSession>,
    },
    Flv {
        response: reqwest::Response,
        parser: FlvParser,
    },
}

/// What came.
#[derive(Debug)]
pub(super) enum Arrived {
    /// Bytes for [`Origin::take`].
    Bytes(Bytes),
    /// The origin closed in good order.
    End,
}

/// The addresses of a host that may be reached, in the order of the resolver.
///
/// # Errors
/// The host has no address, or none that may be reached; in words.
pub(super) async fn resolve(url: &PullUrl, policy: AddressPolicy) -> Result<Vec<SocketAddr>, String> {
    let host = url.host();
    let found = tokio::net::lookup_host((host.as_str(), url.port()))
        .await
        .map_err(|error| format!("the name {host} has no address: {error}"))?;
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in found {
        match policy.check(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(error) => refused = Some(error.to_string()),
        }
    }
    match (allowed.is_empty(), refused) {
        (false, _) => Ok(allowed),
        (true, Some(refused)) => Err(refused),
        (true, None) => Err(format!("the name {host} has no address")),
    }
}

impl Origin {
    /// Connects to the first of `addresses` that answers and asks for the stream. Names are not resolved again: what was
    /// checked is what is connected to.
    ///
    /// # Errors
    /// In words, without credentials.
    pub(super) async fn connect(
        url: &PullUrl,
        addresses: &[SocketAddr],
        limits: Limits,
        random: [u8; 32],
    ) -> Result<Self, String> {
        match url.scheme() {
            PullScheme::Rtmp => Self::connect_rtmp(url, addresses, limits, random).await,
            PullScheme::HttpFlv { .. } => Self::connect_http(url, addresses, limits).await,
        }
    }

    async fn connect_rtmp(
        url: &PullUrl,
        addresses: &[SocketAddr],
        limits: Limits,
        random: [u8; 32],
    ) -> Result<Self, String> {
        let target = url.rtmp_target().ok_or("the URL names no application and stream")?;
        let socket = TcpStream::connect(addresses)
            .await
            .map_err(|error| format!("cannot connect to {url}: {error}"))?;
        let address = socket.peer_addr().map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let target = PublishTarget {
            app: target.app,
            tc_url: target.tc_url,
            stream: target.stream,
            flash_ver: FLASH_VER.to_owned(),
            chunk_size: CHUNK_BYTES,
            headers: Headers::Full,
            handshake: HandshakeForm::Plain,
        };
        let session = Box::new(ClientSession::player(target, random, limits));
        let mut origin = Origin {
            address,
            line: Line::Rtmp { socket, session },
        };
        origin.send().await?;
        Ok(origin)
    }

    async fn connect_http(url: &PullUrl, addresses: &[SocketAddr], limits: Limits) -> Result<Self, String> {
        let bare = |error: reqwest::Error| describe(&error.without_url());
        // A redirect could lead to an address that was not checked; a proxy would hide which address is reached.
        let client = reqwest::Client::builder()
            .resolve_to_addrs(&url.host(), addresses)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("aircheck/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(bare)?;
        let response = client
            .get(url.expose())
            .send()
            .await
            .map_err(|error| format!("cannot get {url}: {}", bare(error)))?;
        if !response.status().is_success() {
            return Err(format!("{url} answers with HTTP status {}", response.status()));
        }
        let address = response.remote_addr().or(addresses.first().copied());
        let parser = FlvParser::new(usize::try_from(limits.message_len).unwrap_or(usize::MAX));
        Ok(Origin {
            address: address.ok_or("the origin has no address")?,
            line: Line::Flv { response, parser },
        })
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The protocol, for the log and the publish's record.
    pub(super) fn protocol(&self) -> &'static str {
        match self.line {
            Line::Rtmp { .. } => "pull rtmp",
            Line::Flv { .. } => "pull http-flv",
        }
    }

    /// Waits for bytes. May be dropped while it waits without losing any.
    ///
    /// # Errors
    /// The connection is lost; in words.
    pub(super) async fn arrived(&mut self) -> Result<Arrived, String> {
        let bytes = match &mut self.line {
            Line::Rtmp { socket, .. } => {
                let mut buffer = BytesMut::with_capacity(READ_BYTES);
                let read = socket.read_buf(&mut buffer).await;
                let read = read.map_err(|error| format!("the connection was lost: {error}"))?;
                (read > 0).then(|| buffer.freeze())
            }
            Line::Flv { response, .. } => {
                let chunk = response.chunk().await;
                chunk.map_err(|error| format!("the connection was lost: {}", describe(&error.without_url())))?
            }
        };
        Ok(bytes.map_or(Arrived::End, Arrived::Bytes))
    }

    /// Takes bytes apart, hands on the tags in them, and answers what must be answered. True once the origin has said
    /// that the stream ended.
    ///
    /// # Errors
    /// The origin refuses, or sends what is no stream; in words.
    pub(super) async fn take(
        &mut self,
        bytes: Bytes,
        tag: &mut (dyn FnMut(MediaTag<'_>) + Send),
    ) -> Result<bool, String> {
        match &mut self.line {
            Line::Rtmp { session, .. } => {
                session
                    .feed_media(&bytes, &mut |media| tag(media))
                    .map_err(|error| format!("RTMP: {error}"))?;
                let ended = session.ended();
                self.send().await?;
                Ok(ended)
            }
            Line::Flv { parser, .. } => parser.feed(&bytes, tag).map(|()| false),
        }
    }

    async fn send(&mut self) -> Result<(), String> {
        if let Line::Rtmp { socket, session } = &mut self.line {
            let output = std::mem::take(session.output());
            if !output.is_empty() {
                let sent = tokio::time::timeout(WRITE_LIMIT, socket.write_all(&output)).await;
                sent.map_err(|_| "the origin does not read what it is sent".to_owned())?
                    .map_err(|error| format!("the connection was lost: {error}"))?;
            }
        }
        Ok(())
    }
}

/// An error with what caused it.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// FLV as it comes over HTTP: a file header, then tags without end.
#[derive(Debug)]
struct FlvParser {
    held: Vec<u8>,
    begun: bool,
    /// Longest body of a tag that is taken, bytes.
    longest: usize,
}

impl FlvParser {
    fn new(longest: usize) -> Self {
        Self {
            held: Vec::new(),
            begun: false,
            longest,
        }
    }

    fn feed(&mut self, bytes: &[u8], each: &mut (dyn FnMut(MediaTag<'_>) + Send)) -> Result<(), String> {
        self.held.extend_from_slice(bytes);
        let not_flv = |error: flv::FlvError| format!("the origin does not send FLV: {error}");
        let mut at = 0;
        if !self.begun {
            let Some(header) = flv::read_file_header(&self.held).map_err(not_flv)? else {
                return Ok(());
            };
            // Real headers are 9 bytes; a long one is no stream.
            if header.first_tag > 1024 {
                return Err(not_flv(flv::FlvError::FileHeader));
            }
            at = header.first_tag as usize;
            if self.held.len() < at {
                return Ok(());
            }
            self.begun = true;
        }
        loop {
            let rest = self.held.get(at..).unwrap_or_default();
            if let Some(&[_, s0, s1, s2]) = rest.first_chunk::<4>()
                && u32::from_be_bytes([0, s0, s1, s2]) as usize > self.longest
            {
                return Err(format!("the origin sends a tag of more than {} bytes", self.longest));
            }
            let Some(tag) = flv::read_tag(rest).map_err(not_flv)? else {
                break;
            };
            each(MediaTag {
                tag_type: tag.tag_type,
                timestamp_ms: tag.timestamp_ms,
                body: tag.body,
            });
            at += tag.len;
        }
        self.held.drain(..at);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(longest: usize, pieces: &[&[u8]]) -> Result<Vec<(u8, u32, usize)>, String> {
        let mut parser = FlvParser::new(longest);
        let mut tags = Vec::new();
        for piece in pieces {
            parser.feed(piece, &mut |tag| {
                tags.push((tag.tag_type, tag.timestamp_ms, tag.body.len()))
            })?;
        }
        Ok(tags)
    }

    #[test]
    fn flv_in_any_split_gives_the_same_tags() {
        let mut file = Vec::new();
        flv::append_file_header(&mut file, true, true);
        let expected = [(18, 0, 30), (9, 40, 700), (8, 0xFFFF_FFFF, 0), (9, 80, 1)];
        for (tag_type, timestamp_ms, len) in expected {
            flv::append_tag(&mut file, tag_type, timestamp_ms, &vec![1; len]);
        }
        for size in [1, 2, 7, 100, file.len()] {
            let pieces: Vec<&[u8]> = file.chunks(size).collect();
            assert_eq!(parse(1000, &pieces).unwrap(), expected, "pieces of {size}");
        }
        assert!(parse(699, &[&file]).unwrap_err().contains("more than 699 bytes"));
    }

    #[test]
    fn what_is_no_flv_is_said_to_be_none() {
        assert!(parse(1000, &[b"<html>404"]).unwrap_err().contains("does not send FLV"));
        assert!(
            parse(1000, &[b"FLV\x01\x05\0\0\xFF\xFF"])
                .unwrap_err()
                .contains("does not send FLV")
        );
        let mut file = Vec::new();
        flv::append_file_header(&mut file, true, true);
        file.push(77);
        assert!(parse(1000, &[&file]).unwrap_err().contains("unknown tag type 77"));
    }

    #[tokio::test]
    async fn a_name_that_leads_inwards_is_not_followed() {
        let url: PullUrl = "http://localhost:9/x.flv".parse().unwrap();
        let refused = resolve(&url, AddressPolicy::default()).await.unwrap_err();
        assert!(refused.contains("loopback address"), "{refused}");
        let policy = AddressPolicy {
            loopback: true,
            ..AddressPolicy::default()
        };
        assert!(!resolve(&url, policy).await.unwrap().is_empty());
    }
}
