//! Which member is asked, what is asked again, and for how long.
//!
//! One connection to each member. All calls go to one of them until it fails; then to the next. The balancer of the
//! client would spread calls over the members and fail those that meet a dead one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, Error};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{EtcdOptions, errors::Refusal, options::Secrets};
use crate::store::OpenError;

/// Time for one member to answer; a member that is frozen costs so long, once.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// Time for a call over all members. A cluster that lost its leader has another within about 2 s.
const CALL: Duration = Duration::from_secs(6);
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(1);
/// Wait after every member has failed; doubled each time, up to a second.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// HTTP/2 keep-alive while something is awaited: a member that is gone without a word is noticed after at most both.
/// etcd closes connections that are asked more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));
/// How often, at most, it is asked whether the files with certificates and password have changed, and a password tried that etcd did not know.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Longest answer that is taken, bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Which calls may be made again when it is not known what came of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Doing it twice is doing it once.
    Always,
    /// Only those that were certainly not sent.
    Unsent,
}

/// The members of the cluster. Clones share connections.
#[derive(Clone)]
pub(super) struct Members(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    /// The one that is asked first.
    preferred: AtomicUsize,
    options: EtcdOptions,
    credentials: Mutex<Credentials>,
}

/// What connections are made with.
struct Credentials {
    secrets: Secrets,
    connect: ConnectOptions,
    /// Grows with each change.
    version: u64,
    looked: Instant,
}

struct Member {
    url: String,
    client: Mutex<Option<Held>>,
}

/// A client of a member.
struct Held {
    client: Client,
    /// Of the credentials that it was made with.
    version: u64,
    /// When etcd last refused the credentials of now, and this one, of those before, was kept.
    refused: Option<Instant>,
}

fn connect_with(options: &EtcdOptions, secrets: &Secrets) -> Result<ConnectOptions, OpenError> {
    Ok(options
        .connect_options(secrets)?
        .with_connect_timeout(CONNECT)
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_keep_alive_while_idle(false)
        .with_require_leader(true)
        .with_auto_token_refresh(true))
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.members.iter().map(|member| &member.url))
            .finish()
    }
}

impl Members {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, OpenError> {
        let secrets = options.secrets()?;
        let connect = connect_with(&options, &secrets)?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let member = |endpoint: &String| Member {
            url: format!("{scheme}://{endpoint}"),
            client: Mutex::new(None),
        };
        Ok(Members(Arc::new(Inner {
            members: options.endpoints.iter().map(member).collect(),
            preferred: AtomicUsize::new(0),
            credentials: Mutex::new(Credentials {
                secrets,
                connect,
                version: 0,
                looked: Instant::now(),
            }),
            options,
        })))
    }

    /// Asks members until one answers, or until the time is over.
    pub(super) async fn call<T, F>(&self, repeat: Repeat, call: impl Fn(Client) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let Inner { members, preferred, .. } = self.0.as_ref();
        let deadline = Instant::now() + CALL;
        let mut wait = FIRST_WAIT;
        let mut asked = 0;
        loop {
            let at = preferred.load(Ordering::Relaxed) % members.len().max(1);
            let Some(member) = members.get(at) else {
                return Err(Refusal::Illegal("no etcd member is configured".to_owned()));
            };
            let limit = ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
            let result = self.attempt(member, limit, &call).await;
            let Err(Refusal::Away { sent, .. }) = &result else {
                return result;
            };
            // Only if nobody else has moved on meanwhile.
            let next = (at + 1) % members.len();
            let _ = preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            if let Err(refusal) = &result {
                debug!(refusal = %refusal, sent, "etcd member failed");
            }
            if (*sent && repeat == Repeat::Unsent) || Instant::now() + wait >= deadline {
                return result;
            }
            asked += 1;
            if asked % members.len() == 0 {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    async fn attempt<T, F>(&self, member: &Member, limit: Duration, call: &impl Fn(Client) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let begin = Instant::now();
        let late = |sent| Refusal::away(&member.url, format!("no answer within {limit:?}"), sent);
        let (client, is_old) = timeout(limit, self.client(member)).await.map_err(|_| late(false))??;
        let left = limit.saturating_sub(begin.elapsed());
        let answer = timeout(left, call(client)).await.map_err(|_| late(true))?;
        match answer.map_err(|error| Refusal::read(&member.url, error)) {
            // The password of before is no more: by now etcd may know the one of now.
            Err(Refusal::Forbidden(words)) if is_old => {
                if let Some(held) = member.client.lock().await.as_mut() {
                    held.refused = None;
                }
                Err(Refusal::away(&member.url, words, false))
            }
            answer => answer,
        }
    }

    /// What connections are made with by now. Files that cannot be used change nothing: they may be half written.
    async fn credentials(&self) -> (u64, ConnectOptions) {
        let mut held = self.0.credentials.lock().await;
        if self.0.options.has_files() && held.looked.elapsed() >= LOOK_EVERY {
            held.looked = Instant::now();
            let options = self.0.options.clone();
            let read = tokio::task::spawn_blocking(move || {
                let secrets = options.secrets()?;
                connect_with(&options, &secrets).map(|connect| (secrets, connect))
            });
            match read.await {
                Ok(Ok((secrets, _))) if secrets == held.secrets => {}
                Ok(Ok((secrets, connect))) => {
                    info!("the certificates or the password for etcd have changed; connections are made anew");
                    (held.secrets, held.connect) = (secrets, connect);
                    held.version += 1;
                }
                Ok(Err(error)) => {
                    warn!(%error, "certificates or password for etcd cannot be read again; those of before are used");
                }
                Err(error) => warn!(%error, "certificates and password for etcd were not read again"),
            }
        }
        (held.version, held.connect.clone())
    }

    /// The member's client. With a password it has authenticated. True: with the one of before, since etcd did not know the one of now when it
    /// was tried a moment ago.
    async fn client(&self, member: &Member) -> Result<(Client, bool), Refusal> {
        let (version, options) = self.credentials().await;
        let mut slot = member.client.lock().await;
        if let Some(held) = slot.as_ref() {
            let is_old = held.version != version;
            if !is_old || held.refused.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                return Ok((held.client.clone(), is_old));
            }
        }
        let connected = Client::connect([&member.url], Some(options)).await;
        match (
            connected.map_err(|error| Refusal::read(&member.url, error)),
            slot.as_mut(),
        ) {
            (Ok(client), _) => {
                *slot = Some(Held {
                    client: client.clone(),
                    version,
                    refused: None,
                });
                Ok((client, false))
            }
            // Whoever changes a password changes the file and etcd one after the other.
            (Err(Refusal::Forbidden(words)), Some(held)) => {
                warn!(
                    words,
                    "etcd does not know the password of now; the connection of before is used"
                );
                held.refused = Some(Instant::now());
                Ok((held.client.clone(), false))
            }
            // Nothing but the password was sent.
            (Err(Refusal::Away { member, words, .. }), _) => Err(Refusal::Away {
                member,
                words,
                sent: false,
            }),
            (Err(other), _) => Err(other),
        }
    }
}
