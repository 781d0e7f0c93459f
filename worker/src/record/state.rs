//! What a recorder remembers across a crash: small, versioned, kept in a two-slot file.
//!
//! Two copies are kept. `current` is what has reached the operating system: good after a killed process. `durable` is the
//! newest state that a group sync is known to have covered: good after power loss, which is told apart by the boot id.
//!
//! All that it holds has a bound, so it has one too, however long a publisher's headers are: a test says which.

use journal::Control;
use journal::format::MAX_INLINE_LEN;
use media::access_unit::UnitInfo;
use media::ts;
use serde::{Deserialize, Serialize};
use shared::recording::Gap;

use super::crc;
use super::index::Totals;
use super::packed::Packed;
use crate::upload::Upload;

/// The state file's version: raised when a field changes meaning or form.
pub(crate) const VERSION: u32 = 2;
/// The oldest that can be read: headers were arrays of numbers.
pub(crate) const OLDEST: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) version: u32,
    /// Tells a restarted process from a restarted machine.
    pub(crate) boot_id: String,
    pub(crate) current: State,
    pub(crate) durable: State,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Journal position of the next tag to render.
    pub(crate) cursor: u64,
    /// Number of the next file or segment to begin; counts from 0 and never goes back.
    pub(crate) next_sequence: u32,
    /// A picture where decoding can start has been seen.
    pub(crate) seen_key: bool,
    /// Decoder configurations in force: whole FLV tag bodies.
    pub(crate) video_config: Option<Config>,
    pub(crate) audio_config: Option<Config>,
    /// The publisher's `onMetaData` in force: a whole FLV tag body.
    pub(crate) metadata: Option<Packed>,
    /// What this recorder left out so far, by reason.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) open: Option<OpenFile>,
    pub(crate) hls: Option<HlsState>,
    /// Everything is rendered and finished; only commits may be left to do.
    pub(crate) done: bool,
}

/// A decoder configuration as it came: the codec header's length and the tag body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) codec: u8,
    pub(crate) header_len: u8,
    pub(crate) body: Packed,
}

impl Config {
    /// The configuration in a tag's body. None: it is longer than a journal's index keeps one, so that no file could be headed with it.
    pub(crate) fn of(info: &UnitInfo, body: &[u8]) -> Option<Self> {
        (body.len() <= MAX_INLINE_LEN).then(|| Self {
            codec: info.codec as u8,
            header_len: info.header_len,
            body: body.into(),
        })
    }
}

/// A file whose body is being written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenFile {
    pub(crate) sequence: u32,
    pub(crate) file_id: String,
    /// Journal position of its first tag.
    pub(crate) from: u64,
    /// The publish's time that is the file's time 0, milliseconds.
    pub(crate) base_ms: i64,
    pub(crate) body_len: u64,
    /// CRC-64/NVME of the body so far.
    pub(crate) body_crc: u64,
    /// Configurations and metadata in force before its first tag.
    pub(crate) video_config: Option<Config>,
    pub(crate) audio_config: Option<Config>,
    pub(crate) metadata: Option<Packed>,
    pub(crate) seen_key_before: bool,
    pub(crate) counts: Counts,
    /// Stretches of the journal that could not be read: the index may still list their tags, the body has none of them.
    pub(crate) holes: Vec<(u64, u64)>,
    /// Where it ends, once that is decided: from then on only the head is missing, and nothing is moved on the disk until no power loss
    /// leads back to before the decision. Not used for object storage, where a crash undoes the last step and the next start decides the same.
    pub(crate) finishing: Option<u64>,
    /// Its multipart upload, once a part of it is stored.
    #[serde(default)]
    pub(crate) upload: Option<Upload>,
}

impl OpenFile {
    /// Parts of its body that are stored.
    pub(crate) fn parts(&self) -> u32 {
        self.upload.as_ref().map_or(0, |upload| upload.parts)
    }

    /// True where the tag at journal position `at` could not be read.
    pub(crate) fn is_hole(&self, at: u64) -> bool {
        self.holes.iter().any(|(from, to)| (*from..*to).contains(&at))
    }
}

