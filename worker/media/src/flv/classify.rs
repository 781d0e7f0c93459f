//! What a tag is, from its first bytes. FLV 10.1 §E.4.2, §E.4.3; Enhanced RTMP v2, "ExAudioTagHeader", "ExVideoTagHeader".
//!
//! Three ways to say HEVC are understood: FourCC `hvc1` of Enhanced RTMP, the codec id 12 that older
//! encoders use with AVC's packet layout, and `hvc1` behind a `ModEx` prefix.
//!
//! A tag without coded bytes (end of sequence, command frame, an AVC packet that is only a header) is
//! [`UnitKind::Other`]: so a unit or a configuration always has at least one byte behind its header.
//! So is a multitrack packet: its further tracks belong to no file but FLV, and must not be taken for
//! pictures of the main one.

use crate::access_unit::{Codec, UnitKind};

/// What a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// What the tag carries.
    pub kind: UnitKind,
    /// How it is coded.
    pub codec: Codec,
    /// True for a key picture and for every audio frame.
    pub key: bool,
    /// Presentation time less decode time, milliseconds, −2²³ to 2²³ − 1.
    pub cto_ms: i32,
    /// Bytes of the body in front of the coded data or the configuration record.
    pub header_len: u8,
}

impl Class {
    /// A tag that only FLV keeps.
    const OTHER: Self = Self {
        kind: UnitKind::Other,
        codec: Codec::Other,
        key: false,
        cto_ms: 0,
        header_len: 0,
    };

    const fn script(kind: UnitKind) -> Self {
        Self { kind, ..Self::OTHER }
    }
}

/// Says what a tag is; looks only at the first bytes, never fails.
///
/// `None` is a body of length zero: it says nothing, the caller drops and counts it.
#[must_use]
pub fn classify(tag_type: u8, body: &[u8]) -> Option<Class> {
    let (&first, rest) = body.split_first()?;
    let class = match tag_type {
        super::VIDEO if first & 0x80 != 0 => enhanced_video(first, body),
        super::VIDEO => legacy_video(first, rest),
        super::AUDIO if first >> 4 == 9 => enhanced_audio(first, body),
        super::AUDIO => legacy_audio(first, rest),
        super::SCRIPT if is_metadata(body) => Class::script(UnitKind::Metadata),
        super::SCRIPT => Class::script(UnitKind::Text),
        _ => Class::OTHER,
    };
    let bare = body.len() <= usize::from(class.header_len);
    Some(if bare { Class::OTHER } else { class })
}

/// True where a script tag's body is an `onMetaData` message.
#[must_use]
pub fn is_metadata(body: &[u8]) -> bool {
    body.starts_with(b"\x02\x00\x0aonMetaData")
}

/// FLV 10.1 §E.4.3.1: frame type and codec id share the first byte.
fn legacy_video(first: u8, rest: &[u8]) -> Class {
    let frame_type = first >> 4;
    if frame_type == 5 {
        return Class::OTHER; // command frame: a seek point, no picture
    }
    let key = frame_type == 1;
    let codec = match first & 0x0F {
        7 => Codec::Avc,
        12 => Codec::Hevc,
        _ => {
            return Class {
                kind: UnitKind::Video,
                codec: Codec::Other,
                key,
                cto_ms: 0,
                header_len: 1,
            };
        }
    };
    let Some(&[packet_type, c0, c1, c2]) = rest.first_chunk::<4>() else {
        return Class::OTHER;
    };
    match packet_type {
        0 => Class {
            kind: UnitKind::VideoConfig,
            codec,
            key: false,
            cto_ms: 0,
            header_len: 5,
        },
        1 => Class {
            kind: UnitKind::Video,
            codec,
            key,
            cto_ms: si24(c0, c1, c2),
            header_len: 5,
        },
        _ => Class::OTHER,
    }
}

/// FLV 10.1 §E.4.2.1: the sound format is the first byte's high half.
fn legacy_audio(first: u8, rest: &[u8]) -> Class {
    let unit = |codec, header_len| Class {
        kind: UnitKind::Audio,
        codec,
        key: true,
        cto_ms: 0,
        header_len,
    };
    match (first >> 4, rest.first()) {
        (10, Some(0)) => Class {
            kind: UnitKind::AudioConfig,
            key: false,
            ..unit(Codec::Aac, 2)
        },
        (10, Some(1)) => unit(Codec::Aac, 2),
        (10, _) => Class::OTHER,
        (2 | 14, _) => unit(Codec::Mp3, 1),
        _ => unit(Codec::Other, 1),
    }
}

/// `VideoPacketType` and `AudioPacketType` of Enhanced RTMP v2; the two agree where both have a value.
mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const CODED_FRAMES_X: u8 = 3;
    pub(super) const MOD_EX: u8 = 7;
}

