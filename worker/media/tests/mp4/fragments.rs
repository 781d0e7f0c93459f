//! Fragments in segments with their initialisation segment: read back by ffprobe, decoded by ffmpeg, looked at box by box.

use std::{collections::BTreeMap, fs};

use media::{
    access_unit::{Codec, Track, UnitInfo, UnitKind},
    mp4::{FRAGMENT_BYTES, Fragmenter, State, Take, reason},
    segmenter::Segmenter,
};
use mp4_atom::{Atom, Decode, Header, Moof, Moov};
use tempfile::TempDir;

use crate::{
    players::{
        PICTURES, Packet, Packets, SOUND, Tag, X264, adler32, decode, encode, flv_tags, hevc_tags, probe, record, same,
    },
    source::{AAC_LC, aac, avc, config},
};

/// What a recorder makes of a stream.
#[derive(Default)]
pub(crate) struct Rendered {
    /// An initialisation segment, and the segments under it.
    pub(crate) runs: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    pub(crate) packets: Packets,
}

/// Renders segments as the HLS recorder does: one fragmenter for each, a new run where the initialisation segment changes.
pub(crate) fn render(tags: &[Tag], target_ms: i64, offset_ms: i64) -> Rendered {
    let mut rendered = Rendered::default();
    let mut state = State {
        offset_ms,
        ..State::default()
    };
    let mut configs: BTreeMap<Track, (Codec, Vec<u8>)> = BTreeMap::new();
    let mut segmenter = Segmenter::new(target_ms);
    let mut rest = tags;
    while !rest.is_empty() {
        let known: Vec<_> = configs
            .iter()
            .map(|(track, (codec, record))| (*codec, *track, record.as_slice()))
            .collect();
        let mut fragmenter = Fragmenter::new(state, &known);
        let (mut segment, mut len) = (Vec::new(), rest.len());
        for (at, tag) in rest.iter().enumerate() {
            let (info, data) = tag;
            if at > 0 && segmenter.push(info) {
                len = at;
                break;
            }
            match fragmenter.push(info, record(tag), data, &mut segment) {
                Take::Yes => {
                    let packet = Packet {
                        dts_ms: info.dts_ms + offset_ms,
                        pts_ms: info.dts_ms + offset_ms + i64::from(info.cto_ms),
                        key: info.key,
                        size: data.len() as u64,
                        adler32: adler32(data),
                    };
                    rendered.packets.entry(track(info)).or_default().push(packet);
                }
                Take::NotAUnit => {
                    if matches!(info.kind, UnitKind::VideoConfig | UnitKind::AudioConfig) {
                        configs.insert(track(info), (info.codec, data.clone()));
                    }
                }
                other => panic!("{info:?}: {other:?}"),
            }
        }
        fragmenter.finish(&mut segment);
        state = fragmenter.state();
        let init = fragmenter.init().unwrap();
        match rendered.runs.last_mut() {
            Some((known, segments)) if *known == init => segments.push(segment),
            _ => rendered.runs.push((init, vec![segment])),
        }
        rest = &rest[len..];
    }
    rendered
}

fn track(info: &UnitInfo) -> Track {
    match info.kind {
        UnitKind::Video | UnitKind::VideoConfig => Track::Video,
        _ => Track::Audio,
    }
}

/// One run as one file, which players take as well.
fn write(dir: &TempDir, (init, segments): &(Vec<u8>, Vec<Vec<u8>>)) -> std::path::PathBuf {
    let path = dir.path().join("fragments.mp4");
    fs::write(&path, [init.clone(), segments.concat()].concat()).unwrap();
    path
}

fn boxes(bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        found.push((rest[4..8].try_into().unwrap(), &rest[..len]));
        rest = &rest[len..];
    }
    found
}

fn check(arguments: &str) -> Rendered {
    let dir = TempDir::new().unwrap();
    let tags = flv_tags(&encode(&dir, "source.flv", arguments));
    let rendered = render(&tags, 2000, 1000);
    assert_eq!(rendered.runs.len(), 1, "one initialisation segment");
    let path = write(&dir, &rendered.runs[0]);
    same(&probe(&path), &rendered.packets);
    decode(&path);
    rendered
}

