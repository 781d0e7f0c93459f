//! The fuzz targets' corpora as ordinary tests.

mod checks;

use std::{fs, path::Path};

#[test]
fn every_kept_input_passes_its_check() {
    for (name, check) in checks::ALL {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let inputs: Vec<_> = fs::read_dir(&corpus)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(!inputs.is_empty(), "no inputs in {}", corpus.display());
        for path in inputs {
            let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            println!("{}", path.display());
            check(&input);
        }
    }
}
