//! Everything that must hold, from nothing: set-up, lints, and every test.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    build, kernels, lint,
    setup::{self, Purpose},
    shell,
    summary::{self, Counts},
};

/// Packages whose tests need nothing but a compiler.
const UNIT: [&str; 3] = ["conduitfw-common", "conduitfw", "xtask"];

/// How a part went.
struct Part {
    name: &'static str,
    counts: Counts,
    complaint: Option<String>,
    took: Duration,
}

/// Runs everything, says how each part went, and ends with the counts.
pub(crate) fn run() -> ExitCode {
    let mut parts = Vec::new();
    parts.push(part("set-up", || {
        setup::ensure(Purpose::Test).map(|()| Counts::default())
    }));
    parts.push(part("build", || build::debug().map(|()| Counts::default())));
    parts.push(part("lint", || {
        lint::run(&lint::Arguments::default()).map(|()| Counts::default())
    }));
    parts.push(part("unit tests", unit_tests));
    let mut not_run = Vec::new();
    if shell::is_root() {
        parts.push(part("integration tests", integration_tests));
    } else {
        not_run.push("integration tests");
    }
    parts.push(part("kernels", kernels::run_all));
    conclude(&parts, &not_run)
}

fn part(name: &'static str, work: impl FnOnce() -> Result<Counts>) -> Part {
    eprintln!("\n##  {name}");
    let began = Instant::now();
    let outcome = work();
    let took = began.elapsed();
    match outcome {
        Ok(counts) => Part {
            name,
            counts,
            complaint: None,
            took,
        },
        Err(error) => {
            let complaint = format!("{error:#}");
            eprintln!("error: {complaint}");
            Part {
                name,
                counts: Counts {
                    passed: 0,
                    failed: 1,
                },
                complaint: Some(complaint),
                took,
            }
        }
    }
}

fn unit_tests() -> Result<Counts> {
    let mut command = shell::cargo();
    command.args(["test", "--quiet", "--no-fail-fast"]);
    for package in UNIT {
        command.args(["--package", package]);
    }
    cargo_test(&mut command)
}

/// Two at a time: each has network namespaces and an instance of its own, and waits more than it works.
fn integration_tests() -> Result<Counts> {
    let mut command = shell::cargo();
    command.args(["test", "--no-fail-fast", "--package", "conduitfw-tests"]);
    command.args(["--", "--test-threads=2"]);
    command.env("CONDUITFW_PYTHON", shell::target("python/bin/python3"));
    shell::give_captures(&mut command);
    cargo_test(&mut command)
}

/// Runs tests, shows what they print, and adds up the results.
fn cargo_test(command: &mut Command) -> Result<Counts> {
    eprintln!("==> {}", shell::line_of(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("the tests have no output")?;
    let mut counts = Counts::default();
    let mut skipped = 0;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        counts.add(summary::result_line(&line).unwrap_or_default());
        skipped += u64::from(line.trim_start().starts_with("skipped: "));
    }
    let status = child.wait()?;
    if skipped > 0 && shell::in_ci() {
        counts.failed += skipped;
    }
    if !status.success() && counts.failed == 0 {
        // Not a test that failed but the build, or the runner itself.
        bail!("`{}` failed ({status})", shell::line_of(command));
    }
    Ok(counts)
}

fn conclude(parts: &[Part], not_run: &[&str]) -> ExitCode {
    let mut all: Counts = parts.iter().map(|part| part.counts).sum();
    println!(
        "\n{:<20}{:>8}{:>8}{:>10}",
        "part", "passed", "failed", "seconds"
    );
    for part in parts {
        let Counts { passed, failed } = part.counts;
        println!(
            "{:<20}{passed:>8}{failed:>8}{:>10.1}",
            part.name,
            part.took.as_secs_f64()
        );
    }
    for part in parts {
        if let Some(complaint) = &part.complaint {
            println!("\n{}: {complaint}", part.name);
        }
    }
    for name in not_run {
        println!("\n{name}: not run, because they need root; run `sudo -E cargo xtask test`");
        if shell::in_ci() {
            all.failed += 1;
        }
    }
    println!("\n{all}");
    if all.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
