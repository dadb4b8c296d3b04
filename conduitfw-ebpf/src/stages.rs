//! The stages that the verifier judges one by one: BTF global functions of scalars and the
//! context. Each finds what the frame has left so far in the workspace. A stage that does not read the
//! frame does not take the context: LLVM would pass whatever is in the register.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    Reason, admit as long_way, bytes::ByteSource, classify, flow::entry::HISTORY_BYTES,
    flow::store, inspect as stream, judgement::Judgement, modbus, platform::FlowTable,
    settle as known, wire,
};

use crate::{
    atomic,
    frame::Frame,
    history::{self, History},
    kernel::Kernel,
    maps,
};

/// What a stage answers when there is no workspace, which cannot be.
const NOTHING: u64 = Judgement::deny(Reason::FlowBusy, 0).to_bits();

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn admit(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => long_way::admit(&mut kernel, packet).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn opened(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => long_way::opened(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn icmp_error(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => long_way::icmp_error(&mut kernel, packet).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn settle(context: *mut xdp_md, place: u32, reply: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => {
            known::settle(&mut kernel, packet, place, reply != 0).to_bits()
        }
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn establish(
    context: *mut xdp_md,
    opening_place: u32,
    place: u32,
    reply: u32,
) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => {
            long_way::establish(&mut kernel, packet, opening_place, place, reply != 0).to_bits()
        }
        None => NOTHING,
    }
}

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
pub(crate) extern "C" fn judge_adu(
    context: *mut xdp_md,
    at: u32,
    bytes: u32,
    rule_set: u32,
) -> u64 {
    let frame = Frame::new(context);
    match Kernel::new(frame) {
        Some((mut kernel, _)) => {
            modbus::judge_adu(&mut kernel, &frame, at, bytes, rule_set as u16).to_bits()
        }
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_remembered_adu(
    stream: u32,
    sequence: u32,
    bytes: u32,
    rule_set: u32,
) -> u64 {
    match (Kernel::new(Frame::ABSENT), maps::stream(stream)) {
        (Some((mut kernel, _)), Some(stream)) => {
            let history = History(stream);
            modbus::judge_adu(&mut kernel, &history, sequence, bytes, rule_set as u16).to_bits()
        }
        _ => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_service(from: u32, to: u32, transport_port: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((kernel, _)) => classify::find_service(&kernel, from, to, transport_port),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn insert_flow() -> u32 {
    insert(FlowTable::Flows)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn insert_opening() -> u32 {
    insert(FlowTable::Openings)
}

#[inline(always)]
fn insert(table: FlowTable) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, packet)) => store::insert(&mut kernel, packet, table),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn claim(table: u32, first: u32, second: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => store::claim(&mut kernel, table_from(table), first, second),
        None => 0,
    }
}

/// Answers the number of a reason, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_ipv4_options(
    context: *mut xdp_md,
    network_at: u32,
    header_bytes: u32,
) -> u32 {
    match wire::ipv4::check_options(&Frame::new(context), network_at, header_bytes) {
        Ok(()) => 0,
        Err(reason) => u32::from(reason.number()),
    }
}

#[inline(always)]
fn table_from(number: u32) -> FlowTable {
    if number == FlowTable::Flows as u32 {
        FlowTable::Flows
    } else {
        FlowTable::Openings
    }
}

/// Waits for the lock of a flow that another processor holds.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_for_flow(table: u32, place: u32) -> u32 {
    match maps::flow_pointer(table_from(table), place) {
        Some(pointer) => u32::from(atomic::wait(maps::lock_of(pointer))),
        None => 0,
    }
}

/// Waits for the lock of a bucket that another processor holds.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_for_bucket(table: u32, place: u32) -> u32 {
    match maps::tag(table_from(table), place) {
        Some(pointer) => u32::from(atomic::wait(pointer)),
        None => 0,
    }
}

/// Copies bytes of the frame into a stream's history. `at_bytes` holds the offset in the upper
/// half and the number of bytes in the lower.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn remember(
    context: *mut xdp_md,
    stream: u32,
    sequence: u32,
    at_bytes: u32,
) -> u32 {
    let frame = Frame::new(context);
    let Some(stream) = maps::stream(stream) else {
        return 0;
    };
    let (at, bytes) = (at_bytes >> 16, at_bytes & 0xffff);
    if bytes > HISTORY_BYTES {
        return 0;
    }
    for word in 0..HISTORY_BYTES / 8 {
        let offset = word * 8;
        if offset + 8 > bytes {
            break;
        }
        let Ok(value) = frame.word(at + offset) else {
            return 0;
        };
        history::store(stream, sequence.wrapping_add(offset), value);
    }
    let whole = bytes & !7;
    for rest in 0..7 {
        if whole + rest >= bytes {
            break;
        }
        let Ok(byte) = frame.u8(at + whole + rest) else {
            return 0;
        };
        history::store_byte(stream, sequence.wrapping_add(whole + rest), byte);
    }
    1
}

/// Whether the history holds the same bytes as the frame; arguments as for [`remember`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn repeats(
    context: *mut xdp_md,
    stream: u32,
    sequence: u32,
    at_bytes: u32,
) -> u32 {
    let frame = Frame::new(context);
    let Some(stream) = maps::stream(stream) else {
        return 0;
    };
    let (at, bytes) = (at_bytes >> 16, at_bytes & 0xffff);
    if bytes > HISTORY_BYTES {
        return 0;
    }
    for word in 0..HISTORY_BYTES / 8 {
        let offset = word * 8;
        if offset + 8 > bytes {
            break;
        }
        let Ok(value) = frame.word(at + offset) else {
            return 0;
        };
        if history::load(stream, sequence.wrapping_add(offset)) != value {
            return 0;
        }
    }
    let whole = bytes & !7;
    for rest in 0..7 {
        if whole + rest >= bytes {
            break;
        }
        let Ok(byte) = frame.u8(at + whole + rest) else {
            return 0;
        };
        if history::load_byte(stream, sequence.wrapping_add(whole + rest)) != byte {
            return 0;
        }
    }
    1
}
