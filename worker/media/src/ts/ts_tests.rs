use super::*;
use alloc::{vec, vec::Vec};
use mpeg2ts::pes::{PesPacketReader, ReadPesPacket};
use mpeg2ts::ts::{ReadTsPacket, TsPacketReader, TsPayload};
use proptest::prelude::*;

const SPS: [u8; 8] = [0x67, 0x64, 0, 0x1F, 0xAC, 1, 2, 3];
const PPS: [u8; 4] = [0x68, 0xEB, 0xE3, 0xCB];
const BOTH: Tracks = Tracks {
    video: true,
    audio: true,
};

fn avc_config(length_size: u8) -> Vec<u8> {
    let head = [1, 0x64, 0, 0x1F, 0xFC | (length_size - 1), 0xE1, 0, 8];
    [&head[..], &SPS, &[1, 0, 4], &PPS].concat()
}

fn muxer(length_size: u8) -> Muxer {
    let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
    muxer
        .set_config(Codec::Avc, Track::Video, &avc_config(length_size))
        .unwrap();
    muxer.set_config(Codec::Aac, Track::Audio, &[0x12, 0x10]).unwrap();
    muxer
}

fn nal(length_size: usize, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - length_size..], bytes].concat()
}

fn video(dts_ms: i64, cto_ms: i32, key: bool, data: &[u8]) -> AccessUnit<'_> {
    AccessUnit {
        track: Track::Video,
        codec: Codec::Avc,
        dts_ms,
        cto_ms,
        key,
        data,
    }
}

