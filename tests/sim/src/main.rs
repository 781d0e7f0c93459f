//! Runs seeds: `sim [FIRST [COUNT [SABOTAGE]]]`, or the one of `AIRCHECK_SIM_SEED`, whose trace is printed. Every thousand it says how far it is.

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
    let sabotage = match args.next().map(|rule| rule.parse()).transpose() {
        Ok(sabotage) => sabotage,
        Err(error) => {
            println!("{error}");
            return std::process::ExitCode::from(64);
        }
    };
    let mut failed = 0u64;
    for seed in first..first + count {
        let outcome = sim::run_with(seed, sabotage);
        if let Some(broken) = outcome.broken.first() {
            failed += 1;
            println!("seed {seed}: {}", broken.trim());
        }
        let done = seed + 1 - first;
        if done.is_multiple_of(1_000) && done < count {
            println!("{done} seeds from {first}, {failed} failed so far");
        }
    }
    println!("{count} seeds from {first}, {failed} failed");
    u8::from(failed > 0).into()
}
