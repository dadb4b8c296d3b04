//! forward: a frame that was judged to pass leaves by the way that its route names, without the
//! kernel's own forwarding. Whatever is out of the ordinary is kept for the kernel, which does it right.

mod bridge;
mod checksum;
mod known_way;
mod table;

pub use bridge::judge_link;
pub use checksum::finish_checksum;
pub use known_way::{KNOWN_WAYS, KnownWay};
pub use table::{
    FORWARDING_ROWS, HANDED_ROW, HOMES, Home, Kept, MAX_PORTS, MAX_TAGGED, Port, REFUSED_ROW,
    port_flag,
};

use crate::bytes::Truncated;
use crate::packet::Packet;
use crate::reset::{FrameEditor, MAX_SUM_BYTES};
use crate::table::Address;
use crate::wire::{ethernet, icmp};

/// What a route is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// IPv4: the type of service. IPv6: traffic class and flow label.
    pub service: u32,
    /// Bytes of the packet.
    pub bytes: u16,
    /// Bytes of it behind the IP header.
    pub transport_bytes: u32,
}

/// The answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// The device to leave by.
    pub device: u32,
    /// The two hardware addresses as they stand in the frame: destination, then source.
    pub addresses: [u32; 3],
    /// Bytes that a packet may have on this route.
    pub mtu: u32,
}

/// The world around a frame that is to leave.
pub trait Ways: FrameEditor {
    /// The interface that the frame came in on.
    fn ifindex(&self) -> u32;
    /// Bytes of the frame.
    fn frame_bytes(&self) -> u32;
    /// The row of `PORTS` of a device, if it is the device's.
    fn port(&self, device: u32) -> Option<Port>;
    /// `TAGGED`: the VLAN device of an interface and tags; 0 for none.
    fn tagged(&self, ifindex: u32, vlans: u32) -> u32;
    /// Asks the routing table about a packet that came in by a device.
    ///
    /// # Errors
    /// Why the kernel has to forward the packet.
    fn next_hop(&self, packet: &Packet, device: u32, query: &Query) -> Result<NextHop, Kept>;
    /// The row of `KNOWN_WAYS`.
    fn known_way(&mut self, row: u32) -> Option<&mut KnownWay>;
    /// The kernel's tick counter.
    fn now_ticks(&self) -> u64;
    /// The number of the generation that judged the frame.
    fn generation(&self) -> u32;
    /// Whether hosts of the destination's zone are behind an interface.
    fn is_at_home(&self, ifindex: u32, vlans: u32, destination: &Address) -> bool;
    /// Takes bytes off the front of the frame, or adds some.
    ///
    /// # Errors
    /// [`Truncated`] when there is no room; then the frame is as it was.
    fn move_head(&mut self, bytes: i32) -> Result<(), Truncated>;
    /// Stage: [`finish_checksum`].
    ///
    /// # Errors
    /// As there.
    fn finish_checksum(&mut self, packet: &Packet, at: u32, bytes: u32) -> Result<(), Truncated>;
}

/// Readies a frame that passes to leave as one like it did in this tick: answers the interface, or 0 when
/// [`forward`] has to look for the way.
///
/// # Errors
/// Why the kernel gets it, unchanged but for [`Kept::Lost`].
#[inline(always)]
pub fn forward_as_before<W: Ways>(way: &mut W, packet: &Packet) -> Result<u32, Kept> {
    let Ok(query) = check(way, packet) else {
        return Ok(0);
    };
    let hop = known_way::recall(way, packet, &query);
    let Ok(outlet) = outlet(way, packet, hop.device) else {
        return Ok(0);
    };
    if !checksum::is_finished(way, packet, query.transport_bytes) {
        return Ok(0);
    }
    let network_at = make_room(way, packet, &outlet)?;
    rewrite(way, packet, &outlet, &hop, network_at).map_err(|_| Kept::Lost)?;
    Ok(outlet.port)
}

