//! One publisher: where its media comes from, a socket with an RTMP session or a feed that this worker fetches, and the
//! journal of what it publishes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use journal::{Batch, Control, JournalError, Writer};
use media::flv;
use media::rtmp::{Handler, MediaTag, PublishRequest, ServerSession, Unpublish, Verdict};

use super::feed::Feed;
use super::leave::LEAVING;
use super::pace::Pace;

/// Bytes read from one socket before another gets its turn.
const VISIT_BYTES: u64 = 4 << 20;

/// The wall clock and the monotonic clock, read once a visit. Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) mono_ms: u64,
    pub(super) wall_ms: i64,
}

/// Why a connection ends: a short name for counters and a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) kind: &'static str,
    pub(super) reason: String,
}

impl Ending {
    pub(super) fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

/// A publish in progress: its journal's pen.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) publish_id: String,
    pub(super) writer: Writer,
    pub(super) empty_tags: u64,
    pub(super) has_video: bool,
}

impl Publishing {
    /// Gives up what a failed write held, and names the gap if the disk takes that much.
    fn lost(&mut self, batch: &mut Batch, error: &JournalError, now: Now) -> Ending {
        let kind = failure_kind(error);
        let lost = batch.abandon();
        let gap = Control::Gap {
            reason: kind.to_owned(),
            from_ms: lost.first_dts_ms,
            to_ms: lost.end_dts_ms,
            lost_bytes: 0,
            lost_units: Some(lost.units),
        };
        if let Err(error) = self.writer.control(&gap, now.wall_ms) {
            tracing::error!(publish = %self.publish_id, units = lost.units, %error, "the gap cannot be written to the journal either");
        }
        // The publisher is told what happened, not where: paths and causes are the log's.
        let reason = if error.is_full() {
            "the journal's disk is full"
        } else {
            "the journal cannot be written"
        };
        Ending::new(kind, reason)
    }
}

/// A write failure's short name.
pub(super) fn failure_kind(error: &JournalError) -> &'static str {
    if error.is_full() { "disk_full" } else { "journal_failed" }
}

/// What a connection asks of the poller when its client wants to publish.
pub(super) trait Admission {
    /// Opens a journal for the publish, or says why not.
    fn admit(
        &mut self,
        request: &PublishRequest,
        peer: SocketAddr,
        now: Now,
    ) -> Result<Publishing, (&'static str, String)>;
    /// A publish ended; its journal is closed.
    fn ended(&mut self, publish_id: &str, reason: &str);
    /// A disk would not take what a publisher sent.
    fn write_failed(&mut self, publish_id: &str, error: &JournalError);
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    source: Source,
    pub(super) peer: SocketAddr,
    pub(super) publishing: Option<Publishing>,
    pub(super) pace: Pace,
    /// When bytes last came. Milliseconds, monotonic.
    pub(super) heard_ms: u64,
    /// When it last began or ended a publish, or connected.
    pub(super) idle_since_ms: u64,
    accepted: bool,
    /// It ends behind its next key picture.
    ends_at_key: bool,
}

/// Where a publisher's media comes from.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are clients, whose connection is boxed as a whole"
)]
enum Source {
    /// A client that pushes.
    Client { socket: TcpStream, session: ServerSession },
    /// An origin that is pulled from.
    Origin(Feed),
}

/// What one visit found.
#[derive(Debug)]
pub(super) struct Visited {
    pub(super) bytes: u64,
    pub(super) more: bool,
    pub(super) ending: Option<Ending>,
}

struct Visit<'a, A> {
    publishing: &'a mut Option<Publishing>,
    batch: &'a mut Batch,
    admission: &'a mut A,
    peer: SocketAddr,
    now: Now,
    failed: Option<Ending>,
    /// A key picture was among what came.
    key_came: bool,
}

