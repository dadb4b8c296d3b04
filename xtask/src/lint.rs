//! The rules of the house, as far as a machine can check them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf, shell,
    toolchain::{self, Toolchain},
    unsafe_count,
};

/// The checked-in count of unsafe code.
const UNSAFE_COUNT: &str = "xtask/unsafe-count.txt";

/// Clippy of Debian's compiler, from the package rust-web-clippy.
const DEBIAN_CLIPPY: &str = "/usr/bin/clippy-driver";

/// How to lint.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Record the unsafe code that is there now, after a review of every block.
    #[arg(long)]
    record_unsafe: bool,
}

/// Every check, whatever the others say; an error when one of them complains.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let sources = Sources::look(&shell::root())?;
    if arguments.record_unsafe {
        let blocks = sources.unsafe_blocks()?;
        fs::write(
            shell::root().join(UNSAFE_COUNT),
            unsafe_count::render(&blocks),
        )?;
    }
    if !ebpf::object().is_file() {
        // The controller carries the object: without it, not even clippy can read the controller.
        ebpf::run()?;
    }
    let outcomes = [
        shell::step("format", format),
        shell::step("clippy; a minute or two the first time", clippy),
        shell::step("clippy of the kernel program", clippy_for_bpf),
        shell::step("every crate has the lints of the workspace", || {
            sources.check_lints()
        }),
        shell::step("no test is ignored", || sources.check_ignored()),
        shell::step("unsafe code is where it may be, and counted", || {
            sources.check_unsafe()
        }),
    ];
    let complaints: Vec<String> = outcomes
        .into_iter()
        .filter_map(|outcome| Some(format!("  {:#}", outcome.err()?)))
        .collect();
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("the lints complain:\n{}", complaints.join("\n"))
}

fn format() -> Result<()> {
    shell::run(shell::command("cargo").args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let mut command = shell::command("cargo");
    command.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--exclude",
        "conduitfw-ebpf",
    ]);
    shell::run(command.args(["--all-targets", "--", "-Dwarnings"]))
}

fn clippy_for_bpf() -> Result<()> {
    let toolchain = toolchain::best()?;
    let mut command = match toolchain {
        Toolchain::Debian if Path::new(DEBIAN_CLIPPY).is_file() => bpf_clippy_of_debian(),
        Toolchain::Debian => bail!("apt-get install rust-web-clippy is needed for this"),
        Toolchain::Nightly => ebpf::cargo(toolchain, "clippy"),
    };
    command.args(["--quiet", "--release"]);
    if toolchain == Toolchain::Nightly {
        command.args(["--", "-Dwarnings"]);
    }
    shell::run(&mut command)
}

/// What `cargo clippy` does, with a driver that belongs to another compiler than cargo does.
fn bpf_clippy_of_debian() -> Command {
    let mut command = ebpf::cargo(Toolchain::Debian, "check");
    command.env("RUSTC_WORKSPACE_WRAPPER", DEBIAN_CLIPPY);
    command.env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    command.env("CLIPPY_CONF_DIR", shell::root());
    command
}

/// The sources and manifests of the project, relative to its root.
struct Sources {
    root: PathBuf,
    files: Vec<String>,
}

impl Sources {
    fn look(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        walk(root, root, &mut files)?;
        files.sort();
        Ok(Self {
            root: root.to_path_buf(),
            files,
        })
    }

    fn rust(&self) -> impl Iterator<Item = &str> {
        self.files
            .iter()
            .map(String::as_str)
            .filter(|file| has_extension(Path::new(file), "rs"))
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.root.join(file)).with_context(|| file.to_owned())
    }

    fn unsafe_blocks(&self) -> Result<unsafe_count::UnsafeBlocks> {
        unsafe_count::count_all(&self.root, self.rust())
    }

    fn check_unsafe(&self) -> Result<()> {
        let recorded = unsafe_count::parse(&self.read(UNSAFE_COUNT)?)?;
        let complaints = unsafe_count::complaints(&self.unsafe_blocks()?, &recorded);
        if complaints.is_empty() {
            return Ok(());
        }
        bail!(
            "{}; review, then `cargo xtask lint --record-unsafe`",
            complaints.join("; ")
        )
    }

    fn check_lints(&self) -> Result<()> {
        for manifest in self
            .files
            .iter()
            .filter(|file| file.ends_with("/Cargo.toml"))
        {
            if !takes_workspace_lints(&self.read(manifest)?) {
                bail!("{manifest} lacks `[lints] workspace = true`");
            }
        }
        Ok(())
    }

    fn check_ignored(&self) -> Result<()> {
        for file in self.rust() {
            if let Some(number) = ignored_test(&self.read(file)?) {
                bail!("{file}:{number} ignores a test; a test runs or is deleted");
            }
        }
        Ok(())
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension()
        .is_some_and(|extension| extension == wanted)
}

fn walk(root: &Path, directory: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(root, &path, files)?;
            }
        } else if Path::new(&name)
            .extension()
            .is_some_and(|end| end == "rs" || end == "toml")
        {
            files.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn takes_workspace_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    lines
        .find(|line| !line.is_empty())
        .is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

/// The number of the first line that ignores a test.
fn ignored_test(source: &str) -> Option<usize> {
    let marks = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("#[ignore")
            .is_some_and(|rest| rest.starts_with([']', ' ', '=', '(']))
    };
    source.lines().position(marks).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_the_lints_of_the_workspace_is_seen() {
        assert!(takes_workspace_lints(
            "[package]\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!takes_workspace_lints("[package]\nname = \"x\"\n"));
        assert!(!takes_workspace_lints("[lints]\n[dependencies]\n"));
    }

    #[test]
    fn an_ignored_test_is_seen() {
        assert_eq!(
            ignored_test("#[test]\n    #[ignore = \"slow\"]\nfn x() {}"),
            Some(2)
        );
        assert_eq!(
            ignored_test("// never #[ignore] a test\n#[test]\nfn x() {}"),
            None
        );
    }
}
