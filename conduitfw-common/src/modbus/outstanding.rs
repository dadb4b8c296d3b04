//! Requests that went by and wait for their reply.

use crate::event::EventOperation;
use crate::flow::connection::ahead;
use crate::flow::entry::{OUTSTANDING, Outstanding, request_state};
use crate::platform::{FlowTable, Platform};
use crate::verdict::{Reason, Verdict};

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
        p.find_request_place(limit)
    };
    if place == 0 {
        return Err(Reason::TooManyOutstanding);
    }
    if place > OUTSTANDING {
        return Err(Reason::HistoryFull);
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
    let place = p.find_request_place(OUTSTANDING);
    if place == 0 || place > OUTSTANDING {
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
        if old.state == request_state::WAITING {
            stream.forgotten |= bit_of(old.transaction_id());
        } else {
            stream.waiting = stream.waiting.wrapping_add(1);
        }
        *old = new;
    }
}

/// More than the number of any row: there is none until the responder acknowledges a request that it did not
/// answer in time.
const NONE_YET: u32 = u32::MAX;

/// A row for the request that the workspace describes, when fewer than `limit` wait for a reply that
/// may still come: its number plus 1, 0, or [`NONE_YET`].
///
/// A request whose reply is overdue gives way, the oldest first: not before the responder has acknowledged it,
/// for until then it may be sent again and be held against what went by.
#[inline(always)]
pub fn find_place<P: Platform>(p: &mut P, limit: u32) -> u32 {
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
            let age = now.wrapping_sub(row.asked_ticks);
            if age <= overdue {
                fresh = fresh.wrapping_add(1);
                continue;
            }
            let request_end = row.sequence.wrapping_add(u32::from(row.bytes));
            if ahead(asked_to, request_end) >= 0 && age >= oldest_age {
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
    } else if oldest != 0 {
        oldest
    } else {
        NONE_YET
    }
}

/// A row with a greater distance to a place in the stream lies behind that place.
const FARTHEST: u32 = u32::MAX / 2;

/// Of a segment that ends at `data_end`, how many bytes at its end are the first part of a request that comes
/// behind another one which the responder may not have read yet; more than the segment has when all of it
/// is. `adu_start` is where the ADU begins that is due or not yet whole: behind the end in a segment that is
/// repeated.
///
/// Servers throw away what they have read with a request, or with one that they refuse: libmodbus what has
/// come by then, others the rest of what they got at once. With the first part of a request gone they would
/// read the next one in the middle. No time makes that safe, for it may be busy with other connections; that
/// the request just before is answered does, when the reply can have been to no other one.
#[inline(always)]
#[must_use]
pub fn split<P: Platform>(p: &mut P, data_end: u32, adu_start: u32) -> u32 {
    let mut start = adu_start;
    if ahead(data_end, adu_start) <= 0 {
        let mut ends = 0;
        for number in 0..OUTSTANDING {
            ends |= p.request_ends(number, data_end);
        }
        if ends == 0 {
            return u32::MAX;
        }
        start = data_end.wrapping_sub(ends >> 1);
    }
    if is_read_up_to(p, start) {
        0
    } else {
        data_end.wrapping_sub(start)
    }
}

/// A row of the stream at hand.
#[inline(always)]
fn row<P: Platform>(p: &mut P, number: u32) -> Option<&Outstanding> {
    let index = p.seen().stream;
    let number = p.within(number, OUTSTANDING - 1);
    p.stream(index)?.outstanding.get(reply::index(number))
}

/// Where `data_end` is in the request of a row, which went by: 1 at its end, twice the bytes before it in its
/// middle, else 0. No two of the stream overlap.
#[inline(always)]
pub fn ends<P: Platform>(p: &mut P, number: u32, data_end: u32) -> u32 {
    let Some(row) = row(p, number) else {
        return 0;
    };
    let into = data_end.wrapping_sub(row.sequence);
    if into == 0 || into > u32::from(row.bytes) {
        0
    } else if into == u32::from(row.bytes) {
        1
    } else {
        into << 1
    }
}

