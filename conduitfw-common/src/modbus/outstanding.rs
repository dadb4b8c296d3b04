//! Requests that went by and wait for their reply.

use crate::event::EventOperation;
use crate::flow::connection::ahead;
use crate::flow::entry::{OUTSTANDING, Outstanding, request_state};
use crate::platform::{FlowTable, Platform};
use crate::verdict::Reason;

use super::reply::{self, Expected};

/// Notes the request at `sequence`, which the workspace describes.
#[inline(always)]
pub(super) fn add<P: Platform>(p: &mut P, sequence: u32, bytes: u32) -> Result<(), Reason> {
    let limit = u32::from(p.seen().outstanding);
    let index = p.seen().stream;
    let first = first_row(p.seen().operation.transaction_id);
    let Some(stream) = p.stream(index) else {
        return Err(Reason::TooManyOutstanding);
    };
    let is_free = match stream.outstanding.get(first) {
        Some(row) => row.state == request_state::FREE && stream.waiting < limit,
        None => false,
    };
    let place = if is_free {
        row_number(first).wrapping_add(1)
    } else {
        p.find_request_place(sequence, limit)
    };
    if place == 0 {
        return Err(Reason::TooManyOutstanding);
    }
    let expected = reply::expected(&p.seen().operation);
    fill(p, place, sequence, bytes, 0, expected);
    Ok(())
}

/// Notes a denied request that goes on: for a reason, in a form that the responder refuses; for none
/// as it is, in mode observe. What it asks for may not have been read, so that its reply may be
/// like anything. Returns whether there was room.
#[inline(always)]
pub fn neutralise<P: Platform>(p: &mut P, sequence: u32, bytes: u32, reason: u32) -> bool {
    let place = p.find_request_place(sequence, OUTSTANDING);
    if place == 0 {
        return false;
    }
    let [_, _, _, number] = reason.to_be_bytes();
    fill(p, place, sequence, bytes, number, Expected::ANYTHING);
    let index = p.seen().stream;
    if number != 0
        && let Some(stream) = p.stream(index)
    {
        stream.edited = 1;
    }
    true
}

/// What goes into a row.
struct Asked<'a> {
    operation: &'a EventOperation,
    expected: Expected,
    sequence: u32,
    bytes: u32,
    /// Number of the reason that it was neutralised for; 0 when it was allowed.
    reason: u8,
    is_guarded: u8,
    /// The tick counter.
    now: u64,
}

/// A row of what was asked, that waits.
#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "lengths below 512"
)]
fn note(asked: &Asked<'_>) -> Outstanding {
    let Expected {
        length,
        echo_kind,
        echo,
    } = asked.expected;
    let [t1, t0] = asked.operation.transaction_id.to_be_bytes();
    let [p1, p0] = asked.operation.protocol_id.to_be_bytes();
    let [l1, l0] = asked.operation.length.to_be_bytes();
    let (unit, function) = (asked.operation.unit, asked.operation.function);
    Outstanding {
        head: u64::from_ne_bytes([t1, t0, p1, p0, l1, l0, unit, function]),
        sequence: asked.sequence,
        asked_ticks: low(asked.now),
        reply_sequence: 0,
        operands: 0,
        bytes: asked.bytes as u16,
        reply_length: length,
        echo,
        echo_kind,
        state: request_state::WAITING,
        reason: asked.reason,
        is_guarded: asked.is_guarded,
        reserved: [0; 6],
    }
}

#[inline(always)]
fn fill<P: Platform>(
    p: &mut P,
    place: u32,
    sequence: u32,
    bytes: u32,
    reason: u8,
    expected: Expected,
) {
    let new = note(&Asked {
        operation: &p.seen().operation,
        expected,
        sequence,
        bytes,
        reason,
        is_guarded: p.seen().is_guarded,
        now: p.now_ticks(),
    });
    let row = p.within(place.wrapping_sub(1), OUTSTANDING - 1);
    let index = p.seen().stream;
    if let Some(stream) = p.stream(index)
        && let Some(old) = stream.outstanding.get_mut(reply::index(row))
    {
        if old.state != request_state::WAITING {
            stream.waiting = stream.waiting.wrapping_add(1);
        }
        *old = new;
    }
}

