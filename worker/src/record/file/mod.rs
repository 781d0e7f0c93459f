//! The recorder of FLV, MP4, AAC and MP3 files: a body that grows while the stream runs, a head that comes last.

mod finish;
mod rescue;
mod sink;

use std::collections::VecDeque;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use journal::{Control, Entry, GroupSync, IndexReader, Position, Reader};
use media::access_unit::{Codec, UnitInfo, UnitKind};
use media::flv;
use media::segmenter::Segmenter;
use shared::template::Format;

use crate::record::body::{Body, Taken, body_of, data_of};
use crate::record::keeper::Keeper;
use crate::record::pool::Scratch;
use crate::record::state::{Config, Counts, OpenFile, State};
use crate::record::{FinishedFile, Reach, RecordError, Setting, Stepped, crc};
use crate::upload::{Objects, Plan, Store};

use sink::{Kept, Sink};

/// Rendered bytes are written when this many are in hand.
const FLUSH_BYTES: usize = 256 * 1024;
/// A step is worth its cost once this much is new in the journal, bytes.
const WORTHWHILE_BYTES: u64 = 2 << 20;

#[derive(Debug)]
pub(crate) struct FileRecorder {
    setting: Setting,
    objects: Objects,
    keeper: Keeper,
    state: State,
    pen: Option<Pen>,
    /// What must be stored before the next step. The state in memory is ahead of the one on disk meanwhile.
    store: Option<Store>,
    /// The file that is whole once that is stored.
    ending: Option<FinishedFile>,
    /// Where a cut was found for which something had to be stored first.
    cut_at: Option<u64>,
    /// The state came from the disk: what a crash left in object storage is looked for first.
    tidy: bool,
    /// The open file came from the disk: before a crash, or a failure of storage, it may have become whole.
    may_be_whole: bool,
    /// Parts of the open file that the last rescue covers; 0: there is none by this process.
    rescued: u32,
    /// Local files that a state on disk may still need, in the order in which they will not be.
    kept: VecDeque<Kept>,
}

/// The open file's working parts; all follow from the state and the journal.
#[derive(Debug)]
struct Pen {
    sink: Sink,
    body: Body,
    segmenter: Segmenter,
}

/// True for a picture that nothing before it makes decodable; `seen` remembers the first that is.
fn undecodable(seen: &mut bool, info: &UnitInfo) -> bool {
    if info.kind == UnitKind::Video && info.key {
        *seen = true;
    }
    info.kind == UnitKind::Video && !*seen
}

impl FileRecorder {
    pub(super) fn open(setting: Setting, objects: Objects, sync: Arc<GroupSync>) -> Result<Self, RecordError> {
        let (keeper, state) = Keeper::open(&setting, sync)?;
        let mut recorder = Self {
            setting,
            objects,
            tidy: keeper.is_reopened(),
            keeper,
            may_be_whole: state.open.is_some(),
            state,
            pen: None,
            store: None,
            ending: None,
            cut_at: None,
            rescued: 0,
            kept: VecDeque::new(),
        };
        recorder.forget_elsewhere()?;
        if recorder
            .state
            .open
            .as_ref()
            .is_some_and(|open| open.finishing.is_none())
        {
            recorder.resume()?;
        }
        Ok(recorder)
    }

    /// Takes up the open file where the state left it.
    fn resume(&mut self) -> Result<(), RecordError> {
        let Some(open) = self.state.open.as_ref() else {
            return Ok(());
        };
        let mut pen = Pen {
            sink: self.sink(open)?,
            body: self.new_body(open),
            segmenter: Segmenter::new(self.setting.interval_ms),
        };
        let mut seen = open.seen_key_before;
        let mut index = IndexReader::open(&self.setting.journal, Position(open.from))?;
        while let Some(indexed) = index.next()? {
            if indexed.at.0 >= self.state.cursor {
                break;
            }
            if open.is_hole(indexed.at.0) || undecodable(&mut seen, &indexed.info) {
                continue;
            }
            pen.segmenter.push(&indexed.info);
            if let (Some(body), UnitKind::VideoConfig | UnitKind::AudioConfig) = (&indexed.body, indexed.info.kind) {
                pen.body.configure(
                    &indexed.info,
                    body.get(usize::from(indexed.info.header_len)..).unwrap_or(&[]),
                );
            } else if let Body::Mp4(layout) = &mut pen.body {
                let _ = layout.push(&indexed.info, None);
            }
        }
        self.pen = Some(pen);
        Ok(())
    }

    /// What it is to render, and how far it is.
    pub(super) fn place(&mut self) -> (&Setting, &mut State) {
        (&self.setting, &mut self.state)
    }

