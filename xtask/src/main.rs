//! Everything that a contributor runs: `cargo xtask --help`.

mod bench;
mod build;
mod demo;
mod doctor;
mod ebpf;
mod fuzz;
mod kernels;
mod lint;
mod prove;
mod setup;
mod shell;
mod summary;
mod test;
mod toolchain;
mod unsafe_count;

use std::process::ExitCode;

use clap::Parser;

/// Everything that a contributor to conduitfw runs.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
enum Task {
    /// Find what the build, the demo and the tests need, and install what is missing.
    Setup(setup::Arguments),
    /// Build the kernel program.
    Ebpf,
    /// Build the kernel program and the controller.
    Build(build::Arguments),
    /// Check the format, the lints and the rules of the house.
    Lint(lint::Arguments),
    /// Say what this machine has, what it lacks and how to get it.
    Doctor(doctor::Arguments),
    /// Set up, lint, and run every test.
    Test,
    /// Try at length to get a denied operation through, and to cut off what is allowed.
    Prove(prove::Arguments),
    /// Measure what a frame costs and what a gateway carries.
    Bench(bench::Arguments),
    /// Boot Linux 6.1 and 6.12 and let their verifiers judge the kernel program.
    Kernels(kernels::Arguments),
    /// Show conduitfw at work in a lab of three hosts.
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Ebpf => ebpf::run(),
        Task::Build(arguments) => build::run(&arguments),
        Task::Lint(arguments) => lint::run(&arguments),
        Task::Doctor(arguments) => doctor::run(&arguments),
        Task::Test => return test::run(),
        Task::Prove(arguments) => match prove::run(&arguments) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Kernels(arguments) => kernels::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
