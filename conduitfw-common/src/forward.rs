//! forward: a frame that was judged to pass leaves by the way that its route names, without the
//! kernel's own forwarding. Whatever is out of the ordinary is kept for the kernel, which does it right.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bytes::Truncated;
use crate::judgement::Judgement;
use crate::known_way::{self, KnownWay};
use crate::packet::{Packet, transport};
use crate::platform::Platform;
use crate::reset::{CHECKSUM_AT, FrameEditor, MAX_SUM_BYTES, fold, pseudo_header};
use crate::table::Address;
use crate::verdict::Reason;
use crate::wire::{ethernet, icmp};

/// Rows of `PORTS` for each slot: a device stands in the row of the lower bits of its index.
pub const MAX_PORTS: u32 = 1024;
/// Rows of `TAGGED` in both slots.
pub const MAX_TAGGED: u32 = 1024;
/// Rows of `FORWARDING`: row 0 counts the frames that left fast, row `n` those of [`Kept`] `n`.
pub const FORWARDING_ROWS: u32 = 16;

/// Value of `PORTS[slot * MAX_PORTS + (ifindex & (MAX_PORTS - 1))]`: a device that frames come in by or
/// leave by: an interface of the policy, or a VLAN of one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Port {
    /// The index of the device; 0 when the row is free.
    pub device: u32,
    /// The interface of the policy that its frames leave by: itself, or the one below the VLAN.
    pub port: u32,
    /// Tags of its frames, as in [`crate::table::InterfaceKey::vlans`].
    pub vlans: u32,
    /// Ethernet types of the outer tag, in the upper half, and of the inner one.
    pub tag_types: u32,
    /// Bytes that a frame may have behind its last Ethernet type.
    pub mtu: u32,
    /// The index of the other port of the bridge; 0 for a port that is routed.
    pub peer: u32,
    /// First four bytes of its address.
    pub address_high: u32,
    /// The last two.
    pub address_low: u32,
    /// Bits of [`port_flag`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`Port::flags`].
pub mod port_flag {
    /// Its driver takes frames from XDP programs.
    pub const TAKES: u32 = 1;
    /// Of the bridge this port is in there is no Linux bridge: all its frames go to the other port.
    pub const ALONE: u32 = 2;
    /// Frames of the spanning tree pass.
    pub const STP: u32 = 4;
    /// Frames of LLDP pass.
    pub const LLDP: u32 = 8;
}

/// Rows of `HOMES`, on each processor.
pub const HOMES: u32 = 256;

/// Value of `HOMES`: an address that was found at home behind an interface. Only what was found is kept,
/// and a new generation finds it anew.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Home {
    /// The address.
    pub address: Address,
    /// The interface.
    pub ifindex: u32,
    /// The tags.
    pub vlans: u32,
    /// The generation by which it is at home there; 0 when the row is free.
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
}

impl Home {
    /// The row that an address is kept in.
    #[inline(always)]
    #[must_use]
    pub const fn row(address: &Address) -> u32 {
        let [_, _, third, fourth] = *address;
        // The host's part of the address comes last, in network order.
        (third ^ fourth.swap_bytes()) & (HOMES - 1)
    }

    /// Whether this row says so.
    #[inline(always)]
    #[must_use]
    pub fn holds(&self, address: &Address, ifindex: u32, vlans: u32, generation: u32) -> bool {
        let [a0, a1, a2, a3] = self.address;
        let [b0, b1, b2, b3] = *address;
        let differs = (a0 ^ b0)
            | (a1 ^ b1)
            | (a2 ^ b2)
            | (a3 ^ b3)
            | (self.ifindex ^ ifindex)
            | (self.vlans ^ vlans)
            | (self.generation ^ generation);
        differs == 0 && generation != 0
    }
}

/// Why a frame that passes is left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kept {
    /// It is not addressed to the gateway's port, or came in by a device that is not known.
    Address = 1,
    /// It has IPv4 options or IPv6 extension headers.
    Options = 2,
    /// It has no hop left: the kernel says so to its sender.
    HopLimit = 3,
    /// Its checksum is left to a device, and it is too long to be summed up here.
    Checksum = 4,
    /// No route that only forwards: to the gateway itself, to nowhere, through a tunnel.
    Route = 5,
    /// The hardware address of the next hop is not known yet.
    Neighbour = 6,
    /// It is too long for the way out: the kernel says so to its sender.
    TooLong = 7,
    /// The way out is no interface of the policy, or takes no frames from XDP programs.
    Port = 8,
    /// The way out is the way in.
    SamePort = 9,
    /// The destination is not at home at the way out.
    NotAtHome = 10,
    /// The driver left no room for tags.
    Room = 11,
    /// It could not be changed, and is lost.
    Lost = 12,
    /// Address resolution, which the kernel answers.
    Resolution = 13,
}

