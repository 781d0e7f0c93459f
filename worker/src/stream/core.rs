//! [`StreamCore`]: what happens next to one publish. Pure: an event in, effects out.
//!
//! A publish is journaled from the start; meanwhile its lease is asked for. The grant says what to record. When the publish ends
//! its recorders finish, every file is committed to the library, then the recording is closed and the journal goes.
//! Every effect may be asked for again after a crash: each is idempotent.

use std::collections::{BTreeMap, BTreeSet};

use shared::ids::RecordingId;
use shared::lease::{Grant, GrantedRecording};
use shared::recording::{Gap, RecordingState};
use shared::template::Format;

use crate::record::FinishedFile;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The lease is ours.
    Granted(Grant),
    /// The stream is not ours: disconnect and forget.
    Refused(String),
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
    /// A recorder gave up.
    Failed {
        recording: RecordingId,
        format: Format,
        reason: String,
    },
    /// The library has the file.
    FileCommitted { recording: RecordingId, file_id: String },
    /// The library knows that the recording ended.
    RecordingCommitted(RecordingId),
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
    /// The journal is complete: recorders go to its end.
    EndRecorders,
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
    /// End the publisher's connection.
    DropPublisher {
        reason: String,
    },
    /// Nothing needs the journal any more.
    RemoveJournal,
}

#[derive(Debug, Default)]
struct Recording {
    /// Formats whose recorders are not done.
    open: BTreeSet<Format>,
    /// Files heard of; after a restart some are told twice.
    known: BTreeSet<String>,
    /// Files that the library does not have yet.
    uncommitted: BTreeSet<String>,
    failures: Vec<String>,
    gaps: Vec<Gap>,
    /// Those of `gaps` that are in no file's record.
    left_out: Vec<Gap>,
    committing: bool,
    closed: bool,
}

/// One publish.
#[derive(Debug, Default)]
pub(crate) struct StreamCore {
    grant: Option<Grant>,
    refused: bool,
    closed: Option<String>,
    recordings: BTreeMap<RecordingId, Recording>,
    removed: bool,
}

