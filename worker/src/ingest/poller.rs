//! The ingest thread.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use journal::{Batch, JournalError, Publish, Writer};
use media::rtmp::{PublishRequest, ServerSession};
use shared::ids::{IdGen, PublishId, StreamKey};
use shared::time::{Clock, Steady};
use tracing::{debug, info, warn};

use super::connection::{Admission, Connection, Ending, Now, Publishing, failure_kind};
use super::feed::Feed;
use super::leave::{self, LEAVING, Leaving};
use super::{Command, Event, Live, Settings};
use shared::telemetry::{Reason, WorkerMetrics};

/// One socket read takes at most this, bytes; then the journal is written. Small enough to stay in the cache.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Connections accepted in one round before the others get their turn.
const ACCEPT_AT_ONCE: usize = 64;
/// Commands that may wait for the thread; a sender then waits.
const COMMANDS: usize = 1024;
/// With nothing due, the thread still looks at commands this often, milliseconds.
const REST_MS: u64 = 50;
/// How often free space is looked at, milliseconds.
const SPACE_MS: u64 = 250;
/// Asked of the kernel for each socket, bytes, so that what gathers between two visits holds no publisher back.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A handle on the ingest thread.
#[derive(Debug)]
pub struct Ingest {
    commands: SyncSender<Command>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Where events go; `Err` gives one back that cannot be taken yet.
pub type Events = Box<dyn FnMut(Event) -> Result<(), Box<Event>> + Send>;

/// What the thread is given from outside.
#[expect(missing_debug_implementations, reason = "trait objects inside")]
pub struct Deps {
    /// Wall and monotonic time. Of this kind, for what has arrived is stamped with it for good: a clock that is wrong for a moment must not say
    /// when a task is over.
    pub clock: Arc<Steady>,
    /// Ids of publishes, and the bytes of handshakes.
    pub ids: Arc<dyn IdGen>,
    /// Where events go.
    pub events: Events,
    /// Counters.
    pub metrics: WorkerMetrics,
    /// Group sync, told when journals were written.
    pub sync: Arc<journal::GroupSync>,
}

impl Ingest {
    /// Binds `address` and starts the thread.
    ///
    /// # Errors
    /// Where the address cannot be bound or the thread not started.
    pub fn start(address: SocketAddr, settings: Settings, deps: Deps) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let (commands, inbox) = sync_channel(COMMANDS);
        let poller = Poller::new(listener, settings, deps, inbox);
        let thread = std::thread::Builder::new()
            .name("ingest".to_owned())
            .spawn(move || poller.run())?;
        Ok(Self {
            commands,
            address,
            thread: Some(thread),
        })
    }

    /// The address publishers connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the thread something. Waits while 1,024 commands are waiting; is without effect once the thread has ended.
    pub fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// A sender of commands for others.
    #[must_use]
    pub fn commands(&self) -> SyncSender<Command> {
        self.commands.clone()
    }

    /// Ends the thread and waits for it.
    pub fn stop(mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Sockets that are accepted take this over; it must stand before the window scale is agreed on.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What admission decides with: everything of the poller but the connections and the scratch buffers.
pub(super) struct Desk {
    settings: Settings,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    pub(super) metrics: WorkerMetrics,
    sync: Arc<journal::GroupSync>,
    events: Events,
    /// Events the worker's mailbox had no room for: at most a few for each connection.
    waiting: VecDeque<Event>,
    /// Live streams, each with the place of its connection.
    pub(super) live: BTreeMap<StreamKey, Holder>,
    /// Publishers that gave way to another in this visit.
    superseded: Vec<(usize, String)>,
    /// Since it lets its publishers go.
    pub(super) leaving: Option<Leaving>,
    short_of_space: bool,
}

pub(super) struct Holder {
    place: usize,
    publish_id: String,
}

/// The desk and the other connections, while one is being visited.
struct Door<'a> {
    desk: &'a mut Desk,
    others: &'a [Option<Box<Connection>>],
    place: usize,
}

pub(super) struct Poller {
    listener: TcpListener,
    inbox: Receiver<Command>,
    pub(super) desk: Desk,
    /// Connections, each in a place that it keeps; the one being visited is out of its place.
    pub(super) places: Vec<Option<Box<Connection>>>,
    /// When each place is due, milliseconds, monotonic; `u64::MAX` for an empty one.
    due: Vec<u64>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    batch: Batch,
    space_due_ms: u64,
}

impl Desk {
    pub(super) fn emit(&mut self, event: Event) {
        self.waiting.push_back(event);
        self.deliver();
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.publish_refused.get_or_create(&Reason { reason }).inc();
    }

    /// Hands on events in order; those that cannot be taken yet wait.
    fn deliver(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(event) = (self.events)(event) {
                self.waiting.push_front(*event);
                break;
            }
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            mono_ms: mono_ms(&*self.clock),
            wall_ms: self.clock.now().as_millis(),
        }
    }