fn enhanced_video(first: u8, body: &[u8]) -> Class {
    let frame_type = (first >> 4) & 7;
    let Some((packet_type, at)) = skip_mod_ex(first & 0x0F, body) else {
        return Class::OTHER;
    };
    if frame_type == 5 {
        return Class::OTHER;
    }
    let Some((four_cc, rest)) = four_cc(body, at) else {
        return Class::OTHER;
    };
    let codec = match four_cc {
        b"avc1" => Codec::Avc,
        b"hvc1" => Codec::Hevc,
        _ => Codec::Other,
    };
    // The composition time stands only where the codec's packets say so in the specification.
    let timed = matches!(four_cc, b"avc1" | b"hvc1" | b"vvc1");
    let key = frame_type == 1;
    let (kind, key, cto_ms, extra) = match packet_type {
        packet::SEQUENCE_START => (UnitKind::VideoConfig, false, 0, 0),
        packet::CODED_FRAMES if timed => match rest.first_chunk::<3>() {
            Some(&[c0, c1, c2]) => (UnitKind::Video, key, si24(c0, c1, c2), 3),
            None => return Class::OTHER,
        },
        packet::CODED_FRAMES | packet::CODED_FRAMES_X => (UnitKind::Video, key, 0, 0),
        _ => return Class::OTHER,
    };
    with_header(
        Class {
            kind,
            codec,
            key,
            cto_ms,
            header_len: 0,
        },
        at + 4 + extra,
    )
}

fn enhanced_audio(first: u8, body: &[u8]) -> Class {
    let Some((packet_type, at)) = skip_mod_ex(first & 0x0F, body) else {
        return Class::OTHER;
    };
    let Some((four_cc, _)) = four_cc(body, at) else {
        return Class::OTHER;
    };
    let codec = match four_cc {
        b"mp4a" => Codec::Aac,
        b".mp3" => Codec::Mp3,
        _ => Codec::Other,
    };
    let (kind, key) = match packet_type {
        packet::SEQUENCE_START => (UnitKind::AudioConfig, false),
        packet::CODED_FRAMES => (UnitKind::Audio, true),
        _ => return Class::OTHER,
    };
    with_header(
        Class {
            kind,
            codec,
            key,
            cto_ms: 0,
            header_len: 0,
        },
        at + 4,
    )
}

/// The packet type behind any `ModEx` prefixes, and where its FourCC begins. `None`: cut short, or multitrack.
///
/// Bounded by the body: each prefix takes at least three bytes of it.
fn skip_mod_ex(mut packet_type: u8, body: &[u8]) -> Option<(u8, usize)> {
    let mut at = 1usize;
    while packet_type == packet::MOD_EX {
        let mut len = usize::from(*body.get(at)?) + 1;
        at += 1;
        if len == 256 {
            let &[high, low] = body.get(at..)?.first_chunk::<2>()?;
            len = usize::from(u16::from_be_bytes([high, low])) + 1;
            at += 2;
        }
        at += len;
        packet_type = body.get(at)? & 0x0F;
        at += 1;
    }
    Some((packet_type, at))
}

fn four_cc(body: &[u8], at: usize) -> Option<(&[u8; 4], &[u8])> {
    body.get(at..)?.split_first_chunk::<4>()
}

/// A header of more than 255 bytes cannot be expressed: only FLV keeps such a tag.
fn with_header(class: Class, header_len: usize) -> Class {
    match u8::try_from(header_len) {
        Ok(header_len) => Class { header_len, ..class },
        Err(_) => Class::OTHER,
    }
}

/// A signed 24-bit number, big-endian.
fn si24(b0: u8, b1: u8, b2: u8) -> i32 {
    i32::from_be_bytes([b0, b1, b2, 0]) >> 8
}

#[cfg(test)]
mod tests {
    use super::super::{AUDIO, SCRIPT, VIDEO};
    use super::*;

    fn class(kind: UnitKind, codec: Codec, key: bool, cto_ms: i32, header_len: u8) -> Option<Class> {
        Some(Class {
            kind,
            codec,
            key,
            cto_ms,
            header_len,
        })
    }

