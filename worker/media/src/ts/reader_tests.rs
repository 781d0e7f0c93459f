use super::super::{DEFAULT_OFFSET_90K, Muxer, State, Tracks};
use super::*;
use crate::access_unit::AccessUnit;
use alloc::vec;
use proptest::prelude::*;

const AVC_SPS: &[u8] = &[0x67, 0x42, 0, 0x1F, 0xAC, 1, 2, 3];
const AVC_PPS: &[u8] = &[0x68, 0xEB, 0xE3, 0xCB];
const HEVC_VPS: &[u8] = &[0x40, 1, 9];
/// 1920x1080, Main, level 4.
const HEVC_SPS: &[u8] = &[
    0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x78, 0xA0,
    0x03, 0xC0, 0x80, 0x10, 0xE5, 0x96, 0x56, 0x69, 0x24, 0xCA, 0xF0, 0x16, 0x80, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80,
    0x00, 0x00, 0x05, 0x04,
];
const HEVC_PPS: &[u8] = &[0x44, 1, 7];

fn avc_config() -> Vec<u8> {
    avc::record(&[AVC_SPS], &[AVC_PPS]).unwrap()
}

fn hevc_config() -> Vec<u8> {
    hevc::record(&[HEVC_VPS], &[HEVC_SPS], &[HEVC_PPS]).unwrap()
}

fn nal(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// What a picture may begin with: nothing, delimiters like ours and others, parameter sets, all in any order.
fn front(codec: Codec, kind: u8) -> &'static [u8] {
    match (codec, kind % 8) {
        (Codec::Hevc, 1) => &[0x46, 1, 0x50],
        (Codec::Hevc, 2) => &[0x46, 1, 0x10],
        (Codec::Hevc, 3) => HEVC_VPS,
        (Codec::Hevc, 4) => HEVC_SPS,
        (Codec::Hevc, 5) => HEVC_PPS,
        (Codec::Hevc, 6) => &[0x4E, 1, 5],
        (_, 1) => &[9, 0xF0],
        (_, 2) => &[9, 0x10],
        (_, 3 | 4) => AVC_SPS,
        (_, 5) => AVC_PPS,
        (_, 6) => &[6, 5, 1],
        _ => &[],
    }
}

fn read(segments: &[(i64, Vec<u8>)]) -> Result<Vec<Unit>, Unreadable> {
    let mut demuxer = Demuxer::new();
    let mut found = Vec::new();
    for (near_ms, bytes) in segments {
        demuxer.start_segment(*near_ms);
        let (packets, rest) = bytes.as_chunks::<PACKET_LEN>();
        assert!(rest.is_empty());
        for packet in packets {
            found.extend(demuxer.push(packet)?);
        }
        found.extend(demuxer.end_segment()?);
    }
    Ok(found)
}

struct Writer {
    muxer: Muxer,
    segments: Vec<(i64, Vec<u8>)>,
}

impl Writer {
    fn new(video: (Codec, &[u8]), audio: (Codec, &[u8])) -> Self {
        let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
        muxer.set_config(video.0, Track::Video, video.1).unwrap();
        muxer.set_config(audio.0, Track::Audio, audio.1).unwrap();
        Self {
            muxer,
            segments: Vec::new(),
        }
    }

    fn segment(&mut self, near_ms: i64) {
        let mut out = Vec::new();
        let both = Tracks {
            video: true,
            audio: true,
        };
        self.muxer.start_segment(both, &mut out);
        self.segments.push((near_ms, out));
    }

    fn unit(&mut self, unit: &AccessUnit<'_>) {
        let (_, out) = self.segments.last_mut().unwrap();
        self.muxer.push(unit, out).unwrap();
    }
}

fn picture(dts_ms: i64, key: bool, data: &[u8]) -> AccessUnit<'_> {
    AccessUnit {
        track: Track::Video,
        codec: Codec::Avc,
        dts_ms,
        cto_ms: 0,
        key,
        data,
    }
}

