//! One segment while it is rendered, as MPEG-TS or as fragments of MP4.

use std::path::PathBuf;

use media::access_unit::{AccessUnit, Codec, Track, UnitInfo, UnitKind};
use media::mp4::{self, Fragmenter, Take};
use media::segmenter::Segmenter;
use media::ts;

use crate::record::RecordError;
use crate::record::body::{body_of, config_of, data_of};
use crate::record::parameters::{configure, reason};
use crate::record::state::{Config, Counts, HlsState, State};
use crate::upload::{Staged, spill};

/// Added to the times of fragments, milliseconds: sound may begin a little before the first picture, and neither below 0.
const FRAGMENTS_BEGIN_MS: i64 = 10_000;

/// What makes a segment's bytes of units.
pub(super) enum Coder {
    Ts(Box<ts::Muxer>),
    Fragments(Box<Fragmenter>),
}

impl Coder {
    /// Goes on where the segment before ended.
    pub(super) fn transport_stream(state: &State, hls: &HlsState) -> Self {
        let mut muxer = ts::Muxer::new(hls.ts.into());
        for (config, kind) in configs(state) {
            configure(&mut muxer, config, kind);
        }
        Self::Ts(Box::new(muxer))
    }

    /// As [`Coder::transport_stream`]; behind a discontinuity only tracks are listed that have units.
    pub(super) fn fragments(state: &State, hls: &HlsState) -> Self {
        let listed = !hls.discontinuity;
        let from = mp4::State {
            offset_ms: FRAGMENTS_BEGIN_MS,
            fragments: hls.fragments.count,
            video: listed && hls.fragments.video,
            audio: listed && hls.fragments.audio,
        };
        let known: Vec<(Codec, Track, &[u8])> = configs(state)
            .map(|(config, kind)| {
                let track = if kind == UnitKind::VideoConfig {
                    Track::Video
                } else {
                    Track::Audio
                };
                (config.info(kind).codec, track, config.payload())
            })
            .collect();
        Self::Fragments(Box::new(Fragmenter::new(from, &known)))
    }

    /// Ends the segment; gives the initialisation segment that it needs, if it is of a kind that needs one.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Ts(_) => None,
            Self::Fragments(fragmenter) => {
                fragmenter.finish(out);
                fragmenter.init()
            }
        }
    }

    /// Notes what the next segment goes on from.
    pub(super) fn note(&self, hls: &mut HlsState) {
        match self {
            Self::Ts(muxer) => hls.ts = muxer.state().into(),
            Self::Fragments(fragmenter) => {
                let state = fragmenter.state();
                hls.fragments.count = state.fragments;
                hls.fragments.video = state.video;
                hls.fragments.audio = state.audio;
            }
        }
    }
}

fn configs(state: &State) -> impl Iterator<Item = (&Config, UnitKind)> {
    let video = state
        .video_config
        .as_ref()
        .map(|config| (config, UnitKind::VideoConfig));
    let audio = state
        .audio_config
        .as_ref()
        .map(|config| (config, UnitKind::AudioConfig));
    video.into_iter().chain(audio)
}

/// Where the segment goes that is being rendered.
pub(super) enum Sink {
    Local(Staged),
    /// It stays in memory, or in a local file once it is longer than this.
    Remote(u64),
}

/// The segment that is being rendered. Dropped without a trace if its end is not in the journal yet.
pub(super) struct OpenSegment {
    pub(super) sink: Sink,
    pub(super) path: PathBuf,
    pub(super) coder: Coder,
    pub(super) segmenter: Segmenter,
    /// The recorder's state as it will be if the segment is completed.
    pub(super) state: State,
    pub(super) len: u64,
    pub(super) counts: Counts,
    pub(super) first_ms: Option<i64>,
    pub(super) discontinuity: bool,
}

impl OpenSegment {
    /// True if it holds a unit.
    pub(super) fn has_units(&self) -> bool {
        self.counts.video + self.counts.audio > 0
    }

    /// Renders one tag; false: it cannot be in this segment, but can begin the next.
    pub(super) fn take(&mut self, info: &UnitInfo, tag: &[u8], out: &mut Vec<u8>) -> bool {
        match info.kind {
            UnitKind::Video if !self.state.seen_key && !info.key => {
                self.state.leave_out("before_first_key_frame", info.dts_ms);
                true
            }
            UnitKind::Video => {
                self.state.seen_key = true;
                self.unit(Track::Video, info, tag, out)
            }
            UnitKind::Audio => self.unit(Track::Audio, info, tag, out),
            UnitKind::VideoConfig | UnitKind::AudioConfig => {
                let config = Config::of(info, body_of(info, tag));
                match (&mut self.coder, &config) {
                    (Coder::Ts(muxer), Some(config)) => configure(muxer, config, info.kind),
                    (Coder::Ts(_), None) => {}
                    (Coder::Fragments(fragmenter), _) => {
                        let _ = fragmenter.push(info, config_of(info, tag), &[], out);
                    }
                }
                let slot = match info.kind {
                    UnitKind::VideoConfig => &mut self.state.video_config,
                    _ => &mut self.state.audio_config,
                };
                *slot = config;
                true
            }
            _ => true,
        }
    }

    fn unit(&mut self, track: Track, info: &UnitInfo, tag: &[u8], out: &mut Vec<u8>) -> bool {
        let data = data_of(info, tag);
        if info.codec == Codec::Mp3 {
            self.note_mp3(data);
        }
        let taken = match &mut self.coder {
            Coder::Ts(muxer) => {
                if self.first_ms.is_none() {
                    let tracks = ts::Tracks {
                        video: true,
                        audio: true,
                    };
                    muxer.start_segment(tracks, out);
                }
                let unit = AccessUnit {
                    track,
                    codec: info.codec,
                    dts_ms: info.dts_ms,
                    cto_ms: info.cto_ms,
                    key: info.key,
                    data,
                };
                muxer.push(&unit, out).map_err(|error| reason(&error))
            }
            Coder::Fragments(fragmenter) => {
                // MP3 has no configuration but its frames' headers.
                let config = (info.codec == Codec::Mp3).then_some(data);
                match fragmenter.push(info, config, data, out) {
                    Take::Yes => Ok(()),
                    Take::NotAUnit => return true,
                    Take::NewFile(_) if self.counts.video + self.counts.audio > 0 => return false,
                    Take::Skip(reason) | Take::NewFile(reason) => Err(reason),
                }
            }
        };
        match taken {
            Ok(()) => {
                self.first_ms.get_or_insert(info.dts_ms);
                self.counts.add(track == Track::Video, info.dts_ms, info.arrival_ms);
            }
            Err(reason) => self.state.leave_out(reason, info.dts_ms),
        }
        true
    }

    /// MP3 has no configuration but its frames' headers: the first stands for one.
    fn note_mp3(&mut self, data: &[u8]) {
        let known = self.state.audio_config.as_ref();
        if known.is_some_and(|config| config.codec == Codec::Mp3 as u8) {
            return;
        }
        let config = Config {
            codec: Codec::Mp3 as u8,
            header_len: 0,
            body: data.get(..64).unwrap_or(data).into(),
        };
        if let Coder::Ts(muxer) = &mut self.coder {
            configure(muxer, &config, UnitKind::AudioConfig);
        }
        self.state.audio_config = Some(config);
    }

    /// Writes what is rendered, unless it may stay in memory.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
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
