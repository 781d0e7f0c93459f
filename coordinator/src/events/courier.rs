//! [`Courier`]: takes letters from the store, hands them out, and writes down what became of them.
//!
//! What is written down follows what happened, so that a process that is killed in between delivers an event again rather than not at
//! all; its id is the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    sync::Arc,
    time::Duration,
};

use shared::{
    ids::RecordingId,
    store::{Change as StoreChange, Guard, MetaStore, Repo, Revision, Scan, StoreError, Txn, Watch, keys},
    telemetry::{CoordinatorMetrics, Reason},
    time::Timestamp,
    trace::{self, Place},
};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, Span, debug, info, warn};
use uuid::Uuid;

use super::{
    book::Book,
    desk,
    letter::{self, Event, Letter, MediaLink},
    queue::{Attempt, Change, Name, Queue},
    reach::{Policy, Reach},
    teller::{place_at, place_of},
};
use crate::{actors::coordinator::Tools, media::link::Links};

/// Results that are written down in one transaction.
const AT_ONCE: usize = 40;
/// After the store failed, until it is asked again.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks for what is kept no longer.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Letters that are forgotten in one transaction.
const SWEEP_AT_ONCE: usize = 100;

/// Ends the courier when it is dropped.
#[derive(Debug)]
pub(crate) struct Courier {
    _end: DropGuard,
    metrics: CoordinatorMetrics,
}

impl Drop for Courier {
    fn drop(&mut self) {
        // Who leads next counts them.
        self.metrics.events_pending.set(0);
        self.metrics.events_age.set(0);
    }
}

impl Courier {
    /// Starts it over the store of a term.
    pub(crate) fn start(tools: &Tools) -> Self {
        let end = CancellationToken::new();
        let run = Run {
            store: Arc::clone(tools.repo.store()),
            repo: tools.repo.clone(),
            reach: Arc::new(Reach::new(Policy {
                allow: tools.config.events.allow.clone(),
            })),
            links: Links::new(tools.vault.media_keys()),
            tools: tools.clone(),
        };
        let ended = end.clone();
        tools.tasks.spawn(async move {
            ended.run_until_cancelled(run.for_ever()).await;
        });
        Courier {
            _end: end.drop_guard(),
            metrics: tools.metrics.clone(),
        }
    }
}

struct Run {
    store: Arc<dyn MetaStore>,
    repo: Repo,
    reach: Arc<Reach>,
    links: Links,
    tools: Tools,
}

/// What is at hand of the outbox.
struct Outbox {
    queue: Queue,
    /// The transaction that wrote each letter last.
    revisions: BTreeMap<u64, Revision>,
    /// Letters that are settled and whose end the watch has not told yet.
    settled: BTreeSet<u64>,
    watch: Watch,
    attempts: JoinSet<(Name, Result<(), Failed>)>,
}

/// Why an attempt failed.
struct Failed {
    problem: String,
    /// Trying again cannot help.
    last: bool,
}

/// One attempt to tell of a recording, in its trace; none where the event is of a publish.
fn span(subject: Uuid, event: &Event) -> Span {
    if !event.kind.is_of_a_recording() {
        return Span::none();
    }
    let span = Place::recording(RecordingId::from_uuid(subject)).call("callback");
    trace::say(&span, "aircheck.event.id", event.id.clone());
    trace::say(&span, "aircheck.event.type", i64::from(event.kind.number()));
    trace::say(&span, "aircheck.attempt", i64::from(event.attempts) + 1);
    span
}

impl Run {
    async fn for_ever(self) {
        tokio::join!(self.deliver_for_ever(), self.sweep_for_ever());
    }

