//! The last values of registers under `max_step`: what passed, and what the responder confirmed.

use crate::bytes::ByteSource;
use crate::flow::entry::HISTORY_BYTES;
use crate::platform::{FlowTable, PendingWrite, Platform, Workspace};
use crate::table::{LastValue, Limits, RegisterKey, limit};
use crate::verdict::Reason;

use super::number;
use super::request::limits_of;
use super::written::{Checked, Form, MAX_WRITTEN, interval_of, read, width, written};

/// Whether a value is too far from the last ones, where there are any.
#[inline(always)]
pub(super) fn is_too_far<P: Platform>(p: &P, limits: &Limits, register: u32, raw: u32) -> bool {
    let Some(key) = register_key(p, register) else {
        return true;
    };
    let Some(last) = p.last_value(&key) else {
        return false;
    };
    if last.number != limits.number || last.low_word_first != limits.low_word_first {
        return false;
    }
    let fixed = |raw| number::fixed(limits.number, raw, limits.scale);
    let new = fixed(raw);
    number::distance(fixed(last.passed), new) > limits.step
        || (last.is_confirmed != 0 && number::distance(fixed(last.confirmed), new) > limits.step)
}

/// The register of the responder of the flow at hand.
#[inline(always)]
fn register_key<P: Platform>(p: &P, register: u32) -> Option<RegisterKey> {
    let [_, _, r1, r0] = register.to_be_bytes();
    let unit = p.seen().operation.unit;
    let entry = p.flow_seen(FlowTable::Flows, p.seen().place)?;
    Some(RegisterKey {
        responder: entry.responder,
        port: entry.responder_port,
        register: u16::from_be_bytes([r1, r0]),
        unit: u32::from(unit),
    })
}

/// Notes a write under `max_step`: its values count once the whole segment is allowed. Two such
/// writes of one register in one segment are not told apart.
#[inline(always)]
pub(super) fn pend<P: Platform>(p: &mut P, sequence: u32) -> Result<(), Reason> {
    let Workspace {
        written,
        interval,
        operation,
        ..
    } = *p.seen();
    let unit = u32::from(operation.unit);
    let [_, _, f1, f0] = written.first.to_be_bytes();
    let [_, _, l1, l0] = written.last.to_be_bytes();
    let new = PendingWrite {
        sequence,
        interval,
        first: u16::from_be_bytes([f1, f0]),
        last: u16::from_be_bytes([l1, l0]),
        unit,
    };
    let workspace = p.workspace();
    let count = workspace.pending_writes;
    for (write, number) in workspace.writes.iter().zip(0_u32..) {
        if number < count
            && write.unit == unit
            && write.first <= new.last
            && new.first <= write.last
        {
            return Err(Reason::StepTooLarge);
        }
    }
    for (write, number) in workspace.writes.iter_mut().zip(0_u32..) {
        if number == count {
            *write = new;
            workspace.pending_writes = count.wrapping_add(1);
            return Ok(());
        }
    }
    Err(Reason::StepTooLarge)
}

/// Remembers the values of a pending write, whose segment is allowed, as passed; `false` when there is no
/// room for one.
#[inline(always)]
pub fn keep<P: Platform, B: ByteSource>(p: &mut P, source: &B, write: u32) -> bool {
    let mut pending = PendingWrite::default();
    for (row, number) in p.seen().writes.iter().zip(0_u32..) {
        if number == write {
            pending = *row;
        }
    }
    let Ok(written) = written(source, pending.sequence) else {
        return false;
    };
    let workspace = p.workspace();
    let [_, _, _, unit] = pending.unit.to_be_bytes();
    workspace.operation.unit = unit;
    workspace.written = written;
    let mut interval = pending.interval;
    let mut register = written.first;
    for _ in 0..MAX_WRITTEN {
        if register > written.last {
            break;
        }
        let kept = Checked::from_bits(p.keep_register(register, interval));
        if kept.reason != 0 {
            return false;
        }
        interval = kept.interval;
        register = register.wrapping_add(u32::from(kept.width));
    }
    true
}

/// Remembers the values of the request at `at`, which the responder has answered, as confirmed. The
/// unit is that of the reply in the workspace.
#[inline(always)]
pub fn confirm<P: Platform, B: ByteSource>(p: &mut P, source: &B, at: u32) {
    // So much has been asked since that other bytes stand in its place: what was confirmed before stays.
    let is_kept = p
        .flow_seen(FlowTable::Flows, p.seen().place)
        .is_some_and(|entry| entry.request.next.wrapping_sub(at) <= HISTORY_BYTES);
    if !is_kept {
        return;
    }
    let Ok(written) = written(source, at) else {
        return;
    };
    p.workspace().written = written;
    let mut register = written.first;
    for _ in 0..MAX_WRITTEN {
        if register > written.last {
            break;
        }
        let width = p.confirm_register(register);
        register = register.wrapping_add(width);
    }
}

/// Confirms the number that begins at one register, if its last value counts; answers its registers.
#[inline(always)]
pub fn confirm_register<P: Platform, B: ByteSource>(p: &mut P, source: &B, register: u32) -> u32 {
    let written = p.seen().written;
    let Some(key) = register_key(p, register) else {
        return 1;
    };
    let Some(mut last) = p.last_value(&key) else {
        return 1;
    };
    let form = Form {
        number: last.number,
        low_word_first: last.low_word_first,
    };
    if let Ok(raw) = read(source, &written, register, form) {
        (last.confirmed, last.is_confirmed) = (raw, 1);
        p.set_last_value(&key, &last);
    }
    u32::from(width(form.number))
}

/// Remembers the number that begins at one register, if its last value counts; answers as
/// [`super::written::check_register`] does, with a reason when there is no room for it.
#[inline(always)]
pub fn keep_register<P: Platform, B: ByteSource>(
    p: &mut P,
    source: &B,
    register: u32,
    interval: u32,
) -> u64 {
    let written = p.seen().written;
    let mut kept = Checked {
        reason: 0,
        width: 1,
        is_guarded: false,
        interval,
    };
    let Some(key) = register_key(p, register) else {
        return kept.to_bits();
    };
    let Some((index, interval)) = interval_of(p, register, interval) else {
        return kept.to_bits();
    };
    kept.interval = index;
    let Some(limits) = limits_of(p, p.seen().slot, interval.limits) else {
        return kept.to_bits();
    };
    let form = Form::of(&limits);
    kept.width = width(form.number);
    if limits.flags & limit::STEP == 0 {
        return kept.to_bits();
    }
    let Ok(passed) = read(source, &written, register, form) else {
        return kept.to_bits();
    };
    let (confirmed, is_confirmed) = match p.last_value(&key) {
        Some(last) if last.number == form.number && last.low_word_first == form.low_word_first => {
            (last.confirmed, last.is_confirmed)
        }
        Some(last) => (last.confirmed, 0),
        None => (0, 0),
    };
    let last = LastValue {
        passed,
        confirmed,
        is_confirmed,
        number: form.number,
        low_word_first: form.low_word_first,
        reserved: 0,
    };
    if !p.set_last_value(&key, &last) {
        kept.reason = Reason::StepTooLarge.number();
    }
    kept.to_bits()
}
