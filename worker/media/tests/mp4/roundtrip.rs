//! Any units in any order: what the head says is what was pushed.

use media::{
    access_unit::{Codec, Track, UnitInfo, UnitKind},
    mp4::{HEAD_ALIGNMENT, HeadBuilder, Layout, Mp4Error, TIMESCALE, Take},
};
use proptest::prelude::*;

use crate::{
    reader::{self, Movie},
    source::{AAC_LC, aac, avc, avcc, config, hevc, hvcc},
};

/// A pushed tag: what the index holds of it, and its configuration if it is one.
pub(crate) type Pushed = (UnitInfo, Option<Vec<u8>>);

/// What a unit that was taken should have become.
struct Expected {
    track: Track,
    unit: UnitInfo,
    dts_ms: i64,
    offset: u64,
    record: Vec<u8>,
}

/// Builds a head from `pushed` and compares everything it says with it. Stops where a new file is asked for.
pub(crate) fn check(start: &[(Codec, Track, &[u8])], pushed: &[Pushed]) -> Option<Movie> {
    let mut layout = Layout::with_configs(start);
    let mut builder = HeadBuilder::new(start, 1_700_000_000_000);
    let mut in_force: Vec<(Codec, Vec<u8>)> = start
        .iter()
        .map(|(codec, _, record)| (*codec, record.to_vec()))
        .collect();
    let mut expected: Vec<Expected> = Vec::new();
    let mut body_len = 0;
    for (unit, record) in pushed {
        let take = layout.push(unit, record.as_deref());
        assert_eq!(builder.push(unit, record.as_deref()), take);
        assert_eq!((layout.body_len(), builder.body_len()).0, builder.body_len());
        if let (UnitKind::VideoConfig | UnitKind::AudioConfig, Some(record)) = (unit.kind, record) {
            in_force.retain(|(codec, _)| *codec != unit.codec);
            in_force.push((unit.codec, record.clone()));
        }
        match take {
            Take::Yes => {
                let track = if unit.kind == UnitKind::Video {
                    Track::Video
                } else {
                    Track::Audio
                };
                let last = expected.iter().rev().find(|other| other.track == track);
                let dts_ms = last.map_or(unit.dts_ms, |last| last.dts_ms.max(unit.dts_ms));
                let record = in_force.iter().find(|(codec, _)| *codec == unit.codec);
                let record = record.map_or_else(|| vec![0x6b], |(_, record)| record.clone());
                expected.push(Expected {
                    track,
                    unit: *unit,
                    dts_ms,
                    offset: body_len,
                    record,
                });
                body_len += u64::from(unit.data_len());
            }
            Take::NotAUnit | Take::Skip(_) => {}
            Take::NewFile(_) => break,
        }
    }
    assert_eq!(builder.body_len(), body_len);
    let (start_ms, duration_ms) = (builder.start_ms(), builder.duration_ms());
    let head = match builder.finish() {
        Ok(head) => head,
        Err(error) => {
            assert_eq!((error, expected.len()), (Mp4Error::Empty, 0));
            return None;
        }
    };
    let movie = reader::read(&head);
    read_by_its_own_reader(&head, &movie);
    assert_eq!(head.len() % HEAD_ALIGNMENT, 0);
    let spare = head.capacity() - head.len();
    assert!(
        spare < 4 * HEAD_ALIGNMENT + movie.entries() * 256,
        "the head's length was foreseen, but for {spare} bytes"
    );
    assert_eq!(movie.boxes, [*b"ftyp", *b"moov", *b"free", *b"mdat"]);
    assert_eq!(movie.mdat_len, body_len);
    assert_eq!(movie.moov.mvhd.creation_time, 1_700_000_000 + 2_082_844_800);
    assert_eq!(movie.moov.mvhd.duration, duration_ms);
    assert_eq!(
        movie.moov.mvhd.duration,
        movie.tracks.iter().map(|track| track.trak.tkhd.duration).max().unwrap()
    );
    let first_pts_ms = expected
        .iter()
        .map(|one| one.unit.dts_ms + i64::from(one.unit.cto_ms))
        .min();
    assert_eq!(start_ms, first_pts_ms);
    let tracks = usize::from(expected.iter().any(|one| one.track == Track::Video))
        + usize::from(expected.iter().any(|one| one.track == Track::Audio));
    assert_eq!(movie.tracks.len(), tracks);
    for track in &movie.tracks {
        assert_eq!(track.trak.mdia.mdhd.timescale, TIMESCALE);
        let of_track: Vec<_> = expected.iter().filter(|one| one.track == track.kind).collect();
        assert_eq!(track.samples.len(), of_track.len());
        let lead = of_track[0].dts_ms - first_pts_ms.unwrap();
        for (sample, one) in track.samples.iter().zip(&of_track) {
            assert_eq!(sample.offset, head.len() as u64 + one.offset);
            assert_eq!(sample.size, one.unit.data_len());
            assert_eq!(sample.key, one.unit.key);
            assert_eq!(
                sample.pts_ms,
                one.unit.dts_ms + i64::from(one.unit.cto_ms) - first_pts_ms.unwrap()
            );
            assert_eq!(sample.dts_ms - track.samples[0].dts_ms, one.dts_ms - of_track[0].dts_ms);
            assert_eq!(track.entries[sample.entry], (one.unit.codec, one.record.clone()));
        }
        let first = of_track[0];
        let pts_ms = |one: &Expected| one.unit.dts_ms + i64::from(one.unit.cto_ms);
        let first_of_track = of_track.iter().map(|one| pts_ms(one)).min().unwrap();
        let clean = first.unit.key && pts_ms(first) == first_of_track;
        let edited = clean || first_of_track - first_pts_ms.unwrap() > 10_000;
        // Decode times stand where they stood beside presentation times, unless these would begin before the first of
        // them. Without an edit list, they begin at 0.
        let shift = (first.dts_ms - first_of_track).max(0);
        assert_eq!(track.samples[0].dts_ms, if edited { lead - shift } else { 0 });
        assert!(edited || track.trak.edts.is_none());
    }
    Some(movie)
}

