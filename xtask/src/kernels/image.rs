//! Debian's kernels: found, downloaded and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::shell;

const SUFFIX: &str = "-cloud-amd64";

/// An unpacked kernel.
pub(crate) struct Image {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// Where all of it lies.
    pub(crate) directory: PathBuf,
    /// The kernel itself.
    pub(crate) kernel: PathBuf,
}

/// The newest kernel of a series; downloaded unless it is here.
pub(crate) fn newest(series: &str) -> Result<Image> {
    let mut packages = packages(series)?;
    if packages.is_empty() && shell::is_root() {
        shell::capture(shell::command("apt-get").args(["update"]))?;
        packages = self::packages(series)?;
    }
    if packages.is_empty() {
        packages = unpacked(series);
    }
    // An archive may list a version that it no longer keeps.
    let mut refusal = None;
    for package in packages.iter().rev().take(3) {
        match unpack(package) {
            Ok(image) => return Ok(image),
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) => Err(error),
        None => bail!(
            "apt knows no linux-image-{series}*{SUFFIX}; \
             add Debian 12 with its security updates to its sources and run `apt-get update`"
        ),
    }
}

fn packages(series: &str) -> Result<Vec<String>> {
    let pattern = format!("^linux-image-{}\\.", series.replace('.', "\\."));
    let mut search = shell::command("apt-cache");
    let list = shell::capture(search.args(["search", "--names-only", &pattern]))?;
    Ok(sorted(
        series,
        list.lines()
            .filter_map(|line| line.split_whitespace().next()),
    ))
}

fn unpacked(series: &str) -> Vec<String> {
    let entries = fs::read_dir(shell::target("kernels"))
        .into_iter()
        .flatten()
        .flatten();
    let names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    sorted(series, names.iter().map(String::as_str))
}

/// Only the cloud kernels of a series, oldest first.
fn sorted<'a>(series: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let prefix = format!("linux-image-{series}.");
    let mut kernels: Vec<&str> = names
        .filter(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX))
        .collect();
    kernels.sort_by_key(|name| numbers(name));
    kernels.dedup();
    kernels.into_iter().map(str::to_owned).collect()
}

fn numbers(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn unpack(package: &str) -> Result<Image> {
    let release = package
        .strip_prefix("linux-image-")
        .unwrap_or(package)
        .to_owned();
    let directory = shell::target("kernels").join(package);
    let kernel = directory.join("boot").join(format!("vmlinuz-{release}"));
    let image = Image {
        release,
        directory,
        kernel,
    };
    if !image.kernel.is_file() {
        download(package, &image.directory)?;
    }
    if !image.kernel.is_file() {
        bail!("{package} holds no {}", image.kernel.display());
    }
    Ok(image)
}

fn download(package: &str, directory: &Path) -> Result<()> {
    eprintln!("    downloading {package}, about 30 MB");
    let part = directory.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let mut command = Command::new("apt-get");
    shell::capture(
        command
            .args(["download", "-qq", package])
            .current_dir(&part),
    )?;
    let mut files = fs::read_dir(&part)?.flatten().map(|entry| entry.path());
    let archive = files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no archive of {package}"))?;
    shell::capture(shell::command("dpkg").arg("-x").arg(&archive).arg(&part))?;
    fs::remove_file(archive)?;
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::rename(&part, directory)?;
    Ok(())
}

impl Image {
    /// Puts a module into a directory, uncompressed; one that is part of the kernel is left out.
    pub(crate) fn copy_module(&self, name: &str, into: &Path) -> Result<()> {
        let modules = self
            .directory
            .join("lib/modules")
            .join(&self.release)
            .join("kernel");
        let plain = modules.join(format!("{name}.ko"));
        let packed = modules.join(format!("{name}.ko.xz"));
        let file = into.join(format!("{}.ko", super::file_name(Path::new(name))?));
        if plain.is_file() {
            fs::copy(plain, file)?;
        } else if packed.is_file() {
            let output = Command::new("xz").arg("-dc").arg(&packed).output()?;
            if !output.status.success() {
                bail!("xz cannot unpack {}", packed.display());
            }
            fs::write(file, output.stdout)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_last_and_its_kin_are_left_out() {
        let names = [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
        ];
        assert_eq!(
            sorted("6.1", names.into_iter()),
            [
                "linux-image-6.1.0-9-cloud-amd64",
                "linux-image-6.1.0-56-cloud-amd64"
            ]
        );
        assert_eq!(
            sorted("6.12", names.into_iter()),
            ["linux-image-6.12.117+deb12-cloud-amd64"]
        );
    }
}