#[test]
fn players_read_every_unit_of_a_stream_in_segments() {
    let rendered = check(&format!("{PICTURES} {SOUND} -t 9 {X264} -bf 3 -c:a aac"));
    assert!(rendered.runs[0].1.len() >= 4, "several segments");
    for segment in &rendered.runs[0].1 {
        assert_eq!(&boxes(segment)[0].0, b"moof");
    }
    check(&format!("{PICTURES} -t 5 {X264} -bf 2"));
    check(&format!("{SOUND} -t 5 -c:a aac"));
    check(&format!("{PICTURES} {SOUND} -t 5 {X264} -c:a libmp3lame -ar 44100"));
}

#[test]
fn hevc_pictures_in_fragments() {
    let dir = TempDir::new().unwrap();
    let (tags, _) = hevc_tags(&dir);
    let rendered = render(&tags, 1000, 1000);
    let path = write(&dir, &rendered.runs[0]);
    same(&probe(&path), &rendered.packets);
    decode(&path);
}

#[test]
fn each_segment_plays_by_itself() {
    let dir = TempDir::new().unwrap();
    let source = encode(
        &dir,
        "source.flv",
        &format!("{PICTURES} {SOUND} -t 6 {X264} -bf 3 -c:a aac"),
    );
    let rendered = render(&flv_tags(&source), 1000, 1000);
    let (init, segments) = &rendered.runs[0];
    let mut found = Packets::new();
    for segment in segments {
        let path = write(&dir, &(init.clone(), vec![segment.clone()]));
        decode(&path);
        for (track, packets) in probe(&path) {
            found.entry(track).or_default().extend(packets);
        }
    }
    same(&found, &rendered.packets);
}

#[test]
fn a_large_segment_is_several_fragments_with_the_same_units() {
    let dir = TempDir::new().unwrap();
    let noise = "-f lavfi -i nullsrc=s=640x360:r=25,geq=random(1)*255:128:128";
    let source = encode(
        &dir,
        "source.flv",
        &format!("{noise} {SOUND} -t 3 -c:v libx264 -preset ultrafast -g 100 -qp 20 -pix_fmt yuv420p -c:a aac"),
    );
    let rendered = render(&flv_tags(&source), 60_000, 0);
    let (init, segments) = &rendered.runs[0];
    let fragments = boxes(&segments[0]).iter().filter(|(kind, _)| kind == b"moof").count();
    let bytes = segments[0].len();
    assert!(
        segments.len() == 1 && bytes > 2 * FRAGMENT_BYTES,
        "{bytes} bytes in one segment"
    );
    assert!(
        fragments >= bytes / (FRAGMENT_BYTES + (FRAGMENT_BYTES >> 1)),
        "{fragments} fragments"
    );
    let path = write(&dir, &(init.clone(), segments.clone()));
    same(&probe(&path), &rendered.packets);
}

#[test]
fn a_track_that_appears_and_a_changed_configuration_need_another_initialisation_segment() {
    let mut out = Vec::new();
    let record = [1, 0x42, 0, 0x1e, 0xff, 0xe0, 0];
    let (_, avc_record) = config(Codec::Avc, 0, &record);
    let (sound, sound_record) = config(Codec::Aac, 0, &AAC_LC);
    let avc_record = avc_record.unwrap();
    let mut fragmenter = Fragmenter::new(State::default(), &[(Codec::Avc, Track::Video, &avc_record)]);
    assert_eq!(fragmenter.init(), None, "nothing is listed yet");
    assert_eq!(fragmenter.push(&avc(0, 0, true, 4), None, &[0; 4], &mut out), Take::Yes);
    let pictures = Moov::decode(&mut boxes(&fragmenter.init().unwrap())[1].1).unwrap();
    assert_eq!(pictures.trak.len(), 1);
    assert_eq!(
        fragmenter.push(&sound, sound_record.as_deref(), &AAC_LC, &mut out),
        Take::NotAUnit
    );
    assert_eq!(
        Moov::decode(&mut boxes(&fragmenter.init().unwrap())[1].1)
            .unwrap()
            .trak
            .len(),
        1,
        "a configuration alone lists nothing: players would wait for its sound"
    );
    assert_eq!(fragmenter.push(&aac(5, 3), None, &[1; 3], &mut out), Take::Yes);
    let both = fragmenter.init().unwrap();
    assert_eq!(Moov::decode(&mut boxes(&both)[1].1).unwrap().trak.len(), 2);
    fragmenter.finish(&mut out);

    // The next segment has no sound, and is listed all the same.
    let known = [
        (Codec::Avc, Track::Video, avc_record.as_slice()),
        (Codec::Aac, Track::Audio, &AAC_LC[..]),
    ];
    let mut fragmenter = Fragmenter::new(fragmenter.state(), &known);
    assert_eq!(
        fragmenter.push(&avc(40, 0, true, 4), None, &[0; 4], &mut out),
        Take::Yes
    );
    assert_eq!(fragmenter.init().unwrap(), both);

    let other = [1, 0x64, 0, 0x1f, 0xff, 0xe0, 0];
    let (info, other) = config(Codec::Avc, 80, &other);
    assert_eq!(fragmenter.push(&info, other.as_deref(), &[], &mut out), Take::NotAUnit);
    let picture = avc(80, 0, true, 4);
    for _ in 0..2 {
        assert_eq!(
            fragmenter.push(&picture, None, &[0; 4], &mut out),
            Take::NewFile(reason::CONFIGURATION_CHANGED)
        );
    }
}

