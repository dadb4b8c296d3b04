//! parse: the bytes of a frame to a [`Packet`].
//!
//! Every length is checked against the frame and against the header that claims it. What is
//! filled in before a header turns out bad stays in the packet, for the event.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bytes::{ByteSource, Truncated};
use crate::table::Address;
use crate::verdict::Reason;
use crate::wire;

/// What the headers of a frame say. Offsets count from the first byte of the frame.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Packet {
    /// Source address; of an ARP packet, the sender's.
    pub source: Address,
    /// Destination address; of an ARP packet, the target's.
    pub destination: Address,
    /// VLAN ids as in [`crate::table::InterfaceKey::vlans`].
    pub vlans: u32,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// Where the IP (or ARP) header starts.
    pub network_at: u32,
    /// Where the TCP, UDP or ICMP header starts.
    pub transport_at: u32,
    /// Where the payload starts.
    pub payload_at: u32,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// TCP or UDP source port; for ICMP echo see [`wire::icmp`].
    pub source_port: u16,
    /// TCP or UDP destination port.
    pub destination_port: u16,
    /// TCP window, not scaled.
    pub window: u16,
    /// Ethernet type above the VLAN tags.
    pub ether_type: u16,
    /// IP protocol number ([`transport`]); 0 for what is not IP.
    pub transport: u8,
    /// [`wire::tcp::flag`] bits.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// IPv6 hop limit or IPv4 time to live.
    pub hop_limit: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// IP protocol numbers.
pub mod transport {
    /// ICMP. ICMPv6 is held under this number too once parsed: one policy word for both.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6, as it stands in the packet.
    pub const ICMPV6: u8 = 58;
}

/// Reads the headers of a frame of `frame_bytes` bytes into `packet`, which is all zero: nothing of
/// the frame before this one may be left.
///
/// # Errors
/// The reason why the frame cannot be judged.
#[inline(always)]
pub fn parse<B: ByteSource + ?Sized>(
    frame: &B,
    frame_bytes: u32,
    packet: &mut Packet,
) -> Result<(), Reason> {
    wire::ethernet::parse(frame, packet)?;
    let packet_end = match packet.ether_type {
        wire::ethernet::IPV4 => wire::ipv4::parse(frame, frame_bytes, packet)?,
        wire::ethernet::IPV6 => wire::ipv6::parse(frame, frame_bytes, packet)?,
        wire::ethernet::ARP => return wire::arp::parse(frame, packet),
        _ => return Err(Reason::EtherTypeNotAllowed),
    };
    match packet.transport {
        transport::TCP => wire::tcp::parse(frame, packet_end, packet),
        transport::UDP => wire::udp::parse(frame, packet_end, packet),
        transport::ICMP if packet.ether_type == wire::ethernet::IPV4 => {
            wire::icmp::parse(frame, packet_end, packet)
        }
        transport::ICMPV6 if packet.ether_type == wire::ethernet::IPV6 => {
            packet.transport = transport::ICMP;
            wire::icmp::parse(frame, packet_end, packet)
        }
        _ => Err(Reason::TransportNotAllowed),
    }
}

impl From<Truncated> for Reason {
    #[inline(always)]
    fn from(_: Truncated) -> Self {
        Self::TruncatedFrame
    }
}
