//! parse: the bytes of a frame to a [`Packet`].
//!
//! Every length is checked against the frame and against the header that claims it. What is
//! filled in before a header turns out bad stays in the packet, for the event.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bytes::{Headers, Truncated};
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
    /// Where the IP packet ends.
    pub packet_end: u32,
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
    pub reserved: [u8; 3],
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

/// Reads the headers of a frame of `frame_bytes` bytes into `packet`, where another frame's may stand:
/// every field is set.
///
/// # Errors
/// The reason why the frame cannot be judged. Then some fields are of this frame, and some of the one
/// before: [`read_as_far_as_it_goes`].
#[inline(always)]
pub fn parse<B: Headers + ?Sized>(
    frame: &B,
    frame_bytes: u32,
    packet: &mut Packet,
) -> Result<(), Reason> {
    wire::ethernet::parse(frame, packet)?;
    (packet.icmp_type, packet.icmp_code) = (0, 0);
    match packet.ether_type {
        wire::ethernet::IPV4 => {
            wire::ipv4::parse(frame, frame_bytes, packet)?;
            transport(frame, packet)
        }
        wire::ethernet::IPV6 => {
            wire::ipv6::parse(frame, frame_bytes, packet)?;
            transport(frame, packet)
        }
        wire::ethernet::ARP => {
            without_transport(packet);
            wire::arp::parse(frame, packet)
        }
        _ => Err(Reason::EtherTypeNotAllowed),
    }
}

/// Reads the header behind that of IP.
#[inline(always)]
fn transport<B: Headers + ?Sized>(frame: &B, packet: &mut Packet) -> Result<(), Reason> {
    if packet.transport == transport::TCP {
        return wire::tcp::parse(frame, packet);
    }
    without_connection(packet);
    match packet.transport {
        transport::UDP => wire::udp::parse(frame, packet),
        transport::ICMP if packet.ether_type == wire::ethernet::IPV4 => {
            wire::icmp::parse(frame, packet)
        }
        transport::ICMPV6 if packet.ether_type == wire::ethernet::IPV6 => {
            packet.transport = transport::ICMP;
            wire::icmp::parse(frame, packet)
        }
        _ => Err(Reason::TransportNotAllowed),
    }
}

/// For a frame that [`parse`] refuses: reads what there is into `packet` again, and leaves the rest of
/// it zero.
#[inline(always)]
pub fn read_as_far_as_it_goes<B: Headers + ?Sized>(
    frame: &B,
    frame_bytes: u32,
    packet: &mut Packet,
) {
    (packet.source, packet.destination) = ([0; 4], [0; 4]);
    (packet.vlans, packet.ether_type, packet.network_at) = (0, 0, 0);
    without_transport(packet);
    let _ = parse(frame, frame_bytes, packet);
}

/// A packet without a transport header, or whose header has not been read.
#[inline(always)]
fn without_transport(packet: &mut Packet) {
    (packet.transport, packet.transport_at, packet.hop_limit) = (0, 0, 0);
    (packet.packet_end, packet.payload_at, packet.payload_bytes) = (0, 0, 0);
    (packet.source_port, packet.destination_port) = (0, 0);
    (packet.icmp_type, packet.icmp_code) = (0, 0);
    without_connection(packet);
}

/// A packet whose transport knows no connections.
#[inline(always)]
fn without_connection(packet: &mut Packet) {
    (packet.sequence, packet.acknowledgement) = (0, 0);
    (packet.window, packet.tcp_flags) = (0, 0);
}

impl From<Truncated> for Reason {
    #[inline(always)]
    fn from(_: Truncated) -> Self {
        Self::TruncatedFrame
    }
}
