//! Captures in the making, and `conduitfw replay` on them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::binary;

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// When captures begin that the tests make, in nanoseconds since 1970.
pub const BEGINNING: u64 = 1_700_000_000 * SECOND;

/// A directory that is gone with its owner.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// Makes one below the system's directory for such.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cfw-{}-replay-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// Where a file of this name stands.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// A capture in the classic format, with nanoseconds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn capture(&self, frames: &[(u64, Vec<u8>)]) -> Result<PathBuf> {
        self.file("capture.pcap", classic(frames)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A capture in the classic format: little-endian, with nanoseconds.
///
/// # Errors
/// When a number does not fit the format.
pub fn classic(frames: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let mut bytes = words(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 65_535, 1]);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len())?;
        let seconds = u32::try_from(time / SECOND)?;
        let nanoseconds = u32::try_from(time % SECOND)?;
        bytes.extend(words(&[seconds, nanoseconds, length, length]));
        bytes.extend(frame);
    }
    Ok(bytes)
}

/// The same frames as pcapng: big-endian, all seen on one interface.
///
/// # Errors
/// When a number does not fit the format.
pub fn next_generation(interface: &str, frames: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    let block = |kind: u32, body: &[u8]| -> Result<Vec<u8>> {
        let padded = body.len().next_multiple_of(4);
        let length = u32::try_from(padded + 12)?.to_be_bytes();
        let mut bytes = [kind.to_be_bytes(), length].concat();
        bytes.extend(body);
        bytes.resize(8 + padded, 0);
        bytes.extend(length);
        Ok(bytes)
    };
    let mut section = vec![0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0];
    section.extend([0xff; 8]);
    let mut bytes = block(0x0a0d_0d0a, &section)?;
    let mut description = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    description.push(u8::try_from(interface.len())?);
    description.extend(interface.as_bytes());
    description.resize(description.len().next_multiple_of(4), 0);
    description.extend([0, 9, 0, 1, 9, 0, 0, 0]);
    bytes.extend(block(1, &description)?);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len())?.to_be_bytes();
        let mut body = vec![0; 4];
        body.extend(time.to_be_bytes());
        body.extend([length, length].concat());
        body.extend(frame);
        bytes.extend(block(6, &body)?);
    }
    Ok(bytes)
}

/// One frame every millisecond.
#[must_use]
pub fn timed(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    (0..)
        .zip(frames)
        .map(|(number, frame)| (BEGINNING + number * 1_000_000, frame))
        .collect()
}

/// Runs `conduitfw replay`.
///
/// # Errors
/// When it cannot be run; not when it fails.
pub fn replay(
    policy: &Path,
    capture: &Path,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.arg("replay").arg("--policy").arg(policy);
    Ok(command.args(words).arg(capture).output()?)
}

/// What a program said.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Both ways of judging say the same, line for line. Returns how many lines.
///
/// # Errors
/// When they do not: the first line that differs.
pub fn both_agree(policy: &Path, capture: &Path) -> Result<usize> {
    let mut count = 0;
    for format in [&["--json"][..], &[]] {
        let user = replay(policy, capture, format)?;
        let kernel = replay(policy, capture, [format, &["--kernel"]].concat())?;
        ensure!(
            user.status == kernel.status,
            "{}",
            text(&[user.stderr, kernel.stderr].concat())
        );
        ensure!(!user.stdout.is_empty(), "{}", text(&user.stderr));
        let (user, kernel) = (text(&user.stdout), text(&kernel.stdout));
        for (number, (ours, theirs)) in (1..).zip(user.lines().zip(kernel.lines())) {
            ensure!(
                ours == theirs,
                "line {number}\nuser   {ours}\nkernel {theirs}"
            );
        }
        ensure!(user.lines().count() == kernel.lines().count());
        count = count.max(user.lines().count());
    }
    Ok(count)
}

/// What is said of each frame.
///
/// # Errors
/// When replay fails.
pub fn lines(policy: &Path, capture: &Path) -> Result<Vec<Value>> {
    let output = replay(policy, capture, ["--json"])?;
    let said = text(&output.stdout);
    ensure!(output.status.success(), "{}", text(&output.stderr));
    said.lines()
        .map(|line| serde_json::from_str(line).context("not JSON"))
        .collect()
}

/// Verdict and reason of each frame, in short.
///
/// # Errors
/// When replay fails.
pub fn verdicts(policy: &Path, capture: &Path) -> Result<Vec<String>> {
    let lines = lines(policy, capture)?;
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let short = |line: &Value| format!("{} {}", word(line, "verdict"), word(line, "reason"));
    Ok(lines.iter().map(short).collect())
}
