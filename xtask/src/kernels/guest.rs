//! What a virtual machine holds: the first process, one program, and the files it reads.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{file_name, image::Image, static_flags};
use crate::{ebpf, shell};

/// Programs that the tests call; copied with the libraries they need.
const TOOLS: [&str; 1] = ["ip"];

/// Modules of the tests' network, where the kernel does not have them built in.
const MODULES: [&str; 1] = ["drivers/net/veth"];

/// A program to run, and the first process that runs it.
pub(crate) struct Job {
    init: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    files: Vec<PathBuf>,
}

impl Job {
    /// Builds what the machine is to run: the tests, unless another program is given.
    pub(crate) fn build(program: Option<&Path>, arguments: &[String]) -> Result<Self> {
        let what = "static programs for the virtual machine; one to two minutes the first time";
        shell::step(what, || {
            let mut command = shell::cargo();
            command.args(["build", "--package", "xtask", "--bin", "guest-init"]);
            let init = executable(&mut command, "guest-init")?;
            if let Some(program) = program {
                let program = program
                    .canonicalize()
                    .with_context(|| program.display().to_string())?;
                return Ok(Self {
                    init,
                    program,
                    arguments: arguments.to_vec(),
                    files: Vec::new(),
                });
            }
            let mut command = shell::cargo();
            command.args([
                "test",
                "--no-run",
                "--package",
                "conduitfw-tests",
                "--test",
                "verdicts",
            ]);
            let program = executable(&mut command, "verdicts")?;
            let mut words = vec!["--nocapture".to_owned(), "--test-threads=1".to_owned()];
            words.extend_from_slice(arguments);
            Ok(Self {
                init,
                program,
                arguments: words,
                files: Vec::new(),
            })
        })
    }

    /// More files, where the program finds them on this machine.
    pub(crate) fn with_files(mut self, files: Vec<PathBuf>) -> Self {
        self.files = files;
        self
    }

    /// Packs the initial file system for a kernel.
    pub(crate) fn initramfs(&self, image: &Image) -> Result<PathBuf> {
        let tree = image.directory.join("guest");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        self.fill(&tree, image)?;
        let archive = image.directory.join("guest.cpio");
        pack(&tree, &archive)?;
        fs::remove_dir_all(&tree)?;
        Ok(archive)
    }

    fn fill(&self, tree: &Path, image: &Image) -> Result<()> {
        let guest = tree.join("guest");
        let modules = guest.join("modules");
        for directory in ["dev", "proc", "sys", "run", "tmp"] {
            fs::create_dir_all(tree.join(directory))?;
        }
        fs::create_dir_all(&modules)?;
        fs::copy(&self.init, tree.join("init"))?;
        let program = guest.join("program");
        fs::copy(&self.program, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let words =
            std::iter::once("/guest/program").chain(self.arguments.iter().map(String::as_str));
        fs::write(guest.join("command"), words.collect::<Vec<_>>().join("\n"))?;
        for module in MODULES {
            image.copy_module(module, &modules)?;
        }
        for tool in TOOLS {
            copy_tool(tool, tree)?;
        }
        // The tests find the program and the policies where they find them on this machine.
        copy_in_place(&ebpf::object(), tree)?;
        for file in policies()?.iter().chain(&self.files) {
            copy_in_place(file, tree)?;
        }
        Ok(())
    }
}

fn policies() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(shell::root().join("rules"))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Builds and returns the executable that cargo says it made.
pub(crate) fn executable(command: &mut Command, name: &str) -> Result<PathBuf> {
    let command = static_flags(command).args(["--message-format", "json-render-diagnostics"]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("`{}` failed", shell::line_of(command));
    }
    executable_in(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("cargo made no {name}"))
}

fn executable_in(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message.pointer("/target/name")?.as_str()? != name {
            return None;
        }
        message.get("executable")?.as_str().map(PathBuf::from)
    })
}

fn copy_in_place(file: &Path, tree: &Path) -> Result<()> {
    let place = tree.join(file.strip_prefix("/")?);
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(file, place).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

fn copy_tool(name: &str, tree: &Path) -> Result<()> {
    let path = shell::which(name).with_context(|| format!("`{name}` is missing"))?;
    let path = path.canonicalize()?;
    let libraries = shell::capture(Command::new("ldd").arg(&path))?;
    let place = tree.join("usr/bin").join(file_name(&path)?);
    fs::create_dir_all(tree.join("usr/bin"))?;
    fs::copy(&path, &place)?;
    if name != file_name(&path)? {
        symlink(file_name(&path)?, tree.join("usr/bin").join(name))?;
    }
    for library in libraries_in(&libraries) {
        copy_in_place(Path::new(&library), tree)?;
    }
    Ok(())
}

fn libraries_in(text: &str) -> Vec<String> {
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

/// Writes the archive format that the kernel unpacks.
fn pack(tree: &Path, archive: &Path) -> Result<()> {
    let script = "find . | cpio --quiet -o -H newc -R 0:0";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(tree)
        .stdout(fs::File::create(archive)?)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    if !output.status.success() {
        bail!("cpio failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_one_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lab"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"verdicts"},"executable":"/x/verdicts-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable_in(messages, "verdicts"),
            Some(PathBuf::from("/x/verdicts-1"))
        );
        assert_eq!(executable_in(messages, "lab"), None);
    }

    #[test]
    fn the_libraries_of_a_program_are_paths() {
        let text = "\tlinux-vdso.so.1 (0x7ff)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so (0x7f)\n";
        assert_eq!(libraries_in(text), ["/lib/libc.so.6", "/lib64/ld.so"]);
    }
}
