//! forward: the way out of a frame without the kernel's forwarding: the routing table's helper, and the
//! frame handed over.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_fib_lookup, bpf_jiffies64, bpf_redirect, bpf_xdp_adjust_head},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use conduitfw_common::{
    bytes::{ByteSource, Truncated},
    classify,
    forward::{self, Kept, KnownWay, NextHop, Port, Query, REFUSED_ROW, Ways},
    judgement::Judgement,
    packet::Packet,
    reset::FrameEditor,
    table::{Address, InterfaceKey, SLOTS},
    wire::ethernet,
};

use crate::{frame::Frame, kernel::Kernel, maps, verifier::masked};

/// Runs when the kernel could not hand a frame to its port: counts it, and takes no more frames there
/// when the driver takes none, so that the kernel forwards them from now on. Nobody else is needed for
/// that. The arguments are those of `xdp_redirect_err`: the error fourth, the interface seventh.
#[raw_tracepoint]
pub fn refused(context: RawTracePointContext) -> i32 {
    let (error, port) = (context.arg::<i32>(3), context.arg::<u32>(6));
    // Other programs hand frames over as well, also in other network namespaces, where interfaces have
    // the same numbers: ours was the last one on this processor, and just now.
    match maps::handed() {
        Some(handed) if *handed == handed_now(port) => maps::count_forwarding(REFUSED_ROW),
        _ => return 0,
    }
    if error == NOT_SUPPORTED || error == NO_SUCH_DEVICE {
        for slot in 0..SLOTS {
            maps::stop_taking(slot, port);
        }
    }
    0
}

/// A port, and the tick in which a frame is handed to it.
#[inline(always)]
fn handed_now(port: u32) -> u64 {
    // SAFETY: the helper has no arguments and no conditions.
    let now_ticks = unsafe { bpf_jiffies64() };
    u64::from(port) << 32 | now_ticks & 0xffff_ffff
}

// Numbers of asm-generic/errno.h, negative.
const NOT_SUPPORTED: i32 = -95;
const NO_SUCH_DEVICE: i32 = -6;

/// Lets a frame that passes leave, or leaves it to the kernel.
#[inline(always)]
pub(crate) fn send_on(context: *mut xdp_md, slot: u32) -> u32 {
    match forward_as_before(context, slot) {
        NO_WAY => forward(context, slot),
        action => action,
    }
}

/// Instead of an action: no frame like it left just now.
const NO_WAY: u32 = u32::MAX;

/// Lets a frame that passes leave by the way of the one before it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn forward_as_before(context: *mut xdp_md, slot: u32) -> u32 {
    let frame = Frame::new(context);
    let Some((_, packet)) = Kernel::new(frame) else {
        return NO_WAY;
    };
    let mut way = Way {
        frame,
        slot: slot & 1,
    };
    match forward::forward_as_before(&mut way, packet) {
        Ok(0) => NO_WAY,
        Ok(port) => hand_over(port),
        Err(kept) => leave_to_kernel(kept),
    }
}

/// Lets a frame that passes leave by the way that its route names, or leaves it to the kernel.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn forward(context: *mut xdp_md, slot: u32) -> u32 {
    let frame = Frame::new(context);
    let Some((_, packet)) = Kernel::new(frame) else {
        return xdp_action::XDP_PASS;
    };
    let mut way = Way {
        frame,
        slot: slot & 1,
    };
    match forward::forward(&mut way, packet) {
        Ok(port) => hand_over(port),
        Err(kept) => leave_to_kernel(kept),
    }
}

#[inline(always)]
fn leave_to_kernel(kept: Kept) -> u32 {
    maps::count_forwarding(kept.row());
    if matches!(kept, Kept::Lost) {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// Finishes a checksum that was left to a device; answers 0, or 1 when it cannot.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn finish_checksum(context: *mut xdp_md, at: u32, bytes: u32) -> u32 {
    let mut frame = Frame::new(context);
    match Kernel::new(frame) {
        Some((_, packet)) => {
            u32::from(forward::finish_checksum(&mut frame, packet, at, bytes).is_err())
        }
        None => 1,
    }
}

/// Hands the frame to a port when the program ends; a stage of its own, for with it `forward` would
/// keep a register that was never set: "R1 `!read_ok`" (Linux 6.18).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hand_over(port: u32) -> u32 {
    maps::count_forwarding(0);
    if let Some(handed) = maps::handed() {
        *handed = handed_now(port);
    }
    // SAFETY: the helper checks its arguments; it names the interface and no flags.
    (unsafe { bpf_redirect(port, 0) }) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_link(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((kernel, packet)) => forward::judge_link(&kernel, packet).to_bits(),
        None => Judgement::deny(conduitfw_common::Reason::EtherTypeNotAllowed, 0).to_bits(),
    }
}