    async fn deliver_for_ever(&self) {
        loop {
            if let Err(error) = self.deliver().await {
                debug!(error = &error as &dyn StdError, "the outbox is read anew");
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    async fn book(&self) -> Result<Book, StoreError> {
        desk::book(&self.repo).await
    }

    /// Reads all that is on its way.
    async fn open(&self) -> Result<Outbox, StoreError> {
        let (book, now) = (self.book().await?, self.tools.clock.now());
        let mut queue = Queue::new(self.tools.config.events.clone());
        let mut revisions = BTreeMap::new();
        let (mut after, mut first) = (None, None);
        loop {
            let scanned = self.store.scan(Scan::prefix(keys::OUTBOX).after(after)).await?;
            // What is written while the rest is read is told by the watch, and known by its place.
            let revision = *first.get_or_insert(scanned.revision);
            for entry in &scanned.entries {
                if let Some(letter) = read(&entry.key, &entry.value) {
                    revisions.insert(letter.sequence, entry.revision);
                    let template = letter.template;
                    queue.add(letter, now, |event| url(&book, template, event));
                }
            }
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                return Ok(Outbox {
                    queue,
                    revisions,
                    settled: BTreeSet::new(),
                    watch: self.store.watch(keys::OUTBOX, revision).await?,
                    attempts: JoinSet::new(),
                });
            }
        }
    }

    /// Hands out letters until something fails of which only the store knows what came of it.
    async fn deliver(&self) -> Result<(), StoreError> {
        let mut outbox = self.open().await?;
        if outbox.queue.len() > 0 {
            info!(letters = outbox.queue.len(), "events go on their way");
        }
        loop {
            let now = self.tools.clock.now();
            for attempt in outbox.queue.due(now) {
                self.send(&mut outbox, attempt).await?;
            }
            self.measure(&outbox.queue, now);
            let pause = outbox
                .queue
                .wake()
                .map_or(SWEEP_EVERY, |at| until(at, now).min(SWEEP_EVERY));
            tokio::select! {
                batch = outbox.watch.next() => {
                    let batch = batch?;
                    self.heard(&mut outbox, batch.changes).await?;
                }
                Some(first) = outbox.attempts.join_next(), if !outbox.attempts.is_empty() => {
                    let mut results = vec![first];
                    while results.len() < AT_ONCE && let Some(next) = outbox.attempts.try_join_next() {
                        results.push(next);
                    }
                    self.note(&mut outbox, results.into_iter().flatten().collect()).await?;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn measure(&self, queue: &Queue, now: Timestamp) {
        let metrics = &self.tools.metrics;
        metrics
            .events_pending
            .set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
        let age = queue
            .oldest()
            .map_or(0, |at| now.as_millis().saturating_sub(at.as_millis()) / 1_000);
        metrics.events_age.set(age.max(0));
    }

    /// What the store tells of the outbox.
    async fn heard(&self, outbox: &mut Outbox, changes: Vec<StoreChange>) -> Result<(), StoreError> {
        let mut new = Vec::new();
        for change in changes {
            let Some(place) = place_of(change.key()) else { continue };
            match change {
                StoreChange::Put(entry) if !outbox.queue.has(place) && !outbox.settled.contains(&place) => {
                    outbox.revisions.insert(place, entry.revision);
                    new.extend(read(&entry.key, &entry.value));
                }
                // Written here.
                StoreChange::Put(_) => {}
                StoreChange::Delete(_) => drop(outbox.settled.remove(&place)),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let (book, now) = (self.book().await?, self.tools.clock.now());
        for letter in new {
            let template = letter.template;
            outbox.queue.add(letter, now, |event| url(&book, template, event));
        }
        Ok(())
    }

    /// Sends an event on its way, to where it goes now.
    async fn send(&self, outbox: &mut Outbox, attempt: Attempt) -> Result<(), StoreError> {
        let Attempt {
            name,
            template,
            subject,
            event,
        } = attempt;
        let book = self.book().await?;
        let url = url(&book, template, &event);
        if url.is_empty() {
            let failed = Failed {
                problem: "nobody is to hear of it any more: its callback template is gone, or names no URL for it"
                    .to_owned(),
                last: true,
            };
            outbox.attempts.spawn(async move { (name, Err(failed)) });
            return Ok(());
        }
        let key = match self.key(&book, template) {
            Ok(key) => key,
            Err(problem) => {
                outbox
                    .attempts
                    .spawn(async move { (name, Err(Failed { problem, last: false })) });
                return Ok(());
            }
        };
        let now = self.tools.clock.now();
        let link = event.link.as_ref().map(|link| self.link(link, now));
        let body = letter::body(&event, Some(key.as_str()).filter(|key| !key.is_empty()), link, now);
        let (reach, limit) = (Arc::clone(&self.reach), self.tools.config.events.reply_timeout);
        let span = span(subject, &event);
        let posted = async move {
            let posted = reach.post(&url, &event.id, body, limit).await;
            if let Err(problem) = &posted {
                trace::fail(&Span::current(), problem);
            }
            (name, posted.map_err(|problem| Failed { problem, last: false }))
        };
        outbox.attempts.spawn(posted.instrument(span));
        Ok(())
    }

    /// What the event is signed with; empty: it is not signed.
    fn key(&self, book: &Book, template: u64) -> Result<String, String> {
        let template = book.template(template).ok();
        let sealed = template.and_then(|template| template.spec.key.as_ref());
        desk::open(&self.tools.vault, sealed).map_err(|error| error.to_string())
    }

    fn link(&self, link: &MediaLink, now: Timestamp) -> String {
        let expires = now + self.tools.config.media_link_ttl;
        let path = self.links.path(link.file, &link.depth, &link.name, expires);
        format!("{}{path}", self.tools.public_url)
    }

    /// Writes down what became of attempts. It is tried until the store has it, or says that another was there.
    async fn note(&self, outbox: &mut Outbox, results: Vec<(Name, Result<(), Failed>)>) -> Result<(), StoreError> {
        let now = self.tools.clock.now();
        let mut changes: BTreeMap<u64, Change> = BTreeMap::new();
        for (name, result) in results {
            let (word, problem, last) = match &result {
                Ok(()) => ("delivered", "", false),
                Err(failed) => ("failed", failed.problem.as_str(), failed.last),
            };
            if word == "failed" {
                info!(
                    event = format!("{:016x}-{}", name.0, name.1),
                    problem, "an event was not taken by its receiver"
                );
            }
            let count = |reason| {
                self.tools.metrics.callbacks.get_or_create(&Reason { reason }).inc();
            };
            count(word);
            let done = outbox
                .queue
                .done(name, result.map_err(|failed| failed.problem), last, now);
            if let Some((change, given_up)) = done {
                if given_up {
                    count("given_up");
                    warn!(event = format!("{:016x}-{}", name.0, name.1), "an event is given up");
                }
                changes.insert(name.0, change);
            }
        }
        let mut txn = Txn::new();
        for (sequence, change) in &changes {
            let key = keys::outbox(*sequence);
            if let Some(revision) = outbox.revisions.get(sequence) {
                txn = txn.guard(Guard::AtRevision(key.clone(), *revision));
            }
            txn = match change {
                Change::Keep(letter) => txn.put_json(key, letter)?,
                Change::Settle(letter) => txn.delete(key).put_json(keys::event(*sequence), letter)?,
            };
        }
        let revision = loop {
            match self.store.commit(txn.clone()).await {
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(STORE_PAUSE).await,
                other => break other?,
            }
        };
        for (sequence, change) in changes {
            match change {
                Change::Keep(_) => drop(outbox.revisions.insert(sequence, revision)),
                Change::Settle(_) => {
                    outbox.revisions.remove(&sequence);
                    outbox.settled.insert(sequence);
                }
            }
        }
        Ok(())
    }

    async fn sweep_for_ever(&self) {
        loop {
            if let Err(error) = self.sweep().await {
                debug!(error = &error as &dyn StdError, "old events are not forgotten yet");
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    /// Forgets what is kept long enough, and the oldest of what is too much.
    async fn sweep(&self) -> Result<(), StoreError> {
        let config = &self.tools.config.events;
        let kept = i64::try_from(config.keep.as_millis()).unwrap_or(i64::MAX);
        let now = self.tools.clock.now();
        let oldest = place_at(Timestamp::from_millis(now.as_millis().saturating_sub(kept)));
        let mut places = Vec::new();
        let mut after = None;
        loop {
            let scanned = self.store.scan(Scan::prefix(keys::EVENTS).after(after)).await?;
            places.extend(scanned.entries.iter().filter_map(|entry| place_of(&entry.key)));
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more {
                break;
            }
        }
        let too_many = places.len().saturating_sub(config.keep_max);
        let old = places.iter().take_while(|place| **place < oldest).count();
        let forgotten: Vec<u64> = places.into_iter().take(too_many.max(old)).collect();
        for some in forgotten.chunks(SWEEP_AT_ONCE) {
            let txn = some
                .iter()
                .fold(Txn::new(), |txn, place| txn.delete(keys::event(*place)));
            self.store.commit(txn).await?;
        }
        Ok(())
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let ms = at.as_millis().saturating_sub(now.as_millis());
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Where an event goes; empty: nowhere any more.
fn url(book: &Book, template: u64, event: &letter::Event) -> String {
    let template = book.template(template).ok();
    let url = template.and_then(|template| template.spec.urls.get(&event.kind));
    url.cloned().unwrap_or_default()
}

/// A letter that cannot be read holds up no other.
fn read(key: &str, value: &[u8]) -> Option<Letter> {
    match serde_json::from_slice(value) {
        Ok(letter) => Some(letter),
        Err(error) => {
            warn!(
                key,
                error = &error as &dyn StdError,
                "events that cannot be read stay where they are"
            );
            None
        }
    }
}
