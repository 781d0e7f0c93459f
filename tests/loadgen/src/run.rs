//! Sends to many connections from one thread, on a tick.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::rtmp::{Session, Target};

use crate::clip::Loop;
use crate::{Options, Rate};

/// How often due messages are written.
const TICK: Duration = Duration::from_millis(10);
/// How often each connection's replies (acknowledgements, pings) are read.
const READ_EVERY_TICKS: usize = 50;
/// One write of a flat-out stream: far more than a socket takes at once.
const FLAT_WRITE_LEN: usize = 1 << 20;
/// A server that does not let a stream publish for so long is a failure.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// So long a server may take to read what is left and close after the goodbye.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// One publishing connection.
struct Stream {
    socket: TcpStream,
    session: Session,
    /// Protocol bytes before the media, not yet taken by the socket.
    pending: Vec<u8>,
    /// When its media begins; none before it publishes.
    start: Option<Instant>,
    round: u64,
    /// Next mark to be due, and the next byte to send.
    mark: usize,
    at: usize,
    sent: u64,
    held_back_ms: u64,
    failure: Option<String>,
    closed: bool,
}

struct Server {
    addr: SocketAddr,
    tc_url: String,
    app: String,
}

fn server(url: &str) -> Result<Server> {
    let rest = url.strip_prefix("rtmp://").context("the URL must begin with rtmp://")?;
    let (host, app) = rest.split_once('/').context("the URL must name an application")?;
    let host_port = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:1935")
    };
    let addr = host_port.to_socket_addrs()?.next().context("the host has no address")?;
    ensure!(
        addr.ip().is_loopback(),
        "{addr} is not on this machine: loads go to loopback only"
    );
    Ok(Server {
        addr,
        tc_url: url.to_owned(),
        app: app.trim_end_matches('/').to_owned(),
    })
}

impl Stream {
    fn open(server: &Server, name: String, index: usize) -> Result<Self> {
        let socket = TcpStream::connect(server.addr).with_context(|| format!("connecting to {}", server.addr))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let target = Target {
            tc_url: server.tc_url.clone(),
            app: server.app.clone(),
            stream: name,
        };
        let mut session = Session::new(target, u8::try_from(index % 251)?);
        let pending = session.take_output();
        Ok(Self {
            socket,
            session,
            pending,
            start: None,
            round: 0,
            mark: 0,
            at: 0,
            sent: 0,
            held_back_ms: 0,
            failure: None,
            closed: false,
        })
    }

    fn running(&self) -> bool {
        self.failure.is_none() && !self.closed
    }

    /// Reads what the server says; notices when it closes.
    fn listen(&mut self, scratch: &mut [u8]) {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => self.closed = true,
                Ok(len) => {
                    if let Err(error) = self.session.feed(&scratch[..len]) {
                        self.failure = Some(format!("{error:#}"));
                        return;
                    }
                    let answer = self.session.take_output();
                    // An answer must not fall inside a message: it waits until the media stands at a message's end.
                    self.pending.extend(answer);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.failure = Some(format!("reading: {error}")),
            }
            return;
        }
    }

    /// Writes waiting protocol bytes; true when none are left.
    fn flush_pending(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.socket.write(&self.pending) {
                Ok(len) => {
                    self.sent += len as u64;
                    self.pending.drain(..len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.failure = Some(format!("writing: {error}"));
                    return false;
                }
            }
        }
        true
    }

    /// Writes media up to `end`; true when all of it went out.
    fn write_until(&mut self, clip: &Loop, end: usize) -> bool {
        while self.at < end {
            match self.socket.write(&clip.bytes[self.at..end]) {
                Ok(len) => {
                    self.sent += len as u64;
                    self.at += len;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(format!("writing after {} bytes: {error}", self.sent));
                    return false;
                }
            }
        }
        true
    }

    fn at_message_end(&self, clip: &Loop) -> bool {
        self.at == 0 || clip.marks.binary_search_by_key(&self.at, |mark| mark.end).is_ok()
    }

    /// Sends what is due; notes how late the oldest unsent message is.
    fn pace(&mut self, clip: &Loop, now: Instant) {
        let Some(start) = self.start else { return };
        let now_ms = u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.round * clip.duration_ms + clip.marks[self.mark].due_ms {
            return;
        }
        if !self.pending.is_empty() && self.at_message_end(clip) && !self.flush_pending() {
            return;
        }
        loop {
            let base = self.round * clip.duration_ms;
            let first_due = base + clip.marks[self.mark].due_ms;
            let mut until = self.mark;
            while until < clip.marks.len() && base + clip.marks[until].due_ms <= now_ms {
                until += 1;
            }
            let Some(end) = until.checked_sub(1).map(|last| clip.marks[last].end) else {
                return;
            };
            if !self.write_until(clip, end) {
                // What did go out whole is no longer held back.
                while self.mark < until && clip.marks[self.mark].end <= self.at {
                    self.mark += 1;
                }
                let due = clip.marks.get(self.mark).map_or(first_due, |mark| base + mark.due_ms);
                self.held_back_ms = self.held_back_ms.max(now_ms.saturating_sub(due));
                return;
            }
            self.mark = until;
            if until < clip.marks.len() {
                return;
            }
            (self.round, self.mark, self.at) = (self.round + 1, 0, 0);
        }
    }

    /// Sends all that the socket takes; true when it took anything.
    fn pour(&mut self, clip: &Loop) -> bool {
        let before = self.sent;
        if !self.pending.is_empty() && self.at_message_end(clip) && !self.flush_pending() {
            return self.sent > before;
        }
        let end = (self.at + FLAT_WRITE_LEN).min(clip.bytes.len());
        if self.write_until(clip, end) && end == clip.bytes.len() {
            (self.round, self.at) = (self.round + 1, 0);
        }
        self.sent > before
    }
}

