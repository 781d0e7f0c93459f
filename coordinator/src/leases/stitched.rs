//! What [`Leases`] decides about recordings that go on across publishes.

use std::sync::Arc;

use shared::{
    ids::RecordingId,
    lease::{Epoch, GrantedRecording, Window},
    recording::{Cause, RecordingState},
    store::{PublishRecord, StoreError, Txn},
    task::Task,
    template::TemplateSpec,
    time::{Monotonic, Timestamp},
};

use super::{Changed, Context, Leases, Live, record_as};
use crate::{
    fleet::Fleet,
    stitches::{Finish, Stitches},
    tasks,
};

/// Operations of a new publish's transaction beyond which no further task is taken into it: each takes four at most, and the store takes
/// 128 of everything.
const TASK_OPS: usize = 90;

impl Leases {
    /// Recordings that go on across publishes.
    pub(crate) fn stitches(&mut self) -> &mut Stitches {
        &mut self.stitches
    }

    /// When the stream of a recording went away last, and why; see [`Stitches::away`].
    pub(crate) fn away(&self, recording: RecordingId) -> Option<(Timestamp, &str)> {
        self.stitches.away(recording)
    }

    /// True while no publish feeds a recording; see [`Stitches::is_away`].
    pub(crate) fn is_away(&self, recording: RecordingId) -> bool {
        self.stitches.is_away(recording)
    }

    /// Recordings whose streams did not come back in time, each with the worker that finishes it; see [`Stitches::due`].
    pub(crate) fn finish_due(
        &mut self,
        fleet: &Fleet,
        gone: std::time::Duration,
        (now, mono): (Timestamp, Monotonic),
    ) -> Result<Vec<Finish>, StoreError> {
        let mut stitches = std::mem::take(&mut self.stitches);
        let due = stitches.due(fleet, gone, (now, mono), |stream, txn| {
            let held = self.streams.get(stream);
            let epoch = held.map_or(Epoch::default(), |held| held.epoch).next();
            let publish = held.and_then(|held| held.publish);
            self.hold(stream.clone(), epoch, publish, now, txn)
                .map(|txn| (epoch, txn))
        });
        self.stitches = stitches;
        due
    }

    /// What a rule or a task says: the recording that waits for the stream goes on, or a new one begins.
    pub(super) fn record_or_go_on(
        &mut self,
        cx: &Context<'_>,
        (record, recordings): (&mut PublishRecord, &mut Vec<GrantedRecording>),
        (cause, template, window): (Cause, TemplateSpec, Window),
        txn: Txn,
    ) -> Result<Txn, StoreError> {
        let waiting = self.stitches.waiting(record, &cause, cx.now);
        let frozen = waiting.and_then(|id| Some((id, self.stitches.template(id)?.clone())));
        if let Some((id, template)) = frozen {
            let lost = |worker| !cx.fleet.is_alive(worker);
            let (stitch, txn) = self.stitches.feed(id, record, lost, txn)?;
            record.recordings.push(id);
            if matches!(cause, Cause::Task(_)) {
                record.windows.insert(id, window);
            }
            recordings.push(GrantedRecording {
                id,
                cause,
                template: Arc::new(template),
                state: RecordingState::Recording,
                window,
                stitch: Some(stitch),
            });
            return Ok(txn);
        }
        let new = (cause.clone(), template.clone(), window);
        let txn = record_as(cx, record, recordings, new, txn)?;
        let granted = recordings.last_mut().filter(|_| template.flow_continue_s() > 0);
        let Some(granted) = granted else { return Ok(txn) };
        let (stitch, txn) = self
            .stitches
            .begin(granted.id, record, (&cause, &template, window), txn)?;
        granted.stitch = Some(stitch);
        Ok(txn)
    }

    /// What tasks want of a new publish, those first that wait for it. What does not fit into the transaction follows with the next look
    /// at the tasks.
    pub(super) fn record_for_tasks(
        &mut self,
        cx: &Context<'_>,
        record: &mut PublishRecord,
        recordings: &mut Vec<GrantedRecording>,
        mut txn: Txn,
    ) -> Result<Txn, StoreError> {
        let mut wanted = cx.tasks.wanted(&record.stream, record.started, cx.now);
        let waits = |task: &Task| self.stitches.waiting(record, &Cause::Task(task.id), cx.now).is_some();
        wanted.sort_by_key(|(task, _)| !waits(task));
        for (task, window) in wanted {
            if txn.ops.len() >= TASK_OPS {
                break;
            }
            let what = (Cause::Task(task.id), task.template.clone(), window);
            txn = self.record_or_go_on(cx, (record, recordings), what, txn)?;
        }
        Ok(txn)
    }

    /// Adds a task's recording to the live publish of its stream, unless it has one. What changes must be durable before the worker
    /// hears of it: [`Leases::durable`].
    pub(crate) fn grant_task(&mut self, cx: &Context<'_>, task: &Task) -> Result<Option<Changed>, StoreError> {
        let holder = self.streams.get(&task.stream).and_then(|stream| stream.publish);
        let Some(mut live) = holder.and_then(|publish| self.live.remove(&publish)) else {
            return Ok(None);
        };
        let cause = Cause::Task(task.id);
        let known = live.recordings.iter().any(|held| held.cause == cause);
        let changed = match known || task.end <= live.record.started {
            true => Ok(None),
            false => self.added(cx, &mut live, (cause, task.template.clone(), tasks::window(task))),
        };
        self.live.insert(live);
        changed
    }

    fn added(
        &mut self,
        cx: &Context<'_>,
        live: &mut Live,
        what: (Cause, TemplateSpec, Window),
    ) -> Result<Option<Changed>, StoreError> {
        live.forget_finished();
        let both = (&mut live.record, &mut live.recordings);
        let txn = self.record_or_go_on(cx, both, what, Txn::new())?;
        let added = live.recordings.last();
        let goes_on = added.filter(|added| added.stitch.as_ref().is_some_and(|stitch| !stitch.before.is_empty()));
        let goes_on = goes_on.map(|added| added.id);
        let changed = live.changed(txn)?;
        Ok(Some(Changed { goes_on, ..changed }))
    }
}
