//! Large files, long files, and what they cost.

use media::{
    access_unit::{Codec, Track, UnitInfo},
    mp4::{HEAD_ALIGNMENT, HeadBuilder, Take},
};

use crate::{
    reader,
    roundtrip::check,
    source::{AAC_LC, aac, avc, avcc},
};

/// Pictures at 53 a second, every other one reordered, and 47 audio frames a second between them: 100 units a second
/// whose sizes vary as a 2.5 Mbit/s stream's do.
fn stream(seconds: i64) -> impl Iterator<Item = UnitInfo> {
    (0..seconds * 100).map(|at| {
        let noise = u32::try_from(at * 7919 % 4001).unwrap();
        if at * 53 % 100 < 53 {
            avc(
                at * 10,
                [19, 57, 0, 38][usize::try_from(at / 2 % 4).unwrap()],
                at % 200 == 0,
                4000 + noise,
            )
        } else {
            aac(at * 10 + i64::from(noise % 3), 300 + noise / 20)
        }
    })
}

fn configs(avcc: &[u8]) -> [(Codec, Track, &[u8]); 2] {
    [(Codec::Avc, Track::Video, avcc), (Codec::Aac, Track::Audio, &AAC_LC)]
}

#[test]
fn five_gigabytes_have_64_bit_offsets() {
    const UNIT: u32 = 16 << 20;
    let units: Vec<_> = (0..322)
        .map(|at| {
            (
                avc(at * 40, 80, at % 25 == 0, UNIT - u32::try_from(at % 2).unwrap()),
                None,
            )
        })
        .collect();
    let movie = check(&configs(&avcc(0)), &units).unwrap();
    assert!(movie.mdat_len > 5 << 30);
    let video = movie.track(Track::Video);
    assert!(video.trak.mdia.minf.stbl.co64.is_some());
    assert!(video.samples.last().unwrap().offset > 5_000_000_000);
}

#[test]
fn offsets_are_right_on_either_side_of_4_gibibytes() {
    const UNIT: u32 = 16 << 20;
    // The last chunk begins around 2^32 and the file ends some kibibytes on either side of it.
    for last in (0..40).map(|at| at * 1024 + 1) {
        let sizes = (0..255).map(|_| UNIT).chain([UNIT - 20 * 1024, last]);
        let units: Vec<_> = (0..)
            .zip(sizes)
            .map(|(at, size)| (avc(at * 2000, 0, true, size), None))
            .collect();
        check(&configs(&avcc(0)), &units).unwrap();
    }
}

#[test]
fn years_of_time_have_64_bit_durations() {
    let step = i64::from(u32::MAX);
    let units = [
        avc(0, 0, true, 9),
        avc(step, 0, true, 9),
        avc(2 * step, 0, true, 9),
        aac(3 * step, 9),
    ];
    let movie = check(&configs(&avcc(0)), &units.map(|unit| (unit, None))).unwrap();
    assert_eq!(movie.track(Track::Audio).samples[0].pts_ms, 3 * step);
}

#[test]
fn half_an_hour_of_100_units_a_second_costs_less_than_2_megabytes_while_composing() {
    let mut builder = HeadBuilder::new(&configs(&avcc(0)), 0);
    for unit in stream(1800) {
        assert_eq!(builder.push(&unit, None), Take::Yes);
    }
    let memory = builder.memory_len();
    assert!(memory < 2_000_000, "{memory} bytes");
    let head = builder.finish().unwrap();
    assert!(head.len() < 5_000_000, "{} bytes", head.len());
    assert!(head.capacity() - head.len() < 3 * HEAD_ALIGNMENT);
    assert_eq!(
        reader::read(&head)
            .tracks
            .iter()
            .map(|track| track.samples.len())
            .sum::<usize>(),
        180_000
    );
}

#[test]
fn a_day_is_composed() {
    let mut builder = HeadBuilder::new(&configs(&avcc(0)), 0);
    let mut bytes = 0;
    // Every fourth unit, for the test's own time.
    for unit in stream(24 * 3600).step_by(4) {
        bytes += u64::from(unit.data_len());
        assert_eq!(builder.push(&unit, None), Take::Yes);
    }
    assert_eq!(builder.body_len(), bytes);
    assert!(builder.memory_len() < 20_000_000);
    let head = builder.finish().unwrap();
    assert_eq!(head.len() % HEAD_ALIGNMENT, 0);
    assert_eq!(reader::read(&head).mdat_len, bytes);
}
