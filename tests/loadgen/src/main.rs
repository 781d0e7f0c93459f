//! The command line of the load generator.

use std::io::Write as _;

use anyhow::Result;
use clap::Parser as _;

fn main() -> Result<()> {
    let options = loadgen::Options::parse();
    let mut out = std::io::stdout().lock();
    let report = loadgen::run(&options, &mut |event| {
        Ok(writeln!(out, "{event}").and_then(|()| out.flush())?)
    })?;
    let failed = report["failures"]
        .as_array()
        .is_some_and(|failures| !failures.is_empty());
    writeln!(out, "{report}")?;
    std::process::exit(i32::from(failed));
}
