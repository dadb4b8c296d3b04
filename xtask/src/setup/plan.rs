//! What is missing, and the steps that bring it.

use std::{fmt, path::Path, process::Command};

use anyhow::{Result, bail};

use super::steps::{
    Step, apt_step, component_step, fuzzer_step, linker_step, llvm_prefix, mount_step,
    nightly_step, python, python_steps,
};
use crate::{
    shell,
    toolchain::{self, Found, Nightly, Toolchain},
};

/// What the machine is set up for; each needs what the one before it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// The kernel program and the controller.
    Build,
    /// The demonstration.
    Demo,
    /// Every test, on every kernel.
    Test,
    /// The proof at length, with its fuzz targets.
    Prove,
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Build => "build",
            Self::Demo => "demo",
            Self::Test => "test",
            Self::Prove => "prove",
        })
    }
}

/// A program and the Debian package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) purpose: Purpose,
}

const TOOLS: [Tool; 11] = [
    Tool {
        program: "ip",
        package: "iproute2",
        purpose: Purpose::Demo,
    },
    Tool {
        program: "nsenter",
        package: "util-linux",
        purpose: Purpose::Demo,
    },
    Tool {
        program: "sysctl",
        package: "procps",
        purpose: Purpose::Demo,
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
        purpose: Purpose::Demo,
    },
    Tool {
        program: "nft",
        package: "nftables",
        purpose: Purpose::Test,
    },
    Tool {
        program: "mbpoll",
        package: "mbpoll",
        purpose: Purpose::Test,
    },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        purpose: Purpose::Test,
    },
    Tool {
        program: "cpio",
        package: "cpio",
        purpose: Purpose::Test,
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        purpose: Purpose::Test,
    },
    Tool {
        program: "/usr/bin/python3",
        package: "python3",
        purpose: Purpose::Test,
    },
    Tool {
        program: "cc",
        package: "gcc",
        purpose: Purpose::Test,
    },
];

/// The programs that a purpose needs.
pub(crate) fn tools(purpose: Purpose) -> impl Iterator<Item = Tool> {
    TOOLS
        .into_iter()
        .filter(move |tool| tool.purpose <= purpose)
}

/// What this machine lacks.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own")]
pub(crate) struct Missing {
    found: Found,
    linker: bool,
    packages: Vec<&'static str>,
    components: Vec<&'static str>,
    python: bool,
    fuzzer: bool,
    file_system: bool,
    purpose: Purpose,
}

/// The header of libmodbus, whose server the tests meet.
const LIBMODBUS: &str = "/usr/include/modbus/modbus.h";

impl Missing {
    /// Looks at this machine.
    pub(crate) fn look(purpose: Purpose) -> Self {
        let mut packages: Vec<&str> = tools(purpose)
            .filter(|tool| shell::which(tool.program).is_none())
            .map(|tool| tool.package)
            .collect();
        let testing = purpose >= Purpose::Test;
        let python = testing && !python_is_complete();
        if testing && !Path::new(LIBMODBUS).is_file() {
            packages.push("libmodbus-dev");
        }
        if python && !venv_is_possible() {
            packages.push("python3-venv");
        }
        let found = Found::look();
        let lints_missing = testing && shell::which("/usr/bin/clippy-driver").is_none();
        if found.best() == Some(Toolchain::Debian) && lints_missing {
            packages.push("rust-web-clippy");
        }
        Self {
            found,
            linker: !linker_serves(found),
            packages,
            components: components(testing),
            python,
            fuzzer: purpose == Purpose::Prove && shell::which("cargo-fuzz").is_none(),
            file_system: purpose >= Purpose::Demo && !file_system_is_mounted(),
            purpose,
        }
    }

    /// Whether nothing is.
    pub(crate) fn is_nothing(&self) -> bool {
        self.names().is_empty()
    }

    /// Whether something is to come from apt.
    pub(crate) fn wants_packages(&self) -> bool {
        self.found.best().is_none()
            || !self.packages.is_empty()
            || self.linker && !expected_llvm(self.found).is_some_and(llvm_is_here)
    }

    /// What is missing, by name.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        if self.found.best().is_none() {
            names.push("a compiler for BPF");
        }
        if self.linker {
            names.push("bpf-linker");
        }
        names.extend(&self.packages);
        names.extend(&self.components);
        if self.python {
            names.push("pymodbus");
        }
        if self.fuzzer {
            names.push("cargo-fuzz");
        }
        if self.file_system {
            names.push("the BPF file system");
        }
        names
    }

    /// The steps that bring it, in order.
    pub(crate) fn steps(&self) -> Result<Vec<Step>> {
        let mut packages: Vec<String> = self.packages.iter().map(|&name| name.to_owned()).collect();
        let mut steps = Vec::new();
        if self.found.best().is_none() {
            match compiler(self.found, debian_offers(), shell::is_root())? {
                Compiler::DebianPackages => {
                    packages.extend(["rustc-web", "libstd-rust-web-dev-bpf"].map(str::to_owned));
                    if self.purpose >= Purpose::Test {
                        packages.push("rust-web-clippy".to_owned());
                    }
                }
                Compiler::NightlySource => steps.push(nightly_step()),
            }
        }
        let llvm = if self.linker {
            expected_llvm(self.found)
        } else {
            None
        };
        if let Some(llvm) = llvm.filter(|&llvm| !llvm_is_here(llvm)) {
            packages.push(format!("llvm-{llvm}-dev"));
        }
        if !packages.is_empty() {
            steps.push(apt_step(&packages));
        }
        if let Some(llvm) = llvm {
            steps.push(linker_step(llvm));
        }
        if !self.components.is_empty() {
            steps.push(component_step(&self.components));
        }
        if self.python {
            steps.extend(python_steps());
        }
        if self.fuzzer {
            steps.push(fuzzer_step());
        }
        if self.file_system {
            steps.push(mount_step());
        }
        Ok(steps)
    }
}

