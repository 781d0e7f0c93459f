//! The head of a finished FLV file: file header, `onMetaData` with the key frame index, codec headers in force.
//!
//! The body of a file is written while the stream runs; its head is composed at the end from what the index keeps
//! ([`UnitInfo`]), and put in front. Its length is a multiple of [`HEAD_ALIGN`], so that a file system can insert it
//! without moving the body.
//!
//! # What `onMetaData` says
//!
//! First the facts of the file (FLV 10.1 §E.5 and the index that players look for), then what the publisher's own
//! `onMetaData` said and the file does not know better, last `filler`: an array of blank strings that makes up
//! the length. Each of them stays below 1024 bytes, the longest that common demuxers read.
//!
//! The publisher's `onMetaData` in force at the file's first access unit goes here and is left out of the
//! body ([`keeps_metadata`]); a later and different one stays in the body where it came.

use super::{SCRIPT, append_file_header, append_tag, file_time_ms, is_metadata};
use crate::access_unit::{Codec, UnitInfo, UnitKind};
use crate::amf::{self, Value};
use crate::codec::{PictureSize, avc, hevc};
use alloc::{string::String, vec::Vec};

/// The head's length is a multiple of this: a block of the file systems in use. Bytes.
pub const HEAD_ALIGN: usize = 4096;
/// Key frames listed at most; beyond, every second one is dropped, again and again. 1.2 MB of head.
pub const MAX_KEY_FRAMES: usize = 1 << 16;
/// Bytes of publisher's properties kept at most; what goes beyond is left out, property by property.
const MAX_PUBLISHER_BYTES: usize = 1 << 18;
/// Longest filler string.
const FILLER_STRING: usize = 1000;
/// Shortest filler: the property's name, the array's header, one empty string.
const FILLER_MIN: usize = 2 + 6 + 5 + 3;

/// What is in force where a file begins.
#[derive(Debug, Clone, Copy)]
pub struct FileStart<'a> {
    /// The file's time 0 in publish time, milliseconds: from [`FileBase`](super::FileBase).
    pub base_ms: i64,
    /// Body of the publisher's `onMetaData` in force at the file's first access unit.
    pub metadata: Option<&'a [u8]>,
    /// Tag type and body of each codec header that came before the file's first tag and still holds.
    pub configs: &'a [(u8, &'a [u8])],
}

/// Whether a tag of this kind always goes into a file's body. [`UnitKind::Metadata`] does not: ask [`keeps_metadata`].
#[must_use]
pub fn keeps(kind: UnitKind) -> bool {
    kind != UnitKind::Metadata
}

/// Whether an `onMetaData` tag goes into the body: only if it differs from the one in the head, both as whole bodies.
#[must_use]
pub fn keeps_metadata(body: &[u8], in_head: Option<&[u8]>) -> bool {
    in_head != Some(body)
}

/// Composes a file's head from the tags of its body.
#[derive(Debug, Clone)]
pub struct HeadBuilder {
    base_ms: i64,
    publisher: Vec<(String, Value)>,
    config_tags: Vec<u8>,
    config_codecs: ConfigCodecs,
    video: Totals,
    audio: Totals,
    /// Bytes of all tags pushed.
    body_len: u64,
    last_ms: i64,
    last_picture_is_key: bool,
    key_frames: KeyFrames,
}

/// What the codec headers in force at the start tell.
#[derive(Debug, Clone, Copy, Default)]
struct ConfigCodecs {
    size: Option<PictureSize>,
    video_id: Option<u32>,
    audio_id: Option<u32>,
}

/// One track's share of the body.
#[derive(Debug, Clone, Copy)]
struct Totals {
    tags: u64,
    bytes: u64,
    last_dts_ms: Option<i64>,
    /// The last distance of two units, taken for the last one's duration.
    duration_ms: i64,
    end_ms: i64,
}

impl Totals {
    const fn new(duration_ms: i64) -> Self {
        Self {
            tags: 0,
            bytes: 0,
            last_dts_ms: None,
            duration_ms,
            end_ms: i64::MIN,
        }
    }

