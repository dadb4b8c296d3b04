//! A program that runs on a host of the lab for as long as the test or the demo needs it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal;
use nix::unistd::Pid;

use super::{Removal, no_longer_standing, standing};

/// A running program. It is killed when this value goes, and on signals.
#[derive(Debug)]
pub struct Program {
    child: Child,
    kept: bool,
}

impl Program {
    /// Starts it, without a terminal and in silence.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let name = command.get_program().to_owned();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", name.display()))?;
        standing(Removal::Program(child.id()));
        Ok(Self { child, kept: false })
    }

    /// Leaves it running when this value goes; the command that ends it.
    pub fn keep(&mut self) -> String {
        self.kept = true;
        no_longer_standing(&Removal::Program(self.child.id()));
        format!("kill {}", self.child.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.child.kill();
            let _ = self.child.wait();
            no_longer_standing(&Removal::Program(self.child.id()));
        }
    }
}

pub(super) fn kill(process: u32) {
    if let Ok(process) = i32::try_from(process) {
        let _ = signal::kill(Pid::from_raw(process), signal::Signal::SIGKILL);
    }
}
