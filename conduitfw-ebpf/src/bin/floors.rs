//! The yardsticks of `cargo xtask bench`: programs that do less than any firewall could, and one
//! that hands frames to a program under measurement. Never part of a data plane.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "lengths of a frame and the words of a script fit in 32 bits"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::inline_always,
    clippy::needless_pass_by_value,
    reason = "the attribute `xdp` makes the entry points, and wants them so"
)]

#[path = "../../../bench/src/script.rs"]
#[allow(dead_code, reason = "user space needs the rest")]
mod script;
#[allow(dead_code, reason = "these programs need little of it")]
#[path = "../verifier.rs"]
mod verifier;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_NO_WAKEUP, bpf_fib_lookup, xdp_action, xdp_md},
    helpers::{
        bpf_fib_lookup as bpf_fib_lookup_of, bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail,
    },
    macros::{map, xdp},
    maps::{Array, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    programs::XdpContext,
};
use conduitfw_common::event::EventRecord;
use script::{
    ADDRESS, ADDRESS_AT, ADU_AT, ADU_BYTES, ADUS, ADVANCE, BLOCK_SHIFT, BLOCKS, BYTES, CLOCKED,
    COUNT, DEPTH_SHIFT, FIELDS, FLOW_MASK, FLOWS, FRAME_WORDS, IFINDEX, IS_CLOCKED, IS_REPLY,
    IS_TCP, LAST_NS, LAST_TEMPLATE, PORT, PORTS_SHIFT, SCRIPT_WORDS, STATE_WORDS, TAIL,
    TEMPLATE_MASK, TEMPLATE_SHIFT, TEMPLATE_WORDS, TEMPLATES, TRANSPORT_AT, WIRES, WORDS,
};

use verifier::{hidden, masked};

/// Addresses, ports and protocol of a flow.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u32,
}

/// Flows of the floor, as the usual XDP program keeps them: 64 bytes a flow.
#[map]
static YARD_FLOWS: LruHashMap<Key, [u64; 8]> = LruHashMap::with_max_entries(131_072, 0);
/// The program that `pace` hands the frame to.
#[map]
static YARD_NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static YARD_SCRIPT: Array<[u64; SCRIPT_WORDS]> = Array::with_max_entries(1, 0);
#[map]
static YARD_TEMPLATES: Array<[u64; TEMPLATE_WORDS]> = Array::with_max_entries(TEMPLATES, 0);
#[map]
static YARD_STATES: Array<[u32; STATE_WORDS]> = Array::with_max_entries(FLOWS, 0);
/// Frames of each block and template, and the nanoseconds from the beginning of each to that of the
/// next.
#[map]
static YARD_TIMES: Array<[u64; 2]> = Array::with_max_entries(BLOCKS * TEMPLATES, 0);
/// Frames that `count` saw.
#[map]
static YARD_COUNT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What `tell` tells.
#[map]
static YARD_EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// The other end of a wire, by the lower bits of an interface's index.
#[map]
static YARD_WIRES: Array<u32> = Array::with_max_entries(WIRES, 0);

/// The frame's memory; every access is checked against its end.
#[derive(Clone, Copy)]
struct Frame(*mut xdp_md);

impl Frame {
    #[inline(always)]
    fn pointer<T>(self, at: u32) -> Option<*mut T> {
        // SAFETY: the kernel passes a valid context.
        let start = unsafe { (*self.0).data } as usize;
        // SAFETY: as above.
        let end = unsafe { (*self.0).data_end } as usize;
        let pointer = start + masked(at, 0xfff) as usize;
        let after = pointer + size_of::<T>();
        let after = if size_of::<T>() == 1 {
            hidden(after)
        } else {
            after
        };
        (after <= end).then_some(pointer as *mut T)
    }

    #[inline(always)]
    fn read<T: Copy>(self, at: u32) -> Option<T> {
        let pointer = self.pointer::<T>(at)?;
        // SAFETY: `pointer` checked that an integer lies there within the frame.
        Some(unsafe { pointer.read_unaligned() })
    }

    #[inline(always)]
    fn write<T: Copy>(self, at: u32, value: T) {
        if let Some(pointer) = self.pointer::<T>(at) {
            // SAFETY: as above, and the frame is this program's to change.
            unsafe { pointer.write_unaligned(value) };
        }
    }

