//! The `aircheck` binary: puts the roles together, and speaks to them.
//!
//! * `cli.rs`: every command, flag and help text.
//! * `roles.rs`: standalone, coordinator, worker: settings, start, signals, end.
//! * `inspect.rs`: journals and the metadata store, for people.
//! * `ops.rs`: HTTP of a process that is only a worker.
//! * `client/`: the commands that speak gRPC to a coordinator.

mod cli;
mod client;
mod inspect;
mod ops;
mod roles;
mod when;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Standalone(args) => roles::standalone(&args),
        Command::Coordinator(args) => roles::coordinator(&args),
        Command::Worker(args) => match args.command {
            Some(command) => client::run(client::workers::run(command)),
            None => roles::worker(&args),
        },
        Command::CheckConfig(args) => roles::check_config(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Template { command } => client::run(client::templates::run(command)),
        Command::Rule { command } => client::run(client::rules::run(command)),
        Command::Pull { command } => client::run(client::pulls::run(command)),
        Command::Task { command } => client::run(client::tasks::run(command)),
        Command::Stream { command } => client::run(client::streams::run(command)),
        Command::Recording { command } => client::run(client::recordings::run(command)),
        Command::Callback { command } => client::run(client::callbacks::run(command)),
        Command::Event { command } => client::run(client::events::run(command)),
        Command::Domain { command } => client::run(client::domains::run(command)),
        Command::Compose { command } => client::run(client::compose::run(command)),
        Command::Key { command } => client::run(client::keys::run(command)),
        Command::File { command } => client::run(client::files::run(command)),
        Command::Recover(args) => client::run(client::recover::run(args)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("aircheck: {}", chain(&*error));
        ExitCode::FAILURE
    })
}

/// An error with what caused it, each cause said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
