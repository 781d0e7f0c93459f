//! [`StreamCore`]: what happens next to one publish. Pure: an event in, effects out.
//!
//! A publish is journaled from the start; meanwhile its lease is asked for. The grant says what to record, and may change while the
//! publish is live. Each recording begins and ends by its own [`Window`], at the latest with the publish: its recorders finish, every
//! file is committed to the library, then it is closed. When all are, the journal goes.
//! Every effect may be asked for again after a crash: each is idempotent.

use std::collections::{BTreeMap, BTreeSet};

use shared::ids::RecordingId;
use shared::lease::{Grant, GrantedRecording, Window};
use shared::recording::{Gap, RecordingState};
use shared::task::TASK_ENDED;
use shared::template::Format;
use shared::time::Timestamp;

use crate::record::FinishedFile;

/// A publisher that is silent leaves nothing to tell that a window is over but the clock. So long after the window's end the clock is
/// believed: what arrived before it is in the journal by then.
const SILENT_END_MS: i64 = 2_000;
/// Why a journal is put aside whose recording was lost earlier.
const LOST_BEFORE: &str = "lost or ended before its worker took it up";
/// Why a journal is put aside whose recording ended while it waited for what lies before it.
const ENDED_MEANWHILE: &str = "ended before its worker could go on with it";
/// A recorder that waits looks every other second. After so many looks it is asked whether the recording has ended meanwhile, and again after
/// [`ASK_EVERY`] more of them each: so that nobody waits for what nobody will write.
const ASK_AFTER: u32 = 5;
const ASK_EVERY: u32 = 15;
/// Why a recording ended that never began.
const NEVER_BEGAN: &str = "ended_before_its_start";
/// End of the name of a gap: one publish of several was not rendered in a format.
pub(crate) const RECORDER_FAILED: &str = "recorder_failed";

/// When something happens, by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Now, milliseconds since the Unix epoch.
    pub(crate) now_ms: i64,
    /// Arrival of the last that is in the journal, milliseconds since the Unix epoch.
    pub(crate) arrived_ms: i64,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The lease is ours.
    Granted(Grant),
    /// What is to be recorded has changed.
    Set(Grant),
    /// Time has passed.
    Tick,
    /// The stream is not ours: disconnect and forget.
    Refused(String),
    /// The coordinator does not know the publish.
    Unknown,
    /// The journal got its last record.
    Closed(String),
    /// A recorder finished files; `done` means that it has no more to do, and `left_out` is then what no file tells of.
    Rendered {
        recording: RecordingId,
        format: Format,
        files: Vec<FinishedFile>,
        left_out: Vec<Gap>,
        done: bool,
    },
    /// A recorder waits for what an earlier publish of its recording is to store.
    Waits(RecordingId),
    /// A recorder gave up.
    Failed {
        recording: RecordingId,
        format: Format,
        reason: String,
    },
    /// The coordinator knows that the publish is over. What it was to record in the end, where that is not known here.
    Released(Option<Grant>),
    /// The library has the file.
    FileCommitted { recording: RecordingId, file_id: String },
    /// The library knows that the recording has begun.
    Begun(RecordingId),
    /// The library knows that the recording ended.
    RecordingCommitted(RecordingId),
    /// The recording is another's by now, or has ended otherwise.
    Lost { recording: RecordingId, reason: String },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Keep the grant beside the journal: a restarted worker goes on from it.
    KeepGrant(Grant),
    StartRecorder {
        recording: GrantedRecording,
        format: Format,
    },
    /// The recorders of a recording go to the journal's end, or to its window's, and finish.
    EndRecorders(RecordingId),
    /// The window of a recording that runs has changed.
    MoveEnd {
        recording: RecordingId,
        until_ms: Option<i64>,
    },
    /// Tell the library that a scheduled recording has begun.
    Begin(RecordingId),
    CommitFile {
        recording: RecordingId,
        file: FinishedFile,
    },
    /// Write `recording.json` anew.
    WriteDocument {
        recording: RecordingId,
        state: RecordingState,
        reason: String,
        /// Gaps that no file tells of.
        left_out: Vec<Gap>,
    },
    CommitRecording {
        recording: RecordingId,
        state: RecordingState,
        reason: String,
        gaps: Vec<Gap>,
    },
    /// Tell the coordinator that the stream is free.
    ReleaseLease {
        reason: String,
    },
    /// Ask for the lease once more.
    Ask,
    /// End the publisher's connection.
    DropPublisher {
        reason: String,
    },
    /// The recorders of a recording stop at once: nothing more is written of it.
    StopRecorders(RecordingId),
    /// Nothing needs the journal any more.
    RemoveJournal,
    /// The journal is put aside: it may hold what nobody else has.
    KeepJournal {
        reason: String,
    },
}