/// Where the compiler for BPF is to come from.
#[derive(Debug, PartialEq, Eq)]
enum Compiler {
    DebianPackages,
    NightlySource,
}

fn compiler(found: Found, debian_offers: bool, root: bool) -> Result<Compiler> {
    let nightly_is_near = found.nightly == Nightly::WithoutSource;
    if debian_offers && (root || !nightly_is_near) {
        return Ok(Compiler::DebianPackages);
    }
    if shell::which("rustup").is_some() {
        return Ok(Compiler::NightlySource);
    }
    bail!(
        "no compiler for BPF can be had here: apt offers no libstd-rust-web-dev-bpf (Debian 12 has it \
         in its security updates), and there is no rustup for a nightly with rust-src (https://rustup.rs)"
    )
}

fn debian_offers() -> bool {
    let mut policy = shell::command("apt-cache");
    shell::capture(policy.args(["policy", "libstd-rust-web-dev-bpf"]))
        .is_ok_and(|text| has_candidate(&text))
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .is_some_and(|version| version.trim() != "(none)")
}

/// bpf-linker reads what the compiler writes: its LLVM must not be the older one.
fn linker_serves(found: Found) -> bool {
    if shell::which("bpf-linker").is_none() {
        return false;
    }
    let compiler = found.best().and_then(|toolchain| toolchain.version().ok());
    match (compiler, toolchain::linker_llvm()) {
        (Some(compiler), Some(linker)) => linker >= compiler.llvm_major,
        // Not built yet, or linked statically: the build itself will tell.
        _ => true,
    }
}

/// The LLVM of the compiler that is here, or of the one that is about to be installed.
fn expected_llvm(found: Found) -> Option<u32> {
    if let Some(toolchain) = found.best() {
        return toolchain.version().ok().map(|version| version.llvm_major);
    }
    let mut depends = shell::command("apt-cache");
    let text = shell::capture(depends.args(["depends", "--recurse", "-i", "rustc-web"])).ok()?;
    llvm_in_dependencies(&text)
}

fn llvm_in_dependencies(text: &str) -> Option<u32> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix("libllvm")?.parse().ok())
}

fn llvm_is_here(llvm: u32) -> bool {
    Path::new(&llvm_prefix(llvm))
        .join("include/llvm-c/Core.h")
        .is_file()
}

fn components(testing: bool) -> Vec<&'static str> {
    if !testing {
        return Vec::new();
    }
    ["rustfmt", "clippy"]
        .into_iter()
        .filter(|&component| {
            let program = if component == "clippy" {
                "cargo-clippy"
            } else {
                "rustfmt"
            };
            shell::capture(shell::command(program).arg("--version")).is_err()
        })
        .collect()
}

/// Whether the environment of the tests has what they call.
pub(crate) fn python_is_complete() -> bool {
    std::fs::read_dir(python().join("lib")).is_ok_and(|mut versions| {
        versions.any(|version| {
            version.is_ok_and(|version| version.path().join("site-packages/pymodbus").is_dir())
        })
    })
}

fn venv_is_possible() -> bool {
    let mut probe = Command::new("/usr/bin/python3");
    shell::capture(probe.args(["-c", "import venv, ensurepip"])).is_ok()
}

/// Whether pinned maps and programs have a place to live.
fn file_system_is_mounted() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .any(|line| line.split(' ').skip(1).take(2).eq(["/sys/fs/bpf", "bpf"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Found = Found {
        debian: false,
        nightly: Nightly::Absent,
    };

    #[test]
    fn debian_is_taken_where_it_can_be_had() {
        assert_eq!(
            compiler(NOTHING, true, true).unwrap(),
            Compiler::DebianPackages
        );
        let nightly = Found {
            nightly: Nightly::WithoutSource,
            ..NOTHING
        };
        assert_eq!(
            compiler(nightly, true, true).unwrap(),
            Compiler::DebianPackages
        );
    }

    #[test]
    fn apt_says_whether_a_package_can_be_had() {
        assert!(has_candidate(
            "x:\n  Installed: (none)\n  Candidate: 1.96.0\n"
        ));
        assert!(!has_candidate(
            "x:\n  Installed: (none)\n  Candidate: (none)\n"
        ));
        assert!(!has_candidate(""));
    }

    #[test]
    fn the_llvm_of_a_package_is_read_from_what_it_needs() {
        assert_eq!(
            llvm_in_dependencies("rustc-web\n  Depends: libc6\n    libllvm22\n"),
            Some(22)
        );
        assert_eq!(llvm_in_dependencies("rustc-web\n  Depends: libc6\n"), None);
    }

    #[test]
    fn each_purpose_needs_what_the_one_before_needs() {
        assert_eq!(tools(Purpose::Build).count(), 0);
        assert!(tools(Purpose::Test).count() > tools(Purpose::Demo).count());
    }
}
