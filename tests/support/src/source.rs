//! Numbered frames: H.264 and AAC in shape, with their number in each payload, so that what is missing,
//! doubled or out of order in a file is known exactly. They demux; they do not decode.

use crate::rtmp::{AUDIO, DATA, VIDEO, amf_key, amf_number, amf_string};

/// An `avcC` record of 1280x720 High as x264 writes it.
const AVC_CONFIG: [u8; 47] = [
    0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60, 0x01, 0x00, 0x06, 0x68,
    0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];
/// AAC-LC, 48 kHz, two channels.
const AAC_CONFIG: [u8; 2] = [0x11, 0x90];
const SAMPLE_RATE: u64 = 48_000;
const SAMPLES_PER_FRAME: u64 = 1024;

/// One message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// 8 audio, 9 video, 18 data.
    pub message_type: u8,
    /// Decode time from the start of the clip, milliseconds.
    pub dts_ms: u64,
    /// Position among the frames of its type, from 0; it stands in the payload too.
    pub number: u64,
    /// The message's body: codec header and payload.
    pub body: Vec<u8>,
}

/// What the frames are like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Whole frames a second.
    pub frame_rate: u64,
    /// Frames from one key frame to the next.
    pub gop_frames: u64,
    /// Video and audio together.
    pub bits_per_second: u64,
    /// Of these, audio's.
    pub audio_bits_per_second: u64,
    /// Two B pictures after each P or I, with their composition offsets.
    pub b_frames: bool,
}

impl Default for Shape {
    /// 720p-like: 30 frames and 2.5 Mbit/s, a key frame each 2 s, AAC at 128 kbit/s.
    fn default() -> Self {
        Self {
            frame_rate: 30,
            gop_frames: 60,
            bits_per_second: 2_500_000,
            audio_bits_per_second: 128_000,
            b_frames: true,
        }
    }
}

/// An endless, repeatable sequence of frames in decode order, both tracks merged by time.
#[derive(Debug, Clone)]
pub struct Numbered {
    shape: Shape,
    next_video: u64,
    next_audio: u64,
}

impl Numbered {
    /// Starts at time 0 with a key frame.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            next_video: 0,
            next_audio: 0,
        }
    }

    /// `onMetaData` and the two sequence headers, to be sent first.
    #[must_use]
    pub fn prologue(&self) -> Vec<Frame> {
        let mut meta = Vec::new();
        amf_string(&mut meta, "@setDataFrame");
        amf_string(&mut meta, "onMetaData");
        meta.extend_from_slice(&[8, 0, 0, 0, 4]);
        for (key, value) in [
            ("width", 1280.0),
            ("height", 720.0),
            ("videocodecid", 7.0),
            ("audiocodecid", 10.0),
        ] {
            amf_key(&mut meta, key);
            amf_number(&mut meta, value);
        }
        meta.extend_from_slice(&[0, 0, 9]);
        let video = [&[0x17, 0, 0, 0, 0], AVC_CONFIG.as_slice()].concat();
        let audio = [&[0xAF, 0], AAC_CONFIG.as_slice()].concat();
        [(DATA, meta), (VIDEO, video), (AUDIO, audio)]
            .map(|(message_type, body)| Frame {
                message_type,
                dts_ms: 0,
                number: 0,
                body,
            })
            .to_vec()
    }

    fn video_time(&self, index: u64) -> u64 {
        index * 1000 / self.shape.frame_rate
    }

    fn audio_time(index: u64) -> u64 {
        index * SAMPLES_PER_FRAME * 1000 / SAMPLE_RATE
    }

    fn video(&self, index: u64) -> Frame {
        let Shape {
            gop_frames,
            frame_rate,
            bits_per_second,
            audio_bits_per_second,
            b_frames,
        } = self.shape;
        let in_gop = index % gop_frames;
        // I P B B P B B …: a P goes three places later than it is decoded, less the two Bs that wait for it.
        let late = match (b_frames, in_gop, in_gop % 3) {
            (false, _, _) => 0,
            (true, 0, _) => 1,
            (true, _, 1) if in_gop + 2 < gop_frames => 3,
            (true, _, 1) => 1,
            (true, _, 2) if in_gop + 1 >= gop_frames => 1,
            (true, _, _) => 0,
        };
        let cto = self.video_time(index + late) - self.video_time(index);
        // A key frame weighs 8, a P 1.5 and a B 0.5 of what a picture has on average (in sixteenths).
        let mean = (bits_per_second - audio_bits_per_second) / 8 / frame_rate;
        let (nal, sixteenths) = match (in_gop, late) {
            (0, _) => (0x65, 128),
            (_, 3) => (0x41, 24),
            _ if b_frames => (0x01, 10),
            _ => (0x41, 14),
        };
        let len = (mean * sixteenths / 16).max(32);
        let key = if in_gop == 0 { 0x17 } else { 0x27 };
        let cto = cto.to_be_bytes();
        let mut body = vec![key, 1, cto[5], cto[6], cto[7]];
        body.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        body.push(nal);
        fill(&mut body, b'v', index, len - 1);
        Frame {
            message_type: VIDEO,
            dts_ms: self.video_time(index),
            number: index,
            body,
        }
    }

    fn audio(&self, index: u64) -> Frame {
        let len = (self.shape.audio_bits_per_second / 8 * SAMPLES_PER_FRAME / SAMPLE_RATE).max(24);
        let mut body = vec![0xAF, 1];
        fill(&mut body, b'a', index, len);
        Frame {
            message_type: AUDIO,
            dts_ms: Self::audio_time(index),
            number: index,
            body,
        }
    }
}

