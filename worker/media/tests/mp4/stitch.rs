//! One file of the segments of several pushes: every unit of theirs once, with their distances in time, and decoded by ffmpeg.

use std::fs;

use media::{
    access_unit::{Codec, Track},
    mp4::{
        BOX_HEADER, Config, FragmentSample, Gaps, Segment, Span, Stitcher, Take, box_header, read_init, read_moof,
        reason,
    },
};
use tempfile::TempDir;

use crate::{
    fragments::{Rendered, render},
    players::{PICTURES, Packets, SOUND, X264, decode, encode, flv_tags, hevc_tags, probe, same},
    reader,
    source::{AAC_LC, avcc},
};

/// The samples of a segment, and their data.
fn read(segment: &[u8]) -> (Vec<FragmentSample>, Vec<u8>) {
    let (mut samples, mut data, mut rest) = (Vec::new(), Vec::new(), segment);
    while let Some((kind, len)) = box_header(rest) {
        match &kind {
            b"moof" => samples.extend(read_moof(&rest[..len]).unwrap()),
            b"mdat" => data.extend_from_slice(&rest[BOX_HEADER..len]),
            other => panic!("{other:?}"),
        }
        rest = &rest[len..];
    }
    let sizes: u64 = samples.iter().map(|sample| u64::from(sample.size)).sum();
    assert_eq!(sizes, data.len() as u64);
    (samples, data)
}

/// Puts pushes, each with the wall clock of its beginning, into one file.
fn stitch(pushes: &[(&Rendered, i64)], gaps: Gaps) -> (Vec<u8>, Vec<Span>, u64) {
    let mut stitcher = Stitcher::new(gaps, 1_790_000_000_000);
    let mut body = Vec::new();
    for (push, wall_ms) in pushes {
        let mut joins = true;
        for (init, segments) in &push.runs {
            let configs = read_init(init).unwrap();
            for segment in segments {
                let (samples, data) = read(segment);
                let segment = Segment {
                    configs: &configs,
                    samples: &samples,
                    joins,
                    wall_ms: joins.then_some(*wall_ms),
                };
                assert_eq!(stitcher.push(&segment), Take::Yes);
                body.extend_from_slice(&data);
                joins = false;
            }
        }
    }
    assert_eq!(stitcher.body_len(), body.len() as u64);
    let (spans, duration_ms) = (stitcher.pushes(), stitcher.duration_ms());
    ([stitcher.finish().unwrap(), body].concat(), spans, duration_ms)
}

/// Where each push is expected: its packets, so much later.
fn expected(pushes: &[(&Rendered, i64)]) -> Packets {
    let mut all = Packets::new();
    for (push, later_ms) in pushes {
        for (track, packets) in &push.packets {
            let moved = packets.iter().map(|packet| {
                let mut packet = *packet;
                packet.dts_ms += later_ms;
                packet.pts_ms += later_ms;
                packet
            });
            all.entry(*track).or_default().extend(moved);
        }
    }
    let zero = all.values().flatten().map(|packet| packet.pts_ms).min().unwrap();
    for packet in all.values_mut().flatten() {
        packet.dts_ms -= zero;
        packet.pts_ms -= zero;
    }
    all
}

/// From the beginning of the first push to that of another, in the file.
fn later(spans: &[Span], push: usize) -> i64 {
    spans[push].from_ms - spans[0].from_ms
}

fn pushed(dir: &TempDir, name: &str, arguments: &str, offset_ms: i64) -> Rendered {
    render(&flv_tags(&encode(dir, name, arguments)), 2000, offset_ms)
}

