//! The recorder of HLS: transport stream segments and the playlist that names them.
//!
//! The cursor always stands at the start of the open segment. A segment is rendered in one go once the journal holds a cut
//! behind it, so a crash at any moment costs rendering it once more, to the same bytes. A segment enters the playlist when it is stored.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use journal::{Entry, GroupSync, Position, Reader};
use media::access_unit::{AccessUnit, Codec, Track, UnitInfo, UnitKind};
use media::segmenter::Segmenter;
use media::{hls, ts};
use shared::lease::Epoch;
use shared::recording::{Gap, join_gaps};

use super::body::{body_of, data_of};
use super::index::{self, Index, Totals};
use super::keeper::Keeper;
use super::parameters::{changes_parameters, configure, reason};
use super::pool::Scratch;
use super::state::{Config, Counts, HlsState, State, Unlisted};
use super::{FinishedFile, Reach, RecordError, Setting, Stepped, crc};
use crate::upload::{Local, Object, Objects, Staged, Store, Stored, spill};

/// Every so many segments the playlist says the date anew.
const DATE_EVERY: u32 = 64;
/// Rendered bytes are written when this many are in hand.
const FLUSH_BYTES: usize = 256 * 1024;
/// So often an earlier publish may be found not to have paused, though its worker was alive when this one began: about ten minutes.
const LOOKS: u32 = 300;

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

/// Where the segment goes that is being rendered.
enum Sink {
    Local(Staged),
    /// It stays in memory, or in a local file once it is longer than this.
    Remote(u64),
}

/// The segment that is being rendered. Dropped without a trace if its end is not in the journal yet.
struct OpenSegment {
    sink: Sink,
    path: PathBuf,
    muxer: ts::Muxer,
    segmenter: Segmenter,
    /// The recorder's state as it will be if the segment is completed.
    state: State,
    len: u64,
    counts: Counts,
    first_ms: Option<i64>,
    discontinuity: bool,
}

