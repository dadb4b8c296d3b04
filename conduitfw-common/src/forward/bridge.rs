//! Pairs of ports in a cable: frames go to the other port as they are.

use super::{HEADER_BYTES, IPV6_HEADER_BYTES, Kept, Port, Ways, is_addressed_to, port_flag};
use crate::bytes::Truncated;
use crate::judgement::Judgement;
use crate::packet::{Packet, transport};
use crate::platform::Platform;
use crate::verdict::Reason;
use crate::wire::{ethernet, icmp};

/// The other port of a bridge, for a frame that is left as it is.
#[inline(always)]
pub(super) fn bridge<W: Ways>(way: &mut W, packet: &Packet, inlet: &Port) -> Result<u32, Kept> {
    let outlet = way.port(inlet.peer).ok_or(Kept::Port)?;
    if outlet.flags & port_flag::TAKES == 0 {
        return Err(Kept::Port);
    }
    if is_addressed_to(way, inlet)? || is_addressed_to(way, &outlet)? {
        return Err(Kept::Address);
    }
    let is_ip = matches!(packet.ether_type, ethernet::IPV4 | ethernet::IPV6);
    let is_group = way.u8(0).map_err(|_| Kept::Address)? & 1 != 0;
    // Addresses of one link (RFC 4291 §2.5.6) are at home nowhere else, and answers go to them.
    let is_discovery =
        packet.transport == transport::ICMP && icmp::kind(packet) == icmp::Kind::Neighbour;
    if !is_ip || is_group || is_discovery {
        // A Linux bridge is to learn where hosts are, and may have an address of its own.
        return if inlet.flags & port_flag::ALONE == 0 {
            Err(Kept::Address)
        } else {
            Ok(outlet.port)
        };
    }
    if way.frame_bytes().wrapping_sub(packet.network_at) > outlet.mtu {
        return Err(Kept::TooLong);
    }
    if !way.is_at_home(outlet.port, packet.vlans, &packet.destination) {
        return Err(Kept::NotAtHome);
    }
    let length = match packet.ether_type {
        ethernet::IPV4 => way.u16(packet.network_at.wrapping_add(2)),
        _ => way.u16(packet.network_at.wrapping_add(4)),
    };
    let length = u32::from(length.map_err(|_| Kept::Options)?);
    let headers = packet.transport_at.wrapping_sub(packet.network_at);
    let bytes = if packet.ether_type == ethernet::IPV4 {
        length.wrapping_sub(headers)
    } else {
        length.wrapping_sub(headers.wrapping_sub(IPV6_HEADER_BYTES))
    };
    let finished = way.finish_checksum(packet, packet.transport_at, bytes);
    finished.map_err(|_| Kept::Checksum)?;
    Ok(outlet.port)
}

/// LLDP (IEEE 802.1AB §7.3).
const LLDP: u16 = 0x88cc;
/// The first four bytes of the group addresses that bridges do not pass on (IEEE 802.1Q §8.6.3).
const BRIDGE_GROUP: u32 = 0x0180_c200;
/// What a frame of the spanning tree has behind its length (IEEE 802.1Q §14.4, 802.1D §9.2).
const SPANNING_TREE: u32 = 0x4242_0300;

/// Judges a frame that is neither IP nor ARP: what holds bridges together passes where the policy
/// says so.
#[inline(always)]
pub fn judge_link<P: Platform>(p: &P, packet: &Packet) -> Judgement {
    let flags = p.link_flags(p.seen().slot);
    let mut wanted = 0;
    if packet.network_at == HEADER_BYTES {
        wanted = protocol_of_link(p, packet.ether_type).unwrap_or(0);
    }
    if flags & wanted == 0 {
        Judgement::deny(Reason::EtherTypeNotAllowed, 0)
    } else {
        Judgement::pass(0)
    }
}

/// The flag of the protocol that a frame without tags is of; 0 for any other.
#[inline(always)]
fn protocol_of_link<P: Platform>(p: &P, ether_type: u16) -> Result<u32, Truncated> {
    let (high, group) = (p.u32(0)?, p.u16(4)?);
    if high != BRIDGE_GROUP {
        return Ok(0);
    }
    if ether_type == LLDP && matches!(group, 0 | 3 | 0x0e) {
        return Ok(port_flag::LLDP);
    }
    if ether_type <= LARGEST_LENGTH && group == 0 && p.u32(HEADER_BYTES)? == SPANNING_TREE {
        return Ok(port_flag::STP);
    }
    Ok(0)
}

/// Below this an Ethernet type is the length of the frame (IEEE 802.3 §3.2.6).
const LARGEST_LENGTH: u16 = 1500;
