//! A host of the lab: one network namespace.

use std::ffi::OsStr;
use std::fs::File;
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The protocol number by which the kernel leaves the IP header to the sender.
const IPPROTO_RAW: i32 = 255;

/// A network namespace that stands for a machine. It goes when the lab goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub(super) namespace: String,
}

impl Host {
    /// The name of the namespace, as `ip netns list` shows it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    /// A program to be started on this host, in the file systems of the machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a program here until it ends. Its exit status is for the caller to judge.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output<I: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = I>,
    ) -> Result<Output> {
        let mut command = self.command(program);
        command
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {program}"))
    }

    /// Runs a command line here (words separated by blanks) and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or ends with another status than 0.
    pub fn run(&self, line: &str) -> Result<String> {
        run(self.command("env").args(line.split_whitespace()), line)
    }

    /// Runs `work` in this namespace, on a thread of its own. Sockets made there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(self.path()).with_context(|| {
            format!(
                "the namespace {} is gone, or this is not root",
                self.namespace
            )
        })?;
        let inside = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")?;
            Ok(work())
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Sends an IP packet exactly as it is, whatever its source address.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn send_packet(&self, destination: IpAddr, packet: &[u8]) -> Result<()> {
        let domain = if destination.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let sent = self.enter(|| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
            socket.send_to(
                packet,
                &SockAddr::from(std::net::SocketAddr::from((destination, 0))),
            )
        })?;
        sent.with_context(|| format!("cannot send a packet to {destination}"))?;
        Ok(())
    }
}

/// Runs a command to its end; its standard output, or an error that holds what it said.
pub(super) fn run(command: &mut Command, line: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
