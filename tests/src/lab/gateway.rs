//! conduitfw in the gateway's namespace, as an operator would run it.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Events, Host, Lab, Removal, no_longer_standing, standing, target_directory};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// How long a controller may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The conduitfw program: what `CONDUITFW_PROGRAM` names, or the one built beside this program.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("CONDUITFW_PROGRAM") {
        return Ok(program.into());
    }
    let this = std::env::current_exe().context("cannot tell where this program lies")?;
    let profile = this
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps"));
    let mut places = vec![profile.unwrap_or(&this).join("conduitfw")];
    places.push(target_directory()?.join("debug/conduitfw"));
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.with_context(|| {
        let place = places[0].display();
        format!("{place} is missing: run `cargo xtask ebpf` and `cargo build -p conduitfw` first")
    })
}

/// Where one instance keeps its files, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The namespace it runs in.
    pub host: Host,
    /// The instance's name.
    pub instance: String,
    /// Socket, state, policy and log.
    pub directory: PathBuf,
    /// The program.
    pub program: PathBuf,
}

impl Files {
    fn new(host: &Host) -> Result<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("cfw-{}-{count}", process::id());
        let directory = std::env::temp_dir().join(&instance);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            host: host.clone(),
            instance,
            directory,
            program: binary()?,
        })
    }

    /// The policy file of this instance.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.directory.join("policy.toml")
    }

    /// What the controller said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// `conduitfw VERB ...` for this instance.
    #[must_use]
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.host.command(&self.program);
        command.arg(verb).args(["--instance", &self.instance]);
        command.arg("--run-dir").arg(&self.directory);
        command.arg("--state-dir").arg(self.directory.join("state"));
        command
    }

    /// The pins of this instance.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/conduitfw").join(&self.instance)
    }

    /// Ends the enforcement and removes every file.
    pub(super) fn remove(&self) {
        let _ = self.command("detach").arg("--force").output();
        let _ = fs::remove_dir_all(self.pins());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What `conduitfw reload` did.
#[derive(Debug)]
pub struct Reload {
    /// Its exit status.
    pub status: Option<i32>,
    /// Standard output and standard error.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

/// A running controller. When it goes, so do its program, links, maps and files.
#[derive(Debug)]
pub struct Conduitfw {
    files: Files,
    child: Option<Child>,
    kept: bool,
}

impl Conduitfw {
    /// Writes the policy and starts the controller; returns when it says that it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error holds what it said.
    pub fn start(lab: &Lab, policy: &str) -> Result<Self> {
        Self::start_on(lab.gateway(), policy, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// When it does not become ready; the error holds what it said.
    pub fn start_on(host: &Host, policy: &str, arguments: &[&str]) -> Result<Self> {
        let files = Files::new(host)?;
        standing(Removal::Conduitfw(files.clone()));
        let mut this = Self {
            files,
            child: None,
            kept: false,
        };
        fs::write(this.files.policy(), policy)?;
        this.run(arguments)?;
        Ok(this)
    }

    /// Starts the controller (again), and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error holds what it said.
    pub fn run(&mut self, arguments: &[&str]) -> Result<()> {
        let notify = self.files.directory.join("notify");
        let _ = fs::remove_file(&notify);
        let readiness = UnixDatagram::bind(&notify).context("cannot make a socket")?;
        readiness.set_read_timeout(Some(Duration::from_millis(50)))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.files.directory.join("log"))
            .context("cannot write the log")?;
        let mut command = self.files.command("run");
        command
            .arg("--policy")
            .arg(self.files.policy())
            .args(arguments);
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null());
        // Ctrl-C is for us: we remove it in the right order.
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = self
            .child
            .insert(command.spawn().context("cannot start conduitfw")?);
        standing(Removal::Program(child.id()));
        let started = Instant::now();
        let mut message = [0; 256];
        while started.elapsed() < PATIENCE {
            let length = readiness.recv(&mut message).unwrap_or(0);
            if message[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                no_longer_standing(&Removal::Program(child.id()));
                self.child = None;
                bail!(
                    "conduitfw run ended with {status}: {}",
                    self.files.log().trim()
                );
            }
        }
        bail!(
            "conduitfw run is not ready after {PATIENCE:?}: {}",
            self.files.log().trim()
        )
    }

    /// Where it keeps its files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The process id of the controller; `nsenter` becomes the program, so it is the same.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs `conduitfw VERB ...` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, verb: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.files.command(verb).args(arguments).output();
        output.context("cannot start conduitfw")
    }

    /// Runs `conduitfw VERB --json ...` and reads the one value that it prints.
    ///
    /// # Errors
    /// When it does not end with status 0, or prints no JSON.
    pub fn json(&self, verb: &str, arguments: &[&str]) -> Result<Value> {
        let output = self
            .files
            .command(verb)
            .arg("--json")
            .args(arguments)
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "conduitfw {verb} ended with {}: {}",
                output.status,
                said.trim()
            );
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Writes a policy over the one in force, and asks for a reload.
    ///
    /// # Errors
    /// When the command cannot be started. A refused policy is no error here.
    pub fn reload(&self, policy: &str) -> Result<Reload> {
        fs::write(self.files.policy(), policy)?;
        let started = Instant::now();
        let output = self.output("reload", &[])?;
        let said = [output.stdout, output.stderr].concat();
        Ok(Reload {
            status: output.status.code(),
            said: String::from_utf8_lossy(&said).into_owned(),
            took: started.elapsed(),
        })
    }

    /// Follows the events from now on.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn events(&self, arguments: &[&str]) -> Result<Events> {
        let mut command = self.files.command("events");
        command
            .arg("--follow")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command
            .process_group(0)
            .spawn()
            .context("cannot follow the events")?;
        standing(Removal::Program(child.id()));
        Events::read(child)
    }

    /// Ends the controller with this signal. What it put in the kernel stays in force.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        no_longer_standing(&Removal::Program(child.id()));
        let process = i32::try_from(child.id()).context("a process id out of range")?;
        let _ = kill(Pid::from_raw(process), signal);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        child.kill()?;
        child.wait()?;
        bail!("conduitfw did not end within 5 seconds of {signal}")
    }

    /// Leaves it running when this value goes; the command that removes it.
    pub fn keep(&mut self) -> Vec<String> {
        self.kept = true;
        if let Some(process) = self.process() {
            no_longer_standing(&Removal::Program(process));
        }
        no_longer_standing(&Removal::Conduitfw(self.files.clone()));
        let detach = self.files.command("detach");
        let words = [detach.get_program()].into_iter().chain(detach.get_args());
        let words: Vec<_> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let stop = self.process().map(|process| format!("kill {process}"));
        let files = format!("rm -r {}", self.files.directory.display());
        stop.into_iter().chain([words.join(" "), files]).collect()
    }
}

impl Drop for Conduitfw {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let _ = self.stop(Signal::SIGTERM);
        self.files.remove();
        no_longer_standing(&Removal::Conduitfw(self.files.clone()));
    }
}
