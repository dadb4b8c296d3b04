//! TCP: RFC 9293 §3.1.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::bytes::{ByteSource, Headers};
use crate::packet::Packet;
use crate::verdict::Reason;

/// Bits of [`Packet::tcp_flags`].
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// A header without options.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    ports: U32,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    _checksum: U16,
    _urgent_pointer: U16,
}

/// Bytes of a header without options.
pub const HEADER_BYTES: u32 = 20;

/// What [`window_shift`] answers when there is no such option.
pub const NO_SHIFT: u32 = 0xff;
/// The largest shift (RFC 7323 §2.3).
pub const MAX_SHIFT: u32 = 14;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_WINDOW_SCALE: u8 = 3;
/// Bytes of options at most: 15 words less the header.
const MAX_OPTION_BYTES: u32 = 40;

/// The shift of the window scale option (RFC 7323 §2.2) of a SYN whose options stand from `at` to
/// `end`, or [`NO_SHIFT`].
#[inline(always)]
pub fn window_shift<B: ByteSource + ?Sized>(frame: &B, at: u32, end: u32) -> u32 {
    let bytes = end.wrapping_sub(at);
    let mut offset = 0_u32;
    for _ in 0..MAX_OPTION_BYTES {
        if offset >= bytes || offset >= MAX_OPTION_BYTES {
            break;
        }
        let here = at.wrapping_add(offset);
        let Ok(kind) = frame.u8(here) else {
            return NO_SHIFT;
        };
        if kind == OPTION_END {
            break;
        }
        if kind == OPTION_NOTHING {
            offset = frame.within(offset.wrapping_add(1), 63);
            continue;
        }
        let Ok(length) = frame.u8(here.wrapping_add(1)) else {
            return NO_SHIFT;
        };
        if kind == OPTION_WINDOW_SCALE && length == 3 {
            return match frame.u8(here.wrapping_add(2)) {
                Ok(shift) => u32::from(shift).min(MAX_SHIFT),
                Err(_) => NO_SHIFT,
            };
        }
        if length < 2 || u32::from(length) > bytes {
            return NO_SHIFT;
        }
        offset = frame.within(offset.wrapping_add(u32::from(length)), 63);
    }
    NO_SHIFT
}

/// Sets ports, numbers, flags, and the payload.
#[inline(always)]
pub(crate) fn parse<B: Headers + ?Sized>(frame: &B, packet: &mut Packet) -> Result<(), Reason> {
    let (at, packet_end) = (packet.transport_at, packet.packet_end);
    if at.wrapping_add(HEADER_BYTES) > packet_end {
        return Err(Reason::BadTcpHeader);
    }
    let header = frame.header::<Header>(at)?;
    set_ports(packet, header.ports.get());
    packet.sequence = header.sequence.get();
    packet.acknowledgement = header.acknowledgement.get();
    packet.tcp_flags = header.flags;
    packet.window = header.window.get();
    let header_bytes = u32::from(header.data_offset >> 4).wrapping_mul(4);
    let payload_at = at.wrapping_add(header_bytes);
    if header_bytes < HEADER_BYTES || payload_at > packet_end {
        return Err(Reason::BadTcpHeader);
    }
    packet.payload_at = payload_at;
    packet.payload_bytes = packet_end.wrapping_sub(payload_at);
    Ok(())
}

#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "two halves of a word"
)]
pub(crate) fn set_ports(packet: &mut Packet, ports: u32) {
    packet.source_port = (ports >> 16) as u16;
    packet.destination_port = ports as u16;
}