/// What the tables say, read by the program itself: all samples in the order of their data.
fn read_by_its_own_reader(head: &[u8], expected: &Movie) {
    let (_, len) = media::mp4::box_header(head).unwrap();
    let (kind, moov_len) = media::mp4::box_header(&head[len..]).unwrap();
    assert_eq!(&kind, b"moov");
    let moov = bytes::Bytes::copy_from_slice(&head[len + 8..len + moov_len]);
    let mut movie = media::mp4::Movie::read(&moov).unwrap();
    let mut found = Vec::new();
    while let Some(placed) = movie.next_sample().unwrap() {
        let (codec, track, record) = movie.config(placed.sample.track, placed.config).unwrap();
        assert_eq!(*track, placed.sample.track);
        found.push((placed, (*codec, record.clone())));
    }
    assert!(found.is_sorted_by_key(|(placed, _)| placed.offset));
    for track in &expected.tracks {
        let of_track = found.iter().filter(|(placed, _)| placed.sample.track == track.kind);
        let samples: Vec<reader::Sample> = of_track
            .clone()
            .map(|(placed, _)| reader::Sample {
                offset: placed.offset,
                size: placed.sample.size,
                dts_ms: placed.sample.dts_ms,
                pts_ms: placed.sample.dts_ms + i64::from(placed.sample.cto_ms),
                key: placed.sample.key,
                entry: placed.config,
            })
            .collect();
        assert_eq!(samples, track.samples);
        for (placed, config) in of_track {
            let known = &track.entries[placed.config];
            // Of MP3 only rate and channels can be told from a sample entry.
            assert!(config == known || config.0 == Codec::Mp3, "{config:?}");
        }
    }
    assert_eq!(
        found.len(),
        expected.tracks.iter().map(|track| track.samples.len()).sum()
    );
}