/// Readies a frame that passes to leave; answers the interface.
///
/// # Errors
/// Why the kernel gets it, unchanged but for [`Kept::Lost`].
#[inline(always)]
pub fn forward<W: Ways>(way: &mut W, packet: &Packet) -> Result<u32, Kept> {
    let port = way.port(way.ifindex()).ok_or(Kept::Address)?;
    if port.peer != 0 {
        return bridge::bridge(way, packet, &port);
    }
    if packet.ether_type == ethernet::ARP || icmp::kind(packet) == icmp::Kind::Neighbour {
        return Err(Kept::Resolution);
    }
    // A tag without a VLAN id (802.1p), outside or inside, is the kernel's to take off.
    if packet.network_at != HEADER_BYTES.wrapping_add(tags_bytes(packet.vlans)) {
        return Err(Kept::Address);
    }
    let inlet = if packet.vlans == 0 {
        port
    } else {
        way.port(way.tagged(port.device, packet.vlans))
            .ok_or(Kept::Address)?
    };
    let types = tag_types(way, packet).map_err(|_| Kept::Address)?;
    if !is_addressed_to(way, &inlet)? || (types != 0 && types != inlet.tag_types) {
        return Err(Kept::Address);
    }
    let query = check(way, packet)?;
    let hop = way.next_hop(packet, inlet.device, &query)?;
    let outlet = outlet(way, packet, hop.device)?;
    if outlet.device == inlet.device {
        return Err(Kept::SamePort);
    }
    if !way.is_at_home(outlet.port, outlet.vlans, &packet.destination) {
        return Err(Kept::NotAtHome);
    }
    known_way::keep(way, packet, &query, &hop);
    leave(way, packet, &outlet, &hop, query.transport_bytes)?;
    Ok(outlet.port)
}

/// The device that a route names, if the frame may leave by it.
#[inline(always)]
fn outlet<W: Ways>(way: &W, packet: &Packet, device: u32) -> Result<Port, Kept> {
    let outlet = way.port(device).ok_or(Kept::Port)?;
    if outlet.flags & port_flag::TAKES == 0 || outlet.peer != 0 {
        return Err(Kept::Port);
    }
    // What a driver refused is remembered of the interface alone.
    if outlet.vlans != 0 {
        let below = way.port(outlet.port).ok_or(Kept::Port)?;
        if below.flags & port_flag::TAKES == 0 {
            return Err(Kept::Port);
        }
    }
    if way.frame_bytes().wrapping_sub(packet.network_at) > outlet.mtu {
        return Err(Kept::TooLong);
    }
    Ok(outlet)
}

const HEADER_BYTES: u32 = 14;
const TAG_BYTES: u32 = 4;
const IPV6_HEADER_BYTES: u32 = 40;

#[inline(always)]
fn is_addressed_to<W: Ways>(way: &W, port: &Port) -> Result<bool, Kept> {
    let high = way.u32(0).map_err(|_| Kept::Address)?;
    let low = way.u16(4).map_err(|_| Kept::Address)?;
    Ok(high == port.address_high && u32::from(low) == port.address_low)
}

/// Holds the packet against what only the kernel does.
#[inline(always)]
fn check<W: Ways>(way: &W, packet: &Packet) -> Result<Query, Kept> {
    let at = packet.network_at;
    let read = |word: Result<u32, Truncated>| word.map_err(|_| Kept::Options);
    let (service, bytes, header_bytes) = match packet.ether_type {
        ethernet::IPV4 => {
            // Version, length of the header, type of service, length of the packet.
            let [first, service, high, low] = read(way.u32(at))?.to_be_bytes();
            if first != 0x45 {
                return Err(Kept::Options);
            }
            (u32::from(service), u16::from_be_bytes([high, low]), 20)
        }
        ethernet::IPV6 => {
            if packet.transport_at != at.wrapping_add(IPV6_HEADER_BYTES) {
                return Err(Kept::Options);
            }
            if is_link_local(&packet.source) || is_link_local(&packet.destination) {
                return Err(Kept::Route);
            }
            let flow = read(way.u32(at))? & 0x0fff_ffff;
            let payload = way.u16(at.wrapping_add(4)).map_err(|_| Kept::Options)?;
            let bytes = payload.checked_add(40).ok_or(Kept::TooLong)?;
            (flow.to_be(), bytes, 40)
        }
        _ => return Err(Kept::Route),
    };
    if packet.hop_limit <= 1 {
        return Err(Kept::HopLimit);
    }
    Ok(Query {
        service,
        bytes,
        transport_bytes: u32::from(bytes).wrapping_sub(header_bytes),
    })
}

