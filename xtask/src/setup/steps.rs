//! The commands that bring what is missing.

use std::{path::PathBuf, process::Command};

use super::{LINKER_VERSION, PYMODBUS};
use crate::shell;

/// One command of the set-up.
pub(super) struct Step {
    pub(super) command: Command,
    pub(super) reason: String,
    pub(super) duration: &'static str,
    pub(super) needs_root: bool,
    pub(super) remedy: &'static str,
}

impl Step {
    /// The step as one would type it.
    pub(super) fn line(&self) -> String {
        let settings: String = self
            .command
            .get_envs()
            .filter(|(name, _)| *name == "LLVM_PREFIX")
            .filter_map(|(name, value)| Some(format!("{}={} ", name.display(), value?.display())))
            .collect();
        settings + &shell::line_of(&self.command)
    }
}

/// Where the LLVM of a version lives.
pub(super) fn llvm_prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

/// The Python environment of the tests.
pub(super) fn python() -> PathBuf {
    shell::target("python")
}

/// Where programs and maps outlive the controller.
pub(super) fn mount_step() -> Step {
    let mut command = shell::command("mount");
    command.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    Step {
        command,
        reason: "the BPF file system, where programs and maps outlive the controller".to_owned(),
        duration: "at once",
        needs_root: true,
        remedy: "does the kernel have CONFIG_BPF_SYSCALL?",
    }
}

/// Packages of the distribution.
pub(super) fn apt_step(packages: &[String]) -> Step {
    let mut command = shell::command("apt-get");
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Step {
        command,
        reason: "the packages of Debian".to_owned(),
        duration: "about a minute",
        needs_root: true,
        remedy: "is the machine Debian 12 with its security updates, and is the archive reachable?",
    }
}

/// The nightly compiler with the source of its core library.
pub(super) fn nightly_step() -> Step {
    let mut command = shell::command("rustup");
    command.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    command.args(["--component", "rust-src", "--component", "clippy"]);
    Step {
        command,
        reason: "a compiler for BPF".to_owned(),
        duration: "about a minute",
        needs_root: false,
        remedy: "the nightly here has no rust-src and it cannot be had; as root on Debian 12, \
                 `apt-get install rustc-web libstd-rust-web-dev-bpf` serves as well",
    }
}

/// bpf-linker, built against the LLVM of the compiler.
pub(super) fn linker_step(llvm: u32) -> Step {
    let mut command = shell::cargo();
    command.args([
        "install",
        "--quiet",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--force",
    ]);
    command
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"));
    command.env("LLVM_PREFIX", llvm_prefix(llvm));
    Step {
        command,
        reason: "the linker of the kernel program".to_owned(),
        duration: "about a minute",
        needs_root: false,
        remedy: "a released bpf-linker in the search path serves as well \
                 (https://github.com/aya-rs/bpf-linker/releases)",
    }
}

/// What runs the fuzz targets.
pub(super) fn fuzzer_step() -> Step {
    let mut command = shell::cargo();
    command.args(["install", "--quiet", "cargo-fuzz", "--locked"]);
    Step {
        command,
        reason: "the fuzz targets".to_owned(),
        duration: "about a minute",
        needs_root: false,
        remedy: "is the package index of cargo reachable? The proof goes without it, and says so",
    }
}

/// Parts of the Rust toolchain.
pub(super) fn component_step(components: &[&str]) -> Step {
    let mut command = shell::command("rustup");
    command.args(["component", "add"]).args(components);
    Step {
        command,
        reason: "the lints".to_owned(),
        duration: "seconds",
        needs_root: false,
        remedy: "install them with the Rust toolchain",
    }
}

/// A Python environment with what the tests call.
pub(super) fn python_steps() -> [Step; 2] {
    let mut environment = Command::new("/usr/bin/python3");
    environment
        .args(["-m", "venv", "--clear"])
        .arg(python())
        .current_dir(shell::root());
    let mut package = Command::new(python().join("bin/python3"));
    package
        .args(["-m", "pip", "install", "--quiet", PYMODBUS])
        .current_dir(shell::root());
    [environment, package].map(|command| Step {
        command,
        reason: "pymodbus, a client and server that the tests meet".to_owned(),
        duration: "seconds",
        needs_root: false,
        remedy: "is the Python package index reachable?",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_is_built_against_the_compilers_llvm() {
        let line = linker_step(22).line();
        assert!(line.starts_with("LLVM_PREFIX=/usr/lib/llvm-22 "), "{line}");
        assert!(
            line.ends_with("--no-default-features --features llvm-22"),
            "{line}"
        );
    }
}
