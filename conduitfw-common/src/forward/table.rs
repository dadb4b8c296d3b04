//! What forwarding goes by: the machine's devices, what was found out already, and why a frame is left to
//! the kernel.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::Address;

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
    /// It is not addressed to the gateway's port, or has tags that no known device has.
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
