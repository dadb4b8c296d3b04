//! Other kernels: boots each in a virtual machine, where its own verifier judges the program.

mod console;
pub(crate) mod guest;
mod image;

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{ebpf, shell, summary::Counts};
use console::{Account, Clock};
use image::Image;

/// The series that the project promises to run on, oldest first.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Software emulation takes about eight times as long as the machine itself would.
const PATIENCE: Duration = Duration::from_mins(6);

/// Which kernels, and what to run on them.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this series, for example 6.1.
    #[arg(long, value_name = "SERIES")]
    kernel: Option<String>,
    /// Run this static program there instead of the tests.
    #[arg(long, value_name = "FILE")]
    command: Option<PathBuf>,
    /// What to hand to the program.
    #[arg(last = true)]
    words: Vec<String>,
}

/// Boots the kernels and fails when one refuses.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let counts = judge(arguments)?;
    eprintln!("==> kernels: {counts}");
    if counts.failed > 0 {
        bail!("a kernel refused or a test failed there");
    }
    Ok(())
}

/// All kernels, all tests.
pub(crate) fn run_all() -> Result<Counts> {
    judge(&Arguments {
        kernel: None,
        command: None,
        words: Vec::new(),
    })
}

fn judge(arguments: &Arguments) -> Result<Counts> {
    if env::consts::ARCH != "x86_64" {
        bail!("the other kernels run on x86-64 alone");
    }
    for program in ["qemu-system-x86_64", "cpio", "dpkg", "xz"] {
        if shell::which(program).is_none() {
            bail!("`{program}` is missing; run `cargo xtask setup --for test`");
        }
    }
    ebpf::run()?;
    let job = guest::Job::build(arguments.command.as_deref(), &arguments.words)?;
    let chosen = match &arguments.kernel {
        Some(series) => vec![series.as_str()],
        None => SERIES.to_vec(),
    };
    let mut machines = Vec::new();
    for series in chosen {
        machines.push((series, prepare(series, &job)?));
    }
    let what = "boot and run, all at once; some seconds, and what the tests take";
    let accounts = shell::step(what, || boot_all(&machines))?;
    let mut counts = Counts::default();
    for ((series, _), account) in machines.iter().zip(accounts) {
        report(series, &account);
        counts.add(account.counts());
    }
    Ok(counts)
}

/// A kernel and what it starts with.
struct Machine {
    image: Image,
    initramfs: PathBuf,
}

fn prepare(series: &str, job: &guest::Job) -> Result<Machine> {
    shell::step(
        &format!("Linux {series}: newest cloud kernel of Debian"),
        || {
            let image = image::newest(series)?;
            eprintln!("    {}", image.release);
            let initramfs = job.initramfs(&image)?;
            Ok(Machine { image, initramfs })
        },
    )
}

/// Each machine emulates on one core or two: together they take little longer than one.
fn boot_all(machines: &[(&str, Machine)]) -> Result<Vec<Account>> {
    thread::scope(|scope| {
        let boots: Vec<_> = machines
            .iter()
            .map(|(_, Machine { image, initramfs })| {
                let log = image.directory.join("console.log");
                scope.spawn(move || {
                    console::boot(&image.kernel, initramfs, &log, PATIENCE, Clock::Time)
                })
            })
            .collect();
        boots
            .into_iter()
            .map(|boot| {
                boot.join()
                    .map_err(|_| anyhow!("the wait for a machine broke"))?
            })
            .collect()
    })
}

/// Runs a static program in the newest promised kernel, where a nanosecond is an instruction; what
/// the console showed.
pub(crate) fn count_instructions(
    program: &Path,
    words: &[String],
    files: Vec<PathBuf>,
) -> Result<String> {
    let series = SERIES[SERIES.len() - 1];
    let job = guest::Job::build(Some(program), words)?.with_files(files);
    let Machine { image, initramfs } = prepare(series, &job)?;
    let log = image.directory.join("instructions.log");
    let what = "a machine that counts instructions; some minutes";
    let account = shell::step(what, || {
        console::boot(
            &image.kernel,
            &initramfs,
            &log,
            PATIENCE,
            Clock::Instructions,
        )
    })?;
    Ok(fs::read_to_string(account.log)?)
}

fn report(series: &str, account: &Account) {
    for line in &account.remarkable {
        eprintln!("    {series}: {line}");
    }
    let log = account
        .log
        .strip_prefix(shell::root())
        .unwrap_or(&account.log);
    if account.counts().failed > 0 {
        eprintln!("    {series}: all of the console is in {}", log.display());
    }
    eprintln!("    {series}: {}", account.outcome());
}

/// The static counterpart of what cargo builds for this machine.
pub(crate) fn static_flags(command: &mut std::process::Command) -> &mut std::process::Command {
    command
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-Ctarget-feature=+crt-static -Cstrip=symbols",
        )
        .args(["--target", "x86_64-unknown-linux-gnu"])
}

fn file_name(path: &Path) -> Result<String> {
    let name = path
        .file_name()
        .with_context(|| format!("{} has no name", path.display()))?;
    Ok(name.to_string_lossy().into_owned())
}
