//! Which interface a captured frame came in on.
//!
//! A capture has frames and no gateway. So a frame is taken to have come in where the policy says
//! that its sender is at home; [`Interfaces::of`] has the particulars.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use conduitfw_common::{
    bytes::ByteSource as _,
    packet::{self, Packet, transport},
    table::{ANY_VLANS, Address, IPV4_MAPPED, Interface},
    wire::{ethernet, icmp},
};

use crate::policy::{CompiledTables, Policy, ZoneId};

/// An interface, by its place in [`Interfaces::names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub usize);

/// Senders that are remembered, so that a flood of them does not fill the memory.
const MOST_SENDERS: usize = 65_536;

/// The interfaces of a policy, and one that it does not know.
pub struct Interfaces {
    names: Vec<String>,
    by_name: HashMap<String, Port>,
    /// By zone: tags and the port for them, as the policy lists them.
    by_zone: BTreeMap<u16, Vec<(u32, Port)>>,
    senders: HashMap<(Sender, u32), Port>,
}

impl Interfaces {
    /// A frame that came in nowhere.
    pub const UNKNOWN: Port = Port(0);

    /// Those of a policy. To `tables` it adds an interface for the untagged frames of each zone
    /// that the policy has only tagged ones of.
    #[must_use]
    pub fn new(policy: &Policy, tables: &mut CompiledTables) -> Self {
        let mut interfaces = Self {
            names: vec![String::new()],
            by_name: HashMap::new(),
            by_zone: BTreeMap::new(),
            senders: HashMap::new(),
        };
        for (name, ..) in &tables.interfaces {
            interfaces.port(name);
        }
        for zone in &policy.zones {
            let tags: Vec<u32> = zone.vlans.iter().map(|vlans| vlans.number()).collect();
            let mut ports: Vec<(u32, Port)> = Vec::new();
            for name in &zone.interfaces {
                let port = interfaces.port(name);
                ports.extend(tags.iter().map(|tags| (*tags, port)));
            }
            if !tags.iter().any(|tags| matches!(*tags, 0 | ANY_VLANS)) {
                // No interface is named like this: they have no spaces in their names.
                let name = format!("untagged {}", zone.name);
                ports.push((0, interfaces.port(&name)));
                let zones = 1_u64.checked_shl(zone.id.0.into()).unwrap_or(0);
                let interface = Interface {
                    zones,
                    linked: zones,
                };
                tables.interfaces.push((name, 0, interface));
            }
            interfaces.by_zone.insert(zone.id.0, ports);
        }
        interfaces
    }

    /// Every interface by its port; the first is the unknown one.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    fn port(&mut self, name: &str) -> Port {
        if let Some(port) = self.by_name.get(name) {
            return *port;
        }
        let port = Port(self.names.len());
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), port);
        port
    }

    /// Where a frame came in: on the interface that the capture names when the policy has one of
    /// that name and the frame does not just leave through it; else on the one of its sender's
    /// zone that takes the frame's VLAN tags.
    pub fn of(&mut self, policy: &Policy, frame: &[u8], named: Option<&str>) -> Port {
        let packet = headers(frame);
        let named = named.and_then(|name| self.by_name.get(name).copied());
        if let Some(named) = named
            && !self.leaves_through(policy, &packet, named)
        {
            return named;
        }
        let sender = (Sender::of(frame, &packet), packet.vlans);
        if let Some(port) = self.senders.get(&sender) {
            return *port;
        }
        let port = self.at_home(policy, sender.0, packet.vlans);
        if self.senders.len() >= MOST_SENDERS {
            self.senders.clear();
        }
        self.senders.insert(sender, port);
        port
    }

    /// Whether a frame is one that the gateway itself sent: its program never sees those.
    #[must_use]
    pub fn is_own(policy: &Policy, frame: &[u8]) -> bool {
        zone_of(policy, headers(frame).source) == Some(ZoneId::GATEWAY)
    }

    fn at_home(&self, policy: &Policy, sender: Sender, vlans: u32) -> Port {
        let zone = match sender {
            Sender::Address(address) => zone_of(policy, address),
            Sender::NeighbourOf(address) => link_of(policy, address),
        };
        let Some(ports) = zone.and_then(|zone| self.by_zone.get(&zone.0)) else {
            return Self::UNKNOWN;
        };
        let with = |tags: u32| ports.iter().find(|(wanted, _)| *wanted == tags);
        let port = with(vlans)
            .or_else(|| with(ANY_VLANS))
            .or_else(|| ports.first());
        port.map_or(Self::UNKNOWN, |(_, port)| *port)
    }

    /// Whether a frame that was seen on an interface is on its way out there: its receiver is at
    /// home on it, and its sender is on another or the gateway itself.
    fn leaves_through(&self, policy: &Policy, packet: &Packet, port: Port) -> bool {
        let is_on = |zone: ZoneId| {
            let ports = self.by_zone.get(&zone.0).map_or(&[][..], Vec::as_slice);
            ports.iter().any(|(_, there)| *there == port)
        };
        zone_of(policy, packet.destination).is_some_and(is_on)
            && zone_of(policy, packet.source).is_some_and(|zone| !is_on(zone))
    }
}

/// The headers, as far as they can be read of a frame that may be broken.
fn headers(frame: &[u8]) -> Packet {
    let mut packet = Packet::default();
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let _ = packet::parse(frame, length, &mut packet);
    packet
}

/// Who sent a frame, as far as its addresses tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sender {
    /// The host with this address.
    Address(Address),
    /// Some host on the link that this address is on: those without an address yet, and those that
    /// use one of the link alone, speak to or ask for their neighbours (RFC 5227 §1.1, RFC 4861
    /// §7.2.2, RFC 4291 §2.5.6).
    NeighbourOf(Address),
}

impl Sender {
    fn of(frame: &[u8], packet: &Packet) -> Self {
        let is_of_the_link = |[first, ..]: Address| u32::from_be(first) >> 22 == 0xfe80 >> 6;
        let is_unspecified = matches!(packet.source, [0, 0, 0 | IPV4_MAPPED, 0]);
        if !is_of_the_link(packet.source) && !is_unspecified {
            return Self::Address(packet.source);
        }
        let is_discovery = packet.ether_type == ethernet::IPV6
            && packet.transport == transport::ICMP
            && icmp::kind(packet) == icmp::Kind::Neighbour;
        let target = if is_discovery {
            frame.address(packet.payload_at).ok()
        } else {
            None
        };
        let target = target.filter(|target| !is_of_the_link(*target));
        Self::NeighbourOf(target.unwrap_or(packet.destination))
    }
}

/// The zone whose networks hold an address, be it the gateway's.
fn link_of(policy: &Policy, address: Address) -> Option<ZoneId> {
    let address = ip_address(address);
    let networks = policy
        .zones
        .iter()
        .flat_map(|zone| zone.networks.iter().map(|network| (network, zone.id)));
    let holding = networks.filter(|(network, _)| network.contains(&address));
    let nearest = holding.max_by_key(|(network, _)| network.prefix_len());
    nearest.map(|(_, zone)| zone)
}

fn zone_of(policy: &Policy, address: Address) -> Option<ZoneId> {
    let address = ip_address(address);
    match policy.asset_of(address) {
        Some(asset) => Some(asset.zone),
        None => policy.zone_of(address),
    }
}

fn ip_address(address: Address) -> IpAddr {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(address) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
}
