//! Runs seeds: `sim [FIRST [COUNT]]`, or the one of `AIRCHECK_SIM_SEED`, whose trace is printed.

#![expect(clippy::print_stdout, reason = "that is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a seed is no setting of the product")]

fn main() -> std::process::ExitCode {
    let number = |text: Option<String>, or: u64| text.and_then(|text| text.parse().ok()).unwrap_or(or);
    if let Ok(seed) = std::env::var("AIRCHECK_SIM_SEED") {
        let outcome = sim::run(number(Some(seed), 0));
        outcome.trace.iter().for_each(|line| println!("{line}"));
        return u8::from(!outcome.broken.is_empty()).into();
    }
    let mut args = std::env::args().skip(1);
    let (first, count) = (number(args.next(), 0), number(args.next(), 1_000));
    let mut failed = 0u64;
    for seed in first..first + count {
        let outcome = sim::run(seed);
        if let Some(broken) = outcome.broken.first() {
            failed += 1;
            println!("seed {seed}: {}", broken.trim());
        }
    }
    println!("{count} seeds from {first}, {failed} failed");
    u8::from(failed > 0).into()
}
