//! The verdict exception: a denied request goes on in a form that the responder refuses, and its
//! refusal goes back as the one that the initiator expects. No length and no sequence number
//! changes.
//!
//! Of the request everything from the function code on becomes zero: a responder that ends the ADU
//! sooner than its length says finds nothing behind it. What was changed once is changed the same
//! way when it is repeated.

use crate::bytes::Truncated;
use crate::flow::connection::ahead;
use crate::flow::entry::{Outstanding, request_state};
use crate::modbus::reply::{EXCEPTION_BIT, ILLEGAL_FUNCTION};
use crate::modbus::{FUNCTION_AT, MAXIMUM_ADU_BYTES};
use crate::packet::Packet;
use crate::reset::{FrameEditor, fold, pseudo_header};

/// Where the checksum stands in a TCP header.
const CHECKSUM_AT: u32 = 16;

/// Changes what the frame at hand holds of one request or of its reply. Answers what the TCP
/// checksum changes by, not folded.
///
/// # Errors
/// [`Truncated`] when the frame cannot be changed: it must then be dropped.
#[inline(always)]
pub fn row<F: FrameEditor>(
    frame: &mut F,
    packet: &Packet,
    request: &Outstanding,
    is_reply: bool,
) -> Result<u32, Truncated> {
    if request.reason == 0 || request.state == request_state::FREE {
        return Ok(0);
    }
    if is_reply {
        if request.state != request_state::ANSWERED {
            return Ok(0);
        }
        let function_at = request.reply_sequence.wrapping_add(FUNCTION_AT);
        let function = request.function | EXCEPTION_BIT;
        let changed = set_byte(frame, packet, function_at, function)?;
        let code_at = function_at.wrapping_add(1);
        return Ok(changed.wrapping_add(set_byte(frame, packet, code_at, ILLEGAL_FUNCTION)?));
    }
    let data_end = packet.sequence.wrapping_add(packet.payload_bytes);
    let first = request.sequence.wrapping_add(FUNCTION_AT);
    let request_end = request.sequence.wrapping_add(u32::from(request.bytes));
    let from = if ahead(packet.sequence, first) > 0 {
        packet.sequence
    } else {
        first
    };
    let to = if ahead(data_end, request_end) > 0 {
        request_end
    } else {
        data_end
    };
    let mut changed = 0_u32;
    if ahead(to, from) <= 0 {
        return Ok(changed);
    }
    let count = to.wrapping_sub(from);
    let at = packet
        .payload_at
        .wrapping_add(from.wrapping_sub(packet.sequence));
    let is_odd = at.wrapping_sub(packet.transport_at) & 1;
    for offset in 0..MAXIMUM_ADU_BYTES {
        if offset >= count {
            break;
        }
        let old = frame.replace_u8(at.wrapping_add(offset), 0)?;
        changed = changed.wrapping_add(difference(old, 0, is_odd ^ (offset & 1)));
    }
    Ok(changed)
}

/// Sets the byte with this sequence number, if it is in the frame.
#[inline(always)]
fn set_byte<F: FrameEditor>(
    frame: &mut F,
    packet: &Packet,
    sequence: u32,
    byte: u8,
) -> Result<u32, Truncated> {
    let offset = sequence.wrapping_sub(packet.sequence);
    if offset >= packet.payload_bytes {
        return Ok(0);
    }
    let at = packet.payload_at.wrapping_add(offset);
    let old = frame.replace_u8(at, byte)?;
    Ok(difference(
        old,
        byte,
        at.wrapping_sub(packet.transport_at) & 1,
    ))
}

/// What a changed byte adds to the sum of 16-bit words (RFC 1624 §3).
#[inline(always)]
fn difference(old: u8, new: u8, is_odd: u32) -> u32 {
    let word = |byte: u8| {
        if is_odd == 0 {
            u32::from(byte) << 8
        } else {
            u32::from(byte)
        }
    };
    (0xffff ^ word(old)).wrapping_add(word(new))
}

/// Puts the TCP checksum right. One that the device is to complete holds the pseudo-header alone,
/// which has not changed.
///
/// # Errors
/// [`Truncated`].
#[inline(always)]
pub fn finish<F: FrameEditor>(
    frame: &mut F,
    packet: &Packet,
    changed: u32,
) -> Result<(), Truncated> {
    if changed == 0 {
        return Ok(());
    }
    let checksum_at = packet.transport_at.wrapping_add(CHECKSUM_AT);
    let old = frame.u16(checksum_at)?;
    let tcp_bytes = packet
        .payload_at
        .wrapping_sub(packet.transport_at)
        .wrapping_add(packet.payload_bytes);
    if old == fold(pseudo_header(packet, tcp_bytes)) {
        return Ok(());
    }
    let sum = u64::from(!old).wrapping_add(u64::from(changed));
    frame.set_u16(checksum_at, !fold(sum))
}
