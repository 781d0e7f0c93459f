//! One pulled stream: connect, hand on what comes, and try again until told to stop.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use media::flv;
use media::rtmp::{Limits, MediaTag};
use shared::ids::IdGen;
use shared::pull::{AddressPolicy, Pull, PullState, PullStatus};
use shared::time::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::backoff::wait;
use super::origin::{Arrived, Origin, resolve};
use crate::ingest::Command;
use crate::ingest::feed::{Inlet, feed};

/// After the order to stop, what is on its way is still taken: until nothing has come for this long,
const QUIET: Duration = Duration::from_millis(500);
/// at most for this long.
const LINGER: Duration = Duration::from_secs(3);
/// An origin that agreed to send may wait for its publisher for so many times the silence that is allowed otherwise.
const PATIENCE: u32 = 6;
/// Script data that came before the first picture or sound is held back until then, bytes at most.
const EARLY_BYTES: usize = 256 << 10;
/// Media for this long makes a connection a good one: the next wait is the shortest again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// What all tasks share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) commands: SyncSender<Command>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdGen>,
    pub(super) policy: AddressPolicy,
    pub(super) limits: Limits,
    pub(super) connect_timeout: Duration,
    pub(super) silence: Duration,
    pub(super) longest_wait: Duration,
}

/// How a task fares, for others to read.
#[derive(Debug, Clone)]
pub(super) struct Fares(Arc<Mutex<PullStatus>>);

impl Fares {
    pub(super) fn new() -> Self {
        Fares(Arc::new(Mutex::new(PullStatus {
            state: PullState::Connecting,
            error: String::new(),
            failures: 0,
        })))
    }

    pub(super) fn get(&self) -> PullStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut PullStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// How a connection ended.
struct End {
    /// Short name for the journal and the counters.
    kind: &'static str,
    reason: String,
    /// It brought media, and not for a moment only.
    good: bool,
}

impl Context {
    fn random(&self) -> [u8; 32] {
        let now = self.clock.now();
        let mut bytes = [0; 32];
        let ids = [self.ids.uuid(now), self.ids.uuid(now)];
        for (to, from) in bytes.iter_mut().zip(ids.iter().flat_map(|id| id.as_bytes())) {
            *to = *from;
        }
        bytes
    }
}

/// Pulls until `stop` becomes true.
pub(super) async fn run(pull: Pull, cx: Context, fares: Fares, mut stop: watch::Receiver<bool>) {
    let mut failures = 0u32;
    info!(stream = %pull.stream, origin = %pull.url, "pulling");
    loop {
        fares.set(|status| status.state = PullState::Connecting);
        let connection = one_connection(&pull, &cx, &fares, stop.clone());
        let end = connection.await;
        if *stop.borrow() {
            break;
        }
        failures = if end.good { 0 } else { failures.saturating_add(1) };
        let random = u64::from_be_bytes(*cx.random().last_chunk().unwrap_or(&[0; 8]));
        let pause = wait(failures, cx.longest_wait, random);
        // One that stays away is told of at its first failure and then ever more rarely.
        if failures.is_power_of_two() || end.good {
            warn!(stream = %pull.stream, origin = %pull.url, kind = end.kind, reason = end.reason, failures, ?pause, "pull ended, will try again");
        } else {
            debug!(stream = %pull.stream, reason = end.reason, failures, "pull failed again");
        }
        fares.set(|status| {
            status.state = PullState::Connecting;
            status.error = end.reason;
            status.failures = failures;
        });
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    info!(stream = %pull.stream, "no longer pulling");
}

async fn one_connection(pull: &Pull, cx: &Context, fares: &Fares, mut stop: watch::Receiver<bool>) -> End {
    let bad = |kind, reason| End {
        kind,
        reason,
        good: false,
    };
    let connecting = async {
        let addresses = resolve(&pull.url, cx.policy).await?;
        Origin::connect(&pull.url, &addresses, cx.limits, cx.random()).await
    };
    let connected = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return bad("pull_stopped", String::new()),
        connected = timeout(cx.connect_timeout, connecting) => connected,
    };
    let origin = match connected {
        Ok(Ok(origin)) => origin,
        Ok(Err(reason)) => return bad("origin_refused", reason),
        Err(_) => {
            let reason = format!("no connection to {} within {:?}", pull.url, cx.connect_timeout);
            return bad("origin_refused", reason);
        }
    };
    fares.set(|status| status.state = PullState::Waiting);
    let mut line = Running {
        stream: pull,
        cx,
        inlet: None,
        early: Vec::new(),
        since: None,
    };
    let (kind, reason) = line.carry(origin, fares, &mut stop).await;
    if let Some(inlet) = &line.inlet {
        inlet.end(kind, reason.clone());
    }
    // What this worker ends itself, because the stream is refused, is no reason to come back soon.
    let lasted = line.since.is_some_and(|since| since.elapsed() >= GOOD_AFTER);
    End {
        kind,
        reason,
        good: lasted && kind != "refused",
    }
}

struct Running<'a> {
    stream: &'a Pull,
    cx: &'a Context,
    inlet: Option<Inlet>,
    /// Script data from before the first picture or sound, framed as FLV tags.
    early: Vec<u8>,
    /// When media began.
    since: Option<Instant>,
}

