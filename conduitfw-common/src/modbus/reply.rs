//! One reply, against the request that it answers (V1.1b3 §6, §7).

use crate::edit::refused;
use crate::event::{EventOperation, field};
use crate::flow::entry::{OUTSTANDING, Outstanding, REPLY_HEAD_BYTES, flow_flag, request_state};
use crate::platform::{FlowTable, Platform};
use crate::table::RESPONSE_BUCKETS;
use crate::verdict::Reason;

use super::outstanding::{first_row, low};
use super::{Judged, LENGTH_COUNTS_FROM, check_header};

/// Bytes of a reply that is an exception.
pub const EXCEPTION_BYTES: u32 = 9;
/// MBAP length of a reply that is an exception.
const EXCEPTION_LENGTH: u16 = 3;
/// What the function code of a reply that is an exception has set (§7).
pub const EXCEPTION_BIT: u8 = 0x80;
/// Exception code "illegal function" (§7).
pub const ILLEGAL_FUNCTION: u8 = 1;

/// What a reply holds behind its function code: [`crate::flow::entry::Outstanding::echo_kind`].
pub mod echo {
    /// Anything.
    pub const ANY: u8 = 0;
    /// A byte that counts the bytes behind it.
    pub const COUNT: u8 = 1;
    /// Two bytes that count the bytes behind them.
    pub const WIDE_COUNT: u8 = 2;
    /// The byte of the request.
    pub const BYTE: u8 = 3;
    /// The two bytes of the request.
    pub const WORD: u8 = 4;
    /// What the function code, 1 to 6, and the operands say.
    pub const PLAIN: u8 = 5;
}

/// What the reply to a request must be like.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    /// MBAP length; 0 when the reply says it.
    pub(super) length: u16,
    /// One of [`echo`].
    pub(super) echo_kind: u8,
    /// What it must hold.
    pub(super) echo: u16,
}

impl Expected {
    /// Whatever the function code allows.
    pub(super) const ANYTHING: Self = Self {
        length: 0,
        echo_kind: echo::ANY,
        echo: 0,
    };
}

/// [`expected`] for functions 1 to 6.
#[inline(always)]
pub(super) fn expected_of_plain(function: u8, address: u16, quantity: u16) -> Expected {
    let (length, echo_kind, echo) = if function <= 2 {
        let bytes = quantity.wrapping_add(7) >> 3;
        (bytes.wrapping_add(3), echo::COUNT, 0)
    } else if function <= 4 {
        (registers_length(quantity), echo::COUNT, 0)
    } else {
        (6, echo::WORD, address)
    };
    Expected {
        length,
        echo_kind,
        echo,
    }
}

/// MBAP length of a reply with so many registers.
#[inline(always)]
const fn registers_length(quantity: u16) -> u16 {
    quantity.wrapping_mul(2).wrapping_add(3)
}

#[inline(always)]
pub(super) fn expected(request: &EventOperation) -> Expected {
    let (length, echo_kind, echo) = match request.function {
        1..=6 => {
            return expected_of_plain(request.function, request.address, request.quantity);
        }
        23 => (registers_length(request.quantity), echo::COUNT, 0),
        15 | 16 => (6, echo::WORD, request.address),
        7 => (3, echo::ANY, 0),
        8 => (request.length, echo::WORD, request.sub_function),
        11 => (6, echo::ANY, 0),
        12 | 17 | 20 => (0, echo::COUNT, 0),
        21 => (request.length, echo::COUNT, 0),
        22 => (8, echo::WORD, request.address),
        24 => (0, echo::WIDE_COUNT, 0),
        43 => (0, echo::BYTE, request.sub_function),
        _ => (0, echo::ANY, 0),
    };
    Expected {
        length,
        echo_kind,
        echo,
    }
}

/// Judges the reply that begins at `at` of the frame, of which `bytes` bytes are there; its first
/// byte has this sequence number. Answers its bytes, or 0 when too few are there to tell.
#[inline(always)]
pub fn judge<P: Platform>(p: &mut P, at: u32, bytes: u32, sequence: u32) -> Judged {
    if bytes < 8 {
        return Judged::allowed(0);
    }
    let Ok(head) = p.u64(at) else {
        return Judged::UNREADABLE;
    };
    let behind_at = at.wrapping_add(8);
    let behind = if bytes >= REPLY_HEAD_BYTES {
        p.u16(behind_at)
    } else if bytes == 9 {
        p.u8(behind_at).map(|byte| u16::from(byte) << 8)
    } else {
        Ok(0)
    };
    match behind {
        Ok(behind) => judge_head(p, head, behind, bytes, sequence),
        Err(_) => Judged::UNREADABLE,
    }
}

