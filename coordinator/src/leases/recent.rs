//! [`Recent`]: what publishes were answered a moment ago. A question may come twice, late, and after what answered it is over; whoever
//! reads the store for it may have read it before the first answer was there. A publish that its worker has once called over is over:
//! a question from before that takes no stream again, also when another coordinator heard that: what was granted once and is live no more
//! gets its stream back only when its worker names it in heartbeats. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use shared::{
    ids::PublishId,
    lease::{LeaseOutcome, Refusal, RefusalKind},
    store::StoreError,
    time::Monotonic,
};

use super::{Context, Decided, Known, Leases, Request, refused};

/// Longer than a question may be on its way.
const KEEP: Duration = Duration::from_secs(60);
/// Most answers that are remembered; beyond that the oldest goes early.
const MOST: usize = 50_000;

/// Who has a publish says so within a heartbeat: asking again is all that is needed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error(
    "the publish was granted before and is live no more, and its worker has not named it in a heartbeat yet: ask again in a moment"
)]
struct NotNamed;

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was granted this.
    Granted(Box<Known>),
    /// It was refused, for good.
    Refused(Refusal),
}

/// What was noted of publishes in the last minute, and when first.
#[derive(Debug)]
struct Notes<T> {
    notes: BTreeMap<PublishId, T>,
    /// The oldest first.
    order: VecDeque<(Monotonic, PublishId)>,
}

impl<T> Default for Notes<T> {
    fn default() -> Self {
        Notes {
            notes: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Notes<T> {
    fn put(&mut self, publish: PublishId, note: T, now: Monotonic) {
        if self.notes.insert(publish, note).is_none() {
            self.order.push_back((now, publish));
        }
    }

    /// Forgets what is too old to be asked about again.
    fn forget(&mut self, now: Monotonic) {
        while let Some((at, publish)) = self.order.front().copied()
            && (now.since(at) > KEEP || self.order.len() > MOST)
        {
            self.order.pop_front();
            self.notes.remove(&publish);
        }
    }
}

/// The answers of the last minute, and who was called over in it.
#[derive(Debug, Default)]
pub(super) struct Recent {
    answers: Notes<Answer>,
    over: Notes<()>,
    /// Named by their workers without being known here.
    named: Notes<()>,
}

impl Recent {
    pub(super) fn get(&self, publish: PublishId) -> Option<&Answer> {
        self.answers.notes.get(&publish)
    }

    pub(super) fn granted(&mut self, known: Known, now: Monotonic) {
        self.answers.put(known.record.id, Answer::Granted(Box::new(known)), now);
    }

    /// Its worker says that a publish is over.
    pub(super) fn over(&mut self, publish: PublishId, now: Monotonic) {
        self.over.put(publish, (), now);
    }

    /// An error if its worker has not named a publish that is not known here.
    pub(super) fn names(&self, publish: PublishId) -> Result<(), StoreError> {
        match self.named.notes.contains_key(&publish) {
            true => Ok(()),
            false => Err(StoreError::unavailable(NotNamed)),
        }
    }

    /// What was granted is not forgotten for a refusal behind it: it is to be finished.
    fn refused(&mut self, publish: PublishId, refusal: Refusal, now: Monotonic) {
        if self.get(publish).is_none() {
            self.answers.put(publish, Answer::Refused(refusal), now);
        }
    }

    fn forget(&mut self, now: Monotonic) {
        self.answers.forget(now);
        self.over.forget(now);
        self.named.forget(now);
    }
}

impl Leases {
    /// The publishes of these that are not known: their worker is to ask for them again.
    pub(crate) fn unknown(&mut self, named: &[PublishId], mono: Monotonic) -> Vec<PublishId> {
        let unknown = named.iter().filter(|publish| !self.live.has(publish));
        let unknown: Vec<PublishId> = unknown.copied().collect();
        for publish in &unknown {
            self.recent.named.put(*publish, (), mono);
        }
        self.recent.forget(mono);
        unknown
    }

    /// Decides about a stream. `known` is what the store had of this publish when the question came, or a moment later.
    pub(crate) fn acquire(
        &mut self,
        cx: &Context<'_>,
        mut request: Request,
        known: Option<Known>,
    ) -> Result<Decided, StoreError> {
        self.recent.forget(cx.mono);
        let (publish, asks_again) = (request.publish, request.asks_again);
        match request.adopted {
            true => self.recent.over(publish, cx.mono),
            false => request.adopted = self.recent.over.notes.contains_key(&publish),
        }
        let decided = match self.recent.get(publish) {
            // Asked twice, and answered while the second question was on its way: a worker that was refused has forgotten it.
            Some(Answer::Refused(refusal)) if known.is_none() => {
                return Ok(refused(refusal.kind, refusal.reason.clone()));
            }
            Some(Answer::Granted(granted)) => {
                let known = known.or_else(|| Some(Known::clone(granted)));
                self.decide(cx, request, known)?
            }
            Some(Answer::Refused(_)) | None => self.decide(cx, request, known)?,
        };
        // A stream that is live elsewhere may just have ended there: its worker has not given up yet.
        if let LeaseOutcome::Refused(refusal) = &decided.outcome
            && !(asks_again && refusal.kind == RefusalKind::AlreadyLive)
        {
            self.recent.refused(publish, refusal.clone(), cx.mono);
        }
        Ok(decided)
    }
}
