//! The events as an operator would follow them.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Removal, no_longer_standing, standing};

/// How long an event may take to show.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lines that `conduitfw events --follow` prints.
#[derive(Debug)]
pub struct Events {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Events {
    pub(super) fn read(mut child: Child) -> Result<Self> {
        standing(Removal::Program(child.id()));
        let output = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        // The subscription has no sign of its own; the command connects in milliseconds.
        thread::sleep(Duration::from_millis(300));
        Ok(Self { child, lines })
    }

    /// The first line from here on that `wanted` accepts.
    ///
    /// # Errors
    /// When none comes in time; the error holds those that did.
    pub fn find(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let started = Instant::now();
        let mut others = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE / 4) {
            if wanted(&line) {
                return Ok(line);
            }
            others.push(line);
            if started.elapsed() > PATIENCE {
                break;
            }
        }
        bail!("the event did not come; these did: {others:#?}")
    }

    /// The exit status of the command, once it ends by itself.
    ///
    /// # Errors
    /// When it does not end.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the command follows events still")
    }

    /// Every line that comes within this time.
    #[must_use]
    pub fn within(&self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        let mut lines = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            lines.push(line);
        }
        lines
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        no_longer_standing(&Removal::Program(self.child.id()));
        no_longer_standing(&Removal::Program(self.child.id()));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
