//! A wire to put frames on and to take them off, as they are.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, socket,
};

use super::Host;

/// The longest frame that is taken off the wire.
const FRAME_BYTES: usize = 65_536;

/// A packet socket on an interface of a host.
#[derive(Debug)]
pub struct Tap {
    socket: File,
    address: [u8; 6],
}

impl Tap {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the host has no such interface.
    pub fn open(host: &Host, interface: &str) -> Result<Self> {
        let (socket, address) = host.enter(|| open(interface))??;
        Ok(Self { socket, address })
    }

    /// The hardware address of the interface.
    #[must_use]
    pub fn address(&self) -> [u8; 6] {
        self.address
    }

    /// Puts a frame on the wire.
    ///
    /// # Errors
    /// When the interface does not take it.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let sent = self.socket.write(frame).context("cannot send a frame")?;
        if sent != frame.len() {
            bail!("{sent} of {} bytes were sent", frame.len());
        }
        Ok(())
    }

    /// The next frame that is wanted, if it comes within `patience`. Others are thrown away.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait_for(
        &mut self,
        patience: Duration,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let until = Instant::now() + patience;
        let mut buffer = vec![0; FRAME_BYTES];
        loop {
            if let Ok(length) = self.socket.read(&mut buffer) {
                let frame = &buffer[..length];
                if is_wanted(frame) {
                    return Ok(Some(frame.to_vec()));
                }
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
            let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut sockets, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(interface: &str) -> Result<(File, [u8; 6])> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )?;
    let address = getifaddrs()?
        .filter(|address| address.interface_name == interface)
        .filter_map(|address| address.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .with_context(|| format!("there is no interface {interface}"))?;
    let address = address
        .as_link_addr()
        .context("an address without a link")?;
    bind(socket.as_raw_fd(), address)?;
    let hardware = address.addr().context("no hardware address")?;
    Ok((File::from(socket), hardware))
}
