//! The answers of a layout and the tables of a head, case by case.

use media::{
    access_unit::{Codec, Track, UnitInfo, UnitKind},
    mp4::{HeadBuilder, Layout, MAX_CONFIGURATION_LEN, MAX_SAMPLE_ENTRIES, Mp4Error, Take, reason},
};
use mp4_atom::StszSamples;

use crate::{
    reader::{self, Movie},
    roundtrip::{Pushed, check},
    source::{AAC_LC, aac, avc, avcc, config, hevc, hvcc, mp3},
};

fn both() -> Vec<Pushed> {
    vec![config(Codec::Avc, 0, &avcc(0)), config(Codec::Aac, 0, &AAC_LC)]
}

fn units(units: impl IntoIterator<Item = UnitInfo>) -> Vec<Pushed> {
    units.into_iter().map(|unit| (unit, None)).collect()
}

/// The head for both configurations and these units.
fn movie(after: impl IntoIterator<Item = UnitInfo>) -> Movie {
    check(&[], &[both(), units(after)].concat()).unwrap()
}

/// (segment duration, media time) of each edit.
fn edits(movie: &Movie, kind: Track) -> Vec<(u64, Option<u64>)> {
    let edts = movie.track(kind).trak.edts.as_ref();
    let elst = edts.and_then(|edts| edts.elst.as_ref());
    elst.map(|elst| {
        elst.entries
            .iter()
            .map(|edit| (edit.segment_duration, edit.media_time))
            .collect()
    })
    .unwrap_or_default()
}

#[test]
fn units_before_any_configuration_are_skipped_by_name() {
    let mut layout = Layout::new();
    let none = Take::Skip(reason::NO_DECODER_CONFIGURATION);
    assert_eq!(layout.push(&avc(0, 0, true, 9), None), none);
    assert_eq!(layout.push(&aac(0, 9), None), none);
    assert_eq!(layout.push(&hevc(0, 0, true, 9), None), none);
    let (unit, record) = config(Codec::Avc, 0, &avcc(0));
    assert_eq!(layout.push(&unit, record.as_deref()), Take::NotAUnit);
    assert_eq!(layout.push(&avc(0, 0, true, 9), None), Take::Yes);
    assert_eq!(layout.push(&aac(0, 9), None), none);
    assert_eq!(layout.body_len(), 9);
}

#[test]
fn what_is_no_unit_is_told_from_a_unit_refused() {
    let mut layout = Layout::with_configs(&[(Codec::Avc, Track::Video, &avcc(0))]);
    for kind in [
        UnitKind::Metadata,
        UnitKind::Text,
        UnitKind::Other,
        UnitKind::VideoConfig,
        UnitKind::AudioConfig,
    ] {
        assert_eq!(
            layout.push(
                &UnitInfo {
                    kind,
                    ..avc(0, 0, false, 9)
                },
                None
            ),
            Take::NotAUnit
        );
    }
    let other = UnitInfo {
        codec: Codec::Other,
        ..avc(0, 0, true, 9)
    };
    assert_eq!(layout.push(&other, None), Take::Skip(reason::CODEC_NOT_SUPPORTED));
    let sound_as_picture = UnitInfo {
        codec: Codec::Aac,
        ..avc(0, 0, true, 9)
    };
    assert_eq!(
        layout.push(&sound_as_picture, None),
        Take::Skip(reason::CODEC_NOT_SUPPORTED)
    );
    assert_eq!(layout.push(&avc(0, 0, true, 0), None), Take::Skip(reason::EMPTY_UNIT));
    assert_eq!(
        layout.push(&avc(1 << 53, 0, true, 9), None),
        Take::Skip(reason::TIME_OUT_OF_RANGE)
    );
    assert_eq!(
        layout.push(&avc(0, i32::MIN, true, 9), None),
        Take::Skip(reason::TIME_OUT_OF_RANGE)
    );
    assert_eq!(layout.push(&avc(0, 0, true, 9), None), Take::Yes);
}