fn arbitrary_tag() -> impl Strategy<Value = Pushed> {
    let step = prop_oneof![8 => 0i64..60, 1 => -200i64..0, 1 => 0i64..100_000];
    let cto = prop_oneof![4 => -100i32..200, 1 => -20_000i32..20_000];
    let size = prop_oneof![6 => 1u32..3000, 1 => Just(0u32), 1 => Just(200u32), 1 => 1u32..(16 << 20)];
    let codec = prop_oneof![
        10 => Just(Codec::Avc), 10 => Just(Codec::Aac), 1 => Just(Codec::Hevc), 1 => Just(Codec::Mp3), 1 => Just(Codec::Other)
    ];
    let kind = prop_oneof![12 => Just(0u8), 2 => Just(1u8), 1 => Just(2u8)];
    (kind, codec, any::<bool>(), step, cto, size, 0u8..4).prop_map(|(kind, codec, key, step, cto, size, variant)| {
        let video = matches!(codec, Codec::Avc | Codec::Hevc) || (codec == Codec::Other && key);
        match kind {
            0 if video => (
                UnitInfo {
                    codec,
                    key,
                    ..avc(step, cto, key, size)
                },
                None,
            ),
            0 => (
                UnitInfo {
                    codec,
                    ..aac(step, size)
                },
                None,
            ),
            1 if codec == Codec::Avc => config(codec, step, &avcc(variant)),
            1 if codec == Codec::Hevc => config(codec, step, &hvcc(variant)),
            1 if codec == Codec::Aac => config(codec, step, &[0x11 + (variant << 4), 0x90]),
            _ => (
                UnitInfo {
                    kind: UnitKind::Metadata,
                    ..aac(step, size)
                },
                None,
            ),
        }
    })
}

/// Turns each tag's step into a time, one clock for all.
fn at_times(start_ms: i64, mut tags: Vec<Pushed>) -> Vec<Pushed> {
    let mut clock_ms = start_ms;
    for (unit, _) in &mut tags {
        clock_ms += unit.dts_ms;
        unit.dts_ms = clock_ms;
    }
    tags
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_muxed_is_read_back(
        start_ms in prop_oneof![Just(0i64), -1_000_000i64..1_000_000, Just(i64::from(u32::MAX) * 3)],
        tags in proptest::collection::vec(arbitrary_tag(), 0..200),
        configured in any::<bool>(),
    ) {
        let avcc = avcc(0);
        let start = [(Codec::Avc, Track::Video, avcc.as_slice()), (Codec::Aac, Track::Audio, AAC_LC.as_slice())];
        check(if configured { &start } else { &[] }, &at_times(start_ms, tags));
    }

    #[test]
    fn no_unit_makes_it_panic(
        units in proptest::collection::vec(
            (any::<[u8; 3]>(), any::<i64>(), any::<i32>(), any::<u32>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)),
            0..60,
        ),
    ) {
        let mut builder = HeadBuilder::new(&[(Codec::Avc, Track::Video, &avcc(0)), (Codec::Aac, Track::Audio, &AAC_LC)], i64::MIN);
        for ([kind, codec, key], dts_ms, cto_ms, body_len, header_len, record) in units {
            let kind = [UnitKind::Video, UnitKind::Audio, UnitKind::VideoConfig, UnitKind::AudioConfig, UnitKind::Text][usize::from(kind) % 5];
            let codec = [Codec::Avc, Codec::Hevc, Codec::Aac, Codec::Mp3, Codec::Other][usize::from(codec) % 5];
            // Half of the times are near each other, so that more than one is taken.
            let dts_ms = if key & 2 == 0 { dts_ms >> 40 } else { dts_ms };
            let unit = UnitInfo { kind, codec, key: key & 1 == 0, dts_ms, cto_ms, body_len, header_len, arrival_ms: dts_ms };
            if let Take::NewFile(_) = builder.push(&unit, Some(&record)) {
                assert_eq!(builder.push(&unit, Some(&record)), builder.clone().push(&unit, Some(&record)));
            }
        }
        if let Ok(head) = builder.finish() {
            assert_eq!(head.len() % HEAD_ALIGNMENT, 0);
        }
    }
}

#[test]
fn hevc_units_are_read_back() {
    let tags = vec![
        config(Codec::Hevc, 0, &hvcc(1)),
        (hevc(0, 80, true, 5000), None),
        (hevc(40, 160, false, 300), None),
        (hevc(80, 40, false, 200), None),
    ];
    let movie = check(&[], &tags).unwrap();
    assert_eq!(movie.track(Track::Video).entries, [(Codec::Hevc, hvcc(1))]);
}
