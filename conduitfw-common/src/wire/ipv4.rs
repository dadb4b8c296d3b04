//! IPv4: RFC 791 §3.1.

use crate::bytes::ByteSource;
use crate::packet::Packet;
use crate::table::IPV4_MAPPED;
use crate::verdict::Reason;

const MINIMUM_HEADER_BYTES: u32 = 20;
/// More fragments, and the fragment offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const MAXIMUM_OPTION_BYTES: u32 = 40;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Sets the addresses, `transport`, `transport_at`; returns where the packet ends.
#[inline(always)]
pub(crate) fn parse<B: ByteSource + ?Sized>(
    frame: &B,
    frame_bytes: u32,
    packet: &mut Packet,
) -> Result<u32, Reason> {
    let at = packet.network_at;
    // Version, header length, type of service, total length.
    let first = frame.u32(at)?;
    let fragment = frame.u16(at.wrapping_add(6))?;
    let hops_and_transport = frame.u16(at.wrapping_add(8))?;
    let source = frame.u32(at.wrapping_add(12))?;
    let destination = frame.u32(at.wrapping_add(16))?;
    packet.source = mapped(source);
    packet.destination = mapped(destination);
    let [hop_limit, transport] = hops_and_transport.to_be_bytes();
    packet.hop_limit = hop_limit;
    packet.transport = transport;

    let header_bytes = ((first >> 24) & 0x0f).wrapping_mul(4);
    let total_bytes = first & 0xffff;
    let end = at.wrapping_add(total_bytes);
    if first >> 28 != 4
        || header_bytes < MINIMUM_HEADER_BYTES
        || total_bytes < header_bytes
        || end > frame_bytes
    {
        return Err(Reason::BadIpv4Header);
    }
    if fragment & FRAGMENT_MASK != 0 {
        return Err(Reason::Fragment);
    }
    if header_bytes > MINIMUM_HEADER_BYTES {
        frame.check_ipv4_options(at, header_bytes)?;
    }
    packet.transport_at = at.wrapping_add(header_bytes);
    Ok(end)
}

/// Options are skipped, but for those that choose the way of the packet (RFC 7126 §4.3, §4.4):
/// the conduit was chosen by the destination address, which a source route replaces later.
///
/// # Errors
/// [`Reason::SourceRoute`], [`Reason::BadIpv4Header`], [`Reason::TruncatedFrame`].
#[inline(always)]
pub fn check_options<B: ByteSource + ?Sized>(
    frame: &B,
    network_at: u32,
    header_bytes: u32,
) -> Result<(), Reason> {
    let mut option = MINIMUM_HEADER_BYTES;
    for _ in 0..MAXIMUM_OPTION_BYTES {
        if option >= header_bytes {
            return Ok(());
        }
        // Below 60, the longest header.
        option = frame.within(option, 63);
        match frame.u8(network_at.wrapping_add(option))? {
            END_OF_OPTIONS => return Ok(()),
            NO_OPERATION => option = option.wrapping_add(1),
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(Reason::SourceRoute),
            _ => {
                let bytes = frame.u8(network_at.wrapping_add(option).wrapping_add(1))?;
                if bytes < 2 {
                    return Err(Reason::BadIpv4Header);
                }
                option = option.wrapping_add(u32::from(bytes));
            }
        }
    }
    Ok(())
}

#[inline(always)]
const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, IPV4_MAPPED, address.to_be()]
}