/// What a stretch holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) video: u64,
    pub(crate) audio: u64,
    /// First and last decode time of each track, and the last step between two, milliseconds.
    pub(crate) video_span: Option<Span>,
    pub(crate) audio_span: Option<Span>,
    /// Arrival of the first and last unit, milliseconds since the Unix epoch.
    pub(crate) first_arrival_ms: i64,
    pub(crate) last_arrival_ms: i64,
}

/// Times of one track's units in a stretch, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) step_ms: i64,
}

impl Span {
    fn extend(span: Option<Self>, at: i64, nominal: i64) -> Option<Self> {
        Some(match span {
            None => Self {
                first_ms: at,
                last_ms: at,
                step_ms: nominal,
            },
            Some(s) if at > s.last_ms => Self {
                first_ms: s.first_ms.min(at),
                last_ms: at,
                step_ms: at - s.last_ms,
            },
            Some(s) => Self {
                first_ms: s.first_ms.min(at),
                ..s
            },
        })
    }

    fn end_ms(self) -> i64 {
        self.last_ms + self.step_ms
    }
}

impl Counts {
    /// Accounts for one access unit.
    pub(crate) fn add(&mut self, video: bool, dts_ms: i64, arrival_ms: i64) {
        if self.video + self.audio == 0 {
            self.first_arrival_ms = arrival_ms;
        }
        self.last_arrival_ms = arrival_ms;
        if video {
            self.video += 1;
            self.video_span = Span::extend(self.video_span, dts_ms, 40);
        } else {
            self.audio += 1;
            self.audio_span = Span::extend(self.audio_span, dts_ms, 23);
        }
    }

    /// Adds what comes behind.
    pub(crate) fn join(&mut self, next: &Self) {
        let (first, old) = (self.first_arrival_ms, self.video + self.audio > 0);
        let join = |a: Option<Span>, b: Option<Span>| match (a, b) {
            (Some(a), Some(b)) => Some(Span {
                first_ms: a.first_ms.min(b.first_ms),
                ..b
            }),
            (a, b) => b.or(a),
        };
        *self = Self {
            video: self.video + next.video,
            audio: self.audio + next.audio,
            video_span: join(self.video_span, next.video_span),
            audio_span: join(self.audio_span, next.audio_span),
            first_arrival_ms: if old { first } else { next.first_arrival_ms },
            last_arrival_ms: next.last_arrival_ms,
        };
    }

    /// Earliest decode time, milliseconds.
    pub(crate) fn start_ms(&self) -> i64 {
        [self.video_span, self.audio_span]
            .into_iter()
            .flatten()
            .map(|s| s.first_ms)
            .min()
            .unwrap_or(0)
    }

    /// End of the last unit of either track, its own duration taken to be that of the one before.
    pub(crate) fn end_ms(&self) -> i64 {
        [self.video_span, self.audio_span]
            .into_iter()
            .flatten()
            .map(Span::end_ms)
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn duration_ms(&self) -> i64 {
        (self.end_ms() - self.start_ms()).max(0)
    }
}

/// What HLS needs beside the cursor, which always stands at the start of the open segment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HlsState {
    /// Continuity counters and clock of the transport stream, as the muxer gives them.
    pub(crate) ts: TsState,
    /// As much for segments of fragments.
    #[serde(default)]
    pub(crate) fragments: FragmentsState,
    /// Longest segment so far, milliseconds: the playlist's target duration.
    pub(crate) longest_ms: i64,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
    /// Where the open segment begins, milliseconds; none before the first.
    pub(crate) segment_ms: Option<i64>,
    /// Wall clock at media time 0, milliseconds since the Unix epoch.
    pub(crate) wall_zero_ms: Option<i64>,
    /// Bytes of the playlist's segment lines, kept in a file of their own, that belong to this state.
    pub(crate) index_len: u64,
    /// The open segment begins with other parameters than the one before ended with.
    #[serde(default)]
    pub(crate) discontinuity: bool,
    pub(crate) counts: Counts,
    /// Sum of all segments of this publish, milliseconds.
    #[serde(default)]
    pub(crate) duration_ms: i64,
    /// What was taken over from earlier publishes; none: that is still to be done, where there were any.
    #[serde(default)]
    pub(crate) before: Option<Totals>,
    /// What has come since the running playlist was stored.
    #[serde(default)]
    pub(crate) unlisted: Unlisted,
}

