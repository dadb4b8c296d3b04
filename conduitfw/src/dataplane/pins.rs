//! The pins of one instance: what keeps enforcement alive without a controller.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::ProgramInfo;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::attach::{attached_program, interface_index};
use crate::{dataplane::DataPlaneError, instance::Instance};

/// The directory of pins of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

const LINK_PREFIX: &str = "link-";

impl Pins {
    /// The pins of an instance, present or not.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        Self {
            directory: instance.pins(),
        }
    }

    /// Where these pins stand while another data plane takes the place of theirs. No instance has such
    /// a name.
    pub(super) fn of_earlier(&self) -> Self {
        let mut name = self.directory.as_os_str().to_owned();
        name.push("+earlier");
        Self {
            directory: PathBuf::from(name),
        }
    }

    /// The directory, which also holds the maps under their own names.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pin of the program.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.directory.join("program")
    }

    /// Pin of the link to an interface.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.directory
            .join(format!("{LINK_PREFIX}{}", escape(interface)))
    }

    /// Interfaces that have a link here.
    ///
    /// # Errors
    ///
    /// The directory is there and cannot be read.
    pub fn linked_interfaces(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut interfaces = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(escaped) = name
                .to_str()
                .and_then(|name| name.strip_prefix(LINK_PREFIX))
            {
                interfaces.push(unescape(escaped));
            }
        }
        interfaces.sort();
        Ok(interfaces)
    }

    /// Whether a data plane was ever completed here.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.directory.join("SETTINGS").exists()
    }

    /// Makes the directory, on a BPF file system.
    ///
    /// # Errors
    ///
    /// There is no BPF file system and none can be mounted, or no permission.
    pub fn create(&self, bpffs: &Path) -> Result<(), DataPlaneError> {
        ensure_bpffs(bpffs)?;
        fs::create_dir_all(&self.directory).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => DataPlaneError::NoPermission {
                action: "pin maps in the BPF file system",
            },
            _ => DataPlaneError::System {
                action: "making the directory of pins",
                source,
            },
        })
    }

    /// Removes one link, which takes the program off its interface.
    ///
    /// # Errors
    ///
    /// The pin is there and cannot be removed.
    pub fn remove_link(&self, interface: &str) -> Result<(), DataPlaneError> {
        remove(&self.link(interface))
    }

    /// Removes every pin, also those of an earlier data plane whose place another one has not quite
    /// taken.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed; those before it are gone.
    pub fn remove_all(&self) -> Result<Vec<String>, DataPlaneError> {
        let mut interfaces = self.of_earlier().remove_own()?;
        interfaces.extend(self.remove_own()?);
        interfaces.sort();
        interfaces.dedup();
        Ok(interfaces)
    }

    /// Removes the pins that are here: first the links, then the rest, then the directory.
    pub(super) fn remove_own(&self) -> Result<Vec<String>, DataPlaneError> {
        let read = |source| DataPlaneError::System {
            action: "reading the pins",
            source,
        };
        let interfaces = self.linked_interfaces().map_err(read)?;
        for interface in &interfaces {
            self.remove_link(interface)?;
        }
        if self.directory.exists() {
            for entry in fs::read_dir(&self.directory).map_err(read)? {
                remove(&entry.map_err(read)?.path())?;
            }
            fs::remove_dir(&self.directory).map_err(|source| DataPlaneError::System {
                action: "removing the directory of pins",
                source,
            })?;
            if let Some(parent) = self.directory.parent() {
                // It stays where other instances have their pins.
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(interfaces)
    }
}

/// Takes the program off every interface and forgets maps, flows and counters.
///
/// # Errors
///
/// As [`Pins::remove_all`].
pub fn detach(instance: &Instance) -> Result<Vec<String>, DataPlaneError> {
    let pins = Pins::of(instance);
    let ours = ProgramInfo::from_pin(pins.program()).map_or(0, |program| program.id());
    let interfaces = pins.remove_all()?;
    let until = Instant::now() + LINGERING;
    for interface in &interfaces {
        while is_on(interface, ours) && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(interfaces)
}

/// A pin is gone at once; what it held follows after a grace period of RCU.
const LINGERING: Duration = Duration::from_secs(2);

fn is_on(interface: &str, program: u32) -> bool {
    let found = interface_index(interface).map(attached_program);
    matches!(found, Some(Ok(Some(found))) if found.id == program)
}

fn remove(path: &Path) -> Result<(), DataPlaneError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(DataPlaneError::NoPermission {
                action: "remove pins from the BPF file system",
            })
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DataPlaneError::Pin {
            action: "removing the pin",
            path: path.display().to_string(),
            reason: error.to_string(),
        }),
        _ => Ok(()),
    }
}

fn ensure_bpffs(path: &Path) -> Result<(), DataPlaneError> {
    let is_bpffs = || statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs() {
        return Ok(());
    }
    mount(
        Some("bpf"),
        path,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|errno| DataPlaneError::NoBpfFileSystem {
        path: path.display().to_string(),
        source: io::Error::from(errno),
    })
}

/// The BPF file system takes no dots in names, and VLAN interfaces have them.
fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

fn unescape(name: &str) -> String {
    name.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_the_file_system() {
        for name in ["eth0", "eth0.100", "we%ird", "a%2Eb"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
