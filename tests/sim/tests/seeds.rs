//! Seeds of the simulation, and one alone: `AIRCHECK_SIM_SEED=7 cargo test -p sim`.

#![expect(clippy::disallowed_methods, reason = "a seed is no setting of the product")]

use std::fmt::Write as _;
use std::ops::Range;

/// Seeds that do not hold yet, each with what happens in docs/simulation.md. One that holds again is to be taken out.
const OPEN: [u64; 2] = [167, 294];

fn check(seed: u64) {
    let outcome = sim::run(seed);
    if outcome.broken.is_empty() {
        return;
    }
    let mut told = String::new();
    for line in outcome.trace.iter().chain(&outcome.broken) {
        let _ = writeln!(told, "{line}");
    }
    panic!("{told}seed {seed} does not hold; again: AIRCHECK_SIM_SEED={seed} cargo test -p sim --test seeds");
}

fn check_all(seeds: Range<u64>) {
    match std::env::var("AIRCHECK_SIM_SEED") {
        Ok(seed) => check(seed.parse().expect("AIRCHECK_SIM_SEED is a number")),
        Err(_) => seeds.filter(|seed| !OPEN.contains(seed)).for_each(check),
    }
}

macro_rules! seeds {
    ($($name:ident: $range:expr;)*) => {$(
        #[test]
        fn $name() {
            check_all($range);
        }
    )*};
}

// In parts, so that cores share them.
seeds! {
    seeds_0: 0..50;
    seeds_1: 50..100;
    seeds_2: 100..150;
    seeds_3: 150..200;
    seeds_4: 200..250;
    seeds_5: 250..300;
}

#[test]
fn an_open_seed_is_still_open() {
    for seed in OPEN {
        assert!(
            !sim::run(seed).broken.is_empty(),
            "seed {seed} holds: take it out of OPEN and of the documents"
        );
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..5 {
        assert_eq!(sim::run(seed).trace, sim::run(seed).trace, "seed {seed}");
    }
}