    pub(super) fn worthwhile(&self, end: u64) -> bool {
        self.must_wait() || end.saturating_sub(self.state.cursor) >= self.worth()
    }

    /// Nothing can be rendered before something is stored, or is known to be safe.
    fn must_wait(&self) -> bool {
        self.store.is_some() || self.state.open.as_ref().is_some_and(|open| open.finishing.is_some())
    }

    pub(super) fn step(&mut self, scratch: &mut Scratch, reach: Reach) -> Result<Stepped, RecordError> {
        let mut stepped = Stepped::default();
        if mem::take(&mut self.tidy) && matches!(self.objects, Objects::Remote(_)) {
            let keep = self.state.open.as_ref().and_then(|open| open.upload.as_ref());
            stepped.store = Some(Store::Tidy {
                prefix: format!("{}/", self.setting.prefix),
                keep: keep.map(|upload| upload.id.clone()),
            });
            return Ok(stepped);
        }
        if let Some(to) = self.state.open.as_ref().and_then(|open| open.finishing) {
            stepped.files.extend(self.finish(to)?);
            if self.must_wait() {
                return Ok(self.settling(stepped));
            }
        }
        // What was found to be left to store goes first.
        if !reach.last
            && let Some(store) = self.rescue()?
        {
            stepped.store = Some(store);
            return Ok(stepped);
        }
        scratch.out.clear();
        if !self.state.done {
            let mut reader = Reader::open(
                &self.setting.journal,
                Position(self.state.cursor),
                mem::take(&mut scratch.read),
            )?;
            reader.set_limit(Position(reach.end));
            let result = self.render(&mut reader, &mut scratch.out, reach, &mut stepped);
            scratch.read = reader.into_buffer();
            result?;
        }
        if reach.last && !self.state.done && !self.must_wait() {
            stepped.files.extend(self.finish(self.state.cursor)?);
            self.state.done = !self.must_wait();
        }
        if self.store.is_some() {
            stepped.store = self.store.take();
            return Ok(stepped);
        }
        if self.must_wait() {
            return Ok(self.settling(stepped));
        }
        stepped.done = self.state.done;
        if stepped.done {
            stepped.left_out.clone_from(&self.state.gaps);
        }
        stepped.retired = self.save()?;
        Ok(stepped)
    }

    /// Ends a step behind which no power loss may lead back.
    fn settling(&self, stepped: Stepped) -> Stepped {
        Stepped {
            settles: true,
            retired: self.keeper.retired(),
            ..stepped
        }
    }

    fn render(
        &mut self,
        reader: &mut Reader,
        out: &mut Vec<u8>,
        reach: Reach,
        stepped: &mut Stepped,
    ) -> Result<(), RecordError> {
        while let Some(entry) = reader.next()? {
            match entry {
                Entry::Tag { at, next, info, tag } => {
                    if at.0 >= reach.end {
                        break;
                    }
                    if !self.take(at, &info, tag, out, reach, stepped)? {
                        break;
                    }
                    self.state.cursor = next.0;
                }
                Entry::Control { at, next, control, .. } => {
                    if at.0 >= reach.end {
                        break;
                    }
                    self.state.note_control(&control);
                    self.state.cursor = next.0;
                    let damaged = matches!(control, Control::Gap { lost_bytes: 1.., .. });
                    if let Some(open) = self.state.open.as_mut().filter(|_| damaged) {
                        open.holes.push((at.0, next.0));
                    }
                }
            }
            if let (Some(pen), Some(open)) = (&self.pen, &self.state.open)
                && out.len() >= pen.sink.wants(open)
            {
                self.flush(out)?;
            }
            if self.store.is_some() {
                return Ok(());
            }
        }
        if !self.must_wait() {
            self.flush(out)?;
        }
        Ok(())
    }