/// A row for the request at `sequence`, which the workspace describes, when fewer than `limit` wait
/// for a reply that may still come: its number plus 1, or 0.
///
/// A request whose reply is overdue gives way, the oldest first.
#[inline(always)]
pub fn find_place<P: Platform>(p: &mut P, sequence: u32, limit: u32) -> u32 {
    let now = low(p.now_ticks());
    let overdue = match p.generation(p.seen().slot) {
        Some(generation) => generation.reply_ticks,
        None => 0,
    };
    let (index, place) = (p.seen().stream, p.seen().place);
    let first = row_number(first_row(p.seen().operation.transaction_id));
    let Some(entry) = p.flow_seen(FlowTable::Flows, place) else {
        return 0;
    };
    let (asked_to, answered_to) = (entry.request.acknowledged, entry.reply.acknowledged);
    let mut fresh = 0_u32;
    let mut free = 0;
    let mut oldest = 0;
    let mut oldest_age = 0;
    for number in 0..OUTSTANDING {
        let row_at = p.within(first.wrapping_add(number), OUTSTANDING - 1);
        let Some(stream) = p.stream(index) else {
            return 0;
        };
        let Some(row) = stream.outstanding.get(reply::index(row_at)) else {
            return 0;
        };
        let here = row_at.wrapping_add(1);
        if row.state == request_state::WAITING {
            // The same request again: its segment was dropped the last time.
            if row.sequence == sequence {
                return here;
            }
            let age = now.wrapping_sub(row.asked_ticks);
            if age <= overdue {
                fresh = fresh.wrapping_add(1);
                continue;
            }
            // What the responder may still be sent again must be changed again.
            let request_end = row.sequence.wrapping_add(u32::from(row.bytes));
            let is_settled = row.reason == 0 || ahead(asked_to, request_end) >= 0;
            if is_settled && age >= oldest_age {
                oldest = here;
                oldest_age = age;
            }
        } else if free == 0 {
            let reply_end = row.reply_sequence.wrapping_add(reply::EXCEPTION_BYTES);
            if row.state == request_state::FREE || ahead(answered_to, reply_end) >= 0 {
                free = here;
            }
        }
    }
    if fresh >= limit {
        0
    } else if free != 0 {
        free
    } else {
        oldest
    }
}

/// A row with a greater distance to a place in the stream lies behind that place.
const FARTHEST: u32 = u32::MAX / 2;

/// Of a segment that ends at `data_end`, how many bytes at its end are the first part of a request that comes
/// behind another one which waits for its reply. `adu_start` is where the ADU begins that is due or not yet
/// whole: behind the end in a segment that is repeated.
///
/// Servers throw away what they have read with a request, or with one that they refuse: libmodbus what has
/// come by then, others the rest of what they got at once. With the first part of a request gone they would
/// read the next one in the middle. No time makes that safe, for it may be busy with other connections; that it
/// has answered a later request does.
#[inline(always)]
#[must_use]
pub fn split<P: Platform>(p: &mut P, data_end: u32, adu_start: u32) -> u32 {
    let index = p.seen().stream;
    let Some(stream) = p.stream(index) else {
        return 0;
    };
    let mut start = adu_start;
    if ahead(data_end, adu_start) <= 0 {
        start = data_end;
        for row in &stream.outstanding {
            let into = data_end.wrapping_sub(row.sequence);
            if row.state == request_state::WAITING && into != 0 && into < u32::from(row.bytes) {
                start = row.sequence;
            }
        }
    }
    // How far before `start` the nearest request is that was answered, and the nearest that waits.
    let (mut answered, mut waits) = (u32::MAX, u32::MAX);
    for row in &stream.outstanding {
        let before = start.wrapping_sub(row.sequence);
        if before.wrapping_sub(1) >= FARTHEST || row.bytes == 0 {
            continue;
        }
        let nearest = if row.state == request_state::WAITING {
            &mut waits
        } else {
            &mut answered
        };
        if before < *nearest {
            *nearest = before;
        }
    }
    if waits < answered {
        data_end.wrapping_sub(start)
    } else {
        0
    }
}

/// Where the search for a transaction begins.
#[inline(always)]
pub(super) fn first_row(transaction_id: u16) -> usize {
    usize::from(transaction_id & 15)
}

#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "below 16"
)]
fn row_number(row: usize) -> u32 {
    row as u32
}

#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the lower half of the tick counter"
)]
pub(super) const fn low(ticks: u64) -> u32 {
    ticks as u32
}
