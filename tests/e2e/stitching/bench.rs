//! A coordinator and workers that store in one bucket, and real media to push into them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::clips::{B_FRAMES, Clip, HEVC, LARGER, OTHER_RATE};
use support::etcd::Etcd;
use support::flv::{Tag, read_tags};
use support::publisher::Publisher;
use support::rtmp::{AUDIO, DATA, VIDEO, amf_string};
use support::s3::{BUCKET, Kind, S3};
use support::server::{Server, Setup};
use support::wait::{Seen, until};
use tempfile::TempDir;

/// Where everything lies in the bucket.
pub(super) const PREFIX: &str = "stitched/";
/// A busy machine, and a worker that is started anew meanwhile.
const LIMIT: Duration = Duration::from_secs(60);

/// A coordinator, a bucket, and a folder for workers.
pub(super) struct Bench {
    pub(super) s3: S3,
    pub(super) coordinator: Server,
    /// Another on the same metadata, where there is one.
    pub(super) beside: Option<Server>,
    etcd: Etcd,
    folder: TempDir,
    workers: AtomicUsize,
    /// One command at a time: dozens of cases that look would be all the machine does.
    asking: Mutex<()>,
}

impl Bench {
    /// Starts all but the workers; `settings` are the coordinator's.
    pub(super) fn start(settings: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("aircheck-stitch-").tempdir()?;
        let s3 = S3::start(Kind::JuiceFs)?;
        let etcd = Etcd::start(1)?;
        let metadata = format!("etcd://{}/aircheck", etcd.endpoint(0));
        let data = folder.path().join("coordinator");
        let mut setup = Setup::coordinator(env!("CARGO_BIN_EXE_aircheck"), &data, &metadata);
        for pair in settings {
            setup = setup.args(&["--set", pair]);
        }
        let coordinator = setup.start()?;
        Ok(Self {
            s3,
            coordinator,
            beside: None,
            etcd,
            folder,
            workers: AtomicUsize::new(0),
            asking: Mutex::new(()),
        })
    }

    /// Starts a second coordinator. Workers from here on know both.
    pub(super) fn start_beside(&mut self, settings: &[&str]) -> Result<()> {
        let metadata = format!("etcd://{}/aircheck", self.etcd.endpoint(0));
        let data = self.folder.path().join("beside");
        let mut setup = Setup::coordinator(env!("CARGO_BIN_EXE_aircheck"), &data, &metadata);
        for pair in settings {
            setup = setup.args(&["--set", pair]);
        }
        self.beside = Some(setup.start()?);
        Ok(())
    }

    /// How to start another worker, with a data directory of its own.
    pub(super) fn worker(&self) -> Setup {
        self.worker_through(self.s3.endpoint())
    }

    /// As [`Bench::worker`], with its storage reached at `endpoint`.
    pub(super) fn worker_through(&self, endpoint: &str) -> Setup {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let data = self.folder.path().join(format!("w{number}"));
        let coordinators = std::iter::once(&self.coordinator).chain(&self.beside);
        let coordinators: Vec<String> = coordinators.map(Server::grpc_url).collect();
        let mut setup = Setup::worker(env!("CARGO_BIN_EXE_aircheck"), &data, &coordinators.join(","));
        let objects = format!("s3://{BUCKET}/{}", PREFIX.trim_end_matches('/'));
        setup = setup.args(&["--name", &format!("w{number}"), "--objects", &objects]);
        setup = setup.args(&["--set", "worker.journal.min_free=64MiB"]);
        for (name, value) in self.s3.env() {
            setup = setup.env(name, &value);
        }
        setup.env("AWS_ENDPOINT_URL", endpoint)
    }

    /// Records streams of `app` as HLS, and waits for them; `more` are further words of the template.
    pub(super) fn wait_for(&self, app: &str, window: Duration, more: &[&str]) -> Result<()> {
        let window = format!("{}s", window.as_secs());
        let template = ["template", "create", app, "--hls", "--hls-continue", &window];
        self.coordinator.ask(&[&template[..], more].concat())?;
        let domain = super::DOMAIN;
        self.coordinator
            .ask(&["rule", "create", "--domain", domain, "--app", app, "--template", app])?;
        Ok(())
    }