    fn push(&mut self, unit: &UnitInfo) {
        self.tags += 1;
        self.bytes = self.bytes.saturating_add(unit.tag_len());
        if let Some(step_ms @ 1..=1000) = self.last_dts_ms.map(|last_ms| unit.dts_ms.saturating_sub(last_ms)) {
            self.duration_ms = step_ms;
        }
        self.last_dts_ms = Some(unit.dts_ms);
        let end_ms = unit
            .dts_ms
            .saturating_add(i64::from(unit.cto_ms))
            .saturating_add(self.duration_ms);
        self.end_ms = self.end_ms.max(end_ms);
    }
}

/// The key frame index, thinned so that it stays within its bound. Positions count from the body's start.
#[derive(Debug, Clone)]
struct KeyFrames {
    entries: Vec<(i64, u64)>,
    /// Every `stride`-th key frame is listed.
    stride: u64,
    seen: u64,
    last_ms: i64,
    last_position: u64,
}

impl KeyFrames {
    fn push(&mut self, time_ms: i64, position: u64) {
        if self.seen.is_multiple_of(self.stride) {
            if self.entries.len() == MAX_KEY_FRAMES {
                let mut index = 0usize;
                self.entries.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride = self.stride.saturating_mul(2);
            }
            if self.seen.is_multiple_of(self.stride) {
                self.entries.push((time_ms, position));
            }
        }
        self.seen += 1;
        (self.last_ms, self.last_position) = (time_ms, position);
    }
}

impl HeadBuilder {
    /// Begins the head of the file that starts so.
    #[must_use]
    pub fn new(start: FileStart<'_>) -> Self {
        let mut config_tags = Vec::new();
        for &(tag_type, body) in start.configs {
            append_tag(&mut config_tags, tag_type, 0, body);
        }
        Self {
            base_ms: start.base_ms,
            publisher: start.metadata.map(publisher_properties).unwrap_or_default(),
            config_tags,
            config_codecs: config_codecs(start.configs),
            video: Totals::new(40),
            audio: Totals::new(23),
            body_len: 0,
            last_ms: 0,
            last_picture_is_key: false,
            key_frames: KeyFrames {
                entries: Vec::new(),
                stride: 1,
                seen: 0,
                last_ms: 0,
                last_position: 0,
            },
        }
    }

    /// Takes the next tag of the body, in the body's order.
    pub fn push(&mut self, unit: &UnitInfo) {
        let time_ms = i64::from(file_time_ms(unit.dts_ms, self.base_ms));
        match unit.kind {
            UnitKind::Video => {
                self.video.push(unit);
                self.last_picture_is_key = unit.key;
                if unit.key {
                    self.key_frames.push(time_ms, self.body_len);
                }
            }
            UnitKind::Audio => self.audio.push(unit),
            _ => {}
        }
        self.last_ms = self.last_ms.max(time_ms);
        self.body_len = self.body_len.saturating_add(unit.tag_len());
    }

