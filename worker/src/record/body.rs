//! [`Body`]: the bytes one journaled tag adds to a file's body. Pure: bytes in, bytes out.
//!
//! FLV keeps the tag and moves its timestamp to the file's own zero; MP4 keeps the coded data; AAC wraps it in ADTS; MP3 is the
//! data itself. What a format cannot hold is refused by name, never dropped in silence.

use media::access_unit::{Codec, UnitInfo, UnitKind};
use media::{codec, flv, mp4};
use shared::template::Format;

use super::packed::Packed;

/// What became of one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its bytes are in the body.
    Yes,
    /// It holds no access unit this format would show: a header, metadata, the other track of an audio file.
    NotWanted,
    /// An access unit that this format cannot hold, and why.
    Refused(&'static str),
    /// It cannot be in this file, but can begin a new one, and why.
    NewFile(&'static str),
}

/// One open file's format, with the little it must remember from tag to tag.
#[derive(Debug)]
pub(crate) enum Body {
    Flv {
        base_ms: i64,
        metadata: Option<Packed>,
    },
    Mp4(Box<mp4::Layout>),
    /// The ADTS header's constant part, or why there is none.
    Aac {
        adts: Result<codec::aac::Adts, &'static str>,
    },
    Mp3,
}

impl Body {
    /// Begins a file of `format` whose time 0 is `base_ms` in the publish's time. HLS has no body of this kind.
    /// `metadata` is the publisher's `onMetaData` that stands in the head: it is not said again in the body.
    pub(crate) fn new(format: Format, base_ms: i64, metadata: Option<Packed>) -> Self {
        match format {
            Format::Flv | Format::Hls => Self::Flv { base_ms, metadata },
            Format::Mp4 => Self::Mp4(Box::new(mp4::Layout::new())),
            Format::Aac => Self::Aac {
                adts: Err("no_decoder_configuration"),
            },
            Format::Mp3 => Self::Mp3,
        }
    }

    /// Tells the format of a decoder configuration that was in force before the file's first tag.
    pub(crate) fn configure(&mut self, info: &UnitInfo, config: &[u8]) {
        match self {
            Self::Mp4(layout) => {
                let _ = layout.push(info, Some(config));
            }
            Self::Aac { adts } if info.codec == Codec::Aac => *adts = adts_of(config),
            _ => {}
        }
    }

    /// Takes one whole FLV tag; appends what it adds to the body. The tag's timestamp may be changed in place.
    pub(crate) fn push(&mut self, info: &UnitInfo, tag: &mut [u8], out: &mut Vec<u8>) -> Taken {
        match self {
            Self::Flv { base_ms, metadata } => {
                if !in_flv_body(info, body_of(info, tag), metadata.as_deref()) {
                    return Taken::NotWanted;
                }
                flv::patch_timestamp(tag, flv::file_time_ms(info.dts_ms, *base_ms));
                out.extend_from_slice(tag);
                Taken::Yes
            }
            Self::Mp4(layout) => match layout.push(info, config_of(info, tag)) {
                mp4::Take::Yes => {
                    out.extend_from_slice(data_of(info, tag));
                    Taken::Yes
                }
                mp4::Take::NotAUnit => Taken::NotWanted,
                mp4::Take::Skip(reason) => Taken::Refused(reason),
                mp4::Take::NewFile(reason) => Taken::NewFile(reason),
            },
            Self::Aac { adts } => match (info.kind, info.codec) {
                (UnitKind::AudioConfig, Codec::Aac) => {
                    *adts = adts_of(data_of(info, tag));
                    Taken::NotWanted
                }
                (UnitKind::Audio, Codec::Aac) => {
                    let data = data_of(info, tag);
                    match adts.map(|adts| adts.header(data.len())) {
                        Ok(Some(header)) => {
                            out.extend_from_slice(&header);
                            out.extend_from_slice(data);
                            Taken::Yes
                        }
                        Ok(None) => Taken::Refused("too_long_for_adts"),
                        Err(reason) => Taken::Refused(reason),
                    }
                }
                (UnitKind::Audio, _) => Taken::Refused("codec_is_not_aac"),
                _ => Taken::NotWanted,
            },
            Self::Mp3 => match (info.kind, info.codec) {
                (UnitKind::Audio, Codec::Mp3) => {
                    out.extend_from_slice(data_of(info, tag));
                    Taken::Yes
                }
                (UnitKind::Audio, _) => Taken::Refused("codec_is_not_mp3"),
                _ => Taken::NotWanted,
            },
        }
    }
}

fn adts_of(config: &[u8]) -> Result<codec::aac::Adts, &'static str> {
    codec::aac::Config::parse(config)
        .and_then(|config| config.adts())
        .map_err(|_| "not_possible_in_adts")
}

/// Whether a tag stands in an FLV file's body, given the `onMetaData` in its head.
pub(crate) fn in_flv_body(info: &UnitInfo, body: &[u8], in_head: Option<&[u8]>) -> bool {
    flv::keeps(info.kind) || (info.kind == UnitKind::Metadata && flv::keeps_metadata(body, in_head))
}

/// The body of a whole FLV tag.
pub(crate) fn body_of<'a>(info: &UnitInfo, tag: &'a [u8]) -> &'a [u8] {
    tag.get(11..11 + info.body_len as usize).unwrap_or(&[])
}

/// The coded data within a whole FLV tag.
pub(crate) fn data_of<'a>(info: &UnitInfo, tag: &'a [u8]) -> &'a [u8] {
    body_of(info, tag).get(usize::from(info.header_len)..).unwrap_or(&[])
}

/// The decoder configuration within a whole FLV tag, where it is one.
pub(crate) fn config_of<'a>(info: &UnitInfo, tag: &'a [u8]) -> Option<&'a [u8]> {
    matches!(info.kind, UnitKind::VideoConfig | UnitKind::AudioConfig).then(|| data_of(info, tag))
}
