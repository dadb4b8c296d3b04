//! known way: what the routing table said of a frame that left just now. Until the kernel's tick counter
//! moves on, the frames after it leave by the same way without another question: asking is the dearest
//! part of forwarding.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{NextHop, Query, Ways, tag_types};
use crate::packet::{Packet, transport};
use crate::table::Address;

/// Rows of `KNOWN_WAYS`, on each processor: a power of two.
pub const KNOWN_WAYS: u32 = 2048;
/// The same, as bits.
const KNOWN_WAYS_BITS: u32 = KNOWN_WAYS.trailing_zeros();

/// Value of `KNOWN_WAYS`: a frame that left, as far as its way depends on it, and the way.
///
/// Everything that a route may depend on is compared, the ports for policy routing and for routes of
/// several ways. A row holds for one tick and one generation, so that a change of routes, neighbours or
/// policy counts from the next tick at the latest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct KnownWay {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The hardware address that the frame was addressed to.
    pub addressed_to: u64,
    /// The tick in which the route was asked for.
    pub ticks: u64,
    /// Source port in the upper half, destination port in the lower.
    pub ports: u32,
    /// As [`Query::service`].
    pub service: u32,
    /// The interface that the frame came in on.
    pub ifindex: u32,
    /// Its tags.
    pub vlans: u32,
    /// Their Ethernet types, as in [`super::Port::tag_types`]; 0 without tags.
    pub tag_types: u32,
    /// Where its IP header stood, its transport, and its Ethernet type.
    pub kind: u32,
    /// The generation that allowed it; 0 when the row is free.
    pub generation: u32,
    /// The device to leave by.
    pub device: u32,
    /// As [`NextHop::addresses`].
    pub addresses: [u32; 3],
    /// As [`NextHop::mtu`].
    pub mtu: u32,
}

impl KnownWay {
    /// The row of a packet. The ports of one client next to one another have rows of their own, and so do
    /// the two directions of a flow.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "no number gets smaller")]
    pub const fn row(packet: &Packet) -> u32 {
        let [_, _, s2, s3] = packet.source;
        let [_, _, d2, d3] = packet.destination;
        let (source_port, destination_port) = (packet.source_port, packet.destination_port);
        let mixed = s2 ^ s3 ^ d2 ^ d3 ^ (source_port ^ destination_port) as u32;
        let half = mixed.wrapping_mul(0x9e37_79b1) >> (u32::BITS + 1 - KNOWN_WAYS_BITS);
        half << 1 | (source_port < destination_port) as u32
    }

    #[inline(always)]
    const fn is_of(&self, packet: &Packet) -> bool {
        let [s0, s1, s2, s3] = self.source;
        let [d0, d1, d2, d3] = self.destination;
        let [s4, s5, s6, s7] = packet.source;
        let [d4, d5, d6, d7] = packet.destination;
        let differs = (s0 ^ s4) | (s1 ^ s5) | (s2 ^ s6) | (s3 ^ s7);
        let differs = differs | (d0 ^ d4) | (d1 ^ d5) | (d2 ^ d6) | (d3 ^ d7);
        let differs = differs | (self.ports ^ ports(packet));
        let differs = differs | (self.vlans ^ packet.vlans) | (self.kind ^ kind(packet));
        differs == 0
    }
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "no number gets smaller")]
const fn ports(packet: &Packet) -> u32 {
    (packet.source_port as u32) << 16 | packet.destination_port as u32
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "no number gets smaller")]
const fn kind(packet: &Packet) -> u32 {
    packet.network_at << 24 | (packet.transport as u32) << 16 | packet.ether_type as u32
}

/// The way of a packet, if one like it left in this tick; else device 0, which is none.
#[inline(always)]
pub(super) fn recall<W: Ways>(way: &mut W, packet: &Packet, query: &Query) -> NextHop {
    let (ifindex, ticks, generation) = (way.ifindex(), way.now_ticks(), way.generation());
    let Ok(first) = way.u64(0) else {
        return NextHop::default();
    };
    let Ok(tag_types) = tag_types(way, packet) else {
        return NextHop::default();
    };
    let Some(known) = way.known_way(KnownWay::row(packet)) else {
        return NextHop::default();
    };
    let is_same = known.is_of(packet)
        && known.tag_types == tag_types
        && known.service == query.service
        && known.ifindex == ifindex
        && known.addressed_to == first >> 16
        && known.ticks == ticks
        && known.generation == generation
        && generation != 0;
    if !is_same || u32::from(query.bytes) > known.mtu {
        return NextHop::default();
    }
    NextHop {
        device: known.device,
        addresses: known.addresses,
        mtu: known.mtu,
    }
}

/// Keeps the way of a packet that is to leave.
#[inline(always)]
pub(super) fn keep<W: Ways>(way: &mut W, packet: &Packet, query: &Query, hop: &NextHop) {
    if !matches!(packet.transport, transport::TCP | transport::UDP) {
        // Other packets have more that tells them apart.
        return;
    }
    let (ifindex, ticks, generation) = (way.ifindex(), way.now_ticks(), way.generation());
    let Ok(first) = way.u64(0) else {
        return;
    };
    let Ok(tag_types) = tag_types(way, packet) else {
        return;
    };
    let Some(known) = way.known_way(KnownWay::row(packet)) else {
        return;
    };
    known.source = packet.source;
    known.destination = packet.destination;
    known.ports = ports(packet);
    known.service = query.service;
    known.ifindex = ifindex;
    known.vlans = packet.vlans;
    known.tag_types = tag_types;
    known.kind = kind(packet);
    known.addressed_to = first >> 16;
    known.ticks = ticks;
    known.generation = generation;
    known.device = hop.device;
    known.addresses = hop.addresses;
    known.mtu = hop.mtu;
}