#[test]
fn durations_reach_to_the_next_sample_also_across_fragments() {
    let record = [1, 0x42, 0, 0x1e, 0xff, 0xe0, 0];
    let mut fragmenter = Fragmenter::new(State::default(), &[(Codec::Avc, Track::Video, &record)]);
    let (mut out, size) = (Vec::new(), 600_000u32);
    let data = vec![7; size as usize];
    for (dts_ms, cto_ms) in [(0, 0), (40, -40), (93, 20), (120, 0)] {
        let unit = avc(dts_ms, cto_ms, dts_ms == 0, size);
        assert_eq!(fragmenter.push(&unit, None, &data, &mut out), Take::Yes);
    }
    fragmenter.finish(&mut out);
    let mut samples = Vec::new();
    for (kind, bytes) in boxes(&out) {
        if &kind == b"moof" {
            let mut body = bytes;
            let header = Header::decode(&mut body).unwrap();
            let moof = Moof::decode_body(&mut &body[..header.size.unwrap()]).unwrap();
            let traf = &moof.traf[0];
            let start = traf.tfdt.as_ref().unwrap().base_media_decode_time;
            let durations: Vec<u32> = durations(bytes);
            samples.push((start, durations));
        }
    }
    let times: Vec<(u64, u32)> = samples
        .iter()
        .flat_map(|(start, durations)| {
            let mut at = *start;
            durations.iter().map(move |&duration| {
                let sample = (at, duration);
                at += u64::from(duration);
                sample
            })
        })
        .collect();
    assert_eq!(times, [(0, 40), (40, 53), (93, 27), (120, 27)]);
    assert!(samples.len() > 1, "more than one fragment");
}

/// The durations in a fragment's only `trun`, read where the standard says they are.
fn durations(moof: &[u8]) -> Vec<u32> {
    let at = moof.windows(4).position(|four| four == b"trun").unwrap() + 8;
    let count = u32::from_be_bytes(moof[at..at + 4].try_into().unwrap()) as usize;
    moof[at + 8..]
        .chunks_exact(16)
        .take(count)
        .map(|sample| u32::from_be_bytes(sample[..4].try_into().unwrap()))
        .collect()
}

#[test]
fn a_unit_before_time_0_is_refused_by_name() {
    let record = [1, 0x42, 0, 0x1e, 0xff, 0xe0, 0];
    let mut fragmenter = Fragmenter::new(
        State {
            offset_ms: 10,
            ..State::default()
        },
        &[(Codec::Avc, Track::Video, &record)],
    );
    let mut out = Vec::new();
    assert_eq!(
        fragmenter.push(&avc(-11, 0, true, 1), None, &[1], &mut out),
        Take::Skip(reason::TIME_OUT_OF_RANGE)
    );
    assert_eq!(fragmenter.push(&avc(-10, 0, true, 1), None, &[1], &mut out), Take::Yes);
    fragmenter.finish(&mut out);
    assert!(!out.is_empty());
}