fn audio(dts_ms: i64, data: &[u8]) -> AccessUnit<'_> {
    AccessUnit {
        track: Track::Audio,
        codec: Codec::Aac,
        dts_ms,
        cto_ms: 0,
        key: true,
        data,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Pes {
    stream_id: u8,
    pts: u64,
    dts: Option<u64>,
    data: Vec<u8>,
}

/// Reads with an independent demuxer, and checks what it does not: counters and the clock's pace.
fn demux(ts: &[u8]) -> Vec<Pes> {
    check_packets(ts);
    let mut reader = PesPacketReader::new(TsPacketReader::new(ts));
    let mut found = Vec::new();
    while let Some(pes) = reader.read_pes_packet().unwrap() {
        found.push(Pes {
            stream_id: pes.header.stream_id.as_u8(),
            pts: pes.header.pts.unwrap().as_u64(),
            dts: pes.header.dts.map(|dts| dts.as_u64()),
            data: pes.data,
        });
    }
    found
}

fn check_packets(ts: &[u8]) {
    assert_eq!(ts.len() % PACKET_LEN, 0);
    let mut reader = TsPacketReader::new(ts);
    let mut counters = [None::<u8>; 0x2000];
    let mut clock = None::<u64>;
    let mut index = 0;
    while let Some(packet) = reader.read_ts_packet().unwrap() {
        let pid = packet.header.pid.as_u16() as usize;
        let counter = packet.header.continuity_counter.as_u8();
        let field = packet.adaptation_field.as_ref();
        let broken = field.is_some_and(|field| field.discontinuity_indicator);
        if let Some(last) = counters[pid].filter(|_| !broken) {
            let step = u8::from(packet.payload.is_some());
            assert_eq!(counter, (last + step) & 15, "packet {index} of PID {pid}");
        }
        counters[pid] = Some(counter);
        if let Some(pcr) = field.and_then(|field| field.pcr) {
            let pcr = pcr.as_u64() / 300;
            if let Some(last) = clock.filter(|_| !broken) {
                assert!(
                    pcr.wrapping_sub(last) & 0x1_FFFF_FFFF <= 9000,
                    "packet {index}: {last} to {pcr}"
                );
            }
            clock = Some(pcr);
        }
        match index {
            0 => assert!(matches!(packet.payload, Some(TsPayload::Pat(_)))),
            1 => assert!(matches!(packet.payload, Some(TsPayload::Pmt(_)))),
            _ => {}
        }
        index += 1;
    }
}

#[test]
fn a_key_picture_gets_a_delimiter_and_parameter_sets() {
    for length_size in [1usize, 2, 4] {
        let mut muxer = muxer(length_size as u8);
        let mut out = Vec::new();
        muxer.start_segment(BOTH, &mut out);
        let key = [nal(length_size, &[6, 5, 1]), nal(length_size, &[0x65; 200])].concat();
        muxer.push(&video(40, 80, true, &key), &mut out).unwrap();
        let other = nal(length_size, &[0x41, 9]);
        muxer.push(&video(80, 0, false, &other), &mut out).unwrap();
        let code: &[u8] = &[0, 0, 0, 1];
        let annex_b = [
            code,
            &[9, 0xF0],
            code,
            &SPS,
            code,
            &PPS,
            code,
            &[6, 5, 1],
            code,
            &[0x65; 200],
        ]
        .concat();
        let found = demux(&out);
        assert_eq!(
            found[0],
            Pes {
                stream_id: 0xE0,
                pts: 90_000 + 10_800,
                dts: Some(90_000 + 3_600),
                data: annex_b
            }
        );
        assert_eq!(found[1].data, [code, &[9, 0xF0], code, &[0x41, 9]].concat());
        assert_eq!((found[1].pts, found[1].dts), (90_000 + 7_200, None));
    }
}

#[test]
fn what_a_picture_brings_along_is_not_doubled() {
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    let units = [&[9, 0x10][..], &SPS, &PPS, &[0x65, 1]];
    let with_sets: Vec<u8> = units.iter().flat_map(|unit| nal(4, unit)).collect();
    muxer.push(&video(0, 0, true, &with_sets), &mut out).unwrap();
    let delimited: Vec<u8> = [&[9, 0x10][..], &[0x65, 1]]
        .iter()
        .flat_map(|unit| nal(4, unit))
        .collect();
    muxer.push(&video(40, 0, true, &delimited), &mut out).unwrap();
    let code: &[u8] = &[0, 0, 0, 1];
    let found = demux(&out);
    assert_eq!(
        found[0].data,
        [code, &[9, 0x10], code, &SPS, code, &PPS, code, &[0x65, 1]].concat()
    );
    assert_eq!(found[1].data, found[0].data);
}

#[test]
fn aac_stands_behind_its_header_and_mp3_as_it_is() {
    let mut muxer = Muxer::new(State::new(0));
    muxer.set_config(Codec::Aac, Track::Audio, &[0x12, 0x10]).unwrap();
    let mut out = Vec::new();
    muxer.start_segment(
        Tracks {
            video: false,
            audio: true,
        },
        &mut out,
    );
    muxer.push(&audio(1000, &[7; 364]), &mut out).unwrap();
    let mp3 = [[0xFF, 0xFB, 0x90, 0x64].to_vec(), vec![0; 413]].concat();
    muxer.set_config(Codec::Mp3, Track::Audio, &mp3).unwrap();
    let unit = AccessUnit {
        codec: Codec::Mp3,
        ..audio(1024, &mp3)
    };
    muxer.push(&unit, &mut out).unwrap();
    let found = demux(&out);
    assert_eq!(
        found[0].data,
        [&[0xFF, 0xF1, 0x50, 0x80, 0x2E, 0x7F, 0xFC][..], &[7; 364]].concat()
    );
    assert_eq!((found[0].stream_id, found[0].pts), (0xC0, 90_000));
    assert_eq!(found[1].data, mp3);
}

#[test]
fn every_length_fills_whole_packets() {
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    let mut expected = Vec::new();
    for len in 1..800usize {
        let picture = vec![0x41; len];
        let unit = nal(4, &picture);
        muxer
            .push(&video(len as i64 * 7, (len % 3) as i32, len % 5 == 0, &unit), &mut out)
            .unwrap();
        let sound = vec![3; len];
        muxer.push(&audio(len as i64 * 7, &sound), &mut out).unwrap();
        expected.extend([picture, sound]);
    }
    let found = demux(&out);
    assert_eq!(found.len(), expected.len());
    // The reader gives a picture when it is over: order by stream.
    for (stream_id, parity) in [(0xE0, 0), (0xC0, 1)] {
        let of_stream = found.iter().filter(|pes| pes.stream_id == stream_id);
        for (pes, data) in of_stream.zip(expected.iter().skip(parity).step_by(2)) {
            assert!(pes.data.ends_with(data));
        }
    }
}

#[test]
fn a_picture_too_long_for_the_length_field_says_0() {
    let mut muxer = muxer(4);
    for (len, says) in [(65_520, Some(65_535)), (65_521, Some(0)), (300_000, Some(0))] {
        let mut out = Vec::new();
        muxer.start_segment(BOTH, &mut out);
        // 8 of PES header behind the length, 6 of delimiter, 4 of start code, and the unit.
        let picture = vec![0x41; len - 3];
        let unit = nal(4, &picture);
        muxer.push(&video(0, 0, false, &unit), &mut out).unwrap();
        let pes = out.windows(4).position(|bytes| bytes == [0, 0, 1, 0xE0]).unwrap();
        assert_eq!(Some(u16::from_be_bytes([out[pes + 4], out[pes + 5]])), says, "{len}");
        assert!(demux(&out)[0].data.ends_with(&picture));
    }
}

#[test]
fn an_error_leaves_output_and_state_alone() {
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    let (before, state) = (out.clone(), muxer.state());
    let cases: [(AccessUnit<'_>, TsError); 5] = [
        (
            video(0, 0, true, &[0, 0, 0, 9, 1]),
            CodecError::Truncated("NAL unit").into(),
        ),
        (
            video(0, 0, true, &[0, 0, 0, 0]),
            CodecError::Invalid("access unit without NAL units").into(),
        ),
        (
            AccessUnit {
                codec: Codec::Hevc,
                ..video(0, 0, true, &[0, 0, 0, 1, 1])
            },
            TsError::NoConfig,
        ),
        (
            AccessUnit {
                codec: Codec::Mp3,
                ..audio(0, &[1])
            },
            TsError::NoConfig,
        ),
        (audio(0, &[0; 9000]), TsError::TooLong(9000)),
    ];
    for (unit, error) in cases {
        assert_eq!(muxer.push(&unit, &mut out), Err(error));
        assert_eq!((&out, muxer.state()), (&before, state));
    }
    assert!(muxer.set_config(Codec::Avc, Track::Video, &[1, 2]).is_err());
    assert!(muxer.set_config(Codec::Aac, Track::Video, &[0x12, 0x10]).is_err());
    assert!(
        muxer.push(&video(0, 0, true, &[0, 0, 0, 1, 0x65]), &mut out).is_ok(),
        "the configuration stays"
    );
    let mp3 = [[0xFF, 0xFB, 0x90, 0x64].to_vec(), vec![0; 70_000]].concat();
    muxer.set_config(Codec::Mp3, Track::Audio, &mp3).unwrap();
    let long = AccessUnit {
        codec: Codec::Mp3,
        ..audio(0, &mp3)
    };
    assert_eq!(muxer.push(&long, &mut out), Err(TsError::TooLong(70_004)));
}

#[test]
fn counters_go_on_across_segments_and_restarts() {
    let picture = nal(4, &[0x65; 1000]);
    let mut whole = Vec::new();
    let mut muxer = muxer(4);
    for n in 0..20 {
        if n % 5 == 0 {
            muxer.start_segment(BOTH, &mut whole);
        }
        muxer.push(&video(n * 40, 0, n % 5 == 0, &picture), &mut whole).unwrap();
        muxer.push(&audio(n * 40, &[1; 100]), &mut whole).unwrap();
        let mut next = Muxer::new(muxer.state());
        next.set_config(Codec::Avc, Track::Video, &avc_config(4)).unwrap();
        next.set_config(Codec::Aac, Track::Audio, &[0x12, 0x10]).unwrap();
        muxer = next;
    }
    assert_eq!(demux(&whole).len(), 40);
}

#[test]
fn a_track_that_appears_late_is_announced() {
    let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
    muxer.set_config(Codec::Aac, Track::Audio, &[0x12, 0x10]).unwrap();
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    muxer.push(&audio(0, &[1; 100]), &mut out).unwrap();
    muxer.set_config(Codec::Avc, Track::Video, &avc_config(4)).unwrap();
    muxer.push(&video(10, 0, true, &nal(4, &[0x65; 10])), &mut out).unwrap();
    muxer.push(&audio(23, &[1; 100]), &mut out).unwrap();
    let mut reader = TsPacketReader::new(&out[..]);
    let mut maps = Vec::new();
    while let Some(packet) = reader.read_ts_packet().unwrap() {
        if let Some(TsPayload::Pmt(pmt)) = packet.payload {
            maps.push((
                pmt.version_number.as_u8(),
                pmt.es_info.len(),
                pmt.pcr_pid.unwrap().as_u16(),
            ));
        }
    }
    assert_eq!(maps, [(0, 1, AUDIO_PID), (1, 2, VIDEO_PID)]);
}

#[test]
fn pauses_are_filled_with_clock_packets_and_long_ones_marked() {
    let picture = nal(4, &[0x65; 10]);
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    for dts_ms in [0, 40, 1000, 9000, 3_600_000, 3_600_040, 3_600_500] {
        muxer.push(&video(dts_ms, 0, true, &picture), &mut out).unwrap();
    }
    assert_eq!(demux(&out).len(), 7);
    assert!(out.len() / PACKET_LEN < 130);
}

#[test]
fn sound_drives_the_clock_while_pictures_are_silent() {
    let picture = nal(4, &[0x65; 10]);
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    muxer.push(&video(0, 0, true, &picture), &mut out).unwrap();
    for n in 0..3000 {
        muxer.push(&audio(n * 23, &[1; 10]), &mut out).unwrap();
    }
    muxer.push(&video(69_000, 0, true, &picture), &mut out).unwrap();
    assert_eq!(
        muxer.state().clock_90k,
        Some(69_000 * 90 + DEFAULT_OFFSET_90K - CLOCK_LEAD_90K)
    );
    demux(&out);
}

#[test]
fn a_discontinuity_is_marked_once_on_each_track() {
    let picture = nal(4, &[0x65; 10]);
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    muxer.push(&video(900_000, 0, true, &picture), &mut out).unwrap();
    muxer.mark_discontinuity();
    muxer.start_segment(BOTH, &mut out);
    for n in 0..3 {
        muxer.push(&audio(n * 23, &[1; 10]), &mut out).unwrap();
        muxer.push(&video(n * 23, 0, true, &picture), &mut out).unwrap();
    }
    let mut reader = TsPacketReader::new(&out[..]);
    let mut marked = Vec::new();
    while let Some(packet) = reader.read_ts_packet().unwrap() {
        if packet
            .adaptation_field
            .is_some_and(|field| field.discontinuity_indicator)
        {
            marked.push(packet.header.pid.as_u16());
        }
    }
    assert_eq!(marked, [AUDIO_PID, VIDEO_PID]);
    demux(&out);
}

#[test]
fn times_wrap_at_33_bits() {
    let picture = nal(4, &[0x65; 10]);
    let mut muxer = muxer(4);
    let mut out = Vec::new();
    muxer.start_segment(BOTH, &mut out);
    let wrap_ms = (1i64 << 33) / 90;
    for n in -5..5 {
        muxer
            .push(&video(wrap_ms - 1000 + n * 40, 40, true, &picture), &mut out)
            .unwrap();
    }
    for (pes, n) in demux(&out).iter().zip(-5i64..) {
        let dts = ((wrap_ms - 1000 + n * 40) * 90 + 90_000) & 0x1_FFFF_FFFF;
        assert_eq!(pes.dts, Some(dts as u64));
        assert_eq!(pes.pts, (dts as u64 + 3600) & 0x1_FFFF_FFFF);
    }
}

proptest! {
    #[test]
    fn whatever_comes_the_packets_are_right_and_the_units_whole(
        units in prop::collection::vec((any::<bool>(), any::<bool>(), 0i64..600, -200i32..200, 1usize..2000), 1..60),
        start in 0i64..1 << 40,
    ) {
        let mut muxer = muxer(2);
        let mut out = Vec::new();
        muxer.start_segment(BOTH, &mut out);
        let mut at = [start; 2];
        let mut expected = [Vec::new(), Vec::new()];
        for (is_video, key, step, cto_ms, len) in units {
            let at = &mut at[usize::from(is_video)];
            *at += step;
            let time = ((*at + if is_video { i64::from(cto_ms) } else { 0 }) * 90 + DEFAULT_OFFSET_90K) & 0x1_FFFF_FFFF;
            let data = if is_video { vec![0x41; len] } else { vec![5; len] };
            if is_video {
                muxer.push(&video(*at, cto_ms, key, &nal(2, &data)), &mut out).unwrap();
            } else {
                muxer.push(&audio(*at, &data), &mut out).unwrap();
            }
            expected[usize::from(is_video)].push((time as u64, data));
        }
        let found = demux(&out);
        for (stream_id, expected) in [(0xC0, &expected[0]), (0xE0, &expected[1])] {
            let of_stream: Vec<_> = found.iter().filter(|pes| pes.stream_id == stream_id).collect();
            prop_assert_eq!(of_stream.len(), expected.len());
            for (pes, (pts, data)) in of_stream.iter().zip(expected) {
                prop_assert_eq!(pes.pts, *pts);
                prop_assert!(pes.data.ends_with(data));
            }
        }
    }

    #[test]
    fn any_bytes_are_written_or_refused(data in prop::collection::vec(any::<u8>(), 0..100), size in 1u8..4, key: bool, hevc: bool) {
        let mut muxer = muxer(if size == 3 { 4 } else { size });
        let mut out = Vec::new();
        let codec = if hevc { Codec::Hevc } else { Codec::Avc };
        let _ = muxer.push(&AccessUnit { codec, ..video(0, 0, key, &data) }, &mut out);
        let _ = muxer.set_config(codec, Track::Video, &data);
        let _ = muxer.set_config(Codec::Aac, Track::Audio, &data);
        let _ = muxer.set_config(Codec::Mp3, Track::Audio, &data);
        let _ = muxer.push(&AccessUnit { codec, ..video(0, 0, key, &data) }, &mut out);
        prop_assert_eq!(out.len() % PACKET_LEN, 0);
    }
}
