//! The scaler against a simulated day of load.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod day;
mod plot;

use coordinator::scaler::Targets;

/// The values that docs/kubernetes.md gives for such a fleet.
const TARGETS: Targets = Targets {
    streams_per_worker: day::WORKER,
    bits_per_worker: 500_000_000,
    reserve_streams: 1_000,
    reserve_percent: 5,
};

#[test]
fn a_day_passes_without_a_refused_stream_and_with_little_idle_room() {
    for seed in 1..=3 {
        let day = day::run(seed, TARGETS);
        println!(
            "seed {seed}: {} started, {} refused, {} moved, {} cut, most on one {}, idle {:.1} %",
            day.started,
            day.refused,
            day.moved,
            day.cut,
            day.most_on_one,
            day.idle() * 100.0
        );
        assert_eq!(day.refused, 0, "seed {seed}");
        assert_eq!(day.cut, 0, "seed {seed}: a worker was removed that had streams");
        assert!(day.moved > 0, "workers were drained");
        assert!(day.idle() < 0.20, "seed {seed}: {:.3} idle", day.idle());
        assert!(day.started > 200_000, "a day with something in it");
    }
}

#[test]
fn without_a_reserve_the_burst_is_refused() {
    let none = Targets {
        reserve_streams: 0,
        reserve_percent: 0,
        ..TARGETS
    };
    let day = day::run(1, none);
    assert!(day.refused > 0, "so it is the reserve that carries it");
}

#[test]
fn the_plot_in_the_documents_is_of_this_day() {
    let drawn = plot::svg(&day::run(1, TARGETS));
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scaling-day.svg");
    let said = std::fs::read_to_string(kept).unwrap_or_default();
    if said != drawn {
        let fresh = concat!(env!("CARGO_TARGET_TMPDIR"), "/scaling-day.svg");
        std::fs::write(fresh, drawn).unwrap();
        panic!("docs/scaling-day.svg is of another day: look at {fresh}, and put it there if it is right");
    }
}
