//! Rules broken on purpose: whoever watches notices, and says which.

use sim::Sabotage;

/// Seeds that are tried until one notices.
const SEEDS: u64 = 60;

/// True if one of the first seeds says so.
fn is_noticed(sabotage: Sabotage, says: &str) -> bool {
    (0..SEEDS).any(|seed| {
        let outcome = sim::run_with(seed, Some(sabotage));
        outcome.broken.iter().any(|broken| broken.contains(says))
    })
}

macro_rules! noticed {
    ($($name:ident: $sabotage:ident, $says:expr;)*) => {$(
        #[test]
        fn $name() {
            assert!(is_noticed(Sabotage::$sabotage, $says), "nobody says {:?}", $says);
        }
    )*};
}

noticed! {
    commits_whose_epoch_nobody_looks_at: ForgesEpochs, "no rest";
    a_store_that_ignores_guards: IgnoresGuards, "is granted to publish";
    a_lease_that_is_granted_twice: ForgetsStreams, "is granted to publish";
    a_journal_that_goes_before_the_library_has_its_units: SwallowsFiles, "without a gap";
    a_final_state_of_a_task_that_is_written_over: RewritesTasks, " was completed and is ";
    a_gap_that_is_not_noted: HidesGaps, "without a gap";
    a_file_that_storage_has_lost: LosesObjects, "is in the library and not in storage";
}