/// Where fragments of MP4 stand between two segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FragmentsState {
    /// Fragments so far.
    pub(crate) count: u32,
    /// What the initialisation segment in force lists.
    pub(crate) video: bool,
    pub(crate) audio: bool,
    /// Initialisation segments so far, and the checksum of the one in force.
    inits: u32,
    init_crc: Option<u64>,
}

impl FragmentsState {
    /// The name of an initialisation segment, with its bytes, if it is another than the one in force.
    pub(crate) fn new_init(&mut self, bytes: Vec<u8>) -> Option<(String, Vec<u8>)> {
        let crc = crc::of(&bytes);
        if self.init_crc.replace(crc) == Some(crc) {
            return None;
        }
        let name = format!("init-{:06}.mp4", self.inits);
        self.inits += 1;
        Some((name, bytes))
    }
}

/// Segments that are stored and not in the stored playlist yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unlisted {
    segments: u32,
    bytes: u64,
}

impl Unlisted {
    /// The running playlist is stored again when it takes at most this part of what has come since.
    const PART: u64 = 20;
    /// And with every so many segments at the latest.
    const SEGMENTS: u32 = 20;

    pub(crate) fn add(&mut self, bytes: u64) {
        self.segments += 1;
        self.bytes += bytes;
    }

    /// True if they are worth storing a playlist of `playlist_len` bytes again. It grows with each segment: to store a long one
    /// for every short one would cost more than the media.
    pub(crate) fn are_worth(&self, playlist_len: u64) -> bool {
        self.segments >= Self::SEGMENTS || self.bytes >= playlist_len.saturating_mul(Self::PART)
    }
}

/// Persistent form of the transport stream muxer's state: fields as in [`media::ts::State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TsState {
    offset_90k: i64,
    /// PAT, PMT, video, audio.
    continuity: [u8; 4],
    pmt_version: u8,
    video_stream_type: u8,
    audio_stream_type: u8,
    clock_90k: Option<i64>,
    clock_due: bool,
    video_discontinuity: bool,
    audio_discontinuity: bool,
}

impl Default for TsState {
    fn default() -> Self {
        Self::from(ts::State::new(ts::DEFAULT_OFFSET_90K))
    }
}

impl From<ts::State> for TsState {
    fn from(s: ts::State) -> Self {
        Self {
            offset_90k: s.offset_90k,
            continuity: [
                s.pat_continuity,
                s.pmt_continuity,
                s.video_continuity,
                s.audio_continuity,
            ],
            pmt_version: s.pmt_version,
            video_stream_type: s.video_stream_type,
            audio_stream_type: s.audio_stream_type,
            clock_90k: s.clock_90k,
            clock_due: s.clock_due,
            video_discontinuity: s.video_discontinuity,
            audio_discontinuity: s.audio_discontinuity,
        }
    }
}

impl From<TsState> for ts::State {
    fn from(s: TsState) -> Self {
        let [pat_continuity, pmt_continuity, video_continuity, audio_continuity] = s.continuity;
        Self {
            offset_90k: s.offset_90k,
            pat_continuity,
            pmt_continuity,
            video_continuity,
            audio_continuity,
            pmt_version: s.pmt_version,
            video_stream_type: s.video_stream_type,
            audio_stream_type: s.audio_stream_type,
            clock_90k: s.clock_90k,
            clock_due: s.clock_due,
            video_discontinuity: s.video_discontinuity,
            audio_discontinuity: s.audio_discontinuity,
        }
    }
}