impl HlsRecorder {
    pub(super) fn open(setting: Setting, objects: Objects, sync: Arc<GroupSync>) -> Result<Self, RecordError> {
        let (keeper, mut state) = Keeper::open(&setting, sync)?;
        let tidy = state != State::default() && matches!(objects, Objects::Remote(_));
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
        let which = found.as_ref().map_or(0, |(which, _)| *which);
        let found = found.and_then(|(_, bytes)| Index::parse(&bytes));
        let paused = which == 0 && found.as_ref().is_some_and(|index| index.totals.paused);
        if !paused && !stitch.behind.lost && self.looks < LOOKS {
            self.looks += 1;
            return Ok(false);
        }
        let epoch = stitch.behind.before.get(which).copied().unwrap_or_default();
        let lines = found.as_ref().map(|index| index.rebased(epoch)).unwrap_or_default();
        let mut totals = found.map(|index| index.totals).unwrap_or_default();
        let latest = stitch.behind.before.first().copied().unwrap_or_default();
        totals.taken_over(latest, paused);
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

    /// Totals of everything that the index names.
    fn totals(&self, hls: &HlsState, sequence: u32, paused: bool) -> Totals {
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
            let new_parameters =
                open.counts.video + open.counts.audio > 0 && changes_parameters(&open.state, &info, tag);
            if open.segmenter.push(&info) || new_parameters {
                open.state.cursor = at.0;
                open.state.hls.get_or_insert_with(HlsState::default).discontinuity = new_parameters;
                self.complete(open, info.dts_ms, out)?;
                if self.store.is_some() {
                    return Ok(());
                }
                open = self.begin()?;
                open.segmenter.push(&info);
            }
            open.take(&info, tag, out);
            open.state.cursor = next.0;
            if out.len() >= FLUSH_BYTES {
                open.flush(out)?;
            }
        }
        if reach.last {
            let end = open.counts.end_ms();
            if open.counts.video + open.counts.audio > 0 {
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
        let mut muxer = ts::Muxer::new(self.hls().ts.into());
        for (config, kind) in [
            (&self.state.video_config, UnitKind::VideoConfig),
            (&self.state.audio_config, UnitKind::AudioConfig),
        ] {
            if let Some(config) = config {
                configure(&mut muxer, config, kind);
            }
        }
        Ok(OpenSegment {
            sink,
            path: self.setting.notes.join(what),
            muxer,
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
        open.flush(out)?;
        let in_memory = open.len == 0;
        let rendered = if in_memory { mem::take(out) } else { Vec::new() };
        let len = open.len + rendered.len() as u64;
        let start_ms = open.first_ms.unwrap_or(end_ms);
        let duration_ms = (end_ms - start_ms).max(1);
        let mut state = open.state;
        let sequence = state.next_sequence;
        let uri = format!("{sequence:06}.ts");
        let key = format!("{}/{uri}", self.setting.prefix);
        let hls = state.hls.get_or_insert_with(HlsState::default);
        let behind = hls.before.as_ref().is_some_and(|before| before.segments > 0);
        let wall_zero = *hls.wall_zero_ms.get_or_insert(open.counts.first_arrival_ms - start_ms);
        let mut line = String::new();
        let discontinuity = if sequence > 0 { open.discontinuity } else { behind };
        // The dates between follow from the durations (RFC 8216 §4.3.2.6).
        let dated = discontinuity || sequence.is_multiple_of(DATE_EVERY);
        let segment = hls::Segment {
            uri,
            duration_ms: u32::try_from(duration_ms).unwrap_or(u32::MAX),
            discontinuity,
            program_date_time_ms: dated.then_some(wall_zero + start_ms),
            map: None,
        };
        segment.append(&mut line);
        hls.unlisted.add(len);
        hls.ts = open.muxer.state().into();
        hls.longest_ms = hls.longest_ms.max(duration_ms);
        hls.bytes += len;
        hls.duration_ms += duration_ms;
        hls.segment_ms = Some(end_ms);
        hls.counts.join(&open.counts);
        state.next_sequence += 1;
        let objects = self.objects.clone();
        match (open.sink, objects) {
            (Sink::Local(staged), Objects::Local(local)) => {
                staged.publish(&local, &key).map_err(RecordError::store(key))?;
                self.enter(state, &line)
            }
            _ => {
                let mut playlist = Vec::new();
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
                    playlist.insert(0, segment);
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

    /// Takes a stored segment into the list, with the state that it leads to.
    fn enter(&mut self, mut state: State, line: &str) -> Result<(), RecordError> {
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
    fn lines<T>(&self, with: impl FnOnce(&mut std::fs::File) -> io::Result<T>) -> Result<T, RecordError> {
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

    fn lines_path(&self) -> PathBuf {
        self.setting.notes.join(format!("{}.m3u8", self.setting.name()))
    }

    fn playlist_key(&self) -> String {
        format!("{}/index.m3u8", self.setting.prefix)
    }

    /// The playlist of the segments so far and of one more, whose line is `more`.
    fn playlist(&self, state: &HlsState, more: &str, end: End) -> Result<String, RecordError> {
        let ended = end == End::Whole;
        let kind = if ended { hls::Kind::Vod } else { hls::Kind::Event };
        let longest = if ended {
            state.longest_ms
        } else {
            state.longest_ms.max(self.setting.interval_ms)
        };
        let header = hls::Header {
            version: hls::version(false),
            target_duration_s: hls::rounded_s(u32::try_from(longest).unwrap_or(u32::MAX)).max(1),
            kind: Some(kind),
            media_sequence: 0,
            discontinuity_sequence: 0,
        };
        let mut text = String::new();
        header.append(&mut text);
        if self.setting.stitch.is_some() {
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

    fn put_playlist(&self, local: &Local, text: &str) -> Result<(), RecordError> {
        let key = self.playlist_key();
        local.put(&key, text.as_bytes()).map_err(RecordError::store(key))
    }

    fn playlist_object(&self, text: String) -> Object {
        Object {
            key: self.playlist_key(),
            chunks: vec![text.into()],
            verify: false,
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

impl OpenSegment {
    /// Renders one tag.
    fn take(&mut self, info: &UnitInfo, tag: &[u8], out: &mut Vec<u8>) {
        let track = match info.kind {
            UnitKind::Video => Track::Video,
            UnitKind::Audio => Track::Audio,
            kind @ (UnitKind::VideoConfig | UnitKind::AudioConfig) => {
                let body = body_of(info, tag).to_vec();
                let config = Config {
                    codec: info.codec as u8,
                    header_len: info.header_len,
                    body,
                };
                configure(&mut self.muxer, &config, kind);
                let slot = if kind == UnitKind::VideoConfig {
                    &mut self.state.video_config
                } else {
                    &mut self.state.audio_config
                };
                *slot = Some(config);
                return;
            }
            _ => return,
        };
        if track == Track::Video {
            self.state.seen_key |= info.key;
            if !self.state.seen_key {
                self.state.leave_out("before_first_key_frame", info.dts_ms);
                return;
            }
        }
        if self.first_ms.is_none() {
            self.muxer.start_segment(
                ts::Tracks {
                    video: true,
                    audio: true,
                },
                out,
            );
        }
        let unit = AccessUnit {
            track,
            codec: info.codec,
            dts_ms: info.dts_ms,
            cto_ms: info.cto_ms,
            key: info.key,
            data: data_of(info, tag),
        };
        // MP3 has no configuration but its frames' headers.
        if info.codec == Codec::Mp3
            && self
                .state
                .audio_config
                .as_ref()
                .is_none_or(|c| c.codec != Codec::Mp3 as u8)
        {
            let body = unit.data.get(..64).unwrap_or(unit.data).to_vec();
            let config = Config {
                codec: Codec::Mp3 as u8,
                header_len: 0,
                body,
            };
            configure(&mut self.muxer, &config, UnitKind::AudioConfig);
            self.state.audio_config = Some(config);
        }
        match self.muxer.push(&unit, out) {
            Ok(()) => {
                self.first_ms.get_or_insert(info.dts_ms);
                self.counts.add(track == Track::Video, info.dts_ms, info.arrival_ms);
            }
            Err(error) => self.state.leave_out(reason(&error), info.dts_ms),
        }
    }

    /// Writes what is rendered, unless it may stay in memory.
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let written = match &self.sink {
            Sink::Remote(bound) if self.len == 0 && (out.len() as u64) < *bound => return Ok(()),
            _ if out.is_empty() => return Ok(()),
            Sink::Local(staged) => staged.write_at(self.len, out),
            Sink::Remote(_) => spill(&self.path, self.len, out),
        };
        written.map_err(RecordError::store("an HLS segment"))?;
        self.len += out.len() as u64;
        out.clear();
        Ok(())
    }
}
