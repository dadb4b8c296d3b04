//! forward: the way out of a frame without the kernel's forwarding: the routing table's helper, and the
//! frame handed over.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_fib_lookup, bpf_redirect, bpf_xdp_adjust_head},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use conduitfw_common::{
    bytes::{ByteSource, Truncated},
    forward::{self, Kept, NextHop, Port, Query, REFUSED_ROW, Ways},
    judgement::Judgement,
    packet::Packet,
    reset::FrameEditor,
    table::{ANY_VLANS, Address, GATEWAY_ZONE, InterfaceKey, SLOTS},
    wire::ethernet,
};

use crate::{frame::Frame, kernel::Kernel, maps, verifier::masked};

/// Runs when the kernel could not hand a frame to its port: counts it, and takes no more frames there
/// when the driver takes none, so that the kernel forwards them from now on. Nobody else is needed for
/// that. The arguments are those of `xdp_redirect_err`: the error fourth, the interface seventh.
#[raw_tracepoint]
pub fn refused(context: RawTracePointContext) -> i32 {
    let (error, port) = (context.arg::<i32>(3), context.arg::<u32>(6));
    // Other programs hand frames over as well, also in other network namespaces.
    match maps::handed() {
        Some(handed) if *handed == u64::from(port) => maps::count_forwarding(REFUSED_ROW),
        _ => return 0,
    }
    if error == NOT_SUPPORTED || error == NO_SUCH_DEVICE {
        for slot in 0..SLOTS {
            maps::stop_taking(slot, port);
        }
    }
    0
}

// Numbers of asm-generic/errno.h, negative.
const NOT_SUPPORTED: i32 = -95;
const NO_SUCH_DEVICE: i32 = -6;

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
        Ok(port) => {
            maps::count_forwarding(0);
            if let Some(handed) = maps::handed() {
                *handed = u64::from(port);
            }
            // SAFETY: the helper checks its arguments; it names the interface and no flags.
            (unsafe { bpf_redirect(port, 0) }) as u32
        }
        Err(kept) => {
            maps::count_forwarding(kept.row());
            if matches!(kept, Kept::Lost) {
                xdp_action::XDP_DROP
            } else {
                xdp_action::XDP_PASS
            }
        }
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

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_link(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((kernel, packet)) => forward::judge_link(&kernel, packet).to_bits(),
        None => Judgement::deny(conduitfw_common::Reason::EtherTypeNotAllowed, 0).to_bits(),
    }
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
    fn next_hop(&self, packet: &Packet, query: &Query) -> Result<NextHop, Kept> {
        let mut lookup = Lookup::new(packet, query);
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
    fn is_at_home(&self, ifindex: u32, vlans: u32, destination: &Address) -> bool {
        let Some(network) = maps::network(self.slot, destination) else {
            return false;
        };
        let mut key = InterfaceKey {
            slot: self.slot,
            ifindex,
            vlans,
        };
        let mut found = maps::interface(&key);
        if found.is_none() {
            key.vlans = ANY_VLANS;
            found = maps::interface(&key);
        }
        let zones = found.map_or(0, |interface| interface.zones);
        network.zone != GATEWAY_ZONE && zones >> (network.zone & 63) & 1 == 1
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
    words: [u32; 16],
}

impl Lookup {
    /// Where the two hardware addresses begin: source, then destination.
    const ADDRESSES: usize = 13;

    #[inline(always)]
    fn new(packet: &Packet, query: &Query) -> Self {
        let is_ipv4 = packet.ether_type == ethernet::IPV4;
        let family = if is_ipv4 { AF_INET } else { AF_INET6 };
        let [source_high, source_low] = packet.source_port.to_be_bytes();
        let [port_high, port_low] = packet.destination_port.to_be_bytes();
        let [bytes_0, bytes_1] = query.bytes.to_ne_bytes();
        let mut words = [0; 16];
        words[0] = u32::from_ne_bytes([family, packet.transport, source_high, source_low]);
        words[1] = u32::from_ne_bytes([port_high, port_low, bytes_0, bytes_1]);
        words[2] = query.device;
        words[3] = query.service;
        if is_ipv4 {
            words[4] = packet.source[3];
            words[8] = packet.destination[3];
        } else {
            // One by one: of a copied slice LLVM makes a call to `memcpy`.
            [words[4], words[5], words[6], words[7]] = packet.source;
            [words[8], words[9], words[10], words[11]] = packet.destination;
        }
        Self { words }
    }

    #[inline(always)]
    fn next_hop(&self) -> NextHop {
        let [s0, s1, s2, s3] = self.words[Self::ADDRESSES].to_ne_bytes();
        let [s4, s5, d0, d1] = self.words[Self::ADDRESSES + 1].to_ne_bytes();
        let [d2, d3, d4, d5] = self.words[Self::ADDRESSES + 2].to_ne_bytes();
        NextHop {
            device: self.words[2],
            addresses: [
                u32::from_be_bytes([d0, d1, d2, d3]),
                u32::from_be_bytes([d4, d5, s0, s1]),
                u32::from_be_bytes([s2, s3, s4, s5]),
            ],
        }
    }
}