fn avc_writer() -> Writer {
    Writer::new((Codec::Avc, &avc_config()), (Codec::Aac, &[0x12, 0x10]))
}

proptest! {
    #[test]
    fn what_was_pushed_comes_back(
        units in prop::collection::vec(
            (any::<bool>(), any::<bool>(), 0i64..600, -200i32..200, prop::collection::vec(0u8..8, 0..5), 1usize..800),
            1..40,
        ),
        start in 0i64..1 << 40,
        is_hevc: bool,
        is_mp3: bool,
    ) {
        let (video, config) = if is_hevc { (Codec::Hevc, hevc_config()) } else { (Codec::Avc, avc_config()) };
        let mp3 = [0xFF, 0xFB, 0x90, 0x64];
        let audio = if is_mp3 { (Codec::Mp3, &mp3[..]) } else { (Codec::Aac, &[0x12, 0x10][..]) };
        let mut writer = Writer::new((video, &config), audio);
        let (mut at, mut first, mut pushed) = ([start; 2], None, Vec::new());
        let (mut said_video, mut said_audio) = (false, false);
        for (number, (is_video, key, step, cto_ms, fronts, len)) in units.into_iter().enumerate() {
            let dts_ms = at[usize::from(is_video)] + step;
            at[usize::from(is_video)] = dts_ms;
            let zero = *first.get_or_insert(dts_ms);
            if number % 9 == 0 {
                writer.segment(dts_ms - zero);
            }
            let slice: &[u8] = if is_hevc { &[2, 1] } else { &[0x41] };
            // Zeros at its end stay the NAL unit's.
            let slice = [slice, &vec![7; len], &[0, 0][..len % 3]].concat();
            let data = match (is_video, is_mp3) {
                (true, _) => {
                    let fronts = fronts.iter().map(|kind| front(video, *kind)).filter(|bytes| !bytes.is_empty());
                    fronts.chain([&slice[..]]).flat_map(nal).collect()
                }
                (false, true) => [&mp3[..], &vec![5; len]].concat(),
                (false, false) => vec![5; len],
            };
            let unit = AccessUnit {
                track: if is_video { Track::Video } else { Track::Audio },
                codec: if is_video { video } else { audio.0 },
                dts_ms,
                cto_ms: if is_video { cto_ms } else { 0 },
                key: key || !is_video,
                data: &data,
            };
            writer.unit(&unit);
            pushed.push((unit.track, unit.codec, dts_ms - zero, unit.cto_ms, unit.key, data));
        }
        let found = read(&writer.segments).unwrap();
        for unit in &found {
            match unit.track {
                Track::Audio => prop_assert_eq!(unit.config.is_some(), !core::mem::replace(&mut said_audio, true)),
                // Any sets of its own are those of the configuration, once or several times.
                Track::Video if unit.key && !said_video => {
                    prop_assert!(unit.config.is_some());
                    said_video = true;
                }
                Track::Video => {}
            }
        }
        let found: Vec<_> =
            found.into_iter().map(|u| (u.track, u.codec, u.dts_ms, u.cto_ms, u.key, u.data)).collect();
        prop_assert_eq!(found, pushed);
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), PACKET_LEN * 4), kind in 0u8..4) {
        // As far as the headers go they look like ours.
        for packet in bytes.chunks_mut(PACKET_LEN) {
            packet[0] = 0x47;
            packet[3] = packet[3] & 0x0F | 0x10;
            let pid: [u8; 2] = [0x1000, VIDEO_PID, AUDIO_PID, VIDEO_PID][usize::from(kind)].to_be_bytes();
            let starts = packet[1] & 0x40;
            packet[1..3].copy_from_slice(&[pid[0] | starts, pid[1]]);
            packet[4..13].copy_from_slice(&[0, 0, 1, 0xE0, 0, 0, 0x84, 0x80, 5]);
        }
        let _ = read(&[(0, bytes)]);
    }

    #[test]
    fn a_changed_byte_is_no_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut writer = avc_writer();
        writer.segment(0);
        for n in 0..6 {
            writer.unit(&picture(n * 40, n % 3 == 0, &nal(&[0x65; 300])));
            writer.unit(&AccessUnit { track: Track::Audio, codec: Codec::Aac, ..picture(n * 40, true, &[1; 90]) });
        }
        let (near, mut bytes) = writer.segments.remove(0);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() / PACKET_LEN) * PACKET_LEN);
        let _ = read(&[(near, bytes)]);
    }
}

