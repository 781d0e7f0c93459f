//! Codec configurations and the units that go with them: read or refused, and never a broken transport stream.
//!
//! The input: one byte, the length of a configuration; the configuration; an access unit.

use media::access_unit::{AccessUnit, Codec, Track};
use media::codec::{aac, avc, hevc, mp3, nal::NalUnits};
use media::ts::{DEFAULT_OFFSET_90K, Muxer, PACKET_LEN, State, Tracks};

pub fn codec_config(data: &[u8]) {
    let Some((&len, rest)) = data.split_first() else {
        return;
    };
    let (config, unit) = rest.split_at(usize::from(len).min(rest.len()));
    parse(config);
    for length_size in 0..=4 {
        let nals: Vec<_> = NalUnits::new(unit, length_size).collect();
        let errors = nals.iter().filter(|nal| nal.is_err()).count();
        assert!(errors == 0 || (errors == 1 && nals.last().is_some_and(Result::is_err)));
        assert!(nals.iter().flatten().map(|nal| nal.len()).sum::<usize>() <= unit.len());
    }
    for (codec, track) in [
        (Codec::Avc, Track::Video),
        (Codec::Hevc, Track::Video),
        (Codec::Aac, Track::Audio),
        (Codec::Mp3, Track::Audio),
        (Codec::Other, Track::Audio),
    ] {
        mux(codec, track, config, unit);
    }
}

fn parse(config: &[u8]) {
    if let Ok(avc) = avc::Config::parse(config) {
        let _ = avc.picture_size();
        assert!(avc.codec_name().starts_with("avc1.") && matches!(avc.length_size, 1 | 2 | 4));
        assert!(!avc.sps.is_empty());
    }
    if let Ok(hevc) = hevc::Config::parse(config) {
        let _ = hevc.picture_size();
        assert!(hevc.codec_name().starts_with("hvc1.") && matches!(hevc.length_size, 1 | 2 | 4));
    }
    let _ = avc::picture_size(config);
    let _ = hevc::picture_size(config);
    if let Ok(aac) = aac::Config::parse(config) {
        assert!(aac.core_rate > 0 && aac.output_rate > 0 && aac.channels() <= 8 && aac.output_samples() <= 2048);
        assert!(aac.codec_name().starts_with("mp4a.40."));
        if let Ok(adts) = aac.adts() {
            let header = adts.header(config.len()).expect("short");
            assert_eq!(&header[..2], &[0xFF, 0xF1]);
        }
    }
    if let Ok(mp3) = mp3::FrameHeader::parse(config) {
        assert!((8000..=48_000).contains(&mp3.sample_rate) && (1..=2).contains(&mp3.channels));
    }
}

/// Bytes that the unit has in a transport stream at least. Empty NAL units are left out there.
fn coded_len(codec: Codec, config: &[u8], data: &[u8]) -> usize {
    let length_size = match codec {
        Codec::Avc => avc::Config::parse(config).map(|config| config.length_size),
        Codec::Hevc => hevc::Config::parse(config).map(|config| config.length_size),
        _ => return data.len(),
    };
    let nals = NalUnits::new(data, length_size.expect("it was set"));
    nals.flatten().map(|nal| nal.len() + 4).sum()
}

/// Pushes the unit a few times and checks the packets' frame: counters, starts, whole numbers.
fn mux(codec: Codec, track: Track, config: &[u8], data: &[u8]) {
    let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
    if muxer.set_config(codec, track, config).is_err() {
        return;
    }
    let mut out = Vec::new();
    muxer.start_segment(
        Tracks {
            video: true,
            audio: true,
        },
        &mut out,
    );
    let mut written = 0;
    for (dts_ms, key) in [(0, true), (40, false), (500, true)] {
        let (before, state) = (out.len(), muxer.state());
        let unit = AccessUnit {
            track,
            codec,
            dts_ms,
            cto_ms: 0,
            key,
            data,
        };
        if muxer.push(&unit, &mut out).is_ok() {
            written += 1;
            assert!(out.len() > before + coded_len(codec, config, data));
        } else {
            assert_eq!((before, state), (out.len(), muxer.state()), "nothing happened");
        }
    }
    assert_eq!(out.len() % PACKET_LEN, 0);
    let (mut starts, mut counter) = (0, None::<u8>);
    for packet in out.chunks(PACKET_LEN).skip(2) {
        assert_eq!(packet[0], 0x47);
        starts += u32::from(packet[1] & 0x40 != 0);
        let step = packet[3] >> 4 & 1;
        assert!(counter.is_none_or(|last| packet[3] & 15 == (last + step) & 15));
        counter = Some(packet[3] & 15);
    }
    assert_eq!(starts, written);
}