    /// Handshakes need bytes that differ, not secrets: two ids have them.
    fn handshake_bytes(&self) -> [u8; 32] {
        let now = self.clock.now();
        let mut bytes = [0; 32];
        let ids = [self.ids.uuid(now), self.ids.uuid(now)];
        for (to, from) in bytes.iter_mut().zip(ids.iter().flat_map(|id| id.as_bytes())) {
            *to = *from;
        }
        bytes
    }

    fn open(&mut self, publish: Publish, now: Now) -> Result<(Writer, Live), JournalError> {
        let dir = self.settings.journals.join(&publish.id);
        let writer = Writer::create(&dir, self.settings.journal, &publish, now.wall_ms)?;
        let progress = writer.progress();
        Ok((writer, Live { publish, dir, progress }))
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn mono_ms(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(0)
}

/// Splits and checks what the client named.
fn key_of(request: &PublishRequest) -> Result<StreamKey, String> {
    let domain = request.domain.as_deref().unwrap_or("");
    StreamKey::new(domain, &request.app, &request.stream).map_err(|e| e.to_string())
}

impl Admission for Door<'_> {
    fn admit(
        &mut self,
        request: &PublishRequest,
        peer: SocketAddr,
        now: Now,
    ) -> Result<Publishing, (&'static str, String)> {
        const DENIED: &str = "NetStream.Publish.Denied";
        const TAKEN: &str = "NetStream.Publish.BadName";
        let key = key_of(request).map_err(|reason| (TAKEN, reason))?;
        if self.desk.leaving.is_some() {
            return Err((DENIED, LEAVING.to_owned()));
        }
        if self.desk.short_of_space {
            self.desk.refused("disk_full");
            return Err((
                DENIED,
                format!(
                    "the journal disk has less than {} bytes free",
                    self.desk.settings.min_free
                ),
            ));
        }
        if self
            .desk
            .settings
            .over_budget
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            self.desk.refused("journal_budget");
            return Err((
                DENIED,
                "recordings wait for storage, and the journals have used up their budget; try again later".to_owned(),
            ));
        }
        if let Some(holder) = self.desk.live.get(&key) {
            let silence = u64::try_from(self.desk.settings.silence.as_millis()).unwrap_or(u64::MAX);
            if let Some(other) = self.others.get(holder.place).and_then(Option::as_ref) {
                // Judged by what the socket holds, not by when this thread came to read it.
                let silent = now.mono_ms.saturating_sub(other.heard_ms) >= silence && !other.has_unread();
                if !silent && !other.is_gone() {
                    self.desk.refused("already_live");
                    return Err((TAKEN, format!("{key} is being published by {}", other.peer)));
                }
                let why = format!("another publisher of {key} came from {peer}");
                self.desk.superseded.push((holder.place, why));
            }
        }
        let publish_id = PublishId::generate(&*self.desk.ids, self.desk.clock.now()).to_string();
        let publish = Publish {
            id: publish_id.clone(),
            domain: key.domain().to_owned(),
            app: key.app().to_owned(),
            stream: key.stream().to_owned(),
            params: request.params.clone(),
            client: peer.to_string(),
            flash_ver: request.flash_ver.clone(),
            started_ms: now.wall_ms,
        };
        let (writer, live) = self.desk.open(publish, now).map_err(|error| {
            warn!(stream = %key, %peer, error = &error as &dyn std::error::Error, "journal cannot be opened, publish refused");
            let reason = if error.is_full() { "the journal's disk is full" } else { "the journal cannot be opened" };
            (DENIED, reason.to_owned())
        })?;
        info!(stream = %key, publish = %publish_id, %peer, client = %request.flash_ver, "publish began");
        self.desk.live.insert(
            key,
            Holder {
                place: self.place,
                publish_id: publish_id.clone(),
            },
        );
        self.desk.metrics.publishes.inc();
        self.desk.emit(Event::Published(live));
        Ok(Publishing {
            publish_id,
            writer,
            empty_tags: 0,
            has_video: false,
        })
    }

    fn ended(&mut self, publish_id: &str, reason: &str) {
        self.desk.live.retain(|_, holder| holder.publish_id != publish_id);
        info!(publish = %publish_id, reason, "publish ended");
        self.desk.metrics.publishes.dec();
        self.desk.sync.mark_dirty();
        self.desk.emit(Event::Unpublished {
            publish_id: publish_id.to_owned(),
            reason: reason.to_owned(),
        });
    }

    fn write_failed(&mut self, publish_id: &str, error: &JournalError) {
        tracing::error!(publish = %publish_id, error = error as &dyn std::error::Error, "journal write failed; what the publisher sent last is lost");
        self.desk
            .metrics
            .journal_errors
            .get_or_create(&Reason {
                reason: failure_kind(error),
            })
            .inc();
    }
}