/// Runs the load; `announce` gets the line that says all streams publish. Returns the report.
pub(crate) fn run(options: &Options, clip: &Loop, announce: &mut dyn FnMut(Value) -> Result<()>) -> Result<Value> {
    let server = server(&options.url)?;
    allow_open_files();
    let mut scratch = vec![0; 1 << 16];
    let mut streams = begin(options, clip, &server, &mut scratch)?;
    announce(json!({ "event": "publishing", "streams": streams.len() }))?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(options.seconds);
    let bytes_max = options.megabytes.map_or(u64::MAX, |megabytes| (megabytes * 1e6) as u64);
    let late_ms = match options.rate {
        Rate::Realtime => realtime(&mut streams, clip, end, bytes_max, &mut scratch),
        Rate::Flat => {
            flat(&mut streams, clip, end, bytes_max, &mut scratch)?;
            0
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    announce(json!({ "event": "sent", "bytes_sent": total(&streams), "seconds": seconds }))?;
    if !options.abandon {
        finish(&mut streams, clip, &mut scratch);
    }
    let mut held: Vec<u64> = streams.iter().map(|stream| stream.held_back_ms).collect();
    held.sort_unstable();
    let failures: Vec<Value> = streams
        .iter()
        .enumerate()
        .filter_map(|(index, s)| s.failure.as_ref().map(|why| json!({ "stream": index, "why": why })))
        .collect();
    Ok(json!({
        "event": "done",
        "streams": streams.len(),
        "seconds": seconds,
        "bytes_sent": total(&streams),
        "media_seconds": streams.iter().map(|s| media_seconds(s, clip)).sum::<f64>(),
        "held_back_ms": { "max": held.last(), "median": held.get(held.len() / 2) },
        "own_lateness_ms": late_ms,
        "own_cpu_seconds": cpu_seconds()?,
        "failures": failures,
    }))
}

/// Each stream is an open file; the usual soft limit of 1024 is there for programs that use `select`.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, opening the first socket too many says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn total(streams: &[Stream]) -> u64 {
    streams.iter().map(|stream| stream.sent).sum()
}

fn media_seconds(stream: &Stream, clip: &Loop) -> f64 {
    let part = if clip.bytes.is_empty() {
        0.0
    } else {
        stream.at as f64 / clip.bytes.len() as f64
    };
    (stream.round as f64 + part) * clip.duration_ms as f64 / 1000.0
}

/// Connects all streams, spread over the stagger, and returns when every one publishes.
fn begin(options: &Options, clip: &Loop, server: &Server, scratch: &mut [u8]) -> Result<Vec<Stream>> {
    let mut streams: Vec<Stream> = Vec::with_capacity(options.streams);
    let begin = Instant::now();
    let gap = Duration::from_secs_f64(options.stagger).div_f64(options.streams.max(1) as f64);
    let deadline = begin + Duration::from_secs_f64(options.stagger) + START_TIMEOUT;
    let mut tick = Tick::new(begin);
    loop {
        let now = tick.wait();
        while streams.len() < options.streams && now >= begin + gap.mul_f64(streams.len() as f64) {
            let index = streams.len();
            streams.push(Stream::open(server, format!("{}{index}", options.prefix), index)?);
        }
        for stream in &mut streams {
            if stream.start.is_none() {
                stream.listen(scratch);
                if stream.session.publishing() && stream.running() {
                    stream.pending.extend_from_slice(&clip.prologue);
                    stream.start = Some(now);
                }
                stream.flush_pending();
            } else if options.rate == Rate::Realtime {
                stream.pace(clip, now);
            }
            if let Some(why) = &stream.failure {
                bail!("a stream did not start: {why}");
            }
            ensure!(
                !stream.closed,
                "a stream did not start: the server closed the connection"
            );
        }
        if streams.len() == options.streams && streams.iter().all(|stream| stream.start.is_some()) {
            return Ok(streams);
        }
        let waiting = streams.iter().filter(|stream| stream.start.is_none()).count();
        ensure!(
            now < deadline,
            "{waiting} streams were not let publish within {START_TIMEOUT:?}"
        );
    }
}

/// A tick that never drifts and knows how late it came.
struct Tick {
    next: Instant,
    late_ms: u64,
}

impl Tick {
    fn new(now: Instant) -> Self {
        Self { next: now, late_ms: 0 }
    }

    fn wait(&mut self) -> Instant {
        self.next += TICK;
        let now = Instant::now();
        match self.next.checked_duration_since(now) {
            Some(left) => std::thread::sleep(left),
            None => {
                self.late_ms = self
                    .late_ms
                    .max(u64::try_from((now - self.next).as_millis()).unwrap_or(u64::MAX));
                self.next = now;
            }
        }
        Instant::now()
    }
}

fn realtime(streams: &mut [Stream], clip: &Loop, end: Instant, bytes_max: u64, scratch: &mut [u8]) -> u64 {
    let mut tick = Tick::new(Instant::now());
    for round in 0.. {
        let now = tick.wait();
        for (index, stream) in streams.iter_mut().enumerate() {
            if stream.running() && index % READ_EVERY_TICKS == round % READ_EVERY_TICKS {
                stream.listen(scratch);
                if stream.closed {
                    stream.failure = Some("the server closed the connection".to_owned());
                }
            }
            if stream.running() {
                stream.pace(clip, now);
            }
        }
        if now >= end || !streams.iter().any(Stream::running) || total(streams) >= bytes_max {
            break;
        }
    }
    tick.late_ms
}

fn flat(streams: &mut [Stream], clip: &Loop, end: Instant, bytes_max: u64, scratch: &mut [u8]) -> Result<()> {
    while Instant::now() < end && streams.iter().any(Stream::running) && total(streams) < bytes_max {
        let mut moved = false;
        for stream in streams.iter_mut().filter(|stream| stream.running()) {
            moved |= stream.pour(clip);
            stream.listen(scratch);
            if stream.closed {
                stream.failure = Some("the server closed the connection".to_owned());
            }
        }
        if !moved {
            let mut waiting: Vec<PollFd<'_>> = streams
                .iter()
                .filter(|stream| stream.running())
                .map(|stream| PollFd::from_borrowed_fd(stream.socket.as_fd(), PollFlags::OUT))
                .collect();
            poll(
                &mut waiting,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 100_000_000,
                }),
            )?;
        }
    }
    Ok(())
}