#[test]
fn malformed_configurations_leave_the_last_in_force() {
    let good = avcc(0);
    let mut tags = vec![config(Codec::Avc, 0, &good), (avc(0, 0, true, 9), None)];
    for bad in [&[][..], &[1, 66, 0], &[7; 40], &[1; MAX_CONFIGURATION_LEN + 1]] {
        tags.push(config(Codec::Avc, 0, bad));
    }
    tags.push((avc(40, 0, true, 9), None));
    let mut builder = HeadBuilder::new(&[], 0);
    for (unit, record) in &tags {
        assert!(matches!(
            builder.push(unit, record.as_deref()),
            Take::Yes | Take::NotAUnit
        ));
    }
    let movie = reader::read(&builder.finish().unwrap());
    assert_eq!(movie.track(Track::Video).entries, [(Codec::Avc, good)]);
}

#[test]
fn another_codec_asks_for_a_new_file_and_changes_nothing() {
    let cases = [
        (
            Codec::Avc,
            avcc(0),
            avc(0, 0, true, 9),
            Codec::Hevc,
            hvcc(0),
            hevc(40, 0, true, 9),
            avc(80, 0, true, 9),
        ),
        (
            Codec::Aac,
            AAC_LC.to_vec(),
            aac(0, 9),
            Codec::Mp3,
            vec![],
            mp3(40, 9),
            aac(80, 9),
        ),
    ];
    for (codec, record, unit, other_codec, other_record, other, next) in cases {
        let track = if unit.kind == UnitKind::Video {
            Track::Video
        } else {
            Track::Audio
        };
        let start = [(codec, track, record.as_slice())];
        let mut layout = Layout::with_configs(&start);
        assert_eq!(layout.push(&unit, None), Take::Yes);
        let (tag, record) = config(other_codec, 40, &other_record);
        assert_eq!(layout.push(&tag, record.as_deref()), Take::NotAUnit);
        for _ in 0..2 {
            assert_eq!(layout.push(&other, None), Take::NewFile(reason::CODEC_CHANGED));
        }
        assert_eq!(layout.push(&next, None), Take::Yes);

        // The next file begins with what was in force, and that the old codec's configuration is among it does no harm.
        let mut next = Layout::with_configs(&[start[0], (other_codec, track, &other_record)]);
        assert_eq!(next.push(&other, None), Take::Yes);
    }
}

#[test]
fn changed_parameters_become_a_second_sample_entry_and_come_back_to_the_first() {
    let tags = [
        both(),
        units([avc(0, 0, true, 10), avc(40, 0, false, 11)]),
        vec![
            config(Codec::Avc, 80, &avcc(0)),
            config(Codec::Avc, 80, &avcc(1)),
            config(Codec::Aac, 80, &[0x12, 0x10]),
        ],
        units([avc(80, 0, true, 12), aac(80, 5), avc(120, 0, false, 13)]),
        vec![config(Codec::Avc, 160, &avcc(0))],
        units([avc(160, 0, true, 14)]),
    ]
    .concat();
    let movie = check(&[], &tags).unwrap();
    let video = movie.track(Track::Video);
    assert_eq!(
        video.samples.iter().map(|sample| sample.entry).collect::<Vec<_>>(),
        [0, 0, 1, 1, 0]
    );
    assert_eq!(video.entries, [(Codec::Avc, avcc(0)), (Codec::Avc, avcc(1))]);
    // The first AAC configuration was never used: it has no entry.
    assert_eq!(movie.track(Track::Audio).entries, [(Codec::Aac, vec![0x12, 0x10])]);
}

