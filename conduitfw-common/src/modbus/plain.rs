//! Requests as nearly all of them are: whole, with eight bytes behind the MBAP header's length, for
//! registers or coils that rules allow without limits. They are judged in one look, from the frame's
//! bytes; whatever is any different is left to [`super::request`], which judges these alike.

use crate::event::{EventOperation, field};
use crate::flow::entry::{OUTSTANDING, request_state};
use crate::platform::Platform;
use crate::table::operation;

use super::function::FunctionCode;
use super::outstanding::{Asked, first_row, note};
use super::request::last_of;
use super::{interval_of_cell, is_searched, reply};

/// Bytes of a plain request.
pub const REQUEST_BYTES: u32 = 12;

/// Protocol id 0 and length 6: what stands between transaction id and unit id.
const PLAIN_HEADER: u32 = 6;

/// Judges the plain requests that begin at `at` of the frame, where `bytes` bytes are there; the first
/// has this sequence number. Answers the bytes of those that are allowed, one after the other: they are
/// in the history. The next one is not plain, and nothing has happened to it; or somebody follows, and
/// the one that was judged is in the workspace.
#[inline(always)]
pub fn judge<P: Platform>(p: &mut P, at: u32, sequence: u32, bytes: u32) -> u32 {
    let mut taken = 0_u32;
    for _ in 0..OUTSTANDING {
        if bytes.wrapping_sub(taken) < REQUEST_BYTES || bytes < taken {
            break;
        }
        let here = at.wrapping_add(taken);
        if !is_allowed(p, here, sequence.wrapping_add(taken)) {
            break;
        }
        taken = taken.wrapping_add(REQUEST_BYTES);
        // Whoever follows is told of each.
        if p.is_followed() {
            break;
        }
    }
    taken
}

/// Judges the request that begins at `at` of the frame.
#[inline(always)]
fn is_allowed<P: Platform>(p: &mut P, at: u32, sequence: u32) -> bool {
    let Ok((head, operands)) = p.twelve(at) else {
        return false;
    };
    let [t1, t0, p1, p0, l1, l0, unit, code] = head.to_be_bytes();
    let [a1, a0, q1, q0] = operands.to_be_bytes();
    if u32::from_be_bytes([p1, p0, l1, l0]) != PLAIN_HEADER || !matches!(code, 1..=6) {
        return false;
    }
    let function = FunctionCode(code);
    let has_quantity = function.has_quantity();
    let mut asked = EventOperation {
        fields: field::HEADER | field::FUNCTION | field::ADDRESS,
        transaction_id: u16::from_be_bytes([t1, t0]),
        length: 6,
        unit,
        function: code,
        address: u16::from_be_bytes([a1, a0]),
        quantity: 1,
        ..EventOperation::default()
    };
    if has_quantity {
        asked.fields |= field::QUANTITY;
        asked.quantity = u16::from_be_bytes([q1, q0]);
    }
    let Some(rule) = rule_of(p, &asked) else {
        return false;
    };
    let first = first_row(asked.transaction_id);
    let (index, limit) = (p.seen().stream, u32::from(p.seen().outstanding));
    let now = p.now_ticks();
    let Some(stream) = p.stream(index) else {
        return false;
    };
    if stream.waiting >= limit {
        return false;
    }
    let Some(row) = stream.outstanding.get_mut(first) else {
        return false;
    };
    if row.state != request_state::FREE {
        return false;
    }
    stream.waiting = stream.waiting.wrapping_add(1);
    *row = note(&Asked {
        operation: &asked,
        expected: reply::expected_of_plain(&asked),
        sequence,
        bytes: REQUEST_BYTES,
        reason: 0,
        is_guarded: 0,
        now,
    });
    p.remember_plain(index, sequence, head, operands);
    p.count_rule(rule);
    if p.is_followed() {
        p.workspace().operation = asked;
    }
    true
}

/// The rule that allows what is asked for, whatever is written and however often.
#[inline(always)]
fn rule_of<P: Platform>(p: &mut P, asked: &EventOperation) -> Option<u16> {
    let (slot, rule_set) = (p.seen().slot, p.seen().rule_set);
    let row = p.operation_row(slot, rule_set, asked.unit);
    if row == 0 {
        return None;
    }
    let cell = p.operation(slot, row, asked.function)?;
    if cell.kind == operation::ALLOWED {
        return Some(cell.rule);
    }
    if cell.kind != operation::RANGES || is_searched(&cell) {
        return None;
    }
    let operand = u32::from(asked.address);
    let found = interval_of_cell(p, &cell, operand);
    if found == 0 {
        return None;
    }
    let interval = p.interval(slot, found.wrapping_sub(1))?;
    let is_within = operand >= u32::from(interval.first)
        && operand <= u32::from(interval.last)
        && last_of(asked.address, asked.quantity) <= u32::from(interval.reach);
    if is_within && interval.limits == 0 {
        Some(interval.rule)
    } else {
        None
    }
}
