//! Media that this worker fetches itself: [`feed`] makes the two ends of a bounded buffer between the task that speaks to an
//! origin ([`Inlet`]) and the ingest thread ([`Feed`]), where it is journaled like any publisher's.
//!
//! A full buffer holds the task back, the task then does not read its socket, and TCP holds the origin back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media::flv;
use media::rtmp::{MediaTag, PublishRequest};
use shared::ids::StreamKey;
use tokio::sync::Notify;

use super::connection::Ending;

/// Bytes that may wait for the ingest thread; it comes at least every 200 ms, so that this is 160 Mbit/s.
const FULL_BYTES: usize = 4 << 20;
/// A buffer that grew beyond this is given back when it is empty, bytes.
const KEEP_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
struct State {
    /// Whole FLV tags.
    tags: Vec<u8>,
    /// The origin has no more.
    ended: Option<Ending>,
    /// The ingest thread takes no more, and why.
    closed: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is room again, or nothing more is taken.
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The origin's end. Dropped, the publish ends.
#[derive(Debug)]
pub(crate) struct Inlet {
    shared: Arc<Shared>,
}

/// The ingest thread's end. Dropped, nothing more is taken.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    spare: Vec<u8>,
    pub(super) request: PublishRequest,
    pub(super) origin: SocketAddr,
}

/// Makes both ends for one publish of `stream`, fetched from `origin` by `client`, which names the protocol.
pub(crate) fn feed(stream: &StreamKey, origin: SocketAddr, client: &str) -> (Inlet, Feed) {
    let shared = Arc::new(Shared::default());
    let request = PublishRequest {
        app: stream.app().to_owned(),
        stream: stream.stream().to_owned(),
        domain: Some(stream.domain().to_owned()),
        flash_ver: client.to_owned(),
        publish_type: "live".to_owned(),
        ..PublishRequest::default()
    };
    let feed = Feed {
        shared: Arc::clone(&shared),
        spare: Vec::new(),
        request,
        origin,
    };
    (Inlet { shared }, feed)
}

/// Nothing more is taken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Closed(pub(crate) String);

impl Inlet {
    /// Hands a tag over. Without effect once nothing is taken any more: [`Inlet::room`] says so.
    pub(crate) fn push(&self, tag: MediaTag<'_>) {
        let mut state = self.shared.state();
        if state.closed.is_none() {
            // An RTMP message and an FLV tag have the same longest length.
            flv::append_tag(&mut state.tags, tag.tag_type, tag.timestamp_ms, tag.body);
        }
    }

    /// Waits until there is room for more.
    ///
    /// # Errors
    /// [`Closed`]: the publish was refused or has ended.
    pub(crate) async fn room(&self) -> Result<(), Closed> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state();
                if let Some(reason) = &state.closed {
                    return Err(Closed(reason.clone()));
                }
                if state.tags.len() < FULL_BYTES {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits until nothing more is taken.
    pub(crate) async fn closed(&self) -> Closed {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(reason) = &self.shared.state().closed {
                return Closed(reason.clone());
            }
            changed.await;
        }
    }

    /// No more comes: what was handed over is still journaled, then the publish ends so.
    pub(crate) fn end(&self, kind: &'static str, reason: impl Into<String>) {
        self.shared.state().ended.get_or_insert(Ending::new(kind, reason));
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.end("pull_stopped", "the stream is no longer pulled");
    }
}

impl Feed {
    /// Calls `each` with every tag that waits, in order; gives their bytes, and how the publish ends if nothing more comes.
    pub(super) fn take(&mut self, mut each: impl FnMut(MediaTag<'_>)) -> (u64, Option<Ending>) {
        let (mut tags, ended) = {
            let mut state = self.shared.state();
            let tags = std::mem::replace(&mut state.tags, std::mem::take(&mut self.spare));
            (tags, state.ended.clone())
        };
        self.shared.changed.notify_waiters();
        let mut rest = tags.as_slice();
        // What was framed here can be read here.
        while let Ok(Some(tag)) = flv::read_tag(rest) {
            each(MediaTag {
                tag_type: tag.tag_type,
                timestamp_ms: tag.timestamp_ms,
                body: tag.body,
            });
            rest = rest.get(tag.len..).unwrap_or_default();
        }
        let taken = tags.len() as u64;
        if tags.capacity() <= KEEP_BYTES {
            tags.clear();
            self.spare = tags;
        }
        (taken, ended)
    }

    /// True where something waits to be taken.
    pub(super) fn has_unread(&self) -> bool {
        !self.shared.state().tags.is_empty()
    }

    /// True where nothing more comes.
    pub(super) fn is_gone(&self) -> bool {
        let state = self.shared.state();
        state.tags.is_empty() && state.ended.is_some()
    }

    /// Takes nothing more.
    pub(super) fn close(&self, reason: &str) {
        let mut state = self.shared.state();
        if state.closed.is_none() {
            state.closed = Some(reason.to_owned());
            state.tags = Vec::new();
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.close("this worker is shutting down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ends() -> (Inlet, Feed) {
        let stream = StreamKey::new("d", "live", "s").unwrap();
        feed(&stream, SocketAddr::from(([127, 0, 0, 1], 9)), "test")
    }

    fn tag(number: u32, len: usize) -> (u32, Vec<u8>) {
        (number, vec![7; len])
    }

    fn push(inlet: &Inlet, (timestamp_ms, body): &(u32, Vec<u8>)) {
        inlet.push(MediaTag {
            tag_type: 9,
            timestamp_ms: *timestamp_ms,
            body,
        });
    }

    fn taken(feed: &mut Feed) -> Vec<(u32, usize)> {
        let mut seen = Vec::new();
        feed.take(|tag| seen.push((tag.timestamp_ms, tag.body.len())));
        seen
    }

    #[tokio::test]
    async fn tags_come_out_whole_and_in_order_and_the_end_after_them() {
        let (inlet, mut feed) = ends();
        for number in 0..3 {
            push(&inlet, &tag(number, 100));
        }
        inlet.room().await.unwrap();
        assert!(feed.has_unread());
        assert_eq!(taken(&mut feed), [(0, 100), (1, 100), (2, 100)]);
        push(&inlet, &tag(u32::MAX, 0));
        inlet.end("origin_closed", "x");
        drop(inlet);
        assert!(!feed.is_gone(), "something is left");
        let mut count = 0;
        let (bytes, ending) = feed.take(|_| count += 1);
        assert_eq!((bytes, count), (15, 1));
        assert_eq!(
            ending,
            Some(Ending::new("origin_closed", "x")),
            "the first reason counts"
        );
        assert!(feed.is_gone());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_buffer_holds_the_origin_back() {
        let (inlet, mut feed) = ends();
        push(&inlet, &tag(1, FULL_BYTES));
        assert!(
            tokio::time::timeout(Duration::from_secs(60), inlet.room())
                .await
                .is_err()
        );
        let waiting = tokio::spawn(async move {
            inlet.room().await.unwrap();
            inlet
        });
        tokio::task::yield_now().await;
        assert_eq!(taken(&mut feed), [(1, FULL_BYTES)]);
        assert_eq!(feed.spare.capacity(), 0, "a large buffer is not kept");
        let inlet = waiting.await.unwrap();
        feed.close("refused");
        assert_eq!(inlet.room().await.unwrap_err().to_string(), "refused");
        assert_eq!(inlet.closed().await.to_string(), "refused");
        push(&inlet, &tag(2, 5));
        assert_eq!(taken(&mut feed), []);
    }
}