#[test]
fn pushes_of_other_sizes_and_without_sound_are_one_file() {
    let dir = TempDir::new().unwrap();
    let small = pushed(
        &dir,
        "small.flv",
        &format!("{PICTURES} {SOUND} -t 5 {X264} -bf 2 -c:a aac"),
        10_000,
    );
    let large = "-f lavfi -i testsrc2=s=640x360:r=30";
    let large = pushed(
        &dir,
        "large.flv",
        &format!("{large} {SOUND} -t 5 {X264} -bf 3 -c:a aac"),
        10_000,
    );
    // Its times begin elsewhere.
    let mute = pushed(&dir, "mute.flv", &format!("{PICTURES} -t 5 {X264} -bf 2"), 7_000_000);
    let pushes = [(&small, 0), (&large, 20_000), (&mute, 30_000), (&small, 60_000)];
    for gaps in [Gaps::Close, Gaps::Keep] {
        let (file, spans, duration_ms) = stitch(&pushes, gaps);
        let path = dir.path().join("stitched.mp4");
        fs::write(&path, &file).unwrap();
        let begin = |push: usize| {
            let first = |push: &Rendered| push.packets.values().flatten().map(|p| p.pts_ms).min().unwrap();
            later(&spans, push) + first(&small) - first(pushes[push].0)
        };
        let placed: Vec<(&Rendered, i64)> = pushes
            .iter()
            .enumerate()
            .map(|(at, (push, _))| (*push, begin(at)))
            .collect();
        same(&probe(&path), &expected(&placed));
        decode(&path);
        let at = file.windows(4).position(|four| four == b"mdat").unwrap();
        let movie = reader::read(&file[..at + 4]);
        assert_eq!(movie.track(Track::Video).entries.len(), 2);
        let begins: Vec<i64> = (0..4).map(|push| later(&spans, push)).collect();
        match gaps {
            // Reordered pictures are shown a little behind the first sound.
            Gaps::Keep => begins
                .iter()
                .zip([0, 20_000, 30_000, 60_000])
                .for_each(|(found, wall)| {
                    assert!((found - wall).abs() <= 150, "{begins:?}");
                }),
            Gaps::Close => spans.windows(2).for_each(|pair| {
                let between = pair[1].from_ms - pair[0].to_ms;
                assert!((0..=150).contains(&between), "{spans:?}");
            }),
        }
        assert!(
            spans.windows(2).all(|pair| pair[1].from_ms >= pair[0].to_ms),
            "{spans:?}"
        );
        assert_eq!(spans.last().unwrap().to_ms.unsigned_abs(), duration_ms);
    }
}

fn configs(variant: u8) -> Vec<Config> {
    vec![
        (Codec::Avc, Track::Video, avcc(variant)),
        (Codec::Aac, Track::Audio, AAC_LC.to_vec()),
    ]
}

/// A second of media from a decode time on: 25 pictures, or 50 frames of sound.
fn second(track: Track, dts_ms: i64) -> Vec<FragmentSample> {
    let step = if track == Track::Video { 40 } else { 20 };
    let sample = |at: i64| FragmentSample {
        track,
        dts_ms: dts_ms + at * step,
        cto_ms: 0,
        duration_ms: u32::try_from(step).unwrap(),
        size: 10,
        key: track == Track::Audio || at == 0,
    };
    (0..1000 / step).map(sample).collect()
}

/// Each of these pushes is a second of pictures; gives when each is shown.
fn spans(pushes: &[(i64, Option<i64>)], gaps: Gaps) -> Vec<(i64, i64)> {
    let mut stitcher = Stitcher::new(gaps, 0);
    for (dts_ms, wall_ms) in pushes {
        let take = stitcher.push(&Segment {
            configs: &configs(1),
            samples: &second(Track::Video, *dts_ms),
            joins: true,
            wall_ms: *wall_ms,
        });
        assert_eq!(take, Take::Yes);
    }
    stitcher
        .pushes()
        .iter()
        .map(|span| (span.from_ms, span.to_ms))
        .collect()
}

#[test]
fn a_gap_is_kept_or_closed_and_never_below_nothing() {
    let pushes = [
        (10_000, Some(5_000)),
        (3, Some(8_000)),
        (90_000, Some(7_000)),
        (0, Some(9_999_000_000)),
        (0, None),
    ];
    assert_eq!(
        spans(&pushes, Gaps::Close),
        [
            (0, 1_000),
            (1_000, 2_000),
            (2_000, 3_000),
            (3_000, 4_000),
            (4_000, 5_000)
        ]
    );
    // A clock that went back, one that ran far ahead, and none.
    assert_eq!(
        spans(&pushes, Gaps::Keep),
        [
            (0, 1_000),
            (3_000, 4_000),
            (4_000, 5_000),
            (5_000, 6_000),
            (6_000, 7_000)
        ]
    );
}