    /// Bytes of all tags pushed so far: the body's length.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.body_len
    }

    /// The file's duration so far, milliseconds: to the end of what is shown last, its own duration taken from the distance before.
    #[must_use]
    pub fn duration_ms(&self) -> i64 {
        let end_ms = self.video.end_ms.max(self.audio.end_ms);
        if end_ms == i64::MIN {
            0
        } else {
            end_ms.saturating_sub(self.base_ms).max(0)
        }
    }

    /// The head: a multiple of [`HEAD_ALIGN`] bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let bare = self.head(0, 0).len();
        let filler = match bare.next_multiple_of(HEAD_ALIGN) - bare {
            0 => 0,
            filler if filler < FILLER_MIN => filler + HEAD_ALIGN,
            filler => filler,
        };
        self.head(bare + filler, filler)
    }

    /// The head, with positions for a head of `head_len` bytes; `filler` is 0 or at least [`FILLER_MIN`].
    fn head(&self, head_len: usize, filler: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(head_len);
        append_file_header(&mut out, self.audio.tags > 0, self.video.tags > 0);
        append_tag(&mut out, SCRIPT, 0, &self.metadata(head_len, filler));
        out.extend_from_slice(&self.config_tags);
        out
    }

    fn metadata(&self, head_len: usize, filler: usize) -> Vec<u8> {
        let head_len = u64::try_from(head_len).unwrap_or(u64::MAX);
        let file_len = head_len.saturating_add(self.body_len);
        let has_key_frames = !self.key_frames.entries.is_empty();
        let mut out = Properties::new();
        out.number("duration", seconds(self.duration_ms()));
        out.number("filesize", whole(file_len));
        out.boolean("hasVideo", self.video.tags > 0);
        out.boolean("hasAudio", self.audio.tags > 0);
        out.boolean("hasMetadata", true);
        out.boolean("hasKeyframes", has_key_frames);
        out.boolean("canSeekToEnd", self.video.tags == 0 || self.last_picture_is_key);
        out.number("datasize", whole(self.body_len));
        out.number("videosize", whole(self.video.bytes));
        out.number("audiosize", whole(self.audio.bytes));
        out.number("lasttimestamp", seconds(self.last_ms));
        if has_key_frames {
            out.number("lastkeyframetimestamp", seconds(self.key_frames.last_ms));
            out.number(
                "lastkeyframelocation",
                whole(head_len.saturating_add(self.key_frames.last_position)),
            );
        }
        self.append_derived(&mut out);
        for (name, value) in &self.publisher {
            out.name(name);
            value.encode(&mut out.bytes);
        }
        // A list of one lets nobody seek anywhere, and FFmpeg calls it invalid.
        if self.key_frames.entries.len() > 1 {
            self.append_key_frames(&mut out, head_len);
        }
        if filler > 0 {
            append_filler(&mut out, filler);
        }
        out.finish()
    }

    /// What the codec headers tell and the publisher did not.
    fn append_derived(&self, out: &mut Properties) {
        let ConfigCodecs {
            size,
            video_id,
            audio_id,
        } = self.config_codecs;
        let derived = [
            ("width", size.map(|size| u32::from(size.width))),
            ("height", size.map(|size| u32::from(size.height))),
            ("videocodecid", video_id),
            ("audiocodecid", audio_id),
        ];
        for (name, value) in derived {
            let said = self.publisher.iter().any(|(other, _)| other == name);
            if let Some(value) = value.filter(|_| !said) {
                out.number(name, f64::from(value));
            }
        }
    }

    fn append_key_frames(&self, out: &mut Properties, head_len: u64) {
        let entries = &self.key_frames.entries;
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        out.name("keyframes");
        amf::start_object(&mut out.bytes);
        amf::write_name(&mut out.bytes, "times");
        amf::start_strict_array(&mut out.bytes, count);
        for &(time_ms, _) in entries {
            amf::write_number(&mut out.bytes, seconds(time_ms));
        }
        amf::write_name(&mut out.bytes, "filepositions");
        amf::start_strict_array(&mut out.bytes, count);
        for &(_, position) in entries {
            amf::write_number(&mut out.bytes, whole(head_len.saturating_add(position)));
        }
        amf::end_object(&mut out.bytes);
    }
}

/// The properties of one `onMetaData`, counted as they are written.
struct Properties {
    bytes: Vec<u8>,
    count: u32,
    count_at: usize,
}

impl Properties {
    fn new() -> Self {
        let mut bytes = Vec::new();
        amf::write_string(&mut bytes, "onMetaData");
        let count_at = bytes.len() + 1;
        amf::start_ecma_array(&mut bytes, 0);
        Self {
            bytes,
            count: 0,
            count_at,
        }
    }

    fn name(&mut self, name: &str) {
        amf::write_name(&mut self.bytes, name);
        self.count += 1;
    }

    fn number(&mut self, name: &str, value: f64) {
        self.name(name);
        amf::write_number(&mut self.bytes, value);
    }

    fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        amf::write_boolean(&mut self.bytes, value);
    }

    fn finish(mut self) -> Vec<u8> {
        amf::end_object(&mut self.bytes);
        if let Some(count) = self.bytes.get_mut(self.count_at..self.count_at + 4) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.bytes
    }
}

