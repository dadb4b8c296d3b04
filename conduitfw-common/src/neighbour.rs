//! Address resolution: ARP, and IPv6 neighbour discovery, which is a kind of ICMP message.

use crate::classify;
use crate::judgement::Judgement;
use crate::packet::Packet;
use crate::platform::Platform;
use crate::table::{GATEWAY_ZONE, IPV4_MAPPED};
use crate::verdict::Reason;
use crate::wire::icmp;

/// Judges a message of neighbour discovery.
#[inline(always)]
pub(crate) fn discovery<P: Platform>(p: &P, packet: &Packet) -> Judgement {
    // The target is the first thing in the message's body (RFC 4861 §4.3, §4.4).
    match p.address(packet.payload_at) {
        Ok(target) if packet.payload_bytes >= TARGET_BYTES => {
            let judgement = resolution(p, packet, &target);
            if judgement.is_plain_pass() && !stays_on_link(p, packet) {
                Judgement::deny(Reason::NeighbourNotAllowed, 0)
            } else {
                judgement
            }
        }
        _ => Judgement::deny(Reason::BadIcmpMessage, 0),
    }
}

/// Bytes of the address that a message of neighbour discovery is about.
const TARGET_BYTES: u32 = 16;

/// ARP and IPv6 neighbour discovery between hosts that the policy knows. The sender must be at home on the
/// interface; so must the target of who claims it for its own, or probes for it without an address of its own yet
/// (RFC 5227 §1.1, RFC 4861 §4.4, RFC 4862 §5.4): a host's address is not another zone's to take.
#[inline(always)]
pub(crate) fn resolution<P: Platform>(p: &P, packet: &Packet, target: &[u32; 4]) -> Judgement {
    let probes = is_unspecified(&packet.source);
    let is_at_home = if probes || is_link_local(&packet.source) {
        classify::zones_here(p, packet.vlans).map(|_| ())
    } else {
        classify::source(p, &packet.source, packet.vlans).map(|_| ())
    };
    if let Err(reason) = is_at_home {
        return Judgement::deny(reason, 0);
    }
    if is_link_local(target) && !classify::is_known(p, target) {
        return Judgement::pass(0);
    }
    let claims = probes || packet.icmp_type == icmp::NEIGHBOUR_ADVERTISEMENT;
    if claims {
        return match classify::source(p, target, packet.vlans) {
            Ok(_) => Judgement::pass(0),
            Err(reason) => Judgement::deny(reason, 0),
        };
    }
    if classify::is_known(p, target) {
        Judgement::pass(0)
    } else {
        Judgement::deny(Reason::NeighbourNotAllowed, 0)
    }
}

/// Whether a message of neighbour discovery ends on the link that it came by, or at the gateway. One to the address
/// of a host elsewhere would be routed like any packet, with whatever it carries.
#[inline(always)]
fn stays_on_link<P: Platform>(p: &P, packet: &Packet) -> bool {
    if is_link_local(&packet.destination) || is_link_local_group(&packet.destination) {
        return true;
    }
    match p.network(p.seen().slot, &packet.destination) {
        Some(network) if network.zone == GATEWAY_ZONE => true,
        Some(network) => classify::interface_here(p, packet.vlans)
            .is_ok_and(|interface| classify::is_member(interface.linked, network.zone)),
        None => false,
    }
}

/// `ff02::/16` (RFC 4291 §2.7).
#[inline(always)]
const fn is_link_local_group(address: &[u32; 4]) -> bool {
    let [first, ..] = *address;
    u32::from_be(first) >> 16 == 0xff02
}

#[inline(always)]
const fn is_unspecified(address: &[u32; 4]) -> bool {
    let [a, b, c, d] = *address;
    a | b | d == 0 && (c == 0 || c == IPV4_MAPPED)
}

/// `fe80::/10` (RFC 4291 §2.5.6).
#[inline(always)]
const fn is_link_local(address: &[u32; 4]) -> bool {
    let [first, ..] = *address;
    u32::from_be(first) >> 22 == 0xfe80 >> 6
}
