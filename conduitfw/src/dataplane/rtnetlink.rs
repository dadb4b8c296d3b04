//! What the kernel says about interfaces: which XDP program runs there, and when links change.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The kernel's id of the program.
    pub id: u32,
    /// In the driver; else in the kernel's generic path.
    pub native: bool,
}

// Numbers of linux/rtnetlink.h and linux/if_link.h.
const NLMSG_ERROR: u16 = 2;
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const RTMGRP_LINK: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const XDP_ATTACHED_SKB: u8 = 2;
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const MESSAGE_HEADER: usize = 16;
const LINK_HEADER: usize = 16;

/// The XDP program on an interface, if there is one.
///
/// # Errors
///
/// The kernel does not answer.
pub fn attached_program(ifindex: u32) -> io::Result<Option<AttachedProgram>> {
    Ok(parse_link(&ask_for_link(ifindex)?))
}

/// The MTU of an interface.
///
/// # Errors
///
/// The kernel does not answer.
pub fn mtu(ifindex: u32) -> io::Result<Option<u32>> {
    Ok(parse_mtu(&ask_for_link(ifindex)?))
}

/// What the kernel says of one interface.
fn ask_for_link(ifindex: u32) -> io::Result<Vec<u8>> {
    let descriptor = open(0)?;
    send(
        descriptor.as_raw_fd(),
        &link_request(ifindex),
        MsgFlags::empty(),
    )?;
    let mut answer = vec![0; 65_536];
    let length = recv(descriptor.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// A socket that becomes readable whenever a link is made, changed or removed.
///
/// # Errors
///
/// The kernel refuses the socket.
pub fn link_changes() -> io::Result<OwnedFd> {
    open(RTMGRP_LINK)
}

/// Makes an interface of a kind that needs nothing else.
///
/// # Errors
///
/// The kernel does not know the kind, or has an interface of that name.
pub fn add_link(name: &str, kind: &str) -> io::Result<()> {
    let descriptor = open(0)?;
    send(
        descriptor.as_raw_fd(),
        &new_link(name, kind),
        MsgFlags::empty(),
    )?;
    let mut answer = vec![0; 8192];
    let length = recv(descriptor.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    // An error message holds the negative error number, 0 for success.
    match (u16_at(answer, 4), u32_at(answer, MESSAGE_HEADER)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(number)) => Err(io::Error::from_raw_os_error(
            number.cast_signed().wrapping_neg(),
        )),
        _ => Err(io::Error::other("an answer that is not understood")),
    }
}

/// Empties a socket of [`link_changes`]; what the messages say is asked anew anyway.
pub fn drain(descriptor: &OwnedFd) {
    let mut message = [0; 8192];
    while recv(descriptor.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT).is_ok() {}
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC
        | if groups == 0 {
            SockFlag::empty()
        } else {
            SockFlag::SOCK_NONBLOCK
        };
    let descriptor = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(descriptor)
}

fn link_request(ifindex: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(MESSAGE_HEADER + LINK_HEADER);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend([0; 4]); // family, padding, device type
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]); // flags and change
    message
}

fn new_link(name: &str, kind: &str) -> Vec<u8> {
    let mut body = vec![0; LINK_HEADER];
    push_attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    let mut info = Vec::new();
    push_attribute(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    push_attribute(&mut body, IFLA_LINKINFO, &info);
    let length = u32::try_from(MESSAGE_HEADER + body.len()).unwrap_or(0);
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend(body);
    message
}

pub(super) fn push_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(4);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn parse_mtu(message: &[u8]) -> Option<u32> {
    if u16_at(message, 4)? != RTM_NEWLINK {
        return None;
    }
    let mtu = attribute(message.get(MESSAGE_HEADER + LINK_HEADER..)?, IFLA_MTU)?;
    u32_at(mtu, 0)
}

fn parse_link(message: &[u8]) -> Option<AttachedProgram> {
    let kind = u16_at(message, 4)?;
    if kind != RTM_NEWLINK {
        return None;
    }
    let xdp = attribute(message.get(MESSAGE_HEADER + LINK_HEADER..)?, IFLA_XDP)?;
    let attached = *attribute(xdp, IFLA_XDP_ATTACHED)?.first()?;
    let program = attribute(xdp, IFLA_XDP_PROG_ID)
        .or_else(|| attribute(xdp, IFLA_XDP_DRV_PROG_ID))
        .and_then(|value| u32_at(value, 0))?;
    Some(AttachedProgram {
        id: program,
        native: attached != XDP_ATTACHED_SKB,
    })
}

/// The value of the first attribute of a type (`struct rtattr`: length, type, value, padding).
pub(super) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? & ATTRIBUTE_TYPE == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_program_of_ours_and_every_prefix_is_survived() {
        assert_eq!(attached_program(1).unwrap(), None);
        assert!(mtu(1).unwrap().is_some_and(|mtu| mtu > 1500));

        let mut message = vec![0; 32];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        let mut nested = Vec::new();
        nested.extend([5, 0, 2, 0, XDP_ATTACHED_SKB, 0, 0, 0]);
        nested.extend([8, 0, 4, 0]);
        nested.extend(77_u32.to_ne_bytes());
        message.extend([8, 0, 1, 0, 9, 9, 9, 9]);
        message.extend(20_u16.to_ne_bytes());
        message.extend(IFLA_XDP.to_ne_bytes());
        message.extend(nested);
        assert_eq!(
            parse_link(&message),
            Some(AttachedProgram {
                id: 77,
                native: false
            })
        );
        for end in 0..message.len() {
            assert_eq!(parse_link(&message[..end]), None);
            assert_eq!(parse_mtu(&message[..end]), None);
        }
    }
}