/// Waits until nothing more is taken; for ever while nothing was begun.
async fn closed(inlet: Option<&Inlet>) -> String {
    match inlet {
        Some(inlet) => inlet.closed().await.to_string(),
        None => std::future::pending().await,
    }
}

impl Running<'_> {
    /// Hands on what comes until it ends, and says why it did.
    async fn carry(
        &mut self,
        mut origin: Origin,
        fares: &Fares,
        stop: &mut watch::Receiver<bool>,
    ) -> (&'static str, String) {
        let mut stopping: Option<Instant> = None;
        loop {
            let silence = match (&stopping, &self.inlet) {
                (Some(since), _) => QUIET.min(LINGER.saturating_sub(since.elapsed())),
                (None, Some(_)) => self.cx.silence,
                (None, None) => self.cx.silence * PATIENCE,
            };
            let arrived = tokio::select! {
                biased;
                reason = closed(self.inlet.as_ref()) => return ("refused", reason),
                _ = stop.wait_for(|stop| *stop), if stopping.is_none() => {
                    if self.inlet.is_none() {
                        return ("pull_stopped", String::new());
                    }
                    stopping = Some(Instant::now());
                    continue;
                }
                arrived = timeout(silence, origin.arrived()) => arrived,
            };
            let bytes = match arrived {
                Ok(Ok(Arrived::Bytes(bytes))) => bytes,
                Ok(Ok(Arrived::End)) => return ("origin_ended", "the origin closed the connection".to_owned()),
                Ok(Err(reason)) => return ("origin_lost", reason),
                Err(_) if stopping.is_some() => return ("pull_stopped", "the stream is no longer pulled".to_owned()),
                Err(_) => return ("origin_silent", format!("nothing came from the origin for {silence:?}")),
            };
            let (address, protocol) = (origin.address(), origin.protocol());
            let mut refused = None;
            let mut tag = |tag: MediaTag<'_>| {
                if let Err(reason) = self.tag(tag, address, protocol) {
                    refused = Some(reason);
                }
            };
            match origin.take(bytes, &mut tag).await {
                Ok(false) => {}
                Ok(true) => return ("origin_ended", "the origin says that the stream ended".to_owned()),
                Err(reason) => return ("origin_malformed", reason),
            }
            if let Some(reason) = refused {
                return ("refused", reason);
            }
            if let Some(inlet) = &self.inlet {
                if let Err(reason) = inlet.room().await {
                    return ("refused", reason.to_string());
                }
                fares.set(|status| status.state = PullState::Live);
            }
        }
    }

    /// Takes one tag. The first picture or sound begins the publish.
    fn tag(&mut self, tag: MediaTag<'_>, address: std::net::SocketAddr, protocol: &'static str) -> Result<(), String> {
        if self.inlet.is_none() && tag.tag_type == flv::SCRIPT {
            if self.early.len() + tag.body.len() > EARLY_BYTES {
                return Err(format!(
                    "the origin sends more than {EARLY_BYTES} bytes of metadata before any media"
                ));
            }
            flv::append_tag(&mut self.early, tag.tag_type, tag.timestamp_ms, tag.body);
            return Ok(());
        }
        if self.inlet.is_none() {
            let (inlet, feed) = feed(&self.stream.stream, address, protocol);
            let mut early = std::mem::take(&mut self.early);
            while let Ok(Some(first)) = flv::read_tag(&early) {
                inlet.push(MediaTag {
                    tag_type: first.tag_type,
                    timestamp_ms: first.timestamp_ms,
                    body: first.body,
                });
                let len = first.len;
                early.drain(..len);
            }
            inlet.push(tag);
            self.cx
                .commands
                .try_send(Command::Feed(feed))
                .map_err(|_| "the ingest thread is busy".to_owned())?;
            self.inlet = Some(inlet);
            self.since = Some(Instant::now());
            return Ok(());
        }
        if let Some(inlet) = &self.inlet {
            inlet.push(tag);
        }
        Ok(())
    }
}