/// Appends exactly `len` bytes, at least [`FILLER_MIN`].
fn append_filler(out: &mut Properties, len: usize) {
    const BLANKS: [u8; FILLER_STRING + 2] = [b' '; FILLER_STRING + 2];
    out.name("filler");
    let mut rest = len.saturating_sub(FILLER_MIN - 3);
    let mut strings = Vec::new();
    while rest >= 3 {
        // What is left behind a string must hold another one, or nothing.
        let string = if rest >= FILLER_STRING + 6 {
            FILLER_STRING
        } else {
            rest - 3
        };
        strings.push(string);
        rest -= string + 3;
    }
    amf::start_strict_array(&mut out.bytes, u32::try_from(strings.len()).unwrap_or(0));
    for string in strings {
        let blanks = BLANKS
            .get(..string)
            .and_then(|blanks| core::str::from_utf8(blanks).ok());
        amf::write_string(&mut out.bytes, blanks.unwrap_or_default());
    }
}

/// Names that the file knows better than any publisher, and those that only ever described another file.
const OURS: [&str; 17] = [
    "duration",
    "filesize",
    "hasVideo",
    "hasAudio",
    "hasMetadata",
    "hasKeyframes",
    "hasCuePoints",
    "canSeekToEnd",
    "datasize",
    "videosize",
    "audiosize",
    "lasttimestamp",
    "lastkeyframetimestamp",
    "lastkeyframelocation",
    "keyframes",
    "cuePoints",
    "filler",
];

/// The publisher's own properties that are kept. Names are compared without case: `fileSize` is common.
fn publisher_properties(body: &[u8]) -> Vec<(String, Value)> {
    if !is_metadata(body) {
        return Vec::new();
    }
    let mut decoder = amf::Decoder::new(body);
    let properties = match (decoder.next_value(), decoder.next_value()) {
        (Ok(Some(_)), Ok(Some(Value::Object(properties) | Value::EcmaArray(properties)))) => properties,
        _ => return Vec::new(),
    };
    let mut budget = MAX_PUBLISHER_BYTES;
    let mut scratch = Vec::new();
    let keeps = |(name, value): &(String, Value)| {
        if name.is_empty() || OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            return false;
        }
        scratch.clear();
        value.encode(&mut scratch);
        let len = scratch.len() + name.len() + 2;
        let fits = len <= budget;
        budget -= if fits { len } else { 0 };
        fits
    };
    properties.into_iter().filter(keeps).collect()
}

fn config_codecs(configs: &[(u8, &[u8])]) -> ConfigCodecs {
    let mut known = ConfigCodecs::default();
    for &(tag_type, body) in configs {
        let Some(class) = super::classify(tag_type, body) else {
            continue;
        };
        let record = body.get(usize::from(class.header_len)..).unwrap_or_default();
        let first = body.first().copied().unwrap_or(0);
        match class.kind {
            UnitKind::VideoConfig => {
                known.size = match class.codec {
                    Codec::Avc => avc::Config::parse(record).and_then(|config| config.picture_size()).ok(),
                    Codec::Hevc => hevc::Config::parse(record)
                        .and_then(|config| config.picture_size())
                        .ok(),
                    _ => None,
                };
                // Enhanced RTMP: the FourCC, read as a number.
                let four_cc = body
                    .get(1..5)
                    .and_then(|bytes| bytes.first_chunk::<4>())
                    .copied()
                    .map(u32::from_be_bytes);
                known.video_id = if first & 0x80 != 0 {
                    four_cc
                } else {
                    Some(u32::from(first & 0x0F))
                };
            }
            UnitKind::AudioConfig => {
                let four_cc = body
                    .get(1..5)
                    .and_then(|bytes| bytes.first_chunk::<4>())
                    .copied()
                    .map(u32::from_be_bytes);
                known.audio_id = if first >> 4 == 9 {
                    four_cc
                } else {
                    Some(u32::from(first >> 4))
                };
            }
            _ => {}
        }
    }
    known
}

/// AMF has no integers, and FLV counts seconds: one division, correctly rounded, is all the floating point there is.
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Exact up to 2⁵³ bytes.
fn whole(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
