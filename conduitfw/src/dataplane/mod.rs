//! The data plane as user space sees it: load, pin, attach, write a generation, flip.

mod apply;
mod attach;
mod batch;
mod change_over;
mod grace;
mod links;
mod load;
pub mod maps;
pub mod mtu;
mod offload;
mod pins;
mod ports;
mod private;
mod refusals;
pub mod rings;
pub mod rtnetlink;
mod sizes;
mod slot;

use std::io;

use aya::{EbpfError, maps::MapError};
use thiserror::Error;

pub use apply::{DataPlane, InterfaceChange};
pub use attach::AttachMode;
pub use load::check_version;
pub use pins::{Pins, detach};
pub use private::{FRAME_BYTES, PrivateDataPlane};
pub use sizes::TableSizes;

use crate::dataplane::maps::OpenMapError;

/// Why the data plane cannot do what it was asked to. Each sentence names the remedy.
#[derive(Debug, Error)]
pub enum DataPlaneError {
    /// The kernel is older than the program needs.
    #[error("this kernel is {found}, and conduitfw needs Linux 6.1 or newer: boot a newer kernel")]
    OldKernel {
        /// What runs.
        found: String,
    },
    /// No permission for BPF.
    #[error(
        "no permission to {action}: run conduitfw as root, or with CAP_BPF, CAP_NET_ADMIN, \
         CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    NoPermission {
        /// What was refused.
        action: &'static str,
    },
    /// No BPF file system where pins belong.
    #[error(
        "there is no BPF file system on {path} ({source}): run `mount -t bpf bpf {path}` and \
         start again"
    )]
    NoBpfFileSystem {
        /// The path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Pins of another ABI version.
    #[error(
        "the data plane in force was loaded by another version of conduitfw (its tables are \
         {found}, this program's are version {wanted}): it goes on enforcing; to change \
         over without a gap, start with --change-over (connections are picked up as `adopt` says, \
         and counters begin anew)"
    )]
    OtherVersion {
        /// Version of the pinned maps, in words.
        found: String,
        /// Version of this program.
        wanted: u32,
    },
    /// Limits other than those that the tables were made with.
    #[error(
        "[settings.limits] asks for {wanted}, and the tables in force were made for {found}: set \
         the limits back; or stop the controller and start it with --change-over, which puts new \
         tables in their place without a gap (connections are picked up as `adopt` says, and \
         counters begin anew)"
    )]
    OtherLimits {
        /// Limits of the pinned maps.
        found: TableSizes,
        /// Limits of the policy.
        wanted: TableSizes,
    },
    /// An interface of the policy that the machine does not have.
    #[error(
        "interface `{0}` is named in the policy, and this machine has none of that name: correct \
         the name, or create the interface first (`ip link` lists them)"
    )]
    NoInterface(String),
    /// An XDP program that is not ours.
    #[error(
        "interface `{interface}` already runs an XDP program of somebody else, or of another \
         instance of conduitfw (program id {program}): see whose it is with `bpftool prog show id \
         {program}` and `ls /sys/fs/bpf/conduitfw/*/link-*`, remove it with `conduitfw detach --instance \
         NAME`, `ip link set dev {interface} xdp off` or its own tool, and start again"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The kernel's id of the program there.
        program: u32,
    },
    /// The kernel refused to attach.
    #[error("the program cannot be attached to interface `{interface}` in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// native or generic.
        mode: &'static str,
        /// What is in the way, and what to do.
        reason: String,
    },
    /// The kernel refused the program.
    #[error("the kernel refuses the program `{program}`: {reason}")]
    Load {
        /// Name of the program.
        program: &'static str,
        /// The verifier's last lines, or the system error.
        reason: String,
    },
    /// The object cannot be made into maps and programs.
    #[error("the data plane cannot be loaded: {0}")]
    Object(Box<EbpfError>),
    /// The object lacks a part.
    #[error("the data plane in this binary has no {0}: build it anew with `cargo xtask ebpf`")]
    Incomplete(&'static str),
    /// A pinned map does not open.
    #[error("{0}: {source}; if the pins are damaged, run `conduitfw detach` and start again",
        source = std::error::Error::source(.0).map_or_else(String::new, ToString::to_string))]
    Pinned(Box<OpenMapError>),
    /// A row of a map was refused.
    #[error("{what} cannot be written to the maps: {source}; the policy in force stays")]
    Write {
        /// Which rows.
        what: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// What was read back is not what was written.
    #[error(
        "{what}: {found} rows are in the map where {wanted} were written; the policy in force stays"
    )]
    NotAsWritten {
        /// Which rows.
        what: &'static str,
        /// Rows found.
        found: usize,
        /// Rows written.
        wanted: usize,
    },
    /// A map cannot be read.
    #[error("the maps cannot be read: {0}")]
    Read(#[from] MapError),
    /// A pin cannot be made or removed.
    #[error("{action} {path}: {reason}")]
    Pin {
        /// What was tried.
        action: &'static str,
        /// The pin.
        path: String,
        /// What the kernel said.
        reason: String,
    },
    /// Another system call failed.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<OpenMapError> for DataPlaneError {
    fn from(error: OpenMapError) -> Self {
        Self::Pinned(Box::new(error))
    }
}
