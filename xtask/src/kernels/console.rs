//! The virtual machine and its console.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::summary::{self, Counts};

/// The first process says with this how its program ended.
const ENDED: &str = "guest: ended with ";

/// What the console said.
pub(crate) struct Account {
    /// The lines a reader wants: verifier figures, failures, results.
    pub(crate) remarkable: Vec<String>,
    /// Where all lines are.
    pub(crate) log: PathBuf,
    tests: Counts,
    exit: Option<i32>,
    timed_out: bool,
}

impl Account {
    fn read(text: &str, log: &Path, timed_out: bool) -> Self {
        let lines = || text.lines().map(str::trim_end);
        Self {
            remarkable: lines()
                .filter(|line| is_remarkable(line))
                .map(str::to_owned)
                .collect(),
            log: log.to_path_buf(),
            tests: lines().filter_map(summary::result_line).sum(),
            exit: lines().find_map(|line| line.strip_prefix(ENDED)?.trim().parse().ok()),
            timed_out,
        }
    }

    /// The tests that passed and failed; a machine that broke counts as one failure.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.tests;
        if self.exit != Some(0) && counts.failed == 0 {
            counts.failed = 1;
        }
        counts
    }

    /// How it went, in words.
    pub(crate) fn outcome(&self) -> String {
        match self.exit {
            Some(0) => format!("ended well, {}", self.tests),
            Some(code) => format!("the program ended with code {code}, {}", self.tests),
            None if self.timed_out => "no end in time, stopped".to_owned(),
            None => "the machine ended before the program did".to_owned(),
        }
    }
}

fn is_remarkable(line: &str) -> bool {
    line.contains("verifier:")
        || line.starts_with("guest: ")
        || line.starts_with("test result:")
        || line.contains("panicked at")
        || line.contains("Kernel panic")
        || (line.starts_with("test ") && line.ends_with("FAILED"))
}

/// What a nanosecond is in a virtual machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// A nanosecond.
    Time,
    /// An instruction: time passes by nothing else, and the same program takes the same time.
    Instructions,
}

/// Boots, waits for the end and reads the console.
pub(crate) fn boot(
    kernel: &Path,
    initramfs: &Path,
    log: &Path,
    patience: Duration,
    clock: Clock,
) -> Result<Account> {
    let mut machine = machine(kernel, initramfs, clock)
        .spawn()
        .context("cannot start qemu")?;
    let (sender, lines) = channel();
    let output = machine.stdout.take().context("qemu has no output")?;
    let reader = thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).replace('\r', "");
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    let timed_out = follow(&lines, log, patience)?;
    stop(&mut machine);
    _ = reader.join();
    let text = fs::read_to_string(log)?;
    Ok(Account::read(&text, log, timed_out))
}

/// Writes the console to a file until it ends; true when it did not end in time.
fn follow(lines: &Receiver<String>, log: &Path, patience: Duration) -> Result<bool> {
    let mut log = File::create(log)?;
    let end = Instant::now() + patience;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => log.write_all(line.as_bytes())?,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) => return Ok(true),
        }
    }
}

fn stop(machine: &mut Child) {
    if !matches!(machine.try_wait(), Ok(Some(_))) {
        _ = machine.kill();
    }
    _ = machine.wait();
}

fn machine(kernel: &Path, initramfs: &Path, clock: Clock) -> Command {
    let mut command = Command::new("setpriv");
    // A machine that nobody waits for any more must not go on.
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
    command.args([
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    // Software emulation: it works inside of virtual machines too, where KVM may hang.
    command.args(["-accel", "tcg", "-cpu", "max"]);
    match clock {
        Clock::Time => command.args(["-m", "1024", "-smp", "2"]),
        Clock::Instructions => {
            command.args(["-m", "3072", "-smp", "1", "-icount", "shift=0,sleep=off"])
        }
    };
    command.args([
        "-append",
        "console=ttyS0 quiet loglevel=4 panic=-1 rdinit=/init",
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(text: &str) -> Account {
        Account::read(text, Path::new("console.log"), false)
    }

    #[test]
    fn a_machine_that_ends_well_has_its_tests_counted() {
        let account = account(
            "verifier: instructions=12 time=3us\r\n\
             test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\r\n\
             guest: ended with 0\r\n",
        );
        assert_eq!(
            account.counts(),
            Counts {
                passed: 7,
                failed: 0
            }
        );
        assert_eq!(account.remarkable.len(), 3);
    }

    #[test]
    fn a_machine_that_breaks_is_a_failure() {
        assert_eq!(account("Kernel panic - not syncing\n").counts().failed, 1);
        assert_eq!(account("guest: ended with 101\n").counts().failed, 1);
    }
}
