use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const HOURS_10: u32 = 36_000_000;

/// Feeds units at their own pace: the arrival clock is the third column.
fn times(units: &[(Track, u32, i64)]) -> Vec<i64> {
    let mut timeline = Timeline::new();
    units
        .iter()
        .map(|&(track, raw, arrival)| timeline.map(track, raw, arrival).base_ms + i64::from(raw))
        .collect()
}

fn jumps(units: &[(Track, u32, i64)]) -> usize {
    let mut timeline = Timeline::new();
    units
        .iter()
        .filter(|&&(track, raw, arrival)| timeline.map(track, raw, arrival).jump.is_some())
        .count()
}

use Track::{Audio as A, Video as V};

#[test]
fn the_first_unit_stands_at_its_own_timestamp() {
    assert_eq!(times(&[(V, 123_456, 5)]), [123_456]);
    assert_eq!(times(&[(V, u32::MAX, 5)]), [i64::from(u32::MAX)]);
}

#[test]
fn a_steady_stream_keeps_base_0() {
    let units: Vec<_> = (0..1000u32)
        .flat_map(|n| [(V, n * 40, 0), (A, n * 40 + 7, 0)])
        .collect();
    let mut timeline = Timeline::new();
    for (track, raw, arrival) in units {
        assert_eq!(
            timeline.map(track, raw, arrival),
            Mapped {
                base_ms: 0,
                jump: None,
                held_ms: 0
            }
        );
    }
}

#[test]
fn the_32_bit_wrap_goes_on_exactly_on_both_tracks() {
    let start = u32::MAX - 100;
    let units: Vec<_> = (0..10u32)
        .flat_map(|n| {
            [
                (V, start.wrapping_add(n * 40), 0),
                (A, start.wrapping_add(n * 40 + 30), 0),
            ]
        })
        .collect();
    let expected: Vec<_> = (0..10i64)
        .flat_map(|n| [i64::from(start) + n * 40, i64::from(start) + n * 40 + 30])
        .collect();
    assert_eq!(times(&units), expected);
    assert_eq!(jumps(&units), 0);
}

#[test]
fn an_encoder_that_wraps_at_24_bits_goes_on_exactly() {
    let start = (1u32 << 24) - 100;
    let raw = |n: u32| (start + n) & 0xFF_FFFF;
    let units: Vec<_> = (0..10u32)
        .flat_map(|n| [(V, raw(n * 40), 0), (A, raw(n * 40 + 30), 0)])
        .collect();
    let expected: Vec<_> = (0..10i64)
        .flat_map(|n| [i64::from(start) + n * 40, i64::from(start) + n * 40 + 30])
        .collect();
    assert_eq!(times(&units), expected);
    assert_eq!(jumps(&units), 0);
}

#[test]
fn a_single_outlier_is_placed_and_the_next_unit_snaps_back() {
    for outlier in [1000 + HOURS_10, 1000u32.wrapping_sub(HOURS_10)] {
        let units = [
            (V, 1000, 0),
            (A, 1010, 10),
            (V, 1040, 40),
            (A, 1033, 33),
            (V, outlier, 80),
            (A, 1056, 56),
            (V, 1120, 120),
            (A, outlier.wrapping_add(5_000_000), 79),
            (A, 1102, 102),
            (V, 1160, 160),
        ];
        assert_eq!(
            times(&units),
            [1000, 1010, 1040, 1033, 1080, 1056, 1120, 1079, 1102, 1160]
        );
        assert_eq!(jumps(&units), 2);
    }
}

#[test]
fn both_tracks_share_the_offset_of_a_jump() {
    for jumped in [HOURS_10, 0, 700] {
        let mut units: Vec<_> = (0..100u32)
            .flat_map(|n| [(V, 50_000 + n * 40, 0), (A, 50_007 + n * 40, 0)])
            .collect();
        units.extend((0..100u32).flat_map(|n| [(V, jumped + n * 40, 0), (A, jumped + 7 + n * 40, 0)]));
        let times = times(&units);
        assert_eq!(jumps(&units), 1, "{jumped}");
        for (n, pair) in times.chunks(2).enumerate() {
            let at = 50_000 + i64::try_from(n).unwrap() * 40;
            assert_eq!(pair, [at, at + 7], "{jumped}");
        }
    }
}

#[test]
fn a_jump_says_where_from_and_where_to() {
    let mut timeline = Timeline::new();
    timeline.map(V, 1000, 0);
    timeline.map(V, 1033, 33);
    let mapped = timeline.map(V, 5, 66);
    assert_eq!(mapped.base_ms + 5, 1066);
    assert_eq!(
        mapped.jump,
        Some(Jump {
            from_ms: 1033,
            to_ms: 5
        })
    );
}

#[test]
fn a_long_step_is_a_jump_only_if_the_arrival_clock_stood_still() {
    assert_eq!(times(&[(V, 0, 0), (V, 40, 40), (V, 60_040, 60_000)]), [0, 40, 60_040]);
    assert_eq!(times(&[(V, 0, 0), (V, 40, 40), (V, 60_040, 80)]), [0, 40, 80]);
    assert_eq!(times(&[(V, 0, 0), (V, 40, 40), (V, 9_040, 80)]), [0, 40, 9_040]);
}

#[test]
fn a_track_that_paused_comes_back_where_the_other_one_is() {
    let mut units: Vec<_> = (0..1000u32).map(|n| (V, n * 40, 0)).collect();
    units.insert(0, (A, 0, 0));
    units.push((A, 39_990, 0));
    assert_eq!(*times(&units).last().unwrap(), 39_990);
    assert_eq!(jumps(&units), 0);
}

