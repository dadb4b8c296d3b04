//! The command line of conduitfw: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use conduitfw::cli::{CommandLine, Failure, obey};

fn main() -> ExitCode {
    match obey(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused) => ExitCode::from(1),
        Err(failure @ Failure::System(_)) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}
