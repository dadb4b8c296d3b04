//! The stages that the verifier judges one by one: BTF global functions of scalars and the
//! context. Each finds what the frame has left so far in the workspace.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    admit as long_way, classify, flow::entry::HISTORY_BYTES, flow::store, inspect as stream,
    judgement::Judgement, modbus, platform::FlowTable, settle as known,
    Reason,
};

use crate::{
    frame::Frame,
    kernel::{History, Kernel},
    maps,
};

/// What a stage answers when there is no workspace, which cannot be.
const NOTHING: u64 = Judgement::deny(Reason::FlowBusy, 0).to_bits();

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn admit(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some(mut kernel) => long_way::admit(&mut kernel).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn settle(context: *mut xdp_md, place: u32, reply: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some(mut kernel) => known::settle(&mut kernel, place, reply != 0).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn inspect(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some(mut kernel) => stream::inspect(&mut kernel, place).to_bits(),
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
        Some(mut kernel) => {
            modbus::judge_adu(&mut kernel, &frame, at, bytes, rule_set as u16).to_bits()
        }
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_remembered_adu(
    context: *mut xdp_md,
    stream: u32,
    sequence: u32,
    bytes: u32,
    rule_set: u32,
) -> u64 {
    match (Kernel::new(Frame::new(context)), maps::stream(stream)) {
        (Some(mut kernel), Some(stream)) => {
            let history = History(stream);
            modbus::judge_adu(&mut kernel, &history, sequence, bytes, rule_set as u16).to_bits()
        }
        _ => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_service(
    context: *mut xdp_md,
    from: u32,
    to: u32,
    transport_port: u32,
) -> u32 {
    match Kernel::new(Frame::new(context)) {
        Some(kernel) => classify::find_service(&kernel, from, to, transport_port),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn insert_flow(context: *mut xdp_md) -> u32 {
    insert(context, FlowTable::Flows)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn insert_opening(context: *mut xdp_md) -> u32 {
    insert(context, FlowTable::Openings)
}

#[inline(always)]
fn insert(context: *mut xdp_md, table: FlowTable) -> u32 {
    match Kernel::new(Frame::new(context)) {
        Some(mut kernel) => match store::insert(&mut kernel, table) {
            Some(place) => place.wrapping_add(1),
            None => 0,
        },
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
    use conduitfw_common::bytes::ByteSource;
    let frame = Frame::new(context);
    let Some(stream) = maps::stream(stream) else { return 0 };
    let (at, bytes) = (at_bytes >> 16, at_bytes & 0xffff);
    for offset in 0..HISTORY_BYTES {
        if offset >= bytes {
            return 1;
        }
        let Ok(byte) = frame.u8(at + offset) else { return 0 };
        let place = sequence.wrapping_add(offset) & (HISTORY_BYTES - 1);
        stream.history[place as usize] = byte;
    }
    u32::from(bytes <= HISTORY_BYTES)
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
    use conduitfw_common::bytes::ByteSource;
    let frame = Frame::new(context);
    let Some(stream) = maps::stream(stream) else { return 0 };
    let (at, bytes) = (at_bytes >> 16, at_bytes & 0xffff);
    for offset in 0..HISTORY_BYTES {
        if offset >= bytes {
            return 1;
        }
        let Ok(byte) = frame.u8(at + offset) else { return 0 };
        let place = sequence.wrapping_add(offset) & (HISTORY_BYTES - 1);
        if stream.history[place as usize] != byte {
            return 0;
        }
    }
    u32::from(bytes <= HISTORY_BYTES)
}