/// An index, in a function of its own for the cast.
#[inline(always)]
#[expect(
    clippy::as_conversions,
    reason = "widening on every target that there is"
)]
pub(super) const fn index(number: u32) -> usize {
    number as usize
}

/// The same for a reply of which `had` bytes came in earlier segments: adds those at `at`.
#[inline(always)]
pub fn go_on<P: Platform>(p: &mut P, at: u32, bytes: u32, had: u32) -> Judged {
    let index = p.seen().stream;
    let mut there = had;
    for _ in 0..REPLY_HEAD_BYTES {
        let taken = there.wrapping_sub(had);
        if there >= REPLY_HEAD_BYTES || taken >= bytes {
            break;
        }
        let Ok(byte) = p.u8(at.wrapping_add(p.within(taken, 15))) else {
            return Judged::UNREADABLE;
        };
        let place = p.within(there, 15);
        if let Some(stream) = p.stream(index)
            && let Some(kept) = stream.reply_head.get_mut(self::index(place))
        {
            *kept = byte;
        }
        there = there.wrapping_add(1);
    }
    let Some(stream) = p.stream(index) else {
        return Judged::UNREADABLE;
    };
    let kept = stream.reply_head;
    let sequence = stream.reply_start;
    if there < 8 {
        return Judged::allowed(0);
    }
    let Some((first, rest)) = kept.split_first_chunk::<8>() else {
        return Judged::UNREADABLE;
    };
    let behind = rest.first_chunk::<2>().copied().unwrap_or_default();
    judge_head(
        p,
        u64::from_be_bytes(*first),
        u16::from_be_bytes(behind),
        there,
        sequence,
    )
}

/// Judges a reply by its MBAP header and function code, and the two bytes behind them.
#[inline(always)]
fn judge_head<P: Platform>(p: &mut P, head: u64, behind: u16, there: u32, sequence: u32) -> Judged {
    let [t1, t0, p1, p0, l1, l0, unit, function] = head.to_be_bytes();
    let length = u16::from_be_bytes([l1, l0]);
    let reply = Reply {
        transaction_id: u16::from_be_bytes([t1, t0]),
        length,
        unit,
        function,
        behind,
        sequence,
    };
    let adu_bytes = u32::from(length).wrapping_add(LENGTH_COUNTS_FROM);
    let judged = match check_header(u16::from_be_bytes([p1, p0]), length) {
        Err(reason) => Judged::denied(reason, 0),
        Ok(()) if there < adu_bytes.min(REPLY_HEAD_BYTES) => return Judged::allowed(0),
        Ok(()) => match answer(p, &reply) {
            Ok(()) => return Judged::allowed(adu_bytes),
            Err(reason) => Judged::denied(reason, adu_bytes),
        },
    };
    p.workspace().operation = EventOperation {
        fields: field::HEADER | field::FUNCTION,
        transaction_id: reply.transaction_id,
        protocol_id: u16::from_be_bytes([p1, p0]),
        length,
        unit,
        function,
        ..EventOperation::default()
    };
    judged
}

/// What of a reply is held against its request.
struct Reply {
    transaction_id: u16,
    length: u16,
    unit: u8,
    function: u8,
    /// The two bytes behind the function code.
    behind: u16,
    /// Sequence number of its first byte.
    sequence: u32,
}