#[test]
fn the_configuration_is_that_of_the_parameter_sets() {
    let mut writer = avc_writer();
    writer.segment(0);
    writer.unit(&picture(0, true, &nal(&[0x65, 1])));
    // The encoder sends others along.
    let other = [AVC_SPS, &[9]].concat();
    let own = [nal(&other), nal(AVC_PPS), nal(&[0x65, 2])].concat();
    writer.unit(&picture(40, true, &own));
    writer.unit(&picture(80, true, &own));
    writer.unit(&picture(120, true, &nal(&[0x65, 3])));
    let found = read(&writer.segments).unwrap();
    let other = avc::record(&[&other], &[AVC_PPS]).unwrap();
    let configs: Vec<_> = found.iter().map(|unit| unit.config.as_deref()).collect();
    assert_eq!(
        configs,
        [Some(&avc_config()[..]), Some(&other), None, Some(&avc_config()[..])]
    );
    assert_eq!(found[1].data, own);
    assert_eq!(found[3].data, nal(&[0x65, 3]));
}

#[test]
fn times_go_on_where_33_bits_wrap_also_in_a_pause_of_days() {
    let mut writer = avc_writer();
    let data = nal(&[0x65; 10]);
    let day = 86_400_000;
    let times = [5_000, 5_040, day, day + 40, 2 * day, 30 * day, 30 * day + 7];
    for at in times {
        writer.segment(at - 5_000);
        writer.unit(&picture(at, true, &data));
    }
    let found = read(&writer.segments).unwrap();
    let read: Vec<_> = found.iter().map(|unit| unit.dts_ms + 5_000).collect();
    assert_eq!(read, times);
}

#[test]
fn what_is_not_as_it_was_written_is_refused_by_name() {
    let mut writer = avc_writer();
    writer.segment(0);
    writer.unit(&picture(0, true, &nal(&[0x65; 400])));
    writer.unit(&picture(40, false, &nal(&[0x41; 400])));
    let good = writer.segments.remove(0).1;
    assert_eq!(read(&[(0, good.clone())]).unwrap().len(), 2);
    let without = |packet: usize| {
        let mut bytes = good.clone();
        bytes.drain(packet * PACKET_LEN..(packet + 1) * PACKET_LEN);
        read(&[(0, bytes)]).map(|units| units.len())
    };
    // PAT, PMT, three packets a picture.
    assert_eq!(without(0), Ok(2));
    assert_eq!(
        without(1),
        Err(Unreadable("a stream that the program map does not list"))
    );
    assert_eq!(without(2), Err(Unreadable("a packet without a beginning")));
    assert_eq!(without(3), Err(Unreadable("packets are missing")));
    assert_eq!(without(7), Err(Unreadable("a PES packet")), "it ends too early");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        read(&[(0, bytes)]).map(|units| units.len())
    };
    assert_eq!(with(0, 0x46), Err(Unreadable("a packet's header")));
    assert_eq!(with(1, 0x5F), Err(Unreadable("a PID")));
    assert_eq!(with(PACKET_LEN + 20, 0), Err(Unreadable("the program map")));
    // The second picture's time: 4 of header, 8 with a clock, 9 of PES header.
    assert_eq!(
        with(5 * PACKET_LEN + 4 + 8 + 9 + 4, 0x03),
        Err(Unreadable("a time between two milliseconds"))
    );
}