    #[inline(always)]
    fn bytes(self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        let start = unsafe { (*self.0).data };
        // SAFETY: as above.
        let end = unsafe { (*self.0).data_end };
        end - start
    }
}

/// Nothing at all.
#[xdp]
pub fn nothing(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The fastest way to deny.
#[xdp]
pub fn drop(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Counts what comes out behind the gateway.
#[xdp]
pub fn count(_context: XdpContext) -> u32 {
    if let Some(count) = YARD_COUNT.get_ptr_mut(0) {
        // SAFETY: the lookup gave a valid pointer, to this processor's own value.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

/// A wire: what comes in at one end goes out at the other.
#[xdp]
pub fn wire(context: XdpContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    let ifindex = unsafe { (*context.as_ptr().cast::<xdp_md>()).ingress_ifindex };
    match YARD_WIRES.get(ifindex & (WIRES - 1)) {
        // SAFETY: the helper checks its arguments.
        Some(other) => (unsafe { bpf_redirect(*other, 0) }) as u32,
        None => xdp_action::XDP_DROP,
    }
}

/// Forwards without the kernel's stack: asks the routing table for each frame and sends it on.
#[xdp]
pub fn forward(context: XdpContext) -> u32 {
    match redirected(Frame(context.as_ptr().cast())) {
        // SAFETY: the helper checks its arguments.
        Some(ifindex) => (unsafe { bpf_redirect(ifindex, 0) }) as u32,
        None => xdp_action::XDP_PASS,
    }
}

/// Writes the next hop's addresses and the time to live; the interface on the way there.
#[inline(always)]
fn redirected(frame: Frame) -> Option<u32> {
    let key = key(frame)?;
    // `struct bpf_fib_lookup` (linux/bpf.h), in words.
    let mut route = [0_u64; 8];
    let bytes = u32::from(u16::from_be(frame.read(16)?));
    // SAFETY: the kernel passes a valid context.
    let ifindex = unsafe { (*frame.0).ingress_ifindex };
    // Family and protocol; length; interface.
    route[0] = 2 | 6 << 8 | u64::from(bytes) << 48;
    route[1] = u64::from(ifindex);
    route[2] = u64::from(key.source);
    route[4] = u64::from(key.destination);
    let size = size_of_val(&route) as i32;
    let pointer = (&raw mut route).cast::<bpf_fib_lookup>();
    // SAFETY: the words are the structure, and as many bytes.
    if unsafe { bpf_fib_lookup_of(frame.0.cast(), pointer, size, 0) } != 0 {
        return None;
    }
    let time_to_live = frame.read::<u16>(22)?;
    frame.write(22, time_to_live - 1);
    let sum = u32::from(u16::from_be(frame.read(24)?)) + 0x100;
    frame.write(24, ((sum + (sum >> 16)) as u16).to_be());
    // The addresses of the sender and of the next hop are the last twelve bytes.
    frame.write(0, (route[7] >> 16) as u32);
    frame.write(4, (route[7] >> 48) as u16);
    frame.write(6, (route[6] >> 32) as u32);
    frame.write(10, route[7] as u16);
    Some(route[1] as u32)
}

/// Parses, and nothing more.
#[xdp]
pub fn parse(context: XdpContext) -> u32 {
    match key(Frame(context.as_ptr().cast())) {
        Some(key) if key.ports != 0 => xdp_action::XDP_PASS,
        _ => xdp_action::XDP_DROP,
    }
}

/// The floor: parses and looks the flow up.
#[xdp]
pub fn lookup(context: XdpContext) -> u32 {
    let Some(key) = key(Frame(context.as_ptr().cast())) else {
        return xdp_action::XDP_DROP;
    };
    match YARD_FLOWS.get_ptr_mut(key) {
        Some(flow) => {
            // SAFETY: the lookup gave a valid pointer; what another processor writes does not matter.
            let word = unsafe { (*flow)[0] };
            if word == 1 {
                xdp_action::XDP_PASS
            } else {
                xdp_action::XDP_ABORTED
            }
        }
        None => xdp_action::XDP_DROP,
    }
}

/// The floor on a gateway: parses, looks the flow up, enters it the first time, and lets every frame pass.
#[xdp]
pub fn follow(context: XdpContext) -> u32 {
    look_up(Frame(context.as_ptr().cast()));
    xdp_action::XDP_PASS
}

/// The same, and drops.
#[xdp]
pub fn follow_and_drop(context: XdpContext) -> u32 {
    look_up(Frame(context.as_ptr().cast()));
    xdp_action::XDP_DROP
}

#[inline(always)]
fn look_up(frame: Frame) {
    if let Some(key) = key(frame)
        && YARD_FLOWS.get_ptr_mut(key).is_none()
    {
        // Without room the next frame tries again.
        let _ = YARD_FLOWS.insert(key, [1; 8], 0);
    }
}

/// The floor, and a record of an event's size in the kernel's ring buffer: what a denial would cost at
/// least that is told of in that way.
#[xdp]
pub fn tell(context: XdpContext) -> u32 {
    let Some(key) = key(Frame(context.as_ptr().cast())) else {
        return xdp_action::XDP_DROP;
    };
    if YARD_FLOWS.get_ptr_mut(key).is_none() {
        return xdp_action::XDP_DROP;
    }
    let Some(mut record) = YARD_EVENTS.reserve::<[u64; EVENT_WORDS]>(0) else {
        return xdp_action::XDP_ABORTED;
    };
    for word in 0..EVENT_WORDS {
        // SAFETY: the ring buffer reserved room for so many words. Volatile, or LLVM calls `memset`.
        unsafe {
            record
                .as_mut_ptr()
                .cast::<u64>()
                .wrapping_add(word)
                .write_volatile(u64::from(key.source));
        }
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
    xdp_action::XDP_PASS
}

/// Words of an event.
const EVENT_WORDS: usize = size_of::<EventRecord>() / 8;

/// Parses and enters a flow.
#[xdp]
pub fn insert(context: XdpContext) -> u32 {
    let Some(key) = key(Frame(context.as_ptr().cast())) else {
        return xdp_action::XDP_DROP;
    };
    match YARD_FLOWS.insert(key, [1; 8], 0) {
        Ok(()) => xdp_action::XDP_PASS,
        Err(_) => xdp_action::XDP_DROP,
    }
}

/// Ethernet, IPv4 and TCP or UDP, with the checks that every parser makes.
#[inline(always)]
fn key(frame: Frame) -> Option<Key> {
    if u16::from_be(frame.read(12)?) != 0x0800 {
        return None;
    }
    let version = frame.read::<u8>(14)?;
    let header = u32::from(version & 15) * 4;
    let total = u32::from(u16::from_be(frame.read(16)?));
    let fragment = u16::from_be(frame.read(20)?);
    let protocol = frame.read::<u8>(23)?;
    if version >> 4 != 4 || header < 20 || fragment & 0x3fff != 0 || total + 14 > frame.bytes() {
        return None;
    }
    let source = frame.read(26)?;
    let destination = frame.read(30)?;
    let transport = 14 + header;
    if protocol != 6 || total < header + 20 {
        return None;
    }
    let ports = frame.read(transport)?;
    let data_offset = u32::from(frame.read::<u8>(transport + 12)? >> 4) * 4;
    if data_offset < 20 || total < header + data_offset {
        return None;
    }
    Some(Key {
        source,
        destination,
        ports,
        protocol: u32::from(protocol),
    })
}

/// Writes the next frame of the script over the frame at hand and gives it to the program under
/// measurement.
#[xdp]
pub fn pace(context: XdpContext) -> u32 {
    if write_next(Frame(context.as_ptr().cast())).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the map holds XDP programs only; when there is none the call returns.
    unsafe { YARD_NEXT.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// Writes the next frame of the script over the frame at hand and sends it to an interface.
#[xdp]
pub fn blast(context: XdpContext) -> u32 {
    let Some(ifindex) = write_next(Frame(context.as_ptr().cast())) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the helper checks its arguments.
    (unsafe { bpf_redirect(ifindex, 0) }) as u32
}

/// Writes the next frame; the interface that it is for.
#[inline(always)]
fn write_next(frame: Frame) -> Option<u32> {
    let script = YARD_SCRIPT.get_ptr_mut(0)?;
    // SAFETY: the lookup gave a valid pointer; one processor at a time runs a script.
    let script = unsafe { &mut *script };
    let number = script[COUNT];
    script[COUNT] = number + 1;
    if script[IS_CLOCKED] != 0 {
        take_time(script);
    }
    let flow = (number >> (script[DEPTH_SHIFT] & 31)) & script[FLOW_MASK];
    let index = (number >> (script[TEMPLATE_SHIFT] & 31)) & script[TEMPLATE_MASK];
    let template = YARD_TEMPLATES.get_ptr(index as u32)?;
    // SAFETY: the lookup gave a valid pointer; user space writes only between runs.
    let template = unsafe { &*template };
    script[LAST_TEMPLATE] = index;
    copy(frame, template)?;
    if template[TRANSPORT_AT] != 0 {
        patch(frame, template, flow as u32)?;
    }
    Some(template[IFINDEX] as u32)
}

/// Ends the time of the frame before, and begins that of the frame at hand.
#[inline(always)]
fn take_time(script: &mut [u64; SCRIPT_WORDS]) {
    // SAFETY: the helper has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let last = script[LAST_NS];
    script[LAST_NS] = now;
    if last == 0 {
        return;
    }
    let block = script[CLOCKED] >> (script[BLOCK_SHIFT] & 31);
    script[CLOCKED] += 1;
    let block = if block < u64::from(BLOCKS) {
        block as u32
    } else {
        BLOCKS - 1
    };
    if let Some(times) = YARD_TIMES.get_ptr_mut(block * TEMPLATES + script[LAST_TEMPLATE] as u32) {
        // SAFETY: the lookup gave a valid pointer; one processor at a time runs a script.
        let times = unsafe { &mut *times };
        times[0] += 1;
        times[1] += now - last;
    }
}

#[inline(always)]
fn copy(frame: Frame, template: &[u64; TEMPLATE_WORDS]) -> Option<()> {
    let change = template[BYTES] as i32 - frame.bytes() as i32;
    if change != 0 {
        // SAFETY: the context is valid; the helper checks the rest.
        if unsafe { bpf_xdp_adjust_tail(frame.0, change) } != 0 {
            return None;
        }
    }
    let words = template[WORDS] as usize;
    for word in 0..FRAME_WORDS {
        if word >= words {
            break;
        }
        frame.write(word as u32 * 8, template[FIELDS + word]);
    }
    if words != 0 {
        frame.write(template[BYTES] as u32 - 8, template[TAIL]);
    }
    Some(())
}

#[inline(always)]
fn patch(frame: Frame, template: &[u64; TEMPLATE_WORDS], flow: u32) -> Option<()> {
    let is_reply = template[IS_REPLY] as u32 & 1;
    let transport = template[TRANSPORT_AT] as u32 & 0x7f;
    let port = template[PORT] as u32 + (flow & ((1 << PORTS_SHIFT) - 1));
    frame.write(transport + is_reply * 2, (port as u16).to_be());
    if template[ADDRESS_AT] != 0 {
        let address = template[ADDRESS] as u32 + (flow >> PORTS_SHIFT);
        frame.write(template[ADDRESS_AT] as u32 & 0x7f, address.to_be());
    }
    if template[IS_TCP] == 0 {
        return Some(());
    }
    let state = YARD_STATES.get_ptr_mut(flow & (FLOWS - 1))?;
    // SAFETY: the lookup gave a valid pointer; one processor at a time runs a script.
    let state = unsafe { &mut *state };
    let (mine, other) = if is_reply == 0 { (0, 1) } else { (1, 0) };
    frame.write(transport + 4, state[mine].to_be());
    frame.write(transport + 8, state[other].to_be());
    state[mine] = state[mine].wrapping_add(template[ADVANCE] as u32);
    let adus = template[ADUS] as u32;
    let mut at = template[ADU_AT] as u32 & 0xff;
    let mut transaction = state[2 + mine];
    for adu in 0..32 {
        if adu >= adus {
            break;
        }
        frame.write(at, (transaction as u16).to_be());
        transaction = transaction.wrapping_add(1);
        at += template[ADU_BYTES] as u32 & 0xfff;
    }
    state[2 + mine] = transaction;
    Some(())
}

/// Never reached: the verifier refuses a program that could loop without end.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
