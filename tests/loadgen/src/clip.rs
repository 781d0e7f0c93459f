//! The media, cut into chunks once for all streams.

use anyhow::{Result, ensure};
use support::flv::read_tags;
use support::rtmp::{AUDIO, AUDIO_CSID, CHUNK_LEN, DATA, Stamp, VIDEO, VIDEO_CSID, append_message};
use support::source::{Frame, Numbered, Shape};

/// Where a message ends in the buffer, and when it is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// Milliseconds from the start of the round.
    pub(crate) due_ms: u64,
    /// Offset behind the message's last byte.
    pub(crate) end: usize,
}

/// One round of media that follows upon itself.
#[derive(Debug)]
pub(crate) struct Loop {
    /// Metadata and sequence headers, with absolute timestamps; sent once.
    pub(crate) prologue: Vec<u8>,
    /// The round's messages with distances only.
    pub(crate) bytes: Vec<u8>,
    /// One for each message, in order.
    pub(crate) marks: Vec<Mark>,
    /// Media time of one round, milliseconds.
    pub(crate) duration_ms: u64,
}

impl Loop {
    /// Eight seconds of generated frames: the shortest time that holds whole groups of pictures and whole audio frames.
    pub(crate) fn synthetic(bits_per_second: u64) -> Result<Self> {
        const ROUND_MS: u64 = 8000;
        let shape = Shape {
            bits_per_second,
            audio_bits_per_second: (bits_per_second / 8).min(128_000),
            ..Shape::default()
        };
        let source = Numbered::new(shape);
        let prologue = source.prologue();
        Self::new(
            &prologue,
            source.take_while(|frame| frame.dts_ms < ROUND_MS).collect(),
            ROUND_MS,
        )
    }

    /// The tags of a file; its last frames last as long as the ones before them.
    pub(crate) fn from_flv(file: &[u8]) -> Result<Self> {
        let mut prologue = Vec::new();
        let mut frames = Vec::new();
        for tag in read_tags(file)? {
            let config = tag.is_config() || tag.tag_type == DATA;
            let frame = Frame {
                message_type: tag.tag_type,
                dts_ms: u64::from(tag.timestamp_ms),
                number: 0,
                body: tag.body,
            };
            match config {
                true if frames.is_empty() => prologue.push(frame),
                // An end of sequence would end the stream in the middle.
                true => {}
                false if frame.message_type == VIDEO && frame.body.get(1) == Some(&2) => {}
                false => frames.push(frame),
            }
        }
        ensure!(frames.len() > 1, "the clip holds no media");
        let first = frames.iter().map(|frame| frame.dts_ms).min().unwrap_or(0);
        frames.iter_mut().for_each(|frame| frame.dts_ms -= first);
        let last = frames.iter().map(|frame| frame.dts_ms).max().unwrap_or(0);
        let videos = frames.iter().filter(|frame| frame.message_type == VIDEO).count().max(1) as u64;
        let duration_ms = last + (last / videos).max(1);
        Self::new(&prologue, frames, duration_ms)
    }

    fn new(prologue: &[Frame], frames: Vec<Frame>, duration_ms: u64) -> Result<Self> {
        let times = |message_type: u8| {
            frames
                .iter()
                .filter(move |f| f.message_type == message_type)
                .map(|f| f.dts_ms)
        };
        // From the round's last message of a type to the next round's first: also from the prologue to the first.
        let around = |message_type| match (times(message_type).next(), times(message_type).next_back()) {
            (Some(first), Some(last)) => duration_ms - last + first,
            _ => 0,
        };
        let lead_ms = around(AUDIO).max(around(VIDEO));
        let mut start = Vec::new();
        for frame in prologue {
            let time = if frame.message_type == DATA {
                0
            } else {
                lead_ms - around(frame.message_type)
            };
            let stamp = Stamp::Absolute(u32::try_from(time)?);
            append_message(
                &mut start,
                csid(frame.message_type),
                stamp,
                frame.message_type,
                &frame.body,
                CHUNK_LEN,
            );
        }
        // A track without a sequence header (MP3) still needs a first whole header: an empty message sets it.
        for message_type in [AUDIO, VIDEO] {
            if !prologue.iter().any(|f| f.message_type == message_type) && times(message_type).next().is_some() {
                let stamp = Stamp::Absolute(u32::try_from(lead_ms - around(message_type))?);
                append_message(&mut start, csid(message_type), stamp, message_type, &[], CHUNK_LEN);
            }
        }
        let (mut bytes, mut marks) = (Vec::new(), Vec::with_capacity(frames.len()));
        let mut previous = [None::<u64>; 2];
        for frame in frames.iter().filter(|frame| frame.message_type != DATA) {
            let slot = &mut previous[usize::from(frame.message_type == VIDEO)];
            let delta = match *slot {
                Some(before) => frame.dts_ms.saturating_sub(before),
                None => around(frame.message_type),
            };
            *slot = Some(frame.dts_ms);
            let stamp = Stamp::Delta(u32::try_from(delta)?);
            append_message(
                &mut bytes,
                csid(frame.message_type),
                stamp,
                frame.message_type,
                &frame.body,
                CHUNK_LEN,
            );
            marks.push(Mark {
                due_ms: frame.dts_ms,
                end: bytes.len(),
            });
        }
        Ok(Self {
            prologue: start,
            bytes,
            marks,
            duration_ms,
        })
    }
}

fn csid(message_type: u8) -> u8 {
    if message_type == AUDIO { AUDIO_CSID } else { VIDEO_CSID }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_where_the_next_begins() {
        let clip = Loop::synthetic(2_500_000).unwrap();
        assert_eq!(clip.marks.len(), 240 + 375);
        assert_eq!(clip.marks.last().unwrap().end, clip.bytes.len());
        let rate = clip.bytes.len() as u64 * 8 * 1000 / clip.duration_ms;
        assert!((2_400_000..2_650_000).contains(&rate), "{rate} bit/s");
    }
}
