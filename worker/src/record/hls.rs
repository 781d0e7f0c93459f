//! The recorder of HLS: segments, of MPEG-TS or fragmented MP4, and the playlist that names them.
//!
//! The cursor always stands at the start of the open segment. A segment is rendered in one go once the journal holds a cut
//! behind it, so a crash at any moment costs rendering it once more, to the same bytes. A segment enters the playlist when it is stored.

use std::io::Write;
use std::mem;
use std::sync::Arc;

use journal::{Entry, GroupSync, Position, Reader};
use media::hls;
use media::segmenter::Segmenter;
use shared::lease::Epoch;

use super::index;
use super::keeper::Keeper;
use super::parameters::changes_parameters;
use super::pool::Scratch;
use super::state::{Counts, HlsState, State, Unlisted};
use super::{FinishedFile, Reach, RecordError, Setting, Stepped, crc};
use crate::upload::{Object, Objects, Store, Stored};

/// Every so many segments the playlist says the date anew.
const DATE_EVERY: u32 = 64;
/// Rendered bytes are written when this many are in hand.
const FLUSH_BYTES: usize = 256 * 1024;

mod list;
mod segment;

use segment::{Coder, OpenSegment, Sink};

#[derive(Debug)]
pub(crate) struct HlsRecorder {
    setting: Setting,
    objects: Objects,
    keeper: Keeper,
    state: State,
    /// What must be stored before the next step, and what is true then.
    store: Option<(Store, Pending)>,
    pending: Option<Pending>,
    /// The state came from the disk: what a crash left in object storage is looked for first.
    tidy: bool,
    /// How often an earlier publish was found not to have paused.
    looks: u32,
}

/// What is true once something is stored.
#[derive(Debug)]
enum Pending {
    /// Nothing else.
    Nothing,
    /// A segment is: this state, and this line of the playlist.
    Segment(Box<State>, String),
    /// The recording is whole.
    Finished(Box<FinishedFile>),
    /// The publish's part of it is, and its index says so.
    Paused,
    /// What earlier publishes left is read.
    TakenOver,
}

/// What comes after a playlist's last segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// More.
    Open,
    /// Nothing under this epoch.
    Paused,
    /// Nothing.
    Whole,
}

impl HlsRecorder {
    pub(super) fn open(setting: Setting, objects: Objects, sync: Arc<GroupSync>) -> Result<Self, RecordError> {
        let (keeper, mut state) = Keeper::open(&setting, sync)?;
        let tidy = keeper.is_reopened() && matches!(objects, Objects::Remote(_));
        state.hls.get_or_insert_with(HlsState::default);
        let recorder = Self {
            setting,
            objects,
            keeper,
            state,
            store: None,
            pending: None,
            tidy,
            looks: 0,
        };
        let kept = recorder.hls().index_len;
        recorder.lines(|file| file.set_len(kept))?;
        Ok(recorder)
    }

    fn hls(&self) -> &HlsState {
        static NONE: std::sync::OnceLock<HlsState> = std::sync::OnceLock::new();
        self.state
            .hls
            .as_ref()
            .unwrap_or_else(|| NONE.get_or_init(HlsState::default))
    }

    /// Below what its objects are.
    pub(super) fn prefix(&self) -> String {
        format!("{}/", self.setting.prefix)
    }

    /// What it is to render, and how far it is.
    pub(super) fn place(&mut self) -> (&Setting, &mut State) {
        (&self.setting, &mut self.state)
    }