    /// Renders one tag; `false` where that must wait for more of the journal.
    fn take(
        &mut self,
        at: Position,
        info: &UnitInfo,
        tag: &mut [u8],
        out: &mut Vec<u8>,
        reach: Reach,
        stepped: &mut Stepped,
    ) -> Result<bool, RecordError> {
        let unit = matches!(info.kind, UnitKind::Video | UnitKind::Audio);
        let seen_before = self.state.seen_key;
        if undecodable(&mut self.state.seen_key, info) {
            self.state.leave_out("before_first_key_frame", info.dts_ms);
            return Ok(true);
        }
        self.note_mp3(info, tag);
        if self.cuts(at, info) {
            self.flush(out)?;
            if self.store.is_some() {
                self.cut_at = Some(at.0);
                return Ok(false);
            }
            stepped.files.extend(self.finish(at.0)?);
            if self.must_wait() {
                return Ok(false);
            }
        }
        let opens = unit || (self.setting.format == Format::Flv && info.kind == UnitKind::Text);
        if self.pen.is_none() && opens && !self.begin(at, info, seen_before, reach)? {
            return Ok(false);
        }
        let mut taken = self
            .pen
            .as_mut()
            .map_or(Taken::NotWanted, |pen| pen.body.push(info, tag, out));
        if let Taken::NewFile(reason) = taken {
            tracing::info!(recording = %self.setting.recording_id, format = self.setting.format.as_str(), reason, "file cut");
            self.flush(out)?;
            if self.store.is_none() {
                stepped.files.extend(self.finish(at.0)?);
            }
            if self.must_wait() {
                return Ok(false);
            }
            taken = Taken::NotWanted;
            if opens {
                if !self.begin(at, info, seen_before, reach)? {
                    return Ok(false);
                }
                taken = self
                    .pen
                    .as_mut()
                    .map_or(Taken::NotWanted, |pen| pen.body.push(info, tag, out));
            }
        }
        match taken {
            Taken::Yes if unit => {
                if let Some(open) = self.state.open.as_mut() {
                    open.counts
                        .add(info.kind == UnitKind::Video, info.dts_ms, info.arrival_ms);
                }
            }
            Taken::Refused(reason) | Taken::NewFile(reason) if unit => self.state.leave_out(reason, info.dts_ms),
            _ => {}
        }
        self.remember(info, tag);
        Ok(true)
    }

    /// Whether the open file ends before this tag.
    fn cuts(&mut self, at: Position, info: &UnitInfo) -> bool {
        let (Some(pen), Some(open)) = (&mut self.pen, &self.state.open) else {
            return false;
        };
        if self.cut_at == Some(at.0) || open.holes.len() >= MAX_HOLES {
            return true;
        }
        let full = Plan::is_nearly_full(open.parts()) && pen.segmenter.is_random_access(info);
        pen.segmenter.push(info) || full
    }

    /// MP3 has no configuration but the header of its frames: the first stands for it, as if it had come before the file.
    fn note_mp3(&mut self, info: &UnitInfo, tag: &[u8]) {
        const MP3: u8 = Codec::Mp3 as u8;
        let mp3 = info.kind == UnitKind::Audio && info.codec == Codec::Mp3;
        if !mp3
            || self
                .state
                .audio_config
                .as_ref()
                .is_some_and(|config| config.codec == MP3)
        {
            return;
        }
        let data = data_of(info, tag);
        let config = Config {
            codec: MP3,
            header_len: 0,
            body: data.get(..MP3_HEADER).unwrap_or(data).into(),
        };
        if let (Some(open), Some(pen)) = (self.state.open.as_mut(), self.pen.as_mut())
            && open.audio_config.is_none()
        {
            pen.body
                .configure(&config.info(UnitKind::AudioConfig), config.payload());
            open.audio_config = Some(config.clone());
        }
        self.state.audio_config = Some(config);
    }

    /// Keeps what later files must know of headers that came before them.
    fn remember(&mut self, info: &UnitInfo, tag: &[u8]) {
        let config = || Config::of(info, body_of(info, tag));
        match info.kind {
            UnitKind::VideoConfig => self.state.video_config = config(),
            UnitKind::AudioConfig => self.state.audio_config = config(),
            UnitKind::Metadata if info.body_len <= MAX_METADATA => {
                self.state.metadata = Some(body_of(info, tag).into())
            }
            _ => {}
        }
    }

    /// Opens a file whose first tag is at `at`; `false` where the journal does not yet hold enough to tell the file's time 0.
    fn begin(
        &mut self,
        at: Position,
        info: &UnitInfo,
        seen_key_before: bool,
        reach: Reach,
    ) -> Result<bool, RecordError> {
        let Some(base_ms) = self.base_ms(at, info, seen_key_before, reach)? else {
            return Ok(false);
        };
        let sequence = self.state.next_sequence;
        let open = OpenFile {
            sequence,
            file_id: self.setting.file_id(sequence),
            from: at.0,
            base_ms,
            body_len: 0,
            body_crc: 0,
            video_config: self.state.video_config.clone(),
            audio_config: self.state.audio_config.clone(),
            metadata: self.state.metadata.clone(),
            seen_key_before,
            counts: Counts::default(),
            holes: Vec::new(),
            finishing: None,
            upload: None,
        };
        let mut pen = Pen {
            sink: self.sink(&open)?,
            body: self.new_body(&open),
            segmenter: Segmenter::new(self.setting.interval_ms),
        };
        pen.segmenter.push(info);
        self.pen = Some(pen);
        self.state.open = Some(open);
        self.may_be_whole = false;
        self.state.next_sequence += 1;
        Ok(true)
    }

