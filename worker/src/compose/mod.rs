//! Compositions: one MP4 of pieces of stored files, joined without coding anything anew.
//!
//! * [`window`]: reads an object front to back.
//! * `source`: the samples of a stored file: MP4, FLV, HLS with fMP4 segments; `transport` of HLS with MPEG-TS segments, `frames` of AAC and MP3;
//!   `playlist`: which segments an HLS recording has.
//! * `cut`: which of them are in a piece (pure).
//!
//! An attempt keeps nothing between two tries: it writes under keys that hold its epoch, and enters the library under it. A worker that was
//! replaced meanwhile is refused there, and what it wrote belongs to nobody.

mod cut;
mod frames;
mod playlist;
mod source;
mod transport;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use media::access_unit::Track;
use media::mp4::{Gaps, Segment, Stitcher, Take};
use shared::composition::{ComposeJob, ComposeStatus, Composition, FILE_ID, MAX_MADE, Piece};
use shared::ids::{RecordingId, WorkerId};
use shared::lease::Epoch;
use shared::objects::folder;
use shared::recording::{Cause, Context, FinishedFile, Recording, RecordingDocument, RecordingState};
use shared::template::Format;
use shared::time::Clock;
use tracing::{info, warn};

use self::cut::{Cut, Search};
use self::source::{Batch, Source};
use crate::control::agent::{Agent, Verdict};
use crate::record::crc;
use crate::upload::{Growing, Objects, Shelf, Sites};

/// Time between two tries of an attempt.
const PAUSE: Duration = Duration::from_secs(2);
/// Attempts of others before this one whose uploads are looked for, the latest.
const MAX_OTHERS: u64 = 8;

/// Why there will be no file, by its stable short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    SourceMissing,
    SourceDamaged,
    NotJoinable,
    Empty,
}

impl Problem {
    const fn as_str(self) -> &'static str {
        match self {
            Problem::SourceMissing => "source_missing",
            Problem::SourceDamaged => "source_damaged",
            Problem::NotJoinable => "not_joinable",
            Problem::Empty => "empty",
        }
    }
}

/// Why an attempt ends without a file.
#[derive(Debug)]
enum Stop {
    /// It may succeed another time.
    Again(io::Error),
    /// It never will, with words.
    Never(Problem, String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Again(error)
    }
}

/// What composing needs.
#[derive(Clone)]
pub(crate) struct Workbench {
    pub(crate) agent: Agent,
    pub(crate) objects: Sites,
    pub(crate) shelf: Arc<dyn Shelf>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) zone: TimeZone,
    pub(crate) worker: WorkerId,
}

/// What is being composed, and how far it is. Clones share it.
#[derive(Clone)]
pub(crate) struct Composing {
    bench: Workbench,
    all: Arc<std::sync::Mutex<BTreeMap<(RecordingId, Epoch), Running>>>,
}

/// How far one is.
#[derive(Debug, Default)]
struct Progress {
    hundredths: AtomicU8,
    /// Bytes of media looked at and written.
    bytes: AtomicU64,
}