#[test]
fn more_configurations_than_sample_entries_open_a_new_file() {
    let mut layout = Layout::new();
    for variant in 0..=MAX_SAMPLE_ENTRIES {
        let (tag, record) = config(Codec::Avc, 0, &avcc(u8::try_from(variant).unwrap()));
        assert_eq!(layout.push(&tag, record.as_deref()), Take::NotAUnit);
        let expected = if variant < MAX_SAMPLE_ENTRIES {
            Take::Yes
        } else {
            Take::NewFile(reason::TOO_MANY_CONFIGURATIONS)
        };
        assert_eq!(layout.push(&avc(0, 0, true, 9), None), expected);
    }
    let (tag, record) = config(Codec::Avc, 0, &avcc(3));
    assert_eq!(layout.push(&tag, record.as_deref()), Take::NotAUnit);
    assert_eq!(layout.push(&avc(0, 0, true, 9), None), Take::Yes);
}

#[test]
fn times_that_no_table_holds_open_a_new_file() {
    let mut layout = Layout::with_configs(&[(Codec::Avc, Track::Video, &avcc(0))]);
    assert_eq!(layout.push(&avc(0, 0, true, 9), None), Take::Yes);
    let most = i64::from(u32::MAX);
    assert_eq!(
        layout.push(&avc(most + 1, 0, true, 9), None),
        Take::NewFile(reason::PAUSE_TOO_LONG)
    );
    assert_eq!(layout.push(&avc(most, 0, true, 9), None), Take::Yes);
    assert_eq!(
        layout.push(&avc(most - (1 << 30) - 1, 0, true, 9), None),
        Take::NewFile(reason::TIME_WENT_BACK)
    );
    assert_eq!(layout.push(&avc(most - (1 << 30), 0, true, 9), None), Take::Yes);
}

#[test]
fn no_unit_no_file() {
    assert_eq!(
        HeadBuilder::new(&[(Codec::Avc, Track::Video, &avcc(0))], 0).finish(),
        Err(Mp4Error::Empty)
    );
}

#[test]
fn a_single_picture_lasts_as_long_as_one_usually_does() {
    let movie = movie([avc(5000, 0, true, 10)]);
    assert_eq!(movie.moov.mvhd.duration, 40);
    assert_eq!(movie.tracks.len(), 1);
}

#[test]
fn the_last_sample_lasts_as_long_as_the_one_before_unless_that_was_a_pause() {
    assert_eq!(
        movie([avc(0, 0, true, 10), avc(33, 0, false, 10)]).moov.mvhd.duration,
        66
    );
    assert_eq!(
        movie([avc(0, 0, true, 10), avc(60_000, 0, false, 10)])
            .moov
            .mvhd
            .duration,
        60_040
    );
    assert_eq!(
        movie([avc(0, 0, true, 10), avc(0, 0, false, 10)]).moov.mvhd.duration,
        40
    );
    assert_eq!(movie([aac(0, 10)]).moov.mvhd.duration, 21);
}

#[test]
fn tracks_that_begin_together_need_no_edit_list() {
    let movie = movie([avc(700, 0, true, 10), aac(700, 5), avc(740, 0, false, 10), aac(721, 5)]);
    assert_eq!(edits(&movie, Track::Video), []);
    assert_eq!(edits(&movie, Track::Audio), []);
}

#[test]
fn reordered_pictures_are_taken_to_where_they_are_presented() {
    // Decoded from -80 on, presented from 0 on; audio from 7 on.
    let video = [(-80, 80), (-40, 160), (0, 80), (40, 0), (80, 40)];
    let movie = movie(
        video
            .map(|(dts, cto)| avc(dts, cto, dts < 0, 10))
            .into_iter()
            .chain([aac(7, 5), aac(28, 5)]),
    );
    assert_eq!(edits(&movie, Track::Video), [(160, Some(80))]);
    assert_eq!(edits(&movie, Track::Audio), [(7, None), (42, Some(0))]);
    assert_eq!(movie.track(Track::Video).samples[0].dts_ms, -80);
}