impl<A: Admission> Handler for Visit<'_, A> {
    fn on_publish(&mut self, request: &PublishRequest) -> Verdict {
        match self.admission.admit(request, self.peer, self.now) {
            Ok(publishing) => {
                *self.publishing = Some(publishing);
                Verdict::Accept
            }
            Err((code, reason)) => {
                self.failed = Some(Ending::new("refused", reason.clone()));
                Verdict::Refuse { code, reason }
            }
        }
    }

    fn on_media(&mut self, tag: MediaTag<'_>) {
        if let Some(publishing) = self.publishing.as_mut() {
            if tag.body.is_empty() {
                publishing.empty_tags += 1;
                return;
            }
            if tag.tag_type == flv::VIDEO {
                publishing.has_video = true;
                self.key_came |= flv::classify(tag.tag_type, tag.body).is_some_and(|class| class.key);
            }
            let mono = i64::try_from(self.now.mono_ms).unwrap_or(i64::MAX);
            publishing.writer.append(
                self.batch,
                tag.tag_type,
                tag.timestamp_ms,
                tag.body,
                mono,
                self.now.wall_ms,
            );
        }
    }

    fn on_unpublish(&mut self, why: Unpublish) {
        if let Some(publishing) = self.publishing.take() {
            close(publishing, self.batch, self.admission, why.as_str(), self.now);
        }
    }
}

/// Writes what is still in hand and the journal's last record.
fn close<A: Admission>(mut publishing: Publishing, batch: &mut Batch, admission: &mut A, reason: &str, now: Now) {
    if let Err(error) = publishing.writer.commit(batch) {
        admission.write_failed(&publishing.publish_id, &error);
        publishing.lost(batch, &error, now);
    }
    if publishing.empty_tags > 0 {
        let refused = Control::Refused {
            kind: "empty_tag".to_owned(),
            count: publishing.empty_tags,
        };
        if let Err(error) = publishing.writer.control(&refused, now.wall_ms) {
            admission.write_failed(&publishing.publish_id, &error);
        }
    }
    let last = Control::Unpublish {
        reason: reason.to_owned(),
        at_ms: now.wall_ms,
    };
    if let Err(error) = publishing.writer.close(&last, now.wall_ms) {
        admission.write_failed(&publishing.publish_id, &error);
    }
    admission.ended(&publishing.publish_id, reason);
}

