//! Sends numbered frames when they are due and remembers when each was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::publisher::Publisher;
use crate::rtmp::{AUDIO, VIDEO};
use crate::source::{Numbered, Shape};

/// A frame that the system had taken, and when.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Message type: audio or video.
    pub message_type: u8,
    /// Its number among its type.
    pub number: u64,
    /// Decode time, milliseconds.
    pub dts_ms: u64,
    /// Presentation time, milliseconds.
    pub pts_ms: u64,
    /// When the last of its bytes was handed over.
    pub at: Instant,
}

/// A publisher in a thread of its own.
#[derive(Debug)]
pub struct Pacer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Log>>,
}

/// What a pacer did.
#[derive(Debug, Clone)]
pub struct Log {
    /// Every frame that went out whole, in order.
    pub sent: Vec<Sent>,
    /// How late a frame went out at most, for the machine's sake: what the machine did to this thread it may do to any.
    pub lateness: Duration,
    /// Why it ended before it was told to; none if it was told.
    pub broken: Option<String>,
}

impl Log {
    /// How many frames of a type were sent by `moment`.
    #[must_use]
    pub fn sent_by(&self, message_type: u8, moment: Instant) -> usize {
        self.sent
            .iter()
            .filter(|frame| frame.message_type == message_type && frame.at <= moment)
            .count()
    }

    /// How many frames of a type were sent.
    #[must_use]
    pub fn count(&self, message_type: u8) -> usize {
        self.sent
            .iter()
            .filter(|frame| frame.message_type == message_type)
            .count()
    }

    /// The frames of a type.
    pub fn of(&self, message_type: u8) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |frame| frame.message_type == message_type)
    }
}

impl Pacer {
    /// Publishes and returns when the server has accepted; the frames go on until told to stop.
    ///
    /// # Errors
    /// The server refuses.
    pub fn start(server: SocketAddr, stream: &str, shape: Shape) -> Result<Self> {
        Self::start_for(server, stream, shape, None)
    }

    /// As [`Pacer::start`], and ends in good order by itself after so much media time.
    ///
    /// # Errors
    /// The server refuses.
    pub fn start_for(server: SocketAddr, stream: &str, shape: Shape, limit: Option<Duration>) -> Result<Self> {
        let publisher = Publisher::start(server, stream)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || pace(publisher, shape, &told, limit));
        Ok(Self { stop, thread })
    }

    /// Ends the publish in good order, unless it has broken or ended.
    ///
    /// # Errors
    /// The server does not close in turn.
    pub fn finish(self) -> Result<Log> {
        self.stop.store(true, Ordering::Relaxed);
        self.ended()
    }

    /// Waits until it ends by itself: its time is over, or the server is gone.
    ///
    /// # Errors
    /// The server does not close in turn.
    pub fn ended(self) -> Result<Log> {
        self.thread.join().map_err(|_| anyhow!("the pacer panicked"))?
    }
}

fn pace(mut publisher: Publisher, shape: Shape, stop: &AtomicBool, limit: Option<Duration>) -> Result<Log> {
    let source = Numbered::new(shape);
    let mut log = Log {
        sent: Vec::new(),
        lateness: Duration::ZERO,
        broken: None,
    };
    for frame in source.prologue() {
        publisher
            .send(frame.message_type, 0, &frame.body)
            .context("sending the headers")?;
    }
    let begin = Instant::now();
    for frame in source {
        let due = Duration::from_millis(frame.dts_ms);
        if limit.is_some_and(|limit| due >= limit) {
            break;
        }
        // A frame is due at a moment: waiting for it is what a paced source does.
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body) {
            Ok(at) => {
                log.lateness = log.lateness.max((at - begin).saturating_sub(due));
                let cto = if frame.message_type == VIDEO {
                    u64::from(u32::from_be_bytes([0, frame.body[2], frame.body[3], frame.body[4]]))
                } else {
                    0
                };
                debug_assert!(frame.message_type == VIDEO || frame.message_type == AUDIO);
                log.sent.push(Sent {
                    message_type: frame.message_type,
                    number: frame.number,
                    dts_ms: frame.dts_ms,
                    pts_ms: frame.dts_ms + cto,
                    at,
                });
            }
            Err(error) => {
                log.broken = Some(format!("{error:#}"));
                return Ok(log);
            }
        }
    }
    publisher.finish()?;
    Ok(log)
}
