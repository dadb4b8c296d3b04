//! The stages that the verifier judges one by one: BTF global functions of scalars and the
//! context. Each finds what the frame has left so far in the workspace. A stage that does not read the
//! frame does not take the context: LLVM would pass whatever is in the register.

pub(crate) mod bytes;
pub(crate) mod flows;
pub(crate) mod modbus;
pub(crate) mod requests;

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    Reason, flow::entry::Stream, judgement::Judgement, packet::Packet, platform::Platform,
};

use crate::{
    frame::Frame,
    kernel::Kernel,
    maps::{self, Scratch},
};

/// The kernel and the stream of the flow at hand, for a stage that does not read the frame. One after
/// the other: of two looked up together LLVM does arithmetic on the one before it is known to exist
/// ("R1 pointer arithmetic on `map_value_or_null` prohibited", Linux 6.1 and 6.12).
#[inline(always)]
fn at_hand() -> Option<(Kernel, &'static mut Stream)> {
    let (kernel, _) = Kernel::new(Frame::ABSENT)?;
    let stream = maps::stream(kernel.seen().stream)?;
    Some((kernel, stream))
}

/// The kernel and the packet for a stage that is given where they are: one that is on the way of most
/// frames. The verifier wants to see that the pointer is one.
#[inline(always)]
fn given(context: *mut xdp_md, scratch: *mut Scratch) -> Option<(Kernel, &'static mut Packet)> {
    Some(Kernel::over(
        Frame::new(context),
        maps::scratch_at(scratch)?,
    ))
}

/// What a stage answers when there is no workspace, which cannot be.
const NOTHING: u64 = Judgement::deny(Reason::FlowBusy, 0).to_bits();

/// What a stage answers for a request when there is no workspace or no stream, which cannot be.
const UNREADABLE: u32 = Reason::TruncatedFrame as u32;
