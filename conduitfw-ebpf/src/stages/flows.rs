//! Stages of flows: those that are opened, known, picked up and waited for.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    admit as long_way, adopt as picked_up, classify, flow::store, icmp_error, judgement::Judgement,
    platform::FlowTable, settle as known,
};

use super::NOTHING;
use crate::{atomic, frame::Frame, kernel::Kernel, maps};

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
        Some((mut kernel, packet)) => icmp_error::judge(&mut kernel, packet).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn settle(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => known::settle(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn doubt(place: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, packet)) => u32::from(known::doubt(&mut kernel, packet, place)),
        None => 0,
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
pub(crate) extern "C" fn adopt(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => picked_up::adopt(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn adopted(place: u32, judgement: u64) -> u64 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, packet)) => {
            let judgement = Judgement::from_bits(judgement);
            picked_up::adopted(&mut kernel, packet, place, judgement).to_bits()
        }
        None => NOTHING,
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

/// Waits for the lock of a flow that another processor holds. In two stages, for the verifier takes
/// every look of a loop for itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_for_flow(table: u32, place: u32) -> u32 {
    for _ in 0..atomic::WAITS {
        if wait_a_little_for_flow(table, place) != 0 {
            return 1;
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_a_little_for_flow(table: u32, place: u32) -> u32 {
    match maps::flow_pointer(table_from(table), place) {
        Some(pointer) => u32::from(atomic::wait(maps::lock_of(pointer))),
        None => 0,
    }
}

/// Waits for the lock of a bucket that another processor holds.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_for_bucket(table: u32, place: u32) -> u32 {
    for _ in 0..atomic::WAITS {
        if wait_a_little_for_bucket(table, place) != 0 {
            return 1;
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_a_little_for_bucket(table: u32, place: u32) -> u32 {
    match maps::tag(table_from(table), place) {
        Some(pointer) => u32::from(atomic::wait(pointer)),
        None => 0,
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