/// How far a recording is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Its window has not begun, or nothing has arrived in it.
    #[default]
    Waiting,
    /// Its recorders run.
    Running,
    /// Its recorders have been told to finish.
    Ending,
    /// The library is being told that it ended.
    Closing,
    /// The library knows.
    Closed,
}

#[derive(Debug, Default)]
struct Recording {
    phase: Phase,
    /// Formats whose recorders are not done.
    open: BTreeSet<Format>,
    /// It goes on with the stream's next publish.
    stitched: bool,
    /// Files heard of; after a restart some are told twice.
    known: BTreeSet<String>,
    /// Files that the library does not have yet.
    uncommitted: BTreeSet<String>,
    /// The library is being told that it has begun.
    beginning: bool,
    /// How often its recorder found that it has to wait.
    waited: u32,
    failures: Vec<String>,
    gaps: Vec<Gap>,
    /// Those of `gaps` that are in no file's record.
    left_out: Vec<Gap>,
}

/// True if something arrived in the window.
fn begun(window: &Window, at: Moment) -> bool {
    window.from.is_none_or(|from| at.arrived_ms > from.as_millis())
}

/// True if nothing can arrive in the window any more, whatever the publisher does.
fn over(window: &Window, at: Moment) -> bool {
    let silent_end = |until: Timestamp| at.now_ms > until.as_millis().saturating_add(SILENT_END_MS);
    window.cancelled || window.until.is_some_and(silent_end)
}

/// True where a recording is called over of which nothing was recorded.
fn never_began(effect: &Effect) -> bool {
    matches!(effect, Effect::CommitRecording { reason, .. } if reason == NEVER_BEGAN)
}

/// One publish.
#[derive(Debug, Default)]
pub(crate) struct StreamCore {
    grant: Option<Grant>,
    /// Why it is not to be recorded.
    refused: Option<String>,
    /// The coordinator knows that the publish is over: nothing is added to the grant any more.
    released: bool,
    /// Why the publish ended, and when what had arrived last.
    closed: Option<(String, i64)>,
    recordings: BTreeMap<RecordingId, Recording>,
    /// Recordings that were lost, and why.
    lost: Vec<String>,
    removed: bool,
}

impl StreamCore {
    /// The journal has its last record.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// What the coordinator granted, as it is by now.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// True while something is due at some moment rather than with an event.
    pub(crate) fn waits_for_time(&self) -> bool {
        let bounded = |r: &&GrantedRecording| r.window.until.is_some() || r.window.from.is_some();
        let unsettled = |r: &GrantedRecording| {
            let phase = self.recordings.get(&r.id).map(|r| r.phase);
            matches!(phase, Some(Phase::Waiting | Phase::Running))
        };
        let grant = self.grant.as_ref();
        grant.is_some_and(|grant| grant.recordings.iter().filter(bounded).any(unsettled))
    }