#[test]
fn leading_pictures_begin_by_their_offsets_alone() {
    // A file cut in front of an open group: the first picture is presented third, and the sound begins first.
    let video = [(0, 120), (40, 0), (80, 0), (120, 80)];
    let video = |later: i64| video.map(|(dts, cto)| avc(dts + later, cto, dts == 0, 10)).into_iter();
    let soon = movie(video(0).chain([aac(13, 5), aac(34, 5)]));
    let samples = &soon.track(Track::Video).samples;
    assert_eq!(edits(&soon, Track::Video), []);
    assert_eq!(
        samples.iter().map(|sample| sample.pts_ms).collect::<Vec<_>>(),
        [107, 27, 67, 187]
    );
    assert_eq!(edits(&soon, Track::Audio), []);
    let ctts = soon.track(Track::Video).trak.mdia.minf.stbl.ctts.as_ref().unwrap();
    assert_eq!(ctts.entries.iter().map(|run| run.sample_offset).min(), Some(-13));

    // Too late for that: an empty edit, as for any other track.
    let late = movie(video(20_000).chain([aac(13, 5)]));
    assert_eq!(edits(&late, Track::Video), [(20_027, None), (200, Some(40))]);
}

#[test]
fn audio_may_begin_minutes_before_or_after_video() {
    for (audio_ms, first_ms) in [(-180_000, -180_000), (180_000, 0)] {
        let movie = movie([
            avc(0, 40, true, 10),
            avc(40, 40, false, 10),
            aac(audio_ms, 5),
            aac(audio_ms + 21, 5),
        ]);
        let start = |kind| movie.track(kind).samples[0].pts_ms;
        assert_eq!(start(Track::Video), if first_ms < 0 { 180_040 } else { 0 });
        assert_eq!(start(Track::Audio), if first_ms < 0 { 0 } else { 179_960 });
    }
}

#[test]
fn a_first_presentation_time_before_the_first_decode_time_is_kept() {
    let movie = movie([
        avc(0, -40, true, 10),
        avc(40, 40, false, 10),
        avc(80, -20, false, 10),
        aac(-40, 5),
        aac(0, 5),
    ]);
    let pts: Vec<_> = movie
        .track(Track::Video)
        .samples
        .iter()
        .map(|sample| sample.pts_ms)
        .collect();
    assert_eq!(pts, [0, 120, 100]);
    assert_eq!(movie.track(Track::Audio).samples[0].pts_ms, 0);
}

#[test]
fn negative_composition_offsets_make_version_1() {
    let movie = movie([
        avc(0, 0, true, 10),
        avc(40, 40, false, 10),
        avc(80, -40, false, 10),
        avc(120, 0, false, 10),
    ]);
    let ctts = movie.track(Track::Video).trak.mdia.minf.stbl.ctts.as_ref().unwrap();
    let runs: Vec<_> = ctts
        .entries
        .iter()
        .map(|run| (run.sample_count, run.sample_offset))
        .collect();
    assert_eq!(runs, [(1, 0), (1, 40), (1, -40), (1, 0)]);
}

#[test]
fn constant_values_take_no_room() {
    let movie = movie((0..100).map(|at| aac(at * 20, 300)));
    let stbl = &movie.track(Track::Audio).trak.mdia.minf.stbl;
    assert_eq!(stbl.stsz.samples, StszSamples::Identical { count: 100, size: 300 });
    assert_eq!((stbl.stts.entries.len(), &stbl.ctts, &stbl.stss), (1, &None, &None));
    // A file of one track has a chunk for each second.
    assert_eq!(
        (stbl.stsc.entries.len(), stbl.stco.as_ref().unwrap().entries.len()),
        (1, 2)
    );
}

#[test]
fn chunks_are_runs_of_one_track() {
    let order = [
        avc(0, 0, true, 10),
        aac(0, 5),
        aac(21, 6),
        avc(40, 0, false, 7),
        avc(41, 0, false, 8),
        aac(42, 9),
    ];
    let movie = movie(order);
    let chunks = |kind| {
        let stbl = &movie.track(kind).trak.mdia.minf.stbl;
        let runs: Vec<_> = stbl
            .stsc
            .entries
            .iter()
            .map(|run| (run.first_chunk, run.samples_per_chunk))
            .collect();
        let offsets = &stbl.stco.as_ref().unwrap().entries;
        (runs, offsets.iter().map(|&offset| offset % 4096).collect::<Vec<_>>())
    };
    assert_eq!(chunks(Track::Video), (vec![(1, 1), (2, 2)], vec![0, 21]));
    assert_eq!(chunks(Track::Audio), (vec![(1, 2), (2, 1)], vec![10, 36]));
}