#[test]
fn sound_that_ends_later_than_pictures_puts_the_next_push_off() {
    let mut stitcher = Stitcher::new(Gaps::Close, 0);
    let mut push = |samples: &[FragmentSample], joins| {
        let take = stitcher.push(&Segment {
            configs: &configs(1),
            samples,
            joins,
            wall_ms: None,
        });
        assert_eq!(take, Take::Yes);
    };
    push(&second(Track::Video, 0), true);
    push(&second(Track::Audio, 500), false);
    push(&second(Track::Video, 0), true);
    assert_eq!(stitcher.units(), (50, 50));
    assert_eq!(
        stitcher.pushes(),
        [
            Span {
                from_ms: 0,
                to_ms: 1_500
            },
            Span {
                from_ms: 1_500,
                to_ms: 2_500
            }
        ]
    );
}

#[test]
fn another_codec_begins_another_file_and_nothing_has_changed() {
    let dir = TempDir::new().unwrap();
    let avc = pushed(&dir, "avc.flv", &format!("{PICTURES} -t 3 {X264}"), 0);
    let hevc = render(&hevc_tags(&dir).0, 2000, 1000);
    let take = |stitcher: &mut Stitcher, push: &Rendered| {
        let (init, segments) = &push.runs[0];
        let (configs, (samples, _)) = (read_init(init).unwrap(), read(&segments[0]));
        stitcher.push(&Segment {
            configs: &configs,
            samples: &samples,
            joins: true,
            wall_ms: None,
        })
    };
    let mut stitcher = Stitcher::new(Gaps::Close, 0);
    assert_eq!(take(&mut stitcher, &avc), Take::Yes);
    let before = (stitcher.body_len(), stitcher.units(), stitcher.pushes());
    assert_eq!(take(&mut stitcher, &hevc), Take::NewFile(reason::CODEC_CHANGED));
    assert_eq!((stitcher.body_len(), stitcher.units(), stitcher.pushes()), before);
    assert_eq!(
        take(&mut Stitcher::new(Gaps::Close, 0), &hevc),
        Take::Yes,
        "it begins the next"
    );
}

#[test]
fn sound_as_mp3_is_read_back_with_its_rate() {
    let dir = TempDir::new().unwrap();
    for (name, sound) in [("stereo.flv", "-ar 44100 -ac 2"), ("mono.flv", "-ar 22050 -ac 1")] {
        let push = pushed(&dir, name, &format!("{SOUND} -t 3 -c:a libmp3lame {sound}"), 0);
        let (file, ..) = stitch(&[(&push, 0), (&push, 5_000)], Gaps::Close);
        let path = dir.path().join("sound.mp4");
        fs::write(&path, &file).unwrap();
        decode(&path);
        let at = file.windows(4).position(|four| four == b"mdat").unwrap();
        assert_eq!(reader::read(&file[..at + 4]).entries(), 1, "{sound}");
    }
}

#[test]
fn damage_is_refused_and_nothing_panics() {
    let dir = TempDir::new().unwrap();
    let push = pushed(&dir, "a.flv", &format!("{PICTURES} {SOUND} -t 2 {X264} -c:a aac"), 0);
    let (init, segments) = &push.runs[0];
    let (_, len) = box_header(&segments[0]).unwrap();
    let moof = &segments[0][..len];
    for at in 0..moof.len() {
        assert!(read_moof(&moof[..at]).is_err(), "cut at {at}");
        let mut other = moof.to_vec();
        other[at] ^= 0x80;
        let _ = read_moof(&other);
    }
    for at in 0..init.len() {
        assert!(read_init(&init[..at]).is_err(), "cut at {at}");
        let mut other = init.clone();
        other[at] ^= 0x80;
        let _ = read_init(&other);
    }
}
