//! Sample entries: how a track's samples are to be decoded. ISO/IEC 14496-12 §8.5.2 and §12, 14496-14 §5.6, 14496-15 §5.4 and §8.4.

use alloc::vec::Vec;

use bytes::BufMut;

use super::{
    boxes::{boxed, full_box},
    layout::Configuration,
};
use crate::{
    access_unit::Codec,
    codec::{aac, avc, hevc, mp3},
};

/// Stands for MP3 whose first frame was not at hand: MPEG-1 layer 3, 44.1 kHz, stereo.
pub(super) const USUAL_MP3_HEADER: [u8; 4] = [0xff, 0xfb, 0x90, 0];

/// Used where a track has one sample only: 25 pictures a second.
const PICTURE_MS: u32 = 40;

/// Whether a record is long enough, and of the version, that a reader of the box could make sense of it.
pub(super) fn is_usable(codec: Codec, record: &[u8]) -> bool {
    match codec {
        // 14496-15 §5.3.3.1: six bytes and at least one empty list; §8.3.3.1: 23 bytes.
        Codec::Avc => record.len() >= 7 && record.first() == Some(&1),
        Codec::Hevc => record.len() >= 23,
        // 14496-3 §1.6.2.1: object type 0 is none.
        Codec::Aac => record.len() >= 2 && record.first().is_some_and(|first| first >> 3 != 0),
        Codec::Mp3 | Codec::Other => false,
    }
}

/// What stays the same from frame to frame of an MP3 stream (version, sampling rate, mono or not), as the header of a
/// frame. `None` if `bytes` do not begin with the header of a layer 3 frame. ISO/IEC 11172-3 §2.4.2.3.
pub(super) fn mp3_parameters(bytes: &[u8]) -> Option<[u8; 4]> {
    let header = mp3::FrameHeader::parse(bytes).ok().filter(|header| header.layer == 3)?;
    let &[sync, version, rate, _] = bytes.first_chunk()?;
    let mono = if header.channels == 1 { 0xc0 } else { 0 };
    Some([sync, version | 1, USUAL_MP3_HEADER[2] & 0xf0 | rate & 0x0c, mono])
}

/// The header that [`mp3_parameters`] keeps of frames with this sampling rate, hertz, and so many channels.
pub(super) fn mp3_header(rate: u32, channels: u16) -> Option<[u8; 4]> {
    let (version, index) = match rate {
        44_100 => (0xfb, 0),
        48_000 => (0xfb, 1),
        32_000 => (0xfb, 2),
        22_050 => (0xf3, 0),
        24_000 => (0xf3, 1),
        16_000 => (0xf3, 2),
        11_025 => (0xe3, 0),
        12_000 => (0xe3, 1),
        8_000 => (0xe3, 2),
        _ => return None,
    };
    mp3_parameters(&[
        0xff,
        version,
        USUAL_MP3_HEADER[2] & 0xf0 | index << 2,
        if channels == 1 { 0xc0 } else { 0 },
    ])
}

/// Milliseconds of one sample, for a track that has only one.
pub(super) fn nominal_duration_ms(configuration: &Configuration) -> u32 {
    match configuration.codec {
        Codec::Avc | Codec::Hevc | Codec::Other => PICTURE_MS,
        Codec::Aac | Codec::Mp3 => {
            let Sound {
                rate, frame_samples, ..
            } = Sound::of(configuration);
            (frame_samples * 1000 + rate / 2).checked_div(rate).unwrap_or(0).max(1)
        }
    }
}

/// Width and height of the pictures; 0 where the parameter sets do not say.
pub(super) fn dimensions(configuration: &Configuration) -> (u16, u16) {
    let size = match configuration.codec {
        Codec::Avc => avc::Config::parse(&configuration.record).and_then(|config| config.picture_size()),
        _ => hevc::Config::parse(&configuration.record).and_then(|config| config.picture_size()),
    };
    size.map_or((0, 0), |size| (size.width, size.height))
}

/// What a sound sample entry says outside of the decoder configuration.
struct Sound {
    /// Hertz, of what comes out.
    rate: u32,
    channels: u16,
    /// Samples of one channel that come out of a frame.
    frame_samples: u32,
    mpeg1: bool,
}

impl Sound {
    /// Where the configuration cannot be read: what is usual. Decoders go by the configuration itself.
    const USUAL: Self = Self {
        rate: 44_100,
        channels: 2,
        frame_samples: 1024,
        mpeg1: true,
    };