/// Whether the zone of an address is behind an interface.
#[inline(always)]
fn find_home(slot: u32, ifindex: u32, vlans: u32, address: &Address) -> bool {
    let Some(network) = maps::network(slot, address) else {
        return false;
    };
    let key = InterfaceKey {
        slot,
        ifindex,
        vlans,
    };
    let zones = classify::interface_of(key, maps::interface).map_or(0, |interface| interface.zones);
    classify::is_member(zones, network.zone)
}

/// The kernel's tables around a frame that is to leave.
struct Way {
    frame: Frame,
    slot: u32,
}

impl ByteSource for Way {
    #[inline(always)]
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        self.frame.u8(at)
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        self.frame.u16(at)
    }

    #[inline(always)]
    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        self.frame.u32(at)
    }

    #[inline(always)]
    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        self.frame.u64(at)
    }

    #[inline(always)]
    fn address(&self, at: u32) -> Result<Address, Truncated> {
        self.frame.address(at)
    }

    #[inline(always)]
    fn within(&self, number: u32, mask: u32) -> u32 {
        masked(number, mask)
    }
}

impl FrameEditor for Way {
    #[inline(always)]
    fn replace_u8(&mut self, at: u32, value: u8) -> Result<u8, Truncated> {
        self.frame.replace_u8(at, value)
    }

    #[inline(always)]
    fn set_u16(&mut self, at: u32, value: u16) -> Result<(), Truncated> {
        self.frame.set_u16(at, value)
    }

    #[inline(always)]
    fn set_u32(&mut self, at: u32, value: u32) -> Result<(), Truncated> {
        self.frame.set_u32(at, value)
    }

    #[inline(always)]
    fn sum(&self, at: u32, bytes: u32) -> Result<u16, Truncated> {
        self.frame.sum(at, bytes)
    }

    #[inline(always)]
    fn cut(&mut self, bytes: u32) -> Result<(), Truncated> {
        self.frame.cut(bytes)
    }
}

impl Ways for Way {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.frame.ifindex()
    }

    #[inline(always)]
    fn frame_bytes(&self) -> u32 {
        self.frame.bytes()
    }

    #[inline(always)]
    fn port(&self, device: u32) -> Option<Port> {
        maps::port(self.slot, device)
    }

    #[inline(always)]
    fn tagged(&self, ifindex: u32, vlans: u32) -> u32 {
        let key = InterfaceKey {
            slot: self.slot,
            ifindex,
            vlans,
        };
        maps::tagged(&key)
    }

    #[inline(always)]
    fn next_hop(&self, packet: &Packet, device: u32, query: &Query) -> Result<NextHop, Kept> {
        let mut lookup = Lookup {
            words: MaybeUninit::uninit(),
        };
        lookup.ask(packet, device, query);
        let bytes = size_of::<Lookup>() as i32;
        // SAFETY: the context is valid, and the helper is given the size of the record.
        let answer = unsafe {
            bpf_fib_lookup(
                self.frame.context().cast(),
                (&raw mut lookup).cast(),
                bytes,
                0,
            )
        };
        match answer {
            0 => Ok(lookup.next_hop()),
            NO_NEIGHBOUR => Err(Kept::Neighbour),
            FRAGMENTATION_NEEDED => Err(Kept::TooLong),
            _ => Err(Kept::Route),
        }
    }

    #[inline(always)]
    fn known_way(&mut self, row: u32) -> Option<&mut KnownWay> {
        maps::known_way(row)
    }

    #[inline(always)]
    fn now_ticks(&self) -> u64 {
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        maps::generation(self.slot).map_or(0, |generation| generation.number)
    }

    #[inline(always)]
    fn is_at_home(&self, ifindex: u32, vlans: u32, destination: &Address) -> bool {
        let generation = self.generation();
        let Some(home) = maps::home(destination) else {
            return false;
        };
        if home.holds(destination, ifindex, vlans, generation) {
            return true;
        }
        let found = find_home(self.slot, ifindex, vlans, destination);
        if found {
            [home.address[0], home.address[1]] = [destination[0], destination[1]];
            [home.address[2], home.address[3]] = [destination[2], destination[3]];
            (home.ifindex, home.vlans, home.generation) = (ifindex, vlans, generation);
        }
        found
    }

    #[inline(always)]
    fn finish_checksum(&mut self, _packet: &Packet, at: u32, bytes: u32) -> Result<(), Truncated> {
        match finish_checksum(self.frame.context(), at, bytes) {
            0 => Ok(()),
            _ => Err(Truncated),
        }
    }

    #[inline(always)]
    fn move_head(&mut self, bytes: i32) -> Result<(), Truncated> {
        // SAFETY: the context is valid; the helper checks the rest, and pointers into the frame are
        // taken anew after it.
        match unsafe { bpf_xdp_adjust_head(self.frame.context(), bytes) } {
            0 => Ok(()),
            _ => Err(Truncated),
        }
    }
}