/// Ends each message that is half sent, says goodbye and waits until the server has read all and closed.
fn finish(streams: &mut [Stream], clip: &Loop, scratch: &mut [u8]) {
    let deadline = Instant::now() + END_TIMEOUT;
    let mut said = vec![false; streams.len()];
    let mut tick = Tick::new(Instant::now());
    while streams.iter().any(Stream::running) {
        let now = tick.wait();
        for (stream, said) in streams.iter_mut().zip(&mut said).filter(|(stream, _)| stream.running()) {
            stream.listen(scratch);
            if !*said {
                let end = clip
                    .marks
                    .iter()
                    .map(|mark| mark.end)
                    .find(|end| *end >= stream.at)
                    .unwrap_or(stream.at);
                let whole = stream.at_message_end(clip) || stream.write_until(clip, end);
                if whole && stream.flush_pending() {
                    stream.pending = stream.session.goodbye();
                    *said = true;
                }
            }
            if *said && stream.flush_pending() && stream.pending.is_empty() {
                // An error here means that the server has closed already, which the next read says.
                let _ = stream.socket.shutdown(Shutdown::Write);
            }
            if now >= deadline {
                stream
                    .failure
                    .get_or_insert_with(|| format!("the server had not read all {END_TIMEOUT:?} after the end"));
            }
        }
    }
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has no command")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