    #[test]
    fn every_packaging_of_pictures_is_known() {
        use UnitKind::{Video, VideoConfig};
        let cases: [(&[u8], Option<Class>); 16] = [
            (b"\x17\x00\x00\x00\x00\x01", class(VideoConfig, Codec::Avc, false, 0, 5)),
            (b"\x17\x01\x00\x00\x50\x00", class(Video, Codec::Avc, true, 80, 5)),
            (b"\x27\x01\xFF\xFF\xFF\x00", class(Video, Codec::Avc, false, -1, 5)),
            (
                b"\x37\x01\x80\x00\x00\x00",
                class(Video, Codec::Avc, false, -8_388_608, 5),
            ),
            (
                b"\x1C\x00\x00\x00\x00\x01",
                class(VideoConfig, Codec::Hevc, false, 0, 5),
            ),
            (
                b"\x2C\x01\x7F\xFF\xFF\x00",
                class(Video, Codec::Hevc, false, 8_388_607, 5),
            ),
            (b"\x12\x00", class(Video, Codec::Other, true, 0, 1)),
            (b"\x90hvc1\x01", class(VideoConfig, Codec::Hevc, false, 0, 5)),
            (b"\x91hvc1\x00\x00\x28\x00", class(Video, Codec::Hevc, true, 40, 8)),
            (b"\xA1hvc1\xFF\xFF\xD8\x00", class(Video, Codec::Hevc, false, -40, 8)),
            (b"\xA3hvc1\x00", class(Video, Codec::Hevc, false, 0, 5)),
            (b"\x91avc1\x00\x00\x28\x00", class(Video, Codec::Avc, true, 40, 8)),
            (b"\x91av01\x00", class(Video, Codec::Other, true, 0, 5)),
            (b"\x90vp09\x01", class(VideoConfig, Codec::Other, false, 0, 5)),
            (b"\x97\x00\xAA\x03hvc1\x00", class(Video, Codec::Hevc, true, 0, 8)),
            (
                b"\x97\x01\xAA\xBB\x17\x00\xCC\x01hvc1\x00\x00\x01\x00",
                class(Video, Codec::Hevc, true, 1, 15),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(classify(VIDEO, body), expected, "{body:02x?}");
        }
    }

    #[test]
    fn every_packaging_of_sound_is_known() {
        use UnitKind::{Audio, AudioConfig};
        let cases: [(&[u8], Option<Class>); 8] = [
            (b"\xAF\x00\x12\x10", class(AudioConfig, Codec::Aac, false, 0, 2)),
            (b"\xAF\x01\x21", class(Audio, Codec::Aac, true, 0, 2)),
            (b"\x2F\xFF", class(Audio, Codec::Mp3, true, 0, 1)),
            (b"\xE2\xFF", class(Audio, Codec::Mp3, true, 0, 1)),
            (b"\x72\x00", class(Audio, Codec::Other, true, 0, 1)),
            (b"\x90mp4a\x12", class(AudioConfig, Codec::Aac, false, 0, 5)),
            (b"\x91.mp3\xFF", class(Audio, Codec::Mp3, true, 0, 5)),
            (b"\x91Opus\x00", class(Audio, Codec::Other, true, 0, 5)),
        ];
        for (body, expected) in cases {
            assert_eq!(classify(AUDIO, body), expected, "{body:02x?}");
        }
    }

    #[test]
    fn what_has_no_coded_bytes_is_no_unit() {
        let pictures: [&[u8]; 14] = [
            b"\x17",                         // cut short
            b"\x17\x01\x00\x00",             // cut short
            b"\x17\x01\x00\x00\x00",         // only a header
            b"\x17\x00\x00\x00\x00",         // an empty configuration
            b"\x17\x02\x00\x00\x00",         // end of sequence
            b"\x17\x09\x00\x00\x00\x01",     // no such packet
            b"\x57\x00",                     // command frame
            b"\x92hvc1",                     // end of sequence
            b"\xD1hvc1\x00\x00\x00\x00",     // command frame
            b"\x94hvc1\x00",                 // HDR metadata
            b"\x96\x01hvc1\x00",             // multitrack
            b"\x91hvc1\x00\x00",             // cut short
            b"\x97\x05\x00",                 // a prefix that ends nowhere
            b"\x97\xFF\xFF\xFF\x00\x00\x00", // likewise
        ];
        for body in pictures {
            assert_eq!(classify(VIDEO, body), Some(Class::OTHER), "{body:02x?}");
        }
        let sounds: [&[u8]; 7] = [
            b"\xAF",
            b"\xAF\x00",
            b"\xAF\x01",
            b"\xAF\x02\x00",
            b"\x2F",
            b"\x92mp4a",
            b"\x95\x00mp4a\x00",
        ];
        for body in sounds {
            assert_eq!(classify(AUDIO, body), Some(Class::OTHER), "{body:02x?}");
        }
        for tag_type in [AUDIO, VIDEO, SCRIPT] {
            assert_eq!(classify(tag_type, b""), None);
        }
    }

    #[test]
    fn a_header_too_long_to_say_leaves_the_tag_to_flv() {
        let mut body = alloc::vec![0x97, 249];
        body.extend([0; 250]);
        body.extend(b"\x03hvc1\x00");
        assert_eq!(classify(VIDEO, &body), Some(Class::OTHER));
        body.remove(2);
        body[1] = 247;
        body.remove(2);
        assert_eq!(
            classify(VIDEO, &body),
            class(UnitKind::Video, Codec::Hevc, true, 0, 255)
        );
    }

    #[test]
    fn script_data_is_metadata_or_text() {
        assert_eq!(
            classify(SCRIPT, b"\x02\x00\x0aonMetaData\x05"),
            Some(Class::script(UnitKind::Metadata))
        );
        assert_eq!(
            classify(SCRIPT, b"\x02\x00\x0aonTextData\x05"),
            Some(Class::script(UnitKind::Text))
        );
        assert_eq!(classify(SCRIPT, b"\x05"), Some(Class::script(UnitKind::Text)));
        assert_eq!(classify(15, b"\x05"), Some(Class::OTHER));
    }
}