impl StreamCore {
    /// What the coordinator granted, once it has.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// Takes an event; says what follows from it. Events that come twice follow with nothing.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Granted(grant) => self.granted(grant, &mut effects),
            Event::Refused(reason) => {
                self.refused = true;
                if self.closed.is_none() {
                    effects.push(Effect::DropPublisher { reason });
                }
            }
            Event::Closed(reason) => self.close(reason, &mut effects),
            Event::Rendered {
                recording: id,
                format,
                files,
                left_out,
                done,
            } => {
                if let Some(recording) = self.recordings.get_mut(&id) {
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
            }
            Event::Failed {
                recording: id,
                format,
                reason,
            } => {
                if let Some(recording) = self.recordings.get_mut(&id)
                    && recording.open.remove(&format)
                {
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
            Event::RecordingCommitted(id) => {
                if let Some(recording) = self.recordings.get_mut(&id) {
                    recording.closed = true;
                }
            }
        }
        self.settle(&mut effects);
        effects
    }

    fn granted(&mut self, grant: Grant, effects: &mut Vec<Effect>) {
        if self.grant.is_some() {
            return;
        }
        effects.push(Effect::KeepGrant(grant.clone()));
        for granted in grant.recordings.iter().filter(|r| !r.state.is_terminal()) {
            let open: BTreeSet<Format> = granted.template.formats.keys().copied().collect();
            let (state, reason) = (RecordingState::Recording, String::new());
            effects.push(Effect::WriteDocument {
                recording: granted.id,
                state,
                reason,
                left_out: Vec::new(),
            });
            for format in &open {
                effects.push(Effect::StartRecorder {
                    recording: granted.clone(),
                    format: *format,
                });
            }
            self.recordings.insert(
                granted.id,
                Recording {
                    open,
                    ..Recording::default()
                },
            );
        }
        self.grant = Some(grant);
        if let Some(reason) = self.closed.clone() {
            effects.push(Effect::EndRecorders);
            effects.push(Effect::ReleaseLease { reason });
        }
    }

    fn close(&mut self, reason: String, effects: &mut Vec<Effect>) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason.clone());
        if self.grant.is_some() {
            effects.push(Effect::EndRecorders);
            effects.push(Effect::ReleaseLease { reason });
        }
    }

    /// What is due once the publish is over: close what is complete, then let the journal go.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let Some(closed) = &self.closed else { return };
        for (id, recording) in &mut self.recordings {
            if recording.open.is_empty() && recording.uncommitted.is_empty() && !recording.committing {
                recording.committing = true;
                let (state, reason) = if recording.failures.is_empty() {
                    (RecordingState::Finished, closed.clone())
                } else {
                    (RecordingState::Failed, recording.failures.join("; "))
                };
                effects.push(Effect::WriteDocument {
                    recording: *id,
                    state,
                    reason: reason.clone(),
                    left_out: recording.left_out.clone(),
                });
                effects.push(Effect::CommitRecording {
                    recording: *id,
                    state,
                    reason,
                    gaps: recording.gaps.clone(),
                });
            }
        }
        let answered = self.grant.is_some() || self.refused;
        if answered && !self.removed && self.recordings.values().all(|r| r.closed) {
            self.removed = true;
            effects.push(Effect::RemoveJournal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::Seeded;
    use shared::lease::Epoch;
    use shared::recording::Cause;
    use shared::template::TemplateSpec;
    use shared::time::Timestamp;

    fn grant(formats: &[Format]) -> (RecordingId, Grant) {
        let id = RecordingId::generate(&Seeded::new(1), Timestamp::from_millis(1));
        let template = TemplateSpec::plain("t", formats);
        let recording = GrantedRecording {
            id,
            cause: Cause::BuiltIn,
            template,
            state: RecordingState::Recording,
        };
        (
            id,
            Grant {
                epoch: Epoch::new(1),
                recordings: vec![recording],
            },
        )
    }

    fn file(id: &str) -> FinishedFile {
        FinishedFile {
            file_id: id.to_owned(),
            format: Format::Mp4,
            sequence: 0,
            key: "k".to_owned(),
            size: 1,
            checksum: String::new(),
            duration_ms: 1,
            start_ms: 0,
            video_units: 1,
            audio_units: 0,
            gaps: Vec::new(),
        }
    }

    #[test]
    fn the_journal_goes_only_when_the_library_has_everything() {
        let mut core = StreamCore::default();
        let (id, grant) = grant(&[Format::Mp4]);
        let started = core.on(Event::Granted(grant));
        assert!(matches!(
            started.last(),
            Some(Effect::StartRecorder {
                format: Format::Mp4,
                ..
            })
        ));
        let ended = core.on(Event::Closed("peer_closed".to_owned()));
        assert_eq!(
            ended,
            [
                Effect::EndRecorders,
                Effect::ReleaseLease {
                    reason: "peer_closed".to_owned()
                }
            ]
        );
        let rendered = core.on(Event::Rendered {
            recording: id,
            format: Format::Mp4,
            files: vec![file("a")],
            left_out: Vec::new(),
            done: true,
        });
        assert_eq!(
            rendered,
            [Effect::CommitFile {
                recording: id,
                file: file("a")
            }]
        );
        let committed = core.on(Event::FileCommitted {
            recording: id,
            file_id: "a".to_owned(),
        });
        assert!(matches!(
            committed.last(),
            Some(Effect::CommitRecording {
                state: RecordingState::Finished,
                ..
            })
        ));
        assert_eq!(core.on(Event::RecordingCommitted(id)), [Effect::RemoveJournal]);
        assert!(core.removed);
        assert_eq!(core.on(Event::RecordingCommitted(id)), []);
    }

    #[test]
    fn a_publish_that_ends_before_its_lease_comes_is_recorded_all_the_same() {
        let mut core = StreamCore::default();
        assert_eq!(core.on(Event::Closed("deleteStream".to_owned())), []);
        let (_, grant) = grant(&[Format::Flv]);
        let effects = core.on(Event::Granted(grant));
        assert!(effects.contains(&Effect::EndRecorders));
        assert!(!core.removed);
    }

    #[test]
    fn a_refused_publish_is_dropped_and_forgotten() {
        let mut core = StreamCore::default();
        assert_eq!(
            core.on(Event::Refused("live elsewhere".to_owned())),
            [Effect::DropPublisher {
                reason: "live elsewhere".to_owned()
            }]
        );
        assert_eq!(core.on(Event::Closed("refused".to_owned())), [Effect::RemoveJournal]);
    }

    #[test]
    fn a_stream_without_recordings_leaves_nothing() {
        let mut core = StreamCore::default();
        core.on(Event::Granted(Grant {
            epoch: Epoch::new(1),
            recordings: Vec::new(),
        }));
        let effects = core.on(Event::Closed("deleteStream".to_owned()));
        assert_eq!(effects.last(), Some(&Effect::RemoveJournal));
    }

    #[test]
    fn a_recorder_that_gives_up_fails_the_recording_by_name() {
        let mut core = StreamCore::default();
        let (id, grant) = grant(&[Format::Mp4, Format::Flv]);
        core.on(Event::Granted(grant));
        core.on(Event::Failed {
            recording: id,
            format: Format::Mp4,
            reason: "disk".to_owned(),
        });
        core.on(Event::Closed("peer_closed".to_owned()));
        let effects = core.on(Event::Rendered {
            recording: id,
            format: Format::Flv,
            files: Vec::new(),
            left_out: Vec::new(),
            done: true,
        });
        let failed = Effect::CommitRecording {
            recording: id,
            state: RecordingState::Failed,
            reason: "mp4: disk".to_owned(),
            gaps: Vec::new(),
        };
        assert!(effects.contains(&failed));
    }
}
