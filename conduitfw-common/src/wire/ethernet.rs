//! Ethernet with up to two VLAN tags: IEEE 802.3 §3.1.1, IEEE 802.1Q §9.6.

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::bytes::Headers;
use crate::packet::Packet;
use crate::verdict::Reason;

/// Ethernet type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethernet type of ARP.
pub const ARP: u16 = 0x0806;
/// Ethernet type of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Tag protocol id of a customer VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// Tag protocol id of a service VLAN tag (802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// A header without tags.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    _addresses: [u8; 12],
    ether_type: U16,
}

const HEADER_BYTES: u32 = 14;
const TAG_BYTES: u32 = 4;
const VLAN_ID_MASK: u32 = 0x0fff;

/// Reads the addresses' length away, and the tags: sets `ether_type`, `vlans`, `network_at`.
#[inline(always)]
pub(crate) fn parse<B: Headers + ?Sized>(frame: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut ether_type = frame.header::<Header>(0)?.ether_type.get();
    let mut at = HEADER_BYTES;
    let mut vlans = 0;
    let mut is_readable = true;
    if is_tag(ether_type) {
        let tag = frame.u32(at)?;
        vlans = (tag >> 16) & VLAN_ID_MASK;
        ether_type = low_half(tag);
        at = HEADER_BYTES + TAG_BYTES;
        if is_tag(ether_type) {
            let tag = frame.u32(at)?;
            vlans = (vlans << 16) | ((tag >> 16) & VLAN_ID_MASK);
            ether_type = low_half(tag);
            at = HEADER_BYTES + 2 * TAG_BYTES;
            is_readable = !is_tag(ether_type);
        } else {
            vlans <<= 16;
        }
    }
    packet.vlans = vlans;
    packet.ether_type = ether_type;
    packet.network_at = at;
    if is_readable {
        Ok(())
    } else {
        Err(Reason::TooManyVlanTags)
    }
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, VLAN | SERVICE_VLAN)
}

#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the lower half is meant"
)]
const fn low_half(word: u32) -> u16 {
    word as u16
}