impl Kept {
    /// Every cause.
    pub const ALL: &[Self] = &[
        Self::Address,
        Self::Options,
        Self::HopLimit,
        Self::Checksum,
        Self::Route,
        Self::Neighbour,
        Self::TooLong,
        Self::Port,
        Self::SamePort,
        Self::NotAtHome,
        Self::Room,
        Self::Lost,
        Self::Resolution,
    ];

    /// Its row of `FORWARDING`.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the number of a variant")]
    pub const fn row(self) -> u32 {
        self as u32
    }

    /// The stable label, for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Address => "not-addressed-to-port",
            Self::Options => "ip-options",
            Self::HopLimit => "hop-limit",
            Self::Checksum => "checksum-unfinished",
            Self::Route => "no-route",
            Self::Neighbour => "no-neighbour",
            Self::TooLong => "too-long",
            Self::Port => "port-not-fast",
            Self::SamePort => "same-port",
            Self::NotAtHome => "not-at-home",
            Self::Room => "no-room-for-tags",
            Self::Lost => "lost",
            Self::Resolution => "address-resolution",
        }
    }
}

/// `FORWARDING`: frames that were handed to a port which did not take them.
pub const REFUSED_ROW: u32 = 15;
/// `FORWARDING`: the interface that the last frame of this processor was handed to, in the upper half,
/// and when.
pub const HANDED_ROW: u32 = 14;

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
    /// The lower half of the kernel's tick counter.
    fn now_ticks(&self) -> u32;
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
    let Some(offset) = checksum_at(packet) else {
        return Ok(0);
    };
    let Ok(checksum) = way.u16(way.within(packet.transport_at.wrapping_add(offset), 0x7fff)) else {
        return Ok(0);
    };
    if checksum == fold(pseudo_header_of(packet, query.transport_bytes)) {
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
        return bridge(way, packet, &port);
    }
    if packet.ether_type == ethernet::ARP || icmp::kind(packet) == icmp::Kind::Neighbour {
        return Err(Kept::Resolution);
    }
    // A tag without a VLAN id (802.1p) is the kernel's to take off.
    if packet.vlans == 0 && packet.network_at != HEADER_BYTES {
        return Err(Kept::Address);
    }
    let inlet = if packet.vlans == 0 {
        port
    } else {
        way.port(way.tagged(port.device, packet.vlans))
            .ok_or(Kept::Address)?
    };
    if !is_addressed_to(way, &inlet)? {
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

/// Finishes a checksum that is the sum of the pseudo-header alone, as it stands in a frame of this very
/// machine (a container's, a virtual machine's) whose device is to finish it: frames from program to
/// program do not tell of that. `at` is where the transport header stands now.
///
/// # Errors
/// [`Truncated`] when the frame is not there as its headers say, or is too long to be summed up.
#[inline(always)]
pub fn finish_checksum<F: FrameEditor>(
    way: &mut F,
    packet: &Packet,
    at: u32,
    bytes: u32,
) -> Result<(), Truncated> {
    let Some(offset) = checksum_at(packet) else {
        return Ok(());
    };
    let checksum_at = at.wrapping_add(offset);
    let found = way.u16(checksum_at)?;
    let pseudo = pseudo_header_of(packet, bytes);
    if found != fold(pseudo) {
        return Ok(());
    }
    let sum = fold(pseudo.wrapping_add(u64::from(way.sum(at, bytes)?)));
    if sum == u16::MAX {
        // It is right as it is: so it is for one segment in 65,536.
        return Ok(());
    }
    // Without what stood there; a sum of zero would say that there is none (RFC 768).
    let checksum = !fold(u64::from(sum).wrapping_add(u64::from(!found)));
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    way.set_u16(checksum_at, checksum)
}

/// Where the checksum stands in a transport header, of those that have a pseudo-header.
#[inline(always)]
const fn checksum_at(packet: &Packet) -> Option<u32> {
    match packet.transport {
        transport::TCP => Some(CHECKSUM_AT),
        transport::UDP => Some(UDP_CHECKSUM_AT),
        _ => None,
    }
}

/// The pseudo-header of a TCP segment, made one of the packet's own transport.
#[inline(always)]
fn pseudo_header_of(packet: &Packet, bytes: u32) -> u64 {
    pseudo_header(packet, bytes)
        .wrapping_sub(u64::from(transport::TCP))
        .wrapping_add(u64::from(packet.transport))
}

const UDP_CHECKSUM_AT: u32 = 6;

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

/// The other port of a bridge, for a frame that is left as it is.
#[inline(always)]
fn bridge<W: Ways>(way: &mut W, packet: &Packet, inlet: &Port) -> Result<u32, Kept> {
    let outlet = way.port(inlet.peer).ok_or(Kept::Port)?;
    if outlet.flags & port_flag::TAKES == 0 {
        return Err(Kept::Port);
    }
    if is_addressed_to(way, inlet)? || is_addressed_to(way, &outlet)? {
        return Err(Kept::Address);
    }
    let is_ip = matches!(packet.ether_type, ethernet::IPV4 | ethernet::IPV6);
    let is_group = way.u8(0).map_err(|_| Kept::Address)? & 1 != 0;
    if !is_ip || is_group {
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
