//! The compilers that can build for the kernel: what is here, and of what version.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell;

/// The target of the kernel program: byte order as on the machine.
pub(crate) const BPF_TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Debian's compiler; rustup's own stands before it in the search path.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's rustc-web, with the core library for BPF ready-made.
    Debian,
    /// rustup's nightly with rust-src: the core library is built on the way.
    Nightly,
}

impl Toolchain {
    /// Its name in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian's rustc-web with libstd-rust-web-dev-bpf",
            Self::Nightly => "rustup's nightly with rust-src",
        }
    }

    /// The compiler's own account of itself.
    pub(crate) fn version(self) -> Result<RustcVersion> {
        let mut command = match self {
            Self::Debian => Command::new(DEBIAN_RUSTC),
            Self::Nightly => nightly("rustc"),
        };
        let text = shell::capture(command.arg("-vV"))?;
        RustcVersion::parse(&text).context("cannot read what `rustc -vV` says")
    }
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RustcVersion {
    /// For example `1.96.0`.
    pub(crate) release: String,
    /// For example 22.
    pub(crate) llvm_major: u32,
}

impl RustcVersion {
    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
        };
        let llvm = value("LLVM version:")?;
        Some(Self {
            release: value("release:")?.to_owned(),
            llvm_major: llvm.split('.').next()?.parse().ok()?,
        })
    }
}

/// What rustup has of nightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nightly {
    /// No rustup, or no nightly.
    Absent,
    /// Nightly, but not the source of the core library.
    WithoutSource,
    /// All that `-Z build-std` needs.
    Complete,
}

/// What was found on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) debian: bool,
    pub(crate) nightly: Nightly,
}

impl Found {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        Self {
            debian: debian_is_complete(),
            nightly: look_for_nightly(),
        }
    }

    /// The one to take. Debian's first: a released compiler gives everyone the same program.
    pub(crate) fn best(self) -> Option<Toolchain> {
        match self {
            Self { debian: true, .. } => Some(Toolchain::Debian),
            Self {
                nightly: Nightly::Complete,
                ..
            } => Some(Toolchain::Nightly),
            _ => None,
        }
    }
}

fn debian_is_complete() -> bool {
    let library = format!("/usr/lib/rustlib/{BPF_TARGET}/lib");
    Path::new(DEBIAN_RUSTC).is_file()
        && fs::read_dir(library).is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
}

fn look_for_nightly() -> Nightly {
    if shell::which("rustup").is_none() {
        return Nightly::Absent;
    }
    let mut list = shell::command("rustup");
    list.args(["component", "list", "--installed", "--toolchain", "nightly"]);
    // Without this, a rustup that misses a toolchain may begin to download it.
    match shell::capture(list.env("RUSTUP_AUTO_INSTALL", "0")) {
        Ok(components) if has_source(&components) => Nightly::Complete,
        Ok(_) => Nightly::WithoutSource,
        Err(_) => Nightly::Absent,
    }
}

fn has_source(components: &str) -> bool {
    components
        .lines()
        .any(|line| line.trim() == "rust-src" || line.starts_with("rust-src "))
}

/// A program of the nightly toolchain.
pub(crate) fn nightly(program: &str) -> Command {
    let mut command = shell::command("rustup");
    command.args(["run", "nightly", program]);
    command
}

/// The toolchain to take, or what to do when there is none.
pub(crate) fn best() -> Result<Toolchain> {
    match Found::look().best() {
        Some(toolchain) => Ok(toolchain),
        None => bail!("no compiler for the kernel program found; run `cargo xtask setup`"),
    }
}

/// The major version of the LLVM that the installed bpf-linker is linked to.
pub(crate) fn linker_llvm() -> Option<u32> {
    let linker = shell::which("bpf-linker")?;
    let libraries = shell::capture(Command::new("ldd").arg(linker)).ok()?;
    llvm_in_libraries(&libraries)
}

fn llvm_in_libraries(libraries: &str) -> Option<u32> {
    let name = libraries
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("libLLVM"))?;
    let digits = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = digits
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
        binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn the_version_names_the_llvm() {
        let version = RustcVersion::parse(VERBOSE).unwrap();
        assert_eq!(
            version,
            RustcVersion {
                release: "1.96.0".into(),
                llvm_major: 22
            }
        );
        assert_eq!(RustcVersion::parse("rustc 1.96.0"), None);
    }

    #[test]
    fn a_nightly_without_its_source_is_no_choice() {
        let found = Found {
            debian: false,
            nightly: Nightly::WithoutSource,
        };
        assert_eq!(found.best(), None);
        let found = Found {
            debian: true,
            nightly: Nightly::WithoutSource,
        };
        assert_eq!(found.best(), Some(Toolchain::Debian));
        let found = Found {
            debian: false,
            nightly: Nightly::Complete,
        };
        assert_eq!(found.best(), Some(Toolchain::Nightly));
    }

    #[test]
    fn the_source_is_a_component_of_its_own() {
        assert!(has_source("cargo-x86_64-unknown-linux-gnu\nrust-src\n"));
        assert!(!has_source("rust-std-x86_64-unknown-linux-gnu\n"));
    }

    #[test]
    fn the_linker_names_its_llvm() {
        let new = "\tlinux-vdso.so.1 (0x1)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x2)\n";
        assert_eq!(llvm_in_libraries(new), Some(22));
        assert_eq!(
            llvm_in_libraries("\tlibLLVM-14.so.1 => /usr/lib/libLLVM-14.so.1\n"),
            Some(14)
        );
        assert_eq!(llvm_in_libraries("\tlibc.so.6 => /lib/libc.so.6\n"), None);
    }
}
