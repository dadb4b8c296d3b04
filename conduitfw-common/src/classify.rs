//! classify: addresses to zones, zones to a conduit.

use crate::packet::Packet;
use crate::platform::Platform;
use crate::table::{
    ANY_VLANS, Address, GATEWAY_ZONE, Interface, InterfaceKey, Network, PairKey, Party,
    SERVICE_SEARCH_STEPS, Service,
};
use crate::verdict::Reason;

/// The two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where it comes from.
    pub source: Network,
    /// Where it goes.
    pub destination: Network,
}

/// The zones whose hosts may send where the frame came in.
///
/// # Errors
/// [`Reason::UnknownInterface`].
#[inline(always)]
pub fn zones_here<P: Platform>(p: &P, vlans: u32) -> Result<u64, Reason> {
    interface_here(p, vlans).map(|interface| interface.zones)
}

/// The interface that the frame came in by, with its tags.
///
/// # Errors
/// [`Reason::UnknownInterface`].
#[inline(always)]
pub fn interface_here<P: Platform>(p: &P, vlans: u32) -> Result<Interface, Reason> {
    let key = InterfaceKey {
        slot: p.seen().slot,
        ifindex: p.ifindex(),
        vlans,
    };
    interface_of(key, |key| p.interface(key)).ok_or(Reason::UnknownInterface)
}

/// The row of an interface with these tags, or with any, by the table that `look` looks into.
#[inline(always)]
pub fn interface_of<L>(mut key: InterfaceKey, look: L) -> Option<Interface>
where
    L: Fn(&InterfaceKey) -> Option<Interface>,
{
    if let Some(interface) = look(&key) {
        return Some(interface);
    }
    key.vlans = ANY_VLANS;
    look(&key)
}

/// The network of a source address, which must be at home where the frame came in.
///
/// # Errors
/// [`Reason::UnknownInterface`], [`Reason::SpoofedSource`].
#[inline(always)]
pub fn source<P: Platform>(p: &P, address: &Address, vlans: u32) -> Result<Network, Reason> {
    let zones = zones_here(p, vlans)?;
    match p.network(p.seen().slot, address) {
        // A frame from outside that bears the gateway's own address is forged: the gateway's bit
        // is in no interface's zones.
        Some(network) if is_member(zones, network.zone) => Ok(network),
        _ => Err(Reason::SpoofedSource),
    }
}

/// Both ends of a packet.
///
/// # Errors
/// Those of [`source()`], and [`Reason::UnknownDestination`].
#[inline(always)]
pub fn ends<P: Platform>(p: &P, packet: &Packet) -> Result<Ends, Reason> {
    let source = source(p, &packet.source, packet.vlans)?;
    let destination = p
        .network(p.seen().slot, &packet.destination)
        .ok_or(Reason::UnknownDestination)?;
    Ok(Ends {
        source,
        destination,
    })
}

/// Whether a zone is among those behind an interface. The gateway itself never is.
#[inline(always)]
#[must_use]
pub const fn is_member(zones: u64, zone: u16) -> bool {
    zone != GATEWAY_ZONE && zones >> (zone & 63) & 1 == 1
}

/// A network as one word, to cross a stage.
#[inline(always)]
#[must_use]
pub const fn network_bits(network: Network) -> u32 {
    u32::from_ne_bytes({
        let [z0, z1] = network.zone.to_ne_bytes();
        let [a0, a1] = network.asset.to_ne_bytes();
        [z0, z1, a0, a1]
    })
}

#[inline(always)]
const fn network_from_bits(bits: u32) -> Network {
    let [z0, z1, a0, a1] = bits.to_ne_bytes();
    Network {
        zone: u16::from_ne_bytes([z0, z1]),
        asset: u16::from_ne_bytes([a0, a1]),
    }
}

/// The service that opens `port` from one network to another: of the pairs that have the port, the
/// most specific (see [`PairKey`]). Returns its index within the slot plus 1, or 0.
///
/// `transport_port` holds the transport in the upper half and the port in the lower.
#[inline(always)]
pub fn find_service<P: Platform>(p: &P, from: u32, to: u32, transport_port: u32) -> u32 {
    let (from, to) = (network_from_bits(from), network_from_bits(to));
    let [t1, t0, p1, p0] = transport_port.to_be_bytes();
    let transport = u16::from_be_bytes([t1, t0]);
    let port = u16::from_be_bytes([p1, p0]);
    let Ok(slot) = u16::try_from(p.seen().slot & 1) else {
        return 0;
    };
    for combination in 0..4_u32 {
        let (from_asset, to_asset) = (combination & 2 == 0, combination & 1 == 0);
        if (from_asset && from.asset == 0) || (to_asset && to.asset == 0) {
            continue;
        }
        let from_party = if from_asset {
            Party::asset(from.asset)
        } else {
            Party::zone(from.zone)
        };
        let to_party = if to_asset {
            Party::asset(to.asset)
        } else {
            Party::zone(to.zone)
        };
        let key = PairKey {
            slot,
            from: from_party.number(),
            to: to_party.number(),
            transport,
        };
        if let Some(pair) = p.pair(&key) {
            let index = search(p, pair.first, pair.count, port);
            if index != 0 {
                return index;
            }
        }
    }
    0
}

/// The last service of a run that starts at or before `port`, if it reaches it.
#[inline(always)]
fn search<P: Platform>(p: &P, first: u32, count: u32, port: u16) -> u32 {
    let slot = p.seen().slot;
    let mut low = first;
    let mut length = count;
    for _ in 0..SERVICE_SEARCH_STEPS {
        if length <= 1 {
            break;
        }
        let half = length >> 1;
        let middle = low.wrapping_add(half);
        let Some(service) = p.service(slot, middle) else {
            return 0;
        };
        if service.first_port <= port {
            low = middle;
            length = length.wrapping_sub(half);
        } else {
            length = half;
        }
    }
    match p.service(slot, low) {
        Some(service) if length == 1 && service.first_port <= port && port <= service.last_port => {
            low.wrapping_add(1)
        }
        _ => 0,
    }
}

/// The service for a packet from one network to another.
#[inline(always)]
pub fn service<P: Platform>(
    p: &mut P,
    from: Network,
    to: Network,
    transport: u8,
    port: u16,
) -> Option<Service> {
    let transport_port = u32::from(transport) << 16 | u32::from(port);
    let found = p.find_service(network_bits(from), network_bits(to), transport_port);
    if found == 0 {
        return None;
    }
    p.service(p.seen().slot, found.wrapping_sub(1))
}

/// 1 when the whole policy only observes.
#[inline(always)]
pub fn observes<P: Platform>(p: &P, slot: u32) -> u8 {
    p.generation(slot)
        .map_or(0, |generation| u8::from(generation.observe != 0))
}

/// Whether the policy knows the address, for address resolution.
#[inline(always)]
pub fn is_known<P: Platform>(p: &P, address: &Address) -> bool {
    p.network(p.seen().slot, address).is_some()
}

/// The port that chooses a service: the responder's, or 0 for ICMP echo.
#[inline(always)]
#[must_use]
pub const fn service_port(packet: &Packet) -> u16 {
    if packet.transport == crate::packet::transport::ICMP {
        0
    } else {
        packet.destination_port
    }
}
