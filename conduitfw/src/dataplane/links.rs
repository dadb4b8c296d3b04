//! What the kernel says about all its links: addresses, VLANs, bridges, and which drivers take frames
//! from XDP programs.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use super::rtnetlink::{attribute, push_attribute, u16_at, u32_at};

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) address: [u8; 6],
    pub(super) mtu: u32,
    /// The link that it is a part of; 0 for none.
    pub(super) master: u32,
    pub(super) vlan: Option<Vlan>,
    /// A bridge that speaks the spanning tree protocol itself.
    pub(super) is_spanning_bridge: bool,
}

/// What makes a link a VLAN of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vlan {
    pub(super) id: u16,
    /// The Ethernet type of its tag.
    pub(super) tag_type: u16,
    /// The link below.
    pub(super) below: u32,
}

// Numbers of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/genetlink.h and
// linux/netdev.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_BR_STP_STATE: u16 = 5;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;
const MESSAGE_HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Every link of this network namespace.
///
/// # Errors
///
/// The kernel does not answer.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let descriptor = open(SockProtocol::NetlinkRoute)?;
    let request = message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &[0; LINK_HEADER]);
    send(descriptor.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut links = Vec::new();
    let mut answer = vec![0; 65_536];
    loop {
        let length = recv(descriptor.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        for (kind, body) in messages(answer.get(..length).unwrap_or_default()) {
            match kind {
                RTM_NEWLINK => links.extend(link(body)),
                NLMSG_DONE => return Ok(links),
                NLMSG_ERROR => return Err(io::Error::other("the links cannot be listed")),
                _ => {}
            }
        }
        if length == 0 {
            return Ok(links);
        }
    }
}

/// Whether the driver of a link takes frames from XDP programs; nothing where the kernel cannot say
/// (before Linux 6.3).
pub(super) fn takes_frames(ifindexes: &[u32]) -> Vec<Option<bool>> {
    let asked = || -> io::Result<Vec<Option<bool>>> {
        let descriptor = open(SockProtocol::NetlinkGeneric)?;
        let family = family(&descriptor, "netdev")?;
        ifindexes
            .iter()
            .map(|ifindex| features(&descriptor, family, *ifindex))
            .collect()
    };
    asked().unwrap_or_else(|_| vec![None; ifindexes.len()])
}

fn family(descriptor: &OwnedFd, name: &str) -> io::Result<u16> {
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    push_attribute(
        &mut body,
        CTRL_ATTR_FAMILY_NAME,
        &[name.as_bytes(), &[0]].concat(),
    );
    let answer = ask(descriptor, GENL_ID_CTRL, &body)?;
    answer
        .get(GENERIC_HEADER..)
        .and_then(|attributes| attribute(attributes, CTRL_ATTR_FAMILY_ID))
        .and_then(|value| u16_at(value, 0))
        .ok_or_else(|| io::Error::other("no such family"))
}

fn features(descriptor: &OwnedFd, family: u16, ifindex: u32) -> io::Result<Option<bool>> {
    let mut body = vec![NETDEV_CMD_DEV_GET, 1, 0, 0];
    push_attribute(&mut body, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(descriptor, family, &body)?;
    let found = answer
        .get(GENERIC_HEADER..)
        .and_then(|attributes| attribute(attributes, NETDEV_A_DEV_XDP_FEATURES))
        .and_then(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?)));
    Ok(found.map(|features| features & NETDEV_XDP_ACT_NDO_XMIT != 0))
}

/// The body of the one message that answers a request.
fn ask(descriptor: &OwnedFd, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let request = message(kind, NLM_F_REQUEST, body);
    send(descriptor.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 8192];
    let length = recv(descriptor.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match messages(answer.get(..length).unwrap_or_default()).first() {
        Some((found, body)) if *found == kind => Ok(body.to_vec()),
        _ => Err(io::Error::other("the kernel does not know")),
    }
}

fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let descriptor = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(descriptor)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(MESSAGE_HEADER + body.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend(body);
    message
}

/// The messages in what was received: type and body.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut messages = Vec::new();
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(MESSAGE_HEADER..length) else {
            break;
        };
        messages.push((kind, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn link(body: &[u8]) -> Option<Link> {
    let attributes = body.get(LINK_HEADER..)?;
    let word = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    let name = attribute(attributes, IFLA_IFNAME)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut link = Link {
        ifindex: u32_at(body, 4)?,
        name: String::from_utf8_lossy(name).into_owned(),
        address: attribute(attributes, IFLA_ADDRESS)
            .and_then(|value| value.try_into().ok())
            .unwrap_or_default(),
        mtu: word(IFLA_MTU).unwrap_or(0),
        master: word(IFLA_MASTER).unwrap_or(0),
        ..Link::default()
    };
    let Some(info) = attribute(attributes, IFLA_LINKINFO) else {
        return Some(link);
    };
    let kind = attribute(info, IFLA_INFO_KIND).unwrap_or_default();
    let data = attribute(info, IFLA_INFO_DATA).unwrap_or_default();
    match kind.strip_suffix(&[0]).unwrap_or(kind) {
        b"vlan" => {
            let tag_type = attribute(data, IFLA_VLAN_PROTOCOL).and_then(|value| u16_at(value, 0));
            link.vlan = Some(Vlan {
                id: attribute(data, IFLA_VLAN_ID).and_then(|value| u16_at(value, 0))?,
                tag_type: tag_type.map_or(0x8100, u16::from_be),
                below: word(IFLA_LINK)?,
            });
        }
        b"bridge" => {
            let state = attribute(data, IFLA_BR_STP_STATE).and_then(|value| u32_at(value, 0));
            link.is_spanning_bridge = state.is_some_and(|state| state != 0);
        }
        _ => {}
    }
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_a_link_and_takes_no_frames() {
        let links = links().unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!(loopback.ifindex, 1);
        assert!(loopback.mtu >= 1500 && loopback.vlan.is_none());
        assert_ne!(takes_frames(&[1]), [Some(true)]);
    }

    #[test]
    fn every_prefix_of_a_link_is_survived() {
        let mut data = Vec::new();
        push_attribute(&mut data, IFLA_VLAN_ID, &10_u16.to_ne_bytes());
        push_attribute(&mut data, IFLA_VLAN_PROTOCOL, &0x88a8_u16.to_be_bytes());
        let mut info = Vec::new();
        push_attribute(&mut info, IFLA_INFO_KIND, b"vlan\0");
        push_attribute(&mut info, IFLA_INFO_DATA, &data);
        let mut body = vec![0; LINK_HEADER];
        body[4] = 7;
        push_attribute(&mut body, IFLA_IFNAME, b"eth1.10\0");
        push_attribute(&mut body, IFLA_LINK, &3_u32.to_ne_bytes());
        push_attribute(&mut body, IFLA_LINKINFO, &info);
        let vlan = Vlan {
            id: 10,
            tag_type: 0x88a8,
            below: 3,
        };
        let found = link(&body).unwrap();
        assert_eq!((found.name.as_str(), found.ifindex), ("eth1.10", 7));
        assert_eq!(found.vlan, Some(vlan));
        for end in 0..body.len() {
            assert_ne!(link(&body[..end]), Some(found.clone()));
        }
    }
}