impl Poller {
    fn new(listener: TcpListener, settings: Settings, deps: Deps, inbox: Receiver<Command>) -> Self {
        let desk = Desk {
            settings,
            clock: deps.clock,
            ids: deps.ids,
            metrics: deps.metrics,
            sync: deps.sync,
            events: deps.events,
            waiting: VecDeque::new(),
            live: BTreeMap::new(),
            superseded: Vec::new(),
            leaving: None,
            short_of_space: false,
        };
        Self {
            listener,
            inbox,
            desk,
            places: Vec::new(),
            due: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            batch: Batch::new(),
            space_due_ms: 0,
        }
    }

    fn run(mut self) {
        loop {
            if !self.obey() {
                break;
            }
            self.desk.deliver();
            let now = self.desk.now();
            if now.mono_ms >= self.space_due_ms {
                self.space_due_ms = now.mono_ms + SPACE_MS;
                self.watch_disk(now);
            }
            self.accept(now);
            self.see_off(now);
            for place in 0..self.due.len() {
                if self.due.get(place).is_some_and(|due| *due <= now.mono_ms) {
                    self.visit(place);
                }
            }
            self.rest();
        }
        let now = self.desk.now();
        for place in 0..self.places.len() {
            self.end(
                place,
                &Ending::new("worker_stopped", "this worker is shutting down"),
                now,
            );
        }
    }