    /// The publish's time that is time 0 of a file beginning at `at`. Only FLV, which has no negative times, must look ahead for it.
    fn base_ms(&self, at: Position, info: &UnitInfo, mut seen: bool, reach: Reach) -> Result<Option<i64>, RecordError> {
        if self.setting.format != Format::Flv {
            return Ok(Some(info.dts_ms));
        }
        let mut base = flv::FileBase::new();
        let mut index = IndexReader::open(&self.setting.journal, at)?;
        index.set_limit(Position(reach.end));
        while let Some(indexed) = index.next()? {
            if !undecodable(&mut seen, &indexed.info)
                && let Some(base_ms) = base.push(&indexed.info)
            {
                return Ok(Some(base_ms));
            }
        }
        Ok(if reach.last {
            Some(base.finish().unwrap_or(info.dts_ms))
        } else {
            None
        })
    }

    fn new_body(&self, open: &OpenFile) -> Body {
        let mut body = Body::new(self.setting.format, open.base_ms, open.metadata.clone());
        for (config, kind) in configs(open) {
            body.configure(&config.info(kind), config.payload());
        }
        body
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        if let (Some(pen), Some(open)) = (&self.pen, self.state.open.as_mut())
            && !out.is_empty()
        {
            let len = out.len() as u64;
            open.body_crc = crc::extend(open.body_crc, out);
            let at = open.body_len;
            open.body_len += len;
            let what = || RecordError::store(open.file_id.clone());
            match &pen.sink {
                Sink::Local(staged) => staged.write_at(at, out).map_err(what())?,
                Sink::Remote(spool) => {
                    let whole = spool.append(at, open.parts(), mem::take(out)).map_err(what())?;
                    self.store = whole.map(|part| Store::Part {
                        key: self.setting.file_key(open.sequence),
                        upload: open.upload.as_ref().map(|upload| upload.id.clone()),
                        index: Plan::upload_index(part.index),
                        chunks: part.chunks,
                    });
                }
            }
        }
        out.clear();
        Ok(())
    }

    fn stage_name(&self, sequence: u32) -> String {
        format!("{}-{sequence:06}", self.setting.name())
    }
}

/// The publisher's `onMetaData` is kept for the heads of files up to this many bytes; real ones have some hundred.
pub(super) const MAX_METADATA: u32 = 16 * 1024;

/// Damaged stretches of the journal that one file may run over; then it is cut.
pub(super) const MAX_HOLES: usize = 256;

/// Bytes of an MP3 frame's header. ISO/IEC 11172-3 §2.4.1.3.
const MP3_HEADER: usize = 4;

/// Configurations in force at a file's start, video first.
fn configs(open: &OpenFile) -> impl Iterator<Item = (&Config, UnitKind)> {
    let video = open.video_config.iter().map(|c| (c, UnitKind::VideoConfig));
    video.chain(open.audio_config.iter().map(|c| (c, UnitKind::AudioConfig)))
}

impl Config {
    /// The configuration's bytes without the FLV codec header.
    pub(super) fn payload(&self) -> &[u8] {
        self.body.get(usize::from(self.header_len)..).unwrap_or(&[])
    }

    /// As the index would tell of it; its times mean nothing.
    pub(super) fn info(&self, kind: UnitKind) -> UnitInfo {
        let codec = [Codec::Avc, Codec::Hevc, Codec::Aac, Codec::Mp3]
            .into_iter()
            .find(|c| *c as u8 == self.codec);
        UnitInfo {
            kind,
            codec: codec.unwrap_or(Codec::Other),
            key: false,
            dts_ms: 0,
            cto_ms: 0,
            body_len: u32::try_from(self.body.len()).unwrap_or(u32::MAX),
            header_len: self.header_len,
            arrival_ms: 0,
        }
    }
}

impl Setting {
    fn file_key(&self, sequence: u32) -> String {
        format!("{}/{sequence:06}.{}", self.prefix, self.format.extension())
    }

    /// Where the record of one finished file lies until the library has it.
    fn note_path(&self, sequence: u32) -> PathBuf {
        self.notes.join(format!("{}-{sequence:06}.json", self.name()))
    }

    /// Writes the record of a finished file, whole or not at all.
    pub(super) fn note(&self, file: &FinishedFile) -> Result<(), RecordError> {
        let path = self.note_path(file.sequence);
        let fail = |reason: String| RecordError::State {
            path: path.clone(),
            reason,
        };
        let bytes = serde_json::to_vec(file).map_err(|e| fail(e.to_string()))?;
        let temp = path.with_extension("tmp");
        std::fs::write(&temp, bytes)
            .and_then(|()| std::fs::rename(&temp, &path))
            .map_err(|e| fail(e.to_string()))
    }
}
