//! The command line: one verb a file.

mod check;
mod detach;
mod events;
mod explain;
mod reload;
mod replay;
mod run;
mod status;

use std::{io::Write as _, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

pub(crate) use check::unreadable;

use crate::instance::{Instance, InstanceName};

/// A firewall for the boundary between two zones of an industrial network.
#[derive(Debug, Parser)]
#[command(name = "conduitfw", version, max_term_width = 100)]
pub struct CommandLine {
    #[command(flatten)]
    roots: Roots,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args, Debug)]
struct Roots {
    /// Instance, where several run on one machine
    #[arg(long, global = true, default_value = "default", value_name = "NAME")]
    instance: InstanceName,
    /// Root of the BPF file system
    #[arg(
        long,
        global = true,
        default_value = "/sys/fs/bpf",
        value_name = "DIR",
        hide = true
    )]
    bpffs: PathBuf,
    /// Directory of sockets and locks
    #[arg(
        long,
        global = true,
        default_value = "/run/conduitfw",
        value_name = "DIR",
        hide = true
    )]
    run_dir: PathBuf,
    /// Directory of what outlives a reboot
    #[arg(
        long,
        global = true,
        default_value = "/var/lib/conduitfw",
        value_name = "DIR",
        hide = true
    )]
    state_dir: PathBuf,
}

impl From<Roots> for Instance {
    fn from(roots: Roots) -> Self {
        let Roots {
            instance: name,
            bpffs,
            run_dir,
            state_dir,
        } = roots;
        Self {
            name,
            bpffs,
            run_dir,
            state_dir,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put a policy in force and stay to report; stopping leaves it in force
    Run(run::Arguments),
    /// Say whether a policy is right, without root and without a kernel
    Check(check::Arguments),
    /// Say what a policy decides about an operation, and which rule almost allows it; no root
    Explain(Box<explain::Arguments>),
    /// Put a changed policy in force, or say why not
    Reload(reload::Arguments),
    /// Say what is in force and what it did
    Status(status::Arguments),
    /// Show what was denied
    Events(events::Arguments),
    /// Judge the frames of a capture by a policy, without root
    Replay(replay::Arguments),
    /// Take the program off every interface: nothing is filtered any more
    Detach(detach::Arguments),
    /// Say which version this is
    Version,
}

/// Why a verb failed, by exit code.
#[derive(Debug, Error)]
pub enum Failure {
    /// The policy was refused; everything there is to say was said. Exit code 1.
    #[error("")]
    Refused,
    /// Anything else: one sentence with the remedy. Exit code 2.
    #[error("{0}")]
    System(#[from] anyhow::Error),
}

impl Failure {
    fn system(error: impl Into<anyhow::Error>) -> Self {
        Self::System(error.into())
    }
}

/// Does what the command line says.
///
/// # Errors
///
/// By exit code.
pub fn obey(command_line: CommandLine) -> Result<(), Failure> {
    let instance = Instance::from(command_line.roots);
    match command_line.verb {
        Verb::Run(arguments) => run::run(instance, arguments),
        Verb::Check(arguments) => check::check(&arguments),
        Verb::Explain(arguments) => explain::explain(*arguments),
        Verb::Reload(arguments) => reload::reload(&instance, &arguments),
        Verb::Status(arguments) => status::status(&instance, &arguments),
        Verb::Events(arguments) => events::events(&instance, &arguments),
        Verb::Replay(arguments) => replay::replay(&arguments),
        Verb::Detach(arguments) => detach::detach_all(&instance, &arguments),
        Verb::Version => print(&format!("conduitfw {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// Writes to standard output; a reader that left (a closed pipe) ends the verb in peace.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::system(error)),
        Ok(()) => Ok(()),
    }
}

/// Writes one JSON value and a line end.
fn print_json(value: &impl std::fmt::Display) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// Writes diagnostics to standard error.
fn complain(text: &str) {
    // There is nobody left to tell when this fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
