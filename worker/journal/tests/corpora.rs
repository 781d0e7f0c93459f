//! The fuzz targets' corpora as ordinary tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;

use std::{fs, path::Path};

#[test]
fn every_kept_input_passes_its_check() {
    for (name, check) in checks::ALL {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let inputs: Vec<_> = fs::read_dir(&corpus)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!inputs.is_empty(), "no inputs in {}", corpus.display());
        for path in inputs {
            println!("{}", path.display());
            check(&fs::read(&path).unwrap());
        }
    }
}

/// The same check over programs made up here, so that it is tried also where no fuzzer ran.
#[test]
fn random_programs_pass_the_checks() {
    let mut seed = 7u64;
    for round in 0..600u64 {
        let mut program = Vec::new();
        let len = 20 + round % 700;
        for _ in 0..len {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            program.push((seed >> 40) as u8);
        }
        if let Err(panic) = std::panic::catch_unwind(|| checks::journal_recover(&program)) {
            eprintln!("round {round}: {program:?}");
            std::panic::resume_unwind(panic);
        }
    }
}
