//! Where one instance of conduitfw keeps its pins, its socket and its state.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// The three roots, and the name of the instance below them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The name; `default` unless several instances run on one machine.
    pub name: InstanceName,
    /// Root of the BPF file system.
    pub bpffs: PathBuf,
    /// Directory of sockets and locks.
    pub run_dir: PathBuf,
    /// Directory of what outlives a reboot.
    pub state_dir: PathBuf,
}

impl Instance {
    /// Directory of the pinned maps, program and links.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpffs.join("conduitfw").join(self.name.as_str())
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(format!("{}.sock", self.name.as_str()))
    }

    /// The file that a running controller holds locked.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join(format!("{}.lock", self.name.as_str()))
    }

    /// Directory of this instance's state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.state_dir.join(self.name.as_str())
    }
}

/// A name that is safe as a file name on any of the three roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for InstanceName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl FromStr for InstanceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 32 || !text.chars().all(is_plain) {
            return Err("an instance name has 1 to 32 of a-z, 0-9, - and _");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_directory() {
        for bad in ["", "..", "a/b", "a.b", "A", "a b"] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
        assert_eq!(
            "north-1".parse::<InstanceName>().unwrap().as_str(),
            "north-1"
        );
    }
}
