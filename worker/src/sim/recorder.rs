//! [`ModelRecorder`]: a recorder whose media is counted, not rendered. Where it begins, cuts and ends, what it leaves out and what it goes on
//! from is decided by the same code as everywhere: window, segmenter, state, index.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use media::segmenter::Segmenter;
use shared::ids::{PublishId, RecordingId};
use shared::recording::Gap;
use shared::template::Format;

use super::disk::{Journal, Unit, open};
use super::{Kept, Object, Piece};
use crate::record::actor::{Report, Word};
use crate::record::index::{self, Totals};
use crate::record::state::{HlsState, State};
use crate::record::{FinishedFile, Order, Reach, Setting, Stepped, window};

/// As the real one's.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Wait after storage did not take or give something.
const AGAIN: Duration = Duration::from_secs(1);

/// What lies beside the journal for one recorder.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    state: State,
    /// Units of the open file or segment.
    open: Vec<u64>,
    /// Lines of the running index.
    lines: String,
    /// Looks for an earlier publish's index.
    looks: u32,
}

pub(super) struct ModelRecorder {
    order: Order,
    kept: Kept,
    setting: Arc<Setting>,
    until_ms: Option<i64>,
    parent: Recipient<Report>,
    ending: bool,
    busy: bool,
}

/// What a step has to store before its state counts.
struct Step {
    notes: Notes,
    objects: Vec<Object>,
    files: Vec<FinishedFile>,
    left_out: Vec<(u64, String)>,
    waits: bool,
}

impl ModelRecorder {
    pub(super) fn new(order: Order, until_ms: Option<i64>, kept: Kept, parent: Recipient<Report>) -> Self {
        let setting = order
            .clone()
            .on("journal".into(), "notes".into(), "boot".into(), "UTC".into());
        Self {
            order,
            kept,
            setting: Arc::new(setting),
            until_ms,
            parent,
            ending: false,
            busy: false,
        }
    }

    fn journal<T>(&self, with: impl FnOnce(&mut Journal) -> T) -> Option<T> {
        open(&self.kept.disk).journals.get_mut(&self.kept.publish).map(with)
    }

    fn key(&self) -> (RecordingId, Format) {
        (self.order.recording, self.order.format)
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        let (ending, until_ms, key) = (self.ending, self.until_ms, self.key());
        let found = self.journal(|journal| {
            let (end, wall_ms) = (
                journal.units.len() as u64,
                journal.units.last().map_or(0, |unit| unit.arrival_ms),
            );
            let notes = journal.notes.get(&key).cloned().unwrap_or_default();
            let until_ms = until_ms.filter(|until| wall_ms > *until);
            let due = ending || until_ms.is_some() || end > notes.state.cursor;
            let reach = Reach {
                end,
                last: ending,
                until_ms,
            };
            due.then_some((notes, reach))
        });
        let Some(Some((notes, reach))) = found else { return };
        self.busy = true;
        let joins = self.order.stitch.as_ref().filter(|stitch| {
            let begun = notes.state.hls.as_ref().is_some_and(|hls| hls.before.is_some());
            self.order.format == Format::Hls && !begun && !stitch.behind.before.is_empty()
        });
        let keys: Option<Vec<String>> = joins.map(|stitch| {
            stitch
                .behind
                .before
                .iter()
                .map(|epoch| index::key(&stitch.root, *epoch))
                .collect()
        });
        let bucket = Arc::clone(&self.kept.bucket);
        let fetched = async move {
            match keys {
                None => Ok(None),
                Some(keys) => {
                    for (which, key) in keys.iter().enumerate() {
                        if let Some(object) = bucket.get(key).await? {
                            return Ok(Some(Some((which, object.bytes))));
                        }
                    }
                    Ok::<_, std::io::Error>(Some(None))
                }
            }
        };
        ctx.spawn(fetched.into_actor(self).map(move |fetched, actor, ctx| match fetched {
            Err(_) => actor.again(ctx),
            Ok(fetched) => actor.step(notes, reach, fetched, ctx),
        }));
    }

    fn again(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(AGAIN, |actor, ctx| {
            actor.busy = false;
            actor.look(ctx);
        });
    }