    /// Takes an event; says what follows from it. Events that come twice follow with nothing.
    pub(crate) fn on(&mut self, event: Event, at: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Granted(grant) => match self.grant {
                None => {
                    self.take_up(grant, &mut effects);
                    self.release(&mut effects);
                }
                Some(_) => self.ended_meanwhile(&grant, &mut effects),
            },
            Event::Set(grant) => {
                if self.is_behind(&grant) {
                    self.take_up(grant, &mut effects);
                }
            }
            Event::Released(last) => {
                self.released = true;
                if let Some(last) = last.filter(|last| self.is_behind(last)) {
                    self.take_up(last, &mut effects);
                }
            }
            Event::Tick => {}
            Event::Refused(reason) => {
                if self.closed.is_none() {
                    effects.push(Effect::DropPublisher { reason: reason.clone() });
                }
                self.refused = Some(reason);
            }
            Event::Unknown => {
                // What is over holds no stream, and what was refused is not granted behind that: nobody would record it.
                if self.closed.is_none() {
                    effects.push(match self.refused.clone() {
                        None => Effect::Ask,
                        Some(reason) => Effect::DropPublisher { reason },
                    });
                }
            }
            Event::Closed(reason) => {
                if self.closed.is_none() {
                    self.closed = Some((reason, at.arrived_ms));
                    self.release(&mut effects);
                }
            }
            Event::Rendered {
                recording,
                format,
                files,
                left_out,
                done,
            } => self.rendered(recording, (format, files), left_out, done, &mut effects),
            Event::Waits(id) => {
                if let Some(recording) = self.recordings.get_mut(&id) {
                    recording.waited += 1;
                    if recording.waited % ASK_EVERY == ASK_AFTER {
                        effects.push(Effect::Ask);
                    }
                }
            }
            Event::Failed {
                recording: id,
                format,
                reason,
            } => {
                if let Some(recording) = self.recordings.get_mut(&id)
                    && recording.open.remove(&format)
                {
                    if recording.stitched {
                        let gap = Gap {
                            reason: format!("{}_{RECORDER_FAILED}", format.as_str()),
                            from_ms: 0,
                            to_ms: 0,
                            units: 0,
                        };
                        recording.gaps.push(gap.clone());
                        recording.left_out.push(gap);
                    }
                    recording.failures.push(format!("{}: {reason}", format.as_str()));
                }
            }
            Event::FileCommitted { recording: id, file_id } => {
                if let Some(recording) = self.recordings.get_mut(&id)
                    && recording.uncommitted.remove(&file_id)
                {
                    let (state, reason) = (RecordingState::Recording, String::new());
                    effects.push(Effect::WriteDocument {
                        recording: id,
                        state,
                        reason,
                        left_out: recording.left_out.clone(),
                    });
                }
            }
            Event::Begun(id) => {
                if let Some(recording) = self.recordings.get_mut(&id) {
                    recording.beginning = false;
                }
            }
            Event::RecordingCommitted(id) => {
                if let Some(recording) = self.recordings.get_mut(&id) {
                    recording.phase = Phase::Closed;
                }
            }
            Event::Lost { recording, reason } => self.lose(recording, &reason, &mut effects),
        }
        self.settle(at, &mut effects);
        effects
    }

    fn lose(&mut self, id: RecordingId, reason: &str, effects: &mut Vec<Effect>) {
        if let Some(recording) = self.recordings.get_mut(&id)
            && recording.phase != Phase::Closed
        {
            recording.phase = Phase::Closed;
            recording.open.clear();
            recording.uncommitted.clear();
            self.lost.push(format!("{id}: {reason}"));
            effects.push(Effect::StopRecorders(id));
            self.keep_lost(id, effects);
        }
    }

    /// A recording that goes on across publishes is ended by whoever finishes it: where that has happened, what this publish has not
    /// stored of it comes too late, and what it waits for does not come.
    fn ended_meanwhile(&mut self, said: &Grant, effects: &mut Vec<Effect>) {
        for ended in said.recordings.iter().filter(|said| said.state.is_terminal()) {
            let recording = self.recordings.get(&ended.id);
            let waits = |r: &Recording| r.waited > 0 && matches!(r.phase, Phase::Running | Phase::Ending);
            if recording.is_some_and(waits) {
                self.lose(ended.id, ENDED_MEANWHILE, effects);
            }
        }
    }

    /// A restarted worker takes up nothing that was lost: it may have given up what lies behind it in the journal since.
    fn keep_lost(&mut self, id: RecordingId, effects: &mut Vec<Effect>) {
        let Some(grant) = &mut self.grant else { return };
        for granted in grant.recordings.iter_mut().filter(|granted| granted.id == id) {
            granted.state = RecordingState::Failed;
        }
        effects.push(Effect::KeepGrant(grant.clone()));
    }

    /// True if this is a later version of what is held.
    fn is_behind(&self, grant: &Grant) -> bool {
        let newer = |held: &Grant| held.epoch == grant.epoch && held.revision < grant.revision;
        self.grant.as_ref().is_some_and(newer)
    }

    fn rendered(
        &mut self,
        id: RecordingId,
        (format, files): (Format, Vec<FinishedFile>),
        left_out: Vec<Gap>,
        done: bool,
        effects: &mut Vec<Effect>,
    ) {
        let running = |recording: &&mut Recording| recording.phase != Phase::Closed;
        let Some(recording) = self.recordings.get_mut(&id).filter(running) else {
            return;
        };
        for file in files {
            if !recording.known.insert(file.file_id.clone()) {
                continue;
            }
            recording.gaps.extend(file.gaps.iter().cloned());
            recording.uncommitted.insert(file.file_id.clone());
            effects.push(Effect::CommitFile { recording: id, file });
        }
        if done && recording.open.remove(&format) {
            recording.gaps.extend(left_out.iter().cloned());
            recording.left_out.extend(left_out);
        }
    }

    /// Takes a set of recordings: new ones are added, windows of known ones change, and none is forgotten.
    fn take_up(&mut self, mut grant: Grant, effects: &mut Vec<Effect>) {
        if let Some(held) = self.grant.take() {
            for old in held.recordings {
                let open = self.recordings.get(&old.id).map(|r| r.phase);
                match grant.recordings.iter_mut().find(|new| new.id == old.id) {
                    // Settings are frozen, and how far it is is known better here: only the window may change.
                    Some(new) => {
                        let mut window = new.window;
                        let said = matches!(open, Some(Phase::Closing | Phase::Closed));
                        window.cancelled |= said && old.window.cancelled && old.state == RecordingState::Scheduled;
                        if window.until != old.window.until && open == Some(Phase::Running) {
                            effects.push(Effect::MoveEnd {
                                recording: old.id,
                                until_ms: window.until.map(Timestamp::as_millis),
                            });
                        }
                        *new = GrantedRecording { window, ..old };
                    }
                    None if open.is_some_and(|phase| phase != Phase::Closed) => grant.recordings.push(old),
                    None => {}
                }
            }
        } else {
            // Lost before a restart, or given up or finished without its worker: this journal may hold what nobody else has.
            for ended in grant.recordings.iter_mut().filter(|r| r.state.is_terminal()) {
                ended.state = RecordingState::Failed;
                self.lost.push(format!("{}: {LOST_BEFORE}", ended.id));
            }
        }
        for granted in grant.recordings.iter().filter(|r| !r.state.is_terminal()) {
            self.recordings.entry(granted.id).or_insert_with(|| Recording {
                open: granted.template.rendered(granted.stitch.is_some()).collect(),
                stitched: granted.stitch.is_some(),
                ..Recording::default()
            });
        }
        effects.insert(0, Effect::KeepGrant(grant.clone()));
        self.grant = Some(grant);
    }

    /// Once the publish is over and its lease has come: the stream is free.
    fn release(&self, effects: &mut Vec<Effect>) {
        if let (Some((reason, _)), true) = (&self.closed, self.grant.is_some()) {
            effects.push(Effect::ReleaseLease { reason: reason.clone() });
        }
    }

    /// What is due by now: recordings that begin, that end, that are complete; in the end the journal goes.
    fn settle(&mut self, at: Moment, effects: &mut Vec<Effect>) {
        if let Some(grant) = &mut self.grant {
            let mut begin = Vec::new();
            for granted in &mut grant.recordings {
                if let Some(recording) = self.recordings.get_mut(&granted.id) {
                    if recording.begins(granted, at) {
                        recording.begin(granted, &mut begin);
                    }
                    recording.settle(granted, self.closed.as_ref(), at, &mut begin);
                }
            }
            let decided = |effect: &Effect| matches!(effect, Effect::Begin(_)) || never_began(effect);
            if begin.iter().any(decided) {
                effects.push(Effect::KeepGrant(grant.clone()));
            }
            effects.append(&mut begin);
        }
        let answered = if self.grant.is_some() {
            self.released
        } else {
            self.refused.is_some()
        };
        let settled = self.closed.is_some() && self.recordings.values().all(|r| r.phase == Phase::Closed);
        if answered && settled && !self.removed {
            self.removed = true;
            effects.push(match self.lost.is_empty() {
                true => Effect::RemoveJournal,
                false => Effect::KeepJournal {
                    reason: self.lost.join("; "),
                },
            });
        }
    }
}

