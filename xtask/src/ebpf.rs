//! The kernel program. All that is peculiar about building it stands here.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    shell,
    toolchain::{self, BPF_TARGET, DEBIAN_RUSTC, Toolchain},
};

const PACKAGE: &str = "conduitfw-ebpf";
/// The second program of the package: [`crate::bench`] measures against it.
const FLOORS: &str = "floors";

/// Where the object lies once it is built.
pub(crate) fn object() -> PathBuf {
    shell::target("bpf")
        .join(BPF_TARGET)
        .join("release")
        .join(PACKAGE)
}

/// Builds the object and says how large it is.
pub(crate) fn run() -> Result<()> {
    let toolchain = toolchain::best()?;
    let version = toolchain.version()?;
    let what = format!(
        "kernel program, with {} ({}, LLVM {}); up to a minute the first time",
        toolchain.name(),
        version.release,
        version.llvm_major
    );
    shell::step(&what, || {
        let mut command = cargo(toolchain, "build");
        command.args(["--quiet", "--release", "--bin", PACKAGE]);
        shell::run(&mut command)?;
        let object = object();
        let size = fs::metadata(&object)
            .with_context(|| format!("the build left no {}", object.display()))?
            .len();
        eprintln!(
            "    {}: {size} bytes",
            object.strip_prefix(shell::root())?.display()
        );
        Ok(())
    })
}

/// Builds the yardsticks of the bench; where their object lies.
pub(crate) fn floors() -> Result<PathBuf> {
    shell::step("yardsticks of the bench", || {
        let mut command = cargo(toolchain::best()?, "build");
        shell::run(command.args(["--quiet", "--release", "--bin", FLOORS]))?;
        let object = shell::target("bpf").join(BPF_TARGET).join("release");
        Ok(object.join(FLOORS))
    })
}

/// A cargo command for the kernel program alone.
pub(crate) fn cargo(toolchain: Toolchain, verb: &str) -> Command {
    let mut command = match toolchain {
        Toolchain::Debian => {
            let mut command = shell::cargo();
            // The target is not on the stable channel; the compiler itself is a released one.
            command
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1")
                .arg(verb);
            command
        }
        Toolchain::Nightly => {
            let mut command = toolchain::nightly("cargo");
            command
                .env_remove("RUSTC")
                .env_remove("CARGO")
                .args([verb, "-Zbuild-std=core"]);
            command
        }
    };
    command
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(env::consts::ARCH))
        .args(["--package", PACKAGE, "--target", BPF_TARGET, "--target-dir"])
        .arg(shell::target("bpf"));
    command
}

fn flags(architecture: &str) -> String {
    [
        &format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Atomic compare-and-exchange, 32-bit jumps; Linux 5.12.
        "-Ctarget-cpu=v3",
        "-Ctarget-feature=+allows-misaligned-mem-access",
    ]
    .join("\x1f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_knows_the_machine_it_is_for() {
        assert!(flags("x86_64").starts_with("--cfg=bpf_target_arch=\"x86_64\"\x1f"));
    }
}