    #[expect(
        clippy::option_option,
        reason = "nothing was looked for, nothing was found, or what was found"
    )]
    fn step(
        &mut self,
        mut notes: Notes,
        reach: Reach,
        fetched: Option<Option<(usize, Vec<u8>)>>,
        ctx: &mut Context<Self>,
    ) {
        if let (Some(found), Some(stitch)) = (fetched, &self.order.stitch) {
            let found = found.as_ref().map(|(which, bytes)| (*which, bytes.as_slice()));
            match index::join(&stitch.behind, notes.looks, found) {
                None => {
                    notes.looks += 1;
                    let step = Step {
                        notes,
                        objects: Vec::new(),
                        files: Vec::new(),
                        left_out: Vec::new(),
                        waits: true,
                    };
                    return self.stored(step, ctx);
                }
                Some((lines, totals)) => {
                    notes.lines = lines;
                    notes.state.hls.get_or_insert_with(HlsState::default).before = Some(totals);
                }
            }
        }
        let rendered = self.journal(|journal| self.render(journal, notes, reach));
        let Some(Some(step)) = rendered else {
            self.busy = false;
            return;
        };
        let bucket = Arc::clone(&self.kept.bucket);
        let objects = step.objects.clone();
        let stored = async move {
            for object in objects {
                bucket.put(object).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        ctx.spawn(stored.into_actor(self).map(move |stored, actor, ctx| match stored {
            Ok(()) => actor.stored(step, ctx),
            Err(_) => actor.again(ctx),
        }));
    }

    /// What the journal holds up to `reach`. None: the window has not begun.
    fn render(&self, journal: &Journal, mut notes: Notes, reach: Reach) -> Option<Step> {
        let entered = window::enter(journal, self.order.from_ms, &mut notes.state, reach);
        let reach = entered.ok().flatten()?;
        let mut step = Step {
            notes,
            objects: Vec::new(),
            files: Vec::new(),
            left_out: Vec::new(),
            waits: false,
        };
        let mut segmenter = Segmenter::new(self.order.interval_ms);
        for at in &step.notes.open {
            segmenter.push(&unit(journal, *at)?.info());
        }
        while step.notes.state.cursor < reach.end && !step.notes.state.done {
            let at = step.notes.state.cursor;
            let unit = unit(journal, at)?;
            step.notes.state.cursor += 1;
            step.notes.state.seen_key |= unit.key;
            if !step.notes.state.seen_key {
                step.notes.state.leave_out("before_first_key_frame", unit.dts_ms);
                step.left_out.push((at, "before_first_key_frame".to_owned()));
                continue;
            }
            assert!(
                at >= journal.dropped,
                "unit {at} is rendered, and only those behind {} are kept",
                journal.dropped
            );
            if segmenter.push(&unit.info()) {
                self.cut(journal, &mut step);
            }
            step.notes.open.push(at);
        }
        if reach.last && !step.notes.state.done {
            self.cut(journal, &mut step);
            if self.order.format == Format::Hls {
                self.end_list(&mut step);
            }
            step.notes.state.done = true;
        }
        Some(step)
    }

    /// Ends the open file or segment.
    fn cut(&self, journal: &Journal, step: &mut Step) {
        let open = std::mem::take(&mut step.notes.open);
        let (Some(first), Some(last)) = (open.first(), open.last()) else {
            return;
        };
        let (Some(first), Some(last)) = (unit(journal, *first), unit(journal, *last)) else {
            return;
        };
        let sequence = step.notes.state.next_sequence;
        step.notes.state.next_sequence += 1;
        let hls = self.order.format == Format::Hls;
        let extension = if hls { "ts" } else { self.order.format.extension() };
        let key = format!("{}/{sequence:06}.{extension}", self.order.prefix);
        let count = open.len() as u64;
        step.objects.push(self.object(key.clone(), Vec::new(), open));
        let duration_ms = last.dts_ms - first.dts_ms + 500;
        if hls {
            let state = step.notes.state.hls.get_or_insert_with(HlsState::default);
            state.counts.video += count;
            state.counts.first_arrival_ms = first.arrival_ms;
            state.duration_ms += duration_ms;
            step.notes
                .lines
                .push_str(&format!("#EXTINF:{}.0,\n{sequence:06}.ts\n", duration_ms / 1_000));
            self.list(step, false);
            return;
        }
        step.files.push(FinishedFile {
            file_id: self.setting.file_id(sequence),
            format: self.order.format,
            sequence,
            key,
            size: count * 1_000,
            checksum: String::new(),
            duration_ms,
            start_ms: first.arrival_ms,
            video_units: count,
            audio_units: 0,
            gaps: std::mem::take(&mut step.notes.state.gaps),
        });
    }

    fn object(&self, key: String, bytes: Vec<u8>, units: Vec<u64>) -> Object {
        let publish: PublishId = self.kept.publish;
        Object {
            key,
            bytes,
            by: Some(publish),
            units: units.into_iter().map(|at| Piece { publish, at }).collect(),
        }
    }

    /// Stores the running index.
    fn list(&self, step: &mut Step, paused: bool) {
        let state = step.notes.state.hls.clone().unwrap_or_default();
        let mut totals: Totals = state.before.clone().unwrap_or_default();
        totals.paused = paused;
        totals.segments += u64::from(step.notes.state.next_sequence);
        totals.duration_ms += state.duration_ms;
        totals.video_units += state.counts.video;
        let own: Vec<Gap> = step.notes.state.gaps.clone();
        shared::recording::join_gaps(&mut totals.gaps, &own);
        let mut text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:7\n".to_owned();
        totals.append(&mut text);
        text.push_str(&step.notes.lines);
        let key = format!("{}/index.m3u8", self.order.prefix);
        step.objects.push(self.object(key, text.into_bytes(), Vec::new()));
    }

    /// The end of the list: it pauses, or the recording is whole.
    fn end_list(&self, step: &mut Step) {
        self.list(step, true);
        if self.order.stitch.is_some() {
            return;
        }
        let Some(state) = step.notes.state.hls.clone().filter(|state| state.counts.video > 0) else {
            return;
        };
        step.files.push(FinishedFile {
            file_id: self.setting.file_id(0),
            format: Format::Hls,
            sequence: 0,
            key: format!("{}/index.m3u8", self.order.prefix),
            size: state.counts.video * 1_000,
            checksum: String::new(),
            duration_ms: state.duration_ms,
            start_ms: state.counts.first_arrival_ms,
            video_units: state.counts.video,
            audio_units: 0,
            gaps: std::mem::take(&mut step.notes.state.gaps),
        });
    }

    /// What was stored counts from now on.
    fn stored(&mut self, step: Step, ctx: &mut Context<Self>) {
        let key = self.key();
        let Step {
            notes,
            files,
            left_out,
            waits,
            ..
        } = step;
        let state = notes.state.clone();
        let noted = self.journal(|journal| {
            journal.files.extend(files.iter().map(|file| (key.0, file.clone())));
            let left_out = left_out.into_iter().map(|(at, why)| (key.0, key.1, at, why));
            journal.left_out.extend(left_out);
            journal.notes.insert(key, notes);
        });
        self.busy = false;
        if noted.is_none() {
            return ctx.stop();
        }
        let stepped = Stepped {
            files,
            done: state.done,
            left_out: if state.done { state.gaps.clone() } else { Vec::new() },
            retired: state.cursor,
            waits,
            settles: false,
            store: None,
        };
        let setting = Arc::clone(&self.setting);
        // As the real one: the parent's mailbox has room for one report of each.
        drop(self.parent.try_send(Report::Stepped { setting, stepped }));
        if state.done {
            ctx.stop();
        } else if !waits && self.ending {
            self.look(ctx);
        }
    }
}

fn unit(journal: &Journal, at: u64) -> Option<Unit> {
    usize::try_from(at).ok().and_then(|at| journal.units.get(at)).copied()
}

impl Actor for ModelRecorder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, Self::look);
        self.look(ctx);
    }
}

impl Handler<Word> for ModelRecorder {
    type Result = ();

    fn handle(&mut self, word: Word, ctx: &mut Self::Context) {
        match word {
            Word::End => {
                self.ending = true;
                self.look(ctx);
            }
            Word::Stop => ctx.stop(),
            Word::MoveEnd(until_ms) => {
                self.until_ms = until_ms;
                self.look(ctx);
            }
            Word::GiveUp(reason) => {
                let setting = Arc::clone(&self.setting);
                let reason = reason.to_owned();
                drop(self.parent.try_send(Report::GaveUp { setting, reason }));
                ctx.stop();
            }
        }
    }
}
