//! Units and decoder configurations to push.

use media::access_unit::{Codec, UnitInfo, UnitKind};

use crate::roundtrip::Pushed;

/// AAC-LC, 48 kHz, stereo.
pub(crate) const AAC_LC: [u8; 2] = [0x11, 0x90];

pub(crate) fn avc(dts_ms: i64, cto_ms: i32, key: bool, size: u32) -> UnitInfo {
    let (kind, codec, body_len) = (UnitKind::Video, Codec::Avc, size + 5);
    UnitInfo {
        kind,
        codec,
        key,
        dts_ms,
        cto_ms,
        body_len,
        header_len: 5,
        arrival_ms: dts_ms,
    }
}

pub(crate) fn hevc(dts_ms: i64, cto_ms: i32, key: bool, size: u32) -> UnitInfo {
    UnitInfo {
        codec: Codec::Hevc,
        ..avc(dts_ms, cto_ms, key, size)
    }
}

pub(crate) fn aac(dts_ms: i64, size: u32) -> UnitInfo {
    let (kind, codec, body_len) = (UnitKind::Audio, Codec::Aac, size + 2);
    UnitInfo {
        kind,
        codec,
        key: true,
        dts_ms,
        cto_ms: 0,
        body_len,
        header_len: 2,
        arrival_ms: dts_ms,
    }
}

pub(crate) fn mp3(dts_ms: i64, size: u32) -> UnitInfo {
    UnitInfo {
        codec: Codec::Mp3,
        body_len: size + 1,
        header_len: 1,
        ..aac(dts_ms, size)
    }
}

pub(crate) fn config(codec: Codec, dts_ms: i64, record: &[u8]) -> Pushed {
    let video = matches!(codec, Codec::Avc | Codec::Hevc);
    let kind = if video {
        UnitKind::VideoConfig
    } else {
        UnitKind::AudioConfig
    };
    let body_len = u32::try_from(record.len()).unwrap() + 5;
    let unit = UnitInfo {
        kind,
        codec,
        key: false,
        dts_ms,
        cto_ms: 0,
        body_len,
        header_len: 5,
        arrival_ms: dts_ms,
    };
    (unit, Some(record.to_vec()))
}

/// A baseline record with one parameter set each; `variant` makes them differ.
pub(crate) fn avcc(variant: u8) -> Vec<u8> {
    vec![
        1, 66, 0, 30, 0xff, 0xe1, 0, 4, 0x67, 66, 0, variant, 1, 0, 2, 0x68, 0xce,
    ]
}

/// A record with one array of one parameter set.
pub(crate) fn hvcc(variant: u8) -> Vec<u8> {
    let mut record = vec![
        1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 1,
    ];
    record.extend([0x80 | 32, 0, 1, 0, 3, 0x40, 1, variant]);
    record
}