impl Progress {
    /// So many bytes more were looked at or written.
    fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Running {
    progress: Arc<Progress>,
    task: tokio::task::AbortHandle,
}

impl Composing {
    pub(crate) fn new(bench: Workbench) -> Self {
        Self {
            bench,
            all: Arc::default(),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<(RecordingId, Epoch), Running>> {
        self.all.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the heartbeat says of it.
    pub(crate) fn status(&self) -> Vec<ComposeStatus> {
        let running = self.running();
        let status = running.iter().map(|((recording, epoch), running)| ComposeStatus {
            recording: *recording,
            epoch: *epoch,
            progress: running.progress.hundredths.load(Ordering::Relaxed),
            bytes: running.progress.bytes.load(Ordering::Relaxed).min(MAX_MADE - 1),
        });
        status.collect()
    }

    /// Makes exactly these from now on: what is not named is another's, or over.
    pub(crate) fn set(&self, jobs: Vec<ComposeJob>) {
        let mut running = self.running();
        running.retain(|key, running| {
            let stays = jobs.iter().any(|job| (job.recording, job.epoch) == *key);
            if !stays {
                running.task.abort();
            }
            stays
        });
        for job in jobs {
            let key = (job.recording, job.epoch);
            if running.contains_key(&key) {
                continue;
            }
            let progress = Arc::<Progress>::default();
            let (all, said) = (self.clone(), Arc::clone(&progress));
            let task = actix::spawn(async move {
                all.bench.run(&job, &said).await;
                all.running().remove(&key);
            });
            let task = task.abort_handle();
            running.insert(key, Running { progress, task });
        }
    }
}

/// The file in hand.
struct Open {
    stitcher: Stitcher,
    file: Growing,
    progress: Arc<Progress>,
}

impl Workbench {
    /// Makes one. A failure that may pass is logged; the coordinator says it again.
    async fn run(&self, job: &ComposeJob, progress: &Arc<Progress>) {
        let (recording, epoch) = (job.recording, job.epoch);
        match self.attempt(job, progress).await {
            Ok(()) => info!(%recording, %epoch, "composition finished"),
            Err(Stop::Again(error)) => {
                warn!(%recording, %epoch, %error, "composition not finished yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(Stop::Never(problem, words)) => {
                warn!(%recording, %epoch, problem = problem.as_str(), words, "composition failed");
                if let Err(error) = self.tidy(job).await {
                    warn!(%recording, %error, "what a failed composition left is cleared up later");
                }
                let reason = format!("{}: {words}", problem.as_str());
                let end = (RecordingState::Failed, reason, self.clock.now().as_millis());
                self.agent.commit_recording(recording, epoch, end, &[], 0).await;
            }
        }
    }

    async fn attempt(&self, job: &ComposeJob, progress: &Arc<Progress>) -> Result<(), Stop> {
        self.clear_earlier(job).await?;
        let file = self.compose(job, progress).await?;
        let template = Composition::template();
        let mut file = file.record(Context {
            recording: job.recording,
            stream: &job.stream,
            template: &template,
            epoch: job.epoch,
            zone: &self.zone,
        });
        file.name = format!("{}.{}", job.name, Format::Mp4.extension());
        let ended = self.clock.now();
        let recording = Recording {
            id: job.recording,
            stream: job.stream.clone(),
            cause: Cause::Composed,
            state: RecordingState::Finished,
            reason: "composed".to_owned(),
            epoch: job.epoch,
            template,
            template_id: None,
            publishes: Vec::new(),
            worker: self.worker,
            params: String::new(),
            started: job.created,
            ended: Some(ended),
            gaps: Vec::new(),
            locked: false,
        };
        let document = RecordingDocument::new(recording, vec![file.clone()]);
        let json = document.to_json().map_err(io::Error::other)?;
        self.shelf.put(&format!("{}/recording.json", root(job)), json).await?;
        self.shelf.durable().await;
        if self.agent.commit_file(job.recording, job.epoch, &file).await == Verdict::Done {
            let end = (RecordingState::Finished, "composed".to_owned(), ended.as_millis());
            self.agent.commit_recording(job.recording, job.epoch, end, &[], 1).await;
        }
        Ok(())
    }

    /// What earlier attempts left half made. What they had whole goes when the composition has ended.
    async fn clear_earlier(&self, job: &ComposeJob) -> io::Result<()> {
        for epoch in (1..job.epoch.get())
            .rev()
            .take(usize::try_from(MAX_OTHERS).unwrap_or(8))
        {
            let prefix = format!("{}/{}/", root(job), Epoch::new(epoch).path_component());
            self.objects.abandon(&prefix).await?;
        }
        Ok(())
    }

    async fn tidy(&self, job: &ComposeJob) -> io::Result<()> {
        match self.objects.of(&key(job)) {
            Objects::Local(local) => local.unstage(&staged(job)),
            Objects::Remote(_) => self.objects.abandon(&key(job)).await,
        }
    }

    async fn compose(&self, job: &ComposeJob, progress: &Arc<Progress>) -> Result<FinishedFile, Stop> {
        let mut open = Open {
            stitcher: Stitcher::new(Gaps::Close, job.start.as_millis()),
            file: self.objects.grow(staged(job), key(job), None).await?,
            progress: Arc::clone(progress),
        };
        let count = job.pieces.len().max(1) as u64;
        for (number, piece) in (0u64..).zip(&job.pieces) {
            let span = (number * 1_000 / count, (number + 1) * 1_000 / count);
            self.take(job, piece, &mut open, span).await?;
        }
        if open.file.len() == 0 {
            let words = "nothing of what was asked for is in the files".to_owned();
            return Err(Stop::Never(Problem::Empty, words));
        }
        let (video_units, audio_units) = open.stitcher.units();
        let duration_ms = i64::try_from(open.stitcher.duration_ms()).unwrap_or(i64::MAX);
        let head = open.stitcher.finish().map_err(io::Error::other)?;
        let (size, checksum) = open.file.finish(head).await?;
        Ok(FinishedFile {
            file_id: FILE_ID.to_owned(),
            format: Format::Mp4,
            sequence: 0,
            key: key(job),
            size,
            checksum: crc::text(checksum),
            duration_ms,
            start_ms: job.start.as_millis(),
            video_units,
            audio_units,
            gaps: Vec::new(),
        })
    }

    /// Puts a piece behind those before it.
    async fn take(&self, job: &ComposeJob, piece: &Piece, open: &mut Open, span: (u64, u64)) -> Result<(), Stop> {
        let to_ms = piece.for_ms.map(|length| piece.from_ms.saturating_add(length));
        let mut cut = match (piece.from_ms, to_ms) {
            (0, None) => None,
            (from, to) => match self.search(job, piece, (from, to), &open.progress).await? {
                Some(cut) => Some(cut),
                None => return Ok(()),
            },
        };
        let mut source = Source::open(&self.objects, piece).await?;
        let mut joins = true;
        while let Some(mut batch) = source.next().await? {
            joins |= batch.joins;
            let (seen, offset_ms) = (batch.samples.clone(), batch.offset_ms);
            open.progress.came(batch.media_len());
            batch.keep(|sample| {
                wanted(job, sample.track) && cut.as_mut().is_none_or(|cut| cut.takes(sample, offset_ms))
            });
            if !batch.samples.is_empty() {
                open.push(piece, &batch, joins)?;
                joins = false;
                let last = open.write(&mut source, &batch).await?;
                let done = span.0 + (span.1 - span.0) * source.permille(last) / 1_000;
                // The last hundredth is the head's.
                let hundredths = u8::try_from(done / 10).unwrap_or(99).min(99);
                open.progress.hundredths.store(hundredths, Ordering::Relaxed);
            }
            if cut.as_ref().is_some_and(|cut| cut.is_over(&seen, offset_ms)) {
                break;
            }
        }
        Ok(())
    }

    /// Where to cut a file; none: there is nothing in it.
    async fn search(
        &self,
        job: &ComposeJob,
        piece: &Piece,
        (from, to): (u64, Option<u64>),
        progress: &Progress,
    ) -> Result<Option<Cut>, Stop> {
        let ms = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let mut search = Search::new(ms(from), to.map(ms));
        let mut source = Source::open(&self.objects, piece).await?;
        while let Some(mut batch) = source.next().await? {
            progress.came(batch.media_len());
            batch.keep(|sample| wanted(job, sample.track));
            if search.look(&batch.samples, batch.offset_ms) {
                break;
            }
        }
        Ok(search.cut())
    }
}

fn wanted(job: &ComposeJob, track: Track) -> bool {
    match track {
        Track::Video => job.video,
        Track::Audio => job.audio,
    }
}

fn root(job: &ComposeJob) -> String {
    // Whatever it is made of.
    folder("", &job.stream, job.recording)
}

fn key(job: &ComposeJob) -> String {
    format!("{}/{}/mp4/000000.mp4", root(job), job.epoch.path_component())
}

/// Within what is in memory.
fn to_usize(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// What the file is called while it is made in a directory.
fn staged(job: &ComposeJob) -> String {
    format!("{}-{}-composed.mp4", job.recording, job.epoch)
}

impl Batch {
    /// Bytes of its samples.
    fn media_len(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.size)).sum()
    }

    /// Leaves out what is not to be kept.
    fn keep(&mut self, mut keep: impl FnMut(&media::mp4::FragmentSample) -> bool) {
        let (samples, data) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.data));
        let kept = samples.into_iter().zip(data).filter(|(sample, _)| keep(sample));
        (self.samples, self.data) = kept.unzip();
    }
}

impl Open {
    /// Notes a batch in the head.
    fn push(&mut self, piece: &Piece, batch: &Batch, joins: bool) -> Result<(), Stop> {
        let segment = Segment {
            configs: &batch.configs,
            samples: &batch.samples,
            joins,
            wall_ms: None,
        };
        match self.stitcher.push(&segment) {
            Take::Yes => Ok(()),
            Take::NewFile(reason) | Take::Skip(reason) => {
                let words = format!(
                    "file {} cannot be behind the pieces before it in one MP4: {reason}",
                    piece.file
                );
                Err(Stop::Never(Problem::NotJoinable, words))
            }
            Take::NotAUnit => Err(Stop::Never(
                Problem::SourceDamaged,
                format!("file {} has samples without times", piece.file),
            )),
        }
    }

    /// Writes a batch's data behind what is there; gives where in its object it ends.
    async fn write(&mut self, source: &mut Source<'_>, batch: &Batch) -> Result<u64, Stop> {
        let mut data = batch.data.iter().cloned().peekable();
        let mut end = 0;
        while let Some(mut at) = data.next() {
            while let Some(next) = data.next_if(|next| next.start == at.end) {
                at.end = next.end;
            }
            end = at.end;
            while !at.is_empty() {
                let bytes = match &batch.held {
                    Some(held) => held.slice(to_usize(at.start)..to_usize(at.end)),
                    None => source.data(at.clone()).await?,
                };
                let len = bytes.len() as u64;
                at.start += len;
                self.file.append(bytes).await?;
                self.progress.came(len);
            }
        }
        Ok(end)
    }
}