    fn of(configuration: &Configuration) -> Self {
        match configuration.codec {
            Codec::Mp3 => mp3::FrameHeader::parse(&configuration.record).map_or(Self::USUAL, |header| Self {
                rate: header.sample_rate,
                channels: header.channels.into(),
                frame_samples: header.samples.into(),
                mpeg1: header.mpeg1,
            }),
            _ => aac::Config::parse(&configuration.record).map_or(Self::USUAL, |config| Self {
                rate: config.output_rate,
                // 0 is for what only a program config element within the samples knows.
                channels: if config.channels() == 0 {
                    Self::USUAL.channels
                } else {
                    config.channels().into()
                },
                frame_samples: config.output_samples(),
                mpeg1: false,
            }),
        }
    }
}

/// How much data a track has, as far as it is known: 0 where it is not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    /// Bytes of the largest sample.
    pub(super) max_size: u32,
    /// Bits a second over the whole track.
    pub(super) average: u32,
}

/// Appends the sample entry for `configuration`.
pub(super) fn put_sample_entry(out: &mut Vec<u8>, configuration: &Configuration, rate: Rate) {
    match configuration.codec {
        Codec::Avc => put_picture_entry(out, b"avc1", b"avcC", configuration),
        Codec::Hevc => put_picture_entry(out, b"hvc1", b"hvcC", configuration),
        Codec::Aac | Codec::Mp3 | Codec::Other => put_sound_entry(out, configuration, rate),
    }
}

/// `VisualSampleEntry`, §12.1.3.
fn put_picture_entry(out: &mut Vec<u8>, kind: &[u8; 4], config_kind: &[u8; 4], configuration: &Configuration) {
    let (width, height) = dimensions(configuration);
    boxed(out, kind, |out| {
        out.put_bytes(0, 6);
        out.put_u16(1); // data reference: this file
        out.put_bytes(0, 16);
        out.put_u16(width);
        out.put_u16(height);
        out.put_u32(0x0048_0000); // 72 dots an inch, as the standard wants
        out.put_u32(0x0048_0000);
        out.put_u32(0);
        out.put_u16(1); // one picture a sample
        out.put_bytes(0, 32); // no compressor name
        out.put_u16(24); // colour without alpha
        out.put_i16(-1);
        boxed(out, config_kind, |out| out.put_slice(&configuration.record));
    });
}

/// `AudioSampleEntry`, §12.2.3.
fn put_sound_entry(out: &mut Vec<u8>, configuration: &Configuration, rate: Rate) {
    let sound = Sound::of(configuration);
    boxed(out, b"mp4a", |out| {
        out.put_bytes(0, 6);
        out.put_u16(1); // data reference: this file
        out.put_bytes(0, 8);
        out.put_u16(sound.channels);
        out.put_u16(16); // bits a sample, fixed by the standard
        out.put_u32(0);
        // 16.16 fixed point: higher rates do not fit, and are in the decoder configuration alone.
        out.put_u32(u16::try_from(sound.rate).map_or(0, |rate| u32::from(rate) << 16));
        put_esds(out, configuration, rate);
    });
}

/// `ESDescriptor` of 14496-1 §7.2.6.5 in its box, 14496-14 §5.6.
fn put_esds(out: &mut Vec<u8>, configuration: &Configuration, rate: Rate) {
    let (object_type, decoder_config): (u8, &[u8]) = match configuration.codec {
        Codec::Mp3 if Sound::of(configuration).mpeg1 => (0x6b, &[]),
        Codec::Mp3 => (0x69, &[]),
        _ => (0x40, &configuration.record),
    };

    let mut decoder = Vec::with_capacity(32 + decoder_config.len());
    decoder.put_u8(object_type);
    decoder.put_u8(5 << 2 | 1); // audio, downstream
    decoder.put_uint(u64::from(rate.max_size.min(0x00ff_ffff)), 3);
    decoder.put_u32(rate.average); // at most: not known better
    decoder.put_u32(rate.average);
    if !decoder_config.is_empty() {
        put_descriptor(&mut decoder, 5, decoder_config);
    }
    let mut stream = Vec::with_capacity(decoder.len() + 16);
    stream.put_u16(0); // ES_ID: by track in a file
    stream.put_u8(0);
    put_descriptor(&mut stream, 4, &decoder);
    put_descriptor(&mut stream, 6, &[2]); // sync layer: MP4's
    full_box(out, b"esds", 0, 0, |out| put_descriptor(out, 3, &stream));
}

/// Tag, length in seven bits a byte, body. 14496-1 §8.3.3.
fn put_descriptor(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    let len = body.len();
    for shift in [21, 14, 7] {
        out.put_u8((len >> shift) as u8 | 0x80);
    }
    out.put_u8(len as u8 & 0x7f);
    out.put_slice(body);
}