    /// A folder of this name.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Copies what a stream has in the bucket to a folder of this machine.
    pub(super) fn fetch(&self, app: &str, stream: &str) -> Result<PathBuf> {
        let folder = self.path(&format!("fetched/{app}/{stream}"))?;
        self.s3
            .mirror(&format!("{PREFIX}{}/{app}/{stream}/", super::DOMAIN), &folder)?;
        Ok(folder)
    }

    /// Recordings of a stream, the oldest first.
    pub(super) fn recordings(&self, stream: &str) -> Result<Vec<Value>> {
        let _one = self
            .asking
            .lock()
            .map_err(|_| anyhow::anyhow!("another case's panic"))?;
        let mut recordings = self.coordinator.recordings(stream)?;
        recordings.reverse();
        Ok(recordings)
    }

    /// Waits until the stream has so many recordings, and the newest waits for its stream; gives the last moment at which it did not.
    pub(super) fn interrupted(&self, stream: &str, count: usize) -> Result<Instant> {
        let mut not_yet = Instant::now();
        until(LIMIT, "a recording that waits", || {
            let looked = Instant::now();
            let recordings = self.recordings(stream)?;
            let newest = recordings.last().and_then(|r| r["state"].as_str()).unwrap_or("none");
            // A short window may be over before it is looked at.
            let over = recordings.len() == count && ["interrupted", "finished"].contains(&newest);
            if !over {
                not_yet = looked;
            }
            let state = format!("{} recordings, the newest {newest}", recordings.len());
            Ok(Seen::some(over.then_some(not_yet), state))
        })
    }

    /// Waits until all of a stream's recordings have ended, each well; gives them, the oldest first.
    pub(super) fn finished(&self, stream: &str, count: usize) -> Result<Vec<Value>> {
        until(LIMIT, "the end of all recordings", || {
            let recordings = self.recordings(stream)?;
            let states: Vec<&str> = recordings.iter().filter_map(|r| r["state"].as_str()).collect();
            let done = recordings.len() >= count && states.iter().all(|state| *state == "finished");
            Ok(Seen::some(done.then(|| recordings.clone()), format!("{states:?}")))
        })
    }

    /// A recording's files of a format, each with the place where it lies, below its stream's folder.
    pub(super) fn files(&self, stream: &str, recording: &str, format: &str) -> Result<Vec<(Value, String)>> {
        let files = self.coordinator.ask(&["file", "list", "--recording", recording])?;
        let files = files["files"].as_array().cloned().unwrap_or_default();
        let placed = files.into_iter().filter(|file| file["format"] == format).map(|file| {
            let key = file["object_key"].as_str().context("no key")?;
            let (_, below) = key
                .split_once(&format!("/{stream}/"))
                .context("a key without the stream")?;
            let below = below.to_owned();
            Ok((file, below))
        });
        placed.collect()
    }

    /// Where a recording's final playlist lies, below its stream's folder.
    pub(super) fn list(&self, stream: &str, recording: &str) -> Result<Option<String>> {
        let files = self.files(stream, recording, "hls")?;
        ensure!(files.len() <= 1, "{} lists: {files:#?}", files.len());
        Ok(files.into_iter().next().map(|(_, below)| below))
    }

    /// Waits until the coordinator has heard that so many units of a live stream are journaled.
    pub(super) fn arrived(&self, stream: &str, units: usize) -> Result<()> {
        until(LIMIT, "all units of a live stream", || {
            let _one = self
                .asking
                .lock()
                .map_err(|_| anyhow::anyhow!("another case's panic"))?;
            let streams = self.coordinator.streams()?;
            let found = streams.iter().find(|live| live["stream"]["stream"] == stream);
            let of = |live: &Value, kind: &str| live[kind].as_u64().unwrap_or(0);
            let count = found.map_or(0, |live| of(live, "video_units") + of(live, "audio_units"));
            Ok(Seen::when(
                count >= units as u64,
                format!("{count} of {units}: {found:?}"),
            ))
        })
    }
}

/// What changes from push to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Resolution,
    Codec,
    SampleRate,
    /// Sound is lost with every second push, and appears again.
    AudioLost,
    /// Sound appears with every second push.
    AudioAppears,
    /// Each push has times of its own.
    TimesAnew,
    /// There is never any sound.
    NoAudio,
    /// There are never any pictures.
    AudioOnly,
}