#[test]
fn audio_seconds_ahead_of_video_is_no_jump() {
    let units: Vec<_> = (0..500u32)
        .flat_map(|n| [(V, n * 40, 0), (A, 2000 + n * 40, 0)])
        .collect();
    assert_eq!(times(&units), units.iter().map(|u| i64::from(u.1)).collect::<Vec<_>>());
}

#[test]
fn tracks_on_different_clocks_keep_an_offset_each() {
    let units: Vec<_> = (0..500u32)
        .flat_map(|n| [(V, n * 40, 0), (A, 900_000 + n * 40, 0)])
        .collect();
    let expected: Vec<_> = (0..500i64).flat_map(|n| [n * 40, n * 40]).collect();
    assert_eq!(times(&units), expected);
    assert_eq!(jumps(&units), 1);
}

#[test]
fn small_steps_back_are_held_and_never_add_up() {
    // Presentation times with three reordered pictures, as some encoders stamp them.
    let mut timeline = Timeline::new();
    let mut last = 0;
    for group in 0..1000u32 {
        for step in [160, 80, 40, 120] {
            let raw = group * 160 + step;
            let mapped = timeline.map(V, raw, 0);
            let dts = mapped.base_ms + i64::from(raw);
            assert!(dts >= last && mapped.jump.is_none());
            assert!(dts - i64::from(raw) <= 120, "no drift");
            assert_eq!(dts - i64::from(raw), i64::from(mapped.held_ms));
            last = dts;
            let sound = timeline.map(A, group * 160 + step / 2, 0);
            assert!(sound.base_ms == 0 || sound.held_ms > 0);
        }
    }
}

#[test]
fn time_that_really_went_back_a_little_is_a_jump_after_eight_units() {
    let mut units: Vec<_> = (0..50u32).map(|n| (V, n * 20, 0)).collect();
    units.extend((0..50u32).map(|n| (V, 980 - 400 + n * 20, 0)));
    let times = times(&units);
    assert_eq!(jumps(&units), 1);
    assert!(times[50..58].iter().all(|&t| t == 980), "{times:?}");
    assert!(times[58..].windows(2).all(|w| w[1] - w[0] == 20));
    assert_eq!(times[58], 1000);
}

#[test]
fn tags_without_an_access_unit_stand_near_the_units() {
    let mut timeline = Timeline::new();
    assert_eq!(timeline.attach(77), 0);
    timeline.map(V, 500_000, 0);
    assert_eq!(timeline.attach(0), 500_000);
    assert_eq!(timeline.attach(500_010), 0);
    timeline.map(V, 3, 0);
    assert_eq!(timeline.attach(10) + 10, 500_040 + 7);
}

fn steps() -> impl Strategy<Value = Vec<(bool, u32)>> {
    prop::collection::vec((any::<bool>(), 0u32..5_000), 1..300)
}

proptest! {
    #[test]
    fn a_stream_that_never_goes_back_keeps_its_base_but_for_wraps(start: u32, steps in steps()) {
        let mut timeline = Timeline::new();
        let mut at = i64::from(start);
        for (video, step) in steps {
            at += i64::from(step);
            let raw = u32::try_from(at & 0xFFFF_FFFF).unwrap();
            let mapped = timeline.map(if video { V } else { A }, raw, 0);
            prop_assert_eq!(mapped.base_ms + i64::from(raw), at);
            prop_assert_eq!(mapped.base_ms & 0xFFFF_FFFF, 0);
        }
    }

    #[test]
    fn no_track_ever_goes_back(units in prop::collection::vec((any::<bool>(), prop_oneof![any::<u32>(), 0u32..1000, 100_000u32..200_000], 0i64..100_000), 1..300)) {
        let mut timeline = Timeline::new();
        let mut last = [i64::MIN; 2];
        let mut arrival = 0;
        for (video, raw, elapsed) in units {
            arrival += elapsed;
            let mapped = timeline.map(if video { V } else { A }, raw, arrival);
            let dts = mapped.base_ms + i64::from(raw);
            let last = &mut last[usize::from(video)];
            prop_assert!(dts >= *last);
            prop_assert!(i64::from(mapped.held_ms) <= HOLD_MS);
            *last = dts;
        }
    }

    #[test]
    fn sound_keeps_the_distance_to_the_picture_that_its_encoder_stamps(
        start: u32, jump in prop_oneof![any::<i32>(), -40_000i32..40_000], before in 0u32..3000, after in 0u32..3000, frames in 100u32..150,
    ) {
        let jumped = start.wrapping_add_signed(jump);
        let mut timeline = Timeline::new();
        let mut distances = [Vec::new(), Vec::new()];
        for ((base, ahead), distances) in [(start, before), (jumped, after)].into_iter().zip(&mut distances) {
            for n in 0..frames {
                let video = base.wrapping_add(n * 40);
                let audio = video.wrapping_add(ahead);
                let v = timeline.map(V, video, 0);
                let a = timeline.map(A, audio, 0);
                distances.push(a.base_ms + i64::from(audio) - v.base_ms - i64::from(video));
            }
        }
        prop_assert!(distances[0].iter().all(|d| *d == i64::from(before)), "{:?}", distances);
        // Around the jump single units are held, or one track has not jumped yet; from then on it is exact.
        prop_assert!(distances[1].iter().skip(80).all(|d| *d == i64::from(after)), "{:?}", distances);
    }
}