/// Finds the request that the reply answers, and holds it against that.
#[inline(always)]
fn answer<P: Platform>(p: &mut P, reply: &Reply) -> Result<(), Reason> {
    let now = low(p.now_ticks());
    let (index, conduit) = (p.seen().stream, p.seen().conduit);
    let first = first_row(reply.transaction_id);
    let Some(stream) = p.stream(index) else {
        return Err(Reason::UnsolicitedReply);
    };
    let mut found = first;
    let is_first = stream
        .outstanding
        .get(first)
        .is_some_and(|row| matches!(is_answered_by(row, reply), Ok(true)));
    if !is_first {
        found = match find(p, reply, first)? {
            Some(found) => found,
            // What was asked before the flow was picked up is not known.
            None => return Ok(()),
        };
    }
    let Some(stream) = p.stream(index) else {
        return Err(Reason::UnsolicitedReply);
    };
    let Some(row) = stream.outstanding.get_mut(found & 15) else {
        return Err(Reason::UnsolicitedReply);
    };
    let asked_ticks = row.asked_ticks;
    let (mut guarded_at, mut is_guarded) = (0, false);
    if row.reason != 0 {
        // An answer of no registers is as long as a refusal, and as empty.
        if reply.length != EXCEPTION_LENGTH {
            return Err(Reason::ReplyMismatch);
        }
        row.state = request_state::ANSWERED;
        row.reply_sequence = reply.sequence;
    } else {
        let is_exception = reply.function != row.function();
        if !is_like(row, reply, is_exception) {
            return Err(Reason::ReplyMismatch);
        }
        row.state = request_state::FREE;
        guarded_at = row.sequence;
        is_guarded = row.is_guarded != 0 && !is_exception;
    }
    stream.waiting = stream.waiting.wrapping_sub(1);
    if is_guarded {
        p.workspace().operation.unit = reply.unit;
        p.confirm_written(guarded_at);
    }
    p.count_response(conduit, bucket(now.wrapping_sub(asked_ticks)));
    if p.seen().is_picked_up != 0 {
        p.workspace().is_picked_up = 0;
        let place = p.seen().place;
        // Its responder has got the very bytes that were picked up, and not those of a request before.
        if let Some(entry) = p.flow(FlowTable::Flows, place)
            && entry.request.acknowledged == entry.request.next
        {
            entry.flags &= !flow_flag::ADOPTED;
        }
    }
    Ok(())
}

/// Whether the request in a row is the one that the reply answers. Of its transaction and yet of
/// another unit or function: an error.
#[inline(always)]
fn is_answered_by(row: &Outstanding, reply: &Reply) -> Result<bool, Reason> {
    if row.state != request_state::WAITING || row.transaction_id() != reply.transaction_id {
        return Ok(false);
    }
    let asked = if row.reason == 0 {
        row.function()
    } else {
        refused(row.bytes)
    };
    if row.unit() == reply.unit && (asked ^ reply.function) & !EXCEPTION_BIT == 0 {
        Ok(true)
    } else {
        Err(Reason::ReplyMismatch)
    }
}

/// Looks for the request in every row; nothing in a flow that was picked up when there is none.
#[inline(always)]
fn find<P: Platform>(p: &mut P, reply: &Reply, first: usize) -> Result<Option<usize>, Reason> {
    let index = p.seen().stream;
    let mut reason = Reason::UnsolicitedReply;
    for number in 0..16_usize {
        let Some(stream) = p.stream(index) else {
            return Err(reason);
        };
        let row_at = first.wrapping_add(number) & 15;
        let Some(row) = stream.outstanding.get(row_at) else {
            return Err(reason);
        };
        match is_answered_by(row, reply) {
            Ok(true) => return Ok(Some(row_at)),
            Ok(false) => {}
            Err(mismatch) => reason = mismatch,
        }
    }
    if p.seen().is_picked_up != 0 {
        Ok(None)
    } else {
        Err(reason)
    }
}

/// Whether the reply is what the request in a row must be answered with.
#[inline(always)]
fn is_like(row: &Outstanding, reply: &Reply, is_exception: bool) -> bool {
    let [behind_high, _] = reply.behind.to_be_bytes();
    if is_exception {
        return reply.length == EXCEPTION_LENGTH && behind_high != 0;
    }
    let expected = if row.echo_kind == echo::PLAIN {
        let [a1, a0, q1, q0] = row.operands.to_ne_bytes();
        let address = u16::from_be_bytes([a1, a0]);
        expected_of_plain(row.function(), address, u16::from_be_bytes([q1, q0]))
    } else {
        Expected {
            length: row.reply_length,
            echo_kind: row.echo_kind,
            echo: row.echo,
        }
    };
    let has_length = expected.length == 0 || expected.length == reply.length;
    has_length
        && match expected.echo_kind {
            echo::COUNT => u16::from(behind_high).wrapping_add(3) == reply.length,
            echo::WIDE_COUNT => reply.behind.wrapping_add(4) == reply.length,
            echo::BYTE => u16::from(behind_high) == expected.echo,
            echo::WORD => reply.behind == expected.echo,
            _ => true,
        }
}

const _: () = assert!(OUTSTANDING == 16);

/// The bucket of a response time: 0 below one tick, then one for each power of two.
#[inline(always)]
#[must_use]
pub const fn bucket(ticks: u32) -> u32 {
    // Most are, and the kernel's machine has no instruction that counts zeros.
    if ticks == 0 {
        return 0;
    }
    let bits = 32_u32.wrapping_sub(ticks.leading_zeros());
    if bits >= RESPONSE_BUCKETS {
        RESPONSE_BUCKETS - 1
    } else {
        bits
    }
}
