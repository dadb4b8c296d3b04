//! The verdict exception: a denied request goes on in a form that the responder refuses, and its
//! refusal goes back as the one that the initiator expects. No length and no sequence number
//! changes.
//!
//! Some responders end an ADU where its MBAP length says, others where its function code does. So
//! the form must have one length for both, or what comes behind it would be read from the wrong
//! place: see [`refused`]. What was changed once is changed the same way when it is repeated.

use crate::bytes::Truncated;
use crate::flow::connection::ahead;
use crate::flow::entry::{OUTSTANDING, Outstanding, request_state};
use crate::modbus::function::FunctionCode;
use crate::modbus::reply::{EXCEPTION_BIT, ILLEGAL_FUNCTION};
use crate::modbus::{FUNCTION_AT, MAXIMUM_ADU_BYTES};
use crate::packet::Packet;
use crate::reset::{
    CHECKSUM_AT, FrameEditor, fold, is_left_to_device, pseudo_header, set_ip_length, tcp_bytes,
};
use crate::wire::tcp::flag;

/// A function code that no server has (V1.1b3 §5: the last that a request may bear).
const UNKNOWN_FUNCTION: u8 = 0x7f;
const READ: u8 = FunctionCode::READ_HOLDING_REGISTERS.0;
const WRITE: u8 = FunctionCode::WRITE_MULTIPLE_REGISTERS.0;
/// Bytes of an ADU that is a function code alone, of one with two words behind it, and of the
/// shortest that writes registers.
const BARE: u16 = 8;
const TWO_WORDS: u16 = 12;
const EMPTY_WRITE: u16 = 13;

/// The function code of the form that a denied request of so many bytes goes on in; 0 when there is
/// no form of that length.
///
/// Two words are a reading of no registers behind the last one, anything longer a writing of no
/// registers behind the last one, with as many bytes of zeros as there is room for: the quantity
/// must be refused (V1.1b3 §6.3, §6.12), and so must the address.
#[inline(always)]
#[must_use]
pub const fn refused(adu_bytes: u16) -> u8 {
    match adu_bytes {
        BARE => UNKNOWN_FUNCTION,
        TWO_WORDS => READ,
        EMPTY_WRITE.. => WRITE,
        _ => 0,
    }
}

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
        let function = request.function() | EXCEPTION_BIT;
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
    // Address 65,535, and behind it zeros.
    changed = changed.wrapping_add(set_byte(frame, packet, first, refused(request.bytes))?);
    if request.bytes > BARE {
        let address_at = first.wrapping_add(1);
        changed = changed.wrapping_add(set_byte(frame, packet, address_at, 0xff)?);
        let address_at = first.wrapping_add(2);
        changed = changed.wrapping_add(set_byte(frame, packet, address_at, 0xff)?);
    }
    if request.bytes > EMPTY_WRITE {
        let [_, count] = request.bytes.wrapping_sub(EMPTY_WRITE).to_be_bytes();
        let count_at = first.wrapping_add(5);
        changed = changed.wrapping_add(set_byte(frame, packet, count_at, count)?);
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

/// Changes what the frame at hand holds of denied requests, or of their refusals; `row` does it for
/// one of the stream's rows, as [`row()`] does, and the TCP checksum follows. The last `held_back` bytes of
/// the segment do not go on, nor does a FIN behind them.
///
/// # Errors
/// [`Truncated`]: the frame must be dropped.
#[inline(always)]
pub fn edit<F: FrameEditor>(
    frame: &mut F,
    packet: &Packet,
    held_back: u32,
    mut row: impl FnMut(&mut F, u32) -> Result<u32, Truncated>,
) -> Result<(), Truncated> {
    let is_partial = is_left_to_device(frame, packet)?;
    let mut changed = 0_u32;
    for number in 0..OUTSTANDING {
        changed = changed.wrapping_add(row(frame, number)?);
    }
    let checksum_at = packet.transport_at.wrapping_add(CHECKSUM_AT);
    if held_back != 0 {
        let in_data = cut(frame, packet, held_back)?;
        let tcp_bytes = tcp_bytes(packet).wrapping_sub(held_back);
        if is_partial {
            frame.set_u16(checksum_at, fold(pseudo_header(packet, tcp_bytes)))?;
        }
        changed = changed
            .wrapping_add(in_data)
            .wrapping_add(0xffff ^ tcp_bytes.wrapping_add(held_back))
            .wrapping_add(tcp_bytes);
    }
    // The sum of the pseudo-header has not changed, or has been set.
    if changed != 0 && !is_partial {
        let old = frame.u16(checksum_at)?;
        let sum = u64::from(!old).wrapping_add(u64::from(changed));
        frame.set_u16(checksum_at, !fold(sum))?;
    }
    if held_back == 0 {
        return Ok(());
    }
    frame.cut(segment_end(packet).wrapping_sub(held_back))
}

/// Takes the last bytes of the segment out of its headers. Answers what the sum of its words changes by, but
/// for its length.
#[inline(always)]
fn cut<F: FrameEditor>(frame: &mut F, packet: &Packet, held_back: u32) -> Result<u32, Truncated> {
    let from = segment_end(packet).wrapping_sub(held_back);
    let mut gone = frame.sum(from, held_back)?;
    if from.wrapping_sub(packet.transport_at) & 1 != 0 {
        gone = gone.swap_bytes();
    }
    let flags_at = packet.transport_at.wrapping_add(FLAGS_AT);
    let flags = frame.u16(flags_at)?;
    let without_fin = flags & !u16::from(flag::FIN);
    frame.set_u16(flags_at, without_fin)?;
    set_ip_length(frame, packet, tcp_bytes(packet).wrapping_sub(held_back))?;
    Ok(u32::from(!gone)
        .wrapping_add(u32::from(!flags))
        .wrapping_add(u32::from(without_fin)))
}

/// Where the segment ends in the frame.
#[inline(always)]
const fn segment_end(packet: &Packet) -> u32 {
    packet.payload_at.wrapping_add(packet.payload_bytes)
}

/// Where data offset and flags stand in a TCP header (RFC 9293 §3.1).
const FLAGS_AT: u32 = 12;