    pub(super) fn worthwhile(&self, random_access_ms: Option<i64>) -> bool {
        match (random_access_ms, self.hls().segment_ms) {
            (Some(at), Some(start)) => at - start >= self.setting.interval_ms,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    pub(super) fn step(&mut self, scratch: &mut Scratch, reach: Reach) -> Result<Stepped, RecordError> {
        let mut stepped = Stepped::default();
        if mem::take(&mut self.tidy) {
            let tidy = Store::Tidy {
                prefix: format!("{}/", self.setting.prefix),
                keep: None,
            };
            return Ok(self.wait(stepped, tidy, Pending::Nothing));
        }
        if !self.state.done
            && let Some(waiting) = self.take_over()?
        {
            return Ok(waiting);
        }
        if !self.state.done {
            let stored = self.state.next_sequence;
            let mut reader = Reader::open(
                &self.setting.journal,
                Position(self.state.cursor),
                mem::take(&mut scratch.read),
            )?;
            reader.set_limit(Position(reach.end));
            let result = self.render(&mut reader, &mut scratch.out, reach);
            scratch.read = reader.into_buffer();
            result?;
            if let Some((store, pending)) = self.store.take() {
                return Ok(self.wait(stepped, store, pending));
            }
            if reach.last && self.setting.stitch.is_some() {
                let playlist = self.playlist(self.hls(), "", End::Paused)?;
                match &self.objects {
                    Objects::Local(local) => {
                        self.put_playlist(local, &playlist)?;
                        let stage = self.stage_name();
                        local.unstage(&stage).map_err(RecordError::store(stage))?;
                    }
                    Objects::Remote(_) => {
                        let store = Store::Objects(vec![self.playlist_object(playlist)]);
                        return Ok(self.wait(stepped, store, Pending::Paused));
                    }
                }
                // They are in the index.
                self.state.gaps.clear();
            } else if reach.last && self.state.next_sequence > 0 {
                let (file, playlist) = self.finish()?;
                match &self.objects {
                    Objects::Local(local) => self.put_playlist(local, &playlist)?,
                    Objects::Remote(_) => {
                        let store = Store::Objects(vec![self.playlist_object(playlist)]);
                        return Ok(self.wait(stepped, store, Pending::Finished(Box::new(file))));
                    }
                }
                self.setting.note(&file)?;
                stepped.files.push(file);
            } else if self.state.next_sequence > stored
                && self.hls().unlisted.are_worth(self.hls().index_len)
                && let Objects::Local(local) = &self.objects
            {
                self.put_playlist(local, &self.playlist(self.hls(), "", End::Open)?)?;
                self.state.hls.get_or_insert_with(HlsState::default).unlisted = Unlisted::default();
            }
            self.state.done = reach.last;
        }
        stepped.done = self.state.done;
        if stepped.done {
            stepped.left_out.clone_from(&self.state.gaps);
        }
        stepped.retired = self.keeper.save(&self.state)?;
        Ok(stepped)
    }

    /// Ends a step with something to store first.
    fn wait(&mut self, mut stepped: Stepped, store: Store, pending: Pending) -> Stepped {
        self.pending = Some(pending);
        stepped.store = Some(store);
        stepped
    }

    /// Goes on after what the last step gave back is stored.
    pub(super) fn stored(&mut self, stored: Stored) -> Result<Stepped, RecordError> {
        let mut stepped = Stepped::default();
        match self.pending.take() {
            Some(Pending::TakenOver) => {
                if let Stored::Fetched(found) = stored {
                    stepped.waits = !self.taken_over(found)?;
                }
            }
            Some(Pending::Paused) => self.state.done = true,
            Some(Pending::Segment(state, line)) => self.enter(*state, &line)?,
            Some(Pending::Finished(file)) => {
                self.setting.note(&file)?;
                stepped.files.push(*file);
                self.state.done = true;
            }
            Some(Pending::Nothing) | None => {}
        }
        stepped.done = self.state.done;
        if stepped.done {
            self.state.gaps.clear();
        }
        stepped.retired = self.keeper.save(&self.state)?;
        Ok(stepped)
    }

    /// Reads what earlier publishes left, where that is still to be done; gives the step's end if this has to wait.
    fn take_over(&mut self) -> Result<Option<Stepped>, RecordError> {
        let Some(stitch) = &self.setting.stitch else {
            return Ok(None);
        };
        if stitch.behind.before.is_empty() || self.hls().before.is_some() {
            return Ok(None);
        }
        let key = |epoch: &Epoch| index::key(&stitch.root, *epoch);
        let keys: Vec<String> = stitch.behind.before.iter().map(key).collect();
        let Objects::Local(local) = &self.objects else {
            let fetch = Store::Fetch { keys };
            return Ok(Some(self.wait(Stepped::default(), fetch, Pending::TakenOver)));
        };
        let found = local.first(&keys).map_err(RecordError::store("an earlier index"))?;
        let found = found.map(|(which, bytes)| (which, bytes.into()));
        let waits = !self.taken_over(found)?;
        let waiting = Stepped {
            waits,
            retired: self.keeper.save(&self.state)?,
            ..Stepped::default()
        };
        Ok(waits.then_some(waiting))
    }

    /// Begins with what earlier publishes left; false: the latest of them is still at work. `found` is the index that was found, and
    /// whose it is, the latest publish's being 0.
    fn taken_over(&mut self, found: Option<(usize, bytes::Bytes)>) -> Result<bool, RecordError> {
        let Some(stitch) = &self.setting.stitch else {
            return Ok(true);
        };
        let found = found.as_ref().map(|(which, bytes)| (*which, bytes.as_ref()));
        let Some((lines, totals)) = index::join(&stitch.behind, self.looks, found) else {
            self.looks += 1;
            return Ok(false);
        };
        self.lines(|file| {
            file.set_len(0)?;
            file.write_all(lines.as_bytes())
        })?;
        let hls = self.state.hls.get_or_insert_with(HlsState::default);
        hls.index_len = lines.len() as u64;
        hls.longest_ms = hls.longest_ms.max(totals.longest_ms);
        hls.before = Some(totals);
        Ok(true)
    }

    /// Bytes that a step may have in memory.
    pub(super) fn weight(&self, end: u64) -> u64 {
        match &self.objects {
            Objects::Local(_) => 0,
            Objects::Remote(remote) => end.saturating_sub(self.state.cursor).min(remote.plan().part_len(0)),
        }
    }

    /// Renders whole segments, one after another, as far as the journal holds their ends.
    fn render(&mut self, reader: &mut Reader, out: &mut Vec<u8>, reach: Reach) -> Result<(), RecordError> {
        let mut open = self.begin()?;
        out.clear();
        while let Some(entry) = reader.next()? {
            let (at, next, info, tag) = match entry {
                Entry::Control { at, .. } if at.0 >= reach.end => break,
                Entry::Control { next, control, .. } => {
                    open.state.note_control(&control);
                    open.state.cursor = next.0;
                    continue;
                }
                Entry::Tag { at, .. } if at.0 >= reach.end => break,
                Entry::Tag { at, next, info, tag } => (at, next, info, tag),
            };
            let new_parameters = open.has_units() && changes_parameters(&open.state, &info, tag);
            let cut = open.segmenter.push(&info) || new_parameters;
            let refused = !cut && !open.take(&info, tag, out);
            if cut || refused {
                open.state.cursor = at.0;
                open.state.hls.get_or_insert_with(HlsState::default).discontinuity = new_parameters || refused;
                self.complete(open, info.dts_ms, out)?;
                if self.store.is_some() {
                    return Ok(());
                }
                open = self.begin()?;
                open.segmenter.push(&info);
                open.take(&info, tag, out);
            }
            open.state.cursor = next.0;
            if out.len() >= FLUSH_BYTES {
                open.flush(out)?;
            }
        }
        if reach.last {
            let end = open.counts.end_ms();
            if open.has_units() {
                self.complete(open, end, out)?;
            } else {
                self.state = open.state;
            }
        }
        Ok(())
    }

    fn stage_name(&self) -> String {
        format!("{}-segment", self.setting.name())
    }

    fn begin(&self) -> Result<OpenSegment, RecordError> {
        let what = self.stage_name();
        let sink = match &self.objects {
            Objects::Local(local) => {
                let staged = local.stage(&what).map_err(RecordError::store(what.clone()))?;
                staged.truncate(0).map_err(RecordError::store(what.clone()))?;
                Sink::Local(staged)
            }
            Objects::Remote(remote) => Sink::Remote(remote.plan().part_len(0)),
        };
        let coder = match self.setting.fragments {
            true => Coder::fragments(&self.state, self.hls()),
            false => Coder::transport_stream(&self.state, self.hls()),
        };
        Ok(OpenSegment {
            sink,
            path: self.setting.notes.join(what),
            coder,
            segmenter: Segmenter::new(self.setting.interval_ms),
            state: self.state.clone(),
            len: 0,
            counts: Counts::default(),
            first_ms: None,
            discontinuity: self.hls().discontinuity,
        })
    }

    /// Stores the segment, then names it in the playlist; `end_ms` is where the next begins.
    fn complete(&mut self, mut open: OpenSegment, end_ms: i64, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let init = open.coder.finish(out);
        open.flush(out)?;
        let in_memory = open.len == 0;
        let rendered = if in_memory { mem::take(out) } else { Vec::new() };
        let len = open.len + rendered.len() as u64;
        let start_ms = open.first_ms.unwrap_or(end_ms);
        let duration_ms = (end_ms - start_ms).max(1);
        let mut state = open.state;
        let sequence = state.next_sequence;
        let uri = format!("{sequence:06}.{}", if init.is_some() { "m4s" } else { "ts" });
        let key = format!("{}/{uri}", self.setting.prefix);
        let hls = state.hls.get_or_insert_with(HlsState::default);
        let behind = hls.before.as_ref().is_some_and(|before| before.segments > 0);
        let wall_zero = *hls.wall_zero_ms.get_or_insert(open.counts.first_arrival_ms - start_ms);
        let mut line = String::new();
        let init = init.and_then(|bytes| hls.fragments.new_init(bytes));
        let discontinuity = if sequence > 0 {
            open.discontinuity || init.is_some()
        } else {
            behind
        };
        // The dates between follow from the durations (RFC 8216 §4.3.2.6).
        let dated = discontinuity || sequence.is_multiple_of(DATE_EVERY);
        let segment = hls::Segment {
            uri,
            duration_ms: u32::try_from(duration_ms).unwrap_or(u32::MAX),
            discontinuity,
            program_date_time_ms: dated.then_some(wall_zero + start_ms),
            map: init.as_ref().map(|(name, _)| name.clone()),
        };
        segment.append(&mut line);
        hls.unlisted.add(len);
        open.coder.note(hls);
        hls.longest_ms = hls.longest_ms.max(duration_ms);
        hls.bytes += len + init.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        hls.duration_ms += duration_ms;
        hls.segment_ms = Some(end_ms);
        hls.counts.join(&open.counts);
        state.next_sequence += 1;
        let init = init.map(|(name, bytes)| Object {
            key: format!("{}/{name}", self.setting.prefix),
            chunks: vec![bytes.into()],
            verify: false,
        });
        let objects = self.objects.clone();
        match (open.sink, objects) {
            (Sink::Local(staged), Objects::Local(local)) => {
                if let Some(Object { key, chunks, .. }) = init {
                    local.put(&key, &chunks.concat()).map_err(RecordError::store(key))?;
                }
                staged.publish(&local, &key).map_err(RecordError::store(key))?;
                self.enter(state, &line)
            }
            _ => {
                // Both are there before a list names them.
                let mut playlist: Vec<Object> = init.into_iter().collect();
                if hls.unlisted.are_worth(hls.index_len + line.len() as u64) {
                    hls.unlisted = Unlisted::default();
                    let text = self.playlist(state.hls.as_ref().unwrap_or(self.hls()), &line, End::Open)?;
                    playlist.push(self.playlist_object(text));
                }
                let store = if in_memory {
                    let segment = Object {
                        key,
                        chunks: vec![rendered.into()],
                        verify: false,
                    };
                    let behind_init = playlist.iter().position(|object| object.key == self.playlist_key());
                    playlist.insert(behind_init.unwrap_or(playlist.len()), segment);
                    Store::Objects(playlist)
                } else {
                    Store::File {
                        key,
                        path: open.path,
                        len,
                        then: playlist,
                    }
                };
                self.store = Some((store, Pending::Segment(Box::new(state), line)));
                Ok(())
            }
        }
    }

    /// The record of the whole, and its playlist.
    fn finish(&mut self) -> Result<(FinishedFile, String), RecordError> {
        let playlist = self.playlist(self.hls(), "", End::Whole)?;
        let stage = self.stage_name();
        if let Objects::Local(local) = &self.objects {
            local.unstage(&stage).map_err(RecordError::store(stage))?;
        }
        let gaps = match &self.objects {
            Objects::Local(_) => mem::take(&mut self.state.gaps),
            // They are in the state until the playlist is stored.
            Objects::Remote(_) => self.state.gaps.clone(),
        };
        let hls = self.hls();
        let file = FinishedFile {
            file_id: self.setting.file_id(0),
            format: self.setting.format,
            sequence: 0,
            key: self.playlist_key(),
            size: hls.bytes + playlist.len() as u64,
            checksum: crc::text(crc::of(playlist.as_bytes())),
            duration_ms: hls.counts.duration_ms(),
            start_ms: hls.counts.first_arrival_ms,
            video_units: hls.counts.video,
            audio_units: hls.counts.audio,
            gaps,
        };
        Ok((file, playlist))
    }
}
