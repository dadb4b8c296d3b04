//! The program on its interfaces: through pinned links, replaced in place, never half.

use std::{fmt, io, path::Path};

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use clap::ValueEnum;
use nix::net::if_::if_nametoindex;

use super::{DataPlaneError, Pins, load::chain, mtu, rtnetlink};

/// Where on the way of a frame the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// In the driver where it can, else in the kernel's generic path.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The index of an interface that is there.
pub(super) fn interface_index(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

/// Puts this program in the place of the one that a pinned link carries, between two frames.
///
/// False when the link does not do it: its interface is gone, or has another name now.
pub(super) fn replace(
    xdp: &mut Xdp,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
) -> Result<bool, DataPlaneError> {
    let link = open_link(pins, interface)?;
    let path = pins.link(interface);
    if !replace_in(xdp, link, &path)? {
        return Ok(false);
    }
    let info = xdp.info();
    let ours = info.map_err(|error| link_error(&path, chain(&error)))?.id();
    Ok(attached_program(ifindex)?.is_some_and(|found| found.id == ours))
}

/// The pinned link to an interface.
pub(super) fn open_link(pins: &Pins, interface: &str) -> Result<XdpLink, DataPlaneError> {
    let path = pins.link(interface);
    let pinned = PinnedLink::from_pin(&path).map_err(|error| link_error(&path, chain(&error)))?;
    XdpLink::try_from(FdLink::from(pinned)).map_err(|error| link_error(&path, chain(&error)))
}

/// Puts this program into a link that is pinned at `path`; false when its interface is gone.
pub(super) fn replace_in(
    xdp: &mut Xdp,
    link: XdpLink,
    path: &Path,
) -> Result<bool, DataPlaneError> {
    match xdp.attach_to_link(link) {
        // The pin keeps the link; this descriptor of it may go.
        Ok(id) => xdp
            .take_link(id)
            .map(|_| true)
            .map_err(|error| link_error(path, chain(&error))),
        Err(error) if system_code(&error) == Some(nix::libc::ENOLINK) => Ok(false),
        Err(error) => Err(link_error(path, chain(&error))),
    }
}

fn link_error(path: &Path, reason: String) -> DataPlaneError {
    DataPlaneError::Pin {
        action: "replacing the program through",
        path: path.display().to_string(),
        reason,
    }
}

/// Attaches the program to an interface that carries none of ours, and pins the link.
pub(super) fn attach(
    xdp: &mut Xdp,
    pins: &Pins,
    interface: &str,
    mode: AttachMode,
) -> Result<(), DataPlaneError> {
    let ifindex = interface_index(interface)
        .ok_or_else(|| DataPlaneError::NoInterface(interface.to_owned()))?;
    if let Some(found) = attached_program(ifindex)? {
        return Err(DataPlaneError::Occupied {
            interface: interface.to_owned(),
            program: found.id,
        });
    }
    let id = match mode {
        AttachMode::Native => try_attach(xdp, interface, ifindex, XdpMode::Driver),
        AttachMode::Generic => try_attach(xdp, interface, ifindex, XdpMode::Skb),
        AttachMode::Auto => match try_attach(xdp, interface, ifindex, XdpMode::Driver) {
            Err(DataPlaneError::Attach { reason, .. }) => {
                tracing::warn!(
                    interface,
                    "attaching in generic mode, where each frame costs more: {reason}"
                );
                try_attach(xdp, interface, ifindex, XdpMode::Skb)
            }
            other => other,
        },
    }?;
    pin(id, pins, interface)
}

/// Ids of programs on an interface.
pub(super) fn attached_program(
    ifindex: u32,
) -> Result<Option<rtnetlink::AttachedProgram>, DataPlaneError> {
    rtnetlink::attached_program(ifindex).map_err(|source| DataPlaneError::System {
        action: "asking the kernel which program runs on an interface",
        source,
    })
}

fn try_attach(
    xdp: &mut Xdp,
    interface: &str,
    ifindex: u32,
    mode: XdpMode,
) -> Result<FdLink, DataPlaneError> {
    let attach_error = |source: ProgramError| match system_code(&source) {
        Some(nix::libc::EPERM | nix::libc::EACCES) => DataPlaneError::NoPermission {
            action: "attach to interfaces",
        },
        Some(nix::libc::ENODEV) => DataPlaneError::NoInterface(interface.to_owned()),
        code => DataPlaneError::Attach {
            interface: interface.to_owned(),
            mode: if mode == XdpMode::Skb {
                "generic"
            } else {
                "native"
            },
            reason: obstacle(&source, code, interface, mode),
        },
    };
    let id = xdp
        .attach_to_if_index(ifindex, mode)
        .map_err(attach_error)?;
    let link = xdp.take_link(id).map_err(attach_error)?;
    // A kernel that refuses a link gets the program by netlink, which cannot be pinned: dropping
    // such a link takes the program off again.
    FdLink::try_from(link).map_err(|_| {
        attach_error(ProgramError::IOError(io::Error::from_raw_os_error(
            nix::libc::EINVAL,
        )))
    })
}

/// What keeps the program from an interface, and what to do about it.
fn obstacle(source: &ProgramError, code: Option<i32>, interface: &str, mode: XdpMode) -> String {
    let said = chain(source);
    if mode == XdpMode::Skb {
        return said;
    }
    match mtu::too_large(interface, code == Some(nix::libc::ERANGE)) {
        Some(reason) => format!(
            "{reason} (`ip link set dev {interface} mtu {}`, at both ends); generic mode \
             (`--mode generic`) takes frames of any size",
            mtu::LARGEST_MTU
        ),
        None => format!("{said}; generic mode (`--mode generic`) needs nothing of the driver"),
    }
}

fn pin(link: FdLink, pins: &Pins, interface: &str) -> Result<(), DataPlaneError> {
    let path = pins.link(interface);
    link.pin(&path)
        .map(drop)
        .map_err(|error| DataPlaneError::Pin {
            action: "pinning the link",
            path: path.display().to_string(),
            reason: chain(&error),
        })
}

/// The number of the system error behind an error.
fn system_code(error: &ProgramError) -> Option<i32> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io_error) = error.downcast_ref::<io::Error>() {
            return io_error.raw_os_error();
        }
        next = error.source();
    }
    None
}
