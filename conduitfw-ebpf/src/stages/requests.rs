//! Stages of the requests that wait for a reply.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    edit,
    modbus::{outstanding, request},
    platform::Platform,
};

use super::UNREADABLE;
use crate::{frame::Frame, kernel::Kernel, maps};

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn accept_adu(sequence: u32, bytes: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => request::accept_adu(&mut kernel, sequence, bytes),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_request_place(limit: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::find_place(&mut kernel, limit),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn request_ends(row: u32, data_end: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::ends(&mut kernel, row, data_end),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn request_before(row: u32, start: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::before(&mut kernel, row, start),
        None => u32::MAX,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn request_doubts(row: u32, answered: u32, start: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::doubts(&mut kernel, row, answered, start),
        None => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_requests_back(sequence: u32) -> u32 {
    if let Some((mut kernel, _)) = Kernel::new(Frame::ABSENT) {
        outstanding::take_back(&mut kernel, sequence);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn split(data_end: u32, adu_start: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::split(&mut kernel, data_end, adu_start),
        None => u32::MAX,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn neutralise_adu(sequence: u32, bytes: u32, reason: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => u32::from(outstanding::neutralise(
            &mut kernel,
            sequence,
            bytes,
            reason,
        )),
        None => 0,
    }
}

/// Changes what the frame holds of one request of the stream at hand; answers what the checksum
/// changes by, or all ones when the frame cannot be changed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn edit_row(context: *mut xdp_md, row: u32, is_reply: u32) -> u32 {
    let mut frame = Frame::new(context);
    let Some((kernel, packet)) = Kernel::new(frame) else {
        return u32::MAX;
    };
    let Some(stream) = maps::stream(kernel.seen().stream) else {
        return u32::MAX;
    };
    let Some(request) = stream.outstanding.get(row as usize & 15) else {
        return u32::MAX;
    };
    edit::row(&mut frame, packet, request, is_reply != 0).unwrap_or(u32::MAX)
}