impl Iterator for Numbered {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.video_time(self.next_video) <= Self::audio_time(self.next_audio) {
            self.next_video += 1;
            Some(self.video(self.next_video - 1))
        } else {
            self.next_audio += 1;
            Some(self.audio(self.next_audio - 1))
        }
    }
}

/// `len` bytes of payload: a letter and the number in 12 digits, then bytes that differ from frame to frame and are
/// never 0, so that no start code arises.
fn fill(out: &mut Vec<u8>, letter: u8, number: u64, len: u64) {
    let end = out.len() + usize::try_from(len).unwrap_or(usize::MAX);
    out.push(letter);
    out.extend_from_slice(format!("{number:012}").as_bytes());
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while out.len() < end {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_be_bytes().map(|byte| byte | 1));
    }
    out.truncate(end);
}

/// The number in a payload that this module made: the last `letter` followed by 12 digits within its first 64 bytes.
#[must_use]
pub fn number_in(payload: &[u8], letter: u8) -> Option<u64> {
    let head = &payload[..payload.len().min(64)];
    let at = head
        .windows(13)
        .position(|window| window[0] == letter && window[1..].iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(&head[at + 1..at + 13]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_shown_once_each_and_none_before_it_is_decoded() {
        let shape = Shape::default();
        let frames: Vec<Frame> = Numbered::new(shape)
            .filter(|f| f.message_type == VIDEO)
            .take(120)
            .collect();
        let mut shown: Vec<u64> = frames
            .iter()
            .map(|f| f.dts_ms + u64::from(f.body[3]) * 256 + u64::from(f.body[4]))
            .collect();
        shown.sort_unstable();
        shown.dedup();
        assert_eq!(shown.len(), 120);
        assert_eq!(frames[60].body[0], 0x17);
    }

    #[test]
    fn numbers_come_back_and_the_rate_is_kept() {
        let frames: Vec<Frame> = Numbered::new(Shape::default())
            .take_while(|f| f.dts_ms < 10_000)
            .collect();
        let bytes: usize = frames.iter().map(|f| f.body.len()).sum();
        assert!((2_900_000..3_300_000).contains(&bytes), "{bytes}");
        for frame in &frames {
            let letter = if frame.message_type == VIDEO { b'v' } else { b'a' };
            assert_eq!(number_in(&frame.body, letter), Some(frame.number));
        }
    }
}