    /// Carries out what the worker asked for; `false` once that is to stop.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Feed(feed)) => self.take_in(feed),
                Ok(Command::Close { publish_id, reason }) => {
                    let place = self
                        .desk
                        .live
                        .values()
                        .find(|h| h.publish_id == publish_id)
                        .map(|h| h.place);
                    if let Some(place) = place {
                        self.end(place, &Ending::new("refused", reason), self.desk.now());
                    }
                }
                Ok(Command::Drain { within }) => self.leave(within),
                Ok(Command::Resume) => self.resume(),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn accept(&mut self, now: Now) {
        for _ in 0..ACCEPT_AT_ONCE {
            // No place, no accept: the kernel's backlog holds further clients.
            if self.places.len() - self.free.len() >= self.desk.settings.max_connections {
                return;
            }
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let session = ServerSession::new(self.desk.settings.limits, self.desk.handshake_bytes());
                    match Connection::new(socket, peer, session, now.mono_ms) {
                        Ok(connection) => self.settle(Box::new(connection), now),
                        Err(error) => debug!(%peer, %error, "connection failed before it began"),
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of file descriptors, most likely: those that are live go on, new ones wait in the backlog.
                    warn!(%error, "cannot accept connections");
                    return;
                }
            }
        }
    }

    fn take_in(&mut self, feed: Feed) {
        if self.places.len() - self.free.len() >= self.desk.settings.max_connections {
            self.desk.refused("max_connections");
            feed.close("this worker has as many connections as worker.ingest.max_connections allows");
            return;
        }
        let now = self.desk.now();
        self.settle(Box::new(Connection::fed(feed, now.mono_ms)), now);
    }

    fn settle(&mut self, connection: Box<Connection>, now: Now) {
        self.desk.metrics.accepted.inc();
        self.desk.metrics.connections.inc();
        if let Some(place) = self.free.pop() {
            if let (Some(slot), Some(due)) = (self.places.get_mut(place), self.due.get_mut(place)) {
                *slot = Some(connection);
                *due = now.mono_ms;
            }
        } else {
            self.places.push(Some(connection));
            self.due.push(now.mono_ms);
        }
    }

    pub(super) fn visit(&mut self, place: usize) {
        let Some(mut connection) = self.places.get_mut(place).and_then(Option::take) else {
            return;
        };
        let now = self.desk.now();
        let mut door = Door {
            desk: &mut self.desk,
            others: &self.places,
            place,
        };
        let mut visited = connection.visit(&mut self.scratch, &mut self.batch, &mut door, now);
        if visited.bytes > 0 {
            self.desk.metrics.ingest_bytes.inc_by(visited.bytes);
            if connection.publishing.is_some() {
                self.desk.sync.mark_dirty();
            }
        }
        if visited.ending.is_none() {
            visited.ending = self.overdue(&connection, now);
        }
        let due = connection.pace.next(
            now.mono_ms,
            visited.bytes,
            connection.publishing.is_some(),
            visited.more,
        );
        if let Some(slot) = self.places.get_mut(place) {
            *slot = Some(connection);
        }
        if let Some(slot) = self.due.get_mut(place) {
            *slot = match self.desk.leaving {
                Some(_) => due.min(now.mono_ms + leave::VISIT_MS),
                None => due,
            };
        }
        if let Some(ending) = visited.ending {
            self.end(place, &ending, now);
        }
        while let Some((place, why)) = self.desk.superseded.pop() {
            self.end(place, &Ending::new("superseded", why), now);
        }
    }

    fn overdue(&self, connection: &Connection, now: Now) -> Option<Ending> {
        let settings = &self.desk.settings;
        if connection.publishing.is_none() {
            let idle = now.mono_ms.saturating_sub(connection.idle_since_ms);
            return (u128::from(idle) >= settings.command_timeout.as_millis()).then(|| {
                Ending::new(
                    "no_publish",
                    format!("no publish within {:?}", settings.command_timeout),
                )
            });
        }
        let silent = now.mono_ms.saturating_sub(connection.heard_ms);
        (u128::from(silent) >= settings.publish_timeout.as_millis() && !connection.has_unread())
            .then(|| Ending::new("silent", format!("nothing came for {:?}", settings.publish_timeout)))
    }

    pub(super) fn end(&mut self, place: usize, ending: &Ending, now: Now) {
        let Some(connection) = self.places.get_mut(place).and_then(Option::take) else {
            return;
        };
        if let Some(due) = self.due.get_mut(place) {
            *due = u64::MAX;
        }
        self.free.push(place);
        let peer = connection.peer;
        if matches!(ending.kind, "peer_closed" | "pull_stopped" | "origin_ended") {
            debug!(%peer, kind = ending.kind, "connection ended");
        } else {
            warn!(%peer, kind = ending.kind, reason = %ending.reason, "connection ended");
        }
        self.desk.metrics.connections.dec();
        if !matches!(
            ending.kind,
            "peer_closed" | "worker_stopped" | "pull_stopped" | "origin_ended"
        ) {
            self.desk
                .metrics
                .connection_errors
                .get_or_create(&Reason { reason: ending.kind })
                .inc();
        }
        let mut door = Door {
            desk: &mut self.desk,
            others: &self.places,
            place,
        };
        connection.end(ending, &mut self.batch, &mut door, now);
    }

    /// Says how long what was written waits for its sync, and how much space is left. Refuses publishes while space is short; when it runs out, ends one publish a round, the longest running first.
    fn watch_disk(&mut self, now: Now) {
        let (stats, metrics) = (self.desk.sync.stats(), &self.desk.metrics);
        let unsynced = stats.oldest_unsynced.unwrap_or_default();
        metrics.unsynced.set(unsynced.as_secs_f64());
        metrics.syncs.inc_by(stats.syncs.saturating_sub(metrics.syncs.get()));
        let more = stats.total.as_secs_f64() - metrics.sync_time.get();
        metrics.sync_time.inc_by(more.max(0.0));
        let free = match journal::free_bytes(&self.desk.settings.journals) {
            Ok(free) => free,
            Err(error) => {
                warn!(%error, "cannot tell how much space is free");
                return;
            }
        };
        let min = self.desk.settings.min_free;
        let over_budget = self
            .desk
            .settings
            .over_budget
            .load(std::sync::atomic::Ordering::Relaxed);
        let accepting = free >= min && !over_budget && self.desk.leaving.is_none();
        self.desk.metrics.accepting.set(i64::from(accepting));
        self.desk.metrics.disk_free.set(gauge(free));
        self.desk.metrics.disk_min_free.set(gauge(min));
        let short = free < min;
        if short != self.desk.short_of_space {
            self.desk.short_of_space = short;
            if short {
                tracing::error!(
                    free,
                    min_free = min,
                    "journal disk nearly full: no publish is accepted until space is made"
                );
            } else {
                info!(free, "journal disk has space again");
            }
        }
        if free < min / 2 {
            // Publish ids sort by time.
            let oldest = self
                .desk
                .live
                .values()
                .min_by(|a, b| a.publish_id.cmp(&b.publish_id))
                .map(|h| h.place);
            if let Some(place) = oldest {
                self.end(
                    place,
                    &Ending::new("disk_full", format!("the journal disk has {free} bytes left")),
                    now,
                );
            }
        }
    }

    /// Sleeps until the next connection is due or a client knocks.
    fn rest(&self) {
        let now = mono_ms(&*self.desk.clock);
        let next = self.due.iter().copied().min().unwrap_or(u64::MAX);
        let wait = next.saturating_sub(now).min(REST_MS);
        if wait == 0 {
            return;
        }
        let mut knock = [rustix::event::PollFd::new(&self.listener, rustix::event::PollFlags::IN)];
        let full = self.places.len() - self.free.len() >= self.desk.settings.max_connections;
        let watched: &mut [_] = if full { &mut [] } else { &mut knock };
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: i64::try_from(wait).unwrap_or(50) * 1_000_000,
        };
        // An interrupted sleep is only a shorter one.
        let _ = rustix::event::poll(watched, Some(&timeout));
    }
}