impl Recording {
    fn settle(
        &mut self,
        granted: &mut GrantedRecording,
        closed: Option<&(String, i64)>,
        at: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let id = granted.id;
        let ends = closed.is_some() || over(&granted.window, at);
        if self.phase == Phase::Waiting && ends {
            self.phase = Phase::Closing;
            // It is said once and for all: a restarted worker says the same, whatever has arrived since, and by whatever clock.
            granted.window.cancelled = true;
            effects.push(Effect::CommitRecording {
                recording: id,
                state: RecordingState::Finished,
                reason: NEVER_BEGAN.to_owned(),
                gaps: Vec::new(),
            });
        }
        if self.phase == Phase::Running && ends {
            self.phase = Phase::Ending;
            effects.push(Effect::EndRecorders(id));
        }
        let window = &granted.window;
        let complete = self.open.is_empty() && self.uncommitted.is_empty() && !self.beginning;
        let bounded = window.until.is_some() || window.cancelled;
        if matches!(self.phase, Phase::Running | Phase::Ending) && complete && (closed.is_some() || bounded) {
            self.phase = Phase::Closing;
            let by_window = |(_, last): &&(String, i64)| window.until.is_none_or(|until| *last <= until.as_millis());
            let (state, reason) = match closed.filter(by_window) {
                // Whoever finishes it says how it ends; what it has of this publish is complete.
                Some((closed, _)) if granted.stitch.is_some() => (RecordingState::Interrupted, closed.clone()),
                None if granted.stitch.is_some() => (RecordingState::Interrupted, TASK_ENDED.to_owned()),
                _ if !self.failures.is_empty() => (RecordingState::Failed, self.failures.join("; ")),
                Some((closed, _)) => (RecordingState::Finished, closed.clone()),
                None => (RecordingState::Finished, TASK_ENDED.to_owned()),
            };
            effects.push(Effect::WriteDocument {
                recording: id,
                state,
                reason: reason.clone(),
                left_out: self.left_out.clone(),
            });
            effects.push(Effect::CommitRecording {
                recording: id,
                state,
                reason,
                gaps: self.gaps.clone(),
            });
        }
    }

    /// True if it is time to start its recorders. One that a killed worker had begun is taken up whatever became of its window.
    fn begins(&self, granted: &GrantedRecording, at: Moment) -> bool {
        let due = || begun(&granted.window, at) && !granted.window.cancelled;
        self.phase == Phase::Waiting && (granted.state != RecordingState::Scheduled || due())
    }

    fn begin(&mut self, granted: &mut GrantedRecording, effects: &mut Vec<Effect>) {
        self.phase = Phase::Running;
        granted.state = RecordingState::Recording;
        effects.push(Effect::WriteDocument {
            recording: granted.id,
            state: RecordingState::Recording,
            reason: String::new(),
            left_out: Vec::new(),
        });
        if granted.window.from.is_some() {
            self.beginning = true;
            effects.push(Effect::Begin(granted.id));
        }
        for format in &self.open {
            effects.push(Effect::StartRecorder {
                recording: granted.clone(),
                format: *format,
            });
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