#[test]
fn sync_samples_are_listed_unless_all_are() {
    let stss = |keys: [bool; 3]| {
        let movie = movie((0..3).zip(keys).map(|(at, key)| avc(at * 40, 0, key, 10)));
        movie
            .track(Track::Video)
            .trak
            .mdia
            .minf
            .stbl
            .stss
            .clone()
            .map(|stss| stss.entries)
    };
    assert_eq!(stss([true, true, true]), None);
    assert_eq!(stss([true, false, true]), Some(vec![1, 3]));
    assert_eq!(stss([false, false, false]), Some(vec![]));
}

#[test]
fn decode_times_that_go_back_are_held_up_and_presentation_times_kept() {
    let movie = movie([
        avc(100, 0, true, 10),
        avc(60, 0, false, 10),
        avc(140, 0, false, 10),
        aac(100, 5),
        aac(90, 5),
        aac(121, 5),
    ]);
    let times = |kind| {
        movie
            .track(kind)
            .samples
            .iter()
            .map(|sample| (sample.dts_ms, sample.pts_ms))
            .collect::<Vec<_>>()
    };
    // The movie begins at the earliest presentation time, 60; what is presented before a track's first sample is as a
    // leading picture is.
    assert_eq!(times(Track::Video), [(0, 40), (0, 0), (40, 80)]);
    assert_eq!(times(Track::Audio), [(0, 40), (0, 30), (21, 61)]);
}

#[test]
fn each_mp3_rate_has_its_object_type_and_a_sample_entry() {
    let first = |bytes: [u8; 4], dts_ms| (mp3(dts_ms, 400), Some(bytes.to_vec()));
    let tags = [
        first([0xff, 0xfb, 0x90, 0x64], 0),   // MPEG-1, 128 kbit/s, 44.1 kHz, joint stereo
        first([0xff, 0xfb, 0xb2, 0x00], 26),  // padded, 192 kbit/s, stereo: the same
        (mp3(52, 400), None),                 // nothing known: the same
        first([0xff, 0xf3, 0x84, 0xc4], 78),  // MPEG-2, 24 kHz, mono
        first([0x00, 0x00, 0x00, 0x00], 102), // no frame header: as before
    ];
    let mut builder = HeadBuilder::new(&[], 0);
    for (unit, bytes) in &tags {
        assert_eq!(builder.push(unit, bytes.as_deref()), Take::Yes);
    }
    let movie = reader::read(&builder.finish().unwrap());
    let audio = movie.track(Track::Audio);
    assert_eq!(audio.entries, [(Codec::Mp3, vec![0x6b]), (Codec::Mp3, vec![0x69])]);
    assert_eq!(
        audio.samples.iter().map(|sample| sample.entry).collect::<Vec<_>>(),
        [0, 0, 0, 1, 1]
    );
    let formats: Vec<_> = (audio.trak.mdia.minf.stbl.stsd.codecs.iter())
        .map(|codec| match codec {
            mp4_atom::Codec::Mp4a(mp4a) => (mp4a.audio.sample_rate.integer(), mp4a.audio.channel_count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(formats, [(44_100, 2), (24_000, 1)]);
}

#[test]
fn the_same_units_give_the_same_bytes() {
    let head = |created_ms| {
        let mut builder = HeadBuilder::new(&[(Codec::Avc, Track::Video, &avcc(0))], created_ms);
        assert_eq!(builder.push(&avc(0, 0, true, 9), None), Take::Yes);
        builder.finish().unwrap()
    };
    assert_eq!(head(1_700_000_000_000), head(1_700_000_000_999));
    assert_ne!(head(1_700_000_000_000), head(1_700_000_001_000));
}