impl Change {
    pub(super) const ALL: [Self; 9] = [
        Self::None,
        Self::Resolution,
        Self::Codec,
        Self::SampleRate,
        Self::AudioLost,
        Self::AudioAppears,
        Self::TimesAnew,
        Self::NoAudio,
        Self::AudioOnly,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Resolution => "resolution",
            Self::Codec => "codec",
            Self::SampleRate => "rate",
            Self::AudioLost => "lost",
            Self::AudioAppears => "appears",
            Self::TimesAnew => "times",
            Self::NoAudio => "mute",
            Self::AudioOnly => "sound",
        }
    }

    /// The media of a push, by its number from 0: so many milliseconds from time 0 on.
    pub(super) fn media(self, push: usize, len_ms: u32) -> Result<Vec<Tag>> {
        let odd = push % 2 == 1;
        let clip = match self {
            Self::Resolution if odd => LARGER,
            Self::Codec if odd => HEVC,
            Self::SampleRate if odd => OTHER_RATE,
            _ => B_FRAMES,
        };
        let without = match self {
            Self::AudioLost if odd => Some(AUDIO),
            Self::AudioAppears if !odd => Some(AUDIO),
            Self::NoAudio => Some(AUDIO),
            Self::AudioOnly => Some(VIDEO),
            _ => None,
        };
        let tags = tags_of(&clip)?;
        let wanted = |tag: &&Tag| tag.timestamp_ms < len_ms && Some(tag.tag_type) != without;
        Ok(tags.iter().filter(wanted).cloned().collect())
    }

    /// The time at which a push begins, milliseconds.
    pub(super) fn begin_ms(self, push: usize, len_ms: u32) -> u32 {
        let push = u32::try_from(push).unwrap_or(0);
        match self {
            // Back to 0, hours ahead, and just before 32 bits are full.
            Self::TimesAnew => [0, 7_200_000, u32::MAX - 500][push as usize % 3],
            _ => push * (len_ms + 200),
        }
    }
}

pub(super) fn tags_of(clip: &Clip) -> Result<Vec<Tag>> {
    static READ: Mutex<Vec<(&'static str, Vec<Tag>)>> = Mutex::new(Vec::new());
    let mut read = READ.lock().map_err(|_| anyhow::anyhow!("another test's panic"))?;
    if let Some((_, tags)) = read.iter().find(|(name, _)| *name == clip.name) {
        return Ok(tags.clone());
    }
    let tags = read_tags(&std::fs::read(clip.flv()?)?)?;
    read.push((clip.name, tags.clone()));
    Ok(tags)
}

/// Units among tags: neither configurations nor words about them.
pub(super) fn units(tags: &[Tag]) -> usize {
    let unit = |tag: &&Tag| match tag.tag_type {
        // Enhanced RTMP: 1 and 3 are coded frames.
        VIDEO if tag.body.first().is_some_and(|first| first & 0x80 != 0) => [1, 3].contains(&(tag.body[0] & 15)),
        VIDEO | AUDIO => tag.body.get(1) == Some(&1),
        _ => false,
    };
    tags.iter().filter(unit).count()
}

/// Publishes, as soon as the stream is free, and sends these tags `begin_ms` later than they say.
pub(super) fn send(server: SocketAddr, app: &str, stream: &str, tags: &[Tag], begin_ms: u32) -> Result<Publisher> {
    let mut publisher = until(LIMIT, "a free stream", || {
        Ok(match Publisher::start_at(server, app, stream) {
            Ok(publisher) => Seen::Met(publisher),
            Err(refused) => Seen::Not(format!("{refused:#}")),
        })
    })?;
    for tag in tags {
        let at = tag.timestamp_ms.wrapping_add(begin_ms);
        if tag.tag_type == DATA {
            let mut body = Vec::new();
            amf_string(&mut body, "@setDataFrame");
            body.extend_from_slice(&tag.body);
            publisher.send(DATA, at, &body)?;
        } else {
            publisher.send(tag.tag_type, at, &tag.body)?;
        }
    }
    Ok(publisher)
}

/// Writes a push's media as a file to compare with.
pub(super) fn keep(folder: &Path, push: usize, tags: &[Tag]) -> Result<PathBuf> {
    let path = folder.join(format!("push-{push:02}.flv"));
    std::fs::write(&path, support::flv::file(tags)).with_context(|| path.display().to_string())?;
    Ok(path)
}
