//! The playlist of an HLS recorder: its lines, kept beside the state, and what is said in front of them.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use media::hls;
use shared::recording::{Gap, join_gaps};

use super::{End, HlsRecorder};
use crate::record::RecordError;
use crate::record::index::Totals;
use crate::record::state::{HlsState, State};
use crate::upload::{Local, Object};

impl HlsRecorder {
    /// Totals of everything that the index names.
    pub(super) fn totals(&self, hls: &HlsState, sequence: u32, paused: bool) -> Totals {
        let mut totals = hls.before.clone().unwrap_or_default();
        let shift = totals.duration_ms;
        let own = self.state.gaps.iter().map(|gap| Gap {
            from_ms: gap.from_ms.saturating_add(shift),
            to_ms: gap.to_ms.saturating_add(shift),
            ..gap.clone()
        });
        join_gaps(&mut totals.gaps, &own.collect::<Vec<_>>());
        totals.paused = paused;
        totals.segments += u64::from(sequence);
        totals.bytes += hls.bytes;
        totals.longest_ms = totals.longest_ms.max(hls.longest_ms);
        totals.duration_ms += hls.duration_ms;
        totals.video_units += hls.counts.video;
        totals.audio_units += hls.counts.audio;
        if hls.counts.video + hls.counts.audio > 0 {
            totals.start_ms = totals.start_ms.or(Some(hls.counts.first_arrival_ms));
        }
        totals
    }

    /// Takes a stored segment into the list, with the state that it leads to.
    pub(super) fn enter(&mut self, mut state: State, line: &str) -> Result<(), RecordError> {
        let hls = state.hls.get_or_insert_with(HlsState::default);
        let kept = hls.index_len;
        self.lines(|file| {
            file.set_len(kept)?;
            io::Seek::seek(file, io::SeekFrom::End(0))?;
            file.write_all(line.as_bytes())
        })?;
        hls.index_len += line.len() as u64;
        self.state = state;
        Ok(())
    }

    /// The playlist's segment lines so far, kept beside the state so that no step need hold them all in memory between two.
    pub(super) fn lines<T>(&self, with: impl FnOnce(&mut std::fs::File) -> io::Result<T>) -> Result<T, RecordError> {
        let path = self.lines_path();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        file.and_then(|mut file| with(&mut file))
            .map_err(|e| RecordError::State {
                path,
                reason: e.to_string(),
            })
    }

    pub(super) fn lines_path(&self) -> PathBuf {
        self.setting.notes.join(format!("{}.m3u8", self.setting.name()))
    }

    pub(super) fn playlist_key(&self) -> String {
        format!("{}/index.m3u8", self.setting.prefix)
    }

    /// The playlist of the segments so far and of one more, whose line is `more`.
    pub(super) fn playlist(&self, state: &HlsState, more: &str, end: End) -> Result<String, RecordError> {
        let ended = end == End::Whole;
        let kind = if ended { hls::Kind::Vod } else { hls::Kind::Event };
        let longest = if ended {
            state.longest_ms
        } else {
            state.longest_ms.max(self.setting.interval_ms)
        };
        let header = hls::Header {
            version: hls::version(self.setting.fragments),
            target_duration_s: hls::rounded_s(u32::try_from(longest).unwrap_or(u32::MAX)).max(1),
            kind: Some(kind),
            media_sequence: 0,
            discontinuity_sequence: 0,
        };
        let mut text = String::new();
        header.append(&mut text);
        // Whoever goes on with it or ends it instead of this worker reads them.
        if !ended {
            let sequence = self.state.next_sequence + u32::from(!more.is_empty());
            self.totals(state, sequence, end == End::Paused).append(&mut text);
        }
        let kept = state.index_len;
        self.lines(|file| file.take(kept).read_to_string(&mut text))?;
        text.push_str(more);
        if ended {
            hls::append_end(&mut text);
        }
        Ok(text)
    }

    pub(super) fn put_playlist(&self, local: &Local, text: &str) -> Result<(), RecordError> {
        let key = self.playlist_key();
        local.put(&key, text.as_bytes()).map_err(RecordError::store(key))
    }

    pub(super) fn playlist_object(&self, text: String) -> Object {
        Object {
            key: self.playlist_key(),
            chunks: vec![text.into()],
            verify: false,
        }
    }
}
