//! ICMP errors: about which packet, and whether that may have been sent.

use crate::classify;
use crate::flow::entry::{Direction, FlowEntry, phase};
use crate::flow::store::find;
use crate::judgement::Judgement;
use crate::packet::{Packet, transport};
use crate::platform::{FlowTable, Platform};
use crate::table::{GATEWAY_ZONE, IPV4_MAPPED};
use crate::verdict::Reason;
use crate::wire::{ethernet, icmp};

/// An ICMP error passes when it quotes a flow that is known, and goes to the sender of the quoted
/// packet (RFC 5927 §4). [`crate::admit`] has found both ends at home.
#[inline(always)]
pub fn judge<P: Platform>(p: &mut P, packet: &Packet) -> Judgement {
    let denied = Judgement::deny(Reason::IcmpErrorWithoutFlow, 0);
    let Some(quoted) = quote(p, packet) else {
        return denied;
    };
    if quoted.source != packet.destination {
        return denied;
    }
    let Some(from) = p.network(p.seen().slot, &quoted.source) else {
        return denied;
    };
    let Some(to) = p.network(p.seen().slot, &quoted.destination) else {
        return denied;
    };
    // It comes from the side that the quoted packet went to, where no other zone has a say.
    let is_from_there = classify::zones_here(p, packet.vlans)
        .is_ok_and(|zones| classify::is_member(zones, to.zone));
    if !is_from_there {
        return denied;
    }
    if from.zone == GATEWAY_ZONE {
        let port = classify::service_port(&quoted);
        return match classify::service(p, from, to, quoted.transport, port) {
            Some(service) => Judgement::pass(service.conduit),
            None => denied,
        };
    }
    for table in [FlowTable::Flows, FlowTable::Openings] {
        if let Some(found) = find(p, table, &quoted) {
            let Some(entry) = p.flow_seen(table, found.place) else {
                return denied;
            };
            return if is_on_its_way(entry, &quoted) {
                Judgement::pass(entry.conduit)
            } else {
                denied
            };
        }
    }
    denied
}

/// Whether a flow may have had the segment that an ICMP error quotes: its number is one that is on its way (RFC 5927
/// §4.1). Any host of the responder's zone may tell of errors, and ports are soon guessed.
#[inline(always)]
fn is_on_its_way(entry: &FlowEntry, quoted: &Packet) -> bool {
    if quoted.transport != transport::TCP {
        return true;
    }
    let side = match entry.direction_of(quoted) {
        Some(Direction::Request) => &entry.request,
        Some(Direction::Reply) => &entry.reply,
        None => return false,
    };
    if entry.phase < phase::ESTABLISHED {
        return quoted.sequence.wrapping_add(1) == side.next;
    }
    quoted.sequence.wrapping_sub(side.acknowledged) <= side.next.wrapping_sub(side.acknowledged)
}

/// The addresses, ports and TCP sequence number of the packet that an ICMP error quotes: eight bytes behind its IP
/// header, at least, are within the message (RFC 792).
#[inline(always)]
fn quote<P: Platform>(p: &P, packet: &Packet) -> Option<Packet> {
    let at = packet.payload_at;
    let mut quoted = Packet {
        ether_type: packet.ether_type,
        ..Packet::default()
    };
    if packet.ether_type == ethernet::IPV4 {
        let first = p.u8(at).ok()?;
        quoted.transport = p.u8(at.wrapping_add(9)).ok()?;
        let source = p.u32(at.wrapping_add(12)).ok()?;
        let destination = p.u32(at.wrapping_add(16)).ok()?;
        quoted.source = [0, 0, IPV4_MAPPED, source.to_be()];
        quoted.destination = [0, 0, IPV4_MAPPED, destination.to_be()];
        let header_bytes = u32::from(first & 0x0f).wrapping_mul(4);
        if first >> 4 != 4 || header_bytes < 20 {
            return None;
        }
        quoted.transport_at = at.wrapping_add(header_bytes);
    } else {
        quoted.transport = p.u8(at.wrapping_add(6)).ok()?;
        quoted.source = p.address(at.wrapping_add(8)).ok()?;
        quoted.destination = p.address(at.wrapping_add(24)).ok()?;
        if quoted.transport == transport::ICMPV6 {
            quoted.transport = transport::ICMP;
        }
        quoted.transport_at = at.wrapping_add(40);
    }
    if quoted.transport_at.wrapping_add(QUOTED_BYTES) > packet.packet_end {
        return None;
    }
    if quoted.transport == transport::ICMP {
        quoted.icmp_type = p.u8(quoted.transport_at).ok()?;
        let identifier = p.u16(quoted.transport_at.wrapping_add(4)).ok()?;
        match icmp::kind(&quoted) {
            icmp::Kind::EchoRequest => quoted.source_port = identifier,
            icmp::Kind::EchoReply => quoted.destination_port = identifier,
            _ => return None,
        }
    } else {
        quoted.source_port = p.u16(quoted.transport_at).ok()?;
        quoted.destination_port = p.u16(quoted.transport_at.wrapping_add(2)).ok()?;
        quoted.sequence = p.u32(quoted.transport_at.wrapping_add(4)).ok()?;
    }
    Some(quoted)
}

/// What is quoted at least of the transport header.
const QUOTED_BYTES: u32 = 8;