impl Connection {
    pub(super) fn new(socket: TcpStream, peer: SocketAddr, session: ServerSession, now_ms: u64) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self::over(Source::Client { socket, session }, peer, now_ms))
    }

    /// What this worker fetches from an origin.
    pub(super) fn fed(feed: Feed, now_ms: u64) -> Self {
        let origin = feed.origin;
        Self::over(Source::Origin(feed), origin, now_ms)
    }

    fn over(source: Source, peer: SocketAddr, now_ms: u64) -> Self {
        Self {
            source,
            peer,
            publishing: None,
            pace: Pace::new(now_ms),
            heard_ms: now_ms,
            idle_since_ms: now_ms,
            accepted: false,
            ends_at_key: false,
        }
    }

    /// Lets the publisher go when it suits it best. False: there is nothing to wait for, it may end at once.
    pub(super) fn leave(&mut self) -> bool {
        let Some(publishing) = &self.publishing else {
            return false;
        };
        let Source::Client { socket, session } = &mut self.source else {
            return false;
        };
        if session.ask_to_reconnect(LEAVING) {
            // What the socket does not take now goes with the next visit.
            let _ = flush(socket, session);
            return true;
        }
        self.ends_at_key = publishing.has_video;
        self.ends_at_key
    }

    /// It goes on after all.
    pub(super) fn stay(&mut self) {
        self.ends_at_key = false;
    }

    /// True where the socket holds bytes, or news of its end, that were not read yet.
    pub(super) fn has_unread(&self) -> bool {
        let socket = match &self.source {
            Source::Client { socket, .. } => socket,
            Source::Origin(feed) => return feed.has_unread(),
        };
        match socket.peek(&mut [0u8; 1]) {
            Ok(n) => n > 0,
            Err(e) => e.kind() == ErrorKind::Interrupted,
        }
    }

    /// True where the peer has closed or reset the connection.
    pub(super) fn is_gone(&self) -> bool {
        let socket = match &self.source {
            Source::Client { socket, .. } => socket,
            Source::Origin(feed) => return feed.is_gone(),
        };
        match socket.peek(&mut [0u8; 1]) {
            Ok(n) => n == 0,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Reads what has gathered and writes it to the journal.
    pub(super) fn visit<A: Admission>(
        &mut self,
        scratch: &mut [u8],
        batch: &mut Batch,
        admission: &mut A,
        now: Now,
    ) -> Visited {
        let mut visit = Visit {
            publishing: &mut self.publishing,
            batch,
            admission,
            peer: self.peer,
            now,
            failed: None,
            key_came: false,
        };
        let mut visited = match &mut self.source {
            Source::Client { socket, session } => {
                let mut visited = read_client(socket, session, scratch, &mut visit);
                if let Some(ending) = flush(socket, session) {
                    visited.ending.get_or_insert(ending);
                }
                visited
            }
            Source::Origin(feed) => take_feed(feed, &mut visit),
        };
        if self.ends_at_key && visit.key_came {
            // All that was read is in the journal: the key picture is the first that the next worker has to have again.
            visited.ending.get_or_insert(Ending::new("worker_stopped", LEAVING));
        }
        if visited.bytes > 0 {
            self.heard_ms = now.mono_ms;
        }
        if self.publishing.is_some() != self.accepted {
            self.accepted = self.publishing.is_some();
            self.idle_since_ms = now.mono_ms;
        }
        visited
    }

    /// Ends the connection: the journal gets its last record, the client a word if it can still hear one.
    pub(super) fn end<A: Admission>(mut self, ending: &Ending, batch: &mut Batch, admission: &mut A, now: Now) {
        if let Some(publishing) = self.publishing.take() {
            if let Source::Client { session, .. } = &mut self.source
                && !matches!(ending.kind, "peer_closed" | "connection_lost")
            {
                session.refuse("NetStream.Publish.Denied", &ending.reason);
            }
            close(publishing, batch, admission, ending.kind, now);
        }
        match &mut self.source {
            Source::Client { socket, session } => {
                let _ = flush(socket, session);
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            Source::Origin(feed) => feed.close(&ending.reason),
        }
    }
}

impl<A: Admission> Visit<'_, A> {
    /// Writes what was handed on to the journal.
    fn commit(&mut self) -> Option<Ending> {
        if let Some(publishing) = self.publishing.as_mut()
            && let Err(error) = publishing.writer.commit(self.batch)
        {
            self.admission.write_failed(&publishing.publish_id, &error);
            return Some(publishing.lost(self.batch, &error, self.now));
        }
        None
    }
}

fn read_client<A: Admission>(
    socket: &mut TcpStream,
    session: &mut ServerSession,
    scratch: &mut [u8],
    visit: &mut Visit<'_, A>,
) -> Visited {
    let mut visited = Visited {
        bytes: 0,
        more: false,
        ending: None,
    };
    loop {
        let read = match socket.read(scratch) {
            Ok(0) => {
                visited.ending = Some(Ending::new("peer_closed", "the publisher closed the connection"));
                break;
            }
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => {
                visited.ending = Some(Ending::new("connection_lost", format!("the connection was lost: {e}")));
                break;
            }
        };
        visited.bytes += read as u64;
        let fed = session.feed(scratch.get(..read).unwrap_or(&[]), visit);
        let failed = visit.failed.take();
        visited.ending = visit.commit().or(failed).or_else(|| {
            // A refusal in words says more than the session's error that follows from it.
            fed.err().map(|error| Ending::new(error.kind(), error.to_string()))
        });
        if visited.ending.is_some() || read < scratch.len() {
            break;
        }
        if visited.bytes >= VISIT_BYTES {
            visited.more = true;
            break;
        }
    }
    visited
}

/// Takes what an origin sent; its first tag begins the publish.
fn take_feed<A: Admission>(feed: &mut Feed, visit: &mut Visit<'_, A>) -> Visited {
    let mut visited = Visited {
        bytes: 0,
        more: false,
        ending: None,
    };
    if visit.publishing.is_none() && feed.has_unread() {
        visit.on_publish(&feed.request);
        visited.ending = visit.failed.take();
        if visited.ending.is_some() {
            return visited;
        }
    }
    let (bytes, ended) = feed.take(|tag| visit.on_media(tag));
    visited.bytes = bytes;
    visited.ending = visit.commit().or(ended);
    visited
}

/// Sends what the session wants sent, as far as the socket takes it.
fn flush(socket: &mut TcpStream, session: &mut ServerSession) -> Option<Ending> {
    let output = session.output();
    while !output.is_empty() {
        match socket.write(output) {
            Ok(0) => break,
            Ok(n) => drop(output.drain(..n)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Some(Ending::new("connection_lost", format!("the connection was lost: {e}"))),
        }
    }
    None
}
