//! Who may reach whom: interfaces, networks, and the services between two parties.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Key of `INTERFACES`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct InterfaceKey {
    /// The slot.
    pub slot: u32,
    /// The interface index.
    pub ifindex: u32,
    /// Outer VLAN id in the upper half, inner in the lower, 0 for none; or [`ANY_VLANS`].
    pub vlans: u32,
}

/// Value of `INTERFACES`: the zones whose hosts may send on this interface.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Interface {
    /// Bit `n` is set for zone id `n`.
    pub zones: u64,
    /// The same, and behind a port of a bridge those of the other port too: whose hosts are on one link with it.
    pub linked: u64,
}

impl Interface {
    /// What is behind this interface and another one, for whoever has only one for all of a policy.
    #[must_use]
    pub const fn and(self, other: &Self) -> Self {
        Self {
            zones: self.zones | other.zones,
            linked: self.linked | other.linked,
        }
    }
}

/// Key of `NETWORKS`, a longest-prefix trie. The prefix length counts the 32 bits of `slot`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct NetworkKey {
    /// The slot, matched in full.
    pub slot: u32,
    /// The address; an IPv4 prefix of `n` bits is one of `96 + n` bits here.
    pub address: Address,
}

/// Value of `NETWORKS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Network {
    /// Zone id.
    pub zone: u16,
    /// Asset id, 0 when the policy names no asset with this address.
    pub asset: u16,
}

/// One end of a conduit: a zone or an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Party(u16);

impl Party {
    const ZONE: u16 = 0x8000;

    /// All hosts of a zone.
    #[must_use]
    pub const fn zone(id: u16) -> Self {
        Self(id | Self::ZONE)
    }

    /// One asset; `id` is not 0 and below 32,768.
    #[must_use]
    pub const fn asset(id: u16) -> Self {
        Self(id & !Self::ZONE)
    }

    /// The number that stands in a [`PairKey`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Key of `PAIRS`: which services one party may reach at another.
///
/// The most specific pair that has the port decides, in this order: asset to asset, asset to
/// zone, zone to asset, zone to zone.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PairKey {
    /// The slot.
    pub slot: u16,
    /// [`Party::number`] of the initiator.
    pub from: u16,
    /// [`Party::number`] of the responder.
    pub to: u16,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo (also for ICMPv6).
    pub transport: u16,
}

/// Value of `PAIRS`: a run of `SERVICES`, sorted by port and disjoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Pair {
    /// Index of the first, within the slot.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Value of `SERVICES[slot * MAX_SERVICES + index]`: ports that one conduit opens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Service {
    /// First port of the range (0 for ICMP echo).
    pub first_port: u16,
    /// Last port of the range, inclusive (65,535 for ICMP echo).
    pub last_port: u16,
    /// The conduit.
    pub conduit: u16,
    /// The rule set for an inspected protocol; 0 when the payload is not inspected.
    pub rule_set: u16,
    /// [`protocol`] that the payload is inspected as.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Protocols that payloads are inspected as.
pub mod protocol {
    /// Not inspected.
    pub const NONE: u8 = 0;
    /// Modbus/TCP.
    pub const MODBUS: u8 = 1;
}

/// Value of `CONDUITS[slot * MAX_CONDUITS + id]`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Conduit {
    /// 1 when the slot has this conduit.
    pub present: u8,
    /// 1: what would be denied passes, and is reported.
    pub observe: u8,
    /// What happens to a denied segment of a TCP flow: the number of a [`crate::Verdict`].
    pub on_deny: u8,
    /// Requests that may wait for a reply in one flow, 1 to 16.
    pub outstanding: u8,
    /// Time between two new flows at the allowed rate, in 1/65,536 tick; 0 for no limit.
    pub new_flow_interval: u32,
    /// How far new flows may run ahead of the rate, in 1/65,536 tick.
    pub new_flow_burst: u64,
}
