//! IPv4: RFC 791 §3.1.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::bytes::{ByteSource, Headers};
use crate::packet::Packet;
use crate::table::IPV4_MAPPED;
use crate::verdict::Reason;

/// A header without options.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    version_and_words: u8,
    _type_of_service: u8,
    total_bytes: U16,
    _identification: U16,
    fragment: U16,
    time_to_live: u8,
    protocol: u8,
    _checksum: U16,
    source: U32,
    destination: U32,
}

const MINIMUM_HEADER_BYTES: u32 = 20;
/// More fragments, and the fragment offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const MAXIMUM_OPTION_BYTES: u32 = 40;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Sets the addresses, `transport`, `transport_at` and `packet_end`.
#[inline(always)]
pub(crate) fn parse<B: Headers + ?Sized>(
    frame: &B,
    frame_bytes: u32,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let at = packet.network_at;
    let header = frame.header::<Header>(at)?;
    packet.source = mapped(header.source.get());
    packet.destination = mapped(header.destination.get());
    packet.hop_limit = header.time_to_live;
    packet.transport = header.protocol;

    let first = header.version_and_words;
    let header_bytes = u32::from(first & 0x0f).wrapping_mul(4);
    let total_bytes = u32::from(header.total_bytes.get());
    let end = at.wrapping_add(total_bytes);
    if first >> 4 != 4
        || header_bytes < MINIMUM_HEADER_BYTES
        || total_bytes < header_bytes
        || end > frame_bytes
    {
        return Err(Reason::BadIpv4Header);
    }
    if header.fragment.get() & FRAGMENT_MASK != 0 {
        return Err(Reason::Fragment);
    }
    if header_bytes > MINIMUM_HEADER_BYTES {
        frame.check_ipv4_options(at, header_bytes)?;
    }
    packet.transport_at = at.wrapping_add(header_bytes);
    packet.packet_end = end;
    Ok(())
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
