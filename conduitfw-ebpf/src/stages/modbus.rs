//! Stages of inspected flows: what a segment asks for or answers, held against the rules.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    inspect as stream,
    modbus::{self, coils, files, last, plain, plain_replies, reply, request, written},
    platform::Platform,
    replies,
};

use super::{NOTHING, UNREADABLE, at_hand, given};
use crate::{frame::Frame, history::History, kernel::Kernel, maps::Scratch, trace};

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn inspect(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => stream::inspect(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn inspect_reply(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => replies::inspect(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_plain(
    context: *mut xdp_md,
    scratch: *mut Scratch,
    place: u32,
    slot: u32,
) -> u64 {
    match given(context, scratch) {
        Some((mut kernel, packet)) => plain::judge(&mut kernel, packet, place, slot).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_plain(unit: u32, function: u32, address: u32) -> u64 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => {
            plain::find(&mut kernel, unit as u8, function as u8, address as u16)
        }
        None => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_plain_replies(
    context: *mut xdp_md,
    scratch: *mut Scratch,
    place: u32,
) -> u64 {
    match given(context, scratch) {
        Some((mut kernel, packet)) => plain_replies::judge(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_adu(sequence: u32, bytes: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            request::judge_adu(&mut kernel, &History(stream), sequence, bytes).to_bits()
        }
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_reply(
    context: *mut xdp_md,
    at: u32,
    bytes: u32,
    sequence: u32,
) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, _)) => reply::judge(&mut kernel, at, bytes, sequence).to_bits(),
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_split_reply(
    context: *mut xdp_md,
    at: u32,
    bytes: u32,
    had: u32,
) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, _)) => reply::go_on(&mut kernel, at, bytes, had).to_bits(),
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

/// Tells whoever follows of the operation in the workspace; by itself, for the stack of the stages that
/// judge is short.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn trace_judged(reason: u32) -> u32 {
    if let Some((kernel, _)) = Kernel::new(Frame::ABSENT) {
        trace::judged(&kernel.seen().operation, reason as u8);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_interval(first: u32, count: u32, operand: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((kernel, _)) => modbus::find_interval(&kernel, first, count, operand),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_registers(sequence: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            written::check_registers(&mut kernel, &History(stream), sequence)
        }
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_register(register: u32, interval: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            written::check_register(&mut kernel, &History(stream), register, interval)
        }
        None => u64::from(UNREADABLE),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_value(limits: u32, register: u32, raw: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => written::check_value(&mut kernel, limits, register, raw),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_coils(sequence: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => coils::check_coils(&mut kernel, &History(stream), sequence),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_coil_run(coil: u32, interval: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            coils::check_coil_run(&mut kernel, &History(stream), coil, interval)
        }
        None => u64::from(UNREADABLE),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn are_coils(at: u32, first_count: u32, value: u32) -> u32 {
    match at_hand() {
        Some((_, stream)) => u32::from(coils::are_coils(&History(stream), at, first_count, value)),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_files(sequence: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => files::check(&mut kernel, &History(stream), sequence),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_file(at: u32, is_first: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            files::check_file(&mut kernel, &History(stream), at, is_first != 0).to_bits()
        }
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_register(register: u32, interval: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            last::keep_register(&mut kernel, &History(stream), register, interval)
        }
        None => u64::from(UNREADABLE),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_written(write: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => u32::from(last::keep(&mut kernel, &History(stream), write)),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn confirm_register(register: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            last::confirm_register(&mut kernel, &History(stream), register)
        }
        None => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn confirm_written(sequence: u32) -> u32 {
    if let Some((mut kernel, stream)) = at_hand() {
        last::confirm(&mut kernel, &History(stream), sequence);
    }
    0
}