impl State {
    /// Takes note of what the journal itself says is missing or was moved.
    pub(crate) fn note_control(&mut self, control: &Control) {
        match control {
            Control::Gap {
                reason,
                from_ms,
                to_ms,
                lost_units,
                ..
            } => {
                let from_ms = from_ms.or(*to_ms).unwrap_or(0);
                let to_ms = to_ms.unwrap_or(from_ms).max(from_ms);
                self.push_gap(Gap {
                    reason: reason.replace(' ', "_"),
                    from_ms,
                    to_ms,
                    units: lost_units.unwrap_or(0),
                });
            }
            // Nothing is missing, but the distance to the unit before is not the encoder's.
            Control::Jump { to_ms, .. } => {
                self.push_gap(Gap {
                    reason: "timestamp_jump".to_owned(),
                    from_ms: *to_ms,
                    to_ms: *to_ms,
                    units: 0,
                });
            }
            _ => {}
        }
    }

    /// Adds a gap; where there are [`MAX_GAPS`], the last one of its reason grows instead, or else the last of all.
    pub(crate) fn push_gap(&mut self, gap: Gap) {
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push(gap);
            return;
        }
        let same = self
            .gaps
            .iter()
            .rposition(|g| g.reason == gap.reason)
            .unwrap_or(MAX_GAPS - 1);
        if let Some(last) = self.gaps.get_mut(same) {
            last.from_ms = last.from_ms.min(gap.from_ms);
            last.to_ms = last.to_ms.max(gap.to_ms);
            last.units += gap.units;
        }
    }

    /// Adds units left out for `reason`, joined with the span before it where the reason is the same.
    ///
    /// At most [`MAX_GAPS`] spans are kept; from then on a span of a reason swallows what comes.
    pub(crate) fn leave_out(&mut self, reason: &str, dts_ms: i64) {
        let full = self.gaps.len() >= MAX_GAPS;
        let joined = self
            .gaps
            .iter_mut()
            .rev()
            .find(|g| g.reason == reason && (full || dts_ms - g.to_ms <= JOIN_WITHIN_MS));
        match joined {
            Some(gap) => {
                gap.to_ms = gap.to_ms.max(dts_ms);
                gap.from_ms = gap.from_ms.min(dts_ms);
                gap.units += 1;
            }
            None => self.gaps.push(Gap {
                reason: reason.to_owned(),
                from_ms: dts_ms,
                to_ms: dts_ms,
                units: 1,
            }),
        }
    }
}

/// Named gaps kept one by one in a recording; then those of one reason are joined.
pub(crate) const MAX_GAPS: usize = 64;
/// Units left out for one reason within this time of each other are one gap.
const JOIN_WITHIN_MS: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::Unlisted;

    /// Bytes of playlists that a day of segments of six seconds stores, those of the media, and the longest wait in segments.
    fn a_day(segment_bytes: u64) -> (u64, u64, u32) {
        // `#EXTINF:6.000,` and a name; now and then a date.
        let (line, date) = (25, 46);
        let (mut len, mut stored, mut waited, mut longest) = (120, 0, 0, 0);
        let mut unlisted = Unlisted::default();
        for sequence in 0..14_400u64 {
            len += line + if sequence.is_multiple_of(64) { date } else { 0 };
            unlisted.add(segment_bytes);
            waited += 1;
            if unlisted.are_worth(len) {
                stored += len;
                longest = longest.max(waited);
                (unlisted, waited) = (Unlisted::default(), 0);
            }
            assert!(
                sequence > 60 || waited == 0 || segment_bytes < 100_000,
                "every segment at first"
            );
        }
        (stored, 14_400 * segment_bytes, longest)
    }

    #[test]
    fn the_playlists_of_a_day_cost_a_small_part_of_its_media() {
        let (stored, media, longest) = a_day(1_875_000);
        assert!(stored * 20 <= media && longest <= 4, "{stored} of {media}, {longest}");
        let (stored, media, longest) = a_day(48_000);
        assert!(stored * 5 <= media && longest <= 20, "{stored} of {media}, {longest}");
    }
}