// Answers of `bpf_fib_lookup` (linux/bpf.h).
const NO_NEIGHBOUR: i64 = 7;
const FRAGMENTATION_NEEDED: i64 = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct bpf_fib_lookup` (linux/bpf.h), in words.
#[repr(C, align(8))]
struct Lookup {
    words: MaybeUninit<[u64; Lookup::WORDS]>,
}

impl Lookup {
    const WORDS: usize = 8;

    #[inline(always)]
    fn ask(&mut self, packet: &Packet, device: u32, query: &Query) {
        let is_ipv4 = packet.ether_type == ethernet::IPV4;
        let family = if is_ipv4 { AF_INET } else { AF_INET6 };
        let [source_high, source_low] = packet.source_port.to_be_bytes();
        let [port_high, port_low] = packet.destination_port.to_be_bytes();
        let [bytes_0, bytes_1] = query.bytes.to_ne_bytes();
        let first = [
            u32::from_ne_bytes([family, packet.transport, source_high, source_low]),
            u32::from_ne_bytes([port_high, port_low, bytes_0, bytes_1]),
        ];
        // An IPv4 address is the first of four words here, and the last of a packet's.
        let [s0, s1, s2, s3] = packet.source;
        let [d0, d1, d2, d3] = packet.destination;
        let (source, destination) = if is_ipv4 {
            ([s3, 0, 0, 0], [d3, 0, 0, 0])
        } else {
            ([s0, s1, s2, s3], [d0, d1, d2, d3])
        };
        self.set(0, first);
        self.set(1, [device, query.service]);
        self.set(2, [source[0], source[1]]);
        self.set(3, [source[2], source[3]]);
        self.set(4, [destination[0], destination[1]]);
        self.set(5, [destination[2], destination[3]]);
        self.set(6, [0, 0]);
        self.set(7, [0, 0]);
    }

    /// Sets eight bytes; volatile, or LLVM makes a call to `memset` of what is zero, which goes byte by
    /// byte.
    #[inline(always)]
    fn set(&mut self, word: usize, halves: [u32; 2]) {
        let [low, high] = halves.map(u64::from);
        let value = if cfg!(target_endian = "little") {
            high << 32 | low
        } else {
            low << 32 | high
        };
        let pointer = self.words.as_mut_ptr().cast::<u64>().wrapping_add(word);
        // SAFETY: `word` is below `WORDS` in each call, and the record is this function's.
        unsafe { pointer.write_volatile(value) };
    }

    /// Four bytes of what the kernel answered; volatile, or LLVM reads four others, across two words:
    /// "misaligned stack access" (Linux 6.18).
    #[inline(always)]
    fn at(&self, word: usize) -> u32 {
        let pointer = self.words.as_ptr().cast::<u32>().wrapping_add(word);
        // SAFETY: `word` is below twice `WORDS` in each call, and `ask` has set every byte.
        unsafe { pointer.read_volatile() }
    }

    #[inline(always)]
    fn next_hop(&self) -> NextHop {
        // Behind the VLAN's word the two hardware addresses: source, then destination.
        let [s0, s1, s2, s3] = self.at(13).to_ne_bytes();
        let [s4, s5, d0, d1] = self.at(14).to_ne_bytes();
        // In place of the packet's length (`mtu_result`).
        let [_, _, mtu_0, mtu_1] = self.at(1).to_ne_bytes();
        let [d2, d3, d4, d5] = self.at(15).to_ne_bytes();
        NextHop {
            device: self.at(2),
            addresses: [
                u32::from_be_bytes([d0, d1, d2, d3]),
                u32::from_be_bytes([d4, d5, s0, s1]),
                u32::from_be_bytes([s2, s3, s4, s5]),
            ],
            mtu: u32::from(u16::from_ne_bytes([mtu_0, mtu_1])),
        }
    }
}