/// Whether the responder has read every request before `start`, where one begins.
#[inline(always)]
fn is_read_up_to<P: Platform>(p: &mut P, start: u32) -> bool {
    let index = p.seen().stream;
    let Some(forgotten) = p.stream(index).map(|stream| stream.forgotten) else {
        return false;
    };
    let mut rows = 0;
    for number in 0..OUTSTANDING {
        rows |= p.request_before(number, start);
    }
    let (waiting, just_before) = (rows & 0xffff, rows >> 16);
    if waiting == 0 && forgotten == 0 {
        return true;
    }
    // Of two, one is of 4 GiB ago.
    let is_one = just_before != 0 && just_before & just_before.wrapping_sub(1) == 0;
    if !is_one || just_before & waiting != 0 {
        return false;
    }
    let mut answered = 0;
    for number in 1..OUTSTANDING {
        if just_before >> number & 1 != 0 {
            answered = number;
        }
    }
    let mut doubts = 0;
    for number in 0..OUTSTANDING {
        doubts |= p.request_doubts(number, answered, start);
    }
    doubts == 0
}

/// The bit of a row, if its request waits and comes before `start`; and that times 2^16 if it comes just
/// before, waiting or not.
#[inline(always)]
pub fn before<P: Platform>(p: &mut P, number: u32, start: u32) -> u32 {
    let number = p.within(number, OUTSTANDING - 1);
    let Some(row) = row(p, number) else {
        return 0;
    };
    let distance = start.wrapping_sub(row.sequence);
    if distance.wrapping_sub(1) >= FARTHEST {
        return 0;
    }
    let mut bits = 0;
    if row.state == request_state::WAITING {
        bits = 1 << number;
    }
    if distance == u32::from(row.bytes) {
        bits |= 0x1_0000 << number;
    }
    bits
}

/// Whether the request of the row `number` leaves a doubt that the one of the row `answered`, which comes just
/// before `start`, was: 1, or 0.
#[inline(always)]
pub fn doubts<P: Platform>(p: &mut P, number: u32, answered: u32, start: u32) -> u32 {
    let index = p.seen().stream;
    let Some(forgotten) = p.stream(index).map(|stream| stream.forgotten) else {
        return 1;
    };
    let Some(answered) = row(p, answered) else {
        return 1;
    };
    let (transaction, asked) = (answered.transaction_id(), answered.asked_ticks);
    let Some(row) = row(p, number) else {
        return 1;
    };
    // The reply may have been to another one, which it was not held against.
    let gave_way = forgotten & bit_of(transaction) != 0;
    let waits = row.state == request_state::WAITING;
    let is_alike = row.transaction_id() == transaction;
    // One that is older than what came before it is of 4 GiB ago.
    let is_before = start.wrapping_sub(row.sequence).wrapping_sub(1) < FARTHEST;
    let is_younger = is_before && ahead(row.asked_ticks, asked) > 0;
    u32::from(gave_way || waits && (is_alike || is_younger))
}

/// The bit of a transaction in [`crate::flow::entry::Stream::forgotten`].
#[inline(always)]
fn bit_of(transaction_id: u16) -> u64 {
    1 << (transaction_id & 63)
}

/// Frees the rows of requests from `sequence` on: their segment is dropped, where it is not only observed.
#[inline(always)]
pub fn take_back<P: Platform>(p: &mut P, sequence: u32) {
    let (index, on_deny) = (p.seen().stream, p.seen().on_deny);
    if on_deny == Verdict::Pass.number() {
        return;
    }
    let Some(stream) = p.stream(index) else {
        return;
    };
    for row in &mut stream.outstanding {
        if row.state == request_state::WAITING && ahead(row.sequence, sequence) >= 0 {
            row.state = request_state::FREE;
            row.bytes = 0;
            stream.waiting = stream.waiting.wrapping_sub(1);
        }
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
