//! report: counters, events, and the verdict carried out.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_redirect},
};
use conduitfw_common::{
    Verdict,
    bytes::Truncated,
    edit,
    event::{EVENT_FRAME_BYTES, EventOperation, EventRecord, direction},
    judgement::Judgement,
    modbus::plain,
    packet::Packet,
    platform::Platform,
    reset,
    table::{ACTIVE_FAST, ACTIVE_SLOT, Active, protocol},
};

use crate::{
    forward,
    frame::Frame,
    kernel::{self, Kernel},
    maps, stages, trace,
    verifier::hidden,
};

/// Reports the judgement and carries it out, by what the word of `ACTIVE` was when the frame came in; the
/// cold half of it is a stage of its own.
#[inline(always)]
pub(crate) fn report(
    frame: Frame,
    judged: Result<u16, Judgement>,
    active: &Active,
    word: u32,
) -> u32 {
    match judged {
        Ok(conduit) => {
            trace::decided(Judgement::pass(conduit));
            maps::count(conduit, 0, frame.length());
        }
        Err(judgement) => {
            trace::decided(judgement);
            if judgement.is_event() && number_event(active) {
                tell(frame.context(), judgement.to_bits(), active.settings.events);
            }
            if judgement.is_only_dropped() {
                maps::count(
                    judgement.conduit(),
                    judgement.reason_number(),
                    frame.length(),
                );
                return xdp_action::XDP_DROP;
            }
            let action = deny(frame.context(), judgement.to_bits());
            if action != xdp_action::XDP_PASS || !judgement.is_readable() {
                return action;
            }
        }
    }
    if word & ACTIVE_FAST != 0 {
        forward::send_on(frame.context(), word & ACTIVE_SLOT)
    } else {
        xdp_action::XDP_PASS
    }
}

/// Numbers the next event; whether it may be told of, or is counted as lost.
#[inline(always)]
fn number_event(active: &Active) -> bool {
    let Some(reporting) = maps::reporting(processor()) else {
        return false;
    };
    let records = active.settings.events;
    reporting.next_sequence += 1;
    // In a world that is measured time stands still.
    let is_in_time =
        reporting.take_room(kernel::now_ticks() as u32, active.events_a_tick) || trace::is_on();
    if is_in_time && reporting.is_full(records) {
        reporting.known_taken = maps::taken(reporting);
    }
    if is_in_time && !reporting.is_full(records) {
        return true;
    }
    reporting.lost += 1;
    false
}

/// Stage: writes the event whose number was taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell(context: *mut xdp_md, bits: u64, records: u32) -> u32 {
    let judgement = Judgement::from_bits(bits);
    let Some((kernel, packet)) = Kernel::new(Frame::new(context)) else {
        return 0;
    };
    let processor = processor();
    let Some(reporting) = maps::reporting(processor) else {
        return 0;
    };
    let Some(record) = maps::event(processor, reporting, records) else {
        reporting.lost += 1;
        return 0;
    };
    record.cpu = processor;
    record.sequence = reporting.next_sequence.wrapping_sub(1);
    fill(record, &kernel, packet, judgement);
    maps::hand_over(reporting);
    if reporting.is_to_wake(kernel::now_ticks() as u32, records) {
        maps::ring_bell();
    }
    0
}

/// Stage: what is left to be done with a frame that is denied and not simply dropped, or changed, or only
/// told of.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn deny(context: *mut xdp_md, bits: u64) -> u32 {
    let judgement = Judgement::from_bits(bits);
    let mut frame = Frame::new(context);
    let bytes = frame.bytes();
    let Some((kernel, packet)) = Kernel::new(frame) else {
        return xdp_action::XDP_DROP;
    };
    if judgement.is_observed() || judgement.is_notice() {
        maps::count(judgement.conduit(), 0, u64::from(bytes));
        if judgement.is_observed()
            && let Some(reporting) = maps::reporting(processor())
        {
            reporting.would_deny += 1;
        }
        return xdp_action::XDP_PASS;
    }
    maps::count(
        judgement.conduit(),
        judgement.reason_number(),
        u64::from(bytes),
    );
    if judgement.is_edited() {
        let held_back = kernel.seen().held_back;
        return edited(&mut frame, packet, judgement, held_back);
    }
    if !matches!(judgement.verdict(), Verdict::Reset) {
        return xdp_action::XDP_DROP;
    }
    let to_initiator = judgement.is_to_initiator();
    let sequence = kernel.seen().reset_sequence;
    match reset::rewrite(&mut frame, packet, sequence, to_initiator) {
        // Not XDP_TX: veth sends such frames only while its peer has a program too.
        Ok(()) if to_initiator => send_back(frame.ifindex()),
        Ok(()) => xdp_action::XDP_PASS,
        Err(_) => xdp_action::XDP_DROP,
    }
}