/// `fe80::/10` (RFC 4291 §2.5.6): such packets stay on their link.
#[inline(always)]
const fn is_link_local(address: &Address) -> bool {
    let [first, ..] = *address;
    u32::from_be(first) >> 22 == 0xfe80 >> 6
}

/// Gives the frame the headers that it leaves with: addresses, tags, one hop less.
#[inline(always)]
fn leave<W: Ways>(
    way: &mut W,
    packet: &Packet,
    outlet: &Port,
    hop: &NextHop,
    transport_bytes: u32,
) -> Result<(), Kept> {
    // What cannot be summed up has to be known before anything is changed.
    if transport_bytes > MAX_SUM_BYTES {
        return Err(Kept::Checksum);
    }
    let network_at = make_room(way, packet, outlet)?;
    let transport_at = packet
        .transport_at
        .wrapping_sub(packet.network_at)
        .wrapping_add(network_at);
    let finished = way.finish_checksum(packet, transport_at, transport_bytes);
    finished.map_err(|_| Kept::Lost)?;
    rewrite(way, packet, outlet, hop, network_at).map_err(|_| Kept::Lost)
}

/// Takes tags away or makes room for some; answers where the IP header stands now.
#[inline(always)]
fn make_room<W: Ways>(way: &mut W, packet: &Packet, outlet: &Port) -> Result<u32, Kept> {
    let network_at = HEADER_BYTES.wrapping_add(tags_bytes(outlet.vlans));
    let surplus = packet.network_at.wrapping_sub(network_at).cast_signed();
    if surplus != 0 {
        way.move_head(surplus).map_err(|_| Kept::Room)?;
    }
    Ok(network_at)
}

/// The Ethernet types of the tags of a frame, as in [`Port::tag_types`]; 0 without tags.
#[inline(always)]
fn tag_types<W: Ways>(way: &W, packet: &Packet) -> Result<u32, Truncated> {
    if packet.vlans == 0 {
        return Ok(0);
    }
    let outer = u32::from(way.u16(12)?) << 16;
    if packet.vlans.trailing_zeros() >= 16 {
        Ok(outer)
    } else {
        Ok(outer | u32::from(way.u16(16)?))
    }
}

#[inline(always)]
const fn tags_bytes(vlans: u32) -> u32 {
    if vlans == 0 {
        0
    } else if vlans.trailing_zeros() >= 16 {
        TAG_BYTES
    } else {
        2 * TAG_BYTES
    }
}

#[inline(always)]
fn rewrite<W: Ways>(
    way: &mut W,
    packet: &Packet,
    outlet: &Port,
    hop: &NextHop,
    network_at: u32,
) -> Result<(), Truncated> {
    let [first, second, third] = hop.addresses;
    way.set_u32(0, first)?;
    way.set_u32(4, second)?;
    way.set_u32(8, third)?;
    if outlet.vlans != packet.vlans {
        if outlet.vlans != 0 {
            way.set_u32(12, outlet.tag_types & 0xffff_0000 | outlet.vlans >> 16)?;
        }
        if outlet.vlans & 0xffff != 0 {
            way.set_u32(16, outlet.tag_types << 16 | outlet.vlans & 0xffff)?;
        }
        way.set_u16(network_at.wrapping_sub(2), packet.ether_type)?;
    }
    if packet.ether_type == ethernet::IPV6 {
        way.replace_u8(network_at.wrapping_add(7), packet.hop_limit.wrapping_sub(1))?;
        return Ok(());
    }
    // The sum of the header is one lower in the upper half of a word (RFC 1141).
    let checksum_at = network_at.wrapping_add(10);
    let sum = u32::from(way.u16(checksum_at)?).wrapping_add(0x100);
    let sum = sum.wrapping_add(u32::from(sum >= 0xffff)) & 0xffff;
    way.replace_u8(network_at.wrapping_add(8), packet.hop_limit.wrapping_sub(1))?;
    let [_, _, high, low] = sum.to_be_bytes();
    way.set_u16(checksum_at, u16::from_be_bytes([high, low]))
}
