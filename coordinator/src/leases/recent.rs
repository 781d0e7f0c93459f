//! [`Recent`]: what publishes were answered a moment ago. A question may come twice, late, and after what answered it is over; whoever
//! reads the store for it may have read it before the first answer was there. Pure.

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
/// A worker asks again for a stream that is live elsewhere, since it may just have ended there; so long after the first refusal it has
/// stopped, and what still comes is late.
const ASKS_AGAIN: Duration = Duration::from_secs(5);
/// Most answers that are remembered; beyond that the oldest goes early.
const MOST: usize = 50_000;

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was granted this.
    Granted(Box<Known>),
    /// It was refused, first at this moment.
    Refused(Refusal, Monotonic),
}

/// The answers of the last minute.
#[derive(Debug, Default)]
pub(super) struct Recent {
    answers: BTreeMap<PublishId, Answer>,
    /// The oldest first.
    order: VecDeque<(Monotonic, PublishId)>,
}

impl Recent {
    pub(super) fn get(&self, publish: PublishId) -> Option<&Answer> {
        self.answers.get(&publish)
    }

    pub(super) fn granted(&mut self, known: Known, now: Monotonic) {
        let publish = known.record.id;
        if self.answers.insert(publish, Answer::Granted(Box::new(known))).is_none() {
            self.order.push_back((now, publish));
        }
    }

    /// What was granted is not forgotten for a refusal behind it: it is to be finished.
    fn refused(&mut self, publish: PublishId, refusal: Refusal, now: Monotonic) {
        self.answers.entry(publish).or_insert_with(|| {
            self.order.push_back((now, publish));
            Answer::Refused(refusal, now)
        });
    }

    /// Forgets what is too old to be asked about again.
    pub(super) fn forget(&mut self, now: Monotonic) {
        while let Some((at, publish)) = self.order.front().copied()
            && (now.since(at) > KEEP || self.order.len() > MOST)
        {
            self.order.pop_front();
            self.answers.remove(&publish);
        }
    }
}

impl Leases {
    /// Decides about a stream. `known` is what the store had of this publish when the question came, or a moment later.
    pub(crate) fn acquire(
        &mut self,
        cx: &Context<'_>,
        request: Request,
        known: Option<Known>,
    ) -> Result<Decided, StoreError> {
        self.recent.forget(cx.mono);
        let (publish, started) = (request.publish, cx.mono);
        let decided = match self.recent.get(publish) {
            // Asked twice, and answered while the second question was on its way: a worker that was refused has forgotten it.
            Some(Answer::Refused(refusal, first))
                if known.is_none()
                    && (refusal.kind != RefusalKind::AlreadyLive || cx.mono.since(*first) > ASKS_AGAIN) =>
            {
                return Ok(refused(refusal.kind, refusal.reason.clone()));
            }
            Some(Answer::Granted(granted)) => {
                let known = known.or_else(|| Some(Known::clone(granted)));
                self.decide(cx, request, known)?
            }
            Some(Answer::Refused(..)) | None => self.decide(cx, request, known)?,
        };
        if let LeaseOutcome::Refused(refusal) = &decided.outcome {
            self.recent.refused(publish, refusal.clone(), started);
        }
        Ok(decided)
    }
}