/// Lets the frame go on with what it holds of denied requests changed, and without what is held back.
#[inline(always)]
fn edited(frame: &mut Frame, packet: &Packet, judgement: Judgement, held_back: u32) -> u32 {
    let is_reply = u32::from(judgement.direction_number() == direction::REPLY);
    let edited = edit::edit(
        frame,
        packet,
        held_back,
        |frame, row| match stages::requests::edit_row(frame.context(), row, is_reply) {
            u32::MAX => Err(Truncated),
            changed => Ok(changed),
        },
    );
    match edited {
        Ok(()) => xdp_action::XDP_PASS,
        Err(_) => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn send_back(ifindex: u32) -> u32 {
    // SAFETY: the helper checks its arguments; it names the interface and no flags.
    (unsafe { bpf_redirect(ifindex, 0) }) as u32
}

#[inline(always)]
fn processor() -> u32 {
    // SAFETY: the helper has no arguments and no conditions.
    (unsafe { bpf_get_smp_processor_id() }) as u32
}

/// Writes all of a record but whose it is.
#[inline(always)]
fn fill(record: &mut EventRecord, kernel: &Kernel, packet: &Packet, judgement: Judgement) {
    let workspace = kernel.seen();
    // SAFETY: the helper has no arguments and no conditions.
    record.time_ns = unsafe { bpf_ktime_get_coarse_ns() };
    record.generation = workspace.generation;
    record.ifindex = kernel.ifindex();
    record.vlans = packet.vlans;
    // Word by word: of the whole LLVM makes a call to `memmove`.
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (packet.source, packet.destination);
    record.source = [s0, s1, s2, s3];
    record.destination = [d0, d1, d2, d3];
    if packet.transport == conduitfw_common::packet::transport::ICMP {
        record.source_port = u16::from(packet.icmp_type) << 8 | u16::from(packet.icmp_code);
        record.destination_port = packet.source_port | packet.destination_port;
    } else {
        record.source_port = packet.source_port;
        record.destination_port = packet.destination_port;
    }
    record.conduit = judgement.conduit();
    let bytes = kernel.frame.bytes();
    record.frame_length = if bytes > 0xffff { 0xffff } else { bytes as u16 };
    record.ether_type = packet.ether_type;
    record.transport = packet.transport;
    record.reason = judgement.reason_number();
    record.verdict = judgement.verdict() as u8;
    record.would_deny = u8::from(judgement.is_observed());
    record.direction = judgement.direction_number();
    if judgement.is_of_plain_request() {
        record.protocol = protocol::MODBUS;
        copy(&mut record.operation, &plain::denied(kernel, packet));
    } else if workspace.denied.fields == 0 {
        record.protocol = protocol::NONE;
        copy(&mut record.operation, &nothing());
    } else {
        record.protocol = protocol::MODBUS;
        copy(&mut record.operation, &workspace.denied);
    }
    // Nearly every frame is as long.
    if kernel.frame.copy_head(&mut record.frame).is_ok() {
        record.captured = EVENT_FRAME_BYTES as u32;
        return;
    }
    let mut captured = 0;
    for word in 0..EVENT_FRAME_BYTES / 8 {
        let at = word * 8;
        let bytes = match kernel.frame.word(at as u32) {
            Ok(bytes) => {
                captured = at as u32 + 8;
                bytes
            }
            Err(_) => 0,
        };
        record.frame[word] = bytes;
    }
    record.captured = captured;
}

/// No operation. Of zeros that LLVM knows it makes a call to `memset`.
#[inline(always)]
fn nothing() -> EventOperation {
    let zero = hidden(0);
    EventOperation {
        fields: zero as u16,
        transaction_id: zero as u16,
        protocol_id: zero as u16,
        length: zero as u16,
        unit: zero as u8,
        function: zero as u8,
        sub_function: zero as u16,
        address: zero as u16,
        quantity: zero as u16,
        value: zero as u32,
    }
}

/// Field by field: of the whole LLVM makes a call to `memmove`.
#[inline(always)]
fn copy(to: &mut EventOperation, from: &EventOperation) {
    to.fields = from.fields;
    to.transaction_id = from.transaction_id;
    to.protocol_id = from.protocol_id;
    to.length = from.length;
    to.unit = from.unit;
    to.function = from.function;
    to.sub_function = from.sub_function;
    to.address = from.address;
    to.quantity = from.quantity;
    to.value = from.value;
}
